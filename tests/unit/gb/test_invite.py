import pytest

from gbgw.base.errors import GatewayError
from gbgw.base.machine import TICK
from gbgw.gb import invite, sdp
from gbgw.gb.invite import BEGIN, CLOSE, Answered, Closed, Counted, Invitation, Platform, Refused
from gbgw.sip import events
from gbgw.sip.message import Response
from tests.unit.gb.support import CAMERA, DOMAIN, PLATFORM, RECORDER, tcp, udp

ANSWER = b"v=0\r\nc=IN IP4 192.0.2.10\r\nm=video 15060 RTP/AVP 96\r\na=rtpmap:96 PS/90000\r\ny=0200000001\r\n"
END = events.End(7)


@pytest.fixture
def call() -> Invitation:
    offer = sdp.live_offer(PLATFORM, "198.51.100.5", 30000, "udp", "0200000001")
    return Invitation(7, Platform(PLATFORM, DOMAIN), RECORDER, CAMERA, udp(), offer, 10.0)


def final(call: Invitation, status: int, body: bytes = b"", handle: int = 7) -> events.Final:
    return events.Final(handle, Response.to(call.request, status, body=body), udp())


def trying(call: Invitation) -> events.Provisional:
    return events.Provisional(7, Response.to(call.request, 100))


def refusal(effects: object) -> GatewayError:
    assert isinstance(effects, list)
    errors = [effect.error for effect in effects if isinstance(effect, Refused)]
    assert len(errors) == 1
    return errors[0]


def test_the_invite_leaves_as_the_standard_wants(call: Invitation) -> None:
    (ask,) = call.push(BEGIN, 0.0)
    assert isinstance(ask, events.Ask)
    request = ask.request
    assert (ask.handle, ask.flow, request.method) == (7, udp(), "INVITE")
    assert request.uri == f"sip:{CAMERA}@192.0.2.10:5060"
    assert request.from_.address == f"sip:{PLATFORM}@{DOMAIN}"
    assert request.from_.tag
    assert request.call_id
    assert request.header("To") == f"<sip:{CAMERA}@{DOMAIN}>"
    assert request.header("Contact") == f"<sip:{PLATFORM}@198.51.100.5:5060>"
    assert request.header("Subject") == f"{CAMERA}:0200000001,{PLATFORM}:0"
    assert request.content_type == "application/sdp"
    assert request.body.endswith(b"y=0200000001\r\n")


def test_contact_over_tcp_and_advertised() -> None:
    assert Platform(PLATFORM, DOMAIN).contact(tcp(1)).endswith(";transport=tcp>")
    assert "@203.0.113.1:" in Platform(PLATFORM, DOMAIN, "203.0.113.1").contact(udp())


def test_answered_then_closed_by_us(call: Invitation) -> None:
    call.push(BEGIN, 0.0)
    assert call.push(trying(call), 0.1) == []
    (answered,) = call.push(final(call, 200, ANSWER), 0.2)
    assert isinstance(answered, Answered)
    assert answered.answer.port == 15060
    assert call.deadline is None
    assert call.push(CLOSE, 5.0) == [END]
    assert not call.finished
    assert call.push(CLOSE, 5.0) == []
    assert call.push(events.Ended(7, "closed"), 5.1) == []
    assert call.finished


def test_answered_then_ended_by_the_camera(call: Invitation) -> None:
    call.push(BEGIN, 0.0)
    call.push(final(call, 200, ANSWER), 0.2)
    assert call.push(events.Ended(7, "bye"), 3.0) == [Closed("bye")]
    assert call.finished


def test_odd_answers_are_counted(call: Invitation) -> None:
    call.push(BEGIN, 0.0)
    effects = call.push(final(call, 200, ANSWER.replace(b"y=02", b"y=03")), 0.2)
    assert effects[0] == Counted("sdp.other_ssrc", f"{RECORDER}-{CAMERA}")


@pytest.mark.parametrize("provisional", [False, True])
def test_no_answer_in_time(call: Invitation, provisional: bool) -> None:
    call.push(BEGIN, 0.0)
    if provisional:
        call.push(trying(call), 1.0)
    assert call.deadline == 10.0
    effects = list(call.push(TICK, 10.0))
    assert effects[1:] == [END]
    error = refusal(effects)
    assert error.code == "invite_no_answer"
    assert error.remedy
    assert error.stream == f"{RECORDER}-{CAMERA}"
    assert ("provisional" in error.message) is provisional
    # The late answer is the user agent's to end; we only count it.
    assert call.push(final(call, 200, ANSWER), 11.0) == [Counted("invite.late_answer", f"{RECORDER}-{CAMERA}")]
    assert not call.finished
    call.push(events.Ended(7, "closed"), 11.1)
    assert call.finished


def test_a_due_deadline_comes_before_the_answer(call: Invitation) -> None:
    call.push(BEGIN, 0.0)
    effects = list(call.push(final(call, 200, ANSWER), 10.5))
    assert refusal(effects).code == "invite_no_answer"
    assert END in effects


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 407, 408, 410, 415, 480, 486, 488, 503, 600, 606, 599])
def test_rejections(call: Invitation, status: int) -> None:
    call.push(BEGIN, 0.0)
    effects = list(call.push(final(call, status), 1.0))
    error = refusal(effects)
    assert error.code == f"invite_rejected_{status}"
    assert str(status) in error.message
    assert error.remedy
    assert END not in effects
    assert call.finished
    assert call.deadline is None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"no description", "sdp_unusable"),
        (ANSWER.replace(b"15060", b"0"), "sdp_unusable"),
        (ANSWER.replace(b"96", b"98").replace(b"PS", b"H264"), "not_program_stream"),
    ],
)
def test_unusable_answers_end_the_dialog(call: Invitation, body: bytes, code: str) -> None:
    call.push(BEGIN, 0.0)
    effects = list(call.push(final(call, 200, body), 1.0))
    assert refusal(effects).code == code
    assert effects[-1] == END
    call.push(events.Ended(7, "closed"), 1.1)
    assert call.finished


@pytest.mark.parametrize("reason", ["timeout", "transport"])
def test_failed_transactions(call: Invitation, reason: str) -> None:
    call.push(BEGIN, 0.0)
    effects = list(call.push(events.Failed(7, reason), 1.0))  # type: ignore[arg-type]
    assert refusal(effects).code == "invite_no_answer"
    assert call.finished


def test_closed_before_it_began(call: Invitation) -> None:
    assert call.push(CLOSE, 0.0) == []
    assert call.finished


def test_closed_while_inviting(call: Invitation) -> None:
    call.push(BEGIN, 0.0)
    assert call.push(CLOSE, 0.5) == [END]
    assert call.deadline is None
    call.push(final(call, 487), 0.6)
    assert call.finished


def test_other_handles_are_ignored(call: Invitation) -> None:
    call.push(BEGIN, 0.0)
    assert call.push(final(call, 200, ANSWER, handle=8), 0.5) == []
    assert call.push(events.Ended(8, "bye"), 0.5) == []
    assert not call.finished


def test_message_goes_to_the_device() -> None:
    request = invite.build_message(Platform(PLATFORM, DOMAIN), RECORDER, b"<Query/>", udp("192.0.2.20", 5062))
    assert (request.method, request.uri) == ("MESSAGE", f"sip:{RECORDER}@192.0.2.20:5062")
    assert request.header("To") == f"<sip:{RECORDER}@{DOMAIN}>"
    assert request.header("From") == f"<sip:{PLATFORM}@{DOMAIN}>"
    assert request.header("Content-Type") == "Application/MANSCDP+xml"
    assert request.header("Contact") is None
