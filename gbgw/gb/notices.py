"""What devices tell of their own accord: alarms and positions (GB/T 28181-2016 and -2022 A.2.5; reference 3.7, 3.12).

Both editions' forms are read: methods of an alarm joined by `/` or just written together, a position flat or as a list.
A position without two readable degrees is none.
"""

from dataclasses import dataclass
from typing import Final

from gbgw.base import limits
from gbgw.gb import schema
from gbgw.gb.manscdp import Document, Edition
from gbgw.gb.schema import named
from gbgw.gb.xml import Element

METHODS: Final = range(1, 8)  # phone, device, SMS, GPS, video, device fault, other; 0 is for all, in filters


@dataclass(frozen=True, slots=True)
class Alarm:
    """device_id: who alarms: a device, a channel, an alarm input. priority: 1 is the most severe, 4 the least."""

    device_id: str
    priority: int | None
    methods: tuple[int, ...]
    kind: int | None  # AlarmType, whose meaning depends on the method
    time: str  # local time, as sent
    description: str
    longitude: float | None = None  # degrees
    latitude: float | None = None


@dataclass(frozen=True, slots=True)
class Position:
    device_id: str
    time: str  # local time, as sent
    longitude: float  # degrees
    latitude: float
    speed: float | None = None  # km/h
    direction: float | None = None  # degrees clockwise from north
    altitude: float | None = None  # metres


@dataclass(frozen=True, slots=True)
class _Alarm:
    """The elements of an alarm; AlarmType stands in Info, and with some beside it."""

    alarm_priority: int | None = None
    alarm_method: str = ""
    alarm_type: int | None = None
    alarm_time: str = ""
    alarm_description: str = ""
    longitude: float | None = None
    latitude: float | None = None


@dataclass(frozen=True, slots=True)
class _Sample:
    device_id: str = named("DeviceID", default="")
    capture_time: str = ""
    time: str = ""
    longitude: float | None = None
    latitude: float | None = None
    speed: float | None = None
    direction: float | None = None
    altitude: float | None = None


@dataclass(frozen=True, slots=True)
class _Samples:
    items: tuple[_Sample, ...] = named("Item", default=(), listed_in="DeviceList", most=limits.POSITIONS)


def methods(text: str) -> tuple[int, ...]:
    """Read AlarmMethod: `2`, `12` (2.0), `1/2` (3.0); each method once, in order. What is none is left out."""
    return tuple(sorted({int(digit) for digit in text[:64] if digit.isascii() and digit.isdigit()} & set(METHODS)))


def methods_text(wanted: tuple[int, ...], edition: Edition) -> str:
    """Return AlarmMethod as a peer of `edition` wants it; 0 for all."""
    return ("/" if edition == "3.0" else "").join(map(str, wanted)) or "0"


def alarm(document: Document, sender: str) -> Alarm:
    """Read a Notify Alarm of `sender`."""
    found = schema.read(_Alarm, document.element)
    info = schema.read(_Alarm, document.element.find("Info") or Element("Info", ""))
    return Alarm(
        document.device_id or sender,
        found.alarm_priority,
        methods(found.alarm_method),
        info.alarm_type if info.alarm_type is not None else found.alarm_type,
        found.alarm_time[:64],
        found.alarm_description,
        found.longitude,
        found.latitude,
    )


def positions(document: Document, sender: str) -> tuple[Position, ...]:
    """Read a Notify MobilePosition of `sender`, flat or as a list."""
    element = document.element
    samples = schema.read(_Samples, element).items or (schema.read(_Sample, element),)
    time = element.get("Time")[:64]
    return tuple(
        Position(
            sample.device_id[:64] or document.device_id or sender,
            sample.capture_time[:64] or sample.time[:64] or time,
            sample.longitude,
            sample.latitude,
            sample.speed,
            sample.direction,
            sample.altitude,
        )
        for sample in samples
        if sample.longitude is not None
        and sample.latitude is not None
        and abs(sample.longitude) <= 180
        and abs(sample.latitude) <= 90
    )
