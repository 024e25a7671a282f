"""A scripted camera made of raw bytes. Imports nothing of gbgw, so that it cannot share its mistakes.

It speaks just what a test tells it to: every message is text the test can read, change or break. Parsing is the least
that works.

    async with Camera("34020000001320000001", server=("127.0.0.1", 5060)) as camera:
        await camera.register("secret")
        invite = await camera.expect("INVITE")
        await camera.answer_invite(invite)
        await camera.send_program_stream(units, invite)
"""

import asyncio
import hashlib
import random
import re
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

Address = tuple[str, int]


@dataclass
class Text:
    """A SIP message as the test sees it: start line, headers in order, body."""

    start: str
    headers: list[tuple[str, str]]
    body: bytes
    source: Address | None = None
    raw: bytes = field(default=b"", repr=False)

    @property
    def method(self) -> str:
        return "" if self.start.startswith("SIP/2.0") else self.start.split(" ", 1)[0]

    @property
    def status(self) -> int:
        return int(self.start.split(" ")[1]) if self.start.startswith("SIP/2.0") else 0

    @property
    def uri(self) -> str:
        return self.start.split(" ")[1]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def __getitem__(self, name: str) -> str:
        values = self.all(name)
        if not values:
            raise KeyError(f"{name} in {self.raw!r}")
        return values[0]

    def get(self, name: str, default: str = "") -> str:
        values = self.all(name)
        return values[0] if values else default

    @property
    def cseq(self) -> tuple[int, str]:
        number, method = self["CSeq"].split()
        return int(number), method

    @property
    def sdp(self) -> dict[str, list[str]]:
        lines: dict[str, list[str]] = {}
        for line in self.body.decode("latin-1").splitlines():
            key, _, value = line.partition("=")
            lines.setdefault(key.strip(), []).append(value.strip())
        return lines

    def tag(self, name: str) -> str:
        match = re.search(r";\s*tag=([^;>\s]+)", self[name])
        return match[1] if match else ""


def read_text(data: bytes, source: Address | None = None) -> Text:
    head, separator, body = data.partition(b"\r\n\r\n")
    assert separator, f"no empty line in {data!r}"
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        assert colon, f"no colon in header {line!r}"
        headers.append((name.strip(), value.strip()))
    return Text(first, headers, body, source, data)


def digest(
    method: str, uri: str, user: str, password: str, challenge: str, *, qop: bool, cnonce: str = "0a4f113b"
) -> str:
    """The value of an Authorization header for a WWW-Authenticate value (RFC 2617; RFC 7616 when it says SHA-256)."""
    parameters = {key.lower(): value.strip('"') for key, value in re.findall(r'(\w+)=("[^"]*"|[^,\s]+)', challenge)}
    algorithm = parameters.get("algorithm", "MD5")
    make = hashlib.sha256 if algorithm.upper() == "SHA-256" else hashlib.md5

    def h(*parts: str) -> str:
        return make(":".join(parts).encode()).hexdigest()

    realm, nonce = parameters["realm"], parameters["nonce"]
    ha1, ha2 = h(user, realm, password), h(method, uri)
    common = f'Digest username="{user}",realm="{realm}",nonce="{nonce}",uri="{uri}",algorithm={algorithm}'
    if qop:
        response = h(ha1, nonce, "00000001", cnonce, "auth", ha2)
        return f'{common},response="{response}",qop=auth,nc=00000001,cnonce="{cnonce}"'
    return f'{common},response="{h(ha1, nonce, ha2)}"'


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, deliver: Callable[[bytes, Address], None]) -> None:
        self._deliver = deliver

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._deliver(data, addr)


