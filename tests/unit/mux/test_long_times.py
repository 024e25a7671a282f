"""Streams that run for days: where each format's counters end, by a clock that is only told."""

import io
from itertools import pairwise

import av
import pytest

from gbgw.base.codec import AAC
from gbgw.base.ticks import HZ
from gbgw.media.hub import Stream
from gbgw.mux.container import FLV_LONGEST
from gbgw.mux.feed import Feeds
from gbgw.mux.flv import FILE_HEADER, tags
from gbgw.mux.pattern import PatternSpec
from tests.support.streams import Viewer, timed_units

SPEC = PatternSpec(audio=AAC, width=320, height=180, seconds=4)
STEP = 3_600


def later(stream: Stream, ticks: int) -> None:
    """The camera's four seconds, so much later."""
    for unit in timed_units(SPEC):
        moved = unit.with_times((unit.pts or 0) + ticks, (unit.dts or 0) + ticks)
        stream.push(moved, (moved.dts or 0) / HZ)


def watched(form: str, ticks: int) -> tuple[Stream, Feeds, Viewer]:
    """Somebody watched from the beginning until four seconds after `ticks`."""
    stream, viewer, feeds = Stream("long"), Viewer(), Feeds()
    stream.promise(True)
    feeds.get(stream, form).attach(viewer)
    later(stream, 0)
    later(stream, ticks)
    return stream, feeds, viewer


def test_flv_counts_on_as_far_as_it_can() -> None:
    _, _, viewer = watched("flv", FLV_LONGEST - 5 * HZ)
    assert viewer.ends == []
    stamps = [stamp for kind, stamp, _ in tags(viewer.data[FILE_HEADER:]) if kind == 9]
    assert all(after - before >= 0 for before, after in pairwise(stamps))
    assert max(stamps) < 1 << 31


@pytest.mark.parametrize("form", ["flv", "flv-legacy"])
def test_before_flv_would_count_from_zero_its_viewers_open_it_again(form: str) -> None:
    stream, feeds, viewer = watched(form, FLV_LONGEST - 2 * HZ)
    assert [cause.code for cause in viewer.ends if cause] == ["timestamps_exhausted"]
    stamps = [stamp for kind, stamp, _ in tags(viewer.data[FILE_HEADER:]) if kind == 9]
    assert FLV_LONGEST // 90 - 40 <= max(stamps) <= FLV_LONGEST // 90 + 1_000  # at a key frame, one a second
    again = Viewer()
    feeds.get(stream, form).attach(again)
    later(stream, FLV_LONGEST + 2 * HZ)
    stamps = [stamp for kind, stamp, _ in tags(again.data[FILE_HEADER:]) if kind == 9]
    assert (stamps[0], again.ends) == (0, [])
    assert max(stamps) < 10_000


def test_sound_alone_ends_so_too() -> None:
    stream, viewer = Stream("sound"), Viewer()
    units = [unit for unit in timed_units(SPEC) if unit.codec is AAC]
    for number, unit in enumerate(units):
        stream.push(unit, number * 0.064)
        stream.poll(number * 0.064)
    Feeds().get(stream, "flv").attach(viewer)
    for ticks in (5 * HZ, FLV_LONGEST + 6 * HZ):
        moved = units[0].with_times((units[0].pts or 0) + ticks, (units[0].dts or 0) + ticks)
        stream.push(moved, ticks / HZ)
    assert [cause.code for cause in viewer.ends if cause] == ["timestamps_exhausted"]


@pytest.mark.parametrize("days", [0.55, 1.1, 60.0])  # beyond 32 bits of 90 kHz, 33 bits, 32 bits of milliseconds
def test_fmp4_counts_in_64_bits(days: float) -> None:
    ticks = round(days * 86_400) * HZ
    _, _, viewer = watched("mp4", ticks)
    assert viewer.ends == []
    decode = [
        int.from_bytes(chunk.data[60:68], "big") for chunk in viewer.chunks if chunk.track_id == 0xE0 and chunk.data
    ]
    assert decode[-100:] == [ticks + number * STEP for number in range(100)]


def test_ts_wraps_as_every_player_expects() -> None:
    """33 bits of 90 kHz (H.222.0 section 2.4.3.7); FFmpeg reads the pictures across it without a complaint."""
    ticks = (1 << 33) - 2 * HZ
    _, _, viewer = watched("ts", ticks)
    assert viewer.ends == []
    start = next(n for n, chunk in enumerate(viewer.chunks) if chunk.starts_gop and (chunk.dts or 0) >= ticks)
    tail = b"".join(chunk.data for chunk in viewer.chunks[start:])
    with av.logging.Capture() as told, av.open(io.BytesIO(tail), format="mpegts") as container:
        times = [packet.dts for packet in container.demux(video=0) if packet.dts is not None]
    assert [after - before for before, after in pairwise(times)] == [STEP] * (len(times) - 1)
    assert len(times) >= 99
    assert not [text for level, _, text in told if level <= av.logging.ERROR]
