"""MANSCDP bodies as values: what devices report, and the commands and queries a platform sends (GB/T 28181-2022 Annex
A; -2016 Annex A).

`parse` reads a body into a Document with a typed payload; the writers make bodies with the fields in the order of the
schema (CmdType, SN, DeviceID first), CRLF line ends and the charset of the peer's edition. Reading is tolerant
(`gb/xml.py`); element names and CmdType compare without case. Leaves out what later commands need (RecordInfo, Alarm,
MobilePosition ...): those arrive as Unknown with their element.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gbgw.base import limits
from gbgw.base.errors import ManscdpError
from gbgw.gb import ids, xml
from gbgw.gb.xml import Element

CONTENT_TYPE: Final = "Application/MANSCDP+xml"

Edition = Literal["1.0", "1.1", "2.0", "3.0"]
EDITIONS: Final[tuple[Edition, ...]] = ("1.0", "1.1", "2.0", "3.0")
DEFAULT_EDITION: Final[Edition] = "2.0"  # of a peer that sends no X-GB-Ver

Root = Literal["Control", "Query", "Notify", "Response"]
_ROOTS: Final[dict[str, Root]] = {"control": "Control", "query": "Query", "notify": "Notify", "response": "Response"}

# CmdType as the standard spells it, by lower case; and the other spellings that were seen (reference 3.9).
_COMMANDS: Final = {
    name.lower(): name
    for name in (
        "Alarm", "Broadcast", "Catalog", "ConfigDownload", "CruiseTrackListQuery", "CruiseTrackQuery",
        "DeviceConfig", "DeviceControl", "DeviceInfo", "DeviceStatus", "DeviceUpgradeResult",
        "HomePositionQuery", "Keepalive", "MediaStatus", "MobilePosition", "PTZPosition", "PresetQuery",
        "RecordInfo", "SDCardStatus", "UploadSnapShotFinished", "VideoUploadNotify",
    )
}  # fmt: skip
_COMMANDS.update(
    persetquery="PresetQuery",
    storagecardstatus="SDCardStatus",
    storagecardstatusquery="SDCardStatus",
    ptzpreciseposition="PTZPosition",
    ptzprecisestatusquery="PTZPosition",
)
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,18}")
_ID_CHARACTERS: Final = 64  # an id is at most 32; longer text is not kept

HISTORY_FINISHED: Final = "121"  # NotifyType of MediaStatus: the end of a history file


@dataclass(frozen=True, slots=True)
class Keepalive:
    """The sender lives; `faulty` are sub-devices that do not work."""

    ok: bool
    faulty: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CatalogItem:
    """One line of a directory. Text fields are "" and numbers None when absent."""

    device_id: str
    name: str = ""
    manufacturer: str = ""
    model: str = ""
    owner: str = ""
    civil_code: str = ""
    block: str = ""
    address: str = ""
    parental: bool = False
    parent_ids: tuple[str, ...] = ()
    business_group_id: str = ""
    register_way: int | None = None
    secrecy: bool = False
    online: bool = True  # an empty Status counts as ON: the device that tells us is there
    longitude: float | None = None  # degrees
    latitude: float | None = None  # degrees
    ptz_type: int | None = None
    stream_numbers: tuple[int, ...] = ()
    event: str = ""  # ON, OFF, ADD, DEL, UPDATE, VLOST or DEFECT in a NOTIFY

    @property
    def is_channel(self) -> bool:
        return ids.is_channel(self.device_id)


@dataclass(frozen=True, slots=True)
class CatalogPart:
    """One message of a directory; all parts of an answer carry the same SN.

    total: SumNum, the items of all parts; None when absent or not a number. skipped: items without a usable id.
    """

    items: tuple[CatalogItem, ...]
    total: int | None = None
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    ok: bool
    name: str = ""
    manufacturer: str = ""
    model: str = ""
    firmware: str = ""
    channels: int | None = None


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    ok: bool
    online: bool
    working: bool
    reason: str = ""
    encoding: bool | None = None
    recording: bool | None = None
    device_time: str = ""  # local time as sent


@dataclass(frozen=True, slots=True)
class MediaStatus:
    notify_type: str  # "121": the history file has ended

    @property
    def finished(self) -> bool:
        return self.notify_type == HISTORY_FINISHED


@dataclass(frozen=True, slots=True)
class DeviceControl:
    """A command to a device: exactly one sub-command.

    command: IFrameCmd, PTZCmd, TeleBoot ...; "" when there is none. value: its text.
    """

    command: str
    value: str


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to a command."""

    ok: bool


@dataclass(frozen=True, slots=True)
class Query:
    """A question to a device; its fields beyond CmdType, SN and DeviceID are in the element."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A document that this program does not read further."""


