"""MPEG program stream writer: access units in, packs out (H.222.0 (2021) section 2.5; GB/T 28181-2022 Annex C).

The plain form follows GB/T 28181-2022 Annex C: one pack per unit; system header and program stream map before each key
frame. `Style` holds the ways in which real cameras depart from it, so that the simulated device can play them. Leaves
out: MPEG-1 packs, scrambling, trick modes, more than one track of a kind.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import H264, H265, Codec, Kind
from gbgw.base.errors import StateError

VIDEO_STREAM_ID: Final = 0xE0
AUDIO_STREAM_ID: Final = 0xC0
PRIVATE_STREAM_1: Final = 0xBD

MUX_RATE: Final = 6_106  # 50 byte/s units; plausible and never believed by receivers
RATE_BOUND: Final = 26_234
VIDEO_BUFFER: Final = 0xE000 | 400  # scale 1 (1 KiB units), 400 KiB
AUDIO_BUFFER: Final = 0xC000 | 32  # scale 0 (128 byte units), 4 KiB
SCR_LEAD: Final = 3_600  # the clock runs one picture of 25/s ahead of the decoding time
PES_PAYLOAD_BYTES: Final = 0xFF80  # leaves room for the header below the 16-bit PES_packet_length
CLOCK_MODULUS: Final = 1 << 33

START_CODE: Final = b"\x00\x00\x00\x01"
DELIMITERS: Final[dict[Codec, bytes]] = {H264: START_CODE + b"\x09\xf0", H265: START_CODE + b"\x46\x01\x50"}


@dataclass(frozen=True, slots=True)
class Style:
    """How a writer departs from the plain form; the default departs in nothing.

    program_map: a program stream map before each key frame.
    valid_crc: the map's CRC-32 is right; else zero, as seen from cameras.
    declared_video, declared_audio: what the map says instead of the truth; None is the truth.
    promised_audio: the map (and system header) announce this audio although none is ever written.
    zero_length: video goes out in one PES with PES_packet_length 0, ended only by the next pack.
    pes_per_nal: each NAL unit in a PES of its own, only the first with a PTS.
    stuffing: 0..7 bytes behind each pack header; with 6 the last four count packs.
    private_stream: a private_stream_1 PES before each key frame, not listed in the map.
    map_descriptors: bytes of program_stream_info.
    delimiter: an access unit delimiter is put before a video unit that has none.
    scr_lead: ticks by which the pack's clock precedes the decoding time.
    write_dts: DTS where it differs from PTS; False leaves it out always.
    """

    program_map: bool = True
    valid_crc: bool = True
    declared_video: Codec | None = None
    declared_audio: Codec | None = None
    promised_audio: Codec | None = None
    zero_length: bool = False
    pes_per_nal: bool = False
    stuffing: int = 0
    private_stream: bool = False
    map_descriptors: bytes = b""
    delimiter: bool = True
    scr_lead: int = SCR_LEAD
    write_dts: bool = True


PLAIN: Final = Style()
HIKVISION: Final = Style(
    valid_crc=False,
    pes_per_nal=True,
    stuffing=6,
    private_stream=True,
    map_descriptors=b"\x40\x0eHK\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    delimiter=False,
    scr_lead=0,
    write_dts=False,
)


def _crc_table() -> tuple[int, ...]:
    table = []
    for index in range(256):
        value = index << 24
        for _ in range(8):
            value = (value << 1) ^ 0x04C1_1DB7 if value & 0x8000_0000 else value << 1
        table.append(value & 0xFFFF_FFFF)
    return tuple(table)


CRC_TABLE: Final = _crc_table()


def crc32_mpeg2(data: bytes) -> int:
    """Return the CRC-32 of H.222.0 (2021) Annex A: polynomial 04C11DB7, starting from all ones, not reflected."""
    value = 0xFFFF_FFFF
    for byte in data:
        value = ((value << 8) & 0xFFFF_FFFF) ^ CRC_TABLE[(value >> 24) ^ byte]
    return value


def pack_header(scr: int, *, mux_rate: int = MUX_RATE, stuffing: bytes = b"") -> bytes:
    """Return a pack header (H.222.0 (2021) table 2-39); `scr` in 90 kHz ticks, wrapped to 33 bits, extension 0."""
    scr %= CLOCK_MODULUS
    return (
        bytes(
            (
                0x00,
                0x00,
                0x01,
                0xBA,
                0x44 | (scr >> 30) << 3 | (scr >> 28) & 0x03,
                (scr >> 20) & 0xFF,
                0x04 | ((scr >> 15) & 0x1F) << 3 | (scr >> 13) & 0x03,
                (scr >> 5) & 0xFF,
                0x04 | (scr & 0x1F) << 3,
                0x01,
                (mux_rate >> 14) & 0xFF,
                (mux_rate >> 6) & 0xFF,
                0x03 | (mux_rate & 0x3F) << 2,
                0xF8 | len(stuffing),
            )
        )
        + stuffing
    )


def system_header(*, video: bool, audio: bool) -> bytes:
    """Return a system header (H.222.0 (2021) table 2-40) that bounds one video and one audio stream at most."""
    rate = 0x80_0001 | RATE_BOUND << 1
    body = rate.to_bytes(3, "big") + bytes((int(audio) << 2, 0x20 | int(video), 0x7F))
    if video:
        body += bytes((VIDEO_STREAM_ID,)) + VIDEO_BUFFER.to_bytes(2, "big")
    if audio:
        body += bytes((AUDIO_STREAM_ID,)) + AUDIO_BUFFER.to_bytes(2, "big")
    return b"\x00\x00\x01\xbb" + len(body).to_bytes(2, "big") + body


def program_stream_map(
    entries: Sequence[tuple[int, int]], *, version: int = 1, descriptors: bytes = b"", valid_crc: bool = True
) -> bytes:
    """Return a program stream map (H.222.0 (2021) table 2-41).

    entries: (stream_type, elementary_stream_id) in order. version: 0..31.
    """
    streams = b"".join(bytes((stream_type, stream_id, 0, 0)) for stream_type, stream_id in entries)
    body = bytes((0xE0 | version & 0x1F, 0xFF)) + len(descriptors).to_bytes(2, "big") + descriptors
    body += len(streams).to_bytes(2, "big") + streams
    unit = b"\x00\x00\x01\xbc" + (len(body) + 4).to_bytes(2, "big") + body
    return unit + (crc32_mpeg2(unit) if valid_crc else 0).to_bytes(4, "big")


def _timestamp(prefix: int, ticks: int) -> bytes:
    ticks %= CLOCK_MODULUS
    return bytes(
        (
            prefix << 4 | (ticks >> 30) << 1 | 1,
            (ticks >> 22) & 0xFF,
            (ticks >> 14) & 0xFE | 1,
            (ticks >> 7) & 0xFF,
            (ticks << 1) & 0xFE | 1,
        )
    )


def pes_packet(
    stream_id: int,
    payload: bytes,
    *,
    pts: int | None = None,
    dts: int | None = None,
    aligned: bool = False,
    zero_length: bool = False,
    header_stuffing: int = 0,
) -> bytes:
    """Return a PES packet (H.222.0 (2021) table 2-21). DTS is written only beside a PTS that differs from it."""
    if pts is None:
        flags, times = 0x00, b""
    elif dts is None or dts == pts:
        flags, times = 0x80, _timestamp(0b0010, pts)
    else:
        flags, times = 0xC0, _timestamp(0b0011, pts) + _timestamp(0b0001, dts)
    header = bytes((0x84 if aligned else 0x80, flags, len(times) + header_stuffing)) + times + b"\xff" * header_stuffing
    length = 0 if zero_length else len(header) + len(payload)
    return b"\x00\x00\x01" + bytes((stream_id,)) + length.to_bytes(2, "big") + header + payload


def split_nal_units(data: bytes) -> Iterator[bytes]:
    """Yield the NAL units of an Annex B byte string, each with its start code; joined they give `data` again."""
    starts = []
    at = data.find(b"\x00\x00\x01")
    while at >= 0:
        # The zero_byte belongs to the start code that follows it (H.264 (08/2021) section B.1.1).
        starts.append(at - 1 if at and data[at - 1] == 0 else at)
        at = data.find(b"\x00\x00\x01", at + 3)
    if not starts:
        yield data
        return
    starts[0] = 0
    for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
        yield data[start:end]


def has_delimiter(data: bytes, codec: Codec) -> bool:
    """True when an Annex B unit opens with an access unit delimiter (H.264 NAL type 9, H.265 NAL type 35)."""
    at = data.find(b"\x00\x00\x01", 0, 8) + 3
    if at < 3 or at >= len(data):
        return False
    return data[at] & 0x1F == 9 if codec is H264 else (data[at] >> 1) & 0x3F == 35


class Muxer:
    """Write one program stream: at most one video and one audio track.

    A change of codecs (`retrack`) raises the version of the program stream map (H.222.0 (2021) section 2.5.4.2).
    """

    def __init__(self, video: Codec | None, audio: Codec | None, style: Style = PLAIN) -> None:
        self._video = video
        self._audio = audio
        self._style = style
        self._version = 1
        self._packs = 0
        self._heading = self._make_heading()

    def retrack(self, video: Codec | None, audio: Codec | None) -> None:
        """Go on with other codecs; the next key frame carries the new map."""
        if (video, audio) != (self._video, self._audio):
            self._video, self._audio = video, audio
            self._version = (self._version + 1) % 32
            self._heading = self._make_heading()

    def push(self, unit: AccessUnit) -> bytes:
        """Return the pack that carries one unit."""
        return self.pack((unit,))

    def pack(self, units: Sequence[AccessUnit]) -> bytes:
        """Return one pack with these units, the first of which gives its clock.

        Raises StateError for a unit without PTS or of a codec that is not in this program stream.
        """
        first = units[0]
        clock = first.dts if first.dts is not None else first.pts
        if clock is None:
            raise StateError("a unit without a time cannot be multiplexed")
        parts = [pack_header(max(0, clock - self._style.scr_lead), stuffing=self._stuffing())]
        if self._opens(first):
            parts.append(self._heading)
            if self._style.private_stream:
                parts.append(pes_packet(PRIVATE_STREAM_1, b"\x00\x02\x00\x18" + bytes(20), aligned=True))
        for unit in units:
            parts.extend(self._packets(unit))
        self._packs += 1
        return b"".join(parts)

    def elementary(self, unit: AccessUnit) -> bytes:
        """Return the bytes of the elementary stream exactly as `push` writes them for this unit."""
        data = bytes(unit)
        if self._style.delimiter and unit.codec in DELIMITERS and not has_delimiter(data, unit.codec):
            return DELIMITERS[unit.codec] + data
        return data

    def _opens(self, unit: AccessUnit) -> bool:
        if self._video is None:
            return self._packs % 25 == 0
        return unit.codec.kind is Kind.VIDEO and unit.is_keyframe

    def _stuffing(self) -> bytes:
        count = self._style.stuffing
        if count < 4:
            return b"\xff" * count
        return b"\xff" * (count - 4) + (self._packs & 0xFFFF_FFFF).to_bytes(4, "big")

    def _make_heading(self) -> bytes:
        style = self._style
        audio = style.promised_audio or self._audio
        heading = system_header(video=self._video is not None, audio=audio is not None)
        if not style.program_map:
            return heading
        entries = []
        if self._video is not None:
            entries.append(((style.declared_video or self._video).stream_type, VIDEO_STREAM_ID))
        if audio is not None:
            entries.append(((style.declared_audio or audio).stream_type, AUDIO_STREAM_ID))
        return heading + program_stream_map(
            entries, version=self._version, descriptors=style.map_descriptors, valid_crc=style.valid_crc
        )

    def _packets(self, unit: AccessUnit) -> Iterator[bytes]:
        if unit.pts is None or unit.codec not in (self._video, self._audio):
            raise StateError(f"{unit.codec.name} without a time, or not of this program stream, cannot be multiplexed")
        data = self.elementary(unit)
        dts = unit.dts if self._style.write_dts else None
        if unit.codec.kind is Kind.AUDIO:
            yield from self._split(AUDIO_STREAM_ID, data, unit.pts, dts, aligned=True)
        elif self._style.zero_length:
            yield pes_packet(VIDEO_STREAM_ID, data, pts=unit.pts, dts=dts, aligned=unit.is_keyframe, zero_length=True)
        elif self._style.pes_per_nal:
            pts: int | None = unit.pts
            for nal in split_nal_units(data):
                stuffing = 5 if pts is not None else 3
                yield from self._split(VIDEO_STREAM_ID, nal, pts, dts, aligned=True, header_stuffing=stuffing)
                pts = None
        else:
            yield from self._split(VIDEO_STREAM_ID, data, unit.pts, dts, aligned=unit.is_keyframe)

    def _split(
        self, stream_id: int, data: bytes, pts: int | None, dts: int | None, *, aligned: bool, header_stuffing: int = 0
    ) -> Iterator[bytes]:
        yield pes_packet(
            stream_id, data[:PES_PAYLOAD_BYTES], pts=pts, dts=dts, aligned=aligned, header_stuffing=header_stuffing
        )
        for start in range(PES_PAYLOAD_BYTES, len(data), PES_PAYLOAD_BYTES):
            yield pes_packet(stream_id, data[start : start + PES_PAYLOAD_BYTES])
