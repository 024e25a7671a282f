"""Parts and segments: cut where they should be, bounded, read by FFmpeg, listed as RFC 8216bis wants it."""

import random
from collections.abc import Sequence
from fractions import Fraction

import pytest

from gbgw.base import limits
from gbgw.base.codec import AAC, H264
from gbgw.base.errors import MediaError
from gbgw.media.hub import Stream
from gbgw.mux import hls
from gbgw.mux.feed import Chunk, Feeds
from gbgw.mux.hls import Segmenter
from gbgw.mux.pattern import PatternSpec
from gbgw.mux.playlist import Container, Segment
from tests.support import m3u8
from tests.support.streams import feed, published, read_back, timed_units

SOUND = PatternSpec(audio=AAC, width=320, height=180, seconds=4)
PICTURES = PatternSpec(audio=None, width=320, height=180, seconds=4)
CONTAINERS: list[Container] = ["mp4", "ts"]
VIDEO, AUDIO = 0xE0, 0xC0
INIT = Chunk(b"init", is_init=True)


def attached(stream: Stream, container: Container, **options: object) -> Segmenter:
    segmenter = Segmenter(container, **options)  # type: ignore[arg-type]
    Feeds().get(stream, container).attach(segmenter, splice=True)
    segmenter.begin_live()
    return segmenter


def picture(at: float, *, key: bool = False, size: int = 200, lasts: int = 40) -> Chunk:
    """A chunk at `at` seconds that is thought to last `lasts` ms; the Segmenter does not look inside these."""
    return Chunk(bytes(size), starts_gop=key, dts=round(at * 90_000), duration=lasts * 90, track_id=VIDEO, arrived=at)


def sound(at: float) -> Chunk:
    return Chunk(bytes(150), dts=round(at * 90_000), duration=5_760, track_id=AUDIO, arrived=at)


