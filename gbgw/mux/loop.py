"""A piece of media that repeats for ever: encoded once, shared by every simulated device that plays it.

Times grow for ever although the content repeats. Leaves out: more than one track of a kind, codecs that GB/T 28181
cannot carry.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.bitstream import BitStreamFilterContext
from av.video.stream import VideoStream

from gbgw._ps import AccessUnit
from gbgw.base import limits
from gbgw.base.codec import AAC, H264, H265, PCMA, PCMU, Codec, Kind
from gbgw.base.errors import ConfigError
from gbgw.base.ticks import HZ
from gbgw.mux.ps import AUDIO_STREAM_ID, START_CODE, VIDEO_STREAM_ID, split_nal_units

Samples = npt.NDArray[np.int16]

SAMPLE_RATES: Final[dict[Codec, int]] = {PCMA: 8_000, PCMU: 8_000, AAC: 16_000}
AUDIO_STEP_SECONDS: Final = Fraction(1, 25)  # one piece of G.711 for each 40 ms, as cameras send
AAC_FRAME_SAMPLES: Final = 1_024
AAC_BITRATE: Final = 32_000
ADTS_RATES: Final = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)


@dataclass(frozen=True, slots=True)
class Loop:
    """Units of one round, in the order they are sent; the first is a key frame.

    duration: ticks of one round; the n-th round's times are n * duration later.
    delay: ticks by which presentation follows decoding because of B-frames; sound is sent that much before its time.
    frames: pictures of one round.
    """

    video: Codec
    audio: Codec | None
    units: tuple[AccessUnit, ...]
    duration: int
    delay: int
    frames: int
    width: int
    height: int
    frame_rate: float

    @property
    def bitrate(self) -> int:
        """Mean bits per second of all tracks."""
        return sum(map(len, self.units)) * 8 * HZ // self.duration


@dataclass(frozen=True, slots=True)
class Due:
    """A unit and the moment to send it, in ticks since the first unit of its player."""

    unit: AccessUnit
    at: int


class Player:
    """One device's place in a shared Loop: its units one after the other, for ever, with times that never go back.

    origin: what the first unit's decoding time is set to, in ticks.
    """

    def __init__(self, loop: Loop, *, origin: int = 0) -> None:
        self._loop = loop
        self._origin = origin
        self._index = 0
        self._offset = 0  # added to a unit's own times, beside the origin
        self._step = round(HZ / loop.frame_rate)
        self._last_video: int | None = None

    @property
    def loop(self) -> Loop:
        return self._loop

    @property
    def next_at(self) -> int:
        """When the next unit is due, in ticks since the first."""
        unit = self._loop.units[self._index]
        pts, dts = _times(unit)
        return self._offset + (dts if unit.codec.kind is Kind.VIDEO else pts - self._loop.delay)

    @property
    def next_is_picture(self) -> bool:
        return self._loop.units[self._index].codec.kind is Kind.VIDEO

    def take(self) -> Due:
        """Return the next unit with its times in this player's time line."""
        unit = self._loop.units[self._index]
        self._index += 1
        offset = self._offset
        if self._index == len(self._loop.units):
            self._index = 0
            self._offset += self._loop.duration
        pts, dts = _times(unit)
        if unit.codec.kind is Kind.VIDEO:
            at = self._last_video = dts + offset
        else:
            at = pts - self._loop.delay + offset
        return Due(unit.with_times(pts + offset + self._origin, dts + offset + self._origin), at)

    def restart(self) -> None:
        """Go on at the nearest key frame ahead, as the very next unit; its time follows the last picture's."""
        if self._last_video is None:
            return
        count = len(self._loop.units)
        for ahead in range(count):
            index = (self._index + ahead) % count
            unit = self._loop.units[index]
            if unit.codec.kind is Kind.VIDEO and unit.is_keyframe:
                self._index = index
                self._offset = self._last_video + self._step - _times(unit)[1]
                return


def _times(unit: AccessUnit) -> tuple[int, int]:
    if unit.pts is None or unit.dts is None:
        raise ValueError("a unit of a loop has no time")
    return unit.pts, unit.dts


def make_loop(
    codec: Codec,
    pictures: Sequence[tuple[bytes, int, int]],
    sound: Sequence[tuple[bytes, int]],
    *,
    audio: Codec | None,
    duration: int,
    size: tuple[int, int],
    frame_rate: float,
) -> Loop:
    """Return one round of pictures and sound as a Loop.

    pictures: (Annex B bytes, pts, dts) in ticks, decoding order. sound: (bytes, pts), 0 where the first picture shows.
    """
    shift = -pictures[0][2]
    delay = pictures[0][1] + shift
    placed: list[tuple[int, int, AccessUnit]] = []
    for data, pts, dts in pictures:
        key, parameter_sets = describe(data, codec)
        unit = AccessUnit(
            data,
            codec,
            pts + shift,
            dts + shift,
            is_keyframe=key,
            parameter_sets=parameter_sets,
            track_id=VIDEO_STREAM_ID,
        )
        placed.append((dts + shift, 0, unit))
    for data, pts in sound:
        if audio is not None and pts < duration:
            unit = AccessUnit(data, audio, pts + delay, pts + delay, is_keyframe=True, track_id=AUDIO_STREAM_ID)
            placed.append((pts, 1, unit))
    placed.sort(key=lambda entry: entry[:2])
    units = tuple(unit for _, _, unit in placed)
    return Loop(codec, audio if sound else None, units, duration, delay, len(pictures), *size, frame_rate)


