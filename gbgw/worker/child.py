"""The media worker process: `python -m gbgw.worker CHANNEL HANDOVER`, both descriptors of socket pairs.

It receives, muxes and serves what control asks for, and knows nothing of SIP. Control owns it: signals of a terminal or
a service manager are not for it. It ends when it is told to, when the channel closes, and at once when control is gone.
"""

import asyncio
import os
import resource
import signal
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import fields
from secrets import token_bytes
from typing import Final, Literal

import structlog

from gbgw import __version__
from gbgw.base.config import Config
from gbgw.base.errors import GatewayError, LocalError, MediaError, StateError
from gbgw.base.strict import is_strict
from gbgw.base.tally import Tally
from gbgw.media.hub import Stream
from gbgw.mux.feed import Feeds
from gbgw.mux.transcode import Transcoders
from gbgw.observe import log
from gbgw.observe.garbage import Garbage
from gbgw.serve.auth import Authority
from gbgw.serve.context import ELSEWHERE, TICKET, Serving
from gbgw.serve.http import NOWHERE, HttpServer
from gbgw.serve.source import AudioChoice, Sample
from gbgw.serve.viewers import Viewer, Viewers
from gbgw.serve.webrtc import WebRtc
from gbgw.watching import Watch, Watching
from gbgw.worker import kernel, protocol, tickets
from gbgw.worker.base import Ingest, IngestFigures
from gbgw.worker.channel import Channel
from gbgw.worker.handover import Landing
from gbgw.worker.local import LocalWorker
from gbgw.worker.protocol import (
    Answered,
    CloseIngest,
    Diagnose,
    Done,
    Failure,
    FirstByte,
    GivePermit,
    KeyframeWanted,
    Leave,
    Logging,
    Message,
    OpenIngest,
    Report,
    SetPace,
    Settle,
    Settled,
    Sit,
    Start,
    Step,
    Stop,
    StreamFigures,
    TakePermit,
    TrackRow,
    Tracks,
    ViewerCame,
    ViewerFigures,
    ViewerLeft,
)

REPORT_SECONDS: Final = 1.0
LAST_SECONDS: Final = 3  # for giving everything back
WATCHDOG_SECONDS: Final = 30  # a loop that does not turn for so long: the kernel ends the process
_COUNTED: Final = [each.name for each in fields(Viewer) if each.type in (int, "int")]


