"""Pure-Python twin of gbgw._rtp, oracle and benchmark baseline, from RFC 3550 and RFC 4571 by whole-input algorithms.

The jitter buffer keeps a dict and a set and sorts; the framer decodes everything it ever got, anew at each push.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

MAX_JUMP = 1000
RTCP_TYPES = range(200, 205)


@dataclass(frozen=True)
class RtpPacket:
    payload_type: int
    marker: bool
    sequence_number: int
    extended_sequence_number: int
    timestamp: int
    ssrc: int
    payload: bytes
    lost_before: int = 0


@dataclass(frozen=True)
class SenderReport:
    ssrc: int
    ntp: int
    timestamp: int
    packet_count: int
    octet_count: int


@dataclass(frozen=True)
class Goodbye:
    ssrc: int


def is_rtcp(datagram: bytes) -> bool:
    return len(datagram) >= 2 and datagram[0] >> 6 == 2 and datagram[1] in RTCP_TYPES


def parse(datagram: bytes) -> RtpPacket | None:
    if len(datagram) < 12 or datagram[0] >> 6 != 2 or is_rtcp(datagram):
        return None
    first, second, number, timestamp, ssrc = struct.unpack_from("!BBHII", datagram)
    body = datagram[12:]
    csrc = 4 * (first % 16)
    if len(body) < csrc:
        return None
    body = body[csrc:]
    if first & 0x10:
        if len(body) < 4:
            return None
        words = int.from_bytes(body[2:4], "big")
        if len(body) < 4 + 4 * words:
            return None
        body = body[4 + 4 * words :]
    if first & 0x20:
        if not body or not 1 <= body[-1] <= len(body):
            return None
        body = body[: len(body) - body[-1]]
    return RtpPacket(second % 128, second >= 128, number, number, timestamp, ssrc, body)


def parse_rtcp(datagram: bytes) -> Sequence[SenderReport | Goodbye]:
    found: list[SenderReport | Goodbye] = []
    rest = datagram
    while rest:
        if len(rest) < 4 or rest[0] >> 6 != 2:
            return ()
        size = 4 + 4 * int.from_bytes(rest[2:4], "big")
        if size > len(rest):
            return ()
        packet, rest = rest[:size], rest[size:]
        if packet[1] == 200:
            if size < 28:
                return ()
            found.append(SenderReport(*struct.unpack("!IQIII", packet[4:28])))
        elif packet[1] == 203:
            count = packet[0] % 32
            if size < 4 + 4 * count:
                return ()
            found.extend(Goodbye(*one) for one in struct.iter_unpack("!I", packet[4 : 4 + 4 * count]))
    return found


class JitterBuffer:
    def __init__(
        self,
        ssrc: int | None = None,
        mode: Literal["latch", "adopt", "strict"] = "adopt",
        *,
        max_packets: int = 512,
        max_seconds: float = 0.2,
        max_bytes: int = 4194304,
        clock_hz: int = 90000,
    ) -> None:
        self.expected = ssrc
        self.mode = mode
        self.window = max_packets
        self.max_seconds = max_seconds
        self.max_bytes = max_bytes
        self.clock_hz = clock_hz
        self.ssrc: int | None = None
        self.base = self.last_released = 0
        self.counts = {
            f"rtp.{name}": 0
            for name in (
                *("received", "bytes", "lost", "late", "duplicate", "reordered"),
                *("malformed", "wrong_ssrc", "ssrc_change", "restart", "stray"),
            )
        }
        self.held: dict[int, tuple[RtpPacket, float]] = {}
        self.seen: set[int] = set()
        self.rivals: list[tuple[RtpPacket, int, float]] = []
        self.past: tuple[int, int, float] | None = None
        self.out: list[RtpPacket] = []
        self.heard = 0.0

    def _count(self, name: str, by: int = 1) -> None:
        self.counts[f"rtp.{name}"] += by

    def push(self, datagram: bytes, now: float) -> Sequence[RtpPacket]:
        self._expire(now)
        packet = parse(datagram)
        if packet is None:
            self._count("malformed")
        elif self.ssrc is None and self.mode == "strict" and packet.ssrc != self.expected:
            self._count("wrong_ssrc")
        else:
            if self.ssrc is None:
                self.ssrc = packet.ssrc
                self._start(packet.sequence_number, packet.timestamp)
                self.fresh = False
            self._sort_out(packet, len(datagram), now)
        self._expire(now)
        return self._taken()

    def _sort_out(self, packet: RtpPacket, size: int, now: float) -> None:
        if packet.ssrc != self.ssrc:
            if self.mode != "adopt" or self._is_other(packet, now):
                self._count("wrong_ssrc")
            else:
                self._suspect(packet, size, now, 2 if now - self.heard >= 3.0 else 8)
            return
        self._count("received")
        self._count("bytes", size)
        # of all numbers congruent to this one, the nearest to the highest seen
        around = self.highest - self.highest % 65536 + packet.sequence_number
        number = min((around - 65536, around, around + 65536), key=lambda n: (abs(n - self.highest), n))
        if abs(number - self.highest) > MAX_JUMP and self._is_past(packet, now):
            self._count("stray")
            return
        if abs(number - self.highest) > MAX_JUMP:
            self._suspect(packet, size, now, 2 if packet.timestamp != self.highest_timestamp else 8)
            return
        self._forget_rivals()
        self.heard = now
        self._place(packet, number, now)

    def _is_past(self, packet: RtpPacket, now: float) -> bool:
        if self.past is None or self.past[0] != packet.ssrc or now - self.past[2] >= 3.0:
            return False
        return (self.past[1] - packet.sequence_number) % 65536 <= MAX_JUMP

    def _is_other(self, packet: RtpPacket, now: float) -> bool:
        quiet = now - self.heard
        if self.expected is not None and self.expected == packet.ssrc:
            return False
        if self.expected is not None and self.expected == self.ssrc and quiet < 0.2:
            return True
        return self.past is not None and self.past[0] == packet.ssrc and quiet < 3.0

    def _start(self, number: int, timestamp: int) -> None:
        self.base = self.first = self.highest = number
        self.last_released = number - 1
        self.highest_timestamp = timestamp
        self.got = self.expected_prior = self.received_prior = 0
        self.transit: int | None = None
        self.jitter = 0.0
        self.report: tuple[int, float] | None = None
        self.fresh = True

    def _suspect(self, packet: RtpPacket, size: int, now: float, needed: int) -> None:
        if self.rivals:
            last = self.rivals[-1][0]
            if (last.ssrc, (last.sequence_number + 1) % 65536) != (packet.ssrc, packet.sequence_number):
                self._forget_rivals()
        self.rivals.append((packet, size, now))
        if len(self.rivals) < needed:
            return
        group, self.rivals = self.rivals, []
        self._release(sorted(self.held))
        assert self.ssrc is not None
        self.past = (self.ssrc, self.highest % 65536, now)
        if packet.ssrc == self.ssrc:
            self._count("restart")
        else:
            self._count("ssrc_change")
            self._count("received", len(group))
            self._count("bytes", sum(size for _, size, _ in group))
            self.ssrc = packet.ssrc
        number = (self.highest // 65536 + 1) * 65536 + group[0][0].sequence_number
        self._start(number, packet.timestamp)
        for offset, (one, _, arrived) in enumerate(group):
            self.heard = arrived
            self._place(one, number + offset, arrived)

    def _forget_rivals(self) -> None:
        for packet, _, _ in self.rivals:
            self._count("stray" if packet.ssrc == self.ssrc else "wrong_ssrc")
        self.rivals = []

    def _place(self, packet: RtpPacket, number: int, now: float) -> None:
        self.got += 1
        transit = (int(now * self.clock_hz) - packet.timestamp) % 2**32
        if self.transit is not None:
            delta = (transit - self.transit) % 2**32
            self.jitter += (min(delta, 2**32 - delta) - self.jitter) / 16
        self.transit = transit
        behind = number < self.highest
        if not behind:
            self.highest, self.highest_timestamp = number, packet.timestamp
        if number in self.seen and number >= self.base - self.window:
            self._count("duplicate")
            return
        self.seen.add(number)
        if number < self.base:
            self._count("late")
            return
        if behind:
            self._count("reordered")
        start = number - self.window + 1
        if start > self.base:
            self._release([n for n in sorted(self.held) if n < start])
            self.base = max(self.base, start)
        self.held[number] = (replace(packet, extended_sequence_number=number), now)
        self._release([])
        while sum(len(one.payload) for one, _ in self.held.values()) > self.max_bytes:
            self._release([min(self.held)])
        self.seen = {n for n in self.seen if n >= self.base - self.window}

    def _release(self, numbers: list[int]) -> None:
        """Release these, and then whatever follows without a hole."""
        for number in numbers:
            if number in self.held:
                self._release_one(number)
        while self.base in self.held:
            self._release_one(self.base)

    def _release_one(self, number: int) -> None:
        packet, _ = self.held.pop(number)
        lost = number - self.last_released - 1
        self._count("lost", lost)
        self.out.append(replace(packet, lost_before=lost + self.fresh))
        self.fresh = False
        self.last_released = number
        self.base = number + 1

    def _expire(self, now: float) -> None:
        old = [number for number, (_, arrived) in self.held.items() if arrived + self.max_seconds <= now]
        if old:
            self._release([number for number in sorted(self.held) if number <= max(old)])

    def _taken(self) -> Sequence[RtpPacket]:
        out, self.out = self.out, []
        return out

    def poll(self, now: float) -> Sequence[RtpPacket]:
        self._expire(now)
        return self._taken()

    def flush(self) -> Sequence[RtpPacket]:
        self._forget_rivals()
        self._release(sorted(self.held))
        return self._taken()

    @property
    def deadline(self) -> float | None:
        return min(arrived for _, arrived in self.held.values()) + self.max_seconds if self.held else None

    @property
    def depth(self) -> int:
        return len(self.held)

    @property
    def buffered(self) -> int:
        return sum(len(packet.payload) for packet, _ in self.held.values())

    @property
    def jitter_seconds(self) -> float:
        return self.jitter / self.clock_hz if self.ssrc is not None else 0.0

    def sender_report(self, report: SenderReport, now: float) -> None:
        if report.ssrc == self.ssrc:
            self.report = (report.ntp // 65536 % 2**32, now)

    def receiver_report(self, reporter_ssrc: int, now: float) -> bytes:
        if self.ssrc is None:
            return b""
        expected = self.highest - self.first + 1
        interval = expected - self.expected_prior
        missing = interval - (self.got - self.received_prior)
        self.expected_prior, self.received_prior = expected, self.got
        fraction = min(255, 256 * missing // interval) if interval > 0 and missing > 0 else 0
        lost = max(-(2**23), min(2**23 - 1, expected - self.got)) % 2**24
        ntp, delay = 0, 0
        if self.report is not None:
            ntp, delay = self.report[0], max(0, min(2**32 - 1, int((now - self.report[1]) * 65536)))
        report = b"\x81\xc9\x00\x07" + reporter_ssrc.to_bytes(4, "big") + self.ssrc.to_bytes(4, "big")
        report += bytes([fraction]) + lost.to_bytes(3, "big") + (self.highest % 2**32).to_bytes(4, "big")
        report += (int(self.jitter) % 2**32).to_bytes(4, "big") + ntp.to_bytes(4, "big") + delay.to_bytes(4, "big")
        name = b"%08x@gbgw" % reporter_ssrc
        chunk = reporter_ssrc.to_bytes(4, "big") + bytes([1, len(name)]) + name + b"\0"
        while len(chunk) % 4:
            chunk += b"\0"
        return report + b"\x81\xca" + (len(chunk) // 4).to_bytes(2, "big") + chunk


DOUBT = 4096  # bytes of a candidate of an unknown source that are waited for


class _NeedMore(Exception):
    """The bytes that decide have not come."""


class _Stream:
    """Everything received on a connection, with reads that ask for more at the end."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, at: int, count: int) -> bytes:
        if at + count > len(self.data):
            raise _NeedMore
        return self.data[at : at + count]

    def head(self, at: int, prefix: int) -> tuple[int, int, int | None] | None:
        """(packet offset, packet length, SSRC of an RTP packet or None for RTCP, with its sender in `sender`)."""
        length = int.from_bytes(self.take(at, prefix)[-2:], "big")
        start = at + prefix
        if length < 8 or self.take(start, 1)[0] >> 6 != 2:
            return None
        flags, kind = self.take(start, 2)
        if kind in RTCP_TYPES:
            if length % 4 or 4 + 4 * int.from_bytes(self.take(start, 4)[2:], "big") > length:
                return None
            self.sender = int.from_bytes(self.take(start, 8)[4:], "big")
            return start, length, None
        if length < 12 + 4 * (flags % 16):
            return None
        self.sender = int.from_bytes(self.take(start, 12)[8:], "big")
        return start, length, self.sender

    def forms(self, at: int) -> Sequence[int]:
        return (2, 4) if self.take(at, 1) == b"$" else (2,)

    def confirmed(self, end: int, good: set[int]) -> bool:
        for prefix in (2, 4):
            if prefix == 4 and self.take(end, 1) != b"$":
                return False
            if self.head(end, prefix) is not None and self.sender in good:
                return True
        return False

    def starts_pack(self, start: int, length: int) -> bool:
        flags = self.take(start, 1)[0]
        header = 12 + 4 * (flags % 16)
        if flags & 0x10 or length < header + 4:
            return False
        return self.take(start + header, 4) in (b"\0\0\1\xba", b"\0\0\1\xbb")

    def packet(self, at: int, synced: bool, known: int | None) -> tuple[int, int, int | None] | None:
        for prefix in self.forms(at):
            found = self.head(at, prefix)
            if found is None:
                continue
            start, length, ssrc = found
            sender = self.sender
            if ssrc is None and not synced:
                continue
            if known is not None and sender == known:
                return found
            pack = ssrc is not None and self.starts_pack(start, length)
            if pack and synced:
                return found
            if not pack and length > DOUBT and (known is not None or not synced):
                continue
            if self.confirmed(start + length, {sender} if known is None else {sender, known}):
                return found
        return None


