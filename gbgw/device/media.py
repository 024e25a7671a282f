"""Where a session's packets leave: a UDP socket, a TCP connection made, or one accepted (GB/T 28181-2022 Annex D)."""

import asyncio
from collections.abc import Sequence
from typing import Final, Self, cast

from gbgw.base import limits
from gbgw.base.errors import TransportClosedError
from gbgw.device.calls import OpenMedia

CONNECT_WAITS: Final = (0.0, 1.0, 2.0)  # before each try; at least three, at least a second apart (Annex D)
CONNECT_SECONDS: Final = 3.0
ACCEPT_SECONDS: Final = 10.0  # the platform connects after its ACK


class _Datagrams(asyncio.DatagramProtocol):
    """Sends only: receiver reports and NAT punches are of no interest, nor that a port is gone before its BYE."""

    def datagram_received(self, data: bytes, addr: tuple[object, ...]) -> None: ...
    def error_received(self, exc: Exception) -> None: ...


class _Connection(asyncio.Protocol):
    """One TCP connection; with `accepted` the first that comes in is told, all others are closed."""

    def __init__(self, accepted: "asyncio.Future[asyncio.Transport] | None" = None) -> None:
        self._accepted = accepted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._accepted is None:
            return
        if self._accepted.done():
            cast(asyncio.Transport, transport).abort()
        else:
            self._accepted.set_result(cast(asyncio.Transport, transport))


class MediaPort:
    """The socket of one session: `open` before the answer, `connect` after the ACK, then `send`; `close` always."""

    def __init__(self, plan: OpenMedia, host: str) -> None:
        self._plan = plan
        self._host = host
        self._server: asyncio.Server | None = None
        self._accepted: asyncio.Future[asyncio.Transport] | None = None
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Transport | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self.close()

    async def open(self) -> tuple[str, int]:
        """Bind what must be bound; return host and port for the answer. Raises OSError."""
        loop = asyncio.get_running_loop()
        match self._plan.transport:
            case "udp":
                self._udp, _ = await loop.create_datagram_endpoint(_Datagrams, local_addr=(self._host, 0))
                return self._host, int(self._udp.get_extra_info("sockname")[1])
            case "tcp-passive":
                accepted: asyncio.Future[asyncio.Transport] = loop.create_future()
                self._accepted = accepted
                self._server = await loop.create_server(lambda: _Connection(accepted), self._host, 0, backlog=2)
                return self._host, int(self._server.sockets[0].getsockname()[1])
            case "tcp-active":
                return self._host, 9  # the discard port: the side that connects names none (RFC 4145 section 4.1)

    async def connect(self) -> None:
        """Make or await the TCP connection. Raises OSError or TimeoutError."""
        if self._plan.transport == "tcp-passive" and self._accepted is not None:
            async with asyncio.timeout(ACCEPT_SECONDS):
                self._tcp = await self._accepted
            if self._server is not None:
                self._server.close()  # one connection a session
        elif self._plan.transport == "tcp-active":
            await self._connect()
        if self._tcp is not None:
            self._tcp.set_write_buffer_limits(high=limits.DEVICE_SEND_BYTES)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        last: OSError | TimeoutError = TimeoutError()
        for wait in CONNECT_WAITS:
            await asyncio.sleep(wait)
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    self._tcp, _ = await loop.create_connection(
                        _Connection, *self._plan.remote, local_addr=(self._host, 0)
                    )
            except (OSError, TimeoutError) as error:
                last = error
            else:
                return
        raise last

    @property
    def full(self) -> bool:
        """More waits in the socket than the receiver takes in two seconds."""
        if self._udp is not None:
            # Datagram transports of asyncio and uvloop both have it, though their common type does not say so.
            waiting = cast(asyncio.WriteTransport, self._udp).get_write_buffer_size()
        else:
            waiting = self._tcp.get_write_buffer_size() if self._tcp is not None else 0
        return waiting > limits.DEVICE_SEND_BYTES

    def send(self, packets: Sequence[bytes]) -> None:
        """Hand packets to the kernel; never waits. Raises TransportClosedError when the TCP peer is gone."""
        if self._udp is not None:
            for packet in packets:
                self._udp.sendto(packet, self._plan.remote)
        elif self._tcp is None or self._tcp.is_closing():
            raise TransportClosedError("the platform closed its media connection")
        else:
            self._tcp.write(b"".join(packets))

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._accepted is not None and self._accepted.done() and not self._accepted.cancelled():
            self._accepted.result().abort()
        for transport in (self._udp, self._tcp):
            if transport is not None:
                transport.abort()
