"""Where bodies end by their own word, and messages whose Content-Length is wrong on a connection."""

from typing import Final

import pytest

from gbgw.base import limits
from gbgw.sip.body import BodyEnd, Kind, Next, is_whole, kind_of, next_at
from gbgw.sip.message import Message, Request, Response
from gbgw.sip.parse import Ping, RefusedError, StreamParser

XML: Final = b'<?xml version="1.0"?>\r\n<Notify>\r\n<CmdType>Keepalive</CmdType>\r\n</Notify>\r\n'
SDP: Final = b"v=0\r\no=1 0 0 IN IP4 192.0.2.1\r\nm=video 30000 RTP/AVP 96\r\ny=0200000001\r\nf=\r\n"
HEAD: Final = (
    "Via: SIP/2.0/TCP 10.0.0.5:5062;rport;branch=z9hG4bK{0}\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\n"
    "Call-ID: c{0}\r\nCSeq: 1 {1}\r\n"
)
TYPES: Final = {Kind.XML: "Application/MANSCDP+xml", Kind.SDP: "application/sdp", Kind.OTHER: "Application/MANSRTSP"}


def sent(
    body: bytes, stated: int | None, *, kind: Kind | None = Kind.XML, number: int = 1, start: str = "", method: str = ""
) -> bytes:
    """A message with any Content-Length (None: without one) and a body."""
    method = method or ("INVITE" if kind is Kind.SDP else "MESSAGE")
    lines = (start or f"{method} sip:b@h SIP/2.0") + "\r\n" + HEAD.format(number, method)
    if kind is not None:
        lines += f"Content-Type: {TYPES[kind]}\r\n"
    if stated is not None:
        lines += f"Content-Length: {stated}\r\n"
    return (lines + "\r\n").encode() + body


def heard(data: bytes, piece: int = 0, *, quiet: bool = True) -> list[Message | RefusedError | Ping]:
    """What comes of bytes in pieces (0: at once), and then of silence."""
    parser = StreamParser(mends=True)
    found: list[Message | RefusedError | Ping] = []
    for at in range(0, len(data), piece or len(data)):
        found += parser.push(data[at : at + (piece or len(data))])
    while quiet and (more := parser.quiet()):
        found += more
    return found


def bodies(found: list[Message | RefusedError | Ping]) -> list[bytes]:
    assert all(isinstance(item, Request | Response) for item in found), found
    return [item.body for item in found if isinstance(item, Request | Response)]


GOOD: Final = sent(XML, len(XML), number=9)


@pytest.mark.parametrize("piece", [0, 1, 7])
@pytest.mark.parametrize(("kind", "document"), [(Kind.XML, XML), (Kind.SDP, SDP)])
@pytest.mark.parametrize("off", [-60, -24, -10, -3, 1, 2, 5, 60, 300, 700])
def test_a_wrong_length_costs_neither_its_message_nor_the_next(
    kind: Kind, document: bytes, off: int, piece: int
) -> None:
    data = sent(document, len(document) + off, kind=kind) + GOOD + GOOD
    found = heard(data, piece)
    assert [body.rstrip() for body in bodies(found)] == [document.rstrip(), XML.rstrip(), XML.rstrip()]
    assert [item.length_held for item in found if isinstance(item, Request)] == [False, True, True]


@pytest.mark.parametrize("piece", [0, 1])
@pytest.mark.parametrize(("kind", "document"), [(Kind.XML, XML), (Kind.SDP, SDP)])
@pytest.mark.parametrize("off", [None, -60, -24, -3, 2, 700])
def test_the_last_message_is_told_by_silence(kind: Kind, document: bytes, off: int | None, piece: int) -> None:
    data = sent(document, None if off is None else len(document) + off, kind=kind)
    found = heard(data, piece)
    assert [body.rstrip() for body in bodies(found)] == [document.rstrip()]
    assert not any(item.length_held for item in found if isinstance(item, Request))


@pytest.mark.parametrize(("kind", "document"), [(Kind.XML, XML), (Kind.SDP, SDP)])
def test_a_missing_length_is_found(kind: Kind, document: bytes) -> None:
    data = sent(document, None, kind=kind) + GOOD
    assert [body.rstrip() for body in bodies(heard(data))] == [document.rstrip(), XML.rstrip()]


def test_a_document_without_a_length_is_over_with_its_end_tag() -> None:
    assert len(heard(sent(XML, None), quiet=False)) == 1


def test_a_type_and_neither_length_nor_body() -> None:
    data = sent(b"", None, start="SIP/2.0 200 OK") + GOOD
    assert bodies(heard(data)) == [b"", XML]


