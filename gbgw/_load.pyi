"""Load generator core: cameras that send and viewers that swallow, each in a thread without the GIL."""

from collections.abc import Iterable
from typing import Any, final

def now() -> float:
    """CLOCK_MONOTONIC in seconds, the clock of every time in here."""

@final
class Content:
    """One round of a program stream, cut into RTP packets once and shared by every camera.

    pieces: (at, timestamp, data, is_key, scr, pts, pts_at, dts, dts_at), one for each pack, in order of `at`. Times are
    90 kHz ticks of round 0; -1 is none. The SCR stands 4 bytes into the pack, PTS and DTS at pts_at and dts_at; all of
    them lie in the first packet and are written anew for each later round. duration: ticks of one round.
    """

    def __new__(
        cls,
        pieces: Iterable[tuple[int, int, bytes, bool, int, int, int, int, int]],
        duration: int,
        *,
        max_payload: int = 1400,
        payload_type: int = 96,
    ) -> Content: ...
    @property
    def count(self) -> int:
        """Pieces of one round."""

    @property
    def duration(self) -> int: ...
    @property
    def packets(self) -> int:
        """Packets of one round."""

    @property
    def size(self) -> int:
        """Bytes of one round, RTP headers not counted."""

    @property
    def max_payload(self) -> int: ...
    def packet(self, index: int, *, round: int = 0, number: int = 0, ssrc: int = 0) -> bytes:
        """Return the RTP packet that a lane sends as `index`-th of a round."""

    def __len__(self) -> int: ...

@final
class Source:
    """Sends Content on many sockets from the one thread that calls `run`.

    slot_seconds: how often it looks what is due. line_bits: bits per second of one camera's Ethernet port, which spaces
    its packets; 0 sends a whole picture at once.
    """

    def __new__(
        cls, content: Content, *, capacity: int = ..., slot_seconds: float = 0.001, line_bits: float = 100e6
    ) -> Source: ...
    @property
    def capacity(self) -> int: ...
    def run(self) -> None:
        """Send until `stop`; releases the GIL."""

    def stop(self) -> None: ...
    def open(
        self,
        fd: int,
        ssrc: int,
        *,
        number: int = 0,
        start: float = 0.0,
        position: float = 0.0,
        tcp: bool = False,
        segments: bool = False,
    ) -> int:
        """Begin to send on a connected socket, which stays the caller's; return the lane's number.

        start: when (`now`), 0 for at once. position: where in the round, 0..1. tcp: framed by RFC 4571, and dropped
        where the receiver does not keep up. segments: let the kernel cut large datagrams (UDP_SEGMENT), cheaper for
        both sides than what cameras do. OverflowError when every lane is taken.
        """

    def close(self, number: int) -> None: ...
    def figures(self, number: int) -> dict[str, Any]:
        """packets, bytes (RTP headers included), unsent, refused, pieces; first_at, key_at: of the first packet and of
        the last packet of the first key frame; error: errno of the last failure."""

    def worst_lateness(self) -> tuple[float, int, int]:
        """(seconds that the worst slot since the last question came late, slots so far, late ones of them)."""

@final
class Drain:
    """Empties HTTP connections from the one thread that calls `run`.

    tick_seconds: the pause after a turn, so that the next takes more at once; 0 for exact times.
    """

    def __new__(cls, *, capacity: int = ..., tick_seconds: float = 0.005) -> Drain: ...
    @property
    def capacity(self) -> int: ...
    @property
    def news_fd(self) -> int:
        """Readable when a viewer got its first key frame or ended; `heard` makes it quiet again."""

    def heard(self) -> None: ...
    def run(self) -> None: ...
    def stop(self) -> None: ...
    def open(self, fd: int, *, whole: bool = False) -> int:
        """Read from a connection on which the request was sent. whole: follow every FLV tag, not only up to the first
        key frame; what follows it is thrown away unread otherwise. OverflowError when every place is taken."""

    def close(self, number: int) -> None: ...
    def figures(self, number: int) -> dict[str, Any]:
        """status; bytes of the body; tags, pictures, keys as far as they were read; asked_at, head_at, key_at,
        ended_at: when it was opened, the HTTP head was there, the first key frame was whole, it ended."""

@final
class Ears:
    """Counts SRTP datagrams by SSRC and sequence number from the one thread that calls `run`, without decrypting."""

    def __new__(cls, *, capacity: int = ..., tick_seconds: float = 0.005) -> Ears: ...
    @property
    def capacity(self) -> int: ...
    @property
    def news_fd(self) -> int:
        """Readable when a datagram that is no RTP waits in `take`; `heard` makes it quiet again."""

    def heard(self) -> None: ...
    def run(self) -> None: ...
    def stop(self) -> None: ...
    def open(self, fd: int) -> int: ...
    def close(self, number: int) -> None: ...
    def waiting(self) -> list[int]:
        """Numbers of those for whom `take` has something."""

    def take(self, number: int) -> list[bytes]:
        """STUN, DTLS and RTCP datagrams, oldest first."""

    def figures(self, number: int) -> dict[str, Any]:
        """packets, bytes; others: that had no place; first_at, picture_at: first packet, first marker; flows: each
        with ssrc, packets, lost, markers, highest (extended sequence number), longest_gap (seconds between markers)."""

    def forget_gaps(self, number: int) -> None:
        """Count `longest_gap` anew."""
