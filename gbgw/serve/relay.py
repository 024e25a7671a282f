"""Play URLs whose streams are in media worker processes: control checks who may, finds the worker, and

- gives it the connection itself for an endless answer (FLV, TS, MP4, WebSocket): the descriptor and the request's head,
  after which the viewer and his worker are alone;
- passes finite requests on (HLS, WHEP) over connections of its own, and their answers back.

What a viewer sees is the same as without workers. Leaves out: which worker has a stream (the gateway knows), how
descriptors travel (the worker package).
"""

import asyncio
import json
import os
import re
import socket
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

import aiohttp
from aiohttp import web
from aiohttp.client_proto import ResponseHandler
from multidict import CIMultiDict
from yarl import URL

from gbgw.base import limits
from gbgw.base.errors import LocalError, TransportClosedError
from gbgw.serve import hls
from gbgw.serve.auth import check_origin
from gbgw.serve.context import KEY_HEADER, LOCAL_HEADER, PATH, REMOTE_HEADER, SERVING, TICKET_HEADER, Serving
from gbgw.serve.flv import Wish
from gbgw.serve.places import PLACES, address_of, path_of, place_of
from gbgw.serve.source import StreamKey
from gbgw.serve.whep import read_offer

if TYPE_CHECKING:
    from aiohttp.client import ClientTimeout
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.tracing import Trace

HANDED_OVER: Final = web.RequestKey("handed_over", bool)
_TICKET: Final = TICKET_HEADER.lower().encode()
_NAMED_KEY: Final = KEY_HEADER.lower().encode()
_MARK: Final = re.compile(r"w(\d{1,3})-")
_WHOLE_BYTES: Final = (
    64 << 10
)  # a transport takes it without waiting for the client: answers up to this size are passed on in one piece
_PIECE_BYTES: Final = 256 << 10
# Of one connection only (RFC 9110 section 7.6.1); ours; and what the worker has no use for.
_NOT_PASSED_ON: Final = frozenset(
    (
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "upgrade"),
        *("transfer-encoding", "content-length", "expect", "authorization", "cookie"),
        *(REMOTE_HEADER.lower(), LOCAL_HEADER.lower(), TICKET_HEADER.lower()),
        KEY_HEADER.lower(),
    )
)
_NOT_PASSED_BACK: Final = frozenset(
    ("connection", "keep-alive", "transfer-encoding", "content-length", "date", "server")
)


class Carrier(Protocol):
    """The way to one media worker."""

    @property
    def number(self) -> int: ...
    async def hand_over(self, connection: socket.socket, head: bytes) -> None:
        """Give a connection away with what was read from it; the caller closes his descriptor. Raises LocalError."""

    async def connect(self) -> socket.socket:
        """A connection to its HTTP server. Raises LocalError."""


class Passage(Protocol):
    """A viewer's way to a stream: its worker, and his place there until he has taken it."""

    @property
    def carrier(self) -> Carrier: ...
    @property
    def ticket(self) -> str:
        """What his worker shows to control."""

    def expire(self) -> None:
        """He is on his way: the place is kept a while."""

    def release(self) -> None:
        """He took his place, or will not come. May be called again."""


class Carriers(Protocol):
    async def passage(self, key: str) -> Passage:
        """The way to the stream, which is started where it does not run. Raises GatewayError."""

    def carrier(self, number: int) -> Carrier | None:
        """One that is running."""

    def any_carrier(self) -> Carrier:
        """Raises LocalError when none is running."""


class Relay:
    """The ways to all workers; an async context manager that leaves no connection behind."""

    def __init__(self, carriers: Carriers) -> None:
        self.carriers = carriers
        self._clients: dict[Carrier, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> "Relay":
        return self

    async def __aexit__(self, *_: object) -> None:
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()

    async def client(self, carrier: Carrier) -> aiohttp.ClientSession:
        """The HTTP client towards one worker; those of workers that are gone are closed."""
        for known in list(self._clients):
            if self.carriers.carrier(known.number) is not known:
                await self._clients.pop(known).close()
        client = self._clients.get(carrier)
        if client is None:
            client = self._clients[carrier] = aiohttp.ClientSession(
                connector=_Connector(carrier),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_read=None),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )
        return client


class _Connector(aiohttp.BaseConnector):
    """Connections that a worker was handed the other end of."""

    def __init__(self, carrier: Carrier) -> None:
        super().__init__(limit=0)
        self._carrier = carrier

    async def _create_connection(
        self, req: "ClientRequest", traces: "list[Trace]", timeout: "ClientTimeout"
    ) -> ResponseHandler:
        sock = await self._carrier.connect()
        try:
            _, protocol = await self._loop.create_unix_connection(self._factory, sock=sock)
        except BaseException:
            sock.close()
            raise
        return protocol


