"""The simulated device over real sockets against a platform made of raw bytes."""

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import pytest

from gbgw import _ps, _rtp
from gbgw.base.codec import AAC, H264, H265, PCMA, PCMU, Codec
from gbgw.base.errors import ConfigError, GatewayError
from gbgw.device.fleet import Fleet, FleetOptions
from gbgw.device.options import DeviceOptions
from gbgw.device.sender import Rates
from gbgw.mux.pattern import read_counter
from tests.support.raw_platform import DOMAIN, SERVER_ID, RawPlatform

DEVICE = "34020000001110000001"
CHANNEL = "34020000001310000001"


def options(platform: RawPlatform, **changes: object) -> FleetOptions:
    device = DeviceOptions(
        DEVICE, SERVER_ID, DOMAIN, ("127.0.0.1", platform.port), password="secret", retry_seconds=0.2
    )
    own = {name: value for name, value in changes.items() if name in DeviceOptions.__dataclass_fields__}
    fleet = {name: value for name, value in changes.items() if name not in own}
    return replace(FleetOptions(replace(device, **own), width=320, height=180), **fleet)


@asynccontextmanager
async def running(platform: RawPlatform, **changes: object) -> AsyncIterator[Fleet]:
    async with Fleet(options(platform, **changes)) as fleet:
        async with asyncio.timeout(5):
            await fleet.until_registered()
        yield fleet


class Receiver(asyncio.DatagramProtocol):
    """Collects what comes to a UDP port."""

    def __init__(self) -> None:
        self.datagrams: list[bytes] = []
        self._came = asyncio.Event()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.datagrams.append(data)
        self._came.set()

    async def enough(self, count: int, seconds: float = 6.0) -> None:
        async with asyncio.timeout(seconds):
            while len(self.datagrams) < count:
                self._came.clear()
                await self._came.wait()


@asynccontextmanager
async def receiver() -> AsyncIterator[tuple[Receiver, int]]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(Receiver, local_addr=("127.0.0.1", 0))
    try:
        yield protocol, transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


def demux(datagrams: Sequence[bytes]) -> tuple[list[_ps.AccessUnit], _ps.Demuxer, _rtp.JitterBuffer]:
    buffer, demuxer, units = _rtp.JitterBuffer(), _ps.Demuxer(), []
    for packets in (*[buffer.push(datagram, 0.0) for datagram in datagrams], buffer.flush()):
        for packet in packets:
            if packet.lost_before:
                demuxer.gap()
            units += demuxer.push(packet.payload, 0.0)
            if packet.marker:
                units += demuxer.mark(0.0)
    return [*units, *demuxer.flush()], demuxer, buffer


def pictures(units: Sequence[_ps.AccessUnit], codec: Codec = H264) -> list[int | None]:
    """Decode and read the counters, in presentation order."""
    decoder = av.CodecContext.create(codec.container, "r")
    frames = []
    for unit in units:
        if unit.codec is codec:
            frames += decoder.decode(av.Packet(bytes(unit)))
    frames += decoder.decode(None)
    return [read_counter(frame.to_ndarray(format="rgb24")) for frame in frames]


@pytest.mark.parametrize("qop", [True, False])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_registers_refreshes_and_unregisters_with_digest(qop: bool, transport: str) -> None:
    async with RawPlatform("secret", qop=qop, expires=1) as platform:
        async with running(platform, transport=transport):
            first = platform.registrations[0]
            assert first["X-GB-Ver"] == "3.0"
            assert first["Expires"] == "3600"
            assert f"SIP/2.0/{transport.upper()}" in first["Via"]
            assert (";transport=tcp" in first["Contact"]) == (transport == "tcp")
            assert re.fullmatch(rf"<sip:{DEVICE}@127\.0\.0\.1:\d+(;transport=tcp)?>", first["Contact"])
            await platform.until(lambda: len(platform.registrations) >= 2)
            second = platform.registrations[1]
            assert second["Call-ID"] == first["Call-ID"]
            assert second.cseq[0] > first.cseq[0]
            assert second.tag("From") == first.tag("From")
        assert platform.registrations[-1]["Expires"] == "0"


async def test_a_stale_nonce_is_answered_once_more() -> None:
    async with RawPlatform("secret", stale=1) as platform, running(platform):
        assert len(platform.registrations) == 1
        assert len(platform.all("REGISTER")) == 3


async def test_a_wrong_password_is_tried_again_only_after_the_wait() -> None:
    async with RawPlatform("other") as platform, Fleet(options(platform, retry_seconds=0.4)) as fleet:
        await platform.wait("REGISTER", 2)
        await asyncio.sleep(0.3)
        assert len(platform.all("REGISTER")) == 2
        await platform.wait("REGISTER", 4, seconds=2)
        assert fleet.registered == 0


