"""Program stream core and model, case by case: reference 7.2 to 7.9, byte for byte."""

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from gbgw import _ps
from gbgw._ps import AccessUnit
from gbgw.base.codec import AAC, H264, H265, PCMA, PCMU, by_name
from tests.model import ps_model
from tests.support import build, nal

Make = Callable[..., Any]

# Reference 7.9: the complete vector.
PACK = bytes.fromhex("000001ba440016fc8401005f6bf8")
SYSTEM = bytes.fromhex("000001bb000c80ccf504217fe0e190c0c020")
PSM = bytes.fromhex("000001bc0012e1ff000000081be0000090c00000b9287f16")
VIDEO = bytes.fromhex("000001e00016848005210005bf210000000109f00000000165888040")
AUDIO = bytes.fromhex("000001c00010848005210005bf21d5d5d5d5d5d5d5d5")
VECTOR = PACK + SYSTEM + PSM + VIDEO + AUDIO


@pytest.fixture(params=[_ps.Demuxer, ps_model.Demuxer], ids=["core", "model"])
def make(request: pytest.FixtureRequest) -> Make:
    return request.param  # type: ignore[no-any-return]


def run(make: Make, data: bytes, cut: int = 0, **options: Any) -> tuple[list[AccessUnit], Any]:
    demuxer = make(**options)
    units: list[AccessUnit] = []
    for at in range(0, len(data), cut or len(data) or 1):
        units += demuxer.push(data[at : at + (cut or len(data))], 0.0)
    units += demuxer.flush()
    return units, demuxer


def videos(units: list[AccessUnit]) -> list[AccessUnit]:
    return [unit for unit in units if unit.track_id == 0xE0]


def frame(number: int, payload: bytes, *, head: bytes = b"", audio: bytes = b"") -> bytes:
    pts = 90_000 + 3_600 * number
    return build.pack(pts) + head + build.pes_run(payload, pts=pts) + audio


def key(number: int, size: int = 100, **options: Any) -> bytes:
    return frame(number, build.idr264(size, number + 1), head=build.system_header() + build.program_map(), **options)


def delta(number: int, size: int = 50, **options: Any) -> bytes:
    return frame(number, build.p264(size, number + 1), **options)


def movie(count: int = 6) -> bytes:
    return b"".join(key(n) if n % 5 == 0 else delta(n) for n in range(count))


# --- AccessUnit ---


def test_unit_shows_its_bytes_read_only() -> None:
    unit = AccessUnit(b"abc", H264, 7, is_keyframe=True, parameter_sets=(b"x",), arrived=2.5)
    assert (bytes(unit), len(unit), memoryview(unit).readonly) == (b"abc", 3, True)
    with pytest.raises(TypeError):
        memoryview(unit)[0] = 1
    with pytest.raises(AttributeError):
        unit.pts = 8  # type: ignore[misc]
    assert "keyframe" in repr(unit)


def test_unit_with_times_shares_the_bytes() -> None:
    unit = AccessUnit(b"abc", H264, None, discontinuity=True, arrived=1.0)
    timed = unit.with_times(5, 4)
    assert (timed.pts, timed.dts, bytes(timed), timed.discontinuity, timed.arrived) == (5, 4, b"abc", True, 1.0)
    assert unit.pts is None
    assert bytes(timed) is bytes(unit)


def test_demuxed_unit_outlives_the_demuxer_and_pickles() -> None:
    units, demuxer = run(_ps.Demuxer, VECTOR)
    del demuxer
    copies = pickle.loads(pickle.dumps(units))
    assert copies == units
    assert copies[0].codec is units[0].codec
    assert memoryview(units[0].with_times(1, 1)) == memoryview(units[0])


def test_unit_equality_leaves_out_only_the_arrival() -> None:
    unit = AccessUnit(b"abc", H264, 7, arrived=1.0)
    assert unit == AccessUnit(b"abc", H264, 7, arrived=9.0)
    assert hash(unit) == hash(AccessUnit(b"abc", H264, 7, arrived=9.0))
    for other in (
        AccessUnit(b"abd", H264, 7),
        AccessUnit(b"ab", H264, 7),
        AccessUnit(b"abc", H265, 7),
        AccessUnit(b"abc", H264, 8),
        AccessUnit(b"abc", H264, 7, 7),
        AccessUnit(b"abc", H264, 7, is_keyframe=True),
        AccessUnit(b"abc", H264, 7, parameter_sets=(b"",)),
        AccessUnit(b"abc", H264, 7, track_id=0xE1),
        AccessUnit(b"abc", H264, 7, discontinuity=True),
        b"abc",
    ):
        assert unit != other


# --- reference 7.9 and 7.2 to 7.5, byte for byte ---


@pytest.mark.conformance(73)
@pytest.mark.parametrize("cut", [0, 1, 2, 3, 5, 7, 14, 50, 105, 106])
def test_complete_vector(make: Make, cut: int) -> None:
    assert len(VECTOR) == 106
    units, demuxer = run(make, VECTOR, cut)
    assert units == [
        AccessUnit(b"\xd5" * 8, PCMA, 90_000, is_keyframe=True, track_id=0xC0),
        AccessUnit(bytes.fromhex("0000000109f00000000165888040"), H264, 90_000, is_keyframe=True),
    ]
    assert (demuxer.packs, demuxer.maps, demuxer.buffered) == (1, 1, 0)
    assert [(s.stream_id, s.declared, s.detected) for s in demuxer.streams] == [(0xC0, PCMA, None), (0xE0, H264, H264)]
    assert demuxer.counts["ps.malformed"] == demuxer.counts["ps.resync"] == demuxer.counts["ps.skipped_bytes"] == 0


def test_vector_is_what_the_builders_build() -> None:
    built = build.pack(90_000) + build.system_header() + build.program_map()
    built += build.pes(bytes.fromhex("0000000109f00000000165888040"), pts=90_000, first_flags=0x84)
    built += build.pes(b"\xd5" * 8, 0xC0, 90_000, first_flags=0x84)
    assert built == VECTOR
    assert build.crc32_mpeg2(b"123456789") == 0x0376E6E7
    assert build.crc32_mpeg2(PSM) == 0


