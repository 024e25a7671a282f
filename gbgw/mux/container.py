"""The one PyAV writer: FLV, fragmented MP4 and MPEG-TS differ by a row of FORMATS (architecture.md decisions 7 and 8).

A writer lives for one generation of a Stream. What it promises: for FLV and fMP4 each unit leaves in the call that
pushed it; MPEG-TS with picture and sound runs one unit late, because a joint container interleaves. PyAV is only called
in ways known not to abort: no encoder is ever opened, no G.711 stream is ever added, every stream takes its parameters
from a template (`_template`) whose extradata is set by hand.

Leaves out: time lines (mux/feed.py shifts them), G.711 to AAC (mux/transcode.py).
"""

import io
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, NamedTuple, Protocol, cast

import av
from av.container import InputContainer, OutputContainer

from gbgw import _flv
from gbgw.base import ticks
from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import AAC, H264, H265, PCMA, PCMU, Codec
from gbgw.media.track import Track
from gbgw.mux import flv, fragment

RefusedError = av.error.FFmpegError  # what write raises for a unit that FFmpeg will not take; the next one may be fine

TIME_BASE: Final = Fraction(1, ticks.HZ)
START_CODE: Final = b"\0\0\0\1"
TS_PACKET: Final = 188
TS_TABLES: Final = (0x0000, 0x0011)  # PAT, SDT: what a key frame's packets begin with
TS_FIRST_PID: Final = 0x0100
TS_BUFFER: Final = 348 * TS_PACKET  # a multiple of the packet, so that every write begins with one
TS_HEAD_PACKETS: Final = 8  # tables before a picture's first packet
_CONTAINER_OPTIONS: Final = {"flush_packets": "1", "avoid_negative_ts": "disabled", "max_interleave_delta": "1"}


@dataclass(frozen=True, slots=True)
class Format:
    """One row: what a format is called, carries and can do.

    splices: a new generation continues in the same byte stream; where False, an HTTP answer ends with it.
    adds_sound: pictures without sound get a track of silence, since a player could never take sound that comes later.
    longest: ticks that its time stamps can count without a step back that players would not survive; 0: no end that
    matters (fMP4 counts in 64 bits, and every player of MPEG-TS knows that 33 bits wrap after a day).
    """

    name: str
    content_type: str
    codecs: frozenset[Codec]
    splices: bool
    legacy_h265: bool = False
    adds_sound: bool = False
    longest: int = 0

    def carried(self, tracks: Sequence[Track]) -> tuple[Track, ...]:
        """Return the tracks that this format can carry and whose parameters are known."""
        return tuple(track for track in tracks if track.codec in self.codecs and _describable(track))


class Piece(NamedTuple):
    """Muxed bytes of (as a rule) one unit.

    dts: 90 kHz ticks on the output's time line; for MPEG-TS exact where starts_gop, else that of the last unit pushed.
    duration: 90 kHz ticks as far as known when the piece was made, else 0.
    """

    data: bytes
    starts_gop: bool
    dts: int
    track_id: int
    duration: int = 0


class Writer(Protocol):
    """A muxer of one generation.

    init: what a viewer must have before any piece; splice: what a viewer of the generation before must have, where the
    format splices.
    """

    init: bytes

    def splice(self, dts: int) -> bytes: ...
    def write(self, unit: AccessUnit, track: Track, pts: int, dts: int) -> Sequence[Piece]: ...
    def close(self) -> Sequence[Piece]:
        """Free the containers; return what was still held. Nothing may be written afterwards."""


