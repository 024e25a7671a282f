"""Endless answers over a real loopback server: framing, starting, ending, and the viewer who does not read."""

import asyncio
import socket

import aiohttp
import pytest

from gbgw.base import limits
from gbgw.base.errors import MediaError, RequestError
from tests.support.leaks import Snapshot, settle_and_compare
from tests.support.streams import Viewer, read_back
from tests.unit.serve.support import KEY, Camera, FakeSource, until, world


async def read_some(response: aiohttp.ClientResponse, size: int) -> bytes:
    async with asyncio.timeout(3):
        return await response.content.readexactly(size)


@pytest.mark.parametrize(
    ("container", "content_type"), [("flv", "video/x-flv"), ("mp4", "video/mp4"), ("ts", "video/mp2t")]
)
async def test_the_body_is_the_feeds_bytes_unframed(container: str, content_type: str) -> None:
    before = Snapshot.take()
    async with world() as it:
        camera = it.source.cameras[KEY]
        reference = Viewer()
        handle = it.serving.feeds.get(camera.stream, container).attach(reference)
        async with it.client.get(f"{it.url}/live/{KEY}.{container}") as response:
            assert response.status == 200
            assert response.headers["Content-Type"] == content_type
            assert response.headers["Connection"] == "close"
            assert response.headers["Cache-Control"] == "no-store"
            assert "Transfer-Encoding" not in response.headers
            assert "Content-Length" not in response.headers
            await until(lambda: len(it.serving.fanouts) == 1)
            camera.push(20)
            body = await read_some(response, len(reference.data))
            assert body == reference.data
            assert len(read_back(body)) >= 30
            viewer = it.serving.viewers.get(response.headers["X-Gbgw-Viewer"])
            assert viewer is not None
            assert (viewer.protocol, viewer.bytes) == (container, len(body))
        await until(lambda: it.source.watching == 0)
        assert len(it.serving.viewers) == 0
        assert len(it.serving.fanouts) == 0
        handle.detach()
        assert it.serving.feeds.running == ()
    assert await settle_and_compare(before) == []


@pytest.mark.parametrize("container", ["flv", "mp4", "ts"])
async def test_websocket_carries_the_same_bytes(container: str) -> None:
    async with world() as it:
        camera = it.source.cameras[KEY]
        reference = Viewer()
        it.serving.feeds.get(camera.stream, container).attach(reference)
        async with it.client.ws_connect(f"{it.url}/live/{KEY}.{container}") as websocket:
            await until(lambda: len(it.serving.viewers) == 1 and len(it.serving.fanouts) == 1)
            await asyncio.sleep(0.05)
            camera.push(20)
            body = b""
            async with asyncio.timeout(3):
                while len(body) < len(reference.data):
                    message = await websocket.receive()
                    assert message.type is aiohttp.WSMsgType.BINARY
                    body += message.data
            assert body == reference.data
            await websocket.ping()
            assert it.source.opened[0][1] == f"ws-{container}"
        await until(lambda: it.source.watching == 0)


async def test_the_streams_end_ends_http_and_tells_websocket_why() -> None:
    async with world() as it:
        camera = it.source.cameras[KEY]
        async with (
            it.client.get(f"{it.url}/live/{KEY}.flv") as response,
            it.client.ws_connect(f"{it.url}/live/{KEY}.flv") as websocket,
        ):
            await until(lambda: len(it.serving.viewers) == 2)
            await websocket.receive_bytes()
            camera.stream.close(MediaError("It stopped.", code="media_stopped"))
            async with asyncio.timeout(3):
                body = await response.content.read()
                while (message := await websocket.receive()).type is aiohttp.WSMsgType.BINARY:
                    pass
            assert body.startswith(b"FLV\x01")
            assert message.type is aiohttp.WSMsgType.CLOSE
            assert (message.data, message.extra) == (1011, "media_stopped")
        await until(lambda: it.source.watching == 0)


async def test_no_headers_before_the_stream_is_playable() -> None:
    source = FakeSource(failure=MediaError("No packet came.", code="no_media", remedy="Look.", stream=KEY))
    async with world(source=source) as it:
        async with it.client.get(f"{it.url}/live/{KEY}.flv") as response:
            assert response.status == 504
            assert await response.json() == {
                "error": {"code": "no_media", "message": "No packet came.", "remedy": "Look.", "stream": KEY}
            }
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await it.client.ws_connect(f"{it.url}/live/{KEY}.flv")
        assert refused.value.status == 504
        source.failure = RequestError("Busy.", status=409, code="busy")
        async with it.client.get(f"{it.url}/live/{KEY}.flv") as response:
            assert response.status == 409
        assert len(it.serving.viewers) == 0


async def test_a_stream_that_has_ended_is_an_error_not_an_empty_body() -> None:
    async with world() as it:
        it.source.cameras[KEY].stream.close(MediaError("Gone.", code="media_stopped"))
        async with it.client.get(f"{it.url}/live/{KEY}.flv") as response:
            assert response.status == 504
            assert (await response.json())["error"]["code"] == "media_stopped"
        assert it.source.watching == 0


async def test_head_opens_the_stream_and_sends_headers_only() -> None:
    async with world() as it:
        async with it.client.head(f"{it.url}/live/{KEY}.flv") as response:
            assert response.status == 200
            assert response.headers["Content-Type"] == "video/x-flv"
            assert await response.read() == b""
        await until(lambda: it.source.watching == 0)
        async with it.client.head(f"{it.url}/live/{KEY[:-1]}9.flv") as response:
            assert response.status == 404


