"""What every operation of the API shares: input and page types, and how a device or channel of a path is found."""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from gbgw.base.errors import RequestError
from gbgw.serve.openapi import Call, Query
from gbgw.serve.source import Channel, Device

T = TypeVar("T")
Name = Annotated[str, Field(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]
Password = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\x21-\x7e]+$")]
GONE: Final = (404,)  # statuses of an operation on something that may not exist
CAMERA: Final = (404, 409, 503, 504)  # and of one that a camera has to do


class Input(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(BaseModel, Generic[T]):
    items: list[T]
    next: str | None = Field(None, description="give it as ?after= for the next page; null: this is the last")


def page_of(call: Call, items: Sequence[T], identity: Any) -> Page[T]:
    """The page after `call.after`; `items` are ordered by identity, so a page survives insertions and deletions."""
    rest = [item for item in items if identity(item) > call.after] if call.after else list(items)
    shown = rest[: call.limit]
    return Page[Any](items=shown, next=identity(shown[-1]) if len(rest) > len(shown) else None)


def device_of(call: Call) -> Device:
    device = call.serving.control.device(call.path["id"])
    if device is None:
        raise RequestError(
            "There is no such device.", status=404, code="unknown_device", remedy="/api/v1/devices lists them."
        )
    return device


def channel_of(call: Call) -> Channel:
    channel = call.serving.control.channel(device_of(call).id, call.path["cid"])
    if channel is None:
        raise unknown_channel(None)
    return channel


def unknown_channel(key: str | None) -> RequestError:
    return RequestError(
        "There is no such channel.",
        status=404,
        code="unknown_channel",
        remedy="/api/v1/devices/ID/channels lists them.",
        stream=key,
    )


FORCE: Final = Query("force", "boolean", "1: send it even if the device's edition of the standard has no such command")


def forced(call: Call) -> bool:
    return call.request.query.get("force", "").lower() in ("1", "true", "yes")


def number_of(call: Call, name: str, allowed: range) -> int:
    """The number in the path. Raises RequestError 404 `out_of_range`."""
    text = call.path[name]
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) in allowed):
        raise RequestError(
            f"{text[:20]} is not {allowed.start} to {allowed.stop - 1}.", status=404, code="out_of_range"
        )
    return int(text)
