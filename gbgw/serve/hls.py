"""HLS: multivariant and media playlists, init and media segments (RFC 8216), made by mux/hls.py.

The URL a viewer opens is the multivariant playlist; it names a media playlist whose URIs carry a session id. The play
token is checked once, there; the session is valid while it is polled. Sessions of one stream and container share one
HlsOutput, which holds the one Viewing and ends when nobody polls any more.
"""

import asyncio
import logging
import re
import secrets
import time
from typing import TYPE_CHECKING, Final, Literal

from aiohttp import web

from gbgw.base import limits
from gbgw.base.errors import GatewayError, LocalError, MediaError, RequestError, TransportClosedError
from gbgw.base.strict import is_strict
from gbgw.mux.feed import Attachment, Feed
from gbgw.mux.hls import CONTENT_TYPE, SEGMENT_TYPES, Container, Segmenter
from gbgw.serve.context import SERVING
from gbgw.serve.flv import Wish
from gbgw.serve.source import AudioChoice, StreamKey, Viewing
from gbgw.serve.viewers import Viewer

if TYPE_CHECKING:
    from gbgw.serve.context import Serving

_log: Final = logging.getLogger(__name__)
_PIECE: Final = re.compile(r"(?:init-(\d{1,9})\.mp4)|(?:(\d{1,15})\.(m4s|ts))")
_SWEEP_SECONDS: Final = 1.0

OutputId = tuple[str, Container, AudioChoice, Literal["h264"] | None]


class HlsSession:
    """One viewer that polls."""

    __slots__ = ("id", "output", "polled_at", "viewer")

    def __init__(self, output: "HlsOutput", viewer: Viewer, now: float) -> None:
        self.id = secrets.token_urlsafe(18)
        self.output = output
        self.viewer = viewer
        self.polled_at = now


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
        self._changed = asyncio.Event()  # set, and replaced, at each new segment
        self._used_at = asyncio.get_running_loop().time()

    @property
    def session_seconds(self) -> float:
        return max(limits.HLS_SESSION_SECONDS, 3.0 * self.segmenter.target_duration)

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

    def touch(self, session: HlsSession) -> None:
        session.polled_at = self._used_at = asyncio.get_running_loop().time()

    async def _open(self) -> Attachment:
        key, container, audio, video = self.id
        viewing = await self._serving.source.open(
            key, protocol="hls", viewer=f"hls-{container}", audio=audio, video=video
        )
        self._viewing = viewing
        feed = self._serving.feeds.get(viewing.stream, container)
        segmenter = Segmenter(
            container,
            wall_offset=time.time() - asyncio.get_running_loop().time(),
            first_sequence=int(time.time()),  # about a segment a second: a restart never steps back
            expected_seconds=viewing.stream.gop_seconds,
            on_segment=self._notify,
        )
        attachment = feed.attach(segmenter, splice=True)
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
                if now - session.polled_at > self.session_seconds:
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
        self._sessions: dict[str, HlsSession] = {}
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
        session = HlsSession(output, viewer, asyncio.get_running_loop().time())
        self._sessions[session.id] = session
        output.sessions[session.id] = session
        return session

    def end(self, session: HlsSession) -> None:
        self._sessions.pop(session.id, None)
        session.output.sessions.pop(session.id, None)
        self._serving.viewers.remove(session.viewer)

    def session(self, request: web.Request) -> HlsSession:
        """The session a request belongs to. Raises RequestError 403, 410."""
        session = self._sessions.get(request.query.get("session", ""))
        if session is None:
            raise RequestError(
                "This HLS session has ended.",
                status=410,
                code="session_expired",
                remedy="Open index.m3u8 again.",
                stream=request.match_info["key"][:96],
            )
        if session.output.key != request.match_info["key"]:
            raise RequestError("This session is not for this stream.", status=403, code="session_foreign")
        session.output.touch(session)
        return session


async def index(request: web.Request) -> web.StreamResponse:
    """GET /live/{key}/index.m3u8: checks the token, starts the stream, begins a session."""
    serving = request.app[SERVING]
    key = str(StreamKey.parse(request.match_info["key"]))
    serving.authority.require_play(request, key)
    wish = Wish.of(request)
    container: Container
    match request.query.get("container", "mp4"):
        case "mp4" | "fmp4":
            container = "mp4"
        case "ts":
            container = "ts"
        case _:
            raise RequestError("There is no such container.", code="bad_query", remedy="Use container=mp4 or ts.")
    output = serving.hls.get((key, container, wish.audio, wish.video))
    await output.playable()
    feed = output.feed
    if feed is None:
        raise LocalError("The output is not open.", code="internal", stream=key)
    if request.method == "HEAD":
        return _playlist("")
    session = serving.hls.begin(output, serving.remote(request), wanted=request.query.get("viewer", ""))
    text = output.segmenter.multivariant_playlist(
        feed.tracks, f"media.m3u8?session={session.id}", frame_rate=feed.stream.frame_rate
    )
    response = _playlist(text)
    response.headers["X-Gbgw-Viewer"] = session.viewer.id
    return response


async def media(request: web.Request) -> web.StreamResponse:
    """GET /live/{key}/media.m3u8?session=ID."""
    session = request.app[SERVING].hls.session(request)
    text = session.output.segmenter.media_playlist(f"?session={session.id}")
    session.viewer.bytes += len(text)
    return _playlist(text)


async def piece(request: web.Request) -> web.StreamResponse:
    """GET /live/{key}/init-N.mp4, N.m4s, N.ts with ?session=ID."""
    session = request.app[SERVING].hls.session(request)
    output = session.output
    match = _PIECE.fullmatch(request.match_info["name"])
    data: bytes | None = None
    if match is not None and match[1] is not None:
        data = output.segmenter.init(int(match[1]))
    elif match is not None and (match[3] == "ts") == (output.container == "ts"):
        data = output.segmenter.segment(int(match[2]))
    if data is None:
        raise RequestError(
            "This segment is not here (any more).",
            status=404,
            code="segment_gone",
            remedy="Read the playlist again.",
            stream=output.key,
        )
    session.viewer.bytes += len(data)
    response = web.Response(body=data, content_type=SEGMENT_TYPES[output.container])
    response.headers["Cache-Control"] = "private, max-age=60, immutable"
    return response


def _playlist(text: str) -> web.Response:
    response = web.Response(text=text, content_type=CONTENT_TYPE)
    response.headers["Cache-Control"] = "no-store"
    return response
