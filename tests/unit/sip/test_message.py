"""Header fields and messages as values."""

import pytest

from gbgw.base.errors import SipError
from gbgw.sip.message import Headers, NameAddr, Request, Response, Uri, Via

ID = "34020000001320000001"


@pytest.mark.parametrize(
    ("text", "user", "host", "port"),
    [
        (f"sip:{ID}@3402000000", ID, "3402000000", None),
        (f"SIP : {ID}@192.0.2.1:5060", ID, "192.0.2.1", 5060),
        (f"<sip:{ID}@3402000000>", ID, "3402000000", None),
        (f"{ID}@192.0.2.1:5060", ID, "192.0.2.1", 5060),
        ("192.0.2.1:5060", "", "192.0.2.1", 5060),
        ("sip:%33402@h", "3402", "h", None),
        ("sips:a:secret@[2001:db8::1]:5061;transport=TCP", "a", "2001:db8::1", 5061),
        ("sip:user;par=u%40example.net@example.com", "user;par=u@example.net", "example.com", None),
        ("sip:h?subject=x", "", "h", None),
        ("sip:2001:db8::1", "", "2001:db8::1", None),
    ],
)
def test_uri(text: str, user: str, host: str, port: int | None) -> None:
    uri = Uri.parse(text)
    assert (uri.user, uri.host, uri.port) == (user, host, port)
    assert Uri.parse(str(uri)) == uri


@pytest.mark.parametrize(
    "text", ["", "sip:", "sip:a@", "sip:a@h:port", "sip:a@h:99999", "sip:a@[::1", "sip:a@h h", "sip:a@h:1:2 x"]
)
def test_a_uri_without_host_is_refused(text: str) -> None:
    with pytest.raises(SipError):
        Uri.parse(text)


def test_other_schemes_keep_their_text() -> None:
    assert (Uri.parse("tel:+86-10").scheme, Uri.parse("tel:+86-10").user) == ("tel", "+86-10")
    assert str(Uri.parse("urn:x:y")) == "urn:x:y"
    assert Uri.parse("nobodyKnowsThisScheme:totally opaque@x").scheme in ("nobodyknowsthisscheme", "sip")


@pytest.mark.parametrize(
    ("text", "display", "address", "tag"),
    [
        (f'"a, b \\"c\\"" <sip:{ID}@d>;tag=x', 'a, b "c"', f"sip:{ID}@d", "x"),
        (f"sip:{ID}@d;tag=x", "", f"sip:{ID}@d", "x"),
        (f"Camera One <sip:{ID}@d;transport=tcp> ; TAG = x;y", "Camera One", f"sip:{ID}@d;transport=tcp", "x"),
        (f"<sip:{ID}@d", "", f"sip:{ID}@d", ""),
        ("*", "", "*", ""),
    ],
)
def test_name_addr(text: str, display: str, address: str, tag: str) -> None:
    parsed = NameAddr.parse(text)
    assert (parsed.display, parsed.address, parsed.tag) == (display, address, tag)
    assert NameAddr.parse(str(parsed)) == parsed


def test_name_addr_gives_the_id() -> None:
    assert NameAddr.parse(f'"x" <sip:{ID}@h>').user == ID
    with pytest.raises(SipError):
        NameAddr.parse(";tag=x")
    with pytest.raises(SipError):
        _ = NameAddr.parse("<sip:>").user


@pytest.mark.parametrize("text", ['"', '"\\', '"name\\', '"name\\" <sip:a@b>', '"name'])
def test_a_quoted_name_without_an_end_is_refused(text: str) -> None:
    with pytest.raises(SipError):
        NameAddr.parse(text)


def test_via() -> None:
    via = Via.parse("SIP / 2.0 / udp  [::1] : 5060 ;branch=z9hG4bK1;rport;Received=1.2.3.4")
    assert (via.transport, via.host, via.port) == ("UDP", "::1", 5060)
    assert (via.branch, via.rport, via.received) == ("z9hG4bK1", "", "1.2.3.4")
    filled = via.with_param("rport", "99")
    assert filled.rport == "99"
    assert Via.parse(str(filled)) == filled
    assert Via.parse("SIP/2.0/TCP h").rport is None


