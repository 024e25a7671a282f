"""Builders of raw bytes: packs, maps, PES, RTP. Written from the tables of the standard; imports nothing of gbgw."""

import struct
from collections.abc import Iterable, Sequence

H264 = 0x1B
H265 = 0x24
PCMA = 0x90
PCMU = 0x91
AAC = 0x0F
SVAC = 0x80
MPEG4 = 0x10

VIDEO_ID = 0xE0
AUDIO_ID = 0xC0

# Parameter sets of 640x480 test patterns: H.264 baseline, progressive; H.265 Main.
SPS264 = bytes.fromhex("6742c01ed900a03db011000003000100000300320f162e48")
PPS264 = bytes.fromhex("68cb83cb20")
VPS265 = bytes.fromhex("40010c01ffff01600000030090000003000003005a959809")
SPS265 = bytes.fromhex("42010101600000030090000003000003005aa0050201e165959a4932bc05a02000000300200000030321")
PPS265 = bytes.fromhex("4401c172b46240")


def crc32_mpeg2(data: bytes) -> int:
    """CRC-32/MPEG-2: polynomial 04C11DB7, start FFFFFFFF, nothing reflected (H.222.0 Annex A)."""
    crc = 0xFFFF_FFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C1_1DB7 if crc & 0x8000_0000 else crc << 1) & 0xFFFF_FFFF
    return crc


def timestamp(value: int, prefix: int) -> bytes:
    """33 bits in five bytes behind a 4-bit prefix: 2 PTS alone, 3 PTS with a DTS, 1 that DTS."""
    value %= 1 << 33
    return bytes(
        (
            prefix << 4 | value >> 30 << 1 | 1,
            value >> 22 & 0xFF,
            (value >> 15 & 0x7F) << 1 | 1,
            value >> 7 & 0xFF,
            (value & 0x7F) << 1 | 1,
        )
    )


def pack(scr: int = 0, mux_rate: int = 6106, stuffing: bytes = b"", extension: int = 0) -> bytes:
    """MPEG-2 pack header with 0 to 7 bytes of stuffing."""
    scr %= 1 << 33
    return (
        bytes(
            (
                0, 0, 1, 0xBA,
                0x44 | scr >> 30 << 3 | scr >> 28 & 3,
                scr >> 20 & 0xFF,
                0x04 | (scr >> 15 & 31) << 3 | scr >> 13 & 3,
                scr >> 5 & 0xFF,
                0x04 | (scr & 31) << 3 | extension >> 7,
                0x01 | (extension & 127) << 1,
                mux_rate >> 14 & 0xFF,
                mux_rate >> 6 & 0xFF,
                0x03 | (mux_rate & 63) << 2,
                0xF8 | len(stuffing),
            )
        )
        + stuffing
    )  # fmt: skip


def pack_mpeg1(scr: int = 0, mux_rate: int = 6106) -> bytes:
    """MPEG-1 pack header (ISO/IEC 11172-1)."""
    rate = bytes((0x80 | mux_rate >> 15, mux_rate >> 7 & 0xFF, (mux_rate & 0x7F) << 1 | 1))
    return b"\0\0\1\xba" + timestamp(scr, 2) + rate


def pack_bodiless() -> bytes:
    """Only the start code, as Hikvision H.265 cameras send it."""
    return b"\0\0\1\xba"


def system_header(
    streams: Sequence[tuple[int, int]] = ((VIDEO_ID, 0xE190), (AUDIO_ID, 0xC020)), rate: int = 26234
) -> bytes:
    """streams: (stream_id, the 16 bits of buffer bound)."""
    body = bytes((0x80 | rate >> 15, rate >> 7 & 0xFF, (rate & 0x7F) << 1 | 1, 0x04, 0x21, 0x7F))
    body += b"".join(struct.pack(">BH", stream_id, bound) for stream_id, bound in streams)
    return b"\0\0\1\xbb" + struct.pack(">H", len(body)) + body


def program_map(
    entries: Iterable[tuple[int, int] | tuple[int, int, bytes]] = ((H264, VIDEO_ID), (PCMA, AUDIO_ID)),
    *,
    version: int = 0xE1,
    info: bytes = b"",
    crc: int | None = None,
    length: int | None = None,
    entries_length: int | None = None,
) -> bytes:
    """Program stream map; entries: (stream_type, stream_id[, descriptors]); crc and lengths make it wrong."""
    body = b""
    for stream_type, stream_id, *descriptors in entries:
        described = b"".join(item for item in descriptors if isinstance(item, bytes))
        body += struct.pack(">BBH", stream_type, stream_id, len(described)) + described
    size = len(body) if entries_length is None else entries_length
    body = struct.pack(">BBH", version, 0xFF, len(info)) + info + struct.pack(">H", size) + body
    unit = b"\0\0\1\xbc" + struct.pack(">H", len(body) + 4 if length is None else length) + body
    return unit + struct.pack(">I", crc32_mpeg2(unit) if crc is None else crc)


