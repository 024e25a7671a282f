"""Turns: in the call while there is time, then slice by slice with the loop in between, then at their own time."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from gbgw.base import limits
from gbgw.serve.pacer import EARLY_SECONDS, Pacer
from tests.unit.serve.support import until


@dataclass(eq=False)
class One:
    """Takes `left` turns, `wait` seconds apart."""

    name: str
    log: list[str]
    left: int = 1
    wait: float = 0.0
    is_planned: bool = False
    times: list[tuple[float, int]] = field(default_factory=list)

    def turn(self, now: float, send_time: int) -> float | None:
        self.log.append(self.name)
        self.times.append((now, send_time))
        self.left -= 1
        return now + self.wait if self.left > 0 else None


@pytest.fixture
async def pacer() -> AsyncIterator[Pacer]:
    made = Pacer()
    yield made
    made.close()


async def test_the_first_turn_is_in_the_call(pacer: Pacer) -> None:
    log: list[str] = []
    one = One("a", log)
    pacer.want(one)
    assert log == ["a"]
    assert not one.is_planned
    assert 0 <= one.times[0][1] < 1 << 24


async def test_what_exceeds_the_slice_lets_the_loop_in(pacer: Pacer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no time at all one turn, then the loop's; a second burst comes behind the first ones of the others."""
    monkeypatch.setattr(limits, "WEBRTC_SLICE_SECONDS", 0.0)
    log: list[str] = []
    for one in (One("a", log, left=2), One("b", log), One("c", log)):
        pacer.want(one)
        pacer.want(one)  # once is enough
    assert log == []
    loop = asyncio.get_running_loop()

    def tick() -> None:
        log.append("-")
        if log.count("-") < 6:
            loop.call_soon(tick)

    loop.call_soon(tick)
    await until(lambda: log.count("-") == 6)
    assert "".join(log) == "a-b-c-a---"


async def test_an_allowance_is_of_one_turn_of_the_loop(pacer: Pacer, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(pacer, "_clock", lambda: clock[0])
    log: list[str] = []

    class Slow(One):
        def turn(self, now: float, send_time: int) -> float | None:
            clock[0] += limits.WEBRTC_SLICE_SECONDS * 0.6
            return super().turn(now, send_time)

    for name in "abcde":
        pacer.want(Slow(name, log))
    assert log == ["a", "b"]
    await asyncio.sleep(0)
    assert log == ["a", "b", "c", "d"]
    await asyncio.sleep(0)
    assert log == ["a", "b", "c", "d", "e"]


async def test_each_comes_again_at_its_time(pacer: Pacer) -> None:
    log: list[str] = []
    slow, fast = One("s", log, left=2, wait=0.04), One("f", log, left=3, wait=0.005)
    pacer.want(slow)
    pacer.want(fast)
    await until(lambda: len(log) == 5)
    assert (log.count("s"), log.count("f")) == (2, 3)
    for one in (slow, fast):
        moments = [moment for moment, _ in one.times]
        assert all(after - before >= one.wait - EARLY_SECONDS for before, after in pairwise(moments))
    assert pacer._later == []


async def test_a_mistake_in_one_turn_takes_nobody_his(pacer: Pacer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WEBRTC_SLICE_SECONDS", 0.0)
    caught: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: caught.append(context["exception"]))
    log: list[str] = []

    class Wrong(One):
        def turn(self, now: float, send_time: int) -> float | None:
            raise RuntimeError

    pacer.want(Wrong("w", log))
    pacer.want(One("a", log))
    await until(lambda: log == ["a"])
    assert [type(error) for error in caught] == [RuntimeError]


async def test_after_the_end_nobody_has_a_turn(pacer: Pacer, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    pacer.want(One("later", log, left=2, wait=0.001))
    monkeypatch.setattr(limits, "WEBRTC_SLICE_SECONDS", 0.0)
    pacer.want(One("soon", log))
    pacer.close()
    await asyncio.sleep(0.02)
    assert log == ["later"]
