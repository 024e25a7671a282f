"""Which media worker gets the next stream: the one with the most processor time to spare, as measured."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

STREAM_CPU: Final = 0.01  # seconds a second of a stream that nobody measured yet: ingest, one mux, a viewer or two
SAME_CPU: Final = 0.05  # loads this close are equal; then streams and bit rate tell


@dataclass(frozen=True, slots=True)
class Load:
    """Of one worker. cpu: seconds of processor time it took in the last second; streams: open now; unmeasured: opened
    since `cpu` was measured; bitrate: bits a second that come in; overloaded: it refuses new streams, or has not been
    heard of for a while."""

    number: int
    cpu: float = 0.0
    streams: int = 0
    unmeasured: int = 0
    bitrate: float = 0.0
    overloaded: bool = False

    @property
    def expected_cpu(self) -> float:
        """With what was opened since, each taken as one of those that are measured."""
        measured = self.streams - self.unmeasured
        each = max(self.cpu / measured, STREAM_CPU) if measured > 0 else STREAM_CPU
        return self.cpu + self.unmeasured * each


def choose(loads: Iterable[Load]) -> Load:
    """The load of the worker that gets the next stream. ValueError when there is none."""
    return min(
        loads,
        key=lambda load: (
            load.overloaded,
            round(load.expected_cpu / SAME_CPU),
            load.streams,
            load.bitrate,
            load.number,
        ),
    )
