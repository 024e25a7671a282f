"""Parameter sets as far as a gateway must read them: H.264 SPS (Rec. ITU-T H.264 (2021) section 7.3.2.1), H.265 VPS
and SPS (Rec. ITU-T H.265 (2021)
sections 7.3.2.1 and 7.3.2.2), ADTS headers (ISO/IEC 14496-3 section 1.A.3), Annex B byte streams.

Damage is an answer (None, or nothing), never an exception: every function here takes any bytes. Leaves out: PPS and
slices beyond their ids, SPS
extensions for multi-view and range coding, ADTS frames with several raw data blocks, channel layouts given by a
program config element.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from gbgw.base import limits
from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import H264, H265, Codec

H264_SPS: Final = 7
H264_PPS: Final = 8
H265_BLA: Final = 16  # BLA_W_LP
H265_CRA: Final = 21
H265_VPS: Final = 32
H265_SPS: Final = 33
H265_PPS: Final = 34

ADTS_SAMPLES: Final = 1_024  # per raw data block of the core coder; SBR doubles rate and samples alike
_SAMPLE_RATES: Final = (
    *(96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000),
    *(22_050, 16_000, 12_000, 11_025, 8_000, 7_350),
)
# H.264 section 7.3.2.1.1: these carry chroma_format_idc
_CHROMA_PROFILES: Final = frozenset((100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135))
# H.264 section E.2.1: with constraint_set3_flag these have intra pictures only
_INTRA_PROFILES: Final = frozenset((44, 86, 100, 110, 122, 244))
_MAX_SIDE: Final = 16_384  # H.265 level 6.2 allows 16,888 luma samples a side; no camera comes near


def h264_type(nal: bytes | memoryview) -> int:
    """Return nal_unit_type (H.264 section 7.4.1), -1 for an empty NAL."""
    return nal[0] & 0x1F if nal else -1


def h265_type(nal: bytes | memoryview) -> int:
    """Return nal_unit_type (H.265 section 7.4.2.2), -1 for less than a header."""
    return (nal[0] >> 1) & 0x3F if len(nal) >= 2 else -1


def nal_units(annexb: bytes | AccessUnit) -> Iterator[memoryview]:
    """Yield the NAL units of an Annex B byte stream (H.264, H.265 annex B) without start codes and trailing zeros,
    oldest first.

    Bytes before the first start code and empty NAL units are skipped; the views share one copy of the input. Ends
    after limits.NAL_UNITS.
    """
    data = annexb if isinstance(annexb, bytes) else bytes(annexb)
    view = memoryview(data)
    find = data.find
    start = find(b"\0\0\1") + 3
    if start == 2:
        return
    for _ in range(limits.NAL_UNITS):
        code = find(b"\0\0\1", start)
        end = code if code >= 0 else len(data)
        if end > start and data[end - 1] == 0:
            end -= 1  # the first byte of a four-byte start code
            if end > start and data[end - 1] == 0:
                end = start + len(data[start:end].rstrip(b"\0"))
        if end > start:
            yield view[start:end]
        if code < 0:
            return
        start = code + 3


def unescape(nal: bytes | memoryview) -> bytes:
    """Return the RBSP: the NAL unit without its emulation prevention bytes (H.264 section 7.4.1.1), header included."""
    data = bytes(nal)
    at = data.find(b"\0\0\3")
    if at < 0:
        return data
    out = bytearray()
    start = 0
    while at >= 0:
        out += data[start : at + 2]
        start = at + 3
        at = data.find(b"\0\0\3", start)
    out += data[start:]
    return bytes(out)


class _Damaged(Exception):
    """The bits end early or say something no encoder may say. Never leaves this module."""


class _Bits:
    """A bit cursor over an RBSP; every step is checked against the end, every code is bounded."""

    __slots__ = ("_at", "_data", "_end")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._end = 8 * len(data)

    def u(self, bits: int) -> int:
        at, end = self._at, self._at + bits
        if end > self._end:
            raise _Damaged
        self._at = end
        last = (end + 7) >> 3
        return (int.from_bytes(self._data[at >> 3 : last], "big") >> ((last << 3) - end)) & ((1 << bits) - 1)

    def flag(self) -> bool:
        return self.u(1) == 1

    def skip(self, bits: int) -> None:
        self._at += bits
        if self._at > self._end:
            raise _Damaged

    def ue(self, most: int = 0xFFFF_FFFE) -> int:
        """Read ue(v) (H.264 section 9.1), refusing more than `most`."""
        zeros = 0
        while self.u(1) == 0:
            zeros += 1
            if zeros > 31:
                raise _Damaged
        value = (1 << zeros) - 1 + (self.u(zeros) if zeros else 0)
        if value > most:
            raise _Damaged
        return value

    def se(self) -> int:
        code = self.ue()
        return (code + 1) // 2 if code & 1 else -(code // 2)


@dataclass(frozen=True, slots=True)
class Sps:
    """What of a sequence parameter set the gateway uses.

    sps_id: 0..31.
    width, height: luma samples after cropping, 1..16384.
    reorder_depth: pictures out of order at most, 0..16; None where the SPS does not say and the profile allows
    reordering.
    frame_rate: pictures a second by the VUI; None where absent or absurd. Fixed or not is not told apart.
    rfc6381: codecs= parameter with the sample entry avc1 or hvc1.
    """

    sps_id: int
    width: int
    height: int
    reorder_depth: int | None
    frame_rate: float | None
    rfc6381: str


def parse_sps(codec: Codec, nal: bytes | memoryview) -> Sps | None:
    """Parse an SPS of H.264 or H.265; None for damage, other NAL types and other codecs."""
    if codec is H264:
        return parse_h264_sps(nal)
    if codec is H265:
        return parse_h265_sps(nal)
    return None


def parse_h264_sps(nal: bytes | memoryview) -> Sps | None:
    """Parse seq_parameter_set_rbsp (H.264 section 7.3.2.1); None for damage. A damaged VUI costs only what the VUI
    says.
    """
    if h264_type(nal) != H264_SPS or nal[0] & 0x80 or len(nal) > limits.PARAMETER_SET_BYTES:
        return None
    try:
        return _h264_sps(_Bits(unescape(nal)[1:]))
    except _Damaged:
        return None


def _h264_sps(bits: _Bits) -> Sps:
    profile, constraints, level = bits.u(8), bits.u(8), bits.u(8)
    sps_id = bits.ue(31)
    chroma, monochrome_planes = 1, False
    if profile in _CHROMA_PROFILES:
        chroma = bits.ue(3)
        if chroma == 3:
            monochrome_planes = bits.flag()
        bits.ue(6)
        bits.ue(6)
        bits.skip(1)
        if bits.flag():
            for index in range(12 if chroma == 3 else 8):
                if bits.flag():
                    _skip_scaling_list(bits, 16 if index < 6 else 64)
    bits.ue(12)
    order = bits.ue(2)
    if order == 0:
        bits.ue(12)
    elif order == 1:
        bits.skip(1)
        bits.se()
        bits.se()
        for _ in range(bits.ue(255)):
            bits.se()
    references = bits.ue(16)
    bits.skip(1)
    macroblocks_wide = bits.ue(_MAX_SIDE // 16 - 1) + 1
    map_units_high = bits.ue(_MAX_SIDE // 16 - 1) + 1
    frames_only = bits.flag()
    if not frames_only:
        bits.skip(1)
    bits.skip(1)
    fields = 1 if frames_only else 2
    width, height = 16 * macroblocks_wide, 16 * map_units_high * fields
    if bits.flag():  # H.264 section 7.4.2.1.1, table 6-1
        planes = 0 if monochrome_planes else chroma
        step_x = 2 if planes in (1, 2) else 1
        step_y = (2 if planes == 1 else 1) * fields
        width -= step_x * (bits.ue(_MAX_SIDE) + bits.ue(_MAX_SIDE))
        height -= step_y * (bits.ue(_MAX_SIDE) + bits.ue(_MAX_SIDE))
    if width <= 0 or height <= 0 or height > _MAX_SIDE:
        raise _Damaged
    reorder: int | None = None
    rate: float | None = None
    if bits.flag():
        rate, reorder = _h264_vui(bits)
    # H.264 section 8.2.1.3: order of output is order of decoding; A.2.1: Baseline has no B slices
    if order == 2 or profile == 66 or references == 0 or (profile in _INTRA_PROFILES and constraints & 0x10):
        reorder = 0
    return Sps(sps_id, width, height, reorder, rate, f"avc1.{profile:02x}{constraints:02x}{level:02x}")


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) % 256
        last = following or last


def _h264_vui(bits: _Bits) -> tuple[float | None, int | None]:
    """Return (frame rate, max_num_reorder_frames) of vui_parameters (H.264 section E.1.1), as far as they could be
    read.
    """
    rate: float | None = None
    try:
        _skip_vui_colour(bits)
        if bits.flag():
            tick, scale = bits.u(32), bits.u(32)
            bits.skip(1)
            rate = _rate(scale, 2 * tick)
        nal_hrd = bits.flag()
        if nal_hrd:
            _skip_h264_hrd(bits)
        vcl_hrd = bits.flag()
        if vcl_hrd:
            _skip_h264_hrd(bits)
        bits.skip((nal_hrd or vcl_hrd) + 1)
        if not bits.flag():
            return rate, None
        bits.skip(1)
        for _ in range(4):
            bits.ue()
        return rate, bits.ue(16)
    except _Damaged:
        return rate, None


def _skip_vui_colour(bits: _Bits) -> None:
    """Skip what the two standards' VUI begin with alike: aspect ratio, overscan, video signal, chroma location."""
    if bits.flag() and bits.u(8) == 255:
        bits.skip(32)
    if bits.flag():
        bits.skip(1)
    if bits.flag():
        bits.skip(4)
        if bits.flag():
            bits.skip(24)
    if bits.flag():
        bits.ue()
        bits.ue()


