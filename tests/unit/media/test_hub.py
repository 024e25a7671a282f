from collections.abc import Callable
from typing import Any

import pytest

from gbgw._ps import AccessUnit
from gbgw.base import limits
from gbgw.base.access_unit import AccessUnit as Unit
from gbgw.base.codec import AAC, H264, H265, PCMA, by_name
from gbgw.base.errors import GatewayError, MediaError
from gbgw.base.tally import Tally
from gbgw.media.hub import QueuedSubscription, Stream, Subscription
from gbgw.media.track import Track
from tests.support import nal

SETS = (nal.h264_sps(reorder=0), nal.h264_pps())
OTHER_SETS = (nal.h264_sps(reorder=0, width_mbs=40), nal.h264_pps())
FRAME = 3_600


class Recorder:
    """A sink that writes down what it is told; `then` is done on each unit."""

    def __init__(self, then: Callable[[], None] | None = None) -> None:
        self.events: list[Any] = []
        self.units: list[Unit] = []
        self.then = then

    def on_tracks(self, tracks: tuple[Track, ...], generation: int) -> None:
        self.events.append(("tracks", generation, tracks))

    def on_unit(self, unit: Unit, track: Track) -> None:
        self.events.append((bytes(unit).decode(), track.track_id))
        self.units.append(unit)
        if self.then is not None:
            self.then()

    def on_end(self, cause: GatewayError | None) -> None:
        self.events.append(("end", cause))

    @property
    def names(self) -> list[str]:
        return [event[0] for event in self.events]


def key(
    name: str, at: int = 0, sets: tuple[bytes, ...] = SETS, *, codec: Any = H264, track_id: int = 0xE0
) -> AccessUnit:
    time = at * FRAME
    return AccessUnit(name.encode(), codec, time, time, is_keyframe=True, parameter_sets=sets, track_id=track_id)


def picture(name: str, at: int, *, pts: int | None = None, hole: bool = False, track_id: int = 0xE0) -> AccessUnit:
    shown = at if pts is None else pts
    return AccessUnit(name.encode(), H264, shown * FRAME, at * FRAME, discontinuity=hole, track_id=track_id)


def sound(name: str, at: int = 0, *, codec: Any = PCMA, config: bytes = b"", track_id: int = 0xC0) -> AccessUnit:
    sets = (config,) if config else ()
    return AccessUnit(
        name.encode(), codec, at * FRAME, at * FRAME, is_keyframe=True, parameter_sets=sets, track_id=track_id
    )


def published(*units: AccessUnit) -> Stream:
    stream = Stream("cam")
    for at, unit in enumerate(units):
        stream.push(unit, at * 0.04)
    assert stream.published
    return stream


class TestLeadingPictures:
    """Shown before a key frame and decoded after it: of no use to a sink that has nothing from before it."""

    OPEN_GOP = (key("K", 4), picture("b", 5, pts=2), picture("c", 6, pts=3), picture("P", 7))

    def test_who_was_there_gets_them(self) -> None:
        stream = published(key("I"), picture("p", 1))
        sink = Recorder()
        stream.attach(sink)
        for unit in self.OPEN_GOP:
            stream.push(unit, 1.0)
        assert sink.names[1:] == ["I", "p", "K", "b", "c", "P"]

    @pytest.mark.parametrize("before", [1, 2, 3, 4])
    def test_who_comes_in_at_the_key_frame_does_not(self, before: int) -> None:
        stream = published(key("I"), picture("p", 1))
        for unit in self.OPEN_GOP[:before]:
            stream.push(unit, 1.0)
        sink = Recorder()
        stream.attach(sink)
        for unit in self.OPEN_GOP[before:]:
            stream.push(unit, 1.0)
        stream.push(picture("q", 8), 1.0)
        assert sink.names[1:] == ["K", "P", "q"]

    def test_nor_who_waits_for_it(self) -> None:
        stream = published(key("I"), picture("p", 1))
        sink = Recorder()
        stream.attach(sink, replay=False)
        for unit in (picture("x", 2), *self.OPEN_GOP[:2], sound("a", 5), *self.OPEN_GOP[2:], picture("q", 8, pts=6)):
            stream.push(unit, 1.0)
        assert sink.names[1:] == ["K", "P", "q"]
        stream.push(key("L", 12), 1.0)
        stream.push(picture("d", 13, pts=11), 1.0)
        assert sink.names[-2:] == ["L", "d"]


