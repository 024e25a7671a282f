"""Fragments: the boxes of one unit, and durations put right once the next one is known."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from gbgw._ps import AccessUnit
from gbgw.base.codec import AAC, H264, H265
from gbgw.mux.fragment import HEADER_BYTES, FragmentWriter, length_prefixed, with_durations

IDR = b"\0\0\0\1\x65" + b"\x88" * 40
SLICE = b"\0\0\1\x41\x9a\x01"


def unit(data: bytes, dts: int, *, key: bool = False, codec: object = H264) -> AccessUnit:
    return AccessUnit(data, codec, dts, dts, is_keyframe=key)  # type: ignore[arg-type]


def boxes(data: bytes) -> dict[str, bytes]:
    """Every box by its path, by the plainest reading of ISO/IEC 14496-12 section 4.2."""
    found: dict[str, bytes] = {}

    def walk(data: bytes, path: str) -> None:
        at = 0
        while at < len(data):
            size, kind = struct.unpack_from(">I4s", data, at)
            name = f"{path}/{kind.decode()}"
            found[name] = data[at + 8 : at + size]
            if kind in (b"moof", b"traf"):
                walk(found[name], name)
            at += size
        assert at == len(data)

    walk(data, "")
    return found


def duration(fragment: bytes) -> int:
    return struct.unpack_from(">I", boxes(fragment)["/moof/traf/trun"], 12)[0]


def test_the_boxes_of_a_key_frame() -> None:
    fragment = FragmentWriter(1, H264, 90_000).write(unit(IDR, 0, key=True), 7_200, 900, 7)
    found = boxes(fragment)
    assert list(found) == [
        "/moof",
        "/moof/mfhd",
        "/moof/traf",
        *(f"/moof/traf/{n}" for n in ("tfhd", "tfdt", "trun")),
        "/mdat",
    ]
    assert found["/moof/mfhd"] == struct.pack(">II", 0, 7)
    assert found["/moof/traf/tfhd"] == struct.pack(">II", 0x020000, 1)
    assert found["/moof/traf/tfdt"] == struct.pack(">IQ", 0x01000000, 900)
    flags, count, offset, lasts, size, sample_flags, composition = struct.unpack(">IIIIIIi", found["/moof/traf/trun"])
    assert (flags, count, lasts, sample_flags, composition) == (0x01000F01, 1, 3_600, 0x02000000, 6_300)
    assert fragment[offset : offset + size] == found["/mdat"] == struct.pack(">I", 41) + IDR[4:]
    assert len(fragment) == HEADER_BYTES + size


def test_composition_offsets_may_be_negative_and_other_samples_are_not_sync() -> None:
    found = boxes(FragmentWriter(1, H264, 90_000).write(unit(SLICE, 0), 0, 3_600, 1))
    assert struct.unpack_from(">Ii", found["/moof/traf/trun"], 20) == (0x01010000, -3_600)


def test_times_of_sound_are_in_samples() -> None:
    writer = FragmentWriter(2, AAC, 16_000)
    found = boxes(writer.write(unit(b"\x21", 0, key=True, codec=AAC), 5_760, 5_760, 1))
    assert found["/moof/traf/tfdt"] == struct.pack(">IQ", 0x01000000, 1_024)
    assert struct.unpack_from(">I", found["/moof/traf/trun"], 12) == (1_024,)
    assert found["/mdat"] == b"\x21"
    assert writer.duration_ticks == 5_760


def test_a_picture_lasts_as_long_as_the_one_before_it() -> None:
    writer = FragmentWriter(1, H264, 90_000)
    times = [0, 6_000, 12_000, 400_000, 403_600]
    durations = [duration(writer.write(unit(SLICE, at), at, at, 1)) for at in times]
    assert durations == [3_600, 6_000, 6_000, 6_000, 3_600]  # a pause of four seconds is no picture's duration


def test_durations_are_put_right_per_track() -> None:
    video, sound = FragmentWriter(1, H264, 90_000), FragmentWriter(2, AAC, 8_000)
    parts = [
        video.write(unit(SLICE, 0), 0, 0, 1),
        sound.write(unit(b"a", 0, codec=AAC), 0, 0, 2),
        video.write(unit(SLICE, 0), 9_000, 9_000, 3),
        video.write(unit(SLICE, 0), 12_000, 12_000, 4),
        sound.write(unit(b"b", 0, codec=AAC), 12_600, 12_600, 5),
    ]
    fixed = with_durations(parts)
    at = 0
    found = []
    for part in parts:
        found.append(duration(fixed[at : at + len(part)]))
        at += len(part)
    assert found == [9_000, 1_120, 3_000, 3_000, 1_024]
    assert len(fixed) == sum(map(len, parts))
    assert with_durations([]) == b""


def test_parameter_sets_of_h265_stay_out_of_the_sample() -> None:
    vps, sps, pps, slice_ = (bytes((kind << 1, 1, 9)) for kind in (32, 33, 34, 19))
    data = b"".join(b"\0\0\0\1" + nal for nal in (vps, sps, pps, slice_))
    assert length_prefixed(unit(data, 0, codec=H265), H265) == b"\0\0\0\3" + slice_
    data = b"\0\0\0\1\x67\x42" + SLICE
    assert length_prefixed(unit(data, 0), H264) == b"\0\0\0\2\x67\x42\0\0\0\3\x41\x9a\x01"


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=30), st.integers(0, 400))
def test_the_payload_is_found_whatever_the_times(times: list[int], size: int) -> None:
    writer = FragmentWriter(1, H264, 90_000)
    body = b"\x41" + b"\xff" * size
    for number, at in enumerate(times):
        found = boxes(writer.write(unit(b"\0\0\0\1" + body, at), at, at, number))
        assert found["/mdat"][4:] == body
        assert struct.unpack_from(">Q", found["/moof/traf/tfdt"], 4) == (at,)
