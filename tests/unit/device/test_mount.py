"""Where the head of a simulated camera looks, as a function of time."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gbgw.device.mount import PAN_SPEED, TILT, ZOOM, Mount
from gbgw.gb import ptz
from gbgw.gb.answers import HomePosition
from gbgw.gb.ptz import PtzCommand
from gbgw.mux.view import AHEAD, View


def test_it_moves_as_long_as_it_is_told() -> None:
    mount = Mount()
    assert mount.view(0.0) == AHEAD
    mount.obey(ptz.move(255, 0, 0), 10.0)
    assert mount.view(10.5).pan == pytest.approx(PAN_SPEED / 2)
    mount.obey(ptz.move(0, 255, 0), 11.0)
    assert mount.view(12.0).pan == pytest.approx(PAN_SPEED), "a cleared bit stops that axis"
    assert mount.view(12.0).tilt == TILT[0], "up is negative, and ends"
    mount.obey(ptz.move(0, 0, 15), 12.0)
    assert mount.view(12.5).zoom == pytest.approx(2.0)
    mount.obey(ptz.move(0, 0, 0), 13.0)
    assert mount.view(13.0) == mount.view(99.0)


def test_focus_and_iris_move_no_head() -> None:
    mount = Mount()
    mount.obey(ptz.lens(100, -100), 0.0)
    assert mount.view(5.0) == AHEAD


def test_presets_are_kept_called_and_deleted() -> None:
    mount = Mount()
    there = View(120.0, 20.0, 3.0)
    mount.look(there, 0.0)
    mount.obey(ptz.preset(ptz.SET_PRESET, 7), 1.0, "gate")
    mount.look(AHEAD, 2.0)
    mount.obey(ptz.preset(ptz.CALL_PRESET, 8), 3.0)
    assert mount.view(3.0) == AHEAD, "there is no 8"
    mount.obey(ptz.preset(ptz.CALL_PRESET, 7), 4.0)
    assert mount.view(4.0) == there
    assert [(each.id, each.name) for each in mount.presets()] == [(7, "gate")]
    mount.obey(ptz.preset(ptz.DELETE_PRESET, 7), 5.0)
    assert mount.presets() == ()


def test_a_cruise_visits_its_presets_until_it_is_stopped() -> None:
    mount = Mount()
    for number in (1, 2):
        mount.look(View(number * 10.0), 0.0)
        mount.obey(ptz.preset(ptz.SET_PRESET, number), 0.0)
        mount.obey(ptz.cruise_point(ptz.ADD_POINT, 5, number), 0.0)
    mount.obey(ptz.cruise_value(ptz.CRUISE_SECONDS, 5, 3), 0.0)
    mount.obey(ptz.start_cruise(5), 100.0)
    assert [mount.view(100.0 + at).pan for at in (0, 2.9, 3, 6)] == [10.0, 10.0, 20.0, 10.0]
    mount.obey(ptz.move(0, 0, 0), 104.0)
    assert mount.view(200.0).pan == 20.0
    mount.obey(ptz.cruise_point(ptz.DELETE_POINT, 5, 0), 201.0)
    assert mount.cruises() == ()


def test_a_scan_swings_between_its_ends() -> None:
    mount = Mount()
    for what, pan in ((1, 350.0), (2, 20.0)):
        mount.look(View(pan), 0.0)
        mount.obey(ptz.scan(1, what), 0.0)
    mount.obey(ptz.scan(1), 0.0)
    seen = [mount.view(at / 10).pan for at in range(200)]
    assert all(each >= 349.9 or each <= 20.1 for each in seen)
    steps = [(b - a + 180) % 360 - 180 for a, b in pairwise(seen)]
    assert max(map(abs, steps)) < 5
    assert min(steps) < 0 < max(steps)


def test_it_goes_home_when_nobody_turns_it() -> None:
    mount = Mount()
    mount.look(View(45.0), 0.0)
    mount.obey(ptz.preset(ptz.SET_PRESET, 1), 0.0)
    mount.home = HomePosition(enabled=True, reset_time=60, preset_index=1)
    mount.look(View(90.0), 10.0)
    assert [mount.view(at).pan for at in (69.0, 70.0)] == [90.0, 45.0]
    mount.obey(ptz.move(10, 0, 0), 80.0)
    assert mount.view(500.0).pan != 45.0, "it is being turned"


frames = st.builds(
    PtzCommand, st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.integers(0, 15), st.just(1)
)


@given(st.lists(st.tuples(frames, st.floats(0, 1_000)), max_size=30))
def test_whatever_it_is_told_it_looks_somewhere(told: list[tuple[PtzCommand, float]]) -> None:
    mount, now = Mount(), 0.0
    for frame, wait in told:
        now += wait
        mount.obey(frame, now)
        for at in (now, now + 1e9):
            view = mount.view(at)
            assert 0 <= view.pan < 360
            assert TILT[0] <= view.tilt <= TILT[1]
            assert ZOOM[0] <= view.zoom <= ZOOM[1]
        assert len(mount.presets()) <= 255
