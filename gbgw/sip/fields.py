"""Structured header fields: URI, name-addr, Via and their parameters (RFC 3261 sections 19, 20.10, 20.42 and 25).

Reading is tolerant (any case, no angle brackets, blanks everywhere, broken quotes); the text that came is kept where it
must be repeated exactly. What cannot be read at all raises SipError.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote, unquote_to_bytes

from gbgw.base.errors import SipError

Params = tuple[tuple[str, str | None], ...]

_USER_SAFE: Final = "-_.!~*'()&=+$,;?/"  # RFC 3261 section 25.1: unreserved and user-unreserved
_SCHEME: Final = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.\-]*)\s*:")
_BLANKS: Final = " \t\r\n"
_QUOTED_CUT: Final = re.compile(r'"(?:[^"\\]|\\.|\\\Z)*(?:"|\Z)|<[^>]*(?:>|\Z)|([,;])', re.DOTALL)
_PLAIN_VALUE: Final = re.compile(r'[^\s",;<>=\\?]+\Z')
_PLAIN_HOST: Final = re.compile(r"([A-Za-z0-9.\-]+)(?::([0-9]{1,4}))?\Z")
_HOST: Final = re.compile(r"[^\s/@<>,\"]+\Z")


T = TypeVar("T")


class lazy(Generic[T]):
    """A value computed at first use and kept in the instance, as functools.cached_property without its lock (3.11)."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    def __get__(self, instance: object, owner: type | None = None) -> T:
        value = self._compute(instance)
        instance.__dict__[self._name] = value
        return value


def cut(text: str, mark: str) -> Iterator[str]:
    """Yield the pieces of `text` between `mark` ("," or ";"), not looking inside quotes and angle brackets; blank
    pieces are left out.
    """
    if '"' not in text and "<" not in text:
        pieces: Iterable[str] = text.split(mark)
    else:
        found = [match.start() for match in _QUOTED_CUT.finditer(text) if match[1] == mark]
        edges = [-1, *found, len(text)]
        pieces = [text[start + 1 : end] for start, end in pairwise(edges)]
    for piece in pieces:
        stripped = piece.strip(_BLANKS)
        if stripped:
            yield stripped


def unquoted(text: str) -> str:
    """Return the content of a quoted string, or `text` when it is none."""
    text = text.strip(_BLANKS)
    if len(text) >= 2 and text[0] == '"' and text[-1] == '"':
        text = text[1:-1]
        if "\\" in text:
            text = re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
    return text


