"""SipStack on loopback: framing, routing, calls between two stacks, and what stays behind."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from gbgw.base import limits
from gbgw.base.errors import ConfigError, LocalError, PeerError
from gbgw.net import endpoints
from gbgw.net.sip import Call, SipStack
from gbgw.sip.agent import Acknowledged, Ask, End, Ended, Failed, Final, Incoming, Provisional
from gbgw.sip.flow import Flow
from gbgw.sip.message import Message, Response
from gbgw.sip.parse import parse, serialize
from tests.support.leaks import Snapshot, settle_and_compare
from tests.support.sip import from_peer, invite, message

BOTH = ("udp://127.0.0.1:0", "tcp://127.0.0.1:0")


@pytest.fixture(autouse=True)
async def nothing_stays() -> AsyncIterator[None]:
    before = Snapshot.take()
    yield
    assert await settle_and_compare(before) == []


class Platform:
    """A stack that answers every request by `decide`."""

    def __init__(self, decide: Callable[[Incoming], Response | None] = lambda it: Response.to(it.request, 200)) -> None:
        self.decide = decide
        self.incoming: list[Incoming] = []
        self.closed: list[Flow] = []
        self.events: list[object] = []
        self.stack = SipStack(
            BOTH, on_incoming=self._take, on_flow_closed=self.closed.append, on_event=self.events.append
        )

    def _take(self, incoming: Incoming) -> None:
        self.incoming.append(incoming)
        response = self.decide(incoming)
        if response is not None:
            self.stack.reply(incoming.handle, response)


@asynccontextmanager
async def pair(platform: Platform) -> AsyncIterator[SipStack]:
    """The platform's stack and a second one that calls it."""
    async with platform.stack, SipStack(BOTH, on_incoming=lambda _: None) as other:
        yield other


async def way(stack: SipStack, platform: Platform, transport: str) -> Flow:
    port = platform.stack.ports[transport]
    return await stack.connect("127.0.0.1", port) if transport == "tcp" else stack.flow_to("127.0.0.1", port)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  (conditions of objects under test, which know no Event)
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_request_and_answer(transport: str) -> None:
    platform = Platform()
    async with pair(platform) as stack:
        flow = await way(stack, platform, transport)
        response = await stack.request(message(), flow, 5)
        assert response.status == 200
        assert response.via.received == "127.0.0.1"
        assert response.via.rport == str(platform.incoming[0].flow.remote[1])
        assert platform.incoming[0].flow.local[0] == "127.0.0.1"
        messages = stack.figures()["messages"]
        assert messages == {("out", "MESSAGE", 0): 1, ("in", "MESSAGE", 200): 1}


async def test_nobody_there_is_a_timeout_and_the_transaction_is_dropped() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        async with SipStack(BOTH, on_incoming=lambda _: None) as stack:
            with pytest.raises(PeerError) as caught:
                await stack.request(message(), stack.flow_to(*silent.getsockname()), 0.05)
            assert caught.value.code == "timeout"
            await until(lambda: stack.agent.idle)


async def test_a_cancelled_request_leaves_nothing_behind() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        async with SipStack(BOTH, on_incoming=lambda _: None) as stack:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(stack.request(message(), stack.flow_to(*silent.getsockname()), 30))
                await until(lambda: stack.agent.transactions)
                task.cancel()
            await until(lambda: stack.agent.idle)
            assert stack._listeners == {}


