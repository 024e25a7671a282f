"""From the hub to one WebRTC viewer, sans-IO: which pictures and sounds leave, in which order, with which times.

Pictures are cut once for all viewers (serve.payloads). What carries them away is a Lane: serve.lane over our own
sender, or the track of aiortc's in serve.stock.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, Protocol

from gbgw._webrtc import Payloads
from gbgw.base import limits
from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import H264, H265, PCMA, PCMU
from gbgw.base.errors import GatewayError
from gbgw.base.tally import Tally
from gbgw.base.ticks import HZ
from gbgw.media.hub import Stream, Subscription
from gbgw.media.track import Track
from gbgw.serve.offer import Law, Served
from gbgw.serve.payloads import Packer
from gbgw.serve.source import Viewing
from gbgw.serve.viewers import Viewer

SOUND_HZ: Final = 8_000
SOUND_DRIFT_SAMPLES: Final = 800  # 100 ms between the camera's time stamps and its samples before they are believed
CATCH_UP_TICKS: Final = 90  # 1 ms at least between pictures of the cached GOP
CATCH_UP_BYTES_PER_SECOND: Final = 6_000_000  # a cached GOP is paced to this; a burst would overrun receive buffers


class Cut(NamedTuple):
    """A unit as it leaves: RTP payloads, their one time stamp in the clock of the codec, and when that was, in seconds
    since 1970: what relates sound to pictures in sender reports (RFC 3550 section 6.4.1)."""

    payloads: Payloads
    timestamp: int
    at: float


class Waiting(NamedTuple):
    """A Cut in a queue. is_paced: it belongs to the cached GOP, and leaves with the pace of one."""

    cut: Cut
    is_paced: bool


class CutQueue:
    """Cuts that wait for one viewer, bounded in bytes; full, it drops to the next key frame."""

    def __init__(self) -> None:
        self.bytes = 0
        self._waiting: deque[Waiting] = deque()
        self._skipping = False

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, cut: Cut, *, is_keyframe: bool, is_paced: bool) -> tuple[int, bool]:
        """Queue one; return how many were dropped for it, and whether the dropping began with it."""
        size = cut.payloads.size
        dropped = 0
        overflows = bool(self._waiting) and self.bytes + size > limits.SUBSCRIPTION_BYTES
        if overflows:
            dropped = len(self._waiting)
            self._waiting.clear()
            self.bytes = 0
            self._skipping = True
        if self._skipping and not is_keyframe:
            return dropped + 1, overflows
        self._skipping = False
        self._waiting.append(Waiting(cut, is_paced))
        self.bytes += size
        return dropped, False

    def take(self) -> Waiting:
        """The oldest. IndexError when there is none."""
        first = self._waiting.popleft()
        self.bytes -= first.cut.payloads.size
        return first


class Lane(Protocol):
    """The way of one RTP stream to one viewer."""

    @property
    def queued_bytes(self) -> int: ...

    def put(self, cut: Cut, *, is_keyframe: bool, is_paced: bool) -> tuple[int, bool]:
        """As CutQueue.put."""

    def hold(self, is_held: bool) -> None:
        """Give nothing while the socket is full, so that what waits is bounded here."""

    def stop(self) -> None:
        """For good. Quiet when it has ended already."""


class Outlet:
    """Feeds the two Lanes of a viewer from one Stream; a media.hub.Sink.

    Pictures of the cached GOP leave first, paced, with time stamps that tell of the pace and end at the live picture:
    the viewer decodes them as they come and is live with the last. A GOP too large for that is not sent: a key frame is
    asked for instead.

    served: what was negotiated; a Lane whose kind is not among it gets nothing. end: called with a reason when the
    stream can no longer be carried.
    """

    def __init__(
        self,
        viewing: Viewing,
        viewer: Viewer,
        packer: Packer,
        served: Iterable[Served],
        *,
        video: Lane,
        audio: Lane,
        tally: Tally,
        end: Callable[[str], None],
    ) -> None:
        served = tuple(served)
        kinds = {one.line.kind for one in served}
        self._codec = H265 if any(one.law is None and one.format.video == "H265" for one in served) else H264
        self.law: Law | None = next((one.law for one in served if one.law is not None), None)
        self.video = video
        self.audio = audio
        self._has_video = "video" in kinds
        self._viewing = viewing
        self._viewer = viewer
        self._tally = tally
        self._packer = packer
        self._end = end
        self._subscription: Subscription | None = None
        self._cached: list[tuple[AccessUnit, Track]] | None = None  # while the cached GOP is being given
        self._last_pts = -1
        self._epoch = 0.0  # wall clock of pts 0, one for both lanes
        self._picture_base: int | None = None
        self._sound_base: int | None = None
        self._sound_next = 0  # time stamp of the next sample
        self._closed = False
        viewer.queue = lambda: video.queued_bytes + audio.queued_bytes

    def begin(self) -> None:
        """The way to the viewer is open."""
        stream = self._viewing.stream
        if self._subscription is not None or self._closed:
            return
        if stream.ended:
            self._end("stream ended")
            return
        replay = _is_light(stream)
        self._cached = []
        self._subscription = stream.attach(self, replay=replay)
        cached, self._cached = self._cached, None
        if self._has_video:
            self._catch_up(cached)
            if stream.video is not None and not (cached and stream.gop_open):
                self._viewing.request_keyframe()

    def _catch_up(self, cached: list[tuple[AccessUnit, Track]]) -> None:
        pictures = [(unit, track) for unit, track in cached if track.is_video and unit.pts is not None]
        if not pictures:
            return
        at = pictures[-1][0].pts or 0
        times: list[int] = []
        for unit, _ in reversed(pictures):
            times.append(at)
            at -= max(CATCH_UP_TICKS, len(unit) * HZ // CATCH_UP_BYTES_PER_SECOND)
        self._last_pts = times[-1] - 1
        for (unit, track), pts in zip(pictures, reversed(times), strict=True):
            self._put_picture(unit, track, pts, is_paced=True)

    def close(self) -> None:
        self._closed = True
        if self._subscription is not None:
            self._subscription.detach()
        self.video.stop()
        self.audio.stop()

    def on_writable(self, is_writable: bool) -> None:
        """The socket takes packets again, or no more."""
        self.video.hold(not is_writable)
        self.audio.hold(not is_writable)

    def on_stopped(self) -> None:
        """A Lane ended by itself: its connection is lost, or it failed."""
        if not self._closed:
            self._end("sender ended")

    # media.hub.Sink

    def on_tracks(self, tracks: tuple[Track, ...], generation: int) -> None:
        video = next((track for track in tracks if track.is_video), None)
        if self._has_video and video is not None and (video.codec is not self._codec or video.reorder_depth > 0):
            what = "B-frames" if video.codec is self._codec else video.codec.name
            self._end(f"the stream changed to {what}, which WebRTC cannot carry")

    def on_unit(self, unit: AccessUnit, track: Track) -> None:
        if self._cached is not None:
            self._cached.append((unit, track))
        elif track.is_video:
            if self._has_video and track.codec is self._codec and unit.pts is not None:
                self._put_picture(unit, track, unit.pts, is_paced=False)
        elif self.law is not None and unit.pts is not None and track.codec in (PCMA, PCMU):
            self._put_sound(unit, track, unit.pts)

    def on_end(self, cause: GatewayError | None) -> None:
        self._end(f"stream ended: {cause.code}" if cause is not None else "stream ended")

    def _put_picture(self, unit: AccessUnit, track: Track, pts: int, *, is_paced: bool) -> None:
        packets = self._packer.picture(unit, track)
        if not packets.count:
            self._tally.add("webrtc.empty_picture")
            return
        pts = max(pts, self._last_pts + 1)
        self._last_pts = pts
        if self._picture_base is None:
            self._picture_base = pts
        cut = Cut(packets, pts - self._picture_base & 0xFFFFFFFF, self._wall(pts))
        dropped, is_new = self.video.put(cut, is_keyframe=unit.is_keyframe, is_paced=is_paced)
        if dropped:
            self._viewer.dropped += dropped
            self._tally.add("webrtc.slow_viewer", dropped)
        if is_new:
            self._viewer.skips += 1
            self._viewing.request_keyframe()

    def _put_sound(self, unit: AccessUnit, track: Track, pts: int) -> None:
        """Time stamps count samples, as receivers expect, and follow the camera's only where they have drifted."""
        assert self.law is not None
        if self._sound_base is None:
            self._sound_base = pts
        at = (pts - self._sound_base) * SOUND_HZ // HZ
        if at - self._sound_next > SOUND_DRIFT_SAMPLES:
            self._sound_next = at
        elif self._sound_next - at > SOUND_DRIFT_SAMPLES:
            self._tally.add("webrtc.surplus_sound")
            return
        wall = self._wall(pts)
        for piece in self._packer.sound(unit, track, self.law):
            cut = Cut(piece, self._sound_next & 0xFFFFFFFF, wall)
            dropped, _ = self.audio.put(cut, is_keyframe=True, is_paced=False)
            self._viewer.dropped += dropped
            self._sound_next += piece.size
            wall += piece.size / SOUND_HZ

    def _wall(self, pts: int) -> float:
        """The camera's clock on ours: of the first unit's arrival, and from there on by pts alone, so that the viewer
        plays sound and pictures together however late either comes."""
        if not self._epoch:
            self._epoch = time.time() - pts / HZ
        return self._epoch + pts / HZ


def _is_light(stream: Stream) -> bool:
    """Whether the cached GOP can be sent whole."""
    pictures = [unit for unit, track in stream.gop if track.is_video]
    return sum(map(len, pictures)) <= limits.WEBRTC_CATCH_UP_BYTES and len(pictures) <= limits.WEBRTC_CATCH_UP_PICTURES
