"""Feeds: one muxer for all viewers, the same bytes for everyone, and what a viewer sees when the stream changes."""

import pytest

from gbgw._ps import AccessUnit
from gbgw.base import limits
from gbgw.base.codec import AAC, H264, PCMA
from gbgw.base.errors import GatewayError, MediaError, RequestError
from gbgw.base.tally import Tally
from gbgw.media.hub import Stream
from gbgw.mux.container import RefusedError
from gbgw.mux.feed import Chunk, Feeds
from gbgw.mux.pattern import PatternSpec
from tests.support.streams import Viewer, feed, published, read_back, timed_units

PICTURES = PatternSpec(audio=None, width=320, height=180, seconds=4)
SOUND = PatternSpec(audio=PCMA, width=320, height=180, seconds=4)
BIGGER = PatternSpec(audio=None, width=480, height=270, seconds=4)
UNTIL = 40  # units into the second GOP of PICTURES


def shifted(units: list[AccessUnit], by: int) -> list[AccessUnit]:
    return [unit.with_times((unit.pts or 0) + by, (unit.dts or 0) + by) for unit in units]


@pytest.mark.parametrize("name", ["flv", "flv-legacy", "mp4", "ts"])
def test_a_viewer_gets_init_then_the_gop_then_live(name: str) -> None:
    units = timed_units(PICTURES)
    stream = published(units, until=UNTIL)
    viewer = Viewer()
    Feeds().get(stream, name).attach(viewer)
    assert [chunk.is_init for chunk in viewer.chunks] == [True] + [False] * 15  # unit 25 is the key frame
    assert [chunk.starts_gop for chunk in viewer.chunks[1:3]] == [True, False]
    assert viewer.chunks[1].dts == 0
    feed(stream, units[UNTIL:50])
    assert [chunk.dts for chunk in viewer.chunks[1:]] == [3_600 * n for n in range(25)]
    assert [packet.dts for packet in read_back(viewer.data)] == [40 * n for n in range(25)]


def test_every_viewer_shares_the_same_bytes_objects() -> None:
    units = timed_units(PICTURES)
    stream = published(units, until=UNTIL)
    feeds = Feeds()
    early, late = Viewer(), Viewer()
    feeds.get(stream, "flv").attach(early)
    feed(stream, units[UNTIL:60])
    feeds.get(stream, "flv").attach(late)
    feed(stream, units[60:70])
    assert late.chunks[1].starts_gop
    by_dts = {chunk.dts: chunk for chunk in early.chunks if not chunk.is_init}
    assert all(chunk.data is by_dts[chunk.dts].data for chunk in late.chunks[1:])
    assert late.chunks[0].data is early.chunks[0].data
    assert len(feeds.running) == 1


def test_a_feed_runs_only_while_it_has_viewers() -> None:
    units = timed_units(PICTURES)
    stream = published(units, until=UNTIL)
    feeds = Feeds()
    one = feeds.get(stream, "flv")
    assert not one.running
    assert stream.subscriptions == 0
    first, second = one.attach(Viewer()), one.attach(Viewer())
    assert (one.running, one.viewers, stream.subscriptions) == (True, 2, 1)
    first.detach()
    first.detach()
    assert one.running
    second.detach()
    assert (one.running, stream.subscriptions, feeds.running) == (False, 0, ())
    again = Viewer()
    one.attach(again)  # wakes up, with a time line of its own
    assert [chunk.dts for chunk in again.chunks[1:3]] == [0, 3_600]


def test_detach_inside_a_delivery_stops_delivery() -> None:
    units = timed_units(PICTURES)
    stream = published(units, until=UNTIL)
    got: list[Chunk] = []

    class Quitter:
        def on_chunk(self, chunk: Chunk) -> None:
            got.append(chunk)
            if len(got) == 17:
                attachment.detach()

        def on_end(self, cause: GatewayError | None) -> None:
            raise AssertionError("a viewer that left is not told")

    attachment = Feeds().get(stream, "flv").attach(Quitter())
    feed(stream, units[UNTIL:])
    stream.close()
    assert len(got) == 17


