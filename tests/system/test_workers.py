"""Media in worker processes (`media.workers`): one port for everything, no worker and no camera left behind."""

import asyncio
import contextlib
import json
import os
import re
import resource
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from gbgw.base.codec import H265
from gbgw.base.config import port_range
from gbgw.base.errors import ConfigError, GatewayError
from gbgw.device.fleet import Fleet, FleetOptions
from gbgw.device.options import DeviceOptions
from gbgw.gateway import Gateway
from gbgw.worker.shares import divide
from tests.support import leaks
from tests.support.peer import Camera, Text
from tests.support.process import Command, command, descendants, free_port, is_bound, is_running
from tests.support.whep import Player
from tests.system.conftest import CHANNEL, DEVICE, FIRST_PORT, KEY, PASSWORD, configuration, http_get
from tests.system.steps import Sender, all_back, ends, fact, online, opened, playing, sending
from tests.system.test_cli import run, served, url_of
from tests.system.test_metrics import scrape
from tests.system.test_webrtc import pack

GatewayAt = Callable[..., Any]
SDP = {"Content-Type": "application/sdp"}
two = pytest.mark.parametrize("workers", [2], indirect=True)
one = pytest.mark.parametrize("workers", [1], indirect=True)


def device(number: int) -> str:
    return f"340200000013200{number:05}"


def key_of(device_id: str) -> str:
    return f"{device_id}-{CHANNEL}"


class Automaton:
    """A camera that answers whatever it is invited to and sends until BYE; counts both."""

    def __init__(self, gateway: Any, camera: Camera) -> None:
        self.gateway = gateway
        self.camera = camera
        self.invited_at: list[float] = []
        self.ended_at: list[float] = []
        self.sender: Sender | None = None
        self.pace = 0.04

    @property
    def key(self) -> str:
        return key_of(self.camera.id)

    async def run(self) -> None:
        """One call after the other, as a camera with one stream has them."""
        while True:
            invite = await self.camera.expect("INVITE", 3_600)
            self.invited_at.append(time.monotonic())
            await self.camera.answer_invite(invite, seconds=20)
            async with asyncio.TaskGroup() as tasks:
                send = tasks.create_task(self._send(invite), name="test:send")
                bye = await self.camera.expect("BYE", 3_600)
                self.ended_at.append(time.monotonic())
                send.cancel()
            self.sender = None
            self.camera.respond(bye, 200)

    async def _send(self, invite: Text) -> None:
        sender = Sender(self.camera, invite)
        sender.udp = await self.camera.media_udp(sender.target)
        self.sender = sender
        try:
            while True:
                await sender.one()
                await asyncio.sleep(self.pace)
        finally:
            await self.camera.close_media()


@asynccontextmanager
async def automata(gateway: Any, count: int, pace: float = 0.04) -> AsyncIterator[list[Automaton]]:
    async with AsyncExitStack() as stack:
        found = [
            Automaton(gateway, await stack.enter_async_context(online(gateway, device(number))))
            for number in range(count)
        ]
        async with asyncio.TaskGroup() as tasks:
            running = []
            for each in found:
                each.pace = pace
                running.append(tasks.create_task(each.run(), name="test:camera"))
            try:
                yield found
            finally:
                for task in running:
                    task.cancel()


async def read(answer: aiohttp.ClientResponse, size: int, seconds: float = 5.0) -> bytes:
    async with asyncio.timeout(seconds):
        return await answer.content.readexactly(size)


def worker_of(gateway: Any, key: str) -> int:
    return int(gateway.last_session(key).ingest.worker)


async def gone(pid: int, seconds: float) -> None:
    await fact(lambda: not is_running(pid), f"the end of process {pid}", seconds)


# One public port for all


