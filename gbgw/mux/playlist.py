"""Media and multivariant playlists: what is kept, what is listed, and how it is written (RFC 8216bis,
draft-pantos-hls-rfc8216bis-20).

Sans-IO. The text is the same for every viewer: its URIs are relative (init-0.mp4, 12.m4s, 12.ts, p87.m4s), so it is
written, and packed, once per change. A part's number counts through the whole life of the playlist and not within its
segment: the hinted URI is right whether the next part continues the segment or begins another, after a discontinuity or
not (section 4.4.5.3 allows both).

Leaves out: encryption, date ranges, rendition reports (there is one rendition), EVENT and VOD playlists.
"""

import gzip
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from gbgw.base import limits
from gbgw.base.ticks import HZ
from gbgw.media.track import Track

Container = Literal["mp4", "ts"]
CONTENT_TYPE: Final = "application/vnd.apple.mpegurl"
KEPT_DURATIONS: Final = 8  # target durations in the playlist: six that no delta may skip (4.4.3.8), and two that it can
RETIRED_SEGMENTS: Final = 3  # still served after they left the playlist (section 6.2.2 asks for it)
PARTS_DURATIONS: Final = 3  # target durations from the end whose parts are listed (section 6.2.2)
SKIP_DURATIONS: Final = 6  # CAN-SKIP-UNTIL, the least that is allowed (section 4.4.3.8)
HOLD_BACK_PARTS: Final = 3  # PART-HOLD-BACK in parts, as section 4.4.3.8 recommends
ADVANCE_SECONDS: Final = 3.0  # how far ahead of the last part a client may ask (section 6.2.5.2)
ADVANCE_SEGMENTS: Final = 2
DEFAULT_BANDWIDTH: Final = 4_000_000  # bits a second, until a segment is there to be measured
_VERSION: Final = {"mp4": 9, "ts": 3}  # 9: delta updates; 3: durations with decimals


@dataclass(frozen=True, slots=True)
class Part:
    """One partial segment. number: its running number. ticks: duration. independent: a key frame is in it."""

    number: int
    data: bytes
    ticks: int
    independent: bool

    @property
    def line(self) -> str:
        tail = ",INDEPENDENT=YES" if self.independent else ""
        return f'#EXT-X-PART:DURATION={_decimal(self.ticks)},URI="p{self.number}.m4s"{tail}\n'


@dataclass(frozen=True, slots=True)
class Segment:
    """One media segment; its bytes are those of its parts, where it has any.

    sequence: its media sequence number. ticks: duration. init: number of its init segment.
    discontinuity: it does not continue the one before. independent: it begins with a key frame.
    started: Unix seconds of its first unit. parts: their running numbers.
    """

    sequence: int
    data: bytes
    ticks: int
    init: int
    discontinuity: bool
    independent: bool
    started: float
    parts: range = range(0)

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.ticks / HZ


@dataclass(slots=True)
class OpenSegment:
    """The segment in the making: what is known of it when its first part is listed."""

    init: int
    discontinuity: bool
    independent: bool
    started: float