def test_an_answer_that_names_a_type_and_says_that_it_is_empty_does_not_wait() -> None:
    assert bodies(heard(sent(b"", 0, start="SIP/2.0 200 OK"), quiet=False)) == [b""]


@pytest.mark.parametrize("document", [XML, XML.rstrip()])
def test_a_right_length_is_believed_at_once(document: bytes) -> None:
    (message,) = heard(sent(document, len(document)), quiet=False)
    assert isinstance(message, Request)
    assert message.length_held


def test_half_a_document_with_its_right_length_is_told_by_the_next_message_or_by_silence() -> None:
    half = XML[:60]
    assert bodies(heard(sent(half, len(half)) + GOOD, quiet=False)) == [half, XML]
    assert heard(sent(half, len(half)), quiet=False) == []
    parser = StreamParser(mends=True)
    parser.push(sent(half, len(half)))
    assert parser.quiet_seconds == limits.SIP_TAIL_SECONDS
    (message,) = parser.quiet()
    assert isinstance(message, Request)
    assert (message.body, message.length_held) == (half, True)


def test_a_body_that_is_still_on_its_way_is_waited_for() -> None:
    parser = StreamParser(mends=True)
    data = sent(XML, len(XML))
    assert parser.push(data[:-40]) == []
    assert parser.quiet_seconds == limits.SIP_QUIET_SECONDS
    assert parser.quiet() == []
    assert parser.quiet() == []
    (message,) = parser.push(data[-40:])
    assert isinstance(message, Request)
    assert message.length_held
    assert parser.quiet_seconds is None


@pytest.mark.parametrize("piece", [0, 1])
@pytest.mark.parametrize("lines", [b"f=\r\n", b"y=0200000001\r\nf=\r\n"])
def test_lines_of_an_sdp_after_their_length_are_dropped(lines: bytes, piece: int) -> None:
    """The cut fell between two lines: nothing tells that the first part is not all, and it does not wait."""
    message, *dropped, good = heard(sent(SDP, len(SDP) - len(lines), kind=Kind.SDP) + GOOD, piece)
    assert bodies([message, good]) == [SDP.removesuffix(lines), XML]
    assert len(dropped) == lines.count(b"\n")
    assert all(isinstance(item, RefusedError) and not item.fatal and item.answer is None for item in dropped)


def test_such_lines_without_end_are_not_listened_to() -> None:
    *dropped, last = heard(sent(SDP, len(SDP), kind=Kind.SDP) + b"a=b\r\n" * 100_000)[1:]
    assert len(dropped) == limits.SDP_LINES
    assert isinstance(last, RefusedError)
    assert last.fatal


# What must never be taken for a message


SMUGGLED: Final = b"REGISTER sip:b@h SIP/2.0\r\n" + HEAD.format(66, "REGISTER").encode() + b"Content-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "body",
    [
        XML + SMUGGLED,
        XML + b"\r\n" + SMUGGLED + XML,
        b"<Notify><!--</Notify>\r\n" + SMUGGLED + b"--></Notify>",
        b"<Notify>\r\n" + SMUGGLED + b"</Notify>",
        SMUGGLED,
        XML[:30] + SMUGGLED,
    ],
    ids=["after", "between", "comment", "inside", "alone", "broken"],
)
@pytest.mark.parametrize("kind", [Kind.XML, Kind.SDP, Kind.OTHER, None])
@pytest.mark.parametrize("piece", [0, 1])
def test_what_stands_in_a_body_whose_length_holds_is_no_message(body: bytes, kind: Kind | None, piece: int) -> None:
    assert bodies(heard(sent(body, len(body), kind=kind) + GOOD, piece)) == [body, XML]
    assert bodies(heard(sent(body, len(body), kind=kind), piece)) == [body]


@pytest.mark.parametrize("inside", [SMUGGLED, b"\r\n" + SMUGGLED])
@pytest.mark.parametrize("stated", [0, 5, 12, 40])
def test_a_message_inside_a_document_is_never_one_however_wrong_the_length(inside: bytes, stated: int) -> None:
    document = b"<Notify>\r\n<Name>" + inside + b"</Name>\r\n</Notify>\r\n"
    for found in (heard(sent(document, stated) + GOOD), heard(sent(document, stated)), heard(sent(document, None))):
        assert found
        assert not any(isinstance(item, Request) and item.method == "REGISTER" for item in found)


def test_a_start_line_that_the_stated_end_cuts_belongs_to_the_next_message() -> None:
    """Two bytes too many: "ME" of the next MESSAGE; what is left of its start line would still read as one."""
    assert bodies(heard(sent(XML, len(XML) + 2) + GOOD)) == [XML.rstrip(), XML]


