"""Who watches HLS: sessions, and the output that those of one stream share.

Sessions of one stream and container share one HlsOutput, which holds the one Viewing and ends when nobody polls any
more. A session is a viewer; it lives while it is polled, and it holds a bounded number of requests open.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

from aiohttp import web

from gbgw.base import limits
from gbgw.base.errors import GatewayError, LocalError, MediaError, RequestError, TransportClosedError
from gbgw.base.strict import is_strict
from gbgw.mux.feed import Attachment, Feed
from gbgw.mux.hls import Segmenter
from gbgw.mux.playlist import Container
from gbgw.observe import log
from gbgw.serve.places import belongs
from gbgw.serve.source import AudioChoice, Viewing
from gbgw.serve.viewers import Viewer

if TYPE_CHECKING:
    from gbgw.serve.context import Serving

_log: Final = logging.getLogger(__name__)
_access: Final = log.get("http")
_SWEEP_SECONDS: Final = 1.0
FORMATS: Final[dict[Container, str]] = {"mp4": "hls", "ts": "ts"}  # of the Feed
WAIT_DURATIONS: Final = 3.0  # target durations that a request is held open at most (RFC 8216bis section 6.2.5.2)

OutputId = tuple[str, Container, AudioChoice, Literal["h264"] | None]


class HlsSession:
    """One viewer that polls. waits: its requests that are held open now."""

    __slots__ = ("began_at", "has_polled", "id", "output", "polled_at", "viewer", "waits")

    def __init__(self, output: "HlsOutput", viewer: Viewer, now: float, *, mark: str = "") -> None:
        self.id = mark + secrets.token_urlsafe(18)
        self.output = output
        self.viewer = viewer
        self.began_at = self.polled_at = now
        self.has_polled = False
        self.waits = 0

    def is_gone(self, now: float) -> bool:
        """True when nothing was heard of it for too long."""
        if self.waits:
            return False
        patience = self.output.session_seconds if self.has_polled else limits.HLS_UNPOLLED_SECONDS
        return now - self.polled_at > patience

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Return when the condition holds, which is looked at after each change of the playlist.

        Raises RequestError: 429 when this session has too many requests open, 503 when nothing came in time.
        """
        if self.waits >= limits.HLS_SESSION_WAITS:
            raise RequestError(
                f"This HLS session has {self.waits} requests open already.",
                status=429,
                code="hls_waits",
                remedy="Wait for their answers, or open index.m3u8 again for another viewer.",
                stream=self.output.key,
            )
        self.waits += 1
        try:
            await self.output.wait(condition)
        finally:
            self.waits -= 1
            self.output.touch(self)


