"""Opening a stream for one viewer: wait until it plays, derive what the viewer needs, and give all of it back.

What `serve` calls a Viewing is a Watch here.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, Literal, Protocol

from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import AAC, H265
from gbgw.base.errors import GatewayError, LocalError, MediaError, StateError
from gbgw.media.hub import Stream
from gbgw.media.track import Track
from gbgw.mux.transcode import Derived, Transcoders
from gbgw.serve.source import AudioChoice

TRANSCODE_SECONDS: Final = 8.0  # from request to the first transcoded picture: a child's start and one GOP


class Watched(Protocol):
    """The stream that is asked for, as a viewer's side knows it: a Session, or its stand-in in a media worker."""

    def viewer_came(self) -> None: ...
    def viewer_left(self) -> None: ...
    def first_viewer(self, now: float) -> None: ...
    def on_keyframe_wanted(self) -> None: ...
    async def playable(self) -> object:
        """The Stream, once it is published. Raises its cause when it never will be."""


class Watch:
    """The right to watch one stream; what `serve` calls a Viewing."""

    def __init__(self, session: Watched, stream: Stream, derived: Sequence[Derived]) -> None:
        self.stream = stream
        self._session = session
        self._derived = derived
        self._open = True

    async def close(self) -> None:
        if not self._open:
            return
        self._open = False
        try:
            for derived in reversed(self._derived):
                await derived.close()
        finally:
            self._session.viewer_left()

    def request_keyframe(self) -> None:
        self._session.on_keyframe_wanted()


class Watching:
    """Makes Watches of streams of this process.

    transcoders: for G.711 as AAC, and pictures as H.264 where they are allowed at all.
    """

    def __init__(self, transcoders: Transcoders) -> None:
        self._transcoders = transcoders

    async def open(
        self, session: Watched, *, protocol: str, audio: AudioChoice, video: Literal["h264"] | None
    ) -> Watch:
        """Return once `session` is playable in the form asked for. Raises its cause when it never will be."""
        session.viewer_came()
        derived: list[Derived] = []
        try:
            stream = await session.playable()
            if not isinstance(stream, Stream):
                raise StateError(
                    "the stream's pictures are in another process",
                    code="media_elsewhere",
                    remedy="set media.workers = 0 to take them in Python",
                )
            if self._needs_h264(stream, protocol, video):
                derived.append(await self._transcoders.h264(stream))
                stream = derived[-1].stream
                await _published(stream)
            if audio == "aac" and (stream.audio is None or stream.audio.codec is not AAC):  # it may come later
                derived.append(await self._transcoders.aac(stream))
                stream = derived[-1].stream
                await _published(stream)
        except BaseException:
            for each in reversed(derived):
                await each.close()
            session.viewer_left()
            raise
        session.first_viewer(asyncio.get_running_loop().time())
        return Watch(session, stream, derived)

    def _needs_h264(self, stream: Stream, protocol: str, wish: str | None) -> bool:
        """H.265 where H.264 was asked for; B-frames for WebRTC, where transcoding is allowed at all."""
        track = stream.video
        if track is None:
            return False
        if protocol == "webrtc" and track.reorder_depth > 0 and track.codec is not H265:
            return wish == "h264" or self._transcoders.video_limit > 0
        return wish == "h264" and track.codec is H265


class _Publication:
    """A sink that only waits for a stream's first set of tracks."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.cause: GatewayError | None = None
        self.ended = False

    def on_tracks(self, tracks: tuple[Track, ...], generation: int) -> None:
        self.event.set()

    def on_unit(self, unit: AccessUnit, track: Track) -> None:
        pass

    def on_end(self, cause: GatewayError | None) -> None:
        self.ended, self.cause = True, cause
        self.event.set()


async def _published(stream: Stream) -> None:
    """Wait for a derived stream's first picture or sound."""
    if stream.published:
        return
    publication = _Publication()
    subscription = stream.attach(publication, replay=False)
    try:
        async with asyncio.timeout(TRANSCODE_SECONDS):
            await publication.event.wait()
    except TimeoutError:
        raise LocalError(
            f"the transcoder gave no picture within {TRANSCODE_SECONDS:.0f} s",
            code="transcode_slow",
            remedy="the machine may be overloaded; lower media.transcode or play without ?video=h264",
            stream=stream.key,
        ) from None
    finally:
        subscription.detach()
    if publication.ended:
        raise publication.cause or MediaError("the stream ended", code="stream_stopped", stream=stream.key)
