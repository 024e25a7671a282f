from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from gbgw._ps import AccessUnit
from gbgw._timeline import ReorderMeter
from gbgw.base import limits, ticks
from gbgw.base.access_unit import AccessUnit as Unit
from gbgw.base.codec import AAC, H264, PCMA
from gbgw.media.timeline import LEAST, Timeline
from tests.support import nal

FRAME = 3_600
HZ = ticks.HZ


def video(pts: int | None, dts: int | None = None, *, sets: tuple[bytes, ...] = (), arrived: float = 0.0) -> AccessUnit:
    return AccessUnit(b"picture", H264, pts, dts, parameter_sets=sets, arrived=arrived)


def sound(pts: int | None, samples: int = 320, *, arrived: float = 0.0) -> AccessUnit:
    return AccessUnit(bytes(samples), PCMA, pts, is_keyframe=True, track_id=0xC0, arrived=arrived)


def aac(data: bytes, pts: int | None, *, hole: bool = False) -> AccessUnit:
    return AccessUnit(data, AAC, pts, is_keyframe=True, track_id=0xC0, discontinuity=hole)


def times(units: Sequence[Unit]) -> list[tuple[Any, Any]]:
    return [(unit.pts, unit.dts) for unit in units]


def run(line: Timeline, units: list[AccessUnit], now: float = 0.0) -> list[tuple[Any, Any]]:
    return [time for unit in units for time in times(line.push(unit, now))]


class TestHonestTimes:
    def test_pass_unchanged_and_at_once(self) -> None:
        line = Timeline()
        start = (1 << 32) + 7
        expected = [(start + at * FRAME, start + at * FRAME) for at in range(50)]
        assert run(line, [video(pts) for pts, _ in expected]) == expected
        assert not line.tally.counts

    def test_bytes_are_shared(self) -> None:
        unit = video(0)
        (timed,) = Timeline().push(unit, 0.0)
        assert bytes(timed) == bytes(unit)
        assert timed.codec is H264

    def test_explicit_dts_is_kept(self) -> None:
        units = [video(2 * FRAME, 0), video(5 * FRAME, FRAME), video(3 * FRAME, 2 * FRAME)]
        assert run(Timeline(), units) == [(unit.pts, unit.dts) for unit in units]

    def test_absent_dts_beside_explicit_ones_is_the_pts(self) -> None:
        units = [
            video(FRAME, 0),
            video(3 * FRAME, FRAME),
            video(2 * FRAME),
            video(5 * FRAME, 3 * FRAME),
            video(4 * FRAME),
        ]
        assert [dts for _, dts in run(Timeline(), units)] == [0, FRAME, 2 * FRAME, 3 * FRAME, 4 * FRAME]

    def test_dts_after_pts_and_absurd_dts_are_repaired(self) -> None:
        line = Timeline()
        assert run(line, [video(FRAME, 5 * FRAME)]) == [(FRAME, FRAME)]
        (_, dts) = run(line, [video(100 * HZ, 0)])[0]
        assert dts > FRAME

    def test_equal_dts_still_rises(self) -> None:
        line = Timeline()
        assert run(line, [video(2 * FRAME, FRAME), video(3 * FRAME, FRAME)]) == [
            (2 * FRAME, FRAME),
            (3 * FRAME, FRAME + LEAST),
        ]
        assert line.tally["timeline.repaired"] == 1

    def test_a_silence_is_no_jump_where_the_other_track_went_on(self) -> None:
        line = Timeline()
        run(line, [video(0, arrived=9.0), sound(0, arrived=9.0)])
        run(line, [video(at * HZ, arrived=9.0 + at) for at in range(1, 31)])
        assert run(line, [sound(30 * HZ)]) == [(30 * HZ, 30 * HZ)]
        assert line.tally["timeline.jump"] == 0


