"""Loops: rounds that join, restarts at a key frame, media files."""

import io
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from gbgw.base import limits
from gbgw.base.codec import AAC, H264, H265, PCMA, PCMU, Codec, Kind
from gbgw.base.errors import ConfigError
from gbgw.base.ticks import HZ
from gbgw.mux.loop import Due, Loop, Player, adts_header, describe, load_file, make_loop, presentation_order
from gbgw.mux.pattern import PatternSpec, pattern_loop, read_counter

SPEC = PatternSpec(width=320, height=180, seconds=2, audio=PCMA)


def is_video(due: Due) -> bool:
    return due.unit.codec.kind is Kind.VIDEO


@pytest.mark.parametrize("b_frames", [0, 2])
def test_times_grow_for_ever_across_rounds(b_frames: int) -> None:
    loop = pattern_loop(PatternSpec(width=320, height=180, seconds=2, audio=PCMA, b_frames=b_frames))
    player = Player(loop, origin=1_000)
    taken = [player.take() for _ in range(3 * len(loop.units))]
    pictures = [due for due in taken if is_video(due)]
    sound = [due for due in taken if not is_video(due)]
    assert [due.unit.dts for due in pictures] == [1_000 + 3_600 * index for index in range(150)]
    assert sorted(due.unit.pts for due in pictures) == [1_000 + loop.delay + 3_600 * index for index in range(150)]
    assert [due.unit.pts for due in sound] == [1_000 + loop.delay + 3_600 * index for index in range(150)]
    assert [due.at for due in taken] == sorted(due.at for due in taken)
    assert pictures[0].at == 0
    assert bytes(pictures[50].unit) == bytes(pictures[0].unit)


@pytest.mark.parametrize("taken", range(1, 14))
def test_restart_gives_a_key_frame_at_once_and_time_goes_on(taken: int) -> None:
    player = Player(pattern_loop(SPEC))
    before = [player.take() for _ in range(taken * 7)]
    player.restart()
    after = [player.take() for _ in range(40)]
    assert is_video(after[0])
    assert after[0].unit.is_keyframe
    last = [due.unit.dts for due in before if is_video(due)][-1]
    assert after[0].unit.dts == last + 3_600
    for kind in (True, False):
        times = [due.unit.dts for due in before + after if is_video(due) is kind]
        assert all(later > earlier for earlier, later in pairwise(times))


def test_restart_before_the_first_unit_changes_nothing() -> None:
    player = Player(pattern_loop(SPEC))
    player.restart()
    assert player.take().at == 0


def test_players_share_bytes_but_not_places() -> None:
    loop = pattern_loop(SPEC)
    first, second = Player(loop), Player(loop)
    first.take()
    assert second.take().unit.dts == 0
    assert first.loop is second.loop


@pytest.mark.parametrize(
    ("data", "codec", "expected"),
    [
        ("00000001 6742c0 00000001 68ce 000001 65888040", H264, (True, (b"\x67\x42\xc0", b"\x68\xce"))),
        ("00000001 419a", H264, (False, ())),
        (
            "00000001 4001aa 00000001 4201bb 00000001 4401cc 00000001 2a01dd",
            H265,
            (True, (b"\x40\x01\xaa", b"\x42\x01\xbb", b"\x44\x01\xcc")),
        ),
        ("00000001 0201dd", H265, (False, ())),
        ("", H264, (False, ())),
        ("00000001", H264, (False, ())),
    ],
)
def test_describe(data: str, codec: Codec, expected: tuple[bool, tuple[bytes, ...]]) -> None:
    assert describe(bytes.fromhex(data), codec) == expected


def test_adts_header_is_read_by_ffmpeg() -> None:
    loop = pattern_loop(PatternSpec(width=160, height=90, audio=AAC))
    stream = b"".join(bytes(unit) for unit in loop.units if unit.codec is AAC)
    with av.open(io.BytesIO(stream), format="aac") as container:
        packets = [packet for packet in container.demux() if packet.size]
        assert (container.streams.audio[0].sample_rate, container.streams.audio[0].channels) == (16_000, 1)
    assert len(packets) == 125
    assert len(adts_header(100, 8_000)) == 7


