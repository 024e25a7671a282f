"""Steers cameras: the shell of `gb/steering.py`. One task stops what was not renewed in time.

A frame is sent at once, whatever its predecessors wait for; when one was answered so late that it may have been
repeated on the way, what the camera should do by now is said again. A stop goes out twice.
"""

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from gbgw.base import limits
from gbgw.base.errors import GatewayError
from gbgw.base.tally import Tally
from gbgw.commands import Commands
from gbgw.gb import control, ids
from gbgw.gb.control import Command
from gbgw.gb.ptz import STILL, Motion, PtzCommand
from gbgw.gb.steering import Hold, Locks, Operator, frames

AGAIN_SECONDS: Final = 0.08  # between the two stops
REPEATED_SECONDS: Final = 0.4  # an answer later than this may belong to a repeated frame (RFC 3261 T1: 0.5 s)

Place = tuple[str, str]  # device, channel


class Steering:
    """Owns every movement of every camera. stopped: told of a movement that ended because nobody renewed it."""

    def __init__(self, commands: Commands, tally: Tally, stopped: Callable[[Place, Operator], None]) -> None:
        self._commands = commands
        self._tally = tally
        self._stopped = stopped
        self._locks = Locks()
        self._places: dict[str, Place] = {}
        self._changed = asyncio.Event()
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._watch = self._tasks.create_task(self._run(), name="steering")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.cancel()
        for key in self._locks.moving():
            found = frames(self._locks.motion(key), STILL)
            self._locks.move(key, STILL, 0.0, self._now())
            self._tasks.create_task(self._stop(self._places[key], found), name=f"ptz:{key}")
        try:
            async with asyncio.timeout(limits.GOODBYE_SECONDS):
                await self._tasks.__aexit__(None, None, None)
        except TimeoutError:
            self._tally.add("steering.not_stopped")

    def __len__(self) -> int:
        """Cameras that somebody has just now."""
        return len(self._locks)

    def holder(self, place: Place) -> Hold | None:
        return self._locks.get(ids.stream_key(*place), self._now())

    async def move(self, place: Place, operator: Operator, motion: Motion, seconds: float) -> Hold:
        """Move the camera for `seconds`; the same motion again renews it. Raises as Commands.command does, and
        RequestError 409 `ptz_locked`."""
        self._commands.reachable(place[0])
        key = ids.stream_key(*place)
        self._locks.claim(key, operator, self._now())
        self._places[key] = place
        found = self._locks.move(key, motion, seconds, self._now())
        self._changed.set()
        hold = self._locks.get(key, self._now())
        assert hold is not None
        error = await self._see_through(place, found)
        if error is not None:
            if motion and self._locks.motion(key) == motion:
                self._locks.move(key, motion, 0.0, self._now())  # it may have obeyed: its lease ends here
                self._changed.set()
            raise error
        return hold

    async def release(self, place: Place, operator: Operator) -> None:
        """Stop the camera and give it back; quiet when another has it."""
        found = self._locks.release(ids.stream_key(*place), operator, self._now())
        self._changed.set()
        error = await self._see_through(place, found)
        if error is not None:
            raise error

    async def _see_through(self, place: Place, found: Sequence[PtzCommand]) -> GatewayError | None:
        """Send frames whether the caller stays or not, and return what went wrong."""
        if not found:
            return None
        name = f"ptz:{ids.stream_key(*place)}"
        return await asyncio.shield(self._tasks.create_task(self._try(place, found), name=name))

    async def aim(self, place: Place, operator: Operator, commands: Sequence[Command], *, forced: bool = False) -> None:
        """Send commands that move a camera by themselves (presets, cruises, home ...), under the same lock."""
        self._commands.reachable(place[0])
        key = ids.stream_key(*place)
        hold = self._locks.claim(key, operator, self._now())
        self._places[key] = place
        if hold.motion:
            found = self._locks.move(key, STILL, 0.0, self._now())
            await self._put(place, found)
        self._changed.set()
        for command in commands:
            await self._commands.command(*place, command, forced=forced)

    def gone(self, device_id: str) -> None:
        """A device is offline: its cameras stand, as far as we can tell."""
        for key, place in list(self._places.items()):
            if place[0] == device_id:
                self._locks.forget(key)
                del self._places[key]

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            try:
                async with asyncio.timeout_at(self._locks.deadline):
                    await self._changed.wait()
            except TimeoutError:
                for key, operator, found in self._locks.due(self._now()):
                    place = self._places[key]
                    self._tally.add("steering.lease_ended", detail=key)
                    self._stopped(place, operator)
                    self._tasks.create_task(self._stop(place, found), name=f"ptz:{key}")
                self._places = {key: place for key, place in self._places.items() if self._locks.is_held(key)}

    async def _stop(self, place: Place, found: Sequence[PtzCommand]) -> None:
        error = await self._try(place, found)
        if error is not None:
            self._tally.add("steering.not_stopped", detail=f"{place[0]}: {error.code}")

    async def _try(self, place: Place, found: Sequence[PtzCommand]) -> GatewayError | None:
        try:
            await self._move(place, found)
        except GatewayError as error:
            return error
        return None

    async def _move(self, place: Place, found: Sequence[PtzCommand]) -> None:
        """Send frames, a stop soon once more; say again what holds by now where an answer came late."""
        key = ids.stream_key(*place)
        meant, began = self._locks.motion(key), self._now()
        await self._put(place, found)
        if self._locks.motion(key) != meant:
            if self._now() - began > REPEATED_SECONDS:
                self._tally.add("steering.said_again")
                await self._put(place, _all_of(self._locks.motion(key)))
        elif not meant:
            self._tasks.create_task(self._again(place, found), name=f"ptz:{key}")

    async def _again(self, place: Place, found: Sequence[PtzCommand]) -> None:
        """Say a stop once more, unless the camera moves anew by then."""
        await asyncio.sleep(AGAIN_SECONDS)
        if self._locks.motion(ids.stream_key(*place)):
            return
        try:
            await self._put(place, found)
        except GatewayError as error:
            self._tally.add("steering.not_repeated", detail=f"{place[0]}: {error.code}")

    async def _put(self, place: Place, found: Sequence[PtzCommand]) -> None:
        for frame in found:
            await self._commands.command(*place, control.ptz(frame))


def _all_of(motion: Motion) -> list[PtzCommand]:
    """Return the frames of both groups."""
    return frames(Motion(1, 1, 1, 1, 1) if not motion else STILL, motion)