class HlsOutput:
    """One stream as HLS in one container; its task `hls:KEY` opens it, sweeps its sessions, and closes it."""

    def __init__(self, serving: "Serving", outputs: "HlsOutputs", identity: OutputId) -> None:
        self.id = identity
        self.key = identity[0]
        self.container: Container = identity[1]
        self.segmenter = Segmenter(self.container)  # replaced when the stream is open
        self.feed: Feed | None = None
        self.error: GatewayError | None = None
        self.requests = 0  # that wait for the first segment
        self.sessions: dict[str, HlsSession] = {}
        self._serving = serving
        self._outputs = outputs
        self._viewing: Viewing | None = None
        self._changed = asyncio.Event()  # set, and replaced, at each new part or segment
        self._used_at = asyncio.get_running_loop().time()

    @property
    def session_seconds(self) -> float:
        return max(limits.HLS_SESSION_SECONDS, WAIT_DURATIONS * self.segmenter.playlist.target_duration)

    async def run(self) -> None:
        attachment: Attachment | None = None
        try:
            attachment = await self._open()
            await self._sweep()
        except GatewayError as error:
            self.error = error
        except Exception:
            _log.exception("HLS output of %s failed", self.key)
            self._serving.tally.add("bug")
            self.error = LocalError("This output failed inside the gateway.", code="internal", stream=self.key)
            if is_strict():
                raise
        finally:
            if self.error is None:
                self.error = TransportClosedError("This HLS output has ended.", code="media_stopped")
            self._notify()
            self._outputs.forget(self)
            for session in tuple(self.sessions.values()):
                self._outputs.end(session)
            if attachment is not None:
                attachment.detach()
            if self._viewing is not None:
                async with asyncio.timeout(limits.GOODBYE_SECONDS):
                    await self._viewing.close()

    async def playable(self) -> None:
        """Return when a player can start. Raises GatewayError with the cause when it cannot, or not in time."""
        self.requests += 1
        try:
            async with asyncio.timeout(limits.HLS_FIRST_SEGMENT_SECONDS):
                while not self.segmenter.ready:
                    if self.error is not None:
                        raise self.error
                    if self.segmenter.ended:
                        raise self.segmenter.cause or MediaError(
                            "The stream ended before its first segment.", code="media_stopped", stream=self.key
                        )
                    await self._changed.wait()
        except TimeoutError:
            raise MediaError(
                f"No segment was complete within {limits.HLS_FIRST_SEGMENT_SECONDS:.0f} s.",
                code="no_key_frame",
                remedy="Let the camera send a key frame every second or two, or play by FLV or WebRTC.",
                stream=self.key,
            ) from None
        finally:
            self.requests -= 1
            self._used_at = asyncio.get_running_loop().time()

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Return when the condition holds. Raises the cause when the output has failed, RequestError 503 after
        WAIT_DURATIONS.
        """
        try:
            async with asyncio.timeout(WAIT_DURATIONS * self.segmenter.playlist.target_duration):
                while not condition():
                    if self.error is not None:
                        raise self.error
                    await self._changed.wait()
        except TimeoutError:
            raise RequestError(
                "The camera has sent nothing new in time.",
                status=503,
                code="media_stalled",
                remedy="Ask again; the stream ends with a cause when the camera stays silent.",
                stream=self.key,
            ) from None

    def touch(self, session: HlsSession) -> None:
        session.has_polled = True
        session.polled_at = self._used_at = asyncio.get_running_loop().time()

    async def _open(self) -> Attachment:
        key, container, audio, video = self.id
        viewing = await self._serving.source.open(
            key, protocol="hls", viewer=f"hls-{container}", audio=audio, video=video
        )
        self._viewing = viewing
        feed = self._serving.feeds.get(viewing.stream, FORMATS[container])
        segmenter = Segmenter(
            container,
            wall_offset=time.time() - asyncio.get_running_loop().time(),
            first_sequence=int(time.time()),  # about a segment a second: a restart never steps back
            expected_seconds=viewing.stream.gop_seconds,
            on_change=self._notify,
        )
        # Not behind another codec: CODECS of the multivariant playlist would lie, and no player of MSE goes on. The
        # playlist ends, and who opens the URL again is told the new one.
        attachment = feed.attach(segmenter)
        segmenter.begin_live()
        self.feed = feed
        self.segmenter = segmenter
        self._notify()
        return attachment

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if self.segmenter.ended:
            self._outputs.forget(self)  # who asks from now on starts the stream again

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = loop.time()
            for session in tuple(self.sessions.values()):
                if session.is_gone(now):
                    self._outputs.end(session)
            if self.sessions or self.requests:
                continue
            if self.segmenter.ended or now - self._used_at > limits.HLS_SESSION_SECONDS:
                return


class HlsOutputs:
    """Every HLS output and session of one server."""

    def __init__(self, serving: "Serving") -> None:
        self._serving = serving
        self._outputs: dict[OutputId, HlsOutput] = {}
        self.sessions: dict[str, HlsSession] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._outputs)

    def get(self, identity: OutputId) -> HlsOutput:
        """The output; started when there is none."""
        output = self._outputs.get(identity)
        if output is None or output.error is not None:
            tasks = self._serving.tasks
            if tasks is None:
                raise TransportClosedError("The server is stopping.", code="stopping")
            output = HlsOutput(self._serving, self, identity)
            self._outputs[identity] = output
            task = tasks.create_task(output.run(), name=f"hls:{identity[0]}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return output

    def close(self) -> None:
        """The server stops: every output ends."""
        for task in tuple(self._tasks):
            task.cancel()

    def forget(self, output: HlsOutput) -> None:
        if self._outputs.get(output.id) is output:
            del self._outputs[output.id]

    def begin(self, output: HlsOutput, remote: str, *, wanted: str = "") -> HlsSession:
        """A new viewer of an output that is playable. Raises LimitError."""
        if output.error is not None:
            raise output.error
        viewer = self._serving.viewers.add(output.key, "hls", remote, wanted=wanted)
        session = HlsSession(output, viewer, asyncio.get_running_loop().time(), mark=self._serving.mark)
        self.sessions[session.id] = session
        output.sessions[session.id] = session
        return session

    def end(self, session: HlsSession) -> None:
        """Idempotent."""
        if self.sessions.pop(session.id, None) is None:
            return
        session.output.sessions.pop(session.id, None)
        viewer = session.viewer
        self._serving.viewers.remove(viewer)
        _access.info(
            "hls session ended",
            stream=viewer.key,
            bytes=viewer.bytes,
            seconds=round(session.polled_at - session.began_at, 3),
            remote=viewer.remote,
        )

    def session(self, request: web.Request) -> HlsSession:
        """The session a request belongs to. Raises RequestError 403, 410."""
        session = self.sessions.get(request.match_info["session"])
        if session is None:
            raise RequestError(
                "This HLS session has ended.",
                status=410,
                code="session_expired",
                remedy="Open index.m3u8 again.",
                stream=request.match_info["key"][:96],
            )
        if not belongs(request, session.output.key):
            raise RequestError("This session is not for this stream.", status=403, code="session_foreign")
        session.output.touch(session)
        return session
