"""What the API asks of the gateway about the past that devices keep, and what it shows of it.

`gbgw.history` implements History. Records are frozen dataclasses whose field names are the JSON names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

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


class History(Protocol):
    """What the API asks of the gateway about the past."""

    async def recordings(
        self, device_id: str, channel_id: str, start: int, end: int, kind: RecordType, *, kept: bool
    ) -> Recordings:
        """Ask the device for its list between two times in Unix seconds; `kept`: one told just now will do."""