async def test_connection_refused_is_a_transport_error() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        async with SipStack(BOTH, on_incoming=lambda _: None) as stack:
            with pytest.raises(PeerError) as caught:
                await stack.connect("127.0.0.1", closed.getsockname()[1])
            assert caught.value.code == "transport"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_call_from_invite_to_bye(transport: str) -> None:
    def decide(incoming: Incoming) -> Response:
        return Response.to(incoming.request, 200, body=b"v=0\r\n", content_type="application/sdp")

    platform = Platform(decide)
    async with pair(platform) as stack:
        flow = await way(stack, platform, transport)
        async with stack.invite(invite(), flow) as call:
            event = await anext(call)
            assert isinstance(event, Final)
            assert event.response.body == b"v=0\r\n"
            await until(lambda: any(isinstance(told, Acknowledged) for told in platform.events))
            assert (await call.ask("INFO", b"PAUSE", "Application/MANSRTSP", timeout_seconds=5)).status == 200
            assert platform.incoming[1].dialog == platform.incoming[0].handle
            call.end()
            async with asyncio.timeout(5):
                await call.ended()
        assert [type(left) async for left in call] == [Ended]
        await until(lambda: Ended(platform.incoming[0].handle, "bye") in platform.events)
        assert stack.agent.dialogs == platform.stack.agent.dialogs == 0


def misstated(number: int, off: int | None) -> bytes:
    """A MESSAGE on a connection, its Content-Length off by some bytes or missing."""
    xml = b"<Notify><SN>%d</SN></Notify>\r\n" % number
    data = serialize(from_peer("MESSAGE", branch=f"z9hG4bKlength{number}"))
    head = data.removesuffix(b"Content-Length: 0\r\n\r\n") + b"Content-Type: text/xml\r\n"
    return head + (b"" if off is None else b"Content-Length: %d\r\n" % (len(xml) + off)) + b"\r\n" + xml


@pytest.mark.parametrize("off", [-12, 12, None])
async def test_a_wrong_length_on_a_connection_is_mended_and_counted(off: int | None) -> None:
    platform = Platform()
    async with platform.stack:
        reader, writer = await asyncio.open_connection("127.0.0.1", platform.stack.ports["tcp"])
        writer.write(misstated(1, off) + misstated(2, off))  # the second is told by silence
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"SIP/2.0 200")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"SIP/2.0 200")
        bodies = [incoming.request.body.rstrip() for incoming in platform.incoming]
        assert bodies == [b"<Notify><SN>1</SN></Notify>", b"<Notify><SN>2</SN></Notify>"]
        assert platform.stack.tally["sip.wrong_length"] == 2
        assert platform.stack.tally["sip.malformed"] == 0
        (connection,) = platform.stack._connections.values()
        assert connection.pending_since is None
        writer.close()
        await writer.wait_closed()


