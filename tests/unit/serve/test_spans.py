"""Times in URLs."""

import pytest

from gbgw.base.errors import RequestError
from gbgw.serve.spans import read_time, write_time

MOMENT = 1_770_106_530


@pytest.mark.parametrize(
    "text",
    [
        "20260203T081530Z",
        "1770106530",
        "2026-02-03T08:15:30Z",
        "2026-02-03T16:15:30+08:00",
        "2026-02-03T16:15:30 08:00",
        "2026-02-03T08:15:30.9Z",
    ],
)
def test_three_forms_of_one_moment(text: str) -> None:
    assert read_time(text, "start") == MOMENT
    assert write_time(MOMENT) == "20260203T081530Z"


@pytest.mark.parametrize(
    "text", ["", "now", "2026-02-03T08:15:30", "20260203T256199Z", "-5", "99999999999", "5e3", "4102444800", "١٢"]
)
def test_what_is_no_time_is_refused_by_name(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_time(text, "start")
    assert caught.value.code == "bad_time"
    assert caught.value.message.startswith("start")
