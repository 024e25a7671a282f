from collections.abc import Callable
from typing import Any

import pytest

from gbgw import _timeline
from gbgw.base.ticks import HZ
from tests.model import drift_model
from tests.model.drift_model import LINE_WINDOWS, SLEW

FRAME = 3_600


Drift = _timeline.Drift | drift_model.Drift


@pytest.fixture(params=[_timeline.Drift, drift_model.Drift], ids=["core", "model"])
def drift(request: pytest.FixtureRequest) -> Any:
    return request.param()


def play(
    drift: Drift,
    seconds: float,
    picture: Callable[[float], float] | None,
    sound: Callable[[float], float] | None,
    *,
    begin: float = 0.0,
    delay: Callable[[float], float] = lambda at: 0.0,
) -> list[str]:
    """Units every 40 ms, at the times that the functions say and the slews on top. Returns what began."""
    said = []
    for number in range(int(begin * 25), int((begin + seconds) * 25)):
        at = number / 25
        arrived = 100 + at + delay(at)
        if picture is not None:
            said.append(drift.push(True, round(picture(at) * HZ) + drift.line, FRAME, arrived))
        if sound is not None:
            said.append(drift.push(False, round(sound(at) * HZ) + drift.line + drift.sound, FRAME, arrived + 0.001))
    return [one for one in said if one]


def right(at: float) -> float:
    return at


def test_clocks_that_agree_are_left_alone(drift: Drift) -> None:
    assert play(drift, 60, right, lambda at: at - 0.3) == []
    assert (drift.line, drift.sound) == (0, 0)
    assert abs(drift.skew) < 200


def test_sound_that_runs_fast_is_held_back(drift: Drift) -> None:
    said = play(drift, 60, right, lambda at: at * 1.01)
    assert set(said) == {"sound"}
    assert drift.sound / HZ == pytest.approx(-0.6, abs=0.15)
    assert drift.line == 0
    assert 0 < drift.skew / HZ < 0.12


def test_the_slew_is_bounded(drift: Drift) -> None:
    before = 0
    for at in range(1_000):
        play(drift, 0.04, right, lambda at: at * 1.1, begin=at / 25)
        assert abs(drift.sound - before) <= FRAME // SLEW
        before = drift.sound


def test_sound_that_nothing_can_hold_asks_for_more(drift: Drift) -> None:
    late = 0
    for at in range(500):
        play(drift, 0.04, right, lambda at: at * 1.5, begin=at / 25)
        late = drift.resync()
        if late:
            break
    assert late > HZ
    assert drift.resync() == 0


def test_a_line_that_runs_away_from_the_wall_clock_is_drawn_back(drift: Drift) -> None:
    assert set(play(drift, 120, lambda at: at * 1.02, lambda at: at * 1.02)) == {"line"}
    assert 2.4 - 1.3 < -drift.line / HZ < 2.4
    assert drift.sound == 0


def test_sound_alone_is_a_line_too(drift: Drift) -> None:
    assert set(play(drift, 120, None, lambda at: at * 0.98)) == {"line"}
    assert drift.line > HZ


@pytest.mark.parametrize("delay", [0.6, -0.6])
def test_a_network_that_becomes_slower_or_faster_is_no_clock(drift: Drift, delay: float) -> None:
    assert play(drift, 120, right, right, delay=lambda at: 1 + (delay if at > 20 else 0)) == []


def test_a_network_that_goes_up_and_down_is_no_clock(drift: Drift) -> None:
    swing = LINE_WINDOWS / 2
    assert play(drift, 180, right, right, delay=lambda at: 1 + abs(at % swing - swing / 2) / 10) == []


def test_a_recording_played_fast_is_left_alone(drift: Drift) -> None:
    assert play(drift, 60, lambda at: at * 4, lambda at: at * 4) == []
    assert (drift.line, drift.sound) == (0, 0)


def test_after_a_restart_the_line_is_measured_anew(drift: Drift) -> None:
    play(drift, 20, right, right)
    drift.restart()
    assert play(drift, 100, lambda at: at - 5, lambda at: at - 5, begin=20) == []
