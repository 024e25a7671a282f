"""The receive thread over real sockets: the same as the loop makes of it, source by source."""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import uvloop

from gbgw import _receiver
from gbgw.base import limits
from gbgw.base.codec import H264
from gbgw.base.tally import Tally
from gbgw.media.hub import Stream
from gbgw.media.track import Track
from gbgw.net.media import MediaEndpoint, PortPool
from gbgw.net.receive import Receiving
from gbgw.net.receiver import Receiver, new_fold
from tests.support.program import program

HOST = "127.0.0.1"
ELSEWHERE = "127.0.0.2"
SSRC = 5


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> Any:
    return request.param()


class Viewer:
    def __init__(self) -> None:
        self.pictures: list[bytes] = []
        self.arrived: list[float] = []

    def on_tracks(self, tracks: tuple[Track, ...], generation: int) -> None: ...

    def on_unit(self, unit: Any, track: Track) -> None:
        if track.codec is H264:
            self.pictures.append(bytes(unit))
            self.arrived.append(unit.arrived)

    def on_end(self, cause: object) -> None: ...


@dataclass
class Room:
    endpoint: MediaEndpoint
    receiver: Receiver
    viewer: Viewer
    tally: Tally
    pool: PortPool
    receiving: Receiving

    @property
    def to(self) -> tuple[str, int]:
        return HOST, self.endpoint.port


@contextlib.asynccontextmanager
async def room(*, ssrc: int | None = SSRC, hosts: tuple[str, ...] = (HOST,), **options: Any) -> AsyncIterator[Room]:
    tally, stream, viewer = Tally(), Stream("cam"), Viewer()
    stream.attach(viewer)
    pool = PortPool(range(31200, 31300), host=HOST, quarantine_seconds=0.1, tally=tally)
    receiver = Receiver(stream, asyncio.get_running_loop(), fold=new_fold(ssrc), expected_ssrc=ssrc, tally=tally)
    async with Receiving(tally=tally, **options) as receiving:
        endpoint = MediaEndpoint(
            pool, receiver, ssrc=ssrc, expected_hosts=hosts, rtcp=False, receiving=receiving, tally=tally
        )
        async with endpoint:
            yield Room(endpoint, receiver, viewer, tally, pool, receiving)
            receiver.close()
        assert len(receiving) == 0
    pool.close()


def sender(host: str = HOST) -> socket.socket:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind((host, 0))
    return one


