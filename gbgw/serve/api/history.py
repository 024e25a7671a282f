"""What devices have recorded: the list of a channel, and playbacks."""

from datetime import datetime
from typing import Any, Final, Literal

from aiohttp import web
from pydantic import AwareDatetime, BaseModel, Field
from pydantic.dataclasses import dataclass

from gbgw.base import limits
from gbgw.base.errors import RequestError
from gbgw.serve.api.shapes import CAMERA, GONE, Input, Page, channel_of, page_of
from gbgw.serve.history import DownloadInfo, PlaybackChange, PlaybackInfo, Recording, RecordType
from gbgw.serve.openapi import Call, Query, Route
from gbgw.serve.source import Cause, StreamKey, StreamState
from gbgw.serve.spans import read_time, write_time

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


class PlaybackInput(Input):
    key: str = Field(max_length=96, description="DEVICE-CHANNEL")
    start: AwareDatetime
    end: AwareDatetime


class PlaybackChangeInput(Input):
    """Absent or null: leave as it is. A new position or speed lets a paused playback play."""

    position: AwareDatetime | None = Field(None, description="go on from this moment of the recording")
    speed: float | None = Field(None, description="0.25 to 8 times; negative: backwards, where the device can")
    paused: bool | None = None


@dataclass(frozen=True)
class PlaybackOut:
    """Times are the recording's own. measured_speed: at which the device really sends; null while that is measured."""

    id: str
    device_id: str
    channel_id: str
    stream: str
    start: datetime
    end: datetime
    state: StreamState | Literal["idle"]
    cause: Cause | None
    position: datetime | None
    paused: bool
    speed: float
    measured_speed: float | None
    urls: dict[str, str]


async def list_playbacks(call: Call) -> Any:
    page = page_of(call, call.serving.history.playbacks(), lambda playback: playback.id)
    return Page[Any](items=[_playback_out(call, each) for each in page.items], next=page.next)


async def make_playback(call: Call) -> Any:
    return _playback_out(call, call.serving.history.make_playback(*_wanted(call.body)))


async def get_playback(call: Call) -> Any:
    return _playback_out(call, await call.serving.history.playback(call.path["playback"]))


async def change_playback(call: Call) -> Any:
    body: PlaybackChangeInput = call.body
    position = body.position.timestamp() if body.position is not None else None
    changed = await call.serving.history.change_playback(
        call.path["playback"], PlaybackChange(position, body.speed, body.paused)
    )
    return _playback_out(call, changed)


async def end_playback(call: Call) -> None:
    await call.serving.history.end_playback(call.path["playback"])


class DownloadInput(PlaybackInput):
    speed: int = Field(
        4, ge=1, le=limits.DOWNLOAD_SPEED, description="times the recorded one; devices take the nearest"
    )


async def list_downloads(call: Call) -> Any:
    return page_of(call, call.serving.history.downloads(), lambda download: download.id)


async def make_download(call: Call) -> Any:
    body: DownloadInput = call.body
    device_id, channel_id, start, end = _wanted(body)
    return await call.serving.history.make_download(device_id, channel_id, start, end, body.speed)


async def get_download(call: Call) -> Any:
    return call.serving.history.download(call.path["download"])


async def end_download(call: Call) -> None:
    await call.serving.history.end_download(call.path["download"])


async def get_file(call: Call) -> web.StreamResponse:
    """The MP4, whole or by ranges."""
    history = call.serving.history
    info = history.download(call.path["download"])
    name = f"{info.channel_id}-{write_time(int(info.start.timestamp()))}-{write_time(int(info.end.timestamp()))}.mp4"
    response = web.FileResponse(history.download_file(info.id))
    response.content_type = "video/mp4"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.headers["Cache-Control"] = "private, max-age=60"
    return response


def _wanted(body: PlaybackInput) -> tuple[str, str, int, int]:
    """Device, channel, start and end. Raises RequestError `bad_span`."""
    key = StreamKey.parse(body.key)
    start, end = int(body.start.timestamp()), int(body.end.timestamp())
    if key.is_history or not 0 <= start < end:
        raise RequestError("The span is none.", code="bad_span", remedy="Give DEVICE-CHANNEL, a start and a later end.")
    return key.device_id, key.channel_id, start, end


def _playback_out(call: Call, info: PlaybackInfo) -> PlaybackOut:
    token = call.serving.authority.sign_play(info.stream)[0]
    return PlaybackOut(
        info.id,
        info.device_id,
        info.channel_id,
        info.stream,
        info.start,
        info.end,
        info.state,
        info.cause,
        info.position,
        info.paused,
        info.speed,
        info.measured_speed,
        call.serving.play_urls(call.request, info.stream, token),
    )


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
    Route("GET", "/playbacks", list_playbacks, "Playbacks of recordings", "view", Page[PlaybackOut], paged=True),
    Route(
        "POST",
        "/playbacks",
        make_playback,
        "Name a playback that several viewers share and steer; it begins with its first viewer",
        "view",
        PlaybackOut,
        PlaybackInput,
        status=201,
        idempotent=False,
        errors=CAMERA,
    ),
    Route("GET", "/playbacks/{playback}", get_playback, "Where a playback stands", "view", PlaybackOut, errors=GONE),
    Route(
        "PATCH",
        "/playbacks/{playback}",
        change_playback,
        "Seek, change the speed, pause or resume, in this order",
        "view",
        PlaybackOut,
        PlaybackChangeInput,
        errors=CAMERA,
    ),
    Route("DELETE", "/playbacks/{playback}", end_playback, "End a playback", "view"),
    Route("GET", "/downloads", list_downloads, "Downloads of recordings", "view", Page[DownloadInfo], paged=True),
    Route(
        "POST",
        "/downloads",
        make_download,
        "Fetch a recording into a file, faster than it was made",
        "control",
        DownloadInfo,
        DownloadInput,
        status=201,
        idempotent=False,
        errors=CAMERA,
    ),
    Route("GET", "/downloads/{download}", get_download, "How far a download is", "view", DownloadInfo, errors=GONE),
    Route(
        "GET",
        "/downloads/{download}/file",
        get_file,
        "The finished file, whole or by ranges; ?token= is taken, since links send no headers",
        "view",
        str,
        query=(Query("token", "string", "bearer token"),),
        errors=(404, 409),
        media="video/mp4",
    ),
    Route("DELETE", "/downloads/{download}", end_download, "Stop a download and remove its file", "control"),
)
