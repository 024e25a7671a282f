"""REGISTER, refresh, keepalive and goodbye of the simulated device: hours of it in microseconds."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import pytest

from gbgw.device.options import DeviceOptions
from gbgw.device.registration import (
    CLOSING_SECONDS,
    Connect,
    Left,
    Registered,
    Registration,
    State,
    Unregistered,
    contact_of,
)
from gbgw.sip.digest import Authorization, ha1, response_digest
from gbgw.sip.events import Ask, Failed, Final
from gbgw.sip.flow import Flow
from gbgw.sip.message import Response

OPTIONS = DeviceOptions(
    "34020000001110000001", "34020000002000000001", "3402000000", ("192.0.2.1", 5_060), password="12345678"
)
UDP = Flow("udp", ("192.0.2.10", 5_070), ("192.0.2.1", 5_060))
TCP = Flow("tcp", ("2001:db8::1", 5_070), ("2001:db8::2", 5_060), 7)


class Driver:
    """Plays the agent: keeps what was asked, answers by number."""

    def __init__(self, options: DeviceOptions = OPTIONS, flow: Flow = UDP) -> None:
        handles = count(1)
        self.machine = Registration(options, lambda: next(handles), "call", "tag")
        self.flow = flow
        self.now = 1_000.0
        self.asked: list[Ask] = []
        self.told: list[object] = []
        self.take(self.machine.start())
        assert self.told == [Connect()]
        self.take(self.machine.connected(flow, self.now))

    def take(self, effects: Sequence[object]) -> Sequence[object]:
        self.asked += [effect for effect in effects if isinstance(effect, Ask)]
        self.told += [effect for effect in effects if not isinstance(effect, Ask)]
        return effects

    @property
    def last(self) -> Ask:
        return self.asked[-1]

    def answer(self, status: int, headers: dict[str, str] | None = None, ask: Ask | None = None) -> Sequence[object]:
        asked = ask or self.last
        response = Response.to(asked.request, status, "", headers or {})
        return self.take(self.machine.answered(Final(asked.handle, response, self.flow), self.now))

    def fail(self, ask: Ask | None = None) -> Sequence[object]:
        return self.take(self.machine.answered(Failed((ask or self.last).handle, "timeout"), self.now))

    def challenge(self, *, stale: bool = False, nonce: str = "b7c1d94e20af5836") -> Sequence[object]:
        extra = ",stale=true" if stale else ""
        return self.answer(401, {"WWW-Authenticate": f'Digest realm="3402000000",nonce="{nonce}"{extra}'})

    def register(self, expires: int = 3_600) -> None:
        self.challenge()
        self.answer(200, {"Contact": f"{contact_of(OPTIONS, self.flow)};expires={expires}"})
        assert self.machine.state is State.REGISTERED

    def wait(self) -> Sequence[object]:
        """Let time pass to the next timer."""
        assert self.machine.deadline is not None
        self.now = self.machine.deadline
        return self.take(self.machine.tick(self.now))


def test_the_worked_digest() -> None:
    """The values of reference 2.8."""
    options = replace(OPTIONS, device_id="34020000001320000001")
    driver = Driver(options)
    driver.challenge()
    given = Authorization.parse(driver.last.request.header("Authorization") or "")
    assert given.response == "a622b4a9ff332ad2749caeb29b7bd2dc"
    assert given.uri == "sip:34020000002000000001@3402000000" == driver.last.request.uri


def test_first_and_second_register() -> None:
    driver = Driver()
    first = driver.last.request
    assert (first.method, first.header("Authorization"), first.header("X-GB-Ver")) == ("REGISTER", None, "3.0")
    driver.challenge()
    second = driver.last.request
    assert second.call_id == first.call_id == "call"
    assert (first.cseq, second.cseq) == ((1, "REGISTER"), (2, "REGISTER"))
    assert second.from_.tag == first.from_.tag == "tag"
    assert second.expires == 3_600
    given = Authorization.parse(second.header("Authorization") or "")
    secret = ha1("34020000001110000001", "3402000000", "12345678")
    assert given.response == response_digest(secret, "REGISTER", given)


@pytest.mark.parametrize(("edition", "header"), [("2.0", "2.0"), (None, None)])
def test_edition_header(edition: str | None, header: str | None) -> None:
    assert Driver(replace(OPTIONS, edition=edition)).last.request.header("X-GB-Ver") == header


def test_contact_names_transport_and_ipv6() -> None:
    driver = Driver(flow=TCP)
    assert driver.last.request.header("Contact") == "<sip:34020000001110000001@[2001:db8::1]:5070;transport=tcp>"


@pytest.mark.parametrize(
    ("headers", "refresh"),
    [
        ({"Contact": "<sip:x@192.0.2.10>;expires=1000", "Expires": "500"}, 800.0),
        ({"Contact": "<sip:x@192.0.2.10>", "Expires": "500"}, 400.0),
        ({"Expires": "100"}, 80.0),
        ({}, 2_880.0),
    ],
)
def test_refresh_at_four_fifths_of_what_was_granted(headers: dict[str, str], refresh: float) -> None:
    driver = Driver(replace(OPTIONS, keepalive_seconds=1e6))
    driver.challenge()
    driver.answer(200, headers)
    assert driver.machine.deadline == pytest.approx(driver.now + refresh)
    asked = len(driver.asked)
    driver.wait()
    assert len(driver.asked) == asked + 1
    assert driver.last.request.method == "REGISTER"
    assert driver.last.request.header("Authorization") is None
    assert driver.machine.state is State.REGISTERED
    driver.challenge(nonce="another")
    driver.answer(200)
    assert sum(isinstance(each, Registered) for each in driver.told) == 2


def test_a_stale_nonce_is_answered_again_and_no_more_than_that() -> None:
    driver = Driver()
    driver.challenge()
    assert driver.challenge(stale=True, nonce="second")
    assert driver.last.request.cseq == (3, "REGISTER")
    assert driver.challenge(stale=True, nonce="third") == (Unregistered("REGISTER refused with 401"),)
    assert driver.machine.state is State.IDLE


def test_a_wrong_password_waits_at_least_the_retry_time() -> None:
    for seed in range(20):
        driver = Driver(replace(OPTIONS, seed=seed))
        driver.challenge()
        driver.challenge(nonce="again")
        assert driver.told[-1] == Unregistered("REGISTER refused with 401")
        assert driver.machine.deadline is not None
        assert 60 <= driver.machine.deadline - driver.now <= 90
        asked = len(driver.asked)
        driver.wait()
        assert len(driver.asked) == asked + 1


@pytest.mark.parametrize("status", [403, 404, 500, 302])
def test_refusals_are_retried(status: int) -> None:
    driver = Driver()
    driver.answer(status)
    assert driver.told[-1] == Unregistered(f"REGISTER refused with {status}")
    driver.wait()
    driver.register()


def test_a_challenge_that_cannot_be_answered_is_a_refusal() -> None:
    driver = Driver()
    driver.answer(401, {"WWW-Authenticate": 'Digest realm="x",nonce="y",algorithm=SM3'})
    assert driver.machine.state is State.IDLE
    driver = Driver()
    driver.answer(401)
    assert driver.machine.state is State.IDLE


def test_too_brief_is_raised_to_what_the_platform_wants() -> None:
    driver = Driver(replace(OPTIONS, expires_seconds=60))
    driver.answer(423, {"Min-Expires": "3600"})
    assert driver.last.request.expires == 3_600
    driver.answer(423, {"Min-Expires": "3600"})
    assert driver.machine.state is State.IDLE


def test_no_answer_is_retried() -> None:
    driver = Driver()
    driver.fail()
    assert driver.told[-1] == Unregistered("REGISTER timeout")
    driver.wait()
    assert driver.last.request.cseq[0] == 2


def test_keepalive_every_interval_with_rising_sn() -> None:
    driver = Driver(replace(OPTIONS, expires_seconds=86_400))
    driver.register(86_400)
    bodies = []
    for _ in range(3):
        before = driver.now
        driver.wait()
        assert driver.now == before + 60
        bodies.append(driver.last.request.body)
        assert driver.last.request.content_type == "application/manscdp+xml"
        driver.answer(200)
    assert [f"<SN>{number}</SN>".encode() in body for number, body in enumerate(bodies, 1)] == [True] * 3
    assert all(b"<CmdType>Keepalive</CmdType>" in body for body in bodies)


def test_three_missed_keepalives_mean_offline_and_register_at_once() -> None:
    driver = Driver()
    driver.register(86_400)
    for missed in range(3):
        driver.wait()
        assert driver.last.request.method == "MESSAGE"
        if missed == 1:
            driver.answer(503)
        else:
            driver.fail()
    assert driver.told[-1] == Unregistered("3 keepalives without answer")
    assert driver.last.request.method == "REGISTER"
    driver.register(86_400)


def test_an_answer_in_between_clears_the_misses() -> None:
    driver = Driver()
    driver.register(86_400)
    for _ in range(5):
        driver.wait()
        driver.fail()
        driver.wait()
        driver.answer(200)
    assert driver.machine.state is State.REGISTERED


@pytest.mark.parametrize("status", [401, 403, 404, 481])
def test_a_keepalive_that_is_refused_means_register_again(status: int) -> None:
    driver = Driver()
    driver.register(86_400)
    driver.wait()
    driver.answer(status)
    assert driver.told[-1] == Unregistered(f"keepalive refused with {status}")
    assert driver.last.request.method == "REGISTER"


def test_late_answers_to_old_keepalives_change_nothing() -> None:
    driver = Driver()
    driver.register(86_400)
    driver.wait()
    old = driver.last
    driver.answer(403)
    driver.register(86_400)
    assert driver.answer(403, ask=old) == ()
    assert driver.machine.state is State.REGISTERED


def test_a_lost_connection_is_made_again_after_the_wait() -> None:
    driver = Driver(flow=TCP)
    driver.register()
    driver.take(driver.machine.disconnected("connection closed", driver.now))
    assert driver.told[-1] == Unregistered("connection closed")
    assert list(driver.wait()) == [Connect()]
    driver.take(driver.machine.connected(TCP, driver.now))
    assert driver.last.request.method == "REGISTER"


def test_goodbye() -> None:
    driver = Driver()
    driver.register()
    driver.take(driver.machine.stop(driver.now))
    assert driver.last.request.expires == 0
    driver.challenge(nonce="bye")
    assert driver.last.request.expires == 0
    assert driver.last.request.header("Authorization")
    assert driver.answer(200) == (Left(),)
    assert driver.machine.state is State.GONE
    assert driver.machine.deadline is None
    assert driver.machine.stop(driver.now) == ()


def test_goodbye_to_a_dead_platform_ends_by_itself() -> None:
    driver = Driver()
    driver.register()
    began = driver.now
    driver.take(driver.machine.stop(driver.now))
    assert list(driver.wait()) == [Left()]
    assert driver.now - began == CLOSING_SECONDS


def test_goodbye_while_nothing_is_registered_or_connected() -> None:
    driver = Driver()
    driver.answer(403)
    assert driver.machine.stop(driver.now) == (Left(),)
    driver = Driver(flow=TCP)
    driver.register()
    driver.take(driver.machine.stop(driver.now))
    assert driver.machine.disconnected("gone", driver.now) == (Left(),)
    assert driver.machine.connected(TCP, driver.now) == ()


def test_goodbye_in_the_middle_of_a_registration_forgets_its_answer() -> None:
    driver = Driver()
    under_way = driver.last
    driver.take(driver.machine.stop(driver.now))
    assert driver.answer(200, ask=under_way) == ()
    assert driver.machine.state is State.LEAVING
    assert driver.fail() == (Left(),)
