"""Leases and locks of cameras, with time as an argument."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gbgw.base import limits
from gbgw.base.errors import LimitError, RequestError
from gbgw.gb import ptz
from gbgw.gb.ptz import STILL, Motion
from gbgw.gb.steering import Locks, Operator, frames

ANN, BOB, CHIEF = Operator("a", "Ann", 5), Operator("b", "Bob", 5), Operator("c", "Chief", 9)
RIGHT = Motion(pan=50)
STOP = ptz.move(0, 0, 0)


def test_a_movement_ends_unless_it_is_renewed() -> None:
    locks = Locks()
    locks.claim("cam", ANN, 0.0)
    assert locks.move("cam", RIGHT, 1.0, 0.0) == [ptz.head_of(RIGHT, both=True)]
    assert locks.deadline == 1.0
    locks.claim("cam", ANN, 0.9)
    assert locks.move("cam", RIGHT, 1.0, 0.9) == []
    assert locks.due(1.5) == []
    assert locks.due(1.9) == [("cam", ANN, [STOP])]
    assert locks.get("cam", 1.9) is not None, "he may press again"
    assert locks.due(1.9 + limits.PTZ_HOLD_SECONDS) == []
    assert (len(locks), locks.deadline) == (0, None)


def test_others_wait_and_a_higher_priority_does_not() -> None:
    locks = Locks()
    locks.claim("cam", ANN, 0.0)
    locks.move("cam", RIGHT, 2.0, 0.0)
    with pytest.raises(RequestError) as caught:
        locks.claim("cam", BOB, 1.0)
    assert (caught.value.status, caught.value.code) == (409, "ptz_locked")
    assert "Ann steers this camera (priority 5), for another 6 s" in caught.value.message
    assert locks.claim("cam", CHIEF, 1.0).motion == RIGHT
    left = Motion(pan=-50)
    assert locks.move("cam", left, 2.0, 1.0) == [ptz.head_of(left, both=True)], "one frame replaces the other"
    for lower in (ANN, BOB):
        with pytest.raises(RequestError):
            locks.claim("cam", lower, 2.0)
    assert locks.release("cam", ANN, 2.0) == ()
    assert locks.release("cam", CHIEF, 2.0) == [STOP]
    assert locks.claim("cam", BOB, 2.0).operator == BOB


def test_after_a_moment_of_quiet_anybody_may() -> None:
    locks = Locks()
    locks.claim("cam", ANN, 0.0)
    with pytest.raises(RequestError):
        locks.claim("cam", BOB, limits.PTZ_HOLD_SECONDS - 0.1)
    assert locks.claim("cam", BOB, limits.PTZ_HOLD_SECONDS).operator == BOB


def test_what_is_gone_is_forgotten_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PTZ_HOLDS", 2)
    locks = Locks()
    for key in "12":
        locks.claim(key, ANN, 0.0)
    with pytest.raises(LimitError):
        locks.claim("3", ANN, 0.0)
    locks.forget("1")
    locks.claim("3", ANN, 0.0)
    assert locks.motion("1") == STILL
    assert not locks.is_held("1")


axis = st.sampled_from((-100, 0, 40))
motions = st.builds(Motion, axis, axis, axis, axis, axis)


@given(motions, motions)
def test_frames_take_a_camera_from_one_motion_to_another(before: Motion, after: Motion) -> None:
    found = frames(before, after)
    assert len(found) == len({frame.instruction & 0xC0 for frame in found}), "one frame a group"
    head = ptz.head_of(after, both=True)
    assert (head in found) == ((before.pan, before.tilt, before.zoom) != (after.pan, after.tilt, after.zoom))
    assert (ptz.lens_of(after) in found) == ((before.focus, before.iris) != (after.focus, after.iris))


@given(st.lists(st.tuples(st.sampled_from((ANN, BOB, CHIEF)), motions, st.floats(0.1, 10)), max_size=12))
def test_in_the_end_every_camera_stands(moves: list[tuple[Operator, Motion, float]]) -> None:
    locks, now, shown = Locks(), 0.0, STILL
    for operator, motion, seconds in moves:
        now += 0.5
        for _, _, found in locks.due(now):
            assert found
            shown = STILL
        try:
            locks.claim("cam", operator, now)
        except RequestError:
            continue
        locks.move("cam", motion, seconds, now)
        shown = motion
    while locks.deadline is not None:
        now = max(now, locks.deadline)
        for _, _, found in locks.due(now):
            assert found
            shown = STILL
    assert shown == STILL
    assert len(locks) == 0
