"""Count always, log at most once a second and name.

A tally name is `area.what` ("ps.malformed"); names are few and fixed, never built from input. The counts feed /metrics,
/debug/vars and the API.
"""

from collections import Counter
from collections.abc import Callable

Listener = Callable[[str, int, str], None]  # (name, count since the last line, detail)


class Tally:
    """Counters with an optional listener that is called at most once per name and second."""

    __slots__ = ("_listener", "_pending", "_spoken", "counts", "parent")

    def __init__(self, parent: "Tally | None" = None, listener: Listener | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self.parent = parent
        self._listener = listener
        self._pending: Counter[str] = Counter()
        self._spoken: dict[str, float] = {}

    def add(self, name: str, count: int = 1, *, detail: str = "", now: float | None = None) -> None:
        """Count `name`. With `now` (loop seconds) the listener may be told."""
        if count <= 0:
            return
        self.counts[name] += count
        if self.parent is not None:
            self.parent.add(name, count, detail=detail, now=now)
        if self._listener is not None and now is not None:
            self._pending[name] += count
            if now - self._spoken.get(name, float("-inf")) >= 1.0:
                self._spoken[name] = now
                self._listener(name, self._pending.pop(name), detail)

    def absorb(self, counts: dict[str, int], seen: dict[str, int]) -> None:
        """Add what grew in a core's own counters since `seen`, and bring `seen` up to date."""
        for name, value in counts.items():
            grown = value - seen.get(name, 0)
            if grown:
                seen[name] = value
                self.add(name, grown)

    def __getitem__(self, name: str) -> int:
        return self.counts[name]
