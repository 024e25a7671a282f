"""HTTP Live Streaming out of a Feed's chunks: where parts and segments are cut (RFC 8216bis).

Sans-IO: a Segmenter is a ChunkSink; serve/hls.py attaches it (`feed.attach(segmenter, splice=True)`) and answers
requests from its playlist. A stream that already runs is playable at once: the cached GOP becomes the first segment as
soon as it is START_SECONDS long, and the rest of that GOP follows in parts.

In fMP4, units are grouped into parts of about PART_SECONDS (docs/adr/0015 says why not one by one); a part is listed in
the call that brings its last unit. The length of that unit is then an estimate; what it was wrong by falls to the next
part, so that lengths add up. MPEG-TS stays plain HLS.
"""

import math
from collections.abc import Callable
from statistics import median
from typing import Final

from gbgw.base import limits
from gbgw.base.errors import GatewayError
from gbgw.base.ticks import HZ
from gbgw.mux.feed import Chunk
from gbgw.mux.fragment import NOMINAL_VIDEO_TICKS, with_durations
from gbgw.mux.playlist import Container, MediaPlaylist, OpenSegment

SEGMENT_TYPES: Final[dict[Container, str]] = {"mp4": "video/mp4", "ts": "video/mp2t"}
TARGET_SECONDS: Final = 1.0  # the least length of a segment; it ends with the GOP in which it reaches this
START_SECONDS: Final = 0.5  # the least length of the first segment, which may end inside a GOP
LONG_START_SECONDS: Final = 3.0  # a first MPEG-TS segment of this length is enough by itself
PART_SECONDS: Final = 0.2  # what a part is made of: whole pictures up to about this length
PART_FILL: Final = 0.925  # regular parts by EXT-X-PART-INF: half-way between the least and the most (4.4.4.9)
GOP_SECONDS: Final = 2.0  # taken for the length of a GOP until one is known: what most cameras come with
HOLE_SECONDS: Final = 1.0  # a longer pause in the pictures is a discontinuity
HOLE_PICTURES: Final = 3  # and at least so many pictures long
CLOCK_SECONDS: Final = 0.5  # EXT-X-PROGRAM-DATE-TIME may run apart from the arrival by this; then it is set anew
PICTURE_SPREAD: Final = 1.5  # pictures jitter by less; beyond that the camera sends at another rate now
SLOW_PARTS: Final = 3  # in a row that were too long: the camera sends fewer pictures now
_INTERVALS: Final = 50  # between pictures, looked at for the length of one


