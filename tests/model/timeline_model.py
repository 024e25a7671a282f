"""The slow twin of gbgw/_timeline, whose docstring tells the method: the same rules with plain Python numbers."""

from bisect import insort
from collections import deque
from collections.abc import Sequence
from typing import Final

from gbgw._ps import AccessUnit as Unit
from gbgw.base import limits, ticks
from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import AAC, VIDEO, Codec
from gbgw.base.tally import Tally
from gbgw.media import params
from tests.model.drift_model import Drift
from tests.model.witness_model import Witness

BACK: Final = ticks.HZ  # a step back of more than this is a jump (reference 7.6 point 6)
BACK_IN_ORDER: Final = ticks.HZ // 5  # the same for sound, and where the stream says how its pictures are ordered
FORWARD: Final = 10 * ticks.HZ
UNEXPLAINED: Final = 3 * ticks.HZ // 10  # further forward than the wall clock: pictures lost in a burst, or a jump
LEAST: Final = 90  # from one dts to the next: formats that count in milliseconds must still see it rise
_SURE: Final = 50  # pictures without a B-frame, after which none is expected
_PICTURE: Final = ticks.HZ // 25  # duration of a picture before anything is known of it
_SHORTEST: Final = 2 * LEAST  # differences below are artefacts of repair, not durations
_LONGEST: Final = 2 * ticks.HZ
_RTP_BITS: Final = 32
_END_OF_TIME: Final = 1 << 60  # ticks; what is beyond is no time


class ReorderMeter:
    """Measure the reorder depth of pictures that come in decoding order: how many at most precede one and are shown
    after it.

    `depth` never falls: a stream that has shown B-frames may show them again.
    """

    __slots__ = ("_recent", "_top", "depth")

    def __init__(self) -> None:
        self.depth = 0
        self._recent: deque[int] = deque(maxlen=limits.REORDER_PICTURES)
        self._top: int | None = None

    def push(self, pts: int) -> None:
        if self._top is None or pts >= self._top:
            self._top = pts
        else:
            later = sum(1 for other in self._recent if other > pts)
            self.depth = max(self.depth, later)
        self._recent.append(pts)

    def restart(self) -> None:
        """The times before are of another time line: forget them, keep the depth."""
        self._recent.clear()
        self._top = None


class _TrackClock:
    """Where one track stands on the line."""

    __slots__ = (
        "codec",
        "duration",
        "explicit_dts",
        "last_arrival",
        "last_dts",
        "last_raw",
        "last_rtp",
        "last_step",
        "meter",
        "moving",
        "next_pts",
        "offset",
        "passed",
        "pictures",
        "remainder",
        "rtp",
        "seen_sets",
        "segment",
        "shift",
        "splitter",
        "sps_depth",
        "top",
        "window",
        "witness",
    )

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.offset = 0
        self.segment = 0  # number of the segment the offset belongs to
        self.duration = _PICTURE
        self.explicit_dts = False
        self.last_raw: int | None = None
        self.last_dts: int | None = None
        self.top: int | None = None  # greatest pts given out
        self.moving = False  # the camera's PTS has been seen to advance
        self.last_step = 0  # of the camera's clock, ticks, jumps included
        self.shift = 0  # of the slews, as it was for the last unit
        self.witness = Witness()
        self.pictures = 0
        self.passed = 0  # duration of the last sound, ticks
        self.next_pts: int | None = None
        self.remainder = 0  # of next_pts, in 1 / sample rate of a tick
        self.last_arrival: float | None = None
        self.rtp = ticks.Unwrapper(_RTP_BITS)
        self.last_rtp: int | None = None
        self.meter = ReorderMeter()
        self.sps_depth: int | None = None
        self.seen_sets: tuple[bytes, ...] = ()
        self.window: list[int] = []
        self.splitter = params.AdtsSplitter() if codec is AAC else None

    @property
    def depth(self) -> int:
        return max(self.sps_depth or 0, self.meter.depth)

    def move(self, by: int) -> None:
        """Go on `by` ticks further ahead, whether the camera gives times or not."""
        self.offset += by
        self.shift -= by
        self.witness.move(by)

    @property
    def reach(self) -> int:
        """How far ahead of the last time reordering may put a picture, ticks: B-frames are passed over."""
        is_ordered = self.codec.kind is not VIDEO or (
            self.depth == 0 and (self.sps_depth == 0 or self.pictures > _SURE)
        )
        return 0 if is_ordered else (limits.REORDER_PICTURES + 1) * self.duration


