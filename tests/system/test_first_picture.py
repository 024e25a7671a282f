"""The main road: a camera made of raw bytes registers, a viewer asks, the picture arrives as it was sent."""

import asyncio
import io
from collections.abc import Callable
from typing import Any

import aiohttp
import av
import pytest

from tests.support import material
from tests.support.peer import Camera, Text, framed, rtp_packets
from tests.system.conftest import CHANNEL, DEVICE, KEY, PASSWORD


def server_of(gateway: Any, transport: str = "udp") -> tuple[str, int]:
    return "127.0.0.1", gateway.sip_ports[transport]


async def ready(camera: Camera, gateway: Any) -> None:
    """Register and have the catalog read."""
    assert (await camera.register(PASSWORD)).status == 200
    await camera.serve_catalog([CHANNEL])
    async with asyncio.timeout(3):
        while not gateway.is_playable(KEY):  # noqa: ASYNC110 - a fact to look at, there is no event for it
            await asyncio.sleep(0.01)


async def send_pictures(
    camera: Camera, invite: Text, pictures: list[material.Picture], *, loops: int = 1, pace: float = 0.01
) -> None:
    """Send over UDP, or over TCP when the offer was passive TCP."""
    target = camera.media_target(invite)
    ssrc = int(invite.sdp["y"][0])
    over_tcp = "TCP" in invite.sdp["m"][0]
    udp = None if over_tcp else await camera.media_udp(target)
    tcp = await camera.media_tcp(target) if over_tcp else None
    sequence = 0
    span = pictures[-1].pts + 3_600 - pictures[0].pts
    for loop in range(loops):
        for picture in pictures:
            shifted = material.Picture(
                picture.data, picture.pts + loop * span, picture.dts + loop * span, picture.is_keyframe
            )
            packets = rtp_packets(material.program_stream(shifted), ssrc=ssrc, sequence=sequence, timestamp=shifted.pts)
            sequence += len(packets)
            if tcp is not None:
                tcp.write(framed(packets))
                await tcp.drain()
            else:
                assert udp is not None
                for packet in packets:
                    udp.sendto(packet)
            await asyncio.sleep(pace)


async def read_some(url: str, size: int, seconds: float = 10.0) -> bytes:
    data = bytearray()
    async with asyncio.timeout(seconds), aiohttp.ClientSession() as client, client.get(url) as answer:
        assert answer.status == 200, await answer.text()
        async for part in answer.content.iter_any():
            data += part
            if len(data) >= size:
                break
    return bytes(data)


@pytest.mark.parametrize("workers", [0, 1], indirect=True)
async def test_flv_carries_the_units_that_the_camera_sent(gateway_at: Callable[..., Any]) -> None:
    pictures = material.pictures(material.elementary_stream("h264"))
    async with gateway_at() as gateway, Camera(DEVICE, server=server_of(gateway)) as camera:
        await ready(camera, gateway)
        async with asyncio.TaskGroup() as tasks:
            size = sum(len(picture.data) for picture in pictures) // 2
            reading = tasks.create_task(read_some(f"{gateway.http_url}/live/{KEY}.flv", size), name="test:read")
            invite = await camera.expect("INVITE")
            await camera.answer_invite(invite)
            await send_pictures(camera, invite, pictures)
            data = await reading
        bye = await camera.expect("BYE")
        camera.respond(bye, 200)
    sent = [picture.data for picture in pictures]
    with av.open(io.BytesIO(data), format="flv") as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert len(packets) > len(sent) // 3
    assert [packet.pts for packet in packets[:5]] == [0, 40, 80, 120, 160]