class Segmenter:
    """Parts and segments of one Feed in one container; bounded in segments and bytes.

    container: must be that of the Feed, whose format is called alike.
    wall_offset: Unix seconds minus loop seconds.
    first_sequence: media sequence number to begin with; one that grows with time lets a player survive a restart of the
    Segmenter. expected_seconds: length of a GOP where known, else 0: a longer one is cut inside, for
    EXT-X-TARGETDURATION must not change. part_seconds: 0: no parts. on_change: called after each new part or segment,
    and at the end; must not block.
    """

    def __init__(
        self,
        container: Container,
        *,
        wall_offset: float = 0.0,
        first_sequence: int = 0,
        target_seconds: float = TARGET_SECONDS,
        start_seconds: float = START_SECONDS,
        part_seconds: float = PART_SECONDS,
        expected_seconds: float = 0.0,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        gop = min(expected_seconds or GOP_SECONDS, limits.HLS_SEGMENT_SECONDS)
        # A segment rounds to its length; short GOPs are joined up to twice the target.
        duration = max(math.ceil(2 * target_seconds), math.ceil(gop - 0.49), 1)
        self.playlist = MediaPlaylist(container, first_sequence=first_sequence, target_duration=duration)
        self.container: Container = container
        self.cause: GatewayError | None = None
        self._wall_offset = wall_offset
        self._target = round(target_seconds * HZ)
        self._start = round(start_seconds * HZ)
        self._part_seconds = part_seconds if container == "mp4" else 0.0
        self._on_change = on_change
        self._init = -1
        self._main = 0  # track id of the pictures, or of the sound where there are none
        self._is_open = False  # a segment
        self._is_independent = False  # it began with a key frame
        self._has_picture = False  # the open segment, not only sound
        self._begun = 0  # ticks: where the open segment begins
        self._at = 0  # ticks: where the open part begins; all before it is listed
        self._end = 0  # ticks: where the last picture ends, as far as known
        self._last_dts: int | None = None  # of the main track
        self._length = 0  # ticks listed of the open segment
        self._pieces: list[bytes] = []  # of the open segment, but for what is pending
        self._pieces_bytes = 0
        self._pending: list[Chunk] = []
        self._pending_bytes = 0
        self._intervals: list[int] = []
        self._picture = NOMINAL_VIDEO_TICKS
        self._slow_parts = 0
        self._discontinuity = False
        self._is_live = False
        self._clock: float | None = None  # Unix seconds at tick 0

    @property
    def ended(self) -> bool:
        return self.playlist.ended

    @property
    def ready(self) -> bool:
        """True when a player can start.

        MPEG-TS is for players of every age. GStreamer's, whose first playlist has one segment, loses its place at the
        next reload and never shows a picture, so there are two, unless the first is long and a second too far away.
        """
        listed = self.playlist.segments
        if self.container == "ts" and len(listed) == 1:
            return listed[0].duration >= LONG_START_SECONDS
        return self.playlist.ready

    @property
    def held_bytes(self) -> int:
        return self.playlist.held_bytes + self._pieces_bytes + self._pending_bytes

    # ChunkSink

    def on_chunk(self, chunk: Chunk) -> None:
        if chunk.is_init:
            self._begin(chunk)
            return
        dts = chunk.dts
        if dts is None:
            return
        if chunk.starts_gop:
            self._main = chunk.track_id
        is_main = chunk.track_id == self._main
        if self._is_open:
            self._cut_before(chunk, dts, is_main)
        if not self._is_open:
            self._open(chunk, dts)
        self._pending.append(chunk)
        self._pending_bytes += len(chunk.data)
        if is_main:
            self._has_picture = True
            if self._last_dts is not None and len(self._intervals) < _INTERVALS:
                self._intervals.append(dts - self._last_dts)
            self._last_dts = dts
            self._end = max(self._end, dts + chunk.duration)
        if self._cut_part(chunk, is_main):
            self._changed()

    def begin_live(self) -> None:
        """Say that the chunks so far were the feed's cached GOP (call it right after feed.attach): they may be played
        at once.

        Only for mp4: a TS segment that begins inside a GOP has no tables in front, which some players need.
        """
        self._is_live = True
        if self._may_start_short and self._is_open and self._end - self._begun >= self._start:
            self._end_segment(self._end)

    def on_end(self, cause: GatewayError | None) -> None:
        self._close(self._end)
        self.cause = cause
        self.playlist.end()
        self._changed()

    # Inside

    @property
    def _may_start_short(self) -> bool:
        return self.container == "mp4" and not self.playlist.ready

    @property
    def _longest(self) -> int:
        """Ticks after which a segment is cut inside its GOP: what rounds to the target duration; in MPEG-TS that may
        grow instead.
        """
        if self.container == "ts":
            return round(limits.HLS_SEGMENT_SECONDS * HZ)
        return round((self.playlist.target_duration + 0.49) * HZ)

    def _begin(self, init: Chunk) -> None:
        """A generation starts: what is pending belongs to the one before."""
        self._close(self._end)
        self._pending = []
        self._pending_bytes = 0
        if self._init >= 0:
            self._discontinuity = True
        self._init += 1
        self._last_dts = None
        if self.container == "mp4":
            self.playlist.add_init(self._init, init.data)

    def _open(self, chunk: Chunk, dts: int) -> None:
        """A segment starts with this chunk."""
        arrived = chunk.arrived + self._wall_offset
        if self._clock is None or self._discontinuity or self._last_dts is None:
            self._at = dts
            self._clock = arrived - dts / HZ
        self._begun = self._at
        self._end = max(self._at, dts)
        started = self._clock + self._begun / HZ
        if abs(started - arrived) > CLOCK_SECONDS:
            self._clock += arrived - started
            started = arrived
        self._is_open = True
        self._is_independent = chunk.starts_gop
        self._has_picture = False
        self._length = 0
        self.playlist.open = OpenSegment(self._init, self._discontinuity, chunk.starts_gop, started)
        self._discontinuity = False

    def _cut_before(self, chunk: Chunk, dts: int, is_main: bool) -> None:
        """End the open segment where it must not hold `chunk`."""
        if self._pieces_bytes + self._pending_bytes + len(chunk.data) > limits.HLS_SEGMENT_BYTES:
            self._close(self._end)
        elif chunk.starts_gop and not self._has_picture and not self._length and self.playlist.open is not None:
            self._is_independent = self.playlist.open.independent = True  # a little sound came before its picture
        elif is_main:
            length = dts - self._begun
            # The first segment, and the rest of a GOP that was cut, end with their GOP however short they are.
            least = self._target if self.playlist.ready and self._is_independent else 1
            if self.container == "mp4" and self._is_hole(dts):
                self._end_segment(self._end)
                self._discontinuity = True
            elif (
                (chunk.starts_gop and length >= least)
                or (length >= self._longest if self.container == "ts" else length + chunk.duration > self._longest)
                or (self._is_live and self._may_start_short and length >= self._start)
            ):
                self._end_segment(dts)

    def _end_segment(self, end: int) -> None:
        """End it before a picture. Sound since its last part goes into the next one, rather than into a tiny part."""
        self._begin_parts()
        held: list[Chunk] = []
        if self._length and not any(chunk.track_id == self._main for chunk in self._pending):
            held, self._pending = self._pending, []
        self._close(end)
        self._pending = held
        self._pending_bytes = sum([len(chunk.data) for chunk in held])

    def _is_hole(self, dts: int) -> bool:
        pause = dts - max(self._at, self._end)
        return pause > HOLE_SECONDS * HZ and pause > HOLE_PICTURES * self._picture

    def _begin_parts(self) -> None:
        """Learn how long parts are, at the end of the first segment, and divide that: a client that sees no part in
        its first playlist waits for a whole segment next.
        """
        if not self._part_seconds or self.playlist.part_target or not self._intervals:
            return
        self._picture = max(round(median(self._intervals)), 1)
        self._set_part_target(max(1, int(self._part_seconds * HZ / self._picture + 0.1)) * self._picture)
        chunks, self._pending = self._pending, []
        end, self._end = self._end, self._at
        for chunk in chunks:
            self._pending.append(chunk)
            is_main = chunk.track_id == self._main
            if is_main and chunk.dts is not None:
                self._end = max(self._end, chunk.dts + chunk.duration)
            self._cut_part(chunk, is_main)
        self._end = end

    def _cut_part(self, chunk: Chunk, is_main: bool) -> bool:
        """List what is pending when no further picture fits into the part; return True when it was."""
        target = self.playlist.part_target
        if not target:
            return False
        if is_main:
            usual = self._picture  # as long as the camera keeps to it
            is_usual = usual / PICTURE_SPREAD <= chunk.duration <= usual * PICTURE_SPREAD
            if self._end + (usual if is_usual else chunk.duration) > self._at + target:
                self._close_part(self._end)
                return True
        elif chunk.arrived - self._pending[0].arrived > 2 * target / HZ:
            # Sound alone, for the pictures wait for a key frame: it goes on, or players would take us for dead.
            self._close_part(self._at + target)
            return True
        return False

    def _close_part(self, end: int) -> None:
        """Put what is pending into the open segment, as a part where parts are listed. end: ticks."""
        pending, self._pending = self._pending, []
        self._pending_bytes = 0
        data = [chunk.data for chunk in pending]
        joined = with_durations(data) if self.container == "mp4" else b"".join(data)
        ticks = max(end - self._at, 1)
        target = self.playlist.part_target
        if target:
            is_slow = ticks > target and sum([chunk.track_id == self._main for chunk in pending]) == 1
            self._slow_parts = self._slow_parts + 1 if is_slow else 0
            if self._slow_parts >= SLOW_PARTS:
                self._picture = ticks
                target = self._set_part_target(ticks)
            ticks = min(ticks, target)  # a pause is not counted: nothing would be there to play
            is_independent = any(chunk.starts_gop for chunk in pending)
            self.playlist.add_part(joined, ticks, independent=is_independent)
        self._at = end
        self._length += ticks
        self._pieces.append(joined)
        self._pieces_bytes += len(joined)

    def _close(self, end: int) -> None:
        """End the open segment, where there is one. end: ticks."""
        if not self._is_open:
            return
        if self._pending:
            if self.container == "ts":
                end = max(end, self._end)
            self._close_part(end)
        playlist = self.playlist
        if self.container == "ts":
            playlist.target_duration = max(playlist.target_duration, int(self._length / HZ + 0.5))
        playlist.close_segment(b"".join(self._pieces), self._length)
        self._pieces = []
        self._pieces_bytes = 0
        self._is_open = False
        self._changed()

    def _set_part_target(self, ticks: int) -> int:
        """Say what parts that last `ticks` need, in whole milliseconds. Only pictures that are seconds long raise the
        target duration.
        """
        target = math.ceil(ticks / PART_FILL / (HZ // 1000)) * (HZ // 1000)
        self.playlist.part_target = target
        self.playlist.target_duration = max(self.playlist.target_duration, math.ceil(target / HZ))
        return target

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change()