class MediaPlaylist:
    """The segments of one Segmenter; bounded in time and bytes.

    container: "ts" is plain HLS, without parts, blocking reloads and deltas.
    first_sequence: media sequence number to begin with.
    target_duration: EXT-X-TARGETDURATION, seconds. It must not change once somebody has read it (section 6.2.1).
    part_target: EXT-X-PART-INF's, ticks; 0: there are no parts (yet).
    """

    def __init__(self, container: Container, *, first_sequence: int = 0, target_duration: int = 2) -> None:
        self.container: Container = container
        self.target_duration = target_duration
        self.part_target = 0
        self.ended = False
        self.open: OpenSegment | None = None
        self._next = first_sequence  # of the open segment
        self._next_part = 0
        self._open_parts: list[Part] = []
        self._segments: deque[Segment] = deque()  # retired ones first
        self._texts: deque[tuple[str, str]] = deque()  # of the same: with parts, without
        self._parts: dict[int, Part] = {}
        self._retired = 0
        self._ticks = 0  # of the listed segments
        self._bytes = 0
        self._discontinuities = 0  # of segments that left the playlist
        self._inits: dict[int, bytes] = {}
        self._written: dict[tuple[bool, bool], bytes] = {}  # (delta, packed): as it stands now

    # What the Segmenter says

    def add_init(self, number: int, data: bytes) -> None:
        self._inits[number] = data

    def add_part(self, data: bytes, ticks: int, *, independent: bool) -> None:
        """List a part of the open segment."""
        part = Part(self._next_part, data, ticks, independent)
        self._next_part += 1
        self._open_parts.append(part)
        self._parts[part.number] = part
        self._bytes += len(data)
        self._written.clear()

    def close_segment(self, data: bytes, ticks: int) -> None:
        """The open segment is whole."""
        head = self.open
        if head is None:
            return
        segment = Segment(
            self._next,
            data,
            ticks,
            head.init,
            head.discontinuity,
            head.independent,
            head.started,
            range(self._next_part - len(self._open_parts), self._next_part),
        )
        lines = "".join([part.line for part in self._open_parts])
        self.open = None
        self._open_parts = []
        self._next += 1
        end = f"#EXTINF:{_decimal(ticks)},\n{segment.sequence}.{'m4s' if self.container == 'mp4' else 'ts'}\n"
        self._segments.append(segment)
        self._texts.append((lines + end, end))
        self._ticks += ticks
        self._bytes += len(data)
        self._retire(head.init)
        self._written.clear()

    def end(self) -> None:
        """Nothing follows."""
        self.ended = True
        self._written.clear()

    # What is there

    @property
    def segments(self) -> Sequence[Segment]:
        """Those listed, oldest first."""
        return tuple(self._segments)[self._retired :]

    @property
    def open_parts(self) -> Sequence[Part]:
        """Parts of the segment that is not whole yet."""
        return tuple(self._open_parts)

    @property
    def ready(self) -> bool:
        """True when a player can start."""
        return len(self._segments) > self._retired

    @property
    def held_bytes(self) -> int:
        return self._bytes

    @property
    def part_target_seconds(self) -> float:
        return self.part_target / HZ

    def segment(self, sequence: int) -> bytes | None:
        """Return a segment's bytes; None where it is not kept (any more)."""
        if not self._segments:
            return None
        index = sequence - self._segments[0].sequence
        return self._segments[index].data if 0 <= index < len(self._segments) else None

    def part(self, number: int) -> bytes | None:
        """Return a part's bytes; None where it is not kept (any more), or not made yet."""
        part = self._parts.get(number)
        return part.data if part is not None else None

    def is_hinted(self, number: int) -> bool:
        """True for the part that comes next: who asks for it waits."""
        return self.part_target > 0 and not self.ended and number == self._next_part

    def init(self, number: int) -> bytes | None:
        """Return an init segment (mp4 only); None where no segment needs it (any more)."""
        return self._inits.get(number)

    # Blocking reload (section 6.2.5.2)

    def has(self, sequence: int, part: int | None) -> bool:
        """True when the playlist holds this segment, or this part of it, or something later; also when nothing more
        will come.
        """
        if self.ended or sequence < self._next - 1:
            return True
        if sequence == self._next - 1:
            if part is None or not self._segments or part < len(self._segments[-1].parts):
                return True
            return bool(self._open_parts)  # beyond its last part: the first part of the next one
        return sequence == self._next and part is not None and part < len(self._open_parts)

    def is_too_far(self, sequence: int, part: int | None) -> bool:
        """True for what a client that has read this playlist cannot know of yet."""
        if sequence > self._next - 1 + ADVANCE_SEGMENTS:
            return True
        if part is None or self.part_target <= 0:
            return False
        limit = math.ceil(ADVANCE_SECONDS / min(self.part_target_seconds, 1.0))
        last = len(self._open_parts) - 1 if sequence == self._next else -1
        return sequence >= self._next and part > last + limit

    # As text

    def write(self, *, delta: bool = False, packed: bool = False) -> bytes:
        """Return the playlist; the same object until it changes.

        delta: leave out what lies before the skip boundary, where there is anything (section 6.2.5.1).
        packed: in gzip.
        """
        found = self._written.get((delta, packed))
        if found is None:
            found = gzip.compress(self.write(delta=delta), 6, mtime=0) if packed else self._text(delta).encode()
            self._written[delta, packed] = found
        return found

    def _text(self, delta: bool) -> str:
        shown = self.segments
        texts = tuple(self._texts)[self._retired :]
        skipped = self._skippable(shown) if delta else 0
        lines = [f"#EXTM3U\n#EXT-X-VERSION:{_VERSION[self.container]}\n#EXT-X-TARGETDURATION:{self.target_duration}\n"]
        if self.part_target:
            target = self.part_target_seconds
            lines.append(
                f"#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={HOLD_BACK_PARTS * target:.3f}"
                f",CAN-SKIP-UNTIL={SKIP_DURATIONS * self.target_duration}.0\n"
                f"#EXT-X-PART-INF:PART-TARGET={target:.3f}\n"
            )
        lines.append(f"#EXT-X-MEDIA-SEQUENCE:{shown[0].sequence if shown else self._next}\n")
        if self._discontinuities:
            lines.append(f"#EXT-X-DISCONTINUITY-SEQUENCE:{self._discontinuities}\n")
        head = self.open if self._open_parts else None
        if shown and all(segment.independent for segment in shown) and (head is None or head.independent):
            lines.append("#EXT-X-INDEPENDENT-SEGMENTS\n")
        if skipped:
            lines.append(f"#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}\n")
        with_parts = self._first_with_parts(shown)
        init = shown[skipped - 1].init if skipped else -1
        for index in range(skipped, len(shown)):
            lines.append(self._head(shown[index], init))
            init = shown[index].init
            lines.append(texts[index][index < with_parts])
        if head is not None:
            lines.append(self._head(head, init))
            lines.extend([part.line for part in self._open_parts])
        if self.ended:
            lines.append("#EXT-X-ENDLIST\n")
        elif self.part_target:
            lines.append(f'#EXT-X-PRELOAD-HINT:TYPE=PART,URI="p{self._next_part}.m4s"\n')
        return "".join(lines)

    def _head(self, segment: Segment | OpenSegment, init: int) -> str:
        """The tags in front of a segment, or of its first part. init: that of the segment before."""
        lines = "#EXT-X-DISCONTINUITY\n" if segment.discontinuity else ""
        if self.container == "mp4" and segment.init != init:
            lines += f'#EXT-X-MAP:URI="init-{segment.init}.mp4"\n'
        started = datetime.fromtimestamp(segment.started, UTC)
        stamp = f"{started.strftime('%Y-%m-%dT%H:%M:%S')}.{started.microsecond // 1000:03}Z"
        return f"{lines}#EXT-X-PROGRAM-DATE-TIME:{stamp}\n"

    def _open_ticks(self) -> int:
        return sum([part.ticks for part in self._open_parts])

    def _skippable(self, shown: Sequence[Segment]) -> int:
        """How many of the oldest segments end before the skip boundary."""
        if not self.part_target:
            return 0
        left = self._ticks + self._open_ticks()
        count = 0
        for segment in shown:
            left -= segment.ticks
            if left < SKIP_DURATIONS * self.target_duration * HZ:
                break
            count += 1
        return count

    def _first_with_parts(self, shown: Sequence[Segment]) -> int:
        """Index of the oldest segment whose parts are listed."""
        left = self._open_ticks()
        for index in range(len(shown) - 1, -1, -1):
            if left > PARTS_DURATIONS * self.target_duration * HZ:
                return index + 1
            left += shown[index].ticks
        return 0

    # Bounds

    def _retire(self, init: int) -> None:
        most = KEPT_DURATIONS * self.target_duration * HZ
        while len(self._segments) - self._retired > 1 and self._ticks - self._segments[self._retired].ticks >= most:
            self._leave_playlist()
        self._drop_parts()
        while self._retired > RETIRED_SEGMENTS or (self._bytes > limits.HLS_WINDOW_BYTES and len(self._segments) > 1):
            if not self._retired:
                self._leave_playlist()
            self._retired -= 1
            gone = self._segments.popleft()
            self._texts.popleft()
            self._bytes -= len(gone.data)
            self._drop_parts_of(gone)
        needed = {segment.init for segment in self._segments} | {init, max(self._inits, default=init)}
        for number in [number for number in self._inits if number not in needed]:
            del self._inits[number]

    def _drop_parts(self) -> None:
        """Parts that left the playlist a target duration ago are only in their segments' bytes."""
        left = 0
        for segment in reversed(self._segments):
            if left > (PARTS_DURATIONS + 1) * self.target_duration * HZ:
                if segment.parts and segment.parts[0] not in self._parts:
                    return
                self._drop_parts_of(segment)
            left += segment.ticks

    def _drop_parts_of(self, segment: Segment) -> None:
        for number in segment.parts:
            part = self._parts.pop(number, None)
            if part is not None:
                self._bytes -= len(part.data)

    def _leave_playlist(self) -> None:
        gone = self._segments[self._retired]
        self._ticks -= gone.ticks
        if gone.discontinuity:
            self._discontinuities += 1
        self._retired += 1


