"""`make fuzz`: all targets, or those named, for a time or a number of inputs, and a table of the tool's counts.

    python -m tests.fuzz [NAME...] [--seconds N | --runs N] [--log FILE]      goes on where an earlier run ended
    python -m tests.fuzz NAME --input FILE      one input alone, to reproduce a finding

Exits with 1 at a finding; its input is then a file of tests/fuzz/corpus/NAME.
"""

import argparse
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from tests.fuzz import campaign, instrumented, targets
from tests.fuzz.campaign import Count

COLUMNS = (
    *("target", "inputs", "inputs/CPU s", "edges at 4/5", "edges", "corpus", "model"),
    *("slowest ms", "peak MB", "finding"),
)


def row(count: Count) -> tuple[str, ...]:
    return (
        *(count.name, f"{count.inputs:,}", f"{count.per_second:,.0f}", str(count.early_edges), str(count.edges)),
        *(str(count.corpus), str(count.model_inputs or "-"), str(count.slowest_milliseconds)),
        *(str(count.peak_megabytes), count.finding or "none"),
    )


def table(counts: list[Count]) -> str:
    """Markdown, so that it can go into docs/fuzzing.md as it is."""
    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *map(row, counts)]
    widths = [max(len(one[column]) for one in rows) for column in range(len(COLUMNS))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(one, widths, strict=True)) + " |" for one in rows
    ]
    total = sum(count.inputs for count in counts)
    return "\n".join([*lines, "", f"{total:,} inputs, {sum(count.cpu_seconds for count in counts):,.0f} s of CPU"])


def report(count: Count) -> None:
    print("\n".join(count.tail), file=sys.stderr)
    print(f"\n== {count.name}: {count.finding}", file=sys.stderr)
    if Path(count.finding).exists():
        path = os.path.relpath(count.finding, instrumented.ROOT)
        print(f"   reproduce: {campaign.reproduce(count.name, path)}", file=sys.stderr)


def main(arguments: list[str]) -> int:
    options = argparse.ArgumentParser(prog="python -m tests.fuzz")
    options.add_argument("names", nargs="*", metavar="NAME", help=" ".join(targets.TARGETS))
    options.add_argument("--seconds", type=int, default=0, help="for each target")
    options.add_argument("--runs", type=int, default=0, help="inputs for each target, earlier ones included")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--log", type=Path, help="one line of JSON is appended for each target")
    options.add_argument("--input", type=Path)
    wanted = options.parse_args(arguments)
    unknown = set(wanted.names) - set(targets.TARGETS)
    if unknown:
        options.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(targets.TARGETS)}")
    if wanted.input:
        return campaign.run_once(wanted.names[0], wanted.input)
    folder = Path(os.environ.get("GBGW_FIXTURES") or instrumented.ROOT.parent / "shared" / "fixtures")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    counts: list[Count] = []
    for name in wanted.names or (*targets.NATIVE, *targets.PYTHON):
        print(f"== {name}", file=sys.stderr, flush=True)
        count = campaign.run(
            name,
            seconds=wanted.seconds,
            runs=wanted.runs,
            seed=wanted.seed,
            fixtures=folder if folder.is_dir() else None,
        )
        counts.append(count)
        if wanted.log:
            with wanted.log.open("a") as file:
                file.write(json.dumps({**asdict(count), "tail": []}) + "\n")
        if count.finding:
            report(count)
        if count.interrupted:
            break
    print(table(counts))
    return 1 if any(count.finding for count in counts) else 130 if counts[-1].interrupted else 0


if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
    except instrumented.BuildError as error:
        code = 2
        print(error, file=sys.stderr)
    sys.exit(code)
