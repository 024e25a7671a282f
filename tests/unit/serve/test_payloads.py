"""Units into RTP payloads: what goes in front, together, apart, and not at all."""

import math

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gbgw.base import limits
from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import H264, H265
from gbgw.media import params
from gbgw.media.track import Track
from gbgw.mux.pattern import PatternSpec
from gbgw.serve import payloads
from tests.support.streams import timed_units

SPS, PPS, SEI, IDR, SLICE = b"\x67sps", b"\x68pp", b"\x06sei", b"\x65" + b"i" * 50, b"\x41slice"


class Unit:
    """As much of an access unit as is looked at."""

    def __init__(self, data: bytes, *, is_keyframe: bool = False) -> None:
        self.data = data
        self.is_keyframe = is_keyframe

    def __bytes__(self) -> bytes:
        return self.data


def annexb(*nals: bytes, code: bytes = b"\0\0\0\1") -> bytes:
    return b"".join(code + nal for nal in nals)


def picture(data: bytes, *, is_keyframe: bool = False, track: Track | None = None) -> list[bytes]:
    own = track if track is not None else Track(0xE0, H264, (SPS, PPS))
    return depacketised(payloads.Packer().picture(Unit(data, is_keyframe=is_keyframe), own))  # type: ignore[arg-type]


def depacketised(found: tuple[bytes, ...] | list[bytes]) -> list[bytes]:
    """RFC 6184 backwards, strictly."""
    nals: list[bytes] = []
    is_open = False
    for payload in found:
        assert 0 < len(payload) <= limits.RTP_PAYLOAD_BYTES
        kind = payload[0] & 31
        assert is_open == (kind == 28 and not payload[1] & 0x80)
        if kind == 24:
            at, inside = 1, []
            while at < len(payload):
                size = int.from_bytes(payload[at : at + 2], "big")
                assert size > 0
                inside.append(payload[at + 2 : at + 2 + size])
                at += 2 + size
            assert at == len(payload)
            assert len(inside) > 1
            assert payload[0] & 0x60 == max(nal[0] & 0x60 for nal in inside)
            nals += inside
        elif kind == 28:
            assert not payload[1] & 0x20
            assert payload[1] & 0xC0 != 0xC0
            if payload[1] & 0x80:
                nals.append(bytes([payload[0] & 0xE0 | payload[1] & 31]))
            nals[-1] += payload[2:]
            is_open = not payload[1] & 0x40
        else:
            assert 0 < kind < 24
            nals.append(payload)
    assert not is_open
    return nals


def test_a_key_frame_has_its_parameter_sets_in_front() -> None:
    assert picture(annexb(IDR), is_keyframe=True) == [SPS, PPS, IDR]
    assert picture(annexb(b"\x67new", b"\x68n", IDR), is_keyframe=True) == [b"\x67new", b"\x68n", IDR]
    assert picture(annexb(SPS, IDR), is_keyframe=True) == [SPS, PPS, SPS, IDR]
    assert picture(annexb(SLICE)) == [SLICE]


@pytest.mark.parametrize("code", [b"\0\0\1", b"\0\0\0\1", b"\0\0\0\0\1"])
def test_start_codes_of_any_length(code: bytes) -> None:
    assert picture(annexb(SEI, SLICE, SLICE, code=code)) == [SEI, SLICE, SLICE]
    assert picture(annexb(SLICE, code=code) + b"\0\0\0") == [SLICE]


def test_what_carries_nothing_is_left_out() -> None:
    aud, filler, end = b"\x09\x10", b"\x0c" + b"\xff" * 3_000, b"\x0a"
    assert picture(annexb(aud, SEI, filler, SLICE, end)) == [SEI, SLICE]
    assert picture(annexb(aud)) == []
    assert picture(b"") == []
    assert picture(b"\0\0\1\0\0\1\0\0\1") == []  # aiortc's own packetiser raises at this
    assert picture(annexb(b"\x18stap", b"\x1cfu", b"\x00zero", b"\x1f", SLICE)) == [SLICE]


@given(st.lists(st.binary(min_size=1, max_size=4_000).map(lambda tail: b"\x41" + tail), max_size=12))
def test_what_is_cut_is_the_same_put_together(nals: list[bytes]) -> None:
    assert depacketised(payloads.h264(nals)) == nals


@given(st.binary(max_size=3_000))
def test_any_bytes_are_cut_without_harm(data: bytes) -> None:
    for payload in payloads.Packer().picture(Unit(data, is_keyframe=True), Track(0xE0, H264)):  # type: ignore[arg-type]
        assert 0 < len(payload) <= limits.RTP_PAYLOAD_BYTES


@pytest.mark.parametrize("size", [1_199, 1_200, 1_201, 1_202, 2_396, 2_397, 2_398, 70_000])
def test_at_the_edges_of_a_packet(size: int) -> None:
    nal = b"\x65" + bytes(index % 251 for index in range(size - 1))
    found = payloads.h264([nal])
    assert depacketised(found) == [nal]
    assert len(found) == (1 if size <= 1_200 else math.ceil((size - 1) / 1_198))


def test_all_viewers_get_the_same_bytes() -> None:
    packer, unit, track = payloads.Packer(), timed_units(PatternSpec(audio=None, seconds=1))[0], Track(0xE0, H264)
    assert packer.picture(unit, track) is packer.picture(unit, track)
    assert packer.picture(unit, Track(0xE0, H264, (SPS, PPS))) is not None


