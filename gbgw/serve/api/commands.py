"""What devices are told, and what they say of themselves: guard, alarms, recording, restart, SD cards, upgrade."""

from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field

from gbgw.base.errors import RequestError
from gbgw.gb import control, notices
from gbgw.gb.answers import SdCard, SdCards
from gbgw.gb.control import Command
from gbgw.serve.api.shapes import CAMERA, FORCE, GONE, Input, Page, channel_of, device_of, forced, number_of, page_of
from gbgw.serve.cameras import Status, UpgradeInfo
from gbgw.serve.openapi import Call, Query, Route

_DEVICE: Final = "/devices/{id}"
_CHANNEL: Final = "/devices/{id}/channels/{cid}"


class GuardInput(Input):
    armed: bool


class RecordInput(Input):
    """Recording on the device itself."""

    recording: bool
    stream_number: int | None = Field(None, ge=0, le=15, description="edition 3.0; 0 is the main stream")


class UpgradeInput(Input):
    firmware: str = Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")
    file_url: str = Field(min_length=1, max_length=1_024, pattern=r"^[!-~]+$", description="where the device gets it")
    manufacturer: str = Field("", max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")


def target_of(call: Call) -> tuple[str, str]:
    """The device, and the channel where the path names one."""
    if "cid" not in call.path:
        device = device_of(call)
        return device.id, device.id
    channel = channel_of(call)
    return channel.device_id, channel.id


async def _tell(call: Call, command: Command) -> None:
    await call.serving.cameras.command(*target_of(call), command, forced=forced(call))


async def set_guard(call: Call) -> None:
    await _tell(call, control.guard(on=call.body.armed))


async def set_channel_guard(call: Call) -> None:
    await set_guard(call)


async def reset_alarm(call: Call) -> None:
    query = call.request.query
    method, kind = query.get("method", ""), query.get("type", "")
    if any(len(text) > 16 or not set(text) <= set("0123456789/") for text in (method, kind)):
        raise RequestError("method and type are digits, joined by /.", code="bad_query")
    edition = call.serving.cameras.edition(device_of(call).id)
    wanted = notices.methods(method)
    await _tell(call, control.reset_alarm(notices.methods_text(wanted, edition) if wanted else "", kind))


async def reset_channel_alarm(call: Call) -> None:
    await reset_alarm(call)


async def reboot(call: Call) -> None:
    await _tell(call, control.teleboot())


async def set_record(call: Call) -> None:
    await _tell(call, control.record(on=call.body.recording, stream_number=call.body.stream_number))


async def get_status(call: Call) -> Any:
    return await call.serving.cameras.status(*target_of(call))


async def get_channel_status(call: Call) -> Any:
    return await get_status(call)


async def list_sd_cards(call: Call) -> Any:
    found = await call.serving.cameras.ask(*target_of(call), "SDCardStatus", SdCards, since="3.0", forced=forced(call))
    return page_of(call, found.cards, lambda card: f"{card.id if card.id is not None else 0:03}")


async def format_sd_card(call: Call) -> None:
    await _tell(call, control.format_sd_card(number_of(call, "n", range(9))))


async def order_upgrade(call: Call) -> Any:
    body: UpgradeInput = call.body
    call.detail = {"firmware": body.firmware, "file_url": _without_secret(body.file_url)}
    return await call.serving.cameras.upgrade(
        device_of(call).id, body.firmware, body.file_url, body.manufacturer, forced=forced(call)
    )


async def get_upgrade(call: Call) -> Any:
    return call.serving.cameras.upgrade_of(device_of(call).id)


def _without_secret(url: str) -> str:
    """Return a URL without the user, password and query that may be in it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


_ALARMS: Final = (
    Query("method", "string", "AlarmMethod to reset, such as 2 or 1/2; all by default"),
    Query("type", "string", "AlarmType to reset"),
)

ROUTES: Final[tuple[Route, ...]] = (
    Route("GET", f"{_DEVICE}/status", get_status, "What a device says of its state", "view", Status, errors=CAMERA),
    Route(
        "GET",
        f"{_CHANNEL}/status",
        get_channel_status,
        "What a device says of a channel's state",
        "view",
        Status,
        errors=CAMERA,
    ),
    Route(
        "PUT",
        f"{_DEVICE}/guard",
        set_guard,
        "Arm or disarm a device",
        "control",
        body=GuardInput,
        errors=CAMERA,
        audit="guard",
    ),
    Route(
        "PUT",
        f"{_CHANNEL}/guard",
        set_channel_guard,
        "Arm or disarm a channel",
        "control",
        body=GuardInput,
        errors=CAMERA,
        audit="guard",
    ),
    Route(
        "POST",
        f"{_DEVICE}/alarm-reset",
        reset_alarm,
        "Reset the alarms of a device",
        "control",
        query=_ALARMS,
        errors=CAMERA,
        audit="alarm-reset",
    ),
    Route(
        "POST",
        f"{_CHANNEL}/alarm-reset",
        reset_channel_alarm,
        "Reset the alarms of a channel",
        "control",
        query=_ALARMS,
        errors=CAMERA,
        audit="alarm-reset",
    ),
    Route(
        "POST",
        f"{_DEVICE}/reboot",
        reboot,
        "Restart a device",
        "control",
        idempotent=False,
        errors=CAMERA,
        audit="reboot",
    ),
    Route(
        "PUT",
        f"{_CHANNEL}/record",
        set_record,
        "Start or stop recording on the device",
        "control",
        body=RecordInput,
        errors=CAMERA,
        audit="record",
    ),
    Route(
        "GET",
        f"{_CHANNEL}/sd-cards",
        list_sd_cards,
        "SD cards of a camera (3.0)",
        "view",
        Page[SdCard],
        paged=True,
        query=(FORCE,),
        errors=CAMERA,
    ),
    Route(
        "POST",
        f"{_CHANNEL}/sd-cards/{{n}}/format",
        format_sd_card,
        "Format an SD card (3.0); 0 formats all",
        "admin",
        idempotent=False,
        query=(FORCE,),
        errors=CAMERA,
        audit="sd-card.format",
    ),
    Route(
        "POST",
        f"{_DEVICE}/upgrade",
        order_upgrade,
        "Upgrade a device's firmware (3.0)",
        "admin",
        UpgradeInfo,
        UpgradeInput,
        idempotent=False,
        query=(FORCE,),
        errors=CAMERA,
        audit="upgrade",
    ),
    Route("GET", f"{_DEVICE}/upgrade", get_upgrade, "The last upgrade of a device", "view", UpgradeInfo, errors=GONE),
)
