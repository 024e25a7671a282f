"""What `make fuzz` reads from libFuzzer's log, and what it says of it."""

from pathlib import Path

import pytest

from tests.fuzz import __main__ as command
from tests.fuzz import campaign, targets
from tests.fuzz.campaign import Count

LOG = """\
INFO: Running with entropic power schedule (0xFF, 100).
INFO: Instrumenting gbgw.base
#25	INITED cov: 100 ft: 200 corp: 20/1234b exec/s: 0 rss: 60Mb
#400	NEW    cov: 110 ft: 230 corp: 21/1250b lim: 64 exec/s: 0 rss: 61Mb L: 8/64 MS: 1 ChangeBit-
#790	REDUCE cov: 110 ft: 230 corp: 21/1240b lim: 64 exec/s: 0 rss: 61Mb L: 8/64 MS: 1 EraseBytes-
#900	NEW    cov: 113 ft: 240 corp: 22/1260b lim: 64 exec/s: 0 rss: 61Mb L: 9/64 MS: 1 ChangeByte-
#1000	DONE   cov: 113 ft: 240 corp: 22/1260b lim: 64 exec/s: 500 rss: 61Mb
stat::number_of_executed_units: 1000
stat::average_exec_per_sec:     500
stat::new_units_added:          2
stat::slowest_unit_time_sec:    1
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
    assert count.new_edges_late == 3  # 110 at four fifths
    assert (count.slowest_seconds, count.peak_megabytes, count.per_second) == (1, 61, 500.0)
    assert count.finding == ""
    assert not any("Instrumenting" in line for line in count.tail)


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
    assert set(targets.NATIVE) <= set(targets.INPUT_BYTES)
    source = (targets.HERE / "native" / "native_targets.pyx").read_text()
    assert all(f"cdef int {name}(const uint8_t* data" in source for name in targets.NATIVE)
