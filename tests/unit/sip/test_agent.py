"""Dialogs, CANCEL, BYE, forks, refusals and routing of the UserAgent (reference sections 2.1, 2.5 to 2.7, statements
20 to 29)."""

import pytest

from gbgw.base import limits
from gbgw.sip.agent import (
    Acknowledged,
    Ask,
    Counted,
    DialogOpened,
    DialogOver,
    End,
    Ended,
    Failed,
    Final,
    FlowClosed,
    Incoming,
    Provisional,
    Rebound,
    Reply,
    Send,
)
from gbgw.sip.flow import Flow
from gbgw.sip.message import Request, Response
from tests.support.sip import (
    DEVICE,
    TCP,
    UDP,
    UDP_OTHER,
    Bench,
    answer,
    every,
    from_peer,
    invite,
    message,
    messages,
    only,
)


def request_of(effects: list[object], method: str) -> Request:
    found = [m for m in messages(effects) if isinstance(m, Request) and m.method == method]  # type: ignore[arg-type]
    assert len(found) == 1, found
    return found[0]


def called(bench: Bench, flow: Flow = UDP, **options: str) -> tuple[Request, Request]:
    """Open a dialog as caller with handle 1; return our INVITE and our ACK."""
    sent = request_of(bench.push(Ask(1, invite(), flow)), "INVITE")
    made = bench.receive(answer(sent, 200, **options), flow)
    assert only(made, Final).handle == 1
    return sent, request_of(made, "ACK")


def answered(bench: Bench, flow: Flow = UDP) -> tuple[int, Response]:
    """Open a dialog as callee, ACK not yet sent; return its handle and our 200."""
    incoming = only(
        bench.receive(from_peer("INVITE", headers=[("Contact", f"<sip:{DEVICE}@10.0.0.5:5062>")]), flow), Incoming
    )
    (ok,) = messages(bench.push(Reply(incoming.handle, Response.to(incoming.request, 200))))
    assert isinstance(ok, Response)
    return incoming.handle, ok


# What we add to requests


def test_a_request_gets_what_rfc_3261_wants_of_it() -> None:
    bench = Bench()
    sent = request_of(bench.push(Ask(1, message(b"x"), TCP)), "MESSAGE")
    assert (sent.via.transport, sent.via.host, sent.via.port, sent.via.rport) == ("TCP", "192.0.2.1", 5060, "")
    assert sent.via.branch.startswith("z9hG4bK")
    assert sent.from_.tag
    assert sent.to_.tag == ""
    assert sent.cseq == (1, "MESSAGE")
    assert sent.header("Max-Forwards") == "70"
    assert (sent.header("User-Agent") or "").startswith("gbgw/")
    assert "Contact" not in sent.headers
    other = request_of(bench.push(Ask(2, message(b"x"), TCP)), "MESSAGE")
    assert other.call_id != sent.call_id
    assert other.via.branch != sent.via.branch


def test_an_invite_says_where_we_are() -> None:
    sent = request_of(Bench().push(Ask(1, invite(), TCP)), "INVITE")
    assert sent.contact is not None
    assert sent.contact.address == "sip:34020000002000000001@192.0.2.1:5060;transport=tcp"


def test_given_headers_are_kept() -> None:
    asked = message().with_header("Call-ID", "mine").with_header("CSeq", "7 MESSAGE").with_header("User-Agent", "cam")
    sent = request_of(Bench().push(Ask(1, asked, UDP)), "MESSAGE")
    assert (sent.call_id, sent.cseq, sent.user_agent) == ("mine", (7, "MESSAGE"), "cam")


# Our dialogs


@pytest.mark.conformance(25)
def test_ack_of_2xx_has_a_new_branch_and_goes_to_the_contact_along_the_flow() -> None:
    bench = Bench()
    sent, ack = called(bench)
    assert ack.uri == f"sip:{DEVICE}@10.0.0.5:5062"  # private, kept in the request line
    assert [effect.flow for _, effect in bench.effects if isinstance(effect, Send)] == [UDP, UDP]
    assert ack.via.branch != sent.via.branch
    assert (ack.cseq, ack.call_id, ack.from_.tag, ack.to_.tag) == ((1, "ACK"), sent.call_id, sent.from_.tag, "peer")


