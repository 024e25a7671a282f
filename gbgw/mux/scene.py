"""A scene as a surveillance camera sees it, encoded at a constant bitrate: the load that benchmarks send.

The test pattern is easy on an encoder: at 1080p its pictures are a tenth of what cameras send. Here texture, movement
and the noise of a sensor keep the encoder at its bitrate, so that picture sizes, slice data and start codes are those
of a real stream, and it still decodes.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from gbgw.base.codec import H264, PCMA, Codec
from gbgw.base.ticks import HZ
from gbgw.mux.loop import SAMPLE_RATES, Loop, encode_sound, make_loop

NOISE: Final = 3  # of the sensor, in steps of luma to either side
GRAIN: Final = 16  # pixels to a patch of texture


@dataclass(frozen=True, slots=True)
class SceneSpec:
    """Equal specs give equal bytes. bitrate: of the video, bits per second. gop: pictures, a divisor of all of them."""

    width: int = 1_920
    height: int = 1_080
    frame_rate: int = 25
    gop: int = 50
    seconds: int = 4
    bitrate: int = 4_000_000
    audio: Codec | None = PCMA
    seed: int = 0

    @property
    def frames(self) -> int:
        return self.seconds * self.frame_rate


def scene_loop(spec: SceneSpec) -> Loop:
    """Draw and encode one round. Takes seconds at 1080p: call it off the event loop."""
    if HZ % spec.frame_rate or spec.frames % spec.gop or spec.width % 2 or spec.height % 2:
        raise ValueError("a frame rate that divides 90000, whole GOPs, even sizes")
    rng = np.random.default_rng(spec.seed)
    sound = []
    if spec.audio is not None:
        count = spec.seconds * SAMPLE_RATES[spec.audio]
        sound = encode_sound(rng.integers(-2_000, 2_000, count, dtype=np.int16), spec.audio)
    return make_loop(
        H264,
        _encode(spec, rng),
        sound,
        audio=spec.audio,
        duration=spec.seconds * HZ,
        size=(spec.width, spec.height),
        frame_rate=spec.frame_rate,
    )


def _encode(spec: SceneSpec, rng: np.random.Generator) -> list[tuple[bytes, int, int]]:
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = spec.width, spec.height, "yuv420p"
    encoder.time_base = Fraction(1, spec.frame_rate)
    encoder.framerate = Fraction(spec.frame_rate)
    encoder.gop_size = spec.gop
    encoder.bit_rate = spec.bitrate
    kilobits = spec.bitrate // 1_000
    encoder.options = {
        "preset": "superfast",
        "tune": "zerolatency",
        # one thread and one slice, so that equal specs give equal bytes on every machine
        "x264-params": f"keyint={spec.gop}:min-keyint={spec.gop}:scenecut=0:bframes=0:aud=1:threads=1:sliced-threads=0"
        f":vbv-maxrate={kilobits}:vbv-bufsize={kilobits * 7 // 10}",
    }
    packets = []
    # A GOP more than needed goes first: until then the rate control looks for its balance
    for number, picture in enumerate(_pictures(spec, rng), -spec.gop):
        frame = VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts, frame.time_base = number, encoder.time_base
        packets.extend(encoder.encode(frame))
    packets.extend(encoder.encode(None))
    step = HZ // spec.frame_rate
    return [
        (bytes(packet), packet.pts * step, packet.dts * step)
        for packet in packets
        if packet.pts is not None and packet.dts is not None and packet.pts >= 0
    ]


def _pictures(spec: SceneSpec, rng: np.random.Generator) -> list[npt.NDArray[np.uint8]]:
    """A textured wall before which a few textured boxes move, and noise on all of it."""
    width, height = spec.width, spec.height
    wall = _texture(rng, height, width, 40, 120)
    boxes = [
        (_texture(rng, height // 4, width // 8, 100, 220), rng.random(), rng.random(), int(rng.integers(1, 4)))
        for _ in range(5)
    ]
    # One tile of noise larger than the picture, seen from another corner each time: new noise at a tenth of the cost
    noise = rng.integers(-NOISE, NOISE + 1, (height + 64, width + 64), dtype=np.int8)
    chroma = np.full((height // 2, width), 128, dtype=np.uint8)
    chroma[:, :] += (_texture(rng, height // 2, width, 0, 24)).astype(np.uint8)
    out = []
    for number in range(-spec.gop, spec.frames):
        part = number / spec.frames
        luma = wall.copy()
        for box, across, down, turns in boxes:
            y = int((height - box.shape[0]) * (0.5 + 0.5 * np.sin(2 * np.pi * (part * turns + down))))
            x = int((width - box.shape[1]) * (0.5 + 0.5 * np.sin(2 * np.pi * (part * turns + across))))
            luma[y : y + box.shape[0], x : x + box.shape[1]] = box
        top, left = int(rng.integers(64)), int(rng.integers(64))
        luma += noise[top : top + height, left : left + width]
        out.append(np.concatenate((luma.astype(np.uint8), chroma)))
    return out


def _texture(rng: np.random.Generator, height: int, width: int, low: int, high: int) -> npt.NDArray[np.int16]:
    """Patches of random grey with fine grain on them; within `low` and `high`, room for noise left beside."""
    rows, columns = height // GRAIN + 1, width // GRAIN + 1
    coarse = np.kron(rng.integers(low, high, (rows, columns), dtype=np.int16), np.ones((GRAIN, GRAIN), dtype=np.int16))
    fine = rng.integers(-8, 9, (height, width), dtype=np.int16)
    return coarse[:height, :width] + fine
