"""What system tests do again and again: register, watch, send a picture without end, and look at what is left."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

from gbgw.base.errors import GatewayError
from tests.support import build
from tests.support.peer import Address, Camera, Text, framed, rtp_packets
from tests.system.conftest import CHANNEL, DEVICE, KEY, PASSWORD

GOP = 10  # pictures from key frame to key frame
TICKS = 3_600  # 25 pictures a second
PACE = 0.01  # seconds from picture to picture: four times real time
FREE = {"sessions": 0, "ports": 0, "ssrcs": 0, "dialogs": 0, "questions": 0}


async def fact(true: Callable[[], object], what: str, seconds: float = 5.0) -> None:
    """Wait until `true()`; fail by name when it does not come about."""
    try:
        async with asyncio.timeout(seconds):
            while not true():  # noqa: ASYNC110 - a fact to look at, there is no event for it
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {what}") from None


def server_of(gateway: Any, transport: str = "udp") -> Address:
    return "127.0.0.1", gateway.sip_ports[transport]


async def ready(camera: Camera, gateway: Any, channels: Sequence[str] = (CHANNEL,)) -> None:
    """Register and have the catalog read."""
    assert (await camera.register(PASSWORD)).status == 200
    await camera.serve_catalog(channels)
    await fact(lambda: all(gateway.is_playable(f"{camera.id}-{channel}") for channel in channels), "catalog read")
    await camera.query("DeviceInfo")
    sn = re.search(rb"<SN>(\d+)</SN>", camera.received[-1].body)
    assert sn is not None
    camera.send(
        camera.message(
            f"<Response>\n<CmdType>DeviceInfo</CmdType>\n<SN>{int(sn[1])}</SN>\n<DeviceID>{camera.id}</DeviceID>\n"
            "<Result>OK</Result>\n<Manufacturer>Peer</Manufacturer>\n<Model>Raw</Model>\n</Response>"
        )
    )
    await fact(lambda: gateway.resources()["questions"] == 0, "interview over")
    assert (await camera.expect(200)).cseq[1] == "MESSAGE"
    camera.drain()


@asynccontextmanager
async def online(
    gateway: Any, device_id: str = DEVICE, *, transport: str = "udp", **options: Any
) -> AsyncIterator[Camera]:
    """A camera that is registered and known."""
    async with Camera(device_id, server=server_of(gateway, transport), transport=transport, **options) as camera:
        await ready(camera, gateway)
        yield camera


class Seated:
    """Looks like a Watch of a stream whose pictures are in another process."""

    def __init__(self, seat: Any) -> None:
        self.stream = seat.stream
        self._seat = seat

    async def close(self) -> None:
        self._seat.leave()


async def opened(gateway: Any, key: str = KEY) -> Any:
    """A Watch, or the GatewayError that it ended in."""
    try:
        if gateway._pool is not None:
            return Seated(await gateway.seat(key))
        return await gateway.open(key, protocol="test", viewer="test")
    except GatewayError as error:
        return error


def picture_stream(index: int) -> bytes:
    """The pack of picture `index` of an endless H.264 stream, a key frame every GOP pictures."""
    pts = 90_000 + index * TICKS
    if index % GOP == 0:
        return (
            build.pack(pts)
            + build.system_header(((build.VIDEO_ID, 0xE190),))
            + build.program_map(((build.H264, build.VIDEO_ID),))
            + build.pes_run(build.idr264(4_000, index + 1), build.VIDEO_ID, pts)
        )
    return build.pack(pts) + build.pes_run(build.p264(1_500, index + 1), build.VIDEO_ID, pts)


class Sender:
    """Sends pictures until told to stop; everything about it may be changed while it runs."""

    def __init__(self, camera: Camera, invite: Text, make: Callable[[int], bytes] = picture_stream) -> None:
        self.camera = camera
        self.target = camera.media_target(invite)
        self.ssrc = int(invite.sdp["y"][0])
        self.make = make
        self.index = 0
        self.sequence = 65_500  # it wraps soon
        self.payload_type = 96
        self.paused = False
        self.size = 1_400  # bytes of one payload
        self.largest = 0  # packet that was sent
        self.cut = 0  # bytes of one write to a TCP connection; 0: a frame at a time
        self.noise: Callable[[int], bytes] = lambda index: b""
        self.udp: asyncio.DatagramTransport | None = None
        self.tcp: asyncio.StreamWriter | None = None

    def packets(self) -> list[bytes]:
        """The next picture's."""
        made = rtp_packets(
            self.make(self.index),
            ssrc=self.ssrc,
            sequence=self.sequence,
            timestamp=90_000 + self.index * TICKS,
            payload_type=self.payload_type,
            size=self.size,
        )
        self.largest = max(self.largest, *map(len, made))
        self.sequence += len(made)
        self.index += 1
        return made

    async def one(self) -> None:
        packets = self.packets()
        if self.udp is not None:
            for packet in packets:
                self.udp.sendto(packet)
            return
        assert self.tcp is not None
        data = self.noise(self.index) + framed(packets)
        step = self.cut or len(data)
        for start, end in pairwise([*range(0, len(data), step), len(data)]):
            self.tcp.write(data[start:end])
            if self.cut:
                await asyncio.sleep(0)
        await self.tcp.drain()

    async def run(self) -> None:
        while True:
            if not self.paused:
                try:
                    await self.one()
                except ConnectionError:
                    return
            await asyncio.sleep(PACE)