Payload = Keepalive | CatalogPart | DeviceInfo | DeviceStatus | MediaStatus | DeviceControl | Result | Query | Unknown


@dataclass(frozen=True, slots=True)
class Document:
    """One MANSCDP message.

    cmd_type: as the standard spells it where known. sn: None when absent or not a number. device_id: the top-level
    DeviceID, "" when absent.
    """

    root: Root
    cmd_type: str
    sn: int | None
    device_id: str
    payload: Payload
    element: Element


def parse(body: bytes) -> Document:
    """Read a body. Raises ManscdpError with the reason; nothing else, whatever the bytes."""
    element = xml.parse(body)
    root = _ROOTS.get(element.key)
    if root is None:
        raise ManscdpError(f"the root element is {element.name[:40]}, not Control, Query, Notify or Response")
    spelt = element.get("CmdType")
    if not spelt:
        raise ManscdpError("the document has no CmdType")
    cmd_type = _COMMANDS.get(spelt.lower(), spelt[:_ID_CHARACTERS])
    if root == "Query" and spelt.lower() == "homeposition":
        cmd_type = "HomePositionQuery"
    device_id = _id(element.get("DeviceID"))
    return Document(root, cmd_type, _number(element.get("SN")), device_id, _payload(root, cmd_type, element), element)


def _payload(root: Root, cmd_type: str, element: Element) -> Payload:
    match root, cmd_type:
        case "Notify", "Keepalive":
            return _keepalive(element)
        case (("Response" | "Notify"), "Catalog"):
            return _catalog(element)
        case "Notify", "MediaStatus":
            return MediaStatus(element.get("NotifyType"))
        case "Response", "DeviceInfo":
            return _device_info(element)
        case "Response", "DeviceStatus":
            return _device_status(element)
        case "Control", "DeviceControl":
            return _device_control(element)
        case "Response", ("DeviceControl" | "DeviceConfig" | "Alarm" | "Broadcast"):
            return Result(_is_ok(element.get("Result")))
        case "Query", _:
            return Query()
        case _:
            return Unknown()


def _keepalive(element: Element) -> Keepalive:
    faulty = [_id(child.text) for info in element.find_all("Info") for child in info.find_all("DeviceID")]
    return Keepalive(_is_ok(element.get("Status") or "OK"), tuple(filter(None, faulty)))


def _catalog(element: Element) -> CatalogPart:
    listing = element.find("DeviceList")
    elements = list(listing.find_all("Item")) if listing is not None else []
    if len(elements) > limits.CATALOG_ITEMS:
        raise ManscdpError(f"one catalog message has more than {limits.CATALOG_ITEMS} items", code="manscdp_too_large")
    items = tuple(item for item in map(_catalog_item, elements) if item is not None)
    total = _number(element.get("SumNum"))
    return CatalogPart(items, total if total is None or total >= 0 else None, len(elements) - len(items))


def _catalog_item(element: Element) -> CatalogItem | None:
    device_id = element.get("DeviceID")
    if not ids.is_opaque_id(device_id):
        return None
    info = element.find("Info") or Element("Info", "")
    parents = [part.strip() for part in element.get("ParentID")[: 64 * limits.CATALOG_PARENTS].split("/")]
    known = tuple(dict.fromkeys(part for part in parents if ids.is_opaque_id(part)))
    return CatalogItem(
        device_id=device_id,
        name=element.get("Name"),
        manufacturer=element.get("Manufacturer"),
        model=element.get("Model"),
        owner=element.get("Owner"),
        civil_code=element.get("CivilCode"),
        block=element.get("Block"),
        address=element.get("Address"),
        parental=element.get("Parental") == "1",  # Hikvision sends 65535 for "unknown"
        parent_ids=known[: limits.CATALOG_PARENTS],
        business_group_id=element.get("BusinessGroupID") or info.get("BusinessGroupID"),
        register_way=_number(element.get("RegisterWay")),
        secrecy=element.get("Secrecy") == "1",
        online=_is_on(element.get("Status"), default=True),
        longitude=_degrees(element.get("Longitude"), 180.0),
        latitude=_degrees(element.get("Latitude"), 90.0),
        ptz_type=_number(info.get("PTZType") or element.get("PTZType")),
        stream_numbers=tuple(
            int(part) for part in info.get("StreamNumberList")[:64].split("/") if re.fullmatch(r"[0-9]{1,2}", part)
        ),
        event=element.get("Event").upper()[:16],
    )


def _device_info(element: Element) -> DeviceInfo:
    channels = _number(element.get("Channel") or element.get("MaxCamera"))
    return DeviceInfo(
        ok=_is_ok(element.get("Result") or "OK"),
        name=element.get("DeviceName"),
        manufacturer=element.get("Manufacturer"),
        model=element.get("Model"),
        firmware=element.get("Firmware"),
        channels=channels if channels is not None and channels >= 0 else None,
    )