@pytest.mark.conformance(74)
@pytest.mark.parametrize(
    "pack",
    [
        PACK,
        bytes.fromhex("000001ba44000470840 1028f63fe".replace(" ", "")) + bytes.fromhex("ffffcccccccc"),
        bytes.fromhex("000001ba447326b834010000 03fe".replace(" ", "")) + bytes.fromhex("ffff00000001"),
        build.pack(5, stuffing=b"\xff"),
        build.pack(5, stuffing=b"\0\0\1\xba\0\0\1"),
        build.pack_mpeg1(90_000),
        build.pack_bodiless(),
    ],
    ids=["plain", "hikvision", "hikvision-mux-0", "stuffing-1", "stuffing-7", "mpeg-1", "bodiless"],
)
@pytest.mark.parametrize("cut", [0, 1, 3, 13])
def test_pack_headers(make: Make, pack: bytes, cut: int) -> None:
    data = key(0) + pack + build.pes(build.p264(), pts=93_600) + pack + build.pes(build.p264(9), pts=97_200)
    units, demuxer = run(make, data, cut)
    assert [unit.pts for unit in units] == [90_000, 93_600, 97_200]
    assert demuxer.packs == 3
    assert demuxer.counts["ps.malformed"] == 0


@pytest.mark.parametrize(
    ("coded", "pts", "dts"),
    [
        ("80 05 21 00 05 bf 21", 90_000, None),
        ("c0 0a 31 00 05 db 41 11 00 05 bf 21", 93_600, 90_000),
        ("80 05 2f ff ff ff ff", 2**33 - 1, None),
        ("80 0a 21 1c c9 ae 0d ff ff ff ff fc", 120_739_590, None),
        ("80 05 21 00 00 00 01", None, None),  # marker bits missing: no time rather than a wrong one
        ("00 03 ff ff fc", None, None),
    ],
)
def test_time_stamps(make: Make, coded: str, pts: int | None, dts: int | None) -> None:
    if "21 00 00 00 01" in coded:
        coded = "80 05 21 00 00 00 01"
    payload = build.idr264()
    header = bytes((0x8C,)) + bytes.fromhex(coded)
    body = header + payload
    data = PACK + PSM + b"\0\0\1\xe0" + len(body).to_bytes(2, "big") + body
    units, _ = run(make, data)
    assert [(unit.pts, unit.dts, bytes(unit)) for unit in units] == [(pts, dts, payload)]


# --- maps ---


@pytest.mark.conformance(74)
def test_map_with_wrong_crc_and_private_descriptors(make: Make) -> None:
    info = bytes.fromhex("400e484b0100145a3c7b00ffffffffff") + bytes.fromhex("410c") + bytes(12)
    entries = (
        (build.H264, 0xE0, bytes.fromhex("420e071010ea02c002 4011f3000000ffff".replace(" ", ""))),
        (build.PCMA, 0xC0, bytes.fromhex("430a0140fe007d0003e803ff")),
        (0xBD, 0xBD),
        (0xBF, 0xBF),
    )
    psm = build.program_map(entries, info=info, crc=0)
    units, demuxer = run(make, PACK + psm + VIDEO + AUDIO)
    assert len(units) == 2
    assert demuxer.maps == 1
    assert [s.stream_id for s in demuxer.streams] == [0xC0, 0xE0]


@pytest.mark.parametrize(
    "psm",
    [
        build.program_map(length=0),
        build.program_map(length=1019),
        build.program_map(((build.H265, 0xE0),), info=b"", entries_length=0),
        build.program_map((), crc=0),
        build.program_map(length=200),
        build.program_map(length=12),
    ],
    ids=["zero", "huge", "empty", "no-entries", "too-long", "too-short"],
)
@pytest.mark.parametrize("cut", [0, 1, 7])
def test_damaged_map_keeps_the_one_in_force_and_the_picture(make: Make, psm: bytes, cut: int) -> None:
    data = key(0) + frame(1, build.p264(300, 5), head=psm) + delta(2)
    units, demuxer = run(make, data, cut)
    assert [unit.pts for unit in units] == [90_000, 93_600, 97_200]
    assert demuxer.streams[-1].declared == H264
    assert demuxer.counts["ps.malformed"] >= 1


def test_map_whose_descriptor_leaves_its_bounds_still_counts(make: Make) -> None:
    psm = bytearray(build.program_map(((build.H264, 0xE0), (build.PCMU, 0xC0))))
    psm[18:20] = b"\x01\x00"  # es_info_length of the second entry
    units, demuxer = run(make, PACK + bytes(psm) + VIDEO + AUDIO)
    assert len(units) == 2
    assert {s.stream_id: s.declared for s in demuxer.streams} == {0xC0: PCMU, 0xE0: H264}


@pytest.mark.parametrize(("declared", "expected"), [(build.PCMA, PCMA), (build.PCMU, PCMU), (build.AAC, AAC)])
def test_audio_follows_the_map(make: Make, declared: int, expected: object) -> None:
    psm = build.program_map(((build.H264, 0xE0), (declared, 0xC0)))
    units, _ = run(make, PACK + psm + build.pes(b"\x11" * 160, 0xC0, 90_000))
    assert [unit.codec for unit in units] == [expected]


@pytest.mark.conformance(75)
@pytest.mark.parametrize("cut", [0, 1])
def test_content_wins_over_a_lying_map(make: Make, cut: int) -> None:
    lie264 = build.program_map(((build.H265, 0xE0), (build.PCMA, 0xC0)))
    lie265 = build.program_map(((build.H264, 0xE0), (build.PCMA, 0xC0)))
    sound = build.adts(b"\x21" * 90) + build.adts(b"\x22" * 80)
    for psm, picture, codec, sets in (
        (lie264, build.idr264(), H264, (build.SPS264, build.PPS264)),
        (lie265, build.idr265(), H265, (build.VPS265, build.SPS265, build.PPS265)),
    ):
        data = build.pack() + psm + build.pes(picture, pts=0) + build.pes(sound, 0xC0, 0) + build.pes(sound, 0xC0, 9)
        units, demuxer = run(make, data, cut)
        video = videos(units)
        assert [(unit.codec, unit.is_keyframe, unit.parameter_sets) for unit in video] == [(codec, True, sets)]
        assert [unit.codec for unit in units if unit.track_id == 0xC0] == [AAC, AAC]
        assert demuxer.counts["ps.codec_mismatch"] == 2
        assert next((s.declared, s.detected) for s in demuxer.streams) == (PCMA, AAC)


