"""Bytes to messages and back (RFC 3261 sections 7, 18.3 and 25; RFC 5626 section 3.5.1 for the ping).

The reader is tolerant: any case, compact names, folding, LF alone, padded numbers, blanks around ":". The writer is
strict. What cannot be used raises RefusedError, a SipError that knows the answer to send where one is due.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from gbgw.base import limits
from gbgw.base.errors import SipError
from gbgw.sip.body import SDP_LINE, BodyEnd, Kind, is_whole, kind_of
from gbgw.sip.message import KNOWN, REASONS, Headers, Message, Request, Response, header_key

_TOKEN: Final = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]+\Z")
_FOLD: Final = re.compile(r"[ \t]*\r?\n[ \t]+")
_NEEDED: Final = ("Via", "From", "To", "Call-ID", "CSeq")
_WITH_BODY: Final = frozenset(("INVITE", "MESSAGE", "NOTIFY", "INFO", "PUBLISH", "UPDATE", "REFER"))
_PING: Final = b"\r\n\r\n"
_BLANK_BYTES: Final = b"\r\n\0"
_EXOSIP_KEEPALIVE: Final = b"jaK"  # every 17 s, followed by NUL; cameras are built on that library


class Ping(Enum):
    """A double CRLF between messages: the peer asks whether the connection lives (RFC 5626 section 3.5.1)."""

    PING = "ping"


class RefusedError(SipError):
    """A message that cannot be used.

    answer: what to send back, None for responses, ACK and messages too broken to answer.
    fatal: the place where the next message starts is lost; the connection must be closed.
    """

    def __init__(self, message: str, *, status: int = 400, answer: Response | None = None, fatal: bool = False) -> None:
        super().__init__(message, status=status)
        self.answer = answer
        self.fatal = fatal


@dataclass(frozen=True, slots=True)
class _Head:
    """Start line and headers; status 0 means a request."""

    headers: Headers
    length: int | None
    method: str = ""
    uri: str = ""
    status: int = 0
    reason: str = ""

    def message(self, body: bytes, *, length_held: bool = True) -> Message:
        if self.status:
            return Response(self.headers, body, self.status, self.reason, length_held=length_held)
        return Request(self.headers, body, self.method.upper(), self.uri, self.method, length_held=length_held)

    @property
    def kind(self) -> Kind:
        return kind_of(self.headers.get("Content-Type"))


def is_keepalive(datagram: bytes) -> bool:
    """Return whether a datagram is a NAT keep-alive: at most 4 bytes of CR, LF and NUL, or what libeXosip2 sends."""
    return len(datagram) <= 4 and datagram.strip(_BLANK_BYTES) in (b"", _EXOSIP_KEEPALIVE)


def parse(datagram: bytes) -> Message:
    """Read the one message of a datagram. Bytes after Content-Length are ignored (RFC 3261 section 18.3), except where
    the length is wrong and the datagram holds a whole document: see `_datagram_body`.

    Raises RefusedError, also when the body was cut.
    """
    data = datagram.lstrip(_BLANK_BYTES)
    end, skip = _head_end(data, limits.SIP_HEADER_BYTES)
    if end < 0:
        if len(data) > limits.SIP_HEADER_BYTES:
            raise RefusedError("The headers are too long.", status=513)
        end, skip = len(data), 0
    head = _read_head(data[:end])
    body = data[end + skip :]
    length_held = head.length is None or head.length == len(body)
    if head.length is not None and not length_held:
        body = _datagram_body(head, body, head.length)
    return _checked(head, body, length_held)


def _datagram_body(head: _Head, rest: bytes, length: int) -> bytes:
    """Return the body of a datagram whose Content-Length is not what came.

    Devices count characters before they encode them, or other line ends than they send (reference section 10, rule
    2). A datagram is never cut on its way, so the end of the document in it is believed over the number.
    """
    if length < len(rest) and (is_whole(head.kind, rest, length) or not is_whole(head.kind, rest)):
        return rest[:length]
    missing = length - len(rest)
    if missing > 0 and not is_whole(head.kind, rest + b"\r\n" if missing <= 2 else rest):  # the last line's end at most
        raise _refuse("The body was cut.", head)
    return rest


class StreamParser:
    """Find messages in a byte stream (RFC 3261 section 18.3): any cut of the stream gives the same result.

    mends: go on after a message whose Content-Length is wrong, where that is safe (sip.body); then `quiet` must be
    called when nothing came for `quiet_seconds`.
    """

    __slots__ = ("_buffer", "_end", "_head", "_mends", "_searched", "_tail_lines", "broken")

    def __init__(self, *, mends: bool = False) -> None:
        self._mends = mends
        self._buffer = bytearray()
        self._head: _Head | None = None
        self._end: BodyEnd | None = None  # of the body of that head
        self._searched = 0
        self._tail_lines = 0  # of a session description that may still follow its message
        self.broken = False  # after a fatal refusal: all further input is ignored

    @property
    def pending_bytes(self) -> int:
        return len(self._buffer)

    @property
    def is_inside(self) -> bool:
        """A message has begun and not ended; blanks between two are none."""
        return self._head is not None or (bool(self._buffer) and self._buffer[0] not in _BLANK_BYTES)

    @property
    def quiet_seconds(self) -> float | None:
        """Seconds of silence after which `quiet` tells more; None: only bytes do."""
        return self._end.seconds if self._mends and self._end is not None else None

    def push(self, data: bytes) -> Sequence[Message | RefusedError | Ping]:
        """Consume bytes; return what they completed. A fatal refusal is the last thing a stream ever gives."""
        if self.broken:
            return ()
        self._buffer += data
        return self._found(quiet=False)

    def quiet(self) -> Sequence[Message | RefusedError | Ping]:
        """Nothing came for `quiet_seconds`; return what that completed."""
        return self._found(quiet=True) if self.quiet_seconds is not None else ()

    def _found(self, *, quiet: bool) -> Sequence[Message | RefusedError | Ping]:
        buffer = self._buffer
        found: list[Message | RefusedError | Ping] = []
        while (buffer or self._end is not None) and not self.broken:
            item: Message | RefusedError | Ping | None
            try:
                item = self._next(quiet)
            except RefusedError as error:
                item = error
                self.broken = error.fatal
            if item is None:
                break
            found.append(item)
        if self.broken:
            buffer.clear()
            self._end = None
        elif len(buffer) > limits.SIP_STREAM_BYTES:  # a body is limited already; this ceiling stands by itself
            self.broken = True
            buffer.clear()
            self._end = None
            found.append(RefusedError("Too many bytes wait for the end of a message.", status=513, fatal=True))
        return found

    def _next(self, quiet: bool) -> Message | Ping | None:
        buffer = self._buffer
        if self._head is None:
            if buffer[0] in _BLANK_BYTES and (ping := self._skip_blanks()):
                return ping
            if not buffer or buffer[0] in _BLANK_BYTES:
                return None
            self._skip_tail_line()
            end, skip = _head_end(buffer, limits.SIP_HEADER_BYTES, self._searched)
            if end < 0:
                if len(buffer) > limits.SIP_HEADER_BYTES:
                    raise RefusedError("The headers are too long.", status=513, fatal=True)
                self._searched = max(0, len(buffer) - 3)
                return None
            text = bytes(buffer[:end])
            del buffer[: end + skip]
            self._searched = 0
            self._head = _read_head(text, stream=True)
        head = self._head
        length = self._body_length(head, quiet)
        if length is None:
            return None
        body = bytes(buffer[:length])
        del buffer[:length]
        self._head = self._end = None
        self._tail_lines = limits.SDP_LINES if self._mends and head.kind is Kind.SDP else 0
        return _checked(head, body, length == (head.length or 0))

    def _body_length(self, head: _Head, quiet: bool) -> int | None:
        """Return how many of the buffered bytes are the body; None when that is not known yet."""
        if self._end is None:
            length = _stream_length(head, mends=self._mends)
            if not self._mends and length is not None:
                return length if len(self._buffer) >= length else None
            if length is not None and (length == 0 and head.status):
                return 0  # an answer without a body may still name a type
            self._end = BodyEnd(head.kind, length)
        found = self._end.find(self._buffer, quiet=quiet)
        if found is None and quiet and head.length is None:
            raise _refuse("On a connection Content-Length is needed.", head, fatal=True)
        return found

    def _skip_tail_line(self) -> None:
        """Drop a line that a too small length cut off a session description at its line's end, and say so."""
        line = SDP_LINE.match(self._buffer) if self._tail_lines else None
        if line is not None:
            self._tail_lines -= 1
            self._searched = 0
            del self._buffer[: line.end()]
            raise RefusedError("A line of a session description follows its Content-Length.")

    def _skip_blanks(self) -> Ping | None:
        """Drop what is blank before a message, up to a whole double CRLF; a piece of one is kept until more comes."""
        buffer = self._buffer
        while buffer and buffer[0] in _BLANK_BYTES:
            if buffer.startswith(_PING):
                del buffer[:4]
                return Ping.PING
            if len(buffer) < 4 and _PING.startswith(buffer):
                return None
            del buffer[: 2 if buffer.startswith(b"\r\n") else 1]
        return None


