"""A recorder's recordings, and how it plays them."""

from gbgw.base.ticks import HZ
from gbgw.device.playback import Playback
from gbgw.device.recordings import pieces, recordings
from gbgw.gb.mansrtsp import Command
from gbgw.mux.pattern import PatternSpec
from gbgw.mux.recorded import picture_number, recorded_second

CHANNEL = "34020000001310000001"
NOW = 1_770_080_400.5  # half a second behind a full hour
HOUR = 1_770_076_800  # the one before


def test_each_hour_has_two_files_and_two_holes() -> None:
    found = recordings(CHANNEL, HOUR, HOUR + 3_600, NOW, 7)
    assert [(record.start - HOUR, record.end - HOUR) for record in found] == [(0, 1_500), (1_800, 3_300)]
    assert recordings(CHANNEL, HOUR + 1_500, HOUR + 1_800, NOW, 7) == []
    assert recordings(CHANNEL, HOUR, HOUR + 3_600, NOW, 7) == found
    of_alarm = recordings(CHANNEL, HOUR - 4 * 3_600, HOUR, NOW, 7, "alarm")
    assert len(of_alarm) == 1
    assert {record.kind for record in of_alarm} == {"alarm"}


def test_nothing_is_recorded_in_the_future_or_too_long_ago() -> None:
    assert recordings(CHANNEL, HOUR + 7_200, HOUR + 9_999, NOW, 7) == []
    assert recordings(CHANNEL, HOUR - 10 * 86_400, HOUR - 8 * 86_400, NOW, 7) == []
    assert recordings(CHANNEL, HOUR, HOUR + 3_600, NOW, 0) == []
    assert max(record.end for record in recordings(CHANNEL, HOUR, HOUR + 9_999, HOUR + 100.0, 7)) == HOUR + 100


def test_pieces_are_cut_to_what_is_wanted() -> None:
    assert pieces(CHANNEL, HOUR + 1_490, HOUR + 1_810, NOW, 7) == (
        (HOUR + 1_490, HOUR + 1_500),
        (HOUR + 1_800, HOUR + 1_810),
    )


def seconds(playback: Playback) -> list[int]:
    found = []
    while (second := playback.next_second) is not None:
        found.append(second)
        playback.sent(second)
    return found


def test_it_goes_over_the_holes_both_ways() -> None:
    parts = ((10, 13), (20, 22))
    assert seconds(Playback(parts, 10)) == [10, 11, 12, 20, 21]
    playback = Playback(parts, 10)
    assert playback.obey(Command("PLAY", "1", 11.0, -1.0))
    assert seconds(playback) == [21, 20, 12, 11, 10]
    assert seconds(Playback((), 10)) == []


def test_commands() -> None:
    playback = Playback(((100, 200),), 100)
    assert playback.obey(Command("PAUSE", "1"))
    assert (playback.paused, playback.turns) == (True, 1)
    assert playback.obey(Command("PLAY", "2"))
    assert (playback.paused, playback.next_second) == (False, 100)
    playback.obey(Command("PLAY", "3", 50.7))
    assert playback.next_second == 150
    playback.obey(Command("PLAY", "4", None, 2.0))
    assert (playback.scale, playback.next_second, playback.turns) == (2.0, 150, 4)
    playback.obey(Command("PLAY", "5", 500.0))
    assert playback.next_second is None


def test_units_are_due_at_the_speed_that_was_asked_for() -> None:
    playback = Playback(((100, 200),), 100)
    assert playback.due(100, 0, 5.0) == 5.0
    assert playback.due(101, HZ // 2, 5.0) == 6.5
    playback.obey(Command("PLAY", "1", None, 4.0))
    assert playback.due(102, 0, 9.0) == 9.0
    assert playback.due(104, 0, 9.0) == 9.5
    playback.obey(Command("PLAY", "2", None, -2.0))
    assert playback.due(104, 0, 20.0) == 20.0
    assert playback.due(104, HZ // 2, 20.0) == 20.25
    assert playback.due(103, 0, 20.0) == 20.5


def test_a_second_of_a_recording_is_whole() -> None:
    units = recorded_second(PatternSpec(width=160, height=90), HOUR)
    pictures = [unit for unit in units if unit.is_keyframe or unit.dts != unit.pts or len(unit) != 320]
    assert units[0].is_keyframe
    assert len(units) == 50
    assert len(pictures) >= 25
    assert all(0 <= (unit.pts or 0) < HZ for unit in units)
    assert recorded_second(PatternSpec(width=160, height=90), HOUR) is units
    assert picture_number(HOUR, 3, 25) == (HOUR * 25 + 3) % 65_536
