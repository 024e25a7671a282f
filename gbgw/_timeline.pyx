# cython: language_level=3, binding=True, embedsignature=True
# cython: boundscheck=True, wraparound=False, cdivision=False, initializedcheck=True
"""Time line core: one continuous line out of what cameras put into PTS and DTS (reference 7.6 point 6; architecture.md
decision 14). Sans-IO; one access unit in, the same unit with its times out.

Method. Every track has an offset from the camera's clock to ours, at first 0, so that honest time stamps pass
unchanged. A time stamp that goes back by more than a second or forward by more than ten starts a new segment: the
offset is chosen anew, so that the line goes on; the other track meets the same jump and takes the same offset, which
keeps sound and picture together, whichever comes first.

An absent dts is the pts where the stream sends dts elsewhere (H.222.0 (2021) section 2.4.3.7) or has no reordering.
Else the i-th picture's dts is the (i - depth)-th smallest of all pts up to it: with at most `depth` pictures out of
order that rank is already final when picture i comes, so nothing waits, dts rises strictly, and no dts passes its pts.
Only a window of the depth + 1 greatest pts is kept.

Which step is a jump, the arrival says: what goes forward further than the wall clock did is one, from 0.3 s on, unless
the track went in such steps before (pictures played fast); a pause of the camera is kept up to ten seconds and drawn
together beyond. A step back is one where it is further than reordering explains.

A camera that counts PTS in another unit than 90 kHz is found out by a Witness: for pictures the RTP time stamps, where
they run like the wall clock, for sound the number of samples. Then the witness counts. Clocks that run at different
speeds are held together by Drift.

Leaves out: reading parameter sets and ADTS, which media.timeline lends.
"""

cimport cython
from libc.math cimport fabs, llrint
from libc.stdint cimport int32_t, int64_t, uint32_t

from gbgw._ps cimport AccessUnit

from gbgw.base import codec as codecs, limits


cdef extern from "<Python.h>":
    long long PyLong_AsLongLongAndOverflow(object value, int* overflow) except? -1
    unsigned long PyLong_AsUnsignedLongMask(object value) except? -1


cdef enum:
    HZ = 90000
    MILLISECOND = 90
    BACK = HZ  # a step back of more than this is a jump (reference 7.6 point 6)
    BACK_IN_ORDER = 200 * MILLISECOND  # the same for sound, and where the stream says how its pictures are ordered
    FORWARD = 10 * HZ
    UNEXPLAINED = 300 * MILLISECOND  # further forward than the wall clock: pictures lost in a burst, or a jump
    LEAST = MILLISECOND  # from one dts to the next: formats that count in milliseconds must still see it rise
    SURE = 50  # pictures without a B-frame, after which none is expected
    PICTURE = 40 * MILLISECOND  # duration of a picture before anything is known of it
    SHORTEST = 2 * LEAST  # differences below are artefacts of repair, not durations
    LONGEST = 2 * HZ
    AAC_SAMPLES = 1024  # of a raw data block of the core coder (ISO/IEC 14496-3 section 4.5.1.1)
    # Witness
    UNITS = 12  # of one comparison
    WITNESSED = 250 * MILLISECOND  # that must have passed in it, or arrival says nothing
    # Drift
    SLEW = 25  # one part in 25: what music still bears, and twice what the worst camera seen needs
    SKEW_START = 50 * MILLISECOND  # sound 50 ms off is noticed (ITU-R BT.1359: 45 ms ahead, 125 ms behind)
    SKEW_LOST = HZ  # so much is no drift, but a camera that counts its pictures or samples wrongly
    SKEW_WINDOWS = 2  # in a row
    LINE_START = 500 * MILLISECOND
    LINE_STEADY = 100 * MILLISECOND  # less over WINDOWS is no drift that a player cannot follow: 0.3 %
    FRESH = 2  # windows at the start, when cameras send what they have stored

cdef double GROSS = 3.0  # times too fast or slow: units differ by eleven and more, what is less may be how it was delivered
cdef double WINDOW_SECONDS = 1.0  # of a lead
cdef int64_t END_OF_TIME = <int64_t>1 << 60  # ticks, 400,000 years: what is beyond is no time, and sums of these fit into 64 bits
cdef object _AAC = codecs.AAC
cdef object _VIDEO = codecs.VIDEO


