"""Silence: frames that decode to nothing, and times that keep up with the pictures without ever meeting real sound."""

import itertools
import random

import numpy as np
import pytest

from gbgw._ps import AccessUnit
from gbgw.base.codec import AAC, H264, PCMA
from gbgw.media.hub import Stream
from gbgw.media.track import Track
from gbgw.mux.feed import Feed, Feeds
from gbgw.mux.pattern import PatternSpec
from gbgw.mux.silence import FRAMES, NOTHING, PATIENCE, Silence
from tests.support.streams import Viewer, feed, read_back, timed_units

FRAME = 11_520  # ticks of 1,024 samples at 8 kHz
STEREO = Track(0xC0, AAC, config=b"\x12\x10", sample_rate=44_100, channels=2)


@pytest.mark.parametrize(("channels", "rate", "index"), [(1, 8_000, 11), (1, 16_000, 8), (2, 44_100, 4)])
def test_a_frame_decodes_to_nothing(channels: int, rate: int, index: int) -> None:
    import av

    decoder = av.CodecContext.create("aac", "r")
    decoder.extradata = (2 << 11 | index << 7 | channels << 3).to_bytes(2, "big")
    frames = []
    for _ in range(5):
        frames += decoder.decode(av.Packet(FRAMES[channels]))
    assert len(frames) >= 4
    assert {(frame.samples, frame.sample_rate, frame.layout.nb_channels) for frame in frames} == {
        (1_024, rate, channels)
    }
    assert all(not np.any(frame.to_ndarray()) for frame in frames)


def test_pictures_alone_are_followed_closely() -> None:
    silence = Silence(NOTHING, is_alone=True)
    times = [(picture, at) for picture in range(0, 900_000, 3_600) for at in silence.follow(picture)]
    assert [at for _, at in times] == list(range(0, 900_000, FRAME))[: len(times)]
    assert all(0 <= picture - at < 3_600 for picture, at in times)


def test_a_pause_of_real_sound_is_filled_and_what_comes_too_late_is_not_taken() -> None:
    silence = Silence(STEREO)
    for at in range(0, 90_000, 2_090):
        assert silence.heard(at)
        assert silence.follow(at) == []
    filled = [at for picture in range(90_000, 270_000, 3_600) for at in silence.follow(picture)]
    assert filled[0] == pytest.approx(90_000, abs=2_500)
    assert filled[-1] == pytest.approx(270_000, abs=PATIENCE)
    assert all(after - before in (2_089, 2_090) for before, after in itertools.pairwise(filled))
    assert not silence.heard(200_000)
    assert silence.heard(270_000)
    assert silence.heard(272_090)


def test_sound_that_runs_late_as_a_rule_is_waited_for() -> None:
    silence = Silence(STEREO)
    late = 60_000
    for picture in range(0, 900_000, 3_600):
        assert silence.follow(picture) == [] or picture <= late
        if picture >= late:
            assert silence.heard(picture - late) or picture < 2 * late + 3_600


def test_a_hole_in_the_pictures_is_a_hole_in_the_silence() -> None:
    silence = Silence(NOTHING, is_alone=True)
    silence.follow(0)
    assert silence.follow(900_000) == [900_000]


def test_at_the_end_sound_lasts_as_long_as_the_picture() -> None:
    silence = Silence(STEREO)
    for at in range(0, 60_000, 2_090):
        assert silence.heard(at)
    for picture in range(0, 90_000, 3_600):
        assert silence.follow(picture) == []
    made = silence.finish()
    assert made[0] == pytest.approx(60_000, abs=2_500)
    assert made[-1] + 2_090 >= 90_000
    assert not silence.heard(61_000)  # what was late comes after all
    assert silence.finish() == []
    assert silence.heard(92_000)