@pytest.mark.parametrize("contact", ["", "<sip:10.0.0.5:5062>", "*", "garbage <", "<tel:123>", "<sip:a b@c>"])
def test_without_a_usable_contact_the_request_uri_of_the_invite_serves(contact: str) -> None:
    sent, ack = called(Bench(), contact=contact)
    assert ack.uri == sent.uri


def test_a_repeated_2xx_is_acknowledged_again_with_the_same_bytes() -> None:
    bench = Bench()
    sent, _ = called(bench)
    first = bench.effects[1][1]
    again = bench.receive(answer(sent, 200))
    assert again == [first]
    bench.run(31.0)
    assert bench.receive(answer(sent, 200)) == [first]


def test_a_forked_2xx_is_acknowledged_and_ended() -> None:
    bench = Bench()
    sent, _ = called(bench)
    made = bench.receive(answer(sent, 200, tag="fork"))
    assert request_of(made, "ACK").to_.tag == "fork"
    bye = request_of(made, "BYE")
    assert (bye.to_.tag, bye.cseq) == ("fork", (2, "BYE"))
    assert every(made, Final) == []
    assert bench.receive(answer(bye, 200)) == []  # nobody is told
    assert bench.agent.dialogs == 1


def test_forks_have_a_ceiling() -> None:
    bench = Bench()
    sent, _ = called(bench)
    for number in range(limits.SIP_FORKS + 5):
        bench.receive(answer(sent, 200, tag=f"fork{number}"))
    assert len(bench.times("ACK")) == limits.SIP_FORKS


def test_ending_a_dialog_sends_bye_and_tells_its_answer() -> None:
    bench = Bench()
    sent, _ = called(bench)
    made = bench.push(End(1))
    bye = request_of(made, "BYE")
    assert (bye.uri, bye.cseq, bye.call_id, bye.to_.tag) == (
        f"sip:{DEVICE}@10.0.0.5:5062",
        (2, "BYE"),
        sent.call_id,
        "peer",
    )
    assert bench.push(End(1)) == []  # once
    assert bench.receive(answer(bye, 481)) == [Ended(1, "closed")]
    assert bench.agent.dialogs == 0
    bench.run_out()
    assert bench.agent.idle


def test_a_bye_without_answer_ends_by_timer_f() -> None:
    bench = Bench()
    called(bench)
    bench.push(End(1))
    bench.run_out()
    assert [(at, effect) for at, effect in bench.effects if isinstance(effect, Ended)] == [
        (32.0, Ended(1, "no_answer"))
    ]
    assert len(bench.times("BYE")) == 11


def test_the_peers_bye_is_answered_and_ends_the_dialog() -> None:
    bench = Bench()
    sent, _ = called(bench)
    bye = from_peer("BYE", call_id=sent.call_id, from_tag="peer", to_tag=sent.from_.tag)
    made = bench.receive(bye)
    assert [m.status for m in messages(made) if isinstance(m, Response)] == [200]
    assert only(made, Ended) == Ended(1, "bye")
    assert bench.agent.dialogs == 0
    again = bench.receive(from_peer("BYE", branch="z9hG4bK2", cseq=2, call_id=sent.call_id, from_tag="peer"))
    assert [m.status for m in messages(again) if isinstance(m, Response)] == [481]


@pytest.mark.parametrize("tags", [("", ""), ("wrong", "wrong")], ids=["missing", "wrong"])
def test_a_bye_with_bad_tags_is_forgiven_on_its_own_flow_only(tags: tuple[str, str]) -> None:
    bench = Bench()
    sent, _ = called(bench)
    bye = from_peer("BYE", call_id=sent.call_id.upper(), from_tag=tags[0], to_tag=tags[1], cseq=0)
    strange = bench.receive(bye, UDP_OTHER)
    assert [m.status for m in messages(strange) if isinstance(m, Response)] == [481]
    assert [c.name for c in every(strange, Counted)] == ["sip.dialog_wrong_flow"]
    assert bench.agent.dialogs == 1
    assert only(bench.receive(bye, UDP), Ended) == Ended(1, "bye")