class TestPublication:
    def test_waits_for_a_key_frame_with_parameter_sets(self) -> None:
        calls: list[Stream] = []
        stream = Stream("cam", on_published=calls.append)
        stream.push(picture("p", 0), 0.0)
        stream.push(key("bare", 1, ()), 0.04)
        stream.push(key("half", 2, SETS[:1]), 0.08)
        assert not stream.published
        assert stream.tally["hub.no_parameter_sets"] == 2
        stream.push(key("i", 3, SETS[1:]), 0.12)
        assert stream.published
        assert calls == [stream]
        assert stream.tracks == (Track(0xE0, H264, SETS, width=320, height=240),)
        assert (stream.generation, stream.video, stream.audio) == (1, stream.tracks[0], None)

    def test_h265_needs_its_vps(self) -> None:
        sets = (nal.h265_vps(), nal.h265_sps(), nal.h265_pps())
        stream = Stream("cam")
        stream.push(key("i", 0, sets[1:], codec=H265), 0.0)
        assert not stream.published
        stream.push(key("i", 1, sets, codec=H265), 1.0)
        assert stream.tracks == (Track(0xE0, H265, sets, width=1_920, height=1_080, reorder_depth=2),)

    def test_parameter_sets_are_put_in_order_and_counted_once(self) -> None:
        stream = published(key("i", 0, (SETS[1], SETS[0], SETS[1], SETS[0])))
        assert stream.tracks[0].parameter_sets == SETS

    def test_promised_audio_is_waited_for(self) -> None:
        stream = Stream("cam")
        sink = Recorder()
        stream.attach(sink)
        stream.promise(True)
        stream.push(key("i", 0), 10.0)
        stream.push(picture("p", 1), 10.04)
        assert not stream.published
        assert stream.deadline == 10.5
        stream.push(sound("a", 1), 10.05)
        assert stream.published
        assert stream.deadline is None
        assert sink.names == ["tracks", "i", "p", "a"]
        assert [track.codec for track in stream.tracks] == [H264, PCMA]

    def test_promised_audio_that_never_comes_costs_half_a_second(self) -> None:
        stream = Stream("cam")
        sink = Recorder()
        stream.attach(sink)
        stream.promise(True)
        stream.push(key("i", 0), 10.0)
        stream.poll(10.49)
        assert not stream.published
        stream.poll(10.5)
        assert stream.published
        assert sink.names == ["tracks", "i"]

    def test_time_is_up_in_push_too(self) -> None:
        stream = Stream("cam")
        stream.promise(True)
        stream.push(key("i", 0), 10.0)
        stream.push(key("j", 1), 10.6)
        assert stream.published

    def test_audio_only(self) -> None:
        stream = Stream("cam")
        sink = Recorder()
        stream.attach(sink)
        stream.push(sound("a"), 1.0)
        assert stream.deadline == 1.5
        stream.push(sound("b", 1), 1.4)
        assert not stream.published
        stream.push(sound("c", 2), 1.5)
        stream.push(sound("d", 3), 1.54)
        assert stream.tracks == (Track(0xC0, PCMA, sample_rate=8_000, channels=1),)
        assert sink.names == ["tracks", "d"]
        late = Recorder()
        stream.attach(late, replay=False)
        stream.push(sound("e", 4), 1.6)
        assert late.names == ["tracks", "e"]

    def test_sound_does_not_go_first_where_video_is_promised_or_seen(self) -> None:
        promised, seen = Stream("a"), Stream("b")
        promised.promise(True, video=True)
        seen.push(picture("p", 0), 0.0)
        for stream in (promised, seen):
            stream.push(sound("a"), 0.0)
            stream.push(sound("b", 1), 5.0)
            assert not stream.published
            assert stream.deadline is None

    def test_aac_is_known_by_its_config(self) -> None:
        stream = Stream("cam")
        stream.promise(True)
        stream.push(key("i"), 0.0)
        stream.push(sound("a", codec=AAC), 0.0)
        assert not stream.published
        stream.push(sound("a", codec=AAC, config=b"\x12\x10"), 0.0)
        assert stream.audio == Track(0xC0, AAC, config=b"\x12\x10", sample_rate=44_100, channels=2)

    def test_damaged_parameter_sets_are_counted_and_not_believed(self) -> None:
        stream = Stream("cam")
        stream.push(key("i", 0, (SETS[0][:5], SETS[1], b"\x65")), 0.0)
        assert not stream.published
        assert stream.tally["hub.bad_parameter_sets"] == 1
        stream.push(key("i", 1), 0.0)
        stream.push(key("i", 2, (SETS[0][:5], SETS[1])), 0.0)
        assert stream.generation == 1
        assert stream.tracks[0].parameter_sets == SETS

    def test_parameter_sets_are_bounded(self) -> None:
        stream = published(key("i"))
        for number in range(200):
            stream.push(picture("p", number + 1), 0.0)
            unit = AccessUnit(b"p", H264, number * FRAME, number * FRAME, parameter_sets=(nal.h264_pps(number),))
            stream.push(unit, 0.0)
        stream.push(key("k", 300), 0.0)
        assert len(stream.tracks[0].parameter_sets) == limits.PARAMETER_SETS


