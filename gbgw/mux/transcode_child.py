"""The program of a transcoding child: `python -m gbgw.mux.transcode_child audio|video` (architecture.md decision 7).

Messages come on standard input and leave on standard output, each a HEADER and `length` bytes; the end of input is the
end of the program. The child trusts its parent and nothing else: what a decoder refuses is skipped with a line on
standard error. `mux/transcode.py` is the other end; importing this module from there loads no PyAV.

audio: OPEN (payload: codec name) a stream, UNIT its G.711; back come CONFIG (AudioSpecificConfig) and UNIT (one raw AAC
frame each). video: OPEN (payload: codec name and settings, "H265 1280 2000000 90000"), UNIT Annex B; back come UNIT
Annex B of H.264 without B-frames, parameter sets before each key frame.
"""

import struct
import sys
from array import array
from typing import TYPE_CHECKING, Any, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER: Final = struct.Struct("!BBIqqI")  # kind, is_keyframe, stream, pts, dts (90 kHz ticks), length
OPEN: Final = 1
UNIT: Final = 2
CLOSE: Final = 3
CONFIG: Final = 4

HZ: Final = 90_000
G711_HZ: Final = 8_000
AAC_SAMPLES: Final = 1_024
AAC_BITRATE: Final = 32_000  # the most that 8 kHz mono AAC-LC may use is 48 kbit/s
DRIFT_TICKS: Final = HZ * 60 // 1_000  # sound further than this from where its time says it is starts anew at its time
SAMPLE_BYTES: Final = 4
CRF: Final = "24"


def message(kind: int, stream: int, pts: int, dts: int, payload: bytes, *, is_keyframe: bool = True) -> bytes:
    """Return one message, header and payload."""
    return HEADER.pack(kind, is_keyframe, stream, pts, dts, len(payload)) + payload


def g711_table(codec: str) -> list[float]:
    """Return the 256 sample values of PCMA or PCMU as floats from -1 to 1 (ITU-T G.711 tables 1a to 2b)."""
    values = []
    for code in range(256):
        if codec == "PCMA":
            even = code ^ 0x55
            segment, step = even >> 4 & 7, even & 0x0F
            magnitude = (step << 4) + 8 if segment == 0 else ((step << 4) + 0x108) << (segment - 1)
            sample = magnitude if even & 0x80 else -magnitude
        else:
            plain = code ^ 0xFF
            magnitude = (((plain & 0x0F) << 3) + 0x84 << (plain >> 4 & 7)) - 0x84
            sample = -magnitude if plain & 0x80 else magnitude
        values.append(sample / 32_768)
    return values


class AacEncoder:
    """One G.711 stream to AAC-LC, 8 kHz mono. Output times follow input times, and jump where those jump."""

    def __init__(self, codec: str) -> None:
        import av

        self._av = av
        self._sample = g711_table(codec).__getitem__
        self._context: Any = av.CodecContext.create("aac", "w")
        self._context.sample_rate = G711_HZ
        self._context.layout = "mono"
        self._context.format = "fltp"
        self._context.bit_rate = AAC_BITRATE
        self._context.options = {"aac_coder": "fast"}
        self._context.flags |= 1 << 22  # AV_CODEC_FLAG_GLOBAL_HEADER: the config as extradata, raw frames without ADTS
        self._context.open()
        self._waiting = bytearray()
        self._next: int | None = None  # 90 kHz ticks of the first waiting sample
        self._starts: list[int] = []  # ticks of the frames inside the encoder, oldest first
        self._primed = False
        self._last_pts: int | None = None

    @property
    def config(self) -> bytes:
        return bytes(self._context.extradata or b"")

    def push(self, samples: bytes, pts: int) -> list[tuple[int, bytes]]:
        """Return the (pts, raw frame) that these samples completed. pts: 90 kHz ticks of the first sample."""
        at = self._next
        if at is not None:
            expected = at + len(self._waiting) // SAMPLE_BYTES * HZ // G711_HZ
            if abs(pts - expected) > DRIFT_TICKS:
                self._waiting.clear()
                at = None
        if at is None:
            at = pts
        self._waiting += array("f", map(self._sample, samples)).tobytes()
        out: list[tuple[int, bytes]] = []
        size = AAC_SAMPLES * SAMPLE_BYTES
        while len(self._waiting) >= size:
            out += self._encode(bytes(self._waiting[:size]), at)
            del self._waiting[:size]
            at += AAC_SAMPLES * HZ // G711_HZ
        self._next = at
        return out

    def _encode(self, plane: bytes, start: int) -> list[tuple[int, bytes]]:
        frame = self._av.AudioFrame(format="fltp", layout="mono", samples=AAC_SAMPLES)
        frame.sample_rate = G711_HZ
        frame.planes[0].update(plane)
        # The encoder answers each frame with the packet of the one before (the first: of silence), so the times are
        # kept beside it: its own queue
        # would spread a gap over two packets.
        frame.pts = None
        self._starts.append(start)
        out = []
        for packet in self._context.encode(frame):
            if not self._primed:
                self._primed = True
                pts = self._starts[0] - AAC_SAMPLES * HZ // G711_HZ
            else:
                pts = self._starts.pop(0)
            if self._last_pts is not None and pts <= self._last_pts:
                continue  # a step back in time: sound that was heard already
            self._last_pts = pts
            out.append((pts, bytes(packet)))
        return out


