"""The fold: datagrams -> JitterBuffer -> Demuxer -> Timeline -> Stream (style.md "one rule"; architecture.md 11, 12).

One Receiver serves one session. It holds the only timer of the way: the earliest of what its parts wait for.
Leaves out: sockets (net.media), elementary streams without a program stream (named by `diagnose`).
"""

import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, Protocol

from gbgw import _ps, _rtp
from gbgw.base import limits
from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import AUDIO, VIDEO, Codec
from gbgw.base.tally import Tally
from gbgw.media.hub import Stream
from gbgw.media.timeline import Timeline
from gbgw.net import diagnosis
from gbgw.net.diagnosis import Diagnosis
from gbgw.net.media import NetworkFacts

STEPS: Final = ("first_packet", "first_pack", "first_map", "parameter_sets", "first_keyframe", "published")
_ASK_AGAIN_SECONDS: Final = 2.0  # a key frame request may get lost (reference 7.7)
_SAMPLE_BYTES: Final = 16


class Handle(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    """The part of an event loop that a Receiver needs."""

    def time(self) -> float: ...
    def call_at(self, when: float, callback: Callable[[], None], /) -> Handle: ...


class Depacketizer(Protocol):
    """What a Receiver needs of _ps.Demuxer."""

    def push(self, payload: bytes, now: float) -> Sequence[AccessUnit]: ...
    def gap(self) -> None: ...
    def mark(self, now: float) -> Sequence[AccessUnit]: ...
    def poll(self, now: float) -> Sequence[AccessUnit]: ...
    def flush(self) -> Sequence[AccessUnit]: ...
    @property
    def deadline(self) -> float | None: ...
    @property
    def streams(self) -> Sequence[_ps.ElementaryStream]: ...
    @property
    def packs(self) -> int: ...
    @property
    def maps(self) -> int: ...
    @property
    def counts(self) -> dict[str, int]: ...


def _ignore_step(name: str, now: float) -> None:
    """Nobody wants to know."""


def _ignore() -> None:
    """Nobody wants to know."""


class Receiver:
    """Makes a Stream of RTP packets. A net.media.PacketSink.

    ssrc, ssrc_mode: see _rtp.JitterBuffer. ordered: the packets come over TCP, so that a hole is no reason to wait.
    loss: "freeze" drops the video behind a hole up to the next key frame; "pass" drops only the unit with the hole.
    on_step: called once for each of STEPS, with loop seconds. on_keyframe_wanted: something was lost that a key frame
    heals; the caller limits the rate. tally: counts rtp.*, ps.*, receiver.*.
    """

    def __init__(
        self,
        stream: Stream,
        clock: Clock,
        *,
        ssrc: int | None = None,
        ssrc_mode: Literal["latch", "adopt", "strict"] = "adopt",
        ordered: bool = False,
        loss: Literal["freeze", "pass"] = "freeze",
        on_step: Callable[[str, float], None] = _ignore_step,
        on_keyframe_wanted: Callable[[], None] = _ignore,
        tally: Tally | None = None,
        demuxer: Depacketizer | None = None,
    ) -> None:
        self.stream = stream
        self.tally = tally if tally is not None else Tally()
        self.steps: dict[str, float] = {}
        self.last_packet_at: float | None = None
        self.goodbye_at: float | None = None
        self.frozen = False
        self._clock = clock
        self._expected_ssrc = ssrc
        self._freezes = loss == "freeze"
        self._on_step = on_step
        self._on_keyframe_wanted = on_keyframe_wanted
        self._jitter = _rtp.JitterBuffer(
            ssrc,
            ssrc_mode,
            max_packets=limits.REORDER_PACKETS,
            max_seconds=0.0 if ordered else limits.REORDER_SECONDS,
            max_bytes=limits.REORDER_BYTES,
        )
        self._demuxer: Depacketizer = (
            demuxer
            if demuxer is not None
            else _ps.Demuxer(max_unit_bytes=limits.ACCESS_UNIT_BYTES, silence_seconds=limits.UNIT_SILENCE_SECONDS)
        )
        self._timeline = Timeline(tally=self.tally)
        self._reporter_ssrc = secrets.randbits(32)
        self._rtp_seen: dict[str, int] = {}
        self._ps_seen: dict[str, int] = {}
        self._samples: list[diagnosis.Payload] = []
        self._timestamp: int | None = None  # of the packet before
        self._asked_at: float | None = None
        self._maps = 0
        self._promised: tuple[bool, bool] | None = None
        self._units = 0
        self._codecs: dict[str, Codec] = {}
        self._timer: Handle | None = None
        self._timer_at = 0.0
        self._closed = False

    # net.media.PacketSink

    def push_rtp(self, datagram: bytes, now: float) -> None:
        if self._closed:
            return
        packets = self._jitter.push(datagram, now)
        if packets:
            self._take(packets, now)
        self._wind(now)

    def push_rtcp(self, datagram: bytes, now: float) -> None:
        for report in _rtp.parse_rtcp(datagram):
            if isinstance(report, _rtp.SenderReport):
                self._jitter.sender_report(report, now)
            elif report.ssrc == self._jitter.ssrc:
                self.goodbye_at = now
                self.tally.add("rtp.goodbye", now=now)

    def receiver_report(self, now: float) -> bytes:
        return self._jitter.receiver_report(self._reporter_ssrc, now)

    # For whoever watches

    @property
    def ssrc(self) -> int | None:
        """The SSRC locked on."""
        return self._jitter.ssrc

    @property
    def jitter_seconds(self) -> float:
        return self._jitter.jitter_seconds

    @property
    def ordered(self) -> bool:
        """True when a hole is given up at once; set it False when a camera answers an offer of TCP by UDP."""
        return self._jitter.max_seconds == 0.0

    @ordered.setter
    def ordered(self, value: bool) -> None:
        self._jitter.max_seconds = 0.0 if value else limits.REORDER_SECONDS

    @property
    def depth(self) -> int:
        """Packets held back just now."""
        return self._jitter.depth

    @property
    def counts(self) -> dict[str, int]:
        """rtp.* and ps.* of the cores."""
        return self._jitter.counts | self._demuxer.counts

    def diagnose(self, now: float, network: NetworkFacts | None = None, *, idle_seconds: float = 5.0) -> Diagnosis:
        """Say why there is no picture, from what has been seen so far; code "ok" when there is one."""
        codecs: dict[str, Codec] = dict(self._codecs)
        for found in self._demuxer.streams:
            codec = found.detected or found.declared
            if codec is not None:
                codecs.setdefault(codec.name, codec)
        seen = diagnosis.Seen(
            steps=self.steps,
            rtp=self._jitter.counts,
            quiet_seconds=now - self.last_packet_at if self.last_packet_at is not None else 0.0,
            samples=self._samples,
            video=tuple((codec.name, codec.supported) for codec in codecs.values() if codec.kind is VIDEO),
            audio=tuple((codec.name, codec.supported) for codec in codecs.values() if codec.kind is AUDIO),
            ssrc=self._jitter.ssrc,
            expected_ssrc=self._expected_ssrc,
            goodbye=self.goodbye_at is not None
            and (self.last_packet_at is None or self.goodbye_at >= self.last_packet_at),
            units=self._units,
        )
        return diagnosis.diagnose(seen, network, idle_seconds=idle_seconds)

    def settle_counts(self) -> None:
        """Bring the tally up to date with the cores' own counters; for every scrape, not for every packet."""
        self.tally.absorb(self._jitter.counts, self._rtp_seen)
        self.tally.absorb(self._demuxer.counts, self._ps_seen)

    def close(self) -> None:
        """Push out what is complete and stop the timer; the Stream stays open. May be called again."""
        if self._closed:
            return
        now = self._clock.time()
        self._take(self._jitter.flush(), now)
        self._give(self._demuxer.flush(), self._timestamp, now)
        self.settle_counts()
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # The way

    def _take(self, packets: Iterable[_rtp.RtpPacket], now: float) -> None:
        demuxer = self._demuxer
        for packet in packets:
            self.last_packet_at = now
            if "first_pack" not in self.steps:
                self._sample(packet, now)
            before, self._timestamp = self._timestamp, packet.timestamp
            if packet.lost_before:
                demuxer.gap()
                self._lost(now)
            units = demuxer.push(packet.payload, now)
            if demuxer.maps != self._maps or "first_pack" not in self.steps:
                self._look_at_program(now)
            if units:
                # What this packet's pack header ended came with the packet before.
                self._give(units, before if before is not None else packet.timestamp, now)
            if packet.marker:
                units = demuxer.mark(now)
                if units:
                    self._give(units, packet.timestamp, now)

    def _give(self, units: Iterable[AccessUnit], timestamp: int | None, now: float) -> None:
        for unit in units:
            self._units += 1
            is_video = unit.codec.kind is VIDEO
            if unit.codec.name not in self._codecs and len(self._codecs) < limits.TRACKS:
                self._codecs[unit.codec.name] = unit.codec
            if is_video:
                if unit.discontinuity:
                    self._lost(now)
                if unit.is_keyframe:
                    self.frozen = False
                if "first_keyframe" not in self.steps and unit.codec.supported:
                    if unit.parameter_sets:
                        self._step("parameter_sets", now)
                    if unit.is_keyframe:
                        self._step("first_keyframe", now)
            # Frozen units pass through the time line too: it must not take the freeze for a jump.
            timed = self._timeline.push(unit, now, timestamp)
            if is_video and self.frozen:
                self.tally.add("receiver.frozen_units", len(timed), now=now)
                self._ask(now)
                continue
            for one in timed:
                self.stream.push(one, now)
        if self.stream.published:
            self._step("published", now)

    def _lost(self, now: float) -> None:
        """There is a hole before what comes next."""
        if "first_keyframe" not in self.steps:
            return  # nothing can refer to what was never seen, and the first key frame is on its way
        if self._freezes and not self.frozen:
            self.frozen = True
            self.tally.add("receiver.freezes", now=now)
        self._ask(now)

    def _ask(self, now: float) -> None:
        if self._asked_at is None or now - self._asked_at >= _ASK_AGAIN_SECONDS:
            self._asked_at = now
            self._on_keyframe_wanted()

    def _sample(self, packet: _rtp.RtpPacket, now: float) -> None:
        self._step("first_packet", now)
        if len(self._samples) < limits.PAYLOAD_SAMPLES and packet.payload:
            self._samples.append(
                diagnosis.Payload(packet.payload_type, packet.payload[:_SAMPLE_BYTES], len(packet.payload))
            )

    def _look_at_program(self, now: float) -> None:
        if self._demuxer.packs:
            self._step("first_pack", now)
            self._samples.clear()
        if self._demuxer.maps == self._maps:
            return
        self._maps = self._demuxer.maps
        self._step("first_map", now)
        codecs = [found.detected or found.declared for found in self._demuxer.streams]
        promise = (
            any(codec is not None and codec.kind is AUDIO and codec.supported for codec in codecs),
            any(codec is not None and codec.kind is VIDEO and codec.supported for codec in codecs),
        )
        if promise != self._promised:
            self._promised = promise
            self.stream.promise(promise[0], video=promise[1])

    def _step(self, name: str, now: float) -> None:
        if name not in self.steps:
            self.steps[name] = now
            self._on_step(name, now)

    # The timer

    @property
    def deadline(self) -> float | None:
        """Loop seconds of the earliest thing that any part waits for."""
        earliest = None
        for at in (self._jitter.deadline, self._demuxer.deadline, self.stream.deadline):
            if at is not None and (earliest is None or at < earliest):
                earliest = at
        return earliest

    def _wind(self, now: float) -> None:
        """Make sure the timer rings by the deadline. It may ring too early: most deadlines move on with the next
        packet, and moving a timer for each costs more than a ring in vain.
        """
        deadline = self.deadline
        if deadline is None or (self._timer is not None and self._timer_at <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._clock.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        now = max(self._clock.time(), self._timer_at)  # a loop may ring a fraction of a millisecond early
        self._timer = None
        packets = self._jitter.poll(now)
        if packets:
            self._take(packets, now)
        units = self._demuxer.poll(now)
        if units:
            self._give(units, self._timestamp, now)
        self.stream.poll(now)
        if self.stream.published:
            self._step("published", now)
        self._wind(now)
