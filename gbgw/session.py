"""One Session: the invitation, the port, the SSRC and the stream of one camera channel, opened and closed in one place.

One task runs it, from the first viewer's request to the BYE. Whatever happens to it arrives as an event in its inbox;
every step of the way has a deadline and a cause code of its own, so that no failure is a bare timeout. Whatever ends
it, `run` gives everything back in one `finally`: BYE first, then the port, then the SSRC (architecture decision 13).
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from gbgw.base import limits
from gbgw.base.config import Config
from gbgw.base.errors import GatewayError, MediaError
from gbgw.base.machine import TICK, Tick
from gbgw.base.tally import Tally
from gbgw.gb import invite, sdp
from gbgw.gb.invite import BEGIN, CLOSE, LiveInvite, Platform
from gbgw.gb.ssrc import SsrcPool
from gbgw.media.hub import Stream
from gbgw.observe import log
from gbgw.sip import agent
from gbgw.sip.flow import Flow
from gbgw.sip.message import Request, Response
from gbgw.worker.base import Ingest, IngestFigures, IngestSpec, MediaWorker, Transport

STEPS: Final = (
    "requested", "invite_sent", "provisional", "answered",
    "first_packet", "first_pack", "first_map", "parameter_sets", "first_keyframe", "published", "first_viewer",
)  # fmt: skip
FAILED_LINGER_SECONDS: Final = 30.0  # how long the API still shows why a stream failed


class State(Enum):
    STARTING = "starting"
    PLAYING = "playing"
    LINGERING = "lingering"
    STOPPING = "stopping"
    ENDED = "ended"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Target:
    """The channel to invite and the way to it, as they were when the session began."""

    device_id: str
    channel_id: str
    flow: Flow
    transport: Transport

    @property
    def key(self) -> str:
        return f"{self.device_id}-{self.channel_id}"


class Signalling(Protocol):
    """What a session needs of the SIP stack."""

    def new_handle(self) -> int: ...
    def submit(self, event: agent.Ask | agent.End, listener: "Callable[[CallEvent], None] | None" = None) -> None:
        """Give the user agent an event; what it says of this handle goes to `listener` until Ended or Failed."""

    def contact_host(self, flow: Flow) -> str:
        """Our address as the peer of `flow` reaches it."""


class Dialogs(Protocol):
    """The store's part: a dialog is written before its INVITE leaves, so that a restart can end it."""

    async def dialog_opening(self, key: str, request: Request, flow: Flow, ssrc: str, port: int) -> None: ...
    def dialog_confirmed(self, key: str, response: Response) -> None: ...
    def dialog_closed(self, key: str) -> None: ...


CallEvent = agent.Provisional | agent.Final | agent.Failed | agent.Ended


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    at: float


@dataclass(frozen=True, slots=True)
class Demand:
    """The number of viewers changed."""

    viewers: int


@dataclass(frozen=True, slots=True)
class Close:
    """Somebody outside wants it to end; cause None: a regular end."""

    cause: GatewayError | None = None


