"""One continuous time line out of what cameras put into PTS and DTS (reference 7.6 point 6; architecture.md decision
14).
"""

from collections import deque

from gbgw.base import limits


class ReorderMeter:
    """Measure the reorder depth of pictures that come in decoding order: how many at most precede one of them and are
    shown after it.

    `depth` never falls: a stream that has shown B-frames may show them again.
    """

    __slots__ = ("_recent", "_top", "depth")

    def __init__(self) -> None:
        self.depth = 0
        self._recent: deque[int] = deque(maxlen=limits.REORDER_PICTURES)
        self._top: int | None = None

    def push(self, pts: int) -> None:
        if self._top is None or pts >= self._top:
            self._top = pts
        else:
            later = sum(1 for other in self._recent if other > pts)
            self.depth = max(self.depth, later)
        self._recent.append(pts)

    def restart(self) -> None:
        """The times before are of another time line: forget them, keep the depth."""
        self._recent.clear()
        self._top = None
