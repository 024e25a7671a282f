"""Asks a channel for its picture, live or recorded, and tells what came of it (GB/T 28181-2022 and -2016 sections 9.2,
9.8 and 9.9; reference section 6).

Invitation stands between a Session and the user agent: it makes the INVITE with Subject and offer, bounds the wait
for an answer, reads the answer's SDP, and ends the dialog whenever nobody wants it. ACK, CANCEL, BYE and late answers
on the wire are the user agent's work.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from gbgw.base.errors import GatewayError, MediaError, SdpError
from gbgw.base.machine import Tick
from gbgw.gb import manscdp, sdp
from gbgw.gb.ids import stream_key
from gbgw.gb.sdp import SessionDescription
from gbgw.sip import events
from gbgw.sip.flow import Flow
from gbgw.sip.message import Request, Uri


@dataclass(frozen=True, slots=True)
class Platform:
    """Who we are towards devices. advertise: host put into Contact, "" for the local address of the flow."""

    platform_id: str
    domain: str
    advertise: str = ""

    def address_of_record(self, user: str) -> str:
        """Return the name-addr of `user` in our domain."""
        return f"<{Uri(user, self.domain)}>"

    def contact(self, flow: Flow) -> str:
        """Return our Contact as the peer of `flow` reaches it."""
        params = (("transport", "tcp"),) if flow.transport == "tcp" else ()
        return f"<{Uri(self.platform_id, self.advertise or flow.local[0], flow.local[1], params)}>"


def request_uri(user: str, flow: Flow) -> Uri:
    """Return the Request-URI of `user` behind `flow`: the bound address, not the Contact, which is often private."""
    return Uri(user, flow.remote[0], flow.remote[1])


def build_message(platform: Platform, device_id: str, body: bytes, flow: Flow) -> Request:
    """Return a MESSAGE with a MANSCDP body to a device, outside any dialog."""
    headers = {
        "From": platform.address_of_record(platform.platform_id),
        "To": platform.address_of_record(device_id),
    }
    return Request.new("MESSAGE", request_uri(device_id, flow), headers, body, manscdp.CONTENT_TYPE)


def subject(sender_id: str, sender_serial: str, receiver_id: str, receiver_serial: str = "0") -> str:
    """Return a Subject header: who sends which stream to whom. A second INVITE with the same sender pair ends the
    first."""
    return f"{sender_id}:{sender_serial},{receiver_id}:{receiver_serial}"


def build_invite(platform: Platform, channel_id: str, offer: SessionDescription, flow: Flow) -> Request:
    """Return the INVITE for a picture; the sender's serial in Subject is the offered SSRC, which no other session has.

    Call-ID and From tag are made here, so that the store can know the dialog before it begins.
    """
    headers = {
        "From": f"{platform.address_of_record(platform.platform_id)};tag={secrets.token_hex(8)}",
        "Call-ID": secrets.token_hex(16),
        "To": platform.address_of_record(channel_id),
        "Contact": platform.contact(flow),
        "Subject": subject(channel_id, offer.ssrc_text, platform.platform_id),
    }
    return Request.new("INVITE", request_uri(channel_id, flow), headers, offer.serialize(), sdp.CONTENT_TYPE)


# Events, beside those of the user agent


class Command(Enum):
    BEGIN = "begin"  # send the INVITE
    CLOSE = "close"  # nobody wants the picture any more


BEGIN: Final = Command.BEGIN
CLOSE: Final = Command.CLOSE

Event = Command | Tick | events.Provisional | events.Final | events.Failed | events.Ended

# Effects, beside Ask and End for the user agent


@dataclass(frozen=True, slots=True)
class Answered:
    """The camera agreed and was acknowledged. flow: where its answer came from."""

    answer: sdp.Answer
    flow: Flow


@dataclass(frozen=True, slots=True)
class Refused:
    """There will be no picture from this INVITE."""

    error: GatewayError


@dataclass(frozen=True, slots=True)
class Closed:
    """The agreed dialog ended without our asking: the camera said BYE, or its connection closed."""

    reason: str


@dataclass(frozen=True, slots=True)
class Counted:
    name: str
    detail: str = ""


Effect = events.Ask | events.End | Answered | Refused | Closed | Counted


class State(Enum):
    IDLE = "idle"
    INVITING = "inviting"  # sent, nothing came back
    PROCEEDING = "proceeding"  # a provisional answer came
    ANSWERED = "answered"
    ENDING = "ending"  # told the user agent to end it, whatever comes
    OVER = "over"


# (what happened, what to do) by status; the code is invite_rejected_NNN
_REJECTIONS: Final = {
    302: ("sends us elsewhere", "point the device at this platform, not at a redirecting one"),
    400: ("could not read our INVITE", "check the device's GB/T 28181 version setting"),
    401: ("wants us to authenticate for INVITE", "switch off authentication of the platform in the device"),
    403: (
        "does not allow us to see this channel",
        "allow this platform the channel in the device's GB/T 28181 settings",
    ),
    404: ("does not know this channel", "refresh the catalog and check the channel's code in the device"),
    407: ("wants us to authenticate for INVITE", "switch off authentication of the platform in the device"),
    408: ("got no answer from the channel", "check the link between recorder and camera"),
    410: ("says the channel is gone", "refresh the catalog"),
    415: ("does not understand SDP", "check the device's GB/T 28181 version setting"),
    480: ("says the channel is offline", "check power and network of the camera behind the recorder"),
    486: ("is busy: it serves as many streams as it can", "close other viewers of this device or use its sub-stream"),
    488: ("cannot send what we ask for", "try another transport, or set its stream type to PS"),
    503: ("is overloaded", "wait and try again"),
    600: ("is busy: it serves as many streams as it can", "close other viewers of this device or use its sub-stream"),
    606: ("cannot send what we ask for", "try another transport, or set its stream type to PS"),
}


def rejection(status: int, key: str) -> MediaError:
    """Return the error for a final answer that is no 2xx."""
    what, remedy = _REJECTIONS.get(status, (f"refused with status {status}", "look into the device's log"))
    return MediaError(f"the camera {what} ({status})", code=f"invite_rejected_{status}", remedy=remedy, stream=key)


class Invitation:
    """One invitation and its dialog, from BEGIN until nothing of it is left."""

    __slots__ = ("_deadline", "_device_id", "_flow", "_key", "_offer", "_request", "_seconds", "handle", "state")

    def __init__(
        self,
        handle: int,
        platform: Platform,
        device_id: str,
        channel_id: str,
        flow: Flow,
        offer: SessionDescription,
        invite_seconds: float,
    ) -> None:
        """handle: from `UserAgent.new_handle()`. flow: the device's binding. invite_seconds: how long the answer may
        take."""
        self.handle = handle
        self.state = State.IDLE
        self._device_id = device_id
        self._key = stream_key(device_id, channel_id)
        self._flow = flow
        self._offer = offer
        self._request = build_invite(platform, channel_id, offer, flow)
        self._seconds = invite_seconds
        self._deadline: float | None = None

    @property
    def deadline(self) -> float | None:
        return self._deadline

    @property
    def finished(self) -> bool:
        return self.state is State.OVER

    @property
    def request(self) -> Request:
        """The INVITE, for the store, which must know of the dialog before it leaves."""
        return self._request

    def push(self, event: Event, now: float) -> Sequence[Effect]:
        """Give up an overdue answer, then take `event`. Events of other handles are ignored."""
        effects: list[Effect] = []
        if self._deadline is not None and now >= self._deadline:
            effects += self._give_up()
        if not isinstance(event, (Tick, Command)) and event.handle != self.handle:
            return effects
        match self.state, event:
            case State.IDLE, Command.BEGIN:
                self.state = State.INVITING
                self._deadline = now + self._seconds
                effects.append(events.Ask(self.handle, self._request, self._flow, peer=self._device_id))
            case State.IDLE, Command.CLOSE:
                self.state = State.OVER
            case ((State.INVITING | State.PROCEEDING | State.ANSWERED), Command.CLOSE):
                effects.append(self._end())
            case State.INVITING, events.Provisional():
                self.state = State.PROCEEDING
            case ((State.INVITING | State.PROCEEDING), events.Final()):
                effects += self._take_final(event)
            case ((State.INVITING | State.PROCEEDING), events.Failed()):
                effects.append(Refused(self._silence(event.reason)))
                self._over()
            case ((State.INVITING | State.PROCEEDING), events.Ended()):
                effects.append(Refused(self._silence(event.reason)))
                self._over()
            case State.ANSWERED, (events.Ended() | events.Failed()):
                effects.append(Closed(event.reason))
                self._over()
            case State.ENDING, events.Final() if event.response.status >= 300:
                self._over()
            case State.ENDING, events.Final() if event.response.status >= 200:
                effects.append(Counted("invite.late_answer", self._key))  # the user agent says BYE and tells Ended
            case State.ENDING, (events.Ended() | events.Failed()):
                self._over()
        return effects

    def _take_final(self, event: events.Final) -> list[Effect]:
        status = event.response.status
        if status >= 300:
            self._over()
            return [Refused(rejection(status, self._key))]
        try:
            answer = sdp.read_answer(event.response.body, self._offer)
        except SdpError as error:
            error.stream = self._key
            error.remedy = (
                error.remedy or "restart the device; if it repeats, its firmware cannot work with this platform"
            )
            return [Refused(error), self._end()]
        self.state = State.ANSWERED
        self._deadline = None
        return [*(Counted(remark, self._key) for remark in answer.remarks), Answered(answer, event.flow)]

    def _give_up(self) -> list[Effect]:
        came = "nothing" if self.state is State.INVITING else "only a provisional answer"
        error = MediaError(
            f"the camera did not answer the INVITE within {self._seconds:g} s; {came} came back",
            code="invite_no_answer",
            remedy="check that the device reaches this platform's SIP address and that the channel is online",
            stream=self._key,
        )
        return [Refused(error), self._end()]

    def _silence(self, reason: str) -> MediaError:
        lost = reason == "transport"
        return MediaError(
            "the connection to the camera closed before it answered"
            if lost
            else "the camera did not answer the INVITE",
            code="invite_no_answer",
            remedy="check the network between the device and this platform",
            stream=self._key,
        )

    def _end(self) -> Effect:
        self.state = State.ENDING
        self._deadline = None
        return events.End(self.handle)

    def _over(self) -> None:
        self.state = State.OVER
        self._deadline = None