class TestWhoeverOwnsIt:
    def test_hears_of_other_tracks_before_viewers_do(self) -> None:
        stream = published(key("i"))
        sink = Recorder()
        stream.attach(sink)
        heard: list[tuple[int, int]] = []
        stream.on_tracks = lambda: heard.append((stream.tracks[0].track_id, sink.names.count("tracks")))
        stream.push(key("other", 1, track_id=0xE1), 6.0)
        assert (heard, sink.names.count("tracks")) == ([(0xE1, 1)], 2)


class TestSurplus:
    def test_a_second_video_is_dropped(self) -> None:
        stream = published(key("i"))
        sink = Recorder()
        stream.attach(sink)
        stream.push(key("other", 1, track_id=0xE1), 0.1)
        assert sink.names == ["tracks", "i"]
        assert stream.tally["hub.surplus_track"] == 1

    def test_the_second_takes_over_when_the_first_is_silent(self) -> None:
        stream = published(key("i"))
        sink = Recorder()
        stream.attach(sink)
        stream.push(key("other", 1, track_id=0xE1), 6.0)
        assert stream.generation == 2
        assert sink.events[-1] == ("other", 0xE1)
        stream.push(picture("ghost", 2), 6.1)
        assert stream.tally["hub.surplus_track"] == 1

    def test_unsupported_codecs_are_named(self) -> None:
        said: list[tuple[str, int, str]] = []
        stream = Stream("cam", tally=Tally(listener=lambda *line: said.append(line)))
        stream.push(AccessUnit(b"x", by_name("SVAC"), 0, 0), 1.0)
        assert said == [("hub.unsupported", 1, "SVAC")]
        assert stream.units == 0

    def test_units_without_times_are_not_let_in(self) -> None:
        stream = Stream("cam")
        stream.push(AccessUnit(b"x", H264, None, None, is_keyframe=True, parameter_sets=SETS), 0.0)
        assert not stream.published
        assert stream.tally["hub.untimed"] == 1


