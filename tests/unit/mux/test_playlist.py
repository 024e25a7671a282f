"""Playlists: what they list, blocking reloads, deltas; under random polling, read by a client that knows the rules."""

import gzip
import math
import random
import re

import pytest

from gbgw.base.codec import AAC, H265
from gbgw.mux.hls import Segmenter
from gbgw.mux.pattern import PatternSpec
from gbgw.mux.playlist import DEFAULT_BANDWIDTH, MediaPlaylist, OpenSegment, multivariant
from tests.support import m3u8
from tests.support.streams import published, timed_units
from tests.unit.mux.test_hls import INIT, attached, fed, picture, pictures, sound

T = 18_000  # ticks of a part


def playlist_of(*counts: int, open_parts: int = 0, part_target: int = 19_530) -> MediaPlaylist:
    """Segments of so many parts of 200 ms each (0: of a second, without parts), then an open one."""
    playlist = MediaPlaylist("mp4")
    playlist.add_init(0, b"init")
    playlist.part_target = part_target
    for number, count in enumerate((*counts, open_parts)):
        if number == len(counts) and not open_parts:
            break
        playlist.open = OpenSegment(0, False, True, float(number))
        for index in range(count):
            playlist.add_part(b"part", T, independent=index == 0)
        if number < len(counts):
            playlist.close_segment(b"part" * count or b"whole", T * count or 90_000)
    return playlist


def test_the_text_of_a_small_one() -> None:
    assert playlist_of(0, 2, open_parts=1).write().decode() == (
        "#EXTM3U\n"
        "#EXT-X-VERSION:9\n"
        "#EXT-X-TARGETDURATION:2\n"
        "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=0.651,CAN-SKIP-UNTIL=12.0\n"
        "#EXT-X-PART-INF:PART-TARGET=0.217\n"
        "#EXT-X-MEDIA-SEQUENCE:0\n"
        "#EXT-X-INDEPENDENT-SEGMENTS\n"
        '#EXT-X-MAP:URI="init-0.mp4"\n'
        "#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:00.000Z\n"
        "#EXTINF:1.00000,\n"
        "0.m4s\n"
        "#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:01.000Z\n"
        '#EXT-X-PART:DURATION=0.20000,URI="p0.m4s",INDEPENDENT=YES\n'
        '#EXT-X-PART:DURATION=0.20000,URI="p1.m4s"\n'
        "#EXTINF:0.40000,\n"
        "1.m4s\n"
        "#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:02.000Z\n"
        '#EXT-X-PART:DURATION=0.20000,URI="p2.m4s",INDEPENDENT=YES\n'
        '#EXT-X-PRELOAD-HINT:TYPE=PART,URI="p3.m4s"\n'
    )


def test_an_empty_playlist_is_still_one() -> None:
    assert MediaPlaylist("ts", first_sequence=5).write() == (
        b"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:5\n"
    )


@pytest.mark.parametrize(
    ("sequence", "part", "there"),
    [
        (0, None, True),
        (1, None, True),
        (2, None, False),  # in the making
        (1, 4, True),
        (1, 5, True),  # beyond its last part: the first of the next
        (2, 0, True),
        (2, 1, True),
        (2, 2, False),
        (3, 0, False),
        (3, None, False),
    ],
)
def test_what_a_reload_waits_for(sequence: int, part: int | None, there: bool) -> None:
    playlist = playlist_of(5, 5, open_parts=2)
    assert playlist.has(sequence, part) is there
    playlist.end()
    assert playlist.has(sequence, part)


def test_beyond_the_last_part_waits_for_the_next_segment() -> None:
    playlist = playlist_of(5, 5)
    assert not playlist.has(1, 5)
    playlist.open = OpenSegment(0, False, True, 3.0)
    playlist.add_part(b"part", T, independent=True)
    assert playlist.has(1, 5)


@pytest.mark.parametrize(
    ("sequence", "part", "too_far"),
    [
        (2, None, False),
        (3, None, False),  # the last one plus two
        (4, None, True),
        (2, 1 + 14, False),  # 3 s are 14 parts of 217 ms
        (2, 2 + 14, True),
        (3, 13, False),
        (3, 14, True),
        (1, 99, False),  # it is there: the client only waits for the next segment
    ],
)
def test_who_asks_too_far_ahead(sequence: int, part: int | None, too_far: bool) -> None:
    assert playlist_of(5, 5, open_parts=2).is_too_far(sequence, part) is too_far