class Framer:
    def __init__(self, ssrc: int | None = None, *, max_bytes: int = 262144) -> None:
        self.ssrc = ssrc
        self.data = b""
        self.sent = 0
        self.buffered = 0
        self.counts = {"rtp.framer_garbage": 0, "rtp.framer_resync": 0, "rtp.framer_interleaved": 0}

    def push(self, data: bytes) -> Sequence[bytes]:
        self.data += data
        packets, at, garbage, resyncs, interleaved = self._decode()
        self.counts = {
            "rtp.framer_garbage": garbage,
            "rtp.framer_resync": resyncs,
            "rtp.framer_interleaved": interleaved,
        }
        self.buffered = len(self.data) - at
        fresh, self.sent = packets[self.sent :], len(packets)
        return fresh

    def _decode(self) -> tuple[list[bytes], int, int, int, int]:
        stream = _Stream(self.data)
        packets: list[bytes] = []
        at = garbage = resyncs = interleaved = 0
        known, synced = self.ssrc, True
        try:
            while True:
                if stream.take(at, 2) == b"\0\0" and synced:
                    if stream.head(at + 2, 2) is None and stream.head(at + 1, 2) is not None:
                        at += 1
                        garbage += 1
                    else:
                        at += 2
                    continue
                found = stream.packet(at, synced, known)
                if found is None:
                    garbage += not synced
                    at += not synced
                    synced = False
                    continue
                start, length, ssrc = found
                packets.append(stream.take(start, length))
                interleaved += start - at == 4
                resyncs += not synced
                synced = True
                known = known if ssrc is None else ssrc
                at = start + length
        except _NeedMore:
            return packets, at, garbage, resyncs, interleaved