def test_map_that_flips_does_not_flip_the_codec(make: Make) -> None:
    data = b""
    for number in range(6):
        psm = build.program_map((((build.H265, build.H264)[number % 2], 0xE0),))
        data += frame(number, build.idr265() if number == 0 else build.p265(), head=psm)
    units, demuxer = run(make, data)
    assert [unit.codec for unit in units] == [H265] * 6
    assert demuxer.counts["ps.codec_mismatch"] == 1


@pytest.mark.conformance(74)
@pytest.mark.parametrize(("picture", "codec"), [(build.idr264(), H264), (build.idr265(), H265)])
def test_missing_map(make: Make, picture: bytes, codec: object) -> None:
    data = build.pack() + build.pes(picture, pts=0) + build.pes(b"\xd5" * 160, 0xC0, 0)
    data += build.pes(build.adts(b"\x21" * 90), 0xC1, 0)
    units, demuxer = run(make, data)
    assert {unit.track_id: unit.codec for unit in units} == {0xE0: codec, 0xC0: PCMA, 0xC1: AAC}
    assert demuxer.counts["ps.no_map"] == 3


def test_missing_map_and_no_parameter_sets(make: Make) -> None:
    units, _ = run(make, PACK + VIDEO + AUDIO)
    assert {unit.codec for unit in units} == {H264, PCMA}


def test_unsupported_codecs_are_listed_and_counted(make: Make) -> None:
    psm = build.program_map(((build.SVAC, 0xE0), (0x9B, 0xC0)))
    picture = build.nals(b"\x55" * 400)
    data = b"".join(build.pack() + psm + build.pes(picture, pts=n) + build.pes(b"\x66" * 90, 0xC0, n) for n in range(4))
    units, demuxer = run(make, data)
    assert units == []
    assert [s.declared for s in demuxer.streams] == [by_name("SVACA"), by_name("SVAC")]
    assert demuxer.counts["ps.unsupported"] == 8
    assert not by_name("SVAC").supported


def test_mpeg_video_is_detected_and_refused(make: Make) -> None:
    picture = bytes.fromhex("000001b3160120230001 0000 000001b5148a 00000100000f 000001010a".replace(" ", ""))
    units, demuxer = run(make, build.pack() + build.pes(picture + build.filler(200), pts=0))
    assert units == []
    assert [s.detected for s in demuxer.streams] == [by_name("MPEG2V")]


# --- how pictures lie in PES packets ---


@pytest.mark.parametrize("cut", [0, 1, 3, 1400])
def test_parameter_sets_and_picture_in_pes_of_their_own(make: Make, cut: int) -> None:
    parts = [
        build.nals(nal) for nal in (build.SPS264, build.PPS264, b"\x06\x05\x01\x80", b"\x65\x88" + build.filler(500))
    ]
    data = PACK + PSM + build.pes(parts[0], pts=90_000, stuffing=b"\xff\xff\xff\xff\xfc")
    data += b"".join(build.pes(part, stuffing=b"\xff\xff\xfc", first_flags=0x8C) for part in parts[1:])
    units, _ = run(make, data + delta(1), cut)
    assert [(bytes(unit), unit.pts) for unit in units] == [(b"".join(parts), 90_000), (build.p264(50, 2), 93_600)]
    assert units[0].parameter_sets == (build.SPS264, build.PPS264)
    assert units[0].is_keyframe
    assert not units[1].is_keyframe


@pytest.mark.conformance(74)
@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("cut", [0, 1400])
def test_large_picture_over_several_pes(make: Make, repeat: bool, cut: int) -> None:
    picture = build.idr264(200_000)
    data = PACK + PSM + build.pes_run(picture, pts=90_000, repeat=repeat) + delta(1)
    units, _ = run(make, data, cut)
    assert [bytes(unit) for unit in units] == [picture, build.p264(50, 2)]


@pytest.mark.conformance(74)
@pytest.mark.parametrize("cut", [0, 1, 5, 1400])
def test_unbounded_pes(make: Make, cut: int) -> None:
    data = PACK + PSM + build.pes(build.idr264(90_000), pts=90_000, length=0)
    data += build.pes(b"\xd5" * 160, 0xC0, 90_000)
    data += build.pack(5) + build.pes(build.p264(3000), pts=93_600, length=0)
    data += build.pack_bodiless() + build.pes(build.p264(7), pts=97_200, length=0)
    units, demuxer = run(make, data, cut)
    assert [(bytes(unit), unit.pts) for unit in videos(units)] == [
        (build.idr264(90_000), 90_000),
        (build.p264(3000), 93_600),
        (build.p264(7), 97_200),
    ]
    assert demuxer.counts["ps.malformed"] == 0


def test_several_pictures_in_one_pack(make: Make) -> None:
    data = (
        build.pack()
        + PSM
        + b"".join(
            build.pes(build.idr264() if n == 0 else build.p264(30, n), pts=n * 3600, dts=max(n - 1, 0) * 3600)
            for n in range(15)
        )
    )
    units, demuxer = run(make, data)
    assert [(unit.pts, unit.dts) for unit in units] == [(n * 3600, max(n - 1, 0) * 3600) for n in range(15)]
    assert demuxer.packs == 1


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_access_units_that_ignore_pes_borders(make: Make, cut: int) -> None:
    """FFmpeg's own muxer fills 2048-byte packs; a time stamp is of the first picture that begins in its PES."""
    pictures = [build.idr264(5000), *(build.p264(size, size) for size in (900, 3000, 100, 100, 2500))]
    stream = b"".join(pictures)
    starts = [sum(map(len, pictures[:n])) for n in range(len(pictures))]
    data = b""
    timed = {}
    for at in range(0, len(stream), 2000):
        begun = [n for n, start in enumerate(starts) if at <= start < at + 2000]
        pts = begun[0] * 3600 if begun else None
        if begun:
            timed[begun[0]] = pts
        data += build.pack(at) + build.pes(stream[at : at + 2000], pts=pts)
    units, _ = run(make, data, cut)
    assert [bytes(unit) for unit in units] == pictures
    assert [unit.pts for unit in units] == [timed.get(n) for n in range(len(pictures))]


