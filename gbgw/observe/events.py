"""Everything that happens, as numbered events: the console and /api/v1/events follow them live or from a number on."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

REMEMBERED: Final = 1_000  # events; a console that was away longer reads the lists anew
BEHIND: Final = 256  # events one follower may lag before it is told to start anew


@dataclass(frozen=True, slots=True)
class Happened:
    """One event. `id` rises by one."""

    id: int
    time: datetime
    type: str
    data: Mapping[str, Any]


class Events:
    """A bounded memory of what happened, and those who follow it."""

    def __init__(self) -> None:
        self._next = 1
        self._past: deque[Happened] = deque(maxlen=REMEMBERED)
        self._followers: set[asyncio.Queue[Happened | None]] = set()
        self._closed = False

    def emit(self, kind: str, **data: Any) -> None:
        """Record an event and hand it to every follower; one that lags too far is cut off and may resume by number."""
        happened = Happened(self._next, datetime.now(UTC), kind, data)
        self._next += 1
        self._past.append(happened)
        for follower in list(self._followers):
            try:
                follower.put_nowait(happened)
            except asyncio.QueueFull:
                self._end(follower)

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """End every follower; called when the gateway stops."""
        self._closed = True
        for follower in list(self._followers):
            self._end(follower)

    def _end(self, follower: asyncio.Queue[Happened | None]) -> None:
        self._followers.discard(follower)
        while not follower.empty():
            follower.get_nowait()
        follower.put_nowait(None)

    async def follow(self, after: int | None = None) -> AsyncGenerator[Happened, None]:
        """Yield remembered events with an id above `after`, then live ones; `after=None`: live ones only."""
        if self._closed:
            return
        queue: asyncio.Queue[Happened | None] = asyncio.Queue(BEHIND)
        past = [] if after is None else [event for event in self._past if event.id > after]
        self._followers.add(queue)
        try:
            for event in past:
                yield event
            while (live := await queue.get()) is not None:
                yield live
        finally:
            self._followers.discard(queue)