def test_nothing_is_made_up_where_no_sound_was_near() -> None:
    assert Silence(STEREO).finish() == []
    silence = Silence(STEREO)
    silence.heard(0)
    silence.follow(900_000)
    assert [at // 3_600 for at in silence.finish()] == [250, 250]  # not over the hole before the last picture


def test_times_never_overlap_whatever_comes() -> None:
    chance = random.Random(3)
    for _ in range(200):
        silence = chance.choice((Silence(NOTHING, is_alone=True), Silence(STEREO)))
        length = 1_024 * 90_000 // silence.track.sample_rate
        taken: list[int] = []
        picture = sound = 0
        for _ in range(300):
            picture += chance.choice((3_600, 3_600, 7_200, 200_000 * (chance.random() < 0.02)))
            made = silence.follow(picture)
            taken += made
            if silence.track is STEREO and chance.random() < 0.6:
                sound = max(sound + length, picture - chance.randrange(100_000))
                if silence.heard(sound):
                    taken.append(sound)
            assert len(made) < 100
        assert all(after - before >= length - 1 for before, after in itertools.pairwise(taken))


def published(spec: PatternSpec) -> tuple[Stream, Viewer, Feed]:
    stream = Stream("silence")
    stream.promise(spec.audio is not None)
    viewer = Viewer()
    muxed = Feeds().get(stream, "hls")
    muxed.attach(viewer)
    feed(stream, timed_units(spec))
    return stream, viewer, muxed


def test_pictures_without_sound_get_a_track_of_it() -> None:
    _, viewer, muxed = published(PatternSpec(audio=None, width=320, height=180, seconds=4))
    assert [track.codec for track in muxed.tracks] == [H264, AAC]
    assert viewer.chunks[1].starts_gop
    packets = read_back(viewer.data)
    sound = [packet for packet in packets if packet.kind == "audio"]
    assert {packet.data for packet in sound} == {FRAMES[1]}
    assert len(sound) == 3_960 // 128 + 1
    assert [packet.pts for packet in sound] == [pytest.approx(n * 128, abs=1) for n in range(len(sound))]


@pytest.mark.parametrize("is_end", [True, False])
def test_hls_has_no_picture_without_sound_before_a_discontinuity_or_the_end(is_end: bool) -> None:
    """Sound that is encoded here is late: what has not come yet is silence, and left out when it comes."""
    spec = PatternSpec(audio=AAC, width=320, height=180, seconds=2)
    units = [unit.with_times(unit.pts or 0, unit.dts or 0) for unit in timed_units(spec)]
    pictures = [unit for unit in units if unit.codec is H264]
    sounds = [unit for unit in units if unit.codec is AAC]
    late = sorted((*pictures, *sounds), key=lambda unit: (unit.dts or 0) + (36_000 if unit.codec is AAC else 0))
    stream, viewer = Stream("late"), Viewer()
    stream.promise(True)
    muxed = Feeds().get(stream, "hls")
    muxed.attach(viewer)
    end = next(index for index, unit in enumerate(late) if unit is pictures[-1]) + 1
    feed(stream, late[:end])
    if is_end:
        stream.close()
    else:
        other = timed_units(PatternSpec(audio=AAC, width=480, height=270, seconds=2))
        feed(stream, [unit.with_times((unit.pts or 0) + 180_000, (unit.dts or 0) + 180_000) for unit in other[:1]])
        feed(stream, late[end:])
    inits = [index for index, chunk in enumerate(viewer.chunks) if chunk.is_init]
    before = viewer.chunks[: inits[1]] if not is_end else viewer.chunks
    last: dict[int, int] = {}
    for chunk in before:
        if chunk.dts is not None:
            last[chunk.track_id] = chunk.dts + chunk.duration
    assert min(last.values()) >= 176_400
    after = [chunk for chunk in viewer.chunks[len(before) + 1 :] if chunk.track_id == 0xC0]
    assert all((chunk.dts or 0) >= last[0xC0] for chunk in after)


def test_behind_a_discontinuity_no_sound_is_older_than_the_first_picture() -> None:
    """Real sound follows silence: what was said before the first picture of its generation is left out."""
    mute = timed_units(PatternSpec(audio=None, width=320, height=180, seconds=2))
    loud = timed_units(PatternSpec(audio=AAC, width=320, height=180, seconds=2))
    stream, viewer = Stream("late"), Viewer()
    Feeds().get(stream, "hls").attach(viewer)
    feed(stream, mute)
    moved = [unit.with_times((unit.pts or 0) + 180_000, (unit.dts or 0) + 180_000) for unit in loud]
    sounds = [
        unit.with_times((unit.pts or 0) - 36_000, (unit.dts or 0) - 36_000) for unit in moved if unit.codec is AAC
    ]
    pictures = [unit for unit in moved if unit.codec is H264]
    feed(stream, [sounds[0], *sorted((*pictures, *sounds[1:]), key=lambda unit: unit.dts or 0)])
    inits = [index for index, chunk in enumerate(viewer.chunks) if chunk.is_init]
    assert len(inits) == 2
    first, *rest = [chunk for chunk in viewer.chunks[inits[1] :] if not chunk.is_init]
    assert first.starts_gop
    assert any(chunk.track_id == 0xC0 for chunk in rest)
    assert all((chunk.dts or 0) >= (first.dts or 0) for chunk in rest)


def test_real_sound_is_left_alone() -> None:
    spec = PatternSpec(audio=AAC, width=320, height=180, seconds=4)
    _, viewer, muxed = published(spec)
    assert len(muxed.tracks) == 2
    sound = [bytes(packet.data) for packet in read_back(viewer.data) if packet.kind == "audio"]
    assert not set(sound) & set(FRAMES.values())
    assert len(sound) == sum(unit.codec is AAC for unit in timed_units(spec))


def test_sound_alone_and_sound_of_another_kind_get_none() -> None:
    assert not Silence.suits(Track(0xC0, AAC, config=b"\x2b\x92\x08\x00", sample_rate=22_050, channels=2))  # HE-AAC
    assert not Silence.suits(Track(0xC0, PCMA, sample_rate=8_000, channels=1))
    stream = Stream("sound")
    viewer = Viewer()
    muxed = Feeds().get(stream, "hls")
    muxed.attach(viewer)
    units = [
        AccessUnit(
            b"\x01" * 20, AAC, n * 5_760, n * 5_760, is_keyframe=True, parameter_sets=(b"\x14\x08",), track_id=0xC0
        )
        for n in range(40)
    ]
    feed(stream, units)
    assert [track.codec for track in muxed.tracks] == [AAC]
    assert {chunk.track_id for chunk in viewer.chunks[1:]} == {0xC0}


@pytest.mark.parametrize("name", ["flv", "hls", "ts", "mp4"])
def test_sound_that_ends_and_returns_changes_nothing_for_a_viewer(name: str) -> None:
    """Four seconds with sound, twelve without, eight with it: three generations of the stream, and one for viewers."""
    with_sound = timed_units(PatternSpec(audio=AAC, width=320, height=180, seconds=4))
    stream = Stream("silence")
    stream.promise(True)
    viewer = Viewer()
    Feeds().get(stream, name).attach(viewer)

    def round_(number: int, sound: bool) -> None:
        by = number * 4 * 90_000
        feed(
            stream,
            [
                unit.with_times((unit.pts or 0) + by, (unit.dts or 0) + by)
                for unit in with_sound
                if sound or unit.codec is H264
            ],
        )

    for number, sound in enumerate((True, False, False, False, True, True)):
        round_(number, sound)
    stream.close()
    assert stream.generation == 3
    assert viewer.ends == [None]
    assert sum(chunk.is_init for chunk in viewer.chunks) == 1
    packets = read_back(viewer.data)
    times = [packet.pts for packet in packets if packet.kind == "audio"]
    assert times == sorted(times)
    assert max(after - before for before, after in itertools.pairwise(times)) < 200
    assert max(times) == pytest.approx(24_000, abs=200)
    assert sum(packet.kind == "video" for packet in packets) >= 599


def test_pictures_without_sound_stay_without_it_elsewhere() -> None:
    for name in ("flv", "mp4", "ts"):
        stream = Stream("silence")
        muxed = Feeds().get(stream, name)
        muxed.attach(Viewer())
        feed(stream, timed_units(PatternSpec(audio=None, width=320, height=180, seconds=4)))
        assert [track.codec for track in muxed.tracks] == [H264]
