"""Media time: 90 kHz ticks inside, converted only at the last door. Unwrapping of 16/32/33-bit counters lives here,
once."""

from typing import Final

HZ: Final = 90_000
NTP_EPOCH: Final = 2_208_988_800  # seconds from 1900 (RFC 5905) to 1970


class Unwrapper:
    """Turn a wrapping counter of `bits` bits into an ever-growing int (nearest-neighbour, RFC 3550 A.1 in spirit)."""

    __slots__ = ("_last", "_modulus")

    def __init__(self, bits: int) -> None:
        self._modulus = 1 << bits
        self._last: int | None = None

    def unwrap(self, value: int) -> int:
        """Return the unwrapped form of `value` (0 <= value < 2**bits) nearest to the last one; the first is returned
        as it is."""
        if self._last is None:
            self._last = value
        else:
            delta = (value - self._last) % self._modulus
            if delta >= self._modulus // 2:
                delta -= self._modulus
            self._last += delta
        return self._last

    def reset(self) -> None:
        self._last = None


def to_seconds(ticks: int) -> float:
    return ticks / HZ


def from_seconds(seconds: float) -> int:
    return round(seconds * HZ)


def rescale(ticks: int, hz: int) -> int:
    """Return 90 kHz ticks in units of 1/hz, rounded half up, exact for negative values too."""
    return (2 * ticks * hz + HZ) // (2 * HZ)
