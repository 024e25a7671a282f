"""One UDP port for all WebRTC viewers: the socket around serve.ice, and each viewer's end of it in the shape of an
aioice.Connection, which is what aiortc's ICE transport holds.

The socket belongs to the SharedPort; who sends media by it borrows its descriptor. No task stands behind it: datagrams
are handled as they come, silence is looked for by one timer.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from aioice.candidate import Candidate, candidate_foundation, candidate_priority
from aioice.ice import ConnectionClosed

from gbgw.base import limits
from gbgw.base.errors import LocalError
from gbgw.base.tally import Tally
from gbgw.serve.ice import Agent, Deliver, Responder, Selected, Send, Source
from gbgw.serve.turns import Turns

SWEEP_SECONDS: Final = 1.0  # between two looks for viewers that are gone
SRTP_FIRST: Final = range(128, 192)  # first byte of SRTP and SRTCP (RFC 7983)


class SharedPort(asyncio.DatagramProtocol):
    """The socket of one local address, open as long as the process serves WebRTC."""

    def __init__(self, tally: Tally, turns: Turns) -> None:
        self.turns = turns
        self.responder = Responder(tally)
        self.family = 0
        self.fd = -1
        self.port = 0
        self.tally = tally
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.DatagramTransport | None = None
        self._connections: dict[Agent, LiteConnection] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._connections)

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        made = transport.get_extra_info("socket")
        self._transport, self.family, self.fd = transport, made.family, made.fileno()
        self.port = transport.get_extra_info("sockname")[1]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport, self.fd = None, -1
        for connection in list(self._connections.values()):
            connection.fail()

    def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._transport is not None:
            self._transport.abort()

    def connect(self, connection: "LiteConnection", remote_ufrag: str, remote_password: str) -> Agent:
        agent = self.responder.add(remote_ufrag, remote_password)
        self._connections[agent] = connection
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        return agent

    def disconnect(self, agent: Agent) -> None:
        """Quiet when it is gone already."""
        self.responder.remove(agent)
        self._connections.pop(agent, None)

    def send(self, data: bytes, source: Source) -> None:
        if self._transport is not None:
            self._transport.sendto(data, source)

    def datagram_received(self, data: bytes, addr: Source) -> None:
        for effect in self.responder.push(data, addr, self._loop.time()):
            match effect:
                case Deliver(agent, payload):
                    self._connections[agent].deliver(payload)
                case Send(answer, source):
                    self.send(answer, source)
                case Selected(agent):
                    self._connections[agent].on_selected()

    def error_received(self, exc: Exception) -> None:
        self.tally.add("webrtc.send_error")

    def pause_writing(self) -> None:
        for connection in self._connections.values():
            connection.on_writable(False)

    def resume_writing(self) -> None:
        for connection in self._connections.values():
            connection.on_writable(True)

    def _sweep(self) -> None:
        for agent in self.responder.silent(self._loop.time()):
            self.tally.add("webrtc.consent_expired")
            self._connections[agent].fail()
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep) if self._connections else None


async def open_port(tally: Tally, turns: Turns, bind: str, port: int) -> SharedPort:
    """Raises LocalError `webrtc_bind_failed`."""
    loop = asyncio.get_running_loop()
    try:
        family, _, _, _, address = socket.getaddrinfo(bind, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[
            0
        ]
        made = socket.socket(family, socket.SOCK_DGRAM)
        try:
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            for which in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                made.setsockopt(socket.SOL_SOCKET, which, limits.WEBRTC_SOCKET_BYTES)  # as far as the kernel allows
            made.setblocking(False)
            made.bind(address)
            _, protocol = await loop.create_datagram_endpoint(lambda: SharedPort(tally, turns), sock=made)
        except BaseException:
            made.close()
            raise
    except OSError as error:
        raise LocalError(
            f"UDP port {port} of {bind} cannot be used for WebRTC: {error.strerror or error}.",
            code="webrtc_bind_failed",
            remedy="Choose another webrtc.ports, or stop who holds it.",
        ) from error
    return protocol


@dataclass(eq=False)
class LiteConnection:
    """One viewer's ICE, always controlled; the interface of aioice.Connection as far as aiortc uses it.

    on_writable: told when the socket is full, and when it takes packets again. on_srtcp: takes SRTP and SRTCP from the
    moment the keys are there, past aiortc's queue.
    """

    port: SharedPort
    hosts: tuple[str, ...]
    remote_username: str
    remote_password: str
    on_writable: Callable[[bool], None]
    on_srtcp: Callable[[bytes], None] | None = None
    ice_controlling: bool = False
    remote_is_lite: bool = False
    local_candidates: list[Candidate] = field(default_factory=list)
    remote_candidates: list[Candidate] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.agent = self.port.connect(self, self.remote_username, self.remote_password)
        self.local_username = self.agent.ufrag
        self.local_password = self.agent.password
        self._queue: deque[bytes] = deque()
        self._is_planned = False  # to be told of what is in the queue
        self._changed = asyncio.Event()
        self._selected = asyncio.Event()
        self._closed = asyncio.Event()

    @property
    def is_open(self) -> bool:
        return not self._closed.is_set()

    async def gather_candidates(self) -> None:
        self.local_candidates = host_candidates(self.hosts, self.port.port)

    async def add_remote_candidate(self, candidate: Any) -> None:
        """A lite agent asks nobody first (RFC 8445 section 6.1.4.2): the viewer's checks come by themselves."""

    async def connect(self) -> None:
        """Return when the viewer has chosen a source. Raises ConnectionError when it is closed before."""
        await self._selected.wait()
        if not self.is_open:
            raise ConnectionError("closed before the viewer connected")

    async def close(self) -> None:
        self.fail()

    def fail(self) -> None:
        """Closed, by us or since the viewer is gone: aiortc learns it from get_event and recv."""
        self.port.disconnect(self.agent)
        for event in (self._closed, self._selected, self._changed):
            event.set()

    async def get_event(self) -> ConnectionClosed:
        await self._closed.wait()
        return ConnectionClosed()

    async def recv(self) -> bytes:
        """The next datagram of DTLS. Raises ConnectionError once closed."""
        while not self._queue:
            if not self.is_open:
                raise ConnectionError("closed")
            self._changed.clear()
            await self._changed.wait()
        return self._queue.popleft()

    async def send(self, data: bytes) -> None:
        """Raises ConnectionError when there is nobody to send to."""
        source = self.agent.selected
        if source is None or not self.is_open:
            raise ConnectionError("not connected")
        self.port.send(data, source)

    # What the port tells

    def deliver(self, data: bytes) -> None:
        if self.on_srtcp is not None and data[0] in SRTP_FIRST:
            self.on_srtcp(data)
        elif len(self._queue) < limits.WEBRTC_DATAGRAMS:
            self._queue.append(data)
            if not self._is_planned:  # a handshake is milliseconds of elliptic curves: one at a time
                self._is_planned = True
                self.port.turns.want(self._tell)
        else:
            self.port.tally.add("webrtc.flood")

    def _tell(self) -> None:
        self._is_planned = False
        self._changed.set()

    def on_selected(self) -> None:
        self._selected.set()


def host_candidates(hosts: tuple[str, ...], port: int) -> list[Candidate]:
    """Host candidates of one UDP socket, best first."""
    return [
        Candidate(
            foundation=candidate_foundation("host", "udp", host),
            component=1,
            transport="udp",
            priority=candidate_priority(1, "host", 65_535 - index),
            host=host,
            port=port,
            type="host",
        )
        for index, host in enumerate(hosts)
    ]
