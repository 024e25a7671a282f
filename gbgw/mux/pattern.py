"""The moving test pattern: a picture whose frame number a test can read back, and a tone.

Geometry, in fractions of the picture, so that it survives any scaling (a browser test reads it from a canvas): the top
ninth is a strip of 20 cells of equal width; the centre of cell i lies at (i + 1/2)/20 of the width, 1/18 of the height.
    cell 0       white, cell 1 black: what white and black look like here
    cells 2-17   the frame number, 16 bits, most significant first; white is 1
    cell 18      white when the number of ones is even, so that white cells among 2-18 are always odd
    cell 19      white
A cell is white when its mean luma over the middle half of its width and height lies above the mean of cells 0 and 1.
The frame number counts from 0 within one round of the loop: it is the picture's number modulo PatternSpec.frames. The
same number and the time within the round stand below the strip in digits.

The tone is 440 Hz with a louder tick of 1 kHz, 30 ms long, at each full second of the round.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Final

import av
import numpy as np
from av.video.frame import PictureType, VideoFrame

from gbgw.base.codec import AAC, H264, PCMA, Codec
from gbgw.base.errors import ConfigError
from gbgw.base.ticks import HZ
from gbgw.mux.loop import SAMPLE_RATES, Loop, Samples, encode_sound, make_loop
from gbgw.mux.view import AHEAD, Plane, View, look

CELLS: Final = 20
BITS: Final = 16
BLACK: Final = 16
WHITE: Final = 235
MIN_CONTRAST: Final = 60
# Luma, Cb, Cr of eight bars in limited range, BT.601, at three quarters of full saturation.
BARS: Final = (
    (180, 128, 128),
    (162, 44, 142),
    (131, 156, 44),
    (112, 72, 58),
    (84, 184, 198),
    (65, 100, 212),
    (35, 212, 114),
    (60, 128, 128),
)
# Five by seven dots, one row each, the most significant of five bits leftmost.
FONT: Final[dict[str, tuple[int, ...]]] = {
    "0": (0x0E, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0E),
    "1": (0x04, 0x0C, 0x04, 0x04, 0x04, 0x04, 0x0E),
    "2": (0x0E, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1F),
    "3": (0x1F, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0E),
    "4": (0x02, 0x06, 0x0A, 0x12, 0x1F, 0x02, 0x02),
    "5": (0x1F, 0x10, 0x1E, 0x01, 0x01, 0x11, 0x0E),
    "6": (0x06, 0x08, 0x10, 0x1E, 0x11, 0x11, 0x0E),
    "7": (0x1F, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08),
    "8": (0x0E, 0x11, 0x11, 0x0E, 0x11, 0x11, 0x0E),
    "9": (0x0E, 0x11, 0x11, 0x0F, 0x01, 0x02, 0x0C),
    ":": (0x00, 0x04, 0x00, 0x00, 0x00, 0x04, 0x00),
    ".": (0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04),
    "#": (0x0A, 0x0A, 0x1F, 0x0A, 0x1F, 0x0A, 0x0A),
    "P": (0x1E, 0x11, 0x11, 0x1E, 0x10, 0x10, 0x10),
    "T": (0x1F, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04),
    "Z": (0x1F, 0x01, 0x02, 0x04, 0x08, 0x10, 0x1F),
    "+": (0x00, 0x04, 0x04, 0x1F, 0x04, 0x04, 0x00),
    "-": (0x00, 0x00, 0x00, 0x1F, 0x00, 0x00, 0x00),
    "H": (0x11, 0x11, 0x11, 0x1F, 0x11, 0x11, 0x11),
    " ": (0x00,) * 7,
}


@dataclass(frozen=True, slots=True)
class PatternSpec:
    """What to draw and how to encode it; equal specs give equal bytes.

    seconds: length of one round. Eight hold whole frames of every codec here (200 pictures, 125 AAC frames at 16 kHz).
    gop: pictures from key frame to key frame; a divisor of the pictures of one round.
    b_frames: B-frames between references, 0..3.
    seed: another seed gives other colours and another path.
    open_gop: key frames need not be IDR: pictures shown before one may refer to what was before it.
    set_id: id of SPS and PPS, H.264 only.
    """

    video: Codec = H264
    audio: Codec | None = PCMA
    width: int = 640
    height: int = 360
    frame_rate: int = 25
    gop: int = 25
    seconds: int = 8
    b_frames: int = 0
    seed: int = 0
    open_gop: bool = False
    set_id: int = 0

    @property
    def frames(self) -> int:
        """Pictures of one round: the frame number's modulus."""
        return self.seconds * self.frame_rate

    def check(self) -> None:
        """Raise ConfigError for what cannot be drawn."""
        if self.width % 2 or self.height % 2 or not (160 <= self.width <= 3_840 and 90 <= self.height <= 2_160):
            raise ConfigError(
                f"a pattern of {self.width}x{self.height} cannot be drawn", remedy="160x90 to 3840x2160, even."
            )
        if HZ % self.frame_rate or not 1 <= self.seconds <= 60 or not 0 < self.frames < 1 << BITS:
            raise ConfigError("the pattern needs a frame rate that divides 90000 and 1 to 60 seconds")
        if not 1 <= self.gop <= self.frames or self.frames % self.gop:
            raise ConfigError(f"a GOP of {self.gop} does not divide the pattern's {self.frames} pictures")
        if not 0 <= self.b_frames <= 3:
            raise ConfigError("the pattern has 0 to 3 B-frames between references")
        if not 0 <= self.set_id <= 31 or (self.set_id and self.video is not H264):
            raise ConfigError("parameter sets have ids 0 to 31, and only those of H.264 can be chosen")


