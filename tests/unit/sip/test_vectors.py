"""Every real and every tortured message parses, or is refused with a reason."""

from pathlib import Path

import pytest

from gbgw.sip.message import Request, Response
from gbgw.sip.parse import RefusedError, StreamParser, parse, serialize

pytestmark = pytest.mark.fixtures

# Texts whose Call-ID was blanked by those who published them.
INCOMPLETE = {"moc_013_resp100_.sip", "moc_014_resp200__sdp.sip"}


def test_messages_of_devices_and_platforms(fixtures_dir: Path) -> None:
    files = sorted((fixtures_dir / "sip").glob("*.sip"))
    assert len(files) >= 40
    refused = {}
    for file in files:
        data = file.read_bytes()
        try:
            message = parse(data)
        except RefusedError as error:
            refused[file.name] = error.message
            continue
        assert parse(serialize(message)) == message, file.name
        streamed = StreamParser().push(data)
        assert list(streamed) == [message], file.name
        if isinstance(message, Request):
            assert message.target.user.isdigit(), file.name
    assert refused == dict.fromkeys(INCOMPLETE, "The Call-ID header is missing.")


def test_a_captured_register_in_detail(fixtures_dir: Path) -> None:
    request = parse((fixtures_dir / "sip" / "avs_001_REGISTER.sip").read_bytes())
    assert isinstance(request, Request)
    assert (request.method, request.cseq, request.expires) == ("REGISTER", (1, "REGISTER"), 7200)
    assert (request.from_.user, request.from_.tag) == ("130909113319427420", "3806746264")
    assert (request.via.rport, request.via.branch) == ("", "z9hG4bK939844823")
    assert request.user_agent == "Hikvision"


def test_padded_content_length(fixtures_dir: Path) -> None:
    request = parse((fixtures_dir / "sip" / "iss_003_dahua_MESSAGE_RCatalog_padded_cl.sip").read_bytes())
    assert len(request.body) == 898


def test_the_valid_torture_messages_parse(fixtures_dir: Path) -> None:
    """RFC 4475 section 3.1.1."""
    files = sorted((fixtures_dir / "torture" / "rfc4475").rglob("*.dat"))
    assert len(files) >= 13
    for file in files:
        message = parse(file.read_bytes())
        assert parse(serialize(message)) == message, file.name


def torture(fixtures_dir: Path, name: str) -> Request | Response:
    (file,) = (fixtures_dir / "torture" / "rfc4475").rglob(f"{name}.dat")
    return parse(file.read_bytes())


def test_what_the_torture_messages_mean(fixtures_dir: Path) -> None:
    wsinv = torture(fixtures_dir, "wsinv")
    assert isinstance(wsinv, Request)
    assert (wsinv.cseq, wsinv.to_.tag, wsinv.from_.display) == ((9, "INVITE"), "1918181833n", 'J Rosenberg \\"')
    assert [via.host for via in wsinv.vias] == ["192.0.2.2", "spindle.example.com", "192.168.255.111"]
    intmeth = torture(fixtures_dir, "intmeth")
    assert isinstance(intmeth, Request)
    assert intmeth.method_text == "!interesting-Method0123456789_*+`.%indeed'~"
    assert intmeth.target.host == "example.com"
    assert torture(fixtures_dir, "esc01").from_.user == "I have spaces"
    assert torture(fixtures_dir, "escnull").to_.user == "null-\0-null"
    assert torture(fixtures_dir, "esc02").cseq[1] == "RE%47IST%45R"
    assert torture(fixtures_dir, "lwsdisp").from_.display == "caller"
    assert len(torture(fixtures_dir, "longreq").vias) == 34
    dblreq = torture(fixtures_dir, "dblreq")
    assert (dblreq.cseq[1], dblreq.body) == ("REGISTER", b"")
    semiuri = torture(fixtures_dir, "semiuri")
    assert isinstance(semiuri, Request)
    assert semiuri.target.user == "user;par=u@example.net"
    assert [via.transport for via in torture(fixtures_dir, "transports").vias] == [
        "UDP",
        "SCTP",
        "TLS",
        "UNKNOWN",
        "TCP",
    ]
    assert b"\0" in torture(fixtures_dir, "mpart01").body
    unreason, noreason = torture(fixtures_dir, "unreason"), torture(fixtures_dir, "noreason")
    assert isinstance(unreason, Response)
    assert unreason.reason.encode("latin-1").decode().startswith("= 2**3 * 5**2")
    assert isinstance(noreason, Response)
    assert (noreason.status, noreason.reason) == (100, "")


def test_the_samples_of_libosip(fixtures_dir: Path) -> None:
    """Each parses or says why not; those that its authors call broken in the start line or headers do not parse."""
    files = sorted((fixtures_dir / "torture" / "libosip2").glob("sip*"))
    assert len(files) >= 30
    parsed, refused = 0, []
    for file in files:
        data = file.read_bytes()
        if data.startswith(b"expected_error"):
            data = data.partition(b"\n")[2]
        try:
            message = parse(data)
        except RefusedError as error:
            refused.append((error.message[-1:], error.status))
            continue
        parsed += 1
        assert parse(serialize(message)) == message, file.name
    assert parsed >= 25
    assert all(end == "." and 400 <= status < 600 for end, status in refused)