@two
async def test_every_output_comes_through_the_one_port(gateway_at: GatewayAt) -> None:
    async with gateway_at("http.cors=['https://wall.example']") as gateway, online(gateway) as camera:
        base = f"{gateway.http_url}/live/{KEY}"
        async with playing(gateway, camera, make=pack), aiohttp.ClientSession() as client:
            for container, magic in (("flv", b"FLV"), ("ts", b"\x47"), ("mp4", b"\0\0\0")):
                wanted = f"page-chose-this-{container}"
                headers = {"Origin": "https://wall.example"}
                async with client.get(f"{base}.{container}?viewer={wanted}", headers=headers) as answer:
                    assert answer.status == 200
                    assert answer.headers["Access-Control-Allow-Origin"] == "https://wall.example"
                    assert answer.headers["X-Gbgw-Viewer"] == wanted
                    assert (await read(answer, 4_000)).startswith(magic)
                    await fact(lambda: gateway.viewers.get(wanted) is not None, "the row")  # noqa: B023
                    row = gateway.viewers.get(wanted)
                    assert (row.key, row.protocol, row.remote) == (KEY, container, "127.0.0.1")
                    await fact(lambda: row.bytes >= 4_000, "its bytes")  # noqa: B023
                await fact(lambda: gateway.viewers.get(wanted) is None, "the row is gone")  # noqa: B023
            async with client.ws_connect(f"{base}.flv") as socket:
                message = await socket.receive(5)
                assert message.data.startswith(b"FLV")
            async with client.get(f"{base}/index.m3u8") as answer:
                assert answer.status == 200
                assert answer.headers["Server"] == "gbgw"
                media = re.findall(r"^.*/media.*$", await answer.text(), re.MULTILINE)[0]
                session = media.partition("/")[0]
            async with client.get(f"{base}/{media}") as answer:
                playlist = await answer.text()
                assert answer.status == 200
            init = re.findall(r'URI="(init[^"]+)"', playlist)[0]
            async with client.get(f"{base}/{session}/{init}") as answer:
                assert (await answer.read())[4:8] == b"ftyp"
            assert [viewer.remote for viewer in gateway.viewers.of(KEY)] == ["127.0.0.1"]
            async with client.get(f"{base}/w0-{'n' * 24}/media.m3u8") as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (410, "session_expired")
            async with client.request("HEAD", f"{base}.flv") as answer:
                assert (answer.status, answer.headers["Content-Type"]) == (200, "video/x-flv")
        await ends(gateway, camera, 25)


@two
async def test_webrtc_plays_from_a_worker(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway) as camera, Player() as player:
        url = f"{gateway.http_url}/live/{KEY}/whep"
        async with aiohttp.ClientSession() as client:
            async with client.request("OPTIONS", url) as answer:
                assert (answer.status, answer.headers["Accept-Post"]) == (204, "application/sdp")
            async with playing(gateway, camera, make=pack):
                async with client.post(url, data=await player.offer(), headers=SDP) as answer:
                    assert answer.status == 201, await answer.text()
                    location = gateway.http_url + answer.headers["Location"]
                    await player.accept(await answer.text())
                await fact(lambda: len(player.pictures) > 20, "pictures", 8)
                assert [viewer.protocol for viewer in gateway.viewers] == ["webrtc"]
                async with client.patch(location, data="v=0", headers=SDP) as answer:
                    assert answer.status == 415
                async with client.delete(location) as answer:
                    assert answer.status == 200
                async with client.delete(location) as answer:
                    assert (answer.status, (await answer.json())["error"]["code"]) == (404, "unknown_session")
                async with client.post(url, data="x" * 70_000, headers=SDP) as answer:
                    assert (answer.status, (await answer.json())["error"]["code"]) == (413, "body_too_long")
            await ends(gateway, camera)


@two
async def test_errors_are_what_they_are_without_workers(gateway_at: GatewayAt) -> None:
    async with gateway_at("sip.invite_seconds=0.5") as gateway, online(gateway) as camera:
        base = f"{gateway.http_url}/live"
        for path, status, code in (
            (f"{DEVICE}-34020000001310000009.flv", 404, "unknown_channel"),
            ("none.flv", 404, "unknown_channel"),
            (f"{KEY}.flv?audio=loud", 400, "bad_query"),
            (f"{KEY}/index.m3u8?container=avi", 400, "bad_query"),
            (f"{KEY}/{'x' * 24}/1.m4s", 410, "session_expired"),
            (f"{KEY}/1.m4s", 404, "not_found"),
            (f"{KEY}/what", 404, "not_found"),
        ):
            got, body = await http_get(f"{base}/{path}")
            assert (got, json.loads(body)["error"]["code"]) == (status, code), path
        await camera.nothing(0.1, "INVITE")
        asking = asyncio.create_task(http_get(f"{base}/{KEY}.flv"), name="test:get")
        camera.respond(await camera.expect("INVITE"), 486)
        got, body = await asking
        assert (got, json.loads(body)["error"]["code"]) == (409, "invite_rejected_486")
        assert json.loads(body)["error"]["stream"] == KEY
        await all_back(gateway)


@two
async def test_play_tokens_are_checked_before_a_worker_hears_of_it(gateway_at: GatewayAt) -> None:
    async with gateway_at("auth.play=token") as gateway, online(gateway) as camera:
        for url in (f"{KEY}.flv", f"{KEY}/index.m3u8"):
            status, body = await http_get(f"{gateway.http_url}/live/{url}")
            assert (status, json.loads(body)["error"]["code"]) == (401, "token_missing")
        await camera.nothing(0.1, "INVITE")