Event = CallEvent | Step | Demand | Close | Tick


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
        self._inbox: asyncio.Queue[Event] = asyncio.Queue()
        self._published = asyncio.Event()
        self._finished = asyncio.Event()
        self._invite: LiveInvite | None = None
        self._deadline: float | None = None
        self._on_deadline: Callable[[], GatewayError | None] = lambda: None
        self._kept = False  # started through the API: stays without viewers
        self._log = log.get("session").bind(stream=self.key, device=target.device_id)

    # For those who watch

    @property
    def stream(self) -> Stream | None:
        return self.ingest.stream if self.ingest is not None else None

    @property
    def over(self) -> bool:
        return self._finished.is_set()

    @property
    def accepts_viewers(self) -> bool:
        return self.state in (State.STARTING, State.PLAYING, State.LINGERING)

    async def playable(self) -> Stream:
        """Wait until the stream is published. Raises the session's cause when it never will be."""
        await self._published.wait()
        if self.cause is not None:
            raise self.cause
        if self.ingest is None or self.over:
            raise MediaError("the stream was stopped before it began", code="stream_stopped", stream=self.key)
        return self.ingest.stream

    def viewer_came(self) -> None:
        self.viewers += 1
        self._inbox.put_nowait(Demand(self.viewers))

    def viewer_left(self) -> None:
        self.viewers -= 1
        self._inbox.put_nowait(Demand(self.viewers))

    def keep(self) -> None:
        """Play on without viewers until `close`."""
        self._kept = True
        self._inbox.put_nowait(Demand(self.viewers))

    def close(self, cause: GatewayError | None = None) -> None:
        self._inbox.put_nowait(Close(cause))

    async def closed(self) -> None:
        await self._finished.wait()

    def first_viewer(self, now: float) -> None:
        """The first byte went out to a viewer."""
        self.steps.setdefault("first_viewer", now)

    def figures(self) -> IngestFigures:
        return self.ingest.figures() if self.ingest is not None else IngestFigures()

    # IngestListener

    def on_step(self, name: str, now: float) -> None:
        if name not in self.steps:
            self._inbox.put_nowait(Step(name, now))

    def on_keyframe_wanted(self) -> None:
        if self.state in (State.STARTING, State.PLAYING, State.LINGERING):
            self._keyframe(self)

    # The life

    async def run(self) -> None:
        """Open, play, close. Never raises a GatewayError: the cause stays in `cause`; anything else is a bug and
        comes out."""
        loop = asyncio.get_running_loop()
        self._step("requested", loop.time())
        ssrc = None
        try:
            ssrc = self._ssrcs.allocate(loop.time())
            spec = IngestSpec(
                self.key,
                self.target.transport,
                ssrc.value,
                self.target.flow.remote[0],
                self._config.media.loss,
                self._config.media.rtcp,
            )
            self.ingest = await self._worker.open_ingest(spec, self)
            await self._begin(ssrc.text)
            await self._drive()
        except GatewayError as error:
            self.cause = error
            error.stream = self.key
        finally:
            self._enter(State.STOPPING)
            try:
                await self._say_goodbye()
            finally:
                try:
                    if self.ingest is not None:
                        await self.ingest.close(self._cause_for_viewers())
                finally:
                    if ssrc is not None:
                        self._ssrcs.release(ssrc, loop.time())
                    self._enter(State.FAILED if self.cause is not None else State.ENDED)
                    self._finished.set()
                    self._published.set()
                    self._log.info("ended", cause=self.cause.code if self.cause is not None else None)

    def _cause_for_viewers(self) -> MediaError | None:
        if self.cause is None or isinstance(self.cause, MediaError):
            return self.cause
        return MediaError(self.cause.message, code=self.cause.code, remedy=self.cause.remedy, stream=self.key)

    async def _begin(self, ssrc: str) -> None:
        assert self.ingest is not None
        flow = self.target.flow
        address = self._sip.contact_host(flow)
        offer = sdp.live_offer(self._platform.platform_id, address, self.ingest.port, self.target.transport, ssrc)
        self._invite = LiveInvite(
            self._sip.new_handle(),
            self._platform,
            self.target.device_id,
            self.target.channel_id,
            flow,
            offer,
            self._config.sip.invite_seconds,
        )
        await self._dialogs.dialog_opening(self.key, self._invite.request, flow, ssrc, self.ingest.port)
        now = asyncio.get_running_loop().time()
        self._step("invite_sent", now)
        await self._perform(self._invite.push(BEGIN, now))

    async def _drive(self) -> None:
        """Take events until it is over: returns for a regular end, raises the cause otherwise."""
        loop = asyncio.get_running_loop()
        assert self._invite is not None
        while True:
            deadlines = [at for at in (self._deadline, self._invite.deadline) if at is not None]
            event: Event = TICK
            try:
                async with asyncio.timeout_at(min(deadlines) if deadlines else None):
                    event = await self._inbox.get()
            except TimeoutError:
                pass
            now = loop.time()
            match event:
                case agent.Provisional():
                    self._step("provisional", now)
                case agent.Final() if event.response.status < 300:
                    self._dialogs.dialog_confirmed(self.key, event.response)
                case Close(cause):
                    if cause is not None:
                        raise cause
                    return
                case Step(name, at):
                    self._reached(name, at)
                case Demand():
                    self._demand(now)
            if isinstance(event, CallEvent | Tick):
                await self._perform(self._invite.push(event, now))
            if self._deadline is not None and now >= self._deadline:
                self._deadline = None
                cause_found = self._on_deadline()
                if cause_found is not None:
                    raise cause_found
                if self._deadline is None:
                    return

    async def _perform(self, effects: Sequence[invite.Effect]) -> None:
        for effect in effects:
            match effect:
                case agent.Ask() | agent.End():
                    self._sip.submit(effect, self._inbox.put_nowait)
                case invite.Answered(answer, flow):
                    await self._answered(answer, flow)
                case invite.Refused(error):
                    raise error
                case invite.Closed(reason):
                    raise MediaError(
                        "the camera ended the stream" if reason == "bye" else "the camera's connection closed",
                        code="closed_by_camera" if reason == "bye" else "device_offline",
                        remedy="ask again; if it repeats, look into the device's log",
                    )
                case invite.Counted(name, detail):
                    self._tally.add(name, detail=detail, now=asyncio.get_running_loop().time())

    async def _answered(self, answer: sdp.Answer, flow: Flow) -> None:
        assert self.ingest is not None
        now = asyncio.get_running_loop().time()
        self._step("answered", now)
        if "first_packet" in self.steps:
            self._wait(now, self._config.media.key_frame_seconds)
        else:
            self._wait(now, self._config.media.first_packet_seconds)
        await self.ingest.answered(
            address=answer.address or flow.remote[0],
            port=answer.port,
            transport=answer.transport,
            ssrc=answer.ssrc,
            sip_host=flow.remote[0],
        )

    def _wait(self, now: float, seconds: float) -> None:
        """The picture has `seconds` to come one step nearer; else the ingest says why it did not."""
        self._deadline = now + seconds
        self._on_deadline = lambda: self.ingest.diagnose() if self.ingest is not None else None

    def _reached(self, name: str, at: float) -> None:
        self._step(name, at)
        if name == "first_packet" and "answered" in self.steps:
            self._wait(at, self._config.media.key_frame_seconds)
        elif name == "published":
            self._published.set()
            self._log.info("playing", seconds=round(at - self.steps["requested"], 3))
            self._watch(at)

    def _demand(self, now: float) -> None:
        if "published" in self.steps:
            self._watch(now)

    def _watch(self, now: float) -> None:
        """While it plays: idle media and an absent audience are what can end it."""
        wanted = self.viewers > 0 or self._kept
        self._enter(State.PLAYING if wanted else State.LINGERING)
        if wanted:
            self._lingering_until = None
        elif self._lingering_until is None:
            self._lingering_until = now + self._config.media.linger_seconds
        self._deadline = self._next_look(now)
        self._on_deadline = self._look

    _lingering_until: float | None = None

    def _next_look(self, now: float) -> float:
        assert self.ingest is not None
        quiet_since = self.ingest.last_packet_at if self.ingest.last_packet_at is not None else now
        idle_at = quiet_since + self._config.media.idle_seconds
        return idle_at if self._lingering_until is None else min(idle_at, self._lingering_until)

    def _look(self) -> GatewayError | None:
        """A deadline of the playing state passed; leaving `_deadline` None ends the session regularly."""
        assert self.ingest is not None
        now = asyncio.get_running_loop().time()
        if self._lingering_until is not None and now >= self._lingering_until:
            return None
        last = self.ingest.last_packet_at
        if last is not None and now - last >= self._config.media.idle_seconds:
            return MediaError(
                f"the camera sent nothing for {now - last:.0f} s",
                code="media_stopped",
                remedy="check the network between camera and gateway; the next viewer invites it again",
            )
        self._deadline = self._next_look(now)
        return None

    async def _say_goodbye(self) -> None:
        """End the dialog and wait a bounded while for the answer; the port is still ours meanwhile."""
        if self._invite is None:
            return
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(limits.GOODBYE_SECONDS):
                for effect in self._invite.push(CLOSE, loop.time()):
                    if isinstance(effect, agent.End):
                        self._sip.submit(effect, self._inbox.put_nowait)
                while not self._invite.finished:
                    event = await self._inbox.get()
                    if isinstance(event, CallEvent):
                        self._invite.push(event, loop.time())
        except TimeoutError:
            self._tally.add("session.goodbye_unanswered")  # the user agent goes on repeating it by itself
        finally:
            self._dialogs.dialog_closed(self.key)

    def _step(self, name: str, at: float) -> None:
        self.steps.setdefault(name, at)

    def _enter(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            self._changed(self)
