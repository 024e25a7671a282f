"""The worker in this process: what one ingest takes it gives back, whatever happens on the way."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator
from typing import Literal

import pytest

from gbgw.base import limits
from gbgw.base.config import MediaConfig
from gbgw.base.errors import LocalError, MediaError, PortsExhaustedError
from gbgw.base.tally import Tally
from gbgw.mux.feed import Feeds
from gbgw.worker.base import Ingest, IngestSpec, Transport
from gbgw.worker.local import LocalWorker
from tests.support.peer import framed, rtp_packets
from tests.support.streams import Viewer
from tests.system.steps import fact, picture_stream

KEY = "34020000001320000001-34020000001310000001"
SSRC = 200_000_001


class Listener:
    def __init__(self) -> None:
        self.steps: list[str] = []
        self.keyframes = 0

    def on_step(self, name: str, now: float) -> None:
        self.steps.append(name)

    def on_lost(self, cause: object) -> None:
        raise AssertionError("a worker in this process is never lost")

    def on_keyframe_wanted(self) -> None:
        self.keyframes += 1


def spec(transport: Transport = "udp", key: str = KEY, loss: Literal["freeze", "pass"] = "freeze") -> IngestSpec:
    return IngestSpec(key, transport, SSRC, "127.0.0.1", loss)


def make(*eager: Literal["flv", "mp4", "ts"], ports: str = "33000-33019") -> LocalWorker:
    tally = Tally()
    return LocalWorker(MediaConfig(ports=ports, eager=eager), Feeds(tally=tally), tally=tally)


@pytest.fixture
async def worker() -> AsyncIterator[LocalWorker]:
    async with make() as worker:
        yield worker
    assert worker.ports.in_use == 0


async def send(
    ingest: Ingest, pictures: int, *, first: int = 0, tcp: bool = False, source: socket.socket | None = None
) -> None:
    """Return when the ingest has counted every packet. source: of a camera that goes on."""
    before = ingest.figures().packets
    loop = asyncio.get_running_loop()
    sequence = 10 * first
    packets = []
    for index in range(first, first + pictures):
        made = rtp_packets(picture_stream(index), ssrc=SSRC, sequence=sequence, timestamp=index * 3_600)
        sequence += len(made)
        packets += made
    if tcp:
        _, writer = await asyncio.open_connection("127.0.0.1", ingest.port)
        writer.write(framed(packets))
        await writer.drain()
        await fact(lambda: ingest.figures().packets - before == len(packets), "every packet")
        writer.close()
        await writer.wait_closed()
        return
    with contextlib.ExitStack() as stack:
        camera = source or stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        camera.setblocking(False)
        for packet in packets:
            await loop.sock_sendto(camera, packet, ("127.0.0.1", ingest.port))
            await asyncio.sleep(0)
        await fact(lambda: ingest.figures().packets - before == len(packets), "every packet")


@pytest.mark.parametrize("transport", ["udp", "tcp-passive"])
async def test_from_packets_to_a_published_stream(worker: LocalWorker, transport: Transport) -> None:
    listener = Listener()
    ingest = await worker.open_ingest(spec(transport), listener)
    assert worker.ports.in_use == 1
    assert ingest.port % 2 == 0
    assert ingest.last_packet_at is None
    await ingest.answered(
        address="127.0.0.1", port=9, transport="udp" if transport == "udp" else "tcp", ssrc=SSRC, sip_host="127.0.0.1"
    )
    await send(ingest, 30, tcp=transport != "udp")
    await fact(lambda: ingest.stream.published, "published")
    assert listener.steps == [
        "first_packet", "first_pack", "first_map", "parameter_sets", "first_keyframe", "published",
    ]  # fmt: skip
    figures = ingest.figures()
    assert figures.packets > 30
    assert figures.bytes > 30_000
    assert (figures.lost, figures.late, figures.duplicates) == (0, 0, 0)
    assert ingest.last_packet_at is not None
    viewer = Viewer()
    worker._feeds.get(ingest.stream, "flv").attach(viewer)
    cause = MediaError("enough", code="stream_stopped")
    await ingest.close(cause)
    await ingest.close()
    assert viewer.ends == [cause]
    assert ingest.stream.cause is cause
    assert worker.ports.in_use == 0
    assert ingest.figures() == figures, "the figures outlive the sockets"


async def test_why_there_is_no_picture(worker: LocalWorker) -> None:
    ingest = await worker.open_ingest(spec(), Listener())
    assert (await ingest.diagnose()).code == "no_media"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as camera:
        camera.sendto(b"this is no RTP packet", ("127.0.0.1", ingest.port))
        async with asyncio.timeout(5):
            while (await ingest.diagnose()).code == "no_media":  # noqa: ASYNC110 - the core tells nobody
                await asyncio.sleep(0.005)
    error = await ingest.diagnose()
    assert error.code == "not_rtp"
    assert error.stream == KEY
    assert error.remedy
    await ingest.close()


async def test_eager_formats_are_muxed_without_a_viewer() -> None:
    async with make("flv", "ts") as worker:
        ingest = await worker.open_ingest(spec(), Listener())
        await send(ingest, 30)
        await fact(lambda: ingest.stream.published, "published")
        feeds = [worker._feeds.get(ingest.stream, name) for name in ("flv", "ts")]
        assert all(feed.viewers == 1 for feed in feeds)
        await ingest.close()
        assert all(feed.viewers == 0 for feed in feeds)


async def test_no_port_left() -> None:
    async with make(ports="33000-33001") as worker:
        first = await worker.open_ingest(spec(), Listener())
        with pytest.raises(PortsExhaustedError):
            await worker.open_ingest(spec(key="b-c"), Listener())
        assert worker.ports.in_use == 1
        await first.close()
        second = await worker.open_ingest(spec(key="b-c"), Listener())
        await second.close()


async def test_the_worker_closes_what_is_open() -> None:
    async with make() as worker:
        ingests = [await worker.open_ingest(spec(key=f"a-{number}"), Listener()) for number in range(5)]
    assert worker.ports.in_use == 0
    assert all(ingest.stream.ended for ingest in ingests)


async def test_cancelled_while_it_opens(worker: LocalWorker) -> None:
    async with asyncio.TaskGroup() as tasks:
        for rounds in range(6):
            task = tasks.create_task(worker.open_ingest(spec(), Listener()))
            for _ in range(rounds):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                await task.result().close()
            assert worker.ports.in_use == 0


async def test_past_capacity_new_streams_are_refused_and_old_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop itself is kept from its work, so that what it is late by is measured, not told."""
    for name, seconds in (("LOAD_SECONDS", 0.02), ("OVERLOAD_SECONDS", 0.1), ("OVERLOAD_CALM_SECONDS", 0.1)):
        monkeypatch.setattr(limits, name, seconds)
    tally = Tally()
    config = MediaConfig(ports="33000-33019", overload_seconds=0.03)
    camera = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    async with LocalWorker(config, Feeds(tally=tally), tally=tally) as worker:
        ingest = await worker.open_ingest(spec(), Listener())
        await send(ingest, 30, source=camera)
        async with asyncio.timeout(5):
            while not worker.overload.active:
                threading.Event().wait(0.1)  # a timer of 20 ms is 80 late
                await asyncio.sleep(0.001)
        with pytest.raises(LocalError) as caught:
            await worker.open_ingest(spec(key="another"), Listener())
        assert caught.value.code == "overloaded"
        assert caught.value.stream == "another"
        assert worker.ports.in_use == 1
        figures = {sample.name: sample.value for sample in worker.samples()}
        assert figures["overloaded"] == 1
        assert figures["loop_lag_seconds"] >= 0.03
        assert (tally["worker.overloaded"], tally["worker.overload_refused"]) == (1, 1)
        await send(ingest, 30, first=30, source=camera)
        assert ingest.figures().lost == 0
        camera.close()
        await fact(lambda: not worker.overload.active, "calm again")
        second = await worker.open_ingest(spec(key="another"), Listener())
        await asyncio.gather(ingest.close(), second.close())
