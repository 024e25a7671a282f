"""What the handlers share: everything the gateway injected, and what one HTTP server owns."""

import asyncio
import ipaddress
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from aiohttp import web

from gbgw.base.config import HttpConfig
from gbgw.base.errors import StateError
from gbgw.base.tally import Tally
from gbgw.mux.feed import Feeds
from gbgw.serve.auth import Authority
from gbgw.serve.cameras import Cameras
from gbgw.serve.fanout import Fanouts
from gbgw.serve.source import Control, Observed, Sample, StreamSource
from gbgw.serve.viewers import Viewer, Viewers

if TYPE_CHECKING:
    from gbgw.serve.history import History
    from gbgw.serve.hls_output import HlsOutputs
    from gbgw.serve.relay import Relay
    from gbgw.serve.whep import WhepBackend

REMOTE_HEADER: Final = "X-Gbgw-Remote"  # control to media worker, on connections of its own: the viewer's address
LOCAL_HEADER: Final = "X-Gbgw-Local"  # and ours, to which he came
TICKET_HEADER: Final = "X-Gbgw-Ticket"  # and the name under which control keeps his place at the stream
KEY_HEADER: Final = "X-Gbgw-Key"  # and the key of the stream that his request means
TICKET: Final = ContextVar("ticket", default="")  # of the request that is being answered, and what it starts


class _Elsewhere:
    """Stands for what a process that only plays does not have."""

    def __getattr__(self, name: str) -> Any:
        raise StateError(f"this process only plays; {name} is asked of control")


ELSEWHERE: Final[Any] = _Elsewhere()


@dataclass
class Serving:
    """One HTTP server's world. `tasks`, `fanouts` and `hls` live from HttpServer.__aenter__ to __aexit__.

    relay: the play URLs are served by other processes. play_only: this is one of them. mark: the ids of its HLS and
    WebRTC sessions begin with it.
    """

    source: StreamSource
    control: Control
    observed: Observed
    authority: Authority
    feeds: Feeds
    http: HttpConfig = field(default_factory=HttpConfig)
    tally: Tally = field(default_factory=Tally)
    cameras: Cameras = ELSEWHERE
    viewers: Viewers = field(default_factory=Viewers)
    whep: "WhepBackend | None" = None
    relay: "Relay | None" = None
    history: "History" = ELSEWHERE
    play_only: bool = False
    mark: str = ""
    tasks: asyncio.TaskGroup | None = None
    event_streams: int = 0
    spoke: set[asyncio.BaseProtocol] = field(default_factory=set)  # connections that sent a whole request head

    @cached_property
    def fanouts(self) -> Fanouts:
        return Fanouts(tally=self.tally)

    @cached_property
    def hls(self) -> "HlsOutputs":
        from gbgw.serve.hls_output import HlsOutputs

        return HlsOutputs(self)

    def samples(self) -> Iterable[Sample]:
        """Figures of /metrics."""
        yield Sample("hls_outputs", len(self.hls), help="Streams segmented for HLS now.")
        yield Sample("fanouts", len(self.fanouts), help="Muxed streams with viewers now.")

    @cached_property
    def base_path(self) -> str:
        """Prefix behind a reverse proxy, "" or "/gbgw"."""
        return urlsplit(self.http.public_url).path.rstrip("/")

    def base_url(self, request: web.Request) -> str:
        """What the caller must put before a path of ours."""
        return self.http.public_url or f"{request.scheme}://{request.host}"

    def remote(self, request: web.Request) -> str:
        """The caller's address: the last one of X-Forwarded-For that no trusted proxy added, else the socket's."""
        if self._is_relayed(request):
            return request.headers.get(REMOTE_HEADER, "")
        address = request.remote or ""
        if not self.http.trusted_proxies or not _within(address, self.http.trusted_proxies):
            return address
        for hop in reversed([hop.strip() for hop in request.headers.get("X-Forwarded-For", "").split(",")][-8:]):
            if not _is_address(hop):
                break
            address = hop
            if not _within(hop, self.http.trusted_proxies):
                break
        return address

    def local(self, request: web.Request) -> str:
        """Address of our socket that the caller came to, "" where unknown."""
        if self._is_relayed(request):
            return request.headers.get(LOCAL_HEADER, "")
        name = request.transport.get_extra_info("sockname") if request.transport is not None else None
        return str(name[0]) if isinstance(name, tuple) else ""

    def _is_relayed(self, request: web.Request) -> bool:
        """Control passes it on, over a connection of its own that nobody else can have."""
        return bool(getattr(request.protocol, "is_relayed", False))

    def play_urls(self, request: web.Request, key: str, token: str = "") -> dict[str, str]:
        """Every way to play `key`, absolute."""
        base = self.base_url(request)
        socket_base = "ws" + base.removeprefix("http")
        from gbgw.serve.places import path_of

        path = path_of(key)
        tail = f"?token={token}" if token else ""
        return {
            "flv": f"{base}{path}.flv{tail}",
            "ws-flv": f"{socket_base}{path}.flv{tail}",
            "hls": f"{base}{path}/index.m3u8{tail}",
            "mp4": f"{base}{path}.mp4{tail}",
            "ws-mp4": f"{socket_base}{path}.mp4{tail}",
            "ts": f"{base}{path}.ts{tail}",
            "ws-ts": f"{socket_base}{path}.ts{tail}",
            "webrtc": f"{base}{path}/whep{tail}",
        }


SERVING: Final = web.AppKey("serving", Serving)
VIEWER: Final = web.RequestKey("viewer", Viewer)  # of an endless answer, whose bytes pass aiohttp by
PATH: Final = web.RequestKey("path", str)  # as the log may show it; of a request that comes again and again
STATUS: Final = web.RequestKey("status", int)  # that went out


def _within(address: str, networks: Sequence[str]) -> bool:
    try:
        host = ipaddress.ip_address(address)
        return any(host in ipaddress.ip_network(network, strict=False) for network in networks)
    except ValueError:
        return False


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
