"""The aiohttp application and the server around it: routes, errors as JSON, CORS, security headers, access log, limits.

Handlers are cancelled when their client leaves. Leaves out: TLS and HTTP/2 (a front proxy's job).
"""

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from gbgw.base import limits
from gbgw.base.config import host_port
from gbgw.base.errors import ConfigError, GatewayError, LocalError
from gbgw.observe import log
from gbgw.serve import api, flv, hls, metrics, pages, relay, whep
from gbgw.serve.answers import error_body, error_response
from gbgw.serve.context import PATH, SERVING, STATUS, TICKET, TICKET_HEADER, VIEWER, Serving
from gbgw.serve.places import PLACES
from gbgw.serve.relay import HANDED_OVER

_log: Final = logging.getLogger(__name__)
_access: Final = log.get("http")
_SWEEP_SECONDS: Final = 5.0
_TCP_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", 25)
_EXPOSED: Final = "Location, Link, ETag, Retry-After, X-Gbgw-Stream, X-Gbgw-Viewer"
_ALLOWED_HEADERS: Final = "Authorization, Content-Type, If-Match, If-None-Match, Last-Event-ID, Range"
_METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
NOWHERE: Final = "nowhere"  # to listen: connections are adopted
_CODES: Final = {404: "not_found", 405: "method_not_allowed", 413: "body_too_long", 415: "content_type"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(serving: Serving) -> web.Application:
    """The application. Everything is mounted at "/" and, behind a proxy that keeps its prefix, below base_path too."""
    app = web.Application(
        client_max_size=limits.HTTP_BODY_BYTES,
        middlewares=[_log_access, _answer_errors, _answer_preflight],
    )
    app[SERVING] = serving
    app.on_response_prepare.append(_decorate)
    for prefix in dict.fromkeys((serving.base_path, "")):
        _mount(app, prefix)
    return app


def _mount(app: web.Application, prefix: str) -> None:
    serving = app[SERVING]
    if serving.relay is not None:
        relay.mount(app, prefix)
    else:
        _mount_play(app, prefix)
    if serving.play_only:
        return
    api.mount(app, prefix)
    metrics.mount(app, prefix)
    pages.mount(app, prefix)


def _mount_play(app: web.Application, prefix: str) -> None:
    router = app.router
    for place in PLACES:
        play = f"{prefix}{place}"
        router.add_get(f"{play}.{{container:flv|mp4|ts}}", flv.endless)
        router.add_get(f"{play}/index.m3u8", hls.index)
        polled = f"{play}/{{session:{hls.SESSION}}}"
        router.add_get(f"{polled}/media.m3u8", hls.media)
        router.add_get(f"{polled}/{{piece:{hls.NAME}}}", hls.piece)
        router.add_post(f"{play}/whep", whep.play)
        router.add_options(f"{play}/whep", whep.options)
        session = f"{play}/whep/{{session:[^/]{{1,64}}}}"
        router.add_patch(session, whep.patch)
        router.add_delete(session, whep.delete)
        router.add_options(session, whep.options)


class HttpServer:
    """The listening server. `async with HttpServer(serving) as server:`; leaving it ends every viewer in time.

    address: where it listens, with the port the kernel chose for port 0. listen=NOWHERE: it serves what is adopted.
    """

    def __init__(self, serving: Serving, *, listen: str | None = None) -> None:
        self.address = ("", 0)
        self._serving = serving
        self._listen = listen if listen is not None else serving.http.listen
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._group: asyncio.TaskGroup | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        runner = web.AppRunner(build_app(self._serving), handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        self._runner = runner
        try:
            if self._listen != NOWHERE:
                listener = _open_listener(self._listen)
                self.address = listener.getsockname()[:2]
                loop = asyncio.get_running_loop()
                self._server = await loop.create_server(self._accept, sock=listener, backlog=1_024)
        except BaseException:
            await runner.cleanup()
            raise
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._serving.tasks = self._group
        self._sweeper = self._group.create_task(self._sweep(), name="http:sweep")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        serving, group, runner = self._serving, self._group, self._runner
        serving.tasks = None
        if self._server is not None:
            self._server.close()
        serving.fanouts.close()
        serving.hls.close()
        try:
            if runner is not None:
                async with asyncio.timeout(limits.HTTP_STOP_SECONDS):
                    await runner.cleanup()
        except TimeoutError:
            _log.warning("some HTTP requests did not end within %s s", limits.HTTP_STOP_SECONDS)
        finally:
            if self._sweeper is not None:
                self._sweeper.cancel()
            if group is not None:
                # Only a cancellation is the group's business; the body's own errors pass it unwrapped.
                is_cancelled = isinstance(error, asyncio.CancelledError)
                await group.__aexit__(kind if is_cancelled else None, error if is_cancelled else None, trace)

    def adopt(self, connection: socket.socket, head: bytes) -> None:
        """Serve a connection that another process accepted, and read `head` from; b"": one of that process itself,
        which passes on requests of others. The socket is the server's from now on."""
        if self._group is None or self._serving.tasks is None:
            connection.close()
            return
        self._group.create_task(self._adopt(connection, head), name="http:adopt")

    async def _adopt(self, connection: socket.socket, head: bytes) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: self._accept(head), connection)
        except OSError as error:  # the viewer is gone already
            connection.close()
            self._serving.tally.add("http.adoption_failed", detail=str(error))

    def _accept(self, head: bytes | None = None) -> asyncio.BaseProtocol:
        runner = self._runner
        if runner is None or runner.server is None or len(runner.server.connections) >= limits.HTTP_CONNECTIONS:
            self._serving.tally.add("http.connections_refused")
            return _Refusal()
        if head is None:
            return _Connection(runner.server, self._serving)
        if not head:
            return _Relayed(runner.server, self._serving)
        return _HandedOver(runner.server, self._serving, head)

    async def _sweep(self) -> None:
        """Close connections that never finish their first request head: aiohttp has no timer for that."""
        loop = asyncio.get_running_loop()
        silent: dict[asyncio.BaseProtocol, float] = {}
        while self._runner is not None and self._runner.server is not None:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = loop.time()
            connections = self._runner.server.connections
            self._serving.spoke.intersection_update(connections)
            silent = {
                protocol: silent.get(protocol, now) for protocol in connections if protocol not in self._serving.spoke
            }
            for protocol in connections:
                if now - silent.get(protocol, now) >= limits.HTTP_HEAD_SECONDS:
                    self._serving.tally.add("http.silent_closed")
                    protocol.force_close()


class _Connection(web.RequestHandler):
    """One connection, whose bytes that are no HTTP are counted and answered as every other error is."""

    __slots__ = ("_serving",)
    is_relayed = False
    is_handed_over = False

    def __init__(self, server: web.Server, serving: Serving) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # what turns it off
            keepalive_timeout=75.0,
            max_line_size=limits.HTTP_LINE_BYTES,
            max_field_size=limits.HTTP_LINE_BYTES,
        )
        self._serving = serving

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if not isinstance(exc, HttpProcessingError) or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        self._serving.tally.add("http.malformed", detail=type(exc).__name__)
        if isinstance(exc, LineTooLong):
            text = f"The address or a header is longer than {limits.HTTP_LINE_BYTES} bytes."
            answer = _json_error(431, "head_too_long", text, "Shorten it; a body is the place for long values.")
        else:
            answer = _json_error(
                400, "bad_request", "This is not HTTP/1.1.", "Speak HTTP/1.1, without TLS, to this port."
            )
        _harden(answer)
        answer.force_close()
        return answer