def _skip_h264_hrd(bits: _Bits) -> None:
    count = bits.ue(31) + 1
    bits.skip(8)
    for _ in range(count):
        bits.ue()
        bits.ue()
        bits.skip(1)
    bits.skip(20)


def _rate(numerator: int, denominator: int) -> float | None:
    if not denominator:
        return None
    rate = numerator / denominator
    return rate if 0.1 <= rate <= 1_000 else None


@dataclass(frozen=True, slots=True)
class ProfileTierLevel:
    """profile_tier_level() (H.265 section 7.3.3) of the whole stream."""

    profile_space: int
    high_tier: bool
    profile: int
    compatibility: int
    constraints: bytes
    level: int

    @property
    def rfc6381(self) -> str:
        """ISO/IEC 14496-15 section E.3: hvc1.[space]profile.compatibility(bits reversed).tier-level.constraint
        bytes.
        """
        reverse = int(f"{self.compatibility:032b}"[::-1], 2)
        parts = [f"{('', 'A', 'B', 'C')[self.profile_space]}{self.profile}", f"{reverse:X}"]
        parts.append(f"{'H' if self.high_tier else 'L'}{self.level}")
        parts.extend(f"{byte:X}" for byte in self.constraints.rstrip(b"\0"))
        return "hvc1." + ".".join(parts)


