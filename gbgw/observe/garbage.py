"""When cyclic garbage is looked for.

Nearly everything here dies by its count of references. What does not is found by looking through all that lives, which
holds the loop for 0.1 s a million objects; the interpreter does that whenever a quarter more has come to live, so just
when SIP is at its busiest. The young generations stay its own affair. The oldest is looked through from here, for a
thousandth of the time at most, and not while next to nothing was made. For a process that is ours alone: the rule holds
for all of it.
"""

import asyncio
import gc
import time
from types import TracebackType
from typing import Final, Self

from gbgw.base import limits
from gbgw.base.tally import Tally

_NEVER: Final = 1_000_000_000  # collections of the middle generation before the interpreter's own one of the oldest


class Garbage:
    """`with Garbage(tally) as garbage`: what lives by then is never looked through, the rest as `run` says.

    tally: counts garbage.collections and garbage.objects (found in cycles).
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._before = gc.get_threshold()

    def __enter__(self) -> Self:
        self._before = gc.get_threshold()
        gc.collect()
        gc.freeze()
        gc.set_threshold(*self._before[:2], _NEVER)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        gc.set_threshold(*self._before)
        gc.unfreeze()

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            pause = self.look()
            await asyncio.sleep(pause)

    def look(self) -> float:
        """Look through the oldest generation if much was made; return in how many seconds to come again."""
        if gc.get_count()[2] < limits.GARBAGE_ROUNDS:
            return limits.GARBAGE_SECONDS
        begun = time.perf_counter()
        found = gc.collect()
        self._tally.add("garbage.collections")
        self._tally.add("garbage.objects", found)
        return max(limits.GARBAGE_SECONDS, (time.perf_counter() - begun) / limits.GARBAGE_SHARE)
