"""Fuzz target for gbgw/_ps: whatever comes in, the outcome is the model's units and counts, at any cut."""

import random
from collections.abc import Sequence
from pathlib import Path

from gbgw import _ps
from gbgw._ps import AccessUnit
from tests.model import ps_model

CORPUS = Path(__file__).parent / "corpus" / "ps"
MAX_UNIT_BYTES = 20_000
PES_BYTES = 65_536
MODEL_BYTES = 4_096  # the model is a thousand times slower


def run(demuxer: _ps.Demuxer, pieces: Sequence[bytes]) -> list[AccessUnit]:
    units: list[AccessUnit] = []
    for piece in pieces:
        units += demuxer.push(piece, 0.0)
        assert demuxer.buffered <= MAX_UNIT_BYTES + 2 * PES_BYTES + len(piece), demuxer.buffered
    units += demuxer.flush()
    assert demuxer.buffered == 0
    return units


def sane(unit: AccessUnit) -> None:
    data = bytes(unit)
    assert 0 < len(data) == len(unit)
    assert unit.codec.supported
    assert unit.track_id < 0xE0 or len(data) <= MAX_UNIT_BYTES
    for parameter_set in unit.parameter_sets:
        assert parameter_set in data


def check(data: bytes) -> None:
    """Hold the demultiplexer to its word on `data`: no exception, sane units, the same ones at every cut."""
    whole = _ps.Demuxer(max_unit_bytes=MAX_UNIT_BYTES)
    units = run(whole, [data])
    for unit in units:
        sane(unit)
    assert whole.counts["ps.units"] == len(units)
    assert whole.counts["ps.skipped_bytes"] <= 2 * len(data)
    cut = _ps.Demuxer(max_unit_bytes=MAX_UNIT_BYTES)
    size = 1 + len(data) % 17 if len(data) < 4_096 else 1_400
    assert run(cut, [data[at : at + size] for at in range(0, len(data), size)]) == units
    assert (cut.packs, cut.maps, cut.streams) == (whole.packs, whole.maps, whole.streams)
    if len(data) <= MODEL_BYTES:
        model = ps_model.Demuxer(max_unit_bytes=MAX_UNIT_BYTES)
        assert [*model.push(data, 0.0), *model.flush()] == units
        assert model.counts == whole.counts

    events = _ps.Demuxer(max_unit_bytes=MAX_UNIT_BYTES)
    now = 0.0
    for at in range(0, len(data), 97):
        now += 0.04
        events.push(data[at : at + 97], now)
        what = data[at] % 8
        if what == 0:
            events.gap()
        elif what < 4:
            events.mark(now)
        elif what == 4:
            for unit in events.poll(now + 0.2):
                sane(unit)
        deadline = events.deadline
        assert deadline is None or deadline <= now + 0.1 + 1e-9
    events.flush()


def mutate(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """One to four of the usual accidents: flips, cuts, repeats, wrong lengths, splices."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not out:
            break
        at = rng.randrange(len(out))
        what = rng.randrange(7)
        if what == 0:
            out[at] = rng.randrange(256)
        elif what == 1:
            out[at] ^= 1 << rng.randrange(8)
        elif what == 2:
            del out[at : at + rng.randint(1, 40)]
        elif what == 3:
            out[at:at] = out[at : at + rng.randint(1, 60)]
        elif what == 4:
            out[at:at] = b"\0\0\1" + bytes((rng.choice((0xB9, 0xBA, 0xBB, 0xBC, 0xBD, 0xC0, 0xE0, 0xE1, 0x41, 0x65)),))
        elif what == 5:
            found = out.find(b"\0\0\1", at)
            if 0 <= found < len(out) - 6:
                out[found + 4 : found + 6] = rng.randrange(65_536).to_bytes(2, "big")
        else:
            other = rng.choice(others)
            begin = rng.randrange(len(other))
            out[at:at] = other[begin : begin + rng.randint(1, 300)]
    return bytes(out)


def corpus() -> list[bytes]:
    return [path.read_bytes() for path in sorted(CORPUS.glob("*.bin"))]