def _profile_tier_level(bits: _Bits, sub_layers: int) -> ProfileTierLevel:
    found = ProfileTierLevel(bits.u(2), bits.flag(), bits.u(5), bits.u(32), bits.u(48).to_bytes(6, "big"), bits.u(8))
    present = [(bits.flag(), bits.flag()) for _ in range(sub_layers)]
    if sub_layers:
        bits.skip(2 * (8 - sub_layers))
    for profile, level in present:
        bits.skip(88 * profile + 8 * level)
    return found


def parse_h265_sps(nal: bytes | memoryview) -> Sps | None:
    """Parse seq_parameter_set_rbsp (H.265 section 7.3.2.2); None for damage. What follows the ordering information is
    only good for the frame rate.
    """
    if h265_type(nal) != H265_SPS or nal[0] & 0x80 or len(nal) > limits.PARAMETER_SET_BYTES:
        return None
    try:
        return _h265_sps(_Bits(unescape(nal)[2:]))
    except _Damaged:
        return None


def _h265_sps(bits: _Bits) -> Sps:
    bits.skip(4)
    sub_layers = bits.u(3)
    if sub_layers > 6:
        raise _Damaged
    bits.skip(1)
    profile = _profile_tier_level(bits, sub_layers)
    sps_id = bits.ue(15)
    chroma = bits.ue(3)
    separate = chroma == 3 and bits.flag()
    width, height = bits.ue(_MAX_SIDE), bits.ue(_MAX_SIDE)
    if bits.flag():  # H.265 section 7.4.3.2.1, table 6-1
        planes = 0 if separate else chroma
        width -= (2 if planes in (1, 2) else 1) * (bits.ue(_MAX_SIDE) + bits.ue(_MAX_SIDE))
        height -= (2 if planes == 1 else 1) * (bits.ue(_MAX_SIDE) + bits.ue(_MAX_SIDE))
    if width <= 0 or height <= 0:
        raise _Damaged
    bits.ue(8)
    bits.ue(8)
    order_bits = bits.ue(12) + 4
    reorder = _h265_ordering(bits, sub_layers)
    try:
        rate = _h265_frame_rate(bits, chroma, order_bits)
    except _Damaged:
        rate = None
    return Sps(sps_id, width, height, reorder, rate, profile.rfc6381)


