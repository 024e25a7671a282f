"""WebRTC sender core: payloads that all viewers share, and one viewer's way to the kernel."""

from collections.abc import Iterable, Iterator
from typing import final

MAX_BATCH: int
MAX_PAYLOAD_BYTES: int

@final
class Payloads:
    """The RTP payloads of one unit, in one piece of memory. ValueError for one above MAX_PAYLOAD_BYTES."""

    def __new__(cls, payloads: Iterable[bytes]) -> Payloads: ...
    @property
    def count(self) -> int: ...
    @property
    def size(self) -> int:
        """Bytes of all payloads together."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> bytes: ...
    def __iter__(self) -> Iterator[bytes]: ...

@final
class Batch:
    """Memory for MAX_BATCH packets on their way out; the Senders of one event loop share one. Not for several threads.

    segments: let the kernel cut large datagrams (UDP_SEGMENT, Linux 4.18); goes False by itself where it cannot.
    """

    def __new__(cls, *, segments: bool = True) -> Batch: ...
    @property
    def segments(self) -> bool: ...

@final
class Sender:
    """One RTP stream to one viewer.

    sequence_number: of the first packet. timestamp_origin: added to every time stamp. protect: address of libsrtp's
    srtp_protect. session: its srtp_t. owner: kept alive, since the session belongs to it. extension: the whole header
    extension (RFC 8285), a multiple of 4 bytes, 64 at most. send_time_at: where in it the 24-bit abs-send-time is
    patched; -1: nowhere.
    """

    def __new__(
        cls,
        batch: Batch,
        *,
        ssrc: int,
        payload_type: int,
        sequence_number: int,
        timestamp_origin: int,
        protect: int,
        session: int,
        owner: object = None,
        extension: bytes = b"",
        send_time_at: int = -1,
    ) -> Sender: ...
    @property
    def ssrc(self) -> int: ...
    @property
    def payload_type(self) -> int: ...
    @property
    def sequence_number(self) -> int:
        """Of the next packet."""

    @property
    def timestamp(self) -> int:
        """Of the last packet, as sent."""

    @property
    def packets(self) -> int: ...
    @property
    def octets(self) -> int:
        """Payload bytes sent, as a sender report counts them (RFC 3550 section 6.4.1)."""

    @property
    def unsent(self) -> int:
        """Packets that the kernel did not take; the viewer asks for them again."""

    @property
    def error(self) -> int:
        """errno of the last `send`, 0 when all was taken."""

    def aim(self, fd: int, address: bytes) -> None:
        """Send to a struct sockaddr_in or sockaddr_in6 by a socket that belongs to the caller."""

    def send(self, payloads: Payloads, timestamp: int, begin: int, end: int, send_time: int = 0) -> int:
        """Send payloads[begin:end], at most MAX_BATCH; return how many the kernel took. The last payload of all has the
        marker. A unit is sent from 0 to its end before the next begins. Raises OSError when libsrtp refuses.
        """

    def find(self, number: int) -> tuple[Payloads, int, int] | None:
        """What was sent with this sequence number: (payloads, index, time stamp as sent); None: forgotten."""

    def resend(
        self, payloads: Payloads, index: int, timestamp: int, number: int, send_time: int = 0, *, repair: bool = False
    ) -> bool:
        """Send one payload again, with its old time stamp and sequence number, or, as `repair`, in this
        Sender's own sequence with the old number in front (RFC 4588 section 4)."""

def protected(protect: int, session: int, packet: bytes) -> bytes:
    """The packet as libsrtp at this address protects it; the self-test of the addresses."""
