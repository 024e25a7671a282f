"""Where the body of a message ends by its own word, for those whose Content-Length is wrong (reference section 10,
quirk 2).

XML ends with the end tag of its root, SDP with the last of its lines. On a connection a length is believed for as long
as what follows the body does not contradict it: a whole document, nothing, or the start line of another message. Only a
length that is contradicted, absent or never made good gives way to the document's end, and only where the next bytes
are a start line beyond doubt, or where nothing follows. What stands inside a body whose length holds is never looked at
for messages, so nothing can be smuggled through a peer that forwards what others wrote. Bodies of other kinds have no
end of their own; their length is all there is.
"""

import re
from enum import Enum
from typing import Final

from gbgw.base import limits

_ROOT: Final = re.compile(rb"<([A-Za-z_][\w.:-]{0,63})")
_ROOT_WITHIN: Final = 2_048  # bytes, after which no root element begins
_TAIL: Final = 256  # bytes of a body's end in which its end tag is looked for, blanks after it included
_TAG_BYTES: Final = 80  # of the longest end tag that is known, so that one cut in two is found
_BLANKS: Final = b"\r\n\t \0"
_BLANK_RUN: Final = re.compile(rb"[\r\n\t \0]{0,1024}")  # more are not what a peer puts between two messages
_START_BYTES: Final = 1_024  # the longest start line that is believed
_START: Final = re.compile(
    rb"(?:(?:REGISTER|INVITE|ACK|BYE|CANCEL|MESSAGE|INFO|SUBSCRIBE|NOTIFY|OPTIONS|UPDATE|REFER|PUBLISH|PRACK)"
    rb"[ \t]+<?sips?:[^\s]+[ \t]+SIP/2\.0|SIP/2\.0[ \t]+[1-6][0-9]{2}(?:[ \t][^\r\n]*)?)[ \t]*\r?\n",
    re.IGNORECASE,
)
_ANY_START: Final = re.compile(rb"[ \t]SIP/2\.0[ \t]*\r?\n|[\r\n]SIP/2\.0[ \t]", re.IGNORECASE)
SDP_LINE: Final = re.compile(rb"[A-Za-z][ \t]*(?:=[^\r\n]*)?(?:\r\n|\n|\r(?!\n))")


class Kind(Enum):
    """What a body is, by its Content-Type."""

    XML = "xml"
    SDP = "sdp"
    OTHER = "other"


class Next(Enum):
    """What the bytes at a place are."""

    NOTHING = "nothing"  # blanks at most
    START = "start"  # the start line of a message, beyond doubt
    OTHER = "other"
    OPEN = "open"  # a line whose end has not come yet


def kind_of(content_type: str | None) -> Kind:
    kind = (content_type or "").lower()
    return Kind.XML if "xml" in kind else Kind.SDP if "sdp" in kind else Kind.OTHER


def is_whole(kind: Kind, body: bytes | bytearray, length: int | None = None) -> bool:
    """Tell whether the first `length` bytes, or all, end as a document of their kind does: XML with its root's end
    tag, SDP with a line's end."""
    end = len(body) if length is None else length
    tail = bytes(body[max(0, end - _TAIL) : end])
    if kind is Kind.XML:
        root = _ROOT.search(body, 0, min(end, _ROOT_WITHIN))
        return root is not None and tail.rstrip(_BLANKS).lower().endswith(b"</%b>" % root[1].lower())
    return kind is Kind.SDP and body.find(b"m=", 0, end) >= 0 and tail.endswith((b"\n", b"\r"))


def next_at(data: bytes | bytearray, at: int) -> tuple[Next, int]:
    """Return what follows at a place, and where it begins after blanks."""
    blanks = _BLANK_RUN.match(data, at)
    at = blanks.end() if blanks else at
    if at >= len(data):
        return Next.NOTHING, at
    end = data.find(b"\n", at, at + _START_BYTES)
    if end < 0:
        return (Next.OPEN if len(data) - at < _START_BYTES else Next.OTHER), at
    return (Next.START if _START.match(data, at) else Next.OTHER), at


