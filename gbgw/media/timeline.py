"""The time line of a program, which repairs what cameras put into PTS and DTS (reference 7.6 point 6; architecture.md
decision 14). The work is done by the core `_timeline`; here it is lent what reads parameter sets and ADTS.

Counted, and what it means to an operator (docs/operations.md): timeline.jump, .silence, .substituted, .repaired,
.wrong_unit, .drift, .resync.
"""

from typing import Final

from gbgw import _timeline
from gbgw.base import ticks
from gbgw.base.codec import Codec
from gbgw.base.tally import Tally
from gbgw.media import params

LEAST: Final = 90  # ticks from one dts to the next: formats that count in milliseconds must still see it rise


class Timeline(_timeline.Timeline):
    """See _timeline.Timeline. tally: counts timeline.*."""

    __slots__ = ()

    def __init__(self, *, tally: Tally | None = None) -> None:
        super().__init__(tally if tally is not None else Tally(), read_sets, params.AdtsSplitter)


def read_sets(codec: Codec, sets: tuple[bytes, ...]) -> tuple[int | None, int | None] | None:
    """Return the reorder depth and the duration of a picture in ticks, as far as the last readable SPS tells them; None
    where there is none."""
    found = None
    for nal in sets:
        sps = params.parse_sps(codec, nal)
        if sps is not None:
            found = (sps.reorder_depth, round(ticks.HZ / sps.frame_rate) if sps.frame_rate is not None else None)
    return found
