"""One port for all streams (`media.single_port`): a UDP socket and a TCP listener (reference 6.5).

By SSRC: the camera was told one of its own in `y=`, and most send with it. By source: what comes with an SSRC that
nobody knows belongs to the one stream that still waits for its camera and expects this very source. From then on each
stream looks at the source itself, as on a port of its own (net.source). A connection belongs to the stream whose SSRC
its first frame carries, else to the one that expects its peer. Leaves out: RTCP on a port of its own; it comes on this
one.
"""

import asyncio
import socket
from collections import OrderedDict
from types import TracebackType
from typing import Any, Final, Protocol, Self

from gbgw import _receiver, _rtp
from gbgw.base import limits
from gbgw.base.errors import LocalError
from gbgw.base.tally import Tally
from gbgw.net.receive import Receiving
from gbgw.net.sockets import bind, bind_error, kernel_drops, widen
from gbgw.net.source import Address

_FRAME: Final = 2 + 12  # RFC 4571 length and a fixed RTP header


class Sharer(Protocol):
    """A stream on the shared port; net.media.MediaEndpoint is one."""

    @property
    def ssrc(self) -> int | None: ...
    @property
    def source(self) -> Address | None: ...
    @property
    def named(self) -> Address | None:
        """Where its camera's answer says that it sends from; some do not."""

    def expects(self, host: str) -> bool:
        """Its camera is known by this host."""

    def adopt(self, datagram: bytes, address: Address, now: float) -> None:
        """Take a datagram whose SSRC nobody told."""

    def look(self) -> None:
        """Take over what the receive thread saw without a word to the loop: sources it turned away."""

    def on_received(self) -> None: ...
    def protocol(self) -> asyncio.Protocol:
        """What drives one TCP connection of this stream."""


