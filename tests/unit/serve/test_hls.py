"""HLS over a real loopback server: playlists, pieces, sessions, starting and ending."""

import asyncio
import random
import re
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from gbgw.base import limits
from gbgw.base.errors import MediaError
from gbgw.serve import hls_output, http
from tests.support import m3u8
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
        session = media_uri.removesuffix("/media.m3u8")
        assert re.fullmatch(r"[\w-]{24}", session)
        playlist = m3u8.read(await text(it, f"/live/{KEY}/{media_uri}"))
        init = playlist.entries[0].map
        body = b""
        for name in [*([init] if init else []), *[entry.uri for entry in playlist.entries]]:
            async with it.client.get(f"{it.url}/live/{KEY}/{session}/{name}") as response:
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
    return last_line(request.result()).removesuffix("/media.m3u8")


async def test_sessions_share_one_output_and_are_bound_to_their_key() -> None:
    async with world() as it:
        one = await opened(it)
        two = await opened(it)
        assert one != two
        assert len(it.source.viewings) == 1
        assert len(it.serving.viewers) == 2
        await text(it, f"/live/{KEY}/{one}/media.m3u8")
        for path, status in [
            (f"/live/{KEY}/media.m3u8", 404),
            (f"/live/{KEY}/{'n' * 24}/media.m3u8", 410),
            (f"/live/{DEVICE}-1/{one}/media.m3u8", 403),
            (f"/live/{KEY}/{one}/999999999999999.m4s", 404),
            (f"/live/{KEY}/{one}/p999999999999999.m4s", 404),
            (f"/live/{KEY}/{one}/init-99.mp4", 404),
            (f"/live/{KEY}/{one}/1.ts", 404),
        ]:
            await text(it, path, status)


async def test_a_session_ends_without_polls_and_the_last_one_closes_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HLS_SESSION_SECONDS", 0.2)
    monkeypatch.setattr(hls_output, "_SWEEP_SECONDS", 0.02)
    monkeypatch.setattr(hls_output.HlsOutput, "session_seconds", property(lambda self: 0.2))
    async with world() as it:
        session = await opened(it)
        for _ in range(10):
            await asyncio.sleep(0.05)
            await text(it, f"/live/{KEY}/{session}/media.m3u8")
        assert it.source.watching == 1
        await until(lambda: it.source.watching == 0)
        assert len(it.serving.hls) == 0
        assert len(it.serving.viewers) == 0
        await text(it, f"/live/{KEY}/{session}/media.m3u8", 410)
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
        assert (await text(it, f"/live/{KEY}/{session}/media.m3u8")).endswith("#EXT-X-ENDLIST\n")
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
    monkeypatch.setattr(hls_output, "_SWEEP_SECONDS", 0.02)
    async with world() as it:
        timeout = aiohttp.ClientTimeout(total=0.1)
        with pytest.raises(TimeoutError):
            await it.client.get(f"{it.url}/live/{KEY}/index.m3u8?container=ts", timeout=timeout)
        await until(lambda: it.source.watching == 0)
        assert len(it.serving.hls) == 0


# Low latency


async def get(it: World, path: str, status: int = 200, **headers: str) -> tuple[aiohttp.ClientResponse, bytes]:
    async with it.client.get(it.url + path, headers={k.replace("_", "-"): v for k, v in headers.items()}) as response:
        body = await response.read()
        assert response.status == status, body[:300]
        return response, body


async def read(it: World, session: str, query: str = "") -> m3u8.Playlist:
    return m3u8.read(await text(it, f"/live/{KEY}/{session}/media.m3u8{query}"))


async def test_a_reload_is_held_until_the_playlist_has_it() -> None:
    async with world() as it:
        session = await opened(it)
        camera = it.source.cameras[KEY]
        found = await read(it, session)
        sequence, part = found.last_part
        async with asyncio.TaskGroup() as tasks:
            query = f"?_HLS_msn={sequence}&_HLS_part={part + 1}"
            held = tasks.create_task(read(it, session, query))
            whole = tasks.create_task(read(it, session, f"?_HLS_msn={sequence + 1}"))
            output = next(iter(it.serving.hls._outputs.values()))
            await until(lambda: output.sessions[session].waits == 2)
            assert not held.done()
            while not held.done():
                camera.push(1)
                await asyncio.sleep(0.002)
            assert held.result().last_part >= (sequence, part + 1) or held.result().last_part[0] > sequence
            assert not whole.done()
            while not whole.done():
                camera.push(5)
                await asyncio.sleep(0.002)
        assert whole.result().entries[-1].sequence >= sequence + 1
        assert output.sessions[session].waits == 0


async def test_the_hinted_part_is_held_until_it_exists() -> None:
    async with world() as it:
        session = await opened(it)
        camera = it.source.cameras[KEY]
        viewing = it.serving.hls.sessions[session]
        for _ in range(12):  # over segments' ends: the hint is always right
            hint = (await read(it, session)).hint
            async with asyncio.TaskGroup() as tasks:
                held = tasks.create_task(get(it, f"/live/{KEY}/{session}/{hint}"))
                await until(lambda: viewing.waits == 1)
                while not held.done():
                    camera.push(1)
                    await asyncio.sleep(0.002)
            response, body = held.result()
            assert "immutable" in response.headers["Cache-Control"]
            found = await read(it, session)
            assert hint in [part.uri for entry in [*found.entries, found.open] if entry for part in entry.parts]
            assert body.startswith(b"\0\0\0\x68moof")


