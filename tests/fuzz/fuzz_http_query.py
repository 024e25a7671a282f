"""Fuzz target for what HTTP callers send: keys, tokens, queries, origins and addresses, as gbgw/serve reads them.

Input: four lines, of key, query, Origin, X-Forwarded-For.
"""

import ipaddress
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict
from yarl import URL

from gbgw.base.config import HttpConfig
from gbgw.base.errors import RequestError
from gbgw.serve.api.events import last_event_id
from gbgw.serve.api.handling import paging
from gbgw.serve.auth import Authority, check_origin
from gbgw.serve.context import Serving
from gbgw.serve.directives import Directives
from gbgw.serve.flv import Wish
from gbgw.serve.source import StreamKey, TokenRow

KEY = "34020000001320000001-34020000001310000001"
PARTS: dict[str, Any] = {  # of a request that nobody looks at; made once, mocks are slow
    **{name: Mock() for name in ("writer", "transport", "payload", "loop")},
    "protocol": Mock(is_relayed=False),  # of a caller's own connection, not of control's
    "app": web.Application(),
}


class _NoTokens:
    async def load_tokens(self) -> tuple[TokenRow, ...]:
        return ()

    async def save_token(self, row: TokenRow) -> None:
        raise AssertionError

    async def delete_token(self, token_id: str) -> None:
        raise AssertionError


def status(call: Callable[[], object]) -> int:
    """200, or the status of the refusal; anything else is a crash."""
    try:
        call()
    except RequestError as error:
        return error.status
    return 200


def _directives(request: web.Request) -> Directives:
    found = Directives.of(request.query)
    assert found.part is None or found.sequence is not None
    assert all(number is None or 0 <= number < 10**15 for number in (found.sequence, found.part))
    return found


def check(data: bytes) -> None:
    """Every reader gives a usable value or RequestError, and no token opens anything."""
    lines = data.decode("utf-8", "replace").replace("\r", "").replace("\0", "").split("\n")[:4]
    key, query, origin, forwarded = (lines + [""] * 4)[:4]
    assert status(lambda: StreamKey.parse(key)) in (200, 404)
    assert status(lambda: StreamKey.parse(key)) == 404 or str(StreamKey.parse(key)) == key
    headers = CIMultiDict({"Host": "gate:8080", "Origin": origin, "X-Forwarded-For": forwarded})
    request = make_mocked_request(
        "GET", str(URL.build(path="/live/x.flv", query_string=query)), headers=headers, **PARTS
    )
    authority = Authority(_NoTokens(), play_secret=b"f" * 32)
    assert status(lambda: authority.require_play(request, KEY)) in (401, 403)
    for read in (Wish.of, last_event_id, paging, _directives):
        assert status(lambda read=read: read(request)) in (200, 400)  # type: ignore[misc]
    if status(lambda: check_origin(request, ("https://a.example",))) == 200:
        assert "//gate:8080" in origin.lower() or origin == "https://a.example"
    serving = Serving(None, None, None, authority, None, HttpConfig(trusted_proxies=("10.0.0.0/8",)))  # type: ignore[arg-type]
    near = make_mocked_request("GET", "/", headers=headers, **PARTS).clone(remote="10.1.2.3")
    ipaddress.ip_address(serving.remote(near))
