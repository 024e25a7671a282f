"""PTZCmd, the front-end control code: eight bytes as sixteen hexadecimal digits (GB/T 28181-2022 and -2016 Annex A.3).

A frame replaces what the axes of its group did before: pan, tilt and zoom are one group, focus and iris another. The
address in it selects nothing; the DeviceID of the document does. Leaves out: what only analogue matrices know.
"""

import re
from dataclasses import dataclass
from typing import Final

from gbgw.base.errors import ManscdpError, RequestError

ADDRESS: Final = 0x001  # customary; 0x000 would be a broadcast
PRESETS: Final = range(1, 256)  # 0 is reserved
GROUPS: Final = range(256)  # cruises and scans
VALUES: Final = range(4_096)  # speeds and seconds of cruises and scans: 12 bits

_HEAD: Final = 0xA5
_VERSION: Final = 0x0F  # version 1.0 in the high nibble, the check of the header in the low one
_FRAME: Final = re.compile(r"[0-9A-Fa-f]{16}")

# Instruction bits of the PTZ group
ZOOM_OUT, ZOOM_IN, UP, DOWN, LEFT, RIGHT = 0x20, 0x10, 0x08, 0x04, 0x02, 0x01
# and of focus and iris, beside LENS
LENS, IRIS_CLOSE, IRIS_OPEN, FOCUS_NEAR, FOCUS_FAR = 0x40, 0x08, 0x04, 0x02, 0x01

SET_PRESET, CALL_PRESET, DELETE_PRESET = 0x81, 0x82, 0x83
ADD_POINT, DELETE_POINT, CRUISE_SPEED, CRUISE_SECONDS, START_CRUISE = 0x84, 0x85, 0x86, 0x87, 0x88
SCAN, SCAN_SPEED = 0x89, 0x8A
SWITCH_ON, SWITCH_OFF = 0x8C, 0x8D
WIPER: Final = 1  # the one switch with a name


@dataclass(frozen=True, slots=True)
class PtzCommand:
    """One frame. instruction, data1, data2: bytes; data3: 4 bits; address: 12 bits."""

    instruction: int
    data1: int = 0
    data2: int = 0
    data3: int = 0
    address: int = ADDRESS

    def serialize(self) -> str:
        """Return the sixteen digits, in capitals."""
        high = self.data3 << 4 | self.address >> 8
        body = bytes((_HEAD, _VERSION, self.address & 0xFF, self.instruction, self.data1, self.data2, high))
        return (body + bytes((sum(body) & 0xFF,))).hex().upper()

    @classmethod
    def parse(cls, text: str) -> "PtzCommand":
        """Read a frame. Raises ManscdpError `ptz_malformed`: not sixteen digits, another head, a wrong checksum."""
        text = text.strip()
        if _FRAME.fullmatch(text) is None:
            raise ManscdpError(f"PTZCmd {text[:40]!r} is not 16 hexadecimal digits", code="ptz_malformed")
        data = bytes.fromhex(text)
        if data[0] != _HEAD or sum(data[:7]) & 0xFF != data[7]:
            raise ManscdpError(f"PTZCmd {text} has a wrong head or checksum", code="ptz_malformed")
        return cls(data[3], data[4], data[5], data[6] >> 4, data[2] | (data[6] & 0x0F) << 8)

    @property
    def value(self) -> int:
        """The 12-bit value of cruise and scan commands."""
        return self.data3 << 8 | self.data2


@dataclass(frozen=True, slots=True)
class Motion:
    """How the axes move, -100 to 100 each: right, up, closer, focus to the far, iris open are positive; 0 stands."""

    pan: int = 0
    tilt: int = 0
    zoom: int = 0
    focus: int = 0
    iris: int = 0

    @property
    def moves_head(self) -> bool:
        return bool(self.pan or self.tilt or self.zoom)

    @property
    def moves_lens(self) -> bool:
        return bool(self.focus or self.iris)

    def __bool__(self) -> bool:
        return self.moves_head or self.moves_lens


STILL: Final = Motion()


def speed_byte(speed: int) -> int:
    """Return -100..100 as a speed byte; never 0 for an axis that moves, which some devices take for a stop."""
    return max(1, round(abs(speed) * 255 / 100)) if speed else 0


