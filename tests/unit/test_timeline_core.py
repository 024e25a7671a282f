"""gbgw/_timeline: the line it makes, and what it counts, are those of its slow twin, whatever a camera says."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gbgw import _timeline
from gbgw._ps import AccessUnit
from gbgw.base import limits, ticks
from gbgw.base.codec import AAC, H264, PCMA
from gbgw.base.tally import Tally
from gbgw.media.timeline import Timeline, read_sets
from tests.model import timeline_model
from tests.support import nal

HZ = ticks.HZ
FRAME = 3_600
Fed = tuple[AccessUnit, float, int | None]


def outcome(line: Any, fed: Sequence[Fed]) -> list[object]:
    seen: list[object] = []
    for unit, now, rtp in fed:
        seen.append([(timed.pts, timed.dts, bytes(timed), timed.track_id) for timed in line.push(unit, now, rtp)])
        seen.append(line.skew_seconds)
    return [*seen, dict(line.tally.counts)]


WILD = st.one_of(st.none(), st.integers(0, (1 << 33) - 1), st.integers(-(1 << 62), 1 << 62), st.integers(1 << 70))


@st.composite
def damaged(draw: st.DrawFn) -> list[Fed]:
    """A camera whose every unit may be wrong in its own way."""
    clock, now, fed = draw(st.integers(0, 1 << 33)), 0.0, []
    for _ in range(draw(st.integers(1, 80))):
        clock += draw(st.sampled_from((0, 1, FRAME, FRAME, FRAME, 9_000, -7_200, 11 * HZ, -2 * HZ, 500 * HZ)))
        now += draw(st.sampled_from((0.0, 0.04, 0.04, 0.0333333, 3.0, 20.0)))
        pts = draw(st.one_of(st.just(clock), st.just(clock), st.just(clock), WILD))
        dts = draw(st.one_of(st.none(), st.just(clock - FRAME), WILD))
        rtp = draw(st.one_of(st.none(), st.just(clock % (1 << 32)), st.integers(0, 1 << 33)))
        kind = draw(st.sampled_from(("video", "video", "pcma", "aac", "other")))
        if kind == "video":
            sets = draw(st.sampled_from(((), (nal.h264_sps(reorder=2), nal.h264_pps()), (b"\x67\x01",))))
            unit = AccessUnit(b"x", H264, pts, dts, parameter_sets=sets, arrived=draw(st.sampled_from((0.0, now))))
        elif kind == "aac":
            data = draw(st.sampled_from((nal.adts(b"raw") * 2, nal.adts(b"raw")[:-1], b"w" + nal.adts(b"raw"), b"")))
            unit = AccessUnit(data, AAC, pts, dts, track_id=0xC1, arrived=now, discontinuity=draw(st.booleans()))
        else:
            track = 0xC0 if kind == "pcma" else draw(st.integers(0xC0, 0xEF))
            unit = AccessUnit(bytes(draw(st.sampled_from((0, 160, 320)))), PCMA, pts, dts, track_id=track, arrived=now)
        fed.append((unit, now, rtp))
    return fed


@given(damaged())
@settings(max_examples=300)
def test_damage_gives_what_the_model_gives(fed: list[Fed]) -> None:
    assert outcome(Timeline(), fed) == outcome(timeline_model.Timeline(), fed)


PACES = st.sampled_from((0.0, 1 / 90, 0.5, 0.98, 1.0, 1.0, 1.0, 1.01, 1.04, 1.3, 4.0, 90.0))


@st.composite
def chapters(draw: st.DrawFn) -> list[Fed]:
    """A camera that is regular for seconds, and then in another way: what drift and witness take time to judge."""
    fed: list[Fed] = []
    now, video, sound, rtp = 1_000.0, float(draw(st.integers(0, 1 << 33))), 5e6, 0.0
    for _ in range(draw(st.integers(1, 4))):
        video_pace, sound_pace, rtp_pace = draw(PACES), draw(PACES), draw(PACES)
        has_sound, has_times, has_rtp = draw(st.booleans()), draw(st.integers(0, 9)) > 0, draw(st.booleans())
        order = draw(st.sampled_from(((0,), (0,), (0, 3, 1, 2), (2, 0, 1))))
        dts_after = draw(st.sampled_from((None, None, 0, 2 * FRAME)))
        hold = draw(st.sampled_from((0.0, 0.0, 0.3)))  # what the network keeps, and gives in one go
        video += draw(st.sampled_from((0, 0, HZ, -2 * HZ, 30 * HZ)))
        for at in range(draw(st.sampled_from((10, 100, 800)))):
            place = at - at % len(order) + order[at % len(order)]
            pts = round(video + place * FRAME * video_pace)
            arrived = now + at * 0.04 + (hold if at % 50 < 10 else 0.0)
            stamp = round(rtp + at * FRAME * rtp_pace) % (1 << 32) if has_rtp else None
            dts = None if dts_after is None else pts - dts_after
            fed.append((AccessUnit(b"p", H264, pts if has_times else None, dts, arrived=arrived), arrived, stamp))
            if has_sound:
                heard = round(sound + at * FRAME * sound_pace)
                unit = AccessUnit(bytes(320), PCMA, heard, track_id=0xC0, arrived=arrived + 0.002)
                fed.append((unit, arrived + 0.002, stamp))
        now += (at + 1) * 0.04
        video += (at + 1) * FRAME * video_pace
        sound += (at + 1) * FRAME * sound_pace
        rtp += (at + 1) * FRAME * rtp_pace
    return fed


@given(chapters())
@settings(max_examples=40, deadline=None)
def test_a_regular_camera_gives_what_the_model_gives(fed: list[Fed]) -> None:
    assert outcome(Timeline(), fed) == outcome(timeline_model.Timeline(), fed)


@given(st.lists(st.integers(-50, 50), max_size=120), st.integers(0, 120))
@example([0, *range(40, 0, -1)], 10)
def test_reordering_is_measured_as_by_the_model(pts: list[int], restart: int) -> None:
    core, model = _timeline.ReorderMeter(), timeline_model.ReorderMeter()
    for at, one in enumerate(pts):
        for meter in (core, model):
            if at == restart:
                meter.restart()
            meter.push(one)
        assert core.depth == model.depth


def test_a_time_that_is_none_is_substituted() -> None:
    line = Timeline()
    line.push(AccessUnit(b"p", H264, 0), 0.0)
    line.push(AccessUnit(b"p", H264, FRAME), 0.04)
    (timed,) = line.push(AccessUnit(b"p", H264, 1 << 61, 1 << 90), 0.08)
    assert timed.pts == 2 * FRAME
    assert line.tally["timeline.substituted"] == 1


def test_tracks_are_bounded() -> None:
    line = Timeline()
    units = [AccessUnit(bytes(160), PCMA, 0, track_id=number) for number in range(limits.TRACKS + 3)]
    assert sum(len(line.push(unit, 0.0)) for unit in units) == limits.TRACKS
    assert line.tally["timeline.surplus_track"] == 3


def test_what_parameter_sets_say_is_kept_in_bounds() -> None:
    """A reader that goes wrong harms its own stream alone."""
    line = _timeline.Timeline(Tally(), lambda codec, sets: (1_000, -5), lambda: None)  # type: ignore[arg-type, return-value]
    made = [
        line.push(AccessUnit(b"p", H264, at * FRAME, parameter_sets=(bytes((at,)),)), at / 25)[0] for at in range(60)
    ]
    assert [unit.pts for unit in made] == [at * FRAME for at in range(60)]
    assert all(unit.dts is not None and unit.dts <= at * FRAME for at, unit in enumerate(made))


def test_a_reader_that_raises_is_heard_of() -> None:
    def fails(codec: object, sets: object) -> None:
        raise ZeroDivisionError

    line = _timeline.Timeline(Tally(), fails, lambda: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(ZeroDivisionError):
        line.push(AccessUnit(b"p", H264, 0, parameter_sets=(b"x",)), 0.0)
    with pytest.raises(TypeError):
        line.push(b"picture", 0.0)  # type: ignore[arg-type]


def test_the_last_readable_sps_counts() -> None:
    sets = (nal.h264_sps(reorder=3), nal.h264_sps(reorder=1, ticks=(1, 50)), b"\x67\x01", nal.h264_pps())
    assert read_sets(H264, sets) == (1, FRAME)
    assert read_sets(H264, (b"\x67\x01",)) is None
