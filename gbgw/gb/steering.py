"""Who turns which camera, how it moves, and when it must stand still: leases and locks, sans-IO.

Every movement is a lease: it ends by itself unless it is renewed, so that a camera never turns on because a page was
closed or a cable pulled. Whoever moved a camera keeps it for a moment after the last command, and another of the same
priority is refused until then; a higher priority takes it over.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gbgw.base import limits
from gbgw.base.errors import LimitError, RequestError
from gbgw.gb import ptz
from gbgw.gb.ptz import STILL, Motion, PtzCommand


@dataclass(frozen=True, slots=True)
class Operator:
    """Who steers. id: of his token and page; name: for others to read; priority: 1 to 10, 10 wins."""

    id: str
    name: str
    priority: int


@dataclass(slots=True)
class Hold:
    """One camera that somebody has. until: loop seconds when others may have it; moves_until: when it must stand."""

    operator: Operator
    until: float
    motion: Motion = STILL
    moves_until: float = 0.0

    @property
    def deadline(self) -> float:
        return self.moves_until if self.motion else self.until


class Locks:
    """The cameras that are steered now, by any key of the caller's."""

    def __init__(self) -> None:
        self._holds: dict[str, Hold] = {}

    def __len__(self) -> int:
        return len(self._holds)

    @property
    def deadline(self) -> float | None:
        return min((hold.deadline for hold in self._holds.values()), default=None)

    def get(self, key: str, now: float) -> Hold | None:
        """Return who has the camera, or None when it is free."""
        hold = self._holds.get(key)
        return hold if hold is not None and (hold.motion or now < hold.until) else None

    def moving(self) -> list[str]:
        return [key for key, hold in self._holds.items() if hold.motion]

    def claim(self, key: str, operator: Operator, now: float) -> Hold:
        """Give the camera to `operator`, or keep it his. What it does meanwhile goes on.

        Raises RequestError 409 `ptz_locked`, LimitError `ptz_holds_exhausted`.
        """
        hold = self.get(key, now)
        if hold is not None and hold.operator.id != operator.id and operator.priority <= hold.operator.priority:
            seconds = max(hold.until, hold.moves_until if hold.motion else 0.0) - now
            raise RequestError(
                f"{hold.operator.name or 'Somebody else'} steers this camera (priority {hold.operator.priority}), "
                f"for another {math.ceil(seconds)} s unless he goes on",
                status=409,
                code="ptz_locked",
                remedy="wait, or use a higher priority",
            )
        if hold is None:
            if len(self._holds) >= limits.PTZ_HOLDS and key not in self._holds:
                raise LimitError(
                    f"{limits.PTZ_HOLDS} cameras are steered at once", code="ptz_holds_exhausted", remedy="try again"
                )
            hold = self._holds[key] = Hold(operator, now)
        hold.operator = operator
        hold.until = now + limits.PTZ_HOLD_SECONDS
        return hold

    def move(self, key: str, motion: Motion, seconds: float, now: float) -> Sequence[PtzCommand]:
        """Set how a claimed camera moves, for `seconds` unless renewed; return the frames that differ from before."""
        hold = self._holds[key]
        before, hold.motion = hold.motion, motion
        hold.moves_until = now + seconds
        hold.until = (hold.moves_until if motion else now) + limits.PTZ_HOLD_SECONDS
        return frames(before, motion)

    def is_held(self, key: str) -> bool:
        return key in self._holds

    def motion(self, key: str) -> Motion:
        hold = self._holds.get(key)
        return hold.motion if hold is not None else STILL

    def release(self, key: str, operator: Operator, now: float) -> Sequence[PtzCommand]:
        """Give the camera back; return the frames that stop it. Nothing when another has it."""
        hold = self.get(key, now)
        if hold is None or hold.operator.id != operator.id:
            return ()
        found = self.move(key, STILL, 0.0, now)
        hold.until = now
        return found

    def forget(self, key: str) -> None:
        """The camera is gone, and its motion with it."""
        self._holds.pop(key, None)

    def due(self, now: float) -> list[tuple[str, Operator, Sequence[PtzCommand]]]:
        """Stop what was not renewed in time: (key, who had moved it, frames to send). Forget who has let go."""
        stopped: list[tuple[str, Operator, Sequence[PtzCommand]]] = []
        for key, hold in list(self._holds.items()):
            if hold.motion and now >= hold.moves_until:
                found = frames(hold.motion, STILL)
                hold.motion = STILL
                stopped.append((key, hold.operator, found))
            if not hold.motion and now >= hold.until:
                del self._holds[key]
        return stopped


def frames(before: Motion, after: Motion, *, both: bool = True) -> list[PtzCommand]:
    """Return what to send so that a camera that moves like `before` moves like `after`."""
    found = []
    if (before.pan, before.tilt, before.zoom) != (after.pan, after.tilt, after.zoom):
        found.append(ptz.head_of(after, both=both))
    if (before.focus, before.iris) != (after.focus, after.iris):
        found.append(ptz.lens_of(after))
    return found