class TestDerivedDts:
    PTS = (2, 5, 3, 4, 8, 6, 7, 11, 9, 10)  # I P b b P b b P b b
    PYRAMID = (0, 4, 2, 1, 3, 8, 6, 5, 7, 12, 10, 9, 11)

    @pytest.mark.parametrize(("order", "depth"), [(PTS, 1), (PYRAMID, 2)])
    def test_from_the_sps(self, order: tuple[int, ...], depth: int) -> None:
        sets = (nal.h264_sps(reorder=depth, ticks=(1, 50)), nal.h264_pps())
        units = [video(pts * FRAME, sets=sets) for pts in order]
        result = run(Timeline(), units)
        assert [pts for pts, _ in result] == [pts * FRAME for pts in order]
        first = sorted(order)[0]
        assert [dts for _, dts in result] == [(first - depth + at) * FRAME for at in range(len(order))]

    def test_observed_where_the_sps_is_silent(self) -> None:
        order = [gop * 12 + pts for gop in range(4) for pts in (0, 4, 2, 1, 3, 8, 6, 5, 7, 11, 10, 9)]
        result = run(Timeline(), [video(pts * FRAME) for pts in order])
        assert all(later > earlier for (_, earlier), (_, later) in pairwise(result))
        assert all(pts >= dts for pts, dts in result)
        assert [pts for pts, _ in result[12:]] == [pts * FRAME for pts in order[12:]]
        assert all(pts - dts <= 5 * FRAME for pts, dts in result[12:])

    def test_depth_that_comes_later(self) -> None:
        line = Timeline()
        run(line, [video(at * FRAME) for at in range(5)])
        sets = (nal.h264_sps(reorder=2, ticks=(1, 50)), nal.h264_pps())
        order = (5, 9, 7, 6, 8, 13, 11, 10, 12)
        result = run(line, [video(pts * FRAME, sets=sets) for pts in order])
        assert [pts for pts, _ in result] == [pts * FRAME for pts in order]
        assert [dts for _, dts in result][3:] == [at * FRAME for at in range(6, 12)]


class TestJumps:
    @pytest.mark.parametrize("step", [-HZ - 1, -1_000 * HZ, 10 * HZ + 1, 90_000 * HZ])
    @pytest.mark.parametrize("video_first", [True, False])
    def test_sound_and_picture_stay_together(self, step: int, video_first: bool) -> None:
        line = Timeline()
        base = 100_000 * HZ
        for at in range(50):
            run(line, [video(base + at * FRAME), sound(base + at * FRAME)])
        after = base + 49 * FRAME + step
        result: list[tuple[str, int, int]] = []
        for at in range(50):
            pair = [video(after + at * FRAME), sound(after + at * FRAME)]
            for unit in pair if video_first else reversed(pair):
                (timed,) = line.push(unit, 0.0)
                assert timed.pts is not None
                result.append(("v" if unit.codec is H264 else "a", at, timed.pts))
        assert line.tally["timeline.jump"] == 1
        offsets = {pts - at * FRAME for _, at, pts in result}
        assert len(offsets) == 1
        assert 0 < offsets.pop() - (base + 49 * FRAME) <= 2 * FRAME

    def test_sound_that_is_left_over_keeps_its_place(self) -> None:
        line = Timeline()
        for at in range(50):
            run(line, [video(1_000 * HZ + at * FRAME), sound(1_000 * HZ + at * FRAME)])
        run(line, [video(5 * HZ)])
        assert run(line, [sound(1_000 * HZ + 50 * FRAME)]) == [(1_000 * HZ + 50 * FRAME,) * 2]
        run(line, [video(5 * HZ + FRAME)])
        ((pts, _),) = run(line, [sound(5 * HZ + 2 * FRAME)])
        ((picture, _),) = run(line, [video(5 * HZ + 2 * FRAME)])
        assert pts == picture
        assert line.tally["timeline.jump"] == 1

    def test_clocks_that_never_agreed_do_not_fight(self) -> None:
        line = Timeline()
        result = []
        for at in range(100):
            result += run(line, [video(50_000 * HZ + at * FRAME), sound(at * FRAME)])
        assert line.tally["timeline.jump"] == 1
        assert all(abs(picture[0] - heard[0]) < HZ for picture, heard in zip(result[::2], result[1::2], strict=True))

    def test_a_pause_is_kept_up_to_ten_seconds(self) -> None:
        line = Timeline()
        units = [video(0, arrived=5.0), video(10 * HZ, arrived=15.0)]
        assert run(line, units) == [(0, 0), (10 * HZ, 10 * HZ)]
        assert not line.tally.counts

    def test_a_longer_silence_is_drawn_together(self) -> None:
        line = Timeline()
        units = [video(0, arrived=5.0), video(FRAME, arrived=5.04), video(60 * HZ, arrived=65.0)]
        assert run(line, units)[-1] == (2 * FRAME, 2 * FRAME)
        assert line.tally.counts == {"timeline.silence": 1}

    def test_a_step_that_the_wall_clock_did_not_take_is_a_jump(self) -> None:
        line = Timeline()
        sets = (nal.h264_sps(reorder=0), nal.h264_pps())
        units = [video(at * FRAME, sets=sets, arrived=5 + at / 25) for at in range(5)]
        units += [video(at * FRAME + 2 * HZ, arrived=5 + at / 25) for at in range(5, 9)]
        assert run(line, units) == [(at * FRAME, at * FRAME) for at in range(9)]
        assert line.tally.counts == {"timeline.jump": 1}

    def test_pictures_that_are_played_fast_keep_their_pace(self) -> None:
        """Key frames alone, two seconds apart, eight times as fast: only the first step is a surprise."""
        line = Timeline()
        result = run(line, [video(at * 2 * HZ, arrived=5 + at / 4) for at in range(9)])
        assert [later - earlier for (earlier, _), (later, _) in pairwise(result[1:])] == [2 * HZ] * 7
        assert line.tally["timeline.jump"] == 1

    def test_b_frames_go_on_after_a_jump(self) -> None:
        sets = (nal.h264_sps(reorder=2, ticks=(1, 50)), nal.h264_pps())
        line = Timeline()
        order = (0, 4, 2, 1, 3)
        run(line, [video(500 * HZ + pts * FRAME, sets=sets) for pts in order])
        result = run(line, [video(7 * HZ + pts * FRAME, sets=sets) for pts in order])
        steps = [pts - result[0][0] for pts, _ in result]
        assert steps == [pts * FRAME for pts in order]