@pytest.mark.parametrize(
    "query",
    ["_HLS_msn=99999999999", "_HLS_part=1", "_HLS_msn=x", "_HLS_msn=-1", "_HLS_msn=1&_HLS_part=1e9", "_HLS_msn="],
)
async def test_directives_that_make_no_sense_are_refused(query: str) -> None:
    async with world() as it:
        session = await opened(it)
        await text(it, f"/live/{KEY}/{session}/media.m3u8?{query}", 400)
        await text(it, f"/live/{KEY}/{session}/media.m3u8?_HLS_other=1")


async def test_directives_mean_nothing_to_plain_hls() -> None:
    async with world() as it:
        session = await opened(it, "?container=ts")
        found = await read(it, session, "?_HLS_msn=99999999999&_HLS_part=0&_HLS_skip=YES")
        assert (found.part_target, found.skipped) == (None, 0)


async def test_a_session_holds_a_bounded_number_of_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hls_output, "WAIT_DURATIONS", 0.1)
    async with world() as it:
        session = await opened(it)
        sequence = (await read(it, session)).last_part[0]
        path = f"/live/{KEY}/{session}/media.m3u8?_HLS_msn={sequence + 1}"
        answers: list[int] = []

        async def ask() -> None:
            async with it.client.get(it.url + path) as response:
                answers.append(response.status)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(limits.HLS_SESSION_WAITS + 3):
                tasks.create_task(ask())
        assert sorted(answers) == [429] * 3 + [503] * limits.HLS_SESSION_WAITS
        output = next(iter(it.serving.hls._outputs.values()))
        assert output.sessions[session].waits == 0


async def test_a_client_that_leaves_frees_its_place() -> None:
    async with world() as it:
        session = await opened(it)
        sequence = (await read(it, session)).last_part[0]
        output = next(iter(it.serving.hls._outputs.values()))
        timeout = aiohttp.ClientTimeout(total=0.1)
        with pytest.raises(TimeoutError):
            await it.client.get(f"{it.url}/live/{KEY}/{session}/media.m3u8?_HLS_msn={sequence + 1}", timeout=timeout)
        await until(lambda: output.sessions[session].waits == 0)


async def test_who_waits_learns_of_the_end() -> None:
    async with world() as it:
        session = await opened(it)
        output = next(iter(it.serving.hls._outputs.values()))
        while output.segmenter._pending:  # until a part has just ended, so that nothing follows it
            it.source.cameras[KEY].push(1)
        found = await read(it, session)
        async with asyncio.TaskGroup() as tasks:
            held = tasks.create_task(read(it, session, f"?_HLS_msn={found.last_part[0] + 1}"))
            hint = tasks.create_task(text(it, f"/live/{KEY}/{session}/{found.hint}", 404))
            await until(lambda: output.sessions[session].waits == 2)
            it.source.cameras[KEY].stream.close(None)
        assert held.result().ended
        assert "segment_gone" in hint.result()


async def test_leaving_the_server_ends_what_is_held() -> None:
    async with world() as it:
        session = await opened(it)
        sequence = (await read(it, session)).last_part[0]
        async with asyncio.TaskGroup() as tasks:
            held = tasks.create_task(text(it, f"/live/{KEY}/{session}/media.m3u8?_HLS_msn={sequence + 1}", 503))
            output = next(iter(it.serving.hls._outputs.values()))
            await until(lambda: output.sessions[session].waits == 1)
            it.serving.hls.close()
        assert "media_stopped" in held.result()


async def test_a_session_that_nobody_reads_is_soon_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HLS_UNPOLLED_SECONDS", 0.1)
    monkeypatch.setattr(hls_output, "_SWEEP_SECONDS", 0.02)
    async with world() as it:
        session = await opened(it)
        await until(lambda: len(it.serving.viewers) == 0)
        await text(it, f"/live/{KEY}/{session}/media.m3u8", 410)


async def test_playlists_are_packed_where_asked_for() -> None:
    async with world() as it:
        session = await opened(it)
        path = f"/live/{KEY}/{session}/media.m3u8"
        plain, whole = await get(it, path, Accept_Encoding="identity")
        packed, same = await get(it, path, Accept_Encoding="br, gzip;q=0.5")
        refused, also = await get(it, path, Accept_Encoding="gzip;q=0, br")
        assert "Content-Encoding" not in plain.headers
        assert packed.headers["Content-Encoding"] == "gzip"
        assert "Content-Encoding" not in refused.headers
        assert {plain.headers["Vary"], packed.headers["Vary"]} == {"Accept-Encoding"}
        assert whole == same == also
        assert int(packed.headers["Content-Length"]) < len(whole)