async def test_silence_is_counted_from_the_last_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that trickles in, with less than the patience between its pieces, is waited for."""
    monkeypatch.setattr(limits, "SIP_QUIET_SECONDS", 0.2)
    platform = Platform()
    data = misstated(1, 0)
    async with platform.stack:
        reader, writer = await asyncio.open_connection("127.0.0.1", platform.stack.ports["tcp"])
        for at in range(0, len(data), 1 + len(data) // 8):
            writer.write(data[at : at + 1 + len(data) // 8])
            await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"SIP/2.0 200")
        assert platform.incoming[0].request.length_held
        assert platform.stack.tally["sip.wrong_length"] == 0
        writer.close()
        await writer.wait_closed()


async def test_a_connection_that_closes_in_the_middle_of_a_body_leaves_no_timer() -> None:
    platform = Platform()
    async with platform.stack:
        _, writer = await asyncio.open_connection("127.0.0.1", platform.stack.ports["tcp"])
        writer.write(misstated(1, 400))
        await until(lambda: platform.stack._connections)
        (connection,) = platform.stack._connections.values()
        await until(lambda: connection._quiet_timer is not None)
        writer.close()
        await writer.wait_closed()
        await until(lambda: not platform.stack._connections)
        assert connection._quiet_timer is None
        assert platform.incoming == []


async def test_only_a_message_that_does_not_end_is_overdue() -> None:
    """Neither the line end that many devices send after a body and do not count, nor reads that all end within some
    message, which is another one each time."""
    platform = Platform()
    one, two, three, four = (misstated(number, -2 if number == 1 else 0) for number in range(1, 5))
    async with platform.stack:
        _, writer = await asyncio.open_connection("127.0.0.1", platform.stack.ports["tcp"])
        writer.write(one)
        await until(lambda: len(platform.incoming) == 1)
        (connection,) = platform.stack._connections.values()
        assert connection.pending_since is None
        assert not connection.overdue(connection.heard_at + limits.SIP_MESSAGE_SECONDS + 1)
        writer.write(two + three[:40])
        await until(lambda: len(platform.incoming) == 2)
        began = connection.pending_since
        assert began is not None
        writer.write(three[40:] + four[:40])
        await until(lambda: len(platform.incoming) == 3)
        assert connection.pending_since > began
        assert connection.overdue(connection.pending_since + limits.SIP_MESSAGE_SECONDS + 1)
        writer.close()
        await writer.wait_closed()


async def test_a_datagram_with_a_wrong_length_is_counted() -> None:
    platform = Platform()
    async with platform.stack:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            for number, off in enumerate((-12, 12, 0, None)):
                peer.sendto(misstated(number, off), ("127.0.0.1", platform.stack.ports["udp"]))
            await until(lambda: len(platform.incoming) == 4)
        assert platform.stack.tally["sip.wrong_length"] == 2


async def test_the_callee_ends_a_call() -> None:
    platform = Platform()
    async with pair(platform) as stack:
        call = stack.invite(invite(), await way(stack, platform, "udp"))
        assert isinstance(await anext(call), Final)
        await until(lambda: platform.events)
        platform.stack.submit(End(platform.incoming[0].handle))
        assert await anext(call) == Ended(call.handle, "bye")
        await call.ended()
        assert [event async for event in call] == []


async def test_ending_a_ringing_call_cancels_it() -> None:
    platform = Platform(lambda incoming: Response.to(incoming.request, 180))
    async with pair(platform) as stack:
        call = stack.invite(invite(), await way(stack, platform, "udp"))
        assert isinstance(await anext(call), Provisional)
        call.end()
        assert await anext(call) == Ended(call.handle, "cancelled")


async def test_a_closed_connection_ends_calls_and_fails_requests() -> None:
    platform = Platform(
        lambda incoming: None if incoming.request.method == "MESSAGE" else Response.to(incoming.request, 200)
    )
    async with pair(platform) as stack:
        flow = await way(stack, platform, "tcp")
        call = stack.invite(invite(), flow)
        assert isinstance(await anext(call), Final)
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(failure_of(stack, flow))
            await until(lambda: len(platform.incoming) == 2)
            platform.stack.disconnect(platform.incoming[1].flow)
        assert asked.result() == "transport"
        assert await anext(call) == Ended(call.handle, "transport")
        await until(lambda: platform.closed)
        assert platform.closed == [platform.incoming[0].flow]


async def failure_of(stack: SipStack, flow: Flow) -> str:
    with pytest.raises(PeerError) as caught:
        await stack.request(message(), flow, 20)
    return caught.value.code


async def test_leaving_the_stack_fails_what_is_under_way() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        async with asyncio.TaskGroup() as group, SipStack(BOTH, on_incoming=lambda _: None) as stack:
            call: Call = stack.invite(invite(), stack.flow_to(*silent.getsockname()))
            asked = group.create_task(failure_of(stack, stack.flow_to(*silent.getsockname())))
            await until(lambda: stack.agent.transactions == 2)
        assert asked.result() == "transport"
        assert await anext(call) == Failed(call.handle, "transport")


async def read_message(reader: asyncio.StreamReader) -> Message:
    return parse(await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5))


@asynccontextmanager
async def raw(platform: Platform) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with platform.stack:
        reader, writer = await asyncio.open_connection("127.0.0.1", platform.stack.ports["tcp"])
        try:
            yield reader, writer
        finally:
            writer.close()
            await writer.wait_closed()


async def test_two_messages_in_one_segment_and_one_in_many() -> None:
    platform = Platform()
    one = serialize(from_peer("MESSAGE", branch="z9hG4bK1"))
    two = serialize(from_peer("MESSAGE", branch="z9hG4bK2", cseq=2))
    async with raw(platform) as (reader, writer):
        writer.write(b"\r\n" + one + two)
        assert [(await read_message(reader)).cseq[0] for _ in range(2)] == [1, 2]
        three = serialize(from_peer("MESSAGE", branch="z9hG4bK3", cseq=3))
        for start in range(0, len(three), 40):
            writer.write(three[start : start + 40])
            await writer.drain()
            await asyncio.sleep(0.001)
        assert (await read_message(reader)).cseq[0] == 3


async def test_the_ping_is_answered() -> None:
    async with raw(Platform()) as (reader, writer):
        writer.write(b"\r\n\r\n")
        assert await asyncio.wait_for(reader.readexactly(2), 5) == b"\r\n"


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"x" * (limits.SIP_HEADER_BYTES + 10),
     serialize(from_peer("MESSAGE")).replace(b"Content-Length: 0", b"Content-Length: 99999999")],
    ids=["http", "endless", "huge body"],
)  # fmt: skip
async def test_a_connection_that_speaks_something_else_is_closed(data: bytes) -> None:
    platform = Platform()
    async with raw(platform) as (reader, writer):
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), 5)
        assert (b"513" in answer) == (b"99999999" in data)
        assert platform.stack.tally["sip.malformed"] == 1
        assert platform.incoming == []


async def test_a_refused_datagram_is_answered_and_noise_is_not() -> None:
    platform = Platform()
    async with platform.stack:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            peer.setblocking(False)
            to = ("127.0.0.1", platform.stack.ports["udp"])
            loop = asyncio.get_running_loop()
            for noise in (b"\r\n\r\n", b"\0", b"", b"\xff" * 2000, b"SIP/2.0 200 OK\r\n\r\n"):
                await loop.sock_sendto(peer, noise, to)
            cut = serialize(from_peer("MESSAGE")).replace(b"Content-Length: 0", b"Content-Length: 50")
            await loop.sock_sendto(peer, cut, to)
            async with asyncio.timeout(5):
                answer = parse(await loop.sock_recv(peer, 65_535))
            assert isinstance(answer, Response)
            assert (answer.status, answer.via.rport) == (400, str(peer.getsockname()[1]))
            assert platform.stack.tally["sip.malformed"] == 3


@pytest.mark.parametrize("limit", ["SIP_CONNECTION_IDLE_SECONDS", "SIP_MESSAGE_SECONDS"])
async def test_a_silent_or_stuck_connection_is_closed(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, limit, 0.01)
    monkeypatch.setattr("gbgw.net.sip._SWEEP_SECONDS", 0.01)
    platform = Platform()
    async with raw(platform) as (reader, writer):
        writer.write(b"MESSAGE sip:a@h SIP/2.0\r\n")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        assert platform.stack.tally["sip.connection_idle"] >= 1


async def test_unfinished_messages_share_a_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SIP_PENDING_BYTES", 1_000)
    platform = Platform()
    async with raw(platform) as (reader, writer):
        writer.write(b"MESSAGE sip:a@h SIP/2.0\r\nX-A: ")
        await until(lambda: platform.stack.pending_bytes == 30)
        writer.write(bytes(2_000))
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 5)
        await until(lambda: platform.stack.pending_bytes == 0)
        assert platform.stack.tally["sip.pending_full"] == 1


async def test_a_connection_in_use_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SIP_MESSAGE_SECONDS", 0.05)
    monkeypatch.setattr("gbgw.net.sip._SWEEP_SECONDS", 0.01)
    async with raw(Platform()) as (reader, writer):
        for number in range(5):
            writer.write(serialize(from_peer("MESSAGE", branch=f"z9hG4bK{number}", cseq=number)))
            assert (await read_message(reader)).cseq[0] == number
            await asyncio.sleep(0.03)


async def test_a_peer_that_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SIP_WRITE_BUFFER_BYTES", 100_000)
    platform = Platform()
    async with raw(platform) as (_, writer):
        writer.write(serialize(from_peer("MESSAGE")))
        await until(lambda: platform.incoming)
        for number in range(40):
            request = message(bytes(1_000_000)).with_header("Call-ID", f"c{number}")
            platform.stack.submit(Ask(platform.stack.new_handle(), request, platform.incoming[0].flow))
        await until(lambda: platform.closed)
        assert platform.stack.tally["sip.peer_does_not_read"] == 1


async def test_what_no_datagram_holds_is_not_sent() -> None:
    platform = Platform()
    async with pair(platform) as stack:
        with pytest.raises(PeerError):
            await stack.request(message(bytes(65_400)), await way(stack, platform, "udp"), 0.05)
        assert stack.tally["sip.send_failed"] == 1


async def test_connections_have_a_ceiling_per_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SIP_CONNECTIONS_PER_HOST", 1)
    platform = Platform()
    async with raw(platform) as (_, _writer):
        await until(lambda: platform.stack.figures()["connections"] == 1)
        reader, writer = await asyncio.open_connection("127.0.0.1", platform.stack.ports["tcp"])
        try:
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await asyncio.wait_for(reader.readexactly(1), 5)
        finally:
            writer.close()
        assert platform.stack.tally["sip.connections_full"] == 1


async def test_the_inbox_is_bounded_for_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SIP_INBOX", 2)
    platform = Platform()
    async with platform.stack:
        for number in range(5):
            platform.stack.received(from_peer("MESSAGE", cseq=number), platform.stack.flow_to("127.0.0.1", 9))
        assert platform.stack.tally["sip.inbox_full"] == 3


async def test_a_dual_stack_socket_speaks_ipv4() -> None:
    got: list[Incoming] = []
    try:
        stack = SipStack(("udp://[::]:0", "tcp://[::]:0"), on_incoming=got.append)
        await stack.__aenter__()
    except OSError:
        pytest.skip("no IPv6 on this machine")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            peer.setblocking(False)
            await asyncio.get_running_loop().sock_sendto(
                peer, serialize(from_peer("OPTIONS")), ("127.0.0.1", stack.ports["udp"])
            )
            async with asyncio.timeout(5):
                answer = parse(await asyncio.get_running_loop().sock_recv(peer, 65_535))
            assert isinstance(answer, Response)
            assert answer.via.received == "127.0.0.1"
            assert stack.flow_to("127.0.0.1", 5060).local[0] == "127.0.0.1"
    finally:
        await stack.__aexit__(None, None, None)


async def test_advertised_and_routed_addresses() -> None:
    async with SipStack(("udp://0.0.0.0:0",), on_incoming=lambda _: None) as stack:
        assert stack.contact_host(stack.flow_to("127.0.0.1", 5060)) == "127.0.0.1"
    async with SipStack(("udp://0.0.0.0:0",), on_incoming=lambda _: None, advertise="203.0.113.9") as stack:
        assert stack.contact_host(stack.flow_to("127.0.0.1", 5060)) == "203.0.113.9"


async def test_a_mistake_in_a_handler_costs_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GBGW_STRICT", raising=False)

    def decide(incoming: Incoming) -> Response:
        if incoming.request.body == b"bad":
            raise ZeroDivisionError
        return Response.to(incoming.request, 200)

    platform = Platform(decide)
    async with pair(platform) as stack:
        flow = await way(stack, platform, "udp")
        with pytest.raises(PeerError):
            await stack.request(message(b"bad"), flow, 0.1)
        assert (await stack.request(message(), flow, 5)).status == 200
        assert platform.stack.tally["bug.sip"] == 1


@pytest.mark.parametrize("url", ["sip://1.2.3.4:5060", "udp://1.2.3.4", "udp://1.2.3.4:x", "5060"])
def test_a_wrong_listen_address_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError):
        endpoints.Address.parse(url)


async def test_a_port_in_use_is_an_error_and_leaves_nothing() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        stack = SipStack(("tcp://127.0.0.1:0", f"udp://127.0.0.1:{taken.getsockname()[1]}"), on_incoming=lambda _: None)
        with pytest.raises(LocalError):
            await stack.__aenter__()
