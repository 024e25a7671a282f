"""The oldest generation is looked through when it pays, and the interpreter gets its own rule back."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from gbgw.base import limits
from gbgw.base.tally import Tally
from gbgw.observe import garbage as module
from gbgw.observe.garbage import Garbage


class Knot:
    def __init__(self) -> None:
        self.own = self


@pytest.fixture
def tally() -> Iterator[Tally]:
    before = gc.get_threshold()
    yield Tally()
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def middle_collections(count: int) -> None:
    for _ in range(count):
        gc.collect(1)


def old_knot() -> weakref.ref[Knot]:
    """Garbage that only the oldest generation's collection finds."""
    knot = Knot()
    gc.collect(1)
    known = weakref.ref(knot)
    del knot
    middle_collections(2)
    assert known() is not None
    return known


def test_nothing_is_looked_for_while_nothing_was_made(tally: Tally) -> None:
    with Garbage(tally) as garbage:
        assert gc.get_freeze_count() > 0
        known = old_knot()
        assert garbage.look() == limits.GARBAGE_SECONDS
        assert tally["garbage.collections"] == 0
        assert known() is not None


def test_cycles_are_found_and_counted(tally: Tally) -> None:
    with Garbage(tally) as garbage:
        known = old_knot()
        middle_collections(limits.GARBAGE_ROUNDS)
        assert garbage.look() >= limits.GARBAGE_SECONDS
        assert known() is None
        assert tally["garbage.collections"] == 1
        assert tally["garbage.objects"] >= 1


def test_a_long_look_is_not_repeated_soon(tally: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 10.5])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(times))
    with Garbage(tally) as garbage:
        middle_collections(limits.GARBAGE_ROUNDS)
        assert garbage.look() == pytest.approx(0.5 / limits.GARBAGE_SHARE)


def test_the_interpreter_leaves_the_oldest_alone(tally: Tally) -> None:
    with Garbage(tally):
        young, middle, oldest = gc.get_threshold()
        assert oldest > 1_000_000
    assert gc.get_threshold()[:2] == (young, middle)