def _h265_ordering(bits: _Bits, sub_layers: int) -> int:
    """Return max_num_reorder_pics of the highest sub-layer."""
    reorder = 0
    for _ in range(sub_layers + 1 if bits.flag() else 1):
        bits.ue(15)
        reorder = bits.ue(15)
        bits.ue()
    return reorder


def _h265_frame_rate(bits: _Bits, chroma: int, order_bits: int) -> float | None:
    for _ in range(6):
        bits.ue(32)
    if bits.flag() and bits.flag():
        _skip_h265_scaling_lists(bits)
    bits.skip(2)
    if bits.flag():
        bits.skip(8)
        bits.ue(8)
        bits.ue(8)
        bits.skip(1)
    _skip_h265_reference_sets(bits)
    if bits.flag():
        bits.skip(bits.ue(32) * (order_bits + 1))
    bits.skip(2)
    if not bits.flag():
        return None
    _skip_vui_colour(bits)
    bits.skip(3)
    if bits.flag():
        for _ in range(4):
            bits.ue()
    if not bits.flag():
        return None
    tick, scale = bits.u(32), bits.u(32)
    return _rate(scale, tick)


def _skip_h265_scaling_lists(bits: _Bits) -> None:
    """H.265 section 7.3.4."""
    for size in range(4):
        for _ in range(0, 6, 3 if size == 3 else 1):
            if not bits.flag():
                bits.ue(5)
                continue
            if size > 1:
                bits.se()
            for _ in range(min(64, 1 << (4 + (size << 1)))):
                bits.se()


def _skip_h265_reference_sets(bits: _Bits) -> None:
    """Skip the short-term reference picture sets (H.265 section 7.3.7), whose length depends on the differences in the
    ones before (7.4.8).
    """
    before: list[int] = []
    for index in range(bits.ue(64)):
        if index and bits.flag():
            sign = bits.flag()
            shift = bits.ue(32_767) + 1
            if sign:
                shift = -shift
            moved = []
            for difference in (*before, 0):
                if bits.flag() or bits.flag():  # used_by_curr_pic_flag, else use_delta_flag
                    moved.append(difference + shift)
            before = sorted((d for d in moved if d < 0), reverse=True) + sorted(d for d in moved if d > 0)
        else:
            negatives, positives = bits.ue(16), bits.ue(16)
            before = []
            for count, sign_of in ((negatives, -1), (positives, 1)):
                difference = 0
                for _ in range(count):
                    difference += sign_of * (bits.ue(32_767) + 1)
                    bits.skip(1)
                    before.append(difference)
        if len(before) > 32:
            raise _Damaged


@dataclass(frozen=True, slots=True)
class Vps:
    """What of a video parameter set the gateway uses. frame_rate as in Sps."""

    vps_id: int
    profile: ProfileTierLevel
    frame_rate: float | None


def parse_h265_vps(nal: bytes | memoryview) -> Vps | None:
    """Parse video_parameter_set_rbsp (H.265 section 7.3.2.1); None for damage."""
    if h265_type(nal) != H265_VPS or nal[0] & 0x80 or len(nal) > limits.PARAMETER_SET_BYTES:
        return None
    bits = _Bits(unescape(nal)[2:])
    try:
        vps_id = bits.u(4)
        bits.skip(8)
        sub_layers = bits.u(3)
        if sub_layers > 6:
            return None
        bits.skip(17)
        profile = _profile_tier_level(bits, sub_layers)
        try:
            _h265_ordering(bits, sub_layers)
            layer = bits.u(6)
            bits.skip(bits.ue(1_023) * (layer + 1))
            rate = _vps_rate(bits)
        except _Damaged:
            rate = None
        return Vps(vps_id, profile, rate)
    except _Damaged:
        return None


def _vps_rate(bits: _Bits) -> float | None:
    if not bits.flag():
        return None
    tick, scale = bits.u(32), bits.u(32)
    return _rate(scale, tick)


