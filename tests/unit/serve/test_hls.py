"""HLS over a real loopback server: playlists, pieces, sessions, starting and ending."""

import asyncio
import re

import aiohttp
import pytest

from gbgw.base import limits
from gbgw.base.errors import MediaError
from gbgw.serve import hls
from tests.support.leaks import Snapshot, settle_and_compare
from tests.support.streams import read_back
from tests.unit.serve.support import DEVICE, KEY, FakeSource, World, until, world


async def text(it: World, path: str, status: int = 200) -> str:
    async with it.client.get(it.url + path) as response:
        assert response.status == status, await response.text()
        return await response.text()


def last_line(playlist: str) -> str:
    return playlist.strip().splitlines()[-1]


@pytest.mark.parametrize("container", ["mp4", "ts"])
async def test_a_player_follows_the_uris_to_pictures(container: str) -> None:
    before = Snapshot.take()
    async with world() as it:
        it.source.cameras[KEY].push(20)
        opening = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as tasks:
            request = tasks.create_task(text(it, f"/live/{KEY}/index.m3u8?container={container}"))
            await until(lambda: len(it.serving.hls) == 1)
            await asyncio.sleep(0.05)
            it.source.cameras[KEY].push(60)
        assert asyncio.get_running_loop().time() - opening < 2
        index = request.result()
        assert 'CODECS="avc1.' in index
        assert "RESOLUTION=320x180" in index
        media_uri = last_line(index)
        assert media_uri.startswith("media.m3u8?session=")
        playlist = await text(it, f"/live/{KEY}/{media_uri}")
        session = media_uri.partition("=")[2]
        pieces = re.findall(r'(?:URI=")?([\w.-]+\.(?:mp4|m4s|ts))\?session=([\w-]+)', playlist)
        assert {found for _, found in pieces} == {session}
        body = b""
        for name, _ in pieces:
            async with it.client.get(f"{it.url}/live/{KEY}/{name}?session={session}") as response:
                assert response.status == 200
                assert response.headers["Content-Type"] == ("video/mp4" if container == "mp4" else "video/mp2t")
                assert "immutable" in response.headers["Cache-Control"]
                assert "Content-Encoding" not in response.headers
                body += await response.read()
        packets = read_back(body)
        assert packets[0].is_keyframe
        assert len(packets) >= 25
        assert it.source.opened == [(KEY, "hls", "aac", None)]
        viewers = it.serving.viewers.of(KEY)
        assert [viewer.protocol for viewer in viewers] == ["hls"]
        assert viewers[0].bytes > len(body)
    assert it.source.watching == 0
    assert await settle_and_compare(before) == []


async def opened(it: World, query: str = "") -> str:
    """Start an output and return the session id."""
    it.source.cameras[KEY].push(70)
    async with asyncio.TaskGroup() as tasks:
        request = tasks.create_task(text(it, f"/live/{KEY}/index.m3u8{query}"))
        await until(lambda: len(it.serving.hls) >= 1)
        while not request.done():
            it.source.cameras[KEY].push(5)
            await asyncio.sleep(0.01)
    return last_line(request.result()).partition("=")[2]


async def test_sessions_share_one_output_and_are_bound_to_their_key() -> None:
    async with world() as it:
        one = await opened(it)
        two = await opened(it)
        assert one != two
        assert len(it.source.viewings) == 1
        assert len(it.serving.viewers) == 2
        await text(it, f"/live/{KEY}/media.m3u8?session={one}")
        for path, status in [
            (f"/live/{KEY}/media.m3u8", 410),
            (f"/live/{KEY}/media.m3u8?session=nonsense", 410),
            (f"/live/{DEVICE}-1/media.m3u8?session={one}", 403),
            (f"/live/{KEY}/999999999999999.m4s?session={one}", 404),
            (f"/live/{KEY}/init-99.mp4?session={one}", 404),
            (f"/live/{KEY}/1.ts?session={one}", 404),
        ]:
            await text(it, path, status)


async def test_a_session_ends_without_polls_and_the_last_one_closes_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HLS_SESSION_SECONDS", 0.2)
    monkeypatch.setattr(hls, "_SWEEP_SECONDS", 0.02)
    monkeypatch.setattr(hls.HlsOutput, "session_seconds", property(lambda self: 0.2))
    async with world() as it:
        session = await opened(it)
        for _ in range(10):
            await asyncio.sleep(0.05)
            await text(it, f"/live/{KEY}/media.m3u8?session={session}")
        assert it.source.watching == 1
        await until(lambda: it.source.watching == 0)
        assert len(it.serving.hls) == 0
        assert len(it.serving.viewers) == 0
        await text(it, f"/live/{KEY}/media.m3u8?session={session}", 410)
        assert it.serving.feeds.running == ()


async def test_a_stream_that_cannot_be_opened_says_why_to_all_who_wait() -> None:
    source = FakeSource(failure=MediaError("No packet.", code="no_media", stream=KEY))
    async with world(source=source) as it:
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(text(it, f"/live/{KEY}/index.m3u8", 504)) for _ in range(3)]
        assert all('"no_media"' in request.result() for request in asked)
        assert len(it.serving.hls) == 0
        source.failure = None
        await text(it, f"/live/{KEY}/index.m3u8", 404)  # asked anew, and this camera is not there


async def test_the_wait_for_the_first_segment_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HLS_FIRST_SEGMENT_SECONDS", 0.1)
    async with world() as it:
        async with it.client.get(f"{it.url}/live/{KEY}/index.m3u8?container=ts") as response:
            assert response.status == 504
            assert (await response.json())["error"]["code"] == "no_key_frame"
        assert len(it.serving.viewers) == 0


async def test_a_stream_that_ends_closes_the_playlist_and_the_next_viewer_starts_anew() -> None:
    async with world() as it:
        session = await opened(it)
        it.source.cameras[KEY].stream.close(None)
        assert (await text(it, f"/live/{KEY}/media.m3u8?session={session}")).endswith("#EXT-X-ENDLIST\n")
        await text(it, f"/live/{KEY}/index.m3u8", 504)
        assert len(it.source.opened) == 2


@pytest.mark.parametrize("query", ["container=avi", "audio=mp3", "video=x"])
async def test_bad_queries(query: str) -> None:
    async with world() as it:
        await text(it, f"/live/{KEY}/index.m3u8?{query}", 400)
        assert it.source.opened == []


async def test_playlists_are_not_cached_and_head_begins_no_session() -> None:
    async with world() as it:
        await opened(it)
        async with it.client.head(f"{it.url}/live/{KEY}/index.m3u8") as response:
            assert response.status == 200
            assert response.headers["Content-Type"].startswith("application/vnd.apple.mpegurl")
            assert response.headers["Cache-Control"] == "no-store"
        assert len(it.serving.viewers) == 1


async def test_a_client_that_leaves_while_waiting_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HLS_SESSION_SECONDS", 0.1)
    monkeypatch.setattr(hls, "_SWEEP_SECONDS", 0.02)
    async with world() as it:
        timeout = aiohttp.ClientTimeout(total=0.1)
        with pytest.raises(TimeoutError):
            await it.client.get(f"{it.url}/live/{KEY}/index.m3u8?container=ts", timeout=timeout)
        await until(lambda: it.source.watching == 0)
        assert len(it.serving.hls) == 0
