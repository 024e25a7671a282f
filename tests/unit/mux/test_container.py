"""The writers: what leaves in which call, and the bytes a viewer gets first."""

import pytest

from gbgw._ps import AccessUnit
from gbgw.base.codec import AAC, H264, H265, PCMA, PCMU, Codec
from gbgw.media.hub import Stream
from gbgw.media.track import Track
from gbgw.mux import flv
from gbgw.mux.container import FORMATS, open_writer
from gbgw.mux.pattern import PatternSpec
from tests.support.streams import nal_bodies, published, timed_units

SMALL = {"width": 320, "height": 180, "seconds": 2}
AT_ONCE = ["flv", "flv-legacy", "mp4"]


def material(video: Codec, audio: Codec | None, *, b_frames: int = 0) -> tuple[Stream, list[AccessUnit]]:
    units = timed_units(PatternSpec(video=video, audio=audio, b_frames=b_frames, **SMALL))
    return published(units, until=len(units)), units


def track_of(stream: Stream, unit: AccessUnit) -> Track:
    return next(track for track in stream.tracks if track.track_id == unit.track_id)


@pytest.mark.parametrize("name", AT_ONCE)
@pytest.mark.parametrize("video", [H264, H265])
@pytest.mark.parametrize("audio", [None, AAC])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_each_unit_leaves_in_the_call_that_pushed_it(
    name: str, video: Codec, audio: Codec | None, b_frames: int
) -> None:
    stream, units = material(video, audio, b_frames=b_frames)
    writer = open_writer(FORMATS[name], stream.tracks)
    for unit in units:
        (piece,) = writer.write(unit, track_of(stream, unit), unit.pts, unit.dts)
        body = nal_bodies(bytes(unit))[-1] if unit.codec is video else bytes(unit)
        assert body in piece.data
        assert piece.starts_gop == (unit.is_keyframe and unit.codec is video)
        assert (piece.dts, piece.track_id) == (unit.dts, unit.track_id)
    assert writer.close() == ()


@pytest.mark.parametrize("audio", [PCMA, PCMU])
def test_g711_leaves_flv_in_the_call_that_pushed_it(audio: Codec) -> None:
    stream, units = material(H264, audio)
    writer = open_writer(FORMATS["flv"], stream.tracks)
    sound = [unit for unit in units if unit.codec is audio]
    for unit in sound:
        (piece,) = writer.write(unit, track_of(stream, unit), unit.pts, unit.dts)
        ((kind, stamp, body),) = flv.tags(piece.data)
        assert (kind, stamp, body[0]) == (flv.AUDIO_TAG, round(unit.dts / 90), (7 if audio is PCMA else 8) << 4 | 2)
        assert body[1:] == bytes(unit)


@pytest.mark.parametrize("video", [H264, H265])
def test_ts_without_sound_leaves_at_once(video: Codec) -> None:
    stream, units = material(video, None)
    writer = open_writer(FORMATS["ts"], stream.tracks)
    for unit in units:
        (piece,) = writer.write(unit, track_of(stream, unit), unit.pts, unit.dts)
        assert len(piece.data) % 188 == 0
        assert len(piece.data) >= len(unit)
        assert piece.starts_gop == unit.is_keyframe
        assert piece.dts == unit.dts


def test_ts_with_sound_runs_one_picture_late() -> None:
    stream, units = material(H264, AAC)
    writer = open_writer(FORMATS["ts"], stream.tracks)
    pushed: list[int] = []
    for unit in units:
        if unit.codec is H264 and unit.is_keyframe:
            pushed.append(unit.dts)
        pieces = writer.write(unit, track_of(stream, unit), unit.pts, unit.dts)
        assert all(len(piece.data) % 188 == 0 for piece in pieces)
        left = [piece.dts for piece in pieces if piece.starts_gop]
        assert left == pushed[: len(left)]
        del pushed[: len(left)]
        assert not pushed or unit.dts - pushed[0] <= 3_600
    left = [piece.dts for piece in writer.close() if piece.starts_gop]
    assert left == pushed


def test_the_flv_header_names_the_tracks_there_are() -> None:
    stream, _ = material(H264, None)
    assert open_writer(FORMATS["flv"], stream.tracks).init[:13] == b"FLV\x01\x01\0\0\0\x09\0\0\0\0"
    stream, _ = material(H264, PCMA)
    assert open_writer(FORMATS["flv"], stream.tracks).init[:13] == b"FLV\x01\x05\0\0\0\x09\0\0\0\0"


