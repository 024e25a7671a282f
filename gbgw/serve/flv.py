"""Endless answers: HTTP-FLV, HTTP-TS and HTTP-fMP4, and the same over WebSocket on the same URLs.

Everything goes out through serve/fanout.py; the handlers here open the stream, send the headers once it is playable,
and wait for the end. `?hevc=enhanced|legacy` (FLV), `?audio=aac|native`, `?video=h264`, `?viewer=ID`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Literal

from aiohttp import WSCloseCode, WSMsgType, web

from gbgw.base import limits
from gbgw.base.errors import GatewayError, MediaError, RequestError, TransportClosedError
from gbgw.serve.answers import EndlessResponse
from gbgw.serve.auth import check_origin
from gbgw.serve.context import SERVING, VIEWER, Serving
from gbgw.serve.fanout import Connection, Fanout, plain, websocket_frame
from gbgw.serve.places import address_of
from gbgw.serve.source import AudioChoice, Viewing
from gbgw.serve.viewers import Viewer

CONTENT_TYPES: Final = {"flv": "video/x-flv", "mp4": "video/mp4", "ts": "video/mp2t"}


@dataclass(frozen=True, slots=True)
class Wish:
    """What a play URL asks for, apart from the key."""

    audio: AudioChoice
    video: Literal["h264"] | None
    legacy_hevc: bool

    @classmethod
    def of(cls, request: web.Request, *, audio: AudioChoice = "aac") -> "Wish":
        """Read the query. Raises RequestError for values that do not exist."""
        wanted_audio = request.query.get("audio", audio)
        wanted_video = request.query.get("video")
        hevc = request.query.get("hevc", "enhanced")
        if wanted_audio not in ("aac", "native"):
            raise _bad_value("audio", "aac or native")
        if wanted_video not in (None, "", "h264", "native"):
            raise _bad_value("video", "h264 or native")
        if hevc not in ("enhanced", "legacy"):
            raise _bad_value("hevc", "enhanced or legacy")
        return cls(
            "aac" if wanted_audio == "aac" else "native", "h264" if wanted_video == "h264" else None, hevc == "legacy"
        )


@contextlib.asynccontextmanager
async def watch(
    serving: Serving, request: web.Request, key: str, protocol: str, wish: Wish
) -> AsyncIterator[tuple[Viewer, Viewing]]:
    """Hold a viewer's row and its right to the stream. Raises GatewayError when the stream cannot be played."""
    viewer = serving.viewers.add(key, protocol, serving.remote(request), wanted=request.query.get("viewer", ""))
    request[VIEWER] = viewer
    try:
        viewing = await serving.source.open(
            key, protocol=protocol, viewer=viewer.id, audio=wish.audio, video=wish.video
        )
        try:
            yield viewer, viewing
        finally:
            await viewing.close()
    finally:
        serving.viewers.remove(viewer)


async def endless(request: web.Request) -> web.StreamResponse:
    """GET and HEAD /live/{key}.{flv,mp4,ts} and the same below /playback, with or without Upgrade: websocket."""
    serving = request.app[SERVING]
    container = request.match_info["container"]
    address = address_of(request)
    key = address.key
    websocket = web.WebSocketResponse(
        # The ping queues behind what a slow viewer has yet to read: its pong gets the time a stalled viewer gets.
        heartbeat=2 * limits.VIEWER_STALL_SECONDS,
        max_msg_size=limits.WEBSOCKET_MESSAGE_BYTES,
        compress=False,
        timeout=2.0,
    )
    is_websocket = websocket.can_prepare(request).ok
    if is_websocket:
        check_origin(request, serving.http.cors, serving.http.public_url)
    serving.authority.require_play(request, address.signed)
    wish = Wish.of(request)
    protocol = f"ws-{container}" if is_websocket else container
    format_name = "flv-legacy" if container == "flv" and wish.legacy_hevc else container
    async with watch(serving, request, key, protocol, wish) as (viewer, viewing):
        fanout = serving.fanouts.of(serving.feeds.get(viewing.stream, format_name))
        try:
            if fanout.ended:
                raise fanout.cause or MediaError(
                    "The stream ended before it could be played.", code="media_stopped", stream=key
                )
            if request.method == "HEAD":
                return await _headers_only(request, container, viewer)
            if is_websocket:
                return await _play_websocket(serving, request, websocket, fanout, viewer)
            return await _play_http(serving, request, container, fanout, viewer)
        finally:
            fanout.release_unused()


def _headers(viewer: Viewer) -> dict[str, str]:
    return {
        "Cache-Control": "no-store",
        "X-Accel-Buffering": "no",  # nginx would hold back a live body otherwise
        "X-Gbgw-Viewer": viewer.id,
        "X-Gbgw-Stream": viewer.key,
    }


async def _headers_only(request: web.Request, container: str, viewer: Viewer) -> web.StreamResponse:
    response = EndlessResponse(content_type=CONTENT_TYPES[container], headers=_headers(viewer))
    await response.prepare(request)
    await response.write_eof()
    return response


async def _play_http(
    serving: Serving, request: web.Request, container: str, fanout: Fanout, viewer: Viewer
) -> web.StreamResponse:
    response = EndlessResponse(content_type=CONTENT_TYPES[container], headers=_headers(viewer))
    await response.prepare(request)
    ended: asyncio.Future[GatewayError | None] = asyncio.get_running_loop().create_future()
    connection = Connection(
        viewer,
        _transport(request),
        frame=plain,
        on_end=lambda cause: None if ended.done() else ended.set_result(cause),
        tally=serving.tally,
    )
    try:
        fanout.add(connection)
        await ended  # or the client leaves, which cancels this handler
    finally:
        fanout.remove(connection)
    return response


async def _play_websocket(
    serving: Serving, request: web.Request, websocket: web.WebSocketResponse, fanout: Fanout, viewer: Viewer
) -> web.StreamResponse:
    websocket.headers.update(_headers(viewer))
    await websocket.prepare(request)
    transport = _transport(request)
    loop = asyncio.get_running_loop()
    causes: list[GatewayError | None] = []
    try:
        async with asyncio.timeout(None) as patience:

            def stop(cause: GatewayError | None) -> None:
                causes.append(cause)
                patience.reschedule(loop.time())

            connection = Connection(viewer, transport, frame=websocket_frame, on_end=stop, tally=serving.tally)
            try:
                fanout.add(connection)
                async for message in websocket:  # pings are answered inside; viewers have nothing to say
                    if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                        break
            finally:
                fanout.remove(connection)
    except TimeoutError:
        cause = causes[0] if causes else None
        code = WSCloseCode.OK if cause is None else WSCloseCode.INTERNAL_ERROR
        await websocket.close(code=code, message=(cause.code if cause is not None else "ended").encode()[:120])
    return websocket


def _transport(request: web.Request) -> asyncio.Transport:
    transport = request.transport
    if transport is None:
        raise TransportClosedError("The viewer left before the stream was ready.", code="viewer_left")
    return transport


def _bad_value(name: str, expected: str) -> RequestError:
    return RequestError(
        f"The query parameter {name} has a value that does not exist.",
        code="bad_query",
        remedy=f"Use {name}={expected.replace(' or ', f' or {name}=')}.",
    )
