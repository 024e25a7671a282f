"""Checklist statements 20-29 over real sockets: the SIP core.

30 is in test_hostile.py too; what needs 32 s of a clock is in tests/unit/sip.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.peer import Camera, Text, digest, read_text
from tests.system.conftest import DEVICE, PASSWORD
from tests.system.steps import all_back, fact, online, opened, server_of

GatewayAt = Callable[..., Any]


class Wire:
    """A TCP connection for bytes, with the least reading of SIP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def message(self) -> Text:
        async with asyncio.timeout(3):
            return read_text(await self.reader.readuntil(b"\r\n\r\n"))


@asynccontextmanager
async def wire(gateway: Any) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection(*server_of(gateway, "tcp"))
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


def options(number: int, *, padding: bytes = b"") -> bytes:
    return (
        f"OPTIONS sip:34020000002000000001@3402000000 SIP/2.0\r\n"
        f"Via: SIP/2.0/TCP 10.0.0.9:5060;branch=z9hG4bKo{number}\r\n"
        f"From: <sip:{DEVICE}@3402000000>;tag=1\r\nTo: <sip:34020000002000000001@3402000000>\r\nCall-ID: o{number}\r\n"
        f"CSeq: {number} OPTIONS\r\nContent-Length: {len(padding)}\r\n\r\n"
    ).encode() + padding


