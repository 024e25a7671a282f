"""The registrar: who is there, since when, and where to reach it (GB/T 28181-2022 section 9.1, 9.6 and Annex J; RFC
3261 section 10).

One machine holds every device's binding, expiry and heartbeat in one heap. It answers REGISTER with digest, answers
every MESSAGE of a bound device with an empty 200 before anyone looks at its content, and refuses everybody else. A
binding is a flow: requests count only when they come from where the device last authenticated. What an unknown id and
a wrong password get is the same, and takes as long. Leaves out redirection by 302, and subscriptions.
"""

import heapq
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal, Protocol

from gbgw.base import limits
from gbgw.base.errors import AuthError, ManscdpError, SipError
from gbgw.base.machine import Tick
from gbgw.gb import manscdp
from gbgw.gb.manscdp import Document, Edition, Keepalive
from gbgw.gb.times import BEIJING
from gbgw.sip.compose import ACCEPT, ALLOW
from gbgw.sip.digest import Authenticator, Authorization, Verdict, ha1
from gbgw.sip.flow import Flow
from gbgw.sip.message import HeaderSource, NameAddr, Request, Response

DEFAULT_EXPIRES: Final = 86_400  # seconds, when neither Contact nor Expires says
KEEPALIVE_SECONDS: Final = 60.0  # the standard's interval
KEEPALIVE_COUNT: Final = 3  # the standard's number of missed ones
_LATER_BYTES: Final = 8 << 10  # 2 ms of reading; a larger body is read elsewhere (ReadBody), after its 200 has left
_STEADY: Final = 1.25  # two intervals whose ratio is below this are the device's own

