"""The SIP layer: reading beside the standard library's e-mail parser, writing, digest, and the REGISTER exchange."""

import email.parser
import email.policy
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from gbgw.sip.agent import Incoming, Received, Reply, Send, UserAgent
from gbgw.sip.digest import Authenticator, Authorization, Challenge, DigestClient, Verdict, ha1
from gbgw.sip.flow import Flow
from gbgw.sip.message import Request, Response
from gbgw.sip.parse import parse, serialize

ID, PLATFORM, REALM, PASSWORD = "34020000001320000001", "34020000002000000001", "3402000000", "12345678"
URI = f"sip:{PLATFORM}@{REALM}"
FLOW = Flow("udp", ("192.0.2.1", 5060), ("192.0.2.10", 5062))
COUNT = 200


def register(number: int, cseq: int, authorization: str = "") -> bytes:
    headers = [
        ("Via", f"SIP/2.0/UDP 192.0.2.10:5060;rport;branch=z9hG4bK{number}.{cseq}"),
        ("From", f"<sip:{ID}@{REALM}>;tag=reg{number}"),
        ("To", f"<sip:{ID}@{REALM}>"),
        ("Call-ID", f"reg{number}@192.0.2.10"),
        ("CSeq", f"{cseq} REGISTER"),
        ("Contact", f"<sip:{ID}@192.0.2.10:5060>"),
        ("Max-Forwards", "70"),
        ("X-GB-Ver", "3.0"),
        ("User-Agent", "Embedded Net DVR/NVR/DVS"),
        ("Expires", "86400"),
    ]
    if authorization:
        headers.insert(6, ("Authorization", authorization))
    return serialize(Request.new("REGISTER", URI, headers))


AUTHORIZATION = DigestClient(ID, PASSWORD).credentials(Challenge(REALM, "b7c1d94e20af5836", "MD5"), "REGISTER", URI)
DATAGRAM = register(1, 2, AUTHORIZATION)


def read_by_email(data: bytes) -> tuple[str, str, int]:
    """Split off the first line, leave the headers to the standard library and read the same three fields."""
    first, _, rest = data.partition(b"\r\n")
    message = email.parser.BytesParser(policy=email.policy.compat32).parsebytes(rest)
    sender = str(message["From"])
    user = sender.partition("sip:")[2].partition("@")[0]
    return first.split()[0].decode(), user, int(str(message["CSeq"]).split()[0])


def read_by_us(data: bytes) -> tuple[str, str, int]:
    request = parse(data)
    assert isinstance(request, Request)
    return request.method, request.from_.user, request.cseq[0]


@pytest.mark.benchmark(group="sip.parse")
@pytest.mark.parametrize("read", [read_by_us, read_by_email], ids=["core", "model"])
def test_parse(benchmark: Any, read: Callable[[bytes], tuple[str, str, int]]) -> None:
    out = benchmark(lambda: [read(DATAGRAM) for _ in range(COUNT)])
    assert out[0] == ("REGISTER", ID, 2)
    benchmark.extra_info["us_per_message"] = benchmark.stats["median"] / COUNT * 1e6


@pytest.mark.benchmark(group="sip.serialize")
def test_serialize(benchmark: Any) -> None:
    request = parse(DATAGRAM)
    out = benchmark(lambda: [serialize(request) for _ in range(COUNT)])
    assert out[0] == DATAGRAM
    benchmark.extra_info["us_per_message"] = benchmark.stats["median"] / COUNT * 1e6


@pytest.mark.benchmark(group="sip.digest")
def test_digest(benchmark: Any) -> None:
    server = Authenticator(REALM, offer_qop=False)
    known = {"MD5": ha1(ID, REALM, PASSWORD)}
    client = DigestClient(ID, PASSWORD)

    def fresh() -> tuple[tuple[list[str]], dict[str, Any]]:
        return (
            [client.credentials(Challenge(REALM, server.nonces.issue(1.0)), "REGISTER", URI) for _ in range(COUNT)],
        ), {}

    def verify(texts: list[str]) -> list[Verdict]:
        return [server.verify(Authorization.parse(text), "REGISTER", known, 1.0) for text in texts]

    assert benchmark.pedantic(verify, setup=fresh, rounds=20) == [Verdict.OK] * COUNT
    benchmark.extra_info["us_per_request"] = benchmark.stats["median"] / COUNT * 1e6


@pytest.mark.benchmark(group="sip.register")
def test_register(benchmark: Any) -> None:
    """Bytes in, bytes out: the second REGISTER of each exchange, with its digest; transactions stay for timer J."""
    server = Authenticator(REALM, offer_qop=False)
    known = {"MD5": ha1(ID, REALM, PASSWORD)}
    client = DigestClient(ID, PASSWORD)
    agent, numbers = UserAgent(), count(1)
    clock = [0.0]

    def serve(data: bytes, now: float) -> bytes:
        (incoming,) = agent.push(Received(parse(data), FLOW), now)
        assert isinstance(incoming, Incoming)
        text = incoming.request.header("Authorization")
        if text is None:
            answer = Response.to(incoming.request, 401, headers={"WWW-Authenticate": server.challenges(now)[0]})
        else:
            verdict = server.verify(Authorization.parse(text), "REGISTER", known, now)
            headers = {"Contact": incoming.request.header("Contact") or "", "Expires": "86400"}
            answer = Response.to(incoming.request, 200 if verdict is Verdict.OK else 403, headers=headers)
        (sent,) = agent.push(Reply(incoming.handle, answer), now)
        assert isinstance(sent, Send)
        return sent.data

    def requests() -> tuple[tuple[list[tuple[bytes, Callable[[bytes], bytes]]]], dict[str, Any]]:
        clock[0] += 0.05
        made = []
        for _ in range(COUNT):
            number = next(numbers)

            def second(refused: bytes, number: int = number) -> bytes:
                challenge = parse(refused)
                assert isinstance(challenge, Response)
                return register(number, 2, client.answer(challenge, "REGISTER", URI)[1])

            made.append((register(number, 1), second))
        return (made,), {}

    def first(batch: list[tuple[bytes, Callable[[bytes], bytes]]]) -> list[bytes]:
        return [serve(data, clock[0]) for data, _ in batch]

    def prepare() -> tuple[tuple[list[bytes]], dict[str, Any]]:
        (batch,), _ = requests()
        return ([second(answer) for (_, second), answer in zip(batch, first(batch), strict=True)],), {}

    def run(datagrams: list[bytes]) -> list[bytes]:
        return [serve(data, clock[0]) for data in datagrams]

    out = benchmark.pedantic(run, setup=prepare, rounds=30)
    assert all(data.startswith(b"SIP/2.0 200") for data in out)
    benchmark.extra_info["requests_per_second"] = COUNT / benchmark.stats["median"]