async def test_keepalives_and_a_dead_platform() -> None:
    async with RawPlatform("secret") as platform, running(platform, keepalive_seconds=0.1) as fleet:
        await platform.until(lambda: len(platform.xml("Keepalive", "<Status>OK")) >= 3)
        platform.message_status = 503
        platform.registrations.clear()
        await platform.until(lambda: platform.registrations)
        platform.message_status = 200
        async with asyncio.timeout(2):
            await fleet.until_registered()


async def test_a_platform_that_forgot_the_device_gets_a_new_registration() -> None:
    async with RawPlatform("secret", message_status=403) as platform, running(platform, keepalive_seconds=0.1):
        await platform.until(lambda: len(platform.registrations) >= 2)


async def test_a_lost_connection_is_made_again() -> None:
    async with RawPlatform("secret") as platform, running(platform, transport="tcp"):
        platform.registrations.clear()
        platform.drop_connection()
        await platform.until(lambda: platform.registrations)


async def test_catalog_in_parts_each_after_the_answer_to_the_one_before() -> None:
    async with RawPlatform("secret") as platform, running(platform, channels=10, items_per_message=4):
        platform.answer_messages = False
        platform.query(DEVICE, "Catalog", 17)
        first = await platform.wait("MESSAGE")
        await asyncio.sleep(0.2)
        assert len({text["Call-ID"] for text in platform.xml("Catalog")}) == 1
        platform.answer_messages = True
        platform.respond(first, 200)
        await platform.until(lambda: len({text["Call-ID"] for text in platform.xml("Catalog", "<SN>17<")}) == 3)
        bodies = {text["Call-ID"]: text.body.decode("gb18030") for text in platform.xml("Catalog")}.values()
        assert [re.findall(r'Num="(\d+)"', body) for body in bodies] == [["4"], ["4"], ["2"]]
        assert all("<SumNum>10</SumNum>" in body for body in bodies)
        ids = re.findall(r"<Item>\s*<DeviceID>(\d+)", "".join(bodies))
        assert ids == [f"340200000013100000{number:02}" for number in range(1, 11)]


async def test_device_info_status_and_what_it_does_not_know() -> None:
    async with RawPlatform("secret") as platform, running(platform, name="Front gate"):
        platform.query(DEVICE, "DeviceInfo", 5)
        await platform.until(lambda: platform.xml("DeviceInfo", "<SN>5<", "<Result>OK<", "Front gate"))
        platform.query(DEVICE, "DeviceStatus", 6)
        await platform.until(lambda: platform.xml("DeviceStatus", "<SN>6<", "<Online>ONLINE<"))
        platform.query(DEVICE, "SensorCatalog", 8)
        platform.message(DEVICE, "<Control><CmdType>DeviceControl</CmdType></Control>")
        platform.message(DEVICE, "<Rubbish")
        platform.request("OPTIONS", DEVICE, call_id="opt")
        await platform.until(lambda: platform.answers("opt", "OPTIONS"))
        assert [text.status for text in platform.received if text.cseq[1] == "MESSAGE" and text.status] == [200] * 4 + [
            400
        ]
        assert "INVITE" in platform.answers("opt", "OPTIONS")[0]["Allow"]


@pytest.mark.parametrize("video", [H264, H265])
@pytest.mark.parametrize("audio", [PCMA, PCMU, AAC, None])
async def test_live_over_udp_is_what_the_pattern_says(video: Codec, audio: Codec | None, tmp_path: Path) -> None:
    dump = tmp_path / "sent.video"
    async with (
        RawPlatform("secret") as platform,
        running(platform, video=video, audio=audio, dump=dump) as fleet,
        receiver() as (received, port),
    ):
        answer = await platform.invite(CHANNEL, platform.offer(port), call_id="live")
        assert answer.sdp["y"] == ["0200000001"]
        assert answer.sdp["m"][0].endswith("RTP/AVP 96")
        assert answer.sdp["f"][0].startswith("v/2/320x180/25/2/" if video is H264 else "v/5/320x180/25/2/")
        await received.enough(30)
        await platform.bye(CHANNEL, answer)
        await asyncio.sleep(0.1)
        count = len(received.datagrams)
        await asyncio.sleep(0.2)
        assert len(received.datagrams) == count
        assert fleet.devices[0].sessions == 0
    units, demuxer, buffer = demux(received.datagrams)
    assert buffer.ssrc == 200_000_001
    assert buffer.counts["rtp.lost"] == 0
    assert all(len(datagram) <= 1_412 for datagram in received.datagrams)
    assert {unit.codec for unit in units} == {video, audio} - {None}
    assert units[0].is_keyframe
    numbers = pictures(units, video)
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 10
    assert b"".join(bytes(unit) for unit in units if unit.codec is video) == dump.read_bytes()
    assert demuxer.counts["ps.malformed"] == 0


