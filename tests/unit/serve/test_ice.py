"""The responder without a socket: who is answered, who owns a source, who is followed, and what strangers cost."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gbgw.base import limits
from gbgw.base.tally import Tally
from gbgw.serve import stun
from gbgw.serve.ice import Agent, Deliver, Responder, Selected, Send, Source

HOME: Source = ("192.0.2.1", 4_000)
AWAY: Source = ("198.51.100.9", 5_000)
CONTROLLING = (stun.ICE_CONTROLLING, bytes(8))
DTLS = b"\x16\xfe\xfd" + bytes(20)


class Scene:
    def __init__(self) -> None:
        self.tally = Tally()
        self.it = Responder(self.tally)
        self.agent = self.it.add("them", "their password of 22 l")
        self.now = 100.0

    def ask(
        self, source: Source = HOME, *, of: Agent | None = None, nominate: bool = True, key: str = "", more: Any = ()
    ) -> list[Any]:
        agent = of or self.agent
        attributes = [(stun.USERNAME, f"{agent.ufrag}:{agent.remote_ufrag}".encode()), CONTROLLING, *more]
        if nominate:
            attributes.append((stun.USE_CANDIDATE, b""))
        data = stun.build("request", b"transaction!", attributes, (key or agent.password).encode())
        effects = self.it.push(data, source, self.now)
        for effect in effects:
            if isinstance(effect, Send):
                assert len(effect.data) <= len(data) + 24
                assert effect.source == source
        return effects

    def answer(self, probe: Send, source: Source, *, key: str = "", kind: Any = "success") -> list[Any]:
        asked = stun.parse(probe.data)
        made = stun.build(kind, asked.transaction, [], (key or self.agent.remote_password).encode())
        return self.it.push(made, source, self.now)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_credentials_are_long_enough_and_not_shared(scene: Scene) -> None:
    others = [scene.it.add("them", "x") for _ in range(50)]
    assert len({one.ufrag for one in others} | {scene.agent.ufrag}) == 51
    assert len({one.password for one in others}) == 50
    assert all(len(one.ufrag) >= 4 and len(one.password) >= 22 for one in others)


def test_a_check_is_answered_and_the_nominated_source_chosen(scene: Scene) -> None:
    (answer,) = scene.ask(nominate=False)
    told = stun.parse(answer.data)
    assert told.kind == "success"
    assert told.is_from(scene.agent.password.encode())
    assert scene.agent.selected is None
    assert scene.ask() == [answer, Selected(scene.agent)]
    assert scene.agent.selected == HOME
    assert scene.it.push(DTLS, HOME, scene.now) == [Deliver(scene.agent, DTLS)]


def test_strangers_get_no_answer(scene: Scene) -> None:
    other = Responder(Tally()).add("them", "x")
    assert scene.ask(of=other) == []
    assert scene.tally["webrtc.stun_unknown"] == 1
    assert scene.ask(key="another password of 22") == []
    assert scene.tally["webrtc.stun_refused"] == 1
    mixed = Agent(scene.agent.ufrag, scene.agent.password, "someone else", "")
    assert scene.ask(of=mixed) == []
    assert scene.it.push(DTLS, HOME, scene.now) == []
    assert scene.it.push(b"", HOME, scene.now) == []
    assert scene.it.push(b"\0", HOME, scene.now) == []
    assert scene.it.push(stun.build("success", bytes(12), [], b"x"), HOME, scene.now) == []
    assert scene.it.push(stun.build("indication", bytes(12), [], b"x"), HOME, scene.now) == []
    assert scene.it.sources == 0
    assert scene.agent.selected is None


def test_a_viewer_that_would_be_controlled_is_told_to_switch(scene: Scene) -> None:
    (answer,) = scene.ask(more=[(stun.ICE_CONTROLLED, b"\xff" * 8)])
    assert stun.parse(answer.data).error == 487
    assert scene.agent.selected is None
    assert scene.tally["webrtc.role_conflict"] == 1


def test_what_we_do_not_understand_is_refused_by_name(scene: Scene) -> None:
    (answer,) = scene.ask(more=[(0x0031, b"")])
    assert stun.parse(answer.data).error == 420
    assert scene.it.sources == 0


def test_before_dtls_the_last_nomination_counts(scene: Scene) -> None:
    scene.ask()
    assert Selected(scene.agent) in scene.ask(AWAY)
    assert scene.agent.selected == AWAY


def test_a_viewer_that_moves_is_asked_and_followed(scene: Scene) -> None:
    scene.ask()
    scene.agent.is_proven = True
    assert len(scene.ask(AWAY, nominate=False)) == 1
    _, probe = scene.ask(AWAY)
    asked = stun.parse(probe.data)
    assert asked.usernames == (scene.agent.remote_ufrag, scene.agent.ufrag)
    assert asked.is_from(scene.agent.remote_password.encode())
    assert stun.ICE_CONTROLLED in asked.attributes
    assert scene.agent.selected == HOME
    assert scene.it.push(DTLS, AWAY, scene.now) == [Deliver(scene.agent, DTLS)]
    assert scene.answer(probe, AWAY) == [Selected(scene.agent)]
    assert scene.agent.selected == AWAY
    assert scene.tally["webrtc.moved"] == 1
    assert scene.answer(probe, AWAY) == []


def test_a_viewer_that_nominates_once_is_followed_when_it_falls_silent(scene: Scene) -> None:
    scene.ask()
    scene.agent.is_proven = True
    assert len(scene.ask(AWAY, nominate=False)) == 1
    scene.now += limits.WEBRTC_SOURCE_HELD_SECONDS
    _, probe = scene.ask(AWAY, nominate=False)
    assert scene.answer(probe, AWAY) == [Selected(scene.agent)]


def test_nobody_is_sent_media_on_the_word_of_another(scene: Scene) -> None:
    """A viewer names the address of a victim: what reaches it is a probe now and then, however often it is named."""
    scene.ask()
    scene.agent.is_proven = True
    sent = 0
    for _ in range(1_000):
        sent += sum(len(effect.data) for effect in scene.ask(AWAY)[1:])
        scene.now += 0.001
    assert sent <= 2 * 120
    assert scene.agent.selected == HOME
    scene.now += limits.WEBRTC_PROBE_SECONDS
    _, probe = scene.ask(AWAY)
    for source, key, kind in ((HOME, "", "success"), (AWAY, "wrong", "success"), (AWAY, "", "error")):
        assert scene.answer(probe, source, key=key, kind=kind) == []
    assert scene.answer(probe, AWAY) == []  # an error ended it
    assert scene.agent.selected == HOME


def test_a_viewer_has_few_sources_and_keeps_the_chosen_one(scene: Scene) -> None:
    scene.ask()
    for port in range(1, 200):
        scene.ask(("198.51.100.1", port), nominate=False)
    assert len(scene.agent.sources) == scene.it.sources == limits.WEBRTC_SOURCES
    assert HOME in scene.agent.sources
    assert ("198.51.100.1", 199) in scene.agent.sources


def test_a_source_is_not_taken_from_a_living_viewer(scene: Scene) -> None:
    thief = scene.it.add("thief", "password of the thief 22")
    scene.ask()
    assert len(scene.ask(of=thief)) == 1  # it is answered, and gets nothing
    assert scene.tally["webrtc.source_taken"] == 1
    assert scene.it.push(DTLS, HOME, scene.now) == [Deliver(scene.agent, DTLS)]
    scene.now += limits.WEBRTC_SOURCE_HELD_SECONDS
    assert Selected(thief) in scene.ask(of=thief)  # a NAT gave it to somebody else
    assert scene.it.push(DTLS, HOME, scene.now) == [Deliver(thief, DTLS)]
    assert scene.agent.selected is None


def test_consent_ends_with_silence(scene: Scene) -> None:
    scene.now += 1_000
    assert scene.it.silent(scene.now) == []  # not connected yet: somebody else's clock
    scene.ask()
    for _ in range(20):
        scene.now += limits.WEBRTC_CONSENT_SECONDS * 0.9
        assert scene.it.silent(scene.now) == []
        scene.ask(nominate=False)
    scene.agent.is_proven = True
    scene.ask(AWAY, nominate=False)  # another source is no consent to the chosen one
    scene.now += limits.WEBRTC_CONSENT_SECONDS + 1
    assert scene.it.silent(scene.now) == [scene.agent]
    thief = scene.it.add("thief", "password of the thief 22")
    scene.ask(of=thief)
    assert scene.agent.selected is None
    assert scene.agent in scene.it.silent(scene.now)


def test_who_leaves_takes_everything(scene: Scene) -> None:
    scene.ask()
    scene.agent.is_proven = True
    _, probe = scene.ask(AWAY)
    scene.it.remove(scene.agent)
    scene.it.remove(scene.agent)
    assert (len(scene.it), scene.it.sources, scene.it._probes) == (0, 0, {})
    assert scene.ask() == []
    assert scene.answer(probe, AWAY) == []


@given(st.lists(st.tuples(st.binary(max_size=80), st.integers(0, 3)), max_size=20))
def test_any_datagrams_leave_the_tables_alone(datagrams: list[tuple[bytes, int]]) -> None:
    scene = Scene()
    scene.ask()
    for data, host in datagrams:
        for effect in scene.it.push(data, (f"10.0.0.{host}", 1), scene.now):
            raise AssertionError(effect)
    assert scene.it.sources == 1
    assert scene.agent.selected == HOME
