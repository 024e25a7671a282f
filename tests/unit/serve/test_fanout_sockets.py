"""The fan-out on real sockets of both loops: whoever reads, however slowly, gets whole chunks in order."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
import uvloop

from gbgw.base.tally import Tally
from gbgw.mux.feed import Chunk, Feed
from gbgw.serve.fanout import Connection, Fanout, plain, websocket_frame
from gbgw.serve.viewers import Viewers
from tests.unit.serve.test_fanout import INIT, FakeFeed

END = b"END!"
Scene = Callable[[Fanout, FakeFeed, list[Connection], list[socket.socket]], Awaitable[None]]


class Nobody(asyncio.Protocol):
    """Reads nothing: the viewers only listen."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


def chunks(count: int, size: int) -> list[Chunk]:
    return [Chunk(bytes((at % 251,)) * (size + at), starts_gop=at == 0, dts=at) for at in range(count)]


async def play(viewers: int, scene: Scene) -> Tally:
    tally, feed, rows = Tally(), FakeFeed(INIT), Viewers()
    loop = asyncio.get_running_loop()
    fanout = Fanout(cast(Feed, feed), loop=loop, tally=tally, on_idle=lambda one: None)
    connections, readers, transports = [], [], []
    for number in range(viewers):
        near, far = socket.socketpair()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
        near.setblocking(False)
        far.setblocking(False)
        transport, _ = await loop.connect_accepted_socket(Nobody, near)
        viewer = rows.add("cam", "flv", "192.0.2.1", wanted="")
        frame = websocket_frame if number % 3 == 2 else plain
        connection = Connection(viewer, transport, frame=frame, on_end=lambda cause: None, tally=tally)
        fanout.add(connection)
        connections.append(connection)
        readers.append(far)
        transports.append(transport)
    try:
        await scene(fanout, feed, connections, readers)
    finally:
        for transport in transports:
            transport.abort()
        for reader in readers:
            reader.close()
    return tally


async def read_to(reader: socket.socket, end: bytes, most: int = 65_536) -> bytes:
    data = b""
    while not data.endswith(end):
        found = await asyncio.get_running_loop().sock_recv(reader, most)
        assert found, "closed before the end"
        data += found
    return data


@pytest.mark.parametrize("new_loop", [asyncio.SelectorEventLoop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
class TestRealSockets:
    def test_slow_readers_get_what_quick_ones_get(self, new_loop: Any) -> None:
        sent = [*chunks(120, 3_000), Chunk(END, dts=999)]

        async def scene(
            fanout: Fanout, feed: FakeFeed, connections: list[Connection], readers: list[socket.socket]
        ) -> None:
            async with asyncio.TaskGroup() as group:
                reading = [
                    group.create_task(read_to(reader, END, 700 if at % 2 else 65_536))
                    for at, reader in enumerate(readers)
                ]
                for chunk in sent:
                    feed.emit(chunk)
                    await asyncio.sleep(0)
            for connection, task in zip(connections, reading, strict=True):
                expected = b"".join(connection.frame(chunk.data) for chunk in [INIT, *sent])
                assert task.result() == expected
                assert connection.viewer.bytes == len(expected)
                assert connection.viewer.skips == 0

        with asyncio.Runner(loop_factory=new_loop) as runner:
            tally = runner.run(play(6, scene))
        assert tally["http.viewer_skips"] == 0

    def test_what_others_write_on_a_transport_keeps_its_place(self, new_loop: Any) -> None:
        """As a pong does between two frames, whether its bytes have left or not."""

        async def scene(
            fanout: Fanout, feed: FakeFeed, connections: list[Connection], readers: list[socket.socket]
        ) -> None:
            expected = b"init"
            for at, chunk in enumerate(chunks(40, 900)):
                feed.emit(chunk)
                expected += chunk.data
                connections[0]._transport.write(b"<%d>" % at)
                expected += b"<%d>" % at
                if at % 4 == 0:
                    await asyncio.sleep(0)
            connections[0]._transport.write(END)
            assert await read_to(readers[0], END, 500) == expected + END

        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(play(1, scene))

    def test_a_viewer_that_has_gone_harms_no_other(self, new_loop: Any) -> None:
        async def scene(
            fanout: Fanout, feed: FakeFeed, connections: list[Connection], readers: list[socket.socket]
        ) -> None:
            gone = cast(Nobody, connections[1]._transport.get_protocol())
            readers[1].close()
            sent = [*chunks(10, 100), Chunk(END, dts=99)]
            for chunk in sent:
                feed.emit(chunk)
                await asyncio.sleep(0)
            whole = b"".join(chunk.data for chunk in [INIT, *sent])
            assert await read_to(readers[0], END) == whole
            await gone.lost.wait()

        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(play(2, scene))
