"""The slow twin of _timeline.Witness, whose docstring tells the method."""

from typing import Final

from gbgw.base import ticks

UNITS: Final = 12  # of one comparison
GROSS: Final = 3.0  # times too fast or slow: units differ by eleven and more, what is less may be how it was delivered
LEAST: Final = ticks.HZ // 4  # that must have passed in it, or arrival says nothing


class Witness:
    """One track's PTS against its witness.

    misled: True while the PTS is in another unit. astray: when that was found out, by how many ticks the track had gone
    too far on the line since the last comparison that was right.
    """

    __slots__ = ("_at", "_begun", "_count", "_last_ratio", "_line", "_seen", "_since", "astray", "misled")

    def __init__(self) -> None:
        self.misled = False
        self.astray = 0
        self._line: int | None = None
        self._since = 0
        self._begun: int | None = None
        self._at = 0.0
        self._seen = 0
        self._count = 0
        self._last_ratio = 0.0

    def hear(self, pts: int, passed: int | None, arrived: float, line: int | None) -> bool:
        """Compare; True when the verdict has changed.

        pts: as the camera says. passed: ticks since the last unit as the witness says; None: it does not know. arrived:
        loop seconds. line: where the track's last unit stands.
        """
        if self._begun is None or passed is None or line is None:
            self._begin(pts, arrived)
            self._line, self._since = line, 0
            return False
        if self._line is None:
            self._line, self._since = line, 0
        gone, self._since = line - self._line - self._since, self._since + passed
        self._seen += passed
        self._count += 1
        if self._count < UNITS:
            return False
        told, wall = pts - self._begun, ticks.from_seconds(arrived - self._at)
        seen = self._seen
        self._begin(pts, arrived)
        if wall < LEAST or not wall <= 2 * seen <= 4 * wall:
            return False
        ratio, before = told / seen, self._last_ratio
        self._last_ratio = ratio
        is_right = 1 / GROSS <= told / wall <= GROSS or 1 / GROSS <= ratio <= GROSS
        if is_right:
            self._line, self._since = line, passed
        # One jump of a clock makes a ratio, but not the same one twice.
        if is_right != self.misled or not abs(ratio - before) <= abs(before) / 4:
            return False
        self.misled = not is_right
        self.astray = gone if self.misled else 0
        return True

    def move(self, by: int) -> None:
        """The track was put elsewhere on the line, which is no fault of its PTS."""
        if self._line is not None:
            self._line += by

    def _begin(self, pts: int, arrived: float) -> None:
        self._begun, self._at = pts, arrived
        self._seen = self._count = 0
