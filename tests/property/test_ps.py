"""Program stream core: any cut gives the same units, damage is judged as the model judges it, memory stays bounded."""

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gbgw import _ps
from gbgw._ps import AccessUnit
from tests.fuzz import fuzz_ps
from tests.model import ps_model
from tests.support import build

CORPUS = sorted(fuzz_ps.CORPUS.glob("*.bin"))
SEEDS = [path.read_bytes() for path in CORPUS]

Make = type[_ps.Demuxer] | type[ps_model.Demuxer]


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """One frame in one of the forms of reference 7.5."""
    number = draw(st.integers(0, 1 << 21))
    seed = draw(st.integers(1, 500))
    is_key = draw(st.booleans())
    h265 = draw(st.booleans())
    size = draw(st.sampled_from((0, 1, 20, 200, 3_000)))
    picture = (build.idr265 if h265 else build.idr264) if is_key else (build.p265 if h265 else build.p264)
    payload = picture(size, seed)
    pts = draw(st.sampled_from((None, number * 3_600)))
    dts = draw(st.sampled_from((None, number * 3_600 - 3_600))) if pts is not None else None
    out = draw(
        st.sampled_from(
            (
                build.pack(number, stuffing=bytes(seed % 8)),
                build.pack_mpeg1(number),
                build.pack_bodiless(),
                b"",
            )
        )
    )
    if is_key and draw(st.booleans()):
        entries = ((build.H265 if draw(st.booleans()) else build.H264, 0xE0), (build.PCMA, 0xC0))
        out += build.system_header() + build.program_map(entries, crc=draw(st.sampled_from((None, 0))))
    form = draw(st.integers(0, 5))
    if form == 0:
        out += build.pes(payload, pts=pts, dts=dts, length=0)
    elif form == 1:
        out += build.pes_run(
            payload, pts=pts, dts=dts, limit=draw(st.sampled_from((7, 64, 1_000))), repeat=seed % 2 == 0
        )
    elif form == 2:
        out += build.pes_mpeg1(payload, pts=pts, dts=dts, stuffing=seed % 17)
    elif form == 3:
        out += build.pes(payload, pts=pts, length=len(payload) + 8 + draw(st.integers(-8, 400)))
    else:
        out += build.pes(payload, pts=pts, dts=dts, stuffing=b"\xff" * (seed % 9))
    sound = draw(st.sampled_from((b"", b"\xd5" * 160, build.adts(b"\x21" * 50), b"\xd5\0\0\1\xba\x44\0\0\1\xe0")))
    if sound:
        out += build.pes(
            sound, 0xC0, pts, length=len(sound) + (8 if pts is not None else 3) + draw(st.sampled_from((0, 0, 9)))
        )
    if draw(st.booleans()):
        out += build.pes(build.filler(seed), draw(st.sampled_from((0xBD, 0xE1))), pts)
        out += build.plain_pes(build.filler(seed), draw(st.sampled_from((0xBE, 0xBF, 0xF0, 0xFF))))
    return out


streams = st.lists(frames(), max_size=8).map(b"".join)
damage = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 4), st.binary(max_size=12)), max_size=4)


def damaged(data: bytes, accidents: Sequence[tuple[int, int, bytes]]) -> bytes:
    out = bytearray(data)
    for place, what, noise in accidents:
        at = place % (len(out) + 1)
        if what == 0:
            out[at : at + len(noise)] = noise
        elif what == 1:
            out[at:at] = noise
        elif what == 2:
            del out[at : at + place % 90]
        elif what == 3:
            del out[at:]
        else:
            out[at:at] = out[at // 2 : at // 2 + 50]
    return bytes(out)


def run(make: Make, pieces: Sequence[bytes], max_unit_bytes: int = 4_000) -> tuple[list[AccessUnit], object]:
    demuxer = make(max_unit_bytes=max_unit_bytes)
    units: list[AccessUnit] = []
    for piece in pieces:
        units += demuxer.push(piece, 1.0)
    units += demuxer.flush()
    streams = [(stream.stream_id, stream.declared, stream.detected) for stream in demuxer.streams]
    return units, (demuxer.counts, streams)


def split(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[begin:end] for begin, end in pairwise(places)]


@settings(max_examples=150, deadline=None)
@given(streams, damage, st.lists(st.integers(0, 1 << 16), max_size=30))
def test_any_cut_gives_the_same_units(data: bytes, accidents: list[tuple[int, int, bytes]], cuts: list[int]) -> None:
    data = damaged(data, accidents)
    whole = run(_ps.Demuxer, [data])
    assert run(_ps.Demuxer, split(data, cuts)) == whole
    assert run(_ps.Demuxer, [bytes((byte,)) for byte in data]) == whole


@settings(max_examples=200, deadline=None)
@given(streams, damage, st.lists(st.integers(0, 1 << 16), max_size=10))
def test_core_equals_model(data: bytes, accidents: list[tuple[int, int, bytes]], cuts: list[int]) -> None:
    data = damaged(data, accidents)
    assert run(_ps.Demuxer, split(data, cuts)) == run(ps_model.Demuxer, [data])


@settings(max_examples=150, deadline=None)
@given(streams, damage, st.lists(st.tuples(st.integers(1, 300), st.integers(0, 5)), min_size=1, max_size=40))
def test_core_equals_model_with_events(
    data: bytes, accidents: list[tuple[int, int, bytes]], events: list[tuple[int, int]]
) -> None:
    """Markers, silence and gaps fall anywhere; both answer each of them alike."""
    data = damaged(data, accidents)
    core, model = _ps.Demuxer(max_unit_bytes=4_000), ps_model.Demuxer(max_unit_bytes=4_000)
    now, at, turn = 0.0, 0, 0
    while at < len(data):
        size, event = events[turn % len(events)]
        piece = data[at : at + size]
        at, turn, now = at + size, turn + 1, now + 0.04
        for demuxers in ((core, model),):
            assert list(demuxers[0].push(piece, now)) == list(demuxers[1].push(piece, now))
            if event == 0 and turn % 5 == 0:
                core.gap()
                model.gap()
            elif event == 1:
                assert list(core.poll(now + 0.1)) == list(model.poll(now + 0.1))
            elif event > 2:
                assert list(core.mark(now)) == list(model.mark(now))
        assert core.deadline == model.deadline
    assert list(core.flush()) == list(model.flush())
    assert core.counts == model.counts


@pytest.mark.conformance(78)
@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 33), st.lists(st.integers(1, 9_000), min_size=1, max_size=20))
def test_time_wraps_anywhere(first: int, steps: list[int]) -> None:
    times = [first]
    for step in steps:
        times.append(times[-1] + step)
    data = b"".join(build.pack(pts) + build.pes(build.idr264(5), pts=pts) for pts in times)
    units, _ = run(_ps.Demuxer, [data])
    base = first % (1 << 33) - first
    assert [unit.pts for unit in units] == [pts + base for pts in times]


