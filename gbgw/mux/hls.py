"""HTTP Live Streaming out of a Feed's chunks: segments cut at key frames and the playlists that name them (RFC 8216).

Sans-IO: a Segmenter is a ChunkSink; serve/hls.py attaches it (`feed.attach(segmenter, splice=True)`) and answers
requests from it. What clients like: `index.m3u8` is the multivariant playlist, whose CODECS lets them choose before
they load anything; it names one media playlist. A stream that already runs is playable at once: the cached GOP becomes
the first segment as soon as it is START_SECONDS long, and the rest of that GOP the second.

Leaves out: low-latency parts (RFC 8216bis), encryption, EVENT and VOD playlists.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from gbgw.base import limits
from gbgw.base.errors import GatewayError
from gbgw.base.ticks import HZ
from gbgw.media.track import Track
from gbgw.mux.feed import Chunk
from gbgw.mux.fragment import with_durations

Container = Literal["mp4", "ts"]
CONTENT_TYPE: Final = "application/vnd.apple.mpegurl"
SEGMENT_TYPES: Final[dict[Container, str]] = {"mp4": "video/mp4", "ts": "video/mp2t"}
TARGET_SECONDS: Final = 1.0  # the least length of a segment; it ends with the GOP in which it reaches this
START_SECONDS: Final = 0.5  # the least length of the first segment, which may end inside a GOP
KEPT_SEGMENTS: Final = 8  # in the playlist: hls.js plays three target durations behind the end
RETIRED_SEGMENTS: Final = 3  # still served after they left the playlist (RFC 8216 section 6.2.2 asks for it)
DEFAULT_BANDWIDTH: Final = 4_000_000  # bits a second, until a segment is there to be measured


@dataclass(frozen=True, slots=True)
class Segment:
    """One media segment.

    sequence: its media sequence number. duration: seconds. init: number of its init segment.
    discontinuity: a new generation begins with it. independent: it begins with a key frame.
    started: Unix seconds of its first unit's arrival.
    """

    sequence: int
    data: bytes
    duration: float
    init: int
    discontinuity: bool
    independent: bool
    started: float


class Segmenter:
    """Segments and playlists of one Feed in one container; bounded in segments and bytes.

    container: must be that of the Feed, whose format is called alike.
    wall_offset: Unix seconds minus loop seconds.
    first_sequence: media sequence number to begin with; one that grows with time lets a player survive a restart of the
    Segmenter. expected_seconds: length of a GOP where known: EXT-X-TARGETDURATION should not have to grow later (RFC
    8216 section 6.2.1). on_segment: called after each new segment, and at the end; must not block.
    """

    def __init__(
        self,
        container: Container,
        *,
        wall_offset: float = 0.0,
        first_sequence: int = 0,
        target_seconds: float = TARGET_SECONDS,
        start_seconds: float = START_SECONDS,
        kept_segments: int = KEPT_SEGMENTS,
        expected_seconds: float = 0.0,
        on_segment: Callable[[], None] | None = None,
    ) -> None:
        self.container: Container = container
        self.ended = False
        self.cause: GatewayError | None = None
        self._wall_offset = wall_offset
        self._target = round(target_seconds * HZ)
        self._start = round(start_seconds * HZ)
        self._kept = kept_segments
        self._on_segment = on_segment
        self._sequence = first_sequence
        self._segments: deque[Segment] = deque()  # retired ones first
        self._retired = 0
        self._bytes = 0
        self._discontinuities = 0  # of segments that left the playlist
        self._longest = max(1, math.ceil(expected_seconds))
        self._inits: dict[int, bytes] = {}
        self._init = -1
        self._pending: list[Chunk] = []
        self._pending_bytes = 0
        self._last_dts = 0
        self._discontinuity = False
        self._is_live = False

    # ChunkSink

    def on_chunk(self, chunk: Chunk) -> None:
        if chunk.is_init:
            self._begin(chunk)
            return
        dts = chunk.dts
        if dts is None:
            return
        if self._pending:
            first = self._pending[0]
            length = dts - (first.dts or 0)
            # The first segment, and the rest of a GOP that was cut, end with their GOP however short they are.
            least = self._target if self._segments and first.starts_gop else 1
            if (
                (chunk.starts_gop and length >= least)
                or length >= limits.HLS_SEGMENT_SECONDS * HZ
                or self._pending_bytes + len(chunk.data) > limits.HLS_SEGMENT_BYTES
                or (self._is_live and length >= self._start and self._may_start_short)
            ):
                self._close(dts)
        self._pending.append(chunk)
        self._pending_bytes += len(chunk.data)
        self._last_dts = max(self._last_dts, dts)

    def begin_live(self) -> None:
        """Say that the chunks so far were the feed's cached GOP (call it right after feed.attach): they may be played
        at once.

        Only for mp4: a TS segment that begins inside a GOP has no tables in front, which some players need.
        """
        self._is_live = True
        if self._pending and self._may_start_short and self._last_dts - (self._pending[0].dts or 0) >= self._start:
            self._close(self._last_dts)

    def on_end(self, cause: GatewayError | None) -> None:
        self._close(self._last_dts)
        self.ended = True
        self.cause = cause
        if self._on_segment is not None:
            self._on_segment()

    # What is served

    @property
    def segments(self) -> Sequence[Segment]:
        """Those of the playlist, oldest first."""
        return tuple(self._segments)[self._retired :]

    @property
    def ready(self) -> bool:
        """True when a player can start."""
        return len(self._segments) > self._retired

    @property
    def held_bytes(self) -> int:
        return self._bytes + self._pending_bytes

    @property
    def target_duration(self) -> int:
        """EXT-X-TARGETDURATION, seconds."""
        return self._longest

    def segment(self, sequence: int) -> bytes | None:
        """Return a segment's bytes; None where it is not kept (any more)."""
        if not self._segments:
            return None
        index = sequence - self._segments[0].sequence
        return self._segments[index].data if 0 <= index < len(self._segments) else None

    def init(self, number: int) -> bytes | None:
        """Return an init segment (mp4 only); None where no segment needs it (any more)."""
        return self._inits.get(number)

    def media_playlist(self, query: str = "") -> str:
        """Return the media playlist. query: appended to each URI, with its "?"; URIs are relative: init-0.mp4, 12.m4s,
        12.ts.
        """
        shown = self.segments
        lines = [
            "#EXTM3U",
            f"#EXT-X-VERSION:{7 if self.container == 'mp4' else 3}",
            f"#EXT-X-TARGETDURATION:{self._longest}",
        ]
        lines.append(f"#EXT-X-MEDIA-SEQUENCE:{shown[0].sequence if shown else self._sequence}")
        if self._discontinuities:
            lines.append(f"#EXT-X-DISCONTINUITY-SEQUENCE:{self._discontinuities}")
        if shown and all(segment.independent for segment in shown):
            lines.append("#EXT-X-INDEPENDENT-SEGMENTS")
        init = -1
        for segment in shown:
            if segment.discontinuity:
                lines.append("#EXT-X-DISCONTINUITY")
            if self.container == "mp4" and segment.init != init:
                init = segment.init
                lines.append(f'#EXT-X-MAP:URI="init-{init}.mp4{query}"')
            started = datetime.fromtimestamp(segment.started, UTC)
            lines.append(
                f"#EXT-X-PROGRAM-DATE-TIME:{started.strftime('%Y-%m-%dT%H:%M:%S')}.{started.microsecond // 1000:03}Z"
            )
            lines.append(f"#EXTINF:{segment.duration:.5f},")
            lines.append(f"{segment.sequence}.{'m4s' if self.container == 'mp4' else 'ts'}{query}")
        if self.ended:
            lines.append("#EXT-X-ENDLIST")
        return "\n".join(lines) + "\n"

    def multivariant_playlist(self, tracks: Sequence[Track], media_uri: str, *, frame_rate: float = 0.0) -> str:
        """Return the multivariant playlist that names `media_uri`. tracks: those the Feed carries."""
        peak = max(
            (len(segment.data) * 8 / segment.duration for segment in self.segments if segment.duration > 0), default=0.0
        )
        attributes = [f"BANDWIDTH={math.ceil(peak) or DEFAULT_BANDWIDTH}"]
        codecs = [track.rfc6381 for track in tracks]
        if codecs and all(codecs):
            attributes.append(f'CODECS="{",".join(codecs)}"')
        video = next((track for track in tracks if track.is_video), None)
        if video is not None and video.width and video.height:
            attributes.append(f"RESOLUTION={video.width}x{video.height}")
        if frame_rate > 0:
            attributes.append(f"FRAME-RATE={frame_rate:.3f}")
        version = 7 if self.container == "mp4" else 3
        return f"#EXTM3U\n#EXT-X-VERSION:{version}\n#EXT-X-STREAM-INF:{','.join(attributes)}\n{media_uri}\n"

    # Inside

    @property
    def _may_start_short(self) -> bool:
        return self.container == "mp4" and not self._segments

    def _begin(self, init: Chunk) -> None:
        """A generation starts: what is pending belongs to the one before."""
        self._close(self._last_dts)
        if self._init >= 0:
            self._discontinuity = True
        self._init += 1
        if self.container == "mp4":
            self._inits[self._init] = init.data

    def _close(self, end: int) -> None:
        pending, self._pending = self._pending, []
        self._pending_bytes = 0
        if not pending:
            return
        first = pending[0]
        last_of = [chunk.dts + chunk.duration for chunk in pending if chunk.dts is not None]
        end = max(end, *last_of) if end <= self._last_dts else end
        duration = max(end - (first.dts or 0), 1) / HZ
        data = [chunk.data for chunk in pending]
        segment = Segment(
            self._sequence,
            with_durations(data) if self.container == "mp4" else b"".join(data),
            duration,
            self._init,
            self._discontinuity,
            first.starts_gop,
            first.arrived + self._wall_offset,
        )
        self._sequence += 1
        self._discontinuity = False
        self._longest = max(self._longest, int(duration + 0.5))
        self._segments.append(segment)
        self._bytes += len(segment.data)
        self._retire()
        if self._on_segment is not None:
            self._on_segment()

    def _retire(self) -> None:
        while len(self._segments) - self._retired > self._kept:
            self._leave_playlist()
        while self._retired > RETIRED_SEGMENTS or (self._bytes > limits.HLS_WINDOW_BYTES and len(self._segments) > 1):
            if not self._retired:
                self._leave_playlist()
            self._retired -= 1
            self._bytes -= len(self._segments.popleft().data)
        needed = {segment.init for segment in self._segments} | {self._init}
        for number in [number for number in self._inits if number not in needed]:
            del self._inits[number]

    def _leave_playlist(self) -> None:
        if self._segments[self._retired].discontinuity:
            self._discontinuities += 1
        self._retired += 1
