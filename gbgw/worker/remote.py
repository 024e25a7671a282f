"""One media worker process as control knows it: its ingests, its viewers, its load, and the way connections get there.

It lives as long as the process does; whatever ends the process, `lose` gives all of it back. Starting and replacing
processes is worker/pool.py's.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Literal, Protocol

from gbgw.base import limits
from gbgw.base.errors import GatewayError, LocalError
from gbgw.base.tally import Tally
from gbgw.media.track import Track
from gbgw.mux.transcode import PermitCount
from gbgw.observe import log
from gbgw.serve.source import Sample
from gbgw.serve.viewers import Viewer, Viewers
from gbgw.worker import protocol
from gbgw.worker.base import Ingest, IngestFigures, IngestListener, IngestSpec, PortCounts
from gbgw.worker.channel import Channel, lost
from gbgw.worker.handover import Handover
from gbgw.worker.placement import Load
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
    Message,
    OpenIngest,
    Report,
    SetPace,
    Settle,
    Settled,
    Sit,
    Step,
    StreamFigures,
    TakePermit,
    Tracks,
    ViewerCame,
    ViewerFigures,
    ViewerLeft,
)


class Seat(Protocol):
    """The right of one viewer to a stream; what Gateway.hold gives."""

    @property
    def ingest(self) -> Ingest | None: ...
    def first_viewer(self, now: float) -> None: ...
    def leave(self) -> None: ...


class Desk(Protocol):
    """What a worker asks of control."""

    async def seat(self, key: str, *, worker: int, ticket: int = 0) -> Seat:
        """Return once the stream, which this worker has, is playable; start it there when it does not run. ticket: of
        the place that is kept, 0 for none."""


class RemoteStream:
    """worker.base.StreamView of a stream in another process, as of its worker's last report."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.tracks: tuple[Track, ...] = ()
        self.units = 0
        self.generation = 0
        self.gop_seconds = 0.0
        self.frame_rate = 0.0
        self.ended = False
        self.cause: GatewayError | None = None
        self._bitrate = 0.0

    def bitrate(self, now: float) -> float:
        return self._bitrate

    def learn(self, told: StreamFigures) -> None:
        self.units = told.units
        self.generation = told.generation
        self.gop_seconds = told.gop_seconds
        self.frame_rate = told.frame_rate
        self._bitrate = told.bitrate

    def end(self, cause: GatewayError | None) -> None:
        if not self.ended:
            self.ended, self.cause = True, cause


class RemoteIngest:
    """worker.base.Ingest in another process."""

    def __init__(self, owner: "RemoteWorker", number: int, key: str, listener: IngestListener) -> None:
        self.number = number
        self.port = 0
        self.stream = RemoteStream(key)
        self.last_packet_at: float | None = None
        self.listener = listener
        self._owner = owner
        self._figures = IngestFigures()
        self._closed = False

    @property
    def worker(self) -> int:
        return self._owner.number

    def figures(self) -> IngestFigures:
        return self._figures

    def learn(self, told: StreamFigures) -> None:
        self.last_packet_at = told.last_packet_at
        self._figures = told.figures
        self.stream.learn(told)

    async def settle(self) -> None:
        channel = self._owner.channel
        answer = await channel.ask(Settle(self.number, ask=channel.next_number()), Settled)
        self.learn(answer.stream)

    async def pace(self, *, scale: float | None = None, seek: bool = False) -> None:
        channel = self._owner.channel
        await channel.ask(SetPace(self.number, scale, seek, ask=channel.next_number()), Done)

    async def diagnose(self) -> GatewayError:
        channel = self._owner.channel
        answer = await channel.ask(Diagnose(self.number, ask=channel.next_number()), protocol.Diagnosis)
        return answer.failure.exception()

    async def answered(
        self, *, address: str, port: int, transport: Literal["udp", "tcp"], ssrc: int | None, sip_host: str
    ) -> None:
        channel = self._owner.channel
        await channel.ask(
            Answered(self.number, address, port, transport, ssrc, sip_host, ask=channel.next_number()), Done
        )

    async def close(self, cause: GatewayError | None = None) -> None:
        """Return once the port is back; a worker that is gone gave it back with itself."""
        if self._closed:
            return
        self._closed = True
        self._owner.ingests.pop(self.number, None)
        self.stream.end(cause)
        channel = self._owner.channel
        if not channel.is_open:
            return
        failure = Failure.of(cause) if cause is not None else None
        try:
            answer = await channel.ask(
                CloseIngest(self.number, failure, ask=channel.next_number()), Settled, limits.WORKER_CLOSE_SECONDS
            )
        except LocalError as error:
            self._owner.tally.add("worker.close_unanswered", detail=f"{self.stream.key}: {error.code}")
        else:
            self.learn(answer.stream)