class Child:
    """One worker's life: `run` returns when it is over."""

    def __init__(self, channel: socket.socket, handover: socket.socket) -> None:
        self._channel_socket = channel
        self._handover_socket = handover
        self.channel = Channel(self._on_message, self._on_lost)
        self._news: asyncio.Queue[Message] = asyncio.Queue()
        self._over = asyncio.Event()
        self._tasks = asyncio.TaskGroup()
        self._ingests: dict[int, _Ingest] = {}
        self._logging: Logging | None = None  # said since the start
        self._log = log.get("worker")

    async def run(self) -> None:
        await self.channel.open(self._channel_socket)
        try:
            start = await self._first()
            if start is None:
                return
            self._configure(start)
            try:
                async with AsyncExitStack() as stack:
                    await self._open(stack)
                    self.channel.answer(start.ask, value=protocol.VERSION)
                    await self._over.wait()
                    signal.alarm(LAST_SECONDS)
            except* GatewayError as group:
                error: BaseException = group
                while isinstance(error, BaseExceptionGroup):
                    error = error.exceptions[0]
                assert isinstance(error, GatewayError)
                self.channel.answer(start.ask, error)
        finally:
            await self.channel.finish()

    async def _first(self) -> Start | None:
        """What control says first, now or, to a spare, much later; None when it went away instead."""
        signal.alarm(0)
        kernel.set_name("gbgw-spare")  # all is loaded: from here on it takes over at once
        async with asyncio.TaskGroup() as tasks:
            over = tasks.create_task(self._over.wait(), name="worker:over")
            first = tasks.create_task(self._news.get(), name="worker:first")
            await asyncio.wait((over, first), return_when=asyncio.FIRST_COMPLETED)
            over.cancel()
            first.cancel()
        message = first.result() if not first.cancelled() else None
        if message is not None and not isinstance(message, Start):
            raise protocol.ProtocolError(f"control began with {type(message).__name__}")
        signal.alarm(WATCHDOG_SECONDS)
        return message

    def _configure(self, start: Start) -> None:
        if start.version != protocol.VERSION:
            self.channel.answer(
                start.ask, StateError(f"gbgw was exchanged while it ran: the worker is {__version__}", code="restart")
            )
            raise SystemExit(1)
        self.number = start.number
        kernel.set_name(f"gbgw-worker-{start.number}")
        self.config = Config.model_validate_json(start.config)
        told = self._logging or self.config.log
        log.configure(told.level, told.format)
        structlog.contextvars.bind_contextvars(worker=start.number)
        if start.cpus:
            os.sched_setaffinity(0, start.cpus)
        self.tally = log.root_tally()

    async def _open(self, stack: AsyncExitStack) -> None:
        config, tally = self.config, self.tally
        feeds = Feeds(tally=tally)
        transcoders = await stack.enter_async_context(
            Transcoders(video_limit=config.media.transcode, permits=_Permits(self.channel), tally=tally)
        )
        self._watching = Watching(transcoders)
        self._worker = await stack.enter_async_context(LocalWorker(config.media, feeds, tally=tally))
        await self._tasks.__aenter__()
        stack.push_async_callback(self._tasks.__aexit__, None, None, None)
        self._webrtc = await stack.enter_async_context(WebRtc(config.webrtc, tally=tally, mark=_mark(self.number)))
        self._serving = Serving(
            source=self,
            control=ELSEWHERE,
            observed=ELSEWHERE,
            authority=Authority(ELSEWHERE, play="open", play_secret=token_bytes(32), tally=tally),  # control has asked
            feeds=feeds,
            http=config.http,
            tally=tally,
            whep=self._webrtc,
            viewers=_ReportedViewers(self.channel),
            mark=_mark(self.number),
            play_only=True,
        )
        server = await stack.enter_async_context(HttpServer(self._serving, listen=NOWHERE))
        stack.enter_context(Landing(self._handover_socket, server.adopt, tally))
        reporter = _Reporter(self)
        reporter.tell()  # control has figures from the first moment on
        stack.callback(self._tasks.create_task(reporter.run(), name="worker:report").cancel)
        garbage = stack.enter_context(Garbage(tally))  # all that is loaded by now stays
        stack.callback(self._tasks.create_task(garbage.run(), name="worker:garbage").cancel)

    # What control says

    def _on_message(self, message: Message) -> None:
        match message:
            case Start():
                self._news.put_nowait(message)
            case Stop():
                self._over.set()
            case Logging(level, form):
                self._logging = message
                log.configure(level, form)
            case OpenIngest():
                self._ingests[message.ingest] = ingest = _Ingest(self, message.ingest)
                self._answer(message.ask, lambda: ingest.open(message), f"open:{message.spec.key}")
            case CloseIngest():
                self._answer(message.ask, lambda: self._close(message), f"close:{message.ingest}")
            case Answered() | Settle() | SetPace() | Diagnose():
                self._answer(message.ask, lambda: self._about(message), f"about:{message.ingest}")
            case _:
                self.tally.add("worker.unexpected", detail=type(message).__name__)

    def _on_lost(self, reason: str) -> None:
        self._over.set()

    def _answer(self, ask: int, work: Callable[[], Awaitable[protocol.Answer]], name: str) -> None:
        self._tasks.create_task(self._answer_by(ask, work), name=f"worker:{name}")

    async def _answer_by(self, ask: int, work: Callable[[], Awaitable[protocol.Answer]]) -> None:
        try:
            answer = await work()
        except GatewayError as error:
            self.channel.answer(ask, error)
        except Exception:
            # It costs what was asked for, not all the streams that this process has.
            self.tally.add("bug.worker")
            self._log.exception("bug")
            self.channel.answer(
                ask,
                LocalError(
                    "a fault of the gateway ended the stream", code="internal", remedy="its log says more; report it"
                ),
            )
            if is_strict():
                raise
        else:
            if ask:
                self.channel.send(answer)

    async def _about(self, message: Answered | Settle | SetPace | Diagnose) -> protocol.Answer:
        found = self._ingests.get(message.ingest)
        if found is None or found.ingest is None:
            raise StateError(f"the media worker has no ingest {message.ingest}")
        ingest = found.ingest
        match message:
            case Answered():
                await ingest.answered(
                    address=message.address,
                    port=message.port,
                    transport=message.transport,
                    ssrc=message.ssrc,
                    sip_host=message.sip_host,
                )
                return Done(message.ask)
            case Settle():
                return Settled(message.ask, found.figures())
            case SetPace():
                await ingest.pace(scale=message.scale, seek=message.seek)
                return Done(message.ask)
            case Diagnose():
                return protocol.Diagnosis(message.ask, Failure.of(await ingest.diagnose()))

    async def _close(self, message: CloseIngest) -> protocol.Answer:
        found = self._ingests.pop(message.ingest, None)
        if found is None:
            return Settled(message.ask, StreamFigures(message.ingest, None, IngestFigures(), 0, 0, 0.0, 0.0, 0.0))
        cause = message.cause.exception() if message.cause is not None else None
        await found.close(cause)
        return Settled(message.ask, found.figures())

    # What viewers ask (serve.source.StreamSource)

    async def open(
        self,
        key: str,
        *,
        protocol: str,
        viewer: str,
        audio: AudioChoice = "native",
        video: Literal["h264"] | None = None,
    ) -> Watch:
        """Ask control for a seat, then make of the stream what the viewer wants."""
        return await self._watching.open(_Seat(self, key, TICKET.get()), protocol=protocol, audio=audio, video=video)

    def playing(self, ingest: int) -> Stream | None:
        found = self._ingests.get(ingest)
        stream = found.stream if found is not None else None
        return stream if stream is not None and stream.published and not stream.ended else None

    def stream(self, ingest: int) -> Stream:
        found = self._ingests.get(ingest)
        if found is None or found.stream is None:
            raise MediaError("the stream ended before it could be watched", code="media_stopped")
        return found.stream

    # Figures

    def streams(self) -> list[StreamFigures]:
        return [ingest.figures() for ingest in self._ingests.values() if ingest.ingest is not None]

    def follow_tracks(self) -> None:
        for ingest in self._ingests.values():
            ingest.tell_tracks()

    def samples(self) -> list[Sample]:
        kinds = Counter(task.get_name().split(":", 1)[0] for task in asyncio.all_tasks())
        return [
            *self._worker.samples(),
            *self._webrtc.samples(),
            *self._serving.samples(),
            *(
                Sample("tasks", number, labels={"kind": "other" if kind.startswith("Task-") else kind})
                for kind, number in kinds.items()
            ),
        ]

    @property
    def ports(self) -> tuple[int, int, int]:
        counts = self._worker.port_counts()
        return counts.in_use, counts.free, counts.resting

    @property
    def viewers(self) -> "_ReportedViewers":
        assert isinstance(self._serving.viewers, _ReportedViewers)
        return self._serving.viewers


