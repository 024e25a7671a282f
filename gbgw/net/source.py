"""Whose datagrams belong to the stream: the lock on a UDP source (reference 6.5, 6.7).

Anybody may send to a media port. A source is taken at once that comes from a host the camera is known by, or sends with
the SSRC it was asked to; any other one, such as a camera behind an address translator that chose its own, once nobody
better came for a while. From then on its packets always pass, whatever anybody else sends. Its port may change, as when
a translator forgets a binding, and its host to one that the camera is known by: but only once the old source is silent
and the new one goes on where it stopped. What a new one sends meanwhile is held back, so that nothing is lost.
Leaves out: forged source addresses, which UDP cannot tell from true ones.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from gbgw.base import limits

Address = tuple[str, int]

_MAX_JUMP: Final = 1_000  # sequence numbers that still continue a run (reference 6.7)


class SourceLock:
    """The present source and at most one rival.

    expected_hosts: addresses the camera is known by; ssrc: what it should send with. Where neither is told, the first
    source is taken. on_refused: called with the address of each packet that is not taken, at once or after it was held
    back.
    address, heard_at, last: the present source, when it was last heard (loop seconds) and its last packet.
    """

    __slots__ = ("_expected", "_on_refused", "_rival", "address", "heard_at", "last", "ssrc")

    def __init__(
        self, expected_hosts: Iterable[str], on_refused: Callable[[Address, float], None], *, ssrc: int | None = None
    ) -> None:
        self.address: Address | None = None
        self.heard_at = 0.0
        self.last = b""
        self.ssrc = ssrc
        self._expected = {host for host in expected_hosts if host}
        self._on_refused = on_refused
        self._rival: _Rival | None = None

    def expect(self, *hosts: str) -> None:
        """Know the camera by more addresses; empty ones are passed over."""
        self._expected.update(host for host in hosts if host)

    def is_expected(self, host: str) -> bool:
        return host in self._expected

    @property
    def expected_hosts(self) -> list[str]:
        return sorted(self._expected)

    def follow(self, address: Address, heard_at: float, last: bytes) -> None:
        """Learn from who reads the socket what he knew himself: the first source, and that the present one sends.

        last: at least the first 12 bytes of its last packet.
        """
        if self._rival is not None and heard_at > self.heard_at:
            self._forget_rival(heard_at)
        self.address = address
        self.heard_at = heard_at
        self.last = last

    def push(self, datagram: bytes, address: Address, now: float) -> Sequence[bytes]:
        """Return the packets that now belong to the stream, in the order they came: none, one, or those held back.

        datagram: RTP, its fixed header whole.
        """
        if address == self.address:
            if self._rival is not None:
                self._forget_rival(now)
            self.heard_at = now
            self.last = datagram
            return (datagram,)
        present = self.address
        if present is None:
            return self._first(datagram, address, now)
        is_expected = address[0] in self._expected
        if not is_expected and address[0] != present[0]:
            self._on_refused(address, now)
            return ()
        if now - self.heard_at >= limits.MEDIA_STALLED_SECONDS or (is_expected and present[0] not in self._expected):
            if self._rival is not None:
                self._forget_rival(now)
            return self._take((datagram,), address, now)
        return self._weigh(datagram, address, now)

    def _first(self, datagram: bytes, address: Address, now: float) -> Sequence[bytes]:
        is_told = bool(self._expected) or self.ssrc is not None
        if not is_told or address[0] in self._expected or int.from_bytes(datagram[8:12], "big") == self.ssrc:
            if self._rival is not None:
                self._forget_rival(now)
            return self._take((datagram,), address, now)
        rival = self._rival
        if rival is not None and address != rival.address:
            if now - rival.heard_at < limits.SOURCE_SILENCE_SECONDS:
                self._on_refused(address, now)
                return ()
            self._forget_rival(now)
            rival = None
        if rival is None:
            rival = self._rival = _Rival(address, now)
        for _ in range(rival.hold(datagram, now)):
            self._on_refused(address, now)
        if now - rival.begun_at < limits.SOURCE_UNKNOWN_SECONDS:
            return ()
        self._rival = None
        return self._take(tuple(rival.packets), address, now)

    def _weigh(self, datagram: bytes, address: Address, now: float) -> Sequence[bytes]:
        rival = self._rival
        if rival is not None and address != rival.address and now - rival.heard_at >= limits.SOURCE_SILENCE_SECONDS:
            self._forget_rival(now)
            rival = None
        if rival is None:
            if not _continues(datagram, self.last):
                self._on_refused(address, now)
                return ()
            rival = self._rival = _Rival(address, now)
        elif address != rival.address or not _continues(datagram, rival.packets[-1]):
            self._on_refused(address, now)
            return ()
        for _ in range(rival.hold(datagram, now)):
            self._on_refused(address, now)
        if len(rival.packets) < limits.SOURCE_PROOF_PACKETS or now - self.heard_at < limits.SOURCE_SILENCE_SECONDS:
            return ()
        self._rival = None
        return self._take(tuple(rival.packets), address, now)

    def _take(self, packets: Sequence[bytes], address: Address, now: float) -> Sequence[bytes]:
        self.address = address
        self.heard_at = now
        self.last = packets[-1]
        return packets

    def _forget_rival(self, now: float) -> None:
        rival, self._rival = self._rival, None
        if rival is not None:
            for _ in rival.packets:
                self._on_refused(rival.address, now)


class _Rival:
    """A source that may become the present one, and what it sent so far."""

    __slots__ = ("_bytes", "address", "begun_at", "heard_at", "packets")

    def __init__(self, address: Address, now: float) -> None:
        self.address = address
        self.begun_at = now
        self.heard_at = now
        self.packets: deque[bytes] = deque()
        self._bytes = 0

    def hold(self, datagram: bytes, now: float) -> int:
        """Keep a packet; return how many older ones had to go for it."""
        self.heard_at = now
        self.packets.append(datagram)
        self._bytes += len(datagram)
        gone = 0
        while len(self.packets) > 1 and (
            len(self.packets) > limits.SOURCE_HELD_PACKETS or self._bytes > limits.SOURCE_HELD_BYTES
        ):
            self._bytes -= len(self.packets.popleft())
            gone += 1
        return gone


def _continues(datagram: bytes, last: bytes) -> bool:
    ahead = (int.from_bytes(datagram[2:4], "big") - int.from_bytes(last[2:4], "big")) % 65_536
    return datagram[8:12] == last[8:12] and (ahead <= _MAX_JUMP or ahead >= 65_536 - _MAX_JUMP)
