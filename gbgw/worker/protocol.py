"""What control and a media worker say to each other: typed messages, one JSON object each behind its length.

Sans-IO. Both ends are the same version of gbgw; `VERSION` is there to say so when they are not. A message with an `ask`
above 0 is a question whose answer carries the same number in `to`. Whoever asks for something that lasts (an ingest, a
seat, a permit) chooses its number, and may take it back by that number before it has the answer.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from gbgw.base import errors, limits
from gbgw.base.codec import BY_NAME
from gbgw.base.errors import GatewayError, LocalError, RequestError
from gbgw.media.track import Track
from gbgw.serve.source import Sample
from gbgw.worker.base import IngestFigures, IngestSpec

VERSION: Final = 3
_LENGTH: Final = 4  # bytes before each message, big-endian


class ProtocolError(LocalError):
    """The other end is not what it should be."""

    default_code = "worker_protocol"


# From control


@dataclass(frozen=True, slots=True)
class Start:
    """The first message. config: the worker's own, as JSON; cpus: it runs on, () for all."""

    number: int
    config: str
    cpus: tuple[int, ...] = ()
    ask: int = 0
    version: int = VERSION
    kind: Literal["start"] = "start"


@dataclass(frozen=True, slots=True)
class OpenIngest:
    ingest: int
    spec: IngestSpec
    ask: int = 0
    kind: Literal["open"] = "open"


@dataclass(frozen=True, slots=True)
class Answered:
    """The camera's SDP answer."""

    ingest: int
    address: str
    port: int
    transport: Literal["udp", "tcp"]
    ssrc: int | None
    sip_host: str
    ask: int = 0
    kind: Literal["answered"] = "answered"


@dataclass(frozen=True, slots=True)
class Settle:
    ingest: int
    ask: int = 0
    kind: Literal["settle"] = "settle"


@dataclass(frozen=True, slots=True)
class SetPace:
    """A recording goes on at another speed, or from another place."""

    ingest: int
    scale: float | None = None
    seek: bool = False
    ask: int = 0
    kind: Literal["pace"] = "pace"


@dataclass(frozen=True, slots=True)
class Diagnose:
    ingest: int
    ask: int = 0
    kind: Literal["diagnose"] = "diagnose"


@dataclass(frozen=True, slots=True)
class CloseIngest:
    """Without a question: also of one whose opening was not answered yet."""

    ingest: int
    cause: "Failure | None" = None
    ask: int = 0
    kind: Literal["close"] = "close"


@dataclass(frozen=True, slots=True)
class Logging:
    level: str
    format: Literal["auto", "console", "json"]
    kind: Literal["logging"] = "logging"


@dataclass(frozen=True, slots=True)
class Stop:
    """End everything and exit."""

    kind: Literal["stop"] = "stop"


# From the worker


@dataclass(frozen=True, slots=True)
class Step:
    ingest: int
    name: str
    at: float
    kind: Literal["step"] = "step"


@dataclass(frozen=True, slots=True)
class KeyframeWanted:
    ingest: int
    kind: Literal["keyframe"] = "keyframe"


@dataclass(frozen=True, slots=True)
class TrackRow:
    """media.track.Track with its codec by name."""

    track_id: int
    codec: str
    parameter_sets: tuple[bytes, ...]
    config: bytes
    width: int
    height: int
    sample_rate: int
    channels: int
    reorder_depth: int

    @classmethod
    def of(cls, track: Track) -> "TrackRow":
        return cls(
            track.track_id,
            track.codec.name,
            track.parameter_sets,
            track.config,
            track.width,
            track.height,
            track.sample_rate,
            track.channels,
            track.reorder_depth,
        )

    def track(self) -> Track:
        codec = BY_NAME.get(self.codec)
        if codec is None:
            raise ProtocolError(f"a media worker speaks of the codec {self.codec}")
        return Track(
            self.track_id,
            codec,
            self.parameter_sets,
            self.config,
            self.width,
            self.height,
            self.sample_rate,
            self.channels,
            self.reorder_depth,
        )


@dataclass(frozen=True, slots=True)
class Tracks:
    """The set of tracks of a stream, at its publication and after each change."""

    ingest: int
    tracks: tuple[TrackRow, ...]
    kind: Literal["tracks"] = "tracks"


@dataclass(frozen=True, slots=True)
class Sit:
    """A viewer wants to watch: answered once the stream is playable; without a question he watches already.

    ticket: of the place that control keeps for him, 0 for none.
    """

    seat: int
    key: str
    ticket: int = 0
    ask: int = 0
    kind: Literal["sit"] = "sit"


@dataclass(frozen=True, slots=True)
class Leave:
    """He left, or does not wait any more."""

    seat: int
    kind: Literal["leave"] = "leave"


@dataclass(frozen=True, slots=True)
class FirstByte:
    """He was served."""

    seat: int
    at: float
    kind: Literal["first"] = "first"


@dataclass(frozen=True, slots=True)
class TakePermit:
    """To transcode one more picture."""

    permit: int
    key: str
    ask: int = 0
    kind: Literal["permit"] = "permit"