def _head_end(data: bytes | bytearray, limit: int, start: int = 0) -> tuple[int, int]:
    """Return where the headers end and the length of the line ends there; (-1, 0) when that is not within `limit`."""
    crlf = data.find(b"\n\r\n", start, limit + 3)
    lf = data.find(b"\n\n", start, limit + 2 if crlf < 0 else crlf + 1)
    if lf >= 0:
        return lf, 2
    return (crlf, 3) if crlf >= 0 else (-1, 0)


def _read_head(data: bytes, *, stream: bool = False) -> _Head:
    text = data.decode("latin-1")
    if "\n " in text or "\n\t" in text:
        text = _FOLD.sub(" ", text)
    lines = text.split("\n")
    if len(lines) > limits.SIP_HEADERS + 1:
        raise RefusedError("There are too many header lines.", status=513, fatal=stream)
    items: list[tuple[str, str]] = []
    index: dict[str, list[str]] = {}
    for line in lines[1:]:
        name, mark, value = line.partition(":")
        known = KNOWN.get(name)
        if known is None:
            name = name.rstrip(" \t")
            if not mark or not _TOKEN.match(name):
                continue  # a line that is no header is passed over
            key = header_key(name)
            known = KNOWN.get(key) or (key, name)
        value = value.strip(" \t\r")
        if "\r" in value:
            value = value.replace("\r", " ")
        key = known[0]
        if key in index:
            index[key].append(value)
        else:
            index[key] = [value]
        if key != "content-length":
            items.append((known[1], value))
    length, bad_length = _content_length(index.pop("content-length", None))
    headers = Headers.of(items, index)
    head = _read_start(lines[0].strip(" \t\r"), headers, length, stream)
    if bad_length:
        raise _refuse("Content-Length is not one number.", head, fatal=stream)
    return head