def test_the_end_of_a_later_document_is_not_that_of_half_a_one() -> None:
    half = XML[:60]
    other = sent(XML, len(XML), start="SERVICE sip:b@h SIP/2.0", method="SERVICE")
    first, second = heard(sent(half, len(half)) + other)
    assert isinstance(first, Request)
    assert isinstance(second, Request)
    assert (first.body, second.method, second.body) == (half, "SERVICE", XML)


@pytest.mark.parametrize("kind", [Kind.OTHER, None])
def test_a_body_that_cannot_tell_its_end_has_only_its_length(kind: Kind | None) -> None:
    body = b"PLAY RTSP/1.0\r\nCSeq: 1\r\n\r\n"
    first, refusal = heard(sent(body, len(body) - 8, kind=kind, method="INFO") + GOOD)
    assert isinstance(first, Request)
    assert isinstance(refusal, RefusedError)
    assert refusal.fatal
    (refusal,) = heard(sent(body, None, kind=kind, method="INFO"), quiet=False)
    assert isinstance(refusal, RefusedError)
    assert refusal.fatal


def test_without_length_and_without_end_it_is_refused_in_the_end() -> None:
    (refusal,) = heard(sent(XML[:50], None))
    assert isinstance(refusal, RefusedError)
    assert refusal.fatal
    assert refusal.answer is not None


def test_a_document_that_goes_on_for_too_long_after_its_length_is_lost() -> None:
    endless = b"<Notify>" + b"a" * (limits.SIP_RESYNC_BYTES + 100)
    first, refusal = heard(sent(endless, 10), quiet=False)
    assert isinstance(first, Request)
    assert isinstance(refusal, RefusedError)
    assert refusal.fatal


def test_blanks_without_end_are_not_looked_at_for_ever() -> None:
    parser = StreamParser(mends=True)
    parser.push(sent(XML[:40], 40))
    assert parser.push(b" " * 1_000) == []
    found = list(parser.push(b" " * 100_000))
    assert parser.broken or len(found) == 1 or parser.pending_bytes > 0
    assert parser.pending_bytes <= 40 + 101_000


def test_a_strict_reader_does_not_mend() -> None:
    parser = StreamParser()
    first, refusal = parser.push(sent(XML, len(XML) - 20) + GOOD)
    assert isinstance(first, Request)
    assert isinstance(refusal, RefusedError)
    assert parser.quiet_seconds is None
    assert parser.quiet() == ()


# The parts


def test_kinds() -> None:
    assert [kind_of(text) for text in ("Application/MANSCDP+xml", "TEXT/XML", "application/sdp", "a/b", "", None)] == [
        Kind.XML, Kind.XML, Kind.SDP, Kind.OTHER, Kind.OTHER, Kind.OTHER,
    ]  # fmt: skip


def test_whole_documents() -> None:
    assert is_whole(Kind.XML, XML)
    assert is_whole(Kind.XML, b"<a:Notify>x</A:NOTIFY>\0\0")
    assert not is_whole(Kind.XML, XML, 40)
    assert not is_whole(Kind.XML, b"no element")
    assert is_whole(Kind.SDP, SDP)
    assert not is_whole(Kind.SDP, SDP, len(SDP) - 7)
    assert not is_whole(Kind.SDP, b"v=0\r\n")
    assert not is_whole(Kind.OTHER, XML)


@pytest.mark.parametrize(
    ("data", "follows"),
    [
        (b"", Next.NOTHING),
        (b" \r\n\0", Next.NOTHING),
        (b"MESSAGE sip:b@h SIP/2.0\r\n", Next.START),
        (b"\r\nregister <sip:b@h> sip/2.0 \n", Next.START),
        (b"SIP/2.0 200 OK\r\n", Next.START),
        (b"SIP/2.0 200\n", Next.START),
        (b"SIP/2.0 900 No\r\n", Next.OTHER),
        (b"SSAGE sip:b@h SIP/2.0\r\n", Next.OTHER),
        (b"MESSAGE tel:1 SIP/2.0\r\n", Next.OTHER),
        (b"MESSAGE sip:b@h SIP/2.0", Next.OPEN),
        (b"x" * 2_000, Next.OTHER),
        (b"</Notify>\r\n", Next.OTHER),
        (b"\r\n" * 600, Next.OTHER),
    ],
)
def test_what_follows(data: bytes, follows: Next) -> None:
    assert next_at(b"...." + data, 4)[0] is follows


def test_an_end_tag_cut_in_two_is_found() -> None:
    end = BodyEnd(Kind.XML, None)
    buffer = bytearray()
    for at in range(len(XML) - 2):
        buffer += XML[at : at + 1]
        found = end.find(buffer, quiet=False)
        assert (found is not None) == (at == len(XML) - 3)
