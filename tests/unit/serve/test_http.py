"""The server around the handlers: errors, CORS, proxies, limits, strange requests."""

import asyncio
import json
import logging

import aiohttp
import pytest
from aiohttp import web

from gbgw.base import errors, limits
from gbgw.base.errors import ConfigError, GatewayError, LimitError, LocalError, MediaError
from gbgw.serve import http
from gbgw.serve.answers import EndlessResponse, status_of
from gbgw.serve.http import HttpServer
from tests.unit.serve.support import DEVICE, KEY, FakeSource, until, world


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.RequestError("x", status=418), 418),
        (MediaError("x", code="no_media"), 504),
        (MediaError("x", code="device_offline"), 504),
        (MediaError("x", code="not_registered"), 504),
        (MediaError("x", code="invite_no_answer"), 504),
        (MediaError("x", code="invite_rejected_404"), 504),
        (MediaError("x", code="invite_rejected_486"), 409),
        (MediaError("x", code="codec_unsupported"), 406),
        (MediaError("x", code="b_frames_unsupported"), 406),
        (errors.AuthError("x"), 504),
        (LimitError("x", code="transcode_limit"), 503),
        (LimitError("x"), 503),
        (errors.PortsExhaustedError("x"), 503),
        (errors.StateError("x"), 409),
        (ConfigError("x"), 500),
    ],
)
def test_statuses(error: GatewayError, status: int) -> None:
    assert status_of(error) == status


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/live/../../etc/passwd.flv", 404),
        ("GET", "/live/%2e%2e.flv", 404),
        ("GET", "/live/" + "1" * 97 + ".flv", 404),
        ("GET", "/live/a-b-c-d.flv", 404),
        ("GET", f"/live/{KEY}@.flv", 404),
        ("GET", "/api/v1/nothing", 404),
        ("POST", "/healthz", 405),
        ("GET", f"/live/{KEY}/whep", 405),
    ],
)
async def test_what_is_not_there_is_json_too(method: str, path: str, status: int) -> None:
    async with world() as it, it.client.request(method, it.url + path) as response:
        assert response.status == status
        error = (await response.json())["error"]
        assert set(error) == {"code", "message", "remedy", "stream"}
        assert it.source.opened == []


async def test_a_bug_is_a_500_without_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    source = FakeSource()

    async def fail(*_args: object, **_options: object) -> None:
        raise ZeroDivisionError("inner secret")

    source.open = fail  # type: ignore[method-assign, assignment]
    async with world(source=source) as it:
        with caplog.at_level(logging.ERROR):
            async with it.client.get(f"{it.url}/live/{KEY}.flv") as response:
                assert response.status == 500
                text = await response.text()
        assert "secret" not in text
        assert "Traceback" not in text
        assert "ZeroDivisionError" in caplog.text
        assert it.serving.tally["bug"] == 1
        assert len(it.serving.viewers) == 0


