"""What the event loop does for each access unit, with everything before it done: events of the fold -> Receiver ->
time line -> Stream -> (FLV) -> nobody. The receive thread's part is filled in beforehand and not timed.

Thirty streams take turns, as they do behind a receive thread, so that none finds its own data in the nearest cache.
us_per_unit is the figure; loop_ms_per_stream_second is that of 25 pictures and 25 sounds a second.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from gbgw.base.codec import H264, PCMA
from gbgw.media.hub import Stream
from gbgw.mux import ps
from gbgw.mux.feed import Chunk, Feeds
from gbgw.mux.loop import Player
from gbgw.mux.pattern import PatternSpec, pattern_loop
from gbgw.net.receiver import Receiver, new_fold
from tests.support import build

STREAMS = 30
SPEC = PatternSpec(audio=PCMA, width=1920, height=1080, seconds=4)


class Nobody:
    def on_chunk(self, chunk: Chunk) -> None: ...
    def on_end(self, cause: object) -> None: ...


def datagrams() -> Iterator[list[bytes]]:
    """Those of one unit at a time, for ever."""
    muxer, sequence = ps.Muxer(H264, PCMA), 0
    player = Player(pattern_loop(SPEC))
    while True:
        due = player.take()
        made = build.rtp_run(muxer.push(due.unit), sequence, due.at, 0)
        sequence += len(made)
        yield made


@pytest.mark.parametrize("muxed", ["nothing", "flv"])
def test_one_turn_of_every_stream(benchmark: Any, muxed: str) -> None:
    feeds = Feeds()

    async def open_all() -> list[Receiver]:
        made = []
        for number in range(STREAMS):
            stream = Stream(str(number), on_published=attach if muxed == "flv" else None)
            one = Receiver(stream, asyncio.get_running_loop(), fold=new_fold(0))
            one.is_driven = True
            made.append(one)
        return made

    def attach(stream: Stream) -> None:
        feeds.get(stream, "flv").attach(Nobody())

    with asyncio.Runner() as runner:
        receivers = runner.run(open_all())
        source = datagrams()
        now = 0.0

        def fill() -> None:
            nonlocal now
            now += 0.02
            for datagram in next(source):
                for one in receivers:
                    one.fold.push(datagram, now)

        def turn() -> None:
            for one in receivers:
                one.take(now)

        async def measure() -> None:
            for _ in range(2 * 50 * SPEC.seconds):
                fill()
                turn()
            benchmark.pedantic(turn, setup=fill, rounds=1_000)

        runner.run(measure())
        for one in receivers:
            one.close()
    assert all(one.stream.units > 1_000 for one in receivers)
    benchmark.extra_info["us_per_unit"] = benchmark.stats["median"] / STREAMS * 1e6
    benchmark.extra_info["loop_ms_per_stream_second"] = benchmark.stats["median"] / STREAMS * 50 * 1e3
