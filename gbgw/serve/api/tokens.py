"""Bearer tokens, and whose the caller's is."""

from datetime import UTC, datetime
from typing import Any, Final

from pydantic import AwareDatetime, Field
from pydantic.dataclasses import dataclass

from gbgw.base.errors import RequestError
from gbgw.serve.api.shapes import Input, Name, Page, page_of
from gbgw.serve.openapi import Call, Route
from gbgw.serve.source import Scope, TokenRow


class TokenInput(Input):
    name: Name = ""
    scopes: list[Scope] = Field(min_length=1, max_length=3)
    expires: AwareDatetime | None = None


@dataclass(frozen=True)
class TokenOut:
    id: str
    name: str
    scopes: tuple[Scope, ...]
    created: datetime
    expires: datetime | None


@dataclass(frozen=True)
class TokenCreated:
    """`token` is shown here once and kept nowhere."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    created: datetime
    expires: datetime | None
    token: str


@dataclass(frozen=True)
class WhoAmI:
    id: str
    name: str
    scopes: tuple[Scope, ...]
    expires: datetime | None


async def list_tokens(call: Call) -> Any:
    page = page_of(call, call.serving.authority.rows(), lambda row: row.id)
    return Page[Any](items=[_token_out(row) for row in page.items], next=page.next)


async def create_token(call: Call) -> Any:
    body: TokenInput = call.body
    if body.expires is not None and body.expires <= datetime.now(UTC):
        raise RequestError("This token would have expired already.", code="bad_body", remedy="Choose a later expires.")
    scopes = tuple(dict.fromkeys(body.scopes))
    expires = body.expires.astimezone(UTC) if body.expires is not None else None
    secret, row = await call.serving.authority.create(body.name, scopes, expires=expires)
    return TokenCreated(row.id, row.name, row.scopes, row.created, row.expires, secret)


async def revoke_token(call: Call) -> None:
    await call.serving.authority.revoke(call.path["id"])


async def whoami(call: Call) -> Any:
    row = call.serving.authority.require(call.request, "view")
    return WhoAmI(row.id, row.name, row.scopes, row.expires)


ROUTES: Final[tuple[Route, ...]] = (
    Route("GET", "/tokens", list_tokens, "All tokens, without their secrets", "admin", Page[TokenOut], paged=True),
    Route(
        "POST",
        "/tokens",
        create_token,
        "Make a token",
        "admin",
        TokenCreated,
        TokenInput,
        status=201,
        idempotent=False,
        errors=(503,),
    ),
    Route("DELETE", "/tokens/{id}", revoke_token, "Revoke a token", "admin"),
    Route("GET", "/whoami", whoami, "The caller's token", "view", WhoAmI),
)


def _token_out(row: TokenRow) -> TokenOut:
    return TokenOut(row.id, row.name, row.scopes, row.created, row.expires)