async def test_a_client_that_leaves_before_the_headers_is_no_error(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world() as it:

        async def cut(response: EndlessResponse, request: web.BaseRequest) -> None:
            """As a transport that closes between the opening of the stream and its headers."""
            assert request.transport is not None
            request.transport.abort()
            await web.StreamResponse.prepare(response, request)

        monkeypatch.setattr(EndlessResponse, "prepare", cut)
        with caplog.at_level(logging.INFO), pytest.raises(aiohttp.ClientError):
            await it.client.get(f"{it.url}/live/{KEY}.flv")
        await until(lambda: it.serving.tally["http.status_4xx"] > 0)  # a client may try once more
        await until(lambda: it.source.watching == 0 and len(it.serving.viewers) == 0)
        assert it.serving.tally["bug"] == 0
        assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400, "bad_request"),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431, "head_too_long"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nCookie: " + b"a" * 20_000 + b"\r\n\r\n", 431, "head_too_long"),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "bad_request",
        ),
        (b"GET /healthz\0 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_request"),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(500), 400, "bad_request"),
        (b"REGISTER sip:gbgw SIP/2.0\r\n\r\n", 400, "bad_request"),
    ],
)
async def test_what_is_no_http_is_refused_and_counted(
    request_bytes: bytes, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with world() as it:
        reader, writer = await asyncio.open_connection(*it.server.address)
        writer.write(request_bytes)
        async with asyncio.timeout(3):
            answer = await reader.read()
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert int(head.split()[1]) == status
        assert b"Content-Type: application/json" in head
        assert b"X-Content-Type-Options: nosniff" in head
        assert json.loads(body)["error"]["code"] == code
        await until(lambda: it.serving.tally["http.malformed"] == 1)
        assert "Traceback" not in caplog.text


async def test_cors_is_only_what_is_configured() -> None:
    async with world(cors=("https://app.example",)) as it:
        for origin, allowed in [("https://app.example", "https://app.example"), ("https://evil.example", None)]:
            async with it.client.get(f"{it.url}/healthz", headers={"Origin": origin}) as response:
                assert response.headers.get("Access-Control-Allow-Origin") == allowed
                assert "Access-Control-Allow-Credentials" not in response.headers
            headers = {"Origin": origin, "Access-Control-Request-Method": "PATCH"}
            async with it.client.options(f"{it.url}/api/v1/devices/{DEVICE}", headers=headers) as response:
                assert response.status == (204 if allowed else 403)
        async with it.client.get(f"{it.url}/live/nothing.flv", headers={"Origin": "https://app.example"}) as response:
            assert response.status == 404
            assert response.headers["Access-Control-Allow-Origin"] == "https://app.example"
        async with it.client.get(f"{it.url}/live/{KEY}.flv", headers={"Origin": "https://app.example"}) as response:
            assert response.headers["Access-Control-Allow-Origin"] == "https://app.example"
    async with (
        world(cors=("*",)) as it,
        it.client.get(f"{it.url}/healthz", headers={"Origin": "https://any.example"}) as response,
    ):
        assert response.headers["Access-Control-Allow-Origin"] == "*"


async def test_a_proxy_may_keep_or_strip_its_prefix() -> None:
    async with world(public_url="https://video.example/gbgw") as it:
        for prefix in ("", "/gbgw"):
            for path in ("/healthz", "/api/docs", f"/live/{KEY}.flv"):
                async with it.client.get(f"{it.url}{prefix}{path}") as response:
                    assert response.status == 200, prefix + path


async def test_forwarded_addresses_are_believed_from_trusted_proxies_only() -> None:
    for trusted, expected in [((), "127.0.0.1"), (("127.0.0.0/8", "10.0.0.1"), "203.0.113.9")]:
        async with world(trusted_proxies=trusted) as it:
            headers = {"X-Forwarded-For": "1.2.3.4, 203.0.113.9, 10.0.0.1"}
            async with it.client.get(f"{it.url}/live/{KEY}.flv", headers=headers) as response:
                viewer = it.serving.viewers.get(response.headers["X-Gbgw-Viewer"])
                assert viewer is not None
                assert viewer.remote == expected


async def test_the_access_log_is_one_line_without_the_query(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[dict[str, object]] = []
    logger = type("Logger", (), {"info": lambda self, event, **values: lines.append(values)})
    monkeypatch.setattr(http, "_access", logger())
    async with world(play="token") as it:
        async with it.client.get(f"{it.url}/live/{KEY}.flv?token={it.admin}") as response:
            assert response.status == 200
        await until(lambda: it.source.watching == 0)
    (line,) = lines
    assert it.admin not in repr(line)
    assert (line["method"], line["path"], line["status"]) == ("GET", f"/live/{KEY}.flv", 200)
    assert line["bytes"] == it.serving.viewers._gone_bytes["flv"] > 0


async def raw(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(3):
            return await reader.read(65_536)
    finally:
        writer.close()


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 10_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /api/v1/devices HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ],
)
async def test_broken_requests_get_a_4xx_and_the_server_lives(data: bytes) -> None:
    async with world() as it:
        answer = await raw(it.port, data)
        assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4", b"HTTP/1.1 5")) or b" 400 " in answer[:20]
        assert b"Traceback" not in answer
        async with it.client.get(f"{it.url}/healthz") as response:
            assert response.status == 200


async def test_a_connection_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTP_HEAD_SECONDS", 0.1)
    monkeypatch.setattr(http, "_SWEEP_SECONDS", 0.02)
    async with world() as it, it.client.get(f"{it.url}/live/{KEY}.flv") as playing:
        assert await raw(it.port, b"GET /healthz HT") == b""
        assert it.serving.tally["http.silent_closed"] == 1
        assert len(it.serving.viewers) == 1
        assert playing.status == 200


async def test_connections_have_a_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as it:
        monkeypatch.setattr(limits, "HTTP_CONNECTIONS", 0)
        answer = await raw(it.port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503")
        assert json.loads(body)["error"]["code"] == "connection_limit"
        assert it.serving.tally["http.connections_refused"] == 1


async def test_viewers_have_a_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "VIEWERS", 1)
    async with world() as it, it.client.get(f"{it.url}/live/{KEY}.flv") as first:
        assert first.status == 200
        async with it.client.get(f"{it.url}/live/{KEY}.flv") as second:
            assert second.status == 503
            assert second.headers["Retry-After"]
            assert (await second.json())["error"]["code"] == "viewer_limit"


async def test_a_port_in_use_is_one_clear_error() -> None:
    async with world() as it:
        server = HttpServer(it.serving, listen=f"127.0.0.1:{it.port}")
        with pytest.raises(LocalError, match="in use"):
            await server.__aenter__()


async def test_security_headers_are_on_everything() -> None:
    async with world() as it:
        for path in ("/", "/healthz", "/nothing.txt", f"/live/{KEY}.flv"):
            async with it.client.get(it.url + path) as response:
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert response.headers["Referrer-Policy"] == "no-referrer"
                assert response.headers["Server"] == "gbgw"


async def test_a_bug_after_the_headers_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with world() as it:

        def events(_after: int | None = None) -> None:
            raise ZeroDivisionError

        it.control.events = events  # type: ignore[method-assign, assignment]
        with pytest.raises(aiohttp.ClientPayloadError):
            async with it.client.get(f"{it.url}/api/v1/events", headers=it.bearer()) as response:
                await response.content.read()
        assert it.serving.tally["bug"] == 1
        assert it.serving.event_streams == 0
        assert "ZeroDivisionError" in caplog.text