async def test_the_query_picks_audio_video_and_the_hevc_form() -> None:
    async with world() as it:
        for query in ("", "?audio=native&video=h264", "?hevc=legacy"):
            async with it.client.get(f"{it.url}/live/{KEY}.flv{query}") as response:
                assert response.status == 200
        assert it.source.opened == [
            (KEY, "flv", "aac", None),
            (KEY, "flv", "native", "h264"),
            (KEY, "flv", "aac", None),
        ]
        for query in ("audio=mp3", "video=vp9", "hevc=maybe"):
            async with it.client.get(f"{it.url}/live/{KEY}.flv?{query}") as response:
                assert response.status == 400
                assert (await response.json())["error"]["code"] == "bad_query"
        assert len(it.source.opened) == 3


async def test_accepted_sockets_keep_little_in_the_kernel() -> None:
    async with world() as it, it.client.get(f"{it.url}/live/{KEY}.flv") as response:
        assert response.status == 200
        assert it.server._runner is not None
        assert it.server._runner.server is not None
        transport = it.server._runner.server.connections[0].transport
        assert transport is not None
        accepted = transport.get_extra_info("socket")
        lowat = accepted.getsockopt(socket.IPPROTO_TCP, getattr(socket, "TCP_NOTSENT_LOWAT", 25))
        assert lowat == limits.NOTSENT_LOWAT_BYTES


async def test_a_slow_reader_skips_to_a_key_frame_and_never_delays_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A raw socket that stops reading: its buffer stays bounded, the other viewer gets every byte at once, and what the
    slow one reads afterwards is whole FLV tags with a gap that ends at a key frame.
    """
    monkeypatch.setattr(limits, "VIEWER_BUFFER_BYTES", 64 << 10)
    async with world() as it:
        camera = it.source.cameras[KEY]
        reference = Viewer()
        it.serving.feeds.get(camera.stream, "flv").attach(reference)
        loop = asyncio.get_running_loop()
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
        slow.setblocking(False)
        with slow:
            await loop.sock_connect(slow, ("127.0.0.1", it.port))
            await loop.sock_sendall(slow, f"GET /live/{KEY}.flv HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await until(lambda: len(it.serving.viewers) == 1)
            async with it.client.get(f"{it.url}/live/{KEY}.flv") as response:
                await until(lambda: sum(len(fanout) for fanout in it.serving.fanouts) == 2)
                slow_viewer = next(
                    viewer for viewer in it.serving.viewers.of(KEY) if viewer.id != response.headers["X-Gbgw-Viewer"]
                )
                fast = b""
                burst = peak = slow_viewer.queue()
                for _ in range(400):
                    camera.push(5)
                    peak = max(peak, slow_viewer.queue())
                    async with asyncio.timeout(1):
                        while len(fast) < len(reference.data):
                            fast += await response.content.readany()
                    if slow_viewer.dropped > 100:
                        break
                assert fast == reference.data
                assert slow_viewer.skips >= 1
                assert slow_viewer.dropped > 100
                largest = max(len(chunk.data) for chunk in reference.chunks)
                assert peak <= burst + (64 << 10) + 2 * largest
                body = await drain(loop, slow)
                camera.push(100)
                body += await drain(loop, slow)
                camera.push(100)
                body += await drain(loop, slow)
            head, _, flv = body.partition(b"\r\n\r\n")
            assert b"transfer-encoding" not in head.lower()
            packets = read_back(flv)
            times = [packet.dts for packet in packets]
            gaps = [index for index in range(1, len(times)) if times[index] - times[index - 1] > 41]
            assert gaps
            assert all(packets[index].is_keyframe for index in gaps)
            assert times == sorted(times)


async def drain(loop: asyncio.AbstractEventLoop, reader: socket.socket) -> bytes:
    body = b""
    try:
        async with asyncio.timeout(0.5) as patience:
            while True:
                part = await loop.sock_recv(reader, 65_536)
                assert part
                body += part
                patience.reschedule(loop.time() + 0.3)
    except TimeoutError:
        return body


async def test_foreign_pages_may_not_open_websockets() -> None:
    async with world(cors=("https://app.example",)) as it:
        for origin, status in [("https://evil.example", 403), ("null", 403)]:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await it.client.ws_connect(f"{it.url}/live/{KEY}.flv", origin=origin)
            assert refused.value.status == status
        for origin in ("https://app.example", it.url):
            async with it.client.ws_connect(f"{it.url}/live/{KEY}.flv", origin=origin) as websocket:
                assert (await websocket.receive_bytes())[:3] == b"FLV"


async def test_stopping_the_server_ends_its_viewers_at_once() -> None:
    loop = asyncio.get_running_loop()
    async with world(source=FakeSource({KEY: Camera()})) as it:
        response = await it.client.get(f"{it.url}/live/{KEY}.flv")
        await until(lambda: len(it.serving.viewers) == 1)
        began = loop.time()
    assert loop.time() - began < 2.0
    assert it.source.watching == 0
    response.close()


async def test_a_player_may_choose_the_id_of_its_row() -> None:
    async with world() as it:
        wanted = "0123456789abcdef-player"
        async with it.client.ws_connect(f"{it.url}/live/{KEY}.flv?viewer={wanted}") as websocket:
            await websocket.receive_bytes()
            own = await it.json("GET", f"/api/v1/streams/{KEY}/viewers/{wanted}")
            assert (own["protocol"], own["key"]) == ("ws-flv", KEY)
            for taken_or_unfit in (wanted, "short", "x" * 65, "0123456789abcdef/.."):
                async with it.client.get(f"{it.url}/live/{KEY}.flv", params={"viewer": taken_or_unfit}) as response:
                    assert response.headers["X-Gbgw-Viewer"] != taken_or_unfit