def test_even_right_tags_do_not_end_a_dialog_from_elsewhere() -> None:
    bench = Bench()
    sent, _ = called(bench)
    for method in ("BYE", "INFO", "MESSAGE", "INVITE"):
        request = from_peer(
            method, branch=f"z9hG4bK{method}", call_id=sent.call_id, from_tag="peer", to_tag=sent.from_.tag
        )
        made = bench.receive(request, UDP_OTHER)
        assert [m.status for m in messages(made) if isinstance(m, Response)] == [481]
        assert every(made, Incoming) == []
    port = Flow("udp", UDP.local, (UDP.remote[0], 9))
    bye = from_peer("BYE", call_id=sent.call_id, from_tag="peer", to_tag=sent.from_.tag)
    assert every(bench.receive(bye, port), Ended) == []
    assert bench.agent.dialogs == 1


def test_crossing_byes_end_once() -> None:
    bench = Bench()
    sent, _ = called(bench)
    bye = request_of(bench.push(End(1)), "BYE")
    made = bench.receive(from_peer("BYE", call_id=sent.call_id, from_tag="peer", to_tag=sent.from_.tag))
    assert [m.status for m in messages(made) if isinstance(m, Response)] == [200]
    assert bench.receive(answer(bye, 481)) == [Ended(1, "closed")]
    bench.run_out()
    assert len([1 for _, effect in bench.effects if isinstance(effect, Ended)]) == 1


def test_a_request_inside_the_dialog_takes_its_route_tags_and_numbers() -> None:
    bench = Bench()
    sent = request_of(bench.push(Ask(1, invite(), UDP)), "INVITE")
    ok = answer(sent, 200)
    ok = Response(ok.headers.added("Record-Route", "<sip:p1;lr>, <sip:p2;lr>"), b"", 200)
    bench.receive(ok)
    asked = Request.new("INFO", "", {"X-Mine": "1", "To": "no"}, b"PAUSE", "Application/MANSRTSP")
    info = request_of(bench.push(Ask(2, asked, UDP_OTHER, dialog=1)), "INFO")
    assert info.headers.all("Route") == ["<sip:p2;lr>", "<sip:p1;lr>"]
    assert (info.uri, info.cseq, info.to_.tag) == (f"sip:{DEVICE}@10.0.0.5:5062", (2, "INFO"), "peer")
    assert (info.header("X-Mine"), info.body) == ("1", b"PAUSE")
    assert bench.effects[-1][1].flow == UDP  # type: ignore[union-attr]
    assert only(bench.receive(answer(info, 200)), Final).handle == 2
    assert request_of(bench.push(End(1)), "BYE").cseq == (3, "BYE")


def test_asking_in_a_dialog_that_is_gone_fails_at_once() -> None:
    made = Bench().push(Ask(2, message(), UDP, dialog=1))
    assert only(made, Failed) == Failed(2, "transport")


def test_a_reinvite_of_ours_is_acknowledged_inside_the_dialog() -> None:
    bench = Bench()
    called(bench)
    again = request_of(bench.push(Ask(2, invite(), UDP, dialog=1)), "INVITE")
    assert (again.cseq, again.to_.tag) == ((2, "INVITE"), "peer")
    made = bench.receive(answer(again, 200, contact=f"<sip:{DEVICE}@10.0.0.9:1>"))
    assert request_of(made, "ACK").cseq == (2, "ACK")
    assert only(made, Final).handle == 2
    assert request_of(bench.push(End(1)), "BYE").uri == f"sip:{DEVICE}@10.0.0.9:1"


# CANCEL