@asynccontextmanager
async def sending(
    camera: Camera,
    invite: Text,
    make: Callable[[int], bytes] = picture_stream,
    *,
    tcp: bool = False,
    writer: asyncio.StreamWriter | None = None,
    local: Address = ("127.0.0.1", 0),
) -> AsyncIterator[Sender]:
    """Send in the background, over UDP, over a TCP connection to the offer's address, or over `writer`."""
    sender = Sender(camera, invite, make)
    if writer is not None:
        sender.tcp = writer
    elif tcp:
        sender.tcp = await camera.media_tcp(sender.target)
    else:
        sender.udp = await camera.media_udp(sender.target, local)
    task = asyncio.create_task(sender.run(), name="test:sender")
    try:
        yield sender
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def playing(gateway: Any, camera: Camera, key: str = KEY, **how: Any) -> AsyncIterator[tuple[Any, Sender, Text]]:
    """A stream that plays, with one viewer: (watch, sender, invite)."""
    opening = asyncio.create_task(opened(gateway, key), name="test:open")
    try:
        invite = await camera.expect("INVITE")
        await camera.answer_invite(invite)
        async with sending(camera, invite, tcp="TCP" in invite.sdp["m"][0], **how) as sender:
            async with asyncio.timeout(5):
                watch = await opening
            assert not isinstance(watch, GatewayError), watch
            try:
                yield watch, sender, invite
            finally:
                await watch.close()
    finally:
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)


async def plays_on(watch: Any, units: int = 15) -> None:
    """More units come out of the stream."""
    before = watch.stream.units
    await fact(lambda: watch.stream.units >= before + units, f"{units} more units")


async def all_back(gateway: Any, seconds: float = 5.0) -> None:
    """Ports, SSRCs, dialogs and sessions are given back, and the store knows no dialog."""
    await fact(lambda: gateway.resources() == FREE, f"everything back: {gateway.resources()}", seconds)
    async with asyncio.timeout(seconds):
        while await gateway._store.dialogs():  # noqa: ASYNC110 - the store tells nobody
            await asyncio.sleep(0.02)


async def ends(gateway: Any, camera: Camera, seconds: float = 5.0) -> Text:
    """The platform says BYE; answer it; everything is back. Returns the BYE."""
    bye = await camera.expect("BYE", seconds)
    camera.respond(bye, 200)
    await all_back(gateway)
    return bye