@pytest.mark.parametrize("size", range(90, 130))
def test_access_units_are_whole_wherever_the_pes_border_falls(make: Make, size: int) -> None:
    """The border cuts start codes, delimiters and slice headers at every place."""
    pictures = [b"\0\0\0\1\x09\xf0" + build.idr264(200, 7)]
    pictures += [b"\0\0\0\1\x09\xf0" + build.p264(length, length) for length in range(60, 110)]
    stream = b"".join(pictures)
    starts = [sum(map(len, pictures[:n])) for n in range(len(pictures))]
    data = b""
    timed = {}
    for at in range(0, len(stream), size):
        begun = [n for n, start in enumerate(starts) if at <= start < at + size]
        if begun:
            timed[begun[0]] = begun[0] * 3_600
        data += build.pack(at) + build.pes(stream[at : at + size], pts=begun[0] * 3_600 if begun else None)
    units, _ = run(make, data, 11)
    assert [bytes(unit) for unit in units] == pictures
    assert [unit.pts for unit in units] == [timed.get(n) for n in range(len(pictures))]


def test_pictures_without_any_time_stamp(make: Make) -> None:
    pictures = [build.idr264(), *(build.p264(40, n) for n in range(5))]
    units, _ = run(make, b"".join(build.pack() + build.pes(picture) for picture in pictures))
    assert [bytes(unit) for unit in units] == pictures
    assert {unit.pts for unit in units} == {None}


def test_pictures_with_a_constant_time_stamp(make: Make) -> None:
    pictures = [build.idr264(), *(build.p264(40, n) for n in range(5))]
    units, _ = run(make, b"".join(build.pack() + build.pes(picture, pts=0) for picture in pictures))
    assert [bytes(unit) for unit in units] == pictures


def test_audio_in_every_place(make: Make) -> None:
    bare = build.pes(b"\xd5" * 160, 0xC0)
    data = key(0, audio=build.pes(b"\xd5" * 160, 0xC0, 90_000)) + bare + build.pack() + bare + delta(1)
    units, _ = run(make, data)
    assert [unit.pts for unit in units if unit.track_id == 0xC0] == [90_000, None, None]
    assert [unit.pts for unit in videos(units)] == [90_000, 93_600]


@pytest.mark.conformance(74)
def test_private_streams_are_skipped_by_length(make: Make) -> None:
    junk = b"\0\0\1\xba" + PACK[4:] + VIDEO  # looks like a whole pack, inside a packet of known length
    skipped = build.pes(junk, 0xBD) + b"".join(
        build.plain_pes(junk, sid) for sid in (0xBF, 0xF0, 0xF1, 0xF2, 0xF8, 0xFF)
    )
    skipped += build.plain_pes(b"\xff" * 500, 0xBE)
    sound = b"\xd5" * 40 + junk + b"\xd5" * 9
    data = key(0) + skipped + build.pes(sound, 0xC0, 90_000) + delta(1)
    for cut in (0, 1, 33):
        units, demuxer = run(make, data, cut)
        assert [unit.pts for unit in videos(units)] == [90_000, 93_600]
        assert [bytes(unit) for unit in units if unit.track_id == 0xC0] == [sound]
        assert demuxer.counts["ps.private"] == 7
        assert demuxer.counts["ps.malformed"] == 0


def test_second_video_id_is_left_out(make: Make) -> None:
    other = build.pes(build.idr264(70), 0xE2, 90_000)
    units, demuxer = run(make, key(0) + other + delta(1) + other)
    assert [unit.track_id for unit in units] == [0xE0, 0xE0]
    assert demuxer.counts["ps.other_video"] == 2


# --- lengths that lie ---


@pytest.mark.parametrize("cut", [0, 1, 10, 1400])
@pytest.mark.parametrize("wrong", [1, 5, 20, 60, 400, 5000])
def test_video_length_too_large(make: Make, wrong: int, cut: int) -> None:
    payload = build.p264(300, 3)
    long = build.pack() + build.pes(payload, pts=93_600, length=len(payload) + 8 + wrong)
    units, demuxer = run(make, key(0) + long + b"".join(delta(n, 900) for n in range(2, 10)), cut)
    assert [unit.pts for unit in units] == [90_000 + 3_600 * n for n in range(10)]
    assert bytes(units[1]) == payload
    assert demuxer.counts["ps.malformed"] >= 1


@pytest.mark.parametrize("cut", [0, 1, 10, 1400])
@pytest.mark.parametrize("wrong", [1, 5, 100, 305])
def test_video_length_too_small(make: Make, wrong: int, cut: int) -> None:
    payload = build.p264(300, 3)
    short = build.pack() + build.pes(payload, pts=93_600, length=len(payload) + 8 - wrong)
    units, demuxer = run(make, key(0) + short + delta(2) + delta(3), cut)
    assert [unit.pts for unit in units] == [90_000, 93_600, 97_200, 100_800]
    assert bytes(units[1]) == payload
    assert demuxer.counts["ps.malformed"] >= 1


@pytest.mark.parametrize("cut", [0, 1, 10, 1400])
@pytest.mark.parametrize("wrong", [-100, -1, 25, 60, 300])
def test_audio_length_wrong(make: Make, wrong: int, cut: int) -> None:
    sound = b"\xd5" * 160
    broken = build.pes(sound, 0xC0, 90_000, length=len(sound) + 8 + wrong)
    units, demuxer = run(make, key(0) + broken + delta(1, 600) + delta(2) + delta(3), cut)
    assert [unit.pts for unit in videos(units)] == [90_000, 93_600, 97_200, 100_800]
    assert demuxer.counts["ps.malformed"] >= 1


def pictures(count: int, shown: Callable[[int, bytes], bytes], every: int = 8) -> tuple[bytes, list[bytes]]:
    """A stream of key pictures and others, and what is in it. shown: picture number and payload -> its PES."""
    whole = [build.idr264(400, n + 1) if n % every == 0 else build.p264(300, n + 1) for n in range(count)]
    stream = b""
    for n, payload in enumerate(whole):
        head = build.system_header() + build.program_map() if n % every == 0 else b""
        stream += build.pack(90_000 + 3_600 * n) + head + shown(n, payload)
    return stream, whole


def honest(number: int, payload: bytes) -> bytes:
    return build.pes(payload, pts=90_000 + 3_600 * number)


