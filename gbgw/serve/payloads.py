"""Access units into RTP payloads, sans-IO: H.264 (RFC 6184), H.265 (RFC 7798), G.711 (RFC 3551)."""

from collections.abc import Iterable, Sequence
from typing import Final

from gbgw._webrtc import Payloads
from gbgw.base import limits
from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import H265
from gbgw.media import params
from gbgw.media.track import Track
from gbgw.serve.offer import Law

STAP_A: Final = 24
FU_A: Final = 28
FU_START: Final = 0x80
FU_END: Final = 0x40
NAL_TYPE: Final = 0x1F
NAL_REF_IDC: Final = 0x60
NAL_FORBIDDEN: Final = 0x80
_UNSENT: Final = frozenset((9, 10, 11, 12))  # delimiter, ends of sequence and stream, filler: nothing for a viewer
H265_AP: Final = 48
H265_FU: Final = 49
H265_TYPE: Final = 0x7E  # of the first byte, above the highest bit of the layer
_H265_UNSENT: Final = frozenset((35, 36, 37, 38))  # the same four
_H264_SETS: Final = frozenset((params.H264_SPS, params.H264_PPS))
_H265_SETS: Final = frozenset((params.H265_VPS, params.H265_SPS, params.H265_PPS))


class Packer:
    """Cuts each unit once for all viewers of its stream: they get it one after the other, in one fan-out."""

    def __init__(self) -> None:
        self._unit: AccessUnit | None = None
        self._track: Track | None = None
        self._payloads = Payloads(())
        self._heard: AccessUnit | None = None
        self._sounds: dict[Law, tuple[Payloads, ...]] = {}

    def picture(self, unit: AccessUnit, track: Track) -> Payloads:
        """Payloads of one H.264 or H.265 picture; none when it has no NAL unit that may travel. A key frame
        has its parameter sets in front, the track's where the unit brought none."""
        if unit is not self._unit or track is not self._track:
            nals = _complete(unit, track)
            self._payloads = Payloads(h265(nals) if track.codec is H265 else h264(nals))
            self._unit, self._track = unit, track
        return self._payloads

    def sound(self, unit: AccessUnit, track: Track, law: Law) -> tuple[Payloads, ...]:
        """Packets of one unit of G.711, in the viewer's law; each has a time stamp of its own."""
        if unit is not self._heard:
            self._heard = unit
            self._sounds = {}
        found = self._sounds.get(law)
        if found is None:
            samples = bytes(unit)
            if law != track.codec.name:
                samples = samples.translate(MU_FROM_A if law == "PCMU" else A_FROM_MU)
            found = self._sounds[law] = tuple(Payloads((piece,)) for piece in pieces(samples))
        return found


def _complete(unit: AccessUnit, track: Track) -> Iterable[bytes | memoryview]:
    nals: list[bytes | memoryview] = list(params.nal_units(unit))
    if track.codec is H265:
        is_whole = {(nal[0] & H265_TYPE) >> 1 for nal in nals if nal} >= _H265_SETS
    else:
        is_whole = {nal[0] & NAL_TYPE for nal in nals if nal} >= _H264_SETS
    if nals and unit.is_keyframe and not is_whole:
        return [*track.parameter_sets, *nals]  # what the unit has of them is in the track's
    return nals


def h264(nals: Iterable[bytes | memoryview]) -> list[bytes]:
    """Small NAL units together (STAP-A, section 5.7.1), large ones apart (FU-A, section 5.8). Types that a payload
    header takes for its own (0, 24 to 31), and those that carry nothing, are left out."""
    found: list[bytes] = []
    small: list[bytes | memoryview] = []
    size = 1
    for nal in nals:
        kind = nal[0] & NAL_TYPE if nal else 0
        if kind == 0 or kind >= STAP_A or kind in _UNSENT:
            continue
        if size + 2 + len(nal) > limits.RTP_PAYLOAD_BYTES:
            found += _together(small)
            small, size = [], 1
        if len(nal) > limits.RTP_PAYLOAD_BYTES:
            found += _apart(nal)
        else:
            small.append(nal)
            size += 2 + len(nal)
    return found + _together(small)


def _together(nals: Sequence[bytes | memoryview]) -> list[bytes]:
    if len(nals) < 2:
        return [bytes(nal) for nal in nals]
    forbidden = max(nal[0] & NAL_FORBIDDEN for nal in nals)
    reference = max(nal[0] & NAL_REF_IDC for nal in nals)
    parts = [bytes((forbidden | reference | STAP_A,))]
    for nal in nals:
        parts += [len(nal).to_bytes(2, "big"), bytes(nal)]
    return [b"".join(parts)]