class TestSubstitutes:
    def test_a_missing_pts_goes_on_at_the_rate(self) -> None:
        units = [video(0), video(1_800), video(None), video(5_400)]
        line = Timeline()
        assert run(line, units) == [(0, 0), (1_800, 1_800), (3_600, 3_600), (5_400, 5_400)]
        assert line.tally["timeline.substituted"] == 1

    @pytest.mark.parametrize("pts", [None, 0])
    def test_no_pts_at_all_by_rtp(self, pts: int | None) -> None:
        line = Timeline()
        result = []
        for at in range(5):
            result += times(
                line.push(video(pts), 100.0, rtp_timestamp=(0xFFFF_FFFF - 5_000 + at * 3_000) & 0xFFFF_FFFF)
            )
        assert [time for time, _ in result] == [at * 3_000 for at in range(5)]

    @pytest.mark.parametrize("pts", [None, 0])
    @pytest.mark.parametrize("rtp_timestamp", [None, 77])
    def test_no_pts_and_no_rtp_by_arrival(self, pts: int | None, rtp_timestamp: int | None) -> None:
        line = Timeline()
        result = []
        for at in range(4):
            result += times(line.push(video(pts, arrived=50 + at * 0.05), 0.0, rtp_timestamp))
        assert [time for time, _ in result] == [at * 4_500 for at in range(4)]

    def test_a_burst_still_rises(self) -> None:
        line = Timeline()
        result = [time for _ in range(5) for time in times(line.push(video(0), 9.0))]
        assert [dts for _, dts in result] == [at * LEAST for at in range(5)]

    def test_sound_goes_on_by_its_samples_without_drift(self) -> None:
        line = Timeline()
        result = run(line, [sound(900, 321), *[sound(None, 321) for _ in range(1_000)]])
        assert [pts for pts, _ in result] == [900 + at * 321 * HZ // 8_000 for at in range(1_001)]

    def test_sound_without_a_clock_catches_up_after_loss(self) -> None:
        line = Timeline()
        line.push(sound(0, arrived=1.0), 1.0)
        line.push(sound(0, arrived=1.04), 1.04)
        ((pts, _),) = times(line.push(sound(0, arrived=6.04), 6.04))
        assert pts == FRAME + 5 * HZ
        ((pts, _),) = times(line.push(sound(0, arrived=6.08), 6.08))
        assert pts == 2 * FRAME + 5 * HZ

    def test_the_first_without_time_joins_the_line(self) -> None:
        line = Timeline()
        run(line, [sound(1_000 * HZ)])
        assert run(line, [video(None)]) == [(1_000 * HZ, 1_000 * HZ)]


class TestAac:
    FRAME_TICKS = 1_024 * HZ // 48_000

    def test_one_unit_a_raw_frame(self) -> None:
        line = Timeline()
        units = line.push(aac(nal.adts(b"one", rate_index=3) + nal.adts(b"two", rate_index=3), 5_000), 0.0)
        assert [bytes(unit) for unit in units] == [b"one", b"two"]
        assert times(units) == [(5_000, 5_000), (5_000 + self.FRAME_TICKS,) * 2]
        assert {unit.parameter_sets for unit in units} == {(b"\x11\x90",)}
        assert all(unit.is_keyframe and unit.codec is AAC and unit.track_id == 0xC0 for unit in units)

    def test_a_frame_over_two_units(self) -> None:
        line = Timeline()
        whole = nal.adts(b"first", rate_index=3) + nal.adts(b"second", rate_index=3) + nal.adts(b"third", rate_index=3)
        before = line.push(aac(whole[:20], 0), 0.0)
        after = line.push(aac(whole[20:], 2 * self.FRAME_TICKS), 0.0)
        assert [bytes(unit) for unit in (*before, *after)] == [b"first", b"second", b"third"]
        assert times([*before, *after]) == [(at * self.FRAME_TICKS,) * 2 for at in range(3)]

    def test_a_hole_drops_the_half_frame(self) -> None:
        line = Timeline()
        line.push(aac(nal.adts(b"lost for ever")[:12], 0), 0.0)
        units = line.push(aac(nal.adts(b"next") + nal.adts(b"more"), 9_000, hole=True), 0.0)
        assert [(bytes(unit), unit.discontinuity) for unit in units] == [(b"next", True), (b"more", False)]
        assert units[0].pts == 9_000
        assert line.tally["timeline.adts_skipped_bytes"] == 12

    def test_what_is_no_adts_gives_nothing_and_is_counted(self) -> None:
        line = Timeline()
        assert line.push(aac(b"no sync word here", 0), 0.0) == []
        assert line.push(aac(nal.adts(b"?", layout=0), 0), 0.0) == []
        assert line.tally["timeline.adts_skipped_bytes"] == 17
        assert line.tally["timeline.adts_refused"] == 1

    def test_times_do_not_drift(self) -> None:
        line = Timeline()
        result = run(line, [aac(nal.adts(b"raw") * 10, 0), *[aac(nal.adts(b"raw") * 10, None) for _ in range(99)]])
        assert [pts for pts, _ in result] == [at * 1_024 * HZ // 44_100 for at in range(1_000)]


def test_another_codec_on_the_same_id_goes_on() -> None:
    line = Timeline()
    run(line, [sound(HZ)])
    units = line.push(aac(nal.adts(b"raw"), HZ), 0.0)
    assert units[0].dts == HZ + LEAST


def test_tracks_are_bounded() -> None:
    line = Timeline()
    for track_id in range(limits.TRACKS + 5):
        line.push(AccessUnit(b"x", PCMA, 0, track_id=track_id), 0.0)
    assert line.tally["timeline.surplus_track"] == 5


def test_reorder_meter() -> None:
    meter = ReorderMeter()
    depths = []
    for pts in (0, 4, 2, 1, 3, 8):
        meter.push(pts)
        depths.append(meter.depth)
    assert depths == [0, 0, 1, 2, 2, 2]
    meter.restart()
    meter.push(-100)
    assert meter.depth == 2