@pytest.mark.parametrize("hole", [1, 2, 5, 13, 20, 60, 250])
def test_a_unit_that_lost_bytes_without_a_word_is_dropped(make: Make, hole: int) -> None:
    """Bytes are missing and no packet is: PES of a camera that can count do not end where they say."""
    stream, whole = pictures(40, honest)
    pack = stream.index(build.p264(300, 28)) - 28  # of picture 27; 28 is behind it, 32 a key picture
    for at in (pack + 29, pack + 40, pack + 150, pack + 320):
        units, demuxer = run(make, stream[:at] + stream[at + hole :])
        found = [bytes(unit) for unit in units]
        assert all(one in whole for one in found), (at, hole)
        assert 37 <= len(found) <= 39
        assert found[-8:] == whole[-8:]
        assert sum(unit.discontinuity for unit in units) >= 1
        assert demuxer.counts["ps.malformed"] >= 1
    at = stream.index(build.idr264(400, 33)) + 100
    units, _ = run(make, stream[:at] + stream[at + hole :])
    assert [bytes(unit) for unit in units] == [*whole[:32], *whole[33:]]


def test_each_of_a_few_holes_is_seen(make: Make) -> None:
    stream, whole = pictures(200, honest)
    for number in range(190, 20, -9):  # from behind, so that places before stay
        at = stream.index(whole[number]) + 100
        stream = stream[:at] + stream[at + 30 :]
    found = [bytes(unit) for unit in run(make, stream)[0]]
    assert found == [one for n, one in enumerate(whole) if n not in range(190, 20, -9)]


LIARS: dict[str, Callable[[int, int], int]] = {
    "all too small": lambda number, length: length - 5,
    "all too large": lambda number, length: length + 17,
    "every third": lambda number, length: length - 9 if number % 3 else length,
    "key pictures too small": lambda number, length: length - 40 if number % 8 == 0 else length,
    "key pictures too large": lambda number, length: length + 40 if number % 8 == 0 else length,
    "key pictures by turns": lambda number, length: length + (number % 16 - 4) * 8 if number % 8 == 0 else length,
}


@pytest.mark.parametrize("lie", LIARS)
def test_a_camera_that_cannot_count_is_seen_all_the_same(make: Make, lie: str) -> None:
    def shown(number: int, payload: bytes) -> bytes:
        return build.pes(payload, pts=90_000 + 3_600 * number, length=LIARS[lie](number, len(payload) + 8))

    stream, whole = pictures(160, shown)
    units, demuxer = run(make, stream + PACK + SYSTEM, 1_400)
    assert [bytes(unit) for unit in units] == whole
    assert demuxer.counts["ps.malformed"] >= 15
    assert demuxer.counts["ps.dropped_units"] == 0


@pytest.mark.parametrize("claimed", [0xFFFF, None])
def test_a_picture_longer_than_16_bits_can_say_is_no_hole(make: Make, claimed: int | None) -> None:
    """One PES of 90,000 bytes, whose length is cut to 16 bits or the most they can say."""
    large = build.p264(90_000, 99)
    stream, whole = pictures(30, honest)
    length = claimed if claimed is not None else (len(large) + 8) & 0xFFFF
    odd = build.pack() + build.pes(large, pts=90_000 + 3_600 * 30, length=length)
    end = b"".join(build.pack() + honest(n, build.p264(300, n)) for n in range(31, 40))
    units, demuxer = run(make, stream + odd + end, 1_400)
    assert [bytes(unit) for unit in units] == [*whole, large, *(build.p264(300, n) for n in range(31, 40))]
    assert demuxer.counts["ps.malformed"] == 1


@pytest.mark.parametrize("at", [1_000, 65_000, 100_000, 140_000])
@pytest.mark.parametrize("hole", [1, 9, 1_400])
def test_a_large_picture_that_lost_bytes_is_dropped(make: Make, at: int, hole: int) -> None:
    """It is longer than 16 bits can say as well, but the header of its next PES lies where none can be."""
    stream, whole = pictures(30, honest)
    large = build.pack() + build.pes_run(build.p264(180_000, 99), pts=90_000 + 3_600 * 30)
    end = b"".join(build.pack() + honest(n, build.p264(300, n)) for n in range(31, 40))
    units, _ = run(make, stream + large[:at] + large[at + hole :] + end, 1_400)
    assert [bytes(unit) for unit in units] == [*whole, *(build.p264(300, n) for n in range(31, 40))]


def test_garbage_between_packs(make: Make) -> None:
    sound = build.pes(b"\xd5" * 160, 0xC0, 90_000)
    data = key(0, audio=sound) + b"\x47\x00\x00\x01\x11garbage" + delta(1, audio=sound) + bytes(64) + delta(2)
    for cut in (0, 1, 9):
        units, demuxer = run(make, data, cut)
        assert [unit.pts for unit in videos(units)] == [90_000, 93_600, 97_200]
        assert demuxer.counts["ps.skipped_bytes"] == 12 + 64


def test_damaged_system_header(make: Make) -> None:
    bad = bytearray(build.system_header())
    bad[4:6] = b"\x00\x60"
    worse = bytearray(build.system_header())
    worse[4:6] = b"\x40\x00"
    for system in (bad, worse):
        units, _ = run(make, build.pack() + bytes(system) + build.program_map() + VIDEO + delta(1))
        assert [unit.pts for unit in units] == [90_000, 93_600]


# --- beginnings, ends, holes ---


@pytest.mark.parametrize("at", range(1, 40))
def test_mid_stream_start_begins_at_the_next_pack(make: Make, at: int) -> None:
    units, demuxer = run(make, (movie(3))[at:])
    assert [unit.pts for unit in units] == [93_600, 97_200]
    assert demuxer.counts["ps.resync"] == 0


def test_program_end_code(make: Make) -> None:
    demuxer = make()
    units = [*demuxer.push(key(0) + b"\0\0\1\xb9", 0.0)]
    assert [unit.pts for unit in units] == [90_000]
    units = [*demuxer.push(key(1) + b"\0\0\1\xb9", 0.0)]
    assert [unit.pts for unit in units] == [93_600]


