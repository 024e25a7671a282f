"""Streams, who watches them, and signed URLs to play them."""

from datetime import datetime
from typing import Any, Final

from pydantic import Field
from pydantic.dataclasses import dataclass

from gbgw.base import limits
from gbgw.base.errors import RequestError
from gbgw.serve.api.shapes import CAMERA, GONE, Input, Page, page_of, unknown_channel
from gbgw.serve.openapi import Call, Route
from gbgw.serve.source import Cause, Diagnosis, LadderStep, StreamInfo, StreamKey, StreamState, TrackInfo, Transport
from gbgw.serve.viewers import Viewer


class StreamInput(Input):
    key: str = Field(max_length=96, description="DEVICE-CHANNEL")


class PlayTokenInput(Input):
    key: str = Field(max_length=96, description="DEVICE-CHANNEL")
    seconds: float | None = Field(None, gt=0, le=limits.PLAY_TOKEN_SECONDS)


@dataclass(frozen=True)
class ViewerOut:
    id: str
    key: str
    protocol: str
    remote: str
    since: datetime
    bytes: int
    dropped: int
    skips: int
    queue_bytes: int
    # of WebRTC, as serve.viewers has them
    lost: int
    nacks: int
    resent: int
    plis: int
    round_trip_ms: float | None


@dataclass(frozen=True)
class StreamOut:
    key: str
    kind: str
    state: StreamState
    cause: Cause | None
    tracks: tuple[TrackInfo, ...]
    viewers: int
    viewers_by_protocol: dict[str, int]
    urls: dict[str, str]
    started: datetime | None
    bitrate: int
    gop_seconds: float | None
    transport: Transport | None
    packets: int
    lost: int
    reordered: int
    late: int


@dataclass(frozen=True)
class PlayTokenOut:
    key: str
    token: str
    expires: datetime
    urls: dict[str, str]


async def list_streams(call: Call) -> Any:
    page = page_of(call, call.serving.control.streams(), lambda stream: stream.key)
    viewers = call.serving.viewers.counts_by_key()
    return Page[Any](items=[_stream_out(call, info, viewers.get(info.key, {})) for info in page.items], next=page.next)


async def start_stream(call: Call) -> Any:
    key = str(StreamKey.parse(call.body.key))
    return _with_viewers(call, await call.serving.control.start_stream(key))


async def get_stream(call: Call) -> Any:
    return _with_viewers(call, _stream(call))


async def stop_stream(call: Call) -> None:
    await call.serving.control.stop_stream(str(StreamKey.parse(call.path["key"])))


async def get_diagnosis(call: Call) -> Any:
    diagnosis = call.serving.control.diagnosis(str(StreamKey.parse(call.path["key"])))
    if diagnosis is None:
        raise _unknown_stream(call.path["key"])
    return diagnosis


async def get_ladder(call: Call) -> Any:
    return (await get_diagnosis(call)).steps


async def list_viewers(call: Call) -> Any:
    key = str(StreamKey.parse(call.path["key"]))
    page = page_of(
        call,
        sorted(call.serving.viewers.of(key), key=lambda viewer: viewer.id),
        lambda viewer: viewer.id,
    )
    return Page[Any](items=[_viewer_out(viewer) for viewer in page.items], next=page.next)


async def get_viewer(call: Call) -> Any:
    viewer = call.serving.viewers.get(call.path["viewer"])
    if viewer is None or viewer.key != call.path["key"]:
        raise RequestError("There is no such viewer.", status=404, code="unknown_viewer")
    return _viewer_out(viewer)


async def create_play_token(call: Call) -> Any:
    body: PlayTokenInput = call.body
    key = StreamKey.parse(body.key)
    if call.serving.control.channel(key.device_id, key.channel_id) is None:
        raise unknown_channel(str(key))
    token, expires = call.serving.authority.sign_play(str(key), seconds=body.seconds)
    return PlayTokenOut(str(key), token, expires, call.serving.play_urls(call.request, str(key), token))


ROUTES: Final[tuple[Route, ...]] = (
    Route("GET", "/streams", list_streams, "All streams", "view", Page[StreamOut], paged=True),
    Route("POST", "/streams", start_stream, "Start a stream", "control", StreamOut, StreamInput, errors=CAMERA),
    Route("GET", "/streams/{key}", get_stream, "One stream", "view", StreamOut, errors=GONE),
    Route("DELETE", "/streams/{key}", stop_stream, "Stop a stream", "control", errors=GONE),
    Route(
        "GET",
        "/streams/{key}/diagnosis",
        get_diagnosis,
        "Where a stream stands, in words",
        "view",
        Diagnosis,
        errors=GONE,
    ),
    Route(
        "GET",
        "/streams/{key}/ladder",
        get_ladder,
        "The steps from request to picture",
        "view",
        tuple[LadderStep, ...],
        errors=GONE,
    ),
    Route(
        "GET",
        "/streams/{key}/viewers",
        list_viewers,
        "Who watches a stream",
        "view",
        Page[ViewerOut],
        paged=True,
        errors=GONE,
    ),
    Route(
        "GET",
        "/streams/{key}/viewers/{viewer}",
        get_viewer,
        "One viewer; a player knows its id from X-Gbgw-Viewer",
        "view",
        ViewerOut,
        errors=GONE,
    ),
    Route(
        "POST",
        "/play-tokens",
        create_play_token,
        "A signed, expiring play URL",
        "view",
        PlayTokenOut,
        PlayTokenInput,
        status=201,
        errors=GONE,
    ),
)


def _stream(call: Call) -> StreamInfo:
    info = call.serving.control.stream(str(StreamKey.parse(call.path["key"])))
    if info is None:
        raise _unknown_stream(call.path["key"])
    return info


def _unknown_stream(key: str) -> RequestError:
    return RequestError(
        "This stream does not run.",
        status=404,
        code="unknown_stream",
        remedy="POST /api/v1/streams starts it, and so does playing it.",
        stream=key,
    )


def _with_viewers(call: Call, info: StreamInfo) -> StreamOut:
    return _stream_out(call, info, call.serving.viewers.counts_by_key().get(info.key, {}))


def _stream_out(call: Call, info: StreamInfo, viewers: Any) -> StreamOut:
    return StreamOut(
        info.key,
        info.kind,
        info.state,
        info.cause,
        info.tracks,
        sum(viewers.values()),
        dict(viewers),
        call.serving.play_urls(call.request, info.key),
        info.started,
        info.bitrate,
        info.gop_seconds,
        info.transport,
        info.packets,
        info.lost,
        info.reordered,
        info.late,
    )


def _viewer_out(viewer: Viewer) -> ViewerOut:
    return ViewerOut(
        viewer.id,
        viewer.key,
        viewer.protocol,
        viewer.remote,
        viewer.since,
        viewer.bytes,
        viewer.dropped,
        viewer.skips,
        viewer.queue(),
        viewer.lost,
        viewer.nacks,
        viewer.resent,
        viewer.plis,
        None if viewer.round_trip is None else round(viewer.round_trip * 1_000, 1),
    )
