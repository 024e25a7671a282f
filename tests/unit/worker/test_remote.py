"""What control holds for a worker it gives back when the worker is gone, and in the right order."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from gbgw.base.errors import GatewayError, LimitError, LocalError, MediaError, PortsExhaustedError
from gbgw.base.tally import Tally
from gbgw.mux.transcode import PermitCount
from gbgw.serve.source import Sample
from gbgw.serve.viewers import Viewers
from gbgw.worker.base import Ingest, IngestFigures, IngestSpec
from gbgw.worker.channel import Channel
from gbgw.worker.protocol import (
    Answer,
    CloseIngest,
    Diagnose,
    Diagnosis,
    Done,
    Failed,
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
    ViewerCame,
    ViewerFigures,
    ViewerLeft,
)
from gbgw.worker.remote import RemoteIngest, RemoteWorker, Seat

KEY = "34020000001320000001-34020000001310000001"


class Child(Channel):
    """Keeps the answers to questions that were sent by hand."""

    def expect(self, ask: int) -> "asyncio.Future[Answer]":
        return self._questions.setdefault(ask, asyncio.get_running_loop().create_future())

    async def expected(self, ask: int) -> Answer:
        return await self.expect(ask)

    def send(self, message: Message) -> None:
        if isinstance(message, Sit | TakePermit):
            self.expect(message.ask)
        super().send(message)


class FakeSeat:
    def __init__(self, world: "World", ingest: Ingest | None) -> None:
        self.world = world
        self.ingest = ingest
        self.first: list[float] = []

    def first_viewer(self, now: float) -> None:
        self.first.append(now)

    def leave(self) -> None:
        self.world.happened.append("left")


@dataclass
class World:
    """A RemoteWorker, the other end of its channel, and everything around it."""

    worker: RemoteWorker
    child: Child
    viewers: Viewers
    permits: PermitCount
    tally: Tally
    heard: list[Message] = field(default_factory=list)
    happened: list[str] = field(default_factory=list)
    seats: list[FakeSeat] = field(default_factory=list)
    open_seats: asyncio.Event = field(default_factory=asyncio.Event)
    seat_ingest: Ingest | None = None

    async def until(self, true: object) -> None:
        async with asyncio.timeout(5):
            while not true():  # type: ignore[operator]  # noqa: ASYNC110 - facts that have no event
                await asyncio.sleep(0.001)

    async def hear(self, kind: type[Message]) -> Message:
        await self.until(lambda: any(isinstance(message, kind) for message in self.heard))
        found = next(message for message in self.heard if isinstance(message, kind))
        self.heard.remove(found)
        return found

    # Desk

    async def seat(self, key: str, *, worker: int, ticket: int = 0) -> Seat:
        self.happened.append(f"seat {ticket}")
        await self.open_seats.wait()
        self.seats.append(FakeSeat(self, self.seat_ingest))
        return self.seats[-1]

    # IngestListener

    def on_step(self, name: str, now: float) -> None:
        self.happened.append(name)

    def on_keyframe_wanted(self) -> None:
        self.happened.append("keyframe")

    def on_lost(self, cause: LocalError) -> None:
        self.happened.append(cause.code)

    async def hear_answer(self, ask: int) -> Answer:
        """What control answers to a question that `child` sent by hand."""
        async with asyncio.timeout(5):
            return await self.child.expected(ask)

    async def opened(self) -> RemoteIngest:
        opening = asyncio.gather(self.worker.open_ingest(IngestSpec(KEY, "udp", 7), self))
        asked = await self.hear(OpenIngest)
        assert isinstance(asked, OpenIngest)
        self.child.send(Done(asked.ask, 30_000))
        (ingest,) = await opening
        return ingest


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with made() as it:
        yield it


@asynccontextmanager
async def made() -> AsyncIterator[World]:
    ours, theirs = socket.socketpair()
    viewers, permits, tally = Viewers(), PermitCount(2), Tally()
    heard: list[Message] = []
    happened: list[str] = []
    child = Child(heard.append, lambda reason: happened.append("child alone"))
    async with asyncio.TaskGroup() as tasks:
        holder: list[World] = []

        class Desk:
            async def seat(self, key: str, *, worker: int, ticket: int = 0) -> Seat:
                return await holder[0].seat(key, worker=worker, ticket=ticket)

        worker = RemoteWorker(
            1,
            desk=Desk(),
            permits=permits,
            viewers=viewers,
            tasks=tasks,
            tally=tally,
            on_lost=lambda reason: happened.append(f"lost: {reason}"),
        )
        await worker.channel.open(ours)
        await child.open(theirs)
        worker.ready = True
        it = World(worker, child, viewers, permits, tally, heard, happened)
        holder.append(it)
        yield it
        worker.close()
        child.close()


async def test_an_ingest_from_its_opening_to_its_end(world: World) -> None:
    ingest = await world.opened()
    assert (ingest.port, ingest.worker, world.worker.load.streams) == (30_000, 1, 1)
    world.child.send(Step(ingest.number, "first_packet", 1.0))
    world.child.send(KeyframeWanted(ingest.number))
    await world.until(lambda: world.happened == ["first_packet", "keyframe"])

    figures = StreamFigures(ingest.number, 4.5, IngestFigures(packets=9), 8, 1, 1e6, 2.0, 25.0)
    settling = asyncio.gather(ingest.settle())
    asked = await world.hear(Settle)
    assert isinstance(asked, Settle)
    world.child.send(Settled(asked.ask, figures))
    await settling
    assert (ingest.last_packet_at, ingest.figures().packets) == (4.5, 9)
    assert (ingest.stream.units, ingest.stream.bitrate(0.0)) == (8, 1e6)

    pacing = asyncio.gather(ingest.pace(scale=-2.0, seek=True))
    told = await world.hear(SetPace)
    assert isinstance(told, SetPace)
    assert (told.ingest, told.scale, told.seek) == (ingest.number, -2.0, True)
    world.child.send(Done(told.ask))
    await pacing

    asking = asyncio.gather(ingest.diagnose())
    question = await world.hear(Diagnose)
    assert isinstance(question, Diagnose)
    world.child.send(Diagnosis(question.ask, Failure.of(MediaError("nothing", code="no_media"))))
    assert (await asking)[0].code == "no_media"

    closing = asyncio.gather(ingest.close(MediaError("over", code="media_stopped")))
    last = await world.hear(CloseIngest)
    assert isinstance(last, CloseIngest)
    assert last.cause is not None
    world.child.send(Settled(last.ask, figures))
    await closing
    await ingest.close()  # again: nothing
    assert (ingest.stream.ended, world.worker.load.streams, world.heard) == (True, 0, [])
    assert ingest.stream.cause is not None
    assert ingest.stream.cause.code == "media_stopped"


async def test_an_opening_that_is_refused_or_given_up_leaves_nothing(world: World) -> None:
    opening = asyncio.gather(world.worker.open_ingest(IngestSpec(KEY, "udp", 7), world), return_exceptions=True)
    asked = await world.hear(OpenIngest)
    assert isinstance(asked, OpenIngest)
    world.child.send(Failed(asked.ask, Failure.of(PortsExhaustedError("none"))))
    (error,) = await opening
    assert isinstance(error, PortsExhaustedError)
    opening = asyncio.gather(world.worker.open_ingest(IngestSpec(KEY, "udp", 7), world), return_exceptions=True)
    asked = await world.hear(OpenIngest)
    assert isinstance(asked, OpenIngest)
    await world.hear(CloseIngest)  # of the first one: its answer might have been on the way
    opening.cancel()
    closed = await world.hear(CloseIngest)
    assert isinstance(closed, CloseIngest)
    assert closed.ingest == asked.ingest
    assert world.worker.ingests == {}
    await asyncio.gather(opening, return_exceptions=True)


async def test_a_seat_is_taken_served_and_left(world: World) -> None:
    world.seat_ingest = ingest = await world.opened()
    world.open_seats.set()
    world.child.send(Sit(5, KEY, 77, ask=9))
    answer = await world.hear_answer(9)
    assert answer == Done(9, ingest.number)
    world.child.send(FirstByte(5, 3.25))
    await world.until(lambda: world.seats[0].first == [3.25])
    world.child.send(Leave(5))
    await world.until(lambda: world.happened == ["seat 77", "left"])


async def test_a_viewer_who_leaves_while_he_waits(world: World) -> None:
    world.child.send(Sit(5, KEY, ask=9))
    await world.until(lambda: world.happened == ["seat 0"])
    world.child.send(Leave(5))
    await world.until(lambda: not world.worker._seats)
    world.open_seats.set()
    await asyncio.sleep(0)
    assert world.seats == []


async def test_a_stream_of_another_worker_is_not_served_here(world: World) -> None:
    world.open_seats.set()
    world.child.send(Sit(5, KEY, ask=9))
    answer = await world.hear_answer(9)
    assert isinstance(answer, Failed)
    assert answer.failure.code == "stream_moved"
    assert world.happened == ["seat 0", "left"]


async def test_permits_are_counted_for_all_and_come_back(world: World) -> None:
    world.permits.take_now("of another worker")
    world.child.send(TakePermit(1, KEY, ask=1))
    assert await world.hear_answer(1) == Done(1)
    world.child.send(TakePermit(2, KEY, ask=2))
    refused = await world.hear_answer(2)
    assert isinstance(refused, Failed)
    assert isinstance(refused.failure.exception(), LimitError)
    world.child.send(GivePermit(2))  # which it never had
    world.child.send(GivePermit(1))
    world.child.send(GivePermit(1))
    await world.until(lambda: world.permits.taken == 1)
    world.child.send(TakePermit(3, KEY, ask=3))
    assert await world.hear_answer(3) == Done(3)
    world.worker.lose("test")
    assert world.permits.taken == 1


async def test_rows_of_viewers_follow_those_of_the_worker(world: World) -> None:
    world.child.send(ViewerCame("a-row-of-the-worker", KEY, "flv", "192.0.2.9"))
    report = Report(
        1.0, 5.0, 1, 2, 3, (), (ViewerFigures("a-row-of-the-worker", {"bytes": 700, "queue": 30, "id": 4}, 0.02),),
        {"rtp.lost": 2}, (Sample("receive_late_seconds", 0.5, merge="max"), Sample("fanouts", 3)),
    )  # fmt: skip
    world.child.send(report)
    await world.until(lambda: len(world.viewers) == 1 and world.tally["rtp.lost"] == 2)
    row = world.viewers.get("a-row-of-the-worker")
    assert row is not None
    assert (row.bytes, row.queue(), row.remote, row.id) == (700, 30, "192.0.2.9", "a-row-of-the-worker")
    assert row.round_trip == 0.02
    world.child.send(ViewerLeft(ViewerFigures("a-row-of-the-worker", {"bytes": 900})))
    await world.until(lambda: len(world.viewers) == 0)
    assert list(world.viewers.by_protocol()) == [("flv", 0, 900, 0)]


async def test_the_worst_stays_until_it_is_seen(world: World) -> None:
    async def report(late: float) -> None:
        before = world.tally["seen"]
        samples = (Sample("receive_late_seconds", late, merge="max"), Sample("fanouts", 3))
        world.child.send(Report(1.0, 5.0, 1, 2, 3, (), (), {"seen": 1}, samples))
        await world.until(lambda: world.tally["seen"] == before + 1)

    await report(0.5)
    await report(0.1)
    assert [sample.value for sample in world.worker.samples()] == [0.5, 3]
    await report(0.2)
    assert [sample.value for sample in world.worker.samples()] == [0.2, 3]


async def test_its_load_is_measured() -> None:
    async with made() as world:
        for used in (5.0, 5.4):
            world.child.send(Report(0.8, used, 1, 2, 3, (), (), {"seen": 1}, (Sample("overloaded", used > 5),)))
        await world.until(lambda: world.tally["seen"] == 2)
        load = world.worker.load
        assert (load.cpu, load.overloaded) == (pytest.approx(0.5), True)


async def test_everything_comes_back_when_it_is_lost(world: World) -> None:
    world.seat_ingest = ingest = await world.opened()
    world.open_seats.set()
    world.child.send(Sit(5, KEY, ask=9))
    await world.hear_answer(9)
    world.open_seats.clear()
    world.child.send(Sit(6, KEY, ask=10))
    world.child.send(TakePermit(1, KEY, ask=11))
    world.child.send(ViewerCame("a-row-of-the-worker", KEY, "flv", "192.0.2.9"))
    await world.until(lambda: len(world.viewers) == 1 and world.permits.taken == 1)
    waiting = asyncio.gather(ingest.diagnose(), return_exceptions=True)
    await world.hear(Diagnose)
    world.happened.clear()
    world.child.close()
    await world.until(lambda: world.happened)
    # The session looks who watches it before the seats are given back
    assert world.happened == ["worker_lost", "left", "lost: its channel closed"]
    (error,) = await waiting
    assert isinstance(error, GatewayError)
    assert error.code == "worker_lost"
    assert (len(world.viewers), world.permits.taken, world.worker.ingests) == (0, 0, {})
    assert ingest.stream.ended
    assert not world.worker.usable
    await ingest.close()
    near, far = socket.socketpair()
    with near, far, pytest.raises(LocalError):
        await world.worker.hand_over(far, b"GET")
    with pytest.raises(LocalError):
        await world.worker.open_ingest(IngestSpec(KEY, "udp", 7), world)
