"""The schedules of reference section 2.6, on a virtual clock; and the tables themselves."""

import pytest

from gbgw.sip.agent import Ask, Cancelled, Counted, Ended, Failed, Final, Incoming, Provisional, Reply, Send
from gbgw.sip.message import Request, Response
from gbgw.sip.transaction import FIRST, TABLES, TIMERS, Input, Kind, State, Transaction
from tests.support.sip import TCP, UDP, Bench, answer, every, from_peer, invite, message, messages, only

INVITE_TIMES = [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
OTHER_TIMES = [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]


@pytest.mark.conformance(23)
def test_an_invite_without_answer_goes_out_seven_times_and_fails_at_32_seconds() -> None:
    bench = Bench()
    bench.push(Ask(1, invite(), UDP))
    bench.run_out()
    assert bench.times("INVITE") == INVITE_TIMES
    assert [at for at, effect in bench.effects if effect == Failed(1, "timeout")] == [32.0]
    assert bench.agent.idle


@pytest.mark.conformance(23)
def test_a_message_without_answer_goes_out_eleven_times_and_fails_at_32_seconds() -> None:
    bench = Bench()
    bench.push(Ask(1, message(), UDP))
    bench.run_out()
    assert bench.times("MESSAGE") == OTHER_TIMES
    assert len({effect.data for _, effect in bench.effects if isinstance(effect, Send)}) == 1
    assert [at for at, effect in bench.effects if effect == Failed(1, "timeout")] == [32.0]
    assert bench.agent.idle


@pytest.mark.conformance(23)
@pytest.mark.parametrize("request_", [invite(), message()], ids=["invite", "message"])
def test_over_tcp_nothing_is_repeated_and_the_failure_is_the_same(request_: Request) -> None:
    bench = Bench()
    bench.push(Ask(1, request_, TCP))
    bench.run_out()
    assert len(bench.sent()) == 1
    assert [at for at, effect in bench.effects if isinstance(effect, Failed)] == [32.0]


def test_a_provisional_slows_a_message_to_t2_and_stops_an_invite() -> None:
    bench = Bench()
    bench.push(Ask(1, message(), UDP))
    bench.run(0.4)
    bench.receive(answer(bench.sent()[0][1], 100))
    bench.run(10)
    assert bench.times("MESSAGE") == [0, 0.5, 4.5, 8.5]

    bench = Bench()
    bench.push(Ask(1, invite(), UDP))
    bench.run(0.4)
    assert only(bench.receive(answer(bench.sent()[0][1], 180)), Provisional).response.status == 180
    bench.run(100)
    assert bench.times("INVITE") == [0]


def test_an_invite_that_only_rings_ends_by_timer_c() -> None:
    bench = Bench()
    bench.push(Ask(1, invite(), UDP))
    bench.receive(answer(bench.sent()[0][1], 180))
    bench.run_out()
    assert [at for at, effect in bench.effects if effect == Failed(1, "timeout")] == [190.0]


def test_a_refused_invite_is_acknowledged_with_its_own_branch_each_time() -> None:
    bench = Bench()
    bench.push(Ask(1, invite(), UDP))
    sent = bench.sent()[0][1]
    made = bench.receive(answer(sent, 486))
    assert only(made, Final).response.status == 486
    (ack,) = messages(made)
    assert isinstance(ack, Request)
    assert (ack.method, ack.cseq, ack.via.branch, ack.to_.tag) == ("ACK", (1, "ACK"), sent.via.branch, "peer")
    assert ack.uri == sent.uri  # type: ignore[union-attr]
    again = bench.receive(answer(sent, 486))
    assert [type(effect) for effect in again] == [Send]
    bench.run_out()
    assert bench.agent.idle


def test_the_answer_to_a_message_is_given_once_and_absorbed_for_t4() -> None:
    bench = Bench()
    bench.push(Ask(1, message(), UDP))
    sent = bench.sent()[0][1]
    assert only(bench.receive(answer(sent, 200)), Final).handle == 1
    assert bench.receive(answer(sent, 200)) == []
    bench.run(5.0)
    assert bench.agent.idle
    assert only(bench.receive(answer(sent, 200)), Counted).name == "sip.response_unmatched"


@pytest.mark.conformance(28)
def test_a_retransmitted_message_is_delivered_once_and_its_answer_repeated() -> None:
    bench = Bench()
    first = only(bench.receive(from_peer("MESSAGE")), Incoming)
    assert every(bench.receive(from_peer("MESSAGE")), Incoming) == []
    bench.push(Reply(first.handle, Response.to(first.request, 200)))
    bench.run(31.9)
    again = bench.receive(from_peer("MESSAGE"))
    assert every(again, Incoming) == []
    assert only(again, Send).data == next(effect.data for _, effect in bench.effects if isinstance(effect, Send))
    bench.run(0.2)
    assert bench.agent.idle
    assert every(bench.receive(from_peer("MESSAGE")), Incoming) != []


def test_over_tcp_a_finished_server_transaction_is_forgotten_at_once() -> None:
    bench = Bench()
    incoming = only(bench.receive(from_peer("MESSAGE"), TCP), Incoming)
    bench.push(Reply(incoming.handle, Response.to(incoming.request, 200)))
    assert bench.agent.idle
    assert bench.agent.deadline is None


def test_an_incoming_invite_gets_100_after_200_ms_and_its_last_answer_on_repetition() -> None:
    bench = Bench()
    incoming = only(bench.receive(from_peer("INVITE")), Incoming)
    bench.run(1.0)
    assert [(at, message.status) for at, message in bench.sent() if isinstance(message, Response)] == [(0.2, 100)]
    assert bench.sent()[0][1].to_.tag == ""
    bench.push(Reply(incoming.handle, Response.to(incoming.request, 180)))
    (ringing,) = messages(bench.receive(from_peer("INVITE")))
    assert isinstance(ringing, Response)
    assert ringing.status == 180


def test_no_100_when_the_user_answers_in_time() -> None:
    bench = Bench()
    incoming = only(bench.receive(from_peer("INVITE")), Incoming)
    bench.run(0.1)
    bench.push(Reply(incoming.handle, Response.to(incoming.request, 180)))
    bench.run(1.0)
    assert [message.status for _, message in bench.sent() if isinstance(message, Response)] == [180]


def test_a_refusal_of_an_invite_is_repeated_until_its_ack() -> None:
    bench = Bench()
    incoming = only(bench.receive(from_peer("INVITE")), Incoming)
    bench.push(Reply(incoming.handle, Response.to(incoming.request, 486)))
    bench.run(8.0)
    times = [at for at, message in bench.sent()]
    assert times == [0, 0.5, 1.5, 3.5, 7.5]
    bench.receive(from_peer("ACK"))
    bench.run(4.0)
    assert len(bench.sent()) == 5
    bench.run_out()
    assert bench.agent.idle


def test_a_refusal_without_ack_ends_by_timer_h() -> None:
    bench = Bench()
    incoming = only(bench.receive(from_peer("INVITE")), Incoming)
    bench.push(Reply(incoming.handle, Response.to(incoming.request, 486)))
    bench.run_out()
    assert [at for at, _ in bench.sent()] == [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert bench.agent.idle


def test_cancel_before_the_answer_gives_200_and_487() -> None:
    bench = Bench()
    incoming = only(bench.receive(from_peer("INVITE")), Incoming)
    made = bench.receive(from_peer("CANCEL"))
    assert only(made, Cancelled).handle == incoming.handle
    assert [(m.status, m.cseq[1]) for m in messages(made) if isinstance(m, Response)] == [
        (200, "CANCEL"),
        (487, "INVITE"),
    ]
    bench.receive(from_peer("ACK", to_tag="x"))
    late = bench.push(Reply(incoming.handle, Response.to(incoming.request, 200)))
    assert only(late, Counted).name == "sip.unknown_handle"


def test_cancel_of_nothing_gives_481_and_of_an_answered_invite_only_200() -> None:
    bench = Bench()
    assert [m.status for m in messages(bench.receive(from_peer("CANCEL"))) if isinstance(m, Response)] == [481]
    bench = Bench()
    incoming = only(bench.receive(from_peer("INVITE")), Incoming)
    bench.push(Reply(incoming.handle, Response.to(incoming.request, 200)))
    made = bench.receive(from_peer("CANCEL"))
    assert [m.status for m in messages(made) if isinstance(m, Response)] == [200]
    assert every(made, Cancelled) == []


@pytest.mark.parametrize("method", ["MESSAGE", "INVITE"])
def test_a_user_that_forgets_to_answer_is_answered_for(method: str) -> None:
    bench = Bench()
    incoming = only(bench.receive(from_peer(method)), Incoming)
    bench.run_out()
    final = [m.status for _, m in bench.sent() if isinstance(m, Response) and m.status >= 200]
    assert set(final) == {500}
    assert bench.agent.idle
    ended = [effect for _, effect in bench.effects if isinstance(effect, Ended)]
    assert ended == ([Ended(incoming.handle, "cancelled")] if method == "INVITE" else [])


def test_one_branch_for_two_requests_is_two_transactions() -> None:
    bench = Bench()
    assert every(bench.receive(from_peer("MESSAGE", cseq=1)), Incoming)
    assert every(bench.receive(from_peer("MESSAGE", cseq=2)), Incoming)
    assert every(bench.receive(from_peer("MESSAGE", cseq=1, call_id="other")), Incoming)


@pytest.mark.parametrize("via", ["SIP/2.0/UDP 10.0.0.5:5062;branch=z3hG9bK1", "SIP/2.0/UDP 10.0.0.5:5062"])
def test_without_the_cookie_rfc_2543_rules_apply(via: str) -> None:
    bench = Bench()
    incoming = only(bench.receive(from_peer("INVITE", via=via)), Incoming)
    assert every(bench.receive(from_peer("INVITE", via=via)), Incoming) == []
    bench.push(Reply(incoming.handle, Response.to(incoming.request, 486)))
    assert bench.agent.figures() == {("invite_server", "completed"): 1}
    bench.receive(from_peer("ACK", via=via, to_tag="t1"))
    assert bench.agent.figures() == {("invite_server", "confirmed"): 1}
    assert every(bench.receive(from_peer("MESSAGE", via=via)), Incoming)
    assert every(bench.receive(from_peer("MESSAGE", via=via, cseq=2)), Incoming)


def test_a_response_without_branch_is_matched_by_call_id_and_tag() -> None:
    bench = Bench()
    bench.push(Ask(1, message(), UDP))
    sent = bench.sent()[0][1]
    bare = answer(sent, 200).with_header("Via", "SIP/2.0/UDP 192.0.2.1:5060")
    stranger = bare.with_header("From", "<sip:x@y>;tag=other")
    assert only(bench.receive(stranger), Counted).name == "sip.response_unmatched"
    upper = bare.with_header("Call-ID", sent.call_id.upper())
    assert only(bench.receive(upper), Final).response.status == 200


def test_a_burst_of_repetitions_is_not_made_up_after_a_pause() -> None:
    bench = Bench()
    bench.push(Ask(1, message(), UDP))
    bench.now += 20.0  # the loop was blocked
    bench.run(0.0)
    assert len(bench.times("MESSAGE")) <= 4


@pytest.mark.parametrize("kind", list(Kind))
def test_every_state_is_reached_and_leads_to_the_end(kind: Kind) -> None:
    table = TABLES[kind]
    reached, todo = {FIRST[kind]}, [FIRST[kind]]
    while todo:
        state = todo.pop()
        for (start, _), (end, _) in table.items():
            if start is state and end not in reached:
                reached.add(end)
                todo.append(end)
    assert {start for start, _ in table} | {State.TERMINATED} == reached
    timed = {start for start, event in table if event.value in "ABCDEFGHIJKLMTU"}
    assert timed == reached - {State.TERMINATED}  # nothing waits for ever
    for state in reached - {State.TERMINATED}:
        for timer in TIMERS[kind, state]:
            assert (state, timer.name) in table


def test_what_is_not_in_the_table_changes_nothing() -> None:
    transaction = Transaction(Kind.SERVER, Request(), UDP, 0.0)
    assert transaction.push(Input.ACK, 0.0) == ()
    assert transaction.state is State.TRYING
