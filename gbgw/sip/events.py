"""What goes into the UserAgent and what comes out of it.

Events come from two sides. From the network: Received, FlowClosed. From the transaction user (registrar, sessions,
simulated device): the other events, each naming its work by a `handle`. A handle of a client transaction or of a dialog
opened by us is chosen by the caller with `UserAgent.new_handle()`; one of a server transaction is chosen by the agent
and told in Incoming. An INVITE's handle stays the handle of its dialog.
"""

from dataclasses import dataclass
from typing import Literal

from gbgw.sip.flow import Flow
from gbgw.sip.message import Message, Request, Response

# Events


@dataclass(frozen=True, slots=True)
class Received:
    """A parsed message arrived."""

    message: Message
    flow: Flow


@dataclass(frozen=True, slots=True)
class FlowClosed:
    """A TCP connection is gone; its transactions fail. Its dialogs end with reason "transport", those with a known peer
    only when he is not Rebound within limits.SIP_STRANDED_SECONDS."""

    flow: Flow


@dataclass(frozen=True, slots=True)
class Rebound:
    """A peer, as Ask named him, is reached by another flow: his dialogs go on there, a BYE that he could not hear
    included. The caller has made sure that it is he."""

    peer: str
    flow: Flow


@dataclass(frozen=True, slots=True)
class Ask:
    """Send a request. Via, Max-Forwards, Content-Length, and From tag and Call-ID where absent, are the agent's work.

    For an INVITE the agent ACKs every final answer, keeps the dialog, and handles late or forked 2xx.
    With `dialog` the request goes inside that dialog (INFO, BYE is End): the agent sets Request-URI, route set, tags
    and CSeq. peer: whose dialog an INVITE opens, for Rebound.
    """

    handle: int
    request: Request
    flow: Flow
    dialog: int | None = None
    peer: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """Nobody wants this request, INVITE or dialog any more, whatever its state.

    Another request than INVITE is forgotten at once and nothing more is told of it.

    Before a provisional answer: CANCEL is held back until one comes; after it: CANCEL; a crossing or late 2xx is
    ACKed and followed by BYE; a confirmed dialog: BYE. Ended follows when the peer has answered or timer F has run out.
    """

    handle: int


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer a request that Incoming delivered; a 2xx to an INVITE opens a dialog under the same handle and is
    repeated until ACK."""

    handle: int
    response: Response


Event = Received | FlowClosed | Rebound | Ask | End | Reply

# Effects


@dataclass(frozen=True, slots=True)
class Send:
    """Put these bytes on the wire. Performing it never awaits."""

    data: bytes
    flow: Flow


@dataclass(frozen=True, slots=True)
class Incoming:
    """A new request that is not a retransmission, ACK or CANCEL; `dialog` is the handle of the dialog it belongs to,
    if any.

    Unknown methods, BYE and INFO outside any dialog, and requests in a dialog from elsewhere than its peer were
    already answered by the agent. A BYE inside a dialog was already answered 200 and is told as Ended.
    """

    handle: int
    request: Request
    flow: Flow
    dialog: int | None = None


@dataclass(frozen=True, slots=True)
class Provisional:
    handle: int
    response: Response


@dataclass(frozen=True, slots=True)
class Final:
    """The final answer; a 2xx to an INVITE was ACKed already."""

    handle: int
    response: Response
    flow: Flow


@dataclass(frozen=True, slots=True)
class Failed:
    """No final answer will come."""

    handle: int
    reason: Literal["timeout", "transport"]


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The ACK for our 2xx to an INVITE arrived."""

    handle: int
    request: Request


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The peer cancelled its INVITE before we answered; 487 was sent."""

    handle: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The dialog is over and the handle is free.

    reason: "bye" the peer ended it; "closed" we did and it was answered; "no_answer" we did and it was not; "no_ack"
    our 2xx was never acknowledged and BYE was sent; "cancelled" our INVITE ended without a dialog; "transport" its
    connection closed.
    """

    handle: int
    reason: Literal["bye", "closed", "no_answer", "no_ack", "cancelled", "transport"]


@dataclass(frozen=True, slots=True)
class DialogOpened:
    """An INVITE of ours to a named peer (Ask.peer) opened a dialog, whether anybody still wants it or not."""

    handle: int
    response: Response


@dataclass(frozen=True, slots=True)
class DialogOver:
    """Nothing is left of an INVITE of ours to a named peer: it opened no dialog and will not, or its BYE was answered
    or given up. Told once, also where Ended came long before, as of a peer who lost his connection."""

    handle: int


@dataclass(frozen=True, slots=True)
class Counted:
    """A name for the tally, with what was seen."""

    name: str
    detail: str = ""


Effect = (
    Send
    | Incoming
    | Provisional
    | Final
    | Failed
    | Acknowledged
    | Cancelled
    | Ended
    | DialogOpened
    | DialogOver
    | Counted
)
