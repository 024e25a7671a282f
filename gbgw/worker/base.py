"""The media worker as the control plane sees it (architecture decision 6). Nothing above `session` knows whether it is
in this process."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from gbgw.base.errors import GatewayError, LocalError, MediaError
from gbgw.media.track import Track
from gbgw.serve.source import Sample

Transport = Literal["udp", "tcp-passive", "tcp-active"]


@dataclass(frozen=True, slots=True)
class IngestSpec:
    """What is to be received.

    ssrc: the value of `y=`, which the camera should send with. sip_host: where its signalling comes from: should
    somebody else send first, its packets displace him. loss: what follows a lost packet ("freeze" until the next key
    frame). history: it is a recording, whose speed and place may change.
    """

    key: str
    transport: Transport
    ssrc: int
    sip_host: str = ""
    loss: Literal["freeze", "pass"] = "freeze"
    rtcp: bool = True
    history: bool = False


@dataclass(frozen=True, slots=True)
class IngestFigures:
    """kernel_drops: datagrams the kernel threw away because nobody read them in time. skew_seconds: by how much sound
    is late against the picture (media.timeline). played_seconds: how far a recording has come since its start or the
    last seek; speed: at which the device's own times come, None while that is measured (media.pace).
    """

    packets: int = 0
    bytes: int = 0
    lost: int = 0
    reordered: int = 0
    late: int = 0
    duplicates: int = 0
    jitter_seconds: float = 0.0
    kernel_drops: int = 0
    skew_seconds: float = 0.0
    played_seconds: float = 0.0
    speed: float | None = 1.0


@dataclass(frozen=True, slots=True)
class PortCounts:
    """Pairs of RTP ports. resting: of the free ones, those in quarantine."""

    in_use: int = 0
    free: int = 0
    resting: int = 0


class StreamView(Protocol):
    """What the control plane may know of a stream; media.hub.Stream is one."""

    @property
    def key(self) -> str: ...
    @property
    def tracks(self) -> tuple[Track, ...]: ...
    @property
    def units(self) -> int:
        """Published so far."""

    @property
    def generation(self) -> int:
        """Rises with each change of the tracks; 0 before publication."""

    @property
    def gop_seconds(self) -> float: ...
    @property
    def frame_rate(self) -> float: ...
    @property
    def ended(self) -> bool: ...
    @property
    def cause(self) -> GatewayError | None: ...
    def bitrate(self, now: float) -> float:
        """Bits a second over the last seconds."""


class IngestListener(Protocol):
    """Called synchronously from the media side; must not wait."""

    def on_step(self, name: str, now: float) -> None:
        """The picture came one step nearer: first_packet, first_pack, first_map, parameter_sets, first_keyframe,
        published."""

    def on_keyframe_wanted(self) -> None:
        """Something was lost; a key frame would heal it."""

    def on_lost(self, cause: LocalError) -> None:
        """The worker died, and the ingest with it."""


class Ingest(Protocol):
    """One open receiver. Its port is bound before the camera is invited and returns to the pool in close()."""

    @property
    def worker(self) -> int:
        """Number of the worker that has it."""

    @property
    def port(self) -> int: ...
    @property
    def stream(self) -> StreamView: ...
    @property
    def last_packet_at(self) -> float | None:
        """Loop seconds; as of the last `settle` or a moment later."""

    def figures(self) -> IngestFigures: ...
    async def settle(self) -> None:
        """Bring `last_packet_at` and `figures` up to date."""

    async def answered(
        self, *, address: str, port: int, transport: Literal["udp", "tcp"], ssrc: int | None, sip_host: str
    ) -> None:
        """Take the camera's SDP answer: whom to expect, whom to connect to (TCP active, in the background)."""

    async def pace(self, *, scale: float | None = None, seek: bool = False) -> None:
        """Of a recording: the device goes on at another speed, or from another place."""

    async def diagnose(self) -> GatewayError:
        """Say why there is no picture, from what has been seen so far."""

    async def close(self, cause: MediaError | None = None) -> None:
        """End the stream and give everything back; idempotent."""


class MediaWorker(Protocol):
    """One worker, or all of them behind one door."""

    async def open_ingest(self, spec: IngestSpec, listener: IngestListener) -> Ingest:
        """Bind a port and be ready to receive. Raises PortsExhaustedError, or LocalError with code "overloaded"."""

    def port_counts(self) -> PortCounts: ...
    def not_ready(self) -> Sequence[str]:
        """Reasons why no stream can be opened now; empty when one can."""

    def samples(self) -> Iterable[Sample]:
        """Figures of /metrics."""