@lru_cache(maxsize=32)  # of some 300 kB each; a process of simulated devices needs one
def pattern_loop(spec: PatternSpec) -> Loop:
    """Draw and encode one round of the pattern. Takes about a second: call it off the event loop."""
    spec.check()
    sound = encode_sound(tone(spec), spec.audio, seamless=True) if spec.audio is not None else []
    return make_loop(
        spec.video,
        _encode(spec),
        sound,
        audio=spec.audio,
        duration=spec.seconds * HZ,
        size=(spec.width, spec.height),
        frame_rate=spec.frame_rate,
    )


def tone(spec: PatternSpec) -> Samples:
    """Return one round of the tone, mono, at the rate of the spec's audio codec."""
    rate = SAMPLE_RATES[spec.audio or AAC]
    at = np.arange(spec.seconds * rate) / rate
    wave = 0.2 * np.sin(2 * np.pi * 440 * at)
    tick = (at % 1) < 0.03
    wave[tick] += 0.5 * np.sin(2 * np.pi * 1_000 * at[tick])
    return np.round(wave * 32_767).astype(np.int16)


def _encode(spec: PatternSpec) -> list[tuple[bytes, int, int]]:
    return encode_pictures(spec, [(number, None) for number in range(spec.frames)])


def encode_pictures(spec: PatternSpec, drawn: Sequence[tuple[int, str | None]]) -> list[tuple[bytes, int, int]]:
    """Draw and encode pictures one after the other: their numbers, and labels in place of the usual ones. Returns
    (Annex B bytes, pts, dts) in ticks from 0 on, in decoding order."""
    encoder = _encoder(spec)
    painter = Painter(spec)
    packets = []
    for index, (number, label) in enumerate(drawn):
        frame = VideoFrame.from_ndarray(painter.paint(number, label=label), format="yuv420p")
        frame.pts, frame.time_base = index, encoder.time_base
        packets.extend(encoder.encode(frame))
    packets.extend(encoder.encode(None))
    step = HZ // spec.frame_rate
    return [
        (bytes(packet), packet.pts * step, packet.dts * step)
        for packet in packets
        if packet.pts is not None and packet.dts is not None
    ]