async def test_b_frames_keep_their_order_and_both_times() -> None:
    async with (
        RawPlatform("secret") as platform,
        running(platform, quirks=("b-frames",), audio=None),
        receiver() as (received, port),
    ):
        await platform.invite(CHANNEL, platform.offer(port), call_id="live")
        await received.enough(40)
    units, _, _ = demux(received.datagrams)
    assert any(unit.dts is not None and unit.pts != unit.dts for unit in units)
    numbers = pictures(units)
    assert numbers == list(range(len(numbers)))


async def read_frames(reader: asyncio.StreamReader, count: int) -> list[bytes]:
    framer, found = _rtp.Framer(), []
    async with asyncio.timeout(6):
        while len(found) < count:
            data = await reader.read(4_096)
            assert data, "the device closed"
            found += framer.push(data)
    return found


@pytest.mark.parametrize("quirks", [(), ("tcp-garbage",)])
async def test_live_over_tcp_when_the_device_connects(quirks: tuple[str, ...]) -> None:
    accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.put_nowait((reader, writer))

    async with RawPlatform("secret") as platform, running(platform, quirks=quirks):
        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        answer = await platform.invite(CHANNEL, platform.offer(port, setup="passive"), call_id="tcp")
        assert answer.sdp["m"][0].split()[2] == "TCP/RTP/AVP"
        assert "setup:active" in answer.sdp["a"]
        async with asyncio.timeout(3):
            reader, writer = await accepted.get()
        packets = await read_frames(reader, 60)
        units, _, _ = demux(packets)
        numbers = pictures(units)
        if quirks:
            assert len(numbers) > 10
        else:
            assert numbers == list(range(len(numbers)))
        await platform.bye(CHANNEL, answer)
        async with asyncio.timeout(3):
            while await reader.read(65_536):
                pass
        writer.close()
        server.close()