def test_cancel_waits_for_a_provisional_answer() -> None:
    bench = Bench()
    sent = request_of(bench.push(Ask(1, invite(), UDP)), "INVITE")
    assert bench.push(End(1)) == []
    bench.run(0.6)
    assert bench.times("CANCEL") == []
    cancel = request_of(bench.receive(answer(sent, 100)), "CANCEL")
    assert (cancel.via.branch, cancel.uri, cancel.cseq, cancel.to_.tag) == (
        sent.via.branch,
        sent.uri,
        (1, "CANCEL"),
        "",
    )
    bench.receive(answer(cancel, 200))
    made = bench.receive(answer(sent, 487))
    assert request_of(made, "ACK").via.branch == sent.via.branch
    assert only(made, Ended) == Ended(1, "cancelled")
    assert every(made, Final) == []
    bench.run_out()
    assert bench.agent.idle


def test_cancel_goes_out_at_once_while_it_rings_and_only_once() -> None:
    bench = Bench()
    sent = request_of(bench.push(Ask(1, invite(), UDP)), "INVITE")
    bench.receive(answer(sent, 180))
    request_of(bench.push(End(1)), "CANCEL")
    assert messages(bench.receive(answer(sent, 183))) == []
    assert bench.push(End(1)) == []


@pytest.mark.conformance(26)
def test_a_2xx_that_crosses_the_cancel_is_acknowledged_and_ended() -> None:
    bench = Bench()
    sent = request_of(bench.push(Ask(1, invite(), UDP)), "INVITE")
    bench.receive(answer(sent, 180))
    bench.push(End(1))
    made = bench.receive(answer(sent, 200))
    assert [m.method for m in messages(made) if isinstance(m, Request)] == ["ACK", "BYE"]
    assert every(made, Final) == []
    assert bench.receive(answer(request_of(made, "BYE"), 200)) == [Ended(1, "closed")]


def test_a_cancel_that_leads_to_nothing_ends_32_seconds_later() -> None:
    bench = Bench()
    sent = request_of(bench.push(Ask(1, invite(), UDP)), "INVITE")
    bench.receive(answer(sent, 180))
    bench.run(3.0)
    bench.push(End(1))
    bench.run_out()
    assert [(at, e) for at, e in bench.effects if isinstance(e, Ended | Failed)] == [(35.0, Ended(1, "cancelled"))]
    assert bench.agent.idle


def test_a_2xx_after_the_time_out_is_acknowledged_and_ended_silently() -> None:
    bench = Bench()
    sent = request_of(bench.push(Ask(1, invite(), UDP)), "INVITE")
    bench.run(33.0)
    made = bench.receive(answer(sent, 200))
    assert [m.method for m in messages(made) if isinstance(m, Request)] == ["ACK", "BYE"]
    assert every(made, Final) == []
    bench.run_out()
    assert [e for _, e in bench.effects if isinstance(e, Ended | Failed)] == [Failed(1, "timeout")]
    assert bench.agent.idle


# Their dialogs


@pytest.mark.conformance(24)
def test_our_2xx_is_repeated_until_ack() -> None:
    bench = Bench()
    handle, ok = answered(bench)
    assert ok.to_.tag
    assert ok.contact is not None
    bench.run(8.0)
    assert [at for at, m in bench.sent() if isinstance(m, Response)] == [0, 0.5, 1.5, 3.5, 7.5]
    ack = from_peer("ACK", branch="z9hG4bKack", to_tag=ok.to_.tag)
    assert only(bench.receive(ack), Acknowledged).handle == handle
    bench.run(100.0)
    assert len(bench.sent()) == 5
    assert bench.agent.dialogs == 1


@pytest.mark.conformance(24)
@pytest.mark.parametrize("flow", [UDP, TCP], ids=["udp", "tcp"])
def test_a_2xx_without_ack_ends_in_bye_after_32_seconds(flow: Flow) -> None:
    bench = Bench()
    handle, _ = answered(bench, flow)
    bench.run(31.9)
    assert bench.times("BYE") == []
    bench.run(0.2)
    assert bench.times("BYE") == [32.0]
    assert len([at for at, m in bench.sent() if isinstance(m, Response)]) == 11
    bench.run_out()
    assert [e for _, e in bench.effects if isinstance(e, Ended)] == [Ended(handle, "no_ack")]
    assert bench.agent.idle


