from typing import Any

import pytest

from gbgw import _timeline
from gbgw.base.ticks import HZ
from tests.model import witness_model
from tests.model.witness_model import UNITS

FRAME = 3_600


Witness = _timeline.Witness | witness_model.Witness


@pytest.fixture(params=[_timeline.Witness, witness_model.Witness], ids=["core", "model"])
def witness(request: pytest.FixtureRequest) -> Any:
    return request.param()


def tell(witness: Witness, count: int, pts: float, rtp: float, wall: float, *, first: int = 0) -> list[bool]:
    """Pictures of 40 ms by the truth; each clock runs that much too fast."""
    return [
        witness.hear(round(at * FRAME * pts), round(FRAME * rtp), at * 0.04 * wall, round(at * FRAME * pts))
        for at in range(first, first + count)
    ]


def test_milliseconds_are_found_out_after_two_comparisons(witness: Witness) -> None:
    verdicts = tell(witness, 2 * UNITS + 1, 1 / 90, 1, 1)
    assert verdicts == [False] * 2 * UNITS + [True]
    assert witness.misled
    assert witness.astray == round((1 / 90 - 1) * 2 * UNITS * FRAME) + FRAME


def test_what_runs_like_the_wall_clock_is_not_doubted(witness: Witness) -> None:
    assert not any(tell(witness, 100, 1, 1 / 90, 1))
    assert not any(tell(witness, 100, 2, 1, 1, first=100))  # less than the units known
    assert not witness.misled


def test_a_witness_that_does_not_run_like_the_wall_clock_is_not_heard(witness: Witness) -> None:
    assert not any(tell(witness, 100, 8, 1, 8))  # played slowly by both
    assert not any(tell(type(witness)(), 100, 8, 8, 1))  # played fast


def test_one_jump_is_no_verdict(witness: Witness) -> None:
    assert not any(tell(witness, 40, 1, 1, 1))
    assert not witness.hear(400 * HZ, FRAME, 1.6, 40 * FRAME)
    assert not any(witness.hear(400 * HZ + at * FRAME, FRAME, 1.6 + at / 25, at * FRAME) for at in range(1, 60))
    assert not witness.misled


def test_without_its_witness_nothing_is_said(witness: Witness) -> None:
    assert not any(witness.hear(at, None, at / 25, at) for at in range(100))
    assert not any(witness.hear(at, FRAME, at / 25, None) for at in range(100, 200))


def test_a_camera_that_comes_to_its_senses_is_believed_again(witness: Witness) -> None:
    tell(witness, 2 * UNITS + 1, 1 / 90, 1, 1)
    start = 2 * UNITS + 1
    verdicts = [witness.hear(at * FRAME, FRAME, at / 25, at * FRAME) for at in range(start, start + 6 * UNITS)]
    assert sum(verdicts) == 1
    assert not witness.misled


def test_being_moved_is_no_fault(witness: Witness) -> None:
    for at in range(2 * UNITS + 1):
        if at == 5:
            witness.move(7 * HZ)
        witness.hear(round(at * FRAME / 90), FRAME, at / 25, round(at * FRAME / 90) + (7 * HZ if at >= 5 else 0))
    assert witness.misled
    assert witness.astray == round((1 / 90 - 1) * 2 * UNITS * FRAME) + FRAME
