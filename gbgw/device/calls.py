"""A device's media sessions: INVITE in, RTP out (GB/T 28181-2022 section 9.2; Annex D on TCP, K on repeated Subjects).

sans-IO. Live play only; playback, download and talk are refused with 488.
"""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Final, Literal

from gbgw.base import limits
from gbgw.base.errors import SdpError, SipError
from gbgw.device.options import DeviceOptions
from gbgw.device.quirks import Behaviour
from gbgw.device.recordings import BYTES_A_SECOND
from gbgw.device.registration import contact_of
from gbgw.gb import manscdp, mansrtsp, sdp
from gbgw.sip.events import Acknowledged, Ask, Cancelled, End, Ended, Incoming, Reply, Send
from gbgw.sip.flow import Flow
from gbgw.sip.message import Request, Response
from gbgw.sip.parse import serialize

SLOWEST: Final = 0.25  # of playback, times the recorded speed, either way
FASTEST: Final = 8.0
MOST: Final = 16  # times the recorded speed, of a download
BYE_SECONDS: Final = 10.0  # for the platform's BYE after the end of a recording
SUBJECT_CHARACTERS: Final = 256  # of the sender part that is kept to recognise a repeated session

MediaTransport = Literal["udp", "tcp-active", "tcp-passive"]  # from the device's side


@dataclass(frozen=True, slots=True)
class OpenMedia:
    """Make the socket of a session and answer with MediaOpened or MediaFailed. tcp-active connects on StartMedia."""

    handle: int
    channel_id: str
    transport: MediaTransport
    remote: tuple[str, int]
    ssrc: int
    payload_type: int
    past: "Span | None" = None


@dataclass(frozen=True, slots=True)
class Span:
    """A recording that is wanted. start, stop: Unix seconds. speed: times the recorded one. is_download: every byte
    counts: nothing is left out where the platform does not keep up."""

    start: int
    stop: int
    speed: int = 1
    is_download: bool = False


@dataclass(frozen=True, slots=True)
class Steer:
    """The platform wants a recording that plays to pause, to go on, or to go elsewhere."""

    handle: int
    command: mansrtsp.Command


@dataclass(frozen=True, slots=True)
class StartMedia:
    """The platform has acknowledged: send."""

    handle: int


@dataclass(frozen=True, slots=True)
class CloseMedia:
    """The session is over: stop sending and close its socket."""

    handle: int


@dataclass(frozen=True, slots=True)
class KeyFrame:
    """The next unit of these sessions is a key frame."""

    handles: tuple[int, ...]


Effect = Ask | Reply | End | Send | OpenMedia | StartMedia | CloseMedia | KeyFrame | Steer


@dataclass(slots=True)
class Call:
    """One session between INVITE and BYE."""

    incoming: Incoming
    channel_id: str
    offer: sdp.Offer
    subject: str
    ssrc: int
    answer: bytes = b""  # the session description that was sent
    state: Literal["opening", "answered", "live"] = "opening"
    over_at: float | None = None  # loop seconds until which the platform may say BYE after the end of a recording


