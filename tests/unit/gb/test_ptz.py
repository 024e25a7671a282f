"""PTZCmd against the worked examples of the reference (table 4.3), bit by bit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gbgw.base.errors import ManscdpError, RequestError
from gbgw.gb import ptz
from gbgw.gb.ptz import Motion, PtzCommand

EXAMPLES = [
    ("A50F0100000000B5", ptz.move(0, 0, 0)),
    ("A50F0140000000F5", ptz.lens(0, 0)),
    ("A50F01021F1F00F5", ptz.move(-0x1F, 0, 0, both=True)),
    ("A50F0101400000F6", ptz.move(0x40, 0, 0)),
    ("A50F0108004000FD", ptz.move(0, 0x40, 0)),
    ("A50F0104004000F9", ptz.move(0, -0x40, 0)),
    ("A50F010A6060007F", ptz.move(-0x60, 0x60, 0)),
    ("A50F0129404080DE", ptz.move(0x40, 0x40, -8)),
    ("A50F0110000010D5", ptz.move(0, 0, 1)),
    ("A50F011000008045", ptz.move(0, 0, 8)),
    ("A50F012000008055", ptz.move(0, 0, -8)),
    ("A50F4D1000001021", PtzCommand(ptz.ZOOM_IN, 0, 0, 1, address=0x4D)),
    ("A50F01480080007D", ptz.lens(0, -0x80)),
    ("A50F014400800079", ptz.lens(0, 0x80)),
    ("A50F014280000077", ptz.lens(-0x80, 0)),
    ("A50F014180000076", ptz.lens(0x80, 0)),
    ("A50F01494040007E", ptz.lens(0x40, -0x40)),
    ("A50F018200FF0036", ptz.preset(ptz.CALL_PRESET, 255)),
    ("A50F018100010037", ptz.preset(ptz.SET_PRESET, 1)),
    ("A50F018200010038", ptz.preset(ptz.CALL_PRESET, 1)),
    ("A50F018300010039", ptz.preset(ptz.DELETE_PRESET, 1)),
    ("A50F01880100003E", ptz.start_cruise(1)),
    ("A50F01840102003C", ptz.cruise_point(ptz.ADD_POINT, 1, 2)),
    ("A50F01850102003D", ptz.cruise_point(ptz.DELETE_POINT, 1, 2)),
    ("A50F01850100003B", ptz.cruise_point(ptz.DELETE_POINT, 1, 0)),
    ("A50F0186012C1078", ptz.cruise_value(ptz.CRUISE_SPEED, 1, 300)),
    ("A50F0187010F004C", ptz.cruise_value(ptz.CRUISE_SECONDS, 1, 15)),
    ("A50F0187015820B5", ptz.cruise_value(ptz.CRUISE_SECONDS, 1, 600)),
    ("A50F01890100003F", ptz.scan(1)),
    ("A50F018901010040", ptz.scan(1, 1)),
    ("A50F018901020041", ptz.scan(1, 2)),
    ("A50F018A018000C0", ptz.scan_speed(1, 128)),
    ("A50F018C01000042", ptz.switch(ptz.WIPER, on=True)),
    ("A50F018D01000043", ptz.switch(ptz.WIPER, on=False)),
]


@pytest.mark.conformance(43)
@pytest.mark.parametrize(("digits", "command"), EXAMPLES, ids=[row[0] for row in EXAMPLES])
def test_the_worked_examples(digits: str, command: PtzCommand) -> None:
    assert command.serialize() == digits
    assert PtzCommand.parse(digits) == command
    assert PtzCommand.parse(f" {digits.lower()} ") == command


bytes_ = st.integers(0, 255)


@given(bytes_, bytes_, bytes_, st.integers(0, 15), st.integers(0, 0xFFF))
def test_any_frame_comes_back(instruction: int, data1: int, data2: int, data3: int, address: int) -> None:
    command = PtzCommand(instruction, data1, data2, data3, address)
    assert PtzCommand.parse(command.serialize()) == command
    assert command.value == data3 * 256 + data2


@given(st.integers(0, 15), st.integers(1, 255))
def test_a_damaged_frame_is_refused(position: int, change: int) -> None:
    digits = "A50F01021F1F00F5"
    digit = (int(digits[position], 16) + 1 + change % 15) % 16
    with pytest.raises(ManscdpError) as caught:
        PtzCommand.parse(f"{digits[:position]}{digit:X}{digits[position + 1 :]}")
    assert caught.value.code == "ptz_malformed"


@pytest.mark.parametrize("text", ["", "A50F", "A50F01021F1F00F5A5", "G50F01021F1F00F5", "A5 0F 01 02 1F 1F 00 F5"])
def test_what_is_no_frame_is_refused(text: str) -> None:
    with pytest.raises(ManscdpError):
        PtzCommand.parse(text)


axis = st.integers(-100, 100)


@given(axis, axis, axis, axis, axis)
def test_an_axis_that_moves_has_a_speed_and_one_direction(
    pan: int, tilt: int, zoom: int, focus: int, iris: int
) -> None:
    motion = Motion(pan, tilt, zoom, focus, iris)
    head, lens = ptz.head_of(motion), ptz.lens_of(motion)
    assert [bool(head.instruction & bit) for bit in (ptz.RIGHT, ptz.LEFT, ptz.UP, ptz.DOWN)] == [
        pan > 0, pan < 0, tilt > 0, tilt < 0,
    ]  # fmt: skip
    assert (head.data1 > 0, head.data2 > 0, head.data3 > 0) == (pan != 0, tilt != 0, zoom != 0)
    assert (lens.data1 > 0, lens.data2 > 0) == (focus != 0, iris != 0)
    assert lens.instruction & 0xF0 == ptz.LENS
    assert max(head.data1, head.data2, lens.data1, lens.data2) <= 255
    assert bool(motion) == (motion != Motion())


def test_full_speed_is_the_whole_byte() -> None:
    assert ptz.head_of(Motion(100, -100, 100)) == ptz.move(255, -255, 15)
    assert ptz.head_of(Motion(1, 0, 1), both=True) == ptz.move(3, 0, 1, both=True)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ptz.preset(ptz.CALL_PRESET, 0),
        lambda: ptz.preset(ptz.CALL_PRESET, 256),
        lambda: ptz.cruise_point(ptz.ADD_POINT, 1, 0),
        lambda: ptz.cruise_value(ptz.CRUISE_SPEED, 1, 4_096),
        lambda: ptz.start_cruise(-1),
        lambda: ptz.scan(1, 3),
        lambda: ptz.switch(256, on=True),
    ],
)
def test_numbers_out_of_range_are_refused(make: object) -> None:
    with pytest.raises(RequestError) as caught:
        make()  # type: ignore[operator]
    assert caught.value.code == "out_of_range"
