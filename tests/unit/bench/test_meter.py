import os
import subprocess
import sys

import pytest

from gbgw.bench.meter import Meter, Sample, rate, thread_rates


def test_work_is_measured_and_idleness_is_not() -> None:
    meter = Meter(os.getpid())
    first = meter.sample()
    burnt = os.times()
    goal = burnt.user + burnt.system + 0.3
    while (used := os.times()).user + used.system < goal:
        sum(range(10_000))
    last = meter.sample()
    assert 0.25 <= last.cpu - first.cpu <= 2.0
    assert rate(first, last) <= 1_100


def test_children_count() -> None:
    code = "import sys; sys.stdin.read(1); n = sum(range(20_000_000)); print(n, flush=True); sys.stdin.read(1)"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        meter = Meter(os.getpid())
        assert child.pid in meter.processes()
        before = Meter(child.pid).sample()
        child.stdin.write(b"x")
        child.stdout.readline()
        after = Meter(child.pid).sample()
        memory = Meter(child.pid).memory()
        assert after.cpu - before.cpu > 0.05
        assert 1 << 20 < memory.pss <= memory.rss
        child.stdin.write(b"x")
    with pytest.raises(LookupError):
        Meter(child.pid).sample()


def test_rates() -> None:
    first = Sample(10.0, 1.0, {"main thread": 1.0})
    last = Sample(12.0, 1.5, {"main thread": 1.4, "other threads": 0.1})
    assert rate(first, last) == 250.0
    assert list(thread_rates(first, last)) == ["main thread", "other threads"]
    assert thread_rates(first, last)["main thread"] == pytest.approx(200.0)