def _read_start(line: str, headers: Headers, length: int | None, stream: bool) -> _Head:
    words = line.split(None, 2)
    if len(words) >= 2 and words[0].upper() == "SIP/2.0":
        if len(words[1]) != 3 or not (words[1].isascii() and words[1].isdigit()) or not 100 <= int(words[1]) <= 699:
            raise RefusedError("The status code is not a number from 100 to 699.", fatal=stream)
        reason = words[2].replace("\r", " ") if len(words) == 3 else ""
        return _Head(headers, length, status=int(words[1]), reason=reason)
    words = line.split()
    if len(words) < 3 or not words[-1].upper().startswith("SIP/") or not _TOKEN.match(words[0]):
        raise RefusedError("The first line is neither that of a request nor of a response.", fatal=stream)
    head = _Head(headers, length, words[0], " ".join(words[1:-1]).strip("<>"))
    if words[-1].upper() != "SIP/2.0":
        raise _refuse("Only SIP/2.0 is spoken here.", head, status=505, fatal=stream)
    if len(words) > 3:
        raise _refuse("The Request-URI holds blanks.", head, fatal=stream)
    return head


def _content_length(values: list[str] | None) -> tuple[int | None, bool]:
    """Return (bytes, False), (None, False) when absent, (None, True) when unreadable or contradictory."""
    if values is None:
        return None, False
    text = values[0]
    if not (text.isascii() and text.isdigit() and len(text) <= 20) or any(other != text for other in values):
        return None, True
    return int(text), False


