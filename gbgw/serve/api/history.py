"""What devices have recorded: the list of a channel."""

from typing import Any, Final

from pydantic import BaseModel, Field

from gbgw.base.errors import RequestError
from gbgw.serve.api.shapes import CAMERA, channel_of
from gbgw.serve.history import Recording, RecordType
from gbgw.serve.openapi import Call, Query, Route
from gbgw.serve.spans import read_time

_TYPES: Final[tuple[RecordType, ...]] = ("time", "alarm", "manual", "all")


class RecordingPage(BaseModel):
    items: list[Recording]
    next: str | None = Field(description="give it as ?after= for the next page; null: this is the last")
    complete: bool = Field(description="false: the device stopped before it had told all of its list")


async def list_recordings(call: Call) -> Any:
    channel = channel_of(call)
    query = call.request.query
    start, end = read_time(query.get("start", ""), "start"), read_time(query.get("end", ""), "end")
    kind = query.get("type", "all")
    wanted = next((each for each in _TYPES if each == kind), None)
    if wanted is None:
        raise RequestError("There is no such type.", code="bad_query", remedy="Use time, alarm, manual or all.")
    found = await call.serving.history.recordings(
        channel.device_id, channel.id, start, end, wanted, kept=bool(call.after)
    )
    rest = [item for item in found.items if item.id > call.after] if call.after else list(found.items)
    shown = rest[: call.limit]
    following = shown[-1].id if len(rest) > len(shown) else None
    return RecordingPage(items=shown, next=following, complete=found.complete)


_TIME: Final = "20260203T081530Z, RFC 3339, or Unix seconds"

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET",
        "/devices/{id}/channels/{cid}/records",
        list_recordings,
        "Recordings of a channel on its device, from the earliest to the latest; asks the device",
        "view",
        RecordingPage,
        paged=True,
        query=(
            Query("start", "string", f"from when on: {_TIME}"),
            Query("end", "string", f"until when: {_TIME}"),
            Query("type", "string", "time, alarm, manual, or all (default)"),
        ),
        errors=CAMERA,
    ),
)
