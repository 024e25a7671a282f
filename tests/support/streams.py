"""Published Streams with known content, and what FFmpeg's libraries read back out of what gbgw muxed."""

import io
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av

from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import AUDIO, Codec
from gbgw.base.errors import GatewayError
from gbgw.base.ticks import HZ
from gbgw.media.hub import Stream
from gbgw.media.timeline import Timeline
from gbgw.media.track import Track
from gbgw.mux.feed import Chunk
from gbgw.mux.pattern import PatternSpec, pattern_loop


def timed_units(spec: PatternSpec) -> list[AccessUnit]:
    """One round of the pattern as it leaves the Timeline: what a Stream is fed with."""
    timeline = Timeline()
    return [out for unit in pattern_loop(spec).units for out in timeline.push(unit, (unit.dts or 0) / HZ)]


def feed(stream: Stream, units: Sequence[AccessUnit]) -> None:
    for unit in units:
        stream.push(unit, (unit.dts or 0) / HZ)


def published(units: Sequence[AccessUnit], *, until: int) -> Stream:
    """A Stream that got the first `until` units, announced sound included."""
    stream = Stream("34020000001320000001-34020000001310000001")
    stream.promise(any(unit.codec.kind is AUDIO for unit in units))
    feed(stream, units[:until])
    assert stream.published
    return stream


@dataclass
class Viewer:
    """A ChunkSink that keeps everything."""

    chunks: list[Chunk] = field(default_factory=list)
    ends: list[GatewayError | None] = field(default_factory=list)

    def on_chunk(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)

    def on_end(self, cause: GatewayError | None) -> None:
        self.ends.append(cause)

    @property
    def data(self) -> bytes:
        return b"".join(chunk.data for chunk in self.chunks)


@dataclass
class UnitSink:
    """A Sink of a Stream that keeps everything."""

    tracks: list[tuple[Track, ...]] = field(default_factory=list)
    units: list[AccessUnit] = field(default_factory=list)
    ends: list[GatewayError | None] = field(default_factory=list)

    def on_tracks(self, tracks: tuple[Track, ...], generation: int) -> None:
        self.tracks.append(tracks)

    def on_unit(self, unit: AccessUnit, track: Track) -> None:
        self.units.append(unit)

    def on_end(self, cause: GatewayError | None) -> None:
        self.ends.append(cause)


@dataclass(frozen=True)
class Read:
    """A packet as FFmpeg's demuxer gives it. Times in milliseconds."""

    kind: str
    codec: str
    pts: float
    dts: float
    is_keyframe: bool
    data: bytes


def read_back(data: bytes, **options: Any) -> list[Read]:
    """Every packet in the bytes, in their order, by PyAV (FFmpeg 8)."""
    found = []
    with av.open(io.BytesIO(data), **options) as container:
        for packet in container.demux():
            if packet.size:
                stream: Any = packet.stream
                base = packet.time_base
                dts = packet.pts if packet.dts is None else packet.dts
                times = float(packet.pts * base * 1_000), float(dts * base * 1_000)
                found.append(
                    Read(stream.type, stream.codec_context.name, *times, bool(packet.is_keyframe), bytes(packet))
                )
    return found


def pictures(data: bytes, format_name: str | None = None) -> list[tuple[float, int]]:
    """(pts in ms, hash) of every decoded picture in presentation order."""
    with av.open(io.BytesIO(data), format=format_name) as container:
        return [
            (float((frame.pts or 0) * (frame.time_base or 0) * 1_000), hash(frame.to_ndarray().tobytes()))
            for frame in container.decode(video=0)
        ]


def elementary(units: Sequence[AccessUnit], codec: Codec) -> bytes:
    return b"".join(bytes(unit) for unit in units if unit.codec is codec)


def nal_bodies(data: bytes) -> list[bytes]:
    """NAL units of an Annex B or 4-byte length-prefixed unit, whichever it is, by the plainest reading of both."""
    found = []
    at = 0
    while at + 4 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    if at == len(data) and all(found):
        return found  # the lengths lead exactly to the end; a length of 256 to 511 looks like a start code
    parts = data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")
    return [part for part in parts if part]


def ffmpeg(*arguments: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """The ffmpeg program, an older one than PyAV's: two readers are better than one."""
    command = ["ffmpeg", "-hide_banner", "-loglevel", "warning", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)
