"""Receive core: from the kernel's datagrams to access units, in one thread without the GIL.

Leaves out: framing of TCP (_rtp.Framer), RTCP, the choice of the source (net.source).
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal, final

from gbgw._ps import AccessUnit, ElementaryStream
from gbgw._rtp import SenderReport

FIRST_PACKET: Final[int]
PROGRAM: Final[int]
LOST: Final[int]
UNIT: Final[int]

@final
class Event:
    """Something that a Fold found."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Raises TypeError: only Fold.events() makes them."""

    @property
    def kind(self) -> int:
        """FIRST_PACKET; PROGRAM: the first pack, or another program stream map; LOST: a hole before what comes next;
        UNIT."""

    @property
    def at(self) -> float:
        """Loop seconds (CLOCK_MONOTONIC)."""

    @property
    def unit(self) -> AccessUnit | None:
        """Of a UNIT."""

    @property
    def timestamp(self) -> int | None:
        """RTP time stamp of the packet that a UNIT ended with."""

@final
class Fold:
    """One stream: JitterBuffer and Demuxer, and what of it the loop must hear. May be fed by one thread and read by
    another.

    ssrc, mode, max_packets, max_seconds, max_bytes: see _rtp.JitterBuffer. max_unit_bytes, silence_seconds: see
    _ps.Demuxer. max_waiting_bytes: of units that nobody has taken; beyond it they are dropped up to the next key
    frame, and a LOST tells.
    """

    def __new__(
        cls,
        ssrc: int | None = None,
        mode: Literal["latch", "adopt", "strict"] = "adopt",
        *,
        max_packets: int = ...,
        max_seconds: float = ...,
        max_bytes: int = ...,
        max_unit_bytes: int = ...,
        silence_seconds: float = ...,
        max_waiting_bytes: int = ...,
    ) -> Fold: ...
    def push(self, datagram: bytes, now: float) -> None:
        """Take one RTP datagram."""

    def poll(self, now: float) -> None:
        """Give up on what has waited too long."""

    def close(self, now: float) -> None:
        """Push out what is complete; nothing is taken any more. May be called again."""

    def events(self) -> Sequence[Event]:
        """Take what has happened since the last time, oldest first."""

    @property
    def deadline(self) -> float | None:
        """When poll() will find something; None: never."""

    @property
    def max_seconds(self) -> float: ...
    @max_seconds.setter
    def max_seconds(self, seconds: float, /) -> None: ...
    @property
    def ssrc(self) -> int | None:
        """The SSRC locked on."""

    @property
    def depth(self) -> int:
        """Packets held back just now."""

    @property
    def jitter_seconds(self) -> float: ...
    @property
    def last_packet_at(self) -> float | None:
        """When the last packet went on into the demultiplexer."""

    @property
    def packs(self) -> int: ...
    @property
    def maps(self) -> int: ...
    @property
    def streams(self) -> Sequence[ElementaryStream]: ...
    @property
    def heads(self) -> Sequence[tuple[int, bytes, int]]:
        """(payload type, first 16 bytes, length) of at most 64 payloads before the first pack."""

    @property
    def rtp_counts(self) -> dict[str, int]: ...
    @property
    def ps_counts(self) -> dict[str, int]: ...
    @property
    def overrun_units(self) -> int:
        """Units dropped since nobody took them."""

    @property
    def waiting_bytes(self) -> int: ...
    def sender_report(self, report: SenderReport, now: float) -> None: ...
    def receiver_report(self, reporter_ssrc: int, now: float) -> bytes: ...