def test_a_viewer_that_raises_is_alone_in_it() -> None:
    units = timed_units(PICTURES)
    stream = published(units, until=UNTIL)

    class Broken(Viewer):
        def on_chunk(self, chunk: Chunk) -> None:
            raise RuntimeError("bug")

    tally = Tally()
    one = Feeds(tally=tally).get(stream, "flv")
    good, broken = Viewer(), Broken()
    one.attach(good)
    one.attach(broken)
    feed(stream, units[UNTIL:50])
    assert [cause.code for cause in broken.ends if cause] == ["sink_failed"]
    assert tally["feed.sink_error"] == 1
    assert len(good.chunks) == 26
    assert one.viewers == 1


def test_before_publication_a_viewer_waits() -> None:
    units = timed_units(PICTURES)
    stream = Stream("waiting")
    viewer = Viewer()
    Feeds().get(stream, "mp4").attach(viewer)
    assert viewer.chunks == []
    feed(stream, units[:3])
    assert [chunk.is_init for chunk in viewer.chunks] == [True, False, False, False]


def test_the_end_reaches_everyone_once_and_late_ones_too() -> None:
    units = timed_units(PICTURES)
    stream = published(units, until=UNTIL)
    one = Feeds().get(stream, "flv")
    viewer, late = Viewer(), Viewer()
    one.attach(viewer)
    cause = MediaError("gone", code="media_stopped")
    stream.close(cause)
    stream.close(cause)
    one.attach(late)
    assert viewer.ends == [cause]
    assert late.ends == [cause]
    assert not one.running


def test_ts_gives_its_held_unit_at_the_end() -> None:
    units = timed_units(PatternSpec(audio=AAC, width=320, height=180, seconds=2))
    stream = published(units, until=len(units))
    viewer = Viewer()
    Feeds().get(stream, "ts").attach(viewer)
    stream.close()
    pictures = [unit for unit, track in published(units, until=len(units)).gop if track.is_video]
    assert len([packet for packet in read_back(viewer.data) if packet.kind == "video"]) == len(pictures)


def test_new_tracks_are_spliced_into_flv_and_end_http_mp4() -> None:
    stream = published(timed_units(PICTURES), until=UNTIL)
    feeds = Feeds()
    flv, mp4, hls = Viewer(), Viewer(), Viewer()
    feeds.get(stream, "flv").attach(flv)
    feeds.get(stream, "mp4").attach(mp4)
    feeds.get(stream, "mp4").attach(hls, splice=True)
    feed(stream, shifted(timed_units(BIGGER), 90_000 * 4)[:30])
    assert stream.generation == 2
    assert [chunk.is_init for chunk in flv.chunks].count(True) == 2
    splice = next(index for index, chunk in enumerate(flv.chunks) if chunk.is_init and index)
    assert not flv.chunks[splice].data.startswith(b"FLV")
    assert flv.chunks[splice + 1].starts_gop
    assert (flv.chunks[splice].generation, flv.chunks[splice + 1].generation) == (2, 2)
    assert [cause.code for cause in mp4.ends if cause] == ["tracks_changed"]
    assert hls.ends == []
    inits = [chunk.data for chunk in hls.chunks if chunk.is_init]
    assert len(inits) == 2
    assert inits[0] != inits[1]
    sizes = {(p.kind, p.is_keyframe) for p in read_back(inits[1] + b"".join(c.data for c in hls.chunks[-20:]))}
    assert ("video", False) in sizes
    newcomer = Viewer()
    feeds.get(stream, "flv").attach(newcomer)
    assert newcomer.chunks[0].data.startswith(b"FLV")
    assert newcomer.chunks[1].generation == 2


def test_a_codec_that_no_container_of_this_kind_takes_is_refused_with_its_name() -> None:
    stream = Stream("sound only")
    for number in range(40):
        unit = AccessUnit(bytes(320), PCMA, number * 3_600, number * 3_600, is_keyframe=True, track_id=0xC0)
        stream.push(unit, number * 0.04)
        stream.poll(number * 0.04)
    assert stream.published
    viewer = Viewer()
    Feeds().get(stream, "mp4").attach(viewer)
    (cause,) = viewer.ends
    assert cause is not None
    assert cause.code == "codec_unsupported"
    assert "PCMA" in cause.message
    heard = Viewer()
    Feeds().get(stream, "flv").attach(heard)
    stream.push(AccessUnit(bytes(320), PCMA, 144_000, 144_000, is_keyframe=True, track_id=0xC0), 1.6)
    assert all(chunk.starts_gop for chunk in heard.chunks[1:])
    assert len(heard.chunks) >= 2