def pictures(seconds: float, *, gop: int = 25, rate: int = 25, since: int = 0) -> list[Chunk]:
    return [
        picture(n / rate, key=n % gop == 0, lasts=1_000 // rate) for n in range(since, since + round(seconds * rate))
    ]


def fed(container: Container, chunks: Sequence[Chunk], **options: object) -> Segmenter:
    """A Segmenter that was there from the first chunk; every playlist on the way obeys the rules."""
    watcher = m3u8.Watcher()
    segmenter = Segmenter(container, **options)  # type: ignore[arg-type]
    segmenter.on_chunk(INIT)
    segmenter.begin_live()
    for chunk in chunks:
        segmenter.on_chunk(chunk)
        if segmenter.ready and container == "mp4":
            watcher.take(segmenter.playlist.write().decode())
    return segmenter


def durations(segmenter: Segmenter) -> list[float]:
    return [round(segment.duration, 3) for segment in segmenter.playlist.segments]


def parts_of(segmenter: Segmenter) -> list[list[float]]:
    """Seconds of every listed part, segment by segment, the open one last."""
    found = m3u8.read(segmenter.playlist.write().decode())
    entries = [*found.entries, *([found.open] if found.open else [])]
    return [[round(float(part.duration), 3) for part in entry.parts] for entry in entries]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("spec", [SOUND, PICTURES])
def test_segments_begin_with_key_frames_and_hold_every_picture(container: Container, spec: PatternSpec) -> None:
    units = timed_units(spec)
    stream = Stream("hls")
    stream.promise(spec.audio is not None)
    segmenter = Segmenter(container)
    Feeds().get(stream, container).attach(segmenter, splice=True)
    feed(stream, units)
    stream.close()
    playlist = segmenter.playlist
    pieces = []
    for segment in playlist.segments:
        data = (playlist.init(segment.init) or b"") + (playlist.segment(segment.sequence) or b"")
        packets = [packet for packet in read_back(data) if packet.kind == "video"]
        assert packets[0].is_keyframe
        assert segment.independent
        assert segment.duration == pytest.approx(len(packets) * 0.04, abs=0.09)
        pieces += packets
    origin = units[0].dts or 0
    assert [packet.dts for packet in pieces] == [
        pytest.approx(((unit.dts or 0) - origin) / 90, abs=1) for unit in units if unit.codec is H264
    ]
    assert [segment.sequence for segment in playlist.segments] == [0, 1, 2, 3]
    found = m3u8.read(playlist.write().decode())
    assert (found.version, found.independent, found.ended) == (9 if container == "mp4" else 3, True, True)


def test_parts_are_their_segment_cut_into_pieces_that_play() -> None:
    units = timed_units(SOUND)
    stream = published(units, until=len(units) // 4)
    segmenter = attached(stream, "mp4", expected_seconds=1.0)
    feed(stream, units[len(units) // 4 :])
    playlist = segmenter.playlist
    assert [len(segment.parts) for segment in playlist.segments] == [5, 5, 5]  # the cached GOP as well
    for segment in playlist.segments:
        pieces = [playlist.part(number) or b"" for number in segment.parts]
        assert b"".join(pieces) == segment.data
        init = playlist.init(segment.init) or b""
        for piece in pieces:
            assert sum(packet.kind == "video" for packet in read_back(init + piece)) == 5
    assert parts_of(segmenter)[-1] == [0.2] * 4 + ([0.2] if len(playlist.open_parts) == 5 else [])


def test_a_part_is_listed_in_the_call_that_brings_its_last_unit() -> None:
    changes: list[int] = []
    segmenter = fed("mp4", pictures(2))
    segmenter._on_change = lambda: changes.append(1)
    for count, chunk in enumerate(pictures(1, since=50), 1):
        segmenter.on_chunk(chunk)
        assert len(segmenter.playlist.open_parts) == count // 5
    assert len(changes) == 1 + 5  # the segment before, and these


def test_a_running_stream_is_playable_at_once() -> None:
    units = timed_units(PICTURES)
    stream = published(units, until=45)  # 20 pictures into the second GOP
    segmenter = attached(stream, "mp4", wall_offset=1_700_000_000.0, expected_seconds=stream.gop_seconds)
    assert segmenter.ready
    found = m3u8.read(segmenter.playlist.write().decode())
    assert [(entry.uri, float(entry.duration), entry.map) for entry in found.entries] == [("0.m4s", 0.8, "init-0.mp4")]
    assert (found.target, found.hint, found.part_target) == (2, "p4.m4s", Fraction("0.217"))
    date = found.entries[0].date
    assert date is not None
    assert date.timestamp() == pytest.approx(1_700_000_000 + units[25].arrived, abs=0.002)
    feed(stream, units[45:76])
    assert [segment.independent for segment in segmenter.playlist.segments] == [True, False, True]
    assert durations(segmenter) == [0.8, 0.2, 1.0]
    assert not m3u8.read(segmenter.playlist.write().decode()).independent


def test_too_little_to_start_with_is_waited_for() -> None:
    units = timed_units(PICTURES)
    stream = published(units, until=30)  # 5 pictures into the second GOP
    segmenter = attached(stream, "mp4")
    assert not segmenter.ready
    assert segmenter.playlist.segment(0) is None
    feed(stream, units[30:40])
    assert durations(segmenter) == [0.52]


def test_ts_starts_with_a_whole_gop_and_has_no_parts() -> None:
    units = timed_units(PICTURES)
    stream = published(units, until=45)
    segmenter = attached(stream, "ts")
    feed(stream, units[45:52])
    assert not segmenter.ready  # some players never start with a single segment
    feed(stream, units[52:77])
    assert segmenter.ready
    found = m3u8.read(segmenter.playlist.write().decode())
    assert [(entry.uri, entry.duration) for entry in found.entries] == [("0.ts", 1), ("1.ts", 1)]
    assert (found.part_target, found.control, found.open) == (None, {}, None)


def test_one_long_ts_segment_is_enough_to_start() -> None:
    segmenter = fed("ts", pictures(3.04, gop=75))
    assert durations(segmenter) == [3.0]
    assert segmenter.ready


def test_short_gops_are_joined_up_to_the_target() -> None:
    chunks = pictures(4.04, gop=10)
    assert durations(fed("ts", chunks, target_seconds=2.0)) == [0.4, 2.0]
    segmenter = fed("mp4", chunks)
    assert durations(segmenter) == [0.4, 1.2, 1.2, 1.2]
    assert parts_of(segmenter)[2] == [0.2] * 6


def test_a_gop_longer_than_the_target_is_cut_inside() -> None:
    segmenter = fed("mp4", pictures(12, gop=100))
    assert segmenter.playlist.target_duration == 2
    assert durations(segmenter)[:4] == [0.52, 2.48, 1.0, 2.48]
    assert [segment.independent for segment in segmenter.playlist.segments][:4] == [True, False, False, True]
    known = fed("mp4", pictures(12, gop=100), expected_seconds=4.0)
    assert durations(known)[:3] == [0.52, 3.48, 4.0]


def test_a_gop_without_end_is_cut_in_ts_too() -> None:
    segmenter = fed("ts", pictures(24, gop=600))
    assert durations(segmenter) == [10.0, 10.0]
    assert segmenter.playlist.target_duration == limits.HLS_SEGMENT_SECONDS


def test_a_segment_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HLS_SEGMENT_BYTES", 2_000)
    for container in CONTAINERS:
        segmenter = fed(container, pictures(2, gop=50))
        assert {len(segment.data) for segment in segmenter.playlist.segments} == {2_000}


@pytest.mark.parametrize("rate", [30, 25, 20, 18, 15, 12, 10, 8, 6, 5, 4, 2, 1])
def test_the_part_target_follows_the_frame_rate(rate: int) -> None:
    """Whatever a camera sends, parts are whole pictures that fill 85 % of the target (4.4.4.9)."""
    segmenter = fed("mp4", pictures(12, gop=2 * rate, rate=rate))
    listed = {duration for parts in parts_of(segmenter)[:-1] for duration in parts}
    whole = max(1, int(0.2 * rate + 0.1)) / rate
    assert max(listed) == pytest.approx(whole, abs=0.001)
    assert segmenter.playlist.part_target_seconds == pytest.approx(whole / hls.PART_FILL, abs=0.001)


def test_lengths_add_up_although_time_stamps_jitter() -> None:
    chance = random.Random(7)
    at = 0.0
    segmenter = Segmenter("mp4")
    segmenter.on_chunk(INIT)
    segmenter.begin_live()
    estimate = 40
    for n in range(25 * 60):
        segmenter.on_chunk(picture(at, key=n % 25 == 0, lasts=estimate))
        estimate = chance.choice((33, 40, 47))
        at += estimate / 1_000
        if n == 25 * 48:
            begun, first = at, segmenter.playlist.segments[-1].sequence
    added = sum(segment.ticks for segment in segmenter.playlist.segments if segment.sequence > first)
    assert added / 90_000 == pytest.approx(at - begun, abs=1.2)
    starts = [segment.started for segment in segmenter.playlist.segments]
    for segment, start, following in zip(segmenter.playlist.segments, starts, starts[1:], strict=False):
        assert following - start == pytest.approx(segment.duration, abs=0.05)  # less what no part may last


def test_a_camera_that_slows_down_raises_the_part_target() -> None:
    segmenter = fed("mp4", pictures(4))
    assert segmenter.playlist.part_target_seconds == pytest.approx(0.217)
    for n in range(12):
        segmenter.on_chunk(picture(4.25 + n / 4, key=n % 4 == 0, lasts=250))
    assert segmenter.playlist.part_target_seconds == pytest.approx(0.271, abs=0.001)
    assert segmenter.playlist.open_parts[-1].ticks == 22_500


def test_sound_goes_on_while_the_pictures_wait() -> None:
    segmenter = fed("mp4", pictures(3))
    before = len(segmenter.playlist.open_parts)
    for n in range(24):
        segmenter.on_chunk(sound(3 + n * 0.064))
    assert len(segmenter.playlist.open_parts) == before + 3
    segmenter.on_chunk(picture(4.6, key=True))
    found = m3u8.read(segmenter.playlist.write().decode())
    assert found.discontinuity_sequence == found.entries[-1].discontinuity == 0


def test_a_little_sound_before_its_picture_makes_no_segment() -> None:
    segmenter = Segmenter("mp4")
    segmenter.on_chunk(INIT)
    for chunk in pictures(1):
        segmenter.on_chunk(chunk)
    segmenter.begin_live()
    segmenter.on_chunk(sound(1.0))
    for chunk in pictures(2, since=25):
        segmenter.on_chunk(chunk)
    assert durations(segmenter) == [1.0, 1.0]
    assert [segment.independent for segment in segmenter.playlist.segments] == [True, True]


def test_a_hole_is_a_discontinuity() -> None:
    segmenter = fed("mp4", pictures(3.4), wall_offset=100.0)
    for n in range(60):
        segmenter.on_chunk(picture(7 + n / 25, key=n % 25 == 0))
    found = m3u8.read(segmenter.playlist.write().decode())
    assert [entry.discontinuity for entry in found.entries] == [0] * 5 + [1, 1]
    dates = [entry.date.timestamp() for entry in found.entries if entry.date]
    assert dates[4:6] == [pytest.approx(103, abs=0.002), pytest.approx(107, abs=0.002)]
    assert all(max(parts, default=0) <= 0.217 for parts in parts_of(segmenter))


def test_program_date_time_follows_the_camera_and_not_the_jitter_of_arrival() -> None:
    chunks = [
        Chunk(c.data, starts_gop=c.starts_gop, dts=c.dts, duration=c.duration, track_id=VIDEO, arrived=c.arrived + j)
        for c, j in zip(pictures(6), [0.0, 0.2, 0.1] * 50, strict=True)
    ]
    segmenter = fed("mp4", chunks)
    starts = [segment.started for segment in segmenter.playlist.segments]
    assert [round(start, 3) for start in starts] == [0.0, 0.52, 1.0, 2.0, 3.0, 4.0]
    late = picture(6.0, key=True)
    segmenter.on_chunk(Chunk(late.data, starts_gop=True, dts=late.dts, duration=3_600, track_id=VIDEO, arrived=9.0))
    for chunk in pictures(1.2, since=151):
        segmenter.on_chunk(chunk)
    assert segmenter.playlist.segments[-1].started == pytest.approx(9.0)  # the clock was set anew


def test_the_window_slides() -> None:
    woken = []
    segmenter = fed("ts", pictures(25 * 1 + 0.04), first_sequence=1_000, on_change=lambda: woken.append(1))
    playlist = segmenter.playlist
    found = m3u8.read(playlist.write().decode())
    assert found.sequence == 1_009
    assert [entry.uri for entry in found.entries] == [f"{n}.ts" for n in range(1_009, 1_025)]
    assert playlist.segment(1_006) is not None  # left the playlist, still there for who is late
    assert playlist.segment(1_005) is None
    assert playlist.segment(1_025) is None
    assert len(woken) == 25


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_window_is_bounded_in_bytes(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HLS_WINDOW_BYTES", 60_000)
    segmenter = Segmenter(container)
    segmenter.on_chunk(INIT)
    segmenter.begin_live()
    for chunk in pictures(40):
        segmenter.on_chunk(chunk)
        assert segmenter.held_bytes <= 60_000 + 11_000  # with a segment in the making, and its parts
    assert segmenter.ready
    assert segmenter.playlist.segments[-1].sequence >= 38


def test_what_a_day_leaves_behind_is_bounded() -> None:
    """Segments, parts and init segments do not pile up; a thousand generations are like one."""
    segmenter = Segmenter("mp4")
    segmenter.begin_live()
    sizes = []
    for round_ in range(1_000):
        segmenter.on_chunk(INIT)
        for chunk in pictures(1, since=25 * round_):
            segmenter.on_chunk(chunk)
        sizes.append((segmenter.held_bytes, len(segmenter.playlist._parts), len(segmenter.playlist._inits)))
    assert max(sizes[100:]) == max(sizes[500:])
    held, parts, inits = max(sizes)
    assert held <= 25 * 200 * (20 + 10)
    assert parts <= 5 * 10
    assert inits <= 21


def test_new_tracks_are_a_discontinuity_with_an_init_of_their_own() -> None:
    first, second = timed_units(PICTURES), timed_units(PatternSpec(audio=None, width=480, height=270, seconds=4))
    stream = published(first, until=len(first))
    watcher = m3u8.Watcher()
    segmenter = attached(stream, "mp4", on_change=lambda: None)
    playlist = segmenter.playlist
    segmenter._on_change = lambda: playlist.ready and watcher.take(playlist.write().decode())  # type: ignore[assignment]

    def again(by: int) -> None:
        feed(stream, [unit.with_times((unit.pts or 0) + by, (unit.dts or 0) + by) for unit in second])

    again(360_000)
    found = watcher.last
    assert found is not None
    assert [entry.map for entry in found.entries] == ["init-0.mp4"] + ["init-1.mp4"] * 3
    assert [entry.discontinuity for entry in found.entries] == [0, 1, 1, 1]
    newest = playlist.segments[-1]
    assert len(read_back((playlist.init(1) or b"") + newest.data)) == 25
    for round_ in range(2, 7):
        again(360_000 * round_)
    found = watcher.last
    assert (found.discontinuity_sequence, {entry.discontinuity for entry in found.entries}) == (1, {1})
    assert playlist.init(0) is None
    assert playlist.init(1) is not None


def test_the_end_closes_the_last_segment_and_keeps_the_cause() -> None:
    woken = []
    units = timed_units(PICTURES)
    stream = published(units, until=30)
    segmenter = attached(stream, "mp4", on_change=lambda: woken.append(1))
    cause = MediaError("gone", code="media_stopped")
    stream.close(cause)
    assert (segmenter.ended, segmenter.cause) == (True, cause)
    assert durations(segmenter) == [0.2]
    assert len(woken) == 2
    segments: list[Segment] = list(segmenter.playlist.segments)
    assert segments[0].independent