def _device_status(element: Element) -> DeviceStatus:
    def switch(name: str) -> bool | None:
        text = element.get(name)
        return _is_on(text, default=False) if text else None

    return DeviceStatus(
        ok=_is_ok(element.get("Result") or "OK"),
        online=_is_on(element.get("Online"), default=True),
        working=_is_ok(element.get("Status") or "OK"),
        reason=element.get("Reason"),
        encoding=switch("Encode"),
        recording=switch("Record"),
        device_time=element.get("DeviceTime")[:64],
    )


def _device_control(element: Element) -> DeviceControl:
    for child in element.children:
        if child.key not in ("cmdtype", "sn", "deviceid", "info"):
            return DeviceControl("IFrameCmd" if child.key == "iframecmd" else child.name[:_ID_CHARACTERS], child.text)
    return DeviceControl("", "")


def _id(text: str) -> str:
    return text if len(text) <= _ID_CHARACTERS else ""


def _number(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) else None


def _degrees(text: str, bound: float) -> float | None:
    try:
        value = float(text[:32])
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) <= bound else None


def _is_ok(text: str) -> bool:
    return text.upper() in ("OK", "ON", "ONLINE", "SUCCESS", "1", "TRUE")


def _is_on(text: str, *, default: bool) -> bool:
    """Read ON, OFF and what devices send instead: ONLINE, OFFLINE, OFFILE, OK, 1, 0."""
    upper = text.upper()
    if not upper:
        return default
    return not (upper.startswith(("OFF", "ERR", "DEFECT", "VLOST", "FALSE")) or upper == "0")


def edition_of(header: str | None) -> Edition:
    """Return the edition an X-GB-Ver header names; DEFAULT_EDITION when absent or unreadable, the nearest lower one
    when unknown."""
    match = re.fullmatch(r"\s*([0-9]{1,2})(?:\.([0-9]{1,2}))?.{0,32}", header or "", re.DOTALL)
    if match is None:
        return DEFAULT_EDITION
    version = (int(match[1]), int(match[2] or 0))
    known = [edition for edition in EDITIONS if tuple(map(int, edition.split("."))) <= version]
    return known[-1] if known else EDITIONS[0]


# Writers

Field = tuple[str, "str | int | float | Sequence[Field]"]


def write(root: Root, fields: Iterable[Field], edition: Edition = DEFAULT_EDITION) -> bytes:
    """Return a document of `fields` in their order.

    Text is sent in GB2312, a question mark for what it lacks, to peers before 3.0, and in GB 18030 from 3.0 on.
    """
    charset = "GB18030" if edition == "3.0" else "GB2312"
    lines = [f'<?xml version="1.0" encoding="{charset}"?>', f"<{root}>", *_lines(fields), f"</{root}>", ""]
    return "\r\n".join(lines).encode(charset, "replace")


def _lines(fields: Iterable[Field]) -> Iterator[str]:
    for name, value in fields:
        if isinstance(value, (str, int, float)):
            yield f"<{name}>{xml.escape(str(value))}</{name}>"
        else:
            yield f"<{name}>"
            yield from _lines(value)
            yield f"</{name.partition(' ')[0]}>"


def _head(cmd_type: str, sn: int, device_id: str) -> list[Field]:
    return [("CmdType", cmd_type), ("SN", sn), ("DeviceID", device_id)]


def query(
    cmd_type: str, sn: int, device_id: str, edition: Edition = DEFAULT_EDITION, fields: Iterable[Field] = ()
) -> bytes:
    """Return a Query; `fields` follow DeviceID."""
    return write("Query", [*_head(cmd_type, sn, device_id), *fields], edition)


def control(command: str, value: str, sn: int, device_id: str, edition: Edition = DEFAULT_EDITION) -> bytes:
    """Return a DeviceControl with one sub-command."""
    return write("Control", [*_head("DeviceControl", sn, device_id), (command, value)], edition)


def iframe(sn: int, channel_id: str, edition: Edition = DEFAULT_EDITION) -> bytes:
    """Return the command to send a key frame now: IFameCmd before 3.0 (so spelt in the 2016 edition), IFrameCmd from
    3.0 on."""
    return control("IFrameCmd" if edition == "3.0" else "IFameCmd", "Send", sn, channel_id, edition)


