"""The simulated device does what the gateway's API has it told: one gateway, one device, real sockets."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import numpy as np
import pytest

from gbgw.base.codec import H264, H265, Codec
from gbgw.device.device import Device
from gbgw.device.fleet import Fleet, FleetOptions
from gbgw.device.options import DeviceOptions
from gbgw.mux.pattern import Painter, PatternSpec, read_counter
from gbgw.mux.view import AHEAD, View
from tests.system.conftest import PASSWORD
from tests.system.control import CONTROL, Api, api_of, fact

GatewayAt = Callable[..., Any]
DEVICE = "34020000001110000001"
CHANNEL = "34020000001310000001"
HERE = f"{CONTROL}/devices/{DEVICE}/channels/{CHANNEL}"
ITSELF = f"{CONTROL}/devices/{DEVICE}"


@asynccontextmanager
async def obedient(gateway: Any, video: Codec = H264, **changes: Any) -> AsyncIterator[tuple[Device, Api, Fleet]]:
    sip = gateway.config.sip
    options = FleetOptions(
        DeviceOptions(
            DEVICE,
            sip.id,
            sip.domain,
            ("127.0.0.1", gateway.sip_ports["udp"]),
            password=PASSWORD,
            restart_seconds=0.3,
            retry_seconds=0.2,
            **changes,
        ),
        video=video,
        audio=None,
        width=320,
        height=180,
    )
    async with Fleet(options) as fleet, api_of(gateway) as api:
        await fact(lambda: gateway.is_playable(f"{DEVICE}-{CHANNEL}"), "the device is there", 10)
        yield fleet.devices[0], api, fleet


async def position(api: Api) -> tuple[float, float, float]:
    found = await api("GET", f"{HERE}/ptz/position")
    return found["pan"], found["tilt"], found["zoom"]


async def test_it_turns_while_it_is_told_and_stands_when_nobody_renews(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, obedient(gateway) as (_, api, _fleet):
        assert await position(api) == (0.0, 0.0, 1.0)
        await api("PUT", f"{HERE}/ptz", json={"pan": 50, "tilt": -20, "zoom": 30, "seconds": 0.5})
        await asyncio.sleep(1.0)
        pan, tilt, zoom = await position(api)
        assert 10 < pan < 45, "half a second of 45 degrees a second"
        assert tilt > 2
        assert zoom > 1.1
        await asyncio.sleep(0.3)
        assert await position(api) == (pan, tilt, zoom), "it stands"


async def test_presets_cruises_home_and_exact_positions(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, obedient(gateway) as (device, api, _):
        await api("PUT", f"{HERE}/ptz/position", 204, json={"pan": 30, "tilt": 10, "zoom": 2})
        await api("PUT", f"{HERE}/presets/3", 204, json={"name": "东门"})
        await api("PUT", f"{HERE}/ptz/position", 204, json={"pan": 200, "tilt": -10, "zoom": 1})
        await api("PUT", f"{HERE}/presets/4", 204, json={})
        assert (await api("GET", f"{HERE}/presets"))["items"] == [
            {"id": 3, "name": "东门"},
            {"id": 4, "name": "preset 4"},
        ]
        await api("POST", f"{HERE}/presets/3/goto", 204)
        assert await position(api) == (30.0, 10.0, 2.0)
        await api("PUT", f"{HERE}/cruises/1", 204, json={"presets": [3, 4], "stay_seconds": 1, "name": "round"})
        assert (await api("GET", f"{HERE}/cruises"))["items"] == [{"number": 1, "name": "round"}]
        points = (await api("GET", f"{HERE}/cruises/1"))["points"]
        assert [(point["preset_index"], point["stay_time"]) for point in points] == [(3, 1), (4, 1)]
        await api("POST", f"{HERE}/cruises/1/start", 204)
        seen = set()
        for _ in range(12):
            seen.add((await position(api))[0])
            await asyncio.sleep(0.2)
        assert seen == {30.0, 200.0}
        await api("PUT", f"{HERE}/ptz", json={})  # stops the cruise
        await api("DELETE", f"{HERE}/presets/4", 204)
        assert len((await api("GET", f"{HERE}/presets"))["items"]) == 1
        await api("PUT", f"{HERE}/home", 204, json={"enabled": True, "reset_seconds": 1, "preset": 3})
        assert await api("GET", f"{HERE}/home") == {"enabled": True, "reset_time": 1, "preset_index": 3}
        await api("PUT", f"{HERE}/ptz/position", 204, json={"pan": 90, "tilt": 0})
        assert (await position(api))[0] == 90.0
        await asyncio.sleep(1.2)
        assert await position(api) == (30.0, 10.0, 2.0), "nobody turned it: it went home"
        box = {"length": 320, "width": 180, "mid_point_x": 240, "mid_point_y": 90, "length_x": 160, "length_y": 90}
        await api("POST", f"{HERE}/ptz/drag-zoom", 204, json={"direction": "in", **box})
        assert await position(api) == (37.5, 10.0, 4.0), "a quarter of 30 degrees to the right, twice as close"
        await api("POST", f"{HERE}/scans/1/start", 204)
        first = await position(api)
        await asyncio.sleep(0.3)
        assert await position(api) != first
        assert device.controls.wrong_frames == 0


@pytest.mark.parametrize("video", [H264, H265], ids=["h264", "h265"])
async def test_the_picture_turns_with_the_camera(gateway_at: GatewayAt, video: Codec) -> None:
    """Decoded pictures, before and after: the scene has moved by what the device says, the counter stands."""
    far: list[float] = []
    painter = Painter(PatternSpec(video=video, audio=None, width=320, height=180))

    async def matching(frames: AsyncIterator[Any], view: View) -> None:
        """Return when a picture is what the painter draws from `view`."""
        async for frame in frames:
            number = read_counter(frame.pixels)
            if number is not None:
                wanted = rgb_mean(painter.paint(number, view))
                far.append(float(np.abs(wanted - frame.pixels.mean(axis=2)).mean()))
                if far[-1] < 10:
                    return

    async with (
        gateway_at() as gateway,
        obedient(gateway, video) as (_, api, _fleet),
        gateway.play(DEVICE, CHANNEL) as playing,
        aclosing(playing.frames()) as frames,
        asyncio.timeout(15),
    ):
        await matching(frames, AHEAD)
        await api("PUT", f"{HERE}/ptz/position", 204, json={"pan": 30, "tilt": 5, "zoom": 2})
        await matching(frames, View(30.0, 5.0, 2.0))
        assert max(far) > 20, "between the two it looked elsewhere"


def rgb_mean(picture: Any) -> Any:
    """Mean of R, G and B of a picture in planar YUV."""
    from av.video.frame import VideoFrame

    return VideoFrame.from_ndarray(picture, format="yuv420p").to_ndarray(format="rgb24").mean(axis=2)


async def test_guard_recording_parameters_and_status(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, obedient(gateway) as (_, api, _fleet):
        status = await api("GET", f"{HERE}/status")
        assert (status["online"], status["recording"], status["alarm_inputs"][0]["duty_status"]) == (
            True, False, "OFFDUTY",
        )  # fmt: skip
        await api("PUT", f"{HERE}/record", 204, json={"recording": True})
        await api("PUT", f"{HERE}/guard", 204, json={"armed": True})
        status = await api("GET", f"{HERE}/status")
        assert (status["recording"], status["alarm_inputs"][0]["duty_status"]) == (True, "ONDUTY")
        assert status["device_time"]
        await api("POST", f"{HERE}/alarm-reset", 204)
        changes = {"frame_mirror": 2, "osd_config": {"time_enable": True, "texts": [{"text": "东门", "x": 1, "y": 2}]}}
        await api("PATCH", f"{HERE}/config", 204, json=changes)
        await api("PATCH", f"{ITSELF}/config", 204, json={"basic_param": {"name": "Gate"}})
        found = await api("GET", f"{HERE}/config")
        assert found["frame_mirror"] == 2
        assert found["osd_config"]["texts"] == [{"text": "东门", "x": 1, "y": 2}]
        assert found["video_param_opt"]["download_speed"] == "1/2/4"
        basic = (await api("GET", f"{ITSELF}/config?types=BasicParam"))["basic_param"]
        assert (basic["name"], basic["heart_beat_interval"], basic["heart_beat_count"]) == ("Gate", 60, 3)
        await api("POST", f"{HERE}/sd-cards/1/format", 204)
        (card,) = (await api("GET", f"{HERE}/sd-cards"))["items"]
        assert (card["status"], card["format_progress"] < 100) == ("formatting", True)


async def test_snapshots_arrive_and_show_where_the_camera_looks(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, obedient(gateway) as (_, api, _fleet):
        await api("PUT", f"{HERE}/ptz/position", 204, json={"pan": 45, "tilt": 0, "zoom": 1})
        order = await api("POST", f"{HERE}/snapshot", 202, json={"count": 2, "interval": 1})
        done = await api("GET", f"{CONTROL}/snapshots/{order['id']}?wait=10")
        assert (done["state"], done["missing"]) == ("done", 0)
        for file in done["files"]:
            assert file["name"].startswith(f"{CHANNEL}02")
            assert len(file["name"].removesuffix(".jpg")) == 41
            data = (await api.raw("GET", f"{CONTROL}/snapshots/{order['id']}/{file['number']}"))[2]
            assert data.startswith(b"\xff\xd8\xff")
            assert len(data) == file["bytes"] > 3_000


async def test_it_really_goes_away_and_comes_back(gateway_at: GatewayAt) -> None:
    """What it keeps in its flash memory is still there; a stream that played is invited anew."""
    async with gateway_at() as gateway, obedient(gateway) as (device, api, fleet):
        await api("PUT", f"{HERE}/presets/9", 204, json={"name": "kept"})
        async with gateway.play(DEVICE, CHANNEL) as playing:
            async for _ in playing.units():
                break
            await api("POST", f"{ITSELF}/reboot", 204)
            await fact(lambda: fleet.registered == 0, "it is away")
            assert device.sessions == 0
            await fact(lambda: fleet.registered == 1, "it is back")
            assert device.restarts == 1
        await fact(lambda: gateway.is_playable(f"{DEVICE}-{CHANNEL}"), "it may be watched", 10)
        async with gateway.play(DEVICE, CHANNEL) as playing:
            async for _ in playing.units():
                break
        assert [each["name"] for each in (await api("GET", f"{HERE}/presets"))["items"]] == ["kept"]


async def test_an_upgrade_restarts_it_and_it_reports(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, obedient(gateway) as (device, api, fleet):
        order = {"firmware": "2.1", "file_url": "http://127.0.0.1/fw.bin"}
        assert (await api("POST", f"{ITSELF}/upgrade", json=order))["state"] == "ordered"
        await fact(lambda: device.restarts == 1 and fleet.registered == 1, "it restarted")
        async with asyncio.timeout(5):
            while (await api("GET", f"{ITSELF}/upgrade"))["state"] == "ordered":  # noqa: ASYNC110 - asked for
                await asyncio.sleep(0.02)
        assert (await api("GET", f"{ITSELF}/upgrade"))["running"] == "2.1"


async def test_an_older_edition_obeys_what_it_has(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, obedient(gateway, edition="2.0") as (device, api, _):
        await api("PUT", f"{HERE}/ptz", json={"pan": 50, "seconds": 0.3})
        await asyncio.sleep(0.6)
        now = asyncio.get_running_loop().time()
        assert device.controls.view(CHANNEL, now).pan > 5
        assert (await api("GET", f"{HERE}/presets"))["items"] == []
        found = await api("GET", f"{HERE}/config")
        assert found["basic_param"]["name"] == "Camera"
        assert found["osd_config"] is None, "edition 2.0 has none"
        assert await api.refused("POST", f"{HERE}/snapshot", 409, json={}) == "edition_unsupported"