def test_flv_begins_with_metadata_and_sequence_headers() -> None:
    stream, _ = material(H264, AAC)
    init = open_writer(FORMATS["flv"], stream.tracks).init
    script, picture, sound = flv.tags(init[flv.FILE_HEADER :])
    assert script[0] == flv.SCRIPT_TAG
    assert b"onMetaData" in script[2]
    assert b"\x00\x05width\x00\x40\x74\x00" in script[2]  # 320.0
    sps = stream.tracks[0].parameter_sets[0]
    assert (picture[0], picture[2][:2]) == (flv.VIDEO_TAG, b"\x17\x00")
    assert picture[2][5:9] == b"\x01" + sps[1:4]  # AVCDecoderConfigurationRecord
    assert sps in picture[2]
    assert (sound[0], sound[2]) == (flv.AUDIO_TAG, b"\xaf\x00" + stream.tracks[1].config)


def test_h265_has_a_fourcc_or_codec_id_12() -> None:
    stream, units = material(H265, None)
    first = units[0]
    for name, header, keyframe in (("flv", b"\x90hvc1", 0x80 | 0x10), ("flv-legacy", b"\x1c\0\0\0\0", 0x1C)):
        writer = open_writer(FORMATS[name], stream.tracks)
        _, (_, _, sequence) = flv.tags(writer.init[flv.FILE_HEADER :])
        assert sequence.startswith(header)
        record = sequence[5:]
        assert record[0] == 1  # HEVCDecoderConfigurationRecord
        assert all(nal in record for nal in stream.tracks[0].parameter_sets)
        (piece,) = writer.write(first, stream.tracks[0], first.pts, first.dts)
        ((_, _, body),) = flv.tags(piece.data)  # and no colorInfo tag beside it
        assert body[0] & 0xF0 == keyframe & 0xF0
        assert name == "flv" or body[:5] == b"\x1c\x01\0\0\0"


def test_composition_times_of_b_frames_in_legacy_tags() -> None:
    stream, units = material(H265, None, b_frames=2)
    writer = open_writer(FORMATS["flv-legacy"], stream.tracks)
    offsets = []
    for unit in units:
        (piece,) = writer.write(unit, stream.tracks[0], unit.pts, unit.dts)
        ((_, _, body),) = flv.tags(piece.data)
        offsets.append(int.from_bytes(body[2:5], "big", signed=True))
    assert offsets == [(unit.pts - unit.dts) // 90 for unit in units]
    assert any(offsets)


def test_a_splice_is_stamped_and_has_no_file_header() -> None:
    stream, _ = material(H264, PCMA)
    writer = open_writer(FORMATS["flv"], stream.tracks)
    assert {stamp for _, stamp, _ in flv.tags(writer.splice(90_000 * 20_000))} == {20_000_000}
    assert len(writer.splice(0)) == len(writer.init) - flv.FILE_HEADER


def test_a_timestamp_beyond_31_bits_wraps() -> None:
    assert [stamp for _, stamp, _ in flv.tags(flv.tag(9, (1 << 31) + 5, b"x"))] == [5]
    stream, units = material(H264, None)
    writer = open_writer(FORMATS["flv"], stream.tracks)
    late = 90 * (1 << 31)
    (piece,) = writer.write(units[0], stream.tracks[0], late + 450, late + 450)
    assert [stamp for _, stamp, _ in flv.tags(piece.data)] == [5]


def test_formats_refuse_what_they_cannot_carry() -> None:
    stream, _ = material(H264, PCMA)
    assert [track.codec for track in FORMATS["flv"].carried(stream.tracks)] == [H264, PCMA]
    assert [track.codec for track in FORMATS["mp4"].carried(stream.tracks)] == [H264]
    assert [track.codec for track in FORMATS["ts"].carried(stream.tracks)] == [H264]
    assert FORMATS["flv"].carried((Track(0xE0, H264),)) == ()  # parameter sets not known
    assert FORMATS["mp4"].carried((Track(0xC0, AAC),)) == ()


def test_a_new_generation_of_ts_says_so() -> None:
    stream, units = material(H264, None)
    first, second = (open_writer(FORMATS["ts"], stream.tracks, generation) for generation in (1, 2))
    heads = [w.write(units[0], stream.tracks[0], units[0].pts, units[0].dts)[0].data for w in (first, second)]
    pat = [data.index(b"\x47\x40\x00") for data in heads]
    tables = [data[at + 5 + data[at + 4] :] for data, at in zip(heads, pat, strict=True)]  # behind the adaptation field
    versions = [table[6] >> 1 & 0x1F for table in tables]
    assert versions == [1, 2]
    video = heads[1].index(b"\x47\x41\x00")
    assert heads[1][video + 5] & 0x80  # discontinuity_indicator


def test_damaged_tags_end_the_walk() -> None:
    whole = flv.tag(9, 1, b"abc")
    assert list(flv.tags(whole + whole[:-1])) == [(9, 1, b"abc")]
    assert list(flv.tags(b"\x09\xff\xff\xff" + bytes(20))) == []