def multivariant(
    playlist: MediaPlaylist, tracks: Sequence[Track], media_uri: str, *, frame_rate: float = 0.0, bitrate: float = 0.0
) -> str:
    """Return the multivariant playlist that names `media_uri`.

    tracks: those in the segments. bitrate: bits a second of the stream where known: what stands in for a peak that no
    segment has shown yet.
    """
    segments = [segment for segment in playlist.segments if segment.ticks > 0]
    rates = [len(segment.data) * 8 / segment.duration for segment in segments]
    attributes = [f"BANDWIDTH={math.ceil(max(rates, default=bitrate)) or DEFAULT_BANDWIDTH}"]
    if segments:
        sent = sum([len(segment.data) for segment in segments]) * 8
        attributes.append(f"AVERAGE-BANDWIDTH={math.ceil(sent / sum([segment.duration for segment in segments]))}")
    codecs = [track.rfc6381 for track in tracks]
    if codecs and all(codecs):
        attributes.append(f'CODECS="{",".join(codecs)}"')
    video = next((track for track in tracks if track.is_video), None)
    if video is not None and video.width and video.height:
        attributes.append(f"RESOLUTION={video.width}x{video.height}")
    if video is not None and frame_rate > 0:
        attributes.append(f"FRAME-RATE={frame_rate:.3f}")
    if video is not None:
        attributes.append("CLOSED-CAPTIONS=NONE")
    version = _VERSION[playlist.container]
    return f"#EXTM3U\n#EXT-X-VERSION:{version}\n#EXT-X-STREAM-INF:{','.join(attributes)}\n{media_uri}\n"


def _decimal(ticks: int) -> str:
    """Seconds with five places, a little more than a tick is."""
    return f"{ticks / HZ:.5f}"
