"""Order statistics of measured values. A quantile is a value that was measured, never one in between."""

from collections.abc import Iterable, Sequence
from math import ceil


def quantile(values: Iterable[float], part: float) -> float | None:
    """Return the smallest value that at least `part` (0..1) of all values do not exceed; None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(0, ceil(part * len(ordered)) - 1)]


def median(values: Sequence[float]) -> float:
    """Return the middle value, the mean of the two middle ones of an even number. ValueError of nothing."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
