"""What viewers get to see of a picture track that has holes (architecture.md decision 12).

Under "freeze" nothing is shown that refers to what was lost: pictures are dropped from a hole to the next place where
decoding may begin, and there the leading pictures too, which are shown before it and refer to what came before it.
Where decoding begins with a gradual refresh (H.264 section D.2.8, recovery point), the pictures of the refresh go out
together when it is through, their times drawn together before the first whole one: a decoder needs them, nobody sees
them. Under "pass" only the unit with the hole is missing, which the demultiplexer has dropped already.

Sans-IO, picture units in decoding order and with times. Leaves out: sound, which needs no freeze; asking for key
frames.
"""

from collections.abc import Sequence
from typing import Final, Literal

from gbgw._ps import AccessUnit as Unit
from gbgw.base import limits
from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import H265
from gbgw.base.tally import Tally
from gbgw.media import params

_DRAWN: Final = 16  # a refresh of one second passes in 60 ms


class Freeze:
    """The gate of one picture track. Counts receiver.freezes, .frozen_units, .leading_units in `tally`.

    policy: of `media.loss`. Until the first key frame nothing passes under "freeze", but that is no loss and not
    counted.
    """

    def __init__(self, policy: Literal["freeze", "pass"], *, tally: Tally | None = None) -> None:
        self.tally = tally if tally is not None else Tally()
        self._policy = policy
        self._begun = False
        self._closed = policy == "freeze"
        self._back_at: int | None = None  # pts of the key frame with which pictures came back
        self._refresh: list[AccessUnit] = []
        self._refresh_bytes = 0
        self._pictures_left = 0

    @property
    def frozen(self) -> bool:
        """True while pictures are dropped because of a hole."""
        return self._closed and self._begun

    def lose(self, now: float) -> None:
        """There is a hole before what comes next."""
        if self._policy == "pass" or not self._begun:
            return
        if not self._closed:
            self._closed = True
            self.tally.add("receiver.freezes", now=now)
        self._forget_refresh(now)

    def push(self, unit: AccessUnit, now: float) -> Sequence[AccessUnit]:
        """Return what may be shown, in decoding order: the unit, nothing, or a whole refresh."""
        if unit.is_keyframe:
            return self._enter(unit, now)
        if self._refresh:
            return self._go_on(unit, now)
        if self._closed:
            if self._begun:
                self.tally.add("receiver.frozen_units", now=now)
            return ()
        if self._back_at is not None and unit.pts is not None and unit.pts < self._back_at:
            self.tally.add("receiver.leading_units", now=now)
            return ()
        return (unit,)

    def _enter(self, unit: AccessUnit, now: float) -> Sequence[AccessUnit]:
        if not self._closed:
            self._back_at = None
            return (unit,)
        self._forget_refresh(now)
        if unit.refresh:
            self._refresh = [unit]
            self._refresh_bytes = len(unit)
            self._pictures_left = unit.refresh
            return ()
        if self._begun:
            unit = _broken_link(unit)
        self._open(unit)
        return (unit,)

    def _go_on(self, unit: AccessUnit, now: float) -> Sequence[AccessUnit]:
        self._refresh.append(unit)
        self._refresh_bytes += len(unit)
        self._pictures_left -= 1
        if self._pictures_left > 0:
            if self._refresh_bytes > limits.GOP_CACHE_BYTES:
                self._forget_refresh(now)
            return ()
        held, self._refresh = self._refresh, []
        self._open(held[0])
        return _drawn_together(held)

    def _open(self, unit: AccessUnit) -> None:
        self._begun = True
        self._closed = False
        self._back_at = unit.pts

    def _forget_refresh(self, now: float) -> None:
        if self._refresh and self._begun:
            self.tally.add("receiver.frozen_units", len(self._refresh), now=now)
        self._refresh = []


def _broken_link(unit: AccessUnit) -> AccessUnit:
    """Turn a CRA picture into a BLA picture, which tells a decoder that what came before it is gone (H.265 section
    7.4.2.2). Without that it would go on counting pictures (section 8.3.1) over a hole of unknown length. Other
    pictures are returned as they are: H.264 has nothing of the kind.
    """
    if unit.codec is not H265:
        return unit
    data = bytearray(bytes(unit))
    found = False
    at = data.find(b"\0\0\1")
    while 0 <= at < len(data) - 4:
        if params.h265_type(bytes(data[at + 3 : at + 5])) == params.H265_CRA:
            data[at + 3] = data[at + 3] & 0x81 | params.H265_BLA << 1
            found = True
        at = data.find(b"\0\0\1", at + 3)
    if not found:
        return unit
    return Unit(
        bytes(data),
        unit.codec,
        unit.pts,
        unit.dts,
        is_keyframe=True,
        parameter_sets=unit.parameter_sets,
        track_id=unit.track_id,
        discontinuity=unit.discontinuity,
        arrived=unit.arrived,
    )


def _drawn_together(units: Sequence[AccessUnit]) -> Sequence[AccessUnit]:
    """The same pictures shortly before the last: all times before its decoding time come nearer to it, in order."""
    end = units[-1].dts or 0

    def drawn(time: int) -> int:
        return time if time >= end else end - (end - time) // _DRAWN

    return [unit.with_times(drawn(unit.pts or 0), drawn(unit.dts or 0)) for unit in units]
