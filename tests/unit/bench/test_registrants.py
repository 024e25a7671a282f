import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from gbgw.bench.registrants import Registrants, Setup, value_of
from gbgw.sip.digest import Authenticator, Authorization, Verdict, ha1
from gbgw.sip.message import Request, Response
from gbgw.sip.parse import parse, serialize

PLATFORM, REALM, PASSWORD = "34020000002000000001", "3402000000", "secret"


@pytest.fixture
def platform() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        yield server


def registrants(platform: socket.socket, devices: int = 1) -> Registrants:
    return Registrants(Setup(platform.getsockname()[1], PLATFORM, REALM, PASSWORD, devices, 2))


@pytest.mark.parametrize("qop", [False, True])
def test_a_registration_satisfies_a_digest(platform: socket.socket, qop: bool) -> None:
    made = registrants(platform)
    device = made.devices[0]
    server = Authenticator(REALM, offer_qop=qop)
    first = parse(device.ask())
    assert isinstance(first, Request)
    assert first.header("Authorization") is None
    assert (first.method, first.from_.user, first.cseq[0]) == ("REGISTER", "34020000001180000001", 1)
    challenge = Response.to(first, 401, "", [("WWW-Authenticate", server.challenges(0.0)[0])])
    second = parse(device.ask(made._authorization(device, serialize(challenge))))
    assert isinstance(second, Request)
    assert (second.call_id, second.cseq[0]) == (first.call_id, 2)
    assert second.via.param("branch") != first.via.param("branch")
    authorization = Authorization.parse(second.header("Authorization") or "")
    known = {"MD5": ha1(authorization.username, REALM, PASSWORD)}
    assert server.verify(authorization, "REGISTER", known, 1.0) is Verdict.OK
    made.close()


def test_parameters_of_a_challenge() -> None:
    data = b'WWW-Authenticate: Digest realm="r, x",cnonce="no", nonce="yes",opaque=""\r\n'
    assert value_of(data, b"nonce") == "yes"
    assert value_of(data, b"realm") == "r, x"
    assert value_of(data, b"missing") == ""


def test_each_round_is_counted_and_questions_are_answered(platform: socket.socket) -> None:
    """A platform in a thread that challenges, accepts, refuses one device, and asks another for its catalog."""
    import threading

    made = registrants(platform, 3)
    seen: list[Any] = []
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            try:
                data, address = platform.recvfrom(65_536)
            except TimeoutError:
                return
            if data == b"stop":
                return
            message = parse(data)
            seen.append(message)
            if isinstance(message, Response):
                continue
            if message.method == "MESSAGE":
                platform.sendto(serialize(Response.to(message, 200)), address)
            elif message.header("Authorization") is None:
                headers = [("WWW-Authenticate", f'Digest realm="{REALM}",nonce="n"')]
                platform.sendto(serialize(Response.to(message, 401, "", headers)), address)
            elif message.from_.user.endswith("2"):
                platform.sendto(serialize(Response.to(message, 403)), address)
            else:
                platform.sendto(serialize(Response.to(message, 100)), address)
                platform.sendto(serialize(Response.to(message, 200)), address)
                if message.from_.user.endswith("1"):
                    platform.sendto(QUESTION.replace(b"DEVICE", message.from_.user.encode()), address)

    thread = threading.Thread(target=serve)
    thread.start()
    found = made.first(window=2)
    platform_address = platform.getsockname()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.sendto(b"stop", platform_address)
    thread.join(10)
    made.close()
    assert (found.registrations, found.requests, found.failed, found.repeated) == (2, 5, 1, 0)
    assert found.registration[0] is not None
    assert 0 < found.registration[0] <= (found.registration[2] or 0)
    answers = [message for message in seen if isinstance(message, Request) and message.method == "MESSAGE"]
    assert len(answers) == 1
    assert b"<SumNum>0</SumNum>" in answers[0].body
    assert b"<SN>17</SN>" in answers[0].body
    assert json.dumps(found.registration)


QUESTION = serialize(
    Request.new(
        "MESSAGE",
        "sip:DEVICE@3402000000",
        [
            ("Via", "SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bKq"),
            ("From", f"<sip:{PLATFORM}@{REALM}>;tag=1"),
            ("To", "<sip:DEVICE@3402000000>"),
            ("Call-ID", "q"),
            ("CSeq", "1 MESSAGE"),
        ],
        b'<?xml version="1.0"?><Query><CmdType>Catalog</CmdType><SN>17</SN>'
        b"<DeviceID>34020000001180000001</DeviceID></Query>",
        "Application/MANSCDP+xml",
    )
)


def test_what_is_lost_is_sent_again(platform: socket.socket) -> None:
    made = registrants(platform)
    made._begin(made.devices[0], 10.0, 10.0)
    first = platform.recv(4_096)
    made._repeat(10.4)
    made._repeat(10.6)
    assert platform.recv(4_096) == first
    assert made._found.repeated == 1
    assert not made._begin(made.devices[0], 10.7, 10.7)
    for moment in (11.2, 11.9, 12.6, 13.3, 14.1):
        made._repeat(moment)
    assert made._found.failed == 1
    assert made._begin(made.devices[0], 15.0, 15.0)
    made.close()