class _Relayed(_Connection):
    """Of the process that has the public port: it logs, counts and decorates what passes."""

    __slots__ = ()
    is_relayed = True


class _HandedOver(_Connection):
    """Accepted elsewhere, for one endless answer."""

    __slots__ = ("_head",)
    is_handed_over = True

    def __init__(self, server: web.Server, serving: Serving, head: bytes) -> None:
        super().__init__(server, serving)
        self._head = head

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.data_received(self._head)


class _Refusal(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if hasattr(transport, "write"):
            body = error_body("connection_limit", "Too many connections.", "Try again later.")
            head = (
                "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 5\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            transport.write(head.encode() + body)
        transport.close()


def _open_listener(listen: str) -> socket.socket:
    try:
        host, port = host_port(listen) if not listen.endswith(":0") else (listen[:-2].strip("[]"), 0)
    except ValueError as error:
        raise ConfigError(f"http.listen: {error}") from None
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it: beyond this the kernel leaves bytes in the transport, where they can be counted.
        listener.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, limits.NOTSENT_LOWAT_BYTES)
        listener.setblocking(False)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise LocalError(
            f"cannot listen on http://{listen}: {error.strerror}",
            code="listen_failed",
            remedy="choose another http.listen, or stop what listens there",
        ) from None
    return listener


# Middlewares, outermost first


@web.middleware
async def _log_access(request: web.Request, handler: Handler) -> web.StreamResponse:
    serving = request.app[SERVING]
    serving.spoke.add(request.protocol)
    if serving.play_only:
        TICKET.set(request.headers.get(TICKET_HEADER, ""))
    if getattr(request.protocol, "is_relayed", False):
        return await handler(request)
    began = time.monotonic()
    status = 499  # the client left first
    size = 0
    try:
        response = await handler(request)
        status = response.status
        size = _size(response)
        return response
    except asyncio.CancelledError:
        status = request.get(STATUS, status)
        raise
    except ConnectionError:
        # The client left in this very moment, or the answer cannot go on. aiohttp would log a traceback for it; an
        # answer on a dead transport only ends the connection.
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=499)
    finally:
        if HANDED_OVER not in request:  # then its worker tells
            serving.tally.add(f"http.status_{status // 100}xx")
            tell = _access.debug if PATH in request and status < 400 else _access.info
            tell(
                "request",
                method=request.method,
                path=request.get(PATH, request.path),  # never the query: it may carry a token
                status=status,
                bytes=request[VIEWER].bytes if VIEWER in request else size,
                seconds=round(time.monotonic() - began, 3),
                remote=serving.remote(request),
            )


