"""HTTP digest for SIP, both sides (RFC 3261 section 22, RFC 2617, RFC 7616 and 8760 for SHA-256; RFC 2069 answers
without qop).

Passwords may be stored as HA1 alone: the server side never asks for more. auth-int is not used (GB/T 28181 has no
need of it).
"""

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from gbgw.base import limits
from gbgw.base.errors import AuthError
from gbgw.sip.fields import cut, quoted
from gbgw.sip.message import Response

_HASHES: Final[Mapping[str, Callable[[bytes], "hashlib._Hash"]]] = {
    "MD5": hashlib.md5,
    "SHA-256": hashlib.sha256,
}
_SESSION: Final = "-SESS"
_MAC_BYTES: Final = 10
_NONCE_BYTES: Final = 6 + 4 + _MAC_BYTES  # milliseconds, random, code


class Verdict(Enum):
    """What a credential is worth. STALE: the digest is right but its nonce is used up: challenge again with
    stale=true."""

    OK = "ok"
    STALE = "stale"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Authorization:
    """Credentials of an Authorization or Proxy-Authorization header, every text exactly as received."""

    username: str
    realm: str
    nonce: str
    uri: str
    response: str
    algorithm: str = ""
    qop: str = ""
    nc: str = ""
    cnonce: str = ""
    opaque: str = ""

    @classmethod
    def parse(cls, text: str) -> "Authorization":
        """Read the header value. Raises AuthError when it is not Digest or lacks a needed part."""
        parts = _parts(text)
        for name in ("username", "realm", "nonce", "uri", "response"):
            if name not in parts:
                raise AuthError(f"The credentials have no {name}.")
        fields = ("username", "realm", "nonce", "uri", "response", "algorithm", "qop", "nc", "cnonce", "opaque")
        return cls(**{name: parts[name] for name in fields if name in parts})


@dataclass(frozen=True, slots=True)
class Challenge:
    """A WWW-Authenticate or Proxy-Authenticate value. qop: what is offered, empty for none."""

    realm: str
    nonce: str
    algorithm: str = ""
    qop: tuple[str, ...] = ()
    stale: bool = False
    opaque: str = ""

    @classmethod
    def parse(cls, text: str) -> "Challenge":
        """Read the header value. Raises AuthError when it is not Digest or lacks realm or nonce."""
        parts = _parts(text)
        if "realm" not in parts or "nonce" not in parts:
            raise AuthError("The challenge has no realm or no nonce.")
        qop = tuple(word.strip().lower() for word in parts.get("qop", "").split(",") if word.strip())
        stale = parts.get("stale", "").lower() == "true"
        return cls(parts["realm"], parts["nonce"], parts.get("algorithm", ""), qop, stale, parts.get("opaque", ""))

    def __str__(self) -> str:
        text = f"Digest realm={quoted(self.realm)},nonce={quoted(self.nonce)}"
        if self.opaque:
            text += f",opaque={quoted(self.opaque)}"
        if self.stale:
            text += ",stale=true"
        if self.algorithm:
            text += f",algorithm={self.algorithm}"
        return text + (f',qop="{",".join(self.qop)}"' if self.qop else "")


def ha1(username: str, realm: str, password: str, algorithm: str = "MD5") -> str:
    """Return H(username:realm:password), the form in which passwords are stored; the same for the -sess algorithms."""
    return _hash(algorithm, username, realm, password)


def response_digest(ha1_hex: str, method: str, authorization: Authorization) -> str:
    """Return the digest that `authorization` should carry, lower case (reference section 2.8).

    Raises AuthError for an unknown algorithm or qop.
    """
    algorithm = authorization.algorithm or "MD5"
    if algorithm.upper().endswith(_SESSION):
        ha1_hex = _hash(algorithm, ha1_hex, authorization.nonce, authorization.cnonce)
    ha2 = _hash(algorithm, method, authorization.uri)
    if not authorization.qop:
        return _hash(algorithm, ha1_hex, authorization.nonce, ha2)
    if authorization.qop.lower() != "auth":
        raise AuthError("Only qop=auth is used here.")
    given = authorization
    return _hash(algorithm, ha1_hex, given.nonce, given.nc, given.cnonce, given.qop, ha2)


