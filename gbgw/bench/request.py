"""The few HTTP requests a benchmark makes of the gateway's API: one connection each, never many at once."""

import asyncio
import json
import socket
from typing import Any, Final
from urllib.parse import urlsplit

from gbgw.base.errors import LocalError, PeerError

REQUEST_SECONDS: Final = 60.0  # a stream's own deadlines, each with its cause, are over before


def play_request(url: str) -> tuple[tuple[str, int], bytes]:
    """Return where to connect to and what to send to play `url` by HTTP."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise PeerError(f"{url!r} is no http:// URL", code="url_unusable", remedy="give http://HOST[:PORT]/PATH")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    head = f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: gbgw-bench\r\nAccept: */*\r\n\r\n"
    return (parts.hostname, parts.port or 80), head.encode()


def connect(address: tuple[str, int], seconds: float = 5.0) -> socket.socket:
    """Return a TCP connection. LocalError says what is wrong with the address."""
    try:
        connection = socket.create_connection(address, seconds)
    except OSError as error:
        raise LocalError(
            f"no connection to {address[0]}:{address[1]}: {error.strerror or error}",
            code="no_connection",
            remedy="check that the server runs and the address is right",
        ) from error
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Api:
    """The gateway's API. url: its root. token: with scope admin."""

    def __init__(self, url: str, token: str) -> None:
        self._address, _ = play_request(url)
        self._token = token

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """Return the answer's JSON. PeerError with the server's own words when it refuses."""
        data = b"" if body is None else json.dumps(body).encode()
        status, answer = await self._exchange(method, f"/api/v1{path}", data, "application/json")
        if status >= 300:
            raise PeerError(_reason(status, answer, f"{method} {path}"), code="api_refused")
        return json.loads(answer) if answer else None

    async def vars(self) -> Any:
        """Return /debug/vars."""
        _, answer = await self._exchange("GET", "/debug/vars", b"", "")
        return json.loads(answer)

    async def post(self, path: str, body: bytes, content_type: str) -> tuple[int, bytes]:
        return await self._exchange("POST", path, body, content_type)

    async def _exchange(self, method: str, path: str, body: bytes, content_type: str) -> tuple[int, bytes]:
        host, port = self._address
        head = [f"{method} {path} HTTP/1.1", f"Host: {host}:{port}", f"Authorization: Bearer {self._token}"]
        head += ["Connection: close", f"Content-Length: {len(body)}"]
        if content_type:
            head.append(f"Content-Type: {content_type}")
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                reader, writer = await asyncio.open_connection(host, port)
                try:
                    writer.write("\r\n".join([*head, "", ""]).encode() + body)
                    answer = await reader.read()
                finally:
                    writer.close()
        except TimeoutError:
            raise PeerError(
                f"{method} {path} was not answered in {REQUEST_SECONDS:.0f} s",
                code="api_silent",
                remedy="the machine may be too busy; ask for less",
            ) from None
        top, _, rest = answer.partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" in top.lower():
            rest = _joined(rest)
        return int(top.split(b" ", 2)[1]), rest


def _joined(data: bytes) -> bytes:
    """Take the chunks of RFC 9112 section 7.1 apart."""
    out = []
    while data:
        line, _, data = data.partition(b"\r\n")
        size = int(line.partition(b";")[0] or b"0", 16)
        if not size:
            break
        out.append(data[:size])
        data = data[size + 2 :]
    return b"".join(out)


def _reason(status: int, answer: bytes, what: str) -> str:
    try:
        error = json.loads(answer)["error"]
        return f"{what}: {status} {error['code']}: {error['message']}"
    except (ValueError, KeyError, TypeError):
        return f"{what}: {status}"