class _Ingest:
    """One ingest and what control was told of it; its IngestListener."""

    def __init__(self, child: Child, number: int) -> None:
        self.number = number
        self.ingest: Ingest | None = None
        self.stream: Stream | None = None
        self._child = child
        self._told: tuple[object, ...] = ()
        self._closed = False

    async def open(self, message: OpenIngest) -> protocol.Answer:
        ingest = await self._child._worker.open_ingest(message.spec, self)
        if self._closed:  # control has thought better of it
            await ingest.close()
            raise StateError("the ingest was closed before it was open")
        self.ingest = ingest
        assert isinstance(ingest.stream, Stream)
        self.stream = ingest.stream
        # Who is told that the tracks changed asks control for them at once.
        self.stream.on_tracks = self.tell_tracks
        return Done(message.ask, ingest.port)

    async def close(self, cause: GatewayError | None) -> None:
        self._closed = True
        if self.ingest is not None:
            await self.ingest.close(cause if isinstance(cause, MediaError) else None)

    def figures(self) -> StreamFigures:
        ingest, stream = self.ingest, self.stream
        if ingest is None or stream is None:
            return StreamFigures(self.number, None, IngestFigures(), 0, 0, 0.0, 0.0, 0.0)
        bitrate = stream.bitrate(asyncio.get_running_loop().time())
        return StreamFigures(
            self.number,
            ingest.last_packet_at,
            ingest.figures(),
            stream.units,
            stream.generation,
            bitrate,
            stream.gop_seconds,
            stream.frame_rate,
        )

    def tell_tracks(self) -> None:
        if self.stream is not None and self.stream.tracks != self._told:
            self._told = self.stream.tracks
            rows = tuple(TrackRow.of(track) for track in self.stream.tracks)
            self._child.channel.send(Tracks(self.number, rows))

    # IngestListener

    def on_step(self, name: str, now: float) -> None:
        self.tell_tracks()
        self._child.channel.send(Step(self.number, name, now))

    def on_keyframe_wanted(self) -> None:
        self._child.channel.send(KeyframeWanted(self.number))

    def on_lost(self, cause: object) -> None:
        raise AssertionError("a worker in this process is not lost without it")


