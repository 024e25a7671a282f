"""What devices answer to the smaller queries, as records (GB/T 28181-2022 A.2.6; reference 3.5, 3.11 and 3.15).

`gb/schema.py` reads and writes them; each names the CmdType it belongs to.
"""

from dataclasses import dataclass
from typing import Final

from gbgw.gb import schema
from gbgw.gb.schema import named
from gbgw.gb.xml import Element


@dataclass(frozen=True, slots=True)
class Preset:
    id: int | None = named("PresetID")
    name: str = named("PresetName", default="")


@dataclass(frozen=True, slots=True)
class Presets:
    """PresetQuery."""

    presets: tuple[Preset, ...] = named("Item", default=(), listed_in="PresetList", count="SumNum")


@dataclass(frozen=True, slots=True)
class HomePosition:
    """Where the camera returns to when nobody turns it."""

    enabled: bool | None = None
    reset_time: int | None = None  # seconds
    preset_index: int | None = None  # 0 to 255


@dataclass(frozen=True, slots=True)
class HomePositionAnswer:
    """HomePositionQuery."""

    home_position: HomePosition | None = None


@dataclass(frozen=True, slots=True)
class CruiseTrack:
    number: int | None = None  # 0 first
    name: str = ""


@dataclass(frozen=True, slots=True)
class CruiseTracks:
    """CruiseTrackListQuery."""

    tracks: tuple[CruiseTrack, ...] = named("CruiseTrack", default=(), listed_in="CruiseTrackList", count="SumNum")


@dataclass(frozen=True, slots=True)
class CruisePoint:
    preset_index: int | None = None
    stay_time: int | None = None  # seconds
    speed: int | None = None  # 1 to 15


@dataclass(frozen=True, slots=True)
class CruiseTrackPoints:
    """CruiseTrackQuery."""

    number: int | None = None
    name: str = ""
    points: tuple[CruisePoint, ...] = named("CruisePoint", default=(), listed_in="CruisePointList", count="SumNum")


@dataclass(frozen=True, slots=True)
class PtzPosition:
    """PTZPosition. Angles in degrees: pan clockwise seen from above, tilt downwards; zoom: magnification."""

    pan: float | None = None
    tilt: float | None = None
    zoom: float | None = None
    horizontal_field_angle: float | None = None
    vertical_field_angle: float | None = None
    max_view_distance: float | None = None  # metres


@dataclass(frozen=True, slots=True)
class SdCard:
    id: int | None = named("ID")
    name: str = named("HddName", default="")
    status: str = ""  # ok, formatting, unformatted, idle or error
    format_progress: int | None = None  # percent
    capacity: int | None = None  # MB
    free_space: int | None = None  # MB


@dataclass(frozen=True, slots=True)
class SdCards:
    """SDCardStatus."""

    cards: tuple[SdCard, ...] = named("Item", default=(), listed_in="SDCardStatusInfo", most=8, count="SumNum")


@dataclass(frozen=True, slots=True)
class AlarmDuty:
    device_id: str = named("DeviceID", default="")
    duty_status: str = ""  # ONDUTY, OFFDUTY or ALARM


@dataclass(frozen=True, slots=True)
class DutyList:
    """The alarm inputs of a DeviceStatus answer."""

    inputs: tuple[AlarmDuty, ...] = named("Item", default=(), listed_in="Alarmstatus")


@dataclass(frozen=True, slots=True)
class SnapshotsDone:
    """Notify UploadSnapShotFinished: the device sent what it could; fewer files than asked for is partial failure."""

    session_id: str = named("SessionID", default="")
    files: tuple[str, ...] = named("SnapShotFileID", default=(), listed_in="SnapShotList", most=10)


@dataclass(frozen=True, slots=True)
class UpgradeResult:
    """Notify DeviceUpgradeResult. reason: 01 download timed out, 02 package damaged, 03 system fault, 99 other."""

    session_id: str = named("SessionID", default="")
    result: str = named("UpgradeResult", default="")
    firmware: str = ""
    reason: str = named("UpgradeFailedReason", default="")


WRAPPERS: Final[dict[type, str]] = {PtzPosition: "PTZPosInfo"}  # an element that some put around a record's fields


def read(record: type[schema.R], element: Element) -> schema.R:
    """Read the answer `element` (its root) as `record`."""
    wrapper = WRAPPERS.get(record)
    inside = element.find(wrapper) if wrapper is not None else None
    return schema.read(record, inside if inside is not None else element)
