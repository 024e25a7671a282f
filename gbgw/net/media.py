"""RTP endpoints: UDP, TCP passive, TCP active, and the pool of ports (GB/T 28181-2022 Annex D; RFC 4571; RFC 3550).

One endpoint serves one session on a port of its own: the port, not the SSRC, tells sessions apart (reference 6.5); or
on the port that all share (net.shared). The port is bound before the camera hears of it and goes back to the pool in
the `finally` that closes it. RTP over UDP is read by the receive thread (net.receive), or by the loop where there is
none; everything else by the loop.
Leaves out: SRTP.
"""

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any, Final, Literal, Protocol, TypeVar

from gbgw import _receiver, _rtp
from gbgw.base import limits
from gbgw.base.errors import LocalError, PortsExhaustedError, StateError
from gbgw.base.tally import Tally
from gbgw.net.receive import Receiving
from gbgw.net.shared import SharedPort
from gbgw.net.sockets import bind, bind_error, kernel_drops, widen
from gbgw.net.source import Address, SourceLock

Transport = Literal["udp", "tcp-passive", "tcp-active"]
T = TypeVar("T")

RETRY_SECONDS: Final = (1.0, 2.0, 4.0)  # between attempts to connect (reference 0.2)
_CLOSE_SECONDS: Final = 1.0  # a transport's own farewell; it only takes a turn of the loop
_SWEEP_SECONDS: Final = 1.0
_SWEEP_PACKETS: Final = 256  # read from one resting port in one go


# The pool of ports


@dataclass(slots=True)
class _Resting:
    port: int
    sockets: Sequence[socket.socket]
    quiet_since: float


