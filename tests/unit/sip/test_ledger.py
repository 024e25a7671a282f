"""The heap of timers stays in proportion to what lives."""

from gbgw.base.machine import TICK
from gbgw.sip.agent import Incoming, Received, Reply, UserAgent
from gbgw.sip.message import Response
from tests.support.sip import TCP, UDP, from_peer


def serve(agent: UserAgent, number: int, flow: object, now: float) -> None:
    for effect in agent.push(Received(from_peer("MESSAGE", branch=f"z9hG4bK{number}"), flow), now):  # type: ignore[arg-type]
        assert isinstance(effect, Incoming)
        agent.push(Reply(effect.handle, Response.to(effect.request, 200)), now)


def test_finished_transactions_do_not_pile_up_in_the_heap() -> None:
    agent = UserAgent()
    for number in range(5_000):
        serve(agent, number, TCP, number / 1000)
    assert agent.idle
    assert len(agent._ledger._heap) <= 1_025
    assert agent.deadline is None


def test_a_transaction_has_one_entry_through_its_life() -> None:
    agent = UserAgent()
    for number in range(1_000):
        serve(agent, number, UDP, number / 1000)
    assert len(agent._ledger._heap) == agent.transactions == 1_000
    assert agent.figures() == {("server", "completed"): 1_000}
    assert list(agent.push(TICK, 40.0)) == []
    assert agent.idle