@dataclass(frozen=True, slots=True)
class GivePermit:
    permit: int
    kind: Literal["permit_back"] = "permit_back"


@dataclass(frozen=True, slots=True)
class ViewerCame:
    id: str
    key: str
    protocol: str
    remote: str
    kind: Literal["viewer"] = "viewer"


@dataclass(frozen=True, slots=True)
class ViewerFigures:
    """counts: whole numbers of serve.viewers.Viewer by field, `queue` among them. round_trip: its own, in seconds."""

    id: str
    counts: dict[str, int]
    round_trip: float | None = None


@dataclass(frozen=True, slots=True)
class ViewerLeft:
    last: ViewerFigures
    kind: Literal["viewer_left"] = "viewer_left"


@dataclass(frozen=True, slots=True)
class StreamFigures:
    """Of one ingest, as of now."""

    ingest: int
    last_packet_at: float | None
    figures: IngestFigures
    units: int
    generation: int
    bitrate: float
    gop_seconds: float
    frame_rate: float


@dataclass(frozen=True, slots=True)
class Report:
    """Every second. seconds: since the last one; cpu_seconds: of the process since its start; counts: what was tallied
    since the last one; viewers: those whose figures changed."""

    seconds: float
    cpu_seconds: float
    ports_in_use: int
    ports_free: int
    ports_resting: int
    streams: tuple[StreamFigures, ...]
    viewers: tuple[ViewerFigures, ...]
    counts: dict[str, int]
    samples: tuple[Sample, ...]
    kind: Literal["report"] = "report"


# Answers


@dataclass(frozen=True, slots=True)
class Done:
    """value: what was asked for where it is one number: the version of a worker, a port, an ingest."""

    to: int
    value: int = 0
    kind: Literal["done"] = "done"


@dataclass(frozen=True, slots=True)
class Settled:
    to: int
    stream: StreamFigures
    kind: Literal["settled"] = "settled"


@dataclass(frozen=True, slots=True)
class Failure:
    """A GatewayError, by the name of its class."""

    error: str
    code: str
    message: str
    remedy: str = ""
    stream: str | None = None
    status: int = 0

    @classmethod
    def of(cls, error: GatewayError) -> "Failure":
        name = type(error).__name__
        status = error.status if isinstance(error, RequestError) else 0
        known = name if name in _ERRORS else "LocalError"
        return cls(known, error.code, error.message, error.remedy, error.stream, status)

    def exception(self) -> GatewayError:
        if self.error == "RequestError":
            return RequestError(
                self.message, status=self.status or 400, code=self.code, remedy=self.remedy, stream=self.stream
            )
        error = _ERRORS.get(self.error, LocalError)(self.message, code=self.code, remedy=self.remedy)
        error.stream = self.stream
        return error


_ERRORS: Final[dict[str, type[GatewayError]]] = {
    found.__name__: found
    for found in vars(errors).values()
    if isinstance(found, type) and issubclass(found, GatewayError)
}


@dataclass(frozen=True, slots=True)
class Failed:
    to: int
    failure: Failure
    kind: Literal["failed"] = "failed"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why there is no picture."""

    to: int
    failure: Failure
    kind: Literal["diagnosis"] = "diagnosis"


Question = Start | OpenIngest | Answered | Settle | SetPace | Diagnose | CloseIngest | Sit | TakePermit
Answer = Done | Settled | Diagnosis | Failed
Notice = (
    Logging | Stop | Step | KeyframeWanted | Tracks | Leave | FirstByte | GivePermit | ViewerCame | ViewerLeft | Report
)
Message = Question | Answer | Notice

_MESSAGES: Final = TypeAdapter[Message](
    Annotated[Message, Field(discriminator="kind")],
    config=ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants"),
)


def encode(message: Message) -> bytes:
    """One message as it goes over the channel. Raises ProtocolError above limits.WORKER_MESSAGE_BYTES."""
    body = _MESSAGES.dump_json(message)
    if len(body) > limits.WORKER_MESSAGE_BYTES:
        raise ProtocolError(f"a message of {len(body)} bytes between control and a media worker")
    return len(body).to_bytes(_LENGTH, "big") + body


@dataclass(slots=True)
class Decoder:
    """Push bytes in, take messages out."""

    _pending: bytearray = field(default_factory=bytearray)

    def push(self, data: bytes) -> Iterator[Message]:
        """Yield each whole message. Raises ProtocolError for what is none; the channel is of no use afterwards."""
        self._pending += data
        start = 0
        try:
            while len(self._pending) - start >= _LENGTH:
                size = int.from_bytes(self._pending[start : start + _LENGTH], "big")
                if size > limits.WORKER_MESSAGE_BYTES:
                    raise ProtocolError(f"a message of {size} bytes between control and a media worker")
                end = start + _LENGTH + size
                if len(self._pending) < end:
                    return
                body = bytes(self._pending[start + _LENGTH : end])
                start = end
                try:
                    yield _MESSAGES.validate_json(body)
                except ValidationError as error:
                    raise ProtocolError(f"a message that means nothing: {error.errors()[0]['msg']}") from None
        finally:
            del self._pending[:start]
