"""HLS: multivariant and media playlists, init and media segments, parts (RFC 8216bis), made by mux/hls.py.

The URL a viewer opens is the multivariant playlist; it names a media playlist below a path that is the session's id.
The play token is checked once, there; the id is valid while it is polled, and as every other URI is relative to it, all
viewers read the same bytes. Playlists are held back until they have what was asked for, and so is the part they hint
at (section 6.2.5.2, 6.2.6).
"""

import asyncio
import re
from typing import Final

from aiohttp import web

from gbgw.base import limits
from gbgw.base.errors import LocalError, RequestError
from gbgw.mux.hls import SEGMENT_TYPES
from gbgw.mux.playlist import CONTENT_TYPE, Container, MediaPlaylist, multivariant
from gbgw.serve.context import PATH, SERVING
from gbgw.serve.directives import Directives
from gbgw.serve.flv import Wish
from gbgw.serve.hls_output import HlsSession
from gbgw.serve.places import address_of, place_of

SESSION: Final = r"[0-9A-Za-z_-]{24,28}"  # a media worker's begin with its mark
NAME: Final = r"init-\d{1,9}\.mp4|p?\d{1,15}\.m4s|\d{1,15}\.ts"
_BUFFERED_BYTES: Final = 64 << 10  # that a transport takes without waiting for the client


async def index(request: web.Request) -> web.StreamResponse:
    """GET /live/{key}/index.m3u8: checks the token, starts the stream, begins a session."""
    serving = request.app[SERVING]
    address = address_of(request)
    key = address.key
    serving.authority.require_play(request, address.signed)
    wish = Wish.of(request)
    container = wanted_container(request)
    output = serving.hls.get((key, container, wish.audio, wish.video))
    await output.playable()
    feed = output.feed
    if feed is None:
        raise LocalError("The output is not open.", code="internal", stream=key)
    if request.method == "HEAD":
        return _playlist(b"")
    session = serving.hls.begin(output, serving.remote(request), wanted=request.query.get("viewer", ""))
    stream = feed.stream
    text = multivariant(
        output.segmenter.playlist,
        feed.tracks,
        f"{session.id}/media.m3u8",
        frame_rate=stream.frame_rate,
        bitrate=stream.bitrate(asyncio.get_running_loop().time()),
    )
    response = _playlist(text.encode())
    response.headers["X-Gbgw-Viewer"] = session.viewer.id
    response.headers["X-Gbgw-Stream"] = key
    return response


def wanted_container(request: web.Request) -> Container:
    """Raises RequestError for one that does not exist."""
    match request.query.get("container", "mp4"):
        case "mp4" | "fmp4":
            return "mp4"
        case "ts":
            return "ts"
    raise RequestError("There is no such container.", code="bad_query", remedy="Use container=mp4 or ts.")


async def media(request: web.Request) -> web.StreamResponse:
    """GET /live/{key}/{session}/media.m3u8, with delivery directives."""
    session = _session(request, "media.m3u8")
    playlist = session.output.segmenter.playlist
    wanted = Directives()
    if playlist.part_target:
        wanted = Directives.of(request.query)
        await _until_listed(session, playlist, wanted)
    packed = _takes_gzip(request)
    data = playlist.write(delta=wanted.skip, packed=packed)
    session.viewer.bytes += len(data)
    response = _playlist(data)
    response.headers["Vary"] = "Accept-Encoding"
    if packed:
        response.headers["Content-Encoding"] = "gzip"
    return response


async def piece(request: web.Request) -> web.StreamResponse:
    """GET /live/{key}/{session}/init-N.mp4, N.m4s, pN.m4s, N.ts."""
    name = request.match_info["piece"]
    session = _session(request, name)
    output = session.output
    playlist = output.segmenter.playlist
    stem, _, suffix = name.rpartition(".")
    number = int(stem.removeprefix("init-").removeprefix("p"))
    data: bytes | None = None
    if suffix == "mp4":
        data = playlist.init(number)
    elif stem.startswith("p"):
        if playlist.is_hinted(number):
            await session.wait(lambda: not playlist.is_hinted(number))
        data = playlist.part(number)
    elif (suffix == "ts") == (output.container == "ts"):
        data = playlist.segment(number)
    if data is None:
        raise RequestError(
            "This segment is not here (any more).",
            status=404,
            code="segment_gone",
            remedy="Read the playlist again.",
            stream=output.key,
        )
    response = _ranged(request, data)
    response.content_type = SEGMENT_TYPES[output.container]
    response.headers["Cache-Control"] = "private, max-age=60, immutable"
    response.headers["Accept-Ranges"] = "bytes"
    if request.method != "HEAD" and response.body is not None:
        sent = len(response.body) if isinstance(response.body, bytes) else 0
        session.viewer.bytes += sent
        if sent > _BUFFERED_BYTES:
            await _send(request, response)
    return response


def _session(request: web.Request, name: str) -> HlsSession:
    """The session in the path, which no log may show."""
    request[PATH] = f"{place_of(request)}/-/{name}"
    return request.app[SERVING].hls.session(request)


async def _until_listed(session: HlsSession, playlist: MediaPlaylist, wanted: Directives) -> None:
    sequence, part = wanted.sequence, wanted.part
    if sequence is None or playlist.has(sequence, part):
        return
    if playlist.is_too_far(sequence, part):
        raise RequestError(
            "This playlist is not that far yet.",
            code="too_far_ahead",
            remedy="Ask for what follows the last part that the playlist lists.",
            stream=session.output.key,
        )
    await session.wait(lambda: playlist.has(sequence, part))


def _takes_gzip(request: web.Request) -> bool:
    """True when Accept-Encoding names gzip and not to refuse it (RFC 9110 section 12.5.3)."""
    for offer in request.headers.get("Accept-Encoding", "").split(","):
        coding, _, weight = offer.partition(";")
        if coding.strip().lower() == "gzip":
            return re.fullmatch(r"\s*q=0(\.0*)?\s*", weight) is None
    return False


def _playlist(data: bytes) -> web.Response:
    response = web.Response(body=data, content_type=CONTENT_TYPE)
    response.headers["Cache-Control"] = "no-store"
    return response


def _ranged(request: web.Request, data: bytes) -> web.Response:
    """The bytes, or the one range of them that was asked for (RFC 9110 section 14.2); what is no range is ignored."""
    try:
        wanted = request.http_range
    except ValueError:
        return web.Response(body=data)
    if wanted.start is None and wanted.stop is None:
        return web.Response(body=data)
    start, stop, _ = wanted.indices(len(data))
    if start >= stop:
        response = web.Response(status=416)
        response.headers["Content-Range"] = f"bytes */{len(data)}"
        return response
    response = web.Response(status=206, body=data[start:stop])
    response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
    return response


async def _send(request: web.Request, response: web.Response) -> None:
    """Send it here, where it can be given up: a client that does not read would hold its bytes for ever."""
    try:
        async with asyncio.timeout(limits.HLS_SEND_SECONDS):
            await response.prepare(request)
            await response.write_eof()
    except TimeoutError:
        request.app[SERVING].tally.add("http.viewer_stalled")
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError from None