def pes(
    payload: bytes,
    stream_id: int = VIDEO_ID,
    pts: int | None = None,
    dts: int | None = None,
    *,
    length: int | None = None,
    stuffing: bytes = b"",
    first_flags: int = 0x80,
) -> bytes:
    """One PES packet. length: what PES_packet_length shall say instead of the truth (0: unbounded)."""
    times = b""
    if pts is not None:
        times = timestamp(pts, 2) if dts is None else timestamp(pts, 3) + timestamp(dts, 1)
    flags = 0 if pts is None else 0x80 if dts is None else 0xC0
    body = bytes((first_flags, flags, len(times) + len(stuffing))) + times + stuffing + payload
    return b"\0\0\1" + bytes((stream_id,)) + struct.pack(">H", len(body) if length is None else length) + body


def pes_mpeg1(
    payload: bytes, stream_id: int = VIDEO_ID, pts: int | None = None, dts: int | None = None, stuffing: int = 0
) -> bytes:
    """One MPEG-1 packet (ISO/IEC 11172-1 section 2.4.3.3)."""
    times = b"\x0f" if pts is None else timestamp(pts, 2) if dts is None else timestamp(pts, 3) + timestamp(dts, 1)
    body = b"\xff" * stuffing + times + payload
    return b"\0\0\1" + bytes((stream_id,)) + struct.pack(">H", len(body)) + body


def pes_run(
    payload: bytes,
    stream_id: int = VIDEO_ID,
    pts: int | None = None,
    dts: int | None = None,
    *,
    limit: int = 0xFF80,
    repeat: bool = False,
) -> bytes:
    """As many PES packets as `payload` needs; the first has the times, the others too when `repeat`."""
    out = b""
    for at in range(0, len(payload), limit):
        timed = at == 0 or repeat
        out += pes(payload[at : at + limit], stream_id, pts if timed else None, dts if timed else None)
    return out


def plain_pes(payload: bytes, stream_id: int) -> bytes:
    """A packet without PES optional header: padding (BE), private 2 (BF), F0, F1, F2, F8, FF."""
    return b"\0\0\1" + bytes((stream_id,)) + struct.pack(">H", len(payload)) + payload


def nals(*units: bytes) -> bytes:
    """Annex B with four-byte start codes."""
    return b"".join(b"\0\0\0\1" + unit for unit in units)


def filler(size: int, seed: int = 1) -> bytes:
    """Bytes that look like slice data: no zero, so no start code, not even by accident."""
    state = seed * 2654435761 % (1 << 32) or 1
    out = bytearray()
    while len(out) < size:
        state = state * 1103515245 + 12345 & 0xFFFF_FFFF
        out.append((state >> 16) % 255 + 1)
    return bytes(out)


def idr264(size: int = 100, seed: int = 1) -> bytes:
    """SPS, PPS and an IDR slice: one key access unit."""
    return nals(SPS264, PPS264, b"\x65\x88" + filler(size, seed))


def p264(size: int = 50, seed: int = 1) -> bytes:
    return nals(b"\x41\x9a" + filler(size, seed))


def idr265(size: int = 100, seed: int = 1) -> bytes:
    return nals(VPS265, SPS265, PPS265, b"\x26\x01\xaf" + filler(size, seed))


def p265(size: int = 50, seed: int = 1) -> bytes:
    return nals(b"\x02\x01\xd0" + filler(size, seed))


def adts(payload: bytes, *, rate_index: int = 4, channels: int = 2) -> bytes:
    """One ADTS frame, AAC-LC (ISO/IEC 13818-7 section 6.2)."""
    length = len(payload) + 7
    header = (0xFFF1, 1 << 14 | rate_index << 10 | channels << 6 | length >> 11, (length & 0x7FF) << 5 | 0x1F, 0xFC)
    return struct.pack(">HHHB", *header) + payload


def rtp(
    payload: bytes,
    sequence_number: int,
    timestamp_: int,
    ssrc: int = 0x0BEB_C201,
    *,
    marker: bool = False,
    payload_type: int = 96,
    padding: int = 0,
    csrc: Sequence[int] = (),
    extension: bytes | None = None,
) -> bytes:
    """One RTP packet (RFC 3550 section 5.1). extension: whole header extension, profile and length included."""
    first = 0x80 | (0x20 if padding else 0) | (0x10 if extension is not None else 0) | len(csrc)
    second = marker << 7 | payload_type
    head = struct.pack(">BBHII", first, second, sequence_number & 0xFFFF, timestamp_ & 0xFFFF_FFFF, ssrc & 0xFFFF_FFFF)
    head += b"".join(struct.pack(">I", source) for source in csrc) + (extension or b"")
    tail = bytes(padding - 1) + bytes((padding,)) if padding else b""
    return head + payload + tail


def rtp_run(
    data: bytes, sequence_number: int, timestamp_: int, ssrc: int = 0x0BEB_C201, *, limit: int = 1400
) -> list[bytes]:
    """Cut one pack into RTP packets; the last has the marker."""
    cuts = range(0, len(data), limit)
    return [
        rtp(data[at : at + limit], sequence_number + index, timestamp_, ssrc, marker=at + limit >= len(data))
        for index, at in enumerate(cuts)
    ]


def framed(packet: bytes) -> bytes:
    """RFC 4571: a 16-bit length and the packet."""
    return struct.pack(">H", len(packet)) + packet
