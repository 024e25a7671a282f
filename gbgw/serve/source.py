"""What `serve` needs from the gateway, as Protocols, and the records of the control API.

`gateway.py` implements and injects these; `serve` never imports upward. Records are frozen dataclasses whose field
names are the JSON names; times are aware datetimes in UTC and leave as RFC 3339.
"""

import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from gbgw.base.errors import RequestError

if TYPE_CHECKING:
    from gbgw.media.hub import Stream

AudioChoice = Literal["aac", "native"]
Transport = Literal["udp", "tcp-passive", "tcp-active"]
Scope = Literal["view", "control", "admin"]
StreamState = Literal["starting", "playing", "lingering", "stopping", "ended", "failed"]

_KEY: Final = re.compile(
    r"([0-9A-Za-z_]{1,32})-([0-9A-Za-z_]{1,32})(?:@([0-9A-Za-z]{1,16}))?"
    r"(?:-(0|[1-9][0-9]{0,9})-(0|[1-9][0-9]{0,9})(?:-([0-9a-z]{1,16}))?)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class StreamKey:
    """`DEVICE-CHANNEL` or `DEVICE-CHANNEL@SUBSTREAM` for live pictures; with `-START-STOP-NAME` behind it for a
    recording on the device.

    start, stop: Unix seconds, 0 for live. name: of this one playback among those of the same span.
    """

    device_id: str
    channel_id: str
    substream: str = ""
    start: int = 0
    stop: int = 0
    name: str = ""

    @classmethod
    def parse(cls, key: str) -> "StreamKey":
        """Split a key. Raises RequestError (404, `unknown_channel`) for what cannot be one."""
        match = _KEY.fullmatch(key)
        if match is None:
            raise RequestError(
                "There is no such stream.",
                status=404,
                code="unknown_channel",
                remedy="A key is DEVICE-CHANNEL, both as listed by /api/v1/devices.",
                stream=key[:96],
            )
        found = cls(match[1], match[2], match[3] or "", int(match[4] or 0), int(match[5] or 0), match[6] or "")
        if match[4] is not None and found.start >= found.stop:
            raise RequestError(
                "The end is not after the start.",
                code="bad_span",
                remedy="Give the span of a recording, as START-END.",
                stream=key[:96],
            )
        return found

    @property
    def is_history(self) -> bool:
        return self.stop > 0

    @property
    def live(self) -> "StreamKey":
        """The key of the channel's live pictures."""
        return StreamKey(self.device_id, self.channel_id, self.substream)

    def __str__(self) -> str:
        text = f"{self.device_id}-{self.channel_id}" + (f"@{self.substream}" if self.substream else "")
        if self.is_history:
            text += f"-{self.start}-{self.stop}"
        return f"{text}-{self.name}" if self.name else text


class Viewing(Protocol):
    """The right to watch one stream; held from the first byte asked for to the last byte sent."""

    @property
    def stream(self) -> "Stream":
        """The published Stream, derived where audio or video was asked for in another form."""

    async def close(self) -> None:
        """Give the right back; idempotent."""

    def request_keyframe(self) -> None:
        """Ask the camera for a key frame; rate-limited by the owner."""


class StreamSource(Protocol):
    async def open(
        self,
        key: str,
        *,
        protocol: str,
        viewer: str,
        audio: AudioChoice = "native",
        video: Literal["h264"] | None = None,
    ) -> Viewing:
        """Return once the stream is playable, starting it where it is not running.

        protocol: "flv", "ws-flv", "hls", "mp4", "ts", "webrtc" ...; viewer: an id for logs. audio "aac": G.711 arrives
        as AAC, everything else as it is. Raises RequestError (404 unknown, 409 busy), PeerError or LocalError with the
        cause code when it cannot be played.
        """


# Records


@dataclass(frozen=True, slots=True)
class Cause:
    """Why something is not as wished: a stable code, a sentence, and what to try."""

    code: str
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Device:
    id: str
    name: str
    online: bool
    transport: Literal["udp", "tcp"] | None  # of its SIP binding; None: never registered
    address: str | None  # host:port its registration came from
    last_seen: datetime | None
    channel_count: int
    manufacturer: str = ""
    model: str = ""
    firmware: str = ""
    media_transport: Transport | None = None  # None: as configured
    has_password: bool = False
    registered: datetime | None = None
    expires: datetime | None = None
    edition: str = ""  # of the standard, from X-GB-Ver: "2.0", "3.0"


@dataclass(frozen=True, slots=True)
class NewDevice:
    """password is given to the gateway in clear and stored as HA1 only."""

    id: str
    name: str = ""
    password: str | None = field(default=None, repr=False)
    media_transport: Transport | None = None


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """None: leave as it is."""

    name: str | None = None
    password: str | None = field(default=None, repr=False)
    media_transport: Transport | None = None


@dataclass(frozen=True, slots=True)
class Channel:
    id: str
    device_id: str
    name: str
    online: bool
    playable: bool
    parent_id: str | None
    ptz: bool
    manufacturer: str = ""
    model: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class CatalogState:
    """How far a device's list of channels can be trusted, and how far a reading of it has come.

    received, promised: of the catalog being read now; None when none is, or before the device said how many.
    """

    state: Literal["unknown", "partial", "complete"]
    channels: int
    reading: bool = False
    received: int | None = None
    promised: int | None = None


@dataclass(frozen=True, slots=True)
class TreeNode:
    """One item of a device's directory; it hangs under each of its parents, the device's id being the root."""

    id: str
    name: str
    kind: Literal["region", "system", "group", "organisation", "channel", "other"]
    parents: tuple[str, ...]
    children: int
    online: bool
    playable: bool


@dataclass(frozen=True, slots=True)
class TrackInfo:
    kind: Literal["video", "audio"]
    codec: str  # name of its row in base/codec.py: "H264", "PCMA" ...
    rfc6381: str
    width: int = 0
    height: int = 0
    sample_rate: int = 0
    channels: int = 0
    frame_rate: float | None = None
    reorder_depth: int = 0  # above 0: B-frames, which WebRTC cannot play


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """One stream as the gateway sees it; `serve.api` adds viewers and urls."""

    key: str
    kind: Literal["live", "playback", "download"]
    state: StreamState
    cause: Cause | None
    tracks: tuple[TrackInfo, ...]
    started: datetime | None
    bitrate: int  # bits per second over the last seconds, 0 before the first unit
    gop_seconds: float | None = None
    transport: Transport | None = None
    packets: int = 0
    lost: int = 0
    reordered: int = 0
    late: int = 0


@dataclass(frozen=True, slots=True)
class LadderStep:
    """One step from the request to the picture; `at` is None for a step not reached."""

    name: str
    at: datetime | None
    seconds: float | None  # since the first step
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    key: str
    state: StreamState | Literal["idle"]
    cause: Cause | None
    steps: tuple[LadderStep, ...]
    summary: str  # plain words


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; `id` rises by one and names the place to resume from."""

    id: int
    time: datetime
    type: str  # "device.online", "stream.state" ...
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One bearer token as it is stored: only the hash of the secret."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    sha256: str = field(repr=False)
    created: datetime
    expires: datetime | None = None


class TokenStore(Protocol):
    """Where tokens outlive the process; `serve.auth` keeps the working copy."""

    async def load_tokens(self) -> Sequence[TokenRow]: ...
    async def save_token(self, row: TokenRow) -> None: ...
    async def delete_token(self, token_id: str) -> None: ...


class Control(Protocol):
    """What the REST API steers. Reads are synchronous snapshots; writes raise GatewayError where they fail."""

    def devices(self) -> Sequence[Device]:
        """All known devices, ordered by id."""

    def device(self, device_id: str) -> Device | None: ...
    async def create_device(self, new: NewDevice) -> Device:
        """Raises RequestError 409 `device_exists`."""

    async def update_device(self, device_id: str, change: DeviceChange) -> Device:
        """Raises RequestError 404 `unknown_device`."""

    async def delete_device(self, device_id: str) -> None:
        """Forget it and end its streams; quiet when it is unknown (idempotent)."""

    def channels(self, device_id: str) -> Sequence[Channel]:
        """Channels of its last catalog, ordered by id; empty for an unknown device."""

    def channel(self, device_id: str, channel_id: str) -> Channel | None: ...
    async def refresh_catalog(self, device_id: str) -> Sequence[Channel]:
        """Ask the device for its catalog and wait for the whole answer. Raises PeerError when it stays away."""

    def catalog_state(self, device_id: str) -> CatalogState: ...
    async def tree(self, device_id: str) -> Sequence[TreeNode]:
        """Its directory as a tree without cycles, ordered by id."""

    async def request_keyframe(self, device_id: str, channel_id: str) -> None:
        """The IFrame command of the standard (GB/T 28181-2022 A.2.3.1.7), to one channel."""

    def streams(self) -> Sequence[StreamInfo]:
        """Every stream that exists, and those that failed a short while ago, ordered by key."""

    def stream(self, key: str) -> StreamInfo | None: ...
    async def start_stream(self, key: str) -> StreamInfo:
        """Start it without a viewer and return once it plays; returns at once when it already does."""

    async def stop_stream(self, key: str) -> None:
        """BYE, and every viewer is told; quiet when it does not run."""

    def diagnosis(self, key: str) -> Diagnosis | None: ...
    def events(self, after: int | None = None) -> AsyncIterator[Event]:
        """Live events; those still remembered with an id above `after` come first. Ends when the gateway stops."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure of /metrics. `buckets` (upper bound, cumulative count) and `value` as the sum make it a histogram.

    merge: what becomes of it where several processes tell the same one.
    """

    name: str  # without the prefix gbgw_ and without _total
    value: float
    kind: Literal["gauge", "counter", "histogram"] = "gauge"
    labels: Mapping[str, str] = field(default_factory=dict)
    help: str = ""
    buckets: tuple[tuple[float, int], ...] = ()
    merge: Literal["sum", "max", "min"] = "sum"


class Observed(Protocol):
    """What /metrics, /readyz and /debug/vars show."""

    def samples(self) -> Iterable[Sample]: ...
    def counts(self) -> Mapping[str, int]:
        """The process-wide tally."""

    def not_ready(self) -> Sequence[str]:
        """Reasons why this gateway cannot serve now; empty when it can."""
