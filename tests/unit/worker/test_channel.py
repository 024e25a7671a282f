"""Questions and answers over a real socket pair, and the end of one."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gbgw.base import limits
from gbgw.base.errors import LimitError, LocalError
from gbgw.worker.channel import Channel
from gbgw.worker.protocol import Done, Message, ProtocolError, Settled, Sit, Step, Stop


class End:
    def __init__(self) -> None:
        self.heard: list[Message] = []
        self.lost: list[str] = []
        self.news = asyncio.Event()
        self.channel = Channel(self.on_message, self.on_lost)

    def on_message(self, message: Message) -> None:
        self.heard.append(message)
        self.news.set()

    def on_lost(self, reason: str) -> None:
        self.lost.append(reason)
        self.news.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.heard) + len(self.lost) < count:
                self.news.clear()
                await self.news.wait()


@asynccontextmanager
async def ends() -> AsyncIterator[tuple[End, End, socket.socket]]:
    """Two ends; the second one's socket as well, for those who speak nonsense."""
    left, right = socket.socketpair()
    one, other = End(), End()
    await one.channel.open(left)
    await other.channel.open(right)
    try:
        yield one, other, right
    finally:
        one.channel.close()
        other.channel.close()


async def test_messages_arrive_in_order() -> None:
    async with ends() as (one, other, _):
        sent = [Step(number, "published", 1.0) for number in range(300)]
        for message in sent:
            one.channel.send(message)
        await other.until(300)
        assert other.heard == sent
        assert (one.lost, other.lost) == ([], [])


async def test_each_question_gets_its_own_answer() -> None:
    async with ends() as (one, other, _):
        asking = asyncio.gather(
            *(one.channel.ask(Sit(number, "K", ask=number), Done) for number in (1, 2, 3)), return_exceptions=True
        )
        await other.until(3)
        other.channel.answer(2, value=20)
        other.channel.answer(3, LimitError("full", code="viewer_limit"))
        other.channel.answer(1, value=10)
        first, second, refused = await asking
        assert (first, second) == (Done(1, 10), Done(2, 20))
        assert isinstance(refused, LimitError)
        assert refused.code == "viewer_limit"


async def test_an_answer_that_is_late_or_of_another_kind() -> None:
    async with ends() as (one, other, _):
        with pytest.raises(LocalError) as slow:
            await one.channel.ask(Sit(1, "K", ask=1), Done, 0.01)
        assert slow.value.code == "worker_slow"
        await other.until(1)
        other.channel.answer(1)  # nobody waits for it
        async with asyncio.timeout(5):
            with pytest.raises(ProtocolError):
                await asyncio.gather(one.channel.ask(Sit(2, "K", ask=2), Settled), answer(other, 2))


async def answer(end: End, ask: int) -> None:
    await end.until(2)
    end.channel.answer(ask)


async def test_the_end_of_one_is_told_once_and_to_all_who_wait() -> None:
    async with ends() as (one, other, _):
        asking = asyncio.gather(
            one.channel.ask(Sit(1, "K", ask=1), Done), one.channel.ask(Sit(2, "K", ask=2), Done), return_exceptions=True
        )
        await other.until(2)
        other.channel.close()
        results = await asking
        assert [result.code for result in results if isinstance(result, LocalError)] == ["worker_lost"] * 2
        assert len(one.lost) == 1
        assert other.lost == []
        assert not one.channel.is_open
        one.channel.send(Stop())
        with pytest.raises(LocalError):
            await one.channel.ask(Sit(3, "K", ask=3), Done)


async def test_nonsense_ends_it() -> None:
    async with ends() as (one, other, _):
        transport = other.channel._transport
        assert transport is not None
        transport.write(b"\0\0\0\2{}")
        await one.until(1)
        assert "nobody knows" in one.lost[0]


async def test_an_end_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WORKER_PENDING_BYTES", 1 << 20)
    left, right = socket.socketpair()
    one = End()
    await one.channel.open(left)
    with right:
        for _ in range(200):
            one.channel.send(Step(1, "x" * 50_000, 1.0))
        assert one.lost == ["it does not read what it is told"]


async def test_finish_says_everything_first() -> None:
    async with ends() as (one, other, _):
        for number in range(100):
            one.channel.send(Step(number, "y" * 10_000, 1.0))
        await one.channel.finish()
        await other.until(101)
        assert len(other.heard) == 100
