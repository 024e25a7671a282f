"""Runs of libFuzzer on one target, and what its own log says of them.

What was counted is kept in build/fuzz/NAME.json for as long as the code under test is the same, so that a campaign can
be interrupted: a later run goes on from its corpus and adds to its counts.
"""

import hashlib
import json
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
SLICES: Final = 5  # of a number of inputs: what an interrupted run loses at most
SLICE_INPUTS: Final = 100_000  # the start of a process is not worth less
STATUS: Final = re.compile(r"^#(\d+)\s+\S+\s+cov: (\d+) ft: (\d+) corp: (\d+)")
STATISTIC: Final = re.compile(r"^stat::(\w+):\s+(\d+)")
SLOWEST: Final = re.compile(r"^gbgw-fuzz: slowest input so far: (\d+) ms")


@dataclass
class Count:
    """The tool's own counts of one run, or of several one after the other.

    cpu_seconds: of the processes, their start and the reading of seeds included. edges: of the code under test, seen by
    all inputs. rises: (inputs, edges) wherever edges were seen for the first time. slowest_milliseconds: CPU time of
    one input. finding: the input that broke it. model_inputs: how many inputs of the corpus the model agreed on
    afterwards.
    """

    name: str
    inputs: int = 0
    cpu_seconds: float = 0.0
    edges: int = 0
    features: int = 0
    corpus: int = 0
    slowest_milliseconds: int = 0
    peak_megabytes: int = 0
    model_inputs: int = 0
    finding: str = ""
    interrupted: bool = False
    rises: list[tuple[int, int]] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return self.inputs / self.cpu_seconds if self.cpu_seconds else 0.0

    @property
    def early_edges(self) -> int:
        """Those seen by the first four fifths of the inputs."""
        return max((edges for inputs, edges in self.rises if inputs <= 0.8 * self.inputs), default=0)

    def then(self, later: "Count") -> "Count":
        """Both together. An edge that the later run did not see again is not forgotten, nor counted twice."""
        rises = list(self.rises)
        for inputs, edges in later.rises:
            if not rises or edges > rises[-1][1]:
                rises.append((self.inputs + inputs, edges))
        return Count(
            self.name,
            self.inputs + later.inputs,
            round(self.cpu_seconds + later.cpu_seconds, 1),
            max(self.edges, later.edges),
            max(self.features, later.features),
            later.corpus,
            max(self.slowest_milliseconds, later.slowest_milliseconds),
            max(self.peak_megabytes, later.peak_megabytes),
            later.model_inputs,
            later.finding,
            later.interrupted,
            rises,
            later.tail,
        )