class NonceStore:
    """Makes nonces and remembers which are used up (reference section 2.8, nonce policy).

    A nonce carries its time under a code of this process, so that only *used* ones need memory, and only those who know
    a password can fill it. When it is full the oldest go, and every nonce as old as those counts as used.
    """

    __slots__ = ("_floor", "_lifetime", "_limit", "_realm", "_secret", "_used")

    def __init__(
        self, realm: str, *, lifetime_seconds: float = 120.0, secret: bytes | None = None, limit: int = limits.NONCES
    ) -> None:
        self._realm = _bytes(realm)
        self._lifetime = round(lifetime_seconds * 1000)
        self._secret = secret if secret is not None else secrets.token_bytes(32)
        self._limit = limit
        self._used: OrderedDict[str, int] = OrderedDict()  # nonce -> highest nc; 0 when it was used without qop
        self._floor = -1  # milliseconds; nonces made until then are used up

    def __len__(self) -> int:
        return len(self._used)

    def issue(self, now: float) -> str:
        """Return a fresh nonce of 40 hex digits."""
        head = (round(now * 1000) & (1 << 48) - 1).to_bytes(6, "big") + secrets.token_bytes(4)
        return (head + self._code(head)).hex()

    def accept(self, nonce: str, nc: int | None, now: float, *, reuse: bool = False) -> bool:
        """Use up a nonce whose digest was right; return False when it is foreign, too old or used already.

        nc: the count of a qop=auth answer, which must rise; None without qop, which allows one use.
        reuse: this peer may use one nonce again until it expires (quirk `nonce_reuse`).
        """
        made = self._made(nonce)
        at = round(now * 1000)
        if made is None or made <= self._floor or not made <= at + 1000 or at - made > self._lifetime:
            return False
        last = self._used.get(nonce)
        if reuse:
            return True
        if last is not None and (nc is None or last == 0 or nc <= last):
            return False
        self._used[nonce] = nc or 0
        self._forget(at)
        return True

    def _made(self, nonce: str) -> int | None:
        try:
            raw = bytes.fromhex(nonce)
        except ValueError:
            return None
        if len(raw) != _NONCE_BYTES or not hmac.compare_digest(raw[10:], self._code(raw[:10])):
            return None
        return int.from_bytes(raw[:6], "big")

    def _code(self, head: bytes) -> bytes:
        return hmac.digest(self._secret, head + self._realm, "sha256")[:_MAC_BYTES]

    def _forget(self, at: int) -> None:
        while self._used:
            nonce = next(iter(self._used))
            made = int(nonce[:12], 16)
            if at - made > self._lifetime:
                del self._used[nonce]
            elif len(self._used) > self._limit:
                del self._used[nonce]
                self._floor = max(self._floor, made)
            else:
                return


class Authenticator:
    """The server's side of digest for one realm."""

    __slots__ = ("nonces", "offer_qop", "realm", "require_qop")

    def __init__(
        self, realm: str, *, nonces: NonceStore | None = None, offer_qop: bool = True, require_qop: bool = False
    ) -> None:
        self.realm = realm
        self.nonces = nonces if nonces is not None else NonceStore(realm)
        self.offer_qop = offer_qop
        self.require_qop = require_qop

    def challenges(self, now: float, *, stale: bool = False, algorithms: Iterable[str] = ("MD5",)) -> list[str]:
        """Return one WWW-Authenticate value per algorithm, strongest first if given so; many firmwares read only
        one."""
        nonce = self.nonces.issue(now)
        qop = ("auth",) if self.offer_qop or self.require_qop else ()
        return [str(Challenge(self.realm, nonce, algorithm, qop, stale)) for algorithm in algorithms]

    def verify(
        self,
        authorization: Authorization,
        method: str,
        ha1_by_algorithm: Mapping[str, str],
        now: float,
        *,
        method_text: str = "",
        nonce_reuse: bool = False,
    ) -> Verdict:
        """Judge credentials in constant time and use up their nonce when they are right.

        ha1_by_algorithm: hex HA1 by "MD5" and "SHA-256", computed with this realm; what is not listed is refused. For
        a user who does not exist pass the HA1 of a random password, so that the answer takes as long.
        method_text: the method as it was spelled in the request line, tried too.
        """
        base = (authorization.algorithm or "MD5").upper().removesuffix(_SESSION)
        known = ha1_by_algorithm.get(base)
        nc: int | None = None
        if known is None or authorization.realm != self.realm or (self.require_qop and not authorization.qop):
            return Verdict.WRONG
        if authorization.qop:
            try:
                nc = int(authorization.nc, 16) if len(authorization.nc) <= 8 else -1
            except ValueError:
                nc = -1
            if nc < 0 or not authorization.cnonce:
                return Verdict.WRONG
        given = _bytes(authorization.response.lower())
        right = False
        for spelling in {method, method_text or method}:
            try:
                expected = response_digest(known.lower(), spelling, authorization)
            except AuthError:
                return Verdict.WRONG
            right |= hmac.compare_digest(given, expected.encode())
        if not right:
            return Verdict.WRONG
        accepted = self.nonces.accept(authorization.nonce, nc, now, reuse=nonce_reuse)
        return Verdict.OK if accepted and nc != 0 else Verdict.STALE