def mount(app: web.Application, prefix: str) -> None:
    router = app.router
    for place in PLACES:
        play = f"{prefix}{place}"
        router.add_get(f"{play}.{{container:flv|mp4|ts}}", endless)
        router.add_get(f"{play}/index.m3u8", playlist)
        router.add_get(f"{play}/{{session:{hls.SESSION}}}/{{piece:media\\.m3u8|{hls.NAME}}}", of_hls)
        router.add_post(f"{play}/whep", offer)
        router.add_options(f"{play}/whep", any_worker)
        session = f"{play}/whep/{{session:[^/]{{1,64}}}}"
        router.add_patch(session, of_session)
        router.add_delete(session, of_session)
        router.add_options(session, any_worker)


async def endless(request: web.Request) -> web.StreamResponse:
    """An answer without end: the worker gets the connection."""
    serving = request.app[SERVING]
    address = address_of(request)
    key = address.key
    if web.WebSocketResponse().can_prepare(request).ok:
        check_origin(request, serving.http.cors, serving.http.public_url)
    serving.authority.require_play(request, address.signed)
    Wish.of(request)
    _check_viewers(serving, key)
    passage = await _relay(serving).carriers.passage(key)
    try:
        answer = await _hand_over(request, passage, key)
    except BaseException:
        passage.release()
        raise
    passage.expire()
    return answer


async def playlist(request: web.Request) -> web.StreamResponse:
    """The playlist that a viewer opens; starts the stream where it does not run."""
    serving = request.app[SERVING]
    address = address_of(request)
    key = address.key
    serving.authority.require_play(request, address.signed)
    Wish.of(request)
    hls.wanted_container(request)
    return await _pass_in(request, key)


async def offer(request: web.Request) -> web.StreamResponse:
    """A WHEP offer; starts the stream where it does not run."""
    serving = request.app[SERVING]
    address = address_of(request)
    key = address.key
    serving.authority.require_play(request, address.signed)
    Wish.of(request, audio="native")
    body = (await read_offer(request, key)).encode()
    return await _pass_in(request, key, body)


async def _pass_in(request: web.Request, key: str, body: bytes | None = None) -> web.StreamResponse:
    serving = request.app[SERVING]
    _check_viewers(serving, key)
    passage = await _relay(serving).carriers.passage(key)
    try:
        return await _pass_on(request, passage.carrier, body, passage.ticket, key)
    finally:
        passage.release()


async def of_hls(request: web.Request) -> web.StreamResponse:
    """A playlist or a piece of it, of the session in the path, which no log may show."""
    request[PATH] = f"{place_of(request)}/-/{request.match_info['piece']}"
    return await of_session(request)


async def of_session(request: web.Request) -> web.StreamResponse:
    """What belongs to a session of HLS or WebRTC, whose id names its worker."""
    carriers = _relay(request.app[SERVING]).carriers
    named = _MARK.match(request.match_info["session"])
    carrier = carriers.carrier(int(named[1])) if named is not None else None
    # The worker knows best how to say that there is no such session: so any of them may.
    return await _pass_on(request, carrier if carrier is not None else carriers.any_carrier())


async def any_worker(request: web.Request) -> web.StreamResponse:
    return await _pass_on(request, _relay(request.app[SERVING]).carriers.any_carrier())


async def fetched(relay: Relay, passage: Passage, key: str, ending: str) -> AsyncGenerator[bytes, None]:
    """Yield an endless answer of a worker for control itself. Raises LocalError where the worker gives none."""
    client = await relay.client(passage.carrier)
    headers = {TICKET_HEADER: passage.ticket, KEY_HEADER: key}
    place = path_of(str(replace(StreamKey.parse(key), name="")))  # the header names it
    url = URL.build(scheme="http", host="worker", path=f"{place}{ending}", query_string="audio=native")
    try:
        async with client.get(url, headers=headers) as answer:
            passage.release()
            if answer.status != 200:
                raise _as_told(await answer.read(), key)
            async for piece in answer.content.iter_chunked(_PIECE_BYTES):
                yield piece
    except aiohttp.ClientError as error:
        raise LocalError(
            "the media worker that had the stream died", code="worker_lost", remedy="start it again", stream=key
        ) from error
    finally:
        passage.release()


def _as_told(body: bytes, key: str) -> LocalError:
    """The error in a worker's answer."""
    try:
        told = json.loads(body)["error"]
        return LocalError(str(told["message"]), code=str(told["code"]), remedy=str(told["remedy"]), stream=key)
    except (ValueError, KeyError, TypeError):
        return LocalError("a media worker gave an answer that means nothing", code="worker_protocol", stream=key)


def _relay(serving: Serving) -> Relay:
    assert serving.relay is not None
    return serving.relay


def _check_viewers(serving: Serving, key: str) -> None:
    """Each worker has a limit of its own as well; this is the one of all together."""
    if len(serving.viewers) >= limits.VIEWERS:
        raise serving.viewers.full(key)


