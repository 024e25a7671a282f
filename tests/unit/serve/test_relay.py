"""Two servers in one process stand for control and a media worker: a viewer notices only one."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from gbgw.base import limits
from gbgw.base.config import HttpConfig
from gbgw.base.errors import LocalError, RequestError
from gbgw.base.tally import Tally
from gbgw.mux.feed import Feeds
from gbgw.serve.auth import Authority
from gbgw.serve.context import ELSEWHERE, TICKET, Serving
from gbgw.serve.http import NOWHERE, HttpServer
from gbgw.serve.relay import Relay
from tests.unit.serve.support import KEY, SECRET, Camera, FakeControl, FakeSource, MemoryTokens, until


class SourceWithTickets(FakeSource):
    """Keeps the ticket that each opening was asked with."""

    def __init__(self) -> None:
        super().__init__({KEY: Camera()})
        self.tickets: list[str] = []

    async def open(self, key: str, **how: Any) -> Any:
        self.tickets.append(TICKET.get())
        return await super().open(key, **how)


@dataclass
class Way:
    """A Carrier and its Carriers, a Passage too: everything that lies between the two servers."""

    back: HttpServer
    heads: list[bytes] = field(default_factory=list)
    released: int = 0
    expired: int = 0
    gone: bool = False
    failure: Exception | None = None
    number: int = 3
    ticket: str = "77.5"
    __hash__ = object.__hash__

    async def hand_over(self, connection: socket.socket, head: bytes) -> None:
        if self.failure is not None:
            raise self.failure
        self.heads.append(head)
        copy = connection.dup()
        copy.setblocking(False)
        self.back.adopt(copy, head)

    async def connect(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            await self.hand_over(theirs, b"")
        return ours

    async def passage(self, key: str) -> Any:
        if key != KEY:
            raise RequestError("no such channel", status=404, code="unknown_channel", stream=key)
        return SimpleNamespace(carrier=self, ticket=self.ticket, expire=self.expire, release=self.release)

    def expire(self) -> None:
        self.expired += 1

    def release(self) -> None:
        self.released += 1

    def carrier(self, number: int) -> "Way | None":
        return self if number == self.number and not self.gone else None

    def any_carrier(self) -> "Way":
        return self


@dataclass
class Both:
    url: str
    port: int
    front: Serving
    back: Serving
    source: SourceWithTickets
    way: Way
    client: aiohttp.ClientSession


@contextlib.asynccontextmanager
async def both(*, play: str = "open", **http: Any) -> AsyncIterator[Both]:
    source = SourceWithTickets()
    control = FakeControl()
    worker = Serving(
        source,
        ELSEWHERE,
        ELSEWHERE,
        Authority(ELSEWHERE, play="open", play_secret=SECRET),
        Feeds(),
        HttpConfig(**http),
        play_only=True,
        mark="w3-",
    )
    async with HttpServer(worker, listen=NOWHERE) as behind:
        way = Way(behind)
        async with Relay(way) as relay:
            authority = Authority(MemoryTokens(), play=play, play_secret=SECRET)  # type: ignore[arg-type]
            front = Serving(FakeSource(), control, control, authority, Feeds(), HttpConfig(**http), relay=relay)
            async with HttpServer(front, listen="127.0.0.1:0") as server, aiohttp.ClientSession() as client:
                url = f"http://127.0.0.1:{server.address[1]}"
                yield Both(url, server.address[1], front, worker, source, way, client)


@contextlib.asynccontextmanager
async def sending(it: Both) -> AsyncIterator[None]:
    """The camera sends, a hundred times as fast as it should."""

    async def run() -> None:
        while True:
            it.source.cameras[KEY].push(5)
            await asyncio.sleep(0.002)

    task = asyncio.create_task(run(), name="test:camera")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("container", ["flv", "ts", "mp4"])
async def test_an_endless_answer_is_the_workers(container: str, caplog: pytest.LogCaptureFixture) -> None:
    async with both(cors=("https://wall.example",)) as it:
        with caplog.at_level(logging.INFO):
            headers = {"Origin": "https://wall.example", "X-Gbgw-Ticket": "1", "X-Gbgw-Remote": "192.0.2.66"}
            async with it.client.get(f"{it.url}/live/{KEY}.{container}", headers=headers) as answer:
                assert answer.status == 200
                assert answer.headers["Access-Control-Allow-Origin"] == "https://wall.example"
                assert answer.headers["Connection"] == "close"
                assert len(await answer.content.readexactly(500)) == 500
                (viewer,) = it.back.viewers
                assert (viewer.remote, viewer.id) == ("127.0.0.1", answer.headers["X-Gbgw-Viewer"])
            await until(lambda: it.source.watching == 0)
        assert it.source.tickets == ["77.5"], "what a viewer says of himself is not believed"
        assert (it.way.expired, it.way.released) == (1, 0)
        assert it.front.tally["http.status_2xx"] == 0, "who answers counts and logs"
        assert it.back.tally["http.status_2xx"] == 1
        assert "Traceback" not in caplog.text


async def test_a_websocket_is_the_workers_from_its_handshake_on() -> None:
    async with both() as it:
        async with it.client.ws_connect(f"{it.url}/live/{KEY}.flv") as websocket:
            assert (await websocket.receive(5)).data.startswith(b"FLV")
            await websocket.ping()
            it.source.cameras[KEY].push(10)
            assert (await websocket.receive(5)).type is aiohttp.WSMsgType.BINARY
        await until(lambda: it.source.watching == 0)
        assert len(it.back.viewers) == 0


async def test_earlier_answers_on_the_connection_come_first() -> None:
    """Three requests at once on one connection: what was asked first is answered first, by control."""
    async with both() as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        ask = "GET {} HTTP/1.1\r\nHost: x\r\n\r\n"
        paths = ("/healthz", "/healthz", f"/live/{KEY}.flv", "/healthz")
        writer.write("".join(ask.format(path) for path in paths).encode())
        async with asyncio.timeout(5):
            data = await reader.readuntil(b"FLV\x01")
            assert data.count(b"HTTP/1.1 200 OK") == 3
            assert data.count(b'"status": "ok"') == 2
            await reader.readexactly(200)
        writer.close()
        await writer.wait_closed()
        await until(lambda: it.source.watching == 0)


async def test_errors_of_control_keep_the_connection_and_those_of_the_worker_end_it() -> None:
    async with both() as it:
        async with it.client.get(f"{it.url}/live/a-b.flv") as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (404, "unknown_channel")
            assert "Connection" not in answer.headers
        it.source.failure = LocalError("broken", code="ports_exhausted", remedy="widen", stream=KEY)
        async with it.client.get(f"{it.url}/live/{KEY}.flv") as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (503, "ports_exhausted")
            assert answer.headers["Connection"] == "close"
            assert answer.headers["Server"] == "gbgw"


async def test_a_worker_that_does_not_take_it_is_an_answer() -> None:
    async with both() as it:
        it.way.failure = LocalError("no", code="worker_lost")
        for path in (f"{KEY}.flv", f"{KEY}/index.m3u8"):
            async with it.client.get(f"{it.url}/live/{path}") as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (503, "worker_lost")
        assert (it.way.released, it.way.expired) == (2, 0)
        it.way.failure = None
        async with it.client.get(f"{it.url}/live/{KEY}.flv") as answer:
            assert answer.status == 200


async def test_playlists_and_segments_pass_control(caplog: pytest.LogCaptureFixture) -> None:
    async with both(cors=("*",)) as it, sending(it):
        base = f"{it.url}/live/{KEY}"
        with caplog.at_level(logging.INFO):
            headers = {"Origin": "https://x.example", "X-Gbgw-Remote": "192.0.2.66"}
            async with it.client.get(f"{base}/index.m3u8?viewer=the-one-that-i-chose", headers=headers) as answer:
                text = await answer.text()
                assert answer.status == 200, text
                assert answer.headers.getall("Access-Control-Allow-Origin") == ["*"]
                assert answer.headers.getall("Vary", []) == ["Origin"]
                assert answer.headers.getall("Server") == ["gbgw"]
                assert answer.headers["X-Gbgw-Viewer"] == "the-one-that-i-chose"
                assert answer.headers["Cache-Control"] == "no-store"
        (viewer,) = it.back.viewers
        assert viewer.remote == "127.0.0.1"
        assert it.source.tickets == ["77.5"], "also in the task that opens the output"
        assert (it.way.released, it.way.expired) == (1, 0)
        assert (it.front.tally["http.status_2xx"], it.back.tally["http.status_2xx"]) == (1, 0)
        media = next(line for line in text.splitlines() if line.endswith("/media.m3u8"))
        session = media.partition("/")[0]
        assert session.startswith("w3-")
        caplog.clear()
        with caplog.at_level(logging.DEBUG):
            async with it.client.get(f"{base}/{media}", headers={"Accept-Encoding": "gzip"}) as answer:
                assert answer.headers["Content-Encoding"] == "gzip"
                playlist = await answer.text()
        assert session not in caplog.text, "whoever has it may watch"
        names = [line for line in playlist.splitlines() if ".m4s" in line and not line.startswith("#")]
        async with it.client.get(f"{base}/{session}/{names[0]}", headers={"Range": "bytes=4-7"}) as answer:
            assert (answer.status, answer.headers["Content-Range"].partition("/")[0]) == (206, "bytes 4-7")
            assert await answer.read() in (b"styp", b"moof", b"sidx")
        async with it.client.get(f"{base}/{session}/{names[0]}") as answer:
            body = await answer.read()
            assert body[4:8] in (b"styp", b"moof", b"sidx")
            assert answer.headers["Content-Type"] == "video/mp4"
            assert "immutable" in answer.headers["Cache-Control"]
        it.way.gone = True  # another worker says that it knows no such session
        async with it.client.get(f"{base}/w9-{'x' * 24}/media.m3u8") as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (410, "session_expired")
        assert "Traceback" not in caplog.text


async def test_large_answers_pass_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gbgw.serve.relay._WHOLE_BYTES", 100)
    monkeypatch.setattr("gbgw.serve.relay._PIECE_BYTES", 64)
    async with both() as it, sending(it), it.client.get(f"{it.url}/live/{KEY}/index.m3u8") as answer:
        text = await answer.text()
        assert int(answer.headers["Content-Length"]) == len(text) > 100
        assert text.startswith("#EXTM3U")


async def test_tokens_origins_and_values_are_controls_matter() -> None:
    async with both(play="token") as it:
        for path in (f"{KEY}.flv", f"{KEY}/index.m3u8"):
            async with it.client.get(f"{it.url}/live/{path}") as answer:
                assert answer.status == 401
        token, _ = it.front.authority.sign_play(KEY)
        for path in (f"{KEY}.flv?audio=loud", f"{KEY}/index.m3u8?container=avi", f"{KEY}/index.m3u8?video=x"):
            async with it.client.get(f"{it.url}/live/{path}&token={token}") as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (400, "bad_query")
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await it.client.ws_connect(f"{it.url}/live/{KEY}.flv?token={token}", origin="https://foreign.example")
        assert refused.value.status == 403
        async with it.client.post(f"{it.url}/live/{KEY}/whep?token={token}", data="no offer") as answer:
            assert answer.status == 415
        assert it.way.heads == []
        async with it.client.get(f"{it.url}/live/{KEY}.flv?token={token}") as answer:
            assert answer.status == 200


async def test_the_limit_of_viewers_is_one_for_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "VIEWERS", 1)
    async with both() as it:
        it.front.viewers.add(KEY, "flv", "")
        for path in (f"{KEY}.flv", f"{KEY}/index.m3u8"):
            async with it.client.get(f"{it.url}/live/{path}") as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (503, "viewer_limit")


async def test_a_worker_has_no_other_doors() -> None:
    async with both() as it:
        ours = await it.way.connect()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        writer.write(b"GET /api/v1/devices HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(5):
            assert (await reader.read()).startswith(b"HTTP/1.1 404 ")
        writer.close()
        await writer.wait_closed()


async def test_bytes_that_follow_a_head_belong_to_the_worker() -> None:
    """A viewer may speak on at once, as WebSocket clients that do not wait for the handshake's answer."""
    async with both() as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(
            f"GET /live/{KEY}.flv HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 ")
            writer.write(b"\x88\x80\0\0\0\0")  # close, masked
            data = await reader.read()
        assert b"FLV" in data
        writer.close()
        await writer.wait_closed()
        await until(lambda: it.source.watching == 0)


async def test_connections_that_come_when_the_server_is_gone_or_full(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = Tally()
    serving = Serving(
        FakeSource(), ELSEWHERE, ELSEWHERE, Authority(ELSEWHERE, play="open", play_secret=SECRET), Feeds(), tally=tally
    )
    server = HttpServer(serving, listen=NOWHERE)
    near, far = socket.socketpair()
    with near:
        server.adopt(far, b"")
        assert far.fileno() == -1
    monkeypatch.setattr(limits, "HTTP_CONNECTIONS", 0)
    async with server:
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        server.adopt(far, b"GET / HTTP/1.1\r\n\r\n")
        reader, writer = await asyncio.open_unix_connection(sock=near)
        async with asyncio.timeout(5):
            assert b"connection_limit" in await reader.read()
        writer.close()
        await writer.wait_closed()
    assert tally["http.connections_refused"] == 1
