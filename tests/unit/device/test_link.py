"""The device's SIP socket: what arrives is parsed, refused or passed over; what cannot be sent is counted."""

import asyncio

import pytest

from gbgw.base import limits
from gbgw.base.tally import Tally
from gbgw.device.link import TcpLink, UdpLink
from gbgw.sip.flow import Flow
from gbgw.sip.message import Message, Response

GOOD = (
    b"OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:c@d>;tag=1\r\n"
    b"To: <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
)
CUT = GOOD.replace(b"Content-Length: 0", b"Content-Length: 99")


class Transport(asyncio.Transport):
    """Remembers what was written; both a stream and a datagram transport."""

    def __init__(self) -> None:
        super().__init__({"sockname": ("192.0.2.10", 5_070), "peername": ("192.0.2.1", 5_060)})
        self.written: list[bytes] = []
        self.waiting = 0
        self.closed = ""

    def write(self, data: bytes) -> None:
        self.written.append(data)

    sendto = write

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def is_closing(self) -> bool:
        return bool(self.closed)

    def close(self) -> None:
        self.closed = "closed"

    def abort(self) -> None:
        self.closed = "aborted"


class Inbox:
    def __init__(self) -> None:
        self.messages: list[tuple[Message, Flow]] = []
        self.closed: list[tuple[Flow, str]] = []

    def deliver(self, message: Message, flow: Flow) -> None:
        self.messages.append((message, flow))

    def close(self, flow: Flow, reason: str) -> None:
        self.closed.append((flow, reason))


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


def udp(inbox: Inbox) -> tuple[UdpLink, Transport, Tally]:
    tally, transport = Tally(), Transport()
    link = UdpLink(inbox.deliver, tally)
    link.connection_made(transport)
    return link, transport, tally


def tcp(inbox: Inbox) -> tuple[TcpLink, Transport, Tally]:
    tally, transport = Tally(), Transport()
    link = TcpLink(inbox.deliver, inbox.close, tally)
    link.connection_made(transport)
    return link, transport, tally


def test_datagrams(inbox: Inbox) -> None:
    link, transport, tally = udp(inbox)
    link.datagram_received(GOOD, ("192.0.2.1", 5_060))
    assert inbox.messages[0][1] == Flow("udp", ("192.0.2.10", 5_070), ("192.0.2.1", 5_060))
    for blank in (b"\r\n\r\n", b"\0", b""):
        link.datagram_received(blank, ("192.0.2.1", 5_060))
    assert tally.counts == {}
    link.datagram_received(CUT, ("192.0.2.1", 5_060))
    assert transport.written[0].startswith(b"SIP/2.0 400 ")
    link.datagram_received(b"\xff\xfe rubbish", ("192.0.2.1", 5_060))
    assert len(transport.written) == 1
    assert tally["device.sip_refused"] == 2
    assert len(inbox.messages) == 1


def test_an_unreachable_platform_is_counted(inbox: Inbox) -> None:
    link, _, tally = udp(inbox)
    link.error_received(ConnectionRefusedError())
    assert tally["device.sip_unreachable"] == 1


def test_what_cannot_be_sent_is_counted(inbox: Inbox) -> None:
    for make in (udp, tcp):
        link, transport, tally = make(inbox)
        link.send(b"one")
        link.close()
        link.send(b"two")
        assert transport.written == [b"one"]
        assert tally["device.sip_unsent"] == 1


@pytest.mark.parametrize("cut", [1, 7, 100, 10_000])
def test_a_stream_in_any_cut(inbox: Inbox, cut: int) -> None:
    link, transport, _ = tcp(inbox)
    data = GOOD + b"\r\n\r\n" + GOOD
    for at in range(0, len(data), cut):
        link.data_received(data[at : at + cut])
    assert len(inbox.messages) == 2
    assert transport.written == [b"\r\n"]
    assert inbox.messages[0][1].reliable
    assert inbox.messages[0][1].connection > 0


def test_connections_have_identities(inbox: Inbox) -> None:
    assert tcp(inbox)[0].flow.connection != tcp(inbox)[0].flow.connection


def test_a_stream_that_has_lost_its_way_is_closed(inbox: Inbox) -> None:
    link, transport, tally = tcp(inbox)
    link.data_received(b"no sip at all\r\n\r\n")
    assert transport.closed == "closed"
    assert tally["device.sip_refused"] == 1
    link.connection_lost(None)
    assert inbox.closed == [(link.flow, "connection closed")]


def test_a_platform_that_reads_nothing_is_dropped(inbox: Inbox) -> None:
    link, transport, tally = tcp(inbox)
    transport.waiting = limits.SIP_STREAM_BYTES
    link.send(b"more")
    assert transport.closed == "aborted"
    assert transport.written == []
    assert tally["device.sip_unsent"] == 1
    link.connection_lost(OSError("reset"))
    assert inbox.closed[0][1] == "reset"


def test_answers_pass_like_requests(inbox: Inbox) -> None:
    link, _, _ = udp(inbox)
    answer = GOOD.replace(b"OPTIONS sip:a@b SIP/2.0", b"SIP/2.0 200 OK")
    link.datagram_received(answer, ("192.0.2.1", 5_060))
    assert isinstance(inbox.messages[0][0], Response)
