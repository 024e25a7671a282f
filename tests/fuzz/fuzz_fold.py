"""Fuzz target for gbgw/_receiver: a Fold finds what its model finds, whatever a camera does.

Input: one doing after the other, of one byte of what, one of length, and a payload. Bits 0..2 of what: 0 to 2 the next
packet, 3 one is lost before it, 4 the number again, 5 two numbers back, 6 a jump, 7 nothing but time. Bit 3: the
marker. Bit 4: another picture. Bit 5: another source. Bits 6, 7: how long it takes, of DELAYS.
"""

from collections.abc import Iterator
from typing import Any

from gbgw._receiver import Fold
from tests.model import fold_model, ps_model
from tests.support import build

DELAYS = (0.0, 0.01, 0.15, 0.3)
STEPS = (1, 1, 1, 2, 0, 0xFFFE, 1_500)
MAX_UNIT_BYTES = 20_000
ONLY_TIME = 7
SSRC = 5


def doings(data: bytes) -> Iterator[tuple[bytes | None, float]]:
    """(datagram, loop seconds); None: only time goes by."""
    at, now, number, timestamp = 0, 0.0, 65_500, 0xFFFFF000
    while at + 2 <= len(data):
        what, length = data[at], data[at + 1]
        now += DELAYS[what >> 6]
        at += 2
        if what & 7 == ONLY_TIME:
            yield None, now
            continue
        timestamp += 3_600 if what & 0x10 else 0
        number += STEPS[what & 7]
        ssrc = SSRC + 1 if what & 0x20 else SSRC
        yield build.rtp(data[at : at + length], number, timestamp, ssrc, marker=bool(what & 8)), now
        at += length


def written(payload: bytes, what: int = 0) -> bytes:
    """One doing, for seeds."""
    return bytes((what, len(payload))) + payload


def plain(events: Any) -> list[tuple[object, ...]]:
    return [
        (
            *(one.kind, one.at, one.timestamp),
            None if one.unit is None else (bytes(one.unit), one.unit.pts, one.unit.is_keyframe, one.unit.discontinuity),
        )
        for one in events
    ]


def check(data: bytes) -> None:
    """Hold the core against its model, and a Fold that nobody empties against its bounds."""
    core = Fold(max_unit_bytes=MAX_UNIT_BYTES)
    late = Fold(max_unit_bytes=MAX_UNIT_BYTES, max_waiting_bytes=300)
    model = fold_model.Fold(ps_model.Demuxer(max_unit_bytes=MAX_UNIT_BYTES))
    now = 0.0
    for number, (datagram, now) in enumerate(doings(data)):
        if number % 16 == 0:  # beyond 64 events that are no units the core keeps no more, its model has no bound
            assert plain(core.events()) == plain(model.events())
        for one in (core, model, late):
            if datagram is None:
                one.poll(now)
            else:
                one.push(datagram, now)
        assert core.deadline == model.deadline
        assert core.heads == model.heads
        assert late.waiting_bytes <= 300 + MAX_UNIT_BYTES
    for one in (core, model, late):
        one.close(now)
    assert plain(core.events()) == plain(model.events())
    assert (core.rtp_counts, core.ps_counts) == (model.rtp_counts, model.ps_counts)
    assert (core.ssrc, core.packs, core.maps) == (model.ssrc, model.packs, model.maps)
    kept = [one.unit for one in late.events() if one.unit is not None]
    assert len(kept) + late.overrun_units == core.ps_counts["ps.units"]
