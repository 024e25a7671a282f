"""SIP endpoints: UDP sockets and TCP connections as Protocol callbacks (RFC 3261 section 18), no task of their own."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Final, Protocol, cast
from urllib.parse import urlsplit

from gbgw.base import limits
from gbgw.base.errors import ConfigError, LocalError
from gbgw.base.tally import Tally
from gbgw.sip.compose import marked_via
from gbgw.sip.flow import Flow, Transport
from gbgw.sip.message import Message, Request, Response
from gbgw.sip.parse import Ping, RefusedError, StreamParser, is_keepalive, parse, serialize

_ids: Final = count(1)
_MAPPED: Final = "::ffff:"
_WILDCARDS: Final = ("0.0.0.0", "::", "")
RECEIVE_BUFFER_BYTES: Final = 4 << 20  # a storm of 3,000 registrations in one tick
_PONG: Final = b"\r\n"


class Owner(Protocol):
    """What endpoints need of their stack."""

    tally: Tally
    pending_bytes: int  # of unfinished messages on all connections

    def received(self, message: Message, flow: Flow) -> None: ...
    def opened(self, connection: "Connection") -> bool: ...
    def closed(self, connection: "Connection") -> None: ...


@dataclass(frozen=True, slots=True)
class Address:
    """One place to listen at."""

    transport: Transport
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Read "udp://host:port" or "tcp://host:port". Raises ConfigError."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = None
        if parts.scheme not in ("udp", "tcp") or port is None:
            raise ConfigError(f"{url} is no SIP address.", remedy="Write udp://host:port or tcp://host:port.")
        return cls("udp" if parts.scheme == "udp" else "tcp", parts.hostname or "0.0.0.0", port)

    def refused(self, error: OSError) -> LocalError:
        """Return what to tell a person when the kernel does not let us listen here."""
        return LocalError(
            f"cannot listen on {self.transport}://{self.host}:{self.port}: {error.strerror}",
            code="listen_failed",
            remedy="choose another sip.listen, or stop what listens there",
        )

    def bind(self) -> socket.socket:
        """Return a bound socket; "::" takes IPv4 too. Raises OSError."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        made = socket.socket(family, socket.SOCK_DGRAM if self.transport == "udp" else socket.SOCK_STREAM)
        try:
            made.setblocking(False)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if self.host == "::" else 1)
            if self.transport == "tcp":
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            else:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            made.bind((self.host, self.port))
        except BaseException:
            made.close()
            raise
        return made


def plain_host(host: str) -> str:
    """Return an IPv4 address that a dual-stack socket gave as IPv6 in its own form."""
    return host[len(_MAPPED) :] if host.lower().startswith(_MAPPED) and "." in host else host


def local_host_towards(host: str) -> str:
    """Return the local address the kernel would send from to `host`; "" when there is no route. Sends nothing."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))
            return str(probe.getsockname()[0])
        except (OSError, UnicodeError):
            return ""


def refusal_answer(error: RefusedError, flow: Flow) -> bytes | None:
    """Return the bytes that answer a request that cannot be used, without a transaction; None when none is due."""
    answer = error.answer
    if answer is None:
        return None
    request = Request(answer.headers)
    first, *rest = answer.headers.all("Via")
    return serialize(
        Response(
            answer.headers.replaced("Via", marked_via(request, flow, first), *rest),
            b"",
            answer.status,
            answer.reason,
        )
    )


class Datagrams(asyncio.DatagramProtocol):
    """One UDP socket."""

    def __init__(self, owner: Owner, address: Address) -> None:
        self._owner = owner
        self._address = address
        self._flows: dict[tuple[str, int], Flow] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self._six = ":" in address.host
        self.port = address.port
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # not a subclass of it in every loop
        self.port = self._transport.get_extra_info("sockname")[1]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self.gone.done():
            self.gone.set_result(None)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        flow = self._flows.get(addr[:2]) or self._learn(addr[0], addr[1])
        if is_keepalive(data):
            return
        try:
            message = parse(data)
        except RefusedError as error:
            self._owner.tally.add("sip.malformed", detail=f"{flow}: {error.message}", now=_now())
            answer = refusal_answer(error, flow)
            if answer is not None:
                self.send(answer, flow)
            return
        if not message.length_held:
            self._owner.tally.add("sip.wrong_length", detail=str(flow), now=_now())
        self._owner.received(message, flow)

    def error_received(self, exc: Exception) -> None:
        self._owner.tally.add("sip.udp_error", detail=str(exc), now=_now())

    def flow_to(self, host: str, port: int) -> Flow:
        return self._flows.get((host, port)) or self._learn(host, port)

    def serves(self, flow: Flow) -> bool:
        """Return whether a flow's packets leave through this socket."""
        own = plain_host(self._address.host)
        fits = own in _WILDCARDS or own == flow.local[0]
        return flow.transport == "udp" and flow.local[1] == self.port and fits and self.reaches(flow.remote[0])

    def reaches(self, host: str) -> bool:
        return (":" in host) == self._six or self._address.host == "::"

    def send(self, data: bytes, flow: Flow) -> None:
        if self._transport is None or self._transport.is_closing():
            self._owner.tally.add("sip.send_failed", detail=str(flow), now=_now())
            return
        if len(data) > limits.SIP_DATAGRAM_BYTES:
            self._owner.tally.add("sip.send_failed", detail=f"{flow}: {len(data)} bytes for UDP", now=_now())
            return
        host, port = flow.remote
        if self._six and ":" not in host:
            host = _MAPPED + host
        try:
            self._transport.sendto(data, (host, port))
        except (OSError, ValueError) as error:  # a host that is no address, a message that no datagram holds
            self._owner.tally.add("sip.send_failed", detail=f"{flow}: {error}", now=_now())

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _learn(self, host: str, port: int) -> Flow:
        if len(self._flows) >= limits.SIP_ROUTES:
            self._flows.clear()
        remote = plain_host(host)
        local = plain_host(self._address.host)
        if local in _WILDCARDS:
            local = local_host_towards(remote) or local
        flow = self._flows[host, port] = Flow("udp", (local, self.port), (remote, port))
        return flow


