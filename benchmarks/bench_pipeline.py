"""The whole way of a picture in one process, without sockets: RTP datagrams -> Receiver -> Stream -> FLV -> viewers.

The stream is what a camera sends: 1080p at 25 pictures and a constant 4 Mbit/s (the test pattern, filled up with filler
NAL units as constant bitrate encoders do) with AAC, program stream packs in RTP packets of 1,400 bytes. The baseline
("ffmpeg") is FFmpeg's demuxer and muxer through PyAV on the same program stream, into one memory file: no RTP, no order
to restore, no time line, no viewers, so it does less. ms_per_stream_second is CPU for one second of one stream.
"""

import asyncio
import io
import random
from typing import Any

import av
import pytest

from gbgw._ps import AccessUnit as Unit
from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import AAC, H264
from gbgw.media.hub import Stream
from gbgw.mux import ps
from gbgw.mux.feed import Chunk, Feeds
from gbgw.mux.pattern import PatternSpec, pattern_loop
from gbgw.net.receiver import Receiver, new_fold
from tests.support import build

SPEC = PatternSpec(audio=AAC, width=1920, height=1080, seconds=8)
SSRC = 0x0BEB_C201
PICTURE_BYTES = 20_000  # 4 Mbit/s
FILLER = b"\0\0\0\1\x0c"  # H.264 NAL unit type 12


class Viewer:
    """A ChunkSink that counts."""

    def __init__(self) -> None:
        self.bytes = 0
        self.ends = 0

    def on_chunk(self, chunk: Chunk) -> None:
        self.bytes += len(chunk.data)

    def on_end(self, cause: object) -> None:
        self.ends += 1


@pytest.fixture(scope="module")
def units() -> tuple[AccessUnit, ...]:
    rng = random.Random(28181)
    return tuple(filled(unit, rng) for unit in pattern_loop(SPEC).units)


def filled(unit: AccessUnit, rng: random.Random) -> AccessUnit:
    """Bring a picture up to PICTURE_BYTES; the filler has no zero, so no start code by accident."""
    data = bytes(unit)
    if unit.codec is not H264 or len(data) >= PICTURE_BYTES:
        return unit
    data += FILLER + rng.randbytes(PICTURE_BYTES - len(data)).replace(b"\0", b"\xff")
    return Unit(
        data,
        H264,
        unit.pts,
        unit.dts,
        is_keyframe=unit.is_keyframe,
        parameter_sets=unit.parameter_sets,
        track_id=unit.track_id,
    )


@pytest.fixture(scope="module")
def packs(units: tuple[AccessUnit, ...]) -> list[tuple[int, bytes]]:
    """(decoding time in ticks, pack) of each unit."""
    muxer = ps.Muxer(H264, AAC)
    return [(unit.dts or 0, muxer.push(unit)) for unit in units]


@pytest.fixture(scope="module")
def datagrams(packs: list[tuple[int, bytes]]) -> list[tuple[float, bytes]]:
    """(seconds, datagram): what a socket would give."""
    out: list[tuple[float, bytes]] = []
    for dts, pack in packs:
        out += [(dts / 90_000, packet) for packet in build.rtp_run(pack, len(out), dts, SSRC)]
    return out


async def gateway(datagrams: list[tuple[float, bytes]], viewers: int) -> int:
    stream = Stream("bench")
    receiver = Receiver(stream, asyncio.get_running_loop(), fold=new_fold(SSRC))
    feed = Feeds().get(stream, "flv")
    sinks = [Viewer() for _ in range(viewers)]
    for sink in sinks:
        feed.attach(sink)
    for now, datagram in datagrams:
        receiver.push_rtp(datagram, now)
    receiver.close()
    stream.close()
    assert all(sink.ends == 1 and sink.bytes == sinks[0].bytes for sink in sinks)
    return sinks[0].bytes


def plain(program_stream: bytes) -> int:
    """What FFmpeg does with `-f mpeg -i - -c copy -f flv`."""
    file = io.BytesIO()
    with (
        av.open(io.BytesIO(program_stream), "r", format="mpeg") as source,
        av.open(file, "w", format="flv", options={"flvflags": "no_duration_filesize"}) as target,
    ):
        streams: dict[int, Any] = {
            stream.index: target.add_stream_from_template(stream, opaque=True)
            for stream in source.streams
            if stream.type in ("video", "audio")
        }
        for packet in source.demux():
            if packet.size and packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    return file.getbuffer().nbytes


@pytest.mark.benchmark(group="pipeline.flv")
@pytest.mark.parametrize("side", ["core", "ffmpeg"])
def test_one_viewer(
    benchmark: Any,
    side: str,
    datagrams: list[tuple[float, bytes]],
    packs: list[tuple[int, bytes]],
    units: tuple[AccessUnit, ...],
) -> None:
    sent = sum(len(bytes(unit)) for unit in units if unit.codec is H264)
    if side == "core":
        with asyncio.Runner() as runner:
            written = benchmark(lambda: runner.run(gateway(datagrams, 1)))
    else:
        written = benchmark(plain, b"".join(pack for _, pack in packs))
    assert sent * 0.95 < written < sent * 2
    _figures(benchmark, datagrams)


@pytest.mark.benchmark(group="pipeline.viewers")
@pytest.mark.parametrize("viewers", [10, 100])
def test_many_viewers(benchmark: Any, viewers: int, datagrams: list[tuple[float, bytes]]) -> None:
    """The bytes are shared: what more viewers cost before the kernel is asked."""
    with asyncio.Runner() as runner:
        assert benchmark(lambda: runner.run(gateway(datagrams, viewers))) > 0
    _figures(benchmark, datagrams)


def _figures(benchmark: Any, datagrams: list[tuple[float, bytes]]) -> None:
    seconds = benchmark.stats["median"]
    benchmark.extra_info["ms_per_stream_second"] = seconds / SPEC.seconds * 1e3
    benchmark.extra_info["us_per_datagram"] = seconds / len(datagrams) * 1e6
    benchmark.extra_info["Mbit/s"] = sum(len(datagram) for _, datagram in datagrams) * 8 / SPEC.seconds / 1e6
