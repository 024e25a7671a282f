"""Clocks of cameras: what they show at a time."""

from fractions import Fraction

from gbgw.base.ticks import HZ
from gbgw.device.clockwork import RIGHT, ClockFault


def test_a_right_clock_shows_the_time() -> None:
    assert [RIGHT.read(time, time, is_picture=True) for time in (0, 1, 10 * HZ)] == [0, 1, 10 * HZ]


def test_a_clock_that_stands_still_keeps_what_lies_between_decoding_and_showing() -> None:
    clock = ClockFault(stands_after=1.0)
    assert clock.read(3 * HZ + 7_200, 3 * HZ, is_picture=True) == HZ + 7_200


def test_a_clock_that_counts_pictures_for_another_rate() -> None:
    clock = ClockFault(rate_after=1.0, picture_rate=Fraction(12, 25))
    assert clock.read(HZ, HZ, is_picture=True) == HZ
    assert clock.read(HZ + 7_500, HZ + 7_500, is_picture=True) == HZ + 3_600
    assert clock.read(2 * HZ, 2 * HZ, is_picture=False) == 2 * HZ


def test_a_clock_of_the_sound_that_is_fast() -> None:
    clock = ClockFault(sound_rate=Fraction(10_002, 10_000))
    assert clock.read(100 * HZ, 100 * HZ, is_picture=False) == 100 * HZ + 1_800
    assert clock.read(100 * HZ, 100 * HZ, is_picture=True) == 100 * HZ