def test_a_delta_leaves_out_what_lies_before_the_boundary() -> None:
    watcher = m3u8.Watcher()
    playlist = playlist_of(*[5] * 13, open_parts=1)
    whole = watcher.take(playlist.write().decode())
    found = m3u8.read(playlist.write(delta=True).decode())
    assert (found.skipped, len(found.entries), found.sequence) == (1, 12, 0)  # 12.2 s, of which one is left out
    rebuilt = watcher.take(playlist.write(delta=True).decode())
    assert rebuilt.entries == whole.entries
    short = playlist_of(*[5] * 12)
    assert short.write(delta=True) == short.write()


def test_a_delta_after_a_change_of_init_says_which_one() -> None:
    segmenter = Segmenter("mp4")
    segmenter.begin_live()
    segmenter.on_chunk(INIT)
    for chunk in pictures(2):
        segmenter.on_chunk(chunk)
    segmenter.on_chunk(INIT)
    watcher = m3u8.Watcher()
    for number, chunk in enumerate(pictures(30, since=50)):
        segmenter.on_chunk(chunk)
        if number % 25 == 20:
            full = m3u8.read(segmenter.playlist.write().decode())
            rebuilt = watcher.take(segmenter.playlist.write(delta=watcher.last is not None).decode())
            assert [entry.map for entry in rebuilt.entries] == [entry.map for entry in full.entries]
            assert [e.discontinuity for e in rebuilt.entries] == [e.discontinuity for e in full.entries]


def test_bytes_are_shared_until_something_changes() -> None:
    playlist = playlist_of(5, 5)
    assert playlist.write() is playlist.write()
    packed = playlist.write(packed=True)
    assert packed is playlist.write(packed=True)
    assert gzip.decompress(packed) == playlist.write()
    before = playlist.write()
    playlist.open = OpenSegment(0, False, True, 3.0)
    playlist.add_part(b"part", T, independent=True)
    assert playlist.write() != before


def test_parts_are_forgotten_after_they_left_the_playlist() -> None:
    playlist = playlist_of(*[5] * 20, open_parts=2)
    found = m3u8.read(playlist.write().decode())
    listed = [entry.sequence for entry in found.entries if entry.parts]
    assert listed == list(range(14, 20))  # 6 s and what began before them
    assert playlist.part(14 * 5) == b"part"
    assert playlist.part(0) is None
    assert playlist.is_hinted(102)
    assert not playlist.is_hinted(103)
    assert playlist.part(102) is None


@pytest.mark.parametrize("seed", range(6))
def test_random_lives_under_random_polling(seed: int) -> None:
    """Odd GOPs, jitter, sound, holes, new generations: whoever reads whenever, deltas or not, never sees a rule
    broken.
    """
    chance = random.Random(seed)
    segmenter = Segmenter(
        "mp4", first_sequence=chance.randrange(1_000), expected_seconds=chance.choice((0.0, 1.0, 4.0))
    )
    segmenter.on_chunk(INIT)
    segmenter.begin_live()
    playlist = segmenter.playlist
    watchers = [m3u8.Watcher() for _ in range(5)]
    rate = chance.choice((25, 20, 15, 12, 8))
    gop = chance.choice((10, 25, 50, 120))
    at, until_key = 0.0, 0
    for _ in range(1_000):
        if chance.random() < 0.002:
            segmenter.on_chunk(INIT)
            until_key = 0
        if chance.random() < 0.002:
            at += chance.uniform(1.0, 6.0)
            until_key = 0
        if chance.random() < 0.3:
            segmenter.on_chunk(sound(at + chance.uniform(-0.1, 0.1)))
        segmenter.on_chunk(picture(at, key=until_key <= 0, lasts=1_000 // rate, size=chance.randrange(150, 3_000)))
        until_key = gop if until_key <= 0 else until_key - 1
        at += (1 + chance.uniform(-0.02, 0.02)) / rate
        for watcher in watchers:
            if playlist.ready and chance.random() < 0.15:
                knows = watcher.last is not None and playlist.segments[0].sequence <= max(watcher.full)
                is_fresh = knows and max(watcher.full) >= playlist.segments[-1].sequence - 1
                text = playlist.write(delta=is_fresh and chance.random() < 0.5).decode()
                found = watcher.take(text)
                assert playlist.has(*found.last_part) or found.last_part[1] < 0
                for entry in found.entries:
                    assert playlist.segment(entry.sequence) is not None
                    assert all(playlist.part(int(part.uri[1:-4])) is not None for part in entry.parts)
                    assert playlist.init(int((entry.map or "")[5:-4])) is not None
    segmenter.on_end(None)
    for watcher in watchers:
        assert watcher.take(playlist.write().decode()).ended


RIGHT = playlist_of(0, 5, open_parts=1).write().decode()


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("#EXTM3U\n#", "#"),
        ("TARGETDURATION:2", "TARGETDURATION:0"),
        ("PART-TARGET=0.217", "PART-TARGET=0.150"),
        ("PART-TARGET=0.217", "PART-TARGET=0.250"),
        ("PART-HOLD-BACK=0.651", "PART-HOLD-BACK=0.6"),
        ("CAN-SKIP-UNTIL=12.0", "CAN-SKIP-UNTIL=11.9"),
        ("EXTINF:1.00000,\n1", "EXTINF:1.10000,\n1"),
        ("#EXT-X-PART-INF:PART-TARGET=0.217\n", ""),
        ("p3.m4s", "p2.m4s"),
        ('#EXT-X-PRELOAD-HINT:TYPE=PART,URI="p6.m4s"\n', ""),
        ("VERSION:9", "VERSION:5"),
        ('#EXT-X-MAP:URI="init-0.mp4"\n', "#EXT-X-SKIP:SKIPPED-SEGMENTS=1\n#EXT-X-SKIP:SKIPPED-SEGMENTS=1\n"),
        ("INDEPENDENT=YES", "INDEPENDENT=NO"),
        ("#EXTINF:1.00000,\n0.m4s", "0.m4s"),
        ("00.000Z", "00Z"),
    ],
)
def test_the_checker_refuses_what_is_wrong(wrong: str, right: str) -> None:
    m3u8.read(RIGHT)
    assert wrong in RIGHT
    with pytest.raises((m3u8.PlaylistError, KeyError)):
        m3u8.read(RIGHT.replace(wrong, right))


