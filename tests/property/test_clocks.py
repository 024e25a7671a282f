"""Cameras whose clocks do everything clocks do, against the truth: when each picture and each sound was captured."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest

from gbgw._ps import AccessUnit
from gbgw.base import ticks
from gbgw.base.codec import H264, PCMA
from gbgw.media.timeline import LEAST, Timeline
from tests.support import nal

HZ = ticks.HZ
SETS = (nal.h264_sps(reorder=0), nal.h264_pps())
Clock = Callable[[float], int | None]  # seconds since the start -> what the camera writes, ticks
START = 1_000.0  # loop seconds


def right(seconds: float) -> int:
    return round((seconds + 5_000) * HZ)


def fast(rate: float, origin: float = 5_000) -> Clock:
    return lambda seconds: round((seconds * rate + origin) * HZ)


def stepped(at: float, by: float) -> Clock:
    return lambda seconds: right(seconds + (by if seconds >= at else 0))


def wrapped(bits: int, at: float) -> Clock:
    """Wraps `at` seconds in. The demultiplexer unwraps 33 bits; firmware that wraps at 32 is seen as a step back."""
    return lambda seconds: round((seconds - at) * HZ) % (1 << bits)


@dataclass(frozen=True)
class Camera:
    """video, sound: their clocks. rtp: None where RTP says nothing. rate: pictures a second at a time.
    delay: seconds from capture to arrival, on top of jitter; silent: captures nothing from..to; held: the network keeps
    what is captured from..to until `to`.
    """

    video: Clock = right
    sound: Clock = right
    rtp: Clock = right
    rate: Callable[[float], float] = lambda seconds: 25.0
    silent: tuple[float, float] = (0.0, 0.0)
    held: tuple[float, float] = (0.0, 0.0)
    dts_after: int | None = None
    sound_at: float = 0.040


@dataclass
class Seen:
    """(captured, time on the line, arrived), all in seconds."""

    video: list[tuple[float, float, float]] = field(default_factory=list)
    sound: list[tuple[float, float, float]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    skew: float = 0.0

    def apart(self, after: float = 0.0) -> list[float]:
        """How much too late sound is on the line against the last picture before it."""
        out = []
        pictures = iter(self.video)
        here = next(pictures)
        following = next(pictures, None)
        for captured, time, _ in self.sound:
            while following is not None and following[0] <= captured:
                here, following = following, next(pictures, None)
            if captured >= after and 0 <= captured - here[0] < 0.5:
                out.append(time - captured - (here[1] - here[0]))
        return out

    def lead(self, after: float = 0.0) -> list[float]:
        return [time - captured for captured, time, _ in self.video if captured >= after]


def watch(camera: Camera, seconds: float, seed: int = 1) -> Seen:
    chance = random.Random(seed)
    made: list[tuple[float, int, float, AccessUnit, int | None]] = []
    at = 0.0
    while at < seconds:
        if not camera.silent[0] <= at < camera.silent[1]:
            pts = camera.video(at)
            dts = pts + camera.dts_after if pts is not None and camera.dts_after is not None else None
            made.append((at, 0, at, AccessUnit(b"p", H264, pts, dts, parameter_sets=SETS), camera.rtp(at)))
        at += 1 / camera.rate(at)
    at, number = 0.013, 0
    while at < seconds:
        if not camera.silent[0] <= at < camera.silent[1]:
            unit = AccessUnit(bytes(320), PCMA, camera.sound(at), is_keyframe=True, track_id=0xC0)
            made.append((at + camera.sound_at, 1, at, unit, camera.rtp(at)))
        number += 1
        at = 0.013 + number * 0.04
    seen, line, last = Seen(), Timeline(), START
    for sent, kind, captured, unit, rtp in sorted(made, key=lambda one: one[:2]):
        if camera.held[0] <= sent < camera.held[1]:
            sent = camera.held[1]
        last = max(last, START + sent + 0.02 + chance.expovariate(1 / 0.005))  # one way, nothing overtakes
        stamped = AccessUnit(
            bytes(unit),
            unit.codec,
            unit.pts,
            unit.dts,
            parameter_sets=unit.parameter_sets,
            track_id=unit.track_id,
            is_keyframe=unit.is_keyframe,
            arrived=last,
        )
        for out in line.push(stamped, last, None if rtp is None else rtp & 0xFFFF_FFFF):
            assert out.pts is not None
            assert out.dts is not None
            assert out.pts >= out.dts
            (seen.sound if kind else seen.video).append((captured, out.pts / HZ, last))
    seen.counts = line.tally.counts
    seen.skew = line.skew_seconds
    for track in (seen.video, seen.sound):
        assert all(later - earlier >= (LEAST - 0.5) / HZ for (_, earlier, _), (_, later, _) in pairwise(track))
    return seen


def test_honest_clocks_are_not_touched() -> None:
    seen = watch(Camera(), 30)
    assert not seen.counts
    assert {round(time - captured, 4) for captured, time, _ in (*seen.video, *seen.sound)} == {5_000.0}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rate", [25.0, 12.5, 6.0])
@pytest.mark.parametrize("by", [-4_000.0, -60.0, -3.0, -0.7, 0.9, 3.0, 60.0, 86_400.0])
def test_a_step_of_the_camera_s_clock(by: float, rate: float, seed: int) -> None:
    """NTP, a reset to zero, a jump: the line goes on, sound and picture together, no later than before."""
    clock = stepped(7.77, by)
    seen = watch(Camera(video=clock, sound=clock, rtp=clock, rate=lambda _: rate), 20, seed)
    assert seen.counts["timeline.jump"] == 1
    assert max(map(abs, seen.apart())) < 0.08
    leads = seen.lead()
    assert max(leads) - min(leads) <= max(0.21, 2 / rate)


@pytest.mark.parametrize("by", [-0.3, -0.1, 0.2])
def test_a_small_step_is_lived_with(by: float) -> None:
    clock = stepped(7.77, by)
    seen = watch(Camera(video=clock, sound=clock, rtp=clock), 20)
    assert max(map(abs, seen.apart(9.0))) < 0.08
    assert max(seen.lead()) - min(seen.lead()) < 0.31


@pytest.mark.parametrize("bits", [32, 33])
def test_wraps(bits: int) -> None:
    clock = wrapped(bits, 7.77)
    seen = watch(Camera(video=clock, sound=clock, rtp=clock), 20)
    assert seen.counts["timeline.jump"] == 1
    assert max(map(abs, seen.apart())) < 0.08
    assert max(seen.lead()) - min(seen.lead()) < 0.1


@pytest.mark.parametrize("video", [lambda _: None, lambda _: 77], ids=["missing", "constant"])
@pytest.mark.parametrize(
    "rtp", [right, wrapped(32, 5.0), lambda _: None, lambda _: 5], ids=["rtp", "wrap", "none", "still"]
)
def test_pictures_without_time(video: Clock, rtp: Clock) -> None:
    seen = watch(Camera(video=video, rtp=rtp), 30)
    assert max(map(abs, seen.apart(1.0))) < 0.3
    assert max(seen.lead(1.0)) - min(seen.lead(1.0)) < 0.1


@pytest.mark.parametrize("sound", [lambda _: None, lambda _: 77], ids=["missing", "constant"])
def test_sound_without_time(sound: Clock) -> None:
    seen = watch(Camera(sound=sound), 30)
    assert max(map(abs, seen.apart(1.0))) < 0.15


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("per_second", [1_000, 8_000, 1_000_000], ids=str)
@pytest.mark.parametrize("which", ["video", "sound", "both"])
def test_times_in_another_unit(which: str, per_second: int, seed: int) -> None:
    def wrong(seconds: float) -> int:
        return round((seconds + 50) * per_second)

    camera = Camera()
    if which != "sound":
        camera = replace(camera, video=wrong)
    if which != "video":
        camera = replace(camera, sound=wrong)
    seen = watch(camera, 60, seed)
    assert seen.counts["timeline.wrong_unit"] == (2 if which == "both" else 1)
    assert max(map(abs, seen.apart(20.0))) < 0.3
    late = seen.lead(5.0)
    assert max(late) - min(late) < 0.3


@pytest.mark.parametrize("rate", [0.5, 0.8, 1.2, 2.0])
@pytest.mark.parametrize("which", ["video", "sound"])
def test_a_camera_that_counts_for_another_rate_is_brought_together_again_and_again(which: str, rate: float) -> None:
    """Pictures counted as 25 a second where 12.5 are made, and RTP says the same: nothing tells who is right."""
    clock = fast(rate)
    seen = watch(Camera(video=clock, rtp=clock) if which == "video" else Camera(sound=clock), 60)
    assert max(map(abs, seen.apart())) < 1.1 + 5 * abs(rate - 1)
    assert seen.counts["timeline.resync"] > 5


@pytest.mark.parametrize("origin", [0, 1, 4_990, 5_003, 90_000])
def test_sound_and_picture_count_from_different_origins(origin: float) -> None:
    seen = watch(Camera(sound=fast(1.0, origin)), 30)
    if abs(origin - 5_000) > 10 or origin < 5_000:
        assert seen.counts["timeline.jump"] == 1
        assert max(map(abs, seen.apart())) < 0.15
    assert max(seen.apart()) - min(seen.apart()) < 0.01


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("rate", [1 + 50e-6, 1 - 50e-6, 1.003, 0.997, 1.02, 0.98])
@pytest.mark.parametrize("which", ["video", "sound", "both"])
def test_clocks_of_different_speeds_are_held_together(which: str, rate: float, seed: int) -> None:
    clock = fast(rate)
    camera = Camera(video=right if which == "sound" else clock, sound=right if which == "video" else clock, rtp=right)
    seen = watch(camera, 240, seed)
    assert max(map(abs, seen.apart())) < 0.2
    assert abs(seen.skew) < 0.2
    late = seen.lead()
    assert max(late) - min(late) < 1.3
    if which != "both" and abs(rate - 1) > 0.001:
        assert seen.counts["timeline.drift"] > 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("seconds", [0.5, 2.0, 5.0, 9.0])
def test_a_network_that_stalls_and_then_brings_everything(seconds: float, seed: int) -> None:
    """Nothing was captured late: the burst keeps its times."""
    seen = watch(Camera(held=(7.77, 7.77 + seconds)), 40, seed)
    assert "timeline.jump" not in seen.counts
    assert max(map(abs, seen.apart())) < 0.01
    assert max(seen.lead()) - min(seen.lead()) < 0.01


@pytest.mark.parametrize("seconds", [1.0, 5.0, 9.0, 60.0, 3_600.0])
@pytest.mark.parametrize("anew", [False, True])
def test_a_silence_and_a_return(seconds: float, anew: bool) -> None:
    """The camera says nothing for a while; it may start anew with its clock at zero."""
    clock = (lambda at: round((at - 7.77 - seconds) * HZ) if at >= 7.77 + seconds else right(at)) if anew else right
    seen = watch(Camera(video=clock, sound=clock, rtp=clock, silent=(7.77, 7.77 + seconds)), 20 + seconds)
    assert max(map(abs, seen.apart())) < 0.08
    gap = max(later - earlier for (_, earlier, _), (_, later, _) in pairwise(seen.video))
    if seconds > 10 or anew:
        assert gap < 0.2
        assert seen.counts.get("timeline.silence", 0) + seen.counts.get("timeline.jump", 0) == 1
    else:
        assert gap == pytest.approx(seconds, abs=0.1)
        assert not seen.counts


def test_the_rate_of_pictures_changes() -> None:
    seen = watch(Camera(rate=lambda at: (15.0, 25.0, 30.0, 20.0, 5.0, 25.0)[int(at / 4) % 6]), 48)
    assert not seen.counts
    assert max(seen.lead()) - min(seen.lead()) < 0.001


@pytest.mark.parametrize("by", [-40 * HZ, -3_600, 0, 3_600, 40 * HZ])
def test_a_dts_beside_its_pts(by: int) -> None:
    """A dts before its pts costs nothing: the pts counts. One after it is taken for the pts."""
    seen = watch(Camera(dts_after=by), 20)
    assert max(map(abs, seen.apart())) < 0.1
    assert max(seen.lead()) - min(seen.lead()) < 0.1
