"""What `make fuzz` reads from libFuzzer's log, and what it says of it."""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.fuzz import __main__ as command
from tests.fuzz import campaign, targets
from tests.fuzz.campaign import Count
from tests.fuzz.python_target import timed

LOG = """\
INFO: Running with entropic power schedule (0xFF, 100).
INFO: Instrumenting gbgw.base
#25	INITED cov: 100 ft: 200 corp: 20/1234b exec/s: 0 rss: 60Mb
#400	NEW    cov: 110 ft: 230 corp: 21/1250b lim: 64 exec/s: 0 rss: 61Mb L: 8/64 MS: 1 ChangeBit-
#790	REDUCE cov: 110 ft: 230 corp: 21/1240b lim: 64 exec/s: 0 rss: 61Mb L: 8/64 MS: 1 EraseBytes-
gbgw-fuzz: slowest input so far: 2 ms
gbgw-fuzz: slowest input so far: 3 ms
#900	NEW    cov: 113 ft: 240 corp: 22/1260b lim: 64 exec/s: 0 rss: 61Mb L: 9/64 MS: 1 ChangeByte-
#1000	DONE   cov: 113 ft: 240 corp: 22/1260b lim: 64 exec/s: 500 rss: 61Mb
stat::number_of_executed_units: 1000
stat::average_exec_per_sec:     500
stat::new_units_added:          2
stat::peak_rss_mb:              61
"""
CRASH = "artifact_prefix='corpus/ps/'; Test unit written to corpus/ps/crash-0123\n"


def read(log: str) -> Count:
    count = Count("ps", cpu_seconds=2.0)
    campaign._read(count, log.splitlines(keepends=True))
    return count


def test_the_counts_are_the_tools_own() -> None:
    count = read(LOG)
    assert (count.inputs, count.edges, count.features, count.corpus) == (1_000, 113, 240, 22)
    assert (count.early_edges, count.rises) == (110, [(25, 100), (400, 110), (900, 113)])
    assert (count.slowest_milliseconds, count.peak_megabytes, count.per_second) == (3, 61, 500.0)
    assert count.finding == ""
    assert not any("Instrumenting" in line for line in count.tail)


def test_runs_one_after_the_other_are_one() -> None:
    both = read(LOG).then(read(LOG.replace("cov: 113", "cov: 115")))
    assert (both.inputs, both.edges, both.cpu_seconds) == (2_000, 115, 4.0)
    assert both.rises == [(25, 100), (400, 110), (900, 113), (1_900, 115)]  # what was seen before is not new
    assert both.early_edges == 113
    assert read(LOG).then(read(LOG)).early_edges == 113


def test_a_campaign_goes_on_where_it_was_interrupted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[int] = []

    def once(name: str, *, runs: int, **_: object) -> Count:
        asked.append(runs)
        stopped = len(asked) == 3
        return Count(name, inputs=50_000 if stopped else runs, interrupted=stopped, edges=10, rises=[(1, 10)])

    monkeypatch.setattr(campaign, "WORK", tmp_path)
    monkeypatch.setattr(campaign, "_once", once)
    monkeypatch.setattr(campaign, "code_of", lambda name: "this code")
    assert campaign.run("sip", runs=1_000_000).interrupted
    assert campaign.recall("sip", "this code").inputs == 450_000
    assert campaign.run("sip", runs=1_000_000).inputs == 1_000_000
    assert asked == [*[200_000] * 5, 150_000]
    assert campaign.run("sip", runs=1_000_000).inputs == 1_000_000
    assert len(asked) == 6
    monkeypatch.setattr(campaign, "code_of", lambda name: "other code")
    assert campaign.run("sip", runs=10).inputs == 10


def test_what_an_interrupted_run_counted_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process that says a line, is told to stop, and says its last counts then."""
    first, last = LOG.partition("#900")[0], LOG[LOG.index("#1000") :]
    program = (
        "import signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
        f"print({first!r}, flush=True)\n"
        "signal.sigwait([signal.SIGTERM])\n"
        f"print({last!r}, flush=True)\n"
    )
    read_all = campaign._read
    seen: list[str] = []

    def read(count: Count, lines: Iterable[str]) -> None:
        def stopped() -> Iterator[str]:
            for line in lines:
                seen.append(line)
                yield line
                if line.startswith("#790") and sum(one.startswith("#790") for one in seen) == 1:
                    raise KeyboardInterrupt

        read_all(count, stopped())

    monkeypatch.setattr(campaign, "WORK", tmp_path / "fuzz")
    monkeypatch.setattr(campaign, "_read", read)
    monkeypatch.setattr(campaign, "_command", lambda name: ([sys.executable, "-c", program], dict(os.environ)))
    count = campaign._once("sip", seconds=0, runs=0, seed=0, fixtures=None)
    assert (count.interrupted, count.inputs, count.edges, count.finding) == (True, 1_000, 113, "")
    assert count.peak_megabytes == 61


def test_the_code_under_test_is_told_from_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert campaign.code_of("flv") == campaign.code_of("flv") != campaign.code_of("webrtc")
    names = [path.name for path in campaign._modules("sdp")]
    assert {"fuzz_sdp.py", "sdp.py", "limits.py"} <= set(names)
    assert "flv.py" not in names  # which a session description has nothing to do with
    module = tmp_path / "one.py"
    monkeypatch.setattr(campaign, "_modules", lambda name: [module])
    module.write_text("one")
    before = campaign.code_of("sdp")
    assert campaign.code_of("sdp") == before
    module.write_text("two")
    assert campaign.code_of("sdp") != before


def test_the_slowest_input_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def work(data: bytes) -> None:
        sum(range(len(data) * 100_000))

    check = timed(work)
    for count in (100, 1, 200):
        check(bytes(count))
    log = capsys.readouterr().err.splitlines()
    assert len(log) == 2
    assert read("\n".join(log)).slowest_milliseconds == read(log[1]).slowest_milliseconds > 1


def test_a_finding_is_named_with_its_file() -> None:
    assert read(LOG + CRASH).finding == "corpus/ps/crash-0123"


def test_the_table_is_markdown_with_a_row_for_each_target() -> None:
    lines = command.table([read(LOG), read(LOG + CRASH)]).splitlines()
    assert len({line.count("|") for line in lines[:4]}) == 1
    assert lines[2].split("|")[2].strip() == "1,000"
    assert lines[3].split("|")[-2].strip() == "corpus/ps/crash-0123"
    assert lines[-1] == "2,000 inputs, 4 s of CPU"


@pytest.mark.parametrize("finding", ["", "the model disagrees"])
def test_a_finding_fails_the_command(monkeypatch: pytest.MonkeyPatch, finding: str, tmp_path: Path) -> None:
    monkeypatch.setattr(campaign, "run", lambda name, **_: Count(name, finding=finding))
    log = tmp_path / "counts"
    assert command.main(["ps", "sip", "--runs=1", f"--log={log}"]) == (1 if finding else 0)
    assert len(log.read_text().splitlines()) == 2


def test_there_is_no_target_of_another_name() -> None:
    with pytest.raises(SystemExit):
        command.main(["nonsense"])


def test_every_native_target_has_both_halves_and_a_length() -> None:
    assert set(targets.NATIVE) <= set(targets.TARGETS)
    assert set(targets.NATIVE) == set(targets.CORES_OF) <= set(targets.INPUT_BYTES)
    source = (targets.HERE / "native" / "native_targets.pyx").read_text()
    assert all(f"cdef int {name}(const uint8_t* data" in source for name in targets.NATIVE)
