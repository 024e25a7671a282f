"""Recordings fetched into files, from a simulated recorder and from a camera of raw bytes."""

import asyncio
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import av
import pytest

from gbgw.mux.pattern import read_counter
from gbgw.mux.recorded import picture_number
from tests.system.conftest import CHANNEL, KEY
from tests.system.steps import all_back, fact, online, sending
from tests.system.test_playback import START, api, in_dialog
from tests.system.test_recorder import RATE, hour, iso, recorder

GatewayAt = Callable[..., Any]
WORKERS = pytest.mark.parametrize("workers", [0, 1], indirect=True)


async def begun(gateway: Any, start: int, seconds: int, speed: int = 4) -> Any:
    wanted = {"key": KEY, "start": iso(start), "end": iso(start + seconds), "speed": speed}
    return await api(gateway, "POST", "/downloads", 201, json=wanted)


async def over(gateway: Any, download_id: str, seconds: float = 30) -> Any:
    async with asyncio.timeout(seconds):
        while True:
            told = await api(gateway, "GET", f"/downloads/{download_id}")
            if told["state"] in ("done", "failed"):
                return told
            await asyncio.sleep(0.1)


async def fetched(gateway: Any, download_id: str, **headers: str) -> tuple[int, bytes]:
    url = f"{gateway.http_url}/api/v1/downloads/{download_id}/file?token={gateway.new_admin_token}"
    async with aiohttp.ClientSession() as client, client.get(url, headers=headers) as answer:
        return answer.status, await answer.read()


@WORKERS
@pytest.mark.parametrize("transport", ["udp", "tcp-passive"])
async def test_a_recording_becomes_a_file_faster_than_it_was_made(gateway_at: GatewayAt, transport: str) -> None:
    async with gateway_at(f"media.transport={transport}") as gateway, recorder(gateway):
        start, seconds = hour() + 10, 12
        made = await begun(gateway, start, seconds)
        await fact(lambda: gateway.recent(0), "its stream is there")
        (stream,) = (await api(gateway, "GET", "/streams"))["items"]
        assert stream["kind"] == "download"
        done = await over(gateway, made["id"])
        assert done["cause"] is None
        assert (done["state"], done["percent"]) == ("done", 100.0)
        assert done["measured_speed"] > 1.5
        status, body = await fetched(gateway, made["id"])
        assert (status, len(body)) == (200, done["bytes"])
        with av.open(io.BytesIO(body)) as container:
            assert container.streams.audio[0].codec_context.name == "aac"
            sound = float((container.streams.audio[0].duration or 0) * (container.streams.audio[0].time_base or 0))
            assert sound == pytest.approx(seconds, abs=0.5)
            seen = [read_counter(frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]
        assert seen == [picture_number(start, index, RATE) for index in range(seconds * RATE)]
        status, part = await fetched(gateway, made["id"], Range="bytes=100-199")
        assert (status, part) == (206, body[100:200])
        await api(gateway, "DELETE", f"/downloads/{made['id']}", 204)
        assert (await fetched(gateway, made["id"]))[0] == 404
        await api(gateway, "GET", f"/downloads/{made['id']}", 404)


async def test_the_invite_for_a_download(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway) as camera:
        made = await begun(gateway, START, 3_600, 8)
        invite = await camera.expect("INVITE")
        assert invite.sdp["s"] == ["Download"]
        assert invite.sdp["u"] == [f"{CHANNEL}:0"]
        assert invite.sdp["t"] == [f"{START} {START + 3_600}"]
        assert "downloadspeed:8" in invite.sdp["a"]
        assert invite.sdp["y"][0].startswith("1")
        await camera.answer_invite(invite)
        async with sending(camera, invite) as sender:
            await fact(lambda: sender.index > 60, "pictures were sent")
            told = await api(gateway, "GET", f"/downloads/{made['id']}")
            assert told["state"] == "running"
            assert 0 < told["percent"] < 1
            assert told["bytes"] > 0
            assert (await fetched(gateway, made["id"]))[0] == 409
            sender.paused = True
            camera.send(in_dialog(camera, invite))
            camera.respond(await camera.expect("BYE", 8), 200)
        assert (await over(gateway, made["id"]))["state"] in ("done", "failed")
        await all_back(gateway)


async def test_one_that_fails_names_its_cause_and_leaves_nothing(gateway_at: GatewayAt, tmp_path: Path) -> None:
    async with gateway_at() as gateway, online(gateway) as camera:
        made = await begun(gateway, START, 60)
        camera.respond(await camera.expect("INVITE"), 486)
        told = await over(gateway, made["id"])
        assert (told["state"], told["cause"]["code"]) == ("failed", "invite_rejected_486")
        await all_back(gateway)
        assert [path.suffix for path in (tmp_path / "downloads").iterdir()] == [".json"]


async def test_a_restart_lists_them_still(gateway_at: GatewayAt, tmp_path: Path) -> None:
    async with gateway_at() as gateway, recorder(gateway):
        first = await begun(gateway, hour() + 10, 2)
        await over(gateway, first["id"])
    folder = tmp_path / "downloads"
    row = json.loads((folder / f"{first['id']}.json").read_text())
    broken = f"d{0:08x}"
    (folder / f"{broken}.json").write_text(json.dumps(row | {"id": broken, "state": "running", "ended_at": None}))
    (folder / f"{broken}.part").write_bytes(b"half")
    (folder / "dnonsense.json").write_text("{")
    async with gateway_at() as gateway:
        token = await gateway._authority.create("test", ("admin",))
        gateway.new_admin_token = token[0]
        listed = {item["id"]: item for item in (await api(gateway, "GET", "/downloads"))["items"]}
        assert listed[first["id"]]["state"] == "done"
        assert listed[broken]["cause"]["code"] == "download_interrupted"
        assert set(listed) == {first["id"], broken}
        assert not (folder / f"{broken}.part").exists()
        assert (await fetched(gateway, first["id"]))[0] == 200


async def test_a_full_disk_is_said_before_the_device_is_asked(gateway_at: GatewayAt) -> None:
    async with gateway_at("download.gigabytes=0.000001") as gateway, recorder(gateway):
        first = await begun(gateway, hour() + 10, 2)
        await over(gateway, first["id"])
        wanted = {"key": KEY, "start": iso(hour() + 10), "end": iso(hour() + 20)}
        refused = await api(gateway, "POST", "/downloads", 503, json=wanted)
        assert refused["error"]["code"] == "download_disk_full"


async def test_one_that_is_deleted_ends(gateway_at: GatewayAt, tmp_path: Path) -> None:
    async with gateway_at() as gateway, recorder(gateway):
        made = await begun(gateway, hour() + 10, 1_000, 1)
        await fact(lambda: gateway.downloads.get(made["id"]).bytes > 0, "it runs", 8)
        await api(gateway, "DELETE", f"/downloads/{made['id']}", 204)
        await all_back(gateway)
        assert list((tmp_path / "downloads").iterdir()) == []
