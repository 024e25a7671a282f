"""What a viewer tells about its streams by RTCP, sans-IO: reports (RFC 3550 section 6.4), NACK and PLI (RFC 4585), FIR
(RFC 5104 section 4.3.1).

Reads compound packets that SRTCP let through; REMB, transport-wide feedback, XR and SDES pass unread. Damage ends the
reading of one datagram: what came before it counts.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from gbgw.base import limits

SR: Final = 200
RR: Final = 201
BYE: Final = 203
RTPFB: Final = 205
PSFB: Final = 206
NACK: Final = 1  # format of RTPFB
PLI: Final = 1  # formats of PSFB
FIR: Final = 4
_HEAD: Final = struct.Struct(">BBH")
_BLOCK: Final = struct.Struct(">IIIIII")  # RFC 3550 section 6.4.1
_PAIR: Final = struct.Struct(">HH")
_SENDER_INFO_BYTES: Final = 20


@dataclass(frozen=True, slots=True)
class ReceptionReport:
    """How one of our streams arrives.

    ssrc: of ours. fraction: lost since the last report, 0 to 1. lost: since the beginning; negative when duplicates
    came. jitter: in units of the stream's clock. last_report: middle 32 bits of the NTP time of our last sender report
    that came, 0 for none; delay: since it came, in 1/65536 s.
    """

    ssrc: int
    fraction: float
    lost: int
    jitter: int
    last_report: int
    delay: int


@dataclass(frozen=True, slots=True)
class Missed:
    """A generic NACK: sequence numbers that the viewer misses, oldest first as it names them."""

    ssrc: int
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PictureLost:
    """The viewer cannot decode on and wants a key frame. by: the message that says so."""

    ssrc: int
    by: Literal["pli", "fir"]


Feedback = ReceptionReport | Missed | PictureLost


class Damaged(ValueError):
    """A compound packet that does not hold what it says."""


def read(packet: bytes) -> Iterator[Feedback]:
    """Yield what a compound packet says, in its order. Raises Damaged where it is malformed; the names in one
    packet are bounded by limits.WEBRTC_NACK_NUMBERS, and what is above is left out."""
    at = 0
    room = limits.WEBRTC_NACK_NUMBERS
    while at < len(packet):
        if at + 4 > len(packet):
            raise Damaged("a header is cut")
        first, kind, words = _HEAD.unpack_from(packet, at)
        end = at + 4 + 4 * words
        if first >> 6 != 2 or end > len(packet):
            raise Damaged("not version 2" if first >> 6 != 2 else "a packet is cut")
        body = packet[at + 4 : end]
        count = first & 0x1F
        if first & 0x20 and body:  # padding, in the last packet of a compound one alone
            if body[-1] == 0 or body[-1] % 4 or body[-1] > len(body):
                raise Damaged("impossible padding")
            body = body[: -body[-1]]
        if kind in (SR, RR):
            yield from _reports(body, 4 if kind == RR else 4 + _SENDER_INFO_BYTES, count)
        elif kind == RTPFB and count == NACK:
            missed = _missed(body, room)
            room -= len(missed.numbers)
            yield missed
        elif kind == PSFB and count in (PLI, FIR):
            yield from _lost_pictures(body, count)
        at = end


def _reports(body: bytes, begin: int, count: int) -> Iterator[ReceptionReport]:
    if len(body) < begin + count * _BLOCK.size:
        raise Damaged("fewer report blocks than announced")
    for index in range(count):
        ssrc, losses, _, jitter, last_report, delay = _BLOCK.unpack_from(body, begin + index * _BLOCK.size)
        lost = losses & 0xFFFFFF
        yield ReceptionReport(
            ssrc, (losses >> 24) / 256, lost - (1 << 24) if lost & 0x800000 else lost, jitter, last_report, delay
        )


def _missed(body: bytes, room: int) -> Missed:
    if len(body) < 8:
        raise Damaged("a NACK without its sources")
    numbers: list[int] = []
    for at in range(8, len(body) - 3, 4):
        first, more = _PAIR.unpack_from(body, at)
        numbers.append(first)
        numbers += [first + bit + 1 & 0xFFFF for bit in range(16) if more >> bit & 1]
        if len(numbers) >= room:
            break
    return Missed(int.from_bytes(body[4:8], "big"), tuple(numbers[: max(room, 0)]))


def _lost_pictures(body: bytes, kind: int) -> Iterator[PictureLost]:
    if len(body) < 8:
        raise Damaged("feedback without its sources")
    if kind == PLI:
        yield PictureLost(int.from_bytes(body[4:8], "big"), "pli")
        return
    for at in range(8, len(body) - 7, 8):  # the media source of the head is 0 here; each entry names its own
        yield PictureLost(int.from_bytes(body[at : at + 4], "big"), "fir")