async def until(condition: Callable[[], object], seconds: float = 3.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is about what the kernel delivered
            await asyncio.sleep(0.002)


async def whole(it: "Room", packets: int) -> None:
    """Every packet of the camera is in: a close now loses nothing of its last picture."""
    await until(lambda: it.receiver.counts["rtp.received"] >= packets)


async def send(one: socket.socket, to: tuple[str, int], packets: list[bytes]) -> None:
    """A little at a time, so that no buffer of the test's overflows."""
    for at in range(0, len(packets), 50):
        for packet in packets[at : at + 50]:
            one.sendto(packet, to)
        await asyncio.sleep(0)


async def test_every_picture_comes_out_as_it_was_sent() -> None:
    made = program()
    async with room() as it:
        with sender() as camera:
            await send(camera, it.to, made.packets)
            await whole(it, len(made.packets))
            it.receiver.close()  # the last is not ended by a next
            assert it.endpoint.source == camera.getsockname()
        assert it.viewer.pictures == list(made.pictures)
        assert all(after >= before for before, after in pairwise(it.viewer.arrived))
        assert it.receiver.diagnose(asyncio.get_running_loop().time(), it.endpoint.facts).code == "ok"
        counts = it.receiver.counts
        assert (counts["rtp.received"], counts["rtp.lost"]) == (len(made.packets), 0)
        it.receiving.settle_counts()
        assert it.tally["receive.datagrams"] == len(made.packets)
        assert it.endpoint.kernel_drops == 0


async def test_a_unit_ended_by_silence_comes_too() -> None:
    made = program(audio=None)
    async with room() as it:
        with sender() as camera:
            await send(camera, it.to, [packet for unit in made.by_unit[:3] for packet in unit])
            await until(lambda: len(it.viewer.pictures) == 3)  # nothing follows the third
            assert it.viewer.pictures == list(made.pictures[:3])


async def test_order_loss_and_duplicates() -> None:
    packets = program().packets
    async with room() as it:
        with sender() as camera:
            mixed = list(packets)
            for n in range(5, len(mixed) - 1, 7):
                mixed[n], mixed[n + 1] = mixed[n + 1], mixed[n]
            await send(camera, it.to, [packet for packet in mixed for _ in range(2)])
            await until(lambda: it.receiver.counts["rtp.received"] == 2 * len(packets))
            it.receiver.close()
        assert it.viewer.pictures == list(program().pictures)
        assert it.receiver.counts["rtp.duplicate"] == len(packets)


async def test_a_hole_freezes_up_to_the_next_key_frame() -> None:
    made = program()
    packets = made.packets
    async with room() as it:
        with sender() as camera:
            await send(camera, it.to, packets[:20] + packets[21:])
            await until(lambda: it.receiver.counts["rtp.lost"] == 1)
            await until(lambda: len(it.viewer.pictures) >= 75)
        assert set(it.viewer.pictures) < set(made.pictures)
        assert it.tally["receiver.freezes"] == 1


async def test_a_stranger_before_the_camera_is_never_seen() -> None:
    async with room() as it:
        with sender(ELSEWHERE) as stranger, sender() as camera:
            await send(stranger, it.to, program(99, sequence=100).packets[:40])
            await until(lambda: it.receiver.fold.last_packet_at is None and it.endpoint._lock._rival is not None)
            await send(camera, it.to, program().packets)
            await whole(it, len(program().packets))
            await send(stranger, it.to, program(99, sequence=100).packets[40:60])
            await until(lambda: it.endpoint.facts.wrong_source >= 60)
            it.receiver.close()
            assert it.endpoint.facts.refused_from == stranger.getsockname()
        assert it.viewer.pictures == list(program().pictures)
        assert it.tally["rtp.wrong_source"] == 60


async def test_a_camera_nobody_knows_is_played_in_the_end() -> None:
    made = program(77)
    async with room(hosts=("10.1.2.3",)) as it:
        with sender() as camera:
            for unit in made.by_unit[:40]:
                await send(camera, it.to, list(unit))
                await asyncio.sleep(0.02)
            await until(lambda: len(it.viewer.pictures) > 15)
            assert it.endpoint.source == camera.getsockname()
        assert it.viewer.pictures == list(made.pictures[: len(it.viewer.pictures)])


async def test_a_new_port_follows_a_silent_one_and_loses_nothing() -> None:
    made = program()
    async with room() as it:
        with sender() as camera, sender() as moved:
            await send(camera, it.to, [packet for unit in made.by_unit[:50] for packet in unit])
            for unit in made.by_unit[50:120]:
                await send(moved, it.to, list(unit))
                await asyncio.sleep(0.01)
            await until(lambda: it.endpoint.source == moved.getsockname())
            await until(lambda: it.receiver.counts["rtp.received"] == sum(map(len, made.by_unit[:120])))
        assert it.tally["rtp.source_change"] == 1
        assert it.viewer.pictures == list(made.pictures[: len(it.viewer.pictures)])
        assert it.receiver.counts["rtp.lost"] == 0


async def test_a_rival_never_stops_a_source_that_keeps_sending() -> None:
    """Packet by packet in one queue, so that the camera is never silent beside the rival, however late anybody runs."""
    made = program()
    async with room() as it:
        with sender() as camera, sender() as rival:
            for unit in made.by_unit:
                for packet in unit:
                    camera.sendto(packet, it.to)
                    rival.sendto(packet, it.to)
                await asyncio.sleep(0)
            await whole(it, len(made.packets))
            it.receiver.close()
            assert it.endpoint.source == camera.getsockname()
        assert it.viewer.pictures == list(made.pictures)
        assert it.tally["rtp.source_change"] == 0
        assert it.tally["rtp.wrong_source"] + it.tally["net.flood"] > len(made.packets) // 2


class LateInlet:
    """The loop is held up for a second while it fetches strangers, and both they and the camera go on meanwhile."""

    malformed = flood = 0
    refused = (0, None)
    source = (HOST, 1)

    def __init__(self) -> None:
        self.news = 1
        self.heard = (10.0, b"\x80\x60\0\1" + bytes(8))
        self.followed: list[tuple[str, int]] = []

    def strangers(self) -> list[tuple[bytes, tuple[str, int], float]]:
        self.news += 4
        self.heard = (11.0, b"\x80\x60\0\7" + bytes(8))
        return [(b"\x80\x60\0" + bytes((n,)) + bytes(8), (HOST, 2), 11.0) for n in range(3, 7)]

    def follow(self, host: str, port: int) -> None:
        self.followed.append((host, port))


class NoSink:
    fold = None
    is_driven = False

    def push_rtp(self, datagram: bytes, now: float) -> None:
        raise AssertionError("a rival's packet came through")

    def push_rtcp(self, datagram: bytes, now: float) -> None: ...

    def take(self, now: float) -> None: ...

    def receiver_report(self, now: float) -> bytes:
        return b""


async def test_what_the_camera_sends_while_strangers_are_fetched_counts() -> None:
    endpoint = MediaEndpoint(PortPool(range(0)), NoSink(), ssrc=SSRC, expected_hosts=(HOST,))
    inlet = LateInlet()
    endpoint._inlet = inlet  # type: ignore[assignment]
    endpoint.on_received()
    assert endpoint.source == (HOST, 1)
    assert inlet.followed == []
    assert inlet.news != endpoint._looked  # what came meanwhile is fetched the next time


async def test_who_asks_for_the_facts_takes_no_strangers_away() -> None:
    endpoint = MediaEndpoint(PortPool(range(0)), NoSink(), ssrc=SSRC, expected_hosts=(HOST,))
    inlet = LateInlet()
    endpoint._inlet = inlet  # type: ignore[assignment]
    assert endpoint.facts.source == (HOST, 1)
    endpoint.on_received()
    assert inlet.news == 5  # they were fetched


async def test_what_is_no_rtp_is_counted_and_rtcp_is_understood() -> None:
    async with room() as it:
        with sender() as camera:
            for junk in (b"", b"x", bytes(11), bytes(65_000), bytes(range(9)), b"\x40" + bytes(60)):
                camera.sendto(junk, it.to)
            await until(lambda: it.endpoint.facts.malformed == 6)
            await send(camera, it.to, program().packets[:10])
            goodbye = b"\x81\xcb\0\1" + SSRC.to_bytes(4, "big")
            with sender(ELSEWHERE) as stranger:
                stranger.sendto(goodbye, it.to)
                await until(lambda: it.endpoint.facts.wrong_source == 1)
            assert it.receiver.goodbye_at is None
            camera.sendto(goodbye, it.to)
            await until(lambda: it.receiver.goodbye_at is not None)


async def test_a_flood_of_strangers_leaves_the_camera_whole() -> None:
    made = program()
    async with room() as it:
        with sender() as camera, sender(ELSEWHERE) as stranger:
            junk = [b"\x80\x60" + os.urandom(1_000) for _ in range(40)]
            for unit in made.by_unit:
                await send(camera, it.to, list(unit))
                await send(stranger, it.to, junk)
                await asyncio.sleep(0.002)
            await whole(it, len(made.packets))
            it.receiver.close()
        assert it.viewer.pictures == list(made.pictures)


async def test_closing_while_packets_pour_in() -> None:
    """The leak gate counts threads and files."""
    packets = program().packets
    stop = threading.Event()

    def pour(to: tuple[str, int]) -> None:
        with sender() as camera:
            while not stop.is_set():
                for packet in packets[:20]:
                    camera.sendto(packet, to)

    for _ in range(10):
        async with room() as it:
            stop.clear()
            pouring = threading.Thread(target=pour, args=(it.to,))
            pouring.start()
            try:
                await until(lambda it=it: it.receiver.counts["rtp.received"] > 100)
                await it.endpoint.close()
            finally:
                stop.set()
                pouring.join()


async def test_sockets_come_and_go_beside_one_that_plays() -> None:
    made = program()
    async with room() as it:
        with sender() as camera:
            for n, unit in enumerate(made.by_unit):
                await send(camera, it.to, list(unit))
                if n % 5 == 0:
                    with sender() as other:
                        other.setblocking(False)
                        inlet = it.receiving.open(new_fold(1), other.fileno(), it.endpoint)
                        camera.sendto(b"\x80\x60" + bytes(20), other.getsockname())
                        inlet.close()
                        inlet.close()
            await whole(it, len(made.packets))
            it.receiver.close()
        assert it.viewer.pictures == list(made.pictures)
        assert len(it.receiving) == 1


async def test_a_listener_that_fails_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GBGW_STRICT", raising=False)

    class Broken:
        def on_received(self) -> None:
            raise ZeroDivisionError

    made = program()
    async with room() as it:
        with sender() as camera, sender() as other:
            other.setblocking(False)
            inlet = it.receiving.open(new_fold(SSRC), other.fileno(), Broken())
            for unit in made.by_unit:
                await send(camera, it.to, list(unit))
                await send(camera, other.getsockname(), list(unit))
            await whole(it, len(made.packets))
            await until(lambda: it.tally["bug"] > 0)
            inlet.close()
            it.receiver.close()
        assert it.viewer.pictures == list(made.pictures)


async def test_more_sockets_than_it_takes() -> None:
    thread = _receiver.ReceiveThread(capacity=1)
    with sender() as one, sender() as two:
        inlet = thread.open(new_fold(), one.fileno())
        with pytest.raises(OverflowError, match="1 sockets"):
            thread.open(new_fold(), two.fileno())
        inlet.close()
        thread.open(new_fold(), two.fileno()).close()
    with pytest.raises(OSError, match="watch the socket"):
        thread.open(new_fold(), 10_000)
    assert len(thread) == 0


def test_addresses_that_are_none() -> None:
    thread = _receiver.ReceiveThread()
    with sender() as one:
        inlet = thread.open(new_fold(), one.fileno())
        for host in ("", "camera.example", "1.2.3"):
            with pytest.raises(OSError, match="illegal IP address"):
                inlet.follow(host, 1)
            with pytest.raises(OSError, match="illegal IP address"):
                inlet.expect([host])
        inlet.follow("::1", 7)
        assert inlet.source == ("::1", 7)
        inlet.follow("10.0.0.1", 65_535)
        assert inlet.source == ("10.0.0.1", 65_535)
        inlet.close()


def test_a_loop_that_does_not_come_costs_up_to_the_next_key_frame() -> None:
    """And tells that something is missing."""
    made = program()
    room_for = sum(map(len, made.pictures[:30]))
    fold = _receiver.Fold(SSRC, max_waiting_bytes=room_for)
    for packet in made.packets:
        fold.push(packet, 0.0)
    fold.close(0.0)
    assert fold.waiting_bytes <= room_for
    assert fold.overrun_units > 0
    events = fold.events()
    assert events[-1].kind == _receiver.LOST or any(one.kind == _receiver.LOST for one in events)
    pictures = [bytes(one.unit) for one in events if one.unit is not None and one.unit.codec is H264]
    assert pictures == list(made.pictures[: len(pictures)])
    assert fold.waiting_bytes == 0


def test_after_an_overrun_a_key_frame_is_the_first() -> None:
    made = program(seconds=4)
    fold = _receiver.Fold(SSRC, max_waiting_bytes=sum(map(len, made.pictures[:10])))
    taken: list[Any] = []
    for n, unit in enumerate(made.by_unit):
        for packet in unit:
            fold.push(packet, 0.0)
        if n == 60:
            taken = list(fold.events())
    rest = [one for one in fold.events() if one.unit is not None and one.unit.codec is H264]
    assert any(one.kind == _receiver.LOST for one in taken)
    assert rest[0].unit.is_keyframe
    keys = [n for n, unit in enumerate(made.pictures) if n % 25 == 0]
    first = made.pictures.index(bytes(rest[0].unit))
    assert first in keys
    assert [bytes(one.unit) for one in rest] == list(made.pictures[first : first + len(rest)])
    assert limits.WAITING_UNIT_BYTES > 2 * limits.ACCESS_UNIT_BYTES - 1


def test_what_waits_of_all_streams_has_one_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """A late loop costs each stream up to its next key frame; nobody's units pile up at the cost of others."""
    made = program(seconds=4)
    half = len(made.by_unit) // 2
    first, second = (
        [packet for unit in part for packet in unit] for part in (made.by_unit[:half], made.by_unit[half:])
    )
    whole = sum(map(len, made.pictures)) // 2
    monkeypatch.setattr(limits, "WAITING_BYTES", whole)
    thread = _receiver.ReceiveThread(capacity=4)
    with contextlib.ExitStack() as stack:
        folds, inlets = [], []
        for _ in range(4):
            one = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            folds.append(_receiver.Fold(SSRC))
            inlets.append(thread.open(folds[-1], one.fileno()))
        for packet in first:
            for fold in folds:
                fold.push(packet, 0.0)
        assert thread.waiting_bytes == sum(fold.waiting_bytes for fold in folds)
        assert whole // 2 < thread.waiting_bytes <= whole
        assert thread.counts["receive.overrun_units"] == sum(fold.overrun_units for fold in folds) > 0
        for fold in folds:
            taken = [bytes(one.unit) for one in fold.events() if one.unit is not None and one.unit.codec is H264]
            assert taken
            assert taken == list(made.pictures[: len(taken)])
        assert thread.waiting_bytes == 0
        for packet in second:
            folds[0].push(packet, 1.0)
        assert thread.waiting_bytes > 0
        pictures = [one.unit for one in folds[0].events() if one.unit is not None and one.unit.codec is H264]
        assert pictures[0].is_keyframe
        for packet in second:
            folds[1].push(packet, 2.0)
        assert thread.waiting_bytes == folds[1].waiting_bytes > 0
        for inlet in inlets:
            inlet.close()
        del fold, folds, inlet, inlets
        assert thread.waiting_bytes == 0
    thread.close()


async def test_a_late_loop_is_measured(event_loop_policy: Any) -> None:
    made = program()
    async with room() as it:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as camera:
            for packet in made.packets[:10]:
                camera.sendto(packet, it.to)
            threading.Event().wait(0.15)  # the loop does something else
            assert it.receiving.worst_loop_lateness() >= 0.1
            await until(lambda: "first_packet" in it.receiver.steps)
            assert it.receiving.worst_loop_lateness() >= 0.1
            assert it.receiving.worst_loop_lateness() < 0.1
            assert 0.0 < it.receiving.busy_seconds < 1.0
            assert it.receiving.overrun_units == 0
