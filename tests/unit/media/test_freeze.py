from typing import Any

import pytest

from gbgw._ps import AccessUnit
from gbgw.base import limits
from gbgw.base.codec import H264, H265
from gbgw.base.tally import Tally
from gbgw.media.freeze import Freeze

FRAME = 3_600


def key(at: int, *, refresh: int = 0, codec: Any = H264, data: bytes = b"key") -> AccessUnit:
    return AccessUnit(data, codec, at * FRAME, at * FRAME, is_keyframe=True, refresh=refresh)


def picture(at: int, *, pts: int | None = None) -> AccessUnit:
    return AccessUnit(b"picture", H264, (at if pts is None else pts) * FRAME, at * FRAME)


def passed(gate: Freeze, *units: AccessUnit) -> list[float]:
    """The decoding times of what passes, in pictures."""
    return [(unit.dts or 0) / FRAME for pushed in units for unit in gate.push(pushed, 1.0)]


def running() -> Freeze:
    gate = Freeze("freeze", tally=Tally())
    assert passed(gate, key(0), picture(1)) == [0, 1]
    return gate


def test_nothing_passes_before_the_first_key_frame_and_that_is_no_loss() -> None:
    gate = Freeze("freeze")
    gate.lose(0.0)
    assert passed(gate, picture(0), picture(1), key(2), picture(3)) == [2, 3]
    assert not gate.frozen
    assert not gate.tally.counts


def test_from_a_hole_to_the_next_key_frame() -> None:
    gate = running()
    gate.lose(1.0)
    assert gate.frozen
    gate.lose(1.0)
    assert passed(gate, picture(2), picture(3)) == []
    assert passed(gate, key(4), picture(5)) == [4, 5]
    assert not gate.frozen
    assert gate.tally.counts == {"receiver.freezes": 1, "receiver.frozen_units": 2}


def test_pass_lets_everything_through() -> None:
    gate = Freeze("pass")
    gate.lose(1.0)
    assert passed(gate, picture(0), key(1), picture(2)) == [0, 1, 2]
    gate.lose(1.0)
    assert passed(gate, picture(3)) == [3]
    assert not gate.frozen
    assert not gate.tally.counts


def test_leading_pictures_fall_only_behind_a_hole() -> None:
    gate = running()
    leading = [picture(5, pts=2), picture(6, pts=3)]
    assert passed(gate, key(4), *leading, picture(7)) == [4, 5, 6, 7]
    gate.lose(1.0)
    assert passed(gate, key(4), *leading, picture(7), picture(8, pts=6)) == [4, 7, 8]
    assert gate.tally["receiver.leading_units"] == 2
    assert passed(gate, key(9), picture(10, pts=8)) == [9, 10]


def test_a_refresh_passes_at_once_when_it_is_through() -> None:
    gate = running()
    gate.lose(1.0)
    assert passed(gate, picture(2), key(3, refresh=3), picture(4), picture(5)) == []
    assert passed(gate, picture(6), picture(7)) == [6 - 3 / 16, 6 - 2 / 16, 6 - 1 / 16, 6, 7]
    assert gate.tally["receiver.frozen_units"] == 1
    assert not gate.frozen


def test_a_hole_in_a_refresh_begins_it_anew() -> None:
    gate = running()
    gate.lose(1.0)
    assert passed(gate, key(2, refresh=2), picture(3)) == []
    gate.lose(1.0)
    assert passed(gate, picture(4), picture(5), key(6, refresh=1)) == []
    assert passed(gate, picture(7)) == [7 - 1 / 16, 7]
    assert gate.tally["receiver.frozen_units"] == 4


def test_a_clean_key_frame_is_better_than_a_refresh() -> None:
    gate = running()
    gate.lose(1.0)
    assert passed(gate, key(2, refresh=9), picture(3), key(4), picture(5)) == [4, 5]
    assert gate.tally["receiver.frozen_units"] == 2


def test_a_refresh_without_a_hole_is_not_held_back() -> None:
    assert passed(running(), key(2, refresh=9), picture(3)) == [2, 3]


def test_a_stream_may_begin_with_a_refresh() -> None:
    gate = Freeze("freeze")
    assert passed(gate, key(0, refresh=1)) == []
    assert passed(gate, picture(1)) == [1 - 1 / 16, 1]
    assert not gate.tally.counts


def test_a_refresh_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GOP_CACHE_BYTES", 20)
    gate = running()
    gate.lose(1.0)
    assert passed(gate, key(2, refresh=5), *(picture(at) for at in range(3, 9))) == []
    assert gate.tally["receiver.frozen_units"] == 7


@pytest.mark.parametrize(("nal", "after"), [("2a01", "2001"), ("2601", "2601"), ("2aff", "20ff")])
def test_an_open_gop_behind_a_hole_says_that_its_link_is_broken(nal: str, after: str) -> None:
    """CRA becomes BLA_W_LP (H.265 table 7-1); an IDR stays."""
    data = bytes.fromhex(f"0000000140010c000001{nal}af2a0100000001{nal}33")
    gate = Freeze("freeze")
    (first,) = gate.push(key(0, codec=H265, data=data), 0.0)
    assert bytes(first) == data
    gate.lose(0.0)
    (second,) = gate.push(key(1, codec=H265, data=data), 0.0)
    assert bytes(second).hex() == f"0000000140010c000001{after}af2a0100000001{after}33"
    assert (second.pts, second.dts, second.is_keyframe) == (FRAME, FRAME, True)
    assert data.hex() == f"0000000140010c000001{nal}af2a0100000001{nal}33"
