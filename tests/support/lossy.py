"""Streams of every kind of coding structure, sent over a bad network and decoded with a decoder that forgives nothing.

The measure is the picture: whatever a viewer decodes must be, bit for bit, a picture that the camera coded.
"""

import io
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any, Final, Literal

import av
import numpy as np
from av.video.frame import VideoFrame

from gbgw._ps import AccessUnit
from gbgw.base.codec import H264, H265, PCMA, VIDEO, Codec
from gbgw.base.ticks import HZ
from gbgw.device.sender import Packetiser
from gbgw.media.hub import Stream
from gbgw.mux.feed import Feeds
from gbgw.mux.ps import PLAIN, Muxer, Style
from gbgw.net.receiver import Receiver, new_fold
from tests.support.streams import Viewer

WIDTH: Final = 160
HEIGHT: Final = 96
Sent = list[tuple[bytes, float]]  # packets and when each goes out, loop seconds
RATE: Final = 25
STEP: Final = HZ // RATE
GOP: Final = 27  # no multiple of the distance between P pictures, so that open GOPs have leading pictures

# What cameras and encoders do with references; every one of them must survive a hole.
STRUCTURES: Final[dict[str, tuple[Codec, str]]] = {
    "h264": (H264, "bframes=0"),
    "h264-b-frames": (H264, "bframes=3:b-adapt=0:b-pyramid=normal:open-gop=0"),
    "h264-open-gop": (H264, "bframes=3:b-adapt=0:b-pyramid=none:open-gop=1"),
    "h264-other-pps": (H264, "bframes=0:chroma-qp-offset=3"),
    "h264-slices": (H264, "bframes=0:slices=4"),
    "h264-intra-refresh": (H264, "bframes=0:intra-refresh=1"),
    "h265": (H265, "bframes=0:open-gop=0"),
    "h265-b-frames": (H265, "bframes=3:b-adapt=0:open-gop=0"),
    "h265-open-gop": (H265, "bframes=3:b-adapt=0:open-gop=1:min-keyint=1"),
}


@dataclass(frozen=True)
class Coded:
    """units: in coding order, with sound of 40 ms between; pictures: what each decodes to, by its pts."""

    codec: Codec
    units: tuple[AccessUnit, ...]
    pictures: dict[int, int]