class DigestClient:
    """The client's side: answers challenges for one user, counting nc per nonce."""

    __slots__ = ("_count", "_make_cnonce", "_nonce", "_password", "username")

    def __init__(self, username: str, password: str, *, make_cnonce: Callable[[], str] | None = None) -> None:
        self.username = username
        self._password = password
        self._make_cnonce = make_cnonce or (lambda: secrets.token_hex(8))
        self._nonce = ""
        self._count = 0

    def answer(self, response: Response, method: str, uri: str) -> tuple[str, str]:
        """Return the header (name, value) that answers a 401 or 407, for the first challenge we understand.

        Raises AuthError when there is none.
        """
        proxy = response.status == 407
        for text in response.headers.all("Proxy-Authenticate" if proxy else "WWW-Authenticate"):
            try:
                challenge = Challenge.parse(text)
                value = self.credentials(challenge, method, uri)
            except AuthError:
                continue
            return "Proxy-Authorization" if proxy else "Authorization", value
        raise AuthError("The peer sent no challenge that can be answered.", code="challenge_unusable")

    def credentials(self, challenge: Challenge, method: str, uri: str) -> str:
        """Return the value that answers one challenge. Raises AuthError for an unknown algorithm or qop."""
        if challenge.qop and "auth" not in challenge.qop:
            raise AuthError("The challenge wants a qop other than auth.")
        session = challenge.algorithm.upper().endswith(_SESSION)
        cnonce = self._make_cnonce() if challenge.qop or session else ""
        self._count = self._count + 1 if challenge.nonce == self._nonce else 1
        self._nonce = challenge.nonce
        qop, nc = ("auth", f"{self._count:08x}") if challenge.qop else ("", "")
        secret = ha1(self.username, challenge.realm, self._password, challenge.algorithm or "MD5")
        draft = Authorization(
            self.username, challenge.realm, challenge.nonce, uri, "", challenge.algorithm, qop, nc, cnonce
        )
        digest = response_digest(secret, method, draft)
        text = (
            f"Digest username={quoted(self.username)},realm={quoted(challenge.realm)},nonce={quoted(challenge.nonce)}"
            f',uri={quoted(uri)},response="{digest}",algorithm={challenge.algorithm or "MD5"}'
        )
        if cnonce:
            text += f',cnonce="{cnonce}"'
        if challenge.qop:
            text += f",qop={qop},nc={nc}"
        return text + (f",opaque={quoted(challenge.opaque)}" if challenge.opaque else "")


def _hash(algorithm: str, *words: str) -> str:
    make = _HASHES.get(algorithm.upper().removesuffix(_SESSION))
    if make is None:
        raise AuthError("The digest algorithm is unknown.")
    return make(b":".join(map(_bytes, words))).hexdigest()


def _bytes(text: str) -> bytes:
    try:
        return text.encode("latin-1")  # received header text is bytes in disguise
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _parts(text: str) -> dict[str, str]:
    words = text.split(None, 1)
    if len(words) != 2 or words[0].lower() != "digest":
        raise AuthError("Only the Digest scheme is used here.")
    rest = words[1]
    parts: dict[str, str] = {}
    for piece in cut(rest, ","):
        name, mark, value = piece.partition("=")
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] == '"':
            value = value[1:-1]  # not unescaped: RFC 2617 hashes the text between the quotes as it stands
        if mark:
            parts.setdefault(name.strip().lower(), value)
    return parts
