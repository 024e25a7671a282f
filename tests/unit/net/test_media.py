"""gbgw/net/media: the port pool, and endpoints over real loopback sockets."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvloop

from gbgw import _rtp
from gbgw.base import limits
from gbgw.base.errors import LocalError, PortsExhaustedError, StateError
from gbgw.net import media
from gbgw.net.media import MediaEndpoint, PortPool

HOST = "127.0.0.1"
PORTS = range(42000, 42200)


def packet(number: int, *, ssrc: int = 5, payload: bytes = b"\0\0\1\xba") -> bytes:
    return struct.pack("!BBHII", 0x80, 96, number % 65536, number * 3600, ssrc) + payload


def frame(one: bytes) -> bytes:
    return len(one).to_bytes(2, "big") + one


REPORT = struct.pack("!BBHI", 0x80, 201, 1, 77)
SENDER_REPORT = struct.pack("!BBHIQIII", 0x80, 200, 6, 5, 0, 0, 0, 0)


class Sink:
    """Keeps datagrams; for endpoints that the loop reads."""

    fold = None
    is_driven = False

    def __init__(self, report: bytes = REPORT) -> None:
        self.rtp: list[bytes] = []
        self.rtcp: list[bytes] = []
        self.report = report

    def push_rtp(self, datagram: bytes, now: float) -> None:
        self.rtp.append(datagram)

    def take(self, now: float) -> None:
        raise NotImplementedError

    def push_rtcp(self, datagram: bytes, now: float) -> None:
        self.rtcp.append(datagram)

    def receiver_report(self, now: float) -> bytes:
        return self.report


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> Any:
    return request.param()


@pytest.fixture
async def pool() -> AsyncIterator[PortPool]:
    pool = PortPool(PORTS, host=HOST)
    yield pool
    pool.close()
    assert pool.in_use == 0


@asynccontextmanager
async def endpoint(pool: PortPool, sink: Sink, **options: Any) -> AsyncIterator[MediaEndpoint]:
    async with MediaEndpoint(pool, sink, **options) as one:
        yield one


def sender(host: str = HOST) -> socket.socket:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind((host, 0))
    one.setblocking(False)
    return one


async def until(condition: Callable[[], object], seconds: float = 2.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is about what the kernel delivered
            await asyncio.sleep(0.002)


async def received(one: socket.socket) -> tuple[bytes, tuple[str, int]]:
    """The next datagram of a plain socket; uvloop has no sock_recvfrom."""
    found: list[tuple[bytes, tuple[str, int]]] = []

    def look() -> bool:
        with suppress(BlockingIOError):
            found.append(one.recvfrom(2000))
        return bool(found)

    await until(look)
    return found[0]


async def quiet() -> None:
    """Time for what was sent on loopback to arrive: several turns of the loop."""
    await asyncio.sleep(0.03)


class TestPortPool:
    async def test_even_ports_with_their_odd_neighbour(self) -> None:
        pool = PortPool(range(42001, 42007), host=HOST)
        assert pool.free == 2
        assert [pool.take(lambda port: port) for _ in range(2)] == [(42002, 42002), (42004, 42004)]
        assert (pool.in_use, pool.free) == (2, 0)
        with pytest.raises(PortsExhaustedError) as failure:
            pool.take(lambda port: port)
        assert failure.value.code == "ports_exhausted"
        assert "media.ports" in failure.value.remedy

    async def test_a_port_taken_by_another_program_is_passed_over(self) -> None:
        pool = PortPool(range(42010, 42014), host=HOST)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind((HOST, 42011))  # the RTCP port of the first pair
            async with endpoint(pool, Sink()) as one:
                assert one.port == 42012
                with pytest.raises(PortsExhaustedError):
                    await MediaEndpoint(pool, Sink()).open()
        assert pool.tally["net.port_taken"] == 2
        pool.close()

    async def test_other_trouble_with_binding_is_told(self) -> None:
        pool = PortPool(PORTS, host="192.0.2.1")
        with pytest.raises(LocalError) as failure:
            await MediaEndpoint(pool, Sink()).open()
        assert failure.value.code == "bind_failed"
        assert pool.in_use == 0

    async def test_a_port_rests_until_it_was_quiet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(media, "_SWEEP_SECONDS", 0.02)
        pool = PortPool(range(42020, 42024), host=HOST, quarantine_seconds=0.3)
        with sender() as camera:
            async with endpoint(pool, Sink()) as one:
                port = one.port
            assert (pool.in_use, pool.resting, pool.free) == (0, 1, 2)
            for _ in range(20):
                camera.sendto(packet(1), (HOST, port))
                await asyncio.sleep(0.02)
            assert pool.resting == 1  # 0.4 s later, but the camera is still sending
            assert pool.tally["net.rtp_to_resting_port"] > 0
            await until(lambda: pool.resting == 0)
        assert pool.free == 2
        pool.close()

    async def test_under_pressure_the_longest_quiet_port_is_reused(self) -> None:
        pool = PortPool(range(42030, 42034), host=HOST)
        for expected in (42030, 42032, 42030, 42032):
            async with endpoint(pool, Sink()) as one:
                assert one.port == expected
            await asyncio.sleep(0.005)
        assert pool.tally["net.port_reused_early"] == 2
        pool.close()

    async def test_what_an_old_camera_left_never_reaches_the_next_session(self) -> None:
        pool = PortPool(range(42040, 42042), host=HOST)
        sink = Sink()
        with sender() as camera:
            async with endpoint(pool, Sink()) as one:
                port = one.port
            camera.sendto(packet(1), (HOST, port))
            async with endpoint(pool, sink):
                await quiet()
        assert sink.rtp == []
        pool.close()

    async def test_release_of_a_port_not_in_use_is_misuse(self, pool: PortPool) -> None:
        with pytest.raises(StateError):
            pool.release(PORTS[0])


class TestUdp:
    async def test_receives_on_an_even_port(self, pool: PortPool) -> None:
        sink = Sink()
        async with endpoint(pool, sink) as one:
            assert one.port % 2 == 0
            assert one.receive_buffer_bytes > 0
            with sender() as camera:
                for n in range(3):
                    camera.sendto(packet(n), (HOST, one.port))
                await until(lambda: len(sink.rtp) == 3)
                assert one.source == camera.getsockname()
            assert one.kernel_drops == 0
        assert sink.rtp == [packet(n) for n in range(3)]

    async def test_a_small_receive_buffer_is_counted(self, pool: PortPool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "RECEIVE_BUFFER_BYTES", 1 << 30)
        async with endpoint(pool, Sink()) as one:
            granted = one.receive_buffer_bytes
            assert (granted < 1 << 30) == (one.tally["net.small_receive_buffer"] == 1)

    async def test_locks_to_its_source(self, pool: PortPool) -> None:
        sink = Sink()
        async with endpoint(pool, sink) as one:
            with sender() as camera, sender("127.0.0.2") as stranger:
                camera.sendto(packet(1), (HOST, one.port))
                await until(lambda: sink.rtp)
                stranger.sendto(packet(2), (HOST, one.port))
                await until(lambda: one.tally["rtp.wrong_source"])
                assert one.facts.refused_from == stranger.getsockname()
        assert sink.rtp == [packet(1)]

    async def test_its_port_may_change_if_the_stream_continues(self, pool: PortPool) -> None:
        sink = Sink()
        async with endpoint(pool, sink) as one:
            with sender() as camera, sender() as moved:
                camera.sendto(packet(65535), (HOST, one.port))
                await until(lambda: sink.rtp)
                for wrong in (packet(5000), packet(0, ssrc=6)):
                    moved.sendto(wrong, (HOST, one.port))
                await until(lambda: one.tally["rtp.wrong_source"] == 2)
                for number in range(65536, 65539):
                    moved.sendto(packet(number), (HOST, one.port))
                await asyncio.sleep(limits.SOURCE_SILENCE_SECONDS)
                moved.sendto(packet(65539), (HOST, one.port))
                await until(lambda: len(sink.rtp) == 5)
                assert one.source == moved.getsockname()
        assert sink.rtp == [packet(number) for number in range(65535, 65540)]
        assert one.tally["rtp.source_change"] == 1

    async def test_the_expected_host_displaces_a_stranger(self, pool: PortPool) -> None:
        sink = Sink()
        async with endpoint(pool, sink) as one:
            with sender() as camera, sender("127.0.0.2") as stranger:
                stranger.sendto(packet(1, ssrc=9), (HOST, one.port))
                await until(lambda: sink.rtp)
                await one.answered(address=HOST, port=9, transport="udp")
                camera.sendto(packet(700), (HOST, one.port))
                await until(lambda: len(sink.rtp) == 2)
                stranger.sendto(packet(2, ssrc=9), (HOST, one.port))
                await until(lambda: one.tally["rtp.wrong_source"])
        assert sink.rtp[1:] == [packet(700)]

    async def test_an_unknown_host_never_takes_over(self, pool: PortPool) -> None:
        sink = Sink()
        async with endpoint(pool, sink) as one:
            with sender() as camera, sender("127.0.0.2") as stranger:
                camera.sendto(packet(1), (HOST, one.port))
                await until(lambda: sink.rtp)
                one._lock.heard_at = -100.0  # long silent
                stranger.sendto(packet(2), (HOST, one.port))
                await until(lambda: one.tally["rtp.wrong_source"])
                await one.answered(address="127.0.0.2", port=9, transport="udp")
                stranger.sendto(packet(2), (HOST, one.port))
                await until(lambda: len(sink.rtp) == 2)

    async def test_what_is_not_rtp_locks_nothing(self, pool: PortPool) -> None:
        sink = Sink()
        async with endpoint(pool, sink) as one:
            with sender() as camera:
                for junk in (b"", b"\0\0\0\0", b"INVITE sip:x SIP/2.0\r\n", SENDER_REPORT):
                    camera.sendto(junk, (HOST, one.port))
                await until(lambda: one.facts.malformed == 3 and one.tally["net.early_rtcp"] == 1)
            assert one.facts.wrong_source == 0
            assert one.source is None
        assert sink.rtp == sink.rtcp == []

    async def test_reports_go_to_the_port_above(self, pool: PortPool) -> None:
        sink = Sink()
        async with endpoint(pool, sink) as one:
            with sender() as camera, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
                control.bind((HOST, camera.getsockname()[1] + 1))
                control.setblocking(False)
                one.send_report(0.0)  # nobody is known yet
                camera.sendto(packet(1), (HOST, one.port))
                await until(lambda: sink.rtp)
                one.send_report(0.0)
                data, address = await received(control)
                assert (data, address[1]) == (REPORT, one.port + 1)

    async def test_rtcp_on_the_rtp_port_is_answered_there(self, pool: PortPool) -> None:
        sink = Sink()
        async with endpoint(pool, sink) as one:
            with sender() as camera:
                camera.sendto(packet(1), (HOST, one.port))
                camera.sendto(SENDER_REPORT, (HOST, one.port))
                await until(lambda: sink.rtcp)
                one.send_report(0.0)
                data, address = await received(camera)
                assert (data, address[1]) == (REPORT, one.port)
        assert sink.rtcp == [SENDER_REPORT]

    async def test_reports_go_out_by_themselves(self, pool: PortPool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "RTCP_INTERVAL_SECONDS", 0.02)
        sink = Sink()
        async with endpoint(pool, sink) as one:
            with sender() as camera:
                camera.sendto(packet(1), (HOST, one.port))
                camera.sendto(SENDER_REPORT, (HOST, one.port))
                for _ in range(3):
                    assert (await received(camera))[0] == REPORT

    async def test_a_strangers_rtcp_is_dropped(self, pool: PortPool) -> None:
        sink = Sink()
        async with endpoint(pool, sink) as one:
            with sender() as camera, sender("127.0.0.2") as stranger:
                camera.sendto(packet(1), (HOST, one.port))
                await until(lambda: sink.rtp)
                stranger.sendto(SENDER_REPORT, (HOST, one.port + 1))
                await until(lambda: one.tally["rtp.wrong_source"])
        assert sink.rtcp == []


async def dial(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(HOST, port)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


class TestTcpPassive:
    async def test_receives_and_reports_framed(self, pool: PortPool) -> None:
        sink = Sink()
        async with endpoint(pool, sink, transport="tcp-passive", ssrc=5) as one:
            reader, writer = await dial(one.port)
            writer.write(frame(packet(1)) + frame(struct.pack("!BBHI", 0x80, 203, 0, 5)) + frame(packet(2)))
            await until(lambda: len(sink.rtp) == 2)
            one.send_report(0.0)
            async with asyncio.timeout(2):
                assert await reader.readexactly(10) == frame(REPORT)
            assert one.connected
            await hang_up(writer)
        assert not one.connected
        assert pool.in_use == 0

    async def test_a_second_connection_is_refused_and_a_third_taken_after_loss(self, pool: PortPool) -> None:
        sink = Sink()
        async with endpoint(pool, sink, transport="tcp-passive", ssrc=5) as one:
            _, first = await dial(one.port)
            first.write(frame(packet(1)))
            await until(lambda: sink.rtp)
            reader, second = await dial(one.port)
            with suppress(ConnectionError):
                assert await reader.read() == b""
            assert one.tally["net.tcp_refused"] == 1
            await hang_up(second)
            await hang_up(first)
            await until(lambda: not one.connected)
            _, third = await dial(one.port)
            third.write(frame(packet(2)))
            await until(lambda: len(sink.rtp) == 2)
            assert one.facts.connections == 2
            await hang_up(third)

    async def test_a_stalled_connection_gives_way(self, pool: PortPool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "MEDIA_STALLED_SECONDS", 0.05)
        sink = Sink()
        async with endpoint(pool, sink, transport="tcp-passive", ssrc=5) as one:
            _, first = await dial(one.port)
            await until(lambda: one.connected)
            await asyncio.sleep(0.06)
            _, second = await dial(one.port)
            second.write(frame(packet(1)))
            await until(lambda: sink.rtp)
            assert one.tally["net.tcp_replaced"] == 1
            await hang_up(first)
            await hang_up(second)

    async def test_udp_beside_it_on_the_same_port(self, pool: PortPool) -> None:
        sink = Sink()
        async with endpoint(pool, sink, transport="tcp-passive") as one:
            await one.answered(address=HOST, port=9, transport="udp")
            with sender() as camera:
                camera.sendto(packet(1), (HOST, one.port))
                await until(lambda: sink.rtp)

    async def test_udp_beside_it_fails_where_the_port_is_taken(self, pool: PortPool) -> None:
        async with endpoint(pool, Sink(), transport="tcp-passive") as one:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.bind((HOST, one.port))
                with pytest.raises(LocalError) as failure:
                    await one.answered(address=HOST, port=9, transport="udp")
        assert failure.value.code == "media_not_supported"

    async def test_tls_is_remembered_for_the_diagnosis(self, pool: PortPool) -> None:
        async with endpoint(pool, Sink(), transport="tcp-passive") as one:
            _, writer = await dial(one.port)
            writer.write(b"\x16\x03\x01\x02\x00\x01" + bytes(range(200)))
            await until(lambda: one.facts.head)
            assert one.facts.head.startswith(b"\x16\x03")
            assert one.facts.frames == 0
            await hang_up(writer)


class TestTcpActive:
    @staticmethod
    async def camera(host: str, said: bytes) -> tuple[asyncio.Server, list[int]]:
        served: list[int] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            served.append(1)
            writer.write(said)
            with suppress(ConnectionError):
                await reader.read()
            await hang_up(writer)

        return await asyncio.start_server(serve, host, 0), served

    async def test_connects_after_the_answer_and_falls_back(self, pool: PortPool) -> None:
        server, _ = await self.camera("127.0.0.2", frame(packet(1)))
        port = server.sockets[0].getsockname()[1]
        sink = Sink()
        async with endpoint(pool, sink, transport="tcp-active", ssrc=5) as one:
            await one.answered(address="127.0.0.3", port=port, transport="tcp", sip_host="127.0.0.2")
            await until(lambda: sink.rtp)
            assert one.source == ("127.0.0.2", port)
            assert one.tally["net.tcp_connect_failed"] == 1
        server.close()

    async def test_tries_again_and_gives_up(self, pool: PortPool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(media, "RETRY_SECONDS", (0.01, 0.02, 0.04))
        with socket.socket() as nobody:
            nobody.bind((HOST, 0))
            port = nobody.getsockname()[1]
            async with endpoint(pool, Sink(), transport="tcp-active") as one:
                await one.answered(address=HOST, port=port, transport="tcp", sip_host=HOST)
                await until(lambda: one.tally["net.tcp_connect_failed"] == 4)
                await asyncio.sleep(0.1)
                assert one.tally["net.tcp_connect_failed"] == 4
                assert one.facts.error.startswith(f"cannot connect to {HOST}:{port}")

    async def test_connects_again_after_loss(self, pool: PortPool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(media, "RETRY_SECONDS", (0.01, 0.02, 0.04))
        sink = Sink()
        seen: list[int] = []

        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(1)
            writer.write(frame(packet(len(seen))))
            await writer.drain()
            await hang_up(writer)

        server = await asyncio.start_server(serve, HOST, 0)
        async with endpoint(pool, sink, transport="tcp-active", ssrc=5) as one:
            await one.answered(address=HOST, port=server.sockets[0].getsockname()[1], transport="tcp")
            await until(lambda: len(sink.rtp) >= 6)  # more than the failures allowed in a row: media ends a row
        server.close()

    async def test_closing_ends_an_attempt(self, pool: PortPool) -> None:
        with socket.socket() as nobody:
            nobody.bind((HOST, 0))
            async with endpoint(pool, Sink(), transport="tcp-active") as one:
                await one.answered(address=HOST, port=nobody.getsockname()[1], transport="tcp")
                await until(lambda: one.facts.error)
        assert pool.in_use == 0


async def test_close_twice_and_before_open(pool: PortPool) -> None:
    one = MediaEndpoint(pool, Sink())
    with pytest.raises(StateError):
        _ = one.port
    await one.close()
    await one.close()
    with pytest.raises(StateError):
        await one.open()


async def test_a_hundred_lives_leave_nothing(pool: PortPool) -> None:
    for n in range(100):
        transport: Any = ("udp", "tcp-passive", "tcp-active")[n % 3]
        one = MediaEndpoint(pool, Sink(), transport=transport)
        await one.open()
        await one.close()
    assert pool.in_use == 0
    assert pool.free == len(PORTS) // 2


def test_framer_ceiling_is_accepted() -> None:
    assert _rtp.Framer(max_bytes=limits.FRAMER_BYTES).buffered == 0