class PictureEncoder:
    """Encodes pictures one by one, each at once and without B-frames."""

    def __init__(self, spec: PatternSpec) -> None:
        self._encoder = _encoder(replace(spec, b_frames=0, open_gop=False), at_once=True)
        self._count = 0

    def encode(self, picture: Plane, *, key: bool) -> bytes:
        """Return one access unit in Annex B form."""
        frame = VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts, frame.time_base = self._count, self._encoder.time_base
        frame.pict_type = PictureType.I if key else PictureType.NONE
        self._count += 1
        return b"".join(bytes(packet) for packet in self._encoder.encode(frame))


def jpeg(spec: PatternSpec, number: int, view: View = AHEAD) -> bytes:
    """Return picture `number` of the round as a JPEG."""
    encoder = av.CodecContext.create("mjpeg", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = spec.width, spec.height, "yuvj420p"
    encoder.time_base = Fraction(1, spec.frame_rate)
    frame = VideoFrame.from_ndarray(Painter(spec).paint(number, view), format="yuv420p").reformat(format="yuvj420p")
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def _encoder(spec: PatternSpec, *, at_once: bool = False) -> av.VideoCodecContext:
    common = f"keyint={spec.gop}:min-keyint={spec.gop}:scenecut=0:bframes={spec.b_frames}:aud=1:b-adapt=0"
    common += f":open-gop={int(spec.open_gop)}"
    # One thread, so that equal specs give equal bytes on every machine.
    if spec.video is H264:
        encoder = av.CodecContext.create("libx264", "w")
        options = {"preset": "superfast", "crf": "26", "x264-params": f"{common}:threads=1:sps-id={spec.set_id}"}
        if at_once:
            options["forced-idr"] = "1"
        if not spec.b_frames:
            options["tune"] = "zerolatency"
            options["profile"] = "baseline"
    else:
        encoder = av.CodecContext.create("libx265", "w")
        extra = "rc-lookahead=0:bframes=0:" if at_once else "rc-lookahead=5:"
        extra += "repeat-headers=1:info=0:pools=none:frame-threads=1:log-level=none"
        options = {"preset": "ultrafast", "crf": "28", "x265-params": f"{common}:{extra}"}
        if at_once:
            options["tune"] = "zerolatency"
            options["forced-idr"] = "1"
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = spec.width, spec.height, "yuv420p"
    encoder.time_base = Fraction(1, spec.frame_rate)
    encoder.framerate = Fraction(spec.frame_rate)
    encoder.gop_size = spec.gop
    encoder.options = options
    return encoder


class Painter:
    """Draw pictures of the pattern as planar YUV 4:2:0, one array of height * 3/2 rows."""

    def __init__(self, spec: PatternSpec) -> None:
        self._spec = spec
        self._random = np.random.default_rng(spec.seed)
        self._phase = float(self._random.random())
        shift = int(self._random.integers(len(BARS))) if spec.seed else 0
        bars = np.array(BARS[shift:] + BARS[:shift], dtype=np.uint8)
        width, height = spec.width, spec.height
        column = np.arange(width) * len(BARS) // width
        half = column[::2]
        self._still = np.empty((height * 3 // 2, width), dtype=np.uint8)
        self._still[:height] = bars[column, 0]
        chroma = self._still[height:].reshape(2, height // 2, width // 2)
        chroma[0], chroma[1] = bars[half, 1], bars[half, 2]
        self._strip = height // 9 + height // 9 % 2
        chroma[:, : self._strip // 2] = 128

    def paint(self, number: int, view: View = AHEAD, label: str | None = None) -> Plane:
        """Return picture `number` of the round, seen from `view`; the strip and the labels stay where they are.

        label: in place of the time within the round.
        """
        spec = self._spec
        picture = self._still.copy()
        luma = picture[: spec.height]
        chroma = picture[spec.height :].reshape(2, spec.height // 2, spec.width // 2)
        self._move(luma, chroma, number / spec.frames)
        if view != AHEAD:
            luma[self._strip :] = look(luma[self._strip :], view)
            for plane in chroma:
                plane[self._strip // 2 :] = look(plane[self._strip // 2 :], view)
        self._count(luma, number)
        scale = max(1, spec.height // 90)
        seconds, frame = divmod(number, spec.frame_rate)
        clock = f"{seconds // 60:02}:{seconds % 60:02}.{frame * 1000 // spec.frame_rate:03}"
        text = label if label is not None else f"{clock} #{number:05} {spec.video.name}"
        self._write(luma, chroma, text, self._strip + 4 * scale, scale)
        if view != AHEAD:
            where = f"P{view.pan:05.1f} T{view.tilt:+05.1f} Z{view.zoom:.1f}"
            self._write(luma, chroma, where, self._strip + 16 * scale, scale)
        return picture

    def _move(self, luma: Plane, chroma: Plane, part: float) -> None:
        width, height = self._spec.width, self._spec.height
        edge = height // 6 // 2 * 2
        angle = 2 * np.pi * (part + self._phase)
        left = int((width - edge) * (0.5 + 0.5 * np.sin(angle))) // 2 * 2
        top = int(height * 0.4 + (height * 0.6 - edge) * (0.5 + 0.5 * np.cos(2 * angle))) // 2 * 2
        luma[top : top + edge, left : left + edge] = WHITE
        chroma[:, top // 2 : (top + edge) // 2, left // 2 : (left + edge) // 2] = 128
        # A line that crosses the picture four times a round, for the eye.
        at = int(width * (part * 4 % 1)) // 2 * 2
        luma[self._strip :, at : at + 4] = BLACK

    def _count(self, luma: Plane, number: int) -> None:
        bits = [number >> (BITS - 1 - index) & 1 for index in range(BITS)]
        cells = [1, 0, *bits, 1 - sum(bits) % 2, 1]
        edges = [self._spec.width * index // CELLS for index in range(CELLS + 1)]
        for index, white in enumerate(cells):
            luma[: self._strip, edges[index] : edges[index + 1]] = WHITE if white else BLACK

    def _write(self, luma: Plane, chroma: Plane, text: str, top: int, scale: int) -> None:
        top -= top % 2
        left = 4 * scale // 2 * 2
        box = (top + 9 * scale, left + (6 * len(text) + 1) * scale)
        luma[top : box[0], left : box[1]] = BLACK
        chroma[:, top // 2 : box[0] // 2, left // 2 : box[1] // 2] = 128
        for index, letter in enumerate(text):
            rows = np.array(FONT[letter], dtype=np.uint8)[:, None]
            dots = (rows >> np.arange(4, -1, -1, dtype=np.uint8)) & 1
            glyph = np.kron(dots, np.ones((scale, scale), dtype=np.uint8))
            x, y = left + (6 * index + 1) * scale, top + scale
            target = luma[y : y + glyph.shape[0], x : x + glyph.shape[1]]
            target[glyph[:, : target.shape[1]] == 1] = WHITE


def read_counter(picture: Plane) -> int | None:
    """Return the frame number burnt into a picture, or None where there is none to be read.

    picture: (height, width) luma or (height, width, 3 or more) RGB; the pattern alone without borders, at any
    scale from about 160 wide.
    """
    height, width = picture.shape[:2]
    top, bottom = height / 36, height / 12
    cells = []
    for index in range(CELLS):
        left, right = (index + 0.25) * width / CELLS, (index + 0.75) * width / CELLS
        patch = picture[int(top) : max(int(bottom), int(top) + 1), int(left) : max(int(right), int(left) + 1)]
        cells.append(float(patch[..., :3].mean() if picture.ndim == 3 else patch.mean()))
    white, black = cells[:2]
    if white - black < MIN_CONTRAST:
        return None
    bits = [cell > (white + black) / 2 for cell in cells[2:]]
    if not bits[-1] or sum(bits[: BITS + 1]) % 2 == 0:
        return None
    return sum(bit << (BITS - 1 - index) for index, bit in enumerate(bits[:BITS]))