cdef inline bint read_time(object value, int64_t* out) except -1:
    """Take a time stamp; False where there is none, or none that can be one."""
    cdef int overflow
    if value is None:
        return False
    out[0] = PyLong_AsLongLongAndOverflow(value, &overflow)
    return not overflow and -END_OF_TIME <= out[0] <= END_OF_TIME


cdef inline int64_t to_ticks(double seconds) noexcept:
    return llrint(seconds * HZ)


cdef inline int64_t window_of(double arrived) noexcept:
    return <int64_t>(arrived / WINDOW_SECONDS)


@cython.final
@cython.auto_pickle(False)
cdef class ReorderMeter:
    def __cinit__(self):
        self.most = min(limits.REORDER_PICTURES, <int>PICTURES)

    cpdef void push(self, int64_t pts) noexcept:
        cdef int i, later = 0
        if not self.has_top or pts >= self.top:
            self.has_top = True
            self.top = pts
        else:
            for i in range(self.count):
                if self.recent[i] > pts:
                    later += 1
            self.depth = max(self.depth, later)
        self.recent[self.next] = pts
        self.next = self.next + 1 if self.next + 1 < self.most else 0
        self.count = min(self.count + 1, self.most)

    cpdef void restart(self) noexcept:
        self.count = self.next = 0
        self.has_top = False


@cython.final
@cython.auto_pickle(False)
cdef class Witness:
    def hear(self, int64_t pts, passed, double arrived, line):
        cdef int64_t gone = 0, at = 0
        cdef bint knows = read_time(passed, &gone), has_line = read_time(line, &at)
        return self.compare(pts, knows, gone, arrived, has_line, at)

    cdef bint compare(self, int64_t pts, bint knows, int64_t passed, double arrived, bint has_line, int64_t line) noexcept:
        cdef int64_t gone, told, wall, seen
        cdef double ratio, before, pace
        cdef bint is_right
        if not self.has_begun or not knows or not has_line:
            self.begin(pts, arrived)
            self.has_line, self.line, self.since = has_line, line, 0
            return False
        if not self.has_line:
            self.has_line, self.line, self.since = True, line, 0
        gone = line - self.line - self.since
        self.since += passed
        self.seen += passed
        self.count += 1
        if self.count < UNITS:
            return False
        told, wall = pts - self.begun, to_ticks(arrived - self.at)
        seen = self.seen
        self.begin(pts, arrived)
        if wall < WITNESSED or not wall <= 2 * seen <= 4 * wall:
            return False
        ratio, before = <double>told / <double>seen, self.last_ratio
        self.last_ratio = ratio
        pace = <double>told / <double>wall
        is_right = 1 / GROSS <= pace <= GROSS or 1 / GROSS <= ratio <= GROSS
        if is_right:
            self.line, self.since = line, passed
        # One jump of a clock makes a ratio, but not the same one twice.
        if is_right != self.misled or not fabs(ratio - before) <= fabs(before) / 4:
            return False
        self.misled = not is_right
        self.astray = gone if self.misled else 0
        return True

    cpdef void move(self, int64_t by) noexcept:
        if self.has_line:
            self.line += by

    cdef void begin(self, int64_t pts, double arrived) noexcept:
        self.has_begun, self.begun, self.at = True, pts, arrived
        self.seen = 0
        self.count = 0


cdef bint note(Lead* lead, int64_t time, double arrived) noexcept:
    """Note a unit; True when a window has become whole."""
    cdef int64_t window = window_of(arrived), ahead = time - to_ticks(arrived), passed
    cdef double took, pace
    cdef bint done = False
    if not lead.has_window or window != lead.window:
        passed, took = lead.last_time - lead.first_time, lead.last_at - lead.first_at
        if lead.has_window and took >= WINDOW_SECONDS / 2 and passed > 0:
            lead.seen = min(lead.seen + 1, <int>FRESH + 1)
            pace = <double>passed / (took * HZ)
            lead.is_live = 0.8 <= pace <= 1.25
            lead.has_index, lead.index, lead.value = True, lead.window, lead.best
            done = lead.seen > FRESH
        lead.has_window, lead.window, lead.best = True, window, ahead
        lead.first_time, lead.first_at = time, arrived
    lead.best = max(lead.best, ahead)
    lead.last_time, lead.last_at = time, arrived
    return done


