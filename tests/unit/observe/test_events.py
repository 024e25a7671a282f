"""What happened: numbered, remembered within bounds, followed without slowing anybody."""

import asyncio

from gbgw.observe.events import BEHIND, REMEMBERED, Events, Happened


async def collect(events: Events, after: int | None, into: list[Happened]) -> None:
    async for event in events.follow(after):
        into.append(event)


async def test_live_and_remembered() -> None:
    events = Events()
    for number in range(5):
        events.emit("early", number=number)
    all_of_it: list[Happened] = []
    tail: list[Happened] = []
    live: list[Happened] = []
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(collect(events, 0, all_of_it))
        tasks.create_task(collect(events, 3, tail))
        tasks.create_task(collect(events, None, live))
        await asyncio.sleep(0)
        events.emit("late")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        events.close()
    assert [event.id for event in all_of_it] == [1, 2, 3, 4, 5, 6]
    assert [event.id for event in tail] == [4, 5, 6]
    assert [event.type for event in live] == ["late"]
    assert all_of_it[0].data == {"number": 0}


async def test_memory_is_bounded() -> None:
    events = Events()
    for _ in range(REMEMBERED + 10):
        events.emit("x")
    seen: list[Happened] = []
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(collect(events, 0, seen))
        await asyncio.sleep(0)
        events.close()
    assert seen[0].id == 11
    assert len(seen) == REMEMBERED


async def test_a_follower_that_lags_is_cut_off_and_may_resume() -> None:
    events = Events()
    seen: list[Happened] = []
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(collect(events, None, seen))
        await asyncio.sleep(0)
        for _ in range(BEHIND + 1):
            events.emit("x")
        await task
        assert seen == []
        assert not events._followers
        tasks.create_task(collect(events, 0, seen))
        await asyncio.sleep(0)
        events.close()
    assert len(seen) == BEHIND + 1


async def test_leaving_and_closing() -> None:
    events = Events()
    following = events.follow(0)
    events.emit("x")
    assert (await anext(following)).id == 1
    assert len(events._followers) == 1
    await following.aclose()  # type: ignore[attr-defined]
    assert not events._followers
    events.close()
    assert [event async for event in events.follow(0)] == []
