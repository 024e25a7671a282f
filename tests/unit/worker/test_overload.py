"""When a worker refuses new streams: patience both ways, and the level between."""

import pytest

from gbgw.base import limits
from gbgw.worker.overload import Overload

THRESHOLD = 0.5


def after(overload: Overload, *looks: float, now: float = 0.0, dropped: bool = False) -> list[bool]:
    """One look a second."""
    said = []
    for number, lateness in enumerate(looks):
        overload.push(lateness, dropped, now + number)
        said.append(overload.active)
    return said


def test_unbroken_lateness_is_overload() -> None:
    assert after(Overload(THRESHOLD), 0.5, 0.6, 9.0, 0.5) == [False, False, False, True]
    assert limits.OVERLOAD_SECONDS == 3.0


@pytest.mark.parametrize("hiccup", [[9.0], [9.0, 9.0, 9.0]])
def test_a_hiccup_is_not(hiccup: list[float]) -> None:
    assert not any(after(Overload(THRESHOLD), *hiccup, 0.49, *hiccup, 0.0))


def test_dropped_units_count_as_lateness() -> None:
    assert after(Overload(THRESHOLD), 0.0, 0.0, 0.0, 0.0, dropped=True)[-1]


def test_it_ends_after_calm_at_half_the_level() -> None:
    overload = Overload(THRESHOLD)
    after(overload, *[1.0] * 4)
    assert after(overload, *[0.3] * 100, now=10.0)[-1], "not late, and not calm either"
    said = after(overload, *[0.1] * 11, now=200.0)
    assert said == [True] * 10 + [False]
    assert limits.OVERLOAD_CALM_SECONDS == 10.0


def test_calm_must_be_unbroken() -> None:
    overload = Overload(THRESHOLD)
    after(overload, *[1.0] * 4)
    assert all(after(overload, *([0.0] * 10 + [0.25]) * 5, now=10.0))


def test_zero_switches_it_off() -> None:
    assert not any(after(Overload(0.0), *[60.0] * 100, dropped=True))
