"""Recordings that play at another speed than they were made, as a line of time that viewers can follow.

Devices send a recording at four times its speed with the times it was recorded at. A player that shows a second of them
each second falls behind without end, so here the line is divided by the speed and runs like the wall clock; sound has
no use then and is left out. Some devices ignore a speed, or count in the speed's own time (reference quirk 45): where
their times are seen to run like the wall clock, they are left as they are.

It stands on both sides of media.timeline: `hear` sees the device's own times, `push` changes those of the line.
`played` is how far the recording itself has come, in seconds, backwards where it plays backwards; jumps of the device's
clock do not count. Before the first command everything passes unchanged.
"""

from typing import Final

from gbgw.base import limits, ticks
from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import VIDEO

MEASURE_SECONDS: Final = 1.0  # over which the device's own pace is measured, after a change of speed
SETTLE_SECONDS: Final = 0.5  # after a command, what was sent before it may still come
REPEAT_SECONDS: Final = 3.0  # after going on, what was sent before it stood still may come again
REPEATED: Final = 2 * ticks.HZ  # as much as a group of pictures is long
FORWARD: Final = 600 * ticks.HZ  # a gap of the recording; more is another clock
BACK: Final = 30 * ticks.HZ  # from group of pictures to group of pictures, played backwards
_PICTURES: Final = 2 * ticks.HZ  # from picture to picture, of those that are played fast as key frames only


class Pace:
    """The speed of one recording. Every unit goes through `hear`, the timeline, and `push`."""

    __slots__ = (
        "_base_in",
        "_base_out",
        "_divisor",
        "_heard",
        "_landing",
        "_last_in",
        "_lasts",
        "_measured",
        "_measured_from",
        "_repeats_until",
        "_settled_at",
        "played",
        "scale",
    )

    def __init__(self) -> None:
        self.scale = 1.0
        self.played = 0.0
        self._divisor = 1.0
        self._base_in = 0  # a moment of the line, and where it lies on ours
        self._base_out = 0
        self._last_in = 0  # of the last picture, on the line
        self._heard: int | None = None  # of the last picture, on the device's clock
        self._landing: float | None = None  # until when a jump is the answer to a seek
        self._measured: float | None = 1.0
        self._measured_from: tuple[float, float] | None = None  # loop seconds, and what has come since
        self._settled_at: float | None = None
        self._lasts: dict[int, int] = {}  # newest device time, by track
        self._repeats_until = float("-inf")

    @property
    def measured(self) -> float | None:
        """The speed at which the device's own times come; None while a change of it is measured."""
        return self._measured

    def set_scale(self, scale: float, now: float) -> None:
        """The device has agreed to `scale` times the recorded speed, negative for backwards."""
        self.scale = scale
        if scale > 0:
            self._repeats_until = now + REPEAT_SECONDS
        self._measured = self._measured_from = self._settled_at = None
        self._rebase(abs(scale))

    def seek(self, now: float) -> None:
        """The device was asked to go elsewhere: `played` counts from there."""
        self.played = 0.0
        self._landing = now + SETTLE_SECONDS

    def hear(self, unit: AccessUnit, now: float) -> bool:
        """See the device's own time of a unit; False for one that viewers have had already."""
        raw = unit.dts if unit.dts is not None else unit.pts
        if raw is None:
            return True
        if self._is_repeated(unit.track_id, raw, now):
            return False
        self._count(unit, raw, now)
        return True

    def _is_repeated(self, track_id: int, raw: int, now: float) -> bool:
        """After a command devices go on at the key frame before the place: what comes again is of no use, and its
        times would look like pictures out of order."""
        last = self._lasts.get(track_id)
        if last is not None and now < self._repeats_until and 0 <= last - raw <= REPEATED:
            return True
        if last is not None or len(self._lasts) < limits.TRACKS:
            self._lasts[track_id] = raw
        return False

    def _count(self, unit: AccessUnit, raw: int, now: float) -> None:
        if unit.codec.kind is not VIDEO:
            return
        step = raw - self._heard if self._heard is not None else 0
        self._heard = raw
        if self._landing is not None:
            if abs(step) > _PICTURES or step < 0:
                self.played, self._landing = 0.0, None  # what came since the command was from before it
                return
            if now > self._landing:
                self._landing = None
        if step > FORWARD or step < -BACK or (step < 0 and self.scale > 0):
            return
        self.played += ticks.to_seconds(step)
        if self._measured is None and abs(step) <= _PICTURES:
            self._measure(ticks.to_seconds(step), now)

    def push(self, unit: AccessUnit, now: float) -> AccessUnit | None:
        """Return a unit of the line with its time on ours; None for sound that nobody could listen to."""
        pts, dts = unit.pts, unit.dts
        if pts is None or dts is None:
            return unit
        if unit.codec.kind is VIDEO:
            self._last_in = dts
        elif self._divisor != 1.0 or self.scale < 0:
            return None
        if self._divisor == 1.0 and self._base_in == self._base_out:
            return unit
        return unit.with_times(self._place(pts), self._place(dts))

    def _place(self, time: int) -> int:
        return self._base_out + round((time - self._base_in) / self._divisor)

    def _measure(self, step: float, now: float) -> None:
        """Compare the device's clock with ours, once after each change of speed."""
        if self._settled_at is None:
            self._settled_at = now + SETTLE_SECONDS
        if now < self._settled_at:
            return
        if self._measured_from is None:
            self._measured_from = (now, 0.0)
            return
        since, passed = self._measured_from
        passed += abs(step)
        self._measured_from = (since, passed)
        if now - since < MEASURE_SECONDS:
            return
        self._measured = round(passed / (now - since), 2)
        asked = abs(self.scale)
        if abs(self._measured - 1.0) < abs(self._measured - asked):  # it took no notice
            self._rebase(1.0)

    def _rebase(self, divisor: float) -> None:
        """Go on from the last picture at another division."""
        self._base_in, self._base_out = self._last_in, self._place(self._last_in)
        self._divisor = divisor
