"""One port for many streams, over real sockets: each gets what is its own, by SSRC or by source, and nothing else."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop

from gbgw import _receiver
from gbgw.base import limits
from gbgw.base.errors import LocalError
from gbgw.base.tally import Tally
from gbgw.media.hub import Stream
from gbgw.net.media import MediaEndpoint, PortPool, Transport
from gbgw.net.receive import Receiving
from gbgw.net.receiver import Receiver, new_fold
from gbgw.net.shared import SharedPort
from tests.support.peer import framed
from tests.support.program import program
from tests.unit.net.test_receive import Viewer, until

PORT = 31_400
HOST = "127.0.0.1"
OTHER = "127.0.0.2"


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> Any:
    return request.param()


@dataclass
class Stand:
    """One stream on the port."""

    endpoint: MediaEndpoint
    receiver: Receiver
    viewer: Viewer

    @property
    def code(self) -> str:
        return self.receiver.diagnose(asyncio.get_running_loop().time(), self.endpoint.facts).code


@dataclass
class House:
    shared: SharedPort
    receiving: Receiving
    pool: PortPool
    tally: Tally = field(default_factory=Tally)

    @contextlib.asynccontextmanager
    async def stand(
        self, ssrc: int, *, hosts: tuple[str, ...] = (HOST,), transport: Transport = "udp", rtcp: bool = False
    ) -> AsyncIterator[Stand]:
        stream, viewer = Stream(f"cam{ssrc}"), Viewer()
        stream.attach(viewer)
        fold = new_fold(ssrc, ordered=transport != "udp")
        receiver = Receiver(stream, asyncio.get_running_loop(), fold=fold, expected_ssrc=ssrc, tally=self.tally)
        endpoint = MediaEndpoint(
            self.pool,
            receiver,
            transport=transport,
            ssrc=ssrc,
            expected_hosts=hosts,
            rtcp=rtcp,
            receiving=self.receiving,
            shared=self.shared,
            tally=self.tally,
        )
        async with endpoint:
            assert endpoint.port == PORT
            yield Stand(endpoint, receiver, viewer)
            receiver.close()


@contextlib.asynccontextmanager
async def house() -> AsyncIterator[House]:
    tally = Tally()
    pool = PortPool(range(31200, 31210), host=HOST, tally=tally)
    async with Receiving(tally=tally) as receiving:
        async with SharedPort(PORT, host="0.0.0.0", receiving=receiving, tally=tally) as shared:
            yield House(shared, receiving, pool, tally)
            assert len(shared) == 0
            assert len(receiving) == 0
        assert pool.in_use == 0
    pool.close()


@contextlib.contextmanager
def camera(host: str = HOST) -> Any:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind((host, 0))
        yield one


def sent_with(ssrc: int, packets: list[bytes]) -> list[bytes]:
    return [packet[:8] + ssrc.to_bytes(4, "big") + packet[12:] for packet in packets]


async def send(one: socket.socket, packets: list[bytes]) -> None:
    for at in range(0, len(packets), 50):
        for packet in packets[at : at + 50]:
            one.sendto(packet, (HOST, PORT))
        await asyncio.sleep(0)


async def received(stand: Stand, count: int) -> None:
    await until(lambda: stand.receiver.counts["rtp.received"] == count)


async def test_each_stream_gets_its_own_by_ssrc() -> None:
    made = program()
    async with house() as it, contextlib.AsyncExitStack() as stack:
        stands = [await stack.enter_async_context(it.stand(ssrc)) for ssrc in (9, 3, 7, 5)]
        cameras = [stack.enter_context(camera()) for _ in stands]
        for unit in made.by_unit:
            for one, ssrc in zip(cameras, (9, 3, 7, 5), strict=True):
                await send(one, sent_with(ssrc, list(unit)))
        for stand in stands:
            await received(stand, len(made.packets))
            stand.receiver.close()
            assert stand.viewer.pictures == list(made.pictures)
            assert stand.code == "ok"
        assert [stand.endpoint.source for stand in stands] == [one.getsockname() for one in cameras]
        assert it.tally["rtp.wrong_source"] == 0


async def test_one_source_may_send_several_streams() -> None:
    """A recorder does."""
    made = program()
    async with house() as it, it.stand(1) as first, it.stand(2) as second:
        with camera() as recorder:
            for unit in made.by_unit:
                await send(recorder, sent_with(1, list(unit)) + sent_with(2, list(unit)))
            for stand in (first, second):
                await received(stand, len(made.packets))
                stand.receiver.close()
                assert stand.viewer.pictures == list(made.pictures)


async def test_a_camera_with_an_ssrc_of_its_own_is_known_by_its_source() -> None:
    made = program()
    async with house() as it, it.stand(1, hosts=(HOST,)) as first, it.stand(2, hosts=(OTHER,)) as second:
        with camera() as one, camera(OTHER) as two:
            for unit in made.by_unit:
                await send(one, sent_with(77, list(unit)))
                await send(two, sent_with(88, list(unit)))
            for stand in (first, second):
                await received(stand, len(made.packets))
                stand.receiver.close()
                assert stand.viewer.pictures == list(made.pictures)
        assert first.receiver.fold.ssrc == 77
        assert second.receiver.fold.ssrc == 88


async def test_two_cameras_of_one_host_are_told_apart_by_the_ports_they_named() -> None:
    made = program()
    async with house() as it, it.stand(1) as first, it.stand(2) as second:
        with camera() as one, camera() as two:
            for stand, source in ((first, one), (second, two)):
                host, port = source.getsockname()
                await stand.endpoint.answered(address=host, port=port, transport="udp", sip_host=host)
            await send(two, sent_with(88, made.packets))
            await send(one, sent_with(77, made.packets))
            await received(first, len(made.packets))
            await received(second, len(made.packets))
        assert (first.receiver.fold.ssrc, second.receiver.fold.ssrc) == (77, 88)


async def test_what_could_be_anybodys_is_nobodys() -> None:
    made = program()
    async with house() as it, it.stand(1) as first, it.stand(2) as second:
        with camera() as one, camera(OTHER) as stranger:
            await send(one, sent_with(77, made.packets[:20]))  # two streams wait for this host
            await send(stranger, sent_with(78, made.packets[:20]))  # and none for that one
            await until(lambda: it.tally["net.unclaimed"] == 40)
            assert (first.code, second.code) == ("no_media", "no_media")
        assert first.receiver.counts["rtp.received"] == 0


async def test_late_packets_of_a_stream_that_is_over_become_no_other_stream() -> None:
    made = program()
    async with house() as it:
        with camera() as recorder:
            async with it.stand(1) as first:
                await send(recorder, sent_with(1, made.packets[:20]))
                await received(first, 20)
            async with it.stand(2) as second:
                await send(recorder, sent_with(1, made.packets[20:40]))
                await until(lambda: it.tally["net.ended_stream"] == 20)
                assert second.receiver.counts["rtp.received"] == 0
                await send(recorder, sent_with(2, made.packets))
                await received(second, len(made.packets))


async def test_an_ssrc_belongs_to_one_stream() -> None:
    made = program()
    async with house() as it, it.stand(1) as first, it.stand(2, hosts=(OTHER,)) as second:
        with pytest.raises(LocalError) as caught:
            async with it.stand(1):
                raise AssertionError("two streams with one SSRC")
        assert caught.value.code == "ssrc_conflict"
        with pytest.raises(LocalError) as caught:
            await second.endpoint.answered(address=OTHER, port=9, transport="udp", ssrc=1, sip_host=OTHER)
        assert caught.value.code == "ssrc_conflict"
        with camera() as right, camera(OTHER) as wrong:
            await send(right, sent_with(1, made.packets[:50]))
            await received(first, 50)
            await send(wrong, sent_with(1, made.packets[:50]))  # a camera that does not do as it was told
            await until(lambda: second.code == "ssrc_conflict")
            await send(right, sent_with(1, made.packets[50:]))
            await received(first, len(made.packets))
            first.receiver.close()
        assert first.viewer.pictures == list(made.pictures)
        assert it.tally["rtp.wrong_source"] == 50


async def test_an_answer_may_name_another_ssrc() -> None:
    made = program()
    async with house() as it, it.stand(1) as stand:
        await stand.endpoint.answered(address=HOST, port=9, transport="udp", ssrc=4, sip_host=HOST)
        await stand.endpoint.answered(address=HOST, port=9, transport="udp", ssrc=4, sip_host=HOST)
        with camera(OTHER) as behind_nat:
            await send(behind_nat, sent_with(4, made.packets))
            await received(stand, len(made.packets))


async def test_a_spoofed_source_with_the_right_ssrc_is_refused() -> None:
    made = program()
    async with house() as it, it.stand(1) as stand:
        with camera() as one, camera(OTHER) as rival:
            for unit in made.by_unit:
                await send(one, sent_with(1, list(unit)))
                await send(rival, sent_with(1, list(unit)))
            await received(stand, len(made.packets))
            stand.receiver.close()
        assert stand.viewer.pictures == list(made.pictures)
    assert it.tally["rtp.wrong_source"] == len(made.packets)


async def test_a_flood_changes_nothing_for_the_others() -> None:
    """Random bytes, 64 KiB datagrams, RTP of unknown SSRCs: counted, and bounded in what Python sees."""
    made = program()
    async with house() as it, it.stand(1) as stand:
        with camera() as one, camera(OTHER) as flood:
            junk = [os.urandom(40) for _ in range(20)] + [bytes(65_507)]
            for number, unit in enumerate(made.by_unit):
                for bad in junk:
                    flood.sendto(bad, (HOST, PORT))
                await send(flood, sent_with(1_000 + number, list(unit)))
                await send(one, sent_with(1, list(unit)))
            await received(stand, len(made.packets))
            stand.receiver.close()
        assert stand.viewer.pictures == list(made.pictures)
        assert it.shared.kernel_drops == 0

        def counted() -> int:
            it.shared.settle_counts()
            return sum(it.tally[name] for name in ("net.malformed", "net.flood", "net.unclaimed", "net.early_rtcp"))

        await until(lambda: counted() == len(junk) * len(made.by_unit) + len(made.packets))


async def test_reports_go_both_ways() -> None:
    made = program()
    async with house() as it, it.stand(1) as stand:
        with camera() as one, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            control.bind((HOST, one.getsockname()[1] + 1))
            control.setblocking(False)
            await send(one, sent_with(1, made.packets))
            await received(stand, len(made.packets))
            await until(lambda: stand.endpoint.source is not None)
            stand.endpoint.facts  # noqa: B018 - learns the source
            stand.endpoint.send_report(asyncio.get_running_loop().time())
            report = await asyncio.get_running_loop().sock_recv(control, 2_000)
            assert report[1] == 201
            assert report[8:12] == (1).to_bytes(4, "big")
            goodbye = bytes((0x81, 203, 0, 1)) + (1).to_bytes(4, "big")
            one.sendto(goodbye, (HOST, PORT))
            await until(lambda: stand.receiver.goodbye_at is not None)


# TCP


@contextlib.asynccontextmanager
async def connection(host: str = HOST) -> AsyncIterator[asyncio.StreamWriter]:
    _, writer = await asyncio.open_connection(HOST, PORT, local_addr=(host, 0))
    try:
        yield writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize("cut", [1, 13, 1_000])
async def test_a_connection_goes_to_the_stream_of_its_first_packet(cut: int) -> None:
    made = program()
    async with house() as it, contextlib.AsyncExitStack() as stack:
        stands = [await stack.enter_async_context(it.stand(ssrc, transport="tcp-passive")) for ssrc in (1, 2)]
        writers = [await stack.enter_async_context(connection()) for _ in stands]
        for writer, ssrc in zip(writers, (2, 1), strict=True):
            data = framed(sent_with(ssrc, made.packets))
            writer.write(data[:cut])
            await asyncio.sleep(0.01)
            writer.write(data[cut:])
            await writer.drain()
        for stand in stands:
            await received(stand, len(made.packets))
            assert stand.endpoint.connected
            stand.receiver.close()
            assert stand.viewer.pictures == list(made.pictures)


async def test_a_connection_with_garbage_first_is_known_by_its_peer() -> None:
    made = program()
    async with house() as it:
        other = it.stand(2, hosts=(OTHER,), transport="tcp-passive")
        async with it.stand(1, transport="tcp-passive") as stand, other, connection() as writer:
            writer.write(b"HELLO, this is a camera" + framed(sent_with(1, made.packets)))
            await writer.drain()
            await received(stand, len(made.packets))


async def test_a_connection_that_is_nobodys_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SHARED_ARRIVAL_SECONDS", 0.1)
    monkeypatch.setattr(limits, "SHARED_ARRIVALS", 2)
    async with house() as it:
        async with it.stand(1, hosts=(OTHER,), transport="tcp-passive") as stand:
            reader, garbage = await asyncio.open_connection(HOST, PORT)
            garbage.write(os.urandom(4_000))
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            garbage.close()
            silent = [await asyncio.open_connection(HOST, PORT) for _ in range(3)]
            for reader, writer in silent:
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
                writer.close()
            assert it.tally["net.tcp_unclaimed"] == 4
            assert not stand.endpoint.connected
        async with connection():  # open at the end
            await asyncio.sleep(0.02)


async def test_a_port_that_is_taken_is_named() -> None:
    with camera() as taken:
        port = taken.getsockname()[1]
        async with Receiving(tally=Tally()) as receiving:
            with pytest.raises(LocalError) as caught:
                await SharedPort(port, host=HOST, receiving=receiving, tally=Tally()).__aenter__()
    assert caught.value.code == "bind_failed"
    assert str(port) in caught.value.message


# The core


def test_a_trunk_has_bounds() -> None:
    thread = _receiver.ReceiveThread(capacity=2)
    with pytest.raises(TypeError):
        _receiver.Trunk()
    with camera() as one:
        trunk = thread.open_trunk(one.fileno())
        inlet = trunk.join(_receiver.Fold(1), 1)
        for ssrc in (4, 2, 3):
            trunk.route(inlet, ssrc)
        assert len(trunk) == 4
        with pytest.raises(OverflowError):
            trunk.route(inlet, 5)
        with pytest.raises(ValueError, match="another stream's"):
            trunk.join(_receiver.Fold(1), 3)
        assert len(thread) == 1
        inlet.close()
        inlet.close()
        assert (len(trunk), len(thread)) == (0, 0)
        with pytest.raises(ValueError, match="no share"):
            trunk.route(inlet, 9)
        with camera() as own:
            other = thread.open(_receiver.Fold(1), own.fileno())
            with pytest.raises(ValueError, match="no share"):
                trunk.route(other, 9)
            other.close()
        trunk.close()
        trunk.close()
        with pytest.raises(ValueError, match="closed"):
            trunk.join(_receiver.Fold(1), 1)
        with pytest.raises(OSError, match="watch"):
            thread.open_trunk(10_000)
    with contextlib.ExitStack() as stack:
        opened = [thread.open_trunk(stack.enter_context(camera()).fileno()) for _ in range(4)]
        with pytest.raises(OverflowError):
            thread.open_trunk(0)
        for trunk in opened:
            trunk.close()
    thread.close()
