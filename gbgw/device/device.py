"""The shell of one simulated device: it owns the sockets and tasks, and drives the role and its user agent."""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, cast

from gbgw.base import limits
from gbgw.base.errors import PeerError, TransportClosedError
from gbgw.base.machine import TICK, Tick
from gbgw.base.tally import Tally
from gbgw.device.calls import CloseMedia, KeyFrame, OpenMedia, Span, StartMedia, Steer
from gbgw.device.controls import BEIJING, Controls, Restart, TakePictures
from gbgw.device.link import Link, TcpLink, UdpLink
from gbgw.device.media import MediaPort
from gbgw.device.options import DeviceOptions, media_format
from gbgw.device.playback import Playback
from gbgw.device.quirks import BY_THE_BOOK, Behaviour
from gbgw.device.recordings import pieces
from gbgw.device.registration import Connect, Left, Registered, Unregistered
from gbgw.device.role import (
    Connected,
    Disconnected,
    MediaFailed,
    MediaFinished,
    MediaOpened,
    PicturesSent,
    Role,
    ShellEvent,
    Start,
    Stop,
)
from gbgw.device.sender import PERFECT, Rates, RecordingSender, Streamer, StreamPlan, pace
from gbgw.device.upload import upload
from gbgw.mux.live import LivePlayer
from gbgw.mux.loop import Loop
from gbgw.mux.pattern import PatternSpec, jpeg
from gbgw.mux.recorded import recorded_second
from gbgw.mux.view import View
from gbgw.observe import log
from gbgw.sip import events as sip
from gbgw.sip.agent import UserAgent
from gbgw.sip.flow import Flow
from gbgw.sip.message import Message

Inbound = sip.Received | sip.FlowClosed | ShellEvent | Tick
CONNECT_SECONDS: Final = 5.0
PRODUCT: Final = "gbgw-device"


@dataclass(frozen=True, slots=True)
class Media:
    """What all devices of a process share.

    scenes: what is sent later, each from so many ticks of a session on. dump: the video of a device's newest session
    goes here exactly as it is sent (before any impairment). pattern: what the loop is made of, so that it can be drawn
    from where the camera looks; None for a file.
    """

    loop: Loop
    scenes: tuple[tuple[int, Loop], ...] = ()
    behaviour: Behaviour = BY_THE_BOOK
    rates: Rates = PERFECT
    dump: Path | None = None
    pattern: PatternSpec | None = None


@dataclass(slots=True)
class _Session:
    task: asyncio.Task[None]
    started: asyncio.Event
    streamer: Streamer | None = None
    playback: Playback | None = None
    steered: asyncio.Event = field(default_factory=asyncio.Event)


