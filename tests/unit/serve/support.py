"""A gateway in miniature around the real Streams and Feeds: what serve's tests inject, over a real loopback server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal

import aiohttp

from gbgw.base.access_unit import AccessUnit
from gbgw.base.config import HttpConfig
from gbgw.base.errors import GatewayError, RequestError
from gbgw.base.ticks import HZ
from gbgw.media.hub import Stream
from gbgw.mux.feed import Feeds
from gbgw.mux.pattern import PatternSpec
from gbgw.serve.auth import Authority
from gbgw.serve.cameras import Caller
from gbgw.serve.context import Serving
from gbgw.serve.http import HttpServer
from gbgw.serve.source import (
    AudioChoice,
    CatalogState,
    Cause,
    Channel,
    Device,
    DeviceChange,
    Diagnosis,
    Event,
    LadderStep,
    NewDevice,
    Sample,
    StreamInfo,
    TokenRow,
    TreeNode,
)
from gbgw.serve.whep import WhepBackend
from tests.support.streams import feed, timed_units

DEVICE = "34020000001320000001"
CHANNEL = "34020000001310000001"
KEY = f"{DEVICE}-{CHANNEL}"
SECRET = b"s" * 32
NOW = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)


@cache
def pattern() -> Sequence[AccessUnit]:
    """Four seconds of H.264, a key frame each second."""
    return timed_units(PatternSpec(audio=None, width=320, height=180, seconds=4))


class Camera:
    """A Stream that the test feeds, round after round with rising times."""

    def __init__(self) -> None:
        self.stream = Stream(KEY)
        self._at = 0
        self.push(40)

    def push(self, count: int) -> None:
        units = pattern()
        for _ in range(count):
            round_, index = divmod(self._at, len(units))
            unit = units[index]
            by = round_ * len(units) * 3_600
            feed(self.stream, [unit.with_times((unit.pts or 0) + by, (unit.dts or 0) + by)])
            self._at += 1

    @property
    def seconds(self) -> float:
        return self._at * 3_600 / HZ


@dataclass
class FakeViewing:
    stream: Stream
    closes: int = 0

    async def close(self) -> None:
        self.closes += 1

    def request_keyframe(self) -> None:
        raise AssertionError("nobody asked for this")


@dataclass
class FakeSource:
    """Opens what `cameras` has; raises `failure` when there is one."""

    cameras: dict[str, Camera] = field(default_factory=dict)
    failure: GatewayError | None = None
    opened: list[tuple[str, str, AudioChoice, str | None]] = field(default_factory=list)
    viewings: list[FakeViewing] = field(default_factory=list)

    async def open(
        self,
        key: str,
        *,
        protocol: str,
        viewer: str,
        audio: AudioChoice = "native",
        video: Literal["h264"] | None = None,
    ) -> FakeViewing:
        self.opened.append((key, protocol, audio, video))
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        if key not in self.cameras:
            raise RequestError("There is no such channel.", status=404, code="unknown_channel", stream=key)
        viewing = FakeViewing(self.cameras[key].stream)
        self.viewings.append(viewing)
        return viewing

    @property
    def watching(self) -> int:
        return sum(1 for viewing in self.viewings if not viewing.closes)


class MemoryTokens:
    def __init__(self) -> None:
        self.rows: dict[str, TokenRow] = {}

    async def load_tokens(self) -> Sequence[TokenRow]:
        return list(self.rows.values())

    async def save_token(self, row: TokenRow) -> None:
        self.rows[row.id] = row

    async def delete_token(self, token_id: str) -> None:
        del self.rows[token_id]


def device(device_id: str, name: str = "") -> Device:
    return Device(device_id, name, True, "udp", "192.0.2.1:5060", NOW, 1, "Maker")


class FakeControl:
    """Devices in a dict; one channel each; also what is observed."""

    def __init__(self) -> None:
        self.known: dict[str, Device] = {DEVICE: device(DEVICE, "Gate")}
        self.passwords: dict[str, str | None] = {}
        self.running: dict[str, StreamInfo] = {}
        self.keyframes: list[tuple[str, str]] = []
        self.refreshed: list[str] = []
        self.failure: GatewayError | None = None
        self.reasons: list[str] = []
        self.past = [Event(1, NOW, "device.online", {"device": DEVICE}), Event(2, NOW, "stream.state", {"key": KEY})]

    def devices(self) -> Sequence[Device]:
        return [self.known[device_id] for device_id in sorted(self.known)]

    def device(self, device_id: str) -> Device | None:
        return self.known.get(device_id)

    async def create_device(self, new: NewDevice) -> Device:
        if new.id in self.known:
            raise RequestError("It exists.", status=409, code="device_exists")
        self.known[new.id] = device(new.id, new.name)
        self.passwords[new.id] = new.password
        return self.known[new.id]

    async def update_device(self, device_id: str, change: DeviceChange) -> Device:
        if change.name is not None:
            self.known[device_id] = replace(self.known[device_id], name=change.name)
        return self.known[device_id]

    async def delete_device(self, device_id: str) -> None:
        self.known.pop(device_id, None)

    def channels(self, device_id: str) -> Sequence[Channel]:
        found = self.channel(device_id, CHANNEL)
        return [found] if found is not None else []

    def channel(self, device_id: str, channel_id: str) -> Channel | None:
        if device_id not in self.known or channel_id != CHANNEL:
            return None
        return Channel(CHANNEL, device_id, "Lens", True, True, None, False)

    def catalog_state(self, device_id: str) -> CatalogState:
        return CatalogState("complete", 1)

    async def tree(self, device_id: str) -> Sequence[TreeNode]:
        return [TreeNode(CHANNEL, "Lens", "channel", (device_id,), 0, True, True)]

    async def refresh_catalog(self, device_id: str) -> Sequence[Channel]:
        if self.failure is not None:
            raise self.failure
        self.refreshed.append(device_id)
        return self.channels(device_id)

    async def request_keyframe(self, device_id: str, channel_id: str) -> None:
        self.keyframes.append((device_id, channel_id))

    def streams(self) -> Sequence[StreamInfo]:
        return [self.running[key] for key in sorted(self.running)]

    def stream(self, key: str) -> StreamInfo | None:
        return self.running.get(key)

    async def start_stream(self, key: str) -> StreamInfo:
        if self.failure is not None:
            raise self.failure
        self.running[key] = StreamInfo(key, "live", "playing", None, (), NOW, 1_000_000)
        return self.running[key]

    async def stop_stream(self, key: str) -> None:
        self.running.pop(key, None)

    def diagnosis(self, key: str) -> Diagnosis | None:
        if key not in self.running:
            return None
        cause = Cause("no_media", "Nothing came.", "Look at the firewall.")
        return Diagnosis(key, "failed", cause, (LadderStep("requested", NOW, 0.0),), "No packet came.")

    async def events(self, after: int | None = None) -> AsyncIterator[Event]:
        for event in self.past:
            if event.id > (after or 0):
                yield event
        await asyncio.Event().wait()

    # Observed

    def samples(self) -> Iterable[Sample]:
        yield Sample("devices_online", 3, help="Devices online")
        yield Sample("ports", 5, labels={"state": "free"})
        yield Sample("ports", 2, labels={"state": "used"})
        yield Sample("sip_requests", 7, "counter", {"method": "REGISTER"})
        yield Sample("first_frame_seconds", 1.5, "histogram", buckets=((0.5, 1), (1.0, 2), (float("inf"), 3)))
        yield Sample("Not a name!", 1)

    def counts(self) -> Mapping[str, int]:
        return {"ps.malformed": 4}

    def not_ready(self) -> Sequence[str]:
        return self.reasons


class FakeCameras:
    """Keeps the audit log; the commands themselves are proved over a real gateway (tests/system)."""

    def __init__(self) -> None:
        self.audited: list[tuple[str, str, str, str, str]] = []

    def record(
        self, caller: Caller, action: str, device_id: str, channel_id: str, result: str, detail: Mapping[str, Any]
    ) -> None:
        self.audited.append((caller.name, action, device_id, channel_id, result))


@dataclass
class World:
    """A running server and what stands around it."""

    url: str
    serving: Serving
    source: FakeSource
    control: FakeControl
    client: aiohttp.ClientSession
    admin: str
    server: HttpServer
    cameras: FakeCameras

    @property
    def port(self) -> int:
        return self.server.address[1]

    def bearer(self, token: str | None = None) -> dict[str, str]:
        return {"Authorization": f"Bearer {token if token is not None else self.admin}"}

    async def json(self, method: str, path: str, *, status: int = 200, **options: Any) -> Any:
        """One API call with the admin token; asserts the status."""
        async with self.client.request(method, self.url + path, headers=self.bearer(), **options) as response:
            text = await response.text()
            assert response.status == status, text
            return await response.json() if text else None


@contextlib.asynccontextmanager
async def world(
    *,
    play: Literal["token", "open"] = "open",
    whep: WhepBackend | None = None,
    source: FakeSource | None = None,
    **http: Any,
) -> AsyncIterator[World]:
    source = source if source is not None else FakeSource({KEY: Camera()})
    control = FakeControl()
    authority = Authority(MemoryTokens(), play=play, play_secret=SECRET)
    await authority.load()
    admin = await authority.ensure_admin()
    assert admin is not None
    cameras: Any = FakeCameras()
    serving = Serving(source, control, control, authority, Feeds(), HttpConfig(**http), cameras=cameras, whep=whep)
    async with HttpServer(serving, listen="127.0.0.1:0") as server:
        url = f"http://127.0.0.1:{server.address[1]}"
        async with aiohttp.ClientSession() as client:
            yield World(url, serving, source, control, client, admin, server, cameras)


async def until(condition: Any, seconds: float = 3.0) -> None:
    """Return when `condition()` holds; TimeoutError when it never does."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the conditions are plain figures
            await asyncio.sleep(0.005)
