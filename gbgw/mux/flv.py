"""FLV tags as bytes: the file header, onMetaData, what stands before the media in a tag, and the rewriting that PyAV's
sequence headers need (Adobe FLV 10.1 annex E; Enhanced RTMP v1).

Sans-IO. PyAV makes the sequence headers of H.264, H.265 and AAC (`mux.container`); here they are cut apart, freed of
what players do not know, and turned into the legacy form of H.265 (codec id 12) where a viewer asks for it. The tags of
the units themselves are made by the core `_flv`, whose bytes equal PyAV's. Leaves out: encryption, multitrack tags.
"""

import struct
from collections.abc import Iterator
from typing import Final

from gbgw.base.codec import AAC, H264, H265, PCMA, PCMU, Codec
from gbgw.media.track import Track

AUDIO_TAG: Final = 8
VIDEO_TAG: Final = 9
SCRIPT_TAG: Final = 18
TAG_HEADER: Final = 11
PREVIOUS_SIZE: Final = 4
FILE_HEADER: Final = 13  # 9 bytes and the first PreviousTagSize

CODEC_IDS: Final[dict[Codec, int]] = {H264: 7, H265: 12, AAC: 10, PCMA: 7, PCMU: 8}
HVC1: Final = b"hvc1"
SEQUENCE_START: Final = 0  # Enhanced RTMP v1, PacketType
CODED_FRAMES: Final = 1
CODED_FRAMES_X: Final = 3
METADATA: Final = 4
G711_FLAGS: Final = 0x02  # sound size 16 bit, mono; the rate bits are fixed at 8 kHz by the codec id (annex E.4.2.1)
AAC_FLAGS: Final = 0x0F  # 44 kHz, 16 bit, stereo, whatever it is (annex E.4.2.1)
_SIZE: Final = struct.Struct(">I")
_DOUBLE: Final = struct.Struct(">d")


def file_header(*, audio: bool, video: bool) -> bytes:
    """Return the 9-byte file header and PreviousTagSize0."""
    return b"FLV\x01" + bytes(((4 if audio else 0) | (1 if video else 0),)) + b"\0\0\0\x09" + b"\0\0\0\0"


def tag(kind: int, timestamp: int, body: bytes) -> bytes:
    """Return one tag with its PreviousTagSize. timestamp: milliseconds; taken modulo 2^31, as FFmpeg writes and reads
    it.
    """
    stamp = timestamp & 0x7FFF_FFFF
    header = (
        bytes((kind,))
        + _SIZE.pack(len(body))[1:]
        + _SIZE.pack(stamp & 0xFF_FFFF)[1:]
        + bytes((stamp >> 24,))
        + b"\0\0\0"
    )
    return header + body + _SIZE.pack(TAG_HEADER + len(body))


def tags(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield (kind, timestamp, body) of each whole tag in `data`, which starts at a tag."""
    at = 0
    while at + TAG_HEADER + PREVIOUS_SIZE <= len(data):
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        stamp = data[at + 7] << 24 | int.from_bytes(data[at + 4 : at + 7], "big")
        end = at + TAG_HEADER + size
        if end + PREVIOUS_SIZE > len(data):
            return
        yield data[at], stamp, data[at + TAG_HEADER : end]
        at = end + PREVIOUS_SIZE


def stamped(data: bytes, timestamp: int) -> bytes:
    """Return the tags of `data` with another timestamp, for sequence headers spliced into a running stream."""
    return b"".join(tag(kind, timestamp, body) for kind, _, body in tags(data))


def without_metadata(data: bytes) -> bytes:
    """Drop Enhanced RTMP metadata tags: FFmpeg writes a colorInfo that players take for a broken picture."""
    if len(data) > TAG_HEADER and data[0] == VIDEO_TAG and data[TAG_HEADER] & 0x8F == 0x80 | METADATA:
        kept = [
            (kind, stamp, body)
            for kind, stamp, body in tags(data)
            if not (kind == VIDEO_TAG and body and body[0] & 0x8F == 0x84)
        ]
        return b"".join(tag(kind, stamp, body) for kind, stamp, body in kept)
    return data


def legacy_h265(data: bytes) -> bytes:
    """Turn Enhanced RTMP tags of H.265 into tags with codec id 12, laid out like AVCVIDEOPACKET (annex E.4.3.1)."""
    out = []
    for kind, stamp, body in tags(data):
        if kind != VIDEO_TAG or not body or not body[0] & 0x80 or body[1:5] != HVC1:
            out.append(tag(kind, stamp, body))
            continue
        first = bytes((body[0] & 0x70 | CODEC_IDS[H265],))
        packet_type = body[0] & 0x0F
        if packet_type == SEQUENCE_START:
            out.append(tag(kind, stamp, first + b"\0\0\0\0" + body[5:]))
        elif packet_type == CODED_FRAMES:
            out.append(
                tag(kind, stamp, first + b"\x01" + body[5:])
            )  # the composition time offset follows the fourCC already
        elif packet_type == CODED_FRAMES_X:
            out.append(tag(kind, stamp, first + b"\x01\0\0\0" + body[5:]))
    return b"".join(out)


def picture_head(codec: Codec, *, is_keyframe: bool, offset: int = 0, legacy: bool = False) -> bytes:
    """Return what precedes the NAL units in a video tag (annex E.4.3; Enhanced RTMP v1 for H.265, unless legacy).

    offset: composition time offset in milliseconds, 24 bits signed.
    """
    frame_type = 0x10 if is_keyframe else 0x20
    composition = _SIZE.pack(offset & 0xFF_FFFF)[1:]
    if codec is H265 and not legacy:
        if offset:
            return bytes((0x80 | frame_type | CODED_FRAMES,)) + HVC1 + composition
        return bytes((0x80 | frame_type | CODED_FRAMES_X,)) + HVC1
    return bytes((frame_type | CODEC_IDS[codec], 1)) + composition


def sound_head(codec: Codec) -> bytes:
    """Return what precedes the samples, or one raw AAC frame, in an audio tag (annex E.4.2)."""
    if codec is AAC:
        return bytes((CODEC_IDS[AAC] << 4 | AAC_FLAGS, 1))
    return bytes((CODEC_IDS[codec] << 4 | G711_FLAGS,))


def metadata(tracks: tuple[Track, ...], *, enhanced: bool) -> bytes:
    """Return the onMetaData tag: picture size and codec ids, so that players need not wait for the first picture (annex
    E.5).
    """
    values: dict[str, float | bool | str] = {"encoder": "gbgw"}
    for track in tracks:
        codec_id = float(CODEC_IDS[track.codec])
        if track.is_video:
            values["videocodecid"] = (
                float(int.from_bytes(HVC1, "big")) if enhanced and track.codec is H265 else codec_id
            )
            if track.width and track.height:
                values.update(width=float(track.width), height=float(track.height))
        else:
            values.update(audiocodecid=codec_id, stereo=track.channels == 2)
            if track.sample_rate:
                values["audiosamplerate"] = float(track.sample_rate)
    fields = b"".join(_name(name) + _value(value) for name, value in values.items())
    body = b"\x02" + _name("onMetaData") + b"\x08" + _SIZE.pack(len(values)) + fields + b"\0\0\x09"
    return tag(SCRIPT_TAG, 0, body)


def _name(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(2, "big") + raw


def _value(value: float | bool | str) -> bytes:
    if isinstance(value, bool):
        return b"\x01" + bytes((value,))
    return b"\x02" + _name(value) if isinstance(value, str) else b"\0" + _DOUBLE.pack(value)
