"""When a media worker takes no more streams: those it has stay whole. Sans-IO.

The measure is how long units wait for the loop, since that is what viewers feel: it stays below a few milliseconds up
to nearly all of a core, whatever fills it, and grows without bound beyond. Leaves out: where the streams go instead.
"""

from gbgw.base import limits


class Overload:
    """Lateness turned into yes or no, with patience both ways.

    threshold_seconds: of waiting that is too much; 0.0: there is never too much.
    """

    __slots__ = ("_calm_since", "_late_since", "active", "threshold_seconds")

    def __init__(self, threshold_seconds: float) -> None:
        self.threshold_seconds = threshold_seconds
        self.active = False
        self._late_since: float | None = None
        self._calm_since: float | None = None

    def push(self, lateness: float, dropped: bool, now: float) -> None:
        """Take one look at the load.

        lateness: seconds that units waited, at worst since the last look. dropped: some waited so long that they were
        dropped. now: loop seconds.
        """
        if self.threshold_seconds == 0.0:
            return
        if dropped or lateness >= self.threshold_seconds:
            self._calm_since = None
            if self._late_since is None:
                self._late_since = now
            if now - self._late_since >= limits.OVERLOAD_SECONDS:
                self.active = True
            return
        self._late_since = None
        if lateness >= self.threshold_seconds / 2:
            self._calm_since = None
            return
        if self._calm_since is None:
            self._calm_since = now
        if now - self._calm_since >= limits.OVERLOAD_CALM_SECONDS:
            self.active = False