def _pictures(frames: int, size: tuple[int, int]) -> Iterable[np.ndarray[Any, Any]]:
    width, height = size
    noise = np.random.default_rng(7).integers(40, 200, (height, width), dtype=np.uint8)
    for number in range(frames):
        picture = np.full((height * 3 // 2, width), 128, dtype=np.uint8)
        picture[:height] = np.roll(noise, (number * 2, number * 3), (0, 1))
        yield picture


@cache
def coded(
    structure: str,
    frames: int = 4 * GOP,
    *,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    start: int = HZ,
    sound: bool = True,
) -> Coded:
    """Encode `frames` moving pictures; start: pts of the first, ticks."""
    codec, extra = STRUCTURES[structure]
    common = f"keyint={GOP}:scenecut=0:{extra}"
    if codec is H264:
        quiet = f"min-keyint={GOP}:threads=1:repeat-headers=1"
        encoder = av.CodecContext.create("libx264", "w")
        encoder.options = {"preset": "veryfast", "qp": "30", "x264-params": f"{common}:{quiet}"}
    else:
        encoder = av.CodecContext.create("libx265", "w")
        quiet = "repeat-headers=1:info=0:pools=none:frame-threads=1:log-level=none:rc-lookahead=5"
        encoder.options = {"preset": "ultrafast", "x265-params": f"{common}:{quiet}:qp=32"}
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height = size
    encoder.pix_fmt = "yuv420p"
    encoder.time_base = Fraction(1, RATE)
    encoder.framerate = Fraction(RATE)
    packets = []
    for number, picture in enumerate(_pictures(frames, size)):
        frame = VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts, frame.time_base = number, encoder.time_base
        packets.extend(encoder.encode(frame))
    packets.extend(encoder.encode(None))
    units: list[AccessUnit] = []
    for at, packet in enumerate(packets):
        assert packet.pts is not None
        assert packet.dts is not None
        pts, dts = start + packet.pts * STEP, start + packet.dts * STEP
        units.append(AccessUnit(bytes(packet), codec, pts, dts, is_keyframe=bool(packet.is_keyframe)))
        if sound:
            when = start + at * STEP
            samples = bytes((at + n) % 199 for n in range(320))
            units.append(AccessUnit(samples, PCMA, when, when, is_keyframe=True, track_id=0xC0))
    decoder = av.CodecContext.create("h264" if codec is H264 else "hevc", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.thread_count = 1
    shown: list[VideoFrame] = []
    for packet in (*packets, None):
        shown.extend(decoder.decode(packet))
    times = sorted(unit.pts or 0 for unit in units if unit.codec.kind is VIDEO)
    return Coded(codec, tuple(units), {pts: picture_hash(frame) for pts, frame in zip(times, shown, strict=True)})


def picture_hash(frame: VideoFrame) -> int:
    return hash((frame.width, frame.height, frame.to_ndarray(format="yuv420p").tobytes()))


def packets_of(
    stream: Coded, style: Style = PLAIN, *, ssrc: int = 5, sequence: int = 65_500, max_payload: int = 400
) -> Sent:
    """RTP of a stream and when each packet is sent, loop seconds. max_payload: small, for many packets a picture."""
    sound = any(unit.codec is PCMA for unit in stream.units)
    muxer = Muxer(stream.codec, PCMA if sound else None, style)
    packetiser = Packetiser(ssrc, sequence=sequence, max_payload=max_payload)
    out = []
    for unit in stream.units:
        clock = unit.dts if unit.dts is not None else unit.pts
        at = 100.0 + (clock or 0) / HZ
        out += [(packet, at) for packet in packetiser.packets(muxer.push(unit), unit.pts or 0)]
    return out


def lose(packets: Sent, rate: float, seed: int) -> Sent:
    chance = random.Random(seed)
    return [one for one in packets if chance.random() >= rate]


def reorder(packets: Sent, rate: float, seed: int, places: int = 8) -> Sent:
    """Some packets come up to `places` later; all keep the sending times in order."""
    chance = random.Random(seed)
    keys = [at + (chance.randint(1, places) + 0.5 if chance.random() < rate else 0) for at in range(len(packets))]
    order = sorted(range(len(packets)), key=keys.__getitem__)
    return [(packets[index][0], packets[at][1]) for at, index in enumerate(order)]


@dataclass
class _Timer:
    at: float
    callback: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


class _Clock:
    """A loop's clock that moves only when told, and rings what falls due on the way."""

    def __init__(self) -> None:
        self.now = 100.0
        self._timers: list[_Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None], /) -> _Timer:
        timer = _Timer(when, callback)
        self._timers.append(timer)
        return timer

    def advance(self, end: float) -> None:
        while due := [timer for timer in self._timers if timer.at <= end and not timer.cancelled]:
            timer = min(due, key=lambda timer: timer.at)
            self._timers.remove(timer)
            self.now = max(self.now, timer.at)
            timer.callback()
        self._timers = [timer for timer in self._timers if not timer.cancelled]
        self.now = max(self.now, end)


class Run:
    """A Receiver with viewers of every container, fed by packets on a virtual clock."""

    FORMATS: Final = ("flv", "mp4", "ts")

    def __init__(
        self,
        loss: Literal["freeze", "pass"] = "freeze",
        *,
        on_keyframe_wanted: Callable[[], None] = lambda: None,
        formats: Sequence[str] = FORMATS,
    ) -> None:
        self.clock = _Clock()
        self.stream = Stream("a-b")
        self.receiver = Receiver(
            self.stream, self.clock, fold=new_fold(), loss=loss, on_keyframe_wanted=on_keyframe_wanted
        )
        self.feeds = Feeds()
        self.viewers = {name: Viewer() for name in formats}
        self.joined = False

    def push(self, packets: Iterable[tuple[bytes, float]]) -> None:
        for packet, at in packets:
            self.clock.advance(at)
            self.receiver.push_rtp(packet, self.clock.now)
            if not self.joined and self.stream.published:
                self.join()

    def join(self) -> None:
        self.joined = True
        for name, viewer in self.viewers.items():
            self.feeds.get(self.stream, name).attach(viewer)

    def finish(self) -> None:
        self.clock.advance(self.clock.now + 1.0)
        self.receiver.close()
        self.stream.close()


def decode_strictly(data: bytes, format_name: str) -> list[tuple[int, int]]:
    """(pts in ms, hash) of each picture of a recording, in order of output. Fails on anything the decoder dislikes."""
    out = []
    before = av.logging.get_level()
    av.logging.set_level(av.logging.WARNING)  # PyAV hears nothing before it is asked to
    try:
        with av.logging.Capture() as said, av.open(io.BytesIO(data), format=format_name) as container:
            context = container.streams.video[0].codec_context
            context.thread_count = 1
            context.options = {"err_detect": "explode", "flags": "+output_corrupt"}
            for frame in container.decode(video=0):
                out.append((round(float((frame.pts or 0) * (frame.time_base or 0)) * 1_000), picture_hash(frame)))
    finally:
        av.logging.set_level(before)
    complaints = [line for line in said if line[0] <= av.logging.WARNING]
    assert not complaints, complaints[:5]
    return out
