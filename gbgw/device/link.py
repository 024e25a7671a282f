"""A device's own way to its platform: one UDP socket or one TCP connection, SIP on it."""

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Final, cast

from gbgw.base import limits
from gbgw.base.tally import Tally
from gbgw.sip.flow import Flow
from gbgw.sip.message import Message
from gbgw.sip.parse import Ping, RefusedError, StreamParser, is_keepalive, parse, serialize

Deliver = Callable[[Message, Flow], None]
Closed = Callable[[Flow, str], None]

_connections: Final = count(1)  # identities of TCP connections, unique in the process (sip.flow)


class UdpLink(asyncio.DatagramProtocol):
    """A UDP socket connected to the platform: what comes from elsewhere never arrives."""

    def __init__(self, deliver: Deliver, tally: Tally) -> None:
        self._deliver = deliver
        self._tally = tally
        self._transport: asyncio.DatagramTransport | None = None
        self.flow: Flow

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        self.flow = Flow("udp", transport.get_extra_info("sockname")[:2], transport.get_extra_info("peername")[:2])

    def datagram_received(self, data: bytes, addr: tuple[object, ...]) -> None:
        if is_keepalive(data):
            return
        try:
            message = parse(data)
        except RefusedError as error:
            self._tally.add("device.sip_refused", detail=error.message)
            if error.answer is not None:
                self.send(serialize(error.answer))
            return
        self._deliver(message, self.flow)

    def error_received(self, exc: Exception) -> None:
        # The platform's port is closed just now (ICMP); the transaction's own timer says when that is a failure.
        self._tally.add("device.sip_unreachable", detail=str(exc))

    def send(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            self._tally.add("device.sip_unsent")
            return
        self._transport.sendto(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class TcpLink(asyncio.Protocol):
    """A TCP connection to the platform."""

    def __init__(self, deliver: Deliver, closed: Closed, tally: Tally) -> None:
        self._deliver = deliver
        self._closed = closed
        self._tally = tally
        self._parser = StreamParser()
        self._transport: asyncio.Transport | None = None
        self.flow: Flow

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        local, remote = transport.get_extra_info("sockname")[:2], transport.get_extra_info("peername")[:2]
        self.flow = Flow("tcp", local, remote, next(_connections))

    def data_received(self, data: bytes) -> None:
        for found in self._parser.push(data):
            match found:
                case RefusedError():
                    self._tally.add("device.sip_refused", detail=found.message)
                    if found.answer is not None:
                        self.send(serialize(found.answer))
                    if found.fatal:
                        self.close()
                case Ping():
                    self.send(b"\r\n")
                case _:
                    self._deliver(found, self.flow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed(self.flow, str(exc) if exc is not None else "connection closed")

    def send(self, data: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            self._tally.add("device.sip_unsent")
        elif transport.get_write_buffer_size() + len(data) > limits.SIP_STREAM_BYTES:
            self._tally.add("device.sip_unsent")
            transport.abort()  # a platform that reads nothing: the connection is of no use
        else:
            transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


Link = UdpLink | TcpLink
