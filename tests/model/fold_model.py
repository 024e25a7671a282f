"""_receiver.Fold in Python: the same events, from a JitterBuffer and any demultiplexer; no bound on what waits."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from gbgw import _receiver, _rtp
from gbgw._ps import AccessUnit
from gbgw.base import limits


class Event(NamedTuple):
    kind: int
    at: float
    unit: AccessUnit | None = None
    timestamp: int | None = None


@dataclass
class Fold:
    """demuxer: anything with the methods of _ps.Demuxer."""

    demuxer: Any
    ssrc_wanted: int | None = None
    mode: Literal["latch", "adopt", "strict"] = "adopt"
    patience: float = limits.REORDER_SECONDS
    last_packet_at: float | None = None
    overrun_units: int = 0
    heads: list[tuple[int, bytes, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.jitter = _rtp.JitterBuffer(self.ssrc_wanted, self.mode, max_seconds=self.patience)
        self._events: list[Event] = []
        self._timestamp: int | None = None
        self._packs = self._maps = 0
        self._closed = False

    def push(self, datagram: bytes, now: float) -> None:
        if not self._closed:
            self._pass_on(self.jitter.push(datagram, now), now)

    def poll(self, now: float) -> None:
        if not self._closed:
            self._pass_on(self.jitter.poll(now), now)
            if self.jitter.depth == 0:
                self._note(self.demuxer.poll(now), now, self._timestamp)

    def close(self, now: float) -> None:
        if not self._closed:
            self._pass_on(self.jitter.flush(), now)
            self._note(self.demuxer.flush(), now, self._timestamp)
            self._closed = True

    def events(self) -> Sequence[Event]:
        found, self._events = self._events, []
        return found

    def _pass_on(self, packets: Iterable[_rtp.RtpPacket], now: float) -> None:
        for packet in packets:
            if self.last_packet_at is None:
                self._events.append(Event(_receiver.FIRST_PACKET, now))
            self.last_packet_at = now
            if not self.demuxer.packs and len(self.heads) < 64 and packet.payload:
                self.heads.append((packet.payload_type, packet.payload[:16], len(packet.payload)))
            before, self._timestamp = self._timestamp, packet.timestamp
            if packet.lost_before:
                self.demuxer.gap()
                self._events.append(Event(_receiver.LOST, now))
            units = self.demuxer.push(packet.payload, now)
            begins = self._packs == 0 and self.demuxer.packs > 0
            if begins:
                self.heads.clear()
            if begins or self.demuxer.maps != self._maps:
                self._events.append(Event(_receiver.PROGRAM, now))
            self._packs, self._maps = self.demuxer.packs, self.demuxer.maps
            self._note(units, now, packet.timestamp if before is None else before)
            if packet.marker:
                self._note(self.demuxer.mark(now), now, packet.timestamp)

    def _note(self, units: Iterable[AccessUnit], now: float, timestamp: int | None) -> None:
        self._events += [Event(_receiver.UNIT, now, unit, timestamp) for unit in units]

    @property
    def deadline(self) -> float | None:
        return self.jitter.deadline if self.jitter.depth else self.demuxer.deadline

    @property
    def max_seconds(self) -> float:
        return self.jitter.max_seconds

    @max_seconds.setter
    def max_seconds(self, seconds: float) -> None:
        self.jitter.max_seconds = seconds

    @property
    def ssrc(self) -> int | None:
        return self.jitter.ssrc

    @property
    def depth(self) -> int:
        return self.jitter.depth

    @property
    def jitter_seconds(self) -> float:
        return self.jitter.jitter_seconds

    @property
    def packs(self) -> int:
        return int(self.demuxer.packs)

    @property
    def maps(self) -> int:
        return int(self.demuxer.maps)

    @property
    def streams(self) -> Any:
        return self.demuxer.streams

    @property
    def rtp_counts(self) -> dict[str, int]:
        return self.jitter.counts

    @property
    def ps_counts(self) -> dict[str, int]:
        return dict(self.demuxer.counts)

    def sender_report(self, report: _rtp.SenderReport, now: float) -> None:
        self.jitter.sender_report(report, now)

    def receiver_report(self, reporter_ssrc: int, now: float) -> bytes:
        return self.jitter.receiver_report(reporter_ssrc, now)
