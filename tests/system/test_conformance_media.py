"""Checklist statements 57, 58, 61, 62 and 70 over real sockets; 60, 63-65 and 69 are in test_failures.py, 73-79 in
tests/unit."""

import asyncio
import re
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest

from gbgw.base import limits
from gbgw.base.errors import GatewayError
from tests.support.peer import Camera, Text
from tests.system.conftest import CHANNEL, DEVICE, KEY
from tests.system.steps import Sender, all_back, ends, fact, online, opened, playing, plays_on

GatewayAt = Callable[..., Any]
PLATFORM = "34020000002000000001"
SECOND = "34020000001310000002"


async def invited(gateway: Any, camera: Camera, key: str = KEY) -> tuple[Text, "asyncio.Task[Any]"]:
    task = asyncio.create_task(opened(gateway, key), name="test:open")
    return await camera.expect("INVITE"), task


async def refuse(gateway: Any, camera: Camera, invite: Text, task: "asyncio.Task[Any]") -> None:
    camera.respond(invite, 486)
    await camera.expect("ACK")
    assert isinstance(await task, GatewayError)


@pytest.mark.conformance(57)
@pytest.mark.parametrize("transport", ["udp", "tcp-passive", "tcp-active"])
async def test_the_invite_is_what_the_standard_wants(gateway_at: GatewayAt, transport: str) -> None:
    async with gateway_at(f"media.transport={transport}") as gateway, online(gateway) as camera:
        invite, task = await invited(gateway, camera)
        assert invite.uri.startswith(f"sip:{CHANNEL}@")
        assert invite["Content-Type"].lower() == "application/sdp"
        assert int(invite["Content-Length"]) == len(invite.body)
        sdp = invite.sdp
        assert re.fullmatch(rf"{CHANNEL}:[0-9A-Za-z]{{1,32}},{PLATFORM}:[0-9A-Za-z]{{1,32}}", invite["Subject"])
        assert sdp["s"] == ["Play"]
        assert sdp["t"] == ["0 0"]
        assert sdp["o"][0].split()[0] == PLATFORM
        assert sdp["c"] == ["IN IP4 127.0.0.1"]
        media, port, protocol, *payloads = sdp["m"][0].split()
        assert media == "video"
        assert int(port) % 2 == 0
        assert protocol == ("RTP/AVP" if transport == "udp" else "TCP/RTP/AVP")
        assert "96" in payloads
        assert "rtpmap:96 PS/90000" in sdp["a"]
        assert "recvonly" in sdp["a"]
        if transport != "udp":
            assert f"setup:{transport.removeprefix('tcp-')}" in sdp["a"]
            assert "connection:new" in sdp["a"]
        assert re.fullmatch(r"0\d{9}", sdp["y"][0])
        assert [line[:1] for line in invite.body.decode().splitlines()][:6] == ["v", "o", "s", "c", "t", "m"]
        await refuse(gateway, camera, invite, task)
        await all_back(gateway)


@pytest.mark.conformance(58)
async def test_ssrcs_carry_the_platform_and_a_number_of_their_own(gateway_at: GatewayAt) -> None:
    keys = [f"{DEVICE}-{channel}" for channel in (CHANNEL, SECOND)]
    async with gateway_at() as gateway, online(gateway) as camera:
        pending = [await invited(gateway, camera, KEY)]
        gateway.directory.get(DEVICE).catalog = "partial"  # so that a channel not listed may be asked for
        pending.append(await invited(gateway, camera, keys[1]))
        numbers = [invite.sdp["y"][0] for invite, _ in pending]
        assert [number[:6] for number in numbers] == ["0" + PLATFORM[3:8]] * 2
        assert numbers[0][6:] != numbers[1][6:]
        assert all(len(number) == 10 for number in numbers)
        for invite, task in pending:
            await refuse(gateway, camera, invite, task)
        await all_back(gateway)


@pytest.mark.conformance(61)
@pytest.mark.parametrize("transport", ["udp", "tcp-passive"])
async def test_the_port_is_open_when_the_invite_arrives(gateway_at: GatewayAt, transport: str) -> None:
    async with gateway_at(f"media.transport={transport}") as gateway, online(gateway) as camera:
        invite, task = await invited(gateway, camera)
        target = camera.media_target(invite)
        if transport == "udp":
            for port in (target[1], target[1] + 1):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                    probe.connect((target[0], port))
                    for _ in range(3):
                        probe.send(b"\x80\x60" + bytes(20))  # a closed port would answer the second by ECONNREFUSED
        else:
            await camera.media_tcp(target)
        await refuse(gateway, camera, invite, task)
        await all_back(gateway)


