"""RTP and RTCP parsing, RFC 4571 framing, reordering, receiver statistics (RFC 3550; GB/T 28181-2022 Annex C and D).

Leaves out: SRTP, header extensions beyond skipping them, RTCP XR.
"""

from collections.abc import Sequence
from typing import Literal, final

@final
class RtpPacket:
    """One RTP packet, header decoded, padding and extension removed. Immutable."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Raises TypeError: only this module makes them."""

    @property
    def payload_type(self) -> int: ...
    @property
    def marker(self) -> bool: ...
    @property
    def sequence_number(self) -> int: ...
    @property
    def extended_sequence_number(self) -> int:
        """Sequence number unwrapped by the JitterBuffer; equal to sequence_number straight from parse()."""

    @property
    def timestamp(self) -> int: ...
    @property
    def ssrc(self) -> int: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def lost_before(self) -> int:
        """Packets declared lost just before this one; 1 or more after an SSRC or sequence restart. 0: no hole."""

def parse(datagram: bytes) -> RtpPacket | None:
    """Parse one RTP packet (RFC 3550 section 5.1); None when it is not one."""

def is_rtcp(datagram: bytes) -> bool:
    """True when byte 1 is an RTCP packet type 200..204 and the version is 2 (RFC 5761 section 4)."""

@final
class SenderReport:
    def __init__(self, *args: object, **kwargs: object) -> None:
        """Raises TypeError: only this module makes them."""

    @property
    def ssrc(self) -> int: ...
    @property
    def ntp(self) -> int:
        """64-bit NTP timestamp."""

    @property
    def timestamp(self) -> int: ...
    @property
    def packet_count(self) -> int: ...
    @property
    def octet_count(self) -> int: ...

@final
class Goodbye:
    def __init__(self, *args: object, **kwargs: object) -> None:
        """Raises TypeError: only this module makes them."""

    @property
    def ssrc(self) -> int: ...

def parse_rtcp(datagram: bytes) -> Sequence[SenderReport | Goodbye]:
    """Return what of a compound RTCP packet the gateway uses, oldest first; () for damage or nothing of use."""

@final
class JitterBuffer:
    """Put packets of one source back in order, bounded by packets and by time, and keep RFC 3550 A.3/A.8 statistics.

    A packet more than 1000 sequence numbers away is set aside until the next one proves that the sequence restarted
    there (8 in a row where the timestamp did not change); packets of another source are set aside the same way. None of
    them disturbs the stream before.

    ssrc: what the session expects (the `y=` value), or None.
    max_packets, max_seconds, max_bytes: how much and how long it waits for a missing packet; bytes are payload.
    clock_hz: of the RTP timestamp, for the jitter figure.
    mode: "latch" accepts the first SSRC seen, whatever was expected; "adopt" is latch, and also changes over when the
      old one was silent for 3 s (two packets in a row of the new one prove it) or a new one persisted for 8 packets in
      a row of its own sequence; "strict" accepts only `ssrc`.

    Raises ValueError for limits out of range, and for "strict" without `ssrc`.
    """

    def __new__(
        cls,
        ssrc: int | None = None,
        mode: Literal["latch", "adopt", "strict"] = "adopt",
        *,
        max_packets: int = 512,
        max_seconds: float = 0.2,
        max_bytes: int = 4194304,
        clock_hz: int = 90000,
    ) -> JitterBuffer: ...
    def push(self, datagram: bytes, now: float) -> Sequence[RtpPacket]:
        """Take one RTP datagram; return the packets now in order, oldest first. Damage is counted, never raised."""

    def poll(self, now: float) -> Sequence[RtpPacket]:
        """Give up on holes older than max_seconds and return what they held back."""

    def flush(self) -> Sequence[RtpPacket]:
        """Return everything held, in order, holes marked."""

    @property
    def max_seconds(self) -> float:
        """How long it waits for a missing packet; may be set. Raises ValueError for a negative one."""

    @max_seconds.setter
    def max_seconds(self, seconds: float, /) -> None: ...
    @property
    def deadline(self) -> float | None:
        """Loop seconds at which poll() will have something to release; None when nothing is held."""

    @property
    def ssrc(self) -> int | None:
        """The SSRC locked on, or None before the first packet."""

    @property
    def counts(self) -> dict[str, int]:
        """Counters so far.

        rtp.received rtp.bytes (whole datagrams) rtp.lost rtp.late rtp.duplicate rtp.reordered rtp.malformed
        rtp.wrong_ssrc rtp.ssrc_change rtp.restart rtp.stray (far out of sequence, confirmed by no second).
        """

    @property
    def depth(self) -> int:
        """Packets held back just now."""

    @property
    def buffered(self) -> int:
        """Payload bytes held back just now."""

    @property
    def jitter_seconds(self) -> float: ...
    def sender_report(self, report: SenderReport, now: float) -> None:
        """Note a sender report, for LSR and DLSR of the next receiver report."""

    def receiver_report(self, reporter_ssrc: int, now: float) -> bytes:
        """Return an RR with one block and an SDES CNAME (RFC 3550 sections 6.4.2, 6.5); b"" before the first packet."""

@final
class Framer:
    """RFC 4571 framing over TCP, with `$` interleaving (RFC 2326 section 10.12) and resynchronisation after garbage.

    In step, a frame is taken at once when it is of the SSRC known or learned, or its payload begins a pack; any other,
    and every frame after garbage, waits until the head of the next frame confirms it. Any cut of the bytes gives the
    same packets; time is linear in the bytes.

    ssrc: what the session expects, or None; another is learned from the stream.
    max_bytes: at least 131072 (ValueError), so that two frames of the largest size fit.
    """

    def __init__(self, ssrc: int | None = None, *, max_bytes: int = 262144) -> None: ...
    def push(self, data: bytes) -> Sequence[bytes]:
        """Take any slice of the byte stream; return whole RTP or RTCP packets, oldest first."""

    @property
    def counts(self) -> dict[str, int]:
        """rtp.framer_garbage (bytes skipped), rtp.framer_resync, rtp.framer_interleaved."""

    @property
    def buffered(self) -> int: ...