@pytest.mark.parametrize("text", ["", "SIP/2.0/UDP", "HTTP/1.1/TCP h", "SIP/3.0/UDP h", "SIP/2.0/UDP ;branch=x"])
def test_a_broken_via_is_refused(text: str) -> None:
    with pytest.raises(SipError):
        Via.parse(text)


def test_headers_are_found_by_any_name() -> None:
    headers = Headers([("v", "1"), ("VIA", "2, 3"), ("x-gb-VER", "3.0"), ("Expire", "60"), ("X-Other", "y")])
    assert headers.get("Via") == "1"
    assert headers.all("v") == ["1", "2, 3"]
    assert headers.values("via") == ["1", "2", "3"]
    assert headers.get("X-GB-Ver") == "3.0"
    assert headers.get("Expires") == "60"
    assert "X-OTHER" in headers
    assert "Contact" not in headers
    assert [name for name, _ in headers] == ["Via", "Via", "X-GB-Ver", "Expires", "X-Other"]


def test_replacing_keeps_the_place() -> None:
    headers = Headers({"To": "1", "Via": "2", "From": "3"})
    replaced = [("To", "1"), ("Via", "x"), ("Via", "y"), ("From", "3")]
    assert list(headers.replaced("v", "x", "y")) == replaced
    assert list(headers.replaced("VIA")) == [("To", "1"), ("From", "3")]
    assert list(headers.replaced("X-D", "4"))[-1] == ("X-D", "4")
    assert headers == Headers([("To", "1"), ("Via", "2"), ("From", "3")])
    assert hash(headers) == hash(Headers(headers))


def test_commas_in_quotes_and_brackets_do_not_cut() -> None:
    headers = Headers([("Contact", '"a, b" <sip:x@h;p=1,2>;q=1, <sip:y@h>')])
    assert headers.values("Contact") == ['"a, b" <sip:x@h;p=1,2>;q=1', "<sip:y@h>"]


def test_request_fields() -> None:
    request = Request.new(
        "invite", Uri(ID, "h"), {"f": "<sip:a@h>;tag=1", "t": "<sip:b@h>", "CSeq": "0009 Invite", "i": "c", "m": "*",
                                 "Expires": " 60 ", "l": "99"}, b"x", "Application/SDP; charset=x",
    )  # fmt: skip
    assert (request.method, request.uri, request.target.user) == ("INVITE", f"sip:{ID}@h", ID)
    assert (request.from_.tag, request.to_.user, request.cseq, request.call_id) == ("1", "b", (9, "INVITE"), "c")
    assert (request.expires, request.content_type) == (60, "application/sdp")
    assert request.contact is not None
    assert request.contact.address == "*"
    assert "Content-Length" not in request.headers  # the writer counts
    assert request.with_header("Expires").expires is None


@pytest.mark.parametrize(
    "cseq", ["", "INVITE", "1", "x INVITE", "-1 INVITE", "4294967296 INVITE", "1 INVITE x", "²  INVITE"]
)
def test_a_broken_cseq_is_refused(cseq: str) -> None:
    with pytest.raises(SipError):
        _ = Request.new("INVITE", "sip:h", {"CSeq": cseq}).cseq


@pytest.mark.parametrize("expires", ["", "soon", "-1", "²"])
def test_an_unreadable_expires_is_none(expires: str) -> None:
    assert Request.new("REGISTER", "sip:h", {"Expires": expires}).expires is None


def test_a_huge_expires_is_cut() -> None:
    assert Request.new("REGISTER", "sip:h", {"Expires": "9" * 5000}).expires == (1 << 32) - 1


def test_a_response_copies_what_it_must() -> None:
    headers = [
        ("Via", "SIP/2.0/UDP a"),
        ("Via", "SIP/2.0/UDP b"),
        ("From", "<sip:a@h>;tag=1"),
        ("To", "<sip:b@h>"),
        ("Call-ID", "c"),
        ("CSeq", "1 MESSAGE"),
        ("Subject", "no"),
    ]
    request = Request.new("MESSAGE", "sip:h", headers)
    response = Response.to(request, 404, headers={"X-GB-Ver": "3.0"})
    assert [name for name, _ in response.headers] == ["Via", "Via", "From", "To", "Call-ID", "CSeq", "X-GB-Ver"]
    assert (response.status, response.reason) == (404, "Not Found")
    assert Response.to(request, 299).reason == ""
