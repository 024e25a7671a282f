"""Where the packets of one viewer go now: the address that ICE chose last, as the kernel takes it."""

import asyncio
import socket
import struct
from typing import Any

from aioice.ice import Connection as IceConnection

from gbgw.serve.ice import Source
from gbgw.serve.lane import Destination
from gbgw.serve.lite import LiteConnection


class AioiceRoute:
    """Where aioice sends now."""

    def __init__(self, ice: IceConnection) -> None:
        self._ice = ice
        self._destination: Destination | None = None
        self._pair: Any = None
        self._transport: asyncio.DatagramTransport | None = None

    def destination(self) -> Destination | None:
        pair = self._ice._nominated.get(1)  # internal, held by a test
        if pair is not self._pair:
            self._pair, self._destination = pair, None
            if pair is not None:
                self._transport = pair.protocol.transport
                sock = self._transport.get_extra_info("socket")
                self._destination = Destination(sock.fileno(), sockaddr(sock.family, pair.remote_addr))
        if self._transport is None or self._transport.is_closing():
            return None
        return self._destination

    def send(self, data: bytes) -> None:
        if self.destination() is not None and self._transport is not None:
            self._transport.sendto(data, self._pair.remote_addr)


class LiteRoute:
    """Where a viewer of the shared port is now."""

    def __init__(self, ice: LiteConnection) -> None:
        self._ice = ice
        self._source: Source | None = None
        self._destination: Destination | None = None

    def destination(self) -> Destination | None:
        port, source = self._ice.port, self._ice.agent.selected
        if source is None or port.fd < 0:
            return None
        if source != self._source:
            self._source = source
            self._destination = Destination(port.fd, sockaddr(port.family, source))
        return self._destination

    def send(self, data: bytes) -> None:
        source = self._ice.agent.selected
        if source is not None:
            self._ice.port.send(data, source)


def sockaddr(family: int, address: Source) -> bytes:
    """struct sockaddr_in or sockaddr_in6 of Linux."""
    host, port = address[:2]
    if family == socket.AF_INET:
        return struct.pack("=H", family) + struct.pack(">H", port) + socket.inet_aton(host) + bytes(8)
    name, _, zone = host.partition("%")
    if ":" not in name:
        name = "::ffff:" + name
    scope = address[3] if len(address) > 3 else 0
    if zone:
        scope = int(zone) if zone.isdigit() else socket.if_nametoindex(zone)
    there = socket.inet_pton(socket.AF_INET6, name)
    return struct.pack("=H", family) + struct.pack(">HI", port, 0) + there + struct.pack("=I", scope)