class SharedPort:
    """Owns the sockets, from `async with` to its end; streams join and leave.

    tally: counts net.unclaimed (no stream for it), net.ended_stream (its stream is over), net.tcp_unclaimed, net.flood,
    net.malformed.
    """

    def __init__(self, port: int, *, host: str = "0.0.0.0", receiving: Receiving, tally: Tally) -> None:
        self.port = port
        self.host = host
        self.tally = tally
        self.receive_buffer_bytes = 0
        self._receiving = receiving
        self._sharers: dict[int, Sharer] = {}
        self._inlets: dict[Sharer, _receiver.Inlet] = {}  # of those that receive by UDP
        self._ended: OrderedDict[int, float] = OrderedDict()  # SSRC -> loop seconds
        self._refused: OrderedDict[str, float] = OrderedDict()  # host -> loop seconds
        self._arrivals: set[_Arrival] = set()
        self._seen: dict[str, int] = {}
        self._socket: socket.socket | None = None
        self._trunk: _receiver.Trunk | None = None
        self._server: asyncio.Server | None = None

    def __len__(self) -> int:
        """Streams."""
        return len(self._sharers)

    async def __aenter__(self) -> Self:
        try:
            self._socket = bind(self.host, self.port, socket.SOCK_DGRAM)
            listener = bind(self.host, self.port, socket.SOCK_STREAM)
        except OSError as error:
            self._close_socket()
            raise bind_error(self.host, self.port, error, "check media.single_port") from error
        try:
            self._server = await asyncio.get_running_loop().create_server(lambda: _Arrival(self), sock=listener)
            self.receive_buffer_bytes = widen(self._socket, limits.SHARED_BUFFER_BYTES)
            if self.receive_buffer_bytes < limits.SHARED_BUFFER_BYTES:
                self.tally.add("net.small_receive_buffer", detail="raise net.core.rmem_max")
            self._trunk = self._receiving.open_trunk(self._socket.fileno(), self)
        except BaseException:
            listener.close()
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for arrival in tuple(self._arrivals):
            arrival.give_up()
        if self._trunk is not None:
            self.settle_counts()
            self._trunk.close()
            self._trunk = None
        self._close_socket()

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @property
    def kernel_drops(self) -> int:
        """Datagrams that the kernel dropped because nobody read them in time."""
        return (kernel_drops(self._socket) or 0) if self._socket is not None else 0

    def settle_counts(self) -> None:
        if self._trunk is not None:
            counts = {"net.malformed": self._trunk.malformed, "net.flood": self._trunk.flood}
            self.tally.absorb(counts, self._seen)

    # Streams

    def join(self, sharer: Sharer) -> None:
        """Begin to look for the connection of a stream. Raises LocalError "ssrc_conflict"."""
        ssrc = sharer.ssrc
        if ssrc is None or ssrc in self._sharers:
            raise _conflict(ssrc)
        self._sharers[ssrc] = sharer
        self._ended.pop(ssrc, None)

    def join_udp(self, sharer: Sharer, fold: _receiver.Fold) -> _receiver.Inlet:
        """Have the datagrams of a stream that has joined read into `fold`. Raises LocalError."""
        if self._trunk is None or sharer.ssrc is None:
            raise LocalError("the shared media port is closed", code="bind_failed")
        try:
            inlet = self._inlets[sharer] = self._trunk.join(fold, sharer.ssrc, sharer)
        except ValueError as error:
            raise _conflict(sharer.ssrc) from error
        except OverflowError as error:
            raise LocalError(str(error), code="ports_exhausted", remedy="let fewer cameras stream at once") from error
        return inlet

    def rename(self, sharer: Sharer, ssrc: int) -> None:
        """The camera's answer names another SSRC: look for that too. Raises LocalError "ssrc_conflict"."""
        if self._sharers.get(ssrc) is sharer:
            return
        if ssrc in self._sharers:
            raise _conflict(ssrc)
        self._sharers[ssrc] = sharer
        self._ended.pop(ssrc, None)
        if (inlet := self._inlets.get(sharer)) is not None and self._trunk is not None:
            self._trunk.route(inlet, ssrc)

    def leave(self, sharer: Sharer, now: float) -> None:
        """Forget a stream; its inlet is closed by then, and what its camera still sends is nobody's. Idempotent."""
        self._inlets.pop(sharer, None)
        for ssrc in [ssrc for ssrc, other in self._sharers.items() if other is sharer]:
            del self._sharers[ssrc]
            self._ended[ssrc] = now
            self._ended.move_to_end(ssrc)
        while self._ended and (
            len(self._ended) > limits.SHARED_ENDED
            or now - next(iter(self._ended.values())) > limits.SSRC_QUARANTINE_SECONDS
        ):
            self._ended.popitem(last=False)

    def refused(self, address: Address, now: float) -> None:
        """A stream got datagrams from a source that is not its own: of a camera with the same SSRC, perhaps."""
        self._refused[address[0]] = now
        self._refused.move_to_end(address[0])
        if len(self._refused) > limits.SHARED_REFUSED:
            self._refused.popitem(last=False)

    def was_refused(self, host: str, since: float) -> bool:
        """Did another stream turn this host away since then?"""
        for sharer in self._inlets:
            sharer.look()
        return self._refused.get(host, -1.0) >= since

    def sendto(self, data: bytes, address: Address) -> None:
        """Send from the shared port. Raises OSError."""
        if self._socket is not None:
            self._socket.sendto(data, address)

    # UDP of unknown SSRC

    def on_received(self) -> None:
        """net.receive.Listener."""
        if self._trunk is None:
            return
        for datagram, address, now in self._trunk.unknown_datagrams():
            self._claim(datagram, address, now)

    def _claim(self, datagram: bytes, address: Address, now: float) -> None:
        if _rtp.is_rtcp(datagram) or len(datagram) < 12:
            self.tally.add("net.early_rtcp", now=now)
            return
        ssrc = int.from_bytes(datagram[8:12], "big")
        known = self._sharers.get(ssrc)
        if known is not None and known in self._inlets:
            known.adopt(datagram, address, now)  # one of several that came before its way was made
            return
        ended = self._ended.get(ssrc)
        if ended is not None and now - ended <= limits.SSRC_QUARANTINE_SECONDS:
            self.tally.add("net.ended_stream", now=now)
            return
        found = self._waiting(address)
        if known is not None or len(found) != 1 or self._trunk is None:
            self.tally.add("net.unclaimed", detail=address[0], now=now)
            return
        sharer = found[0]
        self._sharers[ssrc] = sharer
        self._trunk.route(self._inlets[sharer], ssrc)
        sharer.adopt(datagram, address, now)

    def _waiting(self, address: Address) -> list[Sharer]:
        """Streams that receive by UDP, have no source yet, and expect this one: the one that named it, or all that know
        the host."""
        found = [sharer for sharer in self._inlets if sharer.source is None and sharer.expects(address[0])]
        return [sharer for sharer in found if sharer.named == address] or found

    # TCP

    def _greet(self, arrival: "_Arrival") -> bool:
        if len(self._arrivals) >= limits.SHARED_ARRIVALS:
            self.tally.add("net.tcp_unclaimed", detail=arrival.peer[0])
            return False
        self._arrivals.add(arrival)
        return True

    def _forget(self, arrival: "_Arrival") -> None:
        self._arrivals.discard(arrival)

    def _owner_of(self, head: bytes, peer: Address) -> Sharer | None:
        """The stream of a connection that begins with `head`, at least a frame's length and header."""
        is_rtcp = 200 <= head[3] <= 204
        at = 6 if is_rtcp else 10
        sharer = self._sharers.get(int.from_bytes(head[at : at + 4], "big")) if head[2] >> 6 == 2 else None
        if sharer is not None:
            return sharer
        found = {
            sharer: None
            for sharer in self._sharers.values()
            if sharer not in self._inlets and sharer.source is None and sharer.expects(peer[0])
        }
        return next(iter(found)) if len(found) == 1 else None


class _Arrival(asyncio.Protocol):
    """A connection whose stream is not known yet."""

    def __init__(self, port: SharedPort) -> None:
        self._port = port
        self._transport: Any = None
        self._head = b""
        self._timer: asyncio.TimerHandle | None = None
        self.peer: Address = ("", 0)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        peer = transport.get_extra_info("peername") or ("", 0)
        self.peer = (peer[0], peer[1])
        if not self._port._greet(self):
            transport.abort()
            return
        self._timer = asyncio.get_running_loop().call_later(limits.SHARED_ARRIVAL_SECONDS, self._too_late)

    def data_received(self, data: bytes) -> None:
        self._head += data
        if len(self._head) < _FRAME or self._transport.is_closing():
            return
        owner = self._port._owner_of(self._head, self.peer)
        if owner is None:
            self._too_late()
            return
        self._leave()
        protocol = owner.protocol()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        if not self._transport.is_closing():
            protocol.data_received(self._head)
        self._head = b""

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def give_up(self) -> None:
        self._leave()
        self._transport.abort()

    def _too_late(self) -> None:
        self._port.tally.add("net.tcp_unclaimed", detail=self.peer[0], now=asyncio.get_running_loop().time())
        self.give_up()

    def _leave(self) -> None:
        self._port._forget(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _conflict(ssrc: int | None) -> LocalError:
    return LocalError(
        f"SSRC {ssrc} belongs to another stream, and streams share one media port",
        code="ssrc_conflict",
        remedy="restart the camera, or give each stream a port of its own: media.single_port = 0",
    )