def parameter_set_key(codec: Codec, nal: bytes | memoryview) -> tuple[int, int] | None:
    """Return (nal_unit_type, id) of a VPS, SPS or PPS, by which a later one replaces an earlier one; None for damage
    and other NAL types.

    Sorting by this key gives VPS, SPS, PPS.
    """
    try:
        if codec is H264:
            kind = h264_type(nal)
            if kind == H264_SPS:
                return (kind, _Bits(unescape(nal[:40])[4:]).ue(31))
            return (kind, _Bits(unescape(nal[1:40])).ue(255)) if kind == H264_PPS else None
        if codec is H265:
            kind = h265_type(nal)
            if kind == H265_VPS:
                return (kind, _Bits(bytes(nal[2:3])).u(4))
            if kind == H265_PPS:
                return (kind, _Bits(unescape(nal[2:40])).ue(63))
            sps = parse_h265_sps(nal) if kind == H265_SPS else None
            return (kind, sps.sps_id) if sps is not None else None
    except _Damaged:
        return None
    return None


@dataclass(frozen=True, slots=True)
class AdtsFrame:
    """One AAC frame without its ADTS header.

    data: one raw_data_block.
    config: AudioSpecificConfig, two bytes.
    sample_rate: Hz of the core coder; SBR (HE-AAC) is implicit and doubles it after decoding.
    channels: 1..8.
    carried: its first byte came in an earlier push, so that the time stamp of the latest one is not its own.
    """

    data: bytes
    config: bytes
    sample_rate: int
    channels: int
    carried: bool = False


class AdtsSplitter:
    """Cut a stream of ADTS frames (ISO/IEC 14496-3 section 1.A.3.2) into raw frames, whatever the cuts of the input.

    `skipped` counts the bytes that were no ADTS, `refused` the frames that nothing behind could play. Holds less than
    one frame (8191 bytes).
    """

    __slots__ = ("_carry", "refused", "skipped")

    def __init__(self) -> None:
        self._carry = b""
        self.skipped = 0
        self.refused = 0

    def reset(self) -> None:
        """Bytes are missing here: forget the frame that has begun."""
        self.skipped += len(self._carry)
        self._carry = b""

    def push(self, piece: bytes) -> Sequence[AdtsFrame]:
        """Take the next bytes; return the frames they completed, oldest first."""
        carried = len(self._carry)
        data = self._carry + piece
        frames: list[AdtsFrame] = []
        at, end = 0, len(data)
        while at < end:
            length = _adts_length(data, at)
            if length == 0 or (length > 0 and _adts_length(data, at + length) == 0):
                following = data.find(b"\xff", at + 1)
                following = following if following >= 0 else end
                self.skipped += following - at
                at = following
                continue
            if length < 0 or at + length > end:
                break
            frame = _adts_frame(data, at, length, at < carried)
            if frame is None:
                self.refused += 1
            else:
                frames.append(frame)
            at += length
        self._carry = data[at:]
        return frames


def _adts_length(data: bytes, at: int) -> int:
    """Return the length of the ADTS frame whose header is at `at`; 0: no header; -1: cannot be told before more bytes
    have come.
    """
    head = data[at : at + 7]
    if not head:
        return -1
    if head[0] != 0xFF or (len(head) > 1 and head[1] & 0xF6 != 0xF0):
        return 0
    if len(head) > 2 and (head[2] >> 2) & 0xF >= len(_SAMPLE_RATES):
        return 0
    if len(head) < 7:
        return -1
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length > (7 if head[1] & 1 else 9) else 0


def _adts_frame(data: bytes, at: int, length: int, carried: bool) -> AdtsFrame | None:
    header = 7 if data[at + 1] & 1 else 9
    object_type = (data[at + 2] >> 6) + 1
    rate_index = (data[at + 2] >> 2) & 0xF
    layout = (data[at + 2] & 1) << 2 | data[at + 3] >> 6
    if layout == 0 or data[at + 6] & 3:
        return None
    config = (object_type << 11 | rate_index << 7 | layout << 3).to_bytes(2, "big")
    channels = 8 if layout == 7 else layout
    return AdtsFrame(data[at + header : at + length], config, _SAMPLE_RATES[rate_index], channels, carried)


def parse_audio_config(config: bytes) -> tuple[int, int] | None:
    """Return (sample rate in Hz, channels) of an AudioSpecificConfig made by AdtsSplitter; None for anything else."""
    if len(config) < 2:
        return None
    rate_index, layout = (config[0] & 7) << 1 | config[1] >> 7, (config[1] >> 3) & 0xF
    if rate_index >= len(_SAMPLE_RATES) or not 1 <= layout <= 7:
        return None
    return _SAMPLE_RATES[rate_index], 8 if layout == 7 else layout
