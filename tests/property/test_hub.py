"""Whatever comes in and whoever comes and goes, every sink sees a stream that a decoder can start with."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gbgw._ps import AccessUnit
from gbgw.base import limits
from gbgw.base.access_unit import AccessUnit as Unit
from gbgw.base.codec import H264, PCMA
from gbgw.base.errors import GatewayError
from gbgw.media.hub import QueuedSubscription, Stream, Subscription
from gbgw.media.track import Track
from tests.support import nal

SIZES = [(nal.h264_sps(reorder=0, width_mbs=width), nal.h264_pps()) for width in (10, 20)]


class Viewer:
    """Judges what it gets. Every unit carries its number and that of the unit it needs, in its bytes."""

    def __init__(self, fragile: bool) -> None:
        self.fragile = fragile
        self.generation = 0
        self.tracks: tuple[Track, ...] = ()
        self.last: int | None = None  # number of the last picture
        self.last_unit: int = -1
        self.waiting = True
        self.ends = 0
        self.complaints: list[str] = []  # kept, for the hub catches what a sink raises

    def expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.complaints.append(otherwise)

    def on_tracks(self, tracks: tuple[Track, ...], generation: int) -> None:
        self.expect(bool(tracks), "no tracks")
        self.expect(generation > self.generation, "an old generation")
        self.expect(not self.ends, "tracks after the end")
        self.tracks, self.generation, self.waiting = tracks, generation, any(track.is_video for track in tracks)

    def on_unit(self, unit: Unit, track: Track) -> None:
        self.expect(track in self.tracks, "a unit of no track")
        self.expect(not self.ends, "a unit after the end")
        number, needs = (int(field) for field in bytes(unit).split())
        self.expect(number > self.last_unit, "out of order")
        self.last_unit = number
        if track.is_video:
            if unit.is_keyframe:
                self.waiting = False
            else:
                self.expect(not self.waiting, "no key frame first")
                self.expect(unit.discontinuity or needs == self.last, "a picture without the one before it")
            self.last = number
        else:
            self.expect(not self.waiting, "sound before the key frame")
        if self.fragile and number % 7 == 0:
            raise RuntimeError("on purpose")

    def on_end(self, cause: GatewayError | None) -> None:
        self.ends += 1


class Hub(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.stream = Stream("cam")
        self.now = 0.0
        self.number = 0
        self.picture = -1
        self.viewers: list[tuple[Viewer, Subscription]] = []
        self.queue = QueuedSubscription(max_bytes=60)
        self.stream.attach(self.queue)
        self.detached: dict[int, int] = {}

    def _push(self, codec_is_video: bool, key: bool, sets: tuple[bytes, ...], hole: bool) -> None:
        self.number += 1
        self.now += 0.04
        data = f"{self.number} {self.picture}".encode()
        time = self.number * 3_600
        if codec_is_video:
            unit = AccessUnit(data, H264, time, time, is_keyframe=key, parameter_sets=sets, discontinuity=hole)
            self.picture = self.number
        else:
            unit = AccessUnit(data, PCMA, time, time, is_keyframe=True, track_id=0xC0, discontinuity=hole)
        self.stream.push(unit, self.now)

    @rule(size=st.sampled_from((0, 1, None)), hole=st.booleans())
    def key_frame(self, size: int | None, hole: bool) -> None:
        self._push(True, True, SIZES[size] if size is not None else (), hole)

    @rule(count=st.integers(1, 5), size=st.sampled_from((0, 1, None, None)))
    def pictures(self, count: int, size: int | None) -> None:
        for _ in range(count):
            self._push(True, False, SIZES[size] if size is not None else (), False)

    @rule()
    def hole(self) -> None:
        self.picture = -1
        self._push(True, False, (), True)

    @rule()
    def sound(self) -> None:
        self._push(False, True, (), False)

    @rule(seconds=st.sampled_from((0.3, 0.6, 6.0)))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.stream.poll(self.now)
        assert self.stream.deadline is None or self.stream.deadline > self.now or not self.stream.tracks

    @rule(audio=st.booleans())
    def promise(self, audio: bool) -> None:
        self.stream.promise(audio)

    @rule(replay=st.booleans(), fragile=st.booleans())
    def attach(self, replay: bool, fragile: bool) -> None:
        viewer = Viewer(fragile)
        subscription = self.stream.attach(viewer, replay=replay)
        self.viewers.append((viewer, subscription))
        gop = self.stream.gop
        if self.stream.published and subscription.attached:
            if replay and gop:
                assert viewer.last_unit == int(bytes(gop[-1][0]).split()[0])
            else:
                assert viewer.last_unit == -1

    @rule(data=st.data())
    def detach(self, data: st.DataObject) -> None:
        if self.viewers:
            viewer, subscription = data.draw(st.sampled_from(self.viewers))
            subscription.detach()
            self.detached[id(viewer)] = viewer.last_unit

    @rule()
    def read(self) -> None:
        self.queue.take()

    @invariant()
    def honest(self) -> None:
        assert self.stream.tally["hub.sink_error"] == sum(viewer.ends for viewer, _ in self.viewers)
        for viewer, subscription in self.viewers:
            assert not viewer.complaints
            assert not (viewer.ends and subscription.attached)
            if id(viewer) in self.detached:
                assert viewer.last_unit == self.detached[id(viewer)]
            elif subscription.attached:
                assert viewer.generation == self.stream.generation
        assert self.queue.queued_bytes == sum(len(found.unit) for found in self.queue._queue)
        assert self.queue.queued_bytes <= 60 + limits.GOP_CACHE_BYTES
        assert len(self.stream._sources) <= 2
        gop = self.stream.gop
        if gop:
            assert gop[0][0].is_keyframe
            assert not any(unit.discontinuity for unit, track in gop[1:] if track.is_video)

    def teardown(self) -> None:
        before = {id(viewer): viewer.ends for viewer, _ in self.viewers}
        attached = {id(viewer) for viewer, subscription in self.viewers if subscription.attached}
        self.stream.close()
        for viewer, _ in self.viewers:
            assert viewer.ends == before[id(viewer)] + (id(viewer) in attached)
        assert self.queue.ended


TestHub = Hub.TestCase
TestHub.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
