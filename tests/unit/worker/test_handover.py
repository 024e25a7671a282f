"""A connection goes to another owner with what was read from it; nothing is lost and nothing stays open."""

import asyncio
import os
import socket

import pytest

from gbgw.base import limits
from gbgw.base.errors import LocalError
from gbgw.base.tally import Tally
from gbgw.worker.handover import Handover, Landing, pair


class Landed:
    def __init__(self) -> None:
        self.connections: list[tuple[socket.socket, bytes]] = []
        self.news = asyncio.Event()

    def take(self, connection: socket.socket, head: bytes) -> None:
        self.connections.append((connection, head))
        self.news.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.connections) < count:
                self.news.clear()
                await self.news.wait()

    def close(self) -> None:
        for connection, _ in self.connections:
            connection.close()


async def test_connections_arrive_with_their_heads() -> None:
    ours, theirs = pair()
    handover, landed = Handover(), Landed()
    handover.open(ours)
    with Landing(theirs, landed.take, Tally()):
        for head in (b"GET / HTTP/1.1\r\n\r\n", b"", b"x" * limits.WORKER_HEAD_BYTES):
            near, far = socket.socketpair()
            with near:
                with far:
                    await handover.send(far, head)
                await landed.until(1)
                ((connection, got),) = landed.connections
                assert got == head
                near.sendall(b"after")  # our copy of its other end is closed, the connection is not
                assert connection.recv(5) == b"after"
                assert not connection.getblocking()
                assert not os.get_inheritable(connection.fileno())
            landed.close()
            landed.connections.clear()
        handover.close()


async def test_a_flood_waits_for_the_one_who_takes_it() -> None:
    ours, theirs = pair()
    handover, landed = Handover(), Landed()
    handover.open(ours)
    near, far = socket.socketpair()
    with near, far:
        async with asyncio.TaskGroup() as tasks:
            for number in range(300):
                tasks.create_task(handover.send(far, b"%4d" % number + b"h" * 8_000), name="test:send")
            await asyncio.sleep(0)
            with Landing(theirs, landed.take, Tally()):
                await landed.until(300)
        assert [int(head[:4]) for _, head in landed.connections] == list(range(300))
        landed.close()
    handover.close()


async def test_one_that_takes_nothing_and_one_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WORKER_ANSWER_SECONDS", 0.05)
    ours, theirs = pair()
    handover = Handover()
    handover.open(ours)
    near, far = socket.socketpair()
    with near, far:

        async def flood() -> None:
            while True:
                await handover.send(far, b"h" * 8_000)

        with pytest.raises(LocalError) as slow:
            await flood()
        assert slow.value.code == "worker_slow"
        theirs.close()
        with pytest.raises(LocalError) as gone:
            await handover.send(far, b"h")
        assert gone.value.code == "worker_lost"
        handover.close()
        handover.close()
        with pytest.raises(LocalError):
            await handover.send(far, b"h")


async def test_closing_ends_who_waits() -> None:
    ours, theirs = pair()
    handover = Handover()
    handover.open(ours)
    near, far = socket.socketpair()
    with near, far, theirs:

        async def fill() -> None:
            while True:
                await handover.send(far, b"h" * 8_000)

        filling = asyncio.gather(fill(), return_exceptions=True)
        async with asyncio.timeout(5):
            while handover._writable is None:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0)
        handover.close()
        (ended,) = await filling
        assert isinstance(ended, LocalError)
        assert ended.code == "worker_lost"


async def test_a_message_without_a_descriptor_is_counted() -> None:
    ours, theirs = pair()
    tally, landed = Tally(), Landed()
    with ours, Landing(theirs, landed.take, tally):
        ours.send(b"no descriptor")
        async with asyncio.timeout(5):
            while not tally["worker.handover_failed"]:  # noqa: ASYNC110 - a tally tells nobody
                await asyncio.sleep(0)
        assert landed.connections == []
