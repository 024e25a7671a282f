"""The writers: what leaves in which call, and the bytes a viewer gets first."""

import contextlib
import io
import time
from random import Random

import av
import pytest

from gbgw._ps import AccessUnit
from gbgw.base.codec import AAC, H264, H265, PCMA, PCMU, Codec
from gbgw.media.hub import Stream
from gbgw.media.track import Track
from gbgw.mux import flv
from gbgw.mux.container import FORMATS, RefusedError, _template, open_writer
from gbgw.mux.fragment import hvcc_record
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
    assert [(kind, stamp) for kind, stamp, _ in flv.tags(writer.splice(90_000 * 20_000))] == [(9, 20_000_000)]
    assert writer.init.endswith(writer.splice(0))


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


# Found by mutation: FFmpeg's hvcC writer takes this SPS for one with some thousand million long-term reference
# pictures.
ENDLESS_SPS = bytes.fromhex("420000030090000003000003003ca00a080c1f3e5beea4c2e680800000030080000" + "00c84")


@pytest.mark.timeout(10)
@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_damaged_sps_costs_no_time(name: str) -> None:
    vps = bytes.fromhex("40010c01ffff01600000030090000003000003003cba0240")
    track = Track(0xE0, H265, (vps, ENDLESS_SPS, b"\x44\x01\x73"), width=320, height=180)
    started = time.perf_counter()
    with contextlib.suppress(RefusedError):
        open_writer(FORMATS[name], (track,)).close()
    assert time.perf_counter() - started < 1


def mutated(random: Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(random.choice((0, 1, 1, 2, 5, 20))):
        at = random.randrange(len(out)) if out else 0
        match random.randrange(4):
            case 0 if out:
                out[at] = random.randrange(256)
            case 1:
                del out[at : at + random.randrange(1, 8)]
            case 2:
                out[at:at] = random.randbytes(random.randrange(1, 8))
            case _:
                del out[at:]
    return bytes(out)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_damage_is_refused_and_nothing_else(name: str) -> None:
    """Parameter sets, units, sizes and times as no camera should send them: the one exception is RefusedError."""
    random = Random(28181)
    refused = written = 0
    for turn in range(120):
        codec = (H264, H265)[turn % 2]
        stream, units = material(codec, AAC)
        sets = tuple(mutated(random, nal) for nal in stream.tracks[0].parameter_sets)
        sizes = random.choice((320, 0, 16_384, 70_000)), random.choice((180, 0, 16_384))
        picture = Track(0xE0, codec, sets, width=sizes[0], height=sizes[1])
        sound = Track(0xC0, AAC, config=mutated(random, stream.tracks[1].config), sample_rate=random.choice((8_000, 1)))
        tracks = FORMATS[name].carried((picture, sound))
        if not tracks:
            continue
        try:
            writer = open_writer(FORMATS[name], tracks)
        except RefusedError:
            refused += 1
            continue
        for unit in units[:20]:
            track = next((track for track in tracks if track.track_id == unit.track_id), None)
            if track is None:
                continue
            dts = random.choice((unit.dts, unit.dts, (1 << 33) + unit.dts, 1 << 40))
            pts = random.choice((unit.pts, dts, dts + random.randrange(-100_000, 1 << 40)))
            damaged = AccessUnit(mutated(random, bytes(unit)), unit.codec, pts, dts, is_keyframe=bool(turn % 3))
            try:
                written += len(writer.write(damaged, track, pts, dts))
            except RefusedError:
                refused += 1
        with contextlib.suppress(RefusedError):
            writer.close()
    assert refused > 10
    assert written > 10


def test_the_h265_record_is_the_one_ffmpeg_makes() -> None:
    """But for array_completeness, which FFmpeg leaves open because it keeps parameter sets in the samples."""
    stream, _ = material(H265, None)
    record = hvcc_record(stream.tracks[0].parameter_sets)
    file = io.BytesIO()
    with av.open(file, "w", format="flv") as container:
        out = container.add_stream_from_template(_template(H265).streams[0], opaque=True)
        out.codec_context.extradata = b"".join(b"\0\0\0\1" + nal for nal in stream.tracks[0].parameter_sets)
        out.codec_context.width, out.codec_context.height = 320, 180
        container.start_encoding()
    theirs = file.getvalue().split(b"\x90hvc1", 1)[1][: len(record)]
    assert (
        record.replace(b"\xa0\0\1", b"\x20\0\1").replace(b"\xa1\0\1", b"\x21\0\1").replace(b"\xa2\0\1", b"\x22\0\1")
        == theirs
    )


def test_a_damaged_h265_record_keeps_to_the_common_sample_format() -> None:
    for sps in (b"", b"\x42", b"\x42\x01", b"\x42\x01" + b"\0" * 40):
        record = hvcc_record((b"\x40\x01\x0c", sps, b"\x44\x01\x73"))
        assert record[0] == 1
        assert record[16:19] == b"\xfd\xf8\xf8"
