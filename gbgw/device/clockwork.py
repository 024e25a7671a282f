"""What a camera's clock does to the times of its units: it is set, it stands still, it counts for another rate.

Sans-IO. Times are 90 kHz ticks; seconds count from the first unit of a session.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from gbgw.base.ticks import HZ


@dataclass(frozen=True, slots=True)
class ClockFault:
    """How a camera's clock goes wrong; the default is right.

    first_seconds: what it shows at the first unit.
    step_seconds: by how much it is set, step_after seconds into the session. stands_after: it shows the same from then
    on. picture_rate: from rate_after on, of the pictures' time that passes, so much is counted.
    sound_rate: the same for sound, from the beginning: a sound card with a clock of its own.
    """

    first_seconds: float = 0.0
    step_after: float | None = None
    step_seconds: float = 0.0
    stands_after: float | None = None
    rate_after: float | None = None
    picture_rate: Fraction = Fraction(1)
    sound_rate: Fraction = Fraction(1)

    def read(self, time: int, at: int, *, is_picture: bool) -> int:
        """Return what this clock shows for `time`, which a right one shows `at` ticks into the session."""
        if self.stands_after is not None:
            over = max(0, at - round(self.stands_after * HZ))
            time, at = time - over, at - over
        if is_picture and self.rate_after is not None:
            passed = max(0, at - round(self.rate_after * HZ))
            time += round(passed * self.picture_rate) - passed
        elif not is_picture:
            time += round(at * self.sound_rate) - at
        if self.step_after is not None and at >= self.step_after * HZ:
            time += round(self.step_seconds * HZ)
        return time + round(self.first_seconds * HZ)


RIGHT: Final = ClockFault()
