"""Alarms and positions of both editions."""

import pytest

from gbgw.gb import manscdp, notices
from gbgw.gb.notices import Position

DEVICE = "34020000001320000001"


def notify(inside: str) -> manscdp.Document:
    return manscdp.parse(f"<Notify>{inside}</Notify>".encode())


@pytest.mark.conformance(46)
@pytest.mark.parametrize(
    ("text", "found"),
    [("2", (2,)), ("12", (1, 2)), ("1/2", (1, 2)), ("2/1", (1, 2)), ("256", (2, 5, 6)), ("0", ()), ("", ()),
     ("1 / 2", (1, 2)), ("22", (2,)), ("89", ()), ("x", ())],
)  # fmt: skip
def test_methods_written_together_or_joined(text: str, found: tuple[int, ...]) -> None:
    assert notices.methods(text) == found


def test_methods_are_sent_by_edition() -> None:
    assert notices.methods_text((1, 2), "2.0") == "12"
    assert notices.methods_text((1, 2), "3.0") == "1/2"
    assert notices.methods_text((), "3.0") == "0"
    for edition in ("2.0", "3.0"):
        assert notices.methods(notices.methods_text((1, 2, 5), edition)) == (1, 2, 5)  # type: ignore[arg-type]


def test_an_alarm_with_its_type_inside_or_beside_info() -> None:
    head = f"<CmdType>Alarm</CmdType><SN>1</SN><DeviceID>{DEVICE}</DeviceID><AlarmPriority>4</AlarmPriority>"
    inside = "<AlarmMethod>5</AlarmMethod><AlarmTime>2026-02-03T08:15:30</AlarmTime>"
    found = notices.alarm(notify(head + inside + "<Info><AlarmType>2</AlarmType></Info>"), DEVICE)
    assert (found.priority, found.methods, found.kind, found.time) == (4, (5,), 2, "2026-02-03T08:15:30")
    assert notices.alarm(notify(head + inside + "<AlarmType>6</AlarmType>"), DEVICE).kind == 6
    bare = notices.alarm(notify("<CmdType>Alarm</CmdType>"), DEVICE)
    assert (bare.device_id, bare.methods, bare.kind) == (DEVICE, (), None)


@pytest.mark.conformance(50)
def test_a_position_flat_or_as_a_list() -> None:
    head = f"<CmdType>MobilePosition</CmdType><SN>1</SN><DeviceID>{DEVICE}</DeviceID><Time>2026-02-03T08:15:30</Time>"
    place = "<Longitude>121.1</Longitude><Latitude>31.2</Latitude><Speed>20.5</Speed><Direction>90</Direction>"
    wanted = Position(DEVICE, "2026-02-03T08:15:30", 121.1, 31.2, 20.5, 90.0, 4.0)
    assert notices.positions(notify(f"{head}{place}<Altitude>4.0</Altitude>"), DEVICE) == (wanted,)
    other = "34020000001320000002"
    listed = (
        f"{head}<SumNum>2</SumNum><DeviceList Num=2><Item><DeviceID>{other}</DeviceID>"
        f"<CaptureTime>2026-02-03T08:00:00</CaptureTime>{place}</Item>"
        f"<Item><DeviceID>{DEVICE}</DeviceID>{place}<Height>2</Height></Item></DeviceList>"
    )
    found = notices.positions(notify(listed), DEVICE)
    assert [(each.device_id, each.time) for each in found] == [
        (other, "2026-02-03T08:00:00"),
        (DEVICE, "2026-02-03T08:15:30"),
    ]


@pytest.mark.parametrize("longitude", ["", "NaN", "inf", "181", "east"])
def test_a_position_that_is_none_is_left_out(longitude: str) -> None:
    text = f"<CmdType>MobilePosition</CmdType><Longitude>{longitude}</Longitude><Latitude>31.2</Latitude>"
    assert notices.positions(notify(text), DEVICE) == ()
    bare = notify("<CmdType>MobilePosition</CmdType><Longitude>1</Longitude><Latitude>2</Latitude>")
    assert [each.device_id for each in notices.positions(bare, DEVICE)] == [DEVICE]
