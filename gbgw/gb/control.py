"""Device commands: DeviceControl and DeviceConfig (GB/T 28181-2016 A.2.3 and -2022 A.2.3; reference 3.8 and 3.10), one
sub-command a message; and how often a camera may be asked for a key frame."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gbgw.gb import manscdp, parameters, schema
from gbgw.gb.answers import HomePosition
from gbgw.gb.manscdp import Edition, Field
from gbgw.gb.parameters import Group
from gbgw.gb.ptz import PtzCommand

CONTROL_PRIORITY: Final = 5  # customary


class KeyFrameCommands:
    """Makes IFrame commands, at most one a channel in `seconds`: a camera may need that long to obey."""

    __slots__ = ("_seconds", "_sent")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._sent: dict[str, float] = {}  # stream key -> loop seconds, oldest first

    def ready(self, key: str, now: float) -> bool:
        """Tell whether the channel may be asked now, and if so count it as asked."""
        while self._sent:
            oldest = next(iter(self._sent))
            if now - self._sent[oldest] < self._seconds:
                break
            del self._sent[oldest]
        if key in self._sent:
            return False
        self._sent[key] = now
        return True

    def make(self, key: str, channel_id: str, sn: int, edition: Edition, now: float) -> bytes | None:
        """Return the MESSAGE body that asks `channel_id` for a key frame, or None when it was asked just now."""
        return manscdp.iframe(sn, channel_id, edition) if self.ready(key, now) else None


@dataclass(frozen=True, slots=True)
class Command:
    """One sub-command of DeviceControl; a message carries exactly one (reference 3.8).

    value: its text, or its children. more: what stands beside it. answered: the standard has a Response with Result to
    it, so that one is waited for; for all others the 200 is the answer. since: the first edition that has it.
    """

    name: str
    value: str | int | Sequence[Field]
    more: tuple[Field, ...] = ()
    answered: bool = False
    since: Edition = "2.0"

    def body(self, sn: int, target: str, edition: Edition) -> bytes:
        """Return the message to `target` (a device or a channel)."""
        fields: list[Field] = [("CmdType", "DeviceControl"), ("SN", sn), ("DeviceID", target)]
        return manscdp.write("Control", [*fields, (self.name, self.value), *self.more], edition)


def ptz(command: PtzCommand, *, priority: int = CONTROL_PRIORITY, params: Sequence[Field] = ()) -> Command:
    """A front-end control code. params: names of a preset or cruise (3.0)."""
    more: list[Field] = [("PTZCmdParams", list(params))] if params else []
    return Command("PTZCmd", command.serialize(), (*more, ("Info", [("ControlPriority", priority)])))


def teleboot() -> Command:
    return Command("TeleBoot", "Boot")


def record(*, on: bool, stream_number: int | None = None) -> Command:
    """Record on the device. stream_number: 3.0; None leaves it out."""
    more: tuple[Field, ...] = (("StreamNumber", stream_number),) if stream_number is not None else ()
    return Command("RecordCmd", "Record" if on else "StopRecord", more, answered=True)


def guard(*, on: bool) -> Command:
    return Command("GuardCmd", "SetGuard" if on else "ResetGuard", answered=True)


def reset_alarm(method: str = "", kind: str = "") -> Command:
    """method, kind: AlarmMethod and AlarmType of the alarms to reset; "" for all."""
    info: list[Field] = [(name, text) for name, text in (("AlarmMethod", method), ("AlarmType", kind)) if text]
    return Command("AlarmCmd", "ResetAlarm", (("Info", info),) if info else (), answered=True)


@dataclass(frozen=True, slots=True)
class Area:
    """A box in a picture: the window's size, the box's centre and size, in pixels from the top left."""

    length: int
    width: int
    mid_point_x: int
    mid_point_y: int
    length_x: int
    length_y: int

    def fields(self) -> list[Field]:
        return [
            ("Length", self.length),
            ("Width", self.width),
            ("MidPointX", self.mid_point_x),
            ("MidPointY", self.mid_point_y),
            ("LengthX", self.length_x),
            ("LengthY", self.length_y),
        ]


def drag_zoom(area: Area, *, closer: bool) -> Command:
    return Command("DragZoomIn" if closer else "DragZoomOut", area.fields())


def home_position(home: HomePosition) -> Command:
    return Command("HomePosition", schema.write(home), answered=True)


def ptz_precise(pan: float, tilt: float, zoom: float) -> Command:
    """pan: degrees clockwise seen from above, 0 to 360; tilt: degrees downwards, -30 to 90; zoom: above 1."""
    fields: list[Field] = [("Pan", f"{pan:.2f}"), ("Tilt", f"{tilt:.2f}"), ("Zoom", f"{zoom:.2f}")]
    return Command("PTZPreciseCtrl", fields, since="3.0")


def format_sd_card(number: int) -> Command:
    """number: from 1; 0 formats all."""
    return Command("FormatSDCard", number, since="3.0")


def target_track(mode: Literal["Auto", "Manual", "Stop"], panorama_id: str = "", area: Area | None = None) -> Command:
    """panorama_id: the channel whose picture `area` is in; an area belongs to Manual."""
    more: list[Field] = [("DeviceID2", panorama_id)] if panorama_id else []
    if area is not None:
        more.append(("TargetArea", area.fields()))
    return Command("TargetTrack", mode, tuple(more), since="3.0")


def upgrade(firmware: str, file_url: str, manufacturer: str, session_id: str) -> Command:
    fields: list[Field] = [
        ("Firmware", firmware),
        ("FileURL", file_url),
        ("Manufacturer", manufacturer),
        ("SessionID", session_id),
    ]
    return Command("DeviceUpgrade", fields, answered=True, since="3.0")


def configuration(sn: int, target: str, group: Group, value: object, edition: Edition) -> bytes:
    """Return the DeviceConfig message that sets one parameter group."""
    fields: list[Field] = [("CmdType", "DeviceConfig"), ("SN", sn), ("DeviceID", target)]
    return manscdp.write("Control", [*fields, parameters.write(group, value)], edition)