def _needs_length(head: _Head) -> bool:
    return head.method.upper() in _WITH_BODY or "Content-Type" in head.headers


def _stream_length(head: _Head, *, mends: bool) -> int | None:
    """Return the stated length; None where it is missing and the document can tell its own end."""
    if head.length is None:
        if not _needs_length(head):
            return 0
        if mends and head.kind is not Kind.OTHER:
            return None
        raise _refuse("On a connection Content-Length is needed.", head, fatal=True)
    if head.length > limits.SIP_BODY_BYTES:
        raise _refuse("The body is too large.", head, status=513, fatal=True)
    return head.length


def _checked(head: _Head, body: bytes, length_held: bool) -> Message:
    """Return the message when everything the layers above rely on can be read."""
    message = head.message(body, length_held=length_held)
    for name in _NEEDED:
        if not message.headers.get(name):
            raise _refuse(f"The {name} header is missing.", head)
    try:
        number_method = message.cseq[1]
        message.via, message.from_.uri, message.to_.uri  # noqa: B018  (cached: what is read here is not read again)
        if isinstance(message, Request):
            if number_method != message.method and (message.method, number_method) != ("ACK", "INVITE"):  # seen: SRS
                raise SipError("The method of CSeq is not that of the request.")
            message.target  # noqa: B018
    except SipError as error:
        raise _refuse(error.message, head, status=error.status) from None
    return message


def _refuse(sentence: str, head: _Head, *, status: int = 400, fatal: bool = False) -> RefusedError:
    answer = None
    request = head.message(b"")
    if isinstance(request, Request) and request.method != "ACK" and all(request.headers.get(name) for name in _NEEDED):
        reason = sentence.rstrip(".") if status == 400 else REASONS.get(status, "")
        answer = Response.to(request, status, reason)
        try:
            answer.via, answer.from_, answer.to_, answer.cseq  # noqa: B018
        except SipError:
            answer = None  # who cannot be understood cannot be answered
    return RefusedError(sentence, status=status, answer=answer, fatal=fatal)


def serialize(message: Message) -> bytes:
    """Write a message: headers in their order, Content-Length last. Text outside latin-1 is written as UTF-8."""
    if isinstance(message, Request):
        lines = [f"{message.method} {message.uri} SIP/2.0"]
    else:
        lines = [f"SIP/2.0 {message.status} {message.reason}"]
    lines += [f"{name}: {value}" for name, value in message.headers.items]
    text = "\n".join(lines)
    if text.count("\n") >= len(lines) or "\r" in text:  # nothing from elsewhere may start a header line of ours
        lines = [line.replace("\r", " ").replace("\n", " ") for line in lines]
    text = "\r\n".join(lines)
    try:
        head = text.encode("latin-1")
    except UnicodeEncodeError:
        head = b"\r\n".join(_encoded(line) for line in lines)
    return b"%b\r\nContent-Length: %d\r\n\r\n%b" % (head, len(message.body), message.body)


def _encoded(line: str) -> bytes:
    try:
        return line.encode("latin-1")
    except UnicodeEncodeError:
        return line.encode("utf-8", "replace")