@pytest.mark.parametrize("count", [0, 1, 160, 480, 481, 960, 1_280, 8_001])
def test_sound_in_even_pieces(count: int) -> None:
    samples = bytes(index % 256 for index in range(count))
    found = payloads.pieces(samples)
    assert b"".join(found) == samples
    assert all(0 < len(piece) <= limits.RTP_SOUND_SAMPLES for piece in found)
    assert len(found) == math.ceil(count / limits.RTP_SOUND_SAMPLES)


def linear(law: str, codes: bytes) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """By FFmpeg's tables."""
    codec = av.CodecContext.create(law, "r")
    codec.layout, codec.sample_rate, codec.format = "mono", 8_000, "s16"  # type: ignore[attr-defined]
    found: np.ndarray[tuple[int], np.dtype[np.int64]] = np.concatenate(
        [frame.to_ndarray().reshape(-1) for frame in codec.decode(av.Packet(codes))]  # type: ignore[attr-defined]
    ).astype(np.int64)
    return found


@pytest.mark.parametrize(
    ("table", "law", "other"),
    [(payloads.MU_FROM_A, "pcm_alaw", "pcm_mulaw"), (payloads.A_FROM_MU, "pcm_mulaw", "pcm_alaw")],
)
def test_the_other_law_is_as_near_as_it_can_be(table: bytes, law: str, other: str) -> None:
    every = bytes(range(256))
    wanted, all_other, got = linear(law, every), linear(other, every), linear(other, every.translate(table))
    best = np.abs(wanted[:, None] - all_other[None, :]).min(axis=1)
    assert (np.abs(wanted - got) == best).all()
    assert (np.sign(wanted) * np.sign(got) >= 0).all()


# H.265


def depacketised_h265(found: "payloads.Payloads | list[bytes]") -> list[bytes]:
    """RFC 7798 read the plain way."""
    nals: list[bytes] = []
    for payload in found:
        assert len(payload) <= limits.RTP_PAYLOAD_BYTES
        kind = payload[0] >> 1 & 0x3F
        if kind == 48:
            at, count = 2, 0
            while at < len(payload):
                size = int.from_bytes(payload[at : at + 2], "big")
                nals.append(payload[at + 2 : at + 2 + size])
                at, count = at + 2 + size, count + 1
            assert count > 1
        elif kind == 49:
            is_first, is_last = payload[2] & 0x80, payload[2] & 0x40
            assert not (is_first and is_last)
            if is_first:
                nals.append(bytes((payload[0] & 0x81 | (payload[2] & 0x3F) << 1, payload[1])))
            nals[-1] += payload[3:]
        else:
            nals.append(payload)
    return nals


H265_NALS = st.builds(
    lambda kind, layer, temporal, body: bytes((kind << 1 | layer >> 5, (layer & 31) << 3 | temporal)) + body,
    st.sampled_from([0, 1, 19, 21, 32, 33, 34, 39]),
    st.integers(0, 63),
    st.integers(1, 7),
    st.binary(min_size=1, max_size=4_000),
)


@given(st.lists(H265_NALS, max_size=12))
def test_h265_that_is_cut_is_the_same_put_together(nals: list[bytes]) -> None:
    assert depacketised_h265(payloads.h265(nals)) == nals


@pytest.mark.parametrize("size", [3, 1_196, 1_199, 1_200, 1_201, 2_396, 2_397, 2_398, 70_000])
def test_h265_at_the_edges_of_a_packet(size: int) -> None:
    nal = b"\x26\x01" + b"x" * (size - 2)
    found = payloads.h265([nal, nal])
    assert depacketised_h265(found) == [nal, nal]
    assert len(payloads.h265([nal])) == (1 if size <= limits.RTP_PAYLOAD_BYTES else -(-(size - 2) // 1_197))


def test_together_they_have_the_lowest_layer_and_temporal_id() -> None:
    """RFC 7798 section 4.4.2."""
    (one,) = payloads.h265([b"\x02\x0b" + b"a" * 9, b"\x82\x12" + b"b" * 9])
    assert one[:2] == bytes((0x80 | 48 << 1, 1 << 3 | 2))


@given(st.binary(max_size=3_000))
def test_any_bytes_as_h265_are_cut_without_harm(data: bytes) -> None:
    track = Track(0xE0, H265, (b"\x40\1v", b"\x42\1s", b"\x44\1p"))
    depacketised_h265(payloads.Packer().picture(Unit(data), track))  # type: ignore[arg-type]


def test_an_h265_stream_is_decoded_as_it_was_sent() -> None:
    """FFmpeg on what was put together again; delimiters and the like stay behind, parameter sets stand in front."""
    units = timed_units(PatternSpec(video=H265, width=320, height=180, seconds=1, gop=25))
    packer, codec = payloads.Packer(), av.CodecContext.create("hevc", "r")
    track = Track(0xE0, H265, tuple(sets_of(units[0])))
    frames, times = 0, 0
    for unit in units:
        if unit.codec is not H265:
            continue
        bare = [nal for nal in map(bytes, params.nal_units(unit)) if nal[0] >> 1 not in (32, 33, 34)]
        seen = depacketised_h265(packer.picture(Unit(annexb(*bare), is_keyframe=unit.is_keyframe), track))  # type: ignore[arg-type]
        if unit.is_keyframe:
            assert [nal[0] >> 1 for nal in seen[:3]] == [32, 33, 34]
        assert not {nal[0] >> 1 for nal in seen} & {35, 36, 37, 38}
        frames += len(codec.decode(av.Packet(annexb(*seen))))
        times += 1
    frames += len(codec.decode(None))
    assert frames == times == 25


def sets_of(unit: "AccessUnit") -> list[bytes]:
    return [nal for nal in map(bytes, params.nal_units(unit)) if nal[0] >> 1 in (32, 33, 34)]