def run(name: str, *, seconds: int = 0, runs: int = 0, seed: int = 0, fixtures: Path | None = None) -> Count:
    """Fuzz one target until it has had so many inputs, those of earlier runs on the same code included, or for a time;
    0 of both: until it is stopped. KeyboardInterrupt stops it and is in the result; what was counted is kept.
    """
    while True:
        code = code_of(name)  # it may change meanwhile: then what was counted is of the past
        count = recall(name, code)
        lacking = runs - count.inputs if runs else 0
        if runs and lacking <= 0:
            return count
        part = min(lacking, max(SLICE_INPUTS, -(-runs // SLICES)))
        found = _once(name, seconds=seconds, runs=part, seed=seed + count.inputs if seed else 0, fixtures=fixtures)
        count = count.then(found)
        is_last = not runs or bool(count.finding) or count.interrupted or count.inputs >= runs
        if name in targets.NATIVE and is_last and not count.finding and not count.interrupted:
            _ask_the_model(count, WORK / name)
        remember(count, code)
        if is_last:
            return count


def code_of(name: str) -> str:
    """Tells one state of the code under test, and of its target, from another."""
    found = hashlib.sha256(sys.version.encode())
    for path in _cores(name) if name in targets.NATIVE else _modules(name):
        found.update(path.name.encode() + path.read_bytes())
    if name in targets.NATIVE:
        found.update(_section(name).encode())
    return found.hexdigest()


def _cores(name: str) -> list[Path]:
    """The sources of the cores that a native target runs, and of its program."""
    package = instrumented.ROOT / "gbgw"
    sources = [package / f"{core}{suffix}" for core in targets.CORES_OF[name] for suffix in (".pyx", ".pxd")]
    return [*sources, package / "_bytes.pxd", targets.HERE / "native" / "main.c"]


def _section(name: str) -> str:
    """What native_targets.pyx says between two headings about a target and its kin."""
    sections = (targets.HERE / "native" / "native_targets.pyx").read_text().split("\n# --- ")
    return next(one for one in sections if f"cdef int {name}(const uint8_t* data" in one)


def _modules(name: str) -> list[Path]:
    """The files of gbgw that a Python target imports, and its own."""
    program = (
        "import sys; from tests.fuzz.targets import check_of; check_of(sys.argv[1])\n"
        "print(*(file for one in sys.modules.values() if (file := getattr(one, '__file__', None))), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, name], cwd=instrumented.ROOT, capture_output=True, text=True, check=True
    )
    loaded = [Path(line) for line in done.stdout.splitlines()]
    package = [path for path in loaded if path.suffix == ".py" and path.is_relative_to(instrumented.ROOT / "gbgw")]
    return sorted([*package, targets.HERE / f"fuzz_{name}.py"])


def recall(name: str, code: str) -> Count:
    """What earlier runs counted on this code."""
    path = WORK / f"{name}.json"
    if not path.exists():
        return Count(name)
    kept = json.loads(path.read_text())
    if kept.pop("code") != code:
        return Count(name)
    return Count(**{**kept, "rises": [(inputs, edges) for inputs, edges in kept["rises"]]})


def remember(count: Count, code: str) -> None:
    """A finding is not kept: its input is a file of the corpus, which every run begins with."""
    WORK.mkdir(parents=True, exist_ok=True)
    kept = {**asdict(count), "code": code, "tail": [], "finding": "", "interrupted": False}
    (WORK / f"{count.name}.json").write_text(json.dumps(kept))


def _once(name: str, *, seconds: int, runs: int, seed: int, fixtures: Path | None) -> Count:
    """One process."""
    folder = WORK / name
    folder.mkdir(parents=True, exist_ok=True)
    seeds = _seeds(name, fixtures)
    own = targets.HERE / "corpus" / name
    options = [
        *(f"-max_len={targets.input_bytes(name)}", f"-timeout={SLOWEST_SECONDS}", f"-rss_limit_mb={MEMORY_MEGABYTES}"),
        *("-print_final_stats=1", "-detect_leaks=0", "-use_value_profile=0", f"-artifact_prefix={own}/"),
        # The entropic schedule counts features over the whole corpus at each input: more than half of the time of ps.
        *("-entropic=0", "-reload=0"),
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
        try:
            _read(count, process.stdout)
        except KeyboardInterrupt:
            count.interrupted = True
            process.terminate()  # it tells its counts before it ends
            _read(count, process.stdout)
        code = 0 if count.interrupted else process.wait()
    finally:
        process.kill()
        process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    count.cpu_seconds = round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1)
    if code and not count.finding:
        count.finding = f"exit {code}"
    return count


def reproduce(name: str, path: str) -> str:
    """The command that runs a target on one input alone."""
    return f"python -m tests.fuzz {name} --input {path}"


def run_once(name: str, path: Path) -> int:
    command, environment = _command(name)
    if name in targets.NATIVE:
        environment["ASAN_OPTIONS"] += ":malloc_context_size=30"
    return subprocess.run(
        [*command, str(path.resolve())], env=environment, cwd=instrumented.ROOT, check=False
    ).returncode


def _command(name: str) -> tuple[list[str], dict[str, str]]:
    if name not in targets.NATIVE:
        environment = {**os.environ, "PYTHONPATH": str(instrumented.ROOT)}
        return [sys.executable, "-m", "tests.fuzz.python_target", name], environment
    folder = instrumented.build("fuzzer")
    # A small quarantine stays in the cache of the processor: twice the speed, and still thousands of freed blocks.
    # Where a block was made is told in full by `--input`, which asks for it.
    asan = instrumented.OPTIONS["ASAN_OPTIONS"].replace("detect_stack_use_after_return=1", "malloc_context_size=1")
    asan += ":max_malloc_fill_size=64:quarantine_size_mb=4:thread_local_quarantine_size_kb=64"
    environment = {
        **os.environ,
        **instrumented.OPTIONS,
        "ASAN_OPTIONS": asan,
        "PYTHONMALLOC": "malloc",
        "GBGW_FUZZ_TARGET": name,
        "GBGW_FUZZ_PYTHON": sys.executable,
        "GBGW_FUZZ_PATH": str(folder),
        "GBGW_FUZZ_ROOT": str(instrumented.ROOT),
    }
    return [str(folder / instrumented.PROGRAM)], environment


def _read(count: Count, lines: Iterable[str]) -> None:
    for line in lines:
        if not line.startswith("INFO: Instrumenting"):
            count.tail = [*count.tail[-59:], line.rstrip()]
        if status := STATUS.match(line):
            count.inputs, edges, count.features, count.corpus = map(int, status.groups())
            if edges > count.edges:
                count.edges = edges
                count.rises.append((count.inputs, edges))
        elif statistic := STATISTIC.match(line):
            value = int(statistic[2])
            if statistic[1] == "number_of_executed_units":
                count.inputs = value
            elif statistic[1] == "peak_rss_mb":
                count.peak_megabytes = value
        elif slowest := SLOWEST.match(line):
            count.slowest_milliseconds = int(slowest[1])
        elif "Test unit written to" in line:
            count.finding = line.rpartition(" ")[2].strip()


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