class _Seat:
    """One viewer's place, asked of control; watching.Watched."""

    def __init__(self, child: Child, key: str, ticket: str) -> None:
        self._child = child
        self._key = key
        self._ticket, self._ingest = tickets.read(ticket)
        self._number = child.channel.next_number()

    def viewer_came(self) -> None:
        """Control hears of him when he asks."""

    async def playable(self) -> Stream:
        channel = self._child.channel
        if self._ingest and (stream := self._child.playing(self._ingest)) is not None:
            channel.send(Sit(self._number, self._key, self._ticket))  # control knows, and sees no reason against it
            return stream
        answer = await channel.ask(Sit(self._number, self._key, self._ticket, ask=channel.next_number()), Done, None)
        self._ingest = answer.value
        return self._child.stream(self._ingest)

    def viewer_left(self) -> None:
        self._child.channel.send(Leave(self._number))

    def first_viewer(self, now: float) -> None:
        self._child.channel.send(FirstByte(self._number, now))

    def on_keyframe_wanted(self) -> None:
        self._child.channel.send(KeyframeWanted(self._ingest))


class _Permits:
    """mux.transcode.Permits, which control counts for all workers."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._taken: list[int] = []

    async def take(self, key: str) -> None:
        number = self._channel.next_number()
        try:
            await self._channel.ask(TakePermit(number, key, ask=self._channel.next_number()), Done)
        except BaseException:
            self._channel.send(GivePermit(number))
            raise
        self._taken.append(number)

    def give(self) -> None:
        self._channel.send(GivePermit(self._taken.pop()))


class _ReportedViewers(Viewers):
    """Rows of which control has a copy."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel
        self._told: dict[str, ViewerFigures] = {}

    def add(self, key: str, protocol: str, remote: str, *, wanted: str = "") -> Viewer:
        viewer = super().add(key, protocol, remote, wanted=wanted)
        self._channel.send(ViewerCame(viewer.id, key, protocol, remote))
        return viewer

    def remove(self, viewer: Viewer) -> None:
        if self.get(viewer.id) is not viewer:
            return
        last = _figures(viewer)
        super().remove(viewer)
        self._told.pop(viewer.id, None)
        self._channel.send(ViewerLeft(last))

    def news(self) -> list[ViewerFigures]:
        """Of the viewers whose figures changed since the last question."""
        changed = []
        for viewer in self:
            figures = _figures(viewer)
            if self._told.get(viewer.id) != figures:
                self._told[viewer.id] = figures
                changed.append(figures)
        return changed


def _figures(viewer: Viewer) -> ViewerFigures:
    counts = {name: getattr(viewer, name) for name in _COUNTED}
    counts["queue"] = viewer.queue()
    return ViewerFigures(viewer.id, counts, viewer.round_trip)


class _Reporter:
    """Tells control every second how it goes, and the kernel that the loop turns."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._seen: dict[str, int] = {}
        self._at = asyncio.get_running_loop().time()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            signal.alarm(WATCHDOG_SECONDS)
            self.tell()

    def tell(self) -> None:
        self._child.channel.send(self._make())

    def _make(self) -> Report:
        child = self._child
        child.follow_tracks()
        now = asyncio.get_running_loop().time()
        seconds, self._at = now - self._at, now
        used = resource.getrusage(resource.RUSAGE_SELF)
        streams = tuple(child.streams())  # settles their counts
        samples = tuple(child.samples())
        return Report(
            seconds,
            used.ru_utime + used.ru_stime,
            *child.ports,
            streams,
            tuple(child.viewers.news()),
            self._grown(child.tally),
            samples,
        )

    def _grown(self, tally: Tally) -> dict[str, int]:
        grown = {}
        for name, value in tally.counts.items():
            if value != self._seen.get(name, 0):
                grown[name] = value - self._seen.get(name, 0)
                self._seen[name] = value
        return grown


def _mark(number: int) -> str:
    """With which the ids of this worker's sessions begin, so that control finds their way back."""
    return f"w{number}-"


def main() -> None:
    import uvloop

    signal.alarm(WATCHDOG_SECONDS)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    channel, handover = (socket.socket(fileno=int(text)) for text in sys.argv[1:3])
    channel.setblocking(False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Child(channel, handover).run())
