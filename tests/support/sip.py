"""A UserAgent on a virtual clock, and messages to push into it."""

from collections.abc import Iterable
from itertools import count
from typing import TypeVar

from gbgw.base.machine import TICK
from gbgw.sip.agent import Effect, Event, Received, Send, UserAgent
from gbgw.sip.flow import Flow
from gbgw.sip.message import Message, Request, Response
from gbgw.sip.parse import parse

UDP = Flow("udp", ("192.0.2.1", 5060), ("192.0.2.10", 5062))
UDP_OTHER = Flow("udp", ("192.0.2.1", 5060), ("192.0.2.66", 5062))
TCP = Flow("tcp", ("192.0.2.1", 5060), ("192.0.2.10", 40000), 7)
DEVICE, PLATFORM = "34020000001320000001", "34020000002000000001"

E = TypeVar("E")


class Bench:
    """Drives a UserAgent: `effects` holds (time, effect) of everything it ever said."""

    def __init__(self) -> None:
        tokens = count(1)
        self.agent = UserAgent(make_token=lambda: f"t{next(tokens)}")
        self.now = 100.0
        self.start = self.now
        self.effects: list[tuple[float, Effect]] = []

    def push(self, event: Event) -> list[Effect]:
        made = list(self.agent.push(event, self.now))
        self.effects += [(round(self.now - self.start, 6), effect) for effect in made]
        return made

    def receive(self, message: Message, flow: Flow = UDP) -> list[Effect]:
        return self.push(Received(message, flow))

    def run(self, seconds: float) -> list[Effect]:
        """Let time pass, firing each timer at its moment."""
        end, made = self.now + seconds, list[Effect]()
        while (at := self.agent.deadline) is not None and at <= end:
            self.now = max(self.now, at)
            fired = list(self.agent.push(TICK, self.now))
            self.effects += [(round(self.now - self.start, 6), effect) for effect in fired]
            made += fired
        self.now = end
        return made

    def run_out(self, limit: float = 1000.0) -> list[Effect]:
        """Let time pass until no timer is left."""
        made: list[Effect] = []
        while (at := self.agent.deadline) is not None:
            assert at - self.start < limit, "timers without end"
            made += self.run(max(0.0, at - self.now))
        return made

    def sent(self, method: str = "") -> list[tuple[float, Message]]:
        """Everything sent, or the requests `method`, with its time."""
        found = [(at, parse(effect.data)) for at, effect in self.effects if isinstance(effect, Send)]
        if not method:
            return found
        return [(at, message) for at, message in found if isinstance(message, Request) and message.method == method]

    def times(self, method: str) -> list[float]:
        return [at for at, _ in self.sent(method)]


def only(effects: Iterable[Effect], kind: type[E]) -> E:
    found = [effect for effect in effects if isinstance(effect, kind)]
    assert len(found) == 1, found
    return found[0]


def every(effects: Iterable[Effect], kind: type[E]) -> list[E]:
    return [effect for effect in effects if isinstance(effect, kind)]


def messages(effects: Iterable[Effect]) -> list[Message]:
    return [parse(effect.data) for effect in effects if isinstance(effect, Send)]


def invite(body: bytes = b"v=0\r\n") -> Request:
    """An INVITE as the platform asks for it."""
    headers = {"From": f"<sip:{PLATFORM}@3402000000>", "To": f"<sip:{DEVICE}@3402000000>"}
    return Request.new("INVITE", f"sip:{DEVICE}@192.0.2.10:5062", headers, body, "APPLICATION/SDP")


def message(body: bytes = b"<Query/>") -> Request:
    headers = {"From": f"<sip:{PLATFORM}@3402000000>", "To": f"<sip:{DEVICE}@3402000000>"}
    return Request.new("MESSAGE", f"sip:{DEVICE}@192.0.2.10:5062", headers, body, "Application/MANSCDP+xml")


def from_peer(
    method: str,
    *,
    branch: str = "z9hG4bKpeer1",
    cseq: int = 1,
    call_id: str = "c1@peer",
    to_tag: str = "",
    from_tag: str = "d1",
    headers: Iterable[tuple[str, str]] = (),
    cseq_method: str = "",
    via: str = "",
) -> Request:
    """A request as a device writes it."""
    made = [
        ("Via", via or f"SIP/2.0/UDP 10.0.0.5:5062;rport;branch={branch}"),
        ("From", f"<sip:{DEVICE}@3402000000>;tag={from_tag}" if from_tag else f"<sip:{DEVICE}@3402000000>"),
        ("To", f"<sip:{PLATFORM}@3402000000>" + (f";tag={to_tag}" if to_tag else "")),
        ("Call-ID", call_id),
        ("CSeq", f"{cseq} {cseq_method or method}"),
        ("Max-Forwards", "70"),
        *headers,
    ]
    return Request.new(method, f"sip:{PLATFORM}@3402000000", made)


def answer(
    request: Message, status: int, tag: str = "peer", contact: str = f"<sip:{DEVICE}@10.0.0.5:5062>"
) -> Response:
    """A device's answer to a request that it received."""
    assert isinstance(request, Request)
    made = Response.to(request, status, headers=[("Contact", contact)] if contact else [])
    if tag and not made.to_.tag:
        made = made.with_header("To", str(made.to_.with_tag(tag)))
    return made
