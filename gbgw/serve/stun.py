"""STUN binding messages as ICE uses them, sans-IO (RFC 8489, RFC 8445 section 7).

Reads and writes binding requests, their answers and errors with short-term credentials: MESSAGE-INTEGRITY by SHA-1,
which is what ICE agents speak, and FINGERPRINT, without which nothing is believed to be STUN (RFC 8445 section 7.1.5).
Leaves out: long-term credentials, TURN, MESSAGE-INTEGRITY-SHA256.
"""

import binascii
import hashlib
import hmac
import ipaddress
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

COOKIE: Final = 0x2112A442
HEADER_BYTES: Final = 20
BINDING: Final = 0x001
Kind = Literal["request", "indication", "success", "error"]
_KINDS: Final[dict[int, Kind]] = {0x000: "request", 0x010: "indication", 0x100: "success", 0x110: "error"}
_BITS: Final = {kind: bits for bits, kind in _KINDS.items()}
_CLASS_MASK: Final = 0x0110
_HEAD: Final = struct.Struct(">HHI12s")
_ATTRIBUTE: Final = struct.Struct(">HH")

USERNAME: Final = 0x0006
MESSAGE_INTEGRITY: Final = 0x0008
ERROR_CODE: Final = 0x0009
UNKNOWN_ATTRIBUTES: Final = 0x000A
XOR_MAPPED_ADDRESS: Final = 0x0020
PRIORITY: Final = 0x0024
USE_CANDIDATE: Final = 0x0025
FINGERPRINT: Final = 0x8028
ICE_CONTROLLED: Final = 0x8029
ICE_CONTROLLING: Final = 0x802A
# Comprehension-required (below 0x8000) and known, if only to be passed over
_KNOWN: Final = frozenset(
    (USERNAME, MESSAGE_INTEGRITY, ERROR_CODE, UNKNOWN_ATTRIBUTES, XOR_MAPPED_ADDRESS, PRIORITY, USE_CANDIDATE)
) | frozenset(
    (0x0001, 0x0014, 0x0015, 0x001C, 0x001D, 0x001E)  # MAPPED-ADDRESS, and those of other mechanisms
)
_FINGERPRINT_XOR: Final = 0x5354554E
_INTEGRITY_BYTES: Final = 20

UNKNOWN_ATTRIBUTE: Final = (420, "Unknown Attribute")
ROLE_CONFLICT: Final = (487, "Role Conflict")


class Malformed(ValueError):
    """Not a STUN binding message."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message, its fingerprint checked, its integrity not yet: see `is_from`.

    transaction: 12 bytes. unknown: comprehension-required attributes that nobody here knows. error: 0 for none.
    """

    kind: Kind
    transaction: bytes
    attributes: dict[int, bytes]
    unknown: tuple[int, ...]
    signed: bytes  # what MESSAGE-INTEGRITY covers, with the length as it was then; b"" for none

    @property
    def usernames(self) -> tuple[str, str]:
        """(of who is asked, of who asks); "" for what is missing."""
        name = self.attributes.get(USERNAME, b"").decode("ascii", "replace")
        asked, _, asking = name.partition(":")
        return asked, asking

    @property
    def nominates(self) -> bool:
        return USE_CANDIDATE in self.attributes

    @property
    def error(self) -> int:
        value = self.attributes.get(ERROR_CODE, b"")
        return (value[2] & 7) * 100 + value[3] if len(value) >= 4 else 0

    def is_from(self, key: bytes) -> bool:
        """Whether MESSAGE-INTEGRITY is there and was made with `key` (RFC 8489 section 14.5)."""
        if not self.signed:
            return False
        made = hmac.digest(key, self.signed, hashlib.sha1)
        return hmac.compare_digest(made, self.attributes[MESSAGE_INTEGRITY])


def is_stun(data: bytes) -> bool:
    """By the first byte and the cookie (RFC 7983, RFC 8489 section 5)."""
    return len(data) >= HEADER_BYTES and data[0] < 4 and data[4:8] == b"\x21\x12\xa4\x42"