@pytest.mark.conformance(76)
def test_gap_drops_the_damaged_unit_and_resumes_at_the_next_pack(make: Make) -> None:
    data = movie(4)
    packets = [data[at : at + 40] for at in range(0, len(data), 40)]
    whole, _ = run(make, data)
    for lost in range(len(packets)):
        demuxer = make()
        units: list[AccessUnit] = []
        for index, packet in enumerate(packets):
            if index == lost:
                demuxer.gap()
            else:
                units += demuxer.push(packet, 0.0)
        units += demuxer.flush()
        assert len(units) >= len(whole) - 2
        for unit in units:
            assert bytes(unit) in {bytes(good) for good in whole}
        after = [unit for unit in units if unit.discontinuity]
        assert len(after) <= 1
        if lost < len(packets) - 4:
            assert len(after) == 1


def test_gap_is_a_discontinuity_of_each_track(make: Make) -> None:
    demuxer = make()
    sound = build.pes(b"\xd5" * 160, 0xC0, 90_000)
    demuxer.push(key(0, audio=sound), 0.0)
    demuxer.gap()
    units = [*demuxer.push(delta(1, audio=sound) + delta(2, audio=sound) + delta(3), 0.0)]
    assert [(unit.track_id, unit.discontinuity) for unit in units] == [
        (0xC0, True),
        (0xE0, True),
        (0xC0, False),
        (0xE0, False),
    ]
    assert demuxer.counts["ps.dropped_units"] == 1


def test_oversize_unit_is_dropped_and_the_next_survives(make: Make) -> None:
    data = key(0) + delta(1, 5000) + delta(2)
    for cut in (0, 1, 100):
        units, demuxer = run(make, data, cut, max_unit_bytes=3000)
        assert [(unit.pts, unit.discontinuity) for unit in units] == [(90_000, False), (97_200, True)]
        assert demuxer.counts["ps.oversize"] == 1
        assert demuxer.counts["ps.dropped_units"] == 1


@pytest.mark.parametrize(("size", "kept"), [(2999, True), (3000, True), (3001, False)])
def test_the_size_limit_is_exact(make: Make, size: int, kept: bool) -> None:
    payload = build.p264(size - 6)
    assert len(payload) == size
    for cut in (0, 1, 1000):
        units, _ = run(make, key(0) + frame(1, payload) + delta(2), cut, max_unit_bytes=3000)
        assert ([unit.pts for unit in units] == [90_000, 93_600, 97_200]) is kept


# --- the end of a unit ---


def test_silence_ends_a_whole_unit(make: Make) -> None:
    demuxer = make(silence_seconds=0.25)
    assert demuxer.deadline is None
    assert not demuxer.push(key(0), 1.0)
    assert demuxer.deadline == 1.25
    assert not demuxer.poll(1.2)
    assert [(unit.pts, unit.arrived) for unit in demuxer.poll(1.25)] == [(90_000, 1.0)]
    assert demuxer.deadline is None
    assert not demuxer.push(delta(1), 2.0)
    assert [unit.pts for unit in demuxer.push(delta(2), 2.1)] == [93_600]


def test_silence_does_not_end_half_a_pes(make: Make) -> None:
    demuxer = make()
    demuxer.push(key(0)[:-5], 1.0)
    assert demuxer.deadline is None
    assert not demuxer.poll(9.0)
    demuxer.push(key(0)[-5:], 9.0)
    assert [unit.arrived for unit in demuxer.poll(9.2)] == [9.0]


def test_silence_does_not_end_parameter_sets_alone(make: Make) -> None:
    demuxer = make()
    demuxer.push(PACK + PSM + build.pes(build.nals(build.SPS264, build.PPS264), pts=90_000), 1.0)
    assert demuxer.deadline is None
    assert not demuxer.poll(9.0)
    demuxer.push(build.pes(build.nals(b"\x65\x88" + build.filler(50))), 9.0)
    units = demuxer.poll(9.5)
    assert [(unit.pts, unit.parameter_sets) for unit in units] == [(90_000, (build.SPS264, build.PPS264))]


def mark_run(make: Make, count: int, first: int = 0, demuxer: Any = None) -> tuple[Any, list[int]]:
    """Push `count` frames in two packets each, the second marked; return how many units each mark gave."""
    demuxer = demuxer or make()
    given = []
    for number in range(first, first + count):
        data = key(number) if number % 5 == 0 else delta(number)
        demuxer.push(data[:30], 0.0)
        demuxer.push(data[30:], 0.0)
        given.append(len(demuxer.mark(0.0)))
    return demuxer, given


def test_marker_is_trusted_after_it_agreed_eight_times(make: Make) -> None:
    demuxer, given = mark_run(make, 12)
    assert given == [0] * 8 + [1] * 4
    assert demuxer.deadline is None


def test_marker_on_every_packet_is_never_trusted(make: Make) -> None:
    demuxer = make()
    units: list[AccessUnit] = []
    for number in range(20):
        data = delta(number, 90) if number % 5 else key(number)
        for at in range(0, len(data), 40):
            units += demuxer.push(data[at : at + 40], 0.0)
            assert not demuxer.mark(0.0)
    assert len(units) == 19


def test_markers_on_pictures_of_one_packet_prove_nothing(make: Make) -> None:
    """A camera that marks every packet looks sound until a picture has two of them."""
    demuxer = make()
    demuxer.push(key(0), 0.0)
    demuxer.mark(0.0)
    for number in range(1, 20):
        demuxer.push(delta(number), 0.0)
        assert not demuxer.mark(0.0)
    demuxer.push(delta(20)[:30], 0.0)
    demuxer.push(delta(20)[30:], 0.0)
    assert [unit.pts for unit in demuxer.mark(0.0)] == [90_000 + 20 * 3_600]


def test_a_missing_marker_is_no_end_where_markers_are_trusted(make: Make) -> None:
    demuxer, _ = mark_run(make, 10)
    whole = build.nals(b"\x41\x9a" + build.filler(60))
    rest = build.nals(b"\x41\x1a" + build.filler(60))  # another slice of the same picture, in a PES of its own
    demuxer.push(build.pack() + build.pes(whole, pts=900_000), 5.0)
    assert demuxer.deadline is None
    assert not demuxer.poll(9.0)
    demuxer.push(build.pes(rest), 9.0)
    assert [bytes(unit) for unit in demuxer.mark(9.0)] == [whole + rest]


