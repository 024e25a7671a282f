"""The shell: events in order, deadlines kept, other tasks not starved."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

from gbgw.base.machine import TICK, Tick
from gbgw.net.drive import BURST, drive


class Recorder:
    """Echoes its events; is finished after "end"; fires "late" when its deadline passes."""

    def __init__(self, at: float | None = None) -> None:
        self.deadline = at
        self.finished = False
        self.times: list[float] = []

    def push(self, event: str | Tick, now: float) -> Sequence[str]:
        self.times.append(now)
        made = []
        if self.deadline is not None and now >= self.deadline:
            self.deadline = None
            made.append("late")
        if event is not TICK:
            assert isinstance(event, str)
            made.append(event)
            self.finished = event == "end"
        return made


async def test_events_in_order_until_finished() -> None:
    inbox: asyncio.Queue[str] = asyncio.Queue()
    for word in ("a", "b", "end", "never"):
        inbox.put_nowait(word)
    out: list[str] = []
    await drive(Recorder(), inbox, out.append)
    assert out == ["a", "b", "end"]
    assert inbox.qsize() == 1


async def test_effects_that_wait_are_awaited_one_by_one() -> None:
    inbox: asyncio.Queue[str] = asyncio.Queue()
    out: list[str] = []

    async def perform(effect: str) -> None:
        out.append(f"<{effect}")
        await asyncio.sleep(0)
        out.append(f"{effect}>")

    inbox.put_nowait("a")
    inbox.put_nowait("end")
    await drive(Recorder(), inbox, perform)
    assert out == ["<a", "a>", "<end", "end>"]


async def test_a_deadline_fires_without_an_event_and_before_a_later_one() -> None:
    loop = asyncio.get_running_loop()
    machine = Recorder(loop.time() + 0.02)
    inbox: asyncio.Queue[str] = asyncio.Queue()
    out: list[str] = []
    loop.call_later(0.05, inbox.put_nowait, "end")
    await drive(machine, inbox, out.append)
    assert out == ["late", "end"]
    assert len(machine.times) == 2


async def test_a_full_inbox_does_not_keep_the_loop() -> None:
    inbox: asyncio.Queue[str] = asyncio.Queue()
    for _ in range(3 * BURST):
        inbox.put_nowait("x")
    inbox.put_nowait("end")
    out: list[str] = []
    turns: list[int] = []

    async def watch() -> None:
        while len(out) < 3 * BURST:
            turns.append(len(out))
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        group.create_task(drive(Recorder(), inbox, out.append))
    assert max(later - earlier for earlier, later in pairwise(turns)) <= BURST


async def test_cancelling_stops_it_and_loses_nothing() -> None:
    inbox: asyncio.Queue[str] = asyncio.Queue()
    out: list[str] = []
    async with asyncio.TaskGroup() as group:
        task = group.create_task(drive(Recorder(), inbox, out.append))
        await asyncio.sleep(0)
        task.cancel()
    inbox.put_nowait("left")
    assert out == []
    assert inbox.qsize() == 1