class Device:
    """One device: `await run()` until `stop()`, which unregisters first."""

    def __init__(self, options: DeviceOptions, media: Media, *, tally: Tally | None = None) -> None:
        options.check()
        self.options = options
        self.tally = Tally(tally)
        self.registered = asyncio.Event()
        self._media = media
        self._agent = UserAgent(product=PRODUCT)
        self._inbox: asyncio.Queue[Inbound] = asyncio.Queue(limits.SIP_INBOX)
        self._link: Link | None = None
        self._sessions: dict[int, _Session] = {}
        self._connecting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # that take pictures
        self._group: asyncio.TaskGroup
        self._role: Role
        self._stopped = asyncio.Event()
        self._restarting = False
        self.controls = Controls(options)
        self.restarts = 0
        self._log = log.get("device").bind(device=options.device_id)

    @property
    def sessions(self) -> int:
        """Media sessions just now."""
        return len(self._sessions)

    def stop(self) -> None:
        """End every session, unregister, and let `run` return within two seconds."""
        self._stopped.set()
        self._put(Stop())

    async def run(self) -> None:
        """Register and serve until stopped. Raises OSError when the platform's name cannot be resolved."""
        options = self.options
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(*options.server, type=2)  # 2: SOCK_DGRAM; one entry per address
        hosts = [str(entry[4][0]) for entry in found]
        self._server = (hosts[0], options.server[1])
        await self._live(frozenset(hosts))
        while self._restarting and not self._stopped.is_set():
            self.restarts += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(options.restart_seconds):
                    await self._stopped.wait()
            while not self._inbox.empty():  # what came while it was away
                self._inbox.get_nowait()
            if not self._stopped.is_set():
                await self._live(frozenset(hosts))

    async def _live(self, hosts: frozenset[str]) -> None:
        """One life, from power on until it leaves or restarts."""
        options = self.options
        self._restarting = False
        self._agent = UserAgent(product=PRODUCT)
        self._role = Role(
            options,
            self._agent.new_handle,
            behaviour=self._media.behaviour,
            format_line=media_format(self._media.loop, wrong_codec=self._media.behaviour.wrong_codec),
            call_id=secrets.token_hex(12),
            tag=secrets.token_hex(6),
            server_hosts=hosts,
            wall=time.time,
            device_controls=self.controls,
        )
        try:
            async with asyncio.TaskGroup() as self._group:
                self._perform(deque([Start()]), asyncio.get_running_loop().time())
                await self._drive()
                for task in [self._connecting, *self._tasks, *(session.task for session in self._sessions.values())]:
                    if task is not None:
                        task.cancel()
        finally:
            self.registered.clear()
            self._sessions.clear()
            self._tasks.clear()
            if self._link is not None:
                self._link.close()
                self._link = None

    async def _drive(self) -> None:
        clock = asyncio.get_running_loop().time
        while not (self._role.finished or self._restarting):
            due = [at for at in (self._agent.deadline, self._role.deadline) if at is not None]
            event: Inbound = TICK
            try:
                async with asyncio.timeout_at(min(due, default=None)):
                    event = await self._inbox.get()
            except TimeoutError:
                event = TICK
            self._perform(deque([event]), clock())

    def _perform(self, work: deque[object], now: float) -> None:
        """Take one event and everything that follows from it, in order and without awaiting."""

        def then(*effects: object) -> None:
            work.extendleft(reversed(effects))  # before what waits already, which came later

        while work:
            item = work.popleft()
            match item:
                case Tick():
                    then(*self._agent.push(TICK, now), *self._role.push(TICK, now))
                case sip.Received():
                    instead = self._role.intercept(item.message, item.flow)
                    then(*(self._agent.push(item, now) if instead is None else instead))
                case sip.Ask() | sip.End() | sip.Reply():
                    then(*self._agent.push(item, now))
                case sip.FlowClosed():
                    then(*self._agent.push(item, now), Disconnected("connection closed"))
                case sip.Send():
                    self._send(item)
                case sip.Counted():
                    self.tally.add(f"device.{item.name}", detail=item.detail)
                case OpenMedia():
                    self._open_media(item)
                case StartMedia():
                    if item.handle in self._sessions:
                        self._sessions[item.handle].started.set()
                case CloseMedia():
                    session = self._sessions.pop(item.handle, None)
                    if session is not None:
                        session.task.cancel()
                case KeyFrame():
                    self._restart(item.handles)
                case Restart():
                    self._log.info("restarting")
                    self._restarting = True
                case TakePictures():
                    task = self._group.create_task(self._take_pictures(item), name=f"snapshot:{item.channel_id}")
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                case Steer():
                    self._steer(item)
                case Connect():
                    then(*self._connect())
                case Registered():
                    if not self.registered.is_set():
                        self._log.info("registered", expires=item.expires)
                    self.registered.set()
                case Unregistered():
                    self.registered.clear()
                    self._log.warning("not registered", reason=item.reason)
                case Left():
                    self.registered.clear()
                case _:
                    then(*self._role.push(cast(ShellEvent, item), now))

    def _put(self, event: Inbound) -> None:
        try:
            self._inbox.put_nowait(event)
        except asyncio.QueueFull:
            self.tally.add("device.inbox_full")

    def _deliver(self, message: Message, flow: Flow) -> None:
        self._put(sip.Received(message, flow))

    def _closed(self, flow: Flow, _reason: str) -> None:
        if self._link is not None and self._link.flow == flow:
            self._link = None
        self._put(sip.FlowClosed(flow))

    def _send(self, effect: sip.Send) -> None:
        if self._link is None or (effect.flow.reliable and self._link.flow != effect.flow):
            self.tally.add("device.sip_unsent")
        else:
            self._link.send(effect.data)

    # The way to the platform

    def _connect(self) -> tuple[Connected, ...]:
        if self._link is not None:
            return (Connected(self._link.flow),)
        self._connecting = self._group.create_task(self._open_link(), name=f"connect:{self.options.device_id}")
        return ()

    async def _open_link(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                link: Link
                if self.options.transport == "udp":
                    _, link = await loop.create_datagram_endpoint(
                        lambda: UdpLink(self._deliver, self.tally), remote_addr=self._server
                    )
                else:
                    _, link = await loop.create_connection(
                        lambda: TcpLink(self._deliver, self._closed, self.tally), *self._server
                    )
        except (OSError, TimeoutError) as error:
            self._put(Disconnected(f"no connection to the platform: {error or 'time-out'}"))
            return
        self._link = link
        self._put(Connected(link.flow))

    # Media

    def _open_media(self, plan: OpenMedia) -> None:
        started = asyncio.Event()
        name = f"media:{self.options.device_id}-{plan.channel_id}#{plan.handle}"
        task = self._group.create_task(self._serve_media(plan, started), name=name)
        self._sessions[plan.handle] = _Session(task, started)

    async def _serve_media(self, plan: OpenMedia, started: asyncio.Event) -> None:
        """One session's media from its socket to its end; failures are told to the role, which says BYE."""
        assert self._link is not None
        tell = self._log.bind(channel=plan.channel_id, transport=plan.transport)
        try:
            async with MediaPort(plan, self._link.flow.local[0]) as port:
                self._put(MediaOpened(plan.handle, await port.open()))
                await started.wait()
                await port.connect()
                if plan.past is not None:
                    await self._play(plan, plan.past, port)
                with ExitStack() as stack:
                    streamer = self._streamer(plan, stack)
                    self._sessions[plan.handle].streamer = streamer
                    tell.info("sending", to=f"{plan.remote[0]}:{plan.remote[1]}", ssrc=streamer.ssrc)
                    try:
                        await pace(streamer, port, self.tally.add)
                    finally:
                        tell.info("stopped sending")
        except (OSError, TimeoutError, TransportClosedError) as error:
            tell.warning("media failed", reason=str(error) or type(error).__name__)
            self._put(MediaFailed(plan.handle))

    async def _play(self, plan: OpenMedia, span: Span, port: MediaPort) -> None:
        """Send a recording to its end, and say that it is over; the BYE of the platform cancels this."""
        media, session = self._media, self._sessions[plan.handle]
        spec = media.pattern or PatternSpec(video=media.loop.video, audio=media.loop.audio)
        days = self.options.recording_days
        found = pieces(plan.channel_id, span.start, span.stop, time.time(), days)
        playback = session.playback = Playback(found, span.start, scale=float(span.speed))
        loop = asyncio.get_running_loop()
        clock = loop.time
        sender = RecordingSender(spec, StreamPlan(plan.ssrc, plan.payload_type, tcp=plan.transport != "udp"))
        while (second := playback.next_second) is not None:
            units = await asyncio.to_thread(recorded_second, sender.spec, second)
            turn = playback.turns
            for unit in units:
                while playback.turns == turn and (playback.paused or (span.is_download and port.full)):
                    await self._rest(session, None if playback.paused else 0.01)
                if playback.turns != turn:
                    break
                await self._rest(session, playback.due(second, unit.pts or 0, clock()) - clock())
                if playback.turns != turn:
                    break
                port.send(sender.packets(second, unit))
            else:
                playback.sent(second)
        self._put(MediaFinished(plan.handle))
        await loop.create_future()  # the platform's BYE ends this task

    @staticmethod
    async def _rest(session: _Session, seconds: float | None) -> None:
        """Wait, or until the next command."""
        session.steered.clear()
        if seconds is not None and seconds <= 0:
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(seconds):
                await session.steered.wait()
        except TimeoutError:
            return

    def _steer(self, effect: Steer) -> None:
        session = self._sessions.get(effect.handle)
        if session is not None and session.playback is not None:
            session.playback.obey(effect.command)
            session.steered.set()

    async def _take_pictures(self, pictures: TakePictures) -> None:
        """Take what was ordered, upload each, and say which arrived."""
        order, spec = pictures.order, self._media.pattern or PatternSpec()
        loop = asyncio.get_running_loop()
        sent: list[str] = []
        for number in range(1, (order.snap_num or 1) + 1):
            if number > 1:
                await asyncio.sleep(order.interval or 1)
            stamp = datetime.now(BEIJING).strftime("%Y%m%d%H%M%S%f")[:17]
            name = f"{pictures.channel_id}02{stamp}{number:02}"
            view = self.controls.view(pictures.channel_id, loop.time())
            data = await asyncio.to_thread(jpeg, spec, int(loop.time() * spec.frame_rate) % spec.frames, view)
            try:
                await upload(order.upload_url, f"{name}.jpg", data)
            except PeerError as error:
                self.tally.add("device.upload_failed", detail=error.message)
                continue
            sent.append(name)
        self._put(PicturesSent(pictures, tuple(sent)))

    def _streamer(self, plan: OpenMedia, stack: ExitStack) -> Streamer:
        media = self._media
        write: Callable[[bytes], object] | None = None
        if media.dump is not None:
            write = stack.enter_context(media.dump.open("wb", buffering=0)).write
        shape = StreamPlan(
            plan.ssrc,
            plan.payload_type,
            tcp=plan.transport != "udp",
            rates=media.rates,
            behaviour=media.behaviour,
            seed=self.options.seed,
        )
        spec, clock = media.pattern, asyncio.get_running_loop().time
        if spec is None:
            return Streamer(media.loop, shape, write)

        def view() -> View:
            return self.controls.view(plan.channel_id, clock())

        return Streamer(media.loop, shape, write, lambda loop: LivePlayer(loop, spec, view), scenes=media.scenes)

    def _restart(self, handles: tuple[int, ...]) -> None:
        for handle in handles:
            session = self._sessions.get(handle)
            if session is not None and session.streamer is not None:
                session.streamer.restart()
