"""The device role: what a GB/T 28181 camera or NVR does, as one machine between the UserAgent and the media sender.

sans-IO. Its events are the UserAgent's effects and what the shell tells; its effects go to the UserAgent or to the
shell. Answers Catalog, DeviceInfo and the key frame command; `controls.py` knows the other commands and queries. What
nobody knows gets 200 and nothing more.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from gbgw.base import limits
from gbgw.base.errors import ManscdpError
from gbgw.base.machine import Tick
from gbgw.device import calls, controls, registration
from gbgw.device.calls import Calls
from gbgw.device.controls import Controls, TakePictures
from gbgw.device.options import DeviceOptions
from gbgw.device.quirks import BY_THE_BOOK, Behaviour
from gbgw.device.recordings import recordings
from gbgw.device.registration import Registration, State, message
from gbgw.gb import manscdp, records
from gbgw.gb.manscdp import CatalogItem, DeviceControl, DeviceInfo, Document, Edition
from gbgw.sip import events as sip
from gbgw.sip.events import Ask, Reply
from gbgw.sip.flow import Flow
from gbgw.sip.message import Message, Request, Response

MANUFACTURER: Final = "gbgw"
MODEL: Final = "simulated"
ALLOW: Final = "INVITE, ACK, INFO, CANCEL, BYE, OPTIONS, MESSAGE"

# Events from the shell


@dataclass(frozen=True, slots=True)
class Start:
    """Begin to register."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End every session, unregister; the role is finished soon after."""