cdef inline int64_t held_to(int64_t value, int64_t most) noexcept:
    return min(max(value, -most), most)


@cython.final
@cython.auto_pickle(False)
cdef class Drift:
    def push(self, bint is_picture, int64_t time, int64_t step, double arrived):
        cdef Slew slew = self.follow(is_picture, time, step, arrived)
        return "" if slew == NO_SLEW else "sound" if slew == SLEW_SOUND else "line"

    cdef Slew follow(self, bint is_picture, int64_t time, int64_t step, double arrived) noexcept:
        cdef bint master = is_picture or not self.picture_lead.has_window
        cdef int64_t most, moved
        if self.line_due or self.sound_due:
            most = held_to(max(step, 0), HZ) // SLEW
            if master and self.line_due:
                moved = held_to(self.line_due, most)
                self.line += moved
                self.line_due -= moved
            if not is_picture and self.sound_due:
                moved = held_to(self.sound_due, most)
                self.sound += moved
                self.sound_due -= moved
                self.rest = window_of(arrived)
        if not note(&self.picture_lead if is_picture else &self.sound_lead, time, arrived):
            return NO_SLEW
        if master and self.judge_line():
            return SLEW_LINE
        return SLEW_SOUND if self.judge_skew() else NO_SLEW

    cpdef int64_t resync(self) noexcept:
        if self.lost < SKEW_WINDOWS:
            return 0
        self.lost = self.skewed = 0
        self.sound_due = 0
        self.rest = self.synced = (self.judged if self.has_judged else 0) + 1
        return self.skew

    cpdef void restart(self) noexcept:
        self.has_base = False
        self.past_count = 0
        self.line_due = 0

    cdef bint judge_skew(self) noexcept:
        cdef Lead* picture = &self.picture_lead
        cdef Lead* sound = &self.sound_lead
        cdef int64_t apart
        if not picture.has_index or not sound.has_index or picture.index != sound.index:
            return False
        if self.has_judged and picture.index == self.judged:
            return False
        self.has_judged, self.judged = True, picture.index
        apart = sound.value - picture.value
        if not self.has_apart:
            self.has_apart, self.apart = True, apart
        self.skew = apart - self.apart
        if picture.index > self.synced:
            self.lost = min(self.lost + 1, <int>SKEW_WINDOWS) if abs(self.skew) > SKEW_LOST else 0
        if self.sound_due or picture.index <= self.rest:
            return False
        if abs(self.skew) <= SKEW_START:
            self.skewed = 0
            return False
        self.skewed += 1
        if self.skewed < SKEW_WINDOWS:
            return False
        self.skewed = 0
        self.sound_due = -self.skew
        return True

    cdef bint judge_line(self) noexcept:
        cdef Lead* lead = &self.picture_lead if self.picture_lead.has_window else &self.sound_lead
        cdef int64_t value = lead.value, off, total = 0, lengths = 0, longest = 0, shortest = 0, moves
        cdef int64_t[3] move
        cdef int i, third = WINDOWS // 3
        if not lead.is_live:
            self.restart()
            return False
        if self.past_count > WINDOWS:
            for i in range(WINDOWS):
                self.past[i] = self.past[i + 1]
            self.past_count = WINDOWS
        self.past[self.past_count] = value
        self.past_count += 1
        if not self.has_base:
            self.has_base, self.base = True, value
        off = value - self.base
        if self.line_due:
            self.past_count = 0
            return False
        if self.past_count <= WINDOWS:
            return False
        for i in range(3):
            move[i] = self.past[(i + 1) * third] - self.past[i * third]
            total += move[i]
            moves = abs(move[i])
            lengths += moves
            longest = moves if i == 0 else max(longest, moves)
            shortest = moves if i == 0 else min(shortest, moves)
        if abs(total) < LINE_STEADY:
            self.base = value
            return False
        # A network that becomes slower does so once, or up and down; a clock goes on and on.
        if not (shortest * 2 > longest and abs(total) == lengths):
            return False
        if abs(off) <= LINE_START or (off < 0) != (move[0] < 0):
            return False
        self.line_due = -off
        return True