class H264Encoder:
    """One H.265 (or H.264 with B-frames) stream to H.264 without B-frames, at most max_width wide, a key frame every
    gop_ticks.
    """

    def __init__(self, codec: str, max_width: int, bitrate: int, gop_ticks: int) -> None:
        import av
        from av.video.frame import PictureType
        from av.video.reformatter import Interpolation

        self._av = av
        self._key_type = PictureType.I
        self._free_type = PictureType.NONE
        self._interpolation = Interpolation.FAST_BILINEAR
        self._max_width = max_width
        self._bitrate = bitrate
        self._gop_ticks = gop_ticks
        self._decoder: Any = av.CodecContext.create({"H265": "hevc", "H264": "h264"}[codec], "r")
        self._decoder.thread_count = 1  # frame threads would hold a picture each
        self._encoder: Any = None
        self._source: tuple[int, int] = (0, 0)
        self._last_key: int | None = None
        self._last_pts: int | None = None
        self.refused = 0

    def push(self, data: bytes, pts: int, dts: int) -> "Iterator[tuple[int, int, bool, bytes]]":
        """Yield (pts, dts, is_keyframe, Annex B) of the pictures that this unit completed."""
        packet = self._av.Packet(data)
        packet.pts, packet.dts = pts, dts
        try:
            frames = self._decoder.decode(packet)
        except self._av.error.FFmpegError as error:
            self.refused += 1
            if self.refused & (self.refused - 1) == 0:
                print(f"picture {pts} refused, {self.refused} by now: {error}", file=sys.stderr, flush=True)
            return
        for frame in frames:
            if frame.pts is not None and (self._last_pts is None or frame.pts > self._last_pts):
                yield from self._encode(frame)

    def _encode(self, frame: Any) -> "Iterator[tuple[int, int, bool, bytes]]":
        if (frame.width, frame.height) != self._source:
            self._open(frame.width, frame.height)
        pts: int = frame.pts
        scaled = frame.reformat(
            self._encoder.width, self._encoder.height, format="yuv420p", interpolation=self._interpolation
        )
        scaled.pts = pts
        scaled.time_base = self._encoder.time_base
        is_due = self._last_key is None or pts - self._last_key >= self._gop_ticks
        scaled.pict_type = self._key_type if is_due else self._free_type
        if is_due:
            self._last_key = pts
        self._last_pts = pts
        for packet in self._encoder.encode(scaled):
            yield packet.pts, packet.dts, packet.is_keyframe, bytes(packet)

    def _open(self, width: int, height: int) -> None:
        from fractions import Fraction

        self._source = (width, height)
        out_width = min(width, self._max_width) & ~1
        out_height = round(height * out_width / width) & ~1
        encoder: Any = self._av.CodecContext.create("libx264", "w")
        encoder.width, encoder.height, encoder.pix_fmt = max(out_width, 16), max(out_height, 16), "yuv420p"
        encoder.time_base = Fraction(1, HZ)
        encoder.framerate = Fraction(25, 1)
        encoder.thread_count = 1
        encoder.options = {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "profile": "baseline",
            "crf": CRF,
            "maxrate": str(self._bitrate),
            "bufsize": str(self._bitrate),
            "g": "1000",  # key frames come by time, see _encode
            "forced-idr": "1",
            "sc_threshold": "0",
        }
        encoder.open()
        self._encoder = encoder
        self._last_key = None


def audio(read: BinaryIO, write: BinaryIO) -> None:
    """Encode until the end of input."""
    encoders: dict[int, AacEncoder] = {}
    while (got := _receive(read)) is not None:
        kind, stream, pts, _, payload = got
        if kind == OPEN:
            encoders[stream] = AacEncoder(payload.decode())
            write.write(message(CONFIG, stream, 0, 0, encoders[stream].config))
        elif kind == CLOSE:
            encoders.pop(stream, None)
        elif stream in encoders:
            for at, frame in encoders[stream].push(payload, pts):
                write.write(message(UNIT, stream, at, at, frame))
        write.flush()


def video(read: BinaryIO, write: BinaryIO) -> None:
    """Transcode until the end of input."""
    encoder: H264Encoder | None = None
    while (got := _receive(read)) is not None:
        kind, stream, pts, dts, payload = got
        if kind == OPEN:
            codec, max_width, bitrate, gop_ticks = payload.decode().split()
            encoder = H264Encoder(codec, int(max_width), int(bitrate), int(gop_ticks))
        elif kind == UNIT and encoder is not None:
            for out_pts, out_dts, is_keyframe, data in encoder.push(payload, pts, dts):
                write.write(message(UNIT, stream, out_pts, out_dts, data, is_keyframe=is_keyframe))
                write.flush()


def _receive(read: BinaryIO) -> tuple[int, int, int, int, bytes] | None:
    header = read.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    kind, _, stream, pts, dts, length = HEADER.unpack(header)
    payload = read.read(length)
    return (kind, stream, pts, dts, payload) if len(payload) == length else None


def main() -> None:
    """Run the child named by the first argument; end quietly when the parent goes."""
    try:
        {"audio": audio, "video": video}[sys.argv[1]](sys.stdin.buffer, sys.stdout.buffer)
    except BrokenPipeError:
        sys.stderr.close()


if __name__ == "__main__":
    main()