def test_silence_does_not_end_a_pes_without_length(make: Make) -> None:
    demuxer = make()
    data = build.pack() + build.program_map() + build.pes(build.idr264(90), pts=0, length=0)
    demuxer.push(data[:-20], 1.0)
    assert demuxer.deadline is None
    assert not demuxer.poll(9.0)
    demuxer.push(data[-20:], 9.0)
    assert [bytes(unit) for unit in demuxer.push(delta(1), 9.1)] == [build.idr264(90)]


def test_a_picture_whose_first_slice_is_missing_is_not_whole(make: Make) -> None:
    """After a hole the next pack header may stand in the middle of a picture, before a slice with a PTS of its own."""
    demuxer = make()
    units = list(demuxer.push(key(0) + delta(1), 0.0))
    demuxer.gap()
    later = build.nals(b"\x65\x1a" + build.filler(60))  # first_mb_in_slice is not 0
    units += demuxer.push(build.pack() + build.pes(later, pts=900_000) + delta(2) + delta(3), 0.0)
    assert [unit.pts for unit in units] == [90_000, 97_200]


# --- where decoding may begin ---


def sei(*payloads: tuple[int, bytes], header: bytes = b"\x06") -> bytes:
    body = b"".join(b"\xff" * (kind // 255) + bytes((kind % 255, len(data))) + data for kind, data in payloads)
    return nal.escape(header, body + b"\x80")


def recovery(count: int) -> bytes:
    return nal.BitWriter().ue(count).u(0, 4).payload()


def slice264(kind: int, header: int = 0x41, size: int = 60) -> bytes:
    """A slice with first_mb_in_slice 0 and this slice_type (H.264 table 7-6)."""
    return bytes((header,)) + nal.BitWriter().ue(0, kind).payload() + build.filler(size)


def entries(make: Make, *pictures: bytes) -> list[int | None]:
    """For each picture `refresh` where it is a key frame, else None."""
    data = b"".join(frame(n, picture, head=build.program_map()) for n, picture in enumerate(pictures))
    units, _ = run(make, data)
    assert len(units) == len(pictures)
    return [unit.refresh if unit.is_keyframe else None for unit in units]


def test_an_intra_picture_with_its_parameter_sets_is_a_key_frame(make: Make) -> None:
    sets = (build.SPS264, build.PPS264)
    found = entries(
        make,
        *(build.nals(*sets, slice264(kind)) for kind in (2, 7)),
        *(build.nals(*sets, slice264(kind)) for kind in (0, 1, 5, 6)),
        build.nals(slice264(7)),
    )
    assert found == [0, 0, None, None, None, None, None]


def test_a_recovery_point_makes_an_intra_picture_a_key_frame(make: Make) -> None:
    first = build.idr264(80)
    private = (5, bytes(range(40)))
    assert entries(
        make,
        first,
        build.nals(sei((6, recovery(0))), slice264(7)),
        build.nals(sei((0, b"\x80"), private, (6, recovery(0))), slice264(2)),
        build.nals(sei(private), sei((6, recovery(3))), slice264(7)),
        build.nals(sei(private), slice264(7)),
        build.nals(sei((6, recovery(0))), slice264(5)),
        build.nals(sei((5, bytes(250)), (5, bytes(20)), (6, recovery(0))), slice264(7)),
    ) == [0, 0, 0, 0, None, None, None]


def test_a_gradual_refresh_is_a_key_frame_that_needs_its_time(make: Make) -> None:
    first, plain = build.idr264(80), build.nals(slice264(5))
    begins = build.nals(sei((6, recovery(2))), slice264(5))
    assert entries(make, first, plain, plain, begins, plain, plain, begins) == [0, None, None, 2, None, None, 2]


def test_a_refresh_with_every_picture_is_not_believed(make: Make) -> None:
    begins = build.nals(sei((6, recovery(3))), slice264(5))
    first = build.nals(build.SPS264, build.PPS264, sei((6, recovery(3))), slice264(5))
    assert entries(make, first, *[begins] * 7) == [3, None, None, None, 3, None, None, None]
    assert entries(make, build.idr264(80), build.nals(sei((6, recovery(1_001))), slice264(5))) == [0, None]


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (3, 3), (-2, None)])
def test_recovery_point_of_h265(make: Make, count: int, expected: int | None) -> None:
    first, plain = build.idr265(80), build.p265(60)
    point = nal.BitWriter().se(count).u(0, 2).payload()
    begins = build.nals(sei((6, point), header=b"\x4e\x01")) + plain
    assert entries(make, first, plain, plain, plain, begins) == [0, None, None, None, expected]


def test_marker_that_disagrees_loses_trust(make: Make) -> None:
    demuxer, _ = mark_run(make, 10)
    parts = [build.nals(build.SPS264, build.PPS264), build.nals(b"\x65\x88" + build.filler(90))]
    demuxer.push(build.pack() + build.pes(parts[0], pts=900_000), 0.0)
    assert not demuxer.mark(0.0)  # no VCL yet
    assert not demuxer.push(build.pes(parts[1]), 0.0)
    assert not demuxer.mark(0.0)  # the marker before was inside the unit
    demuxer, given = mark_run(make, 10, 300, demuxer)
    assert given == [0] * 8 + [1] * 2 or given == [0] * 7 + [1] * 3


def test_trusted_marker_inside_a_unit_costs_that_unit_only(make: Make) -> None:
    demuxer, _ = mark_run(make, 10)
    first, second = build.nals(b"\x65\x88" + build.filler(90)), build.nals(b"\x65\x10" + build.filler(90))
    demuxer.push(build.pack() + build.pes(first, pts=900_000), 0.0)
    assert len(demuxer.mark(0.0)) == 1
    assert not demuxer.push(build.pes(second), 0.0)
    units = [*demuxer.push(delta(300) + delta(301), 0.0)]
    assert [(unit.pts, unit.discontinuity) for unit in units] == [(90_000 + 3_600 * 300, True)]
    assert not demuxer.mark(0.0)