def remux(loop: Loop, path: Path, *, sound: bool) -> None:
    """Write one round to a file with FFmpeg's own muxer."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(
            loop.video.container.replace("h264", "libx264").replace("hevc", "libx265"), rate=25
        )
        video.width, video.height, video.pix_fmt = loop.width, loop.height, "yuv420p"
        video.options = {"bf": "2", "preset": "ultrafast", "g": "25"}
        track = container.add_stream("aac", rate=48_000, layout="stereo") if sound else None
        for number in range(50):
            picture = np.full((loop.height * 3 // 2, loop.width), 128, dtype=np.uint8)
            picture[: loop.height] = number * 4
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if track is not None:
            wave = (0.3 * np.sin(2 * np.pi * 500 * np.arange(96_000) / 48_000)).astype(np.float32)
            for at in range(0, 96_000, 1_024):
                piece = wave[at : at + 1_024]
                heard = av.AudioFrame.from_ndarray(np.stack((piece, piece)), format="fltp", layout="stereo")
                heard.sample_rate, heard.pts, heard.time_base = 48_000, at, Fraction(1, 48_000)
                container.mux(track.encode(heard))
            container.mux(track.encode(None))


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "flv"])
@pytest.mark.parametrize("audio", [PCMA, PCMU, AAC, None])
def test_a_file_becomes_a_loop(tmp_path: Path, ending: str, audio: Codec | None) -> None:
    path = tmp_path / f"clip.{ending}"
    remux(pattern_loop(SPEC), path, sound=True)
    loop = load_file(path, audio)
    pictures = [unit for unit in loop.units if unit.codec is H264]
    assert (loop.video, loop.audio, loop.frames, loop.frame_rate) == (H264, audio, 50, pytest.approx(25, rel=0.02))
    assert loop.duration == pytest.approx(2 * HZ, abs=200)
    assert pictures[0].is_keyframe
    assert len(pictures[0].parameter_sets) == 2
    assert all(bytes(unit).startswith((b"\x00\x00\x00\x01", b"\x00\x00\x01")) for unit in pictures)
    assert loop.delay > 0
    decoder = av.CodecContext.create("h264", "r")
    shown = []
    for unit in pictures:
        packet = av.Packet(bytes(unit))
        packet.pts = unit.pts
        shown += decoder.decode(packet)
    shown += decoder.decode(None)
    assert [frame.pts for frame in shown] == sorted(frame.pts for frame in shown)
    assert len(shown) == 50
    sound = [unit for unit in loop.units if unit.codec.kind is Kind.AUDIO]
    if audio is None:
        assert not sound
    else:
        seconds = (sound[-1].pts - sound[0].pts) / HZ
        assert seconds == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize(("codec", "ending"), [(H264, "h264"), (H265, "h265")])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_a_bare_elementary_stream_gets_its_times_from_the_decoder(
    tmp_path: Path, codec: Codec, ending: str, b_frames: int
) -> None:
    made = pattern_loop(PatternSpec(video=codec, width=320, height=180, seconds=2, audio=None, b_frames=b_frames))
    path = tmp_path / f"clip.{ending}"
    path.write_bytes(b"".join(bytes(unit) for unit in made.units))
    loop = load_file(path, PCMA)
    assert loop.audio is None
    assert [bytes(unit) for unit in loop.units] == [bytes(unit) for unit in made.units]
    assert [unit.dts for unit in loop.units] == [3_600 * index for index in range(50)]
    assert [unit.pts - loop.delay for unit in loop.units] == [unit.pts - made.delay for unit in made.units]
    decoder = av.CodecContext.create(codec.container, "r")
    numbers = [
        read_counter(frame.to_ndarray(format="rgb24"))
        for data in (*[bytes(unit) for unit in loop.units], None)
        for frame in decoder.decode(av.Packet(data) if data else None)
    ]
    assert numbers == list(range(50))


def test_what_cannot_be_sent_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_file(tmp_path / "absent.mp4", None)
    rubbish = tmp_path / "rubbish.mp4"
    rubbish.write_bytes(b"not a film" * 100)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_file(rubbish, None)
    old = tmp_path / "old.avi"
    with av.open(str(old), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((144, 160), dtype=np.uint8), format="yuv420p")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(ConfigError, match="holds mpeg4"):
        load_file(old, None)


def test_a_long_file_is_cut_at_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.mp4"
    remux(pattern_loop(SPEC), path, sound=False)
    monkeypatch.setattr(limits, "LOOP_SECONDS", 1.0)
    assert 25 <= load_file(path, None).frames <= 28


def test_presentation_order_of_pictures_that_do_not_decode() -> None:
    assert presentation_order([b"\x00\x00\x00\x01\x41\x9a", b"\x00\x00\x00\x01\x41\x9b"], H264) == [0, 1]


def test_sound_beyond_the_pictures_is_left_out() -> None:
    key = b"\x00\x00\x00\x01\x65\x88"
    loop = make_loop(
        H264,
        [(key, 100, 0), (b"\x00\x00\x00\x01\x41\x9a", 3_700, 3_600)],
        [(b"a", 0), (b"b", 7_199), (b"c", 7_200)],
        audio=PCMA,
        duration=7_200,
        size=(16, 16),
        frame_rate=25,
    )
    assert [(bytes(unit)[:1], unit.pts) for unit in loop.units if unit.codec is PCMA] == [(b"a", 100), (b"b", 7_299)]