def test_the_checker_refuses_what_must_not_change() -> None:
    one, two = playlist_of(0, 5).write().decode(), playlist_of(0, 5, 5).write().decode()
    for later in (
        one,
        two.replace("TARGETDURATION:2", "TARGETDURATION:3").replace("12.0", "18.0"),
        two.replace("MEDIA-SEQUENCE:0", "MEDIA-SEQUENCE:1"),
        two.replace('"p0.m4s"', '"p20.m4s"'),
        two.replace("1970-01-01T00:00:01", "1970-01-01T00:00:09"),
        playlist_of(5, 5, 5).write().decode(),
    ):
        watcher = m3u8.Watcher()
        watcher.take(one if later is not one else two)
        with pytest.raises(m3u8.PlaylistError):
            watcher.take(later)


def test_the_multivariant_playlist_names_codecs_and_size() -> None:
    units = timed_units(PatternSpec(audio=AAC, width=320, height=180, seconds=4))
    stream = published(units, until=len(units))
    segmenter = attached(stream, "mp4")
    text = multivariant(segmenter.playlist, stream.tracks, "x/media.m3u8", frame_rate=25.0)
    assert text.splitlines()[-1] == "x/media.m3u8"
    assert re.search(r'CODECS="avc1\.[0-9a-f]{6},mp4a\.40\.2",RESOLUTION=320x180,FRAME-RATE=25\.000', text)
    (segment,) = segmenter.playlist.segments
    rate = math.ceil(len(segment.data) * 8 / segment.duration)
    assert f"BANDWIDTH={rate},AVERAGE-BANDWIDTH={rate}," in text
    assert m3u8.attributes(text.splitlines()[2].partition(":")[2])["CLOSED-CAPTIONS"] == "NONE"
    spec = PatternSpec(video=H265, audio=None, width=320, height=180, seconds=2)
    assert "hvc1." in multivariant(MediaPlaylist("mp4"), published(timed_units(spec), until=30).tracks, "m")
    assert f"BANDWIDTH={DEFAULT_BANDWIDTH}" in multivariant(MediaPlaylist("mp4"), (), "m")
    assert "BANDWIDTH=999," in multivariant(MediaPlaylist("mp4"), stream.tracks, "m", bitrate=999.0)


def test_the_peak_is_the_peak() -> None:
    chunks = pictures(3)
    segmenter = fed("ts", [*chunks, picture(3.0, key=True, size=20_000), *pictures(1.2, since=76)])
    text = multivariant(segmenter.playlist, (), "m")
    assert "BANDWIDTH=198400,AVERAGE-BANDWIDTH=79600" in text
