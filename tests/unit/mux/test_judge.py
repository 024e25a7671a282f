import pytest

from gbgw._ps import AccessUnit
from gbgw.base.codec import H264
from gbgw.mux.judge import judge
from gbgw.mux.scene import SceneSpec, scene_loop


@pytest.fixture(scope="module")
def units() -> list[AccessUnit]:
    return [unit for unit in scene_loop(SceneSpec(320, 176, 25, 25, 1, 400_000)).units if unit.codec is H264]


def altered(unit: AccessUnit, data: bytes) -> AccessUnit:
    return AccessUnit(data, H264, unit.pts, unit.dts, is_keyframe=unit.is_keyframe)


def test_whole_pictures_have_their_hashes_and_no_complaint(units: list[AccessUnit]) -> None:
    verdict = judge(units, H264)
    assert sorted(verdict.pictures) == [unit.pts for unit in units]
    assert len(set(verdict.pictures.values())) == 25
    assert verdict.complaints == 0
    assert judge(units, H264) == verdict


def test_a_missing_picture_changes_those_that_refer_to_it(units: list[AccessUnit]) -> None:
    whole, holed = judge(units, H264), judge([*units[:5], *units[6:]], H264)
    assert all(holed.pictures[units[n].pts or 0] == whole.pictures[units[n].pts or 0] for n in range(5))
    assert all(holed.pictures[units[n].pts or 0] != whole.pictures[units[n].pts or 0] for n in range(6, 25))


def test_slice_data_that_is_none_is_complained_of(units: list[AccessUnit]) -> None:
    data = bytes(units[0])
    broken = altered(units[0], data[: len(data) // 2] + b"\x55" * (len(data) // 2))
    verdict = judge([broken, *units[1:]], H264)
    assert verdict.complaints > 0


def test_nothing_gives_nothing() -> None:
    assert judge([], H264).pictures == {}
