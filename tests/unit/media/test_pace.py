"""The line of a recording whose speed changes."""

import pytest

from gbgw._ps import AccessUnit
from gbgw.base.codec import H264, PCMA, Codec
from gbgw.base.tally import Tally
from gbgw.base.ticks import HZ
from gbgw.media.pace import Pace
from gbgw.media.timeline import Timeline

STEP = HZ // 25


def unit(codec: Codec, data: bytes, pts: int | None, dts: int | None) -> AccessUnit:
    return AccessUnit(data, codec, pts, dts, track_id=0xE0 if codec is H264 else 0xC0)


class Player:
    """A device that sends pictures at `speed` times the recorded rate, and who receives them."""

    def __init__(self) -> None:
        self.pace = Pace()
        self.timeline = Timeline(tally=Tally())
        self.now = 100.0
        self.raw = 5_000_000
        self.out: list[tuple[float, int]] = []  # when it came, where it lies on our line
        self.sounds = 0
        self.repeated = 0

    def play(self, seconds: float, *, speed: float = 1.0, honest: bool = True, sound: bool = False) -> None:
        """For `seconds` of ours. honest: the times are those of the recording, else they run like the wall clock."""
        for _ in range(round(seconds * 25 * speed)):
            self.now += 0.04 / speed
            self.raw += STEP if honest else round(STEP / speed)
            self.push(unit(H264, b"\0\0\0\1\x41", pts=self.raw, dts=self.raw))
            if sound:
                self.push(unit(PCMA, bytes(320), pts=self.raw, dts=self.raw))

    def push(self, one: AccessUnit) -> None:
        if not self.pace.hear(one, self.now):
            self.repeated += 1
            return
        for timed in self.timeline.push(one, self.now):
            paced = self.pace.push(timed, self.now)
            if paced is None:
                continue
            assert paced.dts is not None
            if one.codec is H264:
                self.out.append((self.now, paced.dts))
            else:
                self.sounds += 1

    def rate(self, since: float) -> float:
        """How our line ran against the wall clock."""
        seen = [(at, dts) for at, dts in self.out if at >= since]
        return (seen[-1][1] - seen[0][1]) / HZ / (seen[-1][0] - seen[0][0])

    def rises(self) -> bool:
        return all(later[1] > earlier[1] for earlier, later in zip(self.out, self.out[1:], strict=False))


def test_without_a_command_everything_passes_as_it_is() -> None:
    pace = Pace()
    one = unit(H264, b"\0\0\0\1\x41", pts=900, dts=900)
    pace.hear(one, 1.0)
    assert pace.push(one, 1.0) is one
    assert pace.measured == 1.0


def test_fast_and_slow_run_like_the_wall_clock_and_back() -> None:
    player = Player()
    player.play(2)
    for speed in (4.0, 0.25, 8.0, 0.5, 1.0):
        player.pace.set_scale(speed, player.now)
        assert player.pace.measured is None
        since = player.now
        player.play(4, speed=speed)
        assert abs(player.rate(since) - 1.0) < 0.02, speed
        assert player.pace.measured == pytest.approx(speed, rel=0.01)
    assert player.rises()
    played = 2 + 4 * (4 + 0.25 + 8 + 0.5 + 1)
    assert abs(player.pace.played - played) < 0.1


def test_a_device_that_ignores_the_speed_is_found_out() -> None:
    player = Player()
    player.play(2)
    player.pace.set_scale(4.0, player.now)
    player.play(3)
    since = player.now
    player.play(3)
    assert player.pace.measured == pytest.approx(1.0, rel=0.01)
    assert abs(player.rate(since) - 1.0) < 0.02
    assert player.rises()
    assert abs(player.pace.played - 8) < 0.1


def test_sound_is_left_out_while_the_speed_is_another() -> None:
    player = Player()
    player.play(1, sound=True)
    assert player.sounds == 25
    player.pace.set_scale(2.0, player.now)
    player.play(2, speed=2.0, sound=True)
    assert player.sounds == 25
    player.pace.set_scale(1.0, player.now)
    player.play(1, sound=True)
    assert player.sounds == 50
    assert player.rises()


def test_backwards_group_by_group() -> None:
    player = Player()
    player.play(10)
    player.pace.set_scale(-1.0, player.now)
    since, before = player.now, player.pace.played
    for _ in range(5):  # each group of a second forwards, and then the one before it
        player.raw -= 2 * HZ
        player.play(1, sound=True)
    assert player.rises()
    assert player.sounds == 0
    assert abs(player.rate(since) - 1.0) < 0.05
    assert abs(player.pace.played - (before - 5)) < 1.1


def test_after_a_seek_it_counts_from_there() -> None:
    player = Player()
    player.play(5)
    player.pace.seek(player.now)
    player.play(0.2)  # was on its way
    player.raw += 300 * HZ
    player.play(2)
    assert abs(player.pace.played - 2) < 0.1
    player.pace.seek(player.now)
    player.raw = 0  # its clock begins anew
    player.play(3)
    assert abs(player.pace.played - 3) < 0.1
    player.pace.seek(player.now)
    player.play(1)  # a seek to where it is
    assert abs(player.pace.played - 1) < 0.1
    assert player.rises()
    assert abs(player.rate(100.0) - 1.0) < 0.02


def test_jumps_of_the_clock_do_not_count_and_gaps_do() -> None:
    player = Player()
    player.play(1)
    player.raw += 3_600 * HZ
    player.play(1)
    player.raw -= 100 * HZ
    player.play(1)
    assert abs(player.pace.played - 3) < 0.2
    player.raw += 60 * HZ
    player.play(1)
    assert abs(player.pace.played - 64) < 0.3
    assert player.rises()


def test_units_without_a_time_pass() -> None:
    pace = Pace()
    one = unit(H264, b"\0\0\0\1\x41", pts=None, dts=None)
    pace.hear(one, 1.0)
    assert pace.push(one, 1.0) is one


def test_what_comes_again_after_a_pause_is_left_out() -> None:
    player = Player()
    player.play(2, sound=True)
    for back in (3, 20):  # pictures from the key frame before the place
        player.now += 30
        player.pace.set_scale(1.0, player.now)
        player.raw -= back * STEP
        player.play(2, sound=True)
    assert player.repeated == 2 * (3 + 20)
    assert player.rises()
    assert player.timeline.tally.counts.get("timeline.repaired", 0) == 0
    assert player.timeline.tally.counts.get("timeline.jump", 0) == 0
    assert abs(player.pace.played - (6 - 23 * 0.04)) < 0.1
