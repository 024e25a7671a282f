"""Where streams are played: `/live/KEY` and `/playback/KEY/START-END`, and which stream a request means.

A playback's address names a span, not a stream: whoever opens it gets a playback of his own, from the span's beginning,
so that nobody is moved by another's seeking. One that was made by the API has a name, which stands behind the span and
which everybody who knows it shares (docs/adr/0023-playbacks-of-ones-own.md).
"""

import secrets
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote

from aiohttp import web

from gbgw.base.errors import RequestError
from gbgw.serve.context import KEY_HEADER, SERVING
from gbgw.serve.source import StreamKey
from gbgw.serve.spans import TIME, read_time, write_time

_KEY: Final = r"{key:[0-9A-Za-z@-]{1,96}}"
LIVE: Final = f"/live/{_KEY}"
PLAYBACK: Final = f"/playback/{_KEY}/{{start:{TIME}}}-{{end:{TIME}}}{{name:(?:-p[0-9a-f]{{8}})?}}"
PLACES: Final = (LIVE, PLAYBACK)
OWN: Final = "a"  # begins the name of a playback that nobody else can open
DOWNLOAD: Final = "d"  # begins the name of a download
SHARED: Final = "p"  # begins the name of one that the API made


def new_name(kind: str) -> str:
    """Return a name that no other playback has. kind: OWN, SHARED or DOWNLOAD."""
    return kind + secrets.token_hex(4)


@dataclass(frozen=True, slots=True)
class Address:
    """What a play URL means. key: of the stream to open. signed: what a play token must be for."""

    key: str
    signed: str


def address_of(request: web.Request) -> Address:
    """Read a play URL. Call it once a request: each call makes another playback. Raises RequestError 400, 404."""
    told = request.headers.get(KEY_HEADER) if request.app[SERVING].play_only else None
    if told:
        return Address(told, told)
    asked = _asked(request)
    signed = str(asked)
    if asked.is_history and not asked.name:
        asked = replace(asked, name=new_name(OWN))
    return Address(str(asked), signed)


def _asked(request: web.Request) -> StreamKey:
    info = request.match_info
    parsed = StreamKey.parse(info["key"])
    if parsed.is_history:
        raise RequestError(
            "There is no such stream.",
            status=404,
            code="unknown_channel",
            remedy="A recording is played at /playback/DEVICE-CHANNEL/START-END.",
            stream=str(parsed),
        )
    if "start" not in info:
        return parsed
    asked = replace(
        parsed,
        start=read_time(info["start"], "start"),
        stop=read_time(info["end"], "end"),
        name=info["name"].removeprefix("-"),
    )
    if asked.start >= asked.stop:
        raise RequestError("The end is not after the start.", code="bad_span", remedy="Give a span as START-END.")
    return asked


def belongs(request: web.Request, key: str) -> bool:
    """Tell whether the stream `key` was opened at this request's address."""
    asked, opened = _asked(request), StreamKey.parse(key)
    return asked.live == opened.live and (asked.start, asked.stop) == (opened.start, opened.stop)


def place_of(request: web.Request) -> str:
    """Return the request's address without what follows the stream, as it came."""
    info = request.match_info
    if "start" not in info:
        return f"/live/{info['key']}"
    return f"/playback/{info['key']}/{info['start']}-{info['end']}{info['name']}"


def path_of(key: str) -> str:
    """Return the address at which the stream `key` is played."""
    parsed = StreamKey.parse(key)
    channel = quote(str(parsed.live), safe="@")
    if not parsed.is_history:
        return f"/live/{channel}"
    name = f"-{parsed.name}" if parsed.name else ""
    return f"/playback/{channel}/{write_time(parsed.start)}-{write_time(parsed.stop)}{name}"
