"""The control API /api/v1: typed operations, each a row of ROUTES; serve/openapi.py makes the document out of them.

Leaves out what later issues bring: PTZ and the other device commands, recordings, cascade, webhooks.
"""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Generic, TypeVar

from aiohttp import web
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from gbgw.base import limits
from gbgw.base.errors import LimitError, RequestError
from gbgw.serve.context import SERVING
from gbgw.serve.openapi import DOCS_CSP, DOCS_PAGE, Call, Query, Route, document
from gbgw.serve.source import (
    Cause,
    Channel,
    Device,
    DeviceChange,
    Diagnosis,
    LadderStep,
    NewDevice,
    Scope,
    StreamInfo,
    StreamKey,
    StreamState,
    TokenRow,
    TrackInfo,
    Transport,
)
from gbgw.serve.viewers import Viewer

PREFIX: Final = "/api/v1"
DEFAULT_PAGE: Final = 100
_BODY_SECONDS: Final = 20.0

T = TypeVar("T")
Name = Annotated[str, Field(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]
Password = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\x21-\x7e]+$")]


class Input(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DeviceInput(Input):
    id: str = Field(pattern=r"^[0-9A-Za-z_]{1,32}$", description="20-digit code of the device, or what it calls itself")
    name: Name = ""
    password: Password | None = Field(None, description="its SIP password; kept as a hash only")
    media_transport: Transport | None = None


class DeviceChangeInput(Input):
    """Absent or null: leave as it is."""

    name: Name | None = None
    password: Password | None = None
    media_transport: Transport | None = None


class StreamInput(Input):
    key: str = Field(max_length=96, description="DEVICE-CHANNEL")


class TokenInput(Input):
    name: Name = ""
    scopes: list[Scope] = Field(min_length=1, max_length=3)
    expires: AwareDatetime | None = None


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
class TokenOut:
    id: str
    name: str
    scopes: tuple[Scope, ...]
    created: datetime
    expires: datetime | None


@dataclass(frozen=True)
class TokenCreated:
    """`token` is shown here once and kept nowhere."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    created: datetime
    expires: datetime | None
    token: str


@dataclass(frozen=True)
class PlayTokenOut:
    key: str
    token: str
    expires: datetime
    urls: dict[str, str]


@dataclass(frozen=True)
class WhoAmI:
    id: str
    name: str
    scopes: tuple[Scope, ...]
    expires: datetime | None


class Page(BaseModel, Generic[T]):
    items: list[T]
    next: str | None = Field(None, description="give it as ?after= for the next page; null: this is the last")


# Operations


async def list_devices(call: Call) -> Any:
    return _page(call, call.serving.control.devices(), lambda device: device.id)


async def create_device(call: Call) -> Any:
    body: DeviceInput = call.body
    return await call.serving.control.create_device(NewDevice(body.id, body.name, body.password, body.media_transport))


async def get_device(call: Call) -> Any:
    return _device(call)


async def change_device(call: Call) -> Any:
    body: DeviceChangeInput = call.body
    device = _device(call)
    return await call.serving.control.update_device(
        device.id, DeviceChange(body.name, body.password, body.media_transport)
    )


async def delete_device(call: Call) -> None:
    await call.serving.control.delete_device(call.path["id"])


async def refresh_catalog(call: Call) -> Any:
    await call.serving.control.refresh_catalog(_device(call).id)
    return await list_channels(call)


async def list_channels(call: Call) -> Any:
    return _page(call, call.serving.control.channels(_device(call).id), lambda channel: channel.id)


async def get_channel(call: Call) -> Any:
    return _channel(call)


async def send_iframe(call: Call) -> None:
    channel = _channel(call)
    await call.serving.control.request_keyframe(channel.device_id, channel.id)


async def list_streams(call: Call) -> Any:
    page = _page(call, call.serving.control.streams(), lambda stream: stream.key)
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
    page = _page(
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


async def list_tokens(call: Call) -> Any:
    page = _page(call, call.serving.authority.rows(), lambda row: row.id)
    return Page[Any](items=[_token_out(row) for row in page.items], next=page.next)


async def create_token(call: Call) -> Any:
    body: TokenInput = call.body
    if body.expires is not None and body.expires <= datetime.now(UTC):
        raise RequestError("This token would have expired already.", code="bad_body", remedy="Choose a later expires.")
    scopes = tuple(dict.fromkeys(body.scopes))
    expires = body.expires.astimezone(UTC) if body.expires is not None else None
    secret, row = await call.serving.authority.create(body.name, scopes, expires=expires)
    return TokenCreated(row.id, row.name, row.scopes, row.created, row.expires, secret)


async def revoke_token(call: Call) -> None:
    await call.serving.authority.revoke(call.path["id"])


async def create_play_token(call: Call) -> Any:
    body: PlayTokenInput = call.body
    key = StreamKey.parse(body.key)
    if call.serving.control.channel(key.device_id, key.channel_id) is None:
        raise _unknown_channel(str(key))
    token, expires = call.serving.authority.sign_play(str(key), seconds=body.seconds)
    return PlayTokenOut(str(key), token, expires, call.serving.play_urls(call.request, str(key), token))


async def whoami(call: Call) -> Any:
    row = call.serving.authority.require(call.request, "view")
    return WhoAmI(row.id, row.name, row.scopes, row.expires)


async def stream_events(call: Call) -> Any:
    """Server-sent events (HTML standard section 9.2); Last-Event-ID resumes."""
    serving = call.serving
    after = _last_event_id(call.request)
    if serving.event_streams >= limits.EVENT_VIEWERS:
        raise LimitError(
            f"{limits.EVENT_VIEWERS} event streams are open.", code="event_limit", remedy="Close other dashboards."
        )
    response = web.StreamResponse(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
    response.content_type = "text/event-stream"
    serving.event_streams += 1
    try:
        await response.prepare(call.request)
        await response.write(b"retry: 2000\n\n")
        async with asyncio.TaskGroup() as tasks:
            beat = tasks.create_task(_heartbeat(response), name="events:heartbeat")
            async for event in serving.control.events(after):
                data = json.dumps(dict(event.data), ensure_ascii=False, default=str)
                time = _RFC3339.dump_python(event.time, mode="json")
                body = f'{{"id":{event.id},"type":{json.dumps(event.type)},"time":"{time}","data":{data}}}'
                async with asyncio.timeout(limits.VIEWER_STALL_SECONDS):
                    await response.write(f"id: {event.id}\nevent: {event.type}\ndata: {body}\n\n".encode())
            beat.cancel()
    except* (ConnectionError, TimeoutError):
        serving.tally.add("http.events_lost")
    finally:
        serving.event_streams -= 1
    return response


async def _heartbeat(response: web.StreamResponse) -> None:
    while True:
        await asyncio.sleep(limits.EVENT_HEARTBEAT_SECONDS)
        async with asyncio.timeout(limits.VIEWER_STALL_SECONDS):
            await response.write(b": beat\n\n")


_RFC3339: Final = TypeAdapter(datetime)
_KEYS_GONE: Final = (404,)
_CAMERA: Final = (404, 409, 503, 504)

ROUTES: Final[tuple[Route, ...]] = (
    Route("GET", "/devices", list_devices, "All devices", "view", Page[Device], paged=True),
    Route(
        "POST",
        "/devices",
        create_device,
        "Admit a device",
        "admin",
        Device,
        DeviceInput,
        status=201,
        idempotent=False,
        errors=(409, 503),
    ),
    Route("GET", "/devices/{id}", get_device, "One device", "view", Device, errors=_KEYS_GONE),
    Route(
        "PATCH",
        "/devices/{id}",
        change_device,
        "Change a device",
        "admin",
        Device,
        DeviceChangeInput,
        errors=_KEYS_GONE,
    ),
    Route("DELETE", "/devices/{id}", delete_device, "Forget a device and end its streams", "admin"),
    Route(
        "POST",
        "/devices/{id}/catalog",
        refresh_catalog,
        "Ask a device for its catalog",
        "control",
        Page[Channel],
        paged=True,
        errors=_CAMERA,
    ),
    Route(
        "GET",
        "/devices/{id}/channels",
        list_channels,
        "Channels of a device",
        "view",
        Page[Channel],
        paged=True,
        errors=_KEYS_GONE,
    ),
    Route("GET", "/devices/{id}/channels/{cid}", get_channel, "One channel", "view", Channel, errors=_KEYS_GONE),
    Route(
        "POST",
        "/devices/{id}/channels/{cid}/iframe",
        send_iframe,
        "Ask a channel for a key frame",
        "control",
        errors=_CAMERA,
    ),
    Route("GET", "/streams", list_streams, "All streams", "view", Page[StreamOut], paged=True),
    Route("POST", "/streams", start_stream, "Start a stream", "control", StreamOut, StreamInput, errors=_CAMERA),
    Route("GET", "/streams/{key}", get_stream, "One stream", "view", StreamOut, errors=_KEYS_GONE),
    Route("DELETE", "/streams/{key}", stop_stream, "Stop a stream", "control", errors=_KEYS_GONE),
    Route(
        "GET",
        "/streams/{key}/diagnosis",
        get_diagnosis,
        "Where a stream stands, in words",
        "view",
        Diagnosis,
        errors=_KEYS_GONE,
    ),
    Route(
        "GET",
        "/streams/{key}/ladder",
        get_ladder,
        "The steps from request to picture",
        "view",
        tuple[LadderStep, ...],
        errors=_KEYS_GONE,
    ),
    Route(
        "GET",
        "/streams/{key}/viewers",
        list_viewers,
        "Who watches a stream",
        "view",
        Page[ViewerOut],
        paged=True,
        errors=_KEYS_GONE,
    ),
    Route(
        "GET",
        "/streams/{key}/viewers/{viewer}",
        get_viewer,
        "One viewer; a player knows its id from X-Gbgw-Viewer",
        "view",
        ViewerOut,
        errors=_KEYS_GONE,
    ),
    Route("GET", "/tokens", list_tokens, "All tokens, without their secrets", "admin", Page[TokenOut], paged=True),
    Route(
        "POST",
        "/tokens",
        create_token,
        "Make a token",
        "admin",
        TokenCreated,
        TokenInput,
        status=201,
        idempotent=False,
        errors=(503,),
    ),
    Route("DELETE", "/tokens/{id}", revoke_token, "Revoke a token", "admin"),
    Route(
        "POST",
        "/play-tokens",
        create_play_token,
        "A signed, expiring play URL",
        "view",
        PlayTokenOut,
        PlayTokenInput,
        status=201,
        errors=_KEYS_GONE,
    ),
    Route("GET", "/whoami", whoami, "The caller's token", "view", WhoAmI),
    Route(
        "GET",
        "/events",
        stream_events,
        "Everything that happens, as server-sent events; ?token= is taken, since EventSource sends no headers",
        "view",
        str,
        query=(Query("token", "string", "bearer token"), Query("last_event_id", "integer", "resume after this event")),
        errors=(503,),
        media="text/event-stream",
    ),
)


# Mounting


def mount(app: web.Application, prefix: str) -> None:
    for route in ROUTES:
        path = f"{prefix}{PREFIX}{route.path}"
        for name in ("id", "cid", "key", "viewer"):
            path = path.replace(f"{{{name}}}", f"{{{name}:[0-9A-Za-z@-]{{1,96}}}}")
        handler = _handler(route)
        if route.method == "GET":
            app.router.add_get(path, handler)
        else:
            app.router.add_route(route.method, path, handler)
    app.router.add_get(f"{prefix}{PREFIX}/openapi.json", _openapi)
    app.router.add_get(f"{prefix}/api/docs", _docs)


def _handler(route: Route) -> Any:
    adapter = route.adapter

    async def handle(request: web.Request) -> web.StreamResponse:
        serving = request.app[SERVING]
        if route.scope is not None:
            serving.authority.require(request, route.scope, query=route.media == "text/event-stream")
        body = await _read(request, route.body) if route.body is not None else None
        limit, after = _paging(request) if route.paged else (DEFAULT_PAGE, "")
        result = await route.call(Call(serving, request, dict(request.match_info), body, limit, after))
        if isinstance(result, web.StreamResponse):
            return result
        headers = {"Cache-Control": "no-store"}
        if adapter is None:
            return web.Response(status=204, headers=headers)
        data = _PAGES.dump_json(result) if isinstance(result, Page) else adapter.dump_json(result)
        return web.Response(
            status=route.status, body=data, content_type="application/json", charset="utf-8", headers=headers
        )

    return handle


_PAGES: Final = TypeAdapter(Page[Any])


async def _openapi(request: web.Request) -> web.Response:
    serving = request.app[SERVING]
    return web.json_response(
        document(ROUTES, server=f"{serving.base_path}{PREFIX}"), headers={"Cache-Control": "no-cache"}
    )


async def _docs(_request: web.Request) -> web.Response:
    return web.Response(
        text=DOCS_PAGE,
        content_type="text/html",
        headers={"Content-Security-Policy": DOCS_CSP, "Cache-Control": "no-cache"},
    )


async def _read(request: web.Request, model: type[BaseModel]) -> BaseModel:
    if request.content_type != "application/json":
        raise RequestError(
            "The body must be JSON.", status=415, code="content_type", remedy="Send Content-Type: application/json."
        )
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            data = await request.read()
    except TimeoutError:
        raise RequestError("The body did not arrive in time.", status=408, code="body_timeout") from None
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in problem['loc']) or 'body'}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)[:5]
        ]
        raise RequestError("; ".join(problems), code="bad_body", remedy="/api/docs shows the fields.") from None


def _paging(request: web.Request) -> tuple[int, str]:
    try:
        limit = int(request.query.get("limit", str(DEFAULT_PAGE))[:10])
    except ValueError:
        limit = 0
    if not 1 <= limit <= limits.PAGE_ITEMS:
        raise RequestError("limit is out of range.", code="bad_query", remedy=f"Use 1 to {limits.PAGE_ITEMS}.")
    return limit, request.query.get("after", "")[:128]


def _last_event_id(request: web.Request) -> int | None:
    text = request.headers.get("Last-Event-ID") or request.query.get("last_event_id")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise RequestError("Last-Event-ID is not a number.", code="bad_query")
    return int(text)


def _page(call: Call, items: Sequence[T], identity: Any) -> Page[T]:
    """The page after `call.after`; `items` are ordered by identity, so a page survives insertions and deletions."""
    rest = [item for item in items if identity(item) > call.after] if call.after else list(items)
    shown = rest[: call.limit]
    return Page[Any](items=shown, next=identity(shown[-1]) if len(rest) > len(shown) else None)


def _device(call: Call) -> Device:
    device = call.serving.control.device(call.path["id"])
    if device is None:
        raise RequestError(
            "There is no such device.", status=404, code="unknown_device", remedy="/api/v1/devices lists them."
        )
    return device


def _channel(call: Call) -> Channel:
    channel = call.serving.control.channel(_device(call).id, call.path["cid"])
    if channel is None:
        raise _unknown_channel(None)
    return channel


def _stream(call: Call) -> StreamInfo:
    info = call.serving.control.stream(str(StreamKey.parse(call.path["key"])))
    if info is None:
        raise _unknown_stream(call.path["key"])
    return info


def _unknown_channel(key: str | None) -> RequestError:
    return RequestError(
        "There is no such channel.",
        status=404,
        code="unknown_channel",
        remedy="/api/v1/devices/ID/channels lists them.",
        stream=key,
    )


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


def _token_out(row: TokenRow) -> TokenOut:
    return TokenOut(row.id, row.name, row.scopes, row.created, row.expires)
