"""One muxer per Stream and format, whose bytes every viewer shares (architecture.md decisions 1, 8 and 14).

A Feed sleeps until its first viewer: then it takes the stream's cached GOP through its muxer once, and keeps the chunks
of the current GOP as long as it has viewers, so that each later one starts at once with the very same bytes.
Synchronous; no viewer can hold it up. Leaves out: sockets and slow viewers (serve skips a viewer to the next chunk that
`starts_gop`), segments (mux/hls.py).
"""

import logging
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from gbgw._ps import AccessUnit as Unit
from gbgw.base import limits
from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import AAC
from gbgw.base.errors import GatewayError, LocalError, MediaError, RequestError
from gbgw.base.tally import Tally
from gbgw.base.ticks import HZ
from gbgw.media.hub import Stream, Subscription
from gbgw.media.track import Track
from gbgw.mux.container import FORMATS, Format, Piece, RefusedError, Writer, open_writer
from gbgw.mux.silence import NOTHING, Silence

_log: Final = logging.getLogger(__name__)


class Chunk(NamedTuple):
    """Muxed bytes, shared by every viewer.

    is_init: what a viewer must have before anything of this generation; never to be skipped, not even by a slow viewer.
    starts_gop: decoding can start here; where a new or slow viewer may come in.
    dts: 90 kHz ticks since the feed began; None for an init chunk. For MPEG-TS exact only where starts_gop.
    duration: 90 kHz ticks, 0 where not known.
    track_id: of the unit inside; 0 for an init chunk.
    arrived: loop seconds at which the (last) unit inside arrived; 0.0 for an init chunk.
    generation: of the Stream.
    is_leading: a picture that refers to what is before the last chunk that starts_gop: nothing for a viewer that came
    in there. Not told for MPEG-TS, whose chunks are not cut by unit.
    """

    data: bytes
    is_init: bool = False
    starts_gop: bool = False
    dts: int | None = None
    duration: int = 0
    track_id: int = 0
    arrived: float = 0.0
    generation: int = 0
    is_leading: bool = False


class ChunkSink(Protocol):
    """A viewer, or everything that serves viewers. Called synchronously: must not wait; one that raises is detached and
    told by on_end.
    """

    def on_chunk(self, chunk: Chunk) -> None:
        """The first chunk is an init chunk (may be empty of bytes: MPEG-TS has none), the next one starts_gop."""

    def on_end(self, cause: GatewayError | None) -> None:
        """Nothing follows; called once."""


class Attachment:
    """One ChunkSink on one Feed; made by Feed.attach."""

    __slots__ = ("_entering", "_feed", "_sink", "_splice", "_waiting")

    def __init__(self, feed: "Feed", sink: ChunkSink, *, splice: bool | None) -> None:
        self._feed: Feed | None = feed
        self._sink = sink
        self._splice = splice
        self._waiting = True  # for a chunk that starts a GOP
        self._entering = True  # in its first GOP: it has nothing that leading pictures refer to

    @property
    def attached(self) -> bool:
        return self._feed is not None

    def detach(self) -> None:
        """Stop delivery at once, also from inside a delivery; on_end is not called. May be called again."""
        feed, self._feed = self._feed, None
        if feed is not None:
            feed._remove(self)