class TestGenerations:
    def test_the_same_sets_again_are_no_change(self) -> None:
        stream = published(key("i"))
        sink = Recorder()
        stream.attach(sink)
        stream.push(key("j", 1, tuple(bytes(bytearray(found)) for found in SETS)), 0.1)
        stream.push(key("k", 2, SETS[:1]), 0.2)
        stream.push(key("l", 3, ()), 0.3)
        assert sink.names == ["tracks", "i", "j", "k", "l"]

    def test_another_size_is_a_new_generation_from_its_key_frame(self) -> None:
        stream = published(key("i"))
        sink = Recorder()
        stream.attach(sink)
        stream.push(AccessUnit(b"p", H264, FRAME, FRAME, parameter_sets=OTHER_SETS), 0.1)
        assert stream.generation == 1
        stream.push(key("j", 2, ()), 0.2)
        assert sink.names == ["tracks", "i", "p", "tracks", "j"]
        assert sink.events[3][1:] == (2, (Track(0xE0, H264, OTHER_SETS, width=640, height=240),))
        late = Recorder()
        stream.attach(late)
        assert late.events == sink.events[3:]

    def test_sets_that_come_ahead_of_their_key_frame_leave_the_cache_in_order(self) -> None:
        stream = published(key("i"))
        stream.push(AccessUnit(b"p", H264, FRAME, FRAME, parameter_sets=OTHER_SETS), 0.1)
        stream.push(picture("q", 2), 0.1)
        sink = Recorder()
        stream.attach(sink)
        assert sink.names == ["tracks", "i", "p", "q"]
        assert {track for _, track in stream.gop} == set(stream.tracks)

    def test_sets_that_change_before_publication_cost_the_cached_gop(self) -> None:
        stream = Stream("cam")
        sink = Recorder()
        stream.attach(sink)
        stream.promise(True)
        stream.push(key("i"), 0.0)
        stream.push(AccessUnit(b"p", H264, FRAME, FRAME, parameter_sets=OTHER_SETS), 0.1)
        stream.push(sound("a", 1), 0.1)
        stream.push(picture("q", 2), 0.2)
        stream.push(key("j", 3), 0.3)
        stream.push(key("k", 4, OTHER_SETS), 0.4)
        assert sink.names == ["tracks", "tracks", "j", "tracks", "k"]

    def test_late_audio_joins_at_the_next_key_frame(self) -> None:
        stream = published(key("i"))
        sink = Recorder()
        stream.attach(sink)
        stream.push(sound("a", 1), 0.1)
        stream.push(picture("p", 1), 0.1)
        stream.push(key("j", 2), 0.2)
        stream.push(sound("b", 2), 0.2)
        assert sink.names == ["tracks", "i", "p", "tracks", "j", "b"]

    def test_audio_that_stops_leaves_at_a_key_frame(self) -> None:
        stream = published(key("i"), sound("a"), key("j", 1))
        assert len(stream.tracks) == 2
        stream.push(key("k", 2), 1.0)
        assert stream.generation == 2
        stream.push(key("l", 3), 7.0)
        assert (stream.generation, len(stream.tracks)) == (3, 1)

    def test_another_codec_on_the_same_id(self) -> None:
        stream = published(key("i"))
        sink = Recorder()
        stream.attach(sink)
        sets = (nal.h265_vps(), nal.h265_sps(), nal.h265_pps())
        stream.push(AccessUnit(b"p", H265, FRAME, FRAME), 0.1)
        late = Recorder()
        stream.attach(late)
        stream.push(AccessUnit(b"q", H265, 2 * FRAME, 2 * FRAME), 0.1)
        stream.push(key("j", 2, sets, codec=H265), 0.2)
        assert sink.names == ["tracks", "i", "tracks", "j"]
        assert late.names == ["tracks", "tracks", "j"]
        assert stream.video is not None
        assert stream.video.codec is H265

    def test_video_joins_an_audio_only_stream(self) -> None:
        stream = published(sound("a"), *[sound("b", at) for at in range(1, 15)])
        sink = Recorder()
        stream.attach(sink)
        stream.push(key("i", 20), 0.8)
        stream.push(sound("c", 21), 0.84)
        assert sink.names == ["tracks", "tracks", "i", "c"]

    def test_changed_audio_config_of_an_audio_only_stream(self) -> None:
        first = sound("a", codec=AAC, config=b"\x12\x10")
        stream = Stream("cam")
        stream.push(first, 0.0)
        stream.push(first, 1.0)
        sink = Recorder()
        stream.attach(sink)
        stream.push(sound("b", 30, codec=AAC, config=b"\x11\x90"), 1.1)
        assert sink.names == ["tracks", "tracks", "b"]
        assert stream.tracks[0].sample_rate == 48_000

    def test_reordering_that_is_seen_is_told(self) -> None:
        plain = (nal.h264_sps(), nal.h264_pps())
        stream = published(key("i", 0, plain))
        assert stream.tracks[0].reorder_depth == 0
        stream.push(picture("p", 1, pts=4), 0.1)
        stream.push(picture("b", 2, pts=3), 0.1)
        stream.push(picture("c", 3, pts=2), 0.1)
        assert stream.generation == 1
        stream.push(key("j", 5, ()), 0.2)
        assert stream.generation == 2
        assert stream.tracks[0].reorder_depth == 2


