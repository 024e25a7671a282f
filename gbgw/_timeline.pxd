"""Declarations of the time line core; bodies in _timeline.pyx, Python's view in _timeline.pyi."""

from libc.stdint cimport int64_t

from gbgw._ps cimport AccessUnit


cdef enum:
    PICTURES = 16  # of reordering that are looked at
    WINDOWS = 30  # of the line's lead


cdef class ReorderMeter:
    cdef readonly int depth
    cdef int64_t[16] recent  # the last pts, in no order
    cdef int count
    cdef int next
    cdef int most  # of them that count
    cdef bint has_top
    cdef int64_t top

    cpdef void push(self, int64_t pts) noexcept
    cpdef void restart(self) noexcept


cdef class Witness:
    cdef readonly bint misled
    cdef readonly int64_t astray
    cdef bint has_line
    cdef int64_t line
    cdef int64_t since
    cdef bint has_begun
    cdef int64_t begun
    cdef double at
    cdef int64_t seen
    cdef int count
    cdef double last_ratio

    cdef bint compare(self, int64_t pts, bint knows, int64_t passed, double arrived, bint has_line, int64_t line) noexcept
    cpdef void move(self, int64_t by) noexcept
    cdef void begin(self, int64_t pts, double arrived) noexcept


cdef struct Lead:  # of one track: the greatest in the window in progress, and in the last whole one
    bint has_window
    int64_t window
    int64_t best
    int64_t first_time
    double first_at
    int64_t last_time
    double last_at
    int seen
    bint is_live  # the last whole window ran at the speed of the wall clock
    bint has_index
    int64_t index  # of the last whole window
    int64_t value


cdef enum Slew:
    NO_SLEW = 0
    SLEW_SOUND
    SLEW_LINE


cdef class Drift:
    cdef readonly int64_t line
    cdef readonly int64_t sound
    cdef readonly int64_t skew
    cdef Lead picture_lead
    cdef Lead sound_lead
    cdef bint has_apart
    cdef int64_t apart  # leads of sound and picture apart, as they should be
    cdef bint has_base
    cdef int64_t base  # the master's lead as it should be
    cdef int64_t[31] past  # the master's leads, oldest first
    cdef int past_count
    cdef bint has_judged
    cdef int64_t judged  # the last window that had both
    cdef int skewed  # windows in a row
    cdef int lost
    cdef int64_t synced  # the window after which the effect of the last resync can be seen
    cdef int64_t sound_due  # what is still to be added to `sound`
    cdef int64_t line_due
    cdef int64_t rest  # the window after which the effect of the last slew can be seen

    cdef Slew follow(self, bint is_picture, int64_t time, int64_t step, double arrived) noexcept
    cpdef int64_t resync(self) noexcept
    cpdef void restart(self) noexcept
    cdef bint judge_skew(self) noexcept
    cdef bint judge_line(self) noexcept


cdef class TrackClock:  # where one track stands on the line
    cdef object codec
    cdef bint is_video
    cdef int sample_rate
    cdef object splitter  # of AAC; None
    cdef tuple seen_sets
    cdef int64_t offset
    cdef int64_t segment  # number of the segment the offset belongs to
    cdef int64_t duration
    cdef bint explicit_dts
    cdef bint has_raw
    cdef int64_t last_raw
    cdef bint has_dts
    cdef int64_t last_dts
    cdef bint has_top
    cdef int64_t top  # greatest pts given out
    cdef bint moving  # the camera's PTS has been seen to advance
    cdef int64_t last_step  # of the camera's clock, ticks, jumps included
    cdef int64_t shift  # of the slews, as it was for the last unit
    cdef Witness witness
    cdef int64_t pictures
    cdef int64_t passed  # duration of the last sound, ticks
    cdef bint has_next
    cdef int64_t next_pts
    cdef int64_t remainder  # of next_pts, in 1 / sample rate of a tick
    cdef bint has_arrival
    cdef double last_arrival
    cdef bint has_rtp
    cdef int64_t last_rtp  # unwrapped
    cdef ReorderMeter meter
    cdef int sps_depth  # -1: the SPS does not say
    cdef int64_t[18] window  # the greatest pts so far, rising
    cdef int window_count

    cdef int depth(self) noexcept
    cdef int64_t reach(self) noexcept
    cdef void move(self, int64_t by) noexcept


cdef class Timeline:
    cdef readonly object tally
    cdef object read_sets
    cdef object new_splitter
    cdef dict clocks  # TrackClock by track_id
    cdef int64_t offset
    cdef int64_t segment
    cdef bint has_front
    cdef int64_t front  # greatest pts given out on any track
    cdef Drift drift

    cdef TrackClock admit(self, AccessUnit unit, double now)
    cdef AccessUnit picture(self, TrackClock clock, AccessUnit unit, double arrived, object rtp_timestamp, double now)
    cdef learn(self, TrackClock clock, AccessUnit unit)
    cdef int64_t rank(self, TrackClock clock, int64_t pts) noexcept
    cdef int64_t substitute(self, TrackClock clock, double arrived, bint knows, int64_t passed) noexcept
    cdef int64_t sound_time(self, TrackClock clock, object given, double arrived, object rtp_timestamp, double now) except? -1
    cdef int64_t sound_goes_on(self, TrackClock clock, double arrived, bint knows, int64_t passed) noexcept
    cdef int64_t advance(self, TrackClock clock, int64_t pts, int64_t samples, int64_t sample_rate) except? -1
    cdef list adts(self, TrackClock clock, AccessUnit unit, double arrived, object rtp_timestamp, double now)
    cdef int64_t place(self, TrackClock clock, int64_t raw, int64_t shift, double arrived, double now) except? -1
    cdef bint is_jump(self, TrackClock clock, int64_t miss, double arrived, double now) except -1
    cdef int follow(self, TrackClock clock, int64_t time, int64_t step, double arrived, double now) except -1
    cdef int tell_unit(self, TrackClock clock, double now) except -1
    cdef int64_t miss(self, TrackClock clock, int64_t pts) noexcept
    cdef void reached(self, TrackClock clock, int64_t pts) noexcept
    cdef int64_t arrival_passed(self, TrackClock clock, double arrived) noexcept
