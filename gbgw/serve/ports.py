"""UDP sockets of WebRTC viewers, one each, below aioice: which port, and what is let through to it."""

import asyncio
import errno
import struct
from collections.abc import Callable
from typing import Any, Protocol

from aioice.candidate import Candidate
from aioice.ice import Connection as IceConnection
from aioice.ice import StunProtocol
from aioice.stun import parse_message

from gbgw.base import limits
from gbgw.base.config import port_range
from gbgw.base.errors import LocalError
from gbgw.base.tally import Tally
from gbgw.serve.internals import internal
from gbgw.serve.lite import host_candidates


class Ports:
    """UDP ports of viewers: ephemeral, the free ones of a range in turn, or a single one for all (`single`)."""

    def __init__(self, ports: str) -> None:
        self._range = port_range(ports) if ports else None
        self.single = self._range[0] if self._range is not None and len(self._range) == 1 else None
        self._next = 0

    async def open(self, protocol: Callable[[], "Socket"], bind: str) -> "Socket":
        loop = asyncio.get_running_loop()
        for port in self._candidates():
            try:
                _, made = await loop.create_datagram_endpoint(protocol, local_addr=(bind, port))
            except OSError as error:
                reason = error.__cause__ if isinstance(error.__cause__, OSError) else error  # uvloop wraps it
                if reason.errno in (errno.EADDRINUSE, errno.EACCES) and self._range is not None:
                    continue
                raise LocalError(
                    f"No UDP socket for a WebRTC viewer: {reason.strerror or reason}.",
                    code="webrtc_bind_failed",
                    remedy="Check webrtc.ports, and the limit of open files.",
                ) from error
            return made
        raise LocalError(
            "No UDP port is free for this WebRTC viewer.",
            code="webrtc_ports_exhausted",
            remedy="Widen webrtc.ports, or name a single port, which all viewers share.",
        )

    def _candidates(self) -> list[int]:
        if self._range is None:
            return [0]
        size = len(self._range)
        self._next = (self._next + 1) % size
        return [self._range[(self._next + step) % size] for step in range(size)]


class Socket(StunProtocol):
    """aioice's socket behind a door: what is not for this viewer, or more than it may send, stays outside.

    aioice queues whatever is not STUN without a bound, from any address, until DTLS begins to read; aiortc ends the
    session at an empty datagram; both raise at some damaged STUN.
    """

    def __init__(self, ice: IceConnection, tally: Tally, on_writable: Callable[[bool], None]) -> None:
        super().__init__(ice)
        self._ice = ice
        self._tally = tally
        self._on_writable = on_writable
        self._queue: asyncio.Queue[Any] = internal(ice, "_queue")
        internal(ice, "_check_list")

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        assert isinstance(data, bytes)
        pairs = self._ice._check_list  # internal, checked above
        is_known = any(pair.remote_addr == addr[:2] for pair in pairs)
        is_stun = bool(data) and data[0] < 4  # RFC 7983
        if not data or not (is_known or (is_stun and len(pairs) < limits.WEBRTC_CHECKS)):
            self._tally.add("webrtc.stray")
        elif not is_stun and self._queue.qsize() >= limits.WEBRTC_DATAGRAMS:
            self._tally.add("webrtc.flood")
        else:
            try:
                if is_stun:
                    parse_message(data)  # aioice takes what is none for media
                super().datagram_received(data, addr)
            except (ValueError, KeyError, IndexError, AssertionError, OverflowError, struct.error):
                self._tally.add("webrtc.stun_malformed")

    def error_received(self, exc: Exception) -> None:
        self._tally.add("webrtc.send_error")

    def pause_writing(self) -> None:
        self._on_writable(False)

    def resume_writing(self) -> None:
        self._on_writable(True)


class Opener(Protocol):
    async def open_socket(self, protocol: Callable[[], Socket], bind: str) -> Socket: ...


class Gathering:
    """Stands in for aioice.Connection.get_component_candidates on one connection."""

    def __init__(
        self,
        addresses: Opener,
        tally: Tally,
        ice: IceConnection,
        bind: str,
        hosts: tuple[str, ...],
        on_writable: Callable[[bool], None],
    ) -> None:
        self._addresses = addresses
        self._tally = tally
        self._ice = ice
        self._bind = bind
        self._hosts = hosts
        self._on_writable = on_writable

    async def __call__(self, component: int, addresses: list[str], timeout: int = 5) -> list[Candidate]:
        protocol = await self._addresses.open_socket(
            lambda: Socket(self._ice, self._tally, self._on_writable), self._bind
        )
        if internal(self._ice, "_closing"):
            protocol.transport.abort()
            raise ConnectionError("closed while its socket was opened")
        internal(self._ice, "_protocols").append(protocol)
        port = protocol.transport.get_extra_info("sockname")[1]
        candidates = host_candidates(self._hosts, port)
        protocol.local_candidate = candidates[0]
        return candidates
