"""Reads the XML that devices send, which is often not XML (GB/T 28181 reference rules 2.3 and 3.1): bytes -> text ->
Element.

Two steps. `clean` turns what field devices write (undeclared charsets, bare `&`, `<` in names, unquoted attributes,
control characters, trailing NULs) into something a parser takes; lxml then parses it without DTD, entities or
network, recovering what a missing end tag left. Everything is bounded by `base.limits`, and the values of password
fields are dropped before anyone can see them.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, cast

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
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]+")
_SECRET: Final = frozenset({"password", "cryptkey"})
# An element's other spellings, lower case (reference 3.9); those that depend on where they stand are handled by their
# reader.
_ALIASES: Final = {
    "ifamecmd": "iframecmd",
    "firmwareversion": "firmware",
    "videoparamattributes": "videoparamattribute",
    "expire": "expires",
}


_NONE: Final[Mapping[str, str]] = MappingProxyType({})  # most elements are leaves: they share what is empty


@dataclass(slots=True, eq=True)
class Element:
    """One element; names compare without case and through the alias list. Not changed once it is read."""

    name: str  # as spelt, without namespace
    text: str  # its own text before its first child, trimmed
    attributes: Mapping[str, str] = field(default_factory=lambda: _NONE)  # names in lower case
    children: Sequence["Element"] = ()
    key: str = ""  # the name in lower case, aliases resolved
    _first: dict[str, "Element"] | None = field(default=None, compare=False, repr=False)  # first child of each key

    def find(self, name: str) -> "Element | None":
        """Return the first direct child called `name`, or None."""
        if self._first is None:
            self._first = {}
            for child in self.children:
                self._first.setdefault(child.key, child)
        return self._first.get(canonical(name))

    def find_all(self, name: str) -> Iterator["Element"]:
        wanted = canonical(name)
        return (child for child in self.children if child.key == wanted)

    def get(self, *names: str) -> str:
        """Return the text of the first direct child with one of these names, or "". Of several with one name the
        first counts."""
        for name in names:
            child = self.find(name)
            if child is not None and child.text:
                return child.text
        return ""


@lru_cache(maxsize=1_024)
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
    builder = _Builder()
    parser = etree.XMLParser(
        target=cast("Any", builder),  # the stubs want a method for comments, which clean() has taken out
        encoding="utf-8",
        recover=True,
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
    )
    try:
        parser.feed(text.encode("utf-8", "replace"))
        parser.close()
    except (etree.XMLSyntaxError, ValueError) as error:
        if builder.root is None:
            raise ManscdpError(f"the body is not XML: {error}") from None
    if builder.root is None:
        raise ManscdpError("the body is not XML")
    return builder.root


class _Builder:
    """Takes the parser's events and keeps Elements, which spares a second tree."""

    __slots__ = ("_children", "_open", "_secret", "root")

    def __init__(self) -> None:
        self.root: Element | None = None
        self._open: list[Element] = []
        self._children: list[list[Element] | None] = []  # of each open element, made with the first
        self._secret = 0  # depth inside a password element, whose content is dropped

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if len(self._open) >= limits.XML_DEPTH:
            raise ManscdpError(f"the XML body is nested deeper than {limits.XML_DEPTH}", code="manscdp_too_deep")
        name = _local(tag)
        element = Element(name, "", _NONE, (), canonical(name))
        if self._secret or element.key in _SECRET:
            self._secret += 1
        elif attributes:
            element.attributes = {_local(key).lower(): value for key, value in attributes.items()}
        if self._open:
            if self._secret <= 1:
                children = self._children[-1]
                if children is None:
                    children = self._children[-1] = []
                    self._open[-1].children = children
                children.append(element)
        elif self.root is None:
            self.root = element
        self._open.append(element)
        self._children.append(None)

    def data(self, text: str) -> None:
        if self._open and not self._secret and not self._open[-1].children:
            element = self._open[-1]
            element.text += text
            if len(element.text) > limits.XML_TEXT:
                message = f"the XML field {element.name[:40]} has more than {limits.XML_TEXT} characters"
                raise ManscdpError(message, code="manscdp_too_large")

    def end(self, tag: str) -> None:
        if not self._open:
            return
        element = self._open.pop()
        self._children.pop()
        if self._secret:
            self._secret -= 1
        text = element.text
        if text:
            element.text = (text if text.isprintable() else _CONTROL.sub("", text)).strip()

    def close(self) -> Element | None:
        while self._open:  # end tags that never came
            self.end("")
        return self.root


def clean(text: str) -> str:
    """Return `text` from its root element on, with what breaks XML parsers repaired. Linear in its length."""
    text = _CONTROL.sub("", text)
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


@lru_cache(maxsize=1_024)
def _local(name: str) -> str:
    return name.rpartition("}")[2].rpartition(":")[2]


def escape(text: str) -> str:
    """Return `text` fit to stand between tags."""
    return _CONTROL.sub("", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