class TestSinks:
    def test_a_new_sink_starts_with_the_cached_gop(self) -> None:
        stream = published(
            key("old"), sound("a"), key("i", 1), picture("p", 2), key("k", 3), sound("b", 3), picture("q", 4)
        )
        sink = Recorder()
        stream.attach(sink)
        assert sink.names == ["tracks", "k", "b", "q"]
        assert [bytes(unit) for unit, _ in stream.gop] == [b"k", b"b", b"q"]
        stream.push(picture("r", 5), 1.0)
        assert sink.names[-1] == "r"
        assert [unit is other for unit, (other, _) in zip(sink.units, stream.gop, strict=True)] == [True] * 4

    def test_without_replay_the_next_key_frame_is_first(self) -> None:
        stream = published(key("i"), sound("a"), key("j", 1))
        sink = Recorder()
        stream.attach(sink, replay=False)
        stream.push(picture("p", 2), 0.1)
        stream.push(sound("b", 2), 0.1)
        stream.push(key("k", 3), 0.2)
        stream.push(sound("c", 3), 0.2)
        assert sink.names == ["tracks", "k", "c"]

    def test_without_replay_before_publication(self) -> None:
        stream = Stream("cam")
        sink = Recorder()
        stream.attach(sink, replay=False)
        stream.promise(True)
        stream.push(key("i"), 0.0)
        stream.push(sound("a"), 0.1)
        assert sink.names == ["tracks"]
        stream.push(key("j", 1), 0.2)
        assert sink.names == ["tracks", "j"]

    def test_without_replay_on_what_turns_out_to_be_sound(self) -> None:
        stream = Stream("cam")
        sink = Recorder()
        stream.attach(sink, replay=False)
        stream.push(sound("a"), 0.0)
        stream.push(sound("b", 1), 0.6)
        stream.push(sound("c", 2), 0.7)
        assert sink.names == ["tracks", "c"]

    def test_detach_is_idempotent_and_at_once(self) -> None:
        stream = published(key("i"))
        sink = Recorder()
        subscription = stream.attach(sink)
        subscription.detach()
        subscription.detach()
        stream.push(picture("p", 1), 0.1)
        stream.close()
        assert sink.names == ["tracks", "i"]
        assert not subscription.attached
        assert stream.subscriptions == 0

    def test_a_sink_may_detach_others_and_itself_during_a_publish(self) -> None:
        stream = published(key("i"))
        subscriptions: list[Subscription] = []
        sinks = [Recorder(lambda: [other.detach() for other in subscriptions] and None) for _ in range(3)]
        for sink in sinks:
            subscriptions.append(stream.attach(sink, replay=False))
        stream.push(key("j", 1), 0.1)
        assert [sink.names for sink in sinks] == [["tracks", "j"], ["tracks"], ["tracks"]]

    def test_a_sink_attached_during_a_publish_gets_the_unit_once(self) -> None:
        stream = published(key("i"))
        late = Recorder()
        first = Recorder(lambda: None)
        stream.attach(first)
        first.then = lambda: None if late.events else (stream.attach(late), None)[1]
        stream.push(picture("p", 1), 0.1)
        stream.push(picture("q", 2), 0.1)
        assert late.names == ["tracks", "i", "p", "q"]

    def test_detach_inside_the_replay(self) -> None:
        stream = published(key("i"), picture("p", 1), picture("q", 2))

        class Leaves(Recorder):
            def on_unit(self, unit: Unit, track: Track) -> None:
                super().on_unit(unit, track)
                stream._subscriptions[0].detach()

        sink = Leaves()
        subscription = stream.attach(sink)
        stream.push(key("k", 3), 0.2)
        assert sink.names == ["tracks", "i"]
        assert not subscription.attached

    @pytest.mark.parametrize("place", ["on_tracks", "replay", "live", "on_end"])
    def test_a_sink_that_raises_pays_alone(self, place: str) -> None:
        class Faulty(Recorder):
            def on_tracks(self, tracks: tuple[Track, ...], generation: int) -> None:
                super().on_tracks(tracks, generation)
                assert place != "on_tracks"

            def on_unit(self, unit: Unit, track: Track) -> None:
                super().on_unit(unit, track)
                assert not (place == "replay" and bytes(unit) == b"i")
                assert not (place == "live" and bytes(unit) == b"p")

            def on_end(self, cause: GatewayError | None) -> None:
                super().on_end(cause)
                assert place != "on_end"

        stream = published(key("i"))
        before, faulty, after = Recorder(), Faulty(), Recorder()
        for sink in (before, faulty, after):
            stream.attach(sink)
        stream.push(picture("p", 1), 0.1)
        stream.push(picture("q", 2), 0.1)
        stream.close()
        assert before.names == after.names == ["tracks", "i", "p", "q", "end"]
        assert stream.tally["hub.sink_error"] == 1
        seen = {"on_tracks": 1, "replay": 2, "live": 3, "on_end": 4}[place]
        assert faulty.names == [*["tracks", "i", "p", "q"][:seen], "end"]
        assert faulty.names.count("end") == 1
        if place != "on_end":
            assert faulty.events[-1][1].code == "sink_failed"

    def test_close_tells_everyone_once_and_why(self) -> None:
        stream = published(key("i"))
        sink = Recorder()
        stream.attach(sink)
        cause = MediaError("The camera stopped.", code="media_stopped")
        stream.close(cause)
        stream.close()
        stream.push(key("j", 1), 0.1)
        assert sink.events[-1] == ("end", cause)
        assert sink.names.count("end") == 1
        assert (stream.ended, stream.cause, list(stream.gop), stream.deadline) == (True, cause, [], None)
        late = Recorder()
        assert not stream.attach(late).attached
        assert late.events == [("end", cause)]