class BodyEnd:
    """Finds where the body of one message on a connection ends.

    length: its Content-Length; None where that is missing. The body's bytes, and whatever follows them, are at the
    beginning of the buffer that is given each time.
    """

    __slots__ = ("_length", "_searched", "kind", "seconds")

    def __init__(self, kind: Kind, length: int | None) -> None:
        self.kind = kind
        self.seconds = limits.SIP_QUIET_SECONDS  # of silence that tell as much as another byte would
        self._length = length
        self._searched = 0  # bytes in which no end tag begins

    def find(self, buffer: bytearray, *, quiet: bool) -> int | None:
        """Return the body's number of bytes; None when more must come first. quiet: nothing came for `seconds`.

        Any cut of the same bytes gives the same answers, as long as none of them comes after such a silence.
        """
        length = self._length
        if length is None:
            return self._without_length(buffer, quiet)
        if len(buffer) < length:
            self.seconds = limits.SIP_QUIET_SECONDS
            return self._cut_short(buffer) if quiet else None
        if self.kind is Kind.OTHER or is_whole(self.kind, buffer, length):
            return length
        self.seconds = limits.SIP_TAIL_SECONDS
        follows, _ = next_at(buffer, length)
        if follows is Next.START or (quiet and follows is Next.NOTHING):
            return length
        if follows is not Next.OTHER and not quiet:
            return None
        return self._contradicted(buffer, length, quiet)

    def _without_length(self, buffer: bytearray, quiet: bool) -> int | None:
        if next_at(buffer, 0)[0] is Next.START:
            return 0
        end = self._document(buffer, limits.SIP_BODY_BYTES)
        if end is None or self.kind is Kind.XML:
            return end
        follows, _ = next_at(buffer, end)
        return end if follows is Next.START or (quiet and follows is Next.NOTHING and end) else None

    def _cut_short(self, buffer: bytearray) -> int | None:
        """The promised bytes do not come: the length is too large if the document is there, and nothing or another
        message after it."""
        end = self._document(buffer, len(buffer))
        if not end or not is_whole(self.kind, buffer, end):
            return None
        return end if next_at(buffer, end)[0] in (Next.NOTHING, Next.START) else None

    def _contradicted(self, buffer: bytearray, length: int, quiet: bool) -> int | None:
        """What follows the promised bytes is no message: they reach into the next one, or end inside the document."""
        end = self._document(buffer, length + limits.SIP_RESYNC_BYTES)
        if end is None:
            return None if not quiet and len(buffer) < length + limits.SIP_RESYNC_BYTES else length
        if end > length:
            if _ANY_START.search(buffer, length, end):
                return length  # that end belongs to a message after this one
            if self.kind is Kind.XML:
                return end
        follows, _ = next_at(buffer, end)
        if follows is Next.START or (follows is Next.NOTHING and quiet):
            return end
        return None if follows in (Next.OPEN, Next.NOTHING) and not quiet else length

    def _document(self, buffer: bytearray, within: int) -> int | None:
        """Return where the document at the beginning of the buffer ends; None when that is not in sight."""
        if self.kind is Kind.SDP:
            at = 0
            while (line := SDP_LINE.match(buffer, at, limits.SDP_BYTES)) is not None:
                at = line.end()
            return at if at < limits.SDP_BYTES else None
        root = _ROOT.search(buffer, 0, _ROOT_WITHIN)
        if root is None:
            return None
        tag = re.compile(rb"</" + re.escape(root[1]) + rb"[ \t]{0,8}>", re.IGNORECASE)
        found = tag.search(buffer, self._searched, within)
        if found is None:
            self._searched = max(0, min(len(buffer), within) - _TAG_BYTES)
            return None
        return found.end()