def _apart(nal: bytes | memoryview) -> list[bytes]:
    indicator = nal[0] & (NAL_FORBIDDEN | NAL_REF_IDC) | FU_A
    kind = nal[0] & NAL_TYPE
    room = limits.RTP_PAYLOAD_BYTES - 2
    count = -(-(len(nal) - 1) // room)
    size = -(-(len(nal) - 1) // count)
    cuts = range(1, len(nal), size)
    return [
        bytes((indicator, kind | (FU_START if at == 1 else 0) | (FU_END if at == cuts[-1] else 0)))
        + nal[at : at + size]
        for at in cuts
    ]


def h265(nals: Iterable[bytes | memoryview]) -> list[bytes]:
    """The same by RFC 7798: aggregation packets (section 4.4.2) and fragmentation units (section 4.4.3), without
    decoding order numbers, since one stream is sent in decoding order (sprop-max-don-diff is 0)."""
    found: list[bytes] = []
    small: list[bytes | memoryview] = []
    size = 2
    for nal in nals:
        kind = (nal[0] & H265_TYPE) >> 1 if len(nal) > 2 else H265_AP
        if kind >= H265_AP or kind in _H265_UNSENT:
            continue
        if size + 2 + len(nal) > limits.RTP_PAYLOAD_BYTES:
            found += _together_h265(small)
            small, size = [], 2
        if len(nal) > limits.RTP_PAYLOAD_BYTES:
            found += _apart_h265(nal)
        else:
            small.append(nal)
            size += 2 + len(nal)
    return found + _together_h265(small)


def _together_h265(nals: Sequence[bytes | memoryview]) -> list[bytes]:
    if len(nals) < 2:
        return [bytes(nal) for nal in nals]
    forbidden = max(nal[0] & NAL_FORBIDDEN for nal in nals)
    layer = min((nal[0] & 1) << 5 | nal[1] >> 3 for nal in nals)
    temporal = min(nal[1] & 7 for nal in nals)
    parts = [bytes((forbidden | H265_AP << 1 | layer >> 5, (layer & 0x1F) << 3 | temporal))]
    for nal in nals:
        parts += [len(nal).to_bytes(2, "big"), bytes(nal)]
    return [b"".join(parts)]


def _apart_h265(nal: bytes | memoryview) -> list[bytes]:
    head = bytes((nal[0] & ~H265_TYPE & 0xFF | H265_FU << 1, nal[1]))
    kind = (nal[0] & H265_TYPE) >> 1
    count = -(-(len(nal) - 2) // (limits.RTP_PAYLOAD_BYTES - 3))
    cuts = range(2, len(nal), -(-(len(nal) - 2) // count))
    size = cuts.step
    return [
        head + bytes((kind | (FU_START if at == 2 else 0) | (FU_END if at == cuts[-1] else 0),)) + nal[at : at + size]
        for at in cuts
    ]


def pieces(samples: bytes) -> list[bytes]:
    """G.711 of any length in packets of at most limits.RTP_SOUND_SAMPLES, as even as can be."""
    count = -(-len(samples) // limits.RTP_SOUND_SAMPLES)
    size = -(-len(samples) // count) if count else 1
    return [samples[at : at + size] for at in range(0, len(samples), size)]


# Between the two laws of G.711


def _from_a_law(code: int) -> int:
    """Linear in 16 bits (G.711 table 1)."""
    code ^= 0x55
    exponent = code >> 4 & 7
    value = (code & 0x0F) << 4 | 8
    if exponent:
        value = (value | 0x100) << (exponent - 1)
    return value if code & 0x80 else -value


def _from_mu_law(code: int) -> int:
    """Linear in 16 bits (G.711 table 2)."""
    code = ~code & 0xFF
    value = (((code & 0x0F) << 3 | 0x84) << (code >> 4 & 7)) - 0x84
    return -value if code & 0x80 else value


def _nearest(values: Sequence[int], wanted: int) -> int:
    return min(range(256), key=lambda code: (abs(values[code] - wanted), code))


_A_VALUES: Final = tuple(_from_a_law(code) for code in range(256))
_MU_VALUES: Final = tuple(_from_mu_law(code) for code in range(256))
MU_FROM_A: Final = bytes(_nearest(_MU_VALUES, value) for value in _A_VALUES)
A_FROM_MU: Final = bytes(_nearest(_A_VALUES, value) for value in _MU_VALUES)