@pytest.mark.conformance(20)
async def test_several_messages_in_one_segment(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, wire(gateway) as line:
        await line.write(options(1, padding=options(99)) + options(2) + options(3))
        answers = [await line.message() for _ in range(3)]  # 99 stands in a body
        assert [(answer.status, answer.cseq[0]) for answer in answers] == [(200, 1), (200, 2), (200, 3)]


@pytest.mark.conformance(20)
async def test_one_message_in_several_segments(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, wire(gateway) as line:
        data = options(1, padding=b"body") + options(2)
        for at in range(0, len(data), 7):
            await line.write(data[at : at + 7])
            await asyncio.sleep(0.001)
        answers = [await line.message() for _ in range(2)]
        assert [(answer.status, answer.cseq[0]) for answer in answers] == [(200, 1), (200, 2)]


@pytest.mark.conformance(21)
async def test_pings_are_answered_and_leading_line_ends_ignored(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, wire(gateway) as line:
        await line.write(b"\r\n\r\n")
        async with asyncio.timeout(3):
            assert await line.reader.readexactly(2) == b"\r\n"
        await line.write(b"\r\n" + options(1))
        assert (await line.message()).status == 200


@pytest.mark.conformance(22)
async def test_answers_go_to_the_source_with_received_and_rport(gateway_at: GatewayAt) -> None:
    """As from behind NAT: the Via names an address that cannot be reached."""
    async with gateway_at() as gateway, Camera(DEVICE, server=server_of(gateway)) as camera:
        for rport in (";rport", ""):
            message = camera.request("OPTIONS").decode()
            camera.send(re.sub(r"UDP [^;]+;rport", f"UDP 192.168.77.1:5060{rport}", message))
            answer = await camera.receive()
            assert answer.status == 200
            assert answer.source == server_of(gateway)
            via = answer["Via"]
            assert "192.168.77.1:5060" in via
            assert "received=127.0.0.1" in via
            if rport:
                assert f"rport={camera.local[1]}" in via


@pytest.mark.conformance(23)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_an_invite_is_repeated_at_growing_distances_over_udp_only(gateway_at: GatewayAt, transport: str) -> None:
    """Timer A: after 0.5 s, then 1 s later. The end at 32 s is proved on a virtual clock."""
    clock = asyncio.get_running_loop().time
    async with gateway_at() as gateway, online(gateway, transport=transport) as camera:
        task = asyncio.create_task(opened(gateway), name="test:open")
        first = await camera.expect("INVITE")
        at = clock()
        if transport == "udp":
            for earliest, latest in ((0.45, 1.0), (1.4, 2.2)):
                assert (await camera.expect("INVITE")).raw == first.raw
                assert earliest < clock() - at < latest
        else:
            await camera.nothing(1.0, "INVITE")
        camera.respond(first, 486)
        await camera.expect("ACK")
        await task
        await all_back(gateway)


@pytest.mark.conformance(25)
async def test_the_ack_of_a_2xx_has_a_branch_of_its_own_and_that_of_a_refusal_the_invites(
    gateway_at: GatewayAt,
) -> None:
    async with gateway_at() as gateway, online(gateway) as camera:
        for status in (200, 486):
            task = asyncio.create_task(opened(gateway), name="test:open")
            invite = await camera.expect("INVITE")
            if status == 200:
                ack = await camera.answer_invite(invite)
                assert branch(ack) != branch(invite)
                assert ack.tag("To") == "peer"
                camera.send(camera.bye(invite))
                await camera.expect(200)
            else:
                camera.respond(invite, status)
                assert branch(await camera.expect("ACK")) == branch(invite)
            await task
            await all_back(gateway)


def branch(text: Text) -> str:
    match = re.search(r"branch=([^;,\s]+)", text["Via"])
    assert match
    return match[1]


@pytest.mark.conformance(27)
@pytest.mark.parametrize("method", ["PUBLISH", "DANCE", "X"])
async def test_unknown_methods_get_405(gateway_at: GatewayAt, method: str) -> None:
    async with gateway_at() as gateway, online(gateway) as camera:
        camera.send(camera.request(method))
        answer = await camera.expect(405)
        for known in ("REGISTER", "MESSAGE", "INVITE", "ACK", "CANCEL", "BYE"):
            assert known in answer["Allow"]


@pytest.mark.conformance(27)
@pytest.mark.parametrize("method", ["BYE", "INFO"])
async def test_bye_and_info_outside_dialogs_get_481(gateway_at: GatewayAt, method: str) -> None:
    async with gateway_at() as gateway, online(gateway) as camera:
        camera.send(camera.request(method, to_tag="unheard-of"))
        assert (await camera.expect(481)).cseq[1] == method


@pytest.mark.conformance(28)
async def test_a_repeated_message_is_executed_once(gateway_at: GatewayAt) -> None:
    """An answer to no question is counted each time it is looked at."""
    async with gateway_at() as gateway, online(gateway) as camera:
        message = camera.message(
            f"<Response><CmdType>DeviceInfo</CmdType><SN>99999</SN><DeviceID>{DEVICE}</DeviceID></Response>"
        )
        for _ in range(4):
            camera.send(message)
            assert (await camera.expect(200)).cseq[1] == "MESSAGE"
        assert gateway.tally.counts["interview.unsolicited"] == 1
        assert gateway.tally.counts["sip.retransmission"] == 3


@pytest.mark.conformance(29)
async def test_names_in_any_case_and_compact_headers(gateway_at: GatewayAt) -> None:
    """A whole registration with compact names, odd case and odd blanks."""
    async with gateway_at() as gateway, Camera(DEVICE, server=server_of(gateway)) as camera:
        host, port = camera.local

        def register(number: int, *lines: str) -> bytes:
            head = [
                "Register sip:34020000002000000001@3402000000 sip/2.0",
                f"v: SIP/2.0/udp {host}:{port};RPORT;BRANCH=z9hG4bKcompact{number}",
                f"f : <sip:{DEVICE}@3402000000>;TAG=aa",
                f"t:<sip:{DEVICE}@3402000000>",
                "i: compact",
                f"cSEQ: {number} register",
                f"m: <sip:{DEVICE}@{host}:{port}>;EXPIRES=700",
                "l: 0",
                *lines,
            ]
            return ("\r\n".join(head) + "\r\n\r\n").encode()

        camera.send(register(1))
        challenge = await camera.expect(401)
        value = digest("REGISTER", "sip:x", DEVICE, PASSWORD, challenge["WWW-Authenticate"], qop=False)
        value = value.replace("Digest username", "DIGEST UserName").replace("realm=", "REALM=")
        camera.send(register(2, f"AUTHORIZATION: {value}"))
        answer = await camera.expect(200)
        assert answer["Expires"] == "700"
        await fact(lambda: gateway.directory.get(DEVICE).online, "online")


@pytest.mark.conformance(30)
@pytest.mark.parametrize("end", range(0, 400, 37))
async def test_a_truncated_datagram_does_no_harm(gateway_at: GatewayAt, end: int) -> None:
    async with gateway_at() as gateway, online(gateway) as camera:
        camera.send(camera.message("<Notify><CmdType>Keepalive</CmdType><SN>1</SN></Notify>")[:end])
        assert (await camera.keepalive()).status in (200, 400)
        assert not [name for name in gateway.tally.counts if name.startswith("bug.")]
