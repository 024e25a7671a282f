"""Replay of the corpora and fixtures through every target, in this process.

`python -m tests.fuzz.replay [--sanitized] [--fixtures FOLDER] [--seconds N] [--also FOLDER] [NAME...]` prints a line
of JSON, {target: inputs}, at the end. With --sanitized, on the instrumented cores of GBGW_FUZZ_PATH, the native targets
too: the ordinary suite runs it so under AddressSanitizer. `--plant WHERE` makes a mistake that this must not survive.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.fuzz import instrumented, targets


def inputs(name: str, fixtures: Path | None, also: Path | None) -> Iterator[tuple[str, bytes]]:
    """(where it is from, input)."""
    yield "empty", b""
    for path in targets.corpus(name):
        yield str(path), path.read_bytes()
    if fixtures is not None:
        for number, data in enumerate(targets.from_fixtures(name, fixtures)):
            yield f"fixtures #{number}", data
    if also is not None:
        for path in sorted(also.iterdir()):
            yield str(path), path.read_bytes()


def replay(name: str, checks: list[Callable[[bytes], None]], found: Iterator[tuple[str, bytes]], until: float) -> int:
    """Give inputs to all checks until they or the time are at an end; return how many there were."""
    count = 0
    for place, data in found:
        for check in checks:
            try:
                check(data)
            except BaseException as error:
                error.add_note(f"target {name}, input {place}")
                raise
        count += 1
        if time.monotonic() > until:
            break
    return count


def main(arguments: list[str]) -> None:
    options = argparse.ArgumentParser(prog="python -m tests.fuzz.replay")
    options.add_argument("names", nargs="*", default=targets.TARGETS)
    options.add_argument("--sanitized", action="store_true")
    options.add_argument("--fixtures", type=Path)
    options.add_argument("--also", type=Path)
    options.add_argument("--seconds", type=float, default=3_600.0, help="for each target")
    options.add_argument("--plant")
    wanted = options.parse_args(arguments)
    if wanted.sanitized:
        instrumented.use(os.environ["GBGW_FUZZ_PATH"])
        import native_targets  # type: ignore[import-not-found]

        if wanted.plant:
            native_targets.plant(wanted.plant)
    counts = {}
    for name in wanted.names:
        checks = [targets.check_of(name)]
        if wanted.sanitized and name in targets.NATIVE:
            checks.append(lambda data, name=name: native_targets.run(name, data))  # type: ignore[misc]
        counts[name] = replay(
            name, checks, inputs(name, wanted.fixtures, wanted.also), time.monotonic() + wanted.seconds
        )
    print(json.dumps(counts))


if __name__ == "__main__":
    main(sys.argv[1:])
