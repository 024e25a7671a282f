"""Segments and playlists: cut at key frames, bounded, and read by FFmpeg and by plain parsing of RFC 8216."""

import math
import re

import pytest

from gbgw.base import limits
from gbgw.base.codec import AAC, H264, H265
from gbgw.base.errors import MediaError
from gbgw.media.hub import Stream
from gbgw.mux.feed import Chunk, Feeds
from gbgw.mux.hls import Container, Segmenter
from gbgw.mux.pattern import PatternSpec
from tests.support.streams import feed, published, read_back, timed_units

SOUND = PatternSpec(audio=AAC, width=320, height=180, seconds=4)
PICTURES = PatternSpec(audio=None, width=320, height=180, seconds=4)
CONTAINERS: list[Container] = ["mp4", "ts"]


def attached(stream: Stream, container: Container, **options: object) -> Segmenter:
    segmenter = Segmenter(container, **options)  # type: ignore[arg-type]
    Feeds().get(stream, container).attach(segmenter, splice=True)
    segmenter.begin_live()
    return segmenter


def picture(number: int, *, key: bool = False, size: int = 100) -> Chunk:
    """A chunk of 40 ms; for the TS form, which does not look inside."""
    return Chunk(bytes(size), starts_gop=key, dts=number * 3_600, duration=3_600, track_id=0xE0, arrived=number / 25)


def entries(playlist: str) -> list[tuple[float, str]]:
    return [(float(length), uri) for length, uri in re.findall(r"#EXTINF:([\d.]+),\n(\S+)", playlist)]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("spec", [SOUND, PICTURES])
def test_segments_begin_with_key_frames_and_hold_every_picture(container: Container, spec: PatternSpec) -> None:
    units = timed_units(spec)
    stream = Stream("hls")
    stream.promise(spec.audio is not None)
    segmenter = attached(stream, container, start_seconds=60.0)
    feed(stream, units)
    stream.close()
    pieces = []
    for segment in segmenter.segments:
        data = (segmenter.init(segment.init) or b"") + (segmenter.segment(segment.sequence) or b"")
        packets = [packet for packet in read_back(data) if packet.kind == "video"]
        assert packets[0].is_keyframe
        assert segment.independent
        assert segment.duration == pytest.approx(len(packets) * 0.04, abs=0.09)
        pieces += packets
    origin = units[0].dts or 0
    assert [packet.dts for packet in pieces] == [
        pytest.approx(((unit.dts or 0) - origin) / 90, abs=1) for unit in units if unit.codec is H264
    ]
    assert [segment.sequence for segment in segmenter.segments] == [0, 1, 2, 3]
    text = segmenter.media_playlist()
    assert text.startswith("#EXTM3U\n#EXT-X-VERSION:" + ("7" if container == "mp4" else "3"))
    assert "#EXT-X-INDEPENDENT-SEGMENTS" in text
    assert text.endswith("#EXT-X-ENDLIST\n")


def test_a_running_stream_is_playable_at_once() -> None:
    units = timed_units(PICTURES)
    stream = published(units, until=45)  # 20 pictures into the second GOP
    segmenter = attached(stream, "mp4", wall_offset=1_700_000_000.0, expected_seconds=stream.gop_seconds)
    assert segmenter.ready
    text = segmenter.media_playlist("?session=abc")
    assert entries(text) == [(0.8, "0.m4s?session=abc")]
    assert '#EXT-X-MAP:URI="init-0.mp4?session=abc"' in text
    assert "#EXT-X-TARGETDURATION:1\n" in text
    assert re.search(r"#EXT-X-PROGRAM-DATE-TIME:2023-11-14T22:13:2\d\.\d{3}Z", text)
    feed(stream, units[45:76])
    assert [segment.independent for segment in segmenter.segments] == [True, False, True]
    assert [round(segment.duration, 3) for segment in segmenter.segments] == [0.8, 0.2, 1.0]
    assert "#EXT-X-INDEPENDENT-SEGMENTS" not in segmenter.media_playlist()


def test_too_little_to_start_with_is_waited_for() -> None:
    units = timed_units(PICTURES)
    stream = published(units, until=30)  # 5 pictures into the second GOP
    segmenter = attached(stream, "mp4")
    assert not segmenter.ready
    assert segmenter.segment(0) is None
    feed(stream, units[30:40])
    assert [round(segment.duration, 2) for segment in segmenter.segments] == [0.52]


def test_ts_starts_with_a_whole_gop() -> None:
    units = timed_units(PICTURES)
    stream = published(units, until=45)
    segmenter = attached(stream, "ts")
    assert not segmenter.ready
    feed(stream, units[45:52])
    assert [segment.duration for segment in segmenter.segments] == [1.0]
    assert [uri for _, uri in entries(segmenter.media_playlist())] == ["0.ts"]


def test_short_gops_are_joined_up_to_the_target() -> None:
    segmenter = Segmenter("ts", target_seconds=2.0)
    segmenter.on_chunk(Chunk(b"", is_init=True))
    for number in range(101):
        segmenter.on_chunk(picture(number, key=number % 10 == 0))
    assert [segment.duration for segment in segmenter.segments] == [0.4, 2.0]
    assert segmenter.target_duration == 2


