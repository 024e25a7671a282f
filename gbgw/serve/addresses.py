"""Where viewers reach this process by UDP: addresses to bind and to tell, and one port for all or a socket for each."""

import asyncio
import ipaddress
import socket
from collections.abc import Callable

from gbgw.base.config import WebRtcConfig
from gbgw.base.errors import LocalError
from gbgw.base.tally import Tally
from gbgw.serve.lite import SharedPort, open_port
from gbgw.serve.ports import Ports, Socket
from gbgw.serve.turns import Turns
from gbgw.serve.whep import WhepRequest


class Addresses:
    """Owns the shared ports; the socket of one viewer belongs to who opens it."""

    def __init__(self, config: WebRtcConfig, tally: Tally, turns: Turns) -> None:
        self._config = config
        self._tally = tally
        self._turns = turns
        self._ports = Ports(config.ports)
        self._shared: dict[str, SharedPort] = {}  # by the address they are bound to
        self._opening = asyncio.Lock()

    def close(self) -> None:
        for port in self._shared.values():
            port.close()

    def hosts(self, request: WhepRequest) -> tuple[str, tuple[str, ...]]:
        """Return (address to bind, addresses to tell, best first): the one the request came to, and
        `webrtc.advertise`.

        With advertised addresses the socket is bound to all, since they are not ours to bind. A request that came over
        loopback with advertised addresses came through a proxy most likely: then they go first.
        """
        local = _address(request.local)
        told = local.compressed if isinstance(local, ipaddress.IPv4Address) else local.compressed.partition("%")[0]
        own = [] if local.is_unspecified else [told]
        advertised = list(self._config.advertise)
        ordered = [*advertised, *own] if local.is_loopback else [*own, *advertised]
        hosts = tuple(dict.fromkeys(ordered))
        if not hosts:
            raise LocalError(
                "There is no address to tell the viewer.", code="webrtc_no_address", remedy="Set webrtc.advertise."
            )
        if not advertised:
            return str(local), hosts
        if self.is_shared and socket.has_dualstack_ipv6():
            return "::", hosts  # one socket, whatever address is told first
        return ("::" if any(":" in host for host in hosts) else "0.0.0.0"), hosts

    @property
    def is_shared(self) -> bool:
        """One port for all viewers."""
        return self._ports.single is not None

    async def shared_port(self, bind: str) -> SharedPort:
        """The one port on this address, opened for its first viewer. Raises LocalError."""
        assert self._ports.single is not None
        async with self._opening:
            port = self._shared.get(bind)
            if port is None:
                port = self._shared[bind] = await open_port(self._tally, self._turns, bind, self._ports.single)
            return port

    async def open_socket(self, protocol: Callable[[], Socket], bind: str) -> Socket:
        """Open one UDP socket for a viewer, within `webrtc.ports`."""
        return await self._ports.open(protocol, bind)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Of our socket; loopback where it is unknown (a Unix socket)."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ipaddress.IPv4Address("127.0.0.1")
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