# Giving a connection away


async def _hand_over(request: web.Request, passage: Passage, key: str) -> web.StreamResponse:
    transport = request.transport
    held = transport.get_extra_info("socket") if transport is not None else None
    if transport is None or held is None or transport.is_closing():
        raise TransportClosedError("The viewer left before the stream was ready.", code="viewer_left")
    transport.pause_reading()  # what comes from now on is for the worker
    try:
        await _flushed(request, transport)
        with socket.socket(fileno=_duplicate(held)) as connection:
            await passage.carrier.hand_over(connection, _head(request, passage.ticket, key))
    except BaseException:
        if not transport.is_closing():
            transport.resume_reading()
        raise
    request[HANDED_OVER] = True
    transport.abort()  # our descriptor only: nothing goes out, and the connection lives on in the other one
    return web.Response(status=499)  # to nobody


def _duplicate(held: socket.socket) -> int:
    try:
        return os.dup(held.fileno())
    except OSError as error:
        raise LocalError(
            f"no descriptor for this viewer: {error.strerror}",
            code="descriptors_exhausted",
            remedy="raise the limit of open files (LimitNOFILE)",
        ) from None


async def _flushed(request: web.Request, transport: asyncio.Transport) -> None:
    """Earlier answers on this connection must be on their way before another process writes to it."""
    if transport.get_write_buffer_size() == 0:
        return
    transport.set_write_buffer_limits(high=0)
    try:
        async with asyncio.timeout(limits.VIEWER_STALL_SECONDS):
            await request.writer.drain()
    except TimeoutError:
        raise TransportClosedError("The viewer does not read.", code="viewer_left") from None


def _head(request: web.Request, ticket: str, key: str) -> bytes:
    """The request as it came, without a body, which no play URL has a use for."""
    version = request.version
    lines = [
        f"{request.method} {request.raw_path} HTTP/{version.major}.{version.minor}".encode("utf-8", "surrogateescape")
    ]
    for name, value in request.raw_headers:
        if name.lower() not in (b"content-length", b"transfer-encoding", b"expect", _TICKET, _NAMED_KEY):
            lines.append(name + b": " + value)
    lines += [_TICKET + b": " + ticket.encode(), _NAMED_KEY + b": " + key.encode()]
    return b"\r\n".join([*lines, b"", b""])


# Passing requests on


async def _pass_on(
    request: web.Request, carrier: Carrier, body: bytes | None = None, ticket: str = "", key: str = ""
) -> web.StreamResponse:
    """body: where it is read already."""
    serving = request.app[SERVING]
    client = await _relay(serving).client(carrier)
    headers = CIMultiDict(
        (name, value) for name, value in request.headers.items() if name.lower() not in _NOT_PASSED_ON
    )
    headers[REMOTE_HEADER] = serving.remote(request)
    headers[LOCAL_HEADER] = serving.local(request)
    headers[TICKET_HEADER] = ticket
    headers[KEY_HEADER] = key
    url = URL.build(
        scheme="http",
        host="worker",
        path=request.rel_url.raw_path,
        query_string=request.rel_url.raw_query_string,
        encoded=True,
    )
    if body is None:
        body = await _body(request)
    try:
        async with client.request(request.method, url, headers=headers, data=body, allow_redirects=False) as answer:
            return await _pass_back(request, answer)
    except aiohttp.ClientError as error:
        if request.transport is None or request.transport.is_closing():
            raise ConnectionResetError from error
        raise LocalError(
            "the media worker that should serve this died",
            code="worker_lost",
            remedy="play again: another worker takes over; the log says how it died",
        ) from error


async def _body(request: web.Request) -> bytes | None:
    """As much of it as the worker needs to see that it is too long."""
    if not request.can_read_body:
        return None
    body = bytearray()
    async for part in request.content.iter_chunked(16 << 10):
        body += part
        if len(body) > limits.WHEP_SDP_BYTES:
            break
    return bytes(body)


async def _pass_back(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    headers = CIMultiDict(
        (name, value) for name, value in answer.headers.items() if name.lower() not in _NOT_PASSED_BACK
    )
    size = answer.content_length
    if size is not None and size <= _WHOLE_BYTES:
        return web.Response(status=answer.status, body=await answer.read(), headers=headers)
    response = web.StreamResponse(status=answer.status, headers=headers)
    response.content_length = size
    try:
        async with asyncio.timeout(limits.HLS_SEND_SECONDS):  # one that does not read would hold its bytes for ever
            await response.prepare(request)
            async for piece in answer.content.iter_chunked(_PIECE_BYTES):
                await response.write(piece)
            await response.write_eof()
    except TimeoutError:
        request.app[SERVING].tally.add("http.viewer_stalled")
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError from None
    except aiohttp.ClientError as error:
        raise ConnectionResetError from error  # the headers are out
    return response
