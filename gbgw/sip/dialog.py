"""Dialogs: what both ends of a call agree on (RFC 3261 section 12), with the forgiveness of reference section 2.7."""

from dataclasses import dataclass

from gbgw.base.errors import SipError
from gbgw.sip.flow import Flow
from gbgw.sip.message import Headers, Message, Request, Response


@dataclass(slots=True, eq=False)
class Dialog:
    """One dialog.

    handle: of the INVITE that made it. local, remote: From and To as our requests carry them, with tags.
    local_cseq: of our last request. remote_cseq: of the peer's last one, None before the first.
    target: Request-URI of our requests; where they go is `flow`, whatever the URI says.
    invite_cseq: number of our INVITE (0 when the peer sent it). ack: bytes of our ACK, to repeat with a repeated 2xx.
    peer: whose it is, as the caller named him; "" unknown. told: its user has heard of its end.
    """

    handle: int
    call_id: str
    local: str
    remote: str
    local_tag: str
    remote_tag: str
    local_cseq: int
    remote_cseq: int | None
    target: str
    flow: Flow
    routes: tuple[str, ...] = ()
    invite_cseq: int = 0
    ack: bytes = b""
    ending: bool = False
    peer: str = ""
    told: bool = False

    @classmethod
    def called(cls, handle: int, request: Request, response: Response, flow: Flow) -> "Dialog":
        """Make the caller's dialog from our INVITE and its 2xx (RFC 3261 section 12.1.2)."""
        number = request.cseq[0]
        return cls(
            handle, request.call_id, request.headers.get("From") or "", response.headers.get("To") or "",
            request.from_.tag, response.to_.tag, number, None, contact_of(response) or request.uri, flow,
            tuple(reversed(response.headers.values("Record-Route"))), number,
        )  # fmt: skip

    @classmethod
    def answered(cls, handle: int, request: Request, response: Response, flow: Flow) -> "Dialog":
        """Make the callee's dialog from the peer's INVITE and our 2xx (RFC 3261 section 12.1.1)."""
        number = request.cseq[0]
        return cls(
            handle, request.call_id, response.headers.get("To") or "", request.headers.get("From") or "",
            response.to_.tag, request.from_.tag, 0, number, contact_of(request) or request.from_.address, flow,
            tuple(request.headers.values("Record-Route")),
        )  # fmt: skip

    def request(self, method: str, source: Request | None = None) -> Request:
        """Make our next request in the dialog; headers and body from `source`. ACK and CANCEL take the number of the
        INVITE."""
        if method == "ACK":
            number = self.invite_cseq
        else:
            self.local_cseq += 1
            number = self.local_cseq
        headers = [
            *(("Route", route) for route in self.routes),
            ("From", self.local),
            ("To", self.remote),
            ("Call-ID", self.call_id),
            ("CSeq", f"{number} {method}"),
        ]
        body = b""
        if source is not None:
            names = {"route", "from", "to", "call-id", "cseq", "via"}
            headers += [pair for pair in source.headers.items if pair[0].lower() not in names]
            body = source.body
        return Request(Headers(headers), body, method, self.target)

    def refresh(self, message: Message) -> None:
        """Take the peer's new Contact (target refresh, RFC 3261 section 12.2)."""
        self.target = contact_of(message) or self.target

    def matches(self, request: Request) -> bool:
        """Return whether both tags of a request are this dialog's."""
        return request.to_.tag == self.local_tag and request.from_.tag == self.remote_tag


def contact_of(message: Message) -> str:
    """Return the address of the first Contact when it can serve as Request-URI; "" when it is missing, garbage or
    names nobody."""
    try:
        contact = message.contact
        if contact is None or not contact.uri.user or contact.uri.scheme not in ("sip", "sips"):
            return ""
    except SipError:
        return ""
    return "" if any(mark in contact.address for mark in ' <>"\t') else contact.address


def same_peer(one: Flow, other: Flow) -> bool:
    """Return whether two flows lead to the same peer: one TCP connection, or one UDP address."""
    if one.connection or other.connection:
        return one.connection == other.connection
    return one.transport == other.transport and one.remote == other.remote
