"""The program stream writer against the byte tables of H.222.0 and the worked vector of GB/T 28181-2022 Annex C."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gbgw._ps import AccessUnit
from gbgw.base.codec import AAC, H264, H265, PCMA, Codec
from gbgw.base.errors import StateError
from gbgw.mux.ps import (
    HIKVISION,
    Muxer,
    Style,
    crc32_mpeg2,
    has_delimiter,
    pack_header,
    pes_packet,
    program_stream_map,
    split_nal_units,
    system_header,
)

KEY = bytes.fromhex("00 00 00 01 09 f0 00 00 00 01 65 88 80 40")
DELTA = bytes.fromhex("00 00 00 01 09 f0 00 00 00 01 41 9a 24 6c")


def video(
    data: bytes = KEY, pts: int = 90_000, dts: int | None = None, *, key: bool = True, codec: Codec = H264
) -> AccessUnit:
    return AccessUnit(data, codec, pts, pts if dts is None else dts, is_keyframe=key)


def audio(data: bytes = b"\xd5" * 8, pts: int = 90_000, codec: Codec = PCMA) -> AccessUnit:
    return AccessUnit(data, codec, pts, pts, is_keyframe=True, track_id=0xC0)


def walk(stream: bytes) -> list[tuple[int, bytes]]:
    """Cut packs into (start code value, unit) by the length fields alone; a PES of length 0 runs to the end."""
    units, at = [], 0
    while at < len(stream):
        assert stream[at : at + 3] == b"\x00\x00\x01", f"no start code at {at}"
        code = stream[at + 3]
        if code == 0xBA:
            length = 14 + (stream[at + 13] & 7)
        else:
            length = int.from_bytes(stream[at + 4 : at + 6], "big")
            length = length + 6 if length else len(stream) - at
        units.append((code, stream[at : at + length]))
        at += length
    assert at == len(stream)
    return units


def payload(unit: bytes) -> bytes:
    return unit[9 + unit[8] :]


def decode_time(field: bytes) -> int:
    return (field[0] >> 1 & 7) << 30 | field[1] << 22 | (field[2] >> 1) << 15 | field[3] << 7 | field[4] >> 1


def test_worked_vector_byte_for_byte() -> None:
    expected = bytes.fromhex(
        "000001ba44001 6fc8401005f6bf8".replace(" ", "")
        + "000001bb000c80ccf504217fe0e190c0c020"
        + "000001bc0012e1ff000000081be0000090c00000b9287f16"
        + "000001e0001684800521000 5bf21".replace(" ", "")
        + "0000000109f00000000165888040"
        + "000001c00010848005210005bf21d5d5d5d5d5d5d5d5"
    )
    muxer = Muxer(H264, PCMA, Style(scr_lead=0))
    assert muxer.pack((video(), audio())) == expected
    assert len(expected) == 106


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (pack_header(90_000), "000001ba440016fc8401005f6bf8"),
        (
            pack_header(3_600, mux_rate=41_944, stuffing=bytes.fromhex("ffffcccccccc")),
            "000001ba440004708401028f63feffffcccccccc",
        ),
        (pack_header(120_739_590, mux_rate=0, stuffing=b"\xff" * 6)[:14], "000001ba447326b83401000003fe"),
        (program_stream_map(((0x24, 0xE0), (0x90, 0xC0))), "000001bc0012e1ff0000000824e0000090c0000019a85c03"),
        (system_header(video=True, audio=True), "000001bb000c80ccf504217fe0e190c0c020"),
        (pes_packet(0xC0, b"", pts=(1 << 33) - 1)[9:], "2fffffffff"),
        (pes_packet(0xE0, b"", pts=93_600, dts=90_000)[6:], "80c00a310005db41110005bf21"),
        (pes_packet(0xE0, b"", pts=120_739_590)[9:], "211cc9ae0d"),
    ],
)
def test_tables(made: bytes, expected: str) -> None:
    assert made.hex() == expected


@pytest.mark.conformance(79)
def test_crc_check_value() -> None:
    assert crc32_mpeg2(b"123456789") == 0x0376_E6E7
    assert crc32_mpeg2(program_stream_map(((0x1B, 0xE0),), descriptors=b"\x40\x01x")) == 0


@pytest.mark.conformance(79)
def test_one_pack_per_unit_and_the_map_only_before_key_frames() -> None:
    muxer = Muxer(H264, PCMA)
    codes = [
        [code for code, _ in walk(muxer.push(unit))]
        for unit in (video(), audio(), video(DELTA, 93_600, key=False), video(KEY, 97_200))
    ]
    assert codes == [[0xBA, 0xBB, 0xBC, 0xE0], [0xBA, 0xC0], [0xBA, 0xE0], [0xBA, 0xBB, 0xBC, 0xE0]]


@pytest.mark.conformance(79)
@pytest.mark.parametrize("size", [65_407, 65_408, 65_409, 65_535, 65_536, 200_000])
def test_large_units_are_split_below_the_length_field(size: int) -> None:
    data = KEY + bytes((index % 251) + 1 for index in range(size - len(KEY)))
    units = [unit for code, unit in walk(Muxer(H264, None).push(video(data))) if code == 0xE0]
    assert b"".join(payload(unit) for unit in units) == data
    assert all(len(unit) - 6 <= 65_535 for unit in units)
    assert [unit[7] for unit in units] == [0x80] + [0x00] * (len(units) - 1)
    assert len(units) == -(-size // 0xFF80)


def test_dts_is_written_only_where_it_differs() -> None:
    muxer = Muxer(H264, None)
    pes = walk(muxer.push(video(DELTA, 97_200, 93_600, key=False)))[-1][1]
    assert pes[7] == 0xC0
    assert (decode_time(pes[9:14]), decode_time(pes[14:19])) == (97_200, 93_600)
    assert walk(muxer.push(video(DELTA, 97_200, 97_200, key=False)))[-1][1][7] == 0x80
    assert walk(Muxer(H264, None, Style(write_dts=False)).push(video(DELTA, 97_200, 93_600)))[-1][1][7] == 0x80


@given(st.integers(0, 1 << 40), st.integers(0, 10))
def test_times_wrap_at_33_bits(pts: int, lead: int) -> None:
    pes = walk(Muxer(H264, None).push(video(KEY, pts + lead * 3_600, pts)))[-1][1]
    assert decode_time(pes[9:14]) == (pts + lead * 3_600) % (1 << 33)


@given(st.integers(0, (1 << 33) - 1))
def test_pack_clock_decodes_to_what_was_given(scr: int) -> None:
    b = pack_header(scr)
    decoded = (
        (b[4] >> 3 & 7) << 30
        | (b[4] & 3) << 28
        | b[5] << 20
        | (b[6] >> 3) << 15
        | (b[6] & 3) << 13
        | b[7] << 5
        | b[8] >> 3
    )
    assert decoded == scr
    assert b[4] & 0xC4 == 0x44
    assert b[6] & 4
    assert b[8] & 4
    assert b[9] & 1
    assert b[12] & 3 == 3


def test_delimiter_is_added_where_absent_and_shown_by_elementary() -> None:
    muxer = Muxer(H265, None)
    bare = video(bytes.fromhex("00000001 2601ac"), codec=H265)
    assert muxer.elementary(bare) == bytes.fromhex("00000001460150 000000012601ac")
    assert payload(walk(muxer.push(bare))[-1][1]) == muxer.elementary(bare)
    assert muxer.elementary(video(bytes.fromhex("000001460150 0000012601"), codec=H265)) == bytes.fromhex(
        "000001460150 0000012601"
    )
    assert not has_delimiter(b"\x00\x00\x00\x01", H264)
    assert not has_delimiter(b"", H265)


def test_a_change_of_codecs_raises_the_map_version() -> None:
    muxer = Muxer(H264, PCMA)
    first = dict(walk(muxer.push(video())))[0xBC]
    muxer.retrack(H264, PCMA)
    assert dict(walk(muxer.push(video())))[0xBC] == first
    muxer.retrack(H264, AAC)
    second = dict(walk(muxer.push(video())))[0xBC]
    assert (first[6], second[6]) == (0xE1, 0xE2)
    assert second[16] == 0x0F


def test_style_without_map() -> None:
    assert [code for code, _ in walk(Muxer(H264, PCMA, Style(program_map=False)).push(video()))] == [0xBA, 0xBB, 0xE0]


def test_style_that_lies() -> None:
    lying = Style(declared_video=H265, promised_audio=PCMA)
    entries = dict(walk(Muxer(H264, None, lying).push(video())))[0xBC][12:-4]
    assert entries == bytes.fromhex("24e00000 90c00000")
    mislabelled = dict(walk(Muxer(H264, AAC, Style(declared_audio=PCMA)).push(video())))[0xBC][12:-4]
    assert mislabelled == bytes.fromhex("1be00000 90c00000")


def test_style_zero_length() -> None:
    data = KEY + b"\x55" * 70_000
    units = walk(Muxer(H264, None, Style(zero_length=True)).push(video(data)))
    assert units[-1][1][4:6] == b"\x00\x00"
    assert payload(units[-1][1]) == data


def test_style_of_one_large_vendor() -> None:
    data = bytes.fromhex("00000001 67aa 00000001 68bb 00000001 06cc 00000001 65dd")
    muxer = Muxer(H264, None, HIKVISION)
    first, second = muxer.push(video(data)), muxer.push(video(DELTA, 93_600, key=False))
    units = walk(first)
    assert [code for code, _ in units] == [0xBA, 0xBB, 0xBC, 0xBD, 0xE0, 0xE0, 0xE0, 0xE0]
    assert units[2][1][-4:] == bytes(4)
    assert [unit[7] for code, unit in units if code == 0xE0] == [0x80, 0, 0, 0]
    assert b"".join(payload(unit) for code, unit in units if code == 0xE0) == data
    assert (first[13], first[14:20]) == (0xFE, b"\xff\xff\x00\x00\x00\x00")
    assert second[14:20] == b"\xff\xff\x00\x00\x00\x01"


@given(
    st.lists(
        st.tuples(st.sampled_from([b"\x00\x00\x01", b"\x00\x00\x00\x01"]), st.binary(min_size=1, max_size=9)),
        max_size=6,
    )
)
def test_split_nal_units_loses_nothing(parts: list[tuple[bytes, bytes]]) -> None:
    data = b"".join(code + re.sub(rb"\x00", b"\x01", body) for code, body in parts)
    pieces = list(split_nal_units(data))
    assert b"".join(pieces) == data
    assert len(pieces) == max(1, len(parts))


def test_refuses_what_it_cannot_write() -> None:
    muxer = Muxer(H264, None)
    with pytest.raises(StateError):
        muxer.push(AccessUnit(KEY, H264, None))
    with pytest.raises(StateError):
        muxer.push(audio())


def test_sound_alone_repeats_its_map() -> None:
    muxer = Muxer(None, PCMA)
    with_map = [0xBC in dict(walk(muxer.push(audio(pts=index * 3_600)))) for index in range(51)]
    assert [index for index, seen in enumerate(with_map) if seen] == [0, 25, 50]