async def test_live_over_tcp_when_the_platform_connects() -> None:
    async with RawPlatform("secret") as platform, running(platform):
        answer = await platform.invite(CHANNEL, platform.offer(9, setup="active"), call_id="tcp")
        assert "setup:passive" in answer.sdp["a"]
        port = int(answer.sdp["m"][0].split()[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        units, _, _ = demux(await read_frames(reader, 40))
        assert pictures(units)[:10] == list(range(10))
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await platform.until(lambda: platform.all("BYE"))


async def test_a_platform_that_cannot_be_connected_to_gets_bye() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        async with RawPlatform("secret") as platform, running(platform) as fleet:
            await platform.invite(CHANNEL, platform.offer(port, setup="passive"), call_id="tcp")
            await platform.wait("BYE", seconds=8)
            assert fleet.devices[0].sessions == 0


async def test_the_key_frame_command_is_obeyed_with_the_next_picture() -> None:
    async with (
        RawPlatform("secret") as platform,
        running(platform, gop=200, audio=None),
        receiver() as (received, port),
    ):
        await platform.invite(CHANNEL, platform.offer(port), call_id="live")
        await received.enough(20)
        for spelling in ("IFameCmd", "IFrameCmd"):
            before = len(received.datagrams)
            inner = (
                f"<CmdType>DeviceControl</CmdType><SN>3</SN><DeviceID>{CHANNEL}</DeviceID><{spelling}>Send</{spelling}>"
            )
            platform.message(DEVICE, f"<Control>{inner}</Control>")
            await received.enough(before + 12)
    units, _, _ = demux(received.datagrams)
    keys = [index for index, unit in enumerate(units) if unit.is_keyframe]
    assert len(keys) == 3
    times = [unit.pts for unit in units if unit.pts is not None]
    assert [later - earlier for earlier, later in pairwise(times)] == [3_600] * (len(times) - 1)


async def test_the_same_subject_replaces_the_session() -> None:
    async with (
        RawPlatform("secret") as platform,
        running(platform) as fleet,
        receiver() as (first, one),
        receiver() as (second, two),
    ):
        subject = f"{CHANNEL}:0200000001,{SERVER_ID}:0"
        await platform.invite(CHANNEL, platform.offer(one), call_id="a", subject=subject)
        await first.enough(5)
        await platform.invite(CHANNEL, platform.offer(two), call_id="b", subject=subject)
        await second.enough(5)
        bye = await platform.wait("BYE")
        assert bye["Call-ID"] == "a"
        count = len(first.datagrams)
        await asyncio.sleep(0.2)
        assert len(first.datagrams) == count
        assert fleet.devices[0].sessions == 1


async def test_two_viewers_of_two_channels_have_two_sessions() -> None:
    async with (
        RawPlatform("secret") as platform,
        running(platform, channels=2) as fleet,
        receiver() as (first, one),
        receiver() as (second, two),
    ):
        await platform.invite(CHANNEL, platform.offer(one), call_id="a")
        other = "34020000001310000002"
        await platform.invite(other, platform.offer(two, y="0200000002"), call_id="b")
        await first.enough(5)
        await second.enough(5)
        assert fleet.devices[0].sessions == 2
        assert [_rtp.parse(each.datagrams[0]).ssrc for each in (first, second)] == [200_000_001, 200_000_002]


@pytest.mark.parametrize(
    ("channel", "body", "status"),
    [
        ("34020000001310000099", "offer", 404),
        (CHANNEL, "", 488),
        (CHANNEL, "v=0\r\ns=Play\r\nm=audio 5000 RTP/AVP 8\r\n", 488),
        (CHANNEL, "playback", 488),
    ],
)
async def test_what_cannot_be_played_is_refused(channel: str, body: str, status: int) -> None:
    async with RawPlatform("secret") as platform, running(platform) as fleet:
        text = {"offer": platform.offer(5_000), "playback": platform.offer(5_000).replace("s=Play", "s=Playback")}
        answer = await platform.invite(channel, text.get(body, body), call_id="no")
        assert answer.status == status
        assert fleet.devices[0].sessions == 0


async def test_quirks_of_the_dialog() -> None:
    async with RawPlatform("secret") as platform:
        async with running(platform, quirks=("no-y", "own-ssrc")), receiver() as (received, port):
            answer = await platform.invite(CHANNEL, platform.offer(port), call_id="a")
            assert "y" not in answer.sdp
            await received.enough(3)
            assert _rtp.parse(received.datagrams[0]).ssrc != 200_000_001
        async with running(platform, quirks=("other-y",)), receiver() as (received, port):
            answer = await platform.invite(CHANNEL, platform.offer(port), call_id="b")
            await received.enough(3)
            assert _rtp.parse(received.datagrams[0]).ssrc == int(answer.sdp["y"][0]) != 200_000_001
        async with running(platform, quirks=("reject-486",)):
            assert (await platform.invite(CHANNEL, platform.offer(port), call_id="c")).status == 486
        async with running(platform, quirks=("no-media",)) as fleet, receiver() as (received, port):
            await platform.invite(CHANNEL, platform.offer(port), call_id="d")
            await asyncio.sleep(0.3)
            assert received.datagrams == []
            assert fleet.devices[0].sessions == 1
        async with running(platform, quirks=("double-answer",)):
            platform.send_invite(CHANNEL, platform.offer(port), call_id="e")
            await platform.until(lambda: len({text.tag("To") for text in platform.answers("e")}) == 2)


async def test_the_second_of_two_answers_can_be_ended_without_the_first() -> None:
    async with (
        RawPlatform("secret") as platform,
        running(platform, quirks=("double-answer",)) as fleet,
        receiver() as (received, port),
    ):
        platform.send_invite(CHANNEL, platform.offer(port), call_id="e")
        await platform.until(lambda: len(platform.answers("e")) >= 2)
        one, two = platform.answers("e")[:2]
        platform.ack(CHANNEL, one)
        platform.ack(CHANNEL, two)
        await platform.bye(CHANNEL, two)
        before = len(received.datagrams)
        await received.enough(before + 10)
        assert fleet.devices[0].sessions == 1


async def test_an_invite_that_is_never_answered_can_be_cancelled() -> None:
    async with RawPlatform("secret") as platform, running(platform, quirks=("no-answer",)) as fleet:
        platform.send_invite(CHANNEL, platform.offer(5_000), call_id="n", branch="z9hG4bKcancelme")
        await platform.until(lambda: any(text.status == 100 for text in platform.received))
        platform.request("CANCEL", CHANNEL, call_id="n", branch="z9hG4bKcancelme")
        await platform.until(lambda: platform.answers("n"))
        assert platform.answers("n")[0].status == 487
        assert fleet.devices[0].sessions == 0


async def test_losses_are_seeded_and_bounded() -> None:
    async with (
        RawPlatform("secret") as platform,
        running(platform, rates=Rates(loss=0.1, reorder=0.1, duplicate=0.1), audio=None),
        receiver() as (received, port),
    ):
        await platform.invite(CHANNEL, platform.offer(port), call_id="bad")
        await received.enough(60)
    _, _, buffer = demux(received.datagrams)
    assert buffer.counts["rtp.lost"] > 0
    assert buffer.counts["rtp.reordered"] > 0
    assert buffer.counts["rtp.duplicate"] > 0


async def test_strangers_are_refused_and_requests_need_the_platforms_socket() -> None:
    async with RawPlatform("secret") as platform, running(platform) as fleet, RawPlatform("secret") as stranger:
        contact = platform.registrations[0]["Contact"]
        port = int(re.findall(r":(\d+)", contact)[-1])
        stranger._peer = ("127.0.0.1", port)
        stranger.send_invite(CHANNEL, stranger.offer(5_000), call_id="x")
        await asyncio.sleep(0.2)
        assert stranger.received == []
        assert fleet.devices[0].sessions == 0


async def test_many_devices_in_one_process_share_one_loop() -> None:
    async with RawPlatform("secret") as platform:
        async with running(platform, count=30) as fleet:
            assert len({text["Contact"] for text in platform.registrations}) == 30
            names = [device.options.device_id for device in fleet.devices]
            assert names == [str(int(DEVICE) + index) for index in range(30)]
            assert fleet.devices[29].options.channel_ids == ("34020000001310000030",)
        assert len([text for text in platform.registrations if text["Expires"] == "0"]) == 30


async def test_a_stop_while_sending_says_bye_and_unregisters() -> None:
    loop = asyncio.get_running_loop()
    async with RawPlatform("secret") as platform, receiver() as (received, port):
        async with running(platform):
            await platform.invite(CHANNEL, platform.offer(port), call_id="live")
            await received.enough(5)
            began = loop.time()
        assert loop.time() - began < 1
        assert platform.all("BYE")[0]["Call-ID"] == "live"
        assert platform.registrations[-1]["Expires"] == "0"


async def test_a_stop_towards_a_dead_platform_takes_under_three_seconds() -> None:
    loop = asyncio.get_running_loop()
    async with RawPlatform("secret") as platform:
        async with running(platform):
            platform.answer_registers = False
            began = loop.time()
        assert loop.time() - began < 3


async def test_a_name_that_does_not_resolve_is_a_clear_error() -> None:
    async with RawPlatform("secret") as platform:
        made = options(platform)
        made = replace(made, device=replace(made.device, server=("nowhere.invalid", 5_060)))
        with pytest.raises(BaseExceptionGroup) as caught:
            async with Fleet(made) as fleet:
                await fleet.until_registered()
        assert caught.group_contains(GatewayError, match="cannot run")


@pytest.mark.parametrize("arguments", [["--quirk", "nonsense"], ["--id", "123"], ["--media", "/nonexistent.mp4"]])
async def test_the_command_line_refuses_in_one_line(arguments: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.device_command",
        *("--server", "127.0.0.1:9", "--server-id", SERVER_ID, "--id", DEVICE, *arguments),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, error = await process.communicate()
    assert process.returncode == 2
    assert error.count(b"\n") == 1
    assert b"Traceback" not in error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_command_line_ends_cleanly_on_a_signal(number: signal.Signals) -> None:
    async with RawPlatform("secret") as platform:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.device_command",
            *("--server", f"127.0.0.1:{platform.port}", "--server-id", SERVER_ID, "--id", DEVICE),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "GBGW_DEVICE_PASSWORD": "secret"},
        )  # fmt: skip
        assert process.stdout is not None
        async with asyncio.timeout(15):
            assert await process.stdout.readline() == b"registered: 1 of 1\n"
        process.send_signal(number)
        async with asyncio.timeout(3):
            await process.communicate()
        assert process.returncode == 0
        assert platform.registrations[-1]["Expires"] == "0"


def test_a_fleet_checks_its_options_before_anything_runs() -> None:
    good = DeviceOptions(DEVICE, SERVER_ID, DOMAIN, ("127.0.0.1", 5_060))
    for bad in (
        FleetOptions(replace(good, device_id="1")),
        FleetOptions(replace(good, server=("", 5_060))),
        FleetOptions(replace(good, channels=-1)),
        FleetOptions(good, count=0),
        FleetOptions(good, quirks=("nonsense",)),
        FleetOptions(good, rates=Rates(loss=2.0)),
    ):
        with pytest.raises(ConfigError):
            Fleet(bad)
