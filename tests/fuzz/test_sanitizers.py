"""The cores and SIP under AddressSanitizer and UndefinedBehaviorSanitizer, on every corpus and the fixtures.

A subprocess with the sanitizers' runtime before everything else replays all targets on cores that are instrumented, the
native targets among them, and runs the cores' unit tests. Planted mistakes show that it would tell.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import instrumented, targets

UNIT_TESTS = (
    "tests/unit/test_ps.py",
    "tests/unit/test_rtp.py",
    "tests/unit/test_webrtc_core.py",
    "tests/unit/test_flv_core.py",
    "tests/unit/test_fanout_core.py",
    "tests/unit/test_timeline_core.py",
    "tests/unit/test_drift.py",
    "tests/unit/test_witness.py",
    "tests/unit/test_vectors.py",
)
SUITE = """
import os, pytest, sys
from tests.fuzz import instrumented
instrumented.use(os.environ["GBGW_FUZZ_PATH"])
sys.exit(pytest.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Of a process that can import the instrumented cores; built at their first use, and again when they change."""
    return instrumented.environment(instrumented.build("address"), instrumented.compiler("address"))


def run(environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        env=environment,
        cwd=instrumented.ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.timeout(300)  # the first run compiles
def test_every_corpus_and_fixture_is_clean(environment: dict[str, str]) -> None:
    fixtures = Path(os.environ.get("GBGW_FIXTURES") or instrumented.ROOT.parent / "shared" / "fixtures")
    real = ["--fixtures", str(fixtures)] if fixtures.is_dir() else []
    done = run(environment, "-m", "tests.fuzz.replay", "--sanitized", *real)
    assert done.returncode == 0, done.stderr[-6_000:]
    counts = json.loads(done.stdout)
    assert set(counts) == set(targets.TARGETS)
    assert all(counts[name] > len(targets.corpus(name)) for name in counts)


def test_the_cores_unit_tests_are_clean(environment: dict[str, str]) -> None:
    arguments = ["-q", "-x", "-p", "no:cacheprovider", "-k", "not model", *UNIT_TESTS]
    done = run(environment, "-c", SUITE, *arguments)
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-6_000:]


@pytest.mark.parametrize("core", ["_ps", "_rtp", "_receiver", "_webrtc", "_flv"])
def test_a_read_past_the_end_is_found_in_each_core(environment: dict[str, str], core: str) -> None:
    done = run(environment, "-m", "tests.fuzz.replay", "--sanitized", "--plant", core, "adts")
    assert done.returncode == instrumented.EXIT_CODE, done.stderr
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr
    frames = [line for line in done.stderr.splitlines() if line.lstrip().startswith(("#0 ", "#1 ", "#2 ", "#3 "))]
    assert any(f"/{core}.c" in frame for frame in frames), frames


def test_undefined_behaviour_is_found(environment: dict[str, str]) -> None:
    done = run(environment, "-m", "tests.fuzz.replay", "--sanitized", "--plant", "undefined", "adts")
    assert done.returncode == instrumented.EXIT_CODE, done.stderr
    assert "signed integer overflow" in done.stderr


def test_each_core_is_built_with_both_sanitizers(environment: dict[str, str]) -> None:
    for core in instrumented.CORES:
        (module,) = (Path(environment["GBGW_FUZZ_PATH"]) / "gbgw").glob(f"{core}.*.so")
        symbols = module.read_bytes()
        assert b"__asan_report_" in symbols, core
        assert b"__ubsan_handle_" in symbols, core


def test_without_a_mistake_nothing_is_found(environment: dict[str, str]) -> None:
    done = run(environment, "-m", "tests.fuzz.replay", "--sanitized", "adts")
    assert (done.returncode, done.stderr) == (0, "")
