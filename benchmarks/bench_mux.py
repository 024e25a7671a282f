"""gbgw's muxing of one unit against PyAV remuxing the same packets in one plain container, in one run.

The baseline ("ffmpeg") does what a file writer would: one joint container, FFmpeg's own interleaving, nothing cut apart
and nothing sent per unit. Ours sends every unit in the call that brought it and shares its bytes; the ratio says what
that costs. ms_per_stream_second is the figure of architecture.md decision 1.
"""

import io
from fractions import Fraction
from typing import Any

import av
import pytest

from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import AAC, H264
from gbgw.media.hub import Stream
from gbgw.media.track import Track
from gbgw.mux.container import FORMATS, open_writer
from gbgw.mux.feed import Chunk, Feeds
from gbgw.mux.hls import Segmenter
from gbgw.mux.pattern import PatternSpec
from gbgw.mux.transcode_child import AacEncoder
from tests.support.streams import published, timed_units

SPEC = PatternSpec(audio=AAC, width=1920, height=1080, seconds=4)
CONTAINERS = {"flv": "flv", "mp4": "mp4", "ts": "mpegts"}
OPTIONS = {
    "flv": {"flvflags": "no_duration_filesize"},
    "mp4": {"movflags": "empty_moov+default_base_moof+frag_keyframe"},
    "ts": {},
}


@pytest.fixture(scope="module")
def units() -> list[AccessUnit]:
    return timed_units(SPEC)


@pytest.fixture(scope="module")
def tracks(units: list[AccessUnit]) -> tuple[Track, ...]:
    return published(units, until=len(units)).tracks


def ours(name: str, tracks: tuple[Track, ...], units: list[AccessUnit]) -> int:
    writer = open_writer(FORMATS[name], tracks)
    by_id = {track.track_id: track for track in tracks}
    size = len(writer.init)
    for unit in units:
        for piece in writer.write(unit, by_id[unit.track_id], unit.pts or 0, unit.dts or 0):
            size += len(piece.data)
    return size + sum(len(piece.data) for piece in writer.close())


def plain(name: str, tracks: tuple[Track, ...], units: list[AccessUnit], templates: dict[int, Any]) -> int:
    file = io.BytesIO()
    with av.open(file, "w", format=CONTAINERS[name], options=OPTIONS[name]) as container:
        streams = {}
        for track in tracks:
            stream: Any = container.add_stream_from_template(templates[track.track_id], opaque=True)
            stream.time_base = Fraction(1, 90_000)
            streams[track.track_id] = stream
        for unit in units:
            packet: Any = av.Packet(bytes(unit))
            packet.stream = streams[unit.track_id]
            packet.time_base = Fraction(1, 90_000)
            packet.pts, packet.dts, packet.is_keyframe = unit.pts, unit.dts, unit.is_keyframe
            container.mux(packet)
    return file.getbuffer().nbytes


@pytest.fixture(scope="module")
def templates(tracks: tuple[Track, ...], units: list[AccessUnit]) -> Any:
    """Streams with the right parameters: those of a finished FLV of the same units."""
    writer = open_writer(FORMATS["flv"], tracks)
    by_id = {track.track_id: track for track in tracks}
    parts = [writer.init]
    for unit in units:
        parts += [piece.data for piece in writer.write(unit, by_id[unit.track_id], unit.pts or 0, unit.dts or 0)]
    with av.open(io.BytesIO(b"".join(parts))) as container:
        yield {by.track_id: getattr(container.streams, "video" if by.is_video else "audio")[0] for by in tracks}


@pytest.mark.parametrize("side", ["core", "ffmpeg"])
@pytest.mark.parametrize("name", ["flv", "mp4", "ts"])
def test_mux(
    benchmark: Any, name: str, side: str, units: list[AccessUnit], tracks: tuple[Track, ...], templates: Any
) -> None:
    benchmark.group = f"mux.{name}"
    size = sum(len(unit) for unit in units)
    if side == "core":
        written = benchmark(ours, name, tracks, units)
    else:
        written = benchmark(plain, name, tracks, units, templates)
    assert size * 0.95 < written < size * 2
    benchmark.extra_info["ms_per_stream_second"] = benchmark.stats["median"] / SPEC.seconds * 1e3
    benchmark.extra_info["us_per_unit"] = benchmark.stats["median"] / len(units) * 1e6


@pytest.mark.parametrize("viewers", [1, 100])
def test_feed_to_viewers(benchmark: Any, viewers: int, units: list[AccessUnit]) -> None:
    """Hub, muxer and hand-over, without sockets: what one more viewer costs before the kernel is asked."""

    class Viewer:
        taken = 0

        def on_chunk(self, chunk: Chunk) -> None:
            self.taken += len(chunk.data)

        def on_end(self, cause: object) -> None:
            self.taken += 0

    def run() -> int:
        stream = Stream("bench")
        feed = Feeds().get(stream, "flv")
        sinks = [Viewer() for _ in range(viewers)]
        for sink in sinks:
            feed.attach(sink)
        for unit in units:
            stream.push(unit, (unit.dts or 0) / 90_000)
        return sum(sink.taken for sink in sinks)

    assert benchmark(run) > sum(len(unit) for unit in units if unit.codec is H264) * viewers * 0.95
    benchmark.extra_info["ms_per_stream_second"] = benchmark.stats["median"] / SPEC.seconds * 1e3


@pytest.mark.parametrize("name", ["mp4", "ts"])
def test_hls(benchmark: Any, name: Any, units: list[AccessUnit]) -> None:
    def run() -> int:
        stream = Stream("bench")
        segmenter = Segmenter(name)
        Feeds().get(stream, name).attach(segmenter, splice=True)
        for unit in units:
            stream.push(unit, (unit.dts or 0) / 90_000)
        stream.close()
        return len(segmenter.playlist.segments)

    assert benchmark(run) == SPEC.seconds
    benchmark.extra_info["ms_per_stream_second"] = benchmark.stats["median"] / SPEC.seconds * 1e3


def test_g711_to_aac(benchmark: Any) -> None:
    """In the child; 2.4 ms a stream-second was the plan (architecture.md decision 9)."""
    encoder = AacEncoder("PCMA")
    pieces = [bytes((n * 7 + m) & 0xFF for m in range(320)) for n in range(100)]
    at = 0

    def run() -> int:
        nonlocal at
        made = 0
        for piece in pieces:
            made += len(encoder.push(piece, at))
            at += 3_600
        return made

    assert benchmark(run) > 25
    benchmark.extra_info["ms_per_stream_second"] = benchmark.stats["median"] / 4 * 1e3
