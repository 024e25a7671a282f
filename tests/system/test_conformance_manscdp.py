"""Checklist statements 31-39 over real sockets: MANSCDP documents and catalogs."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gbgw.base import limits
from gbgw.base.errors import GatewayError
from tests.support.peer import Camera, Text
from tests.system.conftest import CHANNEL, DEVICE, PASSWORD
from tests.system.control import api_of
from tests.system.steps import fact, online, server_of

GatewayAt = Callable[..., Any]
SECOND = "34020000001310000002"


@asynccontextmanager
async def asked_for_catalog(gateway: Any, **options: Any) -> AsyncIterator[tuple[Camera, int, Text]]:
    """A camera just registered, and the catalog query it got."""
    transport = options.get("transport", "udp")
    async with Camera(DEVICE, server=server_of(gateway, transport), **options) as camera:
        assert (await camera.register(PASSWORD)).status == 200
        sn, query = await camera.query("Catalog")
        yield camera, sn, query


def entry_of(gateway: Any) -> Any:
    return gateway.directory.get(DEVICE)


async def complete(gateway: Any, seconds: float = 5.0) -> dict[str, str]:
    """Channel names by id, once the catalog is complete."""
    await fact(lambda: entry_of(gateway).catalog == "complete", "the catalog is complete", seconds)
    return {channel: item.name for channel, item in entry_of(gateway).channels.items()}


def document(sn: int, items: str, total: int = 1, num: str = '"1"') -> str:
    return (
        f"<Response>\r\n<CmdType>Catalog</CmdType>\r\n<SN>{sn}</SN>\r\n<DeviceID>{DEVICE}</DeviceID>\r\n"
        f"<SumNum>{total}</SumNum>\r\n<DeviceList Num={num}>\r\n{items}</DeviceList>\r\n</Response>\r\n"
    )


def item(channel: str, name: str) -> str:
    return f"<Item>\r\n<DeviceID>{channel}</DeviceID>\r\n<Name>{name}</Name>\r\n<Status>ON</Status>\r\n</Item>\r\n"


@pytest.mark.conformance(31)
async def test_queries_are_manscdp_with_a_length_in_bytes(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, asked_for_catalog(gateway) as (_, sn, query):
        assert query["Content-Type"].lower() == "application/manscdp+xml"
        assert int(query["Content-Length"]) == len(query.body)
        assert query.body.startswith(b'<?xml version="1.0" encoding="GB')
        assert f"<SN>{sn}</SN>".encode() in query.body
        assert f"<DeviceID>{DEVICE}</DeviceID>".encode() in query.body
        assert len(query.all("To")) == 1


@pytest.mark.conformance(32)
@pytest.mark.parametrize(
    ("declared", "used", "name"),
    [
        ("GB2312", "gb2312", "东门摄像机"),
        ("GBK", "gbk", "東門攝像機"),
        ("GB18030", "gb18030", "㐀东门𠀀"),
        ("UTF-8", "utf-8", "东门摄像机"),
        ("GB2312", "utf-8", "东门摄像机"),
        ("GB2312", "utf-8", "东门摄像"),  # as GB 18030 its bytes would be text, too
        ("UTF-8", "gb18030", "东门摄像机"),
        ("GB2312", "gb18030", "東門㐀"),
        ("", "gb2312", "东门"),
    ],
)
async def test_names_in_every_charset(gateway_at: GatewayAt, declared: str, used: str, name: str) -> None:
    async with gateway_at() as gateway, asked_for_catalog(gateway) as (camera, sn, _):
        head = f'<?xml version="1.0" encoding="{declared}"?>\r\n' if declared else '<?xml version="1.0"?>\r\n'
        body = (head + document(sn, item(CHANNEL, name))).encode(used)
        camera.send(camera.request("MESSAGE", headers=["Content-Type: Application/MANSCDP+xml"], body=body))
        assert await complete(gateway) == {CHANNEL: name}


@pytest.mark.conformance(33)
async def test_every_message_is_answered_before_it_is_read(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway) as camera:
        for body in (b"", b"garbage", b"<Notify><CmdType>Unheard</CmdType><SN>1</SN></Notify>", b"<Notify><CmdType>"):
            camera.send(camera.request("MESSAGE", headers=["Content-Type: Application/MANSCDP+xml"], body=body))
            answer = await camera.expect(200)
            assert (answer.body, answer["Content-Length"]) == (b"", "0")
        assert gateway.tally.counts["registrar.unreadable"] >= 2


@pytest.mark.conformance(34)
async def test_parts_belong_together_by_command_and_number(gateway_at: GatewayAt) -> None:
    """In any order, with another device information of the same number in between."""
    channels = [f"340200000013200{n:05}" for n in range(20)]
    async with gateway_at() as gateway, asked_for_catalog(gateway) as (camera, sn, _):
        parts = [camera.catalog_part(sn, len(channels), [channel]) for channel in channels]
        camera.random.shuffle(parts)
        for number, part in enumerate(parts):
            camera.send(part)
            if number == 10:
                camera.send(
                    camera.message(
                        f"<Response><CmdType>DeviceInfo</CmdType><SN>{sn}</SN><DeviceID>{DEVICE}</DeviceID>"
                        "<Model>X</Model></Response>"
                    )
                )
        assert sorted(await complete(gateway)) == channels
        assert entry_of(gateway).model == ""  # nobody has asked for that yet


@pytest.mark.conformance(35)
async def test_a_catalog_of_1000_items_one_by_one_with_duplicates(gateway_at: GatewayAt) -> None:
    channels = [f"340200000013100{n:05}" for n in range(1_000)]
    async with gateway_at() as gateway, asked_for_catalog(gateway) as (camera, sn, _):
        for number, channel in enumerate(channels):
            camera.send(camera.catalog_part(sn, len(channels), [channel]))
            if number % 50 == 0:
                camera.send(camera.catalog_part(sn, len(channels), [channels[number // 2]]))
            if number % 10 == 9:
                await asyncio.sleep(0.005)
        assert sorted(await complete(gateway, 10)) == channels
        await fact(lambda: sum(text.method == "MESSAGE" for text in camera.received) > 1, "the next question")


@pytest.mark.conformance(36)
async def test_a_catalog_that_stops_is_partial_and_deletes_nothing(
    gateway_at: GatewayAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CATALOG_GAP_SECONDS", 0.3)
    async with gateway_at() as gateway, online(gateway) as camera:
        assert set(entry_of(gateway).channels) == {CHANNEL}
        asking = asyncio.create_task(gateway.devices.refresh_catalog(DEVICE), name="test:catalog")
        sn, _ = await camera.query("Catalog")
        camera.send(camera.catalog_part(sn, 3, [SECOND]))
        with pytest.raises(GatewayError) as caught:
            await asking
        assert caught.value.code == "catalog_partial"
        assert set(entry_of(gateway).channels) == {CHANNEL, SECOND}


@pytest.mark.conformance(37)
async def test_a_catalog_without_items_is_complete(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, asked_for_catalog(gateway) as (camera, sn, _):
        camera.send(camera.catalog_part(sn, 0, []))
        assert await complete(gateway) == {}


@pytest.mark.conformance(38)
async def test_the_directory_is_a_tree_by_the_api(gateway_at: GatewayAt) -> None:
    """A region, a group, an organisation that is its own grandparent, a camera under two of them, one under nobody
    known; and how far the catalog has come while it is read."""
    group, high, low = "34020000002150000001", "34020000002160000001", "34020000002160000002"

    def node(own: str, *fields: str) -> str:
        return f"<Item><DeviceID>{own}</DeviceID><Name>{own[-4:]}</Name>{''.join(fields)}<Status>ON</Status></Item>"

    first = [
        node("3402"),
        node("340200"),
        node(group, f"<ParentID>{DEVICE}</ParentID>"),
        node(high, f"<ParentID>{low}</ParentID><BusinessGroupID>{group}</BusinessGroupID>"),
    ]
    second = [
        node(low, f"<ParentID>{high}</ParentID><BusinessGroupID>{group}</BusinessGroupID>"),
        node(CHANNEL, f"<ParentID>{DEVICE}/{high}/{low}</ParentID><CivilCode>340200</CivilCode>"),
        node(SECOND, "<ParentID>99999999999999999999</ParentID><CivilCode>340200</CivilCode>"),
    ]
    path = f"/api/v1/devices/{DEVICE}"
    async with gateway_at() as gateway, asked_for_catalog(gateway) as (camera, sn, _), api_of(gateway) as api:
        camera.send(camera.message(document(sn, "".join(first), 7)))
        await fact(lambda: gateway.devices.interviews.progress(DEVICE) == (4, 7), "four of seven")
        assert await api("GET", f"{path}/catalog") == {
            "state": "unknown", "channels": 0, "reading": True, "received": 4, "promised": 7,
        }  # fmt: skip
        camera.send(camera.message(document(sn, "".join(second), 7)))
        await complete(gateway)
        found = {each["id"]: each for each in (await api("GET", f"{path}/tree"))["items"]}
        assert {own: each["kind"] for own, each in found.items()} == {
            "3402": "region", "340200": "region", group: "group", high: "organisation", low: "organisation",
            CHANNEL: "channel", SECOND: "channel",
        }  # fmt: skip
        assert found["340200"]["parents"] == ["3402"]
        assert set(found[CHANNEL]["parents"]) == {high, low}
        assert found[SECOND]["parents"] == ["340200"]
        for own in found:  # every walk upwards ends at the device
            seen, at = {own}, own
            while at != DEVICE:
                at = found[at]["parents"][0]
                assert at not in seen
                seen.add(at)
        assert (await api("GET", f"{path}/catalog"))["reading"] is False


@pytest.mark.conformance(39)
async def test_a_bare_ampersand_and_an_unquoted_attribute(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, asked_for_catalog(gateway) as (camera, sn, _):
        camera.send(camera.message(document(sn, item(CHANNEL, "Tom & Jerry &co; A&B"), num="1")))
        names = await complete(gateway)
        assert re.match(r"Tom & Jerry &co; A&B", names[CHANNEL])
