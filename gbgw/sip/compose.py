"""The headers that a user agent writes itself (RFC 3261 sections 8.1.1, 8.2.6, 9.1 and 17.1.1.3; RFC 3581 for
rport)."""

import secrets
from collections.abc import Callable

from gbgw import __version__
from gbgw.base.errors import SipError
from gbgw.sip.fields import cut, format_host
from gbgw.sip.flow import Flow
from gbgw.sip.message import Headers, Request, Response

PRODUCT = f"gbgw/{__version__}"
METHODS = ("INVITE", "ACK", "INFO", "CANCEL", "BYE", "OPTIONS", "MESSAGE", "REGISTER", "SUBSCRIBE", "NOTIFY")
ALLOW = ", ".join(METHODS)
ACCEPT = "application/sdp, Application/MANSCDP+xml, Application/MANSRTSP"
COOKIE = "z9hG4bK"  # RFC 3261 section 8.1.1.7
_WITH_CONTACT = frozenset(("INVITE", "SUBSCRIBE", "NOTIFY", "REGISTER"))
_PLACED = frozenset(("Via", "Route", "From", "To", "Call-ID", "CSeq", "Contact", "Max-Forwards", "User-Agent"))

Address = Callable[[Flow], tuple[str, int]]


def make_token() -> str:
    """Return 64 random bits for a branch, tag or Call-ID."""
    return secrets.token_hex(8)


class Composer:
    """Completes our messages.

    local_address: the (host, port) at which the peer of a flow can reach us.
    """

    __slots__ = ("address", "product", "token")

    def __init__(self, address: Address, token: Callable[[], str], product: str) -> None:
        self.address = address
        self.token = token
        self.product = product

    def branch(self) -> str:
        return COOKIE + self.token()

    def request(self, request: Request, flow: Flow, branch: str) -> Request:
        """Return a request with every header that must be there, in the usual order.

        Raises SipError when From is missing or cannot be read.
        """
        given = request.headers
        sender = request.from_ if request.from_.tag else request.from_.with_tag(self.token())
        host, port = self.address(flow)
        headers = [("Via", f"SIP/2.0/{flow.transport.upper()} {format_host(host)}:{port};rport;branch={branch}")]
        headers += [("Route", route) for route in given.all("Route")]
        headers += [
            ("From", str(sender)),
            ("To", given.get("To") or f"<{request.uri}>"),
            ("Call-ID", given.get("Call-ID") or f"{self.token()}@{host}"),
            ("CSeq", given.get("CSeq") or f"1 {request.method}"),
        ]
        if contacts := given.all("Contact"):
            headers += [("Contact", contact) for contact in contacts]
        elif request.method in _WITH_CONTACT:
            headers.append(("Contact", self.contact(sender.user, flow)))
        headers.append(("Max-Forwards", given.get("Max-Forwards") or "70"))
        headers.append(("User-Agent", given.get("User-Agent") or self.product))
        headers += [pair for pair in given.items if pair[0] not in _PLACED]
        return Request(Headers(headers), request.body, request.method, request.uri)

    def contact(self, user: str, flow: Flow) -> str:
        host, port = self.address(flow)
        return f"<sip:{user}@{format_host(host)}:{port}{';transport=tcp' if flow.transport == 'tcp' else ''}>"

    def response(self, request: Request, response: Response, flow: Flow, tag: str) -> Response:
        """Return an answer with received and rport, a To tag and, where a dialog needs it, Contact."""
        headers: list[tuple[str, str]] = []
        via_done = product_done = False
        for name, value in response.headers.items:
            if name == "Via" and not via_done:
                via_done = True
                headers.append((name, marked_via(request, flow, value)))
            elif name == "To" and response.status > 100 and not response.to_.tag:
                headers.append((name, str(response.to_.with_tag(tag))))
            else:
                product_done = product_done or name in ("User-Agent", "Server")
                headers.append((name, value))
        if request.method in ("INVITE", "SUBSCRIBE") and 100 < response.status < 300 and not response.contacts:
            headers.append(("Contact", self.contact(request.target.user or request.to_.user, flow)))
        if not product_done:
            headers.append(("User-Agent", self.product))
        return Response(Headers(headers), response.body, response.status, response.reason)


def marked_via(request: Request, flow: Flow, line: str) -> str:
    """Return a Via line whose first value says where the request really came from (RFC 3261 section 18.2.1, RFC
    3581)."""
    via = request.via
    host, port = flow.remote
    if via.rport is not None:
        via = via.with_param("rport", str(port)).with_param("received", host)
    elif via.host != host:
        via = via.with_param("received", host)
    else:
        return line
    return ", ".join((str(via), *list(cut(line, ","))[1:]))


def acknowledge(invite: Request, response: Response) -> Request:
    """Make the ACK of a final answer other than 2xx: the branch of the INVITE, the To of the answer (17.1.1.3)."""
    return _twin(invite, "ACK", response.headers.get("To") or "")


def cancel(invite: Request) -> Request:
    """Make the CANCEL of an INVITE (section 9.1)."""
    return _twin(invite, "CANCEL", invite.headers.get("To") or "")


def refuse(request: Request, status: int, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    return Response.to(request, status, headers=headers)


def _twin(invite: Request, method: str, to: str) -> Request:
    headers = [("Via", invite.headers.get("Via") or "")]
    headers += [("Route", route) for route in invite.headers.all("Route")]
    headers += [
        ("From", invite.headers.get("From") or ""),
        ("To", to),
        ("Call-ID", invite.call_id),
        ("CSeq", f"{invite.cseq[0]} {method}"),
        ("Max-Forwards", "70"),
    ]
    return Request(Headers(headers), b"", method, invite.uri)


def server_key(request: Request, flow: Flow, method: str) -> tuple[object, ...]:
    """Return what tells a request's server transaction (RFC 3261 section 17.2.3).

    Call-ID, CSeq and the source address are added, for devices that reuse a branch. Without the cookie: RFC 2543 rules.
    """
    via = request.via
    branch = via.branch
    number = request.cseq[0]
    if branch.startswith(COOKIE) and len(branch) > len(COOKIE):
        return (branch, via.host.lower(), via.port, method, request.call_id, number, flow.remote[0])
    top = next(cut(request.headers.get("Via") or "", ","), "")
    return ("2543", top, request.uri, method, request.from_.tag, request.call_id, number, flow.remote[0])


def unsupported(request: Request) -> str:
    """Return the extensions a request requires, all of which are unknown here; "" for none."""
    try:
        return ", ".join(request.headers.values("Require") + request.headers.values("Proxy-Require"))
    except SipError:
        return ""
