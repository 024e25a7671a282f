"""Devices that register, in a process of their own: prepared messages and plain sockets, so that the platform is what
is measured (RFC 3261 section 10, RFC 2617; GB/T 28181-2022 section 9.1).

`python -m gbgw.bench.registrants` reads one JSON line with its Setup, then a line for each run it shall do, and writes
one JSON line for each. Leaves out: TCP, keepalives, the answers of real devices; a catalog query gets an empty catalog.
"""

import json
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import md5
from typing import Any, Final

from gbgw.base.errors import ManscdpError, SipError
from gbgw.bench.statistics import quantile
from gbgw.gb import manscdp
from gbgw.sip.message import Request, Response
from gbgw.sip.parse import RefusedError, parse, serialize

REPEAT_SECONDS: Final = 0.5  # RFC 3261 timer T1
PATIENCE_SECONDS: Final = 4.0
OUTSTANDING: Final = 4_096  # registrations under way; beyond, an open loop has lost its platform
QUIET_SECONDS: Final = 1.0  # without a question from the platform: it has asked all devices
READ_BYTES: Final = 16_384


@dataclass(frozen=True, slots=True)
class Setup:
    """port: of the platform on loopback. devices share `sockets`, each is always on the same."""

    port: int
    server_id: str
    domain: str
    password: str
    devices: int = 2_000
    sockets: int = 200


@dataclass(slots=True)
class Found:
    """One run. Latencies in seconds: of a registration (both requests), and of each request; p50, p99, max."""

    seconds: float = 0.0
    registrations: int = 0
    requests: int = 0
    repeated: int = 0
    failed: int = 0
    late: int = 0  # that began later than planned, since too many were under way
    cpu: float = 0.0
    registration: tuple[float | None, ...] = ()
    request: tuple[float | None, ...] = ()


class Device:
    """One device's messages, as far as they can be made before. step: 0 idle, 1 asked, 2 answered the challenge."""

    __slots__ = ("began", "cseq", "fd", "ha1", "head", "message", "middle", "sent", "socket", "step", "tail", "uri")

    def __init__(self, index: int, setup: Setup, connection: socket.socket) -> None:
        device_id = f"3402000000118{index + 1:07}"
        port = connection.getsockname()[1]
        aor = f"sip:{device_id}@{setup.domain}"
        self.uri = f"sip:{setup.server_id}@{setup.domain}"
        self.socket = connection
        self.fd = connection.fileno()
        self.ha1 = md5(f"{device_id}:{setup.domain}:{setup.password}".encode()).hexdigest()
        self.head = (
            f"REGISTER {self.uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};rport;branch=z9hG4bK{index}."
        ).encode()
        self.middle = (
            f"\r\nFrom: <{aor}>;tag=b{index}\r\nTo: <{aor}>\r\nCall-ID: b{index}@127.0.0.1\r\nCSeq: "
        ).encode()
        self.tail = (
            f" REGISTER\r\nContact: <sip:{device_id}@127.0.0.1:{port}>\r\nMax-Forwards: 70\r\n"
            "User-Agent: gbgw-bench\r\nExpires: 3600\r\n"
        ).encode()
        self.cseq = 0
        self.step = 0
        self.began = self.sent = 0.0
        self.message = b""

    def ask(self, authorization: bytes = b"") -> bytes:
        self.cseq += 1
        number = b"%d" % self.cseq
        self.message = b"".join(
            (self.head, number, self.middle, number, self.tail, authorization, b"Content-Length: 0\r\n\r\n")
        )
        return self.message


