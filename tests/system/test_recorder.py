"""The simulated recorder behind a real gateway: what its pictures say of the time they were recorded at."""

import asyncio
import io
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import av
import pytest

from gbgw.device.fleet import Fleet, FleetOptions
from gbgw.device.options import DeviceOptions
from gbgw.mux.pattern import read_counter
from gbgw.mux.recorded import picture_number
from tests.system.conftest import CHANNEL, DEVICE, KEY, PASSWORD, http_get
from tests.system.steps import all_back, fact
from tests.system.test_playback import api

GatewayAt = Callable[..., Any]
RATE = 25
WORKERS = pytest.mark.parametrize("workers", [0, 1], indirect=True)


def hour(back: int = 2) -> int:
    """The beginning of a full hour in the past, Unix seconds."""
    return int(time.time()) // 3_600 * 3_600 - back * 3_600


@asynccontextmanager
async def recorder(gateway: Any, **options: Any) -> AsyncIterator[Fleet]:
    device = DeviceOptions(
        DEVICE,
        gateway.config.sip.id,
        gateway.config.sip.domain,
        ("127.0.0.1", gateway.sip_ports["udp"]),
        password=PASSWORD,
        **options,
    )
    async with Fleet(FleetOptions(device, width=320, height=180)) as fleet:
        async with asyncio.timeout(10):
            await fleet.until_registered()
            await gateway.until_playable(DEVICE, CHANNEL)
        yield fleet
    await all_back(gateway)


def numbers(data: bytes) -> list[tuple[float, int]]:
    """(seconds on the line, number burnt in) of every picture."""
    with av.open(io.BytesIO(data), format="flv") as container:
        found = [
            (float((frame.pts or 0) * (frame.time_base or 0)), read_counter(frame.to_ndarray(format="gray")))
            for frame in container.decode(video=0)
        ]
    assert all(number is not None for _, number in found)
    return [(at, number) for at, number in found if number is not None]


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


async def test_its_recordings_are_listed(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, recorder(gateway):
        start = hour(3)
        path = f"/devices/{DEVICE}/channels/{CHANNEL}/records?start={start}&end={start + 7_200}"
        listed = await api(gateway, "GET", path)
        assert listed["complete"] is True
        spans = [(item["start"], item["end"]) for item in listed["items"]]
        assert spans == [
            (f"{datetime.fromtimestamp(start + first, UTC):%Y-%m-%dT%H:%M:%SZ}",
             f"{datetime.fromtimestamp(start + last, UTC):%Y-%m-%dT%H:%M:%SZ}")
            for first, last in ((0, 1_500), (1_800, 3_300), (3_600, 5_100), (5_400, 6_900))
        ]  # fmt: skip


@WORKERS
@pytest.mark.parametrize("transport", ["udp", "tcp-passive"])
async def test_a_span_is_played_picture_by_picture_to_its_end(gateway_at: GatewayAt, transport: str) -> None:
    async with gateway_at(f"media.transport={transport}") as gateway, recorder(gateway):
        start = hour() + 10
        status, body = await http_get(f"{gateway.http_url}/playback/{KEY}/{start}-{start + 3}.flv", seconds=15)
        assert status == 200
        seen = [number for _, number in numbers(body)]
        assert seen == [picture_number(start, index, RATE) for index in range(3 * RATE)]


async def test_a_break_between_recordings_is_passed_over(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, recorder(gateway):
        start = hour() + 1_499  # a second of one file, five minutes of nothing, a second of the next
        status, body = await http_get(f"{gateway.http_url}/playback/{KEY}/{start}-{start + 302}.flv", seconds=15)
        assert status == 200
        seen = numbers(body)
        wanted = [picture_number(start, i, RATE) for i in range(RATE)]
        assert [number for _, number in seen] == wanted + [picture_number(start + 301, i, RATE) for i in range(RATE)]
        assert all(0.03 < later[0] - earlier[0] < 0.3 for earlier, later in pairwise(seen))


async def test_where_nothing_is_recorded(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, recorder(gateway):
        start = hour() + 1_600
        status, body = await http_get(f"{gateway.http_url}/playback/{KEY}/{start}-{start + 60}.flv", seconds=15)
        assert status == 504
        assert b"no_record" in body


@pytest.mark.conformance(67)
@WORKERS
@pytest.mark.parametrize("edition", ["2.0", "3.0"])
async def test_it_is_paused_moved_and_sped_up(gateway_at: GatewayAt, edition: Any) -> None:
    async with gateway_at() as gateway, recorder(gateway, edition=edition):
        start = hour() + 10
        playback = await api(
            gateway, "POST", "/playbacks", 201, json={"key": KEY, "start": iso(start), "end": iso(start + 1_400)}
        )
        path = f"/playbacks/{playback['id']}"
        reading = asyncio.create_task(http_get(playback["urls"]["flv"], seconds=40), name="test:watch")
        session = playback["stream"]
        await fact(lambda: gateway.session(session) is not None, "it began")
        await fact(lambda: gateway.session(session).state.value == "playing", "it plays")
        await asyncio.sleep(1)
        await api(gateway, "PATCH", path, json={"position": iso(start + 600)})
        await asyncio.sleep(1.5)
        told = await api(gateway, "GET", path)
        assert abs(datetime.fromisoformat(told["position"]).timestamp() - (start + 601.5)) < 1
        await api(gateway, "PATCH", path, json={"speed": 4})
        await asyncio.sleep(3)
        told = await api(gateway, "GET", path)
        assert told["measured_speed"] == pytest.approx(4, rel=0.15)
        if edition == "3.0":
            await api(gateway, "PATCH", path, json={"position": iso(start + 900), "speed": -1})
            await asyncio.sleep(3)
        await api(gateway, "PATCH", path, json={"paused": True})
        await asyncio.sleep(0.3)
        units = gateway.session(session).stream.units
        await asyncio.sleep(1.2)
        assert gateway.session(session).stream.units - units <= 2 * RATE * bool(gateway.config.media.workers)
        await api(gateway, "DELETE", path, 204)
        status, body = await reading
        assert status == 200
        seen = numbers(body)
        first = picture_number(start, 0, RATE)
        at = [(number - first) % 65_536 / RATE for _, number in seen]  # seconds after the start
        assert at[0] == 0
        assert any(600 <= moment < 600.05 for moment in at)
        fast = [(line, moment) for (line, _), moment in zip(seen, at, strict=True) if 604 < moment < 611]
        assert len(fast) > 150  # none left out
        assert (fast[-1][1] - fast[0][1]) / (fast[-1][0] - fast[0][0]) == pytest.approx(4, rel=0.2)
        assert all(later[0] > earlier[0] for earlier, later in pairwise(seen))
        if edition == "3.0":
            back = [int(moment) for moment in at if 880 <= moment < 899.99]
            groups = [second for index, second in enumerate(back) if index == 0 or back[index - 1] != second]
            assert len(groups) >= 2
            assert groups == sorted(groups, reverse=True)
