"""Where a recording that plays on a device stands, and what it is told: pause, resume, seek, speed (gb.mansrtsp).

One Playhead belongs to one Session. A command waits for the device's answer, one at a time; what the device refuses
changes nothing here.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from gbgw.base import limits
from gbgw.base.errors import PeerError, RequestError
from gbgw.gb import mansrtsp
from gbgw.gb.mansrtsp import Commands
from gbgw.sip.message import Request, Response
from gbgw.worker.base import Ingest

SLOWEST: Final = 0.25  # the standard's basic values begin with it
FASTEST: Final = 8.0  # and devices go beyond its 4
ANSWER_SECONDS: Final = 5.0  # for the 200 of an INFO

Send = Callable[[Request, float], Awaitable[Response]]


class Playhead:
    """paused: it stands still by command. scale: wanted speed, negative for backwards. changed_at: loop seconds of the
    last command that the device took."""

    def __init__(self, start: int, stop: int, send: Send) -> None:
        """start, stop: the session's range, Unix seconds. send: an INFO inside the dialog, within so many seconds."""
        self.paused = False
        self.scale = 1.0
        self.changed_at = 0.0
        self._start = start
        self._stop = stop
        self._base = float(start)
        self._send = send
        self._commands = Commands()
        self._turn = asyncio.Lock()

    def position(self, played_seconds: float) -> float:
        """Return the Unix seconds of the picture that came last. played_seconds: of the ingest's figures."""
        return min(max(self._base + played_seconds, self._start), self._stop)

    def is_near_end(self, played_seconds: float) -> bool:
        """It came to the end of what was asked for, where devices stop without a word."""
        left = self._stop - self.position(played_seconds)
        if self.scale < 0:
            left = self.position(played_seconds) - self._start
        return left <= limits.RECORD_END_SECONDS

    async def pause(self, ingest: Ingest) -> None:
        async with self._turn:
            await self._command(self._commands.pause())
            self.paused = True

    async def resume(self, ingest: Ingest) -> None:
        async with self._turn:
            await self._command(self._commands.resume())
            await ingest.pace(scale=self.scale)
            self.paused = False

    async def seek(self, ingest: Ingest, moment: float) -> None:
        """Go on from a moment of the range, Unix seconds; it plays afterwards. Raises RequestError `bad_position`."""
        if not self._start <= moment < self._stop:
            raise RequestError(
                "this moment is not in the playback's span",
                code="bad_position",
                remedy="choose one between its start and its end, or open another playback",
            )
        async with self._turn:
            reply = await self._command(self._commands.seek(moment - self._start))
            await ingest.pace(seek=True)
            await ingest.settle()
            self._base = self._start + reply.npt if reply.npt is not None else moment
            self._base = min(max(self._base, self._start), self._stop)
            self.paused = False

    async def set_scale(self, ingest: Ingest, scale: float) -> None:
        """Go on at another speed; it plays afterwards. Raises RequestError `bad_speed`."""
        if not SLOWEST <= abs(scale) <= FASTEST:
            raise RequestError(
                f"a recording plays at {SLOWEST:g} to {FASTEST:g} times its speed, negative for backwards",
                code="bad_speed",
                remedy="choose a speed in that range; 0.25, 0.5, 1, 2 and 4 are what every device should know",
            )
        async with self._turn:
            reply = await self._command(self._commands.scale(scale))
            self.scale = reply.scale if reply.scale is not None and SLOWEST <= abs(reply.scale) <= FASTEST else scale
            await ingest.pace(scale=self.scale)
            self.paused = False

    async def _command(self, body: bytes) -> mansrtsp.Reply:
        """Raises PeerError `control_refused`, or the cause why there was no answer."""
        request = Request.new("INFO", "", body=body, content_type=mansrtsp.CONTENT_TYPE)
        response = await self._send(request, ANSWER_SECONDS)
        reply = mansrtsp.read_reply(response.body)
        status = response.status if response.status >= 300 else reply.status
        if status >= 300:
            raise PeerError(
                f"the device refused to control the playback ({status})",
                code="control_refused",
                remedy="it may not know this speed or place; 1, 2 and 4 and places inside a recording work mostly",
            )
        self.changed_at = asyncio.get_running_loop().time()
        return reply