class PortPool:
    """Even ports of a range, each with the odd one above it. A port in use is bound, and a resting one stays bound: a
    camera that goes on sending to it gets no ICMP, and no other session gets its packets.

    ports: the range, e.g. base.config.port_range("30000-34999"). host: the address to bind.
    """

    def __init__(
        self,
        ports: range,
        *,
        host: str = "0.0.0.0",
        quarantine_seconds: float = limits.PORT_QUARANTINE_SECONDS,
        tally: Tally | None = None,
    ) -> None:
        self.host = host
        self.tally = tally if tally is not None else Tally()
        self._range = ports
        self._quarantine_seconds = quarantine_seconds
        self._free = deque(port for port in ports if port % 2 == 0 and port + 1 in ports)
        self._used: set[int] = set()
        self._resting: dict[int, _Resting] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def in_use(self) -> int:
        return len(self._used)

    @property
    def free(self) -> int:
        """Ports that can be had, resting ones included: under pressure they are used as well."""
        return len(self._free) + len(self._resting)

    @property
    def resting(self) -> int:
        return len(self._resting)

    def take(self, bind: Callable[[int], T]) -> tuple[int, T]:
        """Return a port and what `bind` made of it. A port that another program holds is passed over.

        Raises PortsExhaustedError.
        """
        self._sweep()
        for _ in range(min(self.free, limits.PORT_BIND_ATTEMPTS)):
            port = self._next()
            try:
                bound = bind(port)
            except OSError as error:
                self._free.append(port)
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    remedy = "check media.ports and the limit of open files"
                    raise bind_error(self.host, port, error, remedy) from error
                self.tally.add("net.port_taken")
                continue
            self._used.add(port)
            return port, bound
        raise PortsExhaustedError(
            f"no media port of {self._range[0]}-{self._range[-1]} is free: {self.in_use} are in use",
            remedy="widen media.ports, or let fewer cameras stream at once",
        )

    def release(self, port: int, sockets: Sequence[socket.socket] = ()) -> None:
        """Take a port back. sockets: still bound to it, non-blocking; they are the pool's from now on."""
        if port not in self._used:
            raise StateError(f"media port {port} is not in use")
        self._used.remove(port)
        loop = asyncio.get_running_loop()
        for one in sockets:
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._resting[port] = _Resting(port, sockets, loop.time())
        if self._sweeper is None:
            self._sweeper = loop.call_later(_SWEEP_SECONDS, self._on_sweep)

    def close(self) -> None:
        """Close the resting ports' sockets. May be called again."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for port in list(self._resting):
            self._wake(port)

    def _next(self) -> int:
        if self._free:
            return self._free.popleft()
        port = min(self._resting.values(), key=lambda resting: resting.quiet_since).port
        self._wake(port)
        self.tally.add("net.port_reused_early")
        return self._free.pop()

    def _wake(self, port: int) -> None:
        for one in self._resting.pop(port).sockets:
            one.close()
        self._free.append(port)

    def _on_sweep(self) -> None:
        self._sweeper = None
        self._sweep()
        if self._resting:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._on_sweep)

    def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        for resting in list(self._resting.values()):
            if sum(_drain(one) for one in resting.sockets):  # every one of them, not only the first
                resting.quiet_since = now
                self.tally.add("net.rtp_to_resting_port")
            elif now - resting.quiet_since >= self._quarantine_seconds:
                self._wake(resting.port)


def _drain(one: socket.socket) -> bool:
    """Throw away what a resting socket received; True when there was anything."""
    for count in range(_SWEEP_PACKETS):
        try:
            one.recv(1)
        except OSError:
            return count > 0
    return True


def _bind_pair(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    rtp = bind(host, port, socket.SOCK_DGRAM)
    try:
        return rtp, bind(host, port + 1, socket.SOCK_DGRAM)
    except BaseException:
        rtp.close()
        raise


# The endpoint


class PacketSink(Protocol):
    """Where packets go; called synchronously, must not wait. net.receiver.Receiver is one.

    is_driven: set once a receive thread feeds `fold` and keeps its deadlines; `take` says that there is something.
    """

    is_driven: bool

    @property
    def fold(self) -> object: ...
    def take(self, now: float) -> None: ...
    def push_rtp(self, datagram: bytes, now: float) -> None: ...
    def push_rtcp(self, datagram: bytes, now: float) -> None: ...
    def receiver_report(self, now: float) -> bytes:
        """The RTCP to send now; b"" for none."""


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """What the sockets saw, for a diagnosis.

    source: who sends, or None. connections: TCP connections that came about. head: first bytes of the last one.
    refused_from: the last address whose packets or connection were not taken. error: why no connection came about.
    ssrc_conflict: the camera sends with an SSRC that is another stream's, on a port they share.
    """

    transport: Transport
    port: int
    source: Address | None
    connections: int
    connected: bool
    head: bytes
    frames: int
    garbage_bytes: int
    wrong_source: int
    malformed: int
    refused_from: Address | None
    error: str
    target: Address | None
    ssrc_conflict: bool = False


class MediaEndpoint:
    """The sockets of one session.

    `open` and `close` belong to one task (a TaskGroup lives between them). expected_hosts: addresses the camera is
    known by, its SIP source first; more come with `answered`. rtcp: send a receiver report every 5 s. receiving: the
    thread that reads RTP over UDP into the sink's fold; None: the loop does. shared: the one port of all streams, which
    then takes the place of the pool's; needs `ssrc` and a sink with a core's fold.
    tally: counts rtp.wrong_source, rtp.framer_*, net.*.
    """

    def __init__(
        self,
        pool: PortPool,
        sink: PacketSink,
        *,
        transport: Transport = "udp",
        name: str = "",
        ssrc: int | None = None,
        expected_hosts: Sequence[str] = (),
        rtcp: bool = True,
        receiving: Receiving | None = None,
        shared: SharedPort | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.transport = transport
        self.name = name
        self.tally = tally if tally is not None else Tally()
        self.receive_buffer_bytes = 0
        self._pool = pool
        self._sink = sink
        self._ssrc = ssrc
        self._lock = SourceLock(expected_hosts, self._refuse, ssrc=ssrc)
        self._receiving = receiving
        self._shared = shared
        self.named: Address | None = None  # host and RTP port of the camera's answer
        self._opened_at = 0.0
        self._rtcp = rtcp
        self._port: int | None = None
        self._closed = False
        self._group: asyncio.TaskGroup | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._server: asyncio.Server | None = None
        self._reporter: asyncio.TimerHandle | None = None
        # UDP
        self._rtp: _Datagrams | None = None
        self._socket: socket.socket | None = None  # of RTP, where the receive thread reads it
        self._inlet: _receiver.Inlet | None = None
        self._told = (0, 0, 0, 0)  # news, malformed, refused and flood of the inlet that were counted
        self._looked = 0  # news of the inlet when its strangers were taken
        self._rtcp_socket: _Datagrams | None = None
        self._rtcp_to: tuple[Address, bool] | None = None  # and whether it goes out of the RTP port
        # TCP
        self._connection: _Connection | None = None
        self._connections = 0
        self._head = b""
        self._frames = 0
        self._garbage = 0
        self._error = ""
        self._target: Address | None = None
        self._wrong_source = 0
        self._malformed = 0
        self._refused_from: Address | None = None

    @property
    def port(self) -> int:
        """The even port for the SDP. Raises StateError before `open`."""
        if self._port is None:
            raise StateError("the media endpoint is not open")
        return self._port

    @property
    def source(self) -> Address | None:
        """Who sends: the locked UDP source, or the TCP peer."""
        if self._connection is not None:
            return self._connection.peer
        self._learn()
        return self._lock.address

    @property
    def connected(self) -> bool:
        return self._connection is not None

    @property
    def kernel_drops(self) -> int | None:
        """Datagrams the kernel dropped because we were slow; None where it does not say."""
        if self._socket is not None:
            return kernel_drops(self._socket)
        if self._rtp is None or self._rtp.transport is None:
            return None
        with _plain_socket(self._rtp.transport) as one:
            return kernel_drops(one)

    @property
    def facts(self) -> NetworkFacts:
        self._learn()
        shared, hosts = self._shared, self._lock.expected_hosts
        conflict = (
            shared is not None
            and self.source is None
            and any(shared.was_refused(host, self._opened_at) for host in hosts)
        )
        return NetworkFacts(
            self.transport,
            self._port or 0,
            self.source,
            self._connections,
            self.connected,
            self._head,
            self._frames,
            self._garbage,
            self._wrong_source,
            self._malformed,
            self._refused_from,
            self._error,
            self._target,
            conflict,
        )

    # Life

    async def __aenter__(self) -> "MediaEndpoint":
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Bind the port, ready to receive: the INVITE may leave. Raises PortsExhaustedError, LocalError."""
        if self._port is not None or self._closed:
            raise StateError("a media endpoint opens once")
        loop = asyncio.get_running_loop()
        self._group = await asyncio.TaskGroup().__aenter__()
        try:
            self._opened_at = loop.time()
            if self._shared is not None:
                self._shared.join(self)
                self._port = self._shared.port
                if self.transport == "udp":
                    self._join_udp(self._shared)
            elif self.transport == "udp":
                self._port, pair = self._pool.take(partial(_bind_pair, self._pool.host))
                await self._open_datagrams(*pair)
            elif self.transport == "tcp-passive":
                self._port, listener = self._pool.take(lambda port: bind(self._pool.host, port, socket.SOCK_STREAM))
                try:
                    self._server = await loop.create_server(lambda: _Connection(self), sock=listener)
                except BaseException:
                    listener.close()
                    raise
            else:
                self._port, _ = self._pool.take(lambda port: None)
            if self._rtcp:
                self._reporter = loop.call_later(limits.RTCP_INTERVAL_SECONDS, self._report)
        except BaseException:
            await self.close()
            raise

    async def answered(
        self,
        *,
        address: str,
        port: int,
        transport: Literal["udp", "tcp"],
        ssrc: int | None = None,
        sip_host: str = "",
    ) -> None:
        """Take the camera's answer: whom to expect, and for TCP active whom to connect to, in the background.

        An answer by UDP to an offer of TCP binds the UDP pair beside it (reference 6.6). Raises LocalError when it is
        taken, or on a shared port when the camera's SSRC is another stream's.
        """
        self._lock.expect(address, sip_host)
        self.named = (address, port)
        if ssrc is not None:
            if self._shared is not None:
                self._shared.rename(self, ssrc)
            self._ssrc = self._lock.ssrc = ssrc
        self._announce()
        if transport == "udp":
            if self.transport != "udp":
                await self.bind_udp()
        elif self.transport == "tcp-active" and self._connecting is None and self._group is not None:
            targets = list(dict.fromkeys((host, port) for host in (address, sip_host) if host))
            self._connecting = self._group.create_task(self._connect(targets), name=f"media-connect:{self.name}")

    async def bind_udp(self) -> None:
        """Receive by UDP as well, on the same port number. Raises LocalError when another program holds it."""
        if self._rtp is not None or self._inlet is not None:
            return
        if self._shared is not None:
            self._join_udp(self._shared)
            return
        try:
            pair = _bind_pair(self._pool.host, self.port)
        except OSError as error:
            raise LocalError(
                f"the camera sends by UDP although TCP was offered, and UDP port {self.port} is taken",
                code="media_not_supported",
                remedy="set the device's transport to udp",
            ) from error
        await self._open_datagrams(*pair)

    async def close(self) -> None:
        """Close every socket, end every task, give the port back. May be called again."""
        if self._closed:
            return
        self._closed = True
        port, self._port = self._port, None
        resting: list[socket.socket] = []
        if self._reporter is not None:
            self._reporter.cancel()
        try:
            if self._inlet is not None:
                self._inlet.close()
                self._learn()
            if self._shared is not None:
                self._shared.leave(self, asyncio.get_running_loop().time())
                port = None
            if self._socket is not None:
                resting.append(self._socket)
                self._socket = None
            for datagrams in (self._rtp, self._rtcp_socket):
                if datagrams is not None and datagrams.transport is not None:
                    resting.append(_plain_socket(datagrams.transport))
            if self._connecting is not None:
                self._connecting.cancel()
            if self._server is not None:
                self._server.close()
            gone = [one for one in (self._rtp, self._rtcp_socket, self._connection) if one is not None]
            for one in gone:
                one.abort()
            try:
                async with asyncio.timeout(_CLOSE_SECONDS):
                    for one in gone:
                        await one.lost.wait()
            except TimeoutError:
                self.tally.add("net.slow_close")
        finally:
            try:
                if self._group is not None:
                    group, self._group = self._group, None
                    await group.__aexit__(None, None, None)
            finally:
                if port is not None:
                    self._pool.release(port, resting)
                else:
                    for spare in resting:
                        spare.close()

    async def _open_datagrams(self, rtp: socket.socket, rtcp: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self.receive_buffer_bytes = widen(rtp, limits.RECEIVE_BUFFER_BYTES)
        if self.receive_buffer_bytes < limits.RECEIVE_BUFFER_BYTES:
            self.tally.add("net.small_receive_buffer", detail="raise net.core.rmem_max", now=loop.time())
        try:
            if self._receiving is not None:
                self._lend(self._receiving, rtp)
            else:
                _, self._rtp = await loop.create_datagram_endpoint(lambda: _Datagrams(self._on_rtp), sock=rtp)
            _, self._rtcp_socket = await loop.create_datagram_endpoint(lambda: _Datagrams(self._on_rtcp), sock=rtcp)
        except BaseException:
            if self._rtp is None and self._socket is None:
                rtp.close()
            rtcp.close()
            raise

    # UDP by the receive thread

    def _lend(self, receiving: Receiving, rtp: socket.socket) -> None:
        fold = self._sink.fold
        assert isinstance(fold, _receiver.Fold)
        self._inlet = receiving.open(fold, rtp.fileno(), self)
        self._socket = rtp
        self._sink.is_driven = True
        self._announce()

    # On a shared port: net.shared.Sharer

    def _join_udp(self, shared: SharedPort) -> None:
        fold = self._sink.fold
        assert isinstance(fold, _receiver.Fold)
        self._inlet = shared.join_udp(self, fold)
        self.receive_buffer_bytes = shared.receive_buffer_bytes
        self._sink.is_driven = True
        self._announce()

    @property
    def ssrc(self) -> int | None:
        return self._ssrc

    def expects(self, host: str) -> bool:
        return self._lock.is_expected(host)

    def adopt(self, datagram: bytes, address: Address, now: float) -> None:
        self._on_rtp(datagram, address, now)
        self._follow_lock()
        self._sink.take(now)

    def look(self) -> None:
        self._learn()

    def protocol(self) -> asyncio.Protocol:
        return _Connection(self)

    def _announce(self) -> None:
        """Tell the thread what the camera is known by."""
        if self._inlet is not None:
            self._inlet.expect([host for host in self._lock.expected_hosts if _is_numeric(host)], self._lock.ssrc)

    def on_received(self) -> None:
        """net.receive.Listener."""
        inlet = self._inlet
        if inlet is not None and inlet.news != self._looked:
            self._looked = inlet.news  # what comes from here on is news for the next time
            strangers = inlet.strangers()
            self._learn()  # after them: else what the camera sent meanwhile is missing, and it looks silent beside them
            for datagram, address, at in strangers:
                self._on_rtp(datagram, address, at)
            self._follow_lock()
        self._sink.take(asyncio.get_running_loop().time())

    def _follow_lock(self) -> None:
        if self._inlet is not None and self._lock.address is not None and self._inlet.source != self._lock.address:
            self._inlet.follow(*self._lock.address)

    def _learn(self) -> None:
        """Take over what the thread saw: the source it follows, and what it turned away."""
        inlet = self._inlet
        if inlet is None or (news := inlet.news) == self._told[0]:
            return
        source = inlet.source
        if source is not None:
            self._lock.follow(source, *inlet.heard)
        before, self._told = self._told, (news, inlet.malformed, inlet.refused[0], inlet.flood)
        malformed, refused, flood = (after - since for after, since in zip(self._told[1:], before[1:], strict=True))
        if refused:
            self._wrong_source += refused
            self._refused_from = inlet.refused[1]
            self.tally.add("rtp.wrong_source", refused, detail=self._refused_from[0] if self._refused_from else "")
            if self._shared is not None and self._refused_from is not None:
                self._shared.refused(self._refused_from, asyncio.get_running_loop().time())
        self._malformed += malformed
        self.tally.add("net.malformed", malformed)
        self.tally.add("net.flood", flood)

    # UDP

    def _on_rtp(self, datagram: bytes, address: Address, now: float) -> None:
        if len(datagram) >= 2 and 200 <= datagram[1] <= 204:
            self._take_rtcp(datagram, address, True, now)
            return
        if len(datagram) < 12 or datagram[0] >> 6 != 2:
            self._malformed += 1
            self.tally.add("net.malformed", now=now)
            return
        before = self._lock.address
        packets = self._lock.push(datagram, address, now)
        if packets and address != before:
            self._rtcp_to = None
            if before is not None:
                self.tally.add("rtp.source_change", now=now)
        for packet in packets:
            self._sink.push_rtp(packet, now)

    def _on_rtcp(self, datagram: bytes, address: Address, now: float) -> None:
        self._take_rtcp(datagram, address, False, now)

    def _take_rtcp(self, datagram: bytes, address: Address, muxed: bool, now: float) -> None:
        """Only from the host that sends the media: a BYE of a stranger ends nothing."""
        source = self._lock.address
        if source is None:
            self.tally.add("net.early_rtcp", now=now)
        elif address[0] != source[0]:
            self._refuse(address, now)
        elif _rtp.is_rtcp(datagram):
            self._rtcp_to = (address, muxed)
            self._sink.push_rtcp(datagram, now)

    def _refuse(self, address: Address, now: float) -> None:
        self._wrong_source += 1
        self._refused_from = address
        self.tally.add("rtp.wrong_source", detail=address[0], now=now)
        if self._shared is not None:
            self._shared.refused(address, now)

    # RTCP out

    def _report(self) -> None:
        loop = asyncio.get_running_loop()
        self._reporter = loop.call_later(limits.RTCP_INTERVAL_SECONDS, self._report)
        self.send_report(loop.time())

    def send_report(self, now: float) -> None:
        """Send a receiver report now, if there is anything to report and anybody to report to."""
        source = self._lock.address
        if self._connection is None and source is None:
            return
        report = self._sink.receiver_report(now)
        if not report:
            return
        if self._connection is not None:
            self._connection.send(report)
        elif source is not None:
            address, muxed = self._rtcp_to or ((source[0], source[1] + 1), False)
            datagrams = self._rtp if muxed else self._rtcp_socket
            if address[1] > 65_535:
                return
            if self._shared is not None:
                with suppress(OSError):
                    self._shared.sendto(report, address)
            elif muxed and self._socket is not None:
                with suppress(OSError):  # a full buffer; the next report follows
                    self._socket.sendto(report, address)
            elif datagrams is not None and datagrams.transport is not None:
                datagrams.transport.sendto(report, address)

    # TCP

    def _on_connected(self, connection: "_Connection") -> bool:
        """A connection came about; False: it is not wanted."""
        now = asyncio.get_running_loop().time()
        current = self._connection
        if self._closed:
            return False
        if current is not None:
            silent = now - current.active_at >= limits.MEDIA_STALLED_SECONDS
            stranger = not self._lock.is_expected(current.peer[0]) and self._lock.is_expected(connection.peer[0])
            if not silent and not stranger:
                self._wrong_source += 1
                self._refused_from = connection.peer
                self.tally.add("net.tcp_refused", detail=connection.peer[0], now=now)
                return False
            self.tally.add("net.tcp_replaced", now=now)
            current.abort()
        self._connection = connection
        self._connections += 1
        self._sink.is_driven = False
        self._head = b""
        self._error = ""
        connection.framer = _rtp.Framer(self._ssrc, max_bytes=limits.FRAMER_BYTES)
        return True

    def _on_bytes(self, connection: "_Connection", data: bytes, now: float) -> None:
        if connection is not self._connection:
            return
        if len(self._head) < 16:
            self._head += data[: 16 - len(self._head)]
        packets = connection.framer.push(data)
        self.tally.absorb(connection.framer.counts, connection.seen)
        self._garbage += connection.framer.counts["rtp.framer_garbage"] - connection.garbage
        connection.garbage = connection.framer.counts["rtp.framer_garbage"]
        if packets:
            self._frames += len(packets)
            connection.active_at = now
        for packet in packets:
            if _rtp.is_rtcp(packet):
                self._sink.push_rtcp(packet, now)
            else:
                self._sink.push_rtp(packet, now)

    def _on_lost(self, connection: "_Connection", error: Exception | None) -> None:
        if connection is self._connection:
            self._connection = None
            self._error = f"the connection broke: {error}" if error is not None else "the camera closed the connection"

    async def _connect(self, targets: Sequence[Address]) -> None:
        """TCP active: connect, and again when the connection is lost, at least a second apart."""
        loop = asyncio.get_running_loop()
        failures = 0
        while failures < limits.MEDIA_CONNECT_ATTEMPTS:
            frames = self._frames
            for target in targets:
                self._target = target
                try:
                    async with asyncio.timeout(limits.MEDIA_CONNECT_SECONDS):
                        _, connection = await loop.create_connection(lambda: _Connection(self), *target)
                except (OSError, TimeoutError) as error:
                    self._error = f"cannot connect to {target[0]}:{target[1]}: {_reason(error)}"
                    self.tally.add("net.tcp_connect_failed", detail=self._error, now=loop.time())
                    continue
                await connection.lost.wait()
                break
            failures = failures + 1 if self._frames == frames else 1
            if failures < limits.MEDIA_CONNECT_ATTEMPTS:
                await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS)) - 1])


