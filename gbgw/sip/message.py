"""Requests and responses as values (RFC 3261 sections 7, 8.1.1 and 8.2.6).

A message is immutable; header text is `str` whose characters are the bytes received (latin-1), so that nothing is lost
on the way through. Header access is by name in any case or in compact form. Bytes are the work of `sip/parse.py`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Self

from gbgw.base.errors import SipError
from gbgw.sip.fields import NameAddr, Params, Uri, Via, cut, lazy

__all__ = ["REASONS", "HeaderSource", "Headers", "Message", "NameAddr", "Params", "Request", "Response", "Uri", "Via"]

_COMPACT: Final = {
    "a": "accept-contact", "b": "referred-by", "c": "content-type", "d": "request-disposition",
    "e": "content-encoding", "f": "from", "i": "call-id", "j": "reject-contact", "k": "supported",
    "l": "content-length", "m": "contact", "n": "identity-info", "o": "event", "r": "refer-to", "s": "subject",
    "t": "to", "u": "allow-events", "v": "via", "x": "session-expires", "y": "identity",
    "expire": "expires",  # written so in annexes of GB/T 28181-2016
}  # fmt: skip
_CANONICAL: Final = {
    name.lower(): name
    for name in (
        "Accept", "Accept-Contact", "Accept-Encoding", "Accept-Language", "Alert-Info", "Allow", "Allow-Events",
        "Authentication-Info", "Authorization", "Call-ID", "Call-Info", "Contact", "Content-Disposition",
        "Content-Encoding", "Content-Language", "Content-Length", "Content-Type", "CSeq", "Date", "Error-Info",
        "Event", "Expires", "From", "Identity", "Identity-Info", "In-Reply-To", "Max-Forwards", "MIME-Version",
        "Min-Expires", "Monitor-User-Identity", "Note", "Organization", "Priority", "Proxy-Authenticate",
        "Proxy-Authorization", "Proxy-Require", "Record-Route", "Refer-To", "Referred-By", "Reject-Contact",
        "Reply-To", "Request-Disposition", "Require", "Retry-After", "Route", "Server", "Session-Expires", "Subject",
        "Subscription-State", "Supported", "Timestamp", "To", "Unsupported", "User-Agent", "Via", "Warning",
        "WWW-Authenticate", "X-GB-Ver", "X-PreferredPath", "X-RoutePath",
    )
}  # fmt: skip

REASONS: Final = {
    100: "Trying", 180: "Ringing", 181: "Call Is Being Forwarded", 182: "Queued", 183: "Session Progress", 200: "OK",
    202: "Accepted", 301: "Moved Permanently", 302: "Moved Temporarily", 400: "Bad Request", 401: "Unauthorized",
    403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 406: "Not Acceptable",
    407: "Proxy Authentication Required", 408: "Request Timeout", 410: "Gone", 413: "Request Entity Too Large",
    415: "Unsupported Media Type", 416: "Unsupported URI Scheme", 420: "Bad Extension", 423: "Interval Too Brief",
    480: "Temporarily Unavailable", 481: "Call/Transaction Does Not Exist", 482: "Loop Detected", 483: "Too Many Hops",
    486: "Busy Here", 487: "Request Terminated", 488: "Not Acceptable Here", 489: "Bad Event", 491: "Request Pending",
    500: "Server Internal Error", 501: "Not Implemented", 503: "Service Unavailable", 504: "Server Time-out",
    505: "Version Not Supported", 513: "Message Too Large", 600: "Busy Everywhere", 603: "Decline",
    606: "Not Acceptable",
}  # fmt: skip

# Spelling on the wire -> (key, canonical name), for the usual spellings: spares the parser most of its work per line.
KNOWN: Final = {name: (key, name) for key, name in _CANONICAL.items()} | {
    spelling: (_COMPACT.get(key, key), _CANONICAL.get(_COMPACT.get(key, key), spelling))
    for key in (*_CANONICAL, *_COMPACT)
    for spelling in (key, key.upper())
}
_COPIED: Final = ("Via", "From", "To", "Call-ID", "CSeq")  # RFC 3261 section 8.2.6.2

HeaderSource = Mapping[str, str] | Iterable[tuple[str, str]]


def header_key(name: str) -> str:
    """Return the key of a header name: lower case, compact and misspelt forms expanded."""
    key = name.lower()
    return _COMPACT.get(key, key)


class Headers:
    """Header fields in their order; a name may occur several times."""

    __slots__ = ("_index", "items")

    items: tuple[tuple[str, str], ...]  # (name as the standard spells it, value without surrounding blanks)

    def __init__(self, source: HeaderSource = ()) -> None:
        pairs = source.items() if isinstance(source, Mapping) else source
        items: list[tuple[str, str]] = []
        index: dict[str, list[str]] = {}
        for name, value in pairs:
            known = KNOWN.get(name)
            if known is None:
                key = header_key(name)
                known = (key, _CANONICAL.get(key, name))
            key = known[0]
            items.append((known[1], value))
            if key in index:
                index[key].append(value)
            else:
                index[key] = [value]
        self.items = tuple(items)
        self._index = index

    @classmethod
    def of(cls, items: list[tuple[str, str]], index: dict[str, list[str]]) -> "Headers":
        """Wrap what the parser has sorted already: items with canonical names, index by `header_key`."""
        headers = cls.__new__(cls)
        headers.items = tuple(items)
        headers._index = index
        return headers

    def get(self, name: str) -> str | None:
        """Return the first value of `name`, or None."""
        known = KNOWN.get(name)
        values = self._index.get(known[0] if known else header_key(name))
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        """Return the value of every line `name`, uncut."""
        return list(self._index.get(header_key(name), ()))

    def values(self, name: str) -> list[str]:
        """Return every value of `name`, comma-separated lists taken apart (not for headers whose grammar has bare
        commas).
        """
        return [value for line in self._index.get(header_key(name), ()) for value in cut(line, ",")]

    def replaced(self, name: str, *values: str) -> "Headers":
        """Return a copy in which the lines `name` are these, in the place of the first old one or at the end; no
        values removes them.
        """
        key = header_key(name)
        items: list[tuple[str, str]] = []
        fresh = [(name, value) for value in values]
        for pair in self.items:
            if header_key(pair[0]) != key:
                items.append(pair)
            else:
                items.extend(fresh)
                fresh = []
        return Headers([*items, *fresh])

    def added(self, name: str, value: str) -> "Headers":
        return Headers([*self.items, (name, value)])

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and header_key(name) in self._index

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __eq__(self, other: object) -> bool:
        return self.items == other.items if isinstance(other, Headers) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.items)

    def __repr__(self) -> str:
        return f"Headers({list(self.items)!r})"


@dataclass(frozen=True)
class _Common:
    """What requests and responses share. The typed fields raise SipError when the header is missing or cannot be read.

    headers: never holds Content-Length; the writer counts the body. length_held: as it came, Content-Length was there
    where a body was, and was that of the body.
    """

    headers: Headers = field(default_factory=Headers)
    body: bytes = b""
    length_held: bool = field(default=True, compare=False, kw_only=True)

    def _need(self, name: str) -> str:
        value = self.headers.get(name)
        if not value:
            raise SipError(f"The {name} header is missing.")
        return value

    def header(self, name: str) -> str | None:
        """Return the first value of a header, or None."""
        return self.headers.get(name)

    @lazy
    def vias(self) -> tuple[Via, ...]:
        return tuple(Via.parse(value) for value in self.headers.values("Via"))

    @lazy
    def via(self) -> Via:
        """The topmost Via."""
        return Via.parse(next(cut(self._need("Via"), ","), ""))

    @lazy
    def from_(self) -> NameAddr:
        return NameAddr.parse(self._need("From"))

    @lazy
    def to_(self) -> NameAddr:
        return NameAddr.parse(self._need("To"))

    @property
    def call_id(self) -> str:
        return self._need("Call-ID")

    @lazy
    def cseq(self) -> tuple[int, str]:
        """Number and method (upper case)."""
        words = self._need("CSeq").split()
        if len(words) != 2 or not (words[0].isascii() and words[0].isdigit() and len(words[0]) <= 20):
            raise SipError("The CSeq header is not a number and a method.")
        number = int(words[0])
        if number >= 1 << 32:
            raise SipError("The CSeq number exceeds 32 bits.")
        return number, words[1].upper()

    @lazy
    def contacts(self) -> tuple[NameAddr, ...]:
        return tuple(NameAddr.parse(value) for value in self.headers.values("Contact"))

    @property
    def contact(self) -> NameAddr | None:
        """The first Contact, or None; "*" has the address "*"."""
        return self.contacts[0] if self.contacts else None

    @property
    def expires(self) -> int | None:
        """Seconds of the Expires header, at most 2**32-1; None when absent or not a number."""
        text = (self.headers.get("Expires") or "").strip()
        return min(int(text[:20]), (1 << 32) - 1) if text.isascii() and text.isdigit() else None

    @property
    def content_type(self) -> str:
        """Type of the body in lower case without parameters, "" when absent."""
        return (self.headers.get("Content-Type") or "").partition(";")[0].strip().lower()

    @property
    def user_agent(self) -> str:
        return self.headers.get("User-Agent") or self.headers.get("Server") or ""

    def with_header(self, name: str, *values: str) -> Self:
        """Return a copy whose lines `name` are these; no values removes them."""
        return replace(self, headers=self.headers.replaced(name, *values))


@dataclass(frozen=True)
class Request(_Common):
    """A request.

    method: upper case. uri: Request-URI exactly as it came. method_text: as it came, for digests computed over it; ""
    when made here.
    """

    method: str = ""
    uri: str = ""
    method_text: str = field(default="", compare=False)

    @classmethod
    def new(
        cls, method: str, uri: str | Uri, headers: HeaderSource = (), body: bytes = b"", content_type: str | None = None
    ) -> "Request":
        """Make a request. What the UserAgent adds need not be given: Via, Max-Forwards, Call-ID, CSeq, From tag,
        User-Agent, Content-Length.
        """
        return cls(_built(headers, content_type), body, method.upper(), str(uri))

    @lazy
    def target(self) -> Uri:
        """The parsed Request-URI. Raises SipError."""
        return Uri.parse(self.uri)


@dataclass(frozen=True)
class Response(_Common):
    """A response. reason: may be empty; read nothing from it."""

    status: int = 0
    reason: str = ""

    @classmethod
    def to(
        cls,
        request: Request,
        status: int,
        reason: str = "",
        headers: HeaderSource = (),
        body: bytes = b"",
        content_type: str | None = None,
    ) -> "Response":
        """Make the answer to `request` (RFC 3261 section 8.2.6). The UserAgent adds the To tag, received and rport."""
        copied = [(name, value) for name in _COPIED for value in request.headers.all(name)]
        if headers or content_type is not None:
            copied += _built(headers, content_type).items
        return cls(Headers(copied), body, status, reason or REASONS.get(status, ""))


Message = Request | Response


def _built(source: HeaderSource, content_type: str | None) -> Headers:
    headers = Headers(source)
    if "Content-Length" in headers:
        headers = headers.replaced("Content-Length")
    return headers.replaced("Content-Type", content_type) if content_type is not None else headers
