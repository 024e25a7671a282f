"""Fuzz target for what HTTP callers send: keys, tokens, queries, names of pieces, headers, as gbgw/serve reads them.

Input: lines, of key, query, Origin, X-Forwarded-For, Authorization, Accept-Encoding, Range, last parts of a path.
"""

import ipaddress
import re
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

from aiohttp import HttpVersion11, web
from aiohttp.http_parser import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from gbgw.base import limits
from gbgw.base.config import HttpConfig
from gbgw.base.errors import RequestError
from gbgw.gb import ids
from gbgw.serve import hls
from gbgw.serve.api.events import last_event_id
from gbgw.serve.api.handling import paging
from gbgw.serve.auth import Authority, check_origin, new_token
from gbgw.serve.context import Serving
from gbgw.serve.directives import Directives
from gbgw.serve.flv import Wish
from gbgw.serve.source import StreamKey, TokenRow
from gbgw.serve.viewers import Viewers

KEY = "34020000001320000001-34020000001310000001"
PIECE = b"abcdefghij"
WRITER, LOOP = Mock(), Mock()
NEAR = ("10.1.2.3", 40_000)
PROTOCOL: Any = SimpleNamespace(  # of a caller's own connection, not of control's
    is_relayed=False,
    ssl_context=None,
    peername=NEAR,
    sockname=NEAR,
    transport=SimpleNamespace(get_extra_info=lambda _name: NEAR),
)


class _NoTokens:
    async def load_tokens(self) -> tuple[TokenRow, ...]:
        return ()

    async def save_token(self, row: TokenRow) -> None:
        raise AssertionError

    async def delete_token(self, token_id: str) -> None:
        raise AssertionError


AUTHORITY = Authority(_NoTokens(), play_secret=b"f" * 32)
_SECRET, _ROW = new_token("of nobody who fuzzes", ("admin",), now=datetime.now(UTC))
AUTHORITY._by_digest[_ROW.sha256] = _ROW  # one exists, and nobody guesses it
SERVING = Serving(None, None, None, AUTHORITY, None, HttpConfig(trusted_proxies=("10.0.0.0/8",)))  # type: ignore[arg-type]


def request_of(query: str, headers: dict[str, str]) -> web.Request:
    """As aiohttp makes it, without its tests' mocks, which take nine tenths of the time."""
    url = URL.build(path="/live/x.flv", query_string=query)
    mapping = CIMultiDictProxy(CIMultiDict(headers))
    raw = tuple((name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in headers.items())
    message = RawRequestMessage("GET", str(url), HttpVersion11, mapping, raw, False, None, False, False, url)
    return web.Request(message, Mock, PROTOCOL, WRITER, None, LOOP)  # type: ignore[arg-type]


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
    """Every reader gives a usable value or RequestError, and no token opens anything but what it was made for."""
    lines = data.decode("utf-8", "replace").replace("\r", "").replace("\0", "").split("\n")[:8]
    key, query, origin, forwarded, authorization, coding, wanted, name = (lines + [""] * 8)[:8]
    parsed = status(lambda: StreamKey.parse(key))
    assert parsed in (200, 400, 404)
    assert parsed != 200 or str(StreamKey.parse(key)) == key
    for is_operator in (False, True):
        if status(lambda is_operator=is_operator: ids.check_device_id(key, by_operator=is_operator)) == 200:  # type: ignore[misc]
            assert ids.is_gb_id(key) or ids.is_opaque_id(key)
    if ids.is_gb_id(key):
        assert re.fullmatch("[0-9]{20}", key)
        assert StreamKey.parse(ids.stream_key(key, key)) == StreamKey(key, key)
    headers = {"Host": "gate:8080", "Origin": origin, "X-Forwarded-For": forwarded}
    headers |= {"Authorization": authorization, "Accept-Encoding": coding, "Range": wanted}
    request = request_of(query, headers)
    assert status(lambda: AUTHORITY.require_play(request, KEY)) in (401, 403)
    assert status(lambda: AUTHORITY.require(request, "view", query=True)) == 401
    for read in (Wish.of, last_event_id, paging, _directives, hls.wanted_container):
        assert status(lambda read=read: read(request)) in (200, 400)  # type: ignore[misc]
    if status(lambda: check_origin(request, ("https://a.example",))) == 200:
        assert "//gate:8080" in origin.lower() or origin == "https://a.example"
    ipaddress.ip_address(SERVING.remote(request))
    hls._takes_gzip(request)
    ranged = hls._ranged(request, PIECE)
    assert ranged.status in (200, 206, 416)
    assert ("Content-Range" in ranged.headers) == (ranged.status != 200)
    if ranged.status != 416:
        assert isinstance(ranged.body, bytes)
        assert ranged.body == PIECE or (ranged.status == 206 and ranged.body in PIECE)
    if re.fullmatch(hls.NAME, name):
        assert 0 <= int(name.rpartition(".")[0].removeprefix("init-").removeprefix("p")) < 10**15
    viewer = Viewers().add(KEY, "flv", "", wanted=request.query.get("viewer", ""))
    assert 16 <= len(viewer.id) <= 64
    own(key, query)


def own(key: str, other: str) -> None:
    """A play token opens the stream it was made for and no other, and not when a character of it changed."""
    token, _ = AUTHORITY.sign_play(key)
    assert len(token) <= limits.TOKEN_CHARS
    good = request_of("", {"Authorization": f"Bearer {token}"})
    assert status(lambda: AUTHORITY.require_play(good, key)) == 200
    assert status(lambda: AUTHORITY.require_play(good, key + "x")) == 403
    if other != key:
        assert status(lambda: AUTHORITY.require_play(good, other)) == 403
    at = len(other) % len(token)
    changed = token[:at] + ("A" if token[at] not in "aA" else "B") + token[at + 1 :]
    bad = request_of("", {"Authorization": f"Bearer {changed}"})
    assert status(lambda: AUTHORITY.require_play(bad, key)) in (401, 403)