class Calls:
    """All sessions of one device, by the agent's handles."""

    def __init__(self, options: DeviceOptions, behaviour: Behaviour, format_line: str) -> None:
        self._options = options
        self._behaviour = behaviour
        self._format_line = format_line
        self._random = Random(options.seed)
        self._calls: dict[int, Call] = {}
        self._second_tags: deque[str] = deque(maxlen=limits.DEVICE_SESSIONS)  # To tags of answers past the agent

    def __len__(self) -> int:
        return len(self._calls)

    def second_dialog(self, request: Request, flow: Flow) -> Sequence[Effect] | None:
        """Take what belongs to the dialog of a second answer, which the agent does not know; None for all else."""
        if request.to_.tag not in self._second_tags or not request.to_.tag:
            return None
        return () if request.method == "ACK" else (Send(serialize(Response.to(request, 200)), flow),)

    def of_channel(self, target: str) -> tuple[int, ...]:
        """Return the handles of a channel's sessions; all for the device's own id."""
        everything = target == self._options.device_id
        return tuple(handle for handle, call in self._calls.items() if everything or call.channel_id == target)

    def invite(self, incoming: Incoming) -> Sequence[Effect]:
        """Take an INVITE, a repeated one inside its dialog included."""
        if incoming.dialog is not None:
            return self._again(incoming)
        request = incoming.request
        channel_id = self._channel(request)
        if channel_id is None:
            return self._refuse(incoming, 404)
        if self._behaviour.reject_status:
            return self._refuse(incoming, self._behaviour.reject_status)
        try:
            offer = sdp.read_offer(request.body)
        except SdpError:
            return self._refuse(incoming, 488)
        if offer.mode not in ("play", "playback", "download"):
            return self._refuse(incoming, 488)
        if offer.mode != "play" and (self._options.recording_days == 0 or offer.start >= offer.stop):
            return self._refuse(incoming, 488)
        subject = _sender(request)
        effects: list[Effect] = []
        for handle in [handle for handle, call in self._calls.items() if subject and call.subject == subject]:
            effects += self.end(handle)
        if len(self._calls) >= limits.DEVICE_SESSIONS:
            return [*effects, *self._refuse(incoming, 486)]
        if self._behaviour.answers == 0:
            return effects
        call = Call(incoming, channel_id, offer, subject, self._ssrc(offer))
        self._calls[incoming.handle] = call
        return [*effects, self._opening(call)]

    def media_opened(self, handle: int, local: tuple[str, int]) -> Sequence[Effect]:
        """The session's socket is there: answer."""
        call = self._calls.get(handle)
        if call is None or call.state != "opening":
            return (CloseMedia(handle),) if call is None else ()
        call.state = "answered"
        announced = {"offered": None, "none": "", "other": f"{call.ssrc:010}"}[self._behaviour.answer_ssrc]
        description = sdp.live_answer(
            call.offer,
            call.channel_id,
            local[0],
            local[1],
            ssrc=announced,
            media_format=self._format_line,
            file_size=self._file_size(call.offer),
        )
        call.answer = description.serialize()
        effects: list[Effect] = [Reply(handle, self._accept(call))]
        if self._behaviour.answers > 1:
            # The agent keeps one answer a transaction; the second goes past it, as from a device with two minds.
            tag = f"{self._random.getrandbits(32):08x}"
            self._second_tags.append(tag)
            second = self._accept(call).with_header("To", str(call.incoming.request.to_.with_tag(tag)))
            effects.append(Send(serialize(second), call.incoming.flow))
        return effects

    def media_failed(self, handle: int) -> Sequence[Effect]:
        """Its socket cannot be had, or its connection is gone."""
        call = self._calls.pop(handle, None)
        if call is None:
            return ()
        if call.state == "opening":
            return [CloseMedia(handle), *self._refuse(call.incoming, 500)]
        return (CloseMedia(handle), End(handle))

    def acknowledged(self, event: Acknowledged) -> Sequence[Effect]:
        call = self._calls.get(event.handle)
        if call is None or call.state != "answered":
            return ()
        call.state = "live"
        return (StartMedia(event.handle),) if self._behaviour.media else ()

    def info(self, event: Incoming) -> Sequence[Effect]:
        """A command to a recording that plays (MANSRTSP); a device of the 2022 edition answers with a body."""
        call = self._calls.get(event.dialog) if event.dialog is not None else None
        command = mansrtsp.read_command(event.request.body)
        if call is None or call.state != "live" or call.offer.mode == "play" or command is None:
            return self._refuse(event, 488 if call is not None else 481)
        if command.method == "TEARDOWN":
            return [Reply(event.handle, Response.to(event.request, 200)), *self.end(call.incoming.handle)]
        if command.scale is not None and not SLOWEST <= abs(command.scale) <= FASTEST:
            body = mansrtsp.answer(command, status=457, reason="Invalid Range")
            return (Reply(event.handle, self._with_body(event.request, body)),)
        body = mansrtsp.answer(command, npt=command.start) if self._options.edition == "3.0" else b""
        return (
            Reply(event.handle, self._with_body(event.request, body)),
            Steer(call.incoming.handle, command),
        )

    def finished(self, handle: int, sn: int, new_handle: int, now: float) -> Sequence[Effect]:
        """A recording was sent to its end: say so inside its dialog, and wait for the BYE (reference 6.9)."""
        call = self._calls.get(handle)
        if call is None:
            return ()
        call.over_at = now + BYE_SECONDS
        body = manscdp.media_status(sn, call.channel_id, self._options.edition or manscdp.DEFAULT_EDITION)
        request = Request.new("MESSAGE", "", body=body, content_type=manscdp.CONTENT_TYPE)
        return (Ask(new_handle, request, call.incoming.flow, dialog=handle),)

    @property
    def deadline(self) -> float | None:
        return min((call.over_at for call in self._calls.values() if call.over_at is not None), default=None)

    def tick(self, now: float) -> Sequence[Effect]:
        """End from this side what the platform should have ended."""
        overdue = [handle for handle, call in self._calls.items() if call.over_at is not None and call.over_at <= now]
        return [effect for handle in overdue for effect in self.end(handle)]

    @staticmethod
    def _with_body(request: Request, body: bytes) -> Response:
        if not body:
            return Response.to(request, 200)
        return Response.to(request, 200, "", (), body, mansrtsp.CONTENT_TYPE)

    @staticmethod
    def _file_size(offer: sdp.Offer) -> int | None:
        return (offer.stop - offer.start) * BYTES_A_SECOND if offer.mode == "download" else None

    def over(self, event: Cancelled | Ended) -> Sequence[Effect]:
        """The platform cancelled or ended it, or the agent gave it up."""
        return (CloseMedia(event.handle),) if self._calls.pop(event.handle, None) is not None else ()

    def end(self, handle: int) -> Sequence[Effect]:
        """End a session from this side."""
        call = self._calls.pop(handle, None)
        if call is None:
            return ()
        if call.state == "opening":
            return [CloseMedia(handle), *self._refuse(call.incoming, 480)]
        return (CloseMedia(handle), End(handle))

    def end_all(self) -> Sequence[Effect]:
        return [effect for handle in list(self._calls) for effect in self.end(handle)]

    def _again(self, incoming: Incoming) -> Sequence[Effect]:
        """A re-INVITE gets the answer of the first (reference 6.11); it changes nothing."""
        call = self._calls.get(incoming.dialog) if incoming.dialog is not None else None
        if call is None or not call.answer:
            return self._refuse(incoming, 488)
        return (Reply(incoming.handle, self._accept(replace(call, incoming=incoming))),)

    def _accept(self, call: Call) -> Response:
        headers = {"Contact": contact_of(self._options, call.incoming.flow)}
        return Response.to(call.incoming.request, 200, "", headers, call.answer, sdp.CONTENT_TYPE)

    def _refuse(self, incoming: Incoming, status: int) -> Sequence[Effect]:
        return (Reply(incoming.handle, Response.to(incoming.request, status)),)

    def _opening(self, call: Call) -> OpenMedia:
        offer = call.offer
        transport: MediaTransport = "udp"
        if offer.transport == "tcp":
            transport = "tcp-passive" if offer.setup == "active" else "tcp-active"
        usable = [each for each in offer.payload_types if each.encoding] or offer.payload_types
        ssrc = self._random.getrandbits(31) if self._behaviour.own_ssrc else call.ssrc
        past: Span | None = None
        if offer.mode != "play":
            is_download = offer.mode == "download"
            past = Span(offer.start, offer.stop, min(offer.download_speed, MOST) if is_download else 1, is_download)
        return OpenMedia(
            call.incoming.handle, call.channel_id, transport, (offer.address, offer.port), ssrc, usable[0].number, past
        )

    def _ssrc(self, offer: sdp.Offer) -> int:
        if offer.ssrc is None or self._behaviour.answer_ssrc == "other":
            return self._random.randint(1, 99_999_999)
        return offer.ssrc

    def _channel(self, request: Request) -> str | None:
        """Return whose picture is wanted: Request-URI, else Subject, else To (reference 2.4)."""
        candidates = [_sender(request).partition(":")[0]]
        with suppress(SipError):  # the agent has read these already; a Request made otherwise may lack them
            candidates = [request.target.user, *candidates, request.to_.user]
        known = self._options.channel_ids
        found = next((each for each in candidates if each in known), None)
        if found is None and self._options.device_id in candidates and len(known) == 1:
            return known[0]
        return found


def _sender(request: Request) -> str:
    """Return "sender id:serial" of the Subject, "" without one."""
    subject = (request.header("Subject") or "").partition(",")[0].strip()
    return subject if 0 < len(subject) <= SUBJECT_CHARACTERS else ""
