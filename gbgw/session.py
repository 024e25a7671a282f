"""One Session: the invitation, the port, the SSRC and the stream of one camera channel, live or of a recording, opened
and closed in one place.

One task runs it, from the first viewer's request to the BYE. Those around it leave facts (viewers, steps of the
media, a wish to close) and words of the call, and wake it; it looks at them all, waits for the next, and every wait has
a deadline and a cause code of its own, so that no failure is a bare timeout. Whatever ends it, `run` gives everything
back in one `finally`: BYE first, then the port, then the SSRC (architecture decision 13).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from copy import copy
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, Protocol

from gbgw.base import limits
from gbgw.base.config import Config
from gbgw.base.errors import GatewayError, LocalError, MediaError, RequestError
from gbgw.base.machine import TICK, Tick
from gbgw.base.tally import Tally
from gbgw.gb import invite, sdp
from gbgw.gb.invite import BEGIN, CLOSE, Invitation, Platform
from gbgw.gb.ssrc import Ssrc, SsrcPool
from gbgw.observe import log
from gbgw.playhead import Playhead
from gbgw.sip import agent
from gbgw.sip.flow import Flow
from gbgw.sip.message import Request, Response
from gbgw.worker.base import Ingest, IngestFigures, IngestSpec, MediaWorker, StreamView, Transport

STEPS: Final = (
    "requested", "invite_sent", "provisional", "answered",
    "first_packet", "first_pack", "first_map", "parameter_sets", "first_keyframe", "published", "first_viewer",
)  # fmt: skip


class State(Enum):
    STARTING = "starting"
    PLAYING = "playing"
    LINGERING = "lingering"
    STOPPING = "stopping"
    ENDED = "ended"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Past:
    """What of a channel's recordings is wanted.

    start, stop: Unix seconds. name: of this one among the sessions of the same span. linger_seconds: without viewers.
    download_speed: times the recorded one, of a download; None: it is played.
    """

    start: int
    stop: int
    name: str
    linger_seconds: float = limits.PLAYBACK_LINGER_SECONDS
    download_speed: int | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """The channel to invite and the way to it, as they were when the session began. past: None for live pictures."""

    device_id: str
    channel_id: str
    flow: Flow
    transport: Transport
    past: Past | None = None

    @property
    def key(self) -> str:
        live = f"{self.device_id}-{self.channel_id}"
        past = self.past
        return live if past is None else f"{live}-{past.start}-{past.stop}-{past.name}"

    @property
    def kind(self) -> Literal["live", "playback", "download"]:
        if self.past is None:
            return "live"
        return "playback" if self.past.download_speed is None else "download"


class Signalling(Protocol):
    """What a session needs of the SIP stack."""

    def new_handle(self) -> int: ...
    def submit(self, event: agent.Ask | agent.End, listener: "Callable[[CallEvent], None] | None" = None) -> None:
        """Give the user agent an event; what it says of this handle goes to `listener` until Ended or Failed."""

    async def request(
        self, request: Request, flow: Flow, timeout_seconds: float, *, dialog: int | None = None
    ) -> Response:
        """Ask inside a dialog. Raises PeerError when no final answer comes."""

    def contact_host(self, flow: Flow) -> str:
        """Our address as the peer of `flow` reaches it."""


class Dialogs(Protocol):
    """The store's part: a dialog is written before its INVITE leaves, so that a restart can end it. What becomes of it
    then, and when its camera has heard the BYE, is told by the user agent."""

    async def dialog_opening(
        self, handle: int, key: str, request: Request, flow: Flow, ssrc: str, port: int
    ) -> None: ...
    def dialog_unused(self, handle: int) -> None:
        """Its INVITE never left."""


CallEvent = agent.Provisional | agent.Final | agent.Failed | agent.Ended


class Seat:
    """One viewer's right to a session, wherever its pictures are. Held from the first byte asked for to the last one
    sent."""

    def __init__(self, session: "Session") -> None:
        self._session: Session | None = session
        self._of = session
        session.viewer_came()

    @property
    def stream(self) -> StreamView:
        """Once it is playable."""
        assert self._of.stream is not None
        return self._of.stream

    @property
    def ingest(self) -> Ingest | None:
        return self._of.ingest

    async def taken(self) -> "Seat":
        """This seat, once there is something to see; given back where there never is."""
        try:
            await self._of.playable()
        except BaseException:
            self.leave()
            raise
        return self

    def first_viewer(self, now: float) -> None:
        self._of.first_viewer(now)

    def leave(self) -> None:
        """May be called again."""
        session, self._session = self._session, None
        if session is not None:
            session.viewer_left()


class Session:
    """One camera stream. `run` is the whole life; the other methods are called from the same loop by whoever
    watches."""

    def __init__(
        self,
        target: Target,
        *,
        config: Config,
        platform: Platform,
        sip: Signalling,
        worker: MediaWorker,
        ssrcs: SsrcPool,
        dialogs: Dialogs,
        tally: Tally,
        keyframe: Callable[["Session"], None],
        changed: Callable[["Session"], None],
    ) -> None:
        """keyframe: ask the camera for one (rate-limited there). changed: the state changed, tell who listens."""
        self.target = target
        self.key = target.key
        self.state = State.STARTING
        self.cause: GatewayError | None = None
        self.viewers = 0
        self.ingest: Ingest | None = None
        self.steps: dict[str, float] = {}
        self.was_wanted = False  # when its worker was lost
        self.measured = False  # its way to the first picture is in the metrics
        self._config = config
        self._platform = platform
        self._sip = sip
        self._worker = worker
        self._ssrcs = ssrcs
        self._dialogs = dialogs
        self._tally = tally
        self._keyframe = keyframe
        self._changed = changed
        self._news = asyncio.Event()  # one of the facts below, of `steps` or of `viewers` changed
        self._words: deque[CallEvent] = deque()  # of the call, not yet read
        self._kept = False  # started through the API: stays without viewers
        self._closing = False
        self._close_cause: GatewayError | None = None
        self._placed = asyncio.Event()
        self._published = asyncio.Event()
        self._finished = asyncio.Event()
        self._ssrc: Ssrc | None = None
        self._invite: Invitation | None = None
        self._stream: StreamView | None = None
        self._figures = IngestFigures()
        self._answered_tcp = False  # to an offer of UDP: believed only when no UDP comes
        self._unwatched_at: float | None = None  # loop seconds at which it was seen playing for nobody
        self._drained_at: float | None = None  # the recording is over: loop seconds at which its last media was given
        past = target.past
        self.playhead = Playhead(past.start, past.stop, self._tell_device) if past is not None else None
        self._log = log.get("session").bind(stream=self.key, device=target.device_id)

    # For those who watch

    @property
    def stream(self) -> StreamView | None:
        return self._stream

    @property
    def over(self) -> bool:
        return self._finished.is_set()

    @property
    def accepts_viewers(self) -> bool:
        return self.state in (State.STARTING, State.PLAYING, State.LINGERING)

    async def placed(self) -> int:
        """Wait until a media worker has it; return its number. Raises the session's cause when none ever will."""
        await self._placed.wait()
        if self.ingest is None or not self.accepts_viewers:
            raise self._no_stream()
        return self.ingest.worker

    async def playable(self) -> StreamView:
        """Wait until the stream is published. Raises the session's cause when it never will be."""
        await self._published.wait()
        if self.cause is not None or self._stream is None or not self.accepts_viewers:
            raise self._no_stream()
        return self._stream

    def _no_stream(self) -> GatewayError:
        if self.cause is not None:
            return copy(self.cause)  # each viewer's own: a traceback grows with every raise
        return MediaError("the stream was stopped before it began", code="stream_stopped", stream=self.key)

    def viewer_came(self) -> None:
        self.viewers += 1
        self._news.set()

    def viewer_left(self) -> None:
        self.viewers -= 1
        self._news.set()

    def keep(self) -> None:
        """Play on without viewers until `close`."""
        self._kept = True
        self._news.set()

    def close(self, cause: GatewayError | None = None) -> None:
        """End it; the first cause counts, None is a regular end."""
        if not self._closing:
            self._closing, self._close_cause = True, cause
            self._news.set()

    async def closed(self) -> None:
        await self._finished.wait()

    def first_viewer(self, now: float) -> None:
        """The first byte went out to a viewer."""
        self.steps.setdefault("first_viewer", now)

    @property
    def wanted(self) -> bool:
        """Somebody watches it, or it was started to play without viewers."""
        return self.viewers > 0 or self._kept

    @property
    def kept(self) -> bool:
        return self._kept

    @property
    def heard_at(self) -> float:
        """Loop seconds of the camera's last packet, or of the request when none has come yet."""
        last = self.ingest.last_packet_at if self.ingest is not None else None
        return last if last is not None else self.steps.get("requested", 0.0)

    def figures(self) -> IngestFigures:
        return self.ingest.figures() if self.ingest is not None else self._figures

    # Of recordings

    @property
    def dialog(self) -> int | None:
        """The handle of its dialog, None before there is one."""
        return self._invite.handle if self._invite is not None else None

    def recording_over(self) -> None:
        """The device says that it has sent all of it (MediaStatus 121): what is under way is still wanted."""
        if self._drained_at is None and self.target.past is not None:
            self._drained_at = asyncio.get_running_loop().time() + limits.RECORD_DRAIN_SECONDS
            self._news.set()

    def controlled(self) -> tuple[Playhead, Ingest]:
        """What steers a recording that plays. Raises RequestError `not_streaming`."""
        if self.playhead is None or self.ingest is None or not self._published.is_set() or not self.accepts_viewers:
            raise RequestError(
                "the playback does not play yet",
                status=409,
                code="not_streaming",
                remedy="open one of its play URLs first",
                stream=self.key,
            )
        return self.playhead, self.ingest

    def steered(self) -> None:
        """A command was taken: what is waited for may have changed."""
        self._news.set()

    async def _tell_device(self, request: Request, seconds: float) -> Response:
        return await self._sip.request(request, self.target.flow, seconds, dialog=self.dialog)

    # IngestListener

    def on_step(self, name: str, now: float) -> None:
        self._step(name, now)

    def on_keyframe_wanted(self) -> None:
        if self.accepts_viewers and self.target.past is None:
            self._keyframe(self)

    def on_lost(self, cause: LocalError) -> None:
        self.was_wanted = self.wanted
        self.close(cause)

    # The life

    async def run(self) -> None:
        """Open, play, close. Never raises a GatewayError: that stays in `cause`. Anything else is a bug and comes
        out."""
        self._step("requested", asyncio.get_running_loop().time())
        try:
            self._changed(self)
            await self._play(await self._open())
        except GatewayError as error:
            self._fail(error)
        except Exception:
            self._fail(
                LocalError(
                    "a fault of the gateway ended the stream", code="internal", remedy="its log says more; report it"
                )
            )
            raise
        finally:
            await self._give_back()

    def _fail(self, error: GatewayError) -> None:
        self.cause = copy(error)  # without the traceback, which would keep all of this alive for as long as the cause
        self.cause.stream = self.key

    async def _open(self) -> Invitation:
        """Take an SSRC, a port and a place in the store, in this order; `_give_back` finds whatever was taken."""
        target, flow = self.target, self.target.flow
        media = self._config.media
        past = target.past
        self._ssrc = self._ssrcs.allocate(asyncio.get_running_loop().time(), history=past is not None)
        spec = IngestSpec(
            self.key,
            target.transport,
            self._ssrc.value,
            flow.remote[0],
            loss=media.loss,
            rtcp=media.rtcp,
            history=past is not None,
        )
        self.ingest = await self._worker.open_ingest(spec, self)
        self._stream = self.ingest.stream
        self._placed.set()
        offer = self._offer(self._sip.contact_host(flow), self.ingest.port, self._ssrc.text)
        self._invite = Invitation(
            self._sip.new_handle(),
            self._platform,
            target.device_id,
            target.channel_id,
            flow,
            offer,
            self._config.sip.invite_seconds,
        )
        await self._dialogs.dialog_opening(
            self._invite.handle, self.key, self._invite.request, flow, self._ssrc.text, self.ingest.port
        )
        return self._invite

    def _offer(self, address: str, port: int, ssrc: str) -> sdp.SessionDescription:
        target, past, platform_id = self.target, self.target.past, self._platform.platform_id
        if past is None:
            return sdp.live_offer(platform_id, address, port, target.transport, ssrc)
        return sdp.history_offer(
            platform_id,
            address,
            port,
            target.transport,
            ssrc,
            channel_id=target.channel_id,
            start=past.start,
            stop=past.stop,
            download_speed=past.download_speed,
        )

    async def _play(self, call: Invitation) -> None:
        """Follow call and media until it is over: return for a regular end, raise the cause of any other."""
        clock = asyncio.get_running_loop().time
        if await self._is_over(clock()):
            return
        self._step("invite_sent", clock())
        await self._perform(call.push(BEGIN, clock()))
        while True:
            self._news.clear()
            await self._follow(call)
            if await self._is_over(clock()):
                return
            deadlines = (call.deadline, self._patience, self._linger_end, self._drained_at)
            try:
                async with asyncio.timeout_at(min((at for at in deadlines if at is not None), default=None)):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _follow(self, call: Invitation) -> None:
        """Give the call all that was said of it, and the time."""
        clock = asyncio.get_running_loop().time
        event: CallEvent | Tick | None = None
        while event is not TICK:
            event = self._words.popleft() if self._words else TICK
            if isinstance(event, agent.Provisional):
                self._step("provisional", clock())
            await self._perform(call.push(event, clock()))

    async def _perform(self, effects: Sequence[invite.Effect]) -> None:
        self._send(effects)  # all of it before an error ends this: a useless answer comes with the End of its dialog
        for effect in effects:
            match effect:
                case invite.Answered(answer, flow):
                    await self._answered(answer, flow)
                case invite.Refused(error):
                    raise error
                case invite.Closed("bye") if self.target.past is not None:
                    self._drained_at = asyncio.get_running_loop().time()
                case invite.Closed("bye"):
                    raise MediaError(
                        "the camera ended the stream",
                        code="closed_by_camera",
                        remedy="ask again; if it repeats, look into the device's log",
                    )
                case invite.Closed():
                    raise MediaError(
                        "the camera's connection closed",
                        code="device_offline",
                        remedy="check its network; the next viewer invites it again once it is back",
                    )

    def _send(self, effects: Sequence[invite.Effect]) -> None:
        for effect in effects:
            match effect:
                case agent.Ask() | agent.End():
                    self._sip.submit(effect, self._heard)
                case invite.Counted(name, detail):
                    self._tally.add(name, detail=detail, now=asyncio.get_running_loop().time())

    def _heard(self, word: CallEvent) -> None:
        """Take a word of the call. A camera may ring without end; what ends the call always finds room."""
        if isinstance(word, agent.Provisional) and len(self._words) >= limits.SIP_CALL_EVENTS:
            self._tally.add("session.provisional_dropped", detail=self.key)
            return
        self._words.append(word)
        self._news.set()

    async def _answered(self, answer: sdp.Answer, flow: Flow) -> None:
        assert self.ingest is not None
        self._step("answered", asyncio.get_running_loop().time())
        self._answered_tcp = sdp.TCP_ANSWER in answer.remarks
        await self.ingest.answered(
            address=answer.address or flow.remote[0],
            port=answer.port,
            transport=answer.transport,
            ssrc=answer.ssrc,
            sip_host=flow.remote[0],
        )

    @property
    def _patience(self) -> float | None:
        """When the media is overdue: its first packet, its first picture, then any packet. The answer is the call's
        matter."""
        assert self.ingest is not None
        steps, media = self.steps, self._config.media
        if "published" in steps:
            last = self.ingest.last_packet_at
            quiet_since = last if last is not None else steps["published"]
            if self.playhead is None:
                return quiet_since + media.idle_seconds
            quiet_since = max(quiet_since, self.playhead.changed_at)
            return quiet_since + (limits.PLAYBACK_PAUSED_SECONDS if self.playhead.paused else media.idle_seconds)
        if "answered" not in steps:
            return None
        if "first_packet" not in steps:
            return steps["answered"] + media.first_packet_seconds
        return max(steps["answered"], steps["first_packet"]) + media.key_frame_seconds

    @property
    def _linger_end(self) -> float | None:
        past = self.target.past
        linger = past.linger_seconds if past is not None else self._config.media.linger_seconds
        return self._unwatched_at + linger if self._unwatched_at is not None else None

    async def _is_over(self, now: float) -> bool:
        """Look at all facts. True: it ends regularly. Raises the cause of any other end."""
        if self._closing:
            if self._close_cause is not None:
                raise self._close_cause
            return True
        playing = "published" in self.steps
        if playing:
            self._attend(now)
        if self._drained_at is not None and now >= self._drained_at:
            if not playing:
                raise _no_record()
            return True
        if self._linger_end is not None and now >= self._linger_end:
            return True
        if self._patience is not None and now >= self._patience:
            assert self.ingest is not None
            await self.ingest.settle()  # what its worker told last may be a second old
            if self._closing or now < self._patience:
                return False
            if playing and self._came_to_its_end:
                return True
            raise self._stopped() if playing else await self._no_picture()
        return False

    @property
    def _came_to_its_end(self) -> bool:
        """A recording whose last seconds were played is over, though its device says nothing."""
        played = self.figures().played_seconds
        return self.playhead is not None and not self.playhead.paused and self.playhead.is_near_end(played)

    def _attend(self, now: float) -> None:
        """It plays: for somebody, or for nobody since when."""
        if self.viewers > 0 or self._kept:
            self._unwatched_at = None
            self._enter(State.PLAYING)
        else:
            self._unwatched_at = now if self._unwatched_at is None else self._unwatched_at
            self._enter(State.LINGERING)
        if not self._published.is_set():
            self._published.set()
            self._log.info("playing", seconds=round(self.steps["published"] - self.steps["requested"], 3))

    async def _no_picture(self) -> GatewayError:
        assert self.ingest is not None
        if self._answered_tcp and "first_packet" not in self.steps:
            return sdp.answered_tcp()
        return await self.ingest.diagnose()

    def _stopped(self) -> MediaError:
        return MediaError(
            f"the camera sent nothing for {self._config.media.idle_seconds:g} s",
            code="media_stopped",
            remedy="check the network between camera and gateway; the next viewer invites it again",
        )

    # The end

    async def _give_back(self) -> None:
        """BYE, then the port, then the SSRC; what goes wrong with one keeps none of the others."""
        async with AsyncExitStack() as last:  # runs from the bottom up
            last.callback(self._finish)
            last.callback(self._release_ssrc)
            last.push_async_callback(self._close_ingest)
            last.push_async_callback(self._say_goodbye)
            self._placed.set()
            self._published.set()  # who waits for a picture hears at once that none will come
            self._enter(State.STOPPING)

    async def _say_goodbye(self) -> None:
        """End the dialog and wait a bounded while for the camera's word; the port is still ours meanwhile."""
        call = self._invite
        if call is None:
            return
        if call.state is invite.State.IDLE:
            self._dialogs.dialog_unused(call.handle)
        clock = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(limits.GOODBYE_SECONDS):
                self._send(call.push(CLOSE, clock()))
                while not call.finished:
                    self._news.clear()
                    if self._words:
                        self._send(call.push(self._words.popleft(), clock()))
                    else:
                        await self._news.wait()
        except TimeoutError:
            self._tally.add("session.goodbye_unanswered", detail=self.key)  # the user agent goes on repeating it

    async def _close_ingest(self) -> None:
        if self.ingest is None:
            return
        cause = self.cause
        if cause is not None and not isinstance(cause, MediaError):
            cause = MediaError(cause.message, code=cause.code, remedy=cause.remedy, stream=self.key)
        try:
            await self.ingest.close(cause)
        finally:
            self._figures = self.ingest.figures()
            self.ingest = None  # the session is shown for a while; sockets and buffers are not

    def _release_ssrc(self) -> None:
        if self._ssrc is not None:
            self._ssrcs.release(self._ssrc, asyncio.get_running_loop().time())

    def _finish(self) -> None:
        self._finished.set()
        self._log.info("ended", cause=self.cause.code if self.cause is not None else None)
        self._enter(State.FAILED if self.cause is not None else State.ENDED)

    def _step(self, name: str, at: float) -> None:
        if name not in self.steps:
            self.steps[name] = at
            self._news.set()

    def _enter(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            self._changed(self)


def _no_record() -> MediaError:
    return MediaError(
        "the device ended the playback before it had sent a picture",
        code="no_record",
        remedy="it may have nothing recorded in this span: list its recordings first",
    )
