"""The fold: datagrams -> JitterBuffer -> Demuxer -> Timeline -> Stream (style.md "one rule"; architecture.md 11, 12).

The first half is the core _receiver.Fold, fed by the receive thread or, over TCP, by `push_rtp`; the second half is the
Receiver's, on the loop. One Receiver serves one session. It holds the only timer of the way: the earliest of what its
parts wait for. Leaves out: sockets (net.media), elementary streams without a program stream (named by `diagnose`).
"""

import secrets
from collections.abc import Callable, Sequence
from typing import Final, Literal, Protocol

from gbgw import _ps, _receiver, _rtp
from gbgw.base import limits
from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import AUDIO, VIDEO, Codec
from gbgw.base.tally import Tally
from gbgw.media.freeze import Freeze
from gbgw.media.hub import Stream
from gbgw.media.pace import Pace
from gbgw.media.timeline import Timeline
from gbgw.net import diagnosis
from gbgw.net.diagnosis import Diagnosis
from gbgw.net.media import NetworkFacts

STEPS: Final = ("first_packet", "first_pack", "first_map", "parameter_sets", "first_keyframe", "published")
_ASK_AGAIN_SECONDS: Final = 2.0  # a key frame request may get lost (reference 7.7)


class Handle(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    """The part of an event loop that a Receiver needs."""

    def time(self) -> float: ...
    def call_at(self, when: float, callback: Callable[[], None], /) -> Handle: ...


class Event(Protocol):
    """See _receiver.Event."""

    @property
    def kind(self) -> int: ...
    @property
    def at(self) -> float: ...
    @property
    def unit(self) -> AccessUnit | None: ...
    @property
    def timestamp(self) -> int | None: ...


class PacketFold(Protocol):
    """What a Receiver needs of _receiver.Fold."""

    max_seconds: float

    def push(self, datagram: bytes, now: float) -> None: ...
    def poll(self, now: float) -> None: ...
    def close(self, now: float) -> None: ...
    def events(self) -> Sequence[Event]: ...
    def sender_report(self, report: _rtp.SenderReport, now: float) -> None: ...
    def receiver_report(self, reporter_ssrc: int, now: float) -> bytes: ...
    @property
    def deadline(self) -> float | None: ...
    @property
    def ssrc(self) -> int | None: ...
    @property
    def depth(self) -> int: ...
    @property
    def jitter_seconds(self) -> float: ...
    @property
    def last_packet_at(self) -> float | None: ...
    @property
    def packs(self) -> int: ...
    @property
    def maps(self) -> int: ...
    @property
    def streams(self) -> Sequence[_ps.ElementaryStream]: ...
    @property
    def heads(self) -> Sequence[tuple[int, bytes, int]]: ...
    @property
    def rtp_counts(self) -> dict[str, int]: ...
    @property
    def ps_counts(self) -> dict[str, int]: ...
    @property
    def overrun_units(self) -> int: ...


def _ignore_step(name: str, now: float) -> None:
    """Nobody wants to know."""


def _ignore() -> None:
    """Nobody wants to know."""


class Receiver:
    """Makes a Stream of RTP packets. A net.media.PacketSink.

    fold: the first half of the way, made by `new_fold`. expected_ssrc: for the diagnosis. loss: "freeze" drops the
    video behind a hole up to the next key frame; "pass" drops only the unit with the hole. on_step: called once for
    each of STEPS, with loop seconds. on_keyframe_wanted: something was lost that a key frame heals; the caller limits
    the rate. pace: of a recording, whose speed may be changed. tally: counts rtp.*, ps.*, receiver.*.
    """

    def __init__(
        self,
        stream: Stream,
        clock: Clock,
        *,
        fold: PacketFold,
        expected_ssrc: int | None = None,
        loss: Literal["freeze", "pass"] = "freeze",
        on_step: Callable[[str, float], None] = _ignore_step,
        on_keyframe_wanted: Callable[[], None] = _ignore,
        pace: Pace | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.stream = stream
        self.pace = pace
        self.tally = tally if tally is not None else Tally()
        self.fold = fold
        self.steps: dict[str, float] = {}
        self.is_driven = False  # the receive thread keeps the fold's deadlines
        self.goodbye_at: float | None = None
        self._clock = clock
        self._expected_ssrc = expected_ssrc
        self._on_step = on_step
        self._on_keyframe_wanted = on_keyframe_wanted
        self._timeline = Timeline(tally=self.tally)
        self._freeze = Freeze(loss, tally=self.tally)
        self._reporter_ssrc = secrets.randbits(32)
        self._seen: dict[str, int] = {}
        self._asked_at: float | None = None
        self._maps = 0
        self._promised: tuple[bool, bool] | None = None
        self._units = 0
        self._is_playing = False  # "published" was told
        self._codecs: dict[str, Codec] = {}
        self._timer: Handle | None = None
        self._timer_at = 0.0
        self._closed = False

    # net.media.PacketSink

    def push_rtp(self, datagram: bytes, now: float) -> None:
        if not self._closed:
            self.fold.push(datagram, now)
            self.take(now)

    def take(self, now: float) -> None:
        """Take what the fold has found; the receive thread says when."""
        for event in self.fold.events():
            if event.unit is not None:
                self._give(event.unit, event.timestamp, event.at)
            elif event.kind == _receiver.LOST:
                self._lost(event.at)
            elif event.kind == _receiver.FIRST_PACKET:
                self._step("first_packet", event.at)
            else:
                self._look_at_program(event.at)
        if not (self.is_driven and self._is_playing) and not self._closed:
            self._wind(now)  # else nothing of this way waits: the thread keeps the fold's time, the stream has none

    def push_rtcp(self, datagram: bytes, now: float) -> None:
        for report in _rtp.parse_rtcp(datagram):
            if isinstance(report, _rtp.SenderReport):
                self.fold.sender_report(report, now)
            elif report.ssrc == self.fold.ssrc:
                self.goodbye_at = now
                self.tally.add("rtp.goodbye", now=now)

    def receiver_report(self, now: float) -> bytes:
        return self.fold.receiver_report(self._reporter_ssrc, now)

    # For whoever watches

    @property
    def frozen(self) -> bool:
        """True while pictures are dropped because of a hole."""
        return self._freeze.frozen

    @property
    def skew_seconds(self) -> float:
        """By how much sound is late against the picture; see media.timeline."""
        return self._timeline.skew_seconds

    @property
    def last_packet_at(self) -> float | None:
        return self.fold.last_packet_at

    @property
    def ordered(self) -> bool:
        """True when a hole is given up at once; set it False when a camera answers an offer of TCP by UDP."""
        return self.fold.max_seconds == 0.0

    @ordered.setter
    def ordered(self, value: bool) -> None:
        self.fold.max_seconds = 0.0 if value else limits.REORDER_SECONDS

    @property
    def counts(self) -> dict[str, int]:
        """rtp.*, ps.* and receiver.* of the fold."""
        own = {"receiver.overrun_units": self.fold.overrun_units}
        return self.fold.rtp_counts | self.fold.ps_counts | own

    def diagnose(self, now: float, network: NetworkFacts | None = None, *, idle_seconds: float = 5.0) -> Diagnosis:
        """Say why there is no picture, from what has been seen so far; code "ok" when there is one."""
        codecs: dict[str, Codec] = dict(self._codecs)
        for found in self.fold.streams:
            codec = found.detected or found.declared
            if codec is not None:
                codecs.setdefault(codec.name, codec)
        samples = [diagnosis.Payload(*head) for head in self.fold.heads] if "first_pack" not in self.steps else []
        seen = diagnosis.Seen(
            steps=self.steps,
            rtp=self.fold.rtp_counts,
            quiet_seconds=now - self.last_packet_at if self.last_packet_at is not None else 0.0,
            samples=samples,
            video=tuple((codec.name, codec.supported) for codec in codecs.values() if codec.kind is VIDEO),
            audio=tuple((codec.name, codec.supported) for codec in codecs.values() if codec.kind is AUDIO),
            ssrc=self.fold.ssrc,
            expected_ssrc=self._expected_ssrc,
            goodbye=self.goodbye_at is not None
            and (self.last_packet_at is None or self.goodbye_at >= self.last_packet_at),
            units=self._units,
        )
        return diagnosis.diagnose(seen, network, idle_seconds=idle_seconds)

    def settle_counts(self) -> None:
        """Bring the tally up to date with the cores' own counters; for every scrape, not for every packet."""
        self.tally.absorb(self.counts, self._seen)

    def close(self) -> None:
        """Push out what is complete and stop the timer; the Stream stays open. May be called again."""
        if self._closed:
            return
        now = self._clock.time()
        self._closed = True
        self.fold.close(now)
        self.take(now)
        self.settle_counts()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # The way

    def _give(self, unit: AccessUnit, timestamp: int | None, now: float) -> None:
        self._units += 1
        codec = unit.codec
        is_video = codec.kind is VIDEO
        if codec.name not in self._codecs and len(self._codecs) < limits.TRACKS:
            self._codecs[codec.name] = codec
        if is_video:
            if unit.discontinuity:
                self._lost(now)
            if "first_keyframe" not in self.steps and codec.supported:
                if unit.parameter_sets:
                    self._step("parameter_sets", now)
                if unit.is_keyframe:
                    self._step("first_keyframe", now)
        if self.pace is not None and not self.pace.hear(unit, now):
            return
        # Frozen units pass through the time line too: it must not take the freeze for a jump.
        timed = self._timeline.push(unit, now, timestamp)
        if is_video and codec.supported:
            if len(timed) == 1:
                timed = self._freeze.push(timed[0], now)
            else:
                timed = [shown for one in timed for shown in self._freeze.push(one, now)]
            if self._freeze.frozen:
                self._ask(now)
        for one in timed:
            paced = self.pace.push(one, now) if self.pace is not None else one
            if paced is not None:
                self.stream.push(paced, now)
        if not self._is_playing and self.stream.published:
            self._is_playing = True
            self._step("published", now)

    def _lost(self, now: float) -> None:
        """There is a hole before what comes next."""
        if "first_keyframe" not in self.steps:
            return  # nothing can refer to what was never seen, and the first key frame is on its way
        self._freeze.lose(now)
        self._ask(now)

    def _ask(self, now: float) -> None:
        if self._asked_at is None or now - self._asked_at >= _ASK_AGAIN_SECONDS:
            self._asked_at = now
            self._on_keyframe_wanted()

    def _look_at_program(self, now: float) -> None:
        if self.fold.packs:
            self._step("first_pack", now)
        if self.fold.maps == self._maps:
            return
        self._maps = self.fold.maps
        self._step("first_map", now)
        codecs = [found.detected or found.declared for found in self.fold.streams]
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
        of_fold = None if self.is_driven else self.fold.deadline
        of_stream = self.stream.deadline
        if of_fold is None or of_stream is None:
            return of_fold if of_stream is None else of_stream
        return min(of_fold, of_stream)

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
        self.fold.poll(now)
        self.take(now)
        self.stream.poll(now)
        if self.stream.published:
            self._step("published", now)
        self._wind(now)


def new_fold(
    ssrc: int | None = None, mode: Literal["latch", "adopt", "strict"] = "adopt", *, ordered: bool = False
) -> _receiver.Fold:
    """The core's half of a Receiver. ordered: the packets come over TCP, so that a hole is no reason to wait."""
    return _receiver.Fold(ssrc, mode, max_seconds=0.0 if ordered else limits.REORDER_SECONDS)