class Feed:
    """The muxed form of one Stream; is a Sink of it while it has viewers. Counts feed.* in `tally`.

    After the Stream's end a Feed is dead: attach answers with on_end.
    """

    def __init__(
        self,
        stream: Stream,
        form: Format,
        *,
        tally: Tally | None = None,
        on_state: "Callable[[Feed, bool], None] | None" = None,
    ) -> None:
        self.stream = stream
        self.format = form
        self.tracks: tuple[Track, ...] = ()  # as carried: what the format cannot carry is left out
        self.chunks = 0
        self.bytes = 0
        self._tally = tally if tally is not None else Tally()
        self._on_state = on_state
        self._attachments: tuple[Attachment, ...] = ()
        self._subscription: Subscription | None = None
        self._writer: Writer | None = None
        self._silence: Silence | None = None  # of the sound it has, or had
        self._generation = 0
        self._init: Chunk | None = None
        self._origin: int | None = None
        self._last_dts = 0
        self._arrived = 0.0  # of the last unit, loop seconds
        self._floor: int | None = None  # where the pictures of this generation begin, dts
        self._key_pts = 0
        self._tells_leading = form.name != "ts"
        self._gop: list[Chunk] = []
        self._gop_bytes = 0
        self._gop_open = False
        self._ended = False
        self._cause: GatewayError | None = None

    @property
    def viewers(self) -> int:
        return len(self._attachments)

    @property
    def running(self) -> bool:
        return self._subscription is not None

    def attach(self, sink: ChunkSink, *, splice: bool | None = None) -> Attachment:
        """Give `sink` the init chunk and the chunks of the current GOP at once, then live ones.

        splice: what happens at a change of tracks: True: an init chunk in the middle; False: on_end with code
        "tracks_changed"; None: what the format allows in one HTTP answer, and the end where picture or sound has
        another codec: no player goes on then. Raises nothing: a stream that has ended, or has nothing this format can
        carry, is told by on_end.
        """
        attachment = Attachment(self, sink, splice=splice)
        if self._ended:
            self._end(attachment, self._cause)
            return attachment
        if self._subscription is None:
            self._start()
        if self._ended:  # the stream had ended, or carries nothing for this format
            self._end(attachment, self._cause)
            return attachment
        self._attachments = (*self._attachments, attachment)
        if self._init is not None:
            self._welcome(attachment)
        return attachment

    # Sink

    def on_tracks(self, tracks: tuple[Track, ...], generation: int) -> None:
        before, silence = self.tracks, self._silence
        self.tracks = self._with_silence(self.format.carried(tracks))
        if self._writer is not None and self.tracks == before:
            self._generation = generation
            return  # sound went or came back, and silence stands in for it: nobody need notice
        self._let_sound_last(silence)
        self._publish(self._close_writer(), 0.0)
        self._generation = generation
        self._drop_gop()
        if not self.tracks:
            self._finish(
                MediaError(
                    f"{self.format.name} can carry none of this stream's codecs ({_names(tracks)}).",
                    code="codec_unsupported",
                    remedy="Ask for another format, or for a transcode.",
                    stream=self.stream.key,
                )
            )
            return
        is_change = self._init is not None
        self._floor = None
        try:
            self._writer = open_writer(self.format, self.tracks, generation)
        except RefusedError as error:
            self._tally.add("feed.mux_refused", detail=str(error))
            self._finish(
                MediaError(
                    f"The stream's parameters make no valid {self.format.name}: {error}",
                    code="parameters_unusable",
                    remedy="Look at the camera's encoder settings; the stream is damaged or unusual.",
                    stream=self.stream.key,
                )
            )
            return
        self._init = Chunk(self._writer.init, is_init=True, generation=generation)
        if is_change:
            goes_on = self.format.splices and _same_codecs(before, self.tracks)
            splice = Chunk(self._writer.splice(self._last_dts), is_init=True, generation=generation)
            self._change(splice, goes_on=goes_on)
        else:
            for attachment in self._attachments:
                self._welcome(attachment)

    def on_unit(self, unit: AccessUnit, track: Track) -> None:
        writer = self._writer
        pts, dts = unit.pts, unit.dts
        if writer is None or track not in self.tracks or pts is None or dts is None:
            return
        if self._origin is None:
            self._origin = dts
        pts, dts = pts - self._origin, dts - self._origin
        if dts < 0:
            self._tally.add("feed.before_start")  # sound that belongs before the first picture
            return
        if dts > self.format.longest > 0 and self._starts_gop(unit, track):
            self._begin_anew()
            return
        self._last_dts = max(self._last_dts, dts)
        self._arrived = unit.arrived
        if unit.discontinuity and track.is_video and not unit.is_keyframe:
            self._gop_open = False  # a new viewer may not be shown what follows a hole
        if unit.is_keyframe and track.is_video:
            self._key_pts = pts
            if self._floor is None:
                self._floor = dts
        if self.format.adds_sound and self._is_too_early(track, dts):
            self._tally.add("feed.before_start", now=unit.arrived)
            return
        silence = self._silence
        if silence is None:
            self._write(writer, unit, track, pts, dts)
        elif track.is_video:
            self._write(writer, unit, track, pts, dts)
            for at in silence.follow(dts):
                frame = Unit(silence.frame, AAC, at, at, is_keyframe=True, arrived=unit.arrived)
                self._write(writer, frame, silence.track, at, at)
        elif track != silence.track or silence.heard(dts):
            self._write(writer, unit, track, pts, dts)
        else:
            self._tally.add("feed.sound_after_silence", now=unit.arrived)

    def on_end(self, cause: GatewayError | None) -> None:
        self._let_sound_last(self._silence)
        self._publish(self._close_writer(), 0.0)
        self._finish(cause)

    # Inside

    def _is_too_early(self, track: Track, dts: int) -> bool:
        """Sound of before the first picture of a generation, which came late: behind a discontinuity players of HLS put
        the first thing there, whatever it is, where the segment begins, and what follows with it.
        """
        if track.is_video or not any(other.is_video for other in self.tracks):
            return False
        return self._floor is None or dts < self._floor

    def _starts_gop(self, unit: AccessUnit, track: Track) -> bool:
        return unit.is_keyframe and (track.is_video or not any(other.is_video for other in self.tracks))

    def _begin_anew(self) -> None:
        """Time stamps have come to their end: viewers open the URL again, and with them all begins at zero."""
        cause = MediaError(
            f"{self.format.name} counts time for {self.format.longest / HZ / 86_400:.1f} days, and they are over.",
            code="timestamps_exhausted",
            remedy="Open the URL again.",
            stream=self.stream.key,
        )
        attachments, self._attachments = self._attachments, ()
        self._stop()
        for attachment in attachments:
            if attachment.attached:
                self._end(attachment, cause)

    def _let_sound_last(self, silence: Silence | None) -> None:
        """Before a discontinuity, and at the end, of HLS: sound is often late, being encoded here, and its players play
        no further than where the shorter track ends.
        """
        writer = self._writer
        if writer is None or silence is None or not self.format.adds_sound:
            return
        for at in silence.finish():
            frame = Unit(silence.frame, AAC, at, at, is_keyframe=True, arrived=self._arrived)
            self._write(writer, frame, silence.track, at, at)

    def _with_silence(self, tracks: tuple[Track, ...]) -> tuple[Track, ...]:
        """The tracks as they go out: with one of silence where sound has ended, or where the format adds one."""
        silence = self._silence
        if not any(track.is_video for track in tracks):
            self._silence = None
            return tracks
        sound = next((track for track in tracks if not track.is_video), None)
        if sound is None:
            if silence is None and self.format.adds_sound:
                silence = self._silence = Silence(NOTHING)
            if silence is None:
                return tracks
            silence.is_alone = True
            return (*tracks, silence.track)
        if not Silence.suits(sound):
            self._silence = None
        elif silence is None or silence.track != sound:
            self._silence = Silence(sound)
        else:
            silence.is_alone = False
        return tracks

    def _write(self, writer: Writer, unit: AccessUnit, track: Track, pts: int, dts: int) -> None:
        try:
            pieces = writer.write(unit, track, pts, dts)
        except RefusedError as error:
            self._tally.add("feed.mux_refused", detail=str(error), now=unit.arrived)
            return
        self._publish(pieces, unit.arrived, self._tells_leading and track.is_video and pts < self._key_pts)

    def _start(self) -> None:
        if self._on_state is not None:
            self._on_state(self, True)
        # The stream hands over its cached GOP inside attach, before anybody is attached here: it goes to the cache
        # alone.
        subscription = self.stream.attach(self)
        if self._ended:
            subscription.detach()
        else:
            self._subscription = subscription

    def _stop(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.detach()
        self._close_writer()
        self._silence = None
        self._init = None
        self._origin = None
        self._last_dts = 0
        self._drop_gop()
        if self._on_state is not None:
            self._on_state(self, False)

    def _close_writer(self) -> Sequence[Piece]:
        writer, self._writer = self._writer, None
        if writer is None:
            return ()
        try:
            return writer.close()
        except RefusedError as error:
            self._tally.add("feed.mux_refused", detail=str(error))
            return ()

    def _publish(self, pieces: Sequence[Piece], arrived: float, is_leading: bool = False) -> None:
        for data, starts_gop, dts, track_id, duration in pieces:
            chunk = Chunk(data, False, starts_gop, dts, duration, track_id, arrived, self._generation, is_leading)
            self.chunks += 1
            self.bytes += len(data)
            if starts_gop:
                self._gop = []
                self._gop_bytes = 0
                self._gop_open = True
            if self._gop_open and not is_leading:
                self._gop.append(chunk)
                self._gop_bytes += len(data)
                span = dts - (self._gop[0].dts or 0)
                if self._gop_bytes > limits.GOP_CACHE_BYTES or span > limits.GOP_CACHE_SECONDS * HZ:
                    self._drop_gop()
            for attachment in self._attachments:
                self._give(attachment, chunk)

    def _drop_gop(self) -> None:
        self._gop = []
        self._gop_bytes = 0
        self._gop_open = False

    def _welcome(self, attachment: Attachment) -> None:
        if self._init is not None:
            self._give(attachment, self._init)
        for chunk in tuple(self._gop):
            self._give(attachment, chunk)
        if not self._gop_open:
            attachment._waiting = True

    def _change(self, splice: Chunk, *, goes_on: bool) -> None:
        cause = MediaError(
            "The tracks of the stream changed, and this format cannot go on with others.",
            code="tracks_changed",
            remedy="Open the URL again.",
            stream=self.stream.key,
        )
        for attachment in self._attachments:
            if goes_on if attachment._splice is None else attachment._splice:
                attachment._waiting = True
                self._give(attachment, splice)
            elif attachment.attached:
                attachment.detach()
                self._end(attachment, cause)

    def _give(self, attachment: Attachment, chunk: Chunk) -> None:
        if attachment._feed is None:
            return
        if attachment._waiting and not chunk.is_init:
            if not chunk.starts_gop:
                return
            attachment._waiting = False
            attachment._entering = True
        elif chunk.starts_gop:
            attachment._entering = False
        elif chunk.is_leading and attachment._entering:
            return
        try:
            attachment._sink.on_chunk(chunk)
        except Exception:
            _log.exception("a viewer of %s.%s failed and is detached", self.stream.key, self.format.name)
            self._tally.add("feed.sink_error")
            attachment.detach()
            self._end(
                attachment,
                LocalError("This output failed inside the gateway.", code="sink_failed", stream=self.stream.key),
            )

    def _end(self, attachment: Attachment, cause: GatewayError | None) -> None:
        attachment._feed = None
        try:
            attachment._sink.on_end(cause)
        except Exception:
            _log.exception("a viewer of %s.%s failed at its end", self.stream.key, self.format.name)
            self._tally.add("feed.sink_error")

    def _finish(self, cause: GatewayError | None) -> None:
        if self._ended:
            return
        self._ended = True
        self._cause = cause
        attachments, self._attachments = self._attachments, ()
        self._stop()
        for attachment in attachments:
            if attachment.attached:
                self._end(attachment, cause)

    def _remove(self, attachment: Attachment) -> None:
        self._attachments = tuple(other for other in self._attachments if other is not attachment)
        if not self._attachments and not self._ended and self._subscription is not None:
            self._stop()


def _same_codecs(before: Sequence[Track], after: Sequence[Track]) -> bool:
    """Has no kind of track another codec than before? One may come or go."""
    kinds = {track.is_video: track.codec for track in before}
    return all(kinds.get(track.is_video, track.codec) is track.codec for track in after)


def _names(tracks: Sequence[Track]) -> str:
    return ", ".join(track.codec.name for track in tracks)


class Feeds:
    """The running Feeds of a process, so that viewers of one stream and format meet in one. Holds no Feed that has no
    viewers.
    """

    def __init__(self, *, tally: Tally | None = None) -> None:
        self._tally = tally if tally is not None else Tally()
        self._running: dict[tuple[int, str], Feed] = {}

    def get(self, stream: Stream, format_name: str) -> Feed:
        """Return the running Feed of `stream` in that format, or a sleeping one that attach will start. Raises
        RequestError for an unknown format.
        """
        form = FORMATS.get(format_name)
        if form is None:
            raise RequestError(
                f"There is no format {format_name!r}.",
                status=404,
                code="format_unknown",
                remedy=f"Formats: {', '.join(FORMATS)}.",
            )
        feed = self._running.get((id(stream), format_name))
        if feed is not None and feed.stream is stream:
            return feed
        return Feed(stream, form, tally=self._tally, on_state=self._note)

    @property
    def running(self) -> Sequence[Feed]:
        return tuple(self._running.values())

    def _note(self, feed: Feed, runs: bool) -> None:
        key = (id(feed.stream), feed.format.name)
        if runs:
            self._running.setdefault(key, feed)
        elif self._running.get(key) is feed:
            del self._running[key]