# Ports, placement, figures


@two
async def test_streams_are_spread_over_disjoint_ports(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, automata(gateway, 4) as cameras:
        watches = [await opened(gateway, each.key) for each in cameras]
        assert not [watch for watch in watches if isinstance(watch, GatewayError)]
        ranges = [
            port_range(config.media.ports) for config in divide(configuration(Path("/nowhere"), "media.workers=2"), 2)
        ]
        assert set(ranges[0]) & set(ranges[1]) == set()
        assert len(set(ranges[0]) | set(ranges[1])) == 200
        placed: dict[int, int] = {0: 0, 1: 0}
        for each in cameras:
            session = gateway.last_session(each.key)
            placed[session.ingest.worker] += 1
            assert session.ingest.port in ranges[session.ingest.worker]
            assert session.ingest.port >= FIRST_PORT
        assert placed == {0: 2, 1: 2}
        text = await scrape(gateway)
        assert 'gbgw_workers{state="running"} 2.0' in text
        assert re.findall(r'gbgw_worker_streams\{worker="\d"\} (\d)', text) == ["2", "2"]
        assert 'gbgw_ports{state="in_use"} 4.0' in text
        await fact(lambda: all(watch.stream.bitrate(0) > 0 for watch in watches), "bit rates")
        text = await scrape(gateway)
        assert all(float(value) > 0 for value in re.findall(r"gbgw_worker_bitrate\{.*\} (\S+)", text))
        assert all(float(value) > 0 for value in re.findall(r"gbgw_rtp_packets_total\{.*\} (\S+)", text))
        for watch in watches:
            await watch.close()
        await all_back(gateway)


@pytest.mark.parametrize(
    ("setting", "said"),
    [("media.ports=20000-20003", "media.ports"), ("webrtc.ports=20000-20001", "webrtc.ports")],
)
async def test_too_few_ports_for_the_workers_are_an_error_at_start(tmp_path: Path, setting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        async with Gateway(configuration(tmp_path, "media.workers=3", setting)):
            pass


@one
async def test_pictures_are_not_had_in_python(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway) as camera:
        with pytest.raises(GatewayError) as refused:
            async with gateway.play(DEVICE, CHANNEL):
                pass
        assert refused.value.code == "media_elsewhere"
        assert "media.workers = 0" in refused.value.remedy
        await camera.nothing(0.1, "INVITE")


def kinds_of(text: str) -> set[str]:
    """Names and labels of figures, without what tells one stream, worker or task from the other, and without events,
    which are listed once they happen."""
    named = re.sub(r'(worker|viewer|id)="[^"]*"', r'\1=""', re.sub(r"^#.*$", "", text, flags=re.MULTILINE))
    left_out = ("gbgw_tasks{", "gbgw_events_total{")
    return {line.rpartition(" ")[0] for line in named.splitlines() if line and not line.startswith(left_out)}


async def test_figures_are_the_same_with_workers_and_without(tmp_path: Path) -> None:
    seen = []
    for workers in (0, 1):
        folder = tmp_path / str(workers)
        folder.mkdir()
        async with (
            Gateway(configuration(folder, f"media.workers={workers}")) as gateway,
            automata(gateway, 1) as (camera,),
            aiohttp.ClientSession() as client,
            client.get(f"{gateway.http_url}/live/{camera.key}.flv") as answer,
        ):
            await read(answer, 20_000)
            (viewer,) = gateway.viewers
            await fact(lambda: viewer.bytes > 0 and gateway.last_session(camera.key).figures().packets > 0, "figures")  # noqa: B023
            text = await scrape(gateway)
            api = f"{gateway.http_url}/api/v1/streams/{camera.key}"
            headers = {"Authorization": f"Bearer {gateway.new_admin_token}"}
            async with client.get(api, headers=headers) as told:
                stream = await told.json()
            async with client.get(f"{api}/viewers", headers=headers) as told:
                viewers = (await told.json())["items"]
            seen.append((kinds_of(text), stream.keys(), stream["tracks"], stream["state"], viewers[0].keys()))
    without, within = seen
    assert without[0] == within[0]
    assert without[1:] == within[1:]


# Death


@pytest.mark.parametrize("workers", [1, 2], indirect=True)
async def test_a_killed_worker_is_replaced_and_its_streams_come_back(gateway_at: GatewayAt, workers: int) -> None:
    async with gateway_at("media.linger_seconds=5") as gateway, automata(gateway, 4) as cameras:
        async with aiohttp.ClientSession() as client, AsyncExitStack() as stack:
            answers = [
                await stack.enter_async_context(client.get(f"{gateway.http_url}/live/{each.key}.flv"))
                for each in cameras
            ]
            for answer in answers:
                assert await read(answer, 3) == b"FLV"
            victim = worker_of(gateway, cameras[0].key)
            hit = [each for each in cameras if worker_of(gateway, each.key) == victim]
            spared = [each for each in cameras if each not in hit]
            assert (len(hit), len(spared)) == (4 // workers, 4 - 4 // workers)
            pid = gateway._pool.pids[victim]
            if workers == 1:
                await fact(
                    lambda: gateway._pool._spare and name_of(gateway._pool._spare.pid) == "gbgw-spare", "a spare", 15
                )
            killed_at = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            for each, answer in zip(cameras, answers, strict=True):
                if each in hit:  # the viewer is told by the end of his connection
                    with contextlib.suppress(aiohttp.ClientError):
                        async with asyncio.timeout(3):
                            await answer.content.read()
            await fact(lambda: all(len(each.invited_at) == 2 for each in hit), "invited again", 5)
            assert max(each.invited_at[1] for each in hit) - killed_at < 3
            assert all(len(each.ended_at) == 1 and each.ended_at[0] < each.invited_at[1] for each in hit)
            for each in hit:
                async with client.get(f"{gateway.http_url}/live/{each.key}.flv") as again:
                    assert again.status == 200
                    assert await read(again, 3) == b"FLV"
            for each, answer in zip(cameras, answers, strict=True):
                if each in spared:
                    assert (len(each.invited_at), len(each.ended_at)) == (1, 0)
                    await read(answer, 20_000)
            await fact(lambda: len([pid for pid in gateway._pool.pids if pid]) == workers, "as many workers as before")
            assert gateway._pool.pids[victim] not in (None, pid)
            assert gateway.tally["worker.lost"] == 1
            assert gateway.tally["worker.reinvited"] == len(hit)
        await all_back(gateway, 20)
        assert all(len(each.invited_at) == len(each.ended_at) for each in cameras)
        assert len(gateway.viewers) == 0


@one
async def test_a_stream_that_was_started_is_started_again(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, automata(gateway, 1) as (camera,):
        await gateway.start(camera.key)
        os.kill(gateway._pool.pids[0], signal.SIGKILL)
        await fact(lambda: gateway.tally["worker.reinvited"] == 1, "back", 20)
        assert gateway.last_session(camera.key).kept
        await gateway.stop(camera.key)
        await all_back(gateway)
        assert (len(camera.invited_at), len(camera.ended_at)) == (2, 2)


@one
async def test_what_nobody_watches_is_not_brought_back(gateway_at: GatewayAt) -> None:
    async with gateway_at("media.linger_seconds=30") as gateway, automata(gateway, 1) as (camera,):
        watch = await opened(gateway, camera.key)
        await watch.close()
        os.kill(gateway._pool.pids[0], signal.SIGKILL)
        await all_back(gateway)
        assert gateway.last_session(camera.key).cause.code == "worker_lost"
        await fact(lambda: gateway._pool.pids[0] is not None, "the next worker")
        assert (len(camera.invited_at), len(camera.ended_at)) == (1, 1)


@one
async def test_a_worker_that_hangs_is_killed(gateway_at: GatewayAt, monkeypatch: pytest.MonkeyPatch) -> None:
    from gbgw.base import limits

    monkeypatch.setattr(limits, "WORKER_STUCK_SECONDS", 1.5)
    async with gateway_at() as gateway, automata(gateway, 1) as (camera,):
        await gateway.start(camera.key)
        pid = gateway._pool.pids[0]
        os.kill(pid, signal.SIGSTOP)
        await fact(lambda: gateway.tally["worker.reinvited"] == 1, "back", 20)
        assert gateway.tally["worker.stuck"] == 1
        assert not is_running(pid)
        await gateway.stop(camera.key)
        await all_back(gateway)


@one
async def test_signals_of_a_terminal_do_not_end_a_worker(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway) as camera, playing(gateway, camera) as (watch, _, _):
        pid = gateway._pool.pids[0]
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
        units = watch.stream.units
        await fact(lambda: watch.stream.units > units, "it plays on")
        assert gateway._pool.pids[0] == pid
        await watch.close()
        await ends(gateway, camera)


@one
async def test_viewers_of_every_protocol_are_told_of_its_death(gateway_at: GatewayAt) -> None:
    """Endless answers end, WebSockets close, sessions are unknown to the next worker; whoever asks again plays."""
    async with (
        gateway_at("media.linger_seconds=5") as gateway,
        automata(gateway, 1) as (camera,),
        aiohttp.ClientSession() as client,
        Player() as player,
        Player() as another,
    ):
        base = f"{gateway.http_url}/live/{camera.key}"
        endless = [await client.get(f"{base}.{form}") for form in ("flv", "ts", "mp4")]
        for answer in endless:
            assert answer.status == 200
            await read(answer, 1_000)
        socket = await client.ws_connect(f"{base}.flv")
        assert (await socket.receive(5)).data.startswith(b"FLV")
        async with client.get(f"{base}/index.m3u8") as answer:
            media = re.findall(r"^.*/media.*$", await answer.text(), re.MULTILINE)[0]
        async with client.post(f"{base}/whep", data=await player.offer(), headers=SDP) as answer:
            location = gateway.http_url + answer.headers["Location"]
            row = answer.headers["X-Gbgw-Viewer"]
            await player.accept(await answer.text())
        await fact(lambda: len(player.pictures) > 5, "pictures", 8)
        await fact(lambda: len(gateway.viewers) == 6, "their rows")
        waiting = asyncio.create_task(client.get(f"{base}/{media}?_HLS_msn=9999"), name="test:hls")
        died_at = time.monotonic()
        os.kill(gateway._pool.pids[0], signal.SIGKILL)
        for answer in endless:
            with contextlib.suppress(aiohttp.ClientError):
                async with asyncio.timeout(2):
                    await answer.content.read()
        async with asyncio.timeout(2):
            while not (await socket.receive()).type & aiohttp.WSMsgType.CLOSED:
                pass
            assert (await waiting).status >= 400
        assert gateway.viewers.get(row) is None
        assert time.monotonic() - died_at < 2
        await fact(lambda: gateway.tally["worker.reinvited"] == 1, "back", 20)
        async with client.get(f"{base}/{media}") as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (410, "session_expired")
        async with client.delete(location) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (404, "unknown_session")
        async with client.post(f"{base}/whep", data=await another.offer(), headers=SDP) as answer:
            assert answer.status == 201
            await another.accept(await answer.text())
        await fact(lambda: len(another.pictures) > 5, "pictures again", 8)
        async with client.get(f"{base}.flv") as answer:
            assert await read(answer, 3) == b"FLV"
        assert len(camera.invited_at) == 2


@two
async def test_a_viewer_on_his_way_to_a_worker_that_dies_is_told(gateway_at: GatewayAt) -> None:
    """The connection is in the hands of a process that stopped before it took it."""
    async with (
        gateway_at("media.linger_seconds=5") as gateway,
        automata(gateway, 1) as (camera,),
        aiohttp.ClientSession() as client,
    ):
        await gateway.start(camera.key)
        pid = gateway._pool.pids[worker_of(gateway, camera.key)]
        os.kill(pid, signal.SIGSTOP)
        paths = [f"/live/{camera.key}{end}" for end in (".flv", ".ts", "/index.m3u8")]
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(all_of(gateway.http_url, path), name="test:get") for path in paths]
            await fact(lambda: len(gateway._kept_places) == 3, "they are on their way")
            os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(3):
                await asyncio.wait(asking)
        flv, ts, playlist = (task.result() for task in asking)
        assert (flv, ts) == (b"", b"")
        assert playlist.startswith(b"HTTP/1.1 503")
        assert b'"worker_lost"' in playlist
        await fact(lambda: gateway.tally["worker.reinvited"] == 1, "back", 20)
        async with client.get(gateway.http_url + paths[0]) as answer:
            assert await read(answer, 3) == b"FLV"
        await gateway.stop(camera.key)
        await all_back(gateway)


async def all_of(url: str, path: str) -> bytes:
    """What comes back on a connection of its own, to its end; asked once, where aiohttp would ask again."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
        with contextlib.suppress(ConnectionResetError):
            return await reader.read()
        return b""
    finally:
        writer.close()


@one
async def test_a_worker_without_descriptors_plays_on_and_recovers(gateway_at: GatewayAt) -> None:
    async with (
        gateway_at("media.linger_seconds=0.2") as gateway,
        automata(gateway, 2) as (camera, other),
        aiohttp.ClientSession() as client,
        client.get(f"{gateway.http_url}/live/{camera.key}.flv") as kept,
    ):
        assert await read(kept, 3) == b"FLV"
        pid = gateway._pool.pids[0]
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        highest = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, before[1]))
        free = highest + 1 - len(os.listdir(f"/proc/{pid}/fd"))
        fillers = [await ended_or_first(client, f"{gateway.http_url}/live/{camera.key}.ts") for _ in range(free + 3)]
        assert fillers[-1] is None, "a viewer too many is told at once"
        assert isinstance(await opened(gateway, other.key), GatewayError)
        await read(kept, 20_000)
        assert gateway._pool.pids[0] == pid
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        async with client.get(f"{gateway.http_url}/live/{other.key}.flv") as answer:
            assert await read(answer, 3) == b"FLV"
        await fact(lambda: gateway.tally["worker.handover_failed"] > 0, "counted")
        assert gateway.tally["worker.lost"] == 0
        for filler in fillers:
            if filler is not None:
                filler.close()


async def ended_or_first(client: aiohttp.ClientSession, url: str) -> aiohttp.ClientResponse | None:
    """The answer of an endless URL, None where the connection was closed instead."""
    try:
        async with asyncio.timeout(3):
            return await client.get(url)
    except aiohttp.ClientError:
        return None


@two
async def test_transcodes_are_counted_over_all_workers(gateway_at: GatewayAt) -> None:
    async with gateway_at("media.transcode=1", "media.linger_seconds=5") as gateway:
        sip = gateway.config.sip
        server = ("127.0.0.1", gateway.sip_ports["udp"])
        cameras = FleetOptions(
            DeviceOptions(DEVICE, sip.id, sip.domain, server, password=PASSWORD),
            count=2, video=H265, audio=None, width=320, height=180,
        )  # fmt: skip
        async with Fleet(cameras), aiohttp.ClientSession() as client:
            await fact(
                lambda: sum(entry.online and bool(entry.channels) for entry in gateway.directory) == 2, "both", 10
            )
            keys = [f"{entry.id}-{next(iter(entry.channels))}" for entry in gateway.directory]
            for key in keys:
                await gateway.start(key)
            assert {worker_of(gateway, key) for key in keys} == {0, 1}
            first, second = (f"{gateway.http_url}/live/{key}.flv?video=h264" for key in keys)
            async with client.get(first) as answer:
                assert answer.status == 200
                assert await read(answer, 3) == b"FLV"
                async with client.get(second) as refused:
                    assert (refused.status, (await refused.json())["error"]["code"]) == (503, "transcode_limit")
                async with client.get(first) as shared:
                    assert shared.status == 200
            await fact(lambda: gateway._pool.permits.taken == 0, "the permit is back")
            async with client.get(second) as answer:
                assert answer.status == 200
                assert await read(answer, 3) == b"FLV"
                assert gateway._pool.permits.taken == 1
                os.kill(gateway._pool.pids[worker_of(gateway, keys[1])], signal.SIGKILL)
                await fact(lambda: gateway._pool.permits.taken == 0, "what a dead worker had is back")
            await fact(lambda: gateway.tally["worker.reinvited"] == 1, "back", 20)
            for key in keys:
                await gateway.stop(key)
        await all_back(gateway)


# The end of control


@asynccontextmanager
async def watched_command(folder: Path, *more: str) -> AsyncIterator[tuple[Command, Camera, aiohttp.ClientResponse]]:
    """`gbgw serve` with two workers, a camera that sends and a viewer that watches."""
    sip = free_port()
    async with (
        served(folder, "media.workers=2", *more, sip=sip) as gateway,
        Camera(DEVICE, server=("127.0.0.1", sip)) as camera,
    ):
        assert len(children_of(gateway)) == 2
        assert (await camera.register(PASSWORD)).status == 200
        await camera.serve_catalog([CHANNEL])
        async with aiohttp.ClientSession() as client, asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(client.get(f"{url_of(gateway)}/live/{KEY}.flv"), name="test:get")
            invite = await camera.expect("INVITE")
            await camera.answer_invite(invite)
            async with sending(camera, invite), await asking as answer:
                assert await read(answer, 3) == b"FLV"
                yield gateway, camera, answer


def children_of(gateway: Command) -> list[int]:
    return [pid for pid in descendants(gateway.pid) if "gbgw.worker" in Path(f"/proc/{pid}/cmdline").read_text()]


async def test_sigterm_ends_workers_too(tmp_path: Path) -> None:
    async with watched_command(tmp_path) as (gateway, camera, answer):
        workers = children_of(gateway)
        began = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        camera.respond(await camera.expect("BYE"), 200)
        with contextlib.suppress(aiohttp.ClientPayloadError):
            await answer.content.read()
        assert await gateway.end() == 0
        assert time.monotonic() - began < 5
        assert [pid for pid in workers if is_running(pid)] == []
    events = [json.loads(line) for line in gateway.err]
    assert [event["event"] for event in events if event["level"] not in ("info", "warning")] == []
    assert "Traceback" not in "".join(gateway.err)
    (request,) = [event for event in events if event["event"] == "request" and event["path"].endswith(".flv")]
    assert (request["worker"] in (0, 1), request["status"], request["bytes"] > 0) == (True, 200, True)


async def test_sigterm_is_obeyed_beside_a_worker_that_hangs(tmp_path: Path) -> None:
    async with watched_command(tmp_path) as (gateway, camera, answer):
        workers = children_of(gateway)
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        camera.respond(await camera.expect("BYE"), 200)
        assert await gateway.end() == 0
        assert time.monotonic() - began < 5
        for pid in workers:
            await gone(pid, 1)
        with contextlib.suppress(aiohttp.ClientPayloadError):
            await answer.content.read()


async def test_workers_end_by_themselves_when_control_is_killed(tmp_path: Path) -> None:
    async with watched_command(tmp_path) as (gateway, camera, answer):
        workers = children_of(gateway)
        os.kill(gateway.pid, signal.SIGKILL)
        for pid in workers:
            await gone(pid, 4)
        with contextlib.suppress(aiohttp.ClientPayloadError):
            await answer.content.read()
        assert camera.media_target is not None
        # A process is seen to end before the last of its threads gives its sockets back.
        await fact(
            lambda: not [port for port in range(32_000, 32_100) if is_bound(port, socket.SOCK_DGRAM)], "ports back", 1
        )


async def test_workers_run_on_the_processors_they_are_given(tmp_path: Path) -> None:
    cpu = sorted(os.sched_getaffinity(0))[-1]
    async with served(tmp_path, "media.workers=2", f"media.worker_cpus={cpu}") as gateway:
        assert [os.sched_getaffinity(pid) for pid in children_of(gateway)] == [{cpu}, {cpu}]
        assert await gateway.end(signal.SIGTERM) == 0


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


async def test_auto_is_the_default_of_the_program_but_not_of_the_library(tmp_path: Path) -> None:
    shown = run("config", "show", "--json", folder=tmp_path)
    (row,) = [row for row in json.loads(shown.stdout) if row["key"] == "media.workers"]
    assert (row["value"], row["origin"]) == ("auto", "default")
    async with served(tmp_path) as gateway:
        await gateway.line('"media workers"', err=True)
        workers = row["here"]
        assert workers >= 1, row["reason"]
        spare = ["gbgw-spare"] if workers == 1 else []  # a single one has a spare
        names = [*spare, *(f"gbgw-worker-{number}" for number in range(workers))]
        await fact(lambda: sorted(map(name_of, children_of(gateway))) == names, f"{names}", 15)
        assert await gateway.end(signal.SIGTERM) == 0
    (line,) = [json.loads(line) for line in gateway.err if '"media workers"' in line]
    assert (line["count"], line["bound"]) == (workers, row["reason"])
    async with Gateway(configuration(tmp_path)) as library:
        assert library.config.media.workers == "auto"
        assert library._pool is None


@pytest.mark.parametrize("setting", ["media.single_port=32099", "webrtc.ports=32201"])
async def test_auto_has_one_worker_for_one_port(tmp_path: Path, setting: str) -> None:
    async with served(tmp_path, setting) as gateway:
        assert "gbgw-worker-0" in map(name_of, children_of(gateway))
        assert "gbgw-worker-1" not in map(name_of, children_of(gateway))
        assert await gateway.end(signal.SIGTERM) == 0


async def test_what_lies_in_the_folder_is_not_imported(tmp_path: Path) -> None:
    """Later processes too: a worker is started again where the first one was."""
    async with served(tmp_path, "media.workers=1") as gateway:
        for name in ("asyncio", "av", "gbgw"):
            (tmp_path / f"{name}.py").write_text("raise SystemExit('a stranger was let in')")
        for _ in range(2):  # the spare takes over, then one that starts now
            (pid,) = [pid for pid in children_of(gateway) if name_of(pid) == "gbgw-worker-0"]
            os.kill(pid, signal.SIGKILL)
            await gone(pid, 2)
            await fact(lambda: "gbgw-worker-0" in map(name_of, children_of(gateway)), "the next one", 20)
        assert await gateway.end(signal.SIGTERM) == 0
    assert "stranger" not in "".join(gateway.err)


async def test_the_log_level_reaches_the_workers(tmp_path: Path) -> None:
    file = tmp_path / "gbgw.toml"
    sip = free_port()
    text = (
        f"[sip]\nlisten = ['udp://127.0.0.1:{sip}']\npassword = '{PASSWORD}'\n[http]\nlisten = '127.0.0.1:0'\n"
        "[media]\nworkers = 1\nports = '32000-32099'\n[auth]\nplay = 'open'\n"
        f"[store]\nurl = 'sqlite:///{tmp_path}/gbgw.db'\n[log]\nformat = 'json'\n"
    )
    file.write_text(text)

    def told(gateway: Command) -> int:
        return len([line for line in gateway.err if '"worker": 0' in line and '"request"' in line])

    async with (
        command("serve", "-c", str(file), folder=tmp_path) as gateway,
        Camera(DEVICE, server=("127.0.0.1", sip)) as camera,
    ):
        await gateway.line("console:")
        assert (await camera.register(PASSWORD)).status == 200
        await camera.serve_catalog([CHANNEL])
        url = f"{url_of(gateway)}/live/{KEY}.flv"
        async with aiohttp.ClientSession() as client, asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(client.get(url), name="test:get")
            invite = await camera.expect("INVITE")
            await camera.answer_invite(invite)
            async with sending(camera, invite), await asking as kept:
                async with client.get(url) as answer:
                    await read(answer, 3)
                await fact(lambda: told(gateway) == 1, "the request in the worker's log")
                file.write_text(text.replace("'json'", "'json'\nlevel = 'error'"))
                gateway.process.send_signal(signal.SIGHUP)
                reloaded = time.monotonic()
                while True:
                    before = told(gateway)
                    async with client.get(url) as answer:
                        await read(answer, 3)
                    with contextlib.suppress(AssertionError):
                        await fact(lambda: told(gateway) > before, "one more line", 0.5)  # noqa: B023
                    if told(gateway) == before:
                        break
                    assert time.monotonic() - reloaded < 5, "the worker goes on telling"
                assert kept.status == 200
            gateway.process.send_signal(signal.SIGTERM)
            camera.respond(await camera.expect("BYE"), 200)
            assert await gateway.end() == 0


# Nothing is left


@two
async def test_many_cycles_leave_nothing_in_the_workers(gateway_at: GatewayAt) -> None:
    async with gateway_at("media.linger_seconds=0") as gateway, automata(gateway, 2, pace=0.01) as cameras:
        pids = list(gateway._pool.pids)

        async def watch_once(camera: Automaton, client: aiohttp.ClientSession, form: str) -> None:
            async with client.get(f"{gateway.http_url}/live/{camera.key}.{form}") as answer:
                assert answer.status == 200
                await read(answer, 2_000)

        async def rounds(count: int) -> None:
            async with aiohttp.ClientSession() as client:
                for number in range(count):
                    for camera in cameras:
                        await watch_once(camera, client, ("flv", "ts", "mp4")[number % 3])
                    await fact(lambda: not gateway._sessions, "the end of both", 10)

        def open_files() -> list[int]:
            return [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]

        idle = open_files()  # nothing was asked of them yet
        await rounds(3)
        own = leaks.open_files()
        await rounds(12)
        await fact(lambda: open_files() == idle, f"as many files as in the beginning, {idle}", 15)
        await fact(lambda: gateway._pool.port_counts().resting == 0, "the ports have rested", 15)
        assert leaks.open_files() == own
        assert gateway._pool.pids == pids
        assert len(gateway.viewers) == 0
        await all_back(gateway)


@pytest.mark.soak
@pytest.mark.timeout(300)
@two
async def test_fifty_streams_of_a_killed_worker_are_back_in_three_seconds(
    gateway_at: GatewayAt, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both workers carry fifty; one dies. Times from its death to the INVITE, and to the picture, of each stream."""
    async with (
        gateway_at("media.linger_seconds=10", f"media.ports={FIRST_PORT}-{FIRST_PORT + 399}") as gateway,
        automata(gateway, 100, pace=0.2) as cameras,
    ):
        for each in cameras:
            await gateway.start(each.key)
        hit = [each for each in cameras if worker_of(gateway, each.key) == 0]
        spared = [each for each in cameras if each not in hit]
        assert len(hit) == 50
        killed_at = time.monotonic()
        os.kill(gateway._pool.pids[0], signal.SIGKILL)
        await fact(lambda: gateway.tally["worker.reinvited"] == len(hit), "all back", 30)
        back = time.monotonic() - killed_at
        invited = sorted(each.invited_at[1] - killed_at for each in hit)
        with capsys.disabled():
            print(
                f"\n50 streams: invited {invited[0]:.2f} to {invited[-1]:.2f} s after the kill, all play {back:.2f} s"
            )
        assert invited[-1] < 3
        assert all(len(each.invited_at) == 1 for each in spared)
        assert all(each.ended_at[0] < each.invited_at[1] for each in hit)
        for each in cameras:
            await gateway.stop(each.key)
        await all_back(gateway, 20)
        assert all(len(each.invited_at) == len(each.ended_at) for each in cameras)
