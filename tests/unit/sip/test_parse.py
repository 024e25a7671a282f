"""Bytes to messages: forgiveness, refusals with their answer, framing of streams, strict writing."""

import pytest

from gbgw.base import limits
from gbgw.sip.message import Headers, Message, Request, Response
from gbgw.sip.parse import Ping, RefusedError, StreamParser, is_keepalive, parse, serialize
from tests.support.sip import from_peer

HEAD = (
    "Via: SIP/2.0/UDP 10.0.0.5:5062;rport;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\n"
    "Call-ID: c\r\nCSeq: 1 MESSAGE\r\n"
)
START = "MESSAGE sip:b@h SIP/2.0\r\n"


def whole(extra: str = "", body: bytes = b"", start: str = START, head: str = HEAD) -> bytes:
    return (start + head + extra + "\r\n").encode("latin-1") + body


def refusal(data: bytes) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        parse(data)
    return caught.value


def test_lf_alone_folding_blanks_and_any_case() -> None:
    text = (
        "Message sip:b@h sip/2.0\nVIA :SIP/2.0/UDP 10.0.0.5\n ;branch=x\nf:<sip:a@h>\n\t;tag=1\nt:<sip:b@h>\n"
        "i:c\ncseq:1 message\nL:   3  \nX-Odd\nno header here\nX-Gb-Ver: 3.0\n\nabcdef"
    )
    message = parse(text.encode())
    assert isinstance(message, Request)
    assert (message.method, message.method_text, message.body) == ("MESSAGE", "Message", b"abc")
    assert (message.via.branch, message.from_.tag, message.header("X-GB-Ver")) == ("x", "1", "3.0")
    assert "Content-Length" not in message.headers


def test_without_content_length_the_rest_of_the_datagram_is_the_body() -> None:
    assert parse(whole(body=b"rest\r\n")).body == b"rest\r\n"


XML = b'<?xml version="1.0"?>\r\n<Notify>\r\n<SN>1</SN>\r\n</Notify>\r\n'
SDP = b"v=0\r\nm=video 30000 RTP/AVP 96\r\ny=0200000001\r\n"


@pytest.mark.parametrize(("kind", "document"), [("Application/MANSCDP+xml", XML), ("application/sdp", SDP)])
@pytest.mark.parametrize("stated", [0, 10, 45, 70, 400])
def test_a_datagram_knows_better_than_a_wrong_length_where_its_document_ends(
    kind: str, document: bytes, stated: int
) -> None:
    data = whole(f"Content-Type: {kind}\r\nContent-Length: {stated}\r\n", document)
    assert parse(data).body == document


def test_what_follows_a_whole_document_is_still_ignored() -> None:
    data = whole(f"Content-Type: text/xml\r\nContent-Length: {len(XML)}\r\n", XML + b"rest</Notify>")
    assert parse(data).body == XML


@pytest.mark.parametrize(("kind", "document"), [("Application/MANSCDP+xml", XML), ("application/sdp", SDP)])
def test_half_a_document_with_its_whole_length_was_cut(kind: str, document: bytes) -> None:
    data = whole(f"Content-Type: {kind}\r\nContent-Length: {len(document)}\r\n", document[:-12])
    assert refusal(data).status == 400


def test_a_body_that_was_cut_is_answered_400() -> None:
    error = refusal(whole("Content-Length: 10\r\n", b"short"))
    assert error.status == 400
    assert error.answer is not None
    assert error.answer.status == 400
    assert error.answer.call_id == "c"
    response = refusal(whole("Content-Length: 10\r\n", b"short", start="SIP/2.0 200 OK\r\n"))
    assert response.answer is None


def test_headers_without_end_are_read_if_nothing_was_lost() -> None:
    assert parse(whole()[:-2]).call_id == "c"
    assert refusal(whole("Content-Length: 5\r\n")[:-2]).status == 400


@pytest.mark.parametrize(
    ("data", "status", "answered"),
    [
        (b"", 400, False),
        (b"\xff\xfe\x00", 400, False),
        (whole(start="MESSAGE sip:b@h\r\n"), 400, False),
        (whole(start="MESSAGE  sip:b@h with blanks SIP/2.0\r\n"), 400, True),
        (whole(start="MESSAGE sip:b@h SIP/7.0\r\n"), 505, True),
        (whole(start="MESSAGE sip: SIP/2.0\r\n"), 400, True),
        (whole(start="SIP/2.0 99 No\r\n"), 400, False),
        (whole(start="SIP/2.0 700 No\r\n"), 400, False),
        (whole(start="SIP/2.0 2xx No\r\n"), 400, False),
        (whole(start="REGISTER sip:b@h SIP/2.0\r\n"), 400, True),
        (whole("Content-Length: -1\r\n"), 400, True),
        (whole("Content-Length: 1\r\nl: 2\r\n", b"xx"), 400, True),
        (whole("Content-Length: ²\r\n"), 400, True),
        (whole(head=HEAD.replace("Call-ID: c", "Call-ID: ")), 400, False),
        (whole(head=HEAD.replace("<sip:a@h>", "<sip:>")), 400, True),
        (whole(head=HEAD.replace("SIP/2.0/UDP", "SMTP")), 400, False),
        (
            whole(start="ACK sip:b@h SIP/2.0\r\n", head=HEAD.replace("1 MESSAGE", "1 ACK"))[:-2] + b"l: x\r\n\r\n",
            400,
            False,
        ),
        (whole("X: y\r\n" * (limits.SIP_HEADERS + 1)), 513, False),
        (whole("X: " + "y" * limits.SIP_HEADER_BYTES + "\r\n"), 513, False),
    ],
)
def test_refusals(data: bytes, status: int, answered: bool) -> None:
    error = refusal(data)
    assert error.status == status
    assert (error.answer is not None) == answered
    if error.answer is not None:
        assert error.answer.status == status