def test_g711_is_left_out_of_mp4_and_kept_in_flv() -> None:
    units = timed_units(SOUND)
    stream = published(units, until=len(units))
    feeds = Feeds()
    flv, mp4 = Viewer(), Viewer()
    feeds.get(stream, "flv").attach(flv)
    feeds.get(stream, "mp4").attach(mp4)
    assert {packet.codec for packet in read_back(flv.data)} == {"h264", "pcm_alaw"}
    assert {packet.codec for packet in read_back(mp4.data)} == {"h264"}


def test_sound_from_before_the_first_picture_is_left_out() -> None:
    units = timed_units(SOUND)
    stream = published(units, until=len(units))
    tally = Tally()
    viewer = Viewer()
    Feeds(tally=tally).get(stream, "flv").attach(viewer)
    last = units[-1].dts or 0
    stream.push(AccessUnit(bytes(320), PCMA, 0, 0, is_keyframe=True, track_id=0xC0), last / 90_000)
    assert tally["feed.before_start"] == 1
    assert all((chunk.dts or 0) >= 0 for chunk in viewer.chunks)


def test_after_a_hole_a_new_viewer_is_not_shown_what_follows_it() -> None:
    units = timed_units(PICTURES)
    stream = published(units, until=UNTIL)
    feeds = Feeds()
    early, late = Viewer(), Viewer()
    feeds.get(stream, "flv").attach(early)
    damaged = units[45]
    unit = AccessUnit(bytes(damaged), H264, damaged.pts, damaged.dts, discontinuity=True)
    feed(stream, [unit, *units[46:48]])
    feeds.get(stream, "flv").attach(late)
    before = len(late.chunks)
    assert late.chunks[-1].dts < (damaged.dts or 0) - (units[25].dts or 0)
    feed(stream, units[48:50])
    assert len(late.chunks) == before
    feed(stream, units[50:53])
    assert late.chunks[before].starts_gop
    assert len(early.chunks) > len(late.chunks)


def test_a_gop_too_long_to_keep_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    units = timed_units(PICTURES)
    stream = published(units, until=26)
    feeds = Feeds()
    early, late = Viewer(), Viewer()
    feeds.get(stream, "flv").attach(early)
    monkeypatch.setattr(limits, "GOP_CACHE_BYTES", 2_000)
    feed(stream, units[26:49])
    feeds.get(stream, "flv").attach(late)
    assert [chunk.is_init for chunk in late.chunks] == [True]
    monkeypatch.undo()
    feed(stream, units[49:52])
    assert [chunk.starts_gop for chunk in late.chunks[1:]] == [True, False]
    assert len(early.chunks) == 1 + 27


def test_what_ffmpeg_refuses_costs_that_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    units = timed_units(PICTURES)
    stream = published(units, until=UNTIL)
    tally = Tally()
    viewer = Viewer()
    Feeds(tally=tally).get(stream, "ts").attach(viewer)
    before = len(viewer.chunks)
    last = units[UNTIL]
    # Decoding time that steps back, which the Timeline never lets through.
    feed(stream, [AccessUnit(bytes(last), H264, last.pts, (units[30].dts or 0)), last])
    assert tally["feed.mux_refused"] == 1
    assert len(viewer.chunks) == before + 1


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(RequestError) as caught:
        Feeds().get(Stream("x"), "avi")
    assert (caught.value.status, caught.value.code) == (404, "format_unknown")


def test_parameters_that_ffmpeg_refuses_end_the_feed_with_a_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RefusedError(22, "Invalid argument")

    monkeypatch.setattr("gbgw.mux.feed.open_writer", refuse)
    stream = published(timed_units(PICTURES), until=UNTIL)
    viewer = Viewer()
    one = Feeds().get(stream, "flv")
    one.attach(viewer)
    assert [cause.code for cause in viewer.ends if cause] == ["parameters_unusable"]
    assert not one.running
    assert stream.subscriptions == 0
