"""The fan-out against a feed and transports that only remember: slices, skipping, resuming, giving up, overrun."""

import asyncio
from typing import Any, cast

import pytest

from gbgw.base import limits
from gbgw.base.errors import GatewayError, MediaError
from gbgw.base.tally import Tally
from gbgw.mux.feed import Chunk, ChunkSink, Feed
from gbgw.serve.fanout import Connection, Fanout, Fanouts, plain, websocket_frame
from gbgw.serve.viewers import Viewer, Viewers

INIT = Chunk(b"init", is_init=True)
KEYFRAME = Chunk(b"KEY", starts_gop=True)


class FakeHandle:
    def __init__(self, feed: "FakeFeed", sink: ChunkSink) -> None:
        self._feed = feed
        self._sink = sink

    def detach(self) -> None:
        if self._sink in self._feed.sinks:
            self._feed.sinks.remove(self._sink)


class FakeFeed:
    """Hands a new sink its cache, as Feed does."""

    def __init__(self, *cache: Chunk) -> None:
        self.cache = list(cache)
        self.sinks: list[ChunkSink] = []

    def attach(self, sink: ChunkSink) -> FakeHandle:
        self.sinks.append(sink)
        for chunk in self.cache:
            sink.on_chunk(chunk)
        return FakeHandle(self, sink)

    def emit(self, *chunks: Chunk) -> None:
        for chunk in chunks:
            for sink in list(self.sinks):
                sink.on_chunk(chunk)


class FakeTransport:
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.size = 0
        self.aborted = False

    def get_extra_info(self, name: str) -> None:
        """No socket."""

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def get_write_buffer_size(self) -> int:
        return self.size

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    @property
    def data(self) -> bytes:
        return b"".join(self.written)


class Clock:
    """What Fanout needs of a loop."""

    def __init__(self) -> None:
        self.now = 0.0
        self.soon: list[Any] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Any) -> None:
        self.soon.append(callback)

    def turn(self) -> None:
        due, self.soon = self.soon, []
        for callback in due:
            callback()


class Bench:
    """One fan-out and its viewers."""

    def __init__(self, *cache: Chunk) -> None:
        self.feed = FakeFeed(*cache)
        self.clock = Clock()
        self.tally = Tally()
        self.idle: list[Fanout] = []
        self.ends: list[GatewayError | None] = []
        self.viewers = Viewers()
        self.fanout = Fanout(
            cast(Feed, self.feed),
            loop=cast(asyncio.AbstractEventLoop, self.clock),
            tally=self.tally,
            on_idle=self.idle.append,
        )

    def join(self, **options: Any) -> tuple[FakeTransport, Connection, Viewer]:
        transport = FakeTransport()
        viewer = self.viewers.add("K", "flv", "")
        connection = Connection(
            viewer, cast(asyncio.Transport, transport), on_end=self.ends.append, tally=self.tally, **options
        )
        self.fanout.add(connection)
        return transport, connection, viewer


def delta(number: int) -> Chunk:
    return Chunk(b"<%d>" % number)


def test_a_new_viewer_gets_the_cache_once_and_then_what_is_live() -> None:
    bench = Bench(INIT, KEYFRAME, delta(1))
    first, _, _ = bench.join()
    bench.feed.emit(delta(2))
    bench.feed.cache.append(delta(2))
    second, _, viewer = bench.join()
    bench.feed.emit(delta(3))
    assert first.data == second.data == b"initKEY<1><2><3>"
    assert viewer.bytes == len(second.data)


def test_without_a_cached_key_frame_a_viewer_waits_for_one() -> None:
    bench = Bench(INIT)
    transport, _, viewer = bench.join()
    bench.feed.emit(delta(1), delta(2), KEYFRAME, delta(3))
    assert transport.data == b"initKEY<3>"
    assert (viewer.dropped, viewer.skips) == (0, 0)  # it was not slow


def test_more_viewers_than_a_slice_take_turns_with_the_loop() -> None:
    bench = Bench(INIT, KEYFRAME)
    count = 2 * limits.FANOUT_SLICE + 1
    transports = [bench.join()[0] for _ in range(count)]
    bench.feed.emit(delta(1))

    def reached() -> int:
        return sum(transport.data.endswith(b"<1>") for transport in transports)

    assert reached() == limits.FANOUT_SLICE
    bench.feed.emit(delta(2))  # must not overtake
    assert reached() == limits.FANOUT_SLICE
    bench.clock.turn()
    assert reached() == 2 * limits.FANOUT_SLICE
    late, _, _ = bench.join()
    for _ in range(8):
        bench.clock.turn()
    assert {transport.data for transport in transports} == {b"initKEY<1><2>"}
    assert late.data == b"initKEY"  # chunks 1 and 2 were before it joined
    assert bench.clock.soon == []


def test_a_slow_viewer_skips_to_the_next_key_frame_once_drained() -> None:
    bench = Bench(INIT, KEYFRAME)
    slow, _, viewer = bench.join()
    other, _, _ = bench.join()
    slow.size = limits.VIEWER_BUFFER_BYTES + 1
    bench.feed.emit(delta(1), delta(2))
    bench.feed.emit(KEYFRAME)  # still full: not yet
    slow.size = 0
    bench.feed.emit(delta(3), KEYFRAME, delta(4))
    assert slow.data == b"initKEY" + b"KEY<4>"
    assert other.data == b"initKEY<1><2>KEY<3>KEY<4>"
    assert (viewer.dropped, viewer.skips) == (4, 1)
    assert bench.tally["http.viewer_skips"] == 1


