"""The head of a simulated camera: it pans, tilts and zooms as PTZCmd says, keeps presets, cruises and scans, and goes
home. sans-IO: where it looks is a function of time.
"""

import math
from dataclasses import dataclass, field
from typing import Final

from gbgw.gb import ptz
from gbgw.gb.answers import CruisePoint, CruiseTrack, CruiseTrackPoints, HomePosition, Preset, PtzPosition
from gbgw.gb.ptz import PtzCommand
from gbgw.mux.view import AHEAD, View

PAN_SPEED: Final = 90.0  # degrees a second at full speed
TILT_SPEED: Final = 45.0
ZOOM_SPEED: Final = 2.0  # doublings a second
TILT: Final = (-30.0, 90.0)  # degrees, downwards positive
ZOOM: Final = (1.0, 8.0)
STAY_SECONDS: Final = 5  # at a point of a cruise that has no time of its own


@dataclass(slots=True)
class _Cruise:
    presets: list[int] = field(default_factory=list)
    speed: int = 1
    seconds: int = STAY_SECONDS
    name: str = ""


@dataclass(slots=True)
class _Scan:
    left: float = -45.0
    right: float = 45.0
    speed: int = 1_024  # of 4,095


class Mount:
    """One camera's head. `obey` changes what it does from `now` on; `view` tells where it looks."""

    def __init__(self) -> None:
        self._from = AHEAD
        self._since = 0.0
        self._move = (0.0, 0.0, 0.0)  # degrees a second right and down, doublings a second closer
        self._presets: dict[int, tuple[str, View]] = {}
        self._cruises: dict[int, _Cruise] = {}
        self._scans: dict[int, _Scan] = {}
        self._cruising: _Cruise | None = None
        self._scanning: _Scan | None = None
        self._idle_since = 0.0
        self.home = HomePosition(enabled=False, reset_time=60, preset_index=1)
        self.switches: set[int] = set()

    # What it is told

    def obey(self, command: PtzCommand, now: float, name: str = "") -> None:
        """Do what a frame says; one that means nothing here is passed over. name: of a preset or cruise (3.0)."""
        instruction, group, number = command.instruction, command.data1, command.data2
        self._idle_since = now
        if instruction < ptz.LENS:
            self._steer(command, now)
        elif instruction == ptz.SET_PRESET and number:
            self._presets[number] = (name or f"preset {number}", self.view(now))
        elif instruction == ptz.CALL_PRESET and number in self._presets:
            self._jump(self._presets[number][1], now)
        elif instruction == ptz.DELETE_PRESET:
            self._presets.pop(number, None)
        elif instruction == ptz.ADD_POINT:
            cruise = self._cruises.setdefault(group, _Cruise())
            cruise.presets.append(number)
            cruise.name = name or cruise.name
        elif instruction == ptz.DELETE_POINT and group in self._cruises:
            if number == 0:
                del self._cruises[group]
            else:
                points = self._cruises[group].presets
                self._cruises[group].presets = [each for each in points if each != number]
        elif instruction == ptz.CRUISE_SPEED and group in self._cruises:
            self._cruises[group].speed = command.value
        elif instruction == ptz.CRUISE_SECONDS and group in self._cruises:
            self._cruises[group].seconds = command.value
        elif instruction == ptz.START_CRUISE and group in self._cruises:
            self._jump(self.view(now), now)
            self._cruising = self._cruises[group]
        elif instruction == ptz.SCAN:
            self._scan(self._scans.setdefault(group, _Scan()), number, now)
        elif instruction == ptz.SCAN_SPEED:
            self._scans.setdefault(group, _Scan()).speed = command.value
        elif instruction == ptz.SWITCH_ON:
            self.switches.add(group)
        elif instruction == ptz.SWITCH_OFF:
            self.switches.discard(group)

    def look(self, view: View, now: float) -> None:
        """Turn to an exact position; what it cannot reach is cut (reference 3.8)."""
        self._idle_since = now
        self._jump(_within(view), now)

    def drag(self, across: float, down: float, closer: float, now: float) -> None:
        """Centre what lies `across` and `down` of the middle, in pictures, and multiply the zoom."""
        seen = self.view(now)
        pan = seen.pan + across * seen.width
        tilt = seen.tilt + down * seen.height
        self.look(View(pan % 360, tilt, seen.zoom * closer), now)

    def _steer(self, command: PtzCommand, now: float) -> None:
        self._jump(self.view(now), now)
        bits = command.instruction
        self._move = (
            _sign(bits, ptz.RIGHT, ptz.LEFT) * command.data1 / 255 * PAN_SPEED,
            _sign(bits, ptz.DOWN, ptz.UP) * command.data2 / 255 * TILT_SPEED,
            _sign(bits, ptz.ZOOM_IN, ptz.ZOOM_OUT) * command.data3 / 15 * ZOOM_SPEED,
        )

    def _scan(self, scan: _Scan, what: int, now: float) -> None:
        seen = self.view(now)
        if what == 1:
            scan.left = seen.pan
        elif what == 2:
            scan.right = seen.pan
        else:
            self._jump(seen, now)
            self._scanning = scan

    def _jump(self, view: View, now: float) -> None:
        self._from, self._since, self._move = view, now, (0.0, 0.0, 0.0)
        self._cruising = self._scanning = None

    # Where it looks

    def view(self, now: float) -> View:
        """Return where the camera looks."""
        spent = max(0.0, now - self._since)
        if self._cruising is not None:
            points = [self._presets[each][1] for each in self._cruising.presets if each in self._presets]
            return points[int(spent / max(1, self._cruising.seconds)) % len(points)] if points else self._from
        if self._scanning is not None:
            return self._swing(self._scanning, spent)
        moved = View(
            (self._from.pan + self._move[0] * spent) % 360,
            self._from.tilt + self._move[1] * spent,
            self._from.zoom * 2 ** max(-60.0, min(60.0, self._move[2] * spent)),
        )
        home = self.home
        idle = now - max(self._idle_since, self._since)
        if home.enabled and not any(self._move) and idle >= (home.reset_time or 0):
            kept = self._presets.get(home.preset_index or 0)
            return kept[1] if kept is not None else moved
        return _within(moved)

    def _swing(self, scan: _Scan, spent: float) -> View:
        """To and fro between the ends, first to the left."""
        span = (scan.right - scan.left) % 360 or 360.0
        way = spent * scan.speed / 4_095 * PAN_SPEED + span / 2
        at = way % (2 * span)
        return View((scan.right - (at if at <= span else 2 * span - at)) % 360, self._from.tilt, self._from.zoom)

    # What it tells

    def presets(self) -> tuple[Preset, ...]:
        return tuple(Preset(number, name) for number, (name, _) in sorted(self._presets.items()))

    def cruises(self) -> tuple[CruiseTrack, ...]:
        return tuple(CruiseTrack(number, each.name) for number, each in sorted(self._cruises.items()))

    def cruise(self, number: int) -> CruiseTrackPoints:
        cruise = self._cruises.get(number, _Cruise())
        speed = max(1, min(15, round(cruise.speed * 15 / 4_095)))
        points = tuple(CruisePoint(each, cruise.seconds, speed) for each in cruise.presets)
        return CruiseTrackPoints(number, cruise.name, points)

    def position(self, now: float) -> PtzPosition:
        seen = self.view(now)
        return PtzPosition(round(seen.pan, 2), round(seen.tilt, 2), round(seen.zoom, 2), seen.width, seen.height, 100.0)


def _sign(bits: int, plus: int, minus: int) -> int:
    return (1 if bits & plus else 0) - (1 if bits & minus else 0)


def _within(view: View) -> View:
    zoom = min(max(view.zoom, ZOOM[0]), ZOOM[1])
    return View(view.pan % 360, min(max(view.tilt, TILT[0]), TILT[1]), zoom if math.isfinite(zoom) else 1.0)