def test_an_ack_with_bad_tags_counts_on_its_own_flow_only() -> None:
    bench = Bench()
    handle, _ = answered(bench)
    ack = from_peer("ACK", branch="z9hG4bKack", to_tag="wrong", from_tag="", cseq_method="INVITE")
    assert only(bench.receive(ack, UDP_OTHER), Counted).name == "sip.ack_unmatched"
    assert only(bench.receive(ack), Acknowledged).handle == handle


def test_ending_before_the_ack_waits_for_it() -> None:
    bench = Bench()
    handle, ok = answered(bench)
    assert bench.push(End(handle)) == []
    made = bench.receive(from_peer("ACK", branch="z9hG4bKack", to_tag=ok.to_.tag))
    bye = request_of(made, "BYE")
    assert (bye.uri, bye.cseq, bye.from_.tag, bye.to_.tag) == (
        f"sip:{DEVICE}@10.0.0.5:5062",
        (1, "BYE"),
        ok.to_.tag,
        "d1",
    )
    assert bench.receive(answer(bye, 200)) == [Ended(handle, "closed")]


def test_a_bye_before_the_ack_stops_the_2xx() -> None:
    bench = Bench()
    handle, ok = answered(bench)
    assert only(bench.receive(from_peer("BYE", branch="z9hG4bKb", cseq=2, to_tag=ok.to_.tag)), Ended) == Ended(
        handle, "bye"
    )
    bench.run_out()
    assert bench.times("BYE") == []
    assert bench.agent.idle


def test_ending_an_unanswered_invite_refuses_it() -> None:
    bench = Bench()
    incoming = only(bench.receive(from_peer("INVITE")), Incoming)
    made = bench.push(End(incoming.handle))
    assert [m.status for m in messages(made) if isinstance(m, Response)] == [480]
    assert only(made, Ended) == Ended(incoming.handle, "cancelled")


def test_a_reinvite_of_theirs_is_delivered_with_its_dialog_and_acknowledged() -> None:
    bench = Bench()
    handle, ok = answered(bench)
    bench.receive(from_peer("ACK", branch="z9hG4bKack", to_tag=ok.to_.tag))
    again = only(bench.receive(from_peer("INVITE", branch="z9hG4bK3", cseq=2, to_tag=ok.to_.tag)), Incoming)
    assert again.dialog == handle
    bench.push(Reply(again.handle, Response.to(again.request, 200)))
    made = bench.receive(from_peer("ACK", branch="z9hG4bK4", cseq=2, to_tag=ok.to_.tag))
    assert only(made, Acknowledged).handle == again.handle
    assert bench.agent.dialogs == 1


def test_a_falling_cseq_is_refused_except_for_bye() -> None:
    bench = Bench()
    _, ok = answered(bench)
    bench.receive(from_peer("ACK", branch="z9hG4bKack", to_tag=ok.to_.tag))
    low = bench.receive(from_peer("INFO", branch="z9hG4bKi", cseq=0, to_tag=ok.to_.tag))
    assert [m.status for m in messages(low) if isinstance(m, Response)] == [500]
    assert every(bench.receive(from_peer("BYE", branch="z9hG4bKb", cseq=0, to_tag=ok.to_.tag)), Ended)


def test_a_message_with_the_call_id_of_a_dialog_belongs_to_it() -> None:
    bench = Bench()
    sent, _ = called(bench)
    inside = only(bench.receive(from_peer("MESSAGE", call_id=sent.call_id)), Incoming)
    assert inside.dialog == 1
    outside = only(bench.receive(from_peer("MESSAGE", call_id=sent.call_id), UDP_OTHER), Incoming)
    assert outside.dialog is None


# Refusals