def test_leading_pictures_are_nothing_for_who_came_in_at_their_key_frame() -> None:
    leading = Chunk(b"lead", is_leading=True)
    bench = Bench(INIT, KEYFRAME)
    transport, _, _ = bench.join()
    bench.feed.emit(leading, Chunk(b"sound"), leading, delta(1), leading, KEYFRAME, leading)
    assert transport.data == b"initKEYsound" + delta(1).data + b"KEYlead"
    transport.size = limits.VIEWER_BUFFER_BYTES + (8 << 20)
    bench.feed.emit(delta(2))
    transport.size = 0
    transport.written.clear()
    bench.feed.emit(leading, KEYFRAME, leading, delta(3), KEYFRAME, leading)
    assert transport.data == b"KEY" + delta(3).data + b"KEYlead"


def test_the_first_burst_is_not_held_against_a_viewer() -> None:
    bench = Bench(INIT, KEYFRAME)
    transport = FakeTransport()
    transport.size = burst = 3 * limits.VIEWER_BUFFER_BYTES
    viewer = bench.viewers.add("K", "flv", "")
    bench.fanout.add(
        Connection(viewer, cast(asyncio.Transport, transport), on_end=bench.ends.append, tally=bench.tally)
    )
    transport.size = burst + limits.VIEWER_BUFFER_BYTES
    bench.feed.emit(delta(1))
    assert viewer.skips == 0
    transport.size = 0
    bench.feed.emit(delta(2))
    transport.size = limits.VIEWER_BUFFER_BYTES + 1  # the allowance went with the burst
    bench.feed.emit(delta(3))
    assert transport.data == b"initKEY<1><2>"
    assert viewer.skips == 1


def test_a_new_init_reaches_the_slow_too() -> None:
    bench = Bench(INIT, KEYFRAME)
    slow, _, _ = bench.join()
    slow.size = limits.VIEWER_BUFFER_BYTES + 1
    bench.feed.emit(delta(1), Chunk(b"INIT2", is_init=True), KEYFRAME)
    slow.size = 0
    bench.feed.emit(delta(2), KEYFRAME)
    assert slow.data == b"initKEY" + b"INIT2" + b"KEY"


def test_a_viewer_that_takes_nothing_is_given_up() -> None:
    bench = Bench(INIT, KEYFRAME)
    slow, connection, _ = bench.join()
    slow.size = limits.VIEWER_BUFFER_BYTES + 10
    bench.feed.emit(delta(1))
    bench.clock.now = limits.VIEWER_STALL_SECONDS
    slow.size -= 5  # a little was read: its time begins again
    bench.feed.emit(delta(2))
    bench.clock.now = 2 * limits.VIEWER_STALL_SECONDS
    bench.feed.emit(delta(3))
    assert not slow.aborted
    bench.clock.now += 1
    bench.feed.emit(delta(4))
    assert slow.aborted
    assert connection.ended
    assert bench.ends == [None]


def test_the_end_is_told_once_and_cuts_those_behind() -> None:
    bench = Bench(INIT, KEYFRAME)
    slow, _, _ = bench.join()
    good, _, _ = bench.join()
    slow.size = limits.VIEWER_BUFFER_BYTES + 1
    bench.feed.emit(delta(1))
    cause = MediaError("x")
    bench.fanout.on_end(cause)
    assert bench.ends == [cause, cause]
    assert (slow.aborted, good.aborted) == (True, False)
    late, _, _ = bench.join()
    assert late.written == []
    assert bench.ends == [cause] * 3


def test_the_last_viewer_out_releases_the_feed() -> None:
    bench = Bench(INIT, KEYFRAME)
    _, first, _ = bench.join()
    transport, second, _ = bench.join()
    bench.fanout.remove(first)
    assert bench.idle == []
    bench.fanout.remove(second)
    bench.fanout.remove(second)
    assert bench.idle == [bench.fanout]
    assert bench.feed.sinks == []
    bench.feed.emit(delta(1))
    assert transport.data == b"initKEY"


def test_a_loop_that_cannot_follow_drops_to_the_next_key_frame() -> None:
    bench = Bench(INIT, KEYFRAME)
    transports = [bench.join()[0] for _ in range(limits.FANOUT_SLICE + 1)]
    for number in range(limits.FANOUT_PENDING + 2):
        bench.feed.emit(delta(number))
    assert bench.tally["http.fanout_overrun"] > limits.FANOUT_PENDING // 2
    assert len(bench.fanout._pending) <= limits.FANOUT_PENDING
    bench.feed.emit(KEYFRAME, Chunk(b"end"))
    while bench.clock.soon:
        bench.clock.turn()
    assert all(transport.data.endswith(b"KEYend") for transport in transports)
    assert len(transports[-1].data) < 100


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_websocket_frames_are_those_of_rfc_6455(size: int) -> None:
    frame = websocket_frame(bytes(size))
    assert frame[0] == 0x82
    length = frame[1]
    head = 2
    if length == 126:
        length, head = int.from_bytes(frame[2:4], "big"), 4
    elif length == 127:
        length, head = int.from_bytes(frame[2:10], "big"), 10
    assert (length, len(frame) - head) == (size, size)


def test_a_frame_is_made_once_for_all_websockets() -> None:
    bench = Bench(INIT, KEYFRAME)
    sockets = [bench.join(frame=websocket_frame)[0] for _ in range(3)]
    http = bench.join(frame=plain)[0]
    chunk = delta(1)
    bench.feed.emit(chunk)
    assert sockets[0].written[-1] is sockets[2].written[-1]
    assert http.written[-1] is chunk.data


async def test_fanouts_are_shared_by_feed_and_forgotten() -> None:
    feed = FakeFeed(INIT, KEYFRAME)
    fanouts = Fanouts(tally=Tally())
    fanout = fanouts.of(cast(Feed, feed))
    assert fanouts.of(cast(Feed, feed)) is fanout
    fanout.release_unused()
    assert len(fanouts) == 0
    assert feed.sinks == []
