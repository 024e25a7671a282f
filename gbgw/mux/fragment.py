"""Movie fragments: one `moof`+`mdat` per access unit, ready in the call that brings the unit (ISO/IEC 14496-12 section
8.8; ISO/IEC 14496-15).

Sans-IO. PyAV makes the `moov` (mux/container.py) but not the fragments: its muxer closes a fragment only when the next
unit comes. A fragment's own duration is not known in that call either, so it carries the distance of the last two units
of its track, and `with_durations` puts it right once the next unit is known. Decoding times (`tfdt`) are always exact.
Leaves out: encryption, several samples per fragment, edit lists.
"""

import struct
from collections.abc import Sequence
from typing import Final

from gbgw.base import ticks
from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import AAC, H265, Codec
from gbgw.media import params

AAC_SAMPLES: Final = 1_024
NOMINAL_VIDEO_TICKS: Final = 3_600  # 25 pictures a second, until two units are known
LONGEST_TICKS: Final = 90_000  # a longer pause is a pause, not a picture

SYNC_SAMPLE: Final = 0x0200_0000  # sample_depends_on = 2
DELTA_SAMPLE: Final = 0x0101_0000  # sample_depends_on = 1, sample_is_non_sync_sample
TFHD_FLAGS: Final = 0x02_0000  # default-base-is-moof
TRUN_FLAGS: Final = (
    0x0100_0F01  # version 1 (signed composition offsets); data offset, duration, size, flags, composition offset
)

# moof > mfhd, traf > (tfhd, tfdt, trun); then the mdat header. Every field has its fixed place because there is one
# sample.
_LAYOUT: Final = struct.Struct(">I4s I4sII I4s I4sII I4sIQ I4sIIIIIIi I4s")
_MOOF: Final = 104
_DURATION_AT: Final = 88
_TFDT_AT: Final = 60
_TRACK_AT: Final = 44
HEADER_BYTES: Final = _LAYOUT.size


def length_prefixed(unit: AccessUnit, codec: Codec) -> bytes:
    """Return the unit with 4-byte lengths instead of start codes.

    Parameter sets of H.265 stay in the sample entry alone, as `hvc1` demands (ISO/IEC 14496-15 section 8.4.1); those of
    H.264 may repeat.
    """
    parts: list[bytes | memoryview] = []
    for nal in params.nal_units(unit):
        if codec is H265 and params.H265_VPS <= params.h265_type(nal) <= params.H265_PPS:
            continue
        parts.append(len(nal).to_bytes(4, "big"))
        parts.append(nal)
    return b"".join(parts)


def hvcc_record(parameter_sets: Sequence[bytes]) -> bytes:
    """Return the HEVCDecoderConfigurationRecord of these NAL units (ISO/IEC 14496-15 section 8.3.3.1).

    Made here and not by FFmpeg, whose parser of a damaged SPS was seen to loop for minutes.
    """
    kinds = (params.H265_VPS, params.H265_SPS, params.H265_PPS)
    arrays = [
        (kind, [nal for nal in parameter_sets if params.h265_type(nal) == kind and len(nal) < 1 << 16])
        for kind in kinds
    ]
    sps = next(iter(arrays[1][1]), b"")
    rbsp = params.unescape(sps)
    profile_tier_level = rbsp[3:15].ljust(12, b"\0")  # general_profile_space to general_level_idc
    sub_layers = (rbsp[2] >> 1 & 7) + 1 if len(rbsp) > 2 else 1
    is_nested = rbsp[2] & 1 if len(rbsp) > 2 else 1
    chroma, luma_depth, chroma_depth = _sample_format(rbsp, sub_layers)
    head = struct.pack(
        ">B12sHBBBBHB",
        *(1, profile_tier_level, 0xF000, 0xFC, 0xFC | chroma, 0xF8 | luma_depth, 0xF8 | chroma_depth, 0),
        sub_layers << 3 | is_nested << 2 | 3,  # 4-byte lengths
    )
    filled = [(kind, nals) for kind, nals in arrays if nals]
    body = b"".join(
        bytes((0x80 | kind,))
        + len(nals).to_bytes(2, "big")
        + b"".join(len(nal).to_bytes(2, "big") + nal for nal in nals)
        for kind, nals in filled
    )
    return head + bytes((len(filled),)) + body