def keepalive(
    sn: int, device_id: str, *, ok: bool = True, faulty: Iterable[str] = (), edition: Edition = DEFAULT_EDITION
) -> bytes:
    """Return a device's sign of life."""
    fields: list[Field] = [*_head("Keepalive", sn, device_id), ("Status", "OK" if ok else "ERROR")]
    broken: list[Field] = [("DeviceID", each) for each in faulty]
    if broken:
        fields.append(("Info", broken))
    return write("Notify", fields, edition)


def media_status(sn: int, device_id: str, edition: Edition = DEFAULT_EDITION) -> bytes:
    """Return the notice that a history file was sent to its end."""
    return write("Notify", [*_head("MediaStatus", sn, device_id), ("NotifyType", HISTORY_FINISHED)], edition)


def catalog_part(
    sn: int, device_id: str, total: int, items: Sequence[CatalogItem], edition: Edition = DEFAULT_EDITION
) -> bytes:
    """Return one message of a directory of `total` items; an empty directory has no list."""
    fields: list[Field] = [*_head("Catalog", sn, device_id), ("SumNum", total)]
    if items:
        fields.append((f'DeviceList Num="{len(items)}"', [("Item", _item_fields(item, edition)) for item in items]))
    return write("Response", fields, edition)


def catalog_response(
    sn: int, device_id: str, items: Sequence[CatalogItem], *, per_part: int = 1, edition: Edition = DEFAULT_EDITION
) -> Iterator[bytes]:
    """Yield the messages that carry `items`, `per_part` in each; at least one."""
    for start in range(0, max(len(items), 1), per_part):
        yield catalog_part(sn, device_id, len(items), items[start : start + per_part], edition)


def _item_fields(item: CatalogItem, edition: Edition) -> list[Field]:
    fields: list[Field] = [("DeviceID", item.device_id), ("Name", item.name)]
    if not ids.is_region(item.device_id):
        fields += [("Manufacturer", item.manufacturer), ("Model", item.model)]
        if edition != "3.0":
            fields.append(("Owner", item.owner))
        fields.append(("CivilCode", item.civil_code))
        if item.block:
            fields.append(("Block", item.block))
        fields += [("Address", item.address), ("Parental", int(item.parental))]
        if item.parent_ids:
            fields.append(("ParentID", "/".join(item.parent_ids)))
        if edition != "3.0":
            fields.append(("SafetyWay", 0))
        fields += [
            ("RegisterWay", item.register_way or 1),
            ("Secrecy", int(item.secrecy)),
            ("Status", "ON" if item.online else "OFF"),
        ]
        if item.longitude is not None and item.latitude is not None:
            fields += [("Longitude", item.longitude), ("Latitude", item.latitude)]
        if item.business_group_id:
            fields.append(("BusinessGroupID", item.business_group_id))
        info: list[Field] = []
        if item.ptz_type is not None:
            info.append(("PTZType", item.ptz_type))
        if item.stream_numbers and edition == "3.0":
            info.append(("StreamNumberList", "/".join(map(str, item.stream_numbers))))
        if info:
            fields.append(("Info", info))
    if item.event:
        fields.append(("Event", item.event))
    return fields


def device_info(sn: int, device_id: str, info: DeviceInfo, edition: Edition = DEFAULT_EDITION) -> bytes:
    """Return a device's answer about itself."""
    fields: list[Field] = [
        *_head("DeviceInfo", sn, device_id),
        ("DeviceName", info.name),
        ("Result", "OK" if info.ok else "ERROR"),
        ("Manufacturer", info.manufacturer),
        ("Model", info.model),
        ("Firmware", info.firmware),
    ]
    if info.channels is not None:
        fields.append(("Channel", info.channels))
    return write("Response", fields, edition)


def device_status(
    sn: int, device_id: str, status: DeviceStatus, edition: Edition = DEFAULT_EDITION, more: Iterable[Field] = ()
) -> bytes:
    """Return a device's answer about its state. more: the alarm inputs, which come last."""
    fields: list[Field] = [
        *_head("DeviceStatus", sn, device_id),
        ("Result", "OK" if status.ok else "ERROR"),
        ("Online", "ONLINE" if status.online else "OFFLINE"),
        ("Status", "OK" if status.working else "ERROR"),
    ]
    if status.reason:
        fields.append(("Reason", status.reason))
    for name, value in (("Encode", status.encoding), ("Record", status.recording)):
        if value is not None:
            fields.append((name, "ON" if value else "OFF"))
    if status.device_time:
        fields.append(("DeviceTime", status.device_time))
    return write("Response", [*fields, *more], edition)


def result(cmd_type: str, sn: int, device_id: str, *, ok: bool = True, edition: Edition = DEFAULT_EDITION) -> bytes:
    """Return the answer to a command that wants one."""
    return write("Response", [*_head(cmd_type, sn, device_id), ("Result", "OK" if ok else "ERROR")], edition)
