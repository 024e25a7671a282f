"""Reads the XML that devices send, which is often not XML (GB/T 28181 reference rules 2.3 and 3.1): bytes -> text ->
Element.

Two steps. `clean` turns what field devices write (undeclared charsets, bare `&`, `<` in names, unquoted attributes,
control characters, trailing NULs) into something a parser takes; lxml then parses it without DTD, entities or
network, recovering what a missing end tag left. Everything is bounded by `base.limits`, and the values of password
fields are dropped before anyone can see them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from lxml import etree

from gbgw.base import limits
from gbgw.base.errors import ManscdpError

_UTF8_BOM: Final = b"\xef\xbb\xbf"
_PROLOG: Final = re.compile(r"<\?xml[^>]{0,512}\?>", re.IGNORECASE)
_DECLARED: Final = re.compile(rb"<\?xml[^>]{0,256}?encoding\s{0,8}=\s{0,8}[\"']?([A-Za-z0-9_-]{1,32})", re.IGNORECASE)
_FORBIDDEN: Final = re.compile(r"<!(?:DOCTYPE|ENTITY|ELEMENT|ATTLIST|NOTATION)", re.IGNORECASE)
_ROOT: Final = re.compile(r"<(?:Notify|Response|Query|Control)\b", re.IGNORECASE)
_BARE_AMPERSAND: Final = re.compile(r"&(?!(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6});)")
_STRAY_LESS: Final = re.compile(r"<(?=[^<>]*(?:<|\Z))|<(?![A-Za-z_/])")
_TAG_WITH_ATTRIBUTES: Final = re.compile(r"<([A-Za-z_][^<>\s/]*)(\s[^<>]*)>")
_ATTRIBUTE: Final = re.compile(r"([A-Za-z_][\w.-]{0,63})\s{0,8}=\s{0,8}(\"[^\"]*\"|'[^']*'|[^\s\"'/>]+)")
_ATTRIBUTE_CHARACTERS: Final = 1_024  # of one tag; the only attribute of MANSCDP is Num
_CONTROLS: Final = dict.fromkeys([*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F, 0xFFFE, 0xFFFF])
_SECRET: Final = frozenset({"password", "cryptkey"})
# An element's other spellings, lower case (reference 3.9); those that depend on where they stand are handled by their
# reader.
_ALIASES: Final = {
    "ifamecmd": "iframecmd",
    "firmwareversion": "firmware",
    "videoparamattributes": "videoparamattribute",
    "expire": "expires",
}


@dataclass(frozen=True, slots=True)
class Element:
    """One element; names compare without case and through the alias list."""

    name: str  # as spelt, without namespace
    text: str  # its own text, trimmed
    attributes: dict[str, str] = field(default_factory=dict)  # names in lower case
    children: tuple["Element", ...] = ()

    @property
    def key(self) -> str:
        """The name in lower case, aliases resolved."""
        return canonical(self.name)

    def find(self, name: str) -> "Element | None":
        """Return the first direct child called `name`, or None."""
        wanted = canonical(name)
        return next((child for child in self.children if child.key == wanted), None)

    def find_all(self, name: str) -> Iterator["Element"]:
        wanted = canonical(name)
        return (child for child in self.children if child.key == wanted)

    def get(self, *names: str) -> str:
        """Return the text of the first direct child with one of these names that is not empty, or ""."""
        for name in names:
            child = self.find(name)
            if child is not None and child.text:
                return child.text
        return ""


def canonical(name: str) -> str:
    lower = name.lower()
    return _ALIASES.get(lower, lower)


def decode(body: bytes) -> str:
    """Decode a body whose declared charset cannot be trusted: UTF-8 where it must be, else GB 18030, which holds
    GB2312 and GBK."""
    if body.startswith(_UTF8_BOM):
        body = body[3:]
    if body.isascii():
        return body.decode("ascii")
    declared = _DECLARED.search(body[:512])
    says_utf8 = declared is not None and declared[1].lower().replace(b"_", b"-") in (b"utf-8", b"utf8")
    as_utf8: str | None
    try:
        as_utf8 = body.decode("utf-8")
    except UnicodeDecodeError:
        as_utf8 = None
    # GB text of five bytes and more practically never happens to be UTF-8; shorter text may.
    if as_utf8 is not None and (says_utf8 or sum(byte >= 0x80 for byte in body) >= 5):
        return as_utf8
    try:
        return body.decode("gb18030")
    except UnicodeDecodeError:
        return as_utf8 if as_utf8 is not None else body.decode("gb18030", "replace")


def parse(body: bytes) -> Element:
    """Return the root element of a body. Raises ManscdpError with the reason."""
    if len(body) > limits.XML_BYTES:
        raise ManscdpError(
            f"the XML body has {len(body)} bytes, more than {limits.XML_BYTES}", code="manscdp_too_large"
        )
    text = decode(body)
    if text.count("<") - text.count("</") > limits.XML_ELEMENTS:
        raise ManscdpError(f"the XML body has more than {limits.XML_ELEMENTS} elements", code="manscdp_too_large")
    text = clean(text)
    parser = etree.XMLParser(
        encoding="utf-8", recover=True, resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False,
        remove_comments=True, remove_pis=True,
    )  # fmt: skip
    try:
        root = etree.fromstring(text.encode("utf-8", "replace"), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise ManscdpError(f"the body is not XML: {error}") from None
    if root is None:
        raise ManscdpError("the body is not XML")
    return _convert(root, 1)


def clean(text: str) -> str:
    """Return `text` from its root element on, with what breaks XML parsers repaired. Linear in its length."""
    text = text.translate(_CONTROLS)
    if _FORBIDDEN.search(text):
        raise ManscdpError("the XML body declares a document type", code="manscdp_dtd")
    text = _PROLOG.sub("", text, count=1)
    text = _without_sections(text)
    start = _ROOT.search(text)
    if start is None:
        raise ManscdpError("the body has no Notify, Response, Query or Control element")
    text = _BARE_AMPERSAND.sub("&amp;", text[start.start() :])
    text = _STRAY_LESS.sub("&lt;", text)
    return _TAG_WITH_ATTRIBUTES.sub(_quote_attributes, text)


def _without_sections(text: str) -> str:
    """Drop comments and turn CDATA sections into plain text. Both are rare; unfinished ones reach to the end."""
    if "<!" not in text:
        return text
    pieces: list[str] = []
    at = 0
    while (begin := text.find("<!", at)) >= 0:
        pieces.append(text[at:begin])
        if text.startswith("<!--", begin):
            end = text.find("-->", begin + 4)
            at = len(text) if end < 0 else end + 3
        elif text.startswith("<![CDATA[", begin):
            end = text.find("]]>", begin + 9)
            stop = len(text) if end < 0 else end
            pieces.append(escape(text[begin + 9 : stop]))
            at = len(text) if end < 0 else end + 3
        else:
            pieces.append("&lt;!")
            at = begin + 2
    pieces.append(text[at:])
    return "".join(pieces)


def _quote_attributes(tag: re.Match[str]) -> str:
    inside = tag[2]
    closed = "/" if inside.rstrip().endswith("/") else ""
    if len(inside) > _ATTRIBUTE_CHARACTERS:
        return f"<{tag[1]}{closed}>"
    kept: dict[str, str] = {}
    for name, value in _ATTRIBUTE.findall(inside):
        if not name.lower().startswith("xmlns"):
            kept.setdefault(name, value.strip("\"'").replace('"', "&quot;"))
    attributes = "".join(f' {name}="{value}"' for name, value in kept.items())
    return f"<{tag[1]}{attributes}{closed}>"


def _local(name: str) -> str:
    return name.rpartition("}")[2].rpartition(":")[2]


def _convert(node: "etree._Element", depth: int) -> Element:
    """Return `node` as an Element. The depth check comes before the recursion, so recursion is bounded by
    limits.XML_DEPTH."""
    if depth > limits.XML_DEPTH:
        raise ManscdpError(f"the XML body is nested deeper than {limits.XML_DEPTH}", code="manscdp_too_deep")
    name = _local(str(node.tag))
    children = tuple(_convert(child, depth + 1) for child in node if isinstance(child.tag, str))
    secret = name.lower() in _SECRET
    # Text between children belongs to an element whose markup was damaged; the first piece is its value.
    text = "" if secret else (node.text or "").translate(_CONTROLS).strip()
    if len(text) > limits.XML_TEXT:
        raise ManscdpError(
            f"the XML field {name[:40]} has more than {limits.XML_TEXT} characters", code="manscdp_too_large"
        )
    attributes = {_local(str(key)).lower(): str(value) for key, value in node.attrib.items()}
    return Element(name, text, attributes, () if secret else children)


def escape(text: str) -> str:
    """Return `text` fit to stand between tags."""
    return text.translate(_CONTROLS).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