@pytest.mark.parametrize(
    ("request_", "status", "header"),
    [
        (from_peer("PUBLISH"), 405, "Allow"),
        (from_peer("OPTIONS"), 200, "Accept"),
        (from_peer("BYE"), 481, ""),
        (from_peer("INFO"), 481, ""),
        (from_peer("INVITE", to_tag="x"), 481, ""),
        (from_peer("MESSAGE", headers=[("Require", "a, b")]), 420, "Unsupported"),
        (from_peer("INVITE", headers=[("Proxy-Require", "a")]), 420, "Unsupported"),
        (Request(from_peer("MESSAGE").headers, b"", "MESSAGE", "tel:123"), 416, ""),
    ],
)
def test_the_agent_answers_what_needs_no_user(request_: Request, status: int, header: str) -> None:
    bench = Bench()
    made = bench.receive(request_)
    (response,) = messages(made)
    assert isinstance(response, Response)
    assert response.status == status
    assert every(made, Incoming) == []
    assert response.to_.tag
    if header:
        assert response.header(header)
    assert messages(bench.receive(request_)) == [response]  # from its transaction


def test_responses_go_to_the_source_with_received_and_rport() -> None:
    bench = Bench()
    (response,) = messages(bench.receive(from_peer("OPTIONS")))
    assert (response.via.received, response.via.rport) == ("192.0.2.10", "5062")
    assert (response.via.host, response.via.branch) == ("10.0.0.5", "z9hG4bKpeer1")
    via = "SIP/2.0/UDP 10.0.0.5;branch=z9hG4bKa, SIP/2.0/UDP far;branch=z9hG4bKb"
    (response,) = messages(bench.receive(from_peer("OPTIONS", via=via)))
    assert response.via.received == "192.0.2.10"
    assert response.via.rport is None
    assert [hop.host for hop in response.vias] == ["10.0.0.5", "far"]
    assert all(effect.flow == UDP for _, effect in bench.effects if isinstance(effect, Send))


def test_too_many_transactions_are_refused_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SIP_TRANSACTIONS", 3)
    bench = Bench()
    made = [bench.receive(from_peer("MESSAGE", cseq=number, branch=f"z9hG4bK{number}")) for number in range(6)]
    assert [len(every(effects, Incoming)) for effects in made] == [1, 1, 1, 0, 0, 0]
    (busy,) = messages(made[-1])
    assert isinstance(busy, Response)
    assert (busy.status, busy.header("Retry-After")) == (503, "10")
    assert bench.agent.transactions == 3


def test_too_many_dialogs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SIP_DIALOGS", 1)
    bench = Bench()
    answered(bench)
    made = bench.receive(from_peer("INVITE", branch="z9hG4bKn", call_id="new"))
    assert [m.status for m in messages(made) if isinstance(m, Response)] == [503]


def test_replies_and_ends_for_unknown_handles_are_counted() -> None:
    bench = Bench()
    assert only(bench.push(Reply(99, answer(from_peer("MESSAGE"), 200))), Counted).name == "sip.unknown_handle"
    assert only(bench.push(End(99)), Counted).name == "sip.unknown_handle"


def test_ending_a_request_forgets_it() -> None:
    bench = Bench()
    bench.push(Ask(1, message(), UDP))
    assert bench.push(End(1)) == []
    assert bench.agent.idle
    assert bench.run_out() == []


# Connections


def test_a_closed_connection_takes_everything_with_it() -> None:
    bench = Bench()
    called(bench, TCP)
    bench.push(Ask(2, message(), TCP))
    bench.push(Ask(3, invite(), TCP))
    bench.push(Ask(4, invite(), TCP))
    bench.push(End(4))
    waiting = only(bench.receive(from_peer("INVITE"), TCP), Incoming)
    bench.receive(from_peer("MESSAGE"), TCP)
    bench.push(Ask(5, message(), UDP))
    made = bench.push(FlowClosed(TCP))
    assert {(type(e), e.handle, e.reason) for e in made if isinstance(e, Ended | Failed)} == {
        (Ended, 1, "transport"), (Failed, 2, "transport"), (Failed, 3, "transport"), (Ended, 4, "transport"),
        (Ended, waiting.handle, "transport"),
    }  # fmt: skip
    assert bench.agent.figures() == {("client", "trying"): 1}  # the one on UDP
    assert bench.agent.dialogs == 0