@pytest.mark.conformance(61)
async def test_media_that_comes_before_the_answer_is_not_lost(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway) as camera:
        invite, task = await invited(gateway, camera)
        sender = Sender(camera, invite)
        sender.udp = await camera.media_udp(sender.target)
        for _ in range(12):
            await sender.one()
        await camera.answer_invite(invite)
        for _ in range(6):
            await sender.one()
        watch = await task
        assert not isinstance(watch, GatewayError), watch
        await fact(lambda: watch.stream.units >= 16, "what came before the answer")
        await watch.close()
        await ends(gateway, camera)


@pytest.mark.conformance(62)
async def test_the_ack_comes_at_once_and_without_body(gateway_at: GatewayAt) -> None:
    clock = asyncio.get_running_loop().time
    async with gateway_at() as gateway, online(gateway) as camera:
        invite, task = await invited(gateway, camera)
        at = clock()
        ack = await camera.answer_invite(invite)
        assert clock() - at < 0.2
        assert (ack.body, ack.get("Content-Length", "0")) == (b"", "0")
        assert ack["Call-ID"] == invite["Call-ID"]
        camera.send(camera.bye(invite))
        await camera.expect(200)
        assert isinstance(await task, GatewayError)
        await all_back(gateway)


class Reports(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.came: list[tuple[float, bytes]] = []

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.came.append((asyncio.get_running_loop().time(), data))


def sender_report(ssrc: int) -> bytes:
    return struct.pack(">BBHIIIIII", 0x80, 200, 6, ssrc, 0xE000_0000, 0, 90_000, 10, 1_000)


@pytest.mark.conformance(70)
@pytest.mark.parametrize("muxed", [False, True], ids=["rtcp-port", "rtp-port"])
async def test_receiver_reports(gateway_at: GatewayAt, monkeypatch: pytest.MonkeyPatch, muxed: bool) -> None:
    """Every 5 s, here shortened; to the port beside the media, or where the camera's own reports come from."""
    assert limits.RTCP_INTERVAL_SECONDS == 5.0
    monkeypatch.setattr(limits, "RTCP_INTERVAL_SECONDS", 0.3)
    loop = asyncio.get_running_loop()
    base = even_port()
    transport, reports = await loop.create_datagram_endpoint(Reports, local_addr=("127.0.0.1", base + 1))
    try:
        async with (
            gateway_at() as gateway,
            online(gateway) as camera,
            playing(gateway, camera, local=("127.0.0.1", base)) as (watch, sender, _),
        ):
            if muxed:
                rtcp = loop.create_datagram_endpoint(Reports, local_addr=("127.0.0.1", 0), remote_addr=sender.target)
                other, answers = await rtcp
                other.sendto(sender_report(sender.ssrc))
                try:
                    await two(answers)
                finally:
                    other.close()
                found = answers
            else:
                await two(reports)
                found = reports
            (first, data), (second, _) = found.came[:2]
            assert 0.2 < second - first < 0.6
            assert data[1] == 201
            assert struct.unpack(">I", data[8:12])[0] == sender.ssrc
            await plays_on(watch)
            assert gateway.last_session(KEY).figures().lost == 0
    finally:
        transport.close()


async def two(reports: Reports) -> None:
    async with asyncio.timeout(3):
        while len(reports.came) < 2:  # noqa: ASYNC110 - the kernel delivers
            await asyncio.sleep(0.01)


def even_port() -> int:
    """An even port that is free, and the one above it too."""
    for port in range(28_000, 30_000, 2):
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rtp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rtcp,
        ):
            try:
                rtp.bind(("127.0.0.1", port))
                rtcp.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
    raise AssertionError("no pair of ports is free")


@pytest.mark.conformance(70)
async def test_no_reports_when_switched_off(gateway_at: GatewayAt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RTCP_INTERVAL_SECONDS", 0.1)
    base = even_port()
    transport, reports = await asyncio.get_running_loop().create_datagram_endpoint(
        Reports, local_addr=("127.0.0.1", base + 1)
    )
    try:
        async with (
            gateway_at("media.rtcp=false") as gateway,
            online(gateway) as camera,
            playing(gateway, camera, local=("127.0.0.1", base)) as (watch, _, _),
        ):
            await plays_on(watch, 40)
            assert reports.came == []
    finally:
        transport.close()