def test_an_ack_may_call_itself_invite_in_cseq() -> None:
    data = whole(start="ACK sip:b@h SIP/2.0\r\n", head=HEAD.replace("1 MESSAGE", "1 INVITE"))
    assert parse(data).cseq == (1, "INVITE")


@pytest.mark.parametrize("data", [b"", b"\r\n", b"\r\n\r\n", b"\0\0\0\0", b"jaK\0", b"jaK"])
def test_keepalives(data: bytes) -> None:
    assert is_keepalive(data)


def test_what_is_longer_is_no_keepalive() -> None:
    assert not is_keepalive(b"\r\n\r\n\r\n")
    assert not is_keepalive(b"OK")


# The writer


def test_writing_counts_the_body_and_keeps_the_order() -> None:
    request = Request.new("message", "sip:b@h", [("Via", "v"), ("X-A", "1")], "中".encode("gb18030"), "t/x")
    assert serialize(request) == (
        b"MESSAGE sip:b@h SIP/2.0\r\nVia: v\r\nX-A: 1\r\nContent-Type: t/x\r\nContent-Length: 2\r\n\r\n\xd6\xd0"
    )
    assert serialize(Response(Headers(), b"", 200, "OK")) == b"SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"


def test_no_value_starts_a_line_of_its_own() -> None:
    request = Request.new("MESSAGE", "sip:b@h", {"Subject": "a\r\nEvil: 1\nEvil: 2\rEvil: 3"})
    assert serialize(request).count(b"\r\n") == 4
    assert b"\nEvil" not in serialize(request)
    assert b"\rEvil" not in serialize(request)


def test_text_outside_latin_1_is_utf_8() -> None:
    data = serialize(Response(Headers([("X-A", "é"), ("Subject", "摄像机")]), b"", 200, "好"))
    assert "好".encode() in data
    assert "摄像机".encode() in data
    assert b"X-A: \xe9\r\n" in data


# Streams


def items(*pieces: bytes) -> list[Message | RefusedError | Ping]:
    parser = StreamParser()
    return [item for piece in pieces for item in parser.push(piece)]


def test_several_messages_in_one_segment() -> None:
    one, two = serialize(from_peer("MESSAGE")), whole("Content-Length: 3\r\n", b"abc")
    found = items(b"\r\n" + one + b"\r\n" + two + two)
    assert [item.body for item in found if isinstance(item, Request)] == [b"", b"abc", b"abc"]


def test_pings_between_messages() -> None:
    one = serialize(from_peer("MESSAGE"))
    found = items(b"\r\n\r\n" + one + b"\r\n\r\n\r\n\r\n\r\n" + one)
    assert [type(item).__name__ for item in found] == ["Ping", "Request", "Ping", "Ping", "Request"]


def test_on_a_stream_a_message_that_should_have_a_length_ends_it() -> None:
    (error,) = items(whole("Content-Type: text/xml\r\n", b"<x/>"))
    assert isinstance(error, RefusedError)
    assert error.fatal
    assert error.answer is not None
    bye = whole(start="BYE sip:b@h SIP/2.0\r\n", head=HEAD.replace("1 MESSAGE", "1 BYE"))
    assert [type(item) for item in items(bye + bye)] == [Request, Request]


def test_a_bad_message_with_a_good_length_costs_only_itself() -> None:
    bad = whole("Content-Length: 3\r\n", b"abc", head=HEAD.replace("CSeq: 1 MESSAGE", "CSeq: 1 BYE"))
    error, good = items(bad + serialize(from_peer("MESSAGE")))
    assert isinstance(error, RefusedError)
    assert not error.fatal
    assert isinstance(good, Request)


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n\r\n", b"x" * (limits.SIP_HEADER_BYTES + 1), whole(f"l: {limits.SIP_BODY_BYTES + 1}\r\n"),
     whole("Content-Length: x\r\n")],
)  # fmt: skip
def test_after_a_fatal_refusal_nothing_more_comes_and_nothing_is_kept(data: bytes) -> None:
    parser = StreamParser()
    (error,) = parser.push(data)
    assert isinstance(error, RefusedError)
    assert error.fatal
    assert parser.broken
    assert parser.push(serialize(from_peer("MESSAGE"))) == ()
    assert parser.pending_bytes == 0


def test_a_large_body_in_small_pieces() -> None:
    body = bytes(range(256)) * 4096
    data = whole(f"Content-Length: {len(body)}\r\n", body)
    found = items(*(data[at : at + 1460] for at in range(0, len(data), 1460)))
    assert [item.body for item in found if isinstance(item, Request)] == [body]