def _sample_format(rbsp: bytes, sub_layers: int) -> tuple[int, int, int]:
    """Return chroma_format_idc and both bit depths less 8 of an H.265 SPS; 4:2:0 in 8 bits where it is damaged."""
    bits = f"{int.from_bytes(rbsp, 'big'):0{len(rbsp) * 8}b}"
    at = 15 * 8
    if sub_layers > 1:
        flags = bits[at : at + 16]
        at += 16
        for layer in range(sub_layers - 1):
            at += 88 * (flags[2 * layer : 2 * layer + 1] == "1") + 8 * (flags[2 * layer + 1 : 2 * layer + 2] == "1")

    def ue() -> int:
        nonlocal at
        one = bits.find("1", at, at + 32)
        if one < 0:
            at = len(bits) + 1  # beyond the end: damaged
            return 0
        end = 2 * one - at + 1
        value = int(bits[one:end], 2) - 1
        at = end
        return value

    ue()
    chroma = ue()
    if chroma == 3:
        at += 1
    ue(), ue()
    at += 1
    if bits[at - 1 : at] == "1":
        ue(), ue(), ue(), ue()
    luma_depth, chroma_depth = ue(), ue()
    if len(rbsp) < 15 or chroma > 3 or luma_depth > 7 or chroma_depth > 7 or at > len(bits):
        return 1, 0, 0
    return chroma, luma_depth, chroma_depth


class FragmentWriter:
    """The fragments of one track.

    track_number: its number in the `moov`, from 1. timescale: its `mdhd` timescale.
    """

    __slots__ = ("_codec", "_duration", "_last_dts", "timescale", "track_number")

    def __init__(self, track_number: int, codec: Codec, timescale: int) -> None:
        self.track_number = track_number
        self.timescale = timescale
        self._codec = codec
        self._last_dts: int | None = None
        self._duration = AAC_SAMPLES if codec is AAC else ticks.rescale(NOMINAL_VIDEO_TICKS, timescale)

    @property
    def duration_ticks(self) -> int:
        """The duration stated in the last fragment, 90 kHz ticks."""
        return self._duration * ticks.HZ // self.timescale

    def write(self, unit: AccessUnit, pts: int, dts: int, sequence: int) -> bytes:
        """Return the fragment of `unit`. pts, dts: 90 kHz ticks on the output's time line, dts >= 0; sequence: counts
        the fragments of all tracks.
        """
        sample = length_prefixed(unit, self._codec) if self._codec is not AAC else bytes(unit)
        decode = ticks.rescale(dts, self.timescale)
        offset = min(max(ticks.rescale(pts, self.timescale) - decode, -(1 << 31)), (1 << 31) - 1)
        if self._codec is not AAC:
            if self._last_dts is not None and 0 < decode - self._last_dts <= ticks.rescale(
                LONGEST_TICKS, self.timescale
            ):
                self._duration = decode - self._last_dts
            self._last_dts = decode
        header = _LAYOUT.pack(
            *(_MOOF, b"moof"),
            *(16, b"mfhd", 0, sequence & 0xFFFF_FFFF),
            *(_MOOF - 24, b"traf"),
            *(16, b"tfhd", TFHD_FLAGS, self.track_number),
            *(20, b"tfdt", 0x0100_0000, decode),
            *(36, b"trun", TRUN_FLAGS, 1, HEADER_BYTES, self._duration, len(sample)),
            *(SYNC_SAMPLE if unit.is_keyframe else DELTA_SAMPLE, offset),
            *(8 + len(sample), b"mdat"),
        )
        return header + sample


def with_durations(fragments: Sequence[bytes]) -> bytes:
    """Join fragments made by FragmentWriter, each lasting until the next one of its track; the last of a track keeps
    its estimate.
    """
    ends: dict[bytes, int] = {}
    out = [b""] * len(fragments)
    for index in range(len(fragments) - 1, -1, -1):
        data = fragments[index]
        track = data[_TRACK_AT : _TRACK_AT + 4]
        decode = int.from_bytes(data[_TFDT_AT : _TFDT_AT + 8], "big")
        duration = ends.get(track, 0) - decode
        ends[track] = decode
        stated = int.from_bytes(data[_DURATION_AT : _DURATION_AT + 4], "big")
        if duration > 0 and duration != stated:
            data = data[:_DURATION_AT] + (duration & 0xFFFF_FFFF).to_bytes(4, "big") + data[_DURATION_AT + 4 :]
        out[index] = data
    return b"".join(out)