async def test_ranges_and_heads_of_pieces() -> None:
    async with world() as it:
        session = await opened(it)
        uri = (await read(it, session)).entries[-1].uri
        path = f"/live/{KEY}/{session}/{uri}"
        response, whole = await get(it, path)
        size = len(whole)
        assert response.headers["Accept-Ranges"] == "bytes"
        for wanted, first, last in [
            ("0-1", 0, 1),
            ("10-", 10, size - 1),
            ("-5", size - 5, size - 1),
            ("5-99999999", 5, size - 1),
        ]:
            response, body = await get(it, path, 206, Range=f"bytes={wanted}")
            assert body == whole[first : last + 1]
            assert response.headers["Content-Range"] == f"bytes {first}-{last}/{size}"
        response, _ = await get(it, path, 416, Range=f"bytes={size}-")
        assert response.headers["Content-Range"] == f"bytes */{size}"
        for odd in ("bytes=x", "lines=1-2", "bytes=1-2,5-6"):
            assert (await get(it, path, 200, Range=odd))[1] == whole
        async with it.client.head(it.url + path) as head:
            assert (head.status, head.headers["Content-Length"]) == (200, str(size))
            assert await head.read() == b""


async def test_a_client_that_does_not_read_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HLS_SEND_SECONDS", 0.2)
    async with world() as it:
        session = await opened(it)
        output = next(iter(it.serving.hls._outputs.values()))
        playlist = output.segmenter.playlist
        sequence = playlist.segments[-1].sequence
        playlist._segments[-1] = replace(playlist.segments[-1], data=bytes(32 << 20))  # more than any kernel takes
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(f"GET /live/{KEY}/{session}/{sequence}.m4s HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await until(lambda: it.serving.tally.counts["http.viewer_stalled"] == 1)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(32 << 20)
        writer.close()


async def test_polls_leave_the_log_quiet_and_never_show_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[tuple[str, str, dict[str, Any]]] = []

    class Logger:
        def info(self, event: str, **values: Any) -> None:
            lines.append(("info", event, values))

        def debug(self, event: str, **values: Any) -> None:
            lines.append(("debug", event, values))

    monkeypatch.setattr(http, "_access", Logger())
    monkeypatch.setattr(hls_output, "_access", Logger())
    async with world() as it:
        session = await opened(it)
        await text(it, f"/live/{KEY}/{session}/media.m3u8")
        await text(it, f"/live/{KEY}/{session}/p99999.m4s", 404)
    assert [(level, values.get("path"), values.get("status")) for level, _, values in lines[:3]] == [
        ("info", f"/live/{KEY}/index.m3u8", 200),
        ("debug", f"/live/{KEY}/-/media.m3u8", 200),
        ("info", f"/live/{KEY}/-/p99999.m4s", 404),
    ]
    (_, event, ended) = lines[3]
    assert (event, ended["stream"], ended["bytes"] > 100) == ("hls session ended", KEY, True)
    assert session not in repr(lines)


async def test_it_works_behind_a_base_path() -> None:
    async with world(public_url="https://example.net/video") as it:
        it.source.cameras[KEY].push(30)
        index = await text(it, f"/video/live/{KEY}/index.m3u8")
        found = m3u8.read(await text(it, f"/video/live/{KEY}/{last_line(index)}"))
        session = last_line(index).removesuffix("/media.m3u8")
        await get(it, f"/video/live/{KEY}/{session}/{found.entries[0].uri}")


@pytest.mark.parametrize("seed", range(3))
async def test_live_playlists_under_random_polling(seed: int) -> None:
    """Four clients that know the rules read, block, skip and stay away as they like; none ever sees one broken."""
    async with world() as it:
        camera = it.source.cameras[KEY]
        sessions = [await opened(it) for _ in range(4)]
        going = True

        async def client(session: str, chance: random.Random) -> int:
            watcher = m3u8.Watcher()
            blocked = 0
            while going:
                query = []
                last = watcher.last
                if last is not None and chance.random() < 0.8:
                    sequence, part = last.last_part
                    query.append(f"_HLS_msn={sequence}&_HLS_part={part + 1}")
                    blocked += 1
                if last is not None and last.hint and chance.random() < 0.5:
                    query.append("_HLS_skip=YES")
                found = watcher.take(await text(it, f"/live/{KEY}/{session}/media.m3u8?{'&'.join(query)}"))
                if chance.random() < 0.3:
                    part_uris = [part.uri for entry in found.entries[-2:] for part in entry.parts]
                    for uri in part_uris[-3:]:
                        await get(it, f"/live/{KEY}/{session}/{uri}")
                if chance.random() < 0.1:
                    await asyncio.sleep(chance.uniform(0, 0.05))
            return blocked

        async with asyncio.TaskGroup() as tasks:
            clients = [
                tasks.create_task(client(session, random.Random(seed * 10 + number)))
                for number, session in enumerate(sessions)
            ]
            for _ in range(25 * 30):  # half a minute of pictures
                camera.push(1)
                await asyncio.sleep(0.001)
            going = False
            camera.stream.close(None)
        assert min(task.result() for task in clients) > 20
