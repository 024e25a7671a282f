import asyncio

import pytest

from gbgw.base import limits
from gbgw.base.errors import LocalError
from gbgw.serve.turns import Turns


async def test_each_has_a_turn_of_the_loop_of_its_own_in_order() -> None:
    turns, loop = Turns(), asyncio.get_running_loop()
    seen: list[str] = []

    def other() -> None:
        seen.append("loop")
        if len(seen) < 12:
            loop.call_soon(other)

    for name in "abc":
        turns.want(lambda name=name: seen.append(name))  # type: ignore[misc]
    loop.call_soon(other)
    for _ in range(16):
        await asyncio.sleep(0)
    assert seen[:6] == ["a", "loop", "b", "loop", "c", "loop"]
    assert len(turns) == 0
    turns.want(lambda: seen.append("again"))
    await asyncio.sleep(0)
    assert seen[-1] == "again"


async def test_who_waits_is_let_in_one_by_one_and_who_left_is_passed_over() -> None:
    turns, order = Turns(), list[int]()

    async def come(number: int) -> None:
        await turns.mine()
        order.append(number)

    async with asyncio.TaskGroup() as group:
        coming = [group.create_task(come(number)) for number in range(4)]
        await asyncio.sleep(0)
        coming[1].cancel()
    assert order == [0, 2, 3]


async def test_a_mistake_in_one_turn_leaves_the_others_theirs() -> None:
    turns, loop, seen = Turns(), asyncio.get_running_loop(), list[str]()
    errors: list[object] = []
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))

    def broken() -> None:
        raise ValueError("broken")

    turns.want(broken)
    turns.want(lambda: seen.append("next"))
    for _ in range(3):
        await asyncio.sleep(0)
    assert seen == ["next"]
    assert [type(error) for error in errors] == [ValueError]


async def test_the_queue_is_bounded_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WEBRTC_WAITING", 2)
    turns, seen = Turns(), list[int]()
    for number in range(2):
        turns.want(lambda number=number: seen.append(number))  # type: ignore[misc]
    with pytest.raises(LocalError) as caught:
        await turns.mine()
    assert caught.value.code == "webrtc_busy"
    turns.close()
    for _ in range(4):
        await asyncio.sleep(0)
    assert seen == []
    assert len(turns) == 0
