"""A device's registration: REGISTER with digest, refresh, keepalive, unregistering (GB/T 28181-2022 sections 9.1, 9.6).

sans-IO. Leaves out: 302 redirection, certificates.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from gbgw.base import limits
from gbgw.base.errors import AuthError
from gbgw.device.options import DeviceOptions
from gbgw.gb import manscdp
from gbgw.sip.digest import Challenge, DigestClient
from gbgw.sip.events import Ask, Failed
from gbgw.sip.events import Final as FinalAnswer
from gbgw.sip.flow import Flow
from gbgw.sip.message import Request, Response

REFRESH_AT: Final = 0.8  # of the granted expiry
CLOSING_SECONDS: Final = 1.5  # for the parting REGISTER and its challenge


class State(Enum):
    IDLE = "idle"  # waits for a flow or for the next attempt
    REGISTERING = "registering"
    REGISTERED = "registered"
    LEAVING = "leaving"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Connect:
    """Open the way to the platform and answer with a Connected event; on TCP a new connection."""


@dataclass(frozen=True, slots=True)
class Registered:
    expires: int


@dataclass(frozen=True, slots=True)
class Unregistered:
    """The platform is out of reach or refused: sessions end, an attempt follows by itself."""

    reason: str


@dataclass(frozen=True, slots=True)
class Left:
    """The goodbye is over, answered or not."""


Effect = Ask | Connect | Registered | Unregistered | Left


class Registration:
    """Keeps one device registered. Handles of its requests are its own; other answers are passed over."""

    def __init__(self, options: DeviceOptions, new_handle: Callable[[], int], call_id: str, tag: str) -> None:
        self._options = options
        self._new_handle = new_handle
        self._call_id = call_id
        self._tag = tag
        self._random = random.Random(options.seed)
        self._digest = DigestClient(
            options.username or options.device_id,
            options.password,
            make_cnonce=lambda: f"{self._random.getrandbits(64):016x}",
        )
        self._cseq = 0
        self._sn = 0
        self._flow: Flow | None = None
        self._timers: dict[str, float] = {}
        self._register: int | None = None  # handle of the REGISTER under way
        self._answered = 0  # challenges answered in this attempt
        self._keepalives: dict[int, float] = {}
        self._misses = 0
        self._expires = options.expires_seconds
        self.state = State.IDLE

    @property
    def deadline(self) -> float | None:
        return min(self._timers.values(), default=None)

    @property
    def flow(self) -> Flow | None:
        return self._flow

    def next_sn(self) -> int:
        """Return the next SN of this device's own messages, 1 to 2^31 - 1."""
        self._sn = self._sn % 0x7FFF_FFFF + 1
        return self._sn

    def start(self) -> Sequence[Effect]:
        return (Connect(),)

    def connected(self, flow: Flow, now: float) -> Sequence[Effect]:
        """The way to the platform is open."""
        self._flow = flow
        if self.state in (State.LEAVING, State.GONE):
            return ()
        return self._attempt(now)

    def disconnected(self, reason: str, now: float) -> Sequence[Effect]:
        """The TCP connection is gone, or could not be made."""
        self._flow = None
        if self.state in (State.LEAVING, State.GONE):
            return self._gone()
        return self._failed(reason, now)

    def stop(self, now: float) -> Sequence[Effect]:
        """Unregister; Left follows in any case."""
        if self.state in (State.LEAVING, State.GONE):
            return ()
        registered = self.state in (State.REGISTERED, State.REGISTERING)
        self._timers.clear()
        self._keepalives.clear()
        if not registered or self._flow is None:
            return self._gone()
        self.state = State.LEAVING
        self._timers["closing"] = now + CLOSING_SECONDS
        self._answered = 0
        return self._send_register(0)

    def tick(self, now: float) -> Sequence[Effect]:
        """Fire what is due."""
        effects: list[Effect] = []
        for name in [name for name, at in self._timers.items() if at <= now]:
            self._timers.pop(name, None)
            if name == "closing":
                effects += self._gone()
            elif name == "keepalive":
                effects += self._keepalive(now)
            elif name == "refresh":
                effects += self._attempt(now, refresh=True)
            elif name == "retry":
                effects += (Connect(),) if self._flow is None else self._attempt(now)
        return effects

    def answered(self, event: FinalAnswer | Failed, now: float) -> Sequence[Effect]:
        """Take the end of one of our requests; () when it is not ours."""
        if event.handle == self._register:
            self._register = None
            if isinstance(event, Failed):
                return self._gone() if self.state is State.LEAVING else self._failed(f"REGISTER {event.reason}", now)
            return self._take_answer(event.response, now)
        if self._keepalives.pop(event.handle, None) is None or self.state is not State.REGISTERED:
            return ()
        if isinstance(event, FinalAnswer):
            if event.response.status < 300:
                self._misses = 0
                return ()
            if event.response.status in (401, 403, 404, 481):  # the platform does not know us any more
                return self._lost(f"keepalive refused with {event.response.status}", now)
        self._misses += 1
        if self._misses < self._options.keepalive_misses:
            return ()
        return self._lost(f"{self._misses} keepalives without answer", now)

    def _take_answer(self, response: Response, now: float) -> Sequence[Effect]:
        leaving = self.state is State.LEAVING
        if response.status in (401, 407):
            effects = self._answer_challenge(response)
            if effects:
                return effects
        if leaving:
            return self._gone()
        if response.status == 423 and (raised := _number(response.header("Min-Expires"))) > self._expires:
            self._expires = min(raised, limits.REGISTER_MAX_SECONDS)
            return self._send_register(self._expires)
        if not 200 <= response.status < 300:
            return self._failed(f"REGISTER refused with {response.status}", now)
        contact = response.contact
        granted = _number(contact.param("expires")) if contact is not None and contact.param("expires") else 0
        granted = granted or response.expires or self._expires
        self.state = State.REGISTERED
        self._misses = 0
        self._timers.pop("retry", None)
        self._timers["refresh"] = now + max(1.0, granted * REFRESH_AT)
        self._timers.setdefault("keepalive", now + self._options.keepalive_seconds)
        return (Registered(granted),)

    def _answer_challenge(self, response: Response) -> Sequence[Effect]:
        """Return the REGISTER that answers a challenge; () when answering is of no use (reference 2.8, UAC side)."""
        text = response.header("WWW-Authenticate") or response.header("Proxy-Authenticate") or ""
        try:
            stale = Challenge.parse(text).stale
            if self._answered >= (2 if stale else 1):
                return ()
            header = self._digest.answer(response, "REGISTER", self._options.server_uri)
        except AuthError:
            return ()
        self._answered += 1
        return self._send_register(0 if self.state is State.LEAVING else self._expires, header)

    def _attempt(self, now: float, *, refresh: bool = False) -> Sequence[Effect]:
        if self._register is not None:
            return ()
        if not refresh:
            self.state = State.REGISTERING
        self._answered = 0
        return self._send_register(self._expires)

    def _send_register(self, expires: int, authorization: tuple[str, str] | None = None) -> Sequence[Effect]:
        if self._flow is None:
            return ()
        self._cseq += 1
        options, own = self._options, self._options.address_of_record
        headers = [
            ("From", f"<{own}>;tag={self._tag}"),
            ("To", f"<{own}>"),
            ("Call-ID", self._call_id),
            ("CSeq", f"{self._cseq} REGISTER"),
            ("Contact", contact_of(options, self._flow)),
            ("Expires", str(expires)),
        ]
        if authorization is not None:
            headers.append(authorization)
        if options.edition is not None:
            headers.append(("X-GB-Ver", options.edition))
        self._register = self._new_handle()
        return (Ask(self._register, Request.new("REGISTER", options.server_uri, headers), self._flow),)

    def _keepalive(self, now: float) -> Sequence[Effect]:
        self._timers["keepalive"] = now + self._options.keepalive_seconds
        if self._flow is None or self.state is not State.REGISTERED:
            return ()
        handle = self._new_handle()
        self._keepalives[handle] = now
        body = manscdp.keepalive(self.next_sn(), self._options.device_id)
        return (Ask(handle, message(self._options, body), self._flow),)

    def _lost(self, reason: str, now: float) -> Sequence[Effect]:
        """The platform is offline for us: register again at once."""
        self._timers.clear()
        self._keepalives.clear()
        self._misses = 0
        return (Unregistered(reason), *self._attempt(now))

    def _failed(self, reason: str, now: float) -> Sequence[Effect]:
        self.state = State.IDLE
        self._register = None
        self._keepalives.clear()
        self._timers.clear()
        wait = self._options.retry_seconds * (1 + 0.5 * self._random.random())
        self._timers["retry"] = now + wait
        return (Unregistered(reason),)

    def _gone(self) -> Sequence[Effect]:
        if self.state is State.GONE:
            return ()
        self.state = State.GONE
        self._timers.clear()
        self._register = None
        return (Left(),)


def contact_of(options: DeviceOptions, flow: Flow) -> str:
    """Return the Contact value by which the platform reaches the device."""
    host = f"[{flow.local[0]}]" if ":" in flow.local[0] else flow.local[0]
    transport = ";transport=tcp" if flow.reliable else ""
    return f"<sip:{options.device_id}@{host}:{flow.local[1]}{transport}>"


def message(options: DeviceOptions, body: bytes) -> Request:
    """Return a MESSAGE from the device to its platform."""
    headers = [("From", f"<{options.address_of_record}>"), ("To", f"<{options.server_uri}>")]
    return Request.new("MESSAGE", options.server_uri, headers, body, manscdp.CONTENT_TYPE)


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else 0
