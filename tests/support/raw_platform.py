"""A scripted platform made of raw bytes, for testing the simulated device. Imports nothing of gbgw.

It challenges every REGISTER, answers every MESSAGE with 200, and sends what a test tells it to.

    async with RawPlatform("secret") as platform:
        ...start a device against platform.port...
        await platform.until(lambda: platform.registrations)
        answer = await platform.invite("34020000001310000001", sdp)
"""

import asyncio
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.support.peer import Address, Text, digest, read_text

SERVER_ID = "34020000002000000001"
DOMAIN = "3402000000"


def split_stream(data: bytes) -> tuple[list[bytes], bytes]:
    """Cut a TCP byte stream into whole messages and the rest."""
    messages = []
    while True:
        head, separator, rest = data.partition(b"\r\n\r\n")
        if not separator:
            return messages, data
        length = re.search(rb"(?im)^content-length\s*:\s*(\d+)", head)
        size = int(length[1]) if length else 0
        if len(rest) < size:
            return messages, data
        messages.append(head + separator + rest[:size])
        data = rest[size:]


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, deliver: Callable[[bytes, Address], None]) -> None:
        self._deliver = deliver

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._deliver(data, addr)


@dataclass
class RawPlatform:
    """UDP and TCP on one port. answer_messages, answer_registers: turn them off to be a dead platform."""

    password: str
    qop: bool = True
    expires: int = 3600
    answer_messages: bool = True
    answer_registers: bool = True
    message_status: int = 200
    refuse_registers: int = 0
    stale: int = 0  # how many good answers are called stale first
    received: list[Text] = field(default_factory=list)
    registrations: list[Text] = field(default_factory=list)  # with good credentials
    port: int = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._udp, _ = await loop.create_datagram_endpoint(lambda: _Udp(self._datagram), local_addr=("127.0.0.1", 0))
        self.port = self._udp.get_extra_info("sockname")[1]
        self._tcp = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self._writer: asyncio.StreamWriter | None = None
        self._peer: Address | None = None
        self._nonces: dict[str, int] = {}
        self._changed = asyncio.Event()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._udp.close()
        self.drop_connection()
        self._tcp.close()
        await asyncio.sleep(0)

    def drop_connection(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None

    # What comes

    def _datagram(self, data: bytes, source: Address) -> None:
        self._peer = source
        self._take(read_text(data, source))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        pending = b""
        try:
            while data := await reader.read(65536):
                messages, pending = split_stream(pending + data)
                for message in messages:
                    self._take(read_text(message, writer.get_extra_info("peername")))
        except ConnectionError:
            return

    def _take(self, text: Text) -> None:
        self.received.append(text)
        if text.method == "REGISTER" and self.answer_registers:
            self._register(text)
        elif text.method == "MESSAGE" and self.answer_messages:
            self.respond(text, self.message_status)
        elif text.method == "BYE":
            self.respond(text, 200)
        self._changed.set()

    def _register(self, text: Text) -> None:
        if self.refuse_registers:
            self.respond(text, self.refuse_registers)
            return
        given = text.get("Authorization")
        nonce = re.search(r'nonce="([^"]+)"', given)
        if nonce is None or nonce[1] not in self._nonces:
            self._challenge(text)
            return
        name = re.search(r'username="([^"]+)"', given)
        user = name[1] if name else ""
        challenge = f'Digest realm="{DOMAIN}",nonce="{nonce[1]}",algorithm=MD5'
        count = re.search(r"nc=([0-9a-f]{8})", given)
        cnonce = re.search(r'cnonce="([^"]+)"', given)
        uri = re.search(r'uri="([^"]+)"', given)
        assert uri is not None
        assert bool(count) == self.qop
        expected = digest(
            "REGISTER", uri[1], user, self.password, challenge, qop=self.qop, cnonce=cnonce[1] if cnonce else ""
        )
        wanted = re.search(r'response="([^"]+)"', expected)
        got = re.search(r'response="([^"]+)"', given)
        assert wanted is not None
        if got is None or got[1] != wanted[1]:
            self.respond(text, 403)
        elif self.stale:
            self.stale -= 1
            self._challenge(text, stale=True)
        else:
            del self._nonces[nonce[1]]
            self.registrations.append(text)
            expires = min(int(text["Expires"]), self.expires)
            self.respond(text, 200, f"Contact: {text['Contact']};expires={expires}", f"Expires: {expires}")

    def _challenge(self, text: Text, *, stale: bool = False) -> None:
        nonce = secrets.token_hex(8)
        self._nonces[nonce] = 0
        extra = (',qop="auth"' if self.qop else "") + (",stale=true" if stale else "")
        self.respond(text, 401, f'WWW-Authenticate: Digest realm="{DOMAIN}",nonce="{nonce}"{extra},algorithm=MD5')

    async def until(self, condition: Callable[[], object], seconds: float = 5.0) -> None:
        """Return when the condition holds after something came; AssertionError when it never does."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            lines = "\n".join(text.start for text in self.received)
            raise AssertionError(f"never came; received:\n{lines}") from None

    def all(self, what: str | int) -> list[Text]:
        """Requests of a method, or answers of a status, so far."""
        return [text for text in self.received if what in (text.method, text.status)]

    async def wait(self, what: str | int, count: int = 1, seconds: float = 5.0) -> Text:
        await self.until(lambda: len(self.all(what)) >= count, seconds)
        return self.all(what)[count - 1]

    def xml(self, *words: str) -> list[Text]:
        """MESSAGEs whose body holds all the words."""
        return [text for text in self.all("MESSAGE") if all(word.encode("gbk") in text.body for word in words)]

    # What goes

    def send(self, text: str | bytes) -> None:
        data = text.encode("gbk") if isinstance(text, str) else text
        if self._writer is not None:
            self._writer.write(data)
        else:
            assert self._peer is not None, "nothing came yet"
            self._udp.sendto(data, self._peer)

    def respond(self, request: Text, status: int, *headers: str) -> None:
        to = request["To"] if ";tag=" in request["To"] else f"{request['To']};tag=platform"
        lines = [
            f"SIP/2.0 {status} {'OK' if status == 200 else 'No'}",
            *(f"Via: {via}" for via in request.all("Via")),
            f"From: {request['From']}",
            f"To: {to}",
            f"Call-ID: {request['Call-ID']}",
            f"CSeq: {request['CSeq']}",
            *headers,
            "Content-Length: 0",
        ]
        self.send("\r\n".join(lines) + "\r\n\r\n")

    def request(
        self,
        method: str,
        target: str,
        *,
        call_id: str,
        cseq: int = 1,
        to_tag: str = "",
        branch: str | None = None,
        headers: tuple[str, ...] = (),
        body: str = "",
        content_type: str = "",
    ) -> None:
        transport = "TCP" if self._writer is not None else "UDP"
        raw = body.encode("gbk")
        lines = [
            f"{method} sip:{target}@{DOMAIN} SIP/2.0",
            f"Via: SIP/2.0/{transport} 127.0.0.1:{self.port};rport;branch={branch or 'z9hG4bK' + secrets.token_hex(6)}",
            f"From: <sip:{SERVER_ID}@{DOMAIN}>;tag=from{call_id}",
            f"To: <sip:{target}@{DOMAIN}>" + (f";tag={to_tag}" if to_tag else ""),
            f"Call-ID: {call_id}",
            f"CSeq: {cseq} {method}",
            f"Contact: <sip:{SERVER_ID}@127.0.0.1:{self.port}>",
            "Max-Forwards: 70",
            *headers,
            *([f"Content-Type: {content_type}"] if content_type else []),
            f"Content-Length: {len(raw)}",
        ]
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + raw)

    def message(self, target: str, xml: str) -> None:
        document = f'<?xml version="1.0" encoding="GB2312"?>\r\n{xml}\r\n'
        self.request(
            "MESSAGE", target, call_id=secrets.token_hex(6), body=document, content_type="Application/MANSCDP+xml"
        )

    def query(self, target: str, cmd_type: str, sn: int, device_id: str | None = None) -> None:
        inner = f"<CmdType>{cmd_type}</CmdType><SN>{sn}</SN><DeviceID>{device_id or target}</DeviceID>"
        self.message(target, f"<Query>{inner}</Query>")

    def offer(self, port: int, *, setup: str = "", y: str = "0200000001") -> str:
        """SDP of a live INVITE; setup "active" or "passive" makes it TCP."""
        return "\r\n".join(
            [
                "v=0",
                f"o={SERVER_ID} 0 0 IN IP4 127.0.0.1",
                "s=Play",
                "c=IN IP4 127.0.0.1",
                "t=0 0",
                f"m=video {port} {'TCP/RTP/AVP' if setup else 'RTP/AVP'} 96 98",
                "a=recvonly",
                "a=rtpmap:96 PS/90000",
                "a=rtpmap:98 H264/90000",
                *([f"a=setup:{setup}", "a=connection:new"] if setup else []),
                *([f"y={y}"] if y else []),
                "",
            ]
        )

    def send_invite(
        self, channel: str, body: str, *, call_id: str, subject: str = "", branch: str | None = None, cseq: int = 1
    ) -> None:
        lines = (f"Subject: {subject or f'{channel}:{call_id},{SERVER_ID}:0'}",)
        self.request(
            "INVITE",
            channel,
            call_id=call_id,
            cseq=cseq,
            branch=branch,
            headers=lines,
            body=body,
            content_type="application/sdp",
        )

    def answers(self, call_id: str, method: str = "INVITE") -> list[Text]:
        """Final answers within one call, retransmissions included."""
        return [
            text
            for text in self.received
            if text.status >= 200 and text["Call-ID"] == call_id and text.cseq[1] == method
        ]

    async def invite(self, channel: str, body: str, *, call_id: str, subject: str = "", ack: bool = True) -> Text:
        """INVITE, wait for the final answer, ACK it when it is a 200."""
        self.send_invite(channel, body, call_id=call_id, subject=subject)
        await self.until(lambda: self.answers(call_id))
        answer = self.answers(call_id)[0]
        if ack and answer.status == 200:
            self.ack(channel, answer)
        return answer

    def ack(self, channel: str, answer: Text) -> None:
        self.request("ACK", channel, call_id=answer["Call-ID"], cseq=answer.cseq[0], to_tag=answer.tag("To"))

    async def bye(self, channel: str, answer: Text) -> None:
        call_id = answer["Call-ID"]
        self.request("BYE", channel, call_id=call_id, cseq=answer.cseq[0] + 1, to_tag=answer.tag("To"))
        await self.until(lambda: self.answers(call_id, "BYE"))