class RemoteWorker:
    """One process. on_lost: called once, with why, when it is of no use any more."""

    def __init__(
        self,
        number: int,
        *,
        desk: Desk,
        permits: PermitCount,
        viewers: Viewers,
        tasks: asyncio.TaskGroup,
        tally: Tally,
        on_lost: Callable[[str], None],
    ) -> None:
        self.number = number
        self.tally = tally
        self.channel = Channel(self._on_message, self._on_channel_lost)
        self.handover = Handover()
        self.ingests: dict[int, RemoteIngest] = {}
        self.heard_at = 0.0
        self.cpu_seconds = 0.0
        self.ports = PortCounts()
        self.overloaded = False
        self._samples: tuple[Sample, ...] = ()
        self._scraped = True
        self.ready = False
        self._desk = desk
        self._permits = permits
        self._viewers = viewers
        self._rows: dict[str, Viewer] = {}
        self._seats: dict[int, Seat | asyncio.Task[None]] = {}
        self._taken: set[int] = set()
        self._tasks = tasks
        self._on_lost = on_lost
        self._lost = False
        self._cpu = 0.0
        self._unmeasured = 0
        self._log = log.get("worker")

    @property
    def usable(self) -> bool:
        return self.ready and self.channel.is_open

    @property
    def load(self) -> Load:
        bitrate = sum(ingest.stream.bitrate(0.0) for ingest in self.ingests.values())
        unmeasured = min(self._unmeasured, len(self.ingests))
        silent = asyncio.get_running_loop().time() - self.heard_at > limits.WORKER_SILENT_SECONDS
        return Load(self.number, self._cpu, len(self.ingests), unmeasured, bitrate, self.overloaded or silent)

    def samples(self) -> Iterable[Sample]:
        """Figures of /metrics; what is the worst since the last scrape is so here too."""
        self._scraped = True
        return self._samples

    async def open_ingest(self, spec: IngestSpec, listener: IngestListener) -> RemoteIngest:
        channel = self.channel
        ingest = RemoteIngest(self, channel.next_number(), spec.key, listener)
        self.ingests[ingest.number] = ingest
        self._unmeasured += 1
        try:
            answer = await channel.ask(OpenIngest(ingest.number, spec, ask=channel.next_number()), Done)
        except BaseException:
            self.ingests.pop(ingest.number, None)
            channel.send(CloseIngest(ingest.number))  # its answer may be on the way
            raise
        ingest.port = answer.value
        return ingest

    # Connections of viewers (serve.relay.Carrier)

    async def hand_over(self, connection: socket.socket, head: bytes) -> None:
        """Give a connection away, with the request head that was read from it. The caller closes his descriptor.
        Raises LocalError when the worker does not take it."""
        if not self.usable:
            raise lost()
        await self.handover.send(connection, head)

    async def connect(self) -> socket.socket:
        """A connection of our own to its HTTP server."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with theirs:
                await self.hand_over(theirs, b"")
            ours.setblocking(False)
        except BaseException:
            ours.close()
            raise
        return ours

    # The end

    def close(self) -> None:
        """Give back what control holds for it. The process must be dead or dying."""
        self.lose("it was stopped", quiet=True)

    def lose(self, reason: str, *, quiet: bool = False) -> None:
        if self._lost:
            return
        self._lost = True
        self.channel.close()
        self.handover.close()
        cause = lost(reason)
        # Sessions hear of it first: they look who watches them.
        for ingest in list(self.ingests.values()):
            ingest.stream.end(cause)
            ingest.listener.on_lost(cause)
        self.ingests.clear()
        for number in list(self._seats):
            self._leave(number)
        for _ in self._taken:
            self._permits.give()
        self._taken.clear()
        for viewer in self._rows.values():
            self._viewers.remove(viewer)
        self._rows.clear()
        if not quiet:
            self._on_lost(reason)

    def _on_channel_lost(self, reason: str) -> None:
        self.lose(reason)

    # What it says

    def _on_message(self, message: Message) -> None:
        self.heard_at = asyncio.get_running_loop().time()
        match message:
            case Report():
                self._learn(message)
            case Step(number, name, at):
                if ingest := self.ingests.get(number):
                    ingest.listener.on_step(name, at)
            case Tracks(number, rows):
                if ingest := self.ingests.get(number):
                    ingest.stream.tracks = tuple(row.track() for row in rows)
            case KeyframeWanted(number):
                if ingest := self.ingests.get(number):
                    ingest.listener.on_keyframe_wanted()
            case Sit():
                self._seats[message.seat] = self._tasks.create_task(self._sit(message), name=f"seat:{message.key}")
            case Leave(number):
                self._leave(number)
            case FirstByte(number, at):
                seat = self._seats.get(number)
                if seat is not None and not isinstance(seat, asyncio.Task):
                    seat.first_viewer(at)
            case TakePermit():
                self._permit(message)
            case GivePermit(number):
                if number in self._taken:
                    self._taken.remove(number)
                    self._permits.give()
            case ViewerCame():
                self._viewer_came(message)
            case ViewerLeft(last):
                self._count_viewer(last)
                if viewer := self._rows.pop(last.id, None):
                    self._viewers.remove(viewer)
            case _:
                self.tally.add("worker.unexpected", detail=type(message).__name__)

    async def _sit(self, asked: Sit) -> None:
        """Find the viewer his place. He may leave meanwhile, which cancels this."""
        seat: Seat | None = None
        try:
            seat = await self._desk.seat(asked.key, worker=self.number, ticket=asked.ticket)
            ingest = seat.ingest
            if ingest is None or ingest.worker != self.number or not isinstance(ingest, RemoteIngest):
                raise moved(asked.key)
        except GatewayError as error:
            if seat is not None:
                seat.leave()
            self._seats.pop(asked.seat, None)
            self.channel.answer(asked.ask, error)
        except BaseException:
            if seat is not None:
                seat.leave()
            self._seats.pop(asked.seat, None)
            raise
        else:
            self._seats[asked.seat] = seat
            self.channel.answer(asked.ask, value=ingest.number)

    def _leave(self, number: int) -> None:
        seat = self._seats.pop(number, None)
        if isinstance(seat, asyncio.Task):
            seat.cancel()
        elif seat is not None:
            seat.leave()

    def _permit(self, asked: TakePermit) -> None:
        try:
            self._permits.take_now(asked.key)
        except GatewayError as error:
            self.channel.answer(asked.ask, error)
            return
        self._taken.add(asked.permit)
        self.channel.answer(asked.ask)

    def _viewer_came(self, told: ViewerCame) -> None:
        try:
            self._rows[told.id] = self._viewers.add(told.key, told.protocol, told.remote, wanted=told.id)
        except GatewayError as error:
            self.tally.add("worker.viewer_unlisted", detail=error.code)

    def _count_viewer(self, told: ViewerFigures) -> None:
        viewer = self._rows.get(told.id)
        if viewer is None:
            return
        for name, value in told.counts.items():
            if name == "queue":
                viewer.queue = _constant(value)
            elif isinstance(getattr(viewer, name, None), int):
                setattr(viewer, name, value)
        viewer.round_trip = told.round_trip

    def _learn(self, report: Report) -> None:
        if report.seconds > 0 and self.cpu_seconds:
            self._cpu = max(0.0, report.cpu_seconds - self.cpu_seconds) / report.seconds
        self._unmeasured = 0
        self.cpu_seconds = report.cpu_seconds
        self.ports = PortCounts(report.ports_in_use, report.ports_free, report.ports_resting)
        self.overloaded = any(sample.name == "overloaded" and sample.value for sample in report.samples)
        self._samples = report.samples if self._scraped else tuple(_with_worst(report.samples, self._samples))
        self._scraped = False
        for told in report.streams:
            if ingest := self.ingests.get(told.ingest):
                ingest.learn(told)
        for figures in report.viewers:
            self._count_viewer(figures)
        for name, grown in report.counts.items():
            self.tally.add(name, grown)


def moved(key: str) -> LocalError:
    """The stream began elsewhere between a viewer's request and his way to its worker."""
    return LocalError(
        "the stream has moved to another media worker", code="stream_moved", remedy="ask again", stream=key
    )


def _with_worst(fresh: Iterable[Sample], old: Iterable[Sample]) -> Iterable[Sample]:
    worst = {sample.name: sample.value for sample in old if sample.merge == "max"}
    return (
        replace(sample, value=max(sample.value, worst.get(sample.name, sample.value)))
        if sample.merge == "max"
        else sample
        for sample in fresh
    )


def _constant(value: int) -> Callable[[], int]:
    return lambda: value