# A peer that moves

MOVED = Flow("udp", UDP.local, ("10.0.0.5", 40_001))
AGAIN = Flow("tcp", TCP.local, ("10.0.0.5", 40_002), 99)


def watched(bench: Bench, flow: Flow) -> Request:
    """Open a dialog with the peer DEVICE, handle 1; return our INVITE."""
    sent = request_of(bench.push(Ask(1, invite(), flow, peer=DEVICE)), "INVITE")
    assert only(bench.receive(answer(sent, 200), flow), Final).handle == 1
    return sent


def peer_bye(sent: Request) -> Request:
    return from_peer("BYE", call_id=sent.call_id, from_tag="d1", to_tag=sent.from_.tag)


def test_a_dialog_follows_its_peer_to_another_address() -> None:
    bench = Bench()
    watched(bench, UDP)
    bench.push(Rebound("another", MOVED))
    bench.push(Rebound(DEVICE, MOVED))
    bye = only([effect for effect in bench.push(End(1)) if isinstance(effect, Send)], Send)
    assert bye.flow == MOVED
    made = bench.receive(answer(request_of([bye], "BYE"), 200), MOVED)
    assert only(made, Ended).reason == "closed"
    assert bench.agent.dialogs == 0


def test_a_peers_bye_is_believed_from_where_he_is_now_alone() -> None:
    for flow, believed in ((UDP, False), (MOVED, True)):
        bench = Bench()
        sent = watched(bench, UDP)
        bench.push(Rebound(DEVICE, MOVED))
        made = bench.receive(peer_bye(sent), flow)
        assert bool([effect for effect in made if isinstance(effect, Ended)]) is believed


def test_a_bye_that_nobody_heard_is_said_again_to_the_new_address() -> None:
    bench = Bench()
    watched(bench, UDP)
    bench.push(End(1))
    again = only([effect for effect in bench.push(Rebound(DEVICE, MOVED)) if isinstance(effect, Send)], Send)
    assert again.flow == MOVED
    made = bench.receive(answer(request_of([again], "BYE"), 200), MOVED)
    assert only(made, Ended).handle == 1
    assert bench.agent.dialogs == 0


def test_a_dialog_outlives_its_connection_for_a_while() -> None:
    bench = Bench()
    watched(bench, TCP)
    assert not [effect for effect in bench.push(FlowClosed(TCP)) if isinstance(effect, Ended)]
    assert bench.agent.dialogs == 1
    bench.push(Rebound(DEVICE, AGAIN))
    assert only([effect for effect in bench.push(End(1)) if isinstance(effect, Send)], Send).flow == AGAIN


def test_a_bye_waits_for_a_peer_without_connection() -> None:
    bench = Bench()
    watched(bench, TCP)
    bench.push(FlowClosed(TCP))
    assert bench.push(End(1)) == [Ended(1, "transport")], "who ends it does not wait for that"
    assert (bench.agent.dialogs, bench.agent.farewells) == (0, 1)
    bye = only([effect for effect in bench.push(Rebound(DEVICE, AGAIN)) if isinstance(effect, Send)], Send)
    assert bye.flow == AGAIN
    assert bench.receive(answer(request_of([bye], "BYE"), 200), AGAIN) == [DialogOver(1)]
    assert (bench.agent.dialogs, bench.agent.farewells) == (0, 0)


def test_a_bye_on_its_way_when_the_connection_breaks_is_said_again() -> None:
    bench = Bench()
    watched(bench, TCP)
    bench.push(End(1))
    assert only(bench.push(FlowClosed(TCP)), Ended).reason == "transport"
    bye = only([effect for effect in bench.push(Rebound(DEVICE, AGAIN)) if isinstance(effect, Send)], Send)
    assert bye.flow == AGAIN


