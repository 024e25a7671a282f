import pytest

from gbgw.base import limits
from gbgw.base.errors import LocalError
from gbgw.gb.ssrc import Ssrc, SsrcPool

PLATFORM = "34020000002000000001"


@pytest.mark.conformance(58)
def test_form() -> None:
    pool = SsrcPool(PLATFORM)
    live, history = pool.allocate(0.0), pool.allocate(0.0, history=True)
    assert (live.text, live.value, live.is_history) == ("0200000001", 0x0BEBC201, False)
    assert (history.text, history.value, history.is_history) == ("1200000001", 0x47868C01, True)
    assert SsrcPool("13010000002000000001").allocate(0.0).text == "0100000001"


@pytest.mark.conformance(58)
def test_unique_until_exhausted() -> None:
    pool = SsrcPool(PLATFORM)
    taken = [pool.allocate(0.0) for _ in range(limits.SSRC_SERIALS)]
    assert len({each.value for each in taken}) == pool.in_use == 9_999
    assert pool.available == 0
    with pytest.raises(LocalError) as caught:
        pool.allocate(0.0)
    assert caught.value.code == "ssrcs_exhausted"
    pool.release(taken[5000], 1.0)
    assert pool.allocate(1.0) == taken[5000]  # under pressure the quarantine is cut


def test_numbers_rest_before_they_come_back() -> None:
    pool = SsrcPool(PLATFORM)
    first = pool.allocate(0.0)
    pool.release(first, 0.0)
    later = [pool.allocate(limits.SSRC_QUARANTINE_SECONDS + 1) for _ in range(limits.SSRC_SERIALS)]
    assert later[-1] == first


def test_releasing_twice_changes_nothing() -> None:
    pool = SsrcPool(PLATFORM)
    ssrc = pool.allocate(0.0)
    pool.release(ssrc, 0.0)
    pool.release(ssrc, 0.0)
    pool.release(Ssrc("0200000777"), 0.0)
    assert pool.in_use == 0
    assert pool.available == limits.SSRC_SERIALS


def test_the_platform_needs_an_id() -> None:
    with pytest.raises(ValueError, match="20-digit"):
        SsrcPool("340200")
