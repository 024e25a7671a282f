"""What leaves for a WebRTC viewer, and with which times; lanes of the test's own."""

import time
from dataclasses import dataclass, field

import pytest

from gbgw._webrtc import Payloads
from gbgw.base import limits
from gbgw.base.codec import PCMA
from gbgw.base.tally import Tally
from gbgw.media.hub import Stream
from gbgw.media.track import Track
from gbgw.mux.pattern import PatternSpec
from gbgw.serve import offer as sdp
from gbgw.serve.outlet import Cut, CutQueue, Outlet
from gbgw.serve.payloads import Packer
from gbgw.serve.viewers import Viewers
from tests.support.streams import feed, timed_units
from tests.unit.serve.support import KEY, FakeViewing
from tests.unit.serve.test_offer import CHROMIUM


@dataclass
class Taking:
    """A lane that keeps what it is given."""

    cuts: list[Cut] = field(default_factory=list)
    queued_bytes: int = 0

    def put(self, cut: Cut, *, is_keyframe: bool, is_paced: bool) -> tuple[int, bool]:
        self.cuts.append(cut)
        return 0, False

    def hold(self, is_held: bool) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        self.cuts.clear()


@dataclass
class Sample:
    """A piece of sound with any length and time."""

    data: bytes
    pts: int
    is_keyframe: bool = True

    def __bytes__(self) -> bytes:
        return self.data


def outlet(stream: Stream, tally: Tally, video: Taking, audio: Taking) -> Outlet:
    served = sdp.choose(sdp.parse(CHROMIUM), profile=None, law="PCMA")
    viewer = Viewers().add(KEY, "webrtc", "127.0.0.1")
    return Outlet(
        FakeViewing(stream), viewer, Packer(), served, video=video, audio=audio, tally=tally, end=lambda reason: None
    )


def test_the_time_of_sound_counts_samples_until_the_camera_disagrees() -> None:
    tally, audio = Tally(), Taking()
    it = outlet(Stream(KEY), tally, Taking(), audio)
    track = Track(0xC0, PCMA, sample_rate=8_000, channels=1)

    def stamps(samples: int, pts: int) -> list[int]:
        audio.cuts.clear()
        it.on_unit(Sample(bytes(samples), pts), track)  # type: ignore[arg-type]
        return [cut.timestamp for cut in audio.cuts]

    start = 7_000_000
    assert stamps(320, start) == [0]
    assert stamps(320, start + 3_700) == [320]  # a little late
    assert stamps(320, start + 7_000) == [640]  # a little early
    assert stamps(1_000, start + 10_800) == [960, 1_294, 1_628]
    assert stamps(320, start + 90_000) == [8_000]  # a hole of half a second
    assert stamps(320, start + 94_000 - 20_000) == []  # two tenths that were heard already
    assert tally["webrtc.surplus_sound"] == 1
    assert stamps(320, start + 93_600) == [8_320]


def test_sound_and_pictures_are_related_by_the_clock_of_the_camera() -> None:
    """Not by when they came: sender reports tell the viewer what belongs together."""
    stream = Stream(KEY)
    stream.promise(True)
    video, audio = Taking(), Taking()
    it = outlet(stream, Tally(), video, audio)
    units = timed_units(PatternSpec(audio=PCMA, width=320, height=180, seconds=2, gop=25))
    feed(stream, units[:40])
    before = time.time()
    it.begin()
    late = [unit for unit in units[40:] if unit.codec.name == "PCMA"]
    feed(stream, [unit for unit in units[40:] if unit.codec.name == "H264"])
    feed(stream, late)  # a second after the pictures of its time
    walls = {round(cut.at * 90_000) for cut in video.cuts[-20:]}
    assert before < min(cut.at for cut in video.cuts[-20:])
    pictures = [unit.pts or 0 for unit in units[40:] if unit.codec.name == "H264"][-20:]
    epoch = min(walls) - pictures[0]
    assert all(abs(wall - epoch - pts) < 3 for wall, pts in zip(sorted(walls), pictures, strict=True))
    sounds = [round(cut.at * 90_000) - epoch for cut in audio.cuts]
    assert sounds
    assert all(any(abs(at - (unit.pts or 0)) < 3 for unit in late) for at in sounds)


def test_a_full_queue_drops_to_the_next_key_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SUBSCRIPTION_BYTES", 1_000)
    queue = CutQueue()

    def put(size: int, *, is_keyframe: bool = False) -> tuple[int, bool]:
        return queue.put(Cut(Payloads((bytes(size),)), 0, 0.0), is_keyframe=is_keyframe, is_paced=False)

    assert put(1_100, is_keyframe=True) == (0, False)  # one alone always fits
    assert queue.bytes == 1_100
    assert put(10) == (2, True)
    assert put(10) == (1, False)
    assert (queue.bytes, bool(queue)) == (0, False)
    assert put(900, is_keyframe=True) == (0, False)
    assert put(100) == (0, False)
    assert [queue.take().cut.payloads.size for _ in range(2)] == [900, 100]
    assert queue.bytes == 0
    with pytest.raises(IndexError):
        queue.take()
