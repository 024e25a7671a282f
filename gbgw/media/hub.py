"""The one fork: a Stream takes access units in decoding order and gives each of them to every Sink (architecture.md
decisions 8, 12, 14).

Every sink sees the same shape: on_tracks, a key frame, what follows it; on_tracks again and a key frame when the
tracks change; on_end once.
Publishing never waits and never fails because of a sink. Leaves out: freezing after loss (the receiver does it),
muxing, counting viewers.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from gbgw._timeline import ReorderMeter
from gbgw.base import limits, ticks
from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import AAC, AUDIO, H264, H265, VIDEO, Codec
from gbgw.base.errors import GatewayError, StateError
from gbgw.base.tally import Tally
from gbgw.media import params
from gbgw.media.track import Track

_log: Final = logging.getLogger(__name__)
_BUCKETS: Final = 8  # of a quarter second each: the two seconds a bitrate is taken over
_BUCKET_HZ: Final = 4
_NEEDED: Final[dict[Codec, frozenset[int]]] = {
    H264: frozenset((params.H264_SPS, params.H264_PPS)),
    H265: frozenset((params.H265_VPS, params.H265_SPS, params.H265_PPS)),
}


class Sink(Protocol):
    """What a Stream feeds. Called synchronously by Stream.push: must not wait; one that raises is detached, told by
    on_end, and tallied.
    """

    def on_tracks(self, tracks: tuple[Track, ...], generation: int) -> None:
        """The tracks from here on, video first; the next unit is a key frame (any audio unit where there is no
        video).
        """

    def on_unit(self, unit: AccessUnit, track: Track) -> None:
        """One unit of one of these tracks, in the order of arrival; dts rises strictly within a track."""

    def on_end(self, cause: GatewayError | None) -> None:
        """Nothing follows; called once. cause: None for a regular end."""


def _ignore(unit: AccessUnit, track: Track) -> None:
    """Stands where a sink stood: a detached subscription may still be in the tuple that a publish walks over."""


class Subscription:
    """One sink on one Stream; made by Stream.attach."""

    __slots__ = ("_entered_at", "_stream", "deliver", "sink")

    def __init__(self, stream: "Stream", sink: Sink) -> None:
        self._stream: Stream | None = stream
        self.sink = sink
        self.deliver: Callable[[AccessUnit, Track], None] = _ignore
        self._entered_at = 0  # pts of the key frame this sink came in with

    @property
    def attached(self) -> bool:
        return self._stream is not None

    @property
    def fresh(self) -> bool:
        """True while nothing was given or refused yet: the Stream is not published."""
        return self.attached and self.deliver is _ignore

    def detach(self) -> None:
        """Stop delivery at once, also from inside a delivery; on_end is not called. May be called again."""
        stream, self._stream = self._stream, None
        self.deliver = _ignore
        if stream is not None:
            stream._remove(self)

    def _wait(self) -> None:
        self.deliver = self._deliver_from_keyframe

    def _flow(self) -> None:
        self.deliver = self.sink.on_unit

    def _enter(self, pts: int) -> None:
        """The sink has a key frame, and nothing from before it."""
        self._entered_at = pts
        self.deliver = self._deliver_after_keyframe

    def _deliver_from_keyframe(self, unit: AccessUnit, track: Track) -> None:
        if unit.is_keyframe and track.is_video:
            self._enter(unit.pts or 0)
            self.sink.on_unit(unit, track)

    def _deliver_after_keyframe(self, unit: AccessUnit, track: Track) -> None:
        """Leave out leading pictures: they refer to what this sink has never had."""
        if track.is_video:
            if not unit.is_keyframe and (unit.pts or 0) < self._entered_at:
                return
            self._flow()
        self.sink.on_unit(unit, track)


class _Source:
    """What is known of one elementary stream, published or not."""

    __slots__ = ("codec", "key_pts", "last_at", "live", "meter", "seen", "sets", "sps", "track", "track_id")

    def __init__(self, track_id: int, codec: Codec) -> None:
        self.track_id = track_id
        self.codec = codec
        self.track: Track | None = None  # as it should be
        self.live: Track | None = None  # as the current generation has it
        self.seen: tuple[bytes, ...] = ()
        self.sets: dict[tuple[int, int], bytes] = {}
        self.sps: params.Sps | None = None
        self.meter = ReorderMeter()
        self.key_pts = 0  # of the last key frame
        self.last_at = float("-inf")

    def learn(self, found: tuple[bytes, ...]) -> bool:
        """Take the parameter sets of a unit; return False when one of them is damaged. The same sets again are no
        news.
        """
        self.seen = found
        if self.codec is AAC:
            return self._learn_config(found[0])
        whole = True
        for nal in found:
            key = params.parameter_set_key(self.codec, nal)
            if key is None or (key not in self.sets and len(self.sets) >= limits.PARAMETER_SETS):
                whole = False
                continue
            self.sets[key] = bytes(nal)
            sps = params.parse_sps(self.codec, nal)
            if sps is not None:
                self.sps = sps
            elif key[0] == (params.H265_SPS if self.codec is H265 else params.H264_SPS):
                del self.sets[key]
                whole = False
        self.settle()
        return whole

    def _learn_config(self, config: bytes) -> bool:
        found = params.parse_audio_config(config)
        if found is None:
            return False
        self.track = Track(self.track_id, self.codec, config=config, sample_rate=found[0], channels=found[1])
        return True

    def settle(self) -> None:
        """Make the Track anew from what is known by now, keeping the old object where nothing differs."""
        sps = self.sps
        if sps is None or not _NEEDED[self.codec] <= {kind for kind, _ in self.sets}:
            return
        track = Track(
            self.track_id,
            self.codec,
            tuple(self.sets[key] for key in sorted(self.sets)),
            width=sps.width,
            height=sps.height,
            reorder_depth=max(sps.reorder_depth or 0, self.meter.depth),
        )
        if track != self.track:
            self.track = track


class Stream:
    """The tracks published under one key.

    key: what viewers ask for, "DEVICE-CHANNEL".
    tally: counts hub.*.
    on_published: called once, after the first sinks were served, when the set of tracks has closed.
    on_tracks: called when a generation begins, before its sinks hear of it.
    """

    def __init__(
        self, key: str, *, tally: Tally | None = None, on_published: "Callable[[Stream], None] | None" = None
    ) -> None:
        self.key = key
        self.tally = tally if tally is not None else Tally()
        self.tracks: tuple[Track, ...] = ()
        self.generation = 0  # 0 before publication, then 1, 2 ...
        self.ended = False
        self.cause: GatewayError | None = None
        self.units = 0
        self.bytes = 0
        self.keyframes = 0
        self.last_unit_at: float | None = None
        self.gop_seconds = 0.0
        self._on_published = on_published
        self.on_tracks: Callable[[], None] | None = None
        self._audio_promised = False
        self._video_promised = False
        self._sources: dict[int, _Source] = {}
        self._video: _Source | None = None
        self._audio: _Source | None = None
        self._first_key_at: float | None = None
        self._first_audio_at: float | None = None
        self._subscriptions: tuple[Subscription, ...] = ()
        self._gop: list[tuple[AccessUnit, Track]] = []
        self._gop_bytes = 0
        self._gop_open = False  # the cache still takes units
        self._key_dts: int | None = None
        self._buckets = [0] * _BUCKETS
        self._bucket = 0
        self._picture_times: deque[int] = deque(maxlen=51)

    @property
    def published(self) -> bool:
        return self.generation > 0

    @property
    def video(self) -> Track | None:
        return next((track for track in self.tracks if track.is_video), None)

    @property
    def audio(self) -> Track | None:
        return next((track for track in self.tracks if not track.is_video), None)

    @property
    def deadline(self) -> float | None:
        """Loop seconds at which poll() will publish without what was promised; None when nothing is waited for."""
        if self.published or self.ended:
            return None
        since = self._first_key_at
        if since is None and self._video is None and not self._video_promised:
            since = self._first_audio_at
        return None if since is None else since + limits.TRACKS_WAIT_SECONDS

    @property
    def gop(self) -> Sequence[tuple[AccessUnit, Track]]:
        """The cached units since the last key frame, as far as they are whole: nothing from behind a hole; () where a
        new sink has to wait.
        """
        return tuple(self._gop)

    @property
    def gop_open(self) -> bool:
        """True while the cached GOP reaches to the present, so that a sink fed with it can go on with live units."""
        return self._gop_open

    @property
    def subscriptions(self) -> int:
        return len(self._subscriptions)

    def promise(self, audio: bool, *, video: bool = False) -> None:
        """Say what the program stream map announces: publication waits for audio (500 ms at most), and for video for
        ever.
        """
        self._audio_promised = audio
        self._video_promised = video

    def push(self, unit: AccessUnit, now: float) -> None:
        """Publish one unit that media.timeline has given its times. Units of surplus or unsupported tracks are tallied
        and dropped.
        """
        if self.ended:
            return
        source = self._sources.get(unit.track_id)
        if source is None or source.codec is not unit.codec:
            source = self._admit(unit, now)
            if source is None:
                return
        source.last_at = now
        self._count(len(unit), now)
        if unit.parameter_sets and unit.parameter_sets != source.seen and not source.learn(unit.parameter_sets):
            self.tally.add("hub.bad_parameter_sets", now=now)
        if source is self._video:
            self._push_video(source, unit, now)
        else:
            self._push_audio(source, unit, now)

    def poll(self, now: float) -> None:
        """Publish without the promised audio, or without video, when its time is up."""
        deadline = self.deadline
        if deadline is not None and now >= deadline:
            self._publish(now)

    def attach(self, sink: Sink, *, replay: bool = True) -> Subscription:
        """Feed `sink`: on_tracks and the cached GOP at once, or with publication; then live units. With replay=False
        from the next key frame.

        On an ended Stream the sink gets on_end and a Subscription that is detached already.
        """
        subscription = Subscription(self, sink)
        if self.ended:
            subscription.detach()
            sink.on_end(self.cause)
            return subscription
        self._subscriptions = (*self._subscriptions, subscription)
        if self.published:
            self._start(subscription, replay=replay)
        elif not replay:
            subscription._wait()
        return subscription

    def close(self, cause: GatewayError | None = None) -> None:
        """End the Stream: every sink gets on_end once. May be called again."""
        if self.ended:
            return
        self.ended = True
        self.cause = cause
        self._on_published = self.on_tracks = None  # an ended Stream is remembered for its cause, and not what fed it
        subscriptions, self._subscriptions = self._subscriptions, ()
        self._drop_gop()
        for subscription in subscriptions:
            if subscription.attached:
                subscription.detach()
                self._end(subscription, cause)

    def bitrate(self, now: float) -> float:
        """Bits a second over the last two seconds."""
        self._turn(now)
        return sum(self._buckets) * 8 * _BUCKET_HZ / _BUCKETS

    @property
    def frame_rate(self) -> float:
        """Pictures a second by their time stamps, over the last fifty; 0.0 while unknown."""
        times = self._picture_times
        span = times[-1] - times[0] if len(times) > 1 else 0
        return (len(times) - 1) * ticks.HZ / span if span > 0 else 0.0

    # What comes in

    def _admit(self, unit: AccessUnit, now: float) -> _Source | None:
        """Return the source of a unit whose track is new, or whose codec is; None for one that is not taken."""
        codec = unit.codec
        if not codec.supported:
            self.tally.add("hub.unsupported", detail=codec.name, now=now)
            return None
        current = self._video if codec.kind is VIDEO else self._audio
        if (
            current is not None
            and current.track_id != unit.track_id
            and now - current.last_at < limits.TRACK_SILENCE_SECONDS
        ):
            self.tally.add("hub.surplus_track", now=now)
            return None
        if current is not None:
            self._sources.pop(current.track_id, None)
        self._sources.pop(unit.track_id, None)
        source = self._sources[unit.track_id] = _Source(unit.track_id, codec)
        if codec.kind is VIDEO or (self._video is not None and self._video.track_id == unit.track_id):
            self._drop_gop()  # it is of a picture that has ended
        if codec.kind is AUDIO:
            if codec is not AAC:
                source.track = Track(unit.track_id, codec, sample_rate=codec.sample_rate, channels=1)
            self._audio = source
            if self._video is not None and self._video.track_id == unit.track_id:
                self._video = None
        else:
            self._video = source
            if self._audio is not None and self._audio.track_id == unit.track_id:
                self._audio = None
        return source

    def _push_video(self, source: _Source, unit: AccessUnit, now: float) -> None:
        pts, dts = unit.pts, unit.dts
        if pts is None or dts is None:
            self.tally.add("hub.untimed", now=now)
            return
        source.meter.push(pts)
        self._picture_times.append(dts)
        if unit.is_keyframe:
            self.keyframes += 1
            if source.sps is not None and source.meter.depth > (source.sps.reorder_depth or 0):
                source.settle()
            if source.track is None:
                self.tally.add("hub.no_parameter_sets", now=now)
                return
            source.key_pts = pts
            if self._key_dts is not None and dts > self._key_dts:
                self.gop_seconds = ticks.to_seconds(dts - self._key_dts)
            self._key_dts = dts
            self._open_gop(unit, source.track)
            if not self.published:
                if self._first_key_at is None:
                    self._first_key_at = now
                self._publish_if_complete(now)
                return
            tracks = self._wanted(now)
            if tracks != self.tracks:
                self._begin(tracks)
        elif self._gop_open:
            if unit.discontinuity:
                # A hole: what is cached stays playable, but nothing behind it may be shown to a sink that was not
                # there before it.
                self._gop_open = False
                self.tally.add("hub.gop_hole", now=now)
            elif pts >= source.key_pts:  # a leading picture is of no use to a sink that comes in at the key frame
                self._cache(unit, self._gop[0][1], now)  # newer parameter sets count from their key frame
        if source.live is not None:
            self._fan_out(unit, source.live)

    def _push_audio(self, source: _Source, unit: AccessUnit, now: float) -> None:
        track = source.track
        if track is None:
            self.tally.add("hub.no_audio_config", now=now)
            return
        if not self.published:
            if self._first_audio_at is None:
                self._first_audio_at = now
            if self._gop_open:
                self._cache(unit, track, now)
            self._publish_if_complete(now)
            return
        if source.live is not track:
            if any(live.is_video for live in self.tracks):
                return  # joins at the next key frame, with a generation of its own
            self._begin(self._wanted(now))
        if self._gop_open:
            self._cache(unit, track, now)
        self._fan_out(unit, track)

    def _count(self, size: int, now: float) -> None:
        self.units += 1
        self.bytes += size
        self.last_unit_at = now
        if int(now * _BUCKET_HZ) != self._bucket:
            self._turn(now)
        self._buckets[self._bucket % _BUCKETS] += size

    def _turn(self, now: float) -> None:
        bucket = int(now * _BUCKET_HZ)
        for passed in range(max(self._bucket + 1, bucket - _BUCKETS + 1), bucket + 1):
            self._buckets[passed % _BUCKETS] = 0
        self._bucket = max(bucket, self._bucket)

    # The set of tracks

    def _wanted(self, now: float) -> tuple[Track, ...]:
        found = []
        if self._video is not None and self._video.track is not None:
            found.append(self._video.track)
        audio = self._audio
        if audio is not None and audio.track is not None and now - audio.last_at < limits.TRACK_SILENCE_SECONDS:
            found.append(audio.track)
        return tuple(found)

    def _publish_if_complete(self, now: float) -> None:
        if self._first_key_at is not None:
            has_audio = self._audio is not None and self._audio.track is not None
            if has_audio or not self._audio_promised:
                self._publish(now)
                return
        self.poll(now)

    def _publish(self, now: float) -> None:
        tracks = self._wanted(now)
        if not tracks:
            return
        self._begin(tracks)
        for subscription in self._subscriptions:
            if subscription.fresh:
                self._replay(subscription)
        if self._on_published is not None:
            self._on_published(self)

    def _begin(self, tracks: tuple[Track, ...]) -> None:
        """Start a generation. The caller goes on with a key frame, or with the cached GOP that begins with one."""
        self.tracks = tracks
        self.generation += 1
        for source in self._sources.values():
            source.live = source.track if source.track in tracks else None
        if self._gop and self._gop[0][1] in tracks:
            self._gop = [(unit, track) for unit, track in self._gop if track in tracks]
        else:
            self._drop_gop()
        if self.on_tracks is not None:
            self.on_tracks()
        sound_only = not any(track.is_video for track in tracks)
        for subscription in self._subscriptions:
            self._tell_tracks(subscription)
            if sound_only and not subscription.fresh and subscription.attached:
                subscription._flow()

    # What goes out

    def _fan_out(self, unit: AccessUnit, track: Track) -> None:
        for subscription in self._subscriptions:
            try:
                subscription.deliver(unit, track)
            except Exception:
                self._failed(subscription)

    def _start(self, subscription: Subscription, *, replay: bool) -> None:
        self._tell_tracks(subscription)
        if not subscription.attached:
            return
        if replay:
            self._replay(subscription)
        elif self.video is not None:
            subscription._wait()
        else:
            subscription._flow()

    def _replay(self, subscription: Subscription) -> None:
        """Give the cached GOP, then live units: at once where the cache reaches to the present, else from the next key
        frame.
        """
        sink = subscription.sink
        gop = tuple(self._gop)
        whole = self._gop_open or self.video is None
        try:
            for unit, track in gop:
                if not subscription.attached:
                    return
                sink.on_unit(unit, track)
        except Exception:
            self._failed(subscription)
        if subscription.attached:
            if not whole:
                subscription._wait()
            elif gop and gop[0][1].is_video:
                subscription._enter(gop[0][0].pts or 0)
            else:
                subscription._flow()

    def _tell_tracks(self, subscription: Subscription) -> None:
        if not subscription.attached:
            return
        try:
            subscription.sink.on_tracks(self.tracks, self.generation)
        except Exception:
            self._failed(subscription)

    def _failed(self, subscription: Subscription) -> None:
        """A sink raised, which is a bug in it: it alone pays."""
        _log.exception("a sink of stream %s failed and is detached", self.key)
        self.tally.add("hub.sink_error")
        if subscription.attached:
            subscription.detach()
            cause = StateError("This output failed inside the gateway.", code="sink_failed", stream=self.key)
            self._end(subscription, cause)

    def _end(self, subscription: Subscription, cause: GatewayError | None) -> None:
        try:
            subscription.sink.on_end(cause)
        except Exception:
            _log.exception("a sink of stream %s failed at its end", self.key)
            self.tally.add("hub.sink_error")

    def _remove(self, subscription: Subscription) -> None:
        self._subscriptions = tuple(other for other in self._subscriptions if other is not subscription)

    # The cached GOP

    def _open_gop(self, unit: AccessUnit, track: Track) -> None:
        self._gop = [(unit, track)]
        self._gop_bytes = len(unit)
        self._gop_open = True

    def _cache(self, unit: AccessUnit, track: Track, now: float) -> None:
        self._gop_bytes += len(unit)
        span = (unit.dts or 0) - (self._gop[0][0].dts or 0)
        if self._gop_bytes > limits.GOP_CACHE_BYTES or span > limits.GOP_CACHE_SECONDS * ticks.HZ:
            self._drop_gop()
            self.tally.add("hub.gop_cut", now=now)
            return
        self._gop.append((unit, track))

    def _drop_gop(self) -> None:
        self._gop = []
        self._gop_bytes = 0
        self._gop_open = False


class Delivery(NamedTuple):
    """One unit out of a QueuedSubscription. generation: of the Stream when it was published; another one means other
    tracks.
    """

    unit: AccessUnit
    track: Track
    generation: int


class QueuedSubscription:
    """A Sink for readers with a task of their own: a queue bounded in bytes. A reader that is too slow skips to a key
    frame.

    wake: called when something is to be had after nothing was; must not block (asyncio.Event.set is meant).
    Until the first take() the queue also holds a whole cached GOP (limits.GOP_CACHE_BYTES), which the Stream hands
    over in one go.
    """

    def __init__(
        self,
        *,
        max_bytes: int = limits.SUBSCRIPTION_BYTES,
        wake: Callable[[], None] | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.tracks: tuple[Track, ...] = ()
        self.generation = 0
        self.ended = False
        self.cause: GatewayError | None = None
        self.dropped = 0  # units that this reader did not get
        self.queued_bytes = 0
        self._max_bytes = max_bytes
        self._ceiling = max_bytes + limits.GOP_CACHE_BYTES
        self._wake = wake
        self._tally = tally
        self._queue: deque[Delivery] = deque()
        self._skipping = False

    def __len__(self) -> int:
        return len(self._queue)

    def on_tracks(self, tracks: tuple[Track, ...], generation: int) -> None:
        self.tracks = tracks
        self.generation = generation

    def on_unit(self, unit: AccessUnit, track: Track) -> None:
        if self._skipping:
            if not self._starts(unit, track):
                self._drop(1)
                return
            self._skipping = False
        size = len(unit)
        if self._queue and self.queued_bytes + size > self._ceiling:
            self._make_room(size)
            if not self._queue and not self._starts(unit, track):
                self._skipping = True
                self._drop(1)
                return
        self._queue.append(Delivery(unit, track, self.generation))
        self.queued_bytes += size
        if len(self._queue) == 1 and self._wake is not None:
            self._wake()

    def on_end(self, cause: GatewayError | None) -> None:
        self.ended = True
        self.cause = cause
        if self._wake is not None:
            self._wake()

    def take(self) -> list[Delivery]:
        """Return everything queued, oldest first, and empty the queue; [] when there is nothing (then look at
        `ended`).
        """
        found = list(self._queue)
        self._queue.clear()
        self.queued_bytes = 0
        self._ceiling = self._max_bytes
        return found

    def _starts(self, unit: AccessUnit, track: Track) -> bool:
        return unit.is_keyframe and (track.is_video or not any(other.is_video for other in self.tracks))

    def _make_room(self, size: int) -> None:
        """Drop from the front to the first key frame from which everything queued fits; everything where there is
        none.
        """
        dropped = 0
        while self._queue:
            delivery = self._queue[0]
            if dropped and self._starts(delivery.unit, delivery.track) and self.queued_bytes + size <= self._ceiling:
                break
            self._queue.popleft()
            self.queued_bytes -= len(delivery.unit)
            dropped += 1
        self._drop(dropped)

    def _drop(self, count: int) -> None:
        self.dropped += count
        if self._tally is not None:
            self._tally.add("hub.slow_reader", count)