def test_a_gop_without_end_is_cut() -> None:
    segmenter = Segmenter("ts")
    segmenter.on_chunk(Chunk(b"", is_init=True))
    for number in range(600):
        segmenter.on_chunk(picture(number, key=number == 0))
    assert [segment.duration for segment in segmenter.segments] == [10.0, 10.0]
    assert [segment.independent for segment in segmenter.segments] == [True, False]
    assert segmenter.target_duration == limits.HLS_SEGMENT_SECONDS


def test_a_segment_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HLS_SEGMENT_BYTES", 1_000)
    segmenter = Segmenter("ts")
    segmenter.on_chunk(Chunk(b"", is_init=True))
    for number in range(25):
        segmenter.on_chunk(picture(number, key=number == 0))
    assert {len(segment.data) for segment in segmenter.segments} == {1_000}


def test_the_window_slides() -> None:
    woken = []
    segmenter = Segmenter("ts", kept_segments=4, first_sequence=1_000, on_segment=lambda: woken.append(1))
    segmenter.on_chunk(Chunk(b"", is_init=True))
    for number in range(25 * 12 + 1):
        segmenter.on_chunk(picture(number, key=number % 25 == 0))
    text = segmenter.media_playlist()
    assert "#EXT-X-MEDIA-SEQUENCE:1008\n" in text
    assert [uri for _, uri in entries(text)] == ["1008.ts", "1009.ts", "1010.ts", "1011.ts"]
    assert segmenter.segment(1_005) is not None  # left the playlist, still there for who is late
    assert segmenter.segment(1_004) is None
    assert segmenter.segment(1_012) is None
    assert len(woken) == 12


def test_the_window_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HLS_WINDOW_BYTES", 20_000)
    segmenter = Segmenter("ts", kept_segments=100)
    segmenter.on_chunk(Chunk(b"", is_init=True))
    for number in range(25 * 40):
        segmenter.on_chunk(picture(number, key=number % 25 == 0))
        assert segmenter.held_bytes <= 20_000 + 2_500
    assert segmenter.ready
    assert entries(segmenter.media_playlist())[-1][1] == "38.ts"


def test_new_tracks_are_a_discontinuity_with_an_init_of_their_own() -> None:
    first, second = timed_units(PICTURES), timed_units(PatternSpec(audio=None, width=480, height=270, seconds=4))
    stream = published(first, until=len(first))
    segmenter = attached(stream, "mp4", kept_segments=4)
    feed(stream, [unit.with_times((unit.pts or 0) + 360_000, (unit.dts or 0) + 360_000) for unit in second])
    text = segmenter.media_playlist()
    assert text.count("#EXT-X-DISCONTINUITY\n") == 1
    assert text.index('init-0.mp4"') < text.index("#EXT-X-DISCONTINUITY") < text.index('init-1.mp4"')
    newest = segmenter.segments[-1]
    with_own_init = (segmenter.init(1) or b"") + newest.data
    assert len(read_back(with_own_init)) == 25
    feed(stream, [unit.with_times((unit.pts or 0) + 720_000, (unit.dts or 0) + 720_000) for unit in second])
    feed(stream, [unit.with_times((unit.pts or 0) + 1_080_000, (unit.dts or 0) + 1_080_000) for unit in second])
    text = segmenter.media_playlist()
    assert "#EXT-X-DISCONTINUITY-SEQUENCE:1\n" in text
    assert "#EXT-X-DISCONTINUITY\n" not in text
    assert segmenter.init(0) is None
    assert segmenter.init(1) is not None


def test_the_multivariant_playlist_names_codecs_and_size() -> None:
    units = timed_units(SOUND)
    stream = published(units, until=len(units))
    segmenter = attached(stream, "mp4")
    text = segmenter.multivariant_playlist(stream.tracks, "media.m3u8?session=1", frame_rate=25.0)
    assert text.splitlines()[-1] == "media.m3u8?session=1"
    assert re.search(r'CODECS="avc1\.[0-9a-f]{6},mp4a\.40\.2",RESOLUTION=320x180,FRAME-RATE=25\.000', text)
    (segment,) = segmenter.segments
    assert f"BANDWIDTH={math.ceil(len(segment.data) * 8 / segment.duration)}," in text
    assert "hvc1." in segmenter.multivariant_playlist(
        published(timed_units(PatternSpec(video=H265, audio=None, width=320, height=180, seconds=2)), until=30).tracks,
        "m",
    )


def test_the_end_closes_the_last_segment_and_keeps_the_cause() -> None:
    woken = []
    units = timed_units(PICTURES)
    stream = published(units, until=30)
    segmenter = attached(stream, "mp4", on_segment=lambda: woken.append(1))
    cause = MediaError("gone", code="media_stopped")
    stream.close(cause)
    assert (segmenter.ended, segmenter.cause) == (True, cause)
    assert [round(segment.duration, 2) for segment in segmenter.segments] == [0.2]
    assert len(woken) == 2


def test_an_empty_playlist_is_still_one() -> None:
    assert Segmenter("mp4", first_sequence=5).media_playlist() == (
        "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:5\n"
    )
