"""A platform under test and devices that talk to it, as values: no socket, no clock."""

from dataclasses import dataclass, field
from typing import TypeVar

from gbgw.gb.registrar import Answer, Credentials, Effect, Registrar, RequestArrived
from gbgw.sip.digest import Challenge, DigestClient
from gbgw.sip.flow import Flow
from gbgw.sip.message import Request, Response

T = TypeVar("T")

DOMAIN = "3402000000"
PLATFORM = "34020000002000000001"
CAMERA = "34020000001320000001"
RECORDER = "34020000001180000001"
PASSWORD = "12345678"
WALL = 1_770_077_730.12  # 2026-02-03T08:15:30.120 in Beijing


def udp(host: str = "192.0.2.10", port: int = 5060) -> Flow:
    return Flow("udp", ("198.51.100.5", 5060), (host, port))


def tcp(connection: int, host: str = "192.0.2.10", port: int = 40_000) -> Flow:
    return Flow("tcp", ("198.51.100.5", 5060), (host, port), connection)


@dataclass
class Book:
    """A Directory."""

    known: dict[str, Credentials] = field(default_factory=dict)
    channels: set[tuple[str, str]] = field(default_factory=set)

    def credentials(self, device_id: str) -> Credentials | None:
        return self.known.get(device_id)

    def owns(self, device_id: str, channel_id: str) -> bool:
        return (device_id, channel_id) in self.channels


def book(*device_ids: str) -> Book:
    return Book({each: Credentials.of(each, DOMAIN, PASSWORD) for each in device_ids or (CAMERA,)})


class Peer:
    """One device: makes requests and answers challenges."""

    def __init__(
        self, registrar: Registrar, device_id: str = CAMERA, flow: Flow | None = None, password: str = PASSWORD
    ) -> None:
        self.registrar = registrar
        self.device_id = device_id
        self.flow = flow or udp()
        self.call_id = "reg1"
        self.cseq = 0
        self.digest = DigestClient(device_id, password)
        self.uri = f"sip:{PLATFORM}@{DOMAIN}"
        self.version: str | None = None

    def request(self, method: str, body: bytes = b"", from_id: str | None = None, /, **headers: str) -> Request:
        self.cseq += 1
        sender = from_id or self.device_id
        target = sender if method == "REGISTER" else PLATFORM
        lines = {
            "Via": f"SIP/2.0/UDP {self.flow.remote[0]}:{self.flow.remote[1]};rport;branch=z9hG4bK{self.cseq}",
            "From": f"<sip:{sender}@{DOMAIN}>;tag=t",
            "To": f"<sip:{target}@{DOMAIN}>",
            "Call-ID": self.call_id,
            "CSeq": f"{self.cseq} {method}",
        }
        if method == "REGISTER":
            lines["Contact"] = f"<sip:{sender}@10.0.0.7:5060>"
            if self.version:
                lines["X-GB-Ver"] = self.version
        lines.update({name.replace("_", "-"): value for name, value in headers.items()})
        return Request.new(method, self.uri, {name: value for name, value in lines.items() if value}, body)

    def send(self, request: Request, now: float) -> list[Effect]:
        return list(self.registrar.push(RequestArrived(self.cseq, request, self.flow), now))

    def register(self, now: float, **headers: str) -> list[Effect]:
        """Register with the digest; return the effects of the second REGISTER."""
        challenge = answer(self.send(self.request("REGISTER", **headers), now))
        assert challenge.status == 401
        name, value = self.digest.answer(challenge, "REGISTER", self.uri)
        return self.send(self.request("REGISTER", **{name: value}, **headers), now)

    def message(self, body: bytes, now: float, from_id: str | None = None) -> list[Effect]:
        headers = {"Content-Type": "Application/MANSCDP+xml"}
        return self.send(self.request("MESSAGE", body, from_id, **headers), now)


def answer(effects: list[Effect]) -> Response:
    """Return the one answer among `effects`."""
    answers = [effect.response for effect in effects if isinstance(effect, Answer)]
    assert len(answers) == 1, effects
    return answers[0]


def only(effects: list[Effect], kind: type[T]) -> list[T]:
    return [effect for effect in effects if isinstance(effect, kind)]


def challenge_of(response: Response) -> Challenge:
    return Challenge.parse(response.headers.all("WWW-Authenticate")[0])
