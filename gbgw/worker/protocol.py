"""What control and a media worker say to each other: typed messages, each its length, its class's name and its fields
as JSON.

Sans-IO. Both ends are the same version of gbgw; `VERSION` is there to say so when they are not. Whoever asks for
something that lasts (an ingest, a seat, a permit) chooses its number, and may take it back by that number before he has
the answer.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Final, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

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


@dataclass(frozen=True, slots=True)
class Message:
    """The root of all that is said."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants"
    )


@dataclass(frozen=True, slots=True)
class Question(Message):
    """ask: the number that its answer carries; 0 wants none."""

    ask: int = field(default=0, kw_only=True)


@dataclass(frozen=True, slots=True)
class Answer(Message):
    to: int


# From control


@dataclass(frozen=True, slots=True)
class Start(Question):
    """The first message. config: the worker's own, as JSON; cpus: it runs on, () for all."""

    number: int
    config: str
    cpus: tuple[int, ...] = ()
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class OpenIngest(Question):
    ingest: int
    spec: IngestSpec


@dataclass(frozen=True, slots=True)
class Answered(Question):
    """The camera's SDP answer."""

    ingest: int
    address: str
    port: int
    transport: Literal["udp", "tcp"]
    ssrc: int | None
    sip_host: str


@dataclass(frozen=True, slots=True)
class Settle(Question):
    ingest: int


@dataclass(frozen=True, slots=True)
class SetPace(Question):
    """A recording goes on at another speed, or from another place."""

    ingest: int
    scale: float | None = None
    seek: bool = False


@dataclass(frozen=True, slots=True)
class Diagnose(Question):
    ingest: int


@dataclass(frozen=True, slots=True)
class CloseIngest(Question):
    """Without a question: also of one whose opening was not answered yet."""

    ingest: int
    cause: "Failure | None" = None


@dataclass(frozen=True, slots=True)
class Logging(Message):
    level: str
    format: Literal["auto", "console", "json"]


@dataclass(frozen=True, slots=True)
class Stop(Message):
    """End everything and exit."""


# From the worker


@dataclass(frozen=True, slots=True)
class Step(Message):
    ingest: int
    name: str
    at: float


@dataclass(frozen=True, slots=True)
class KeyframeWanted(Message):
    ingest: int


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
        return cls(**_fields_of(track) | {"codec": track.codec.name})

    def track(self) -> Track:
        codec = BY_NAME.get(self.codec)
        if codec is None:
            raise ProtocolError(f"a media worker speaks of the codec {self.codec}")
        return Track(**_fields_of(self) | {"codec": codec})


def _fields_of(row: "Track | TrackRow") -> dict[str, Any]:
    return {each.name: getattr(row, each.name) for each in fields(row)}


@dataclass(frozen=True, slots=True)
class Tracks(Message):
    """The set of tracks of a stream, at its publication and after each change."""

    ingest: int
    tracks: tuple[TrackRow, ...]


@dataclass(frozen=True, slots=True)
class Sit(Question):
    """A viewer wants to watch: answered once the stream is playable; without a question he watches already.

    ticket: of the place that control keeps for him, 0 for none.
    """

    seat: int
    key: str
    ticket: int = 0


@dataclass(frozen=True, slots=True)
class Leave(Message):
    """He left, or does not wait any more."""

    seat: int


@dataclass(frozen=True, slots=True)
class FirstByte(Message):
    """He was served."""

    seat: int
    at: float


@dataclass(frozen=True, slots=True)
class TakePermit(Question):
    """To transcode one more picture."""

    permit: int
    key: str


@dataclass(frozen=True, slots=True)
class GivePermit(Message):
    permit: int


@dataclass(frozen=True, slots=True)
class ViewerCame(Message):
    id: str
    key: str
    protocol: str
    remote: str


@dataclass(frozen=True, slots=True)
class ViewerFigures:
    """counts: whole numbers of serve.viewers.Viewer by field, `queue` among them. round_trip: its own, in seconds."""

    id: str
    counts: dict[str, int]
    round_trip: float | None = None


@dataclass(frozen=True, slots=True)
class ViewerLeft(Message):
    last: ViewerFigures


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
class Report(Message):
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


# Answers


@dataclass(frozen=True, slots=True)
class Done(Answer):
    """value: what was asked for where it is one number: the version of a worker, a port, an ingest."""

    value: int = 0


@dataclass(frozen=True, slots=True)
class Settled(Answer):
    stream: StreamFigures


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
class Failed(Answer):
    failure: Failure


@dataclass(frozen=True, slots=True)
class Diagnosis(Answer):
    """Why there is no picture."""

    failure: Failure


_KINDS: Final[tuple[type[Message], ...]] = (
    *(Start, OpenIngest, Answered, Settle, SetPace, Diagnose, CloseIngest, Logging, Stop),
    *(Step, KeyframeWanted, Tracks, Sit, Leave, FirstByte, TakePermit, GivePermit, ViewerCame, ViewerLeft, Report),
    *(Done, Settled, Failed, Diagnosis),
)
_BY_NAME: Final = {kind.__name__.encode(): TypeAdapter(kind) for kind in _KINDS}


def encode(message: Message) -> bytes:
    """One message as it goes over the channel. Raises ProtocolError above limits.WORKER_MESSAGE_BYTES."""
    name = type(message).__name__.encode()
    body = name + b" " + _BY_NAME[name].dump_json(message)
    if len(body) > limits.WORKER_MESSAGE_BYTES:
        raise ProtocolError(f"a message of {len(body)} bytes between control and a media worker")
    return len(body).to_bytes(_LENGTH, "big") + body


def decode(body: bytes) -> Message:
    """The message behind its length. Raises ProtocolError for what is none."""
    name, _, text = body.partition(b" ")
    kind = _BY_NAME.get(name)
    if kind is None:
        raise ProtocolError(f"a message of a kind that nobody knows: {name[:40]!r}")
    try:
        return kind.validate_json(text)
    except ValidationError as error:
        raise ProtocolError(f"a message that means nothing: {error.errors()[0]['msg']}") from None


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
                yield decode(body)
        finally:
            del self._pending[:start]
