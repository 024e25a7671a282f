"""Who may do what: bearer tokens with scopes for people and scripts, signed expiring tokens for play URLs.

A bearer token is 256 random bits; only its SHA-256 is kept, which needs no salt or stretching at that size, and
looking a hash up tells an attacker nothing by its timing. A play token is an HMAC over stream key and expiry: nothing
is stored.
"""

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, Literal, get_args
from urllib.parse import urlsplit

from aiohttp import web

from gbgw.base import limits
from gbgw.base.errors import LimitError, RequestError
from gbgw.base.tally import Tally
from gbgw.serve.source import Scope, TokenRow, TokenStore

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
_IMPLIED: Final[dict[str, frozenset[str]]] = {
    "view": frozenset({"view"}),
    "control": frozenset({"view", "control"}),
    "admin": frozenset({"view", "control", "admin"}),
}


def new_token(
    name: str, scopes: Sequence[Scope], *, now: datetime, expires: datetime | None = None
) -> tuple[str, TokenRow]:
    """Return the secret, shown once, and the row to store."""
    secret = f"gbgw_{secrets.token_urlsafe(32)}"
    digest = _digest(secret)
    row = TokenRow(digest[:16], name, tuple(scopes), digest, now, expires)
    return secret, row


def allows(row: TokenRow, scope: Scope) -> bool:
    return any(scope in _IMPLIED.get(owned, ()) for owned in row.scopes)


class Authority:
    """The working copy of the tokens, and the key that signs play URLs.

    play_secret: at least 32 bytes, random; keep it to let play URLs survive a restart.
    """

    def __init__(
        self,
        store: TokenStore,
        *,
        play: Literal["token", "open"] = "token",
        play_secret: bytes,
        play_seconds: float = 3_600,
        tally: Tally | None = None,
    ) -> None:
        if len(play_secret) < 32:
            raise ValueError("play_secret needs at least 32 bytes")
        self.play = play
        self.play_seconds = play_seconds
        self._store = store
        self._secret = play_secret
        self._tally = tally if tally is not None else Tally()
        self._by_digest: dict[str, TokenRow] = {}

    async def load(self) -> None:
        """Read the tokens; call once before the first request."""
        self._by_digest = {row.sha256: row for row in await self._store.load_tokens()}

    async def ensure_admin(self) -> str | None:
        """Make the random admin token when there is no admin yet; return it for the one line that shows it."""
        now = datetime.now(UTC)
        if any("admin" in row.scopes and not _expired(row, now) for row in self._by_digest.values()):
            return None
        secret, _ = await self.create("admin", ("admin",))
        return secret

    def rows(self) -> list[TokenRow]:
        return sorted(self._by_digest.values(), key=lambda row: row.id)

    async def create(
        self, name: str, scopes: Sequence[Scope], *, expires: datetime | None = None
    ) -> tuple[str, TokenRow]:
        """Raises LimitError at limits.TOKENS."""
        if len(self._by_digest) >= limits.TOKENS:
            raise LimitError(
                f"{limits.TOKENS} tokens exist.", code="token_limit", remedy="Revoke those that nobody uses."
            )
        secret, row = new_token(name, scopes, now=datetime.now(UTC), expires=expires)
        await self._store.save_token(row)
        self._by_digest[row.sha256] = row
        return secret, row

    async def revoke(self, token_id: str) -> bool:
        """Return False when there was none."""
        row = next((row for row in self._by_digest.values() if row.id == token_id), None)
        if row is None:
            return False
        await self._store.delete_token(token_id)
        self._by_digest.pop(row.sha256, None)
        return True

    def bearer(self, text: str) -> TokenRow | None:
        """The row of a token that is known and not expired."""
        if not text or len(text) > limits.TOKEN_CHARS:
            return None
        row = self._by_digest.get(_digest(text))
        if row is None or _expired(row, datetime.now(UTC)):
            return None
        return row

    def require(self, request: web.Request, scope: Scope, *, query: bool = False) -> TokenRow:
        """The caller's token, which must carry `scope`; `query`: also take ?token=. Raises RequestError 401, 403."""
        text = _presented(request, query=query)
        row = self.bearer(text)
        if row is None:
            self._tally.add("http.unauthorized")
            raise RequestError(
                "This needs a valid token." if text else "This needs a token.",
                status=401,
                code="token_invalid" if text else "token_missing",
                remedy="Send Authorization: Bearer TOKEN" + (", or add ?token=TOKEN to the URL." if query else "."),
            )
        if not allows(row, scope):
            self._tally.add("http.forbidden")
            raise RequestError(
                f"This needs the scope {scope}.",
                status=403,
                code="scope_missing",
                remedy="Ask an administrator for a token with that scope.",
            )
        return row

    def sign_play(self, key: str, *, seconds: float | None = None) -> tuple[str, datetime]:
        """A play token for one stream key, and when it ends."""
        valid = min(seconds if seconds is not None else self.play_seconds, limits.PLAY_TOKEN_SECONDS)
        expiry = int(time.time() + valid)
        return f"{expiry:x}.{self._mac(key, expiry)}", datetime.fromtimestamp(expiry, UTC)

    def require_play(self, request: web.Request, key: str) -> None:
        """Let a player in: auth.play is open, a play token of this key, or a bearer token that may view.

        Checked when a stream is opened, not again. Raises RequestError 401, 403.
        """
        if self.play == "open":
            return
        text = _presented(request, query=True)
        if "." in text and len(text) <= limits.TOKEN_CHARS and not text.startswith("gbgw_"):
            self._check_play(key, text)
            return
        self.require(request, "view", query=True)

    def _check_play(self, key: str, text: str) -> None:
        head, _, mac = text.partition(".")
        try:
            expiry = int(head[:16], 16)
        except ValueError:
            expiry = -1
        known = expiry >= 0 and hmac.compare_digest(self._mac(key, expiry).encode(), mac.encode("utf-8", "replace"))
        if not known:
            self._tally.add("http.forbidden")
            raise RequestError(
                "This token is not for this stream.",
                status=403,
                code="play_token_invalid",
                remedy="Ask POST /api/v1/play-tokens for one.",
                stream=key,
            )
        if expiry < time.time():
            self._tally.add("http.forbidden")
            raise RequestError(
                "This play URL has expired.",
                status=403,
                code="play_token_expired",
                remedy="Ask POST /api/v1/play-tokens for a new one.",
                stream=key,
            )

    def _mac(self, key: str, expiry: int) -> str:
        digest = hmac.digest(self._secret, f"play\n{key}\n{expiry:x}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def check_origin(request: web.Request, allowed: Iterable[str], public_url: str = "") -> None:
    """Refuse a WebSocket that another site's page opens (RFC 6455 section 10.2). No Origin: not a browser."""
    origin = request.headers.get("Origin")
    if origin is None:
        return
    allowed = tuple(allowed)
    if "*" in allowed or origin in allowed:
        return
    host = origin.partition("://")[2].lower()  # scheme, host and port are all there is to it (RFC 6454 section 7)
    if host and host in (request.host.lower(), urlsplit(public_url).netloc.lower()):
        return
    raise RequestError(
        "Pages of this origin may not open streams here.",
        status=403,
        code="origin_refused",
        remedy="Add the origin to http.cors.",
    )


def _presented(request: web.Request, *, query: bool) -> str:
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and text:
        return text.strip()
    return request.query.get("token", "") if query else ""


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _expired(row: TokenRow, now: datetime) -> bool:
    return row.expires is not None and row.expires <= now
