"""One continuous time line out of what cameras put into PTS and DTS (reference 7.6 point 6; architecture.md decision
14).

Method. Every track has an offset from the camera's clock to ours, at first 0, so that honest time stamps pass
unchanged. A
time stamp that goes back by more than a second or forward by more than ten starts a new segment: the offset is chosen
anew,
so that the line goes on; the other track meets the same jump and takes the same offset, which keeps sound and picture
together, whichever comes first.

An absent dts is the pts where the stream sends dts elsewhere (H.222.0 (2021) section 2.4.3.7) or has no reordering.
Else the
i-th picture's dts is the (i - depth)-th smallest of all pts up to it: with at most `depth` pictures out of order that
rank
is already final when picture i comes, so nothing waits, dts rises strictly, and no dts passes its pts. Only a window
of the
depth + 1 greatest pts is kept.

Leaves out: clock drift between sound and picture, and repairing time stamps that are wrong by less than a jump.
"""

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

BACK: Final = ticks.HZ  # a step back of more than this is a jump (reference 7.6 point 6)
FORWARD: Final = 10 * ticks.HZ
_PICTURE: Final = ticks.HZ // 25  # duration of a picture before anything is known of it
_SHORTEST: Final = ticks.HZ // 1_000  # differences below are artefacts of repair, not durations
_LONGEST: Final = 2 * ticks.HZ
_RTP_BITS: Final = 32


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
        "meter",
        "moving",
        "next_pts",
        "offset",
        "remainder",
        "rtp",
        "seen_sets",
        "segment",
        "splitter",
        "sps_depth",
        "top",
        "window",
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
            pts = self._sound_time(clock, unit.pts, arrived, rtp_timestamp, now)
            pts = self._advance(clock, pts, len(unit), unit.codec.sample_rate or 8_000)
            result = (unit.with_times(pts, pts),)
        clock.last_arrival = arrived
        return result

    # Pictures

    def _picture(
        self, clock: _TrackClock, unit: AccessUnit, arrived: float, rtp_timestamp: int | None, now: float
    ) -> Sequence[AccessUnit]:
        if unit.parameter_sets and unit.parameter_sets != clock.seen_sets:
            self._learn(clock, unit)
        raw, raw_dts = unit.pts, unit.dts
        stood_still = raw is not None and raw == clock.last_raw and (raw_dts is None or raw_dts == raw)
        passed = self._rtp_passed(clock, rtp_timestamp)
        if raw is None or stood_still:
            pts = self._substitute(clock, arrived, passed)
            raw_dts = None
            self.tally.add("timeline.substituted", now=now)
        else:
            if clock.last_raw is not None:
                clock.moving = True
            clock.last_raw = raw
            pts = self._place(clock, raw, now)
        if clock.top is not None and abs(pts - clock.top) > FORWARD:
            clock.meter.restart()
        clock.meter.push(pts)
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
            if dts <= clock.last_dts:
                dts = clock.last_dts + 1
                self.tally.add("timeline.repaired", now=now)
            step = dts - clock.last_dts
            if _SHORTEST <= step <= _LONGEST:
                clock.duration = step
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
        if clock.moving:
            return clock.top + clock.duration
        if passed is not None:
            return clock.top + passed
        return clock.top + self._arrival_passed(clock, arrived)

    # Sound

    def _sound_time(
        self, clock: _TrackClock, raw: int | None, arrived: float, rtp_timestamp: int | None, now: float
    ) -> int:
        passed = self._rtp_passed(clock, rtp_timestamp)
        if raw is not None and raw != clock.last_raw:
            if clock.last_raw is not None:
                clock.moving = True
            clock.last_raw = raw
            clock.remainder = 0
            return self._place(clock, raw, now)
        self.tally.add("timeline.substituted", now=now)
        if clock.next_pts is None or clock.top is None:
            return self._front if self._front is not None else 0
        if clock.moving:
            return clock.next_pts
        by_clock = clock.top + (passed if passed is not None else self._arrival_passed(clock, arrived))
        if by_clock - clock.next_pts > BACK:  # something was lost; samples alone would lag for ever
            clock.remainder = 0
            return by_clock
        return clock.next_pts

    def _advance(self, clock: _TrackClock, pts: int, samples: int, sample_rate: int) -> int:
        """Note that `samples` begin at `pts`; return pts, repaired where it does not rise."""
        if clock.last_dts is not None and pts <= clock.last_dts:
            pts = clock.last_dts + 1
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
                pts = self._sound_time(clock, unit.pts, arrived, rtp_timestamp, now)
            pts = self._advance(clock, pts, params.ADTS_SAMPLES, frame.sample_rate)
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

    def _place(self, clock: _TrackClock, raw: int, now: float) -> int:
        """Put a camera's time on the line: by the track's own offset, by the newest one, or by a new one."""
        if self._front is None:
            return raw + clock.offset
        own = raw + clock.offset
        own_miss = self._miss(clock, own)
        if clock.segment != self._segment:
            shared = raw + self._offset
            shared_miss = self._miss(clock, shared)
            if abs(shared_miss) < abs(own_miss) and -BACK <= shared_miss <= FORWARD:
                clock.offset, clock.segment = self._offset, self._segment
                clock.window.clear()
                return shared
        if -BACK <= own_miss <= FORWARD:
            return own
        self.tally.add("timeline.jump", now=now)
        self._segment += 1
        self._offset = self._front + clock.duration - raw
        clock.offset, clock.segment = self._offset, self._segment
        clock.window.clear()
        return raw + clock.offset

    def _miss(self, clock: _TrackClock, pts: int) -> int:
        """How far `pts` is from where the track, or the program where that is nearer, would go on."""
        front = self._front if self._front is not None else pts
        by_line = pts - front
        if clock.top is None or clock.last_dts is None:
            return by_line
        # between dts and the greatest pts is where B-frames belong, however long the pyramid
        by_track = pts - clock.top if pts > clock.top else min(pts - clock.last_dts, 0)
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
        return min(max(ticks.from_seconds(arrived - clock.last_arrival), 1), FORWARD)
