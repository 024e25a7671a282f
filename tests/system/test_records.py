"""Recordings on a device, asked for by the API: checklist statement 48 over real sockets."""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.peer import Camera
from tests.system.conftest import CHANNEL, DEVICE, http_get
from tests.system.steps import all_back, online

GatewayAt = Callable[..., Any]
URL = f"/api/v1/devices/{DEVICE}/channels/{CHANNEL}/records"


def part(camera: Camera, sn: int, total: int, *hours: int) -> bytes:
    """Some recordings of 2026-02-03, half an hour each, by Beijing's clock."""
    items = "".join(
        f"<Item>\r\n<DeviceID>{CHANNEL}</DeviceID>\r\n<Name>door</Name>\r\n<FilePath>/{hour}</FilePath>\r\n"
        f"<StartTime>2026-02-03T{hour:02}:00:00</StartTime>\r\n<EndTime>2026-02-03T{hour:02}:30:00</EndTime>\r\n"
        "<Secrecy>0</Secrecy>\r\n<Type>time</Type>\r\n<FileSize>1024</FileSize>\r\n</Item>\r\n"
        for hour in hours
    )
    listing = f'<RecordList Num="{len(hours)}">\r\n{items}</RecordList>\r\n' if hours else ""
    return camera.message(
        f"<Response>\r\n<CmdType>RecordInfo</CmdType>\r\n<SN>{sn}</SN>\r\n<DeviceID>{CHANNEL}</DeviceID>\r\n"
        f"<Name>NVR</Name>\r\n<SumNum>{total}</SumNum>\r\n{listing}</Response>"
    )


async def listed(gateway: Any, span: str = "start=20260203T000000Z&end=20260203T120000Z") -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {gateway.new_admin_token}"}
    status, body = await http_get(f"{gateway.http_url}{URL}?{span}", headers=headers, seconds=10)
    return status, json.loads(body)


@pytest.mark.conformance(48)
@pytest.mark.parametrize("version", ["2.0", "3.0"])
async def test_a_list_in_parts_is_sorted_and_each_recording_in_it_once(gateway_at: GatewayAt, version: str) -> None:
    async with gateway_at() as gateway, online(gateway, version=version) as camera:
        asking = asyncio.create_task(listed(gateway), name="test:ask")
        sn, query = await camera.query("RecordInfo")
        xml = query.body.decode("gb18030")
        assert f"<DeviceID>{CHANNEL}</DeviceID>" in xml
        assert "<Type>all</Type>" in xml
        assert "<StartTime>2026-02-03T08:00:00</StartTime>" in xml
        assert "<EndTime>2026-02-03T20:00:00</EndTime>" in xml
        assert re.search(rf"^To: <sip:{DEVICE}@", query.raw.decode("latin-1"), re.MULTILINE)
        for hours in ((11, 10), (9,), (11, 10), (8, 12)):
            camera.send(part(camera, sn, 5, *hours))
        status, answer = await asking
        assert status == 200
        assert answer["complete"] is True
        assert [item["start"] for item in answer["items"]] == [f"2026-02-03T{hour:02}:00:00Z" for hour in range(5)]
        assert answer["items"][0]["file_path"] == "/8"
        assert answer["items"][0]["bytes"] == 1_024
        await all_back(gateway)


async def test_no_recording_is_an_empty_list(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway) as camera:
        asking = asyncio.create_task(listed(gateway), name="test:ask")
        sn, _ = await camera.query("RecordInfo")
        camera.send(part(camera, sn, 0))
        assert await asking == (200, {"items": [], "next": None, "complete": True})


async def test_a_device_that_refuses_is_named(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway) as camera:
        asking = asyncio.create_task(listed(gateway), name="test:ask")
        camera.respond(await camera.receive(), 405)
        status, answer = await asking
        assert status == 504
        assert answer["error"]["code"] == "query_refused"
        await all_back(gateway)
