"""A crowd that comes at once, let in one by one: a piece of work for each turn of the loop, first come, first served.

Two hundred offers, or two hundred flights of DTLS, that arrive together would be one turn of the loop, and everybody
who watches already would wait for all of them: a second was seen. Between two pieces of work the loop does whatever
else is due.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from gbgw.base import limits
from gbgw.base.errors import LocalError


class Turns:
    """One a loop. Work is some milliseconds at most."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Callable[[], None]] = deque()
        self._handle: asyncio.Handle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def want(self, work: Callable[[], None]) -> None:
        """Call `work` in a turn of its own."""
        self._waiting.append(work)
        if self._handle is None:
            self._handle = self._loop.call_soon(self._next)

    async def mine(self) -> None:
        """Return in a turn of its own. Raises LocalError `webrtc_busy` when too many wait already."""
        if len(self._waiting) >= limits.WEBRTC_WAITING:
            raise LocalError("Too many viewers come at once.", code="webrtc_busy", remedy="Try again in a second.")
        turn = self._loop.create_future()
        self.want(lambda: None if turn.done() else turn.set_result(None))
        await turn

    def close(self) -> None:
        """Nobody's turn any more."""
        if self._handle is not None:
            self._handle.cancel()
        self._waiting.clear()

    def _next(self) -> None:
        work = self._waiting.popleft()
        self._handle = self._loop.call_soon(self._next) if self._waiting else None
        work()
