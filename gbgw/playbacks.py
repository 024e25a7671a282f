"""The playbacks that the API made: a name, a channel and a span, which viewers open and steer together.

A row costs nothing until somebody plays it: then a Session runs under its key. One that nobody plays is forgotten after
a while.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gbgw.base import limits
from gbgw.base.errors import LimitError
from gbgw.serve.source import StreamKey


@dataclass(slots=True)
class Playback:
    """used_at: loop seconds at which it was made or last seen playing."""

    key: StreamKey
    used_at: float

    @property
    def name(self) -> str:
        return self.key.name


class Playbacks:
    """All of them, by name. plays: whether a session runs under this key."""

    def __init__(self, plays: Callable[[str], bool]) -> None:
        self._plays = plays
        self._rows: dict[str, Playback] = {}

    def __iter__(self) -> Iterator[Playback]:
        return iter(sorted(self._rows.values(), key=lambda row: row.name))

    def make(self, key: StreamKey, now: float) -> Playback:
        """Raises LimitError at limits.PLAYBACKS."""
        self.sweep(now)
        if len(self._rows) >= limits.PLAYBACKS:
            raise LimitError(
                f"{limits.PLAYBACKS} playbacks are open",
                code="playbacks_exhausted",
                remedy="delete those that are over",
            )
        made = self._rows[key.name] = Playback(key, now)
        return made

    def get(self, name: str, now: float) -> Playback | None:
        self.sweep(now)
        return self._rows.get(name)

    def drop(self, name: str) -> Playback | None:
        return self._rows.pop(name, None)

    def sweep(self, now: float) -> None:
        for row in list(self._rows.values()):
            if self._plays(str(row.key)):
                row.used_at = now
            elif now - row.used_at >= limits.PLAYBACK_IDLE_SECONDS:
                del self._rows[row.name]