class TestGopCache:
    def test_nothing_from_behind_a_hole_is_replayed(self) -> None:
        stream = published(key("i"), picture("p", 1))
        live = Recorder()
        stream.attach(live)
        stream.push(picture("broken", 3, hole=True), 0.2)
        stream.push(picture("q", 4), 0.2)
        late = Recorder()
        stream.attach(late)
        stream.push(picture("r", 5), 0.3)
        stream.push(key("k", 6), 0.3)
        assert live.names == ["tracks", "i", "p", "broken", "q", "r", "k"]
        assert late.names == ["tracks", "i", "p", "k"]
        assert stream.tally["hub.gop_hole"] == 1

    def test_a_key_frame_after_a_hole_is_whole(self) -> None:
        stream = published(key("i"))
        unit = AccessUnit(b"k", H264, FRAME, FRAME, is_keyframe=True, parameter_sets=SETS, discontinuity=True)
        stream.push(unit, 0.1)
        sink = Recorder()
        stream.attach(sink)
        assert sink.names == ["tracks", "k"]
        assert stream.gop_open

    def test_is_bounded_in_bytes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "GOP_CACHE_BYTES", 100)
        stream = published(key("i"), *[picture("p" * 20, at) for at in range(1, 5)])
        assert len(stream.gop) == 5
        stream.push(picture("p" * 20, 5), 0.2)
        assert stream.gop == ()
        assert stream.tally["hub.gop_cut"] == 1
        sink = Recorder()
        stream.attach(sink)
        stream.push(picture("q", 6), 0.3)
        stream.push(key("k", 7), 0.3)
        assert sink.names == ["tracks", "k"]

    def test_is_bounded_in_seconds(self) -> None:
        stream = published(key("i"))
        for at in range(1, int(limits.GOP_CACHE_SECONDS * 25) + 1):
            stream.push(picture("p", at), at * 0.04)
        assert len(stream.gop) == int(limits.GOP_CACHE_SECONDS * 25) + 1
        stream.push(picture("p", 751), 30.04)
        assert stream.gop == ()