def parse(data: bytes) -> Message:
    """Read a whole datagram. Raises Malformed."""
    if not is_stun(data) or len(data) % 4:
        raise Malformed("no STUN header")
    type_, length, _, transaction = _HEAD.unpack_from(data)
    if type_ & ~_CLASS_MASK != BINDING or HEADER_BYTES + length != len(data):
        raise Malformed("not a binding message" if HEADER_BYTES + length == len(data) else "its length is wrong")
    attributes: dict[int, bytes] = {}
    unknown: list[int] = []
    signed = b""
    at = HEADER_BYTES
    while at < len(data):
        name, size = _ATTRIBUTE.unpack_from(data, at)
        value = data[at + 4 : at + 4 + size]
        if len(value) != size:
            raise Malformed("an attribute is cut")
        if name == FINGERPRINT:
            # the last one, over all before it with the length as it stands (RFC 8489 section 14.7)
            if size != 4 or at + 8 != len(data) or int.from_bytes(value, "big") != _fingerprint(data[:at]):
                raise Malformed("the fingerprint is wrong")
            return Message(_KINDS[type_ & _CLASS_MASK], transaction, attributes, tuple(unknown), signed)
        if not signed:  # what follows MESSAGE-INTEGRITY is not covered by it
            if name == MESSAGE_INTEGRITY:
                if size != _INTEGRITY_BYTES:
                    raise Malformed("MESSAGE-INTEGRITY of a wrong size")
                signed = _HEAD.pack(type_, at + 24 - HEADER_BYTES, COOKIE, transaction) + data[HEADER_BYTES:at]
            elif name < 0x8000 and name not in _KNOWN:
                unknown.append(name)
            attributes.setdefault(name, value)
        at += 4 + size + (-size % 4)
    raise Malformed("no fingerprint")


def _fingerprint(before: bytes) -> int:
    return binascii.crc32(before) ^ _FINGERPRINT_XOR


def build(kind: Kind, transaction: bytes, attributes: Iterable[tuple[int, bytes]], key: bytes) -> bytes:
    """A binding message with MESSAGE-INTEGRITY and FINGERPRINT."""
    body = b"".join(_ATTRIBUTE.pack(name, len(value)) + value + bytes(-len(value) % 4) for name, value in attributes)
    type_ = BINDING | _BITS[kind]
    signed = _HEAD.pack(type_, len(body) + 24, COOKIE, transaction) + body
    body += _ATTRIBUTE.pack(MESSAGE_INTEGRITY, _INTEGRITY_BYTES) + hmac.digest(key, signed, hashlib.sha1)
    before = _HEAD.pack(type_, len(body) + 8, COOKIE, transaction) + body
    return before + _ATTRIBUTE.pack(FINGERPRINT, 4) + _fingerprint(before).to_bytes(4, "big")


def success(request: Message, host: str, port: int, key: bytes) -> bytes:
    """The answer that tells a source how it is seen (RFC 8489 section 14.2)."""
    return build("success", request.transaction, [(XOR_MAPPED_ADDRESS, _seen(request, host, port))], key)


def _seen(request: Message, host: str, port: int) -> bytes:
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address  # of a socket for both families
    mask = COOKIE.to_bytes(4, "big") + request.transaction
    hidden = bytes(one ^ other for one, other in zip(address.packed, mask, strict=False))
    return struct.pack(">BBH", 0, 1 if address.version == 4 else 2, port ^ COOKIE >> 16) + hidden


def failure(request: Message, error: tuple[int, str], key: bytes) -> bytes:
    """An error answer; with 420 it names what is unknown (RFC 8489 section 14.13)."""
    code, reason = error
    attributes = [(ERROR_CODE, struct.pack(">HBB", 0, code // 100, code % 100) + reason.encode())]
    if error == UNKNOWN_ATTRIBUTE:
        names = request.unknown[:8]  # an answer is never longer than what asked for it
        attributes.append((UNKNOWN_ATTRIBUTES, struct.pack(f">{len(names)}H", *names)))
    return build("error", request.transaction, attributes, key)