@cython.final
@cython.auto_pickle(False)
cdef class TrackClock:
    def __cinit__(self, object codec, object splitter):
        self.codec = codec
        self.is_video = codec.kind is _VIDEO
        self.sample_rate = codec.sample_rate or 8_000
        self.splitter = splitter
        self.seen_sets = ()
        self.duration = PICTURE
        self.witness = Witness()
        self.meter = ReorderMeter()
        self.sps_depth = -1

    cdef int depth(self) noexcept:
        return max(self.sps_depth, self.meter.depth)

    cdef int64_t reach(self) noexcept:
        """How far ahead of the last time reordering may put a picture, ticks: B-frames are passed over."""
        if not self.is_video or (self.depth() == 0 and (self.sps_depth == 0 or self.pictures > SURE)):
            return 0
        return (self.meter.most + 1) * self.duration

    cdef void move(self, int64_t by) noexcept:
        """Go on `by` ticks further ahead, whether the camera gives times or not."""
        self.offset += by
        self.shift -= by
        self.witness.move(by)


@cython.auto_pickle(False)
cdef class Timeline:
    def __init__(self, object tally not None, object read_sets not None, object new_splitter not None):
        self.tally = tally
        self.read_sets = read_sets
        self.new_splitter = new_splitter
        self.clocks = {}
        self.drift = Drift()

    @property
    def skew_seconds(self):
        return <double>self.drift.skew / HZ

    def push(self, AccessUnit unit not None, double now, rtp_timestamp=None):
        cdef TrackClock clock
        cdef double arrived = unit.arrived or now
        cdef int64_t pts
        cdef object result
        found = self.clocks.get(unit.track_id)
        clock = <TrackClock>found if found is not None else None
        if clock is None or clock.codec is not unit.codec:
            clock = self.admit(unit, now)
            if clock is None:
                return ()
        if clock.is_video:
            result = (self.picture(clock, unit, arrived, rtp_timestamp, now),)
        elif clock.splitter is not None:
            result = self.adts(clock, unit, arrived, rtp_timestamp, now)
        else:
            pts = self.sound_time(clock, unit.pts, arrived, rtp_timestamp, now)
            pts = self.advance(clock, pts, unit.length, clock.sample_rate)
            clock.passed = clock.duration
            result = (unit.timed(pts, pts),)
        clock.has_arrival = True
        clock.last_arrival = arrived
        return result

    cdef TrackClock admit(self, AccessUnit unit, double now):
        """The clock of a track that is new, or whose codec is; None where there are too many."""
        cdef TrackClock fresh, before = self.clocks.get(unit.track_id)
        if before is None and len(self.clocks) >= limits.TRACKS:
            self.tally.add("timeline.surplus_track", now=now)
            return None
        fresh = TrackClock(unit.codec, self.new_splitter() if unit.codec is _AAC else None)
        if before is not None:
            fresh.offset, fresh.segment = before.offset, before.segment
            fresh.has_dts, fresh.last_dts = before.has_dts, before.last_dts
            fresh.has_top, fresh.top = before.has_top, before.top
        else:
            fresh.offset, fresh.segment = self.offset, self.segment
        self.clocks[unit.track_id] = fresh
        return fresh

    # Pictures

    cdef AccessUnit picture(self, TrackClock clock, AccessUnit unit, double arrived, object rtp_timestamp, double now):
        cdef int64_t raw = 0, raw_dts = 0, passed = 0, shift, pts, dts, step
        cdef bint has_raw, has_dts, knows, stood_still
        if unit.parameter_sets and unit.parameter_sets != clock.seen_sets:
            self.learn(clock, unit)
        has_raw, has_dts = read_time(unit.pts, &raw), read_time(unit.dts, &raw_dts)
        stood_still = has_raw and clock.has_raw and raw == clock.last_raw and (not has_dts or raw_dts == raw)
        knows = rtp_passed(clock, rtp_timestamp, &passed)
        if has_raw and clock.witness.compare(raw, knows, passed, arrived, clock.has_top, clock.top):
            self.tell_unit(clock, now)
        shift = self.drift.line
        if not has_raw or stood_still or clock.witness.misled:
            pts = self.substitute(clock, arrived, knows, passed) + shift - clock.shift
            has_dts = False
            self.tally.add("timeline.substituted", now=now)
        else:
            pts = self.place(clock, raw, shift, arrived, now)
        clock.shift = shift
        if clock.has_top and abs(pts - clock.top) > FORWARD:
            clock.meter.restart()
        clock.meter.push(pts)
        clock.pictures += 1
        if has_dts and has_raw:
            clock.explicit_dts = True
            # a dts that is far from its pts belongs to no picture a decoder could hold (16 at 1 a second)
            dts = pts - min(max(raw - raw_dts, 0), <int64_t>clock.meter.most * HZ)
        elif clock.explicit_dts:
            dts = pts
        else:
            dts = self.rank(clock, pts)
        if clock.has_dts:
            if dts < clock.last_dts + LEAST:
                dts = clock.last_dts + LEAST
                self.tally.add("timeline.repaired", now=now)
            step = dts - clock.last_dts
            if SHORTEST <= step <= LONGEST:
                clock.duration = step
            self.follow(clock, max(pts, dts), step, arrived, now)
        pts = max(pts, dts)
        clock.has_dts, clock.last_dts = True, dts
        self.reached(clock, pts)
        return unit.timed(pts, dts)

    cdef learn(self, TrackClock clock, AccessUnit unit):
        clock.seen_sets = unit.parameter_sets
        found = self.read_sets(clock.codec, unit.parameter_sets)
        if found is not None:
            depth, duration = found
            clock.sps_depth = -1 if depth is None else min(max(depth, 0), clock.meter.most)
            if duration is not None and not clock.moving:
                clock.duration = min(max(duration, 1), <int>FORWARD)

    cdef int64_t rank(self, TrackClock clock, int64_t pts) noexcept:
        """The derived dts of the module's docstring. Pictures that were never seen count as having come at a steady
        rate."""
        cdef int depth = clock.depth(), i, missing
        if depth <= 0:
            clock.window_count = 0
            return pts
        if clock.window_count == 0 and clock.has_top:
            clock.window[0] = clock.top
            clock.window_count = 1
        i = clock.window_count
        while i > 0 and clock.window[i - 1] > pts:
            clock.window[i] = clock.window[i - 1]
            i -= 1
        clock.window[i] = pts
        clock.window_count += 1
        missing = depth + 1 - clock.window_count
        if missing > 0:
            for i in range(clock.window_count - 1, -1, -1):
                clock.window[i + missing] = clock.window[i]
            for i in range(missing - 1, -1, -1):
                clock.window[i] = clock.window[i + 1] - clock.duration
        elif missing < 0:
            for i in range(depth + 1):
                clock.window[i] = clock.window[i - missing]
        clock.window_count = depth + 1
        return clock.window[0]

    cdef int64_t substitute(self, TrackClock clock, double arrived, bint knows, int64_t passed) noexcept:
        """Return a time for a picture that has none: by its rate if the others have times, else by RTP, else by
        arrival."""
        if not clock.has_top:
            return self.front if self.has_front else 0
        if clock.moving and not clock.witness.misled:
            return clock.top + clock.duration
        return clock.top + (passed if knows else self.arrival_passed(clock, arrived))

    # Sound

    cdef int64_t sound_time(self, TrackClock clock, object given, double arrived, object rtp_timestamp, double now) except? -1:
        cdef int64_t raw = 0, passed = 0, shift, slewed, before = clock.last_dts, pts
        cdef bint had_dts = clock.has_dts, knows = rtp_passed(clock, rtp_timestamp, &passed), has_raw = read_time(given, &raw)
        if has_raw and clock.witness.compare(raw, clock.passed != 0, clock.passed, arrived, clock.has_top, clock.top):
            self.tell_unit(clock, now)
        shift = self.drift.line + self.drift.sound
        slewed, clock.shift = shift - clock.shift, shift
        if has_raw and not (clock.has_raw and raw == clock.last_raw) and not clock.witness.misled:
            clock.remainder = 0
            pts = self.place(clock, raw, shift, arrived, now)
        else:
            self.tally.add("timeline.substituted", now=now)
            pts = self.sound_goes_on(clock, arrived, knows, passed) + slewed
        if had_dts:
            self.follow(clock, pts, pts - before, arrived, now)
        return pts

    cdef int64_t sound_goes_on(self, TrackClock clock, double arrived, bint knows, int64_t passed) noexcept:
        """Return a time for sound that has none: by its samples, unless the clock says that some were lost."""
        cdef int64_t by_clock
        if not clock.has_next or not clock.has_top:
            return self.front if self.has_front else 0
        if clock.moving and not clock.witness.misled:
            return clock.next_pts
        by_clock = clock.top + (passed if knows else self.arrival_passed(clock, arrived))
        if by_clock - clock.next_pts > BACK:  # something was lost; samples alone would lag for ever
            clock.remainder = 0
            return by_clock
        return clock.next_pts

    cdef int64_t advance(self, TrackClock clock, int64_t pts, int64_t samples, int64_t sample_rate) except? -1:
        """Note that `samples` begin at `pts`; return pts, repaired where it does not rise."""
        cdef int64_t parts, whole
        if clock.has_dts and pts < clock.last_dts + LEAST:
            pts = clock.last_dts + LEAST
        parts = samples * HZ + clock.remainder
        whole, clock.remainder = parts // sample_rate, parts % sample_rate
        clock.has_next, clock.next_pts = True, pts + whole
        clock.duration = max(whole, 1)
        clock.has_dts, clock.last_dts = True, pts
        clock.has_top, clock.top = True, pts
        self.front = max(self.front, pts) if self.has_front else pts
        self.has_front = True
        return pts

    cdef list adts(self, TrackClock clock, AccessUnit unit, double arrived, object rtp_timestamp, double now):
        cdef object splitter = clock.splitter
        cdef int64_t pts
        cdef bint stamped = False
        cdef list out = []
        skipped, refused = splitter.skipped, splitter.refused
        if unit.discontinuity:
            splitter.reset()
        frames = splitter.push(bytes(unit))
        if splitter.skipped != skipped or splitter.refused != refused:
            self.tally.add("timeline.adts_skipped_bytes", splitter.skipped - skipped, now=now)
            self.tally.add("timeline.adts_refused", splitter.refused - refused, now=now)
        for frame in frames:
            if (frame.carried and clock.has_next) or stamped:
                pts = clock.next_pts if clock.has_next else 0
            else:
                stamped = True
                pts = self.sound_time(clock, unit.pts, arrived, rtp_timestamp, now)
            pts = self.advance(clock, pts, AAC_SAMPLES, frame.sample_rate)
            clock.passed = clock.passed + clock.duration if out else clock.duration
            out.append(
                AccessUnit(
                    frame.data, unit.codec, pts, pts, is_keyframe=True, parameter_sets=(frame.config,), track_id=unit.track_id,
                    discontinuity=unit.discontinuity and not out, arrived=unit.arrived,
                )
            )
        return out

    # The line

    cdef int64_t place(self, TrackClock clock, int64_t raw, int64_t shift, double arrived, double now) except? -1:
        """Put a camera's time on the line: by the track's own offset, by the newest one, or by a new one."""
        cdef bint had_raw = clock.has_raw, is_own = True
        cdef int64_t before = clock.last_raw, own = raw + clock.offset + shift, own_miss, shared, shared_miss, place = own
        clock.has_raw, clock.last_raw = True, raw
        if had_raw:
            clock.moving = True
        if not self.has_front:
            return own
        own_miss = self.miss(clock, own)
        if clock.segment != self.segment:
            shared = raw + self.offset + shift
            shared_miss = self.miss(clock, shared)
            if abs(shared_miss) < abs(own_miss) and -BACK <= shared_miss <= FORWARD:
                clock.offset, clock.segment = self.offset, self.segment
                clock.window_count = 0
                place = shared
                is_own = False
        if is_own and self.is_jump(clock, own_miss, arrived, now):
            self.segment += 1
            self.offset = self.front + clock.duration - raw - shift
            clock.offset, clock.segment = self.offset, self.segment
            clock.window_count = 0
            self.drift.restart()
            place = raw + clock.offset + shift
        if had_raw and raw > before:
            clock.last_step = raw - before
        return place

    cdef bint is_jump(self, TrackClock clock, int64_t miss, double arrived, double now) except -1:
        """Is a time that lies `miss` ticks beside where it was expected of another time line? Counts it if so."""
        cdef int64_t back = BACK, waited, explained
        cdef bint found
        if not clock.has_top:
            found = not -BACK <= miss <= FORWARD
        else:
            if not clock.is_video or clock.explicit_dts or clock.sps_depth >= 0:
                back = BACK_IN_ORDER
            if -back <= miss <= UNEXPLAINED:  # the ordinary unit: what is below needs not be asked
                return False
            waited = to_ticks(max(arrived - (clock.last_arrival if clock.has_arrival else arrived), 0.0))
            explained = max(waited + UNEXPLAINED + clock.reach(), 2 * clock.last_step)
            if UNEXPLAINED < miss <= waited + waited // 4 + UNEXPLAINED and miss > FORWARD:
                self.tally.add("timeline.silence", now=now)
                return True
            found = miss < -back or miss > FORWARD or miss > explained
        if found:
            self.tally.add("timeline.jump", now=now)
        return found

    cdef int follow(self, TrackClock clock, int64_t time, int64_t step, double arrived, double now) except -1:
        """Let the drift see a placed unit, and do what it says."""
        cdef TrackClock other
        cdef Slew slew = self.drift.follow(clock.is_video, time, step, arrived)
        cdef int64_t late
        if slew != NO_SLEW:
            self.tally.add("timeline.drift", detail="sound" if slew == SLEW_SOUND else "line", now=now)
        late = self.drift.resync()
        if late:
            self.tally.add("timeline.resync", now=now)
            for other in self.clocks.values():
                if other.is_video == (late > 0):
                    other.move(abs(late))
        return 0

    cdef int tell_unit(self, TrackClock clock, double now) except -1:
        """The verdict on the unit of a camera's PTS has changed: bring together again what went apart meanwhile."""
        cdef TrackClock other
        cdef int64_t astray
        clock.window_count = 0
        if not clock.witness.misled:
            return 0
        self.tally.add("timeline.wrong_unit", detail=clock.codec.name, now=now)
        clock.explicit_dts = False
        astray = clock.witness.astray
        self.drift.restart()
        if astray < 0:
            clock.shift += astray  # it stayed behind, and is moved on
            return 0
        for other in self.clocks.values():
            if other is not clock:  # it ran ahead, and nothing goes back: the others follow
                other.move(astray)
        return 0

    cdef int64_t miss(self, TrackClock clock, int64_t pts) noexcept:
        """How far `pts` is from where the track, or the program where that is nearer, would go on."""
        cdef int64_t by_line = pts - self.front if self.has_front else 0, by_track
        if not clock.has_top or not clock.has_dts:
            return by_line
        # between dts and the greatest pts is where B-frames belong, however long the pyramid
        by_track = pts - clock.top if pts > clock.top else min(pts - clock.last_dts, 0)
        if by_track >= 0 >= by_line > -FORWARD // 4:
            return 0  # the track is behind, and catches up
        return by_track if abs(by_track) < abs(by_line) else by_line

    cdef void reached(self, TrackClock clock, int64_t pts) noexcept:
        clock.top = max(clock.top, pts) if clock.has_top else pts
        clock.has_top = True
        self.front = max(self.front, pts) if self.has_front else pts
        self.has_front = True

    cdef int64_t arrival_passed(self, TrackClock clock, double arrived) noexcept:
        if not clock.has_arrival:
            return clock.duration
        return min(max(to_ticks(arrived - clock.last_arrival), LEAST), <int64_t>FORWARD)


cdef bint rtp_passed(TrackClock clock, object rtp_timestamp, int64_t* passed) except -1:
    """Ticks since the last unit by the RTP time stamp; False where it is missing, stands still or is absurd."""
    cdef uint32_t stamp
    cdef bint had = clock.has_rtp
    if rtp_timestamp is None:
        return False
    stamp = <uint32_t>PyLong_AsUnsignedLongMask(rtp_timestamp)
    if not had:
        clock.has_rtp = True
        clock.last_rtp = stamp
        return False
    passed[0] = <int32_t>(stamp - <uint32_t>clock.last_rtp)
    clock.last_rtp += passed[0]
    return 0 < passed[0] <= FORWARD
