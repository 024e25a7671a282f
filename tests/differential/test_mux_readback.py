"""What gbgw muxes is read back by FFmpeg with the same access units: by PyAV's libraries, and by the older ffmpeg
program.
"""

import hashlib
from pathlib import Path

import av
import pytest

from gbgw._ps import AccessUnit
from gbgw.base.access_unit import AccessUnit as Unit
from gbgw.base.codec import AAC, H264, H265, PCMA, PCMU, VIDEO, Codec
from gbgw.media import params
from gbgw.media.hub import Stream
from gbgw.mux.container import FORMATS, open_writer
from gbgw.mux.feed import Feeds
from gbgw.mux.pattern import PatternSpec
from tests.model.flv_model import muxed
from tests.support.streams import (
    Viewer,
    elementary,
    feed,
    ffmpeg,
    nal_bodies,
    pictures,
    published,
    read_back,
    timed_units,
)

NAMES = ["flv", "flv-legacy", "mp4", "ts"]
SMALL = {"width": 320, "height": 180, "seconds": 2}
DELIMITERS = {H264: {9}, H265: {35}}
SETS = {H264: {7, 8}, H265: {32, 33, 34}}


def recorded(units: list[Unit], name: str) -> bytes:
    """What one viewer gets who was there before the stream began."""
    stream = Stream("recorded")
    stream.promise(any(unit.codec.kind is not VIDEO for unit in units))
    viewer = Viewer()
    Feeds().get(stream, name).attach(viewer)
    feed(stream, units)
    stream.close()
    assert viewer.ends == [None]
    return viewer.data


def slices(data: bytes, codec: Codec) -> list[bytes]:
    """The NAL units that must survive in every format: a muxer may add or move delimiters and parameter sets."""
    kind = params.h264_type if codec is H264 else params.h265_type
    return [nal for nal in nal_bodies(data) if kind(nal) not in DELIMITERS[codec] | SETS[codec]]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("video", [H264, H265])
@pytest.mark.parametrize("audio", [None, AAC])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_pyav_reads_the_same_units(name: str, video: Codec, audio: Codec | None, b_frames: int) -> None:
    units = timed_units(PatternSpec(video=video, audio=audio, b_frames=b_frames, **SMALL))
    packets = read_back(recorded(units, name))
    origin = units[0].dts or 0
    sent = [unit for unit in units if unit.codec is video]
    read = [packet for packet in packets if packet.kind == "video"]
    assert {packet.codec for packet in read} == {video.container}
    assert len(read) == len(sent)
    for packet, unit in zip(read, sent, strict=True):
        assert packet.is_keyframe == unit.is_keyframe
        assert packet.dts == pytest.approx(((unit.dts or 0) - origin) / 90, abs=1)
        assert packet.pts == pytest.approx(((unit.pts or 0) - origin) / 90, abs=1)
        assert slices(packet.data, video) == slices(bytes(unit), video)
    heard = [packet for packet in packets if packet.kind == "audio"]
    spoken = [unit for unit in units if unit.codec is audio and (unit.dts or 0) >= origin]
    assert len(heard) == len(spoken)
    for packet, unit in zip(heard, spoken, strict=True):
        assert packet.codec == "aac"
        assert packet.pts == pytest.approx(((unit.pts or 0) - origin) / 90, abs=1)
        assert packet.data == bytes(unit) or packet.data[7:] == bytes(unit)  # in TS behind an ADTS header


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("codec", [H264, H265, AAC])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_flv_tags_equal_those_of_ffmpeg(codec: Codec, b_frames: int, legacy: bool) -> None:
    """Byte for byte: the core `_flv` writes what FFmpeg's muxer would."""
    video = H264 if codec is AAC else codec
    units = timed_units(PatternSpec(video=video, audio=AAC, b_frames=b_frames, **SMALL))
    tracks = published(units, until=len(units)).tracks
    track = next(track for track in tracks if track.codec is codec)
    units = [unit for unit in units if unit.codec is codec]
    writer = open_writer(FORMATS["flv-legacy" if legacy else "flv"], tracks)
    ours = [piece.data for unit in units for piece in writer.write(unit, track, unit.pts or 0, unit.dts or 0)]
    assert ours == muxed(track, units, legacy=legacy)
    assert len(ours) >= 30


@pytest.mark.parametrize("audio", [PCMA, PCMU])
def test_pyav_reads_g711_in_flv(audio: Codec) -> None:
    units = timed_units(PatternSpec(audio=audio, **SMALL))
    heard = [packet for packet in read_back(recorded(units, "flv")) if packet.kind == "audio"]
    spoken = [unit for unit in units if unit.codec is audio]
    assert [packet.data for packet in heard] == [bytes(unit) for unit in spoken]
    assert [packet.dts for packet in heard] == [round((unit.dts or 0) / 90) for unit in spoken]
    assert {packet.codec for packet in heard} == {audio.container}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("video", [H264, H265])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_decoded_pictures_equal_those_of_the_elementary_stream(name: str, video: Codec, b_frames: int) -> None:
    units = timed_units(PatternSpec(video=video, audio=None, b_frames=b_frames, **SMALL))
    shown = [digest for _, digest in pictures(recorded(units, name))]
    assert shown == [digest for _, digest in pictures(elementary(units, video), video.container)]
    assert len(shown) == 50


