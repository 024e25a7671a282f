"""Whose turn it is to send: every WebRTC viewer of a process in turn, and the event loop its own in between.

A picture for two hundred viewers is some ten milliseconds of SRTP and kernel, a key frame many times that. What fits
into limits.WEBRTC_SLICE_SECONDS leaves in the call that brings it; the rest follows slice by slice, one burst a viewer
at a time, so that a large picture of one does not wait for that of another. One timer stands for all viewers that wait
for their pace.
"""

import asyncio
import time
from collections import deque
from heapq import heappop, heappush
from typing import Final, Protocol

from gbgw.base import limits

EARLY_SECONDS: Final = 0.0005  # uvloop counts time in whole milliseconds: half of one is no reason to be woken again
_UNITS: Final = 1 << 18  # of abs-send-time: 6.18 bits of seconds


class Paced(Protocol):
    """Something that sends in turns. is_planned: the Pacer's own mark on it."""

    is_planned: bool

    def turn(self, now: float, send_time: int) -> float | None:
        """Send what the pace allows at loop time `now`; return when to come again, at `now` or before for at once, or
        None when nothing waits. send_time: abs-send-time of `now`."""


class Pacer:
    """One a loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = time.monotonic  # the loop's, but finer than uvloop tells it
        self._ready: deque[Paced] = deque()
        self._later: list[tuple[float, int, Paced]] = []
        self._count = 0  # orders those of one time
        self._used = 0.0  # of this turn of the loop's slice
        self._run_handle: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def want(self, one: Paced) -> None:
        """It has something to send. Quiet when it is planned already."""
        if one.is_planned:
            return
        if not self._ready and self._used < limits.WEBRTC_SLICE_SECONDS:
            begun = self._clock()
            again = one.turn(begun, _send_time())
            self._used += self._clock() - begun
            if again is not None:
                self._plan(one, again, begun)
        else:
            one.is_planned = True
            self._ready.append(one)
        if self._run_handle is None:
            self._run_handle = self._loop.call_soon(self._run)  # the next slice, or at least a new allowance

    def close(self) -> None:
        """Nobody's turn any more."""
        for handle in (self._run_handle, self._timer):
            if handle is not None:
                handle.cancel()
        self._ready.clear()
        self._later.clear()

    def _plan(self, one: Paced, at: float, now: float) -> None:
        one.is_planned = True
        if at <= now:
            self._ready.append(one)
            return
        self._count += 1
        heappush(self._later, (at, self._count, one))

    def _run(self) -> None:
        self._run_handle = None
        self._used = 0.0
        begun = now = self._clock()
        self._wake(now)
        send_time = _send_time()
        try:
            while self._ready:
                one = self._ready.popleft()
                one.is_planned = False
                again = one.turn(now, send_time)
                if again is not None:
                    self._plan(one, again, now)
                now = self._clock()
                if now - begun >= limits.WEBRTC_SLICE_SECONDS:
                    break
        finally:  # a mistake in one turn must not take the others theirs
            self._used = now - begun
            if self._ready:
                self._run_handle = self._loop.call_soon(self._run)
            elif self._later:
                self._set_timer(self._later[0][0])

    def _wake(self, now: float) -> None:
        while self._later and self._later[0][0] <= now + EARLY_SECONDS:
            self._ready.append(heappop(self._later)[2])

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._run_handle is None:
            self._run()


def _send_time() -> int:
    return int(time.time() * _UNITS) & 0xFFFFFF