@pytest.mark.parametrize("ended", [False, True])
def test_a_peer_that_never_comes_back_is_given_up(ended: bool) -> None:
    bench = Bench()
    watched(bench, TCP)
    bench.push(FlowClosed(TCP))
    told = bench.push(End(1)) if ended else []
    assert not [effect for effect in bench.run(limits.SIP_STRANDED_SECONDS - 0.1) if isinstance(effect, Ended)]
    assert bench.agent.deadline == pytest.approx(bench.now + 0.1)
    assert only([*told, *bench.run(0.2)], Ended).reason == "transport"
    assert (bench.agent.dialogs, bench.agent.farewells) == (0, 0)
    assert bench.agent.deadline is None or bench.agent.deadline > bench.now


def of_dialogs(bench: Bench) -> list[str]:
    return [type(made).__name__ for _, made in bench.effects if isinstance(made, DialogOpened | DialogOver)]


OPENED_AND_OVER = ["DialogOpened", "DialogOver"]


@pytest.mark.parametrize("how", ["answered", "by the peer", "unanswered", "given up"])
def test_the_last_trace_of_a_dialog_is_told_once(how: str) -> None:
    bench = Bench()
    sent = watched(bench, TCP)
    assert of_dialogs(bench) == ["DialogOpened"]
    match how:
        case "answered":
            bye = request_of(bench.push(End(1)), "BYE")
            assert of_dialogs(bench) == ["DialogOpened"]
            bench.receive(answer(bye, 481), TCP)
        case "by the peer":
            bench.receive(peer_bye(sent), TCP)
        case "unanswered":
            bench.push(End(1))
            bench.run(31)
            assert of_dialogs(bench) == ["DialogOpened"]
            bench.run(2)
        case _:
            bench.push(End(1))
            bench.push(FlowClosed(TCP))
            bench.run(limits.SIP_STRANDED_SECONDS - 1)
            assert of_dialogs(bench) == ["DialogOpened"]
            bench.run(2)
    bench.run_out()
    assert of_dialogs(bench) == OPENED_AND_OVER


@pytest.mark.parametrize("status", [200, 486])
def test_an_answer_that_comes_when_nobody_wants_it_is_told_too(status: int) -> None:
    bench = Bench()
    sent = request_of(bench.push(Ask(1, invite(), UDP, peer=DEVICE)), "INVITE")
    bench.push(End(1))
    made = bench.receive(answer(sent, status))
    if status == 200:
        assert of_dialogs(bench) == ["DialogOpened"]
        bench.receive(answer(request_of(made, "BYE"), 200))
    bench.run_out()
    assert of_dialogs(bench) == (OPENED_AND_OVER if status == 200 else ["DialogOver"])


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("flow", [UDP, TCP])
def test_an_invite_that_opens_no_dialog_is_over_once(flow: Flow, wanted: bool) -> None:
    bench = Bench()
    bench.push(Ask(1, invite(), flow, peer=DEVICE))
    if not wanted:
        bench.push(End(1))
    if flow is TCP:
        bench.push(FlowClosed(TCP))
    bench.run_out()
    assert of_dialogs(bench) == ["DialogOver"]


def test_of_peers_without_a_name_nothing_is_told() -> None:
    bench = Bench()
    sent = request_of(bench.push(Ask(1, invite(), UDP)), "INVITE")
    bench.receive(answer(sent, 200))
    bench.receive(answer(request_of(bench.push(End(1)), "BYE"), 200))
    bench.run_out()
    assert of_dialogs(bench) == []


def test_provisional_answers_are_told() -> None:
    bench = Bench()
    sent = request_of(bench.push(Ask(1, invite(), UDP)), "INVITE")
    assert only(bench.receive(answer(sent, 100, tag="")), Provisional).response.status == 100


def test_figures_count_messages() -> None:
    bench = Bench()
    bench.receive(from_peer("WEIRD"))
    called(bench)
    assert bench.agent.messages == {
        ("in", "other", 0): 1, ("out", "other", 405): 1, ("out", "INVITE", 0): 1, ("in", "INVITE", 200): 1,
        ("out", "ACK", 0): 1,
    }  # fmt: skip