def describe(data: bytes, codec: Codec) -> tuple[bool, tuple[bytes, ...]]:
    """Return whether an Annex B unit is a random access point, and its parameter sets without start codes."""
    key, parameter_sets = False, []
    for piece in split_nal_units(data):
        nal = piece[piece.find(b"\x01") + 1 :]
        if not nal:
            continue
        kind = nal[0] & 0x1F if codec is H264 else nal[0] >> 1 & 0x3F
        if codec is H264:
            key = key or kind == 5
            is_set = kind in (7, 8)
        else:
            key = key or 16 <= kind <= 23
            is_set = kind in (32, 33, 34)
        if is_set:
            parameter_sets.append(nal.rstrip(b"\x00"))
    return key, tuple(parameter_sets)


def encode_sound(samples: Samples, codec: Codec, *, seamless: bool = False) -> list[tuple[bytes, int]]:
    """Encode mono samples at SAMPLE_RATES[codec] into (bytes, pts in ticks).

    seamless: the samples repeat for ever, and the end must run into the beginning without a click.
    """
    if codec is AAC:
        return _encode_aac(samples, seamless=seamless)
    rate = SAMPLE_RATES[codec]
    step = int(rate * AUDIO_STEP_SECONDS)
    encoder = av.CodecContext.create(codec.container, "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = rate, "mono", "s16"
    encoded = b"".join(bytes(packet) for packet in encoder.encode(_frame(samples, rate)))
    return [(encoded[at : at + step], at * HZ // rate) for at in range(0, len(encoded) - step + 1, step)]


def _encode_aac(samples: Samples, *, seamless: bool) -> list[tuple[bytes, int]]:
    rate = SAMPLE_RATES[AAC]
    encoder = av.CodecContext.create("aac", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = rate, "mono", "fltp"
    encoder.bit_rate = AAC_BITRATE
    # Each AAC frame overlaps its neighbours, so a round that must join up is cut out of the middle of two.
    source = np.concatenate((samples, samples)) if seamless else samples
    start = len(samples) if seamless else 0
    packets = []
    for at in range(0, len(source), AAC_FRAME_SAMPLES):
        piece = source[at : at + AAC_FRAME_SAMPLES]
        frame = AudioFrame.from_ndarray((piece.astype(np.float32) / 32_768)[None, :], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
        packets.extend(encoder.encode(frame))
    packets.extend(encoder.encode(None))
    return [
        (adts_header(len(bytes(packet)), rate) + bytes(packet), (packet.pts - start) * HZ // rate)
        for packet in packets
        if packet.pts is not None and start <= packet.pts < start + len(samples)
    ]


def adts_header(size: int, rate: int, channels: int = 1) -> bytes:
    """Return the ADTS header of one raw AAC-LC frame of `size` bytes (ISO/IEC 14496-3 section 1.A.2.2)."""
    length = size + 7
    index = ADTS_RATES.index(rate)
    return bytes(
        (
            0xFF,
            0xF1,
            0x40 | index << 2 | channels >> 2,
            (channels & 3) << 6 | length >> 11,
            length >> 3 & 0xFF,
            (length & 7) << 5 | 0x1F,
            0xFC,
        )
    )


def _frame(samples: Samples, rate: int) -> AudioFrame:
    frame = AudioFrame.from_ndarray(samples[None, :], format="s16", layout="mono")
    frame.sample_rate = rate
    return frame


def load_file(path: Path, audio: Codec | None) -> Loop:
    """Return a media file as a Loop: its H.264 or H.265 as it is, its sound encoded anew as `audio`.

    What lies before the first key frame is left out; a file beyond limits.LOOP_SECONDS or limits.LOOP_BYTES is cut
    there. Raises ConfigError for a file that cannot be read or holds no video that GB/T 28181 carries.
    """
    try:
        with av.open(str(path)) as container:
            return _load(path, container, audio)
    except (av.FFmpegError, OSError) as error:
        raise ConfigError(
            f"{path} cannot be read as media: {error}", remedy="Give a file that FFmpeg reads."
        ) from error


def _load(path: Path, container: "av.container.InputContainer", audio: Codec | None) -> Loop:
    stream = next(iter(container.streams.video), None)
    codec = {"h264": H264, "hevc": H265}.get(stream.codec_context.name) if stream is not None else None
    if stream is None or codec is None:
        found = stream.codec_context.name if stream is not None else "no video"
        raise ConfigError(f"{path} holds {found}", remedy="Only H.264 and H.265 can be sent; convert the file first.")
    wanted = [stream]
    speech = next(iter(container.streams.audio), None) if audio is not None else None
    filters = BitStreamFilterContext(f"{codec.container}_mp4toannexb", stream)
    rate = SAMPLE_RATES[audio] if audio is not None else 8_000
    resampler = AudioResampler(format="s16", layout="mono", rate=rate)
    pictures: list[tuple[bytes, int | None, int | None]] = []
    samples: list[Samples] = []
    sound_start: Fraction | None = None
    held = 0
    for packet in container.demux(*wanted, *([speech] if speech is not None else [])):
        if packet.stream is stream:
            for filtered in filters.filter(packet if packet.size else None):
                data = bytes(filtered)
                if pictures or describe(data, codec)[0]:
                    pictures.append((data, _ticks(filtered.pts, stream), _ticks(filtered.dts, stream)))
                    held += len(data)
        else:
            for decoded in packet.decode():
                if isinstance(decoded, AudioFrame):
                    if sound_start is None and decoded.pts is not None and decoded.time_base is not None:
                        sound_start = decoded.pts * decoded.time_base
                    samples.extend(piece.to_ndarray()[0] for piece in resampler.resample(decoded))
        if held > limits.LOOP_BYTES or _span(pictures) > limits.LOOP_SECONDS * HZ:
            break
    if not pictures:
        raise ConfigError(f"{path} holds no key frame", remedy="Give a file whose video has at least one IDR picture.")
    pictures[0] = (_with_parameter_sets(pictures[0][0], stream, codec), *pictures[0][1:])
    guessed = stream.average_rate or stream.guessed_rate or Fraction(25)
    timed = _timed(pictures, codec, guessed)
    steps = [later[2] - earlier[2] for earlier, later in pairwise(timed)]
    step = max(1, round(median(steps))) if steps else round(HZ / guessed)
    duration = timed[-1][2] - timed[0][2] + step
    sound: list[tuple[bytes, int]] = []
    if audio is not None and samples:
        lead = (sound_start or Fraction(0)) - Fraction(timed[0][1], HZ)
        sound = encode_sound(_fit(np.concatenate(samples), round(lead * rate), duration * rate // HZ), audio)
    context = stream.codec_context
    return make_loop(
        codec, timed, sound, audio=audio, duration=duration, size=(context.width, context.height), frame_rate=HZ / step
    )


def _ticks(value: int | None, stream: VideoStream) -> int | None:
    return None if value is None or stream.time_base is None else round(value * stream.time_base * HZ)


def _span(pictures: Sequence[tuple[bytes, int | None, int | None]]) -> int:
    first, last = (pictures[0][2], pictures[-1][2]) if pictures else (None, None)
    return last - first if first is not None and last is not None else len(pictures) * HZ // 25


def _with_parameter_sets(data: bytes, stream: VideoStream, codec: Codec) -> bytes:
    extra = stream.codec_context.extradata or b""
    if describe(data, codec)[1] or not extra.startswith((b"\x00\x00\x01", START_CODE)):
        return data
    return extra + data


def _timed(
    pictures: Sequence[tuple[bytes, int | None, int | None]], codec: Codec, rate: Fraction
) -> list[tuple[bytes, int, int]]:
    timed = [(data, pts, dts) for data, pts, dts in pictures if pts is not None and dts is not None]
    if len(timed) == len(pictures) and all(earlier[2] < later[2] for earlier, later in pairwise(timed)):
        return timed
    # A bare elementary stream: the decoder's output order tells where each picture belongs.
    order = presentation_order([data for data, _, _ in pictures], codec)
    delay = max(index - place for index, place in enumerate(order))
    step = Fraction(HZ) / rate
    return [
        (data, round((place + delay) * step), round(index * step))
        for index, ((data, _, _), place) in enumerate(zip(pictures, order, strict=True))
    ]


def presentation_order(units: Iterable[bytes], codec: Codec) -> list[int]:
    """Return for each unit, in decoding order, its place in presentation order.

    One that yields no picture keeps its own place.
    """
    decoder = av.CodecContext.create(codec.container, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    shown: list[int] = []
    count = 0
    for data in units:
        packet = av.Packet(data)
        packet.pts = packet.dts = count
        count += 1
        with suppress(av.InvalidDataError):  # damaged: no picture comes of it
            shown.extend(frame.pts for frame in decoder.decode(packet) if frame.pts is not None)
    shown.extend(frame.pts for frame in decoder.decode(None) if frame.pts is not None)
    places = {index: place for place, index in enumerate(shown)}
    return [places.get(index, index) for index in range(count)]


def _fit(samples: Samples, lead: int, count: int) -> Samples:
    """Return exactly `count` samples: `lead` of silence first (or that many cut off), silence at the end."""
    if lead < 0:
        samples, lead = samples[-lead:], 0
    fitted = np.zeros(count, dtype=np.int16)
    piece = samples[: max(0, count - lead)]
    fitted[lead : lead + len(piece)] = piece
    return fitted