def speed_nibble(speed: int) -> int:
    return max(1, round(abs(speed) * 15 / 100)) if speed else 0


def move(pan: int, tilt: int, zoom: int, *, both: bool = False) -> PtzCommand:
    """Return the frame that moves the head. pan, tilt: -255..255, zoom: -15..15; all 0 stops, cruise and scan too.

    both: a move along one axis carries its speed in both bytes: the examples of the 2016 edition swap them.
    """
    bits = (RIGHT if pan > 0 else LEFT if pan < 0 else 0) | (UP if tilt > 0 else DOWN if tilt < 0 else 0)
    bits |= ZOOM_IN if zoom > 0 else ZOOM_OUT if zoom < 0 else 0
    across, along = abs(pan), abs(tilt)
    if both and not (across and along):
        across = along = across or along
    return PtzCommand(bits, across, along, abs(zoom))


def lens(focus: int, iris: int) -> PtzCommand:
    """Return the frame that moves focus and iris, -255..255 each; both 0 stops them."""
    bits = LENS | (FOCUS_FAR if focus > 0 else FOCUS_NEAR if focus < 0 else 0)
    bits |= IRIS_OPEN if iris > 0 else IRIS_CLOSE if iris < 0 else 0
    return PtzCommand(bits, abs(focus), abs(iris))


def head_of(motion: Motion, *, both: bool = False) -> PtzCommand:
    pan, tilt = (speed_byte(each) * (1 if each > 0 else -1) for each in (motion.pan, motion.tilt))
    return move(pan, tilt, speed_nibble(motion.zoom) * (1 if motion.zoom > 0 else -1), both=both)


def lens_of(motion: Motion) -> PtzCommand:
    focus, iris = (speed_byte(each) * (1 if each > 0 else -1) for each in (motion.focus, motion.iris))
    return lens(focus, iris)


def preset(instruction: int, number: int) -> PtzCommand:
    """instruction: SET_PRESET, CALL_PRESET or DELETE_PRESET; number: 1 to 255."""
    return PtzCommand(instruction, 0, _in(PRESETS, number, "a preset"))


def cruise_point(instruction: int, group: int, number: int) -> PtzCommand:
    """instruction: ADD_POINT or DELETE_POINT; deleting number 0 deletes the whole cruise."""
    allowed = range(256) if instruction == DELETE_POINT else PRESETS
    return PtzCommand(instruction, _in(GROUPS, group, "a cruise"), _in(allowed, number, "a preset"))


def cruise_value(instruction: int, group: int, value: int) -> PtzCommand:
    """instruction: CRUISE_SPEED, or CRUISE_SECONDS to stay at each point; value: 12 bits."""
    value = _in(VALUES, value, "a speed or a time")
    return PtzCommand(instruction, _in(GROUPS, group, "a cruise"), value & 0xFF, value >> 8)


def start_cruise(group: int) -> PtzCommand:
    """It is stopped by `move(0, 0, 0)`."""
    return PtzCommand(START_CRUISE, _in(GROUPS, group, "a cruise"))


def scan(group: int, what: int = 0) -> PtzCommand:
    """what: 0 starts it (stopped by `move(0, 0, 0)`), 1 sets its left end to where the camera looks, 2 its right."""
    return PtzCommand(SCAN, _in(GROUPS, group, "a scan"), _in(range(3), what, "what of a scan"))


def scan_speed(group: int, value: int) -> PtzCommand:
    value = _in(VALUES, value, "a speed")
    return PtzCommand(SCAN_SPEED, _in(GROUPS, group, "a scan"), value & 0xFF, value >> 8)


def switch(number: int, *, on: bool) -> PtzCommand:
    """An auxiliary switch, 0 to 255; 1 is the wiper."""
    return PtzCommand(SWITCH_ON if on else SWITCH_OFF, _in(range(256), number, "a switch"))


def _in(allowed: range, number: int, what: str) -> int:
    if number not in allowed:
        raise RequestError(
            f"{what} is {allowed.start} to {allowed.stop - 1}, not {number}", status=400, code="out_of_range"
        )
    return number