def _size(response: web.StreamResponse) -> int:
    """Bytes of the body; an ordinary answer is only sent after this is asked."""
    if response.prepared:
        return response.body_length
    return response.content_length or 0


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except GatewayError as error:
        if STATUS in request:
            raise ConnectionResetError from error
        return error_response(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _http_error(request, error)
    except (ConnectionError, asyncio.IncompleteReadError):
        raise
    except Exception as error:
        _log.exception("%s %s failed", request.method, request.path)
        request.app[SERVING].tally.add("bug")
        if STATUS in request:  # the headers are out: all that is left is to end the connection
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError from error
        return _json_error(500, "internal", "The gateway failed to answer this; its log says why.")


@web.middleware
async def _answer_preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
    """CORS preflights are answered for every path (Fetch standard); CORS headers themselves come from _decorate."""
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        if _allowed_origin(request) is None:
            return _json_error(
                403, "origin_refused", "Pages of this origin may not use this gateway.", "Add the origin to http.cors."
            )
        headers = {
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
            "Access-Control-Max-Age": "600",
        }
        return web.Response(status=204, headers=headers)
    return await handler(request)


async def _decorate(request: web.Request, response: web.StreamResponse) -> None:
    request[STATUS] = response.status
    if getattr(request.protocol, "is_relayed", False):
        return
    if getattr(request.protocol, "is_handed_over", False):
        response.force_close()  # the next request on it could be for anything
        if response.status != 101:
            response.headers["Connection"] = "close"
    headers = response.headers
    _harden(response)
    if request.app[SERVING].http.cors:
        headers.add("Vary", "Origin")
    origin = _allowed_origin(request)
    if origin is not None:
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = _EXPOSED
        headers["Cross-Origin-Resource-Policy"] = "cross-origin"


def _harden(response: web.StreamResponse) -> None:
    headers = response.headers
    headers["Server"] = "gbgw"
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Referrer-Policy", "no-referrer")
    headers.setdefault("X-Frame-Options", "SAMEORIGIN")


def _allowed_origin(request: web.Request) -> str | None:
    """What Access-Control-Allow-Origin says; None: nothing. Never with credentials: tokens travel in headers."""
    origin = request.headers.get("Origin")
    cors = request.app[SERVING].http.cors
    if origin is None:
        return None
    if "*" in cors:
        return "*"
    return origin if origin in cors else None


def _http_error(request: web.Request, error: web.HTTPException) -> web.Response:
    code = _CODES.get(error.status, "bad_request" if error.status < 500 else "internal")
    message = {
        404: "There is nothing at this address.",
        405: f"{request.method} is not possible here.",
        413: "The body is too long.",
    }.get(error.status, error.reason)
    response = _json_error(error.status, code, message)
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response


def _json_error(status: int, code: str, message: str, remedy: str = "") -> web.Response:
    return web.Response(
        status=status,
        body=error_body(code, message, remedy),
        content_type="application/json",
        charset="utf-8",
        headers={"Cache-Control": "no-store"},
    )