@pytest.mark.conformance(76)
@settings(max_examples=60, deadline=None)
@given(st.integers(1, 1 << 30), st.lists(st.integers(0, 200), min_size=1, max_size=12))
def test_a_unit_with_a_hole_is_never_returned(seed: int, lost: list[int]) -> None:
    rng = random.Random(seed)
    pictures = [
        build.idr264(rng.randint(1, 900), n + 1) if n % 7 == 0 else build.p264(rng.randint(1, 900), n + 1)
        for n in range(20)
    ]
    data = b"".join(
        build.pack(n) + (build.program_map() if n % 7 == 0 else b"") + build.pes_run(picture, pts=n * 3_600, limit=300)
        for n, picture in enumerate(pictures)
    )
    packets = [data[at : at + 80] for at in range(0, len(data), 80)]
    demuxer = _ps.Demuxer()
    units: list[AccessUnit] = []
    holes = {hole % len(packets) for hole in lost}
    for number, packet in enumerate(packets):
        if number in holes:
            demuxer.gap()
        else:
            units += demuxer.push(packet, 0.0)
    units += demuxer.flush()
    assert all(bytes(unit) == pictures[(unit.pts or 0) // 3_600] for unit in units)
    assert len(units) >= len(pictures) - 2 * len(holes)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_corpus(path: object) -> None:
    data = SEEDS[CORPUS.index(path)]  # type: ignore[arg-type]
    fuzz_ps.check(data)
    assert run(_ps.Demuxer, [data]) == run(ps_model.Demuxer, [data])


@pytest.mark.conformance(77)
def test_mutated_corpus() -> None:
    rng = random.Random(28181)
    for _ in range(1_500):
        data = fuzz_ps.mutate(rng.choice(SEEDS), rng, SEEDS)
        fuzz_ps.check(data)
        assert run(_ps.Demuxer, [data]) == run(ps_model.Demuxer, [data])


@pytest.mark.conformance(77)
@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_a_million_mutations_never_raise() -> None:
    rng = random.Random(77)
    for _ in range(1_000_000):
        data = fuzz_ps.mutate(rng.choice(SEEDS), rng, SEEDS)
        fuzz_ps.run(_ps.Demuxer(max_unit_bytes=fuzz_ps.MAX_UNIT_BYTES), [data])


@pytest.mark.conformance(77)
@pytest.mark.parametrize(
    "piece",
    [
        bytes(1),
        b"\x01",
        b"\0\0\1",
        b"\0\0\1\xba",
        b"\0\0\1\xe0\0\0\x80\0\0",
        b"\0\0\1\xe0\xff\xff\x80\0\0",
        b"\0\0\1\x41\x80",
        build.pack() + b"\0\0\1\xc0\xff\xff\x80\0\0",
        build.pack() + b"\0\0\1\xe0\xff\xff\x80\0\0\0\0\1\x65\x88",
        build.pack() + b"\0\0\1\xbd\xff\xff",
        build.program_map(),
    ],
    ids=["zeros", "ones", "codes", "packs", "unbounded", "huge", "slices", "audio", "video", "private", "maps"],
)
def test_hostile_repetition_stays_small_and_quick(piece: bytes) -> None:
    """Bytes are looked at a bounded number of times; pytest's timeout is the backstop."""
    demuxer = _ps.Demuxer(max_unit_bytes=1 << 20)
    demuxer.push(build.pack() + build.program_map() + build.pes(build.idr264(), pts=0, length=0), 0.0)
    data = (piece * (8_192 // len(piece) + 1))[:8_192]
    held = 0
    for _ in range(1_000):
        demuxer.push(data, 0.0)
        held = max(held, demuxer.buffered)
    assert held <= (1 << 20) + 3 * 65_536
    assert demuxer.counts["ps.skipped_bytes"] <= 2 * 8_192_000
    demuxer.gap()
    assert demuxer.buffered == 0