_FLV_CODECS: Final = frozenset((H264, H265, AAC, PCMA, PCMU))
FLV_LONGEST: Final = ((1 << 31) - 600_000) * (ticks.HZ // 1_000)  # 24.8 days, less ten minutes for a key frame to come
FORMATS: Final[dict[str, Format]] = {
    row.name: row
    for row in (
        Format("flv", "video/x-flv", _FLV_CODECS, splices=True, longest=FLV_LONGEST),
        Format("flv-legacy", "video/x-flv", _FLV_CODECS, splices=True, legacy_h265=True, longest=FLV_LONGEST),
        Format("mp4", "video/mp4", frozenset((H264, H265, AAC)), splices=False),
        Format("hls", "video/mp4", frozenset((H264, H265, AAC)), splices=True, adds_sound=True),
        Format("ts", "video/mp2t", frozenset((H264, H265, AAC)), splices=True),
    )
}


def open_writer(form: Format, tracks: Sequence[Track], generation: int = 1) -> Writer:
    """Return a writer of `form` for `tracks`, all of which `form.carried` must have passed, at least one."""
    if form.name in ("mp4", "hls"):
        return Mp4Writer(tracks)
    if form.name == "ts":
        return TsWriter(tracks, generation)
    return FlvWriter(tracks, legacy_h265=form.legacy_h265)


def _describable(track: Track) -> bool:
    if track.is_video:
        return bool(track.parameter_sets)
    return track.codec is not AAC or bool(track.config and track.sample_rate)


class _Memory:
    """The file PyAV writes to: keeps each write apart until it is taken."""

    __slots__ = ("writes",)

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.writes.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        data = self.writes[0] if len(self.writes) == 1 else b"".join(self.writes)
        self.writes.clear()
        return data


_TEMPLATE_INPUT: Final[dict[Codec, tuple[str, bytes]]] = {
    H264: ("h264", START_CODE + b"\x09\xf0"),  # an access unit delimiter and nothing else
    H265: ("hevc", START_CODE + b"\x46\x01\x50"),
    AAC: ("aac", b"\xff\xf1\x50\x40\x01\x1f\xfc\x00" * 4),  # ADTS headers around one zero byte
}
_templates: Final[dict[Codec, InputContainer]] = {}


def _template(codec: Codec) -> InputContainer:
    """Return an input whose one stream has the codec and no parameters: copied into an output it opens no encoder, and
    its extradata can be set.
    """
    found = _templates.get(codec)
    if found is None:
        name, data = _TEMPLATE_INPUT[codec]
        found = _templates[codec] = av.open(io.BytesIO(data), "r", format=name)
    return found


def _open(
    memory: _Memory, name: str, tracks: Sequence[Track], options: dict[str, str], **kwargs: Any
) -> tuple[OutputContainer, list[Any]]:
    container = av.open(memory, "w", format=name, options=options, container_options=dict(_CONTAINER_OPTIONS), **kwargs)
    streams: list[Any] = []
    for track in tracks:
        stream: Any = container.add_stream_from_template(_template(track.codec).streams[0], opaque=True)
        context = stream.codec_context
        if track.is_video:
            if track.codec is H265 and name != "mpegts":
                context.extradata = fragment.hvcc_record(track.parameter_sets)
            else:
                context.extradata = b"".join(START_CODE + nal for nal in track.parameter_sets)
            context.width, context.height = track.width, track.height
            if name == "mp4" and track.codec is H265:
                context.codec_tag = "hvc1"
        else:
            context.extradata = track.config
            context.sample_rate = track.sample_rate
            context.layout = "mono" if track.channels == 1 else "stereo"
        stream.time_base = TIME_BASE
        streams.append(stream)
    container.start_encoding()
    return container, streams


def _packet(unit: AccessUnit, data: AccessUnit | bytes, stream: Any, pts: int, dts: int) -> Any:
    packet: Any = av.Packet(cast(bytes, data))  # any buffer will do, although the stub says bytes
    packet.stream = stream
    packet.time_base = TIME_BASE
    packet.pts, packet.dts = pts, dts
    packet.is_keyframe = unit.is_keyframe
    return packet


def _has_video(tracks: Sequence[Track]) -> bool:
    return any(track.is_video for track in tracks)


class FlvWriter:
    """FLV: PyAV makes the sequence headers, a container for each track; the core `_flv` one tag per unit, in the order
    of arrival.
    """

    _OPTIONS: Final = {"flvflags": "no_metadata+no_duration_filesize+no_sequence_end"}

    def __init__(self, tracks: Sequence[Track], *, legacy_h265: bool = False) -> None:
        self._legacy = legacy_h265
        self._has_video = _has_video(tracks)
        self._heads: dict[int, tuple[bytes, bytes]] = {}  # of a unit and of a key frame, by track
        headers: list[bytes] = []
        for track in tracks:
            if track.is_video:
                delta, key = (
                    flv.picture_head(track.codec, is_keyframe=is_key, legacy=legacy_h265) for is_key in (False, True)
                )
                self._heads[track.track_id] = (delta, key)
            else:
                self._heads[track.track_id] = (flv.sound_head(track.codec),) * 2
            if track.codec not in (PCMA, PCMU):
                headers.append(self._sequence_header(track))
        self._headers = b"".join(headers)
        self.init = (
            flv.file_header(audio=any(not track.is_video for track in tracks), video=self._has_video)
            + flv.metadata(tuple(tracks), enhanced=not legacy_h265)
            + self._headers
        )

    def splice(self, dts: int) -> bytes:
        """The sequence headers alone: FFmpeg takes an onMetaData with a time for a subtitle stream."""
        return flv.stamped(self._headers, ticks.rescale(dts, 1_000))

    def write(self, unit: AccessUnit, track: Track, pts: int, dts: int) -> Sequence[Piece]:
        timestamp = ticks.rescale(dts, 1_000)
        is_key = unit.is_keyframe
        head = self._heads[track.track_id][is_key]
        if not track.is_video:
            data = _flv.tag(flv.AUDIO_TAG, timestamp, head, unit)
            return (Piece(data, is_key and not self._has_video, dts, track.track_id),)
        if pts != dts:
            offset = ticks.rescale(pts, 1_000) - timestamp
            head = flv.picture_head(track.codec, is_keyframe=is_key, offset=offset, legacy=self._legacy)
        data = _flv.nal_tag(flv.VIDEO_TAG, timestamp, head, unit, track.codec is H265)
        return (Piece(data, is_key, dts, track.track_id),) if data else ()

    def close(self) -> Sequence[Piece]:
        return ()

    def _sequence_header(self, track: Track) -> bytes:
        memory = _Memory()
        container, _ = _open(memory, "flv", (track,), dict(self._OPTIONS))
        data = memory.take()[flv.FILE_HEADER :]
        container.close()
        if track.codec is not H265:
            return data
        data = flv.without_metadata(data)
        return flv.legacy_h265(data) if self._legacy else data


class Mp4Writer:
    """Fragmented MP4: PyAV makes the init segment, mux/fragment.py one fragment per unit."""

    _OPTIONS: Final = {"movflags": "empty_moov+default_base_moof+frag_custom"}

    def __init__(self, tracks: Sequence[Track]) -> None:
        memory = _Memory()
        container, _ = _open(memory, "mp4", tracks, dict(self._OPTIONS))
        self.init = memory.take()
        container.close()
        self._has_video = _has_video(tracks)
        self._sequence = 0
        self._writers = {
            track.track_id: fragment.FragmentWriter(
                number, track.codec, ticks.HZ if track.is_video else track.sample_rate
            )
            for number, track in enumerate(tracks, 1)
        }

    def splice(self, dts: int) -> bytes:
        return self.init

    def write(self, unit: AccessUnit, track: Track, pts: int, dts: int) -> Sequence[Piece]:
        self._sequence += 1
        writer = self._writers[track.track_id]
        data = writer.write(unit, pts, dts, self._sequence)
        starts_gop = unit.is_keyframe and (track.is_video or not self._has_video)
        return (Piece(data, starts_gop, dts, track.track_id, writer.duration_ticks),)

    def close(self) -> Sequence[Piece]:
        return ()


class TsWriter:
    """MPEG-TS: one joint PyAV container. With picture and sound each unit leaves when the next one is pushed."""

    def __init__(self, tracks: Sequence[Track], generation: int) -> None:
        self.init = b""
        self._memory = _Memory()
        options = {
            "mpegts_flags": "initial_discontinuity",
            "tables_version": str(generation % 32),
            "pes_payload_size": "0",
        }
        self._container, streams = _open(self._memory, "mpegts", tracks, options, buffer_size=TS_BUFFER)
        self._streams = {track.track_id: stream for track, stream in zip(tracks, streams, strict=True)}
        self._has_video = _has_video(tracks)
        self._main = next((track.track_id for track in tracks if track.is_video), tracks[0].track_id)
        self._main_pid = TS_FIRST_PID + next(i for i, track in enumerate(tracks) if track.track_id == self._main)
        self._keyframes: deque[int] = deque()
        self._dts = 0

    def splice(self, dts: int) -> bytes:
        return b""

    def write(self, unit: AccessUnit, track: Track, pts: int, dts: int) -> Sequence[Piece]:
        if unit.is_keyframe and track.track_id == self._main:
            self._keyframes.append(dts)
        self._dts = max(self._dts, dts)
        self._container.mux_one(_packet(unit, unit, self._streams[track.track_id], pts, dts))
        return self._pieces()

    def close(self) -> Sequence[Piece]:
        self._container.close()
        return self._pieces()

    def _pieces(self) -> Sequence[Piece]:
        writes = self._memory.writes
        if not writes:
            return ()
        groups: list[tuple[bool, list[bytes]]] = []
        for data in writes:
            starts = self._starts_gop(data)
            if starts or not groups:
                groups.append((starts, []))
            groups[-1][1].append(data)
        writes.clear()
        pieces = []
        for starts, group in groups:
            dts = self._keyframes.popleft() if starts and self._keyframes else self._dts
            pieces.append(Piece(b"".join(group), starts, dts, self._main))
        return pieces

    def _starts_gop(self, data: bytes) -> bool:
        """True when these packets begin with the tables and, within a few packets, a random access point of the main
        track (H.222.0 section 2.4.3.5).
        """
        if self._has_video and _pid(data, 0) not in TS_TABLES:
            return False
        for at in range(0, min(len(data), TS_HEAD_PACKETS * TS_PACKET), TS_PACKET):
            if _pid(data, at) == self._main_pid:
                starts_unit = bool(data[at + 1] & 0x40)
                if not self._has_video:
                    return starts_unit
                return starts_unit and bool(data[at + 3] & 0x20) and data[at + 4] > 0 and bool(data[at + 5] & 0x40)
        return False


def _pid(data: bytes, at: int) -> int:
    return (data[at + 1] & 0x1F) << 8 | data[at + 2]
