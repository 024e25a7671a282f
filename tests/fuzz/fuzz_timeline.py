"""Fuzz target for gbgw/_timeline: whatever a camera says of time, the line rises, and is its slow twin's.

Input: a unit in five bytes, or eight where its time is wild. First byte: bits 0 to 2 what it is (0 to 3 a picture, 4
one with parameter sets, 5 G.711, 6 AAC, 7 sound of an odd track); bits 3, 4 how long it took, of PAUSES; bit 5 behind a
hole; bit 6 without PTS; bit 7 with DTS. Second and third: how far the camera's clock goes, of STEPS, and how far DTS
lies before it. Fourth: the RTP time stamp: bit 0 there is none, bit 1 it stands still, bit 2 it runs at twice the pace.
Fifth: 0 to 59 the PTS is three more bytes, shifted left by as many; from 60 on it is the clock.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from gbgw._ps import AccessUnit
from gbgw.base.codec import AAC, H264, PCMA
from gbgw.media.timeline import Timeline
from tests.model import timeline_model
from tests.support import nal

PAUSES = (0.0, 0.04, 0.04, 3.0)
STEPS = (
    0,
    1,
    90,
    1_800,
    3_000,
    3_600,
    3_600,
    3_600,
    3_603,
    7_200,
    9_000,
    -3_600,
    -180_000,
    990_000,
    45_000_000,
    1 << 32,
)
SETS = ((), (nal.h264_sps(reorder=2), nal.h264_pps()), (b"\x67\x01",))
FRAMES = (nal.adts(b"raw") * 2, nal.adts(b"raw")[:-1], b"w" + nal.adts(b"raw"), b"")
Fed = tuple[AccessUnit, float, int | None]


def units(data: bytes) -> Iterator[Fed]:
    """(unit, loop seconds, RTP time stamp)."""
    at, clock, now, rtp = 0, 90_000, 100.0, 0
    while at + 5 <= len(data):
        what, step, before, way, wild = data[at : at + 5]
        at += 5
        clock += STEPS[step & 15]
        now += PAUSES[what >> 3 & 3]
        rtp += 0 if way & 2 else STEPS[step & 15] * (2 if way & 4 else 1)
        pts: int | None = clock
        if wild < 60:
            pts = int.from_bytes(data[at : at + 3], "big", signed=True) << wild
            at += 3
        if what & 0x40:
            pts = None
        dts = clock - STEPS[before & 15] if what & 0x80 else None
        kind, hole = what & 7, bool(what & 0x20)
        if kind < 5:
            sets = SETS[1 + (before >> 4) % 2] if kind == 4 else SETS[0]
            unit = AccessUnit(b"x", H264, pts, dts, parameter_sets=sets, arrived=now, discontinuity=hole)
        elif kind == 6:
            frames = FRAMES[before >> 4 & 3]
            unit = AccessUnit(frames, AAC, pts, dts, track_id=0xC1, arrived=now, discontinuity=hole)
        else:
            track = 0xC0 if kind == 5 else 0xC0 + (before >> 4)
            unit = AccessUnit(
                bytes(160 * (step >> 4 & 3)), PCMA, pts, dts, track_id=track, arrived=now, discontinuity=hole
            )
        yield unit, now, None if way & 1 else rtp & 0xFFFFFFFF


def quick(data: bytes) -> None:
    """What must hold of the core alone; native/native_targets.pyx runs it on instrumented cores."""
    line = Timeline()
    last: dict[int, int] = {}
    for unit, now, rtp in units(data):
        found = line.push(unit, now, rtp)
        assert len(found) == 1 or unit.codec is AAC
        for one in found:
            assert one.pts is not None
            assert one.dts is not None
            assert last.get(one.track_id, one.dts - 1) < one.dts <= one.pts
            last[one.track_id] = one.dts
            assert (one.codec, one.track_id) == (unit.codec, unit.track_id)
            assert unit.codec is AAC or bytes(one) == bytes(unit)
        assert -3_600.0 < line.skew_seconds < 3_600.0


def outcome(line: Any, fed: Sequence[Fed]) -> list[object]:
    seen: list[object] = []
    for unit, now, rtp in fed:
        seen += [(timed.pts, timed.dts, bytes(timed), timed.track_id) for timed in line.push(unit, now, rtp)]
        seen.append(line.skew_seconds)
    return [*seen, dict(line.tally.counts)]


def check(data: bytes) -> None:
    """Hold the core against its promises and against its model."""
    quick(data)
    fed = list(units(data))
    assert outcome(Timeline(), fed) == outcome(timeline_model.Timeline(), fed)