def test_figures() -> None:
    stream = Stream("cam")
    assert stream.frame_rate == stream.bitrate(5.0) == 0.0
    for at in range(101):
        name = "x" * 1_000
        stream.push(key(name, at) if at % 50 == 0 else picture(name, at), 100 + at * 0.04)
    assert (stream.units, stream.bytes, stream.keyframes) == (101, 101_000, 3)
    assert stream.last_unit_at == pytest.approx(104.0)
    assert stream.bitrate(104.0) == pytest.approx(25 * 1_000 * 8, rel=0.15)
    assert stream.bitrate(105.0) == pytest.approx(25 * 1_000 * 4, rel=0.3)
    assert stream.bitrate(110.0) == 0.0
    assert stream.frame_rate == pytest.approx(25.0)
    assert stream.gop_seconds == 2.0


class TestQueue:
    def test_units_come_out_in_order_with_their_track(self) -> None:
        woken: list[int] = []
        queue = QueuedSubscription(wake=lambda: woken.append(1))
        stream = published(key("i"), picture("p", 1))
        stream.attach(queue)
        assert len(queue) == 2
        assert woken == [1]
        taken = queue.take()
        assert [(bytes(found.unit), found.track, found.generation) for found in taken] == [
            (b"i", stream.tracks[0], 1),
            (b"p", stream.tracks[0], 1),
        ]
        assert queue.take() == []
        stream.push(key("j", 2, OTHER_SETS), 0.1)
        assert [(found.generation, found.track.width) for found in queue.take()] == [(2, 640)]
        stream.close()
        assert queue.ended
        assert len(woken) == 3

    def test_a_slow_reader_skips_to_a_key_frame(self) -> None:
        tally = Tally()
        queue = QueuedSubscription(max_bytes=100, tally=tally)
        stream = published(key("i"))
        stream.attach(queue)
        queue.take()
        for at in range(1, 8):
            stream.push(picture("p" * 20, at), 0.1)
        assert len(queue) == 0
        assert queue.dropped == 7
        stream.push(sound("a", 8), 0.1)
        stream.push(key("k", 9), 0.1)
        stream.push(picture("q", 10), 0.1)
        assert [bytes(found.unit) for found in queue.take()] == [b"k", b"q"]
        assert tally["hub.slow_reader"] == queue.dropped == 7

    def test_a_key_frame_in_the_queue_is_kept(self) -> None:
        queue = QueuedSubscription(max_bytes=100)
        stream = published(key("i"))
        stream.attach(queue)
        queue.take()
        stream.push(picture("p" * 60, 1), 0.1)
        stream.push(key("k", 2), 0.1)
        stream.push(picture("q" * 60, 3), 0.1)
        assert [bytes(found.unit)[:1] for found in queue.take()] == [b"k", b"q"]
        assert queue.dropped == 1

    def test_one_unit_larger_than_the_queue_passes(self) -> None:
        queue = QueuedSubscription(max_bytes=10)
        stream = published(key("i" * 50))
        stream.attach(queue)
        queue.take()
        stream.push(key("k" * 50, 1), 0.1)
        assert len(queue.take()) == 1

    def test_the_first_burst_may_be_a_whole_gop(self) -> None:
        queue = QueuedSubscription(max_bytes=10)
        stream = published(key("i" * 50), *[picture("p" * 50, at) for at in range(1, 10)])
        stream.attach(queue)
        assert len(queue.take()) == 10
        assert queue.dropped == 0

    def test_sound_alone_drops_the_oldest(self) -> None:
        queue = QueuedSubscription(max_bytes=10)
        track = Track(0xC0, PCMA, sample_rate=8_000, channels=1)
        queue.on_tracks((track,), 1)
        queue.take()
        for name in "abcd":
            queue.on_unit(sound(name * 4), track)
        assert [bytes(found.unit) for found in queue.take()] == [b"cccc", b"dddd"]
