"""A recording that a simulated recorder plays: which second comes next, and when each unit of it is due.

sans-IO; the shell encodes the seconds (`mux.recorded`) and keeps the clock. Breaks between recordings are jumped over,
as recorders do. Backwards, seconds come in falling order and each plays forwards inside.
"""

from collections.abc import Sequence

from gbgw.base.ticks import HZ
from gbgw.gb.mansrtsp import Command


class Playback:
    """Where it stands. pieces: recorded spans, Unix seconds, in order. scale: negative for backwards.

    turns: rises with each command, so that who sends knows that what he holds is not wanted any more.
    """

    def __init__(self, pieces: Sequence[tuple[int, int]], start: int, *, scale: float = 1.0) -> None:
        self.scale = scale
        self.paused = False
        self.turns = 0
        self._pieces = tuple(pieces)
        self._start = start
        self._next: int | None = self._pieces[0][0] if self._pieces else None  # the second to send
        self._origin: tuple[float, float] | None = None  # media and loop seconds that belong together

    @property
    def next_second(self) -> int | None:
        """The Unix second to be sent next; None at the end."""
        return self._next

    def sent(self, second: int) -> None:
        """All of `second` went out: go on behind it, or before it."""
        if self._next == second:
            self._next = self._recorded(second + 1) if self.scale > 0 else self._recorded_before(second)
            if self._next is None or abs(self._next - second) > 1:
                self._origin = None

    def due(self, second: int, offset: int, now: float) -> float:
        """Return the loop seconds at which the unit `offset` ticks into `second` leaves."""
        media = float(second) + offset / HZ
        if self.scale < 0:
            media = -float(second) + offset / HZ
        if self._origin is None:
            self._origin = (media, now)
        since, at = self._origin
        return at + (media - since) / abs(self.scale)

    def obey(self, command: Command) -> bool:
        """Take a command; False for one that cannot be followed."""
        if command.method == "PAUSE":
            self.paused = True
            self._turn()
            return True
        if command.start is not None:
            sought = self._recorded(self._start + int(command.start))
            if sought is None:
                self._next = None  # beyond the end: that is the end
            else:
                self._next = sought
        if command.scale is not None:
            self.scale = command.scale
        self.paused = False
        self._turn()
        return True

    def _turn(self) -> None:
        self.turns += 1
        self._origin = None

    def _recorded(self, second: int) -> int | None:
        """The first recorded second from `second` on."""
        return next((max(second, first) for first, last in self._pieces if second < last), None)

    def _recorded_before(self, second: int) -> int | None:
        return next((min(second, last) - 1 for first, last in reversed(self._pieces) if second > first), None)