class Timeline:
    """The time line of one program: all tracks of one Stream go through one Timeline.

    tally: counts timeline.*.
    """

    def __init__(self, *, tally: Tally | None = None) -> None:
        self.tally = tally if tally is not None else Tally()
        self._clocks: dict[int, _TrackClock] = {}
        self._offset = 0
        self._segment = 0
        self._front: int | None = None  # greatest pts given out on any track
        self._drift = Drift()

    @property
    def skew_seconds(self) -> float:
        """By how much sound is late against the picture, measured by arrival and before the slew that heals it; 0.0
        while unknown."""
        return ticks.to_seconds(self._drift.skew)

    def push(self, unit: AccessUnit, now: float, rtp_timestamp: int | None = None) -> Sequence[AccessUnit]:
        """Return the unit with pts and dts set: one, or for AAC one per raw frame completed, whose parameter_sets is
        its AudioSpecificConfig.

        rtp_timestamp: of the packet it came with, 90 kHz, 32 bits; used where the PTS is missing or stands still.
        dts rises strictly within a track_id and never passes pts. Never raises on input; damage is tallied.
        """
        clock = self._clocks.get(unit.track_id)
        if clock is None or clock.codec is not unit.codec:
            if clock is None and len(self._clocks) >= limits.TRACKS:
                self.tally.add("timeline.surplus_track", now=now)
                return ()
            fresh = _TrackClock(unit.codec)
            if clock is not None:
                fresh.offset, fresh.segment, fresh.last_dts, fresh.top = (
                    clock.offset,
                    clock.segment,
                    clock.last_dts,
                    clock.top,
                )
            else:
                fresh.offset, fresh.segment = self._offset, self._segment
            clock = self._clocks[unit.track_id] = fresh
        arrived = unit.arrived or now
        if unit.codec.kind is VIDEO:
            result = self._picture(clock, unit, arrived, rtp_timestamp, now)
        elif clock.splitter is not None:
            result = self._adts(clock, clock.splitter, unit, arrived, rtp_timestamp, now)
        else:
            pts = self._sound_time(clock, _time(unit.pts), arrived, rtp_timestamp, now)
            pts = self._advance(clock, pts, len(unit), unit.codec.sample_rate or 8_000)
            clock.passed = clock.duration
            result = (unit.with_times(pts, pts),)
        clock.last_arrival = arrived
        return result

    # Pictures

    def _picture(
        self, clock: _TrackClock, unit: AccessUnit, arrived: float, rtp_timestamp: int | None, now: float
    ) -> Sequence[AccessUnit]:
        if unit.parameter_sets and unit.parameter_sets != clock.seen_sets:
            self._learn(clock, unit)
        raw, raw_dts = _time(unit.pts), _time(unit.dts)
        stood_still = raw is not None and raw == clock.last_raw and (raw_dts is None or raw_dts == raw)
        passed = self._rtp_passed(clock, rtp_timestamp)
        if raw is not None and clock.witness.hear(raw, passed, arrived, clock.top):
            self._tell_unit(clock, now)
        shift = self._drift.line
        if raw is None or stood_still or clock.witness.misled:
            pts = self._substitute(clock, arrived, passed) + shift - clock.shift
            raw_dts = None
            self.tally.add("timeline.substituted", now=now)
        else:
            pts = self._place(clock, raw, shift, arrived, now)
        clock.shift = shift
        if clock.top is not None and abs(pts - clock.top) > FORWARD:
            clock.meter.restart()
        clock.meter.push(pts)
        clock.pictures += 1
        if raw_dts is not None and raw is not None:
            clock.explicit_dts = True
            # a dts that is far from its pts belongs to no picture a decoder could hold (16 at 1 a second)
            target = pts - min(max(raw - raw_dts, 0), limits.REORDER_PICTURES * ticks.HZ)
        elif clock.explicit_dts:
            target = pts
        else:
            target = self._rank(clock, pts)
        dts = target
        if clock.last_dts is not None:
            if dts < clock.last_dts + LEAST:
                dts = clock.last_dts + LEAST
                self.tally.add("timeline.repaired", now=now)
            step = dts - clock.last_dts
            if _SHORTEST <= step <= _LONGEST:
                clock.duration = step
            self._follow(clock, max(pts, dts), step, arrived, now)
        pts = max(pts, dts)
        clock.last_dts = dts
        clock.top = pts if clock.top is None else max(clock.top, pts)
        self._front = pts if self._front is None else max(self._front, pts)
        return (unit.with_times(pts, dts),)

    def _learn(self, clock: _TrackClock, unit: AccessUnit) -> None:
        clock.seen_sets = unit.parameter_sets
        for nal in unit.parameter_sets:
            sps = params.parse_sps(unit.codec, nal)
            if sps is not None:
                clock.sps_depth = sps.reorder_depth
                if sps.frame_rate is not None and not clock.moving:
                    clock.duration = round(ticks.HZ / sps.frame_rate)

    def _rank(self, clock: _TrackClock, pts: int) -> int:
        """The derived dts of the module's docstring. Pictures that were never seen count as having come at a steady
        rate.
        """
        depth = clock.depth
        if depth == 0:
            clock.window.clear()
            return pts
        window = clock.window
        if not window and clock.top is not None:
            window.append(clock.top)
        insort(window, pts)
        while len(window) <= depth:
            window.insert(0, window[0] - clock.duration)
        del window[: len(window) - depth - 1]
        return window[0]

    def _substitute(self, clock: _TrackClock, arrived: float, passed: int | None) -> int:
        """Return a time for a picture that has none: by its rate if the others have times, else by RTP, else by
        arrival.
        """
        if clock.top is None:
            return self._front if self._front is not None else 0
        if clock.moving and not clock.witness.misled:
            return clock.top + clock.duration
        if passed is not None:
            return clock.top + passed
        return clock.top + self._arrival_passed(clock, arrived)

    # Sound

    def _sound_time(
        self, clock: _TrackClock, raw: int | None, arrived: float, rtp_timestamp: int | None, now: float
    ) -> int:
        passed = self._rtp_passed(clock, rtp_timestamp)
        if raw is not None and clock.witness.hear(raw, clock.passed or None, arrived, clock.top):
            self._tell_unit(clock, now)
        shift = self._drift.line + self._drift.sound
        slewed, clock.shift = shift - clock.shift, shift
        before = clock.last_dts
        if raw is not None and raw != clock.last_raw and not clock.witness.misled:
            clock.remainder = 0
            pts = self._place(clock, raw, shift, arrived, now)
        else:
            self.tally.add("timeline.substituted", now=now)
            pts = self._sound_goes_on(clock, arrived, passed) + slewed
        if before is not None:
            self._follow(clock, pts, pts - before, arrived, now)
        return pts

    def _sound_goes_on(self, clock: _TrackClock, arrived: float, passed: int | None) -> int:
        """Return a time for sound that has none: by its samples, unless the clock says that some were lost."""
        if clock.next_pts is None or clock.top is None:
            return self._front if self._front is not None else 0
        if clock.moving and not clock.witness.misled:
            return clock.next_pts
        by_clock = clock.top + (passed if passed is not None else self._arrival_passed(clock, arrived))
        if by_clock - clock.next_pts > BACK:  # something was lost; samples alone would lag for ever
            clock.remainder = 0
            return by_clock
        return clock.next_pts

    def _advance(self, clock: _TrackClock, pts: int, samples: int, sample_rate: int) -> int:
        """Note that `samples` begin at `pts`; return pts, repaired where it does not rise."""
        if clock.last_dts is not None and pts < clock.last_dts + LEAST:
            pts = clock.last_dts + LEAST
        whole, clock.remainder = divmod(samples * ticks.HZ + clock.remainder, sample_rate)
        clock.next_pts = pts + whole
        clock.duration = max(whole, 1)
        clock.last_dts = pts
        clock.top = pts
        self._front = pts if self._front is None else max(self._front, pts)
        return pts

    def _adts(
        self,
        clock: _TrackClock,
        splitter: params.AdtsSplitter,
        unit: AccessUnit,
        arrived: float,
        rtp_timestamp: int | None,
        now: float,
    ) -> Sequence[AccessUnit]:
        skipped, refused = splitter.skipped, splitter.refused
        if unit.discontinuity:
            splitter.reset()
        frames = splitter.push(bytes(unit))
        self.tally.add("timeline.adts_skipped_bytes", splitter.skipped - skipped, now=now)
        self.tally.add("timeline.adts_refused", splitter.refused - refused, now=now)
        out: list[AccessUnit] = []
        stamped = False
        for frame in frames:
            if (frame.carried and clock.next_pts is not None) or stamped:
                pts = clock.next_pts if clock.next_pts is not None else 0
            else:
                stamped = True
                pts = self._sound_time(clock, _time(unit.pts), arrived, rtp_timestamp, now)
            pts = self._advance(clock, pts, params.ADTS_SAMPLES, frame.sample_rate)
            clock.passed = clock.passed + clock.duration if out else clock.duration
            out.append(
                Unit(
                    frame.data,
                    unit.codec,
                    pts,
                    pts,
                    is_keyframe=True,
                    parameter_sets=(frame.config,),
                    track_id=unit.track_id,
                    discontinuity=unit.discontinuity and not out,
                    arrived=unit.arrived,
                )
            )
        return out

    # The line

    def _place(self, clock: _TrackClock, raw: int, shift: int, arrived: float, now: float) -> int:
        """Put a camera's time on the line: by the track's own offset, by the newest one, or by a new one."""
        before, clock.last_raw = clock.last_raw, raw
        if before is not None:
            clock.moving = True
        own = raw + clock.offset + shift
        if self._front is None:
            return own
        own_miss = self._miss(clock, own)
        place = own
        if clock.segment != self._segment:
            shared = raw + self._offset + shift
            shared_miss = self._miss(clock, shared)
            if abs(shared_miss) < abs(own_miss) and -BACK <= shared_miss <= FORWARD:
                clock.offset, clock.segment = self._offset, self._segment
                clock.window.clear()
                place = shared
        if place is own and self._is_jump(clock, own_miss, arrived, now):
            self._segment += 1
            self._offset = self._front + clock.duration - raw - shift
            clock.offset, clock.segment = self._offset, self._segment
            clock.window.clear()
            self._drift.restart()
            place = raw + clock.offset + shift
        if before is not None and raw > before:
            clock.last_step = raw - before
        return place

    def _is_jump(self, clock: _TrackClock, miss: int, arrived: float, now: float) -> bool:
        """Is a time that lies `miss` ticks beside where it was expected of another time line? Counts it if so."""
        is_picture = clock.codec.kind is VIDEO
        back = BACK
        if clock.top is None:
            is_jump = not -BACK <= miss <= FORWARD
        else:
            if not is_picture or clock.explicit_dts or clock.sps_depth is not None:
                back = BACK_IN_ORDER
            since = arrived if clock.last_arrival is None else clock.last_arrival
            waited = ticks.from_seconds(max(arrived - since, 0.0))
            explained = max(waited + UNEXPLAINED + clock.reach, 2 * clock.last_step)
            if UNEXPLAINED < miss <= waited + waited // 4 + UNEXPLAINED and miss > FORWARD:
                self.tally.add("timeline.silence", now=now)
                return True
            is_jump = miss < -back or miss > FORWARD or miss > explained
        if is_jump:
            self.tally.add("timeline.jump", now=now)
        return is_jump

    def _follow(self, clock: _TrackClock, time: int, step: int, arrived: float, now: float) -> None:
        """Let the drift see a placed unit, and do what it says."""
        slew = self._drift.push(clock.codec.kind is VIDEO, time, step, arrived)
        if slew:
            self.tally.add("timeline.drift", detail=slew, now=now)
        late = self._drift.resync()
        if late:
            self.tally.add("timeline.resync", now=now)
            for other in self._clocks.values():
                if (other.codec.kind is VIDEO) == (late > 0):
                    other.move(abs(late))

    def _tell_unit(self, clock: _TrackClock, now: float) -> None:
        """The verdict on the unit of a camera's PTS has changed: bring together again what went apart meanwhile."""
        clock.window.clear()
        if not clock.witness.misled:
            return
        self.tally.add("timeline.wrong_unit", detail=clock.codec.name, now=now)
        clock.explicit_dts = False
        astray = clock.witness.astray
        self._drift.restart()
        if astray < 0:
            clock.shift += astray  # it stayed behind, and is moved on
            return
        for other in self._clocks.values():
            if other is not clock:  # it ran ahead, and nothing goes back: the others follow
                other.move(astray)

    def _miss(self, clock: _TrackClock, pts: int) -> int:
        """How far `pts` is from where the track, or the program where that is nearer, would go on."""
        front = self._front if self._front is not None else pts
        by_line = pts - front
        if clock.top is None or clock.last_dts is None:
            return by_line
        # between dts and the greatest pts is where B-frames belong, however long the pyramid
        by_track = pts - clock.top if pts > clock.top else min(pts - clock.last_dts, 0)
        if by_track >= 0 >= by_line > -FORWARD // 4:
            return 0  # the track is behind, and catches up
        return by_track if abs(by_track) < abs(by_line) else by_line

    def _rtp_passed(self, clock: _TrackClock, rtp_timestamp: int | None) -> int | None:
        """Ticks since the last unit by the RTP time stamp; None where it is missing, stands still or is absurd."""
        if rtp_timestamp is None:
            return None
        before = clock.last_rtp
        clock.last_rtp = clock.rtp.unwrap(rtp_timestamp & 0xFFFF_FFFF)
        if before is None or not 0 < clock.last_rtp - before <= FORWARD:
            return None
        return clock.last_rtp - before

    def _arrival_passed(self, clock: _TrackClock, arrived: float) -> int:
        if clock.last_arrival is None:
            return clock.duration
        return min(max(ticks.from_seconds(arrived - clock.last_arrival), LEAST), FORWARD)


def _time(value: int | None) -> int | None:
    return value if value is not None and abs(value) <= _END_OF_TIME else None
