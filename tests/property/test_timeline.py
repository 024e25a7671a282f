"""Whatever the camera says, the line is one a decoder and a muxer can live with."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gbgw._ps import AccessUnit
from gbgw.base import ticks
from gbgw.base.codec import AAC, H264, PCMA
from gbgw.media.timeline import Timeline
from tests.support import nal

HZ = ticks.HZ


@st.composite
def pyramids(draw: st.DrawFn) -> tuple[int, list[int]]:
    """Pictures with hierarchical B-frames in coding order, as positions in output order, and their true depth."""

    def middle_first(low: int, high: int) -> list[int]:
        if low >= high:
            return []
        middle = (low + high) // 2
        return [middle, *middle_first(low, middle), *middle_first(middle + 1, high)]

    order = [0]
    flat = draw(st.booleans())
    for run in draw(st.lists(st.integers(0, 15), min_size=1, max_size=12)):
        start = max(order) + 1
        between = list(range(start, start + run)) if flat else middle_first(start, start + run)
        order += [start + run, *between]
    depth = max(sum(1 for earlier in order[:at] if earlier > position) for at, position in enumerate(order))
    return depth, order


@given(pyramids(), st.integers(0, 4), st.sampled_from((1_800, 3_003, 3_600, 9_000)), st.integers(0, 1 << 40))
def test_derived_dts_is_exact(pyramid: tuple[int, list[int]], spare: int, step: int, start: int) -> None:
    depth, order = pyramid
    told = min(depth + spare, 16)
    sets = (nal.h264_sps(reorder=told, ticks=(step, 2 * HZ)), nal.h264_pps())
    line = Timeline()
    for at, position in enumerate(order):
        pts = start + position * step
        (unit,) = line.push(AccessUnit(b"", H264, pts, parameter_sets=sets), 0.0)
        assert unit.pts == pts
        assert unit.dts == start + (at - told) * step


@given(pyramids(), st.integers(2, 5))
def test_observed_depth_settles_after_one_round(pyramid: tuple[int, list[int]], rounds: int) -> None:
    _, order = pyramid
    line = Timeline()
    last = None
    for turn in range(rounds):
        for position in order:
            pts = (turn * len(order) + position) * 3_600
            (unit,) = line.push(AccessUnit(b"", H264, pts), 0.0)
            assert unit.pts is not None
            assert unit.dts is not None
            assert unit.dts <= unit.pts
            assert last is None or unit.dts > last
            last = unit.dts
            if turn > 0:
                assert unit.pts == pts


TIMES = st.one_of(st.none(), st.just(0), st.integers(0, (1 << 33) - 1), st.integers(-(1 << 50), 1 << 50))


@st.composite
def camera(draw: st.DrawFn) -> list[tuple[str, int | None, int | None, int | None, float]]:
    """Mostly steady clocks, broken now and then."""
    clock = draw(st.integers(0, 1 << 33))
    now = 0.0
    units = []
    for _ in range(draw(st.integers(1, 60))):
        clock += draw(st.sampled_from((0, 1, 3_600, 3_600, 3_600, 9_000, -7_200, 11 * HZ, -2 * HZ, 500 * HZ)))
        now += draw(st.sampled_from((0.0, 0.04, 0.04, 3.0)))
        pts = draw(st.one_of(st.just(clock), st.just(clock), TIMES))
        dts = draw(st.one_of(st.none(), st.just(clock - 3_600), TIMES))
        kind = draw(st.sampled_from(("video", "video", "pcma", "aac")))
        units.append((kind, pts, dts, draw(st.one_of(st.none(), st.integers(0, 1 << 32))), now))
    return units


@given(camera(), st.integers(0, 16))
@settings(max_examples=200)
def test_any_input_gives_a_rising_line(
    units: list[tuple[str, int | None, int | None, int | None, float]], depth: int
) -> None:
    line = Timeline()
    last: dict[int, int] = {}
    sets = (nal.h264_sps(reorder=depth), nal.h264_pps())
    for kind, pts, dts, rtp_timestamp, now in units:
        if kind == "video":
            unit = AccessUnit(b"x", H264, pts, dts, parameter_sets=sets, arrived=now)
        elif kind == "pcma":
            unit = AccessUnit(bytes(160), PCMA, pts, dts, track_id=0xC0, arrived=now)
        else:
            unit = AccessUnit(nal.adts(b"raw") * 2, AAC, pts, dts, track_id=0xC1, arrived=now)
        result = line.push(unit, now, rtp_timestamp)
        assert len(result) == (2 if kind == "aac" else 1)
        for timed in result:
            assert timed.pts is not None
            assert timed.dts is not None
            assert timed.dts <= timed.pts
            assert timed.track_id not in last or timed.dts > last[timed.track_id]
            last[timed.track_id] = timed.dts


@given(st.lists(st.sampled_from((-5_000 * HZ, -2 * HZ, 20 * HZ, 1 << 40)), min_size=1, max_size=6), st.booleans())
def test_jumps_leave_no_holes_and_no_skew(steps: list[int], sound_first: bool) -> None:
    line = Timeline()
    clock = 1 << 45
    before: int | None = None
    for step in (0, *steps):
        clock += step
        for _ in range(30):
            clock += 3_600
            pair = [
                AccessUnit(b"x", H264, clock),
                AccessUnit(bytes(320), PCMA, clock, track_id=0xC0),
            ]
            out = {unit.track_id: line.push(unit, 0.0)[0].pts for unit in (reversed(pair) if sound_first else pair)}
            assert out[0xE0] == out[0xC0]
            assert before is None or 0 < (out[0xE0] or 0) - before <= 2 * 3_600
            before = out[0xE0]
    assert line.tally["timeline.jump"] == len(steps)