class Registrants:
    """All devices of the process."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._poller = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        connections = []
        for _ in range(min(setup.sockets, setup.devices)):
            connection = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            connection.bind(("127.0.0.1", 0))
            connection.connect(("127.0.0.1", setup.port))
            connection.setblocking(False)
            self._poller.register(connection.fileno(), select.EPOLLIN)
            self._sockets[connection.fileno()] = connection
            connections.append(connection)
        self.devices = [Device(n, setup, connections[n % len(connections)]) for n in range(setup.devices)]
        self._ha2 = md5(f"REGISTER:sip:{setup.server_id}@{setup.domain}".encode()).hexdigest()
        self._waiting: deque[tuple[float, Device, int]] = deque()  # (sent, device, cseq), oldest first
        self._asked_at = 0.0
        self._serial = 0
        self._found = Found()
        self._registration: list[float] = []
        self._request: list[float] = []
        self._under_way = 0

    def close(self) -> None:
        self._poller.close()
        for connection in self._sockets.values():
            connection.close()

    def first(self, window: int) -> Found:
        """Register every device once, and answer what the platform asks of new ones."""
        found = self._run(iter(self.devices), 600.0, window=window)
        self._asked_at = time.monotonic()
        while (left := self._asked_at + QUIET_SECONDS - time.monotonic()) > 0:
            self._read(left)
        return found

    def refresh(self, seconds: float, *, window: int = 0, rate: float = 0.0) -> Found:
        """Register again and again: `window` under way at once, or `rate` registrations a second whatever happens."""
        return self._run(self._endless(), seconds, window=window, rate=rate)

    def _endless(self) -> Iterator[Device]:
        while True:
            yield from self.devices

    def _run(self, devices: Iterator[Device], seconds: float, *, window: int = 0, rate: float = 0.0) -> Found:
        self._found, self._registration, self._request = Found(), [], []
        began, used = time.monotonic(), time.process_time()
        planned, moment, more = began, began, True
        while more and moment < began + seconds:
            if rate:
                while planned <= moment:
                    if self._under_way >= OUTSTANDING or not self._begin(next(devices), moment, planned):
                        self._found.late += 1
                    planned += 1 / rate
                self._read(min(0.001, max(0.0, planned - time.monotonic())))
            else:
                while self._under_way < window and more:
                    device = next(devices, None)
                    more = device is not None and self._begin(device, moment, moment)
                self._read(0.01)
            moment = time.monotonic()
            self._repeat(moment)
        found = self._found
        found.seconds = time.monotonic() - began  # what ends later does not count
        found.registrations, found.requests = len(self._registration), len(self._request)
        found.cpu = time.process_time() - used
        while self._under_way:
            self._read(0.05)
            self._repeat(time.monotonic())
        if not rate and not more:
            found.seconds, found.registrations = time.monotonic() - began, len(self._registration)
            found.requests = len(self._request)
        found.registration = tuple(quantile(self._registration, part) for part in (0.5, 0.99, 1.0))
        found.request = tuple(quantile(self._request, part) for part in (0.5, 0.99, 1.0))
        return found

    def _begin(self, device: Device, moment: float, planned: float) -> bool:
        """False when it is still at it."""
        if device.step:
            return False
        device.step, device.began = 1, planned
        self._under_way += 1
        self._send(device, device.ask(), moment)
        return True

    def _send(self, device: Device, data: bytes, moment: float) -> None:
        device.sent = moment
        self._waiting.append((moment, device, device.cseq))
        try:
            device.socket.send(data)
        except BlockingIOError:
            return  # repeated below

    def _repeat(self, moment: float) -> None:
        """Send again what got no answer."""
        while self._waiting and self._waiting[0][0] + REPEAT_SECONDS <= moment:
            _, device, cseq = self._waiting.popleft()
            if not device.step or device.cseq != cseq:
                continue
            if moment - device.sent > PATIENCE_SECONDS:
                self._end(device)
                self._found.failed += 1
                continue
            self._found.repeated += 1
            self._waiting.append((moment, device, cseq))
            try:
                device.socket.send(device.message)
            except BlockingIOError:
                continue

    def _end(self, device: Device) -> None:
        device.step = 0
        self._under_way -= 1

    def _read(self, seconds: float) -> None:
        for fd, _ in self._poller.poll(max(0.0, seconds)):
            connection = self._sockets[fd]
            while True:
                try:
                    data = connection.recv(READ_BYTES)
                except (BlockingIOError, ConnectionRefusedError):
                    break
                if data.startswith(b"SIP/2.0 "):
                    self._answer(data, time.monotonic())
                else:
                    self._question(data, connection)

    def _answer(self, data: bytes, moment: float) -> None:
        at = data.find(b"branch=z9hG4bK")
        mark = data[at + 14 : at + 40].partition(b".")
        if at < 0 or not mark[0].isdigit():
            return  # of a MESSAGE of ours
        device = self.devices[int(mark[0])]
        if not device.step or not mark[2].startswith(b"%d" % device.cseq):
            return
        status = data[8:11]
        if status == b"401" and device.step == 1:
            self._request.append(moment - device.sent)
            device.step = 2
            self._send(device, device.ask(self._authorization(device, data)), moment)
        elif status == b"200":
            self._request.append(moment - device.sent)
            self._registration.append(moment - device.began)
            self._end(device)
        elif not status.startswith(b"1"):
            self._found.failed += 1
            self._end(device)

    def _authorization(self, device: Device, data: bytes) -> bytes:
        nonce = value_of(data, b"nonce")
        user = device.middle[device.middle.find(b"sip:") + 4 : device.middle.find(b"@")].decode()
        if b"qop=" in data:
            response = md5(f"{device.ha1}:{nonce}:00000001:0a4f113b:auth:{self._ha2}".encode()).hexdigest()
            more = ',cnonce="0a4f113b",qop=auth,nc=00000001'
        else:
            response = md5(f"{device.ha1}:{nonce}:{self._ha2}".encode()).hexdigest()
            more = ""
        return (
            f'Authorization: Digest username="{user}",realm="{self._setup.domain}",nonce="{nonce}",uri="{device.uri}",'
            f'response="{response}",algorithm=MD5{more}\r\n'
        ).encode()

    def _question(self, data: bytes, connection: socket.socket) -> None:
        """Answer a query of the platform at once, with an empty catalog and a nameless device."""
        self._asked_at = time.monotonic()
        try:
            request = parse(data)
            if not isinstance(request, Request):
                return
            connection.send(serialize(Response.to(request, 200)))
            document = manscdp.parse(request.body)
        except (RefusedError, SipError, ManscdpError):
            return
        sn, device_id = document.sn or 0, document.device_id
        body = b""
        if document.cmd_type == "Catalog":
            body = b"".join(manscdp.catalog_response(sn, device_id, []))
        elif document.cmd_type == "DeviceInfo":
            body = manscdp.device_info(sn, device_id, manscdp.DeviceInfo(True, "", "gbgw", "bench", "1", 0))
        if body:
            connection.send(self._message(device_id, body, connection.getsockname()[1]))

    def _message(self, device_id: str, body: bytes, port: int) -> bytes:
        self._serial += 1
        domain, server = self._setup.domain, self._setup.server_id
        return (
            f"MESSAGE sip:{server}@{domain} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP 127.0.0.1:{port};rport;branch=z9hG4bKm{self._serial}\r\n"
            f"From: <sip:{device_id}@{domain}>;tag=m{self._serial}\r\nTo: <sip:{server}@{domain}>\r\n"
            f"Call-ID: m{self._serial}@127.0.0.1\r\nCSeq: 1 MESSAGE\r\nMax-Forwards: 70\r\n"
            f"Content-Type: {manscdp.CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body


def value_of(data: bytes, name: bytes) -> str:
    """Return a quoted parameter of a challenge, "" where there is none."""
    at = data.find(b" " + name + b'="')
    if at < 0:
        at = data.find(b"," + name + b'="')
    if at < 0:
        return ""
    begin = at + len(name) + 3
    return data[begin : data.find(b'"', begin)].decode("latin-1")


def serve() -> None:
    registrants = Registrants(Setup(**json.loads(sys.stdin.readline())))
    try:
        for line in sys.stdin:
            order: dict[str, Any] = json.loads(line)
            name = order.pop("run")
            found = registrants.first(**order) if name == "first" else registrants.refresh(**order)
            print(json.dumps(asdict(found)), flush=True)
    finally:
        registrants.close()


if __name__ == "__main__":
    serve()