def _is_numeric(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__


def _plain_socket(transport: asyncio.BaseTransport) -> socket.socket:
    """A socket object of our own on the transport's socket; it lives on when the transport is closed."""
    return socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, take: Callable[[bytes, Address, float], None]) -> None:
        self._take = take
        self._time = asyncio.get_running_loop().time
        self.transport: asyncio.DatagramTransport | None = None
        self.lost = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._take(data, (addr[0], addr[1]), self._time())

    def error_received(self, exc: Exception) -> None:
        """ICMP for a report we sent; the camera need not listen for reports."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.lost.set()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class _Connection(asyncio.Protocol):
    """One TCP connection of an endpoint."""

    def __init__(self, endpoint: MediaEndpoint) -> None:
        self._endpoint = endpoint
        self._time = asyncio.get_running_loop().time
        self._transport: asyncio.Transport | None = None
        self.framer = _rtp.Framer()
        self.seen: dict[str, int] = {}
        self.garbage = 0
        self.peer: Address = ("", 0)
        self.active_at = self._time()
        self.lost = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        peer = transport.get_extra_info("peername") or ("", 0)
        self.peer = (peer[0], peer[1])
        if not self._endpoint._on_connected(self):
            transport.abort()

    def data_received(self, data: bytes) -> None:
        self._endpoint._on_bytes(self, bytes(data), self._time())

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._endpoint._on_lost(self, exc)
        self.lost.set()

    def send(self, packet: bytes) -> None:
        """Send one framed packet, unless the peer does not read."""
        if (
            self._transport is not None
            and self._transport.get_write_buffer_size() == 0
            and len(packet) <= limits.RTP_FRAME_BYTES
        ):
            self._transport.write(len(packet).to_bytes(2, "big") + packet)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        else:
            self.lost.set()