@final
class Inlet:
    """A UDP socket before a Fold, read by a ReceiveThread, or a share of a Trunk. The descriptor stays its owner's."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Raises TypeError: only ReceiveThread.open() and Trunk.join() make them."""

    @property
    def owner(self) -> object: ...
    def follow(self, host: str, port: int) -> None:
        """Datagrams of this source go into the Fold from now on. ValueError or OSError for no numeric address."""

    def expect(self, hosts: Iterable[str], ssrc: int | None = None) -> None:
        """Hosts, eight at most, that the camera is known by, and its SSRC. The first source that is one of them or
        sends with it is followed at once; datagrams of these hosts are put before Python though another is followed.
        """

    @property
    def source(self) -> tuple[str, int] | None:
        """Who is followed."""

    def strangers(self) -> list[tuple[bytes, tuple[str, int], float]]:
        """Take what Python must judge: RTP of a source that is not followed but might be, and
        RTCP. (datagram, (host, port), loop
        seconds)"""

    @property
    def heard(self) -> tuple[float, bytes]:
        """When the source that is followed was last heard, and the first 12 bytes of that; 0.0, b"": never."""

    @property
    def news(self) -> int:
        """Grows with everything but datagrams of the source that is followed: worth a look at the rest."""

    @property
    def malformed(self) -> int:
        """Datagrams that are no RTP."""

    @property
    def flood(self) -> int:
        """Datagrams of strangers beyond the 64 that wait."""

    @property
    def refused(self) -> tuple[int, tuple[str, int] | None]:
        """Datagrams of hosts that have no business here, and the last such address."""

    def close(self) -> None:
        """The socket may be closed after this; what it brought can still be taken. May be called again."""

@final
class Trunk:
    """One UDP socket for many Folds, read by a ReceiveThread: the SSRC tells the stream, whose Inlet looks at the
    source. The descriptor stays its owner's.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Raises TypeError: only ReceiveThread.open_trunk() makes them."""

    @property
    def owner(self) -> object: ...
    def join(self, fold: Fold, ssrc: int, owner: object = None) -> Inlet:
        """The way of what comes with `ssrc`, RTCP included, until it is closed. ValueError when that is another
        stream's, or the trunk closed; OverflowError at capacity.
        """

    def route(self, inlet: Inlet, ssrc: int) -> None:
        """Give `inlet` what comes with this SSRC too. ValueError, OverflowError as in `join`."""

    def unknown_datagrams(self) -> list[tuple[bytes, tuple[str, int], float]]:
        """Take RTP and RTCP whose SSRC has no way, 512 or 1 MiB at most: (datagram, (host, port), loop seconds)."""

    @property
    def malformed(self) -> int:
        """Datagrams that are neither RTP nor RTCP."""

    @property
    def flood(self) -> int:
        """Datagrams of unknown SSRC beyond those that wait, or beyond 10,000 a second in the long run."""

    def __len__(self) -> int:
        """SSRCs that have a way."""

    def close(self) -> None:
        """The socket may be closed after this; the inlets close by themselves. May be called again."""

@final
class ReceiveThread:
    """Reads the sockets of all Inlets. `run` belongs to a thread of its own and returns after `stop`; the rest to the
    loop. OSError without descriptors.

    capacity: sockets at once. tick_seconds: between two turns; 0.0 reads whatever comes at once.
    """

    def __new__(cls, *, capacity: int = ..., tick_seconds: float = ...) -> ReceiveThread: ...
    def __len__(self) -> int: ...
    @property
    def event_fd(self) -> int:
        """Readable when `drain` has something."""

    def run(self) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None:
        """Give the descriptors back, once `run` has returned. May be called again."""

    def open(self, fold: Fold, fd: int, owner: object = None) -> Inlet:
        """Read this non-blocking socket. OverflowError at capacity; OSError when it cannot be watched."""

    def open_trunk(self, fd: int, owner: object = None) -> Trunk:
        """Read this non-blocking socket for many. OverflowError above four; OSError when it cannot be watched."""

    def drain(self) -> list[object]:
        """Owners of inlets with events or strangers, and of trunks with unknown datagrams."""

    @property
    def counts(self) -> dict[str, int]:
        """receive.ticks, receive.datagrams, receive.late_ticks (more than a tick late), receive.overrun_units."""

    def worst_lateness(self) -> float:
        """Seconds that the worst tick since the last question came late."""

    def worst_loop_lateness(self) -> float:
        """Seconds from the word that there is something to `drain`, at worst since the last question."""

    @property
    def busy_seconds(self) -> float:
        """Seconds that `run` was at work, neither asleep nor waiting."""

    @property
    def waiting_bytes(self) -> int:
        """Units that wait in all folds together; above limits.WAITING_BYTES they are dropped up to a key frame."""