def test_trusted_marker_ends_an_unbounded_pes(make: Make) -> None:
    demuxer = make()
    given = []
    for number in range(12):
        data = build.pack() + build.pes(build.idr264(90), pts=3_600 * number, length=0)
        given.append([len(demuxer.push(data[:100], 0.0)), len(demuxer.push(data[100:], 0.0)), len(demuxer.mark(0.0))])
    assert [sum(row) for row in given] == [0] + [1] * 8 + [1] * 3 or sum(map(sum, given)) >= 11
    assert [row[2] for row in given] == [0] * 8 + [1] * 4 or [row[2] for row in given] == [0] * 9 + [1] * 3


def test_marker_inside_a_pes_ends_nothing(make: Make) -> None:
    demuxer, _ = mark_run(make, 10)
    data = delta(400)
    demuxer.push(data[:-3], 0.0)
    assert not demuxer.mark(0.0)
    demuxer.push(data[-3:], 0.0)
    assert [bytes(unit) for unit in demuxer.push(delta(401), 0.0)] == [build.p264(50, 401)]


def spanning(number: int, sets: bytes = build.nals(build.SPS264, build.PPS264), size: int = 300) -> list[bytes]:
    """A key picture whose one slice is in three PES; in packets of 100 bytes."""
    pts = 90_000 + 3_600 * number
    picture = sets + build.nals(b"\x65\x88" + build.filler(size))
    data = build.pack(pts) + build.program_map() + build.pes_run(picture, pts=pts, limit=130)
    return [data[at : at + 100] for at in range(0, len(data), 100)]


def test_the_very_first_picture_ends_at_its_marker_where_slice_data_spans_pes(make: Make) -> None:
    demuxer = make()
    for packet in spanning(0):
        assert not demuxer.push(packet, 1.0)
    (unit,) = demuxer.mark(1.0)
    assert bytes(unit) == build.nals(build.SPS264, build.PPS264, b"\x65\x88" + build.filler(300))
    assert (unit.pts, unit.is_keyframe, unit.discontinuity) == (90_000, True, False)
    assert demuxer.deadline is None
    demuxer.push(delta(1)[:40], 1.04)
    demuxer.push(delta(1)[40:], 1.04)
    assert demuxer.counts["ps.dropped_units"] == 0


def test_markers_that_end_pictures_early_become_trusted(make: Make) -> None:
    demuxer = make()
    for number in range(9):
        for packet in spanning(number):
            demuxer.push(packet, float(number))
        assert len(demuxer.mark(float(number))) == 1
    demuxer.push(delta(9)[:40], 9.0)
    demuxer.push(delta(9)[40:], 9.0)
    assert len(demuxer.mark(9.0)) == 1


def test_a_first_picture_in_one_pes_waits_for_the_next(make: Make) -> None:
    """Another slice may follow in a PES of its own, with a marker of its own."""
    demuxer = make()
    demuxer.push(key(0)[:80], 1.0)
    demuxer.push(key(0)[80:], 1.0)
    assert not demuxer.mark(1.0)
    assert demuxer.deadline == 1.1


@pytest.mark.parametrize("marks", ["every packet", "never"])
def test_without_proof_of_a_marker_the_first_picture_waits(make: Make, marks: str) -> None:
    demuxer = make()
    for packet in spanning(0):
        assert not demuxer.push(packet, 1.0)
        assert marks == "never" or not demuxer.mark(1.0)
    assert demuxer.deadline == 1.1
    assert not demuxer.poll(1.099)
    assert len(demuxer.push(delta(1), 1.04)) == 1


def test_where_a_second_field_may_follow_the_first_picture_waits(make: Make) -> None:
    demuxer = make()
    for packet in spanning(0, build.nals(nal.h264_sps(frames_only=False), build.PPS264)):
        assert not demuxer.push(packet, 1.0)
    assert not demuxer.mark(1.0)
    assert demuxer.deadline == 1.1


def test_a_marker_once_seen_inside_a_picture_must_earn_its_trust(make: Make) -> None:
    demuxer = make()
    first, second = build.nals(b"\x65\x88" + build.filler(90)), build.nals(b"\x65\x10" + build.filler(90))
    sets = build.nals(build.SPS264, build.PPS264)
    demuxer.push((build.pack() + build.pes(sets + first, pts=86_400))[:50], 0.0)
    demuxer.push((build.pack() + build.pes(sets + first, pts=86_400))[50:], 0.0)
    assert not demuxer.mark(0.0)
    assert not demuxer.push(build.pes(second), 0.001)
    assert not demuxer.mark(0.001)
    for packet in spanning(0):
        demuxer.push(packet, 0.04)
    assert not demuxer.mark(0.04)
    assert demuxer.deadline == pytest.approx(0.14)


# --- time ---


@pytest.mark.conformance(78)
def test_time_is_unwrapped_over_33_bits_for_picture_and_sound_alike(make: Make) -> None:
    top = 1 << 33
    data = b""
    for number in range(6):
        pts = top - 9_000 + 3_600 * number
        data += build.pack(pts) + build.pes(build.idr264(), pts=pts, dts=pts - 3_600)
        data += build.pes(b"\xd5" * 9, 0xC0, pts - 1_800)
    units, _ = run(make, data)
    assert [unit.pts for unit in videos(units)] == [top - 9_000 + 3_600 * n for n in range(6)]
    assert [unit.dts for unit in videos(units)] == [top - 12_600 + 3_600 * n for n in range(6)]
    assert [unit.pts for unit in units if unit.track_id == 0xC0] == [top - 10_800 + 3_600 * n for n in range(6)]


@pytest.mark.conformance(78)
def test_backward_jumps_are_passed_on(make: Make) -> None:
    data = build.pack() + build.pes(build.idr264(), pts=9_000_000) + build.pack() + build.pes(build.idr264(), pts=0)
    units, _ = run(make, data)
    assert [unit.pts for unit in units] == [9_000_000, 0]


# --- refusal ---


def test_misuse_raises(make: Make) -> None:
    with pytest.raises(TypeError):
        make().push(None, 0.0)
    with pytest.raises(ValueError, match="max_unit_bytes"):
        make(max_unit_bytes=0)


def test_nothing_gives_nothing(make: Make) -> None:
    demuxer = make()
    assert (len(demuxer.push(b"", 0.0)), len(demuxer.poll(5.0)), len(demuxer.mark(0.0)), len(demuxer.flush())) == (
        0,
    ) * 4
    assert set(demuxer.counts.values()) == {0}
    assert len(demuxer.streams) == 0