@dataclass(frozen=True, slots=True)
class Connected:
    flow: Flow


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection could not be made, or closed."""

    reason: str


@dataclass(frozen=True, slots=True)
class MediaOpened:
    """local: what the answer says."""

    handle: int
    local: tuple[str, int]


@dataclass(frozen=True, slots=True)
class MediaFailed:
    handle: int


@dataclass(frozen=True, slots=True)
class MediaFinished:
    """A recording was sent to its end."""

    handle: int


@dataclass(frozen=True, slots=True)
class PicturesSent:
    """files: names of the snapshots that were uploaded."""

    pictures: TakePictures
    files: tuple[str, ...]


ShellEvent = Start | Stop | Connected | Disconnected | MediaOpened | MediaFailed | MediaFinished | PicturesSent
AgentEvent = (
    sip.Incoming | sip.Provisional | sip.Final | sip.Failed | sip.Acknowledged | sip.Cancelled | sip.Ended | sip.Counted
)
Event = ShellEvent | AgentEvent
Effect = registration.Effect | calls.Effect | controls.Effect


class Role:
    """One device.

    new_handle: the UserAgent's. call_id, tag: of its REGISTERs, unique to this boot.
    server_hosts: addresses the platform's requests may come from; others get 403. device_controls: what it keeps over
    a restart. wall: returns Unix seconds, up to which it has recorded.
    """

    def __init__(
        self,
        options: DeviceOptions,
        new_handle: Callable[[], int],
        *,
        behaviour: Behaviour = BY_THE_BOOK,
        format_line: str = "",
        call_id: str,
        tag: str,
        server_hosts: frozenset[str] = frozenset(),
        device_controls: Controls | None = None,
        wall: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.options = options
        self.controls = device_controls or Controls(options)
        self._new_handle = new_handle
        self._wall = wall
        self._server_hosts = server_hosts or frozenset((options.server[0],))
        self._registration = Registration(options, new_handle, call_id, tag)
        self._calls = Calls(options, behaviour, format_line)
        self._parts: deque[bytes] = deque()  # messages that wait for the answer to the one before
        self._sending: int | None = None

    @property
    def state(self) -> State:
        return self._registration.state

    @property
    def deadline(self) -> float | None:
        deadlines = (self._registration.deadline, self._calls.deadline)
        return min((at for at in deadlines if at is not None), default=None)

    @property
    def finished(self) -> bool:
        return self._registration.state is State.GONE

    @property
    def sessions(self) -> int:
        return len(self._calls)

    def intercept(self, message: Message, flow: Flow) -> Sequence[Effect] | None:
        """Return what to do instead of showing a received message to the agent; None to show it."""
        return self._calls.second_dialog(message, flow) if isinstance(message, Request) else None

    def push(self, event: Event | Tick, now: float) -> Sequence[Effect]:
        """Fire the timers due at `now`, then take `event`."""
        effects: list[Effect] = [*self._watch(self._registration.tick(now)), *self._calls.tick(now)]
        match event:
            case Start():
                effects += self._registration.start()
            case Stop():
                effects += self._calls.end_all()
                effects += self._registration.stop(now)
            case Connected():
                effects += self._watch(self._registration.connected(event.flow, now))
            case Disconnected():
                effects += self._watch(self._registration.disconnected(event.reason, now))
            case MediaOpened():
                effects += self._calls.media_opened(event.handle, event.local)
            case MediaFailed():
                effects += self._calls.media_failed(event.handle)
            case MediaFinished():
                sn = self._registration.next_sn()
                effects += self._calls.finished(event.handle, sn, self._new_handle(), now)
            case PicturesSent():
                sn = self._registration.next_sn()
                effects += self._say(self.controls.pictures_sent(sn, event.pictures, event.files))
            case sip.Incoming():
                effects += self._incoming(event, now)
            case sip.Final() | sip.Failed():
                if event.handle == self._sending:
                    effects += self._part_done(ok=isinstance(event, sip.Final))
                else:
                    effects += self._watch(self._registration.answered(event, now))
            case sip.Acknowledged():
                effects += self._calls.acknowledged(event)
            case sip.Cancelled() | sip.Ended():
                effects += self._calls.over(event)
        return effects

    def _watch(self, effects: Sequence[registration.Effect]) -> Sequence[Effect]:
        """Losing the platform ends what it watches (reference 6.11); a registration is the moment for notices."""
        if any(isinstance(effect, registration.Registered) for effect in effects):
            return [*effects, *self._say(*self.controls.notices(self._registration.next_sn()))]
        if not any(isinstance(effect, registration.Unregistered) for effect in effects):
            return effects
        self._parts.clear()
        self._sending = None
        return [*self._calls.end_all(), *effects]

    def _incoming(self, event: sip.Incoming, now: float) -> Sequence[Effect]:
        request = event.request
        if event.flow.remote[0] not in self._server_hosts:
            return (Reply(event.handle, Response.to(request, 403)),)
        match request.method:
            case "INVITE" if self.state is State.LEAVING:
                return (Reply(event.handle, Response.to(request, 480)),)
            case "INVITE":
                return self._calls.invite(event)
            case "MESSAGE":
                return self._message(event, now)
            case "OPTIONS":
                return (Reply(event.handle, Response.to(request, 200, "", {"Allow": ALLOW})),)
            case "INFO":
                return self._calls.info(event)
        return (Reply(event.handle, Response.to(request, 405, "", {"Allow": ALLOW})),)

    def _message(self, event: sip.Incoming, now: float) -> Sequence[Effect]:
        """Answer the MESSAGE at once, its question by a MESSAGE of our own (reference 3.1)."""
        request = event.request
        try:
            document = manscdp.parse(request.body)
        except ManscdpError:
            return (Reply(event.handle, Response.to(request, 400)),)
        return [Reply(event.handle, Response.to(request, 200)), *self._document(document, now)]

    def _document(self, document: Document, now: float) -> Sequence[Effect]:
        sn = document.sn if document.sn is not None else 0
        target = document.device_id
        edition = self.options.edition or manscdp.DEFAULT_EDITION
        if document.root == "Query":
            match document.cmd_type:
                case "Catalog":
                    items = self._items(target)
                    size = self.options.items_per_message
                    return self._say(*manscdp.catalog_response(sn, target, items, per_part=size, edition=edition))
                case "DeviceInfo":
                    info = DeviceInfo(
                        True, self.options.name, MANUFACTURER, MODEL, self.controls.firmware, self.options.channels
                    )
                    return self._say(manscdp.device_info(sn, target, info, edition))
                case "RecordInfo":
                    return self._say(*self._records(document, sn, target, edition))
            answer = self.controls.answer(document, now, encoding=len(self._calls) > 0)
            return self._say(answer) if answer is not None else ()
        if isinstance(document.payload, DeviceControl):
            command = document.payload.command
            if command == "IFrameCmd":
                handles = self._calls.of_channel(target)
                return (calls.KeyFrame(handles),) if handles else ()
            result, effects = self.controls.control(document, now)
            return [*(self._say(result) if result is not None else ()), *effects]
        if document.root == "Control" and document.cmd_type == "DeviceConfig":
            result, effects = self.controls.configure(document)
            return [*self._say(result), *effects]
        return ()

    def _records(self, document: Document, sn: int, target: str, edition: Edition) -> Iterable[bytes]:
        """What it claims to have recorded of a channel."""
        asked = records.read_query(document.element)
        found: list[records.Record] = []
        if asked is not None and target in self.options.channel_ids:
            start, end, kind = asked
            found = recordings(target, start, end, self._wall(), self.options.recording_days, kind)
        size = self.options.items_per_message
        return records.response(sn, target, self.options.name, found, per_part=size, edition=edition)

    def _items(self, target: str) -> list[CatalogItem]:
        """Return what a Catalog query asks for: all channels for the device's id, one for a channel's, none else."""
        options = self.options
        return [
            CatalogItem(
                channel_id,
                name=f"{options.name} {number}",
                manufacturer=MANUFACTURER,
                model=MODEL,
                owner=MANUFACTURER,
                civil_code=options.device_id[:6],
                address=f"{options.name} {number}",
                parent_ids=(options.device_id,),
                register_way=1,
                online=True,
                ptz_type=1,
            )
            for number, channel_id in enumerate(options.channel_ids, 1)
            if target in (options.device_id, channel_id)
        ]

    def _say(self, *bodies: bytes) -> Sequence[Effect]:
        """Send messages one after the other, each after the answer to the one before (reference 3.2)."""
        if len(self._parts) + len(bodies) > limits.DEVICE_MESSAGES:
            return ()
        self._parts.extend(bodies)
        return self._next_part() if self._sending is None else ()

    def _next_part(self) -> Sequence[Effect]:
        flow = self._registration.flow
        if not self._parts or flow is None:
            self._sending = None
            return ()
        self._sending = self._new_handle()
        return (Ask(self._sending, self._request(self._parts.popleft()), flow),)

    def _request(self, body: bytes) -> Request:
        return message(self.options, body)

    def _part_done(self, *, ok: bool) -> Sequence[Effect]:
        """A part that got no answer is gone; those behind it are dropped, or a dead platform would get them all."""
        if not ok:
            self._parts.clear()
        return self._next_part()