class Connection(asyncio.Protocol):
    """One TCP connection, accepted or made by us."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._parser = StreamParser(mends=True)
        self._quiet_timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self.id = next(_ids)
        self.flow = Flow("tcp", ("", 0), ("", 0), self.id)
        self.heard_at = _now()
        self.pending_since: float | None = None
        self.accepted = False
        self._pending = 0
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        local, remote = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        if remote is None:  # it was gone before we looked
            self._transport.abort()
            return
        self.flow = Flow("tcp", (plain_host(local[0]), local[1]), (plain_host(remote[0]), remote[1]), self.id)
        self.accepted = self._owner.opened(self)
        if not self.accepted:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._count_pending(0)
        if self._quiet_timer is not None:
            self._quiet_timer.cancel()
            self._quiet_timer = None
        if not self.gone.done():
            self.gone.set_result(None)
        if self.accepted:
            self._owner.closed(self)

    def data_received(self, data: bytes) -> None:
        if not self.accepted:
            return
        self.heard_at = _now()
        self._take(self._parser.push(data))

    def _take(self, found: Sequence[Message | RefusedError | Ping]) -> None:
        for item in found:
            if isinstance(item, RefusedError):
                self._refuse(item)
            elif isinstance(item, Ping):
                self.send(_PONG)
            else:
                if not item.length_held:
                    self._owner.tally.add("sip.wrong_length", detail=str(self.flow), now=_now())
                self._owner.received(item, self.flow)
        if self._transport is None:
            return
        self._count_pending(self._parser.pending_bytes)
        if self._owner.pending_bytes > limits.SIP_PENDING_BYTES:
            self._owner.tally.add("sip.pending_full", detail=str(self.flow), now=self.heard_at)
            self._transport.abort()
        if not self._parser.is_inside:
            self.pending_since = None
        elif self.pending_since is None or found:  # it is another message than before
            self.pending_since = self.heard_at
        if self._parser.quiet_seconds is not None and self._quiet_timer is None:
            self._look_in(self._parser.quiet_seconds)

    def _look_in(self, seconds: float) -> None:
        self._quiet_timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        """Tell the parser of a silence; bytes that came since the timer was set make it wait on, without a timer for
        each of them."""
        self._quiet_timer = None
        seconds = self._parser.quiet_seconds
        if seconds is None:
            return
        rest = self.heard_at + seconds - _now()
        if rest > 0:
            self._look_in(rest)
        else:
            self._take(self._parser.quiet())

    def send(self, data: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            self._owner.tally.add("sip.send_failed", detail=str(self.flow), now=_now())
            return
        transport.write(data)
        if transport.get_write_buffer_size() > limits.SIP_WRITE_BUFFER_BYTES:
            self._owner.tally.add("sip.peer_does_not_read", detail=str(self.flow), now=_now())
            transport.abort()

    def overdue(self, now: float) -> bool:
        """Return whether the peer has been silent, or in the middle of a message, for too long."""
        stuck = self.pending_since is not None and now - self.pending_since > limits.SIP_MESSAGE_SECONDS
        return stuck or now - self.heard_at > limits.SIP_CONNECTION_IDLE_SECONDS

    def close(self) -> None:
        """Close after what is written; what a peer does not read is dropped."""
        if self._transport is not None:
            if self._transport.get_write_buffer_size():
                self._transport.abort()
            else:
                self._transport.close()

    def _count_pending(self, size: int) -> None:
        self._owner.pending_bytes += size - self._pending
        self._pending = size

    def _refuse(self, error: RefusedError) -> None:
        self._owner.tally.add("sip.malformed", detail=f"{self.flow}: {error.message}", now=_now())
        answer = refusal_answer(error, self.flow)
        if answer is not None:
            self.send(answer)
        if error.fatal and self._transport is not None:
            self._transport.close()


def _now() -> float:
    return asyncio.get_running_loop().time()


async def open_datagrams(owner: Owner, address: Address) -> Datagrams:
    """Bind a UDP endpoint. Raises LocalError "listen_failed"."""
    try:
        bound = address.bind()
    except OSError as error:
        raise address.refused(error) from None
    try:
        _, endpoint = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: Datagrams(owner, address), sock=bound
        )
    except BaseException:
        bound.close()
        raise
    return endpoint


async def open_server(owner: Owner, address: Address) -> asyncio.Server:
    """Listen for TCP. Raises LocalError "listen_failed"."""
    try:
        bound = address.bind()
    except OSError as error:
        raise address.refused(error) from None
    make: Callable[[], Connection] = partial(Connection, owner)
    try:
        return await asyncio.get_running_loop().create_server(make, sock=bound, backlog=1024)
    except OSError as error:
        bound.close()
        raise address.refused(error) from None
    except BaseException:
        bound.close()
        raise