def hashes(output: bytes) -> list[str]:
    """The picture hashes of ffmpeg's framemd5 output."""
    return [line.split(b",")[-1].strip().decode() for line in output.splitlines() if line and not line.startswith(b"#")]


# The program's FFmpeg 5.1 knows neither H.265 in FLV by fourCC nor by codec id 12.
READABLE = [(name, video) for name in NAMES for video in (H264, H265) if video is H264 or not name.startswith("flv")]


@pytest.mark.parametrize(("name", "video"), READABLE)
@pytest.mark.parametrize("b_frames", [0, 2])
def test_the_ffmpeg_program_decodes_it_without_a_word(name: str, video: Codec, b_frames: int, tmp_path: Path) -> None:
    units = timed_units(PatternSpec(video=video, audio=AAC, b_frames=b_frames, **SMALL))
    file = tmp_path / "muxed"
    file.write_bytes(recorded(units, name))
    ours = ffmpeg("-i", file, "-map", "0:v", "-f", "framemd5", "-")
    raw = tmp_path / f"raw.{video.container}"
    raw.write_bytes(elementary(units, video))
    theirs = ffmpeg("-i", raw, "-f", "framemd5", "-")
    assert (ours.returncode, ours.stderr) == (0, b"")
    assert hashes(ours.stdout) == hashes(theirs.stdout)
    assert len(hashes(ours.stdout)) == 50


@pytest.mark.parametrize("name", ["flv", "mp4", "ts"])
def test_a_late_viewer_records_without_an_error_line(name: str, tmp_path: Path) -> None:
    units = timed_units(PatternSpec(audio=AAC, width=320, height=180, seconds=4))
    stream = Stream("late")
    stream.promise(True)
    feeds = Feeds()
    feeds.get(stream, name).attach(Viewer())
    duration = 4 * 90_000
    late = Viewer()
    for turn in range(30):
        if turn == 28:
            feeds.get(stream, name).attach(late)
        feed(stream, [unit.with_times(unit.pts + turn * duration, unit.dts + turn * duration) for unit in units])
    stream.close()
    assert late.chunks[1].dts > 100 * 90_000
    file = tmp_path / "late"
    file.write_bytes(late.data)
    copied = ffmpeg("-i", file, "-c", "copy", "-f", "matroska", tmp_path / "copy.mkv")
    assert (copied.returncode, copied.stderr) == (0, b"")
    counted = ffmpeg("-i", file, "-map", "0:v", "-f", "framemd5", "-")
    assert counted.stderr == b""
    assert len(hashes(counted.stdout)) == 25 + 2 * 100  # the last GOP of turn 27, and two turns


def test_flv_spliced_at_a_change_of_size_decodes_through(tmp_path: Path) -> None:
    first = timed_units(PatternSpec(audio=None, **SMALL))
    second = timed_units(PatternSpec(audio=None, width=480, height=270, seconds=2))
    later = [unit.with_times((unit.pts or 0) + 180_000, (unit.dts or 0) + 180_000) for unit in second]
    for name in ("flv", "ts"):
        file = tmp_path / name
        file.write_bytes(recorded([*first, *later], name))
        with av.open(str(file)) as container:
            sizes = [(frame.width, frame.height) for frame in container.decode(video=0)]
        assert sizes == [(320, 180)] * 50 + [(480, 270)] * 50


def cameras(path: Path, codec: Codec) -> list[Unit]:
    """A raw stream as units, 25 pictures a second in decoding order, keys as FFmpeg's parser sees them."""
    units: list[Unit] = []
    with av.open(str(path), format=codec.container) as container:
        for packet in container.demux(video=0):
            if packet.size:
                data = bytes(packet)
                sets = tuple(
                    bytes(nal) for nal in params.nal_units(data) if params.parameter_set_key(codec, nal) is not None
                )
                at = len(units) * 3_600
                units.append(AccessUnit(data, codec, at, at, is_keyframe=bool(packet.is_keyframe), parameter_sets=sets))
    return units


@pytest.mark.fixtures
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("file", "codec"),
    [
        ("media/openh264/BA1_FT_C.264", H264),
        ("media/openh264/MIDR_MW_D.264", H264),
        ("media/openh264/test_vd_1d.264", H264),
        ("media/openh264/Cisco_Men_whisper_640x320_CABAC_Bframe_9.264", H264),
        ("media/misc/srsbench_avatar.h264", H264),
        ("media/misc/srsbench_avatar.h265", H265),
        ("media/misc/girlshy.h265", H265),
    ],
)
def test_real_streams_come_back_slice_by_slice(name: str, file: str, codec: Codec, fixtures_dir: Path) -> None:
    units = cameras(fixtures_dir / file, codec)
    packets = read_back(recorded(units, name))
    want = [hashlib.sha1(b"".join(slices(bytes(unit), codec))).hexdigest() for unit in units]
    got = [hashlib.sha1(b"".join(slices(packet.data, codec))).hexdigest() for packet in packets]
    assert len(got) > 5
    assert got == want
