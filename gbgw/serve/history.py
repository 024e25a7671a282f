"""What the API asks of the gateway about the past that devices keep, and what it shows of it.

`gbgw.history` implements History. Records are frozen dataclasses whose field names are the JSON names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from gbgw.serve.source import Cause, StreamState

RecordType = Literal["time", "alarm", "manual", "all"]


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording on a device. id: its place in the list, from the earliest to the latest."""

    id: str
    start: datetime
    end: datetime
    name: str
    kind: str  # time, alarm, manual; "" when the device does not say
    bytes: int | None  # None: the device does not say
    file_path: str
    secrecy: bool


@dataclass(frozen=True, slots=True)
class Recordings:
    """What a channel recorded in a span. complete: the device told all of it."""

    items: Sequence[Recording]
    complete: bool


@dataclass(frozen=True, slots=True)
class PlaybackInfo:
    """One playback of a recording on a device; the API adds its urls."""

    id: str
    device_id: str
    channel_id: str
    stream: str  # its key among the streams
    start: datetime
    end: datetime
    state: StreamState | Literal["idle"]  # idle: nobody has opened it yet, or any more
    cause: Cause | None
    position: datetime | None  # of the picture that came last; None while nothing plays
    paused: bool
    speed: float  # wanted; negative for backwards
    measured_speed: float | None  # at which the device's own times come; None while that is measured


@dataclass(frozen=True, slots=True)
class PlaybackChange:
    """None: leave as it is. position: Unix seconds."""

    position: float | None = None
    speed: float | None = None
    paused: bool | None = None


@dataclass(frozen=True, slots=True)
class DownloadInfo:
    """A recording on its way to a file of the gateway. Idle and finished ones are listed, too."""

    id: str
    device_id: str
    channel_id: str
    stream: str  # its key among the streams while it runs
    start: datetime
    end: datetime
    speed: int  # times the recorded one, as asked
    state: Literal["waiting", "running", "finishing", "done", "failed"]
    cause: Cause | None
    made: datetime
    ended: datetime | None
    seconds: float  # of the recording, fetched so far
    percent: float
    measured_speed: float | None  # times the recorded one, so far
    bytes: int  # fetched so far; of the file once it is done


class History(Protocol):
    """What the API asks of the gateway about the past."""

    async def recordings(
        self, device_id: str, channel_id: str, start: int, end: int, kind: RecordType, *, kept: bool
    ) -> Recordings:
        """Ask the device for its list between two times in Unix seconds; `kept`: one told just now will do."""

    def playbacks(self) -> Sequence[PlaybackInfo]:
        """Those that the API made and those that viewers opened, ordered by id."""

    async def playback(self, playback_id: str) -> PlaybackInfo:
        """One, as it stands now. Raises RequestError 404 `unknown_playback`."""

    def make_playback(self, device_id: str, channel_id: str, start: int, end: int) -> PlaybackInfo:
        """Name one. The device is asked when somebody opens it. Raises RequestError 404."""

    async def change_playback(self, playback_id: str, change: PlaybackChange) -> PlaybackInfo:
        """Seek, then change the speed, then pause or resume. Raises RequestError or PeerError with the cause."""

    async def end_playback(self, playback_id: str) -> None:
        """End it; quiet when it is unknown (idempotent)."""

    def downloads(self) -> Sequence[DownloadInfo]:
        """All that are known, ordered by id."""

    def download(self, download_id: str) -> DownloadInfo:
        """Raises RequestError 404 `unknown_download`."""

    def download_file(self, download_id: str) -> Path:
        """The finished MP4. Raises RequestError 404 `unknown_download`, 409 `not_finished`."""

    async def make_download(self, device_id: str, channel_id: str, start: int, end: int, speed: int) -> DownloadInfo:
        """Begin one. Raises RequestError 404, LimitError."""

    async def end_download(self, download_id: str) -> None:
        """Stop it and remove its file; quiet when it is unknown (idempotent)."""