def quoted(text: str) -> str:
    """Return `text` as a quoted string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def parse_params(text: str) -> Params:
    """Read ";name=value;flag"; names become lower case, quotes are taken off."""
    params: list[tuple[str, str | None]] = []
    for piece in cut(text, ";"):
        name, mark, value = piece.partition("=")
        params.append((name.strip(_BLANKS).lower(), unquoted(value) if mark else None))
    return tuple(params)


def format_params(params: Params) -> str:
    parts: list[str] = []
    for name, value in params:
        if value is None:
            parts.append(f";{name}")
        else:
            plain = _PLAIN_VALUE.match(value)
            parts.append(f";{name}={value}" if plain else f";{name}={quoted(value)}")
    return "".join(parts)


def find_param(params: Params, name: str) -> str | None:
    """Return the value of the first parameter `name` (lower case); "" when it has none; None when it is absent."""
    for key, value in params:
        if key == name:
            return value if value is not None else ""
    return None


def with_param(params: Params, name: str, value: str | None) -> Params:
    """Return `params` with `name` set to `value`, in its old place or at the end."""
    if any(key == name for key, _ in params):
        return tuple((key, value if key == name else old) for key, old in params)
    return (*params, (name, value))


def parse_host_port(text: str) -> tuple[str, int | None]:
    """Split "host", "host:port" or "[v6]:port"; raise SipError when there is no host or the port is no port."""
    match = _PLAIN_HOST.match(text)
    if match:
        return match[1], int(match[2]) if match[2] else None
    text = text.strip(_BLANKS)
    if text.startswith("["):
        host, mark, rest = text[1:].partition("]")
        if not mark:
            raise SipError("An IPv6 address is not closed.")
        rest = rest.strip(_BLANKS)
        port_text = rest[1:] if rest.startswith(":") else ""
    else:
        host, _, port_text = text.partition(":")
        if ":" in port_text:  # a bare IPv6 address, against the grammar but unmistakable
            host, port_text = text, ""
    host, port_text = host.strip(_BLANKS), port_text.strip(_BLANKS)
    if not _HOST.match(host):
        raise SipError("A host name is missing or has characters that no host name has.")
    if not port_text:
        return host, None
    if not (port_text.isascii() and port_text.isdigit() and len(port_text) <= 6 and int(port_text) <= 65_535):
        raise SipError("A port is not a number up to 65535.")
    return host, int(port_text)


def format_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@dataclass(frozen=True, slots=True)
class Uri:
    """A SIP URI. A URI of another scheme keeps everything after the colon in `user` and has an empty host.

    user: decoded, "" when absent. port: None when absent. params: names in lower case. headers: text after "?".
    """

    user: str
    host: str
    port: int | None = None
    params: Params = ()
    scheme: str = "sip"
    password: str = ""
    headers: str = ""

    @classmethod
    def parse(cls, text: str) -> "Uri":
        """Read a URI with or without scheme and angle brackets.

        Raises SipError when no host can be found in it.
        """
        text = text.strip(_BLANKS)
        if text.startswith("<"):
            text = text[1:].partition(">")[0]
        match = _SCHEME.match(text)
        scheme = match[1].lower() if match else ""
        if scheme in ("sip", "sips"):
            assert match is not None
            rest = text[match.end() :]
        elif match and "@" not in text and not text[match.end() :].strip()[:1].isdigit():
            return cls(text[match.end() :], "", scheme=scheme)
        elif scheme in ("tel", "urn", "http", "https", "im", "pres"):
            assert match is not None
            return cls(text[match.end() :], "", scheme=scheme)
        else:
            scheme, rest = "sip", text  # "34020000002000000001@3402000000" and "192.0.2.1:5060" occur
        rest = rest.strip(_BLANKS)
        user_text, _, host_text = rest.rpartition("@")  # a user part may hold any of ;?/ (RFC 4475 section 3.1.1.2)
        host_text, _, headers = host_text.partition("?")
        host_text, _, params_text = host_text.partition(";")
        host, port = parse_host_port(host_text)
        user, _, password = user_text.partition(":")
        if "%" in user:
            user = unquote_to_bytes(user.encode("latin-1", "replace")).decode("latin-1")
        return cls(user, host, port, parse_params(params_text) if params_text else (), scheme, password, headers)

    def param(self, name: str) -> str | None:
        return find_param(self.params, name)

    def __str__(self) -> str:
        if not self.host:
            return f"{self.scheme}:{self.user}"
        user = quote(self.user, safe=_USER_SAFE, encoding="latin-1", errors="replace") if self.user else ""
        if self.password:
            user = f"{user}:{self.password}"
        port = f":{self.port}" if self.port is not None else ""
        headers = f"?{self.headers}" if self.headers else ""
        at = "@" if user else ""
        return f"{self.scheme}:{user}{at}{format_host(self.host)}{port}{format_params(self.params)}{headers}"


@dataclass(frozen=True)
class NameAddr:
    """From, To, Contact, Route and their kin: an address with a display name and parameters.

    address: text of the URI exactly as it came. params: of the header, names in lower case.
    """

    address: str
    display: str = ""
    params: Params = ()

    @classmethod
    def parse(cls, text: str) -> "NameAddr":
        """Read one address. Without angle brackets, parameters belong to the header (RFC 3261 section 20).

        Raises SipError when it is empty. The URI itself is read by `uri`.
        """
        text = text.strip(_BLANKS)
        display, rest = "", text
        if text.startswith('"'):
            match = _QUOTED_CUT.match(text)
            assert match is not None
            display, rest = unquoted(match[0]), text[match.end() :].lstrip(_BLANKS)
        before, bracket, after = rest.partition("<")
        if bracket:
            display = display or before.strip(_BLANKS)
            address, _, tail = after.partition(">")
            params_text = tail.partition(";")[2]
        else:
            address, _, params_text = rest.partition(";")
        address = address.strip(_BLANKS)
        if not address:
            raise SipError("An address header has no address.")
        return cls(address, display, parse_params(params_text) if params_text else ())

    @lazy
    def uri(self) -> Uri:
        """The parsed address. Raises SipError."""
        return Uri.parse(self.address)

    @property
    def user(self) -> str:
        """User part of the address, "" when there is none: a GB id in this trade. Raises SipError."""
        return self.uri.user

    @property
    def tag(self) -> str:
        """The tag, "" when absent."""
        return find_param(self.params, "tag") or ""

    def param(self, name: str) -> str | None:
        return find_param(self.params, name)

    def with_param(self, name: str, value: str | None) -> "NameAddr":
        return NameAddr(self.address, self.display, with_param(self.params, name, value))

    def with_tag(self, tag: str) -> "NameAddr":
        return self.with_param("tag", tag)

    def __str__(self) -> str:
        display = f"{quoted(self.display)} " if self.display else ""
        return f"{display}<{self.address}>{format_params(self.params)}"


@dataclass(frozen=True, slots=True)
class Via:
    """One hop of the way a request came.

    transport: upper case. host, port: sent-by; port None when absent.
    """

    transport: str
    host: str
    port: int | None = None
    params: Params = ()

    @classmethod
    def parse(cls, text: str) -> "Via":
        """Read one Via value. Raises SipError when transport or host is missing."""
        head, _, params_text = text.partition(";")
        name, _, rest = head.partition("/")
        version, _, rest = rest.partition("/")
        words = rest.split(None, 1)
        if len(words) != 2 or name.strip(_BLANKS).upper() != "SIP" or version.strip(_BLANKS) != "2.0":
            raise SipError("A Via header does not have the form SIP/2.0/transport host.")
        host, port = parse_host_port(words[1])
        return cls(words[0].upper(), host, port, parse_params(params_text) if params_text else ())

    @property
    def branch(self) -> str:
        """The branch, "" when absent."""
        return find_param(self.params, "branch") or ""

    @property
    def rport(self) -> str | None:
        """None: not asked for; "": asked for; else the port that was filled in."""
        return find_param(self.params, "rport")

    @property
    def received(self) -> str | None:
        return find_param(self.params, "received")

    def param(self, name: str) -> str | None:
        return find_param(self.params, name)

    def with_param(self, name: str, value: str | None) -> "Via":
        return Via(self.transport, self.host, self.port, with_param(self.params, name, value))

    def __str__(self) -> str:
        port = f":{self.port}" if self.port is not None else ""
        return f"SIP/2.0/{self.transport} {format_host(self.host)}{port}{format_params(self.params)}"
