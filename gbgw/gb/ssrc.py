"""The `y=` numbers a platform hands out: one per session, unique in its domain (GB/T 28181-2016 and -2022, the SDP
annex).

Ten decimal digits d1 d2..d6 d7..d10: d1 is 0 for live and 1 for history, d2..d6 are digits 4 to 8 of the platform's
id, d7..d10 a serial from 0001 to 9999. Read as an integer the ten digits are the RTP SSRC.
"""

from collections import deque
from dataclasses import dataclass

from gbgw.base import limits
from gbgw.base.errors import LocalError
from gbgw.gb.ids import is_gb_id


@dataclass(frozen=True, slots=True)
class Ssrc:
    """One number in both forms."""

    text: str  # ten digits, as in y=

    @property
    def value(self) -> int:
        """The RTP SSRC."""
        return int(self.text)

    @property
    def is_history(self) -> bool:
        return self.text[0] == "1"

    def __str__(self) -> str:
        return self.text


class _Serials:
    """Serials of one pool: the free ones in order of rest, so that a number comes back as late as possible."""

    __slots__ = ("active", "free", "resting")

    def __init__(self) -> None:
        self.free: deque[int] = deque(range(1, limits.SSRC_SERIALS + 1))
        self.resting: deque[tuple[float, int]] = (
            deque()
        )  # (loop seconds when it may be used again, serial), oldest first
        self.active: set[int] = set()

    def take(self, now: float) -> int | None:
        while self.resting and self.resting[0][0] <= now:
            self.free.append(self.resting.popleft()[1])
        if self.free:
            serial = self.free.popleft()
        elif self.resting:  # under pressure the one that rested longest
            serial = self.resting.popleft()[1]
        else:
            return None
        self.active.add(serial)
        return serial

    def give(self, serial: int, now: float) -> bool:
        if serial not in self.active:
            return False
        self.active.remove(serial)
        self.resting.append((now + limits.SSRC_QUARANTINE_SECONDS, serial))
        return True


class SsrcPool:
    """Hands out SSRCs of one platform and takes them back into quarantine."""

    __slots__ = ("_history", "_live", "_middle")

    def __init__(self, platform_id: str) -> None:
        if not is_gb_id(platform_id):
            raise ValueError(f"{platform_id!r} is not a 20-digit code")
        self._middle = platform_id[3:8]
        self._live = _Serials()
        self._history = _Serials()

    @property
    def in_use(self) -> int:
        return len(self._live.active) + len(self._history.active)

    @property
    def available(self) -> int:
        """How many live numbers can still be given out, quarantined ones included."""
        return len(self._live.free) + len(self._live.resting)

    def allocate(self, now: float, *, history: bool = False) -> Ssrc:
        """Return a number that no active session has; LocalError with code "ssrcs_exhausted" when all are in use."""
        serial = (self._history if history else self._live).take(now)
        if serial is None:
            raise LocalError(
                f"all {limits.SSRC_SERIALS} stream numbers of this platform are in use",
                code="ssrcs_exhausted",
                remedy="close streams, or add a node with a platform id of its own",
            )
        return Ssrc(f"{int(history)}{self._middle}{serial:04d}")

    def release(self, ssrc: Ssrc, now: float) -> None:
        """Take a number back; giving one back twice changes nothing."""
        (self._history if ssrc.is_history else self._live).give(int(ssrc.text[6:]), now)