OfflineReason = Literal["unregistered", "expired", "keepalive", "transport", "removed"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a device authenticates with: HA1 for realm = sip.domain and user = device id, never the password.

    sha256_capable: offer SHA-256 beside MD5; many firmwares read only one challenge. nonce_reuse: the device repeats
    its old Authorization. date_header: put Date into 200, from which devices set their clock.
    """

    ha1_md5: str
    ha1_sha256: str | None = None
    sha256_capable: bool = False
    enabled: bool = True
    nonce_reuse: bool = False
    date_header: bool = True

    @classmethod
    def of(cls, device_id: str, realm: str, password: str, *, sha256_capable: bool = False) -> "Credentials":
        """Make them from a password, e.g. the common one of the configuration."""
        sha256 = ha1(device_id, realm, password, "SHA-256") if sha256_capable else None
        return cls(ha1(device_id, realm, password), sha256, sha256_capable)


class Directory(Protocol):
    """What the registrar asks about devices; answered from memory, since nothing here waits."""

    def credentials(self, device_id: str) -> Credentials | None:
        """Return what `device_id` authenticates with, None when such a device may not register."""

    def owns(self, device_id: str, channel_id: str) -> bool:
        """Tell whether `channel_id` is a channel of `device_id`, in whose name the device may send."""


@dataclass(frozen=True, slots=True)
class Binding:
    """Where a device is. expires_at: Unix seconds, without grace. contact: as the device wrote it, only echoed."""

    device_id: str
    flow: Flow
    contact: str
    call_id: str
    cseq: int
    expires_at: float
    edition: Edition = manscdp.DEFAULT_EDITION
    user_agent: str = ""


# Events


@dataclass(frozen=True, slots=True)
class RequestArrived:
    """A request that the user agent handed up. dialog: handle of the dialog it came in, if any."""

    handle: int
    request: Request
    flow: Flow
    dialog: int | None = None


@dataclass(frozen=True, slots=True)
class BodyRead:
    """What came of a ReadBody: a document, or the error why there is none."""

    device_id: str
    outcome: Document | ManscdpError
    dialog: int | None = None


@dataclass(frozen=True, slots=True)
class FlowGone:
    """A TCP connection closed."""

    flow: Flow


@dataclass(frozen=True, slots=True)
class Dropped:
    """The operator removed or disabled the device or changed its password: it must register anew."""

    device_id: str


@dataclass(frozen=True, slots=True)
class HeartbeatSet:
    """The device's keepalive interval and count are known, from its BasicParam or from the operator."""

    device_id: str
    interval_seconds: float
    count: int


@dataclass(frozen=True, slots=True)
class Restored:
    """What the store knew at start."""

    bindings: tuple[Binding, ...]


Event = RequestArrived | BodyRead | FlowGone | Dropped | HeartbeatSet | Restored | Tick

# Effects


@dataclass(frozen=True, slots=True)
class Answer:
    """Send this answer through the user agent."""

    handle: int
    response: Response


@dataclass(frozen=True, slots=True)
class Registered:
    """A device came online (is_new), or is online with something changed: ask it who it is and what it has.

    rebooted: another Call-ID or a CSeq that fell: its dialogs of before are dead, unless media still flows.
    """

    device_id: str
    binding: Binding
    is_new: bool
    rebooted: bool


@dataclass(frozen=True, slots=True)
class Refreshed:
    """A device prolonged its registration; nothing else changed."""

    device_id: str
    binding: Binding


@dataclass(frozen=True, slots=True)
class Offline:
    device_id: str
    reason: OfflineReason


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A bound device sent a document; its 200 has been given already. dialog: handle of the dialog it came in, if
    any."""

    device_id: str
    document: Document
    dialog: int | None = None


@dataclass(frozen=True, slots=True)
class ReadBody:
    """Read this large body with `manscdp.parse`, away from the loop, and come back with BodyRead; its 200 has been
    given already."""

    device_id: str
    body: bytes
    dialog: int | None = None


@dataclass(frozen=True, slots=True)
class SaveBinding:
    binding: Binding


@dataclass(frozen=True, slots=True)
class ForgetBinding:
    device_id: str


@dataclass(frozen=True, slots=True)
class Counted:
    """A name for the tally, with what was seen."""

    name: str
    detail: str = ""


Effect = Answer | Registered | Refreshed | Offline | MessageReceived | ReadBody | SaveBinding | ForgetBinding | Counted


@dataclass(slots=True)
class _Device:
    """A device that is or was online. Deadlines are loop seconds."""

    device_id: str
    binding: Binding | None = None
    flow: Flow | None = None  # the last one, kept for learning the interval of a device that we took for dead
    expires_at: float = 0.0
    silent_at: float = 0.0
    scheduled_at: float | None = None  # of its one live entry in the heap
    interval: float = KEEPALIVE_SECONDS
    count: int = KEEPALIVE_COUNT
    kept_at: float | None = None  # last Keepalive
    gap: float | None = None  # between the two Keepalives before it
    last_seen: float = 0.0

    @property
    def due(self) -> float:
        return min(self.expires_at, self.silent_at)

    @property
    def silence(self) -> float:
        return self.interval * self.count

    def note_keepalive(self, now: float) -> None:
        """Learn an interval longer than the one expected from two steady gaps; a shorter one is safe as it is."""
        if self.kept_at is not None:
            gap = now - self.kept_at
            steady = self.gap is not None and max(gap, self.gap) < _STEADY * min(gap, self.gap)
            if steady and gap > self.interval:
                self.interval = min(gap, limits.KEEPALIVE_MAX_SECONDS)
            self.gap = gap
        self.kept_at = now


class Registrar:
    """Every device's registration and heartbeat."""

    __slots__ = (
        "_authenticator", "_by_flow", "_devices", "_directory", "_edition", "_failures", "_heap",
        "_longest_seconds", "_nobody", "_online", "_wall",
    )  # fmt: skip

    def __init__(
        self,
        domain: str,
        directory: Directory,
        wall: Callable[[], float],
        *,
        edition: Edition = "3.0",
        longest_seconds: int = limits.REGISTER_MAX_SECONDS,
        authenticator: Authenticator | None = None,
    ) -> None:
        """domain: the realm. wall: returns Unix seconds, for Date and for what the store keeps. edition: our
        X-GB-Ver. longest_seconds: the longest registration granted."""
        self._directory = directory
        self._wall = wall
        self._edition = edition
        self._longest_seconds = longest_seconds
        self._authenticator = authenticator or Authenticator(domain)
        self._nobody = Credentials.of("", domain, secrets.token_hex(16), sha256_capable=True)
        self._devices: OrderedDict[str, _Device] = OrderedDict()
        self._online = 0
        self._by_flow: dict[tuple[str, tuple[str, int], int], set[str]] = {}
        self._heap: list[tuple[float, str]] = []
        self._failures = Failures()

    @property
    def deadline(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    @property
    def finished(self) -> bool:
        return False

    @property
    def online(self) -> int:
        """How many devices are online."""
        return self._online

    def binding(self, device_id: str) -> Binding | None:
        """Return where `device_id` is now, None when it is offline."""
        device = self._devices.get(device_id)
        return device.binding if device is not None else None

    def bindings(self) -> Iterable[Binding]:
        return (device.binding for device in self._devices.values() if device.binding is not None)

    def last_seen(self, device_id: str) -> float | None:
        """Return the loop seconds of the last valid request of `device_id` since the start, None when there was
        none."""
        device = self._devices.get(device_id)
        return device.last_seen if device is not None and device.last_seen else None

    def push(self, event: Event, now: float) -> Sequence[Effect]:
        """Mark offline who is overdue, then take `event`."""
        effects: list[Effect] = []
        self._expire(now, effects)
        match event:
            case RequestArrived():
                self._request(event, now, effects)
            case BodyRead(device_id, outcome, dialog):
                self._take(device_id, outcome, dialog, now, effects)
            case FlowGone(flow):
                for device_id in sorted(self._by_flow.get(_flow_key(flow), ())):
                    self._drop(self._devices[device_id], "transport", effects)
            case Dropped(device_id):
                device = self._devices.pop(device_id, None)
                if device is not None and device.binding is not None:
                    self._drop(device, "removed", effects)
            case HeartbeatSet(device_id, interval, count):
                self._set_heartbeat(device_id, interval, count, now)
            case Restored(bindings):
                for binding in bindings:
                    self._restore(binding, now, effects)
        return effects

    # Requests

    def _request(self, event: RequestArrived, now: float, effects: list[Effect]) -> None:
        try:
            match event.request.method:
                case "REGISTER":
                    self._register(event, now, effects)
                case "MESSAGE" | "NOTIFY":
                    self._message(event, now, effects)
                case "OPTIONS":
                    effects.append(_answer(event, 200, {"Allow": ALLOW, "Accept": ACCEPT}))
                case "INVITE" | "SUBSCRIBE" | "INFO" | "UPDATE":
                    known = self._sender(event) is not None
                    refusal = {"INVITE": 488, "SUBSCRIBE": 489, "INFO": 481, "UPDATE": 481}[event.request.method]
                    effects.append(_answer(event, refusal if known else 403))
                    effects.append(
                        Counted("registrar.unwanted" if known else "registrar.stranger", event.request.method)
                    )
                case _:
                    effects.append(_answer(event, 405, {"Allow": ALLOW}))
        except SipError as error:
            headers = {"X-GB-Ver": self._edition} if event.request.method == "REGISTER" else {}
            effects += [_answer(event, error.status, headers), Counted("registrar.malformed", error.message)]

    def _message(self, event: RequestArrived, now: float, effects: list[Effect]) -> None:
        device = self._sender(event)
        if device is None:
            effects.append(_answer(event, 403 if event.request.method == "MESSAGE" else 481))
            effects.append(Counted("registrar.stranger", str(event.flow)))
            self._overhear(event, now)
            return
        effects.append(_answer(event, 200))
        self._alive(device, now)
        body = event.request.body
        if len(body) > _LATER_BYTES:
            effects.append(ReadBody(device.device_id, body, event.dialog))
            return
        outcome: Document | ManscdpError
        try:
            outcome = manscdp.parse(body)
        except ManscdpError as error:
            outcome = error
        self._take(device.device_id, outcome, event.dialog, now, effects)

    def _take(
        self,
        device_id: str,
        outcome: Document | ManscdpError,
        dialog: int | None,
        now: float,
        effects: list[Effect],
    ) -> None:
        if isinstance(outcome, ManscdpError):
            effects.append(Counted("registrar.unreadable", f"{device_id}: {outcome.message}"))
            return
        document = outcome
        device = self._devices.get(device_id)
        if device is None or device.binding is None:
            return  # gone while its document was read
        if isinstance(document.payload, Keepalive):
            device.note_keepalive(now)
            self._alive(device, now)
        effects.append(MessageReceived(device_id, document, dialog))

    def _sender(self, event: RequestArrived) -> _Device | None:
        """Return the device bound to the flow in whose name, or in whose channel's name, the request comes."""
        claimed = event.request.from_.user
        bound = self._by_flow.get(_flow_key(event.flow))
        if not bound:
            return None
        if claimed in bound:
            return self._devices[claimed]
        owner = next((each for each in sorted(bound) if self._directory.owns(each, claimed)), None)
        if owner is None and len(bound) == 1 and self._speaks_oddly(event):
            owner = next(iter(bound))
        return self._devices[owner] if owner is not None else None

    @staticmethod
    def _speaks_oddly(event: RequestArrived) -> bool:
        """A MESSAGE from a device's own address in the name of whom it is sent to, or of anybody inside a dialog, whose
        peer the user agent has checked: so recorders tell the end of a playback (reference quirk 12)."""
        if event.request.method != "MESSAGE":
            return False
        return event.dialog is not None or event.request.from_.user == event.request.to_.user

    def _overhear(self, event: RequestArrived, now: float) -> None:
        """Learn the interval of a device that we took for dead too early; its Keepalive is refused all the same."""
        device = self._devices.get(event.request.from_.user)
        if (
            device is not None
            and device.binding is None
            and device.flow == event.flow
            and b"eepalive" in event.request.body[:512]
        ):
            device.note_keepalive(now)

    # REGISTER

    def _register(self, event: RequestArrived, now: float, effects: list[Effect]) -> None:
        request = event.request
        device_id = request.to_.user
        if request.from_.user != device_id:
            raise SipError("The From and To of a REGISTER differ.", status=403)
        # What can fail to parse fails before the digest is looked at, the same for every id.
        cseq = request.cseq[0]
        call_id = request.call_id
        contacts = request.contacts
        source = event.flow.remote[0]
        device = self._devices.get(device_id)
        at_home = (
            device is not None
            and device.binding is not None
            and _flow_key(device.binding.flow) == _flow_key(event.flow)
        )
        if self._failures.blocked(source, device_id, now) and not at_home:
            self._refuse(event, 403, effects)
            effects.append(Counted("registrar.throttled", source))
            return
        credentials = self._directory.credentials(device_id)
        usable = credentials is not None and credentials.enabled
        known = credentials if credentials is not None and usable else self._nobody
        offers_sha256 = usable and known.sha256_capable and known.ha1_sha256 is not None
        algorithms = ("SHA-256", "MD5") if offers_sha256 else ("MD5",)
        authorization = _authorization(request, self._authenticator.realm)
        if authorization is None:
            self._challenge(event, now, algorithms, effects)
            return
        verdict = self._authenticator.verify(
            authorization,
            "REGISTER",
            {"MD5": known.ha1_md5, **({"SHA-256": known.ha1_sha256} if offers_sha256 and known.ha1_sha256 else {})},
            now,
            method_text=request.method_text,
            nonce_reuse=usable and known.nonce_reuse,
        )
        if not usable or authorization.username != device_id or verdict is Verdict.WRONG:
            self._failures.add(source, device_id, now)
            self._refuse(event, 403, effects)
            effects.append(Counted("registrar.auth_failed", f"{device_id[:32]} from {source}"))
            return
        if verdict is Verdict.STALE:
            self._challenge(event, now, algorithms, effects, stale=True)
            return
        self._failures.clear(source, device_id)
        expires = _expires(request, contacts)
        if contacts and contacts[0].address == "*" and expires != 0:
            raise SipError("Contact * goes with Expires 0 only.")
        if expires == 0:
            self._unregister(event, known, effects)
            return
        expires = min(max(expires, limits.REGISTER_MIN_SECONDS), self._longest_seconds)
        if (device is None or device.binding is None) and self._online >= limits.DEVICES:
            effects.append(_answer(event, 503, {"X-GB-Ver": self._edition, "Retry-After": "60"}))
            effects.append(Counted("registrar.full", device_id))
            return
        contact = contacts[0].address if contacts else f"sip:{device_id}@{event.flow.remote[0]}:{event.flow.remote[1]}"
        binding = Binding(
            device_id,
            event.flow,
            contact,
            call_id,
            cseq,
            self._wall() + expires,
            manscdp.edition_of(request.header("X-GB-Ver")),
            request.user_agent[:128],
        )
        headers = [
            ("Contact", f"<{contact}>;expires={expires}"),
            ("Expires", str(expires)),
            *self._standard_headers(known),
        ]
        effects.append(_answer(event, 200, headers))
        self._bind(binding, expires, now, effects)

    def _unregister(self, event: RequestArrived, credentials: Credentials, effects: list[Effect]) -> None:
        effects.append(_answer(event, 200, [("Expires", "0"), *self._standard_headers(credentials)]))
        device = self._devices.get(event.request.to_.user)
        if device is not None and device.binding is not None:
            self._drop(device, "unregistered", effects)

    def _standard_headers(self, credentials: Credentials) -> list[tuple[str, str]]:
        date = [("Date", beijing(self._wall()))] if credentials.date_header else []
        return [*date, ("X-GB-Ver", self._edition)]

    def _challenge(
        self,
        event: RequestArrived,
        now: float,
        algorithms: Sequence[str],
        effects: list[Effect],
        *,
        stale: bool = False,
    ) -> None:
        challenges = self._authenticator.challenges(now, stale=stale, algorithms=algorithms)
        headers = [*(("WWW-Authenticate", each) for each in challenges), ("X-GB-Ver", self._edition)]
        effects.append(_answer(event, 401, headers))
        if stale:
            effects.append(Counted("registrar.stale_nonce", event.request.to_.user[:32]))

    def _refuse(self, event: RequestArrived, status: int, effects: list[Effect]) -> None:
        effects.append(_answer(event, status, {"X-GB-Ver": self._edition}))

    # Bindings

    def _bind(self, binding: Binding, expires: float, now: float, effects: list[Effect]) -> None:
        device = self._device(binding.device_id)
        before = device.binding
        if before is None:
            self._online += 1
        else:
            self._unlink(before)
        device.binding = binding
        device.flow = binding.flow
        device.expires_at = now + expires + limits.BINDING_GRACE_SECONDS
        self._by_flow.setdefault(_flow_key(binding.flow), set()).add(binding.device_id)
        self._alive(device, now)
        self._schedule(device)
        effects.append(SaveBinding(binding))
        rebooted = before is not None and (before.call_id != binding.call_id or binding.cseq < before.cseq)
        moved = before is not None and (
            _flow_key(before.flow) != _flow_key(binding.flow) or before.edition != binding.edition
        )
        if before is None or rebooted or moved:
            effects.append(Registered(binding.device_id, binding, before is None, rebooted))
        else:
            effects.append(Refreshed(binding.device_id, binding))

    def _restore(self, binding: Binding, now: float, effects: list[Effect]) -> None:
        left = binding.expires_at - self._wall()
        usable = (
            binding.flow.reliable is False and left > -limits.BINDING_GRACE_SECONDS and self._online < limits.DEVICES
        )
        if not usable or self._directory.credentials(binding.device_id) is None:
            effects.append(ForgetBinding(binding.device_id))
        elif self.binding(binding.device_id) is None:
            self._bind(replace(binding), min(left, self._longest_seconds), now, effects)

    def _drop(self, device: _Device, reason: OfflineReason, effects: list[Effect]) -> None:
        assert device.binding is not None
        self._unlink(device.binding)
        device.binding = None
        device.scheduled_at = None
        self._online -= 1
        effects += [ForgetBinding(device.device_id), Offline(device.device_id, reason)]

    def _unlink(self, binding: Binding) -> None:
        key = _flow_key(binding.flow)
        bound = self._by_flow[key]
        bound.discard(binding.device_id)
        if not bound:
            del self._by_flow[key]

    def _device(self, device_id: str) -> _Device:
        device = self._devices.get(device_id)
        if device is None:
            device = self._devices[device_id] = _Device(device_id)
        self._devices.move_to_end(device_id)
        while len(self._devices) > limits.DEVICES:  # only offline ones can be in excess
            stale = next((each for each in self._devices.values() if each.binding is None), None)
            if stale is None:
                break
            del self._devices[stale.device_id]
        return device

    # Time

    def _alive(self, device: _Device, now: float) -> None:
        device.last_seen = now
        device.silent_at = now + device.silence

    def _set_heartbeat(self, device_id: str, interval: float, count: int, now: float) -> None:
        device = self._devices.get(device_id)
        if device is None:
            return
        device.interval = min(max(interval, limits.KEEPALIVE_MIN_SECONDS), limits.KEEPALIVE_MAX_SECONDS)
        device.count = min(max(count, 1), 255)
        if device.binding is not None:
            device.silent_at = now + device.silence
            self._schedule(device)

    def _schedule(self, device: _Device) -> None:
        """Make sure the heap wakes us no later than the device is due; an entry that is too early is put off when it
        comes."""
        if device.scheduled_at is None or device.due < device.scheduled_at:
            device.scheduled_at = device.due
            heapq.heappush(self._heap, (device.due, device.device_id))
            if len(self._heap) > 4 * len(self._devices) + 1_024:  # entries of former bindings
                devices = self._devices.values()
                self._heap = [(each.scheduled_at, each.device_id) for each in devices if each.scheduled_at is not None]
                heapq.heapify(self._heap)

    def _expire(self, now: float, effects: list[Effect]) -> None:
        while self._heap and self._heap[0][0] <= now:
            at, device_id = heapq.heappop(self._heap)
            device = self._devices.get(device_id)
            if device is None or device.binding is None or device.scheduled_at != at:
                continue
            device.scheduled_at = None
            if device.due > now:
                self._schedule(device)
            else:
                self._drop(device, "expired" if device.expires_at <= now else "keepalive", effects)


class Failures:
    """Failed authentications by (source, id) and by source, each in windows of limits.AUTH_FAILURE_SECONDS.

    There is no count by id alone: with it a stranger could lock out a camera by guessing in its name.
    """

    __slots__ = ("_windows",)

    def __init__(self) -> None:
        self._windows: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()  # -> (start, failures)

    def __len__(self) -> int:
        return len(self._windows)

    def add(self, source: str, device_id: str, now: float) -> None:
        for key in ((source, device_id[:64]), (source, "")):
            start, count = self._windows.pop(key, (now, 0))
            if now - start >= limits.AUTH_FAILURE_SECONDS:
                start, count = now, 0
            self._windows[key] = (start, count + 1)
        while len(self._windows) > limits.AUTH_SOURCES:
            self._windows.popitem(last=False)

    def blocked(self, source: str, device_id: str, now: float) -> bool:
        return self._at_least(limits.AUTH_FAILURES, (source, device_id[:64]), now) or self._at_least(
            limits.AUTH_SOURCE_FAILURES, (source, ""), now
        )

    def clear(self, source: str, device_id: str) -> None:
        self._windows.pop((source, device_id[:64]), None)

    def _at_least(self, ceiling: int, key: tuple[str, str], now: float) -> bool:
        start, count = self._windows.get(key, (now, 0))
        return count >= ceiling and now - start < limits.AUTH_FAILURE_SECONDS


def beijing(wall_seconds: float) -> str:
    """Return the Date of a 200 to REGISTER: Beijing time with milliseconds and no zone, YYYY-MM-DDTHH:MM:SS.mmm."""
    moment = datetime.fromtimestamp(wall_seconds, BEIJING).replace(tzinfo=None)
    return moment.isoformat(timespec="milliseconds")


def _flow_key(flow: Flow) -> tuple[str, tuple[str, int], int]:
    """What makes two flows the same peer: the connection for TCP, the remote address for UDP."""
    return (flow.transport, flow.remote, flow.connection)


def _answer(event: RequestArrived, status: int, headers: HeaderSource = ()) -> Answer:
    return Answer(event.handle, Response.to(event.request, status, headers=headers))


def _authorization(request: Request, realm: str) -> Authorization | None:
    """Return the first Digest credentials for our realm.

    Without any, or with those of another realm, which some devices keep from another platform, the answer is a
    challenge.
    """
    for text in request.headers.all("Authorization"):
        try:
            authorization = Authorization.parse(text)
        except AuthError:
            continue
        if authorization.realm == realm:
            return authorization
    return None


def _expires(request: Request, contacts: Sequence[NameAddr]) -> int:
    """Return the wanted seconds: the Contact's parameter, else the Expires header, else the default."""
    text = contacts[0].param("expires") if contacts else None
    if text is not None and text.isascii() and text.isdigit() and len(text) <= 10:
        return int(text)
    return request.expires if request.expires is not None else DEFAULT_EXPIRES