class Camera:
    """One camera, one SIP socket, any number of media sockets; all closed at exit."""

    def __init__(
        self,
        device_id: str,
        *,
        server: Address,
        server_id: str = "34020000002000000001",
        domain: str = "3402000000",
        transport: str = "udp",
        version: str | None = "3.0",
        seed: int = 1,
    ) -> None:
        self.id = device_id
        self.server = server
        self.server_id = server_id
        self.domain = domain
        self.transport = transport
        self.version = version
        self.random = random.Random(seed)
        self.received: list[Text] = []
        self.local: Address = ("127.0.0.1", 0)
        self.sdp_transport = "udp"
        self._inbox: asyncio.Queue[Text] = asyncio.Queue()
        self._udp: asyncio.DatagramTransport | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._media: list[asyncio.BaseTransport | asyncio.Server | asyncio.StreamWriter] = []
        self._cseq = 0
        self._call_id = f"{self.random.getrandbits(48):x}@camera"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        if self.transport == "udp":
            self._udp, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self._datagram), local_addr=("127.0.0.1", 0)
            )
            self.local = self._udp.get_extra_info("sockname")[:2]
        else:
            self._reader, self._writer = await asyncio.open_connection(*self.server)
            self.local = self._writer.get_extra_info("sockname")[:2]
            self._reading = asyncio.create_task(self._read_stream(), name="peer:read")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close_media()
        await self._close_socket()
        await asyncio.sleep(0)

    async def _close_socket(self) -> None:
        if self._udp is not None:
            self._udp.close()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()
            await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)

    @asynccontextmanager
    async def moving(self) -> AsyncIterator[None]:
        """Speak from another port or connection from now on; the one before is open until the end of the block."""
        udp, reading, writer = self._udp, self._reading, self._writer
        await self.__aenter__()
        try:
            yield
        finally:
            now = self._udp, self._reading, self._writer
            self._udp, self._reading, self._writer = udp, reading, writer
            await self._close_socket()
            self._udp, self._reading, self._writer = now

    # Signalling, raw

    def send(self, message: str | bytes) -> None:
        """Put a message on the wire as it is; bare LF line ends of a str become CRLF."""
        data = (
            message
            if isinstance(message, bytes)
            else message.replace("\r\n", "\n").replace("\n", "\r\n").encode("gb18030")
        )
        if self._udp is not None:
            self._udp.sendto(data, self.server)
        else:
            assert self._writer is not None
            self._writer.write(data)

    def _datagram(self, data: bytes, source: Address) -> None:
        text = read_text(data, source)
        self.received.append(text)
        self._inbox.put_nowait(text)

    async def _read_stream(self) -> None:
        assert self._reader is not None
        while True:
            try:
                head = await self._reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            head = head.lstrip(b"\r\n")
            if not head:
                continue
            match = re.search(rb"(?im)^content-length\s*:\s*(\d+)", head)
            body = await self._reader.readexactly(int(match[1])) if match else b""
            text = read_text(head + body, self.server)
            self.received.append(text)
            self._inbox.put_nowait(text)

    async def receive(self, seconds: float = 3.0) -> Text:
        async with asyncio.timeout(seconds):
            return await self._inbox.get()

    def drain(self) -> None:
        """Forget what has come and nobody asked for."""
        while not self._inbox.empty():
            self._inbox.get_nowait()

    async def expect(self, what: str | int, seconds: float = 3.0, *, answer_messages: bool = True) -> Text:
        """The next request with this method, or response with this status; MESSAGEs on the way are answered 200."""
        async with asyncio.timeout(seconds):
            while True:
                text = await self._inbox.get()
                if what in (text.method, text.status):
                    return text
                if text.method in ("MESSAGE", "OPTIONS") and answer_messages:
                    self.respond(text, 200)

    async def nothing(self, seconds: float, what: str | int | None = None) -> None:
        """Fail if such a message (any, by default) arrives within `seconds`."""
        try:
            text = await (self.receive(seconds) if what is None else self.expect(what, seconds))
        except TimeoutError:
            return
        raise AssertionError(f"unexpected {text.raw!r}")

    # Signalling, built

    def request(
        self,
        method: str,
        *,
        uri: str | None = None,
        to: str | None = None,
        sender: str | None = None,
        call_id: str | None = None,
        cseq: int | None = None,
        from_tag: str | None = None,
        to_tag: str = "",
        branch: str | None = None,
        headers: Sequence[str] = (),
        body: bytes = b"",
        contact: bool = True,
    ) -> bytes:
        if cseq is None:
            self._cseq += 1
            cseq = self._cseq
        uri = uri or f"sip:{self.server_id}@{self.domain}"
        sender = sender or self.id
        branch = branch or f"z9hG4bK{self.random.getrandbits(64):x}"
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/{self.transport.upper()} {self.local[0]}:{self.local[1]};rport;branch={branch}",
            f"From: <sip:{sender}@{self.domain}>;tag={from_tag or 'c' + format(self.random.getrandbits(32), 'x')}",
            f"To: <sip:{to or self.server_id}@{self.domain}>" + (f";tag={to_tag}" if to_tag else ""),
            f"Call-ID: {call_id or format(self.random.getrandbits(64), 'x')}",
            f"CSeq: {cseq} {method}",
            "Max-Forwards: 70",
        ]
        if contact:
            lines.append(f"Contact: <sip:{sender}@{self.local[0]}:{self.local[1]}>")
        lines += [*headers, f"Content-Length: {len(body)}"]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def respond(
        self,
        request: Text,
        status: int,
        reason: str = "X",
        *,
        body: bytes = b"",
        headers: Sequence[str] = (),
        to_tag: str = "peer",
    ) -> None:
        self.send(self.response(request, status, reason, body=body, headers=headers, to_tag=to_tag))

    def response(
        self,
        request: Text,
        status: int,
        reason: str = "X",
        *,
        body: bytes = b"",
        headers: Sequence[str] = (),
        to_tag: str = "peer",
    ) -> bytes:
        to = request["To"]
        if status > 100 and to_tag and ";tag=" not in to:
            to += f";tag={to_tag}"
        lines = [f"SIP/2.0 {status} {reason}"]
        lines += [f"Via: {via}" for via in request.all("Via")]
        lines += [f"From: {request['From']}", f"To: {to}", f"Call-ID: {request['Call-ID']}", f"CSeq: {request['CSeq']}"]
        lines += [*headers, f"Content-Length: {len(body)}"]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    async def register(
        self,
        password: str,
        *,
        expires: int = 3600,
        qop: bool = False,
        user: str | None = None,
        headers: Sequence[str] = (),
    ) -> Text:
        """REGISTER, answer the challenge, return the final answer."""
        extra = [f"Expires: {expires}", *headers]
        if self.version:
            extra.append(f"X-GB-Ver: {self.version}")
        self.send(self.request("REGISTER", to=self.id, call_id=self._call_id, headers=extra))
        challenge = await self._register_answer()
        if challenge.status != 401:
            return challenge
        uri = f"sip:{self.server_id}@{self.domain}"
        value = digest("REGISTER", uri, user or self.id, password, challenge["WWW-Authenticate"], qop=qop)
        extra = [*extra, f"Authorization: {value}"]
        self.send(self.request("REGISTER", to=self.id, call_id=self._call_id, headers=extra))
        return await self._register_answer()

    async def _register_answer(self) -> Text:
        async with asyncio.timeout(3):
            while True:
                text = await self._inbox.get()
                if text.status >= 200 and text.cseq[1] == "REGISTER":
                    return text
                if text.method == "MESSAGE":
                    self.respond(text, 200)

    def message(self, xml: str, *, charset: str = "gb2312", sender: str | None = None, **more: object) -> bytes:
        body = f'<?xml version="1.0" encoding="GB2312"?>\r\n{xml}\r\n'.encode(charset)
        return self.request(  # type: ignore[arg-type]
            "MESSAGE",
            headers=["Content-Type: Application/MANSCDP+xml"],
            body=body,
            sender=sender,
            contact=False,
            **more,
        )

    async def keepalive(self, sn: int = 1) -> Text:
        self.send(
            self.message(
                f"<Notify>\r\n<CmdType>Keepalive</CmdType>\r\n<SN>{sn}</SN>\r\n"
                f"<DeviceID>{self.id}</DeviceID>\r\n<Status>OK</Status>\r\n</Notify>"
            )
        )
        async with asyncio.timeout(3):
            while True:
                text = await self._inbox.get()
                if text.status and text.cseq[1] == "MESSAGE":
                    return text
                if text.method == "MESSAGE":
                    self.respond(text, 200)

    async def query(self, cmd: str, seconds: float = 5.0) -> tuple[int, Text]:
        """Wait for the platform's query `cmd`, answer it 200, return its SN."""
        async with asyncio.timeout(seconds):
            while True:
                text = await self._inbox.get()
                if text.method != "MESSAGE":
                    continue
                self.respond(text, 200)
                xml = text.body.decode("gb18030")
                if f"<CmdType>{cmd}</CmdType>" in xml:
                    match = re.search(r"<SN>(\d+)</SN>", xml)
                    assert match, xml
                    return int(match[1]), text

    def catalog_part(self, sn: int, total: int, channels: Iterable[str], names: dict[str, str] | None = None) -> bytes:
        items = "".join(
            f"<Item>\r\n<DeviceID>{channel}</DeviceID>\r\n<Name>{(names or {}).get(channel, 'Camera')}</Name>\r\n"
            "<Manufacturer>Peer</Manufacturer>\r\n<Model>Raw</Model>\r\n<Owner>Owner</Owner>\r\n<CivilCode>340200</CivilCode>\r\n"
            f"<Address>Road</Address>\r\n<Parental>0</Parental>\r\n<ParentID>{self.id}</ParentID>\r\n<SafetyWay>0</SafetyWay>\r\n"
            "<RegisterWay>1</RegisterWay>\r\n<Secrecy>0</Secrecy>\r\n<Status>ON</Status>\r\n</Item>\r\n"
            for channel in channels
        )
        count = items.count("<Item>")
        listing = f'<DeviceList Num="{count}">\r\n{items}</DeviceList>\r\n' if count else ""
        return self.message(
            f"<Response>\r\n<CmdType>Catalog</CmdType>\r\n<SN>{sn}</SN>\r\n<DeviceID>{self.id}</DeviceID>\r\n"
            f"<SumNum>{total}</SumNum>\r\n{listing}</Response>"
        )

    async def serve_catalog(self, channels: Sequence[str]) -> None:
        """Answer the first Catalog query with these channels, one message each."""
        sn, _ = await self.query("Catalog")
        for channel in channels:
            self.send(self.catalog_part(sn, len(channels), [channel]))

    # Media

    def sdp_answer(
        self,
        invite: Text,
        *,
        port: int,
        transport: str = "udp",
        y: str | None = "same",
        setup: str = "",
        codec_line: str = "",
    ) -> bytes:
        offered = invite.sdp.get("y", ["0200000001"])[0]
        proto = "RTP/AVP" if transport == "udp" else "TCP/RTP/AVP"
        lines = [
            "v=0",
            f"o={self.id} 0 0 IN IP4 127.0.0.1",
            "s=Play",
            "c=IN IP4 127.0.0.1",
            "t=0 0",
            f"m=video {port} {proto} 96",
            "a=sendonly",
            "a=rtpmap:96 PS/90000",
        ]
        if transport != "udp":
            lines += [f"a=setup:{setup or ('active' if transport == 'tcp-active' else 'passive')}", "a=connection:new"]
        if y is not None:
            lines.append(f"y={offered if y == 'same' else y}")
        if codec_line:
            lines.append(codec_line)
        return "".join(line + "\r\n" for line in lines).encode()

    async def answer_invite(
        self, invite: Text, *, seconds: float = 3.0, port: int = 15060, y: str | None = "same"
    ) -> Text:
        """100, 200 with SDP for a UDP offer or the device's default TCP role; wait for the ACK and return it."""
        self.respond(invite, 100, "Trying", to_tag="")
        transport = "tcp-active" if "TCP" in invite.sdp["m"][0] else "udp"
        self.respond(
            invite,
            200,
            "OK",
            body=self.sdp_answer(invite, port=port, transport=transport, y=y),
            headers=["Content-Type: application/sdp", f"Contact: <sip:{self.id}@{self.local[0]}:{self.local[1]}>"],
        )
        return await self.expect("ACK", seconds)

    @staticmethod
    def media_target(invite: Text) -> Address:
        sdp = invite.sdp
        return sdp["c"][0].split()[-1], int(sdp["m"][0].split()[1])

    async def media_udp(self, target: Address, local: Address = ("127.0.0.1", 0)) -> asyncio.DatagramTransport:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Datagrams(lambda data, source: None), local_addr=local, remote_addr=target
        )
        self._media.append(transport)
        return transport

    async def media_tcp(self, target: Address) -> asyncio.StreamWriter:
        _, writer = await asyncio.open_connection(*target)
        self._media.append(writer)
        return writer

    @asynccontextmanager
    async def listening(self, take: Callable[[asyncio.StreamWriter], None]) -> AsyncIterator[int]:
        """Listen for the platform's media connection (TCP active on its side); yields the port."""
        writers: list[asyncio.StreamWriter] = []

        async def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            take(writer)

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for writer in writers:
                writer.close()
                await asyncio.gather(writer.wait_closed(), return_exceptions=True)

    async def hang_up(self) -> None:
        """Close the SIP connection."""
        assert self._writer is not None
        self._writer.close()
        await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)

    def new_call_id(self) -> None:
        """Register with another Call-ID from now on, as after a restart."""
        self._call_id = f"{self.random.getrandbits(48):x}@camera"

    async def close_media(self) -> None:
        for item in self._media:
            item.close()
            if isinstance(item, asyncio.StreamWriter):
                await asyncio.gather(item.wait_closed(), return_exceptions=True)
        self._media.clear()

    def bye(self, invite: Text, *, to_tag: str = "peer", cseq: int = 20) -> bytes:
        """A BYE inside the dialog that the platform's INVITE opened, from the callee's side."""
        contact = re.search(r"<(sip:[^>]+)>", invite["Contact"])
        lines = [
            f"BYE {contact[1] if contact else invite.uri} SIP/2.0",
            f"Via: SIP/2.0/{self.transport.upper()} {self.local[0]}:{self.local[1]};rport;branch=z9hG4bKbye{cseq}",
            f"From: {invite['To']}" + ("" if ";tag=" in invite["To"] else f";tag={to_tag}"),
            f"To: {invite['From']}",
            f"Call-ID: {invite['Call-ID']}",
            f"CSeq: {cseq} BYE",
            "Max-Forwards: 70",
            "Content-Length: 0",
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n"


def rtp_packets(
    program_stream: bytes,
    *,
    ssrc: int,
    sequence: int,
    timestamp: int,
    payload_type: int = 96,
    size: int = 1400,
    marker: bool = True,
) -> list[bytes]:
    """Cut one frame's program stream into RTP packets (RFC 3550 section 5.1), marker on the last."""
    pieces = [program_stream[at : at + size] for at in range(0, len(program_stream), size)]
    return [
        struct.pack(
            ">BBHII",
            0x80,
            payload_type | (0x80 if marker and index == len(pieces) - 1 else 0),
            (sequence + index) & 0xFFFF,
            timestamp & 0xFFFFFFFF,
            ssrc,
        )
        + piece
        for index, piece in enumerate(pieces)
    ]


def framed(packets: Iterable[bytes]) -> bytes:
    """RFC 4571: a 16-bit length before each packet."""
    return b"".join(struct.pack(">H", len(packet)) + packet for packet in packets)
