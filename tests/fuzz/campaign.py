"""One run of libFuzzer on one target, and what its own log says of it."""

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from tests.fuzz import instrumented, targets

WORK: Final = instrumented.ROOT / "build" / "fuzz"
SLOWEST_SECONDS: Final = 10  # for one input; the slowest takes milliseconds
MEMORY_MEGABYTES: Final = 2_048
MODEL_SECONDS: Final = 20.0  # the slow half of a native target, on what the run found
STATUS: Final = re.compile(r"^#(\d+)\s+\S+\s+cov: (\d+) ft: (\d+) corp: (\d+)")
STATISTIC: Final = re.compile(r"^stat::(\w+):\s+(\d+)")


@dataclass
class Count:
    """The tool's own counts of a run.

    cpu_seconds: of the process, its start and the reading of seeds included. edges: of the code under test, seen by all
    inputs. new_edges_late: how many of them only in the last fifth of the inputs. finding: the input that broke it.
    model_inputs: how many inputs of the corpus the model agreed on afterwards.
    """

    name: str
    inputs: int = 0
    cpu_seconds: float = 0.0
    edges: int = 0
    features: int = 0
    corpus: int = 0
    new_edges_late: int = 0
    slowest_seconds: int = 0
    peak_megabytes: int = 0
    model_inputs: int = 0
    finding: str = ""
    tail: list[str] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return self.inputs / self.cpu_seconds if self.cpu_seconds else 0.0

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "tail": [], "per_second": round(self.per_second)}


def run(name: str, *, seconds: int = 0, runs: int = 0, seed: int = 0, fixtures: Path | None = None) -> Count:
    """Fuzz one target for a time or a number of inputs, whichever comes first; 0 of both: until it is stopped."""
    folder = WORK / name
    folder.mkdir(parents=True, exist_ok=True)
    seeds = _seeds(name, fixtures)
    own = targets.HERE / "corpus" / name
    options = [
        *(f"-max_len={targets.input_bytes(name)}", f"-timeout={SLOWEST_SECONDS}", f"-rss_limit_mb={MEMORY_MEGABYTES}"),
        *("-print_final_stats=1", "-detect_leaks=0", "-use_value_profile=0", f"-artifact_prefix={own}/"),
        *([f"-max_total_time={seconds}"] if seconds else []),
        *([f"-runs={runs}"] if runs else []),
        *([f"-seed={seed}"] if seed else []),
        *([f"-dict={words}"] if (words := targets.HERE / "dictionaries" / f"{name}.dict").exists() else []),
        *map(str, (folder, own, seeds)),
    ]
    command, environment = _command(name)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(
        [*command, *options], env=environment, cwd=instrumented.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace",
    )  # fmt: skip
    count = Count(name)
    assert process.stdout is not None
    try:
        _read(count, process.stdout)
        code = process.wait()
    finally:
        process.kill()
        process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    count.cpu_seconds = round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1)
    if code and not count.finding:
        count.finding = f"exit {code}"
    if not count.finding and name in targets.NATIVE:
        _ask_the_model(count, folder)
    return count


def reproduce(name: str, path: str) -> str:
    """The command that runs a target on one input alone."""
    return f"python -m tests.fuzz {name} --input {path}"


def run_once(name: str, path: Path) -> int:
    command, environment = _command(name)
    return subprocess.run(
        [*command, str(path.resolve())], env=environment, cwd=instrumented.ROOT, check=False
    ).returncode


def _command(name: str) -> tuple[list[str], dict[str, str]]:
    if name not in targets.NATIVE:
        environment = {**os.environ, "PYTHONPATH": str(instrumented.ROOT)}
        return [sys.executable, "-m", "tests.fuzz.python_target", name], environment
    folder = instrumented.build("fuzzer")
    # A small quarantine stays in the cache of the processor: twice the speed, and still thousands of freed blocks.
    asan = f"{instrumented.OPTIONS['ASAN_OPTIONS']}:quarantine_size_mb=4:thread_local_quarantine_size_kb=64"
    environment = {
        **os.environ,
        **instrumented.OPTIONS,
        "ASAN_OPTIONS": asan.replace("detect_stack_use_after_return=1", "malloc_context_size=4"),
        "PYTHONMALLOC": "malloc",
        "GBGW_FUZZ_TARGET": name,
        "GBGW_FUZZ_PYTHON": sys.executable,
        "GBGW_FUZZ_PATH": str(folder),
        "GBGW_FUZZ_ROOT": str(instrumented.ROOT),
    }
    return [str(folder / instrumented.PROGRAM)], environment


def _read(count: Count, lines: Iterable[str]) -> None:
    seen: list[tuple[int, int]] = []
    for line in lines:
        if not line.startswith("INFO: Instrumenting"):
            count.tail = [*count.tail[-59:], line.rstrip()]
        if status := STATUS.match(line):
            count.inputs, count.edges, count.features, count.corpus = map(int, status.groups())
            seen.append((count.inputs, count.edges))
        elif statistic := STATISTIC.match(line):
            value = int(statistic[2])
            if statistic[1] == "number_of_executed_units":
                count.inputs = value
            elif statistic[1] == "peak_rss_mb":
                count.peak_megabytes = value
            elif statistic[1] == "slowest_unit_time_sec":
                count.slowest_seconds = value
        elif "Test unit written to" in line:
            count.finding = line.rpartition(" ")[2].strip()
    early = [edges for inputs, edges in seen if inputs <= 0.8 * count.inputs]
    count.new_edges_late = count.edges - max(early, default=0)


def _ask_the_model(count: Count, folder: Path) -> None:
    """The slow half of the target, on the ordinary cores, for what the quick half found worth keeping."""
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.replay",
        count.name,
        "--also",
        str(folder),
        f"--seconds={MODEL_SECONDS}",
    ]
    done = subprocess.run(command, cwd=instrumented.ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        count.finding = "the model disagrees"
        count.tail = done.stderr.splitlines()[-30:]
    else:
        count.model_inputs = int(done.stdout.rpartition(":")[2].strip(" }\n"))


def _seeds(name: str, fixtures: Path | None) -> Path:
    """A folder of pieces of the fixtures, outside the repository's files; empty without fixtures."""
    folder = WORK.parent / "fuzz-seeds" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if fixtures is not None:
        for number, data in enumerate(targets.from_fixtures(name, fixtures)):
            (folder / f"{number:05d}").write_bytes(data)
    return folder
