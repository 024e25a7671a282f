"""The test pattern: what is burnt in can be read back from what a decoder shows, in every form the device sends."""

import av
import numpy as np
import pytest

from gbgw.base.codec import AAC, H264, H265, PCMA, PCMU, Codec, Kind
from gbgw.base.errors import ConfigError
from gbgw.base.ticks import HZ
from gbgw.mux.loop import Loop
from gbgw.mux.pattern import CELLS, Painter, PatternSpec, pattern_loop, read_counter, tone

SMALL = PatternSpec(width=320, height=180, seconds=2, audio=None)


def decode(loop: Loop) -> list[tuple[int, np.ndarray]]:
    """Decode one round with FFmpeg: (pts in ticks, RGB) in presentation order."""
    decoder = av.CodecContext.create(loop.video.container, "r")
    frames = []
    for unit in loop.units:
        if unit.codec is loop.video:
            packet = av.Packet(bytes(unit))
            packet.pts, packet.dts = unit.pts, unit.dts
            frames += decoder.decode(packet)
    frames += decoder.decode(None)
    return [(frame.pts, frame.to_ndarray(format="rgb24")) for frame in frames]


@pytest.mark.parametrize("codec", [H264, H265])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_the_counter_is_read_back_from_every_decoded_picture(codec: Codec, b_frames: int) -> None:
    spec = PatternSpec(video=codec, width=320, height=180, seconds=2, audio=None, b_frames=b_frames)
    loop = pattern_loop(spec)
    shown = decode(loop)
    assert [read_counter(picture) for _, picture in shown] == list(range(50))
    assert [pts for pts, _ in shown] == [loop.delay + 3_600 * number for number in range(50)]
    assert (loop.delay > 0) == (b_frames > 0)
    reordered = any(unit.pts != unit.dts for unit in loop.units)
    assert reordered == (b_frames > 0)


def test_units_are_ready_to_send() -> None:
    loop = pattern_loop(PatternSpec(width=320, height=180, audio=PCMA))
    pictures = [unit for unit in loop.units if unit.codec.kind is Kind.VIDEO]
    sound = [unit for unit in loop.units if unit.codec.kind is Kind.AUDIO]
    assert loop.units[0].is_keyframe
    assert [index for index, unit in enumerate(pictures) if unit.is_keyframe] == list(range(0, 200, 25))
    assert all(len(unit.parameter_sets) == 2 for unit in pictures if unit.is_keyframe)
    assert all(bytes(unit).startswith(b"\x00\x00\x00\x01\x09") for unit in pictures)
    assert {len(unit) for unit in sound} == {320}
    assert [unit.pts for unit in sound] == list(range(0, loop.duration, 3_600))
    assert loop.duration == 8 * HZ
    assert loop.bitrate < 1_000_000


def test_equal_specs_give_equal_bytes_and_the_seed_others() -> None:
    first = [bytes(unit) for unit in pattern_loop(SMALL).units]
    pattern_loop.cache_clear()
    assert [bytes(unit) for unit in pattern_loop(SMALL).units] == first
    other = PatternSpec(width=320, height=180, seconds=2, audio=None, seed=3)
    assert [bytes(unit) for unit in pattern_loop(other).units] != first


@pytest.mark.parametrize(("codec", "name"), [(PCMA, "pcm_alaw"), (PCMU, "pcm_mulaw"), (AAC, "aac")])
def test_the_tone_survives_its_codec_and_the_round_joins_without_a_click(codec: Codec, name: str) -> None:
    spec = PatternSpec(width=160, height=90, audio=codec)
    units = [bytes(unit) for unit in pattern_loop(spec).units if unit.codec is codec]
    decoder = av.CodecContext.create(name, "r")
    if codec is not AAC:
        decoder.sample_rate, decoder.layout = 8_000, "mono"
    else:
        assert len(units) == 125
    pieces = []
    for data in units + units:
        pieces += [frame.to_ndarray()[0].astype(float) for frame in decoder.decode(av.Packet(data))]
    heard = np.concatenate(pieces)
    rate = len(heard) / 16
    heard = heard / np.abs(heard).max()
    middle = heard[int(7.2 * rate) : int(7.8 * rate)]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert abs(spectrum.argmax() * rate / len(middle) - 440) < 3
    # A click at the seam (8 s, between ticks of the tone) would show as a step larger than the tone's own.
    quiet = np.abs(np.diff(heard[int(7.5 * rate) : int(7.9 * rate)])).max()
    loud = np.abs(np.diff(heard[int(8.0 * rate) : int(8.1 * rate)])).max()
    before = np.abs(np.diff(heard[int(7.0 * rate) : int(7.1 * rate)])).max()
    assert quiet < before
    assert loud < 1.3 * before


def test_the_tone_ticks_each_second() -> None:
    samples = tone(PatternSpec(audio=PCMA)).astype(float)
    power = [np.square(samples[start : start + 240]).mean() for start in range(0, 64_000, 2_000)]
    assert all(power[index] > 3 * power[index + 1] for index in range(0, 32, 4))


@pytest.mark.parametrize("size", [(640, 360), (1280, 720), (320, 180), (210, 118)])
@pytest.mark.parametrize("number", [0, 1, 0x5A5A, 0xFFFF])
def test_the_geometry_scales(size: tuple[int, int], number: int) -> None:
    """Nearest-neighbour scaling stands for whatever a browser does to the picture."""
    painter = Painter(PatternSpec())
    luma = painter.paint(0)[:360]
    painter._count(luma, number)
    rows = np.arange(size[1]) * 360 // size[1]
    columns = np.arange(size[0]) * 640 // size[0]
    scaled = luma[rows][:, columns]
    assert read_counter(scaled) == number
    assert read_counter(np.repeat(scaled[..., None], 4, axis=2)) == number


def test_what_is_no_pattern_is_not_read() -> None:
    luma = Painter(PatternSpec()).paint(77)[:360]
    assert read_counter(luma) == 77
    assert read_counter(np.zeros((360, 640), dtype=np.uint8)) is None
    assert read_counter(255 - luma) is None
    cell = 640 // CELLS
    for index in range(2, 20):
        damaged = luma.copy()
        damaged[:40, index * cell : (index + 1) * cell] = 251 - damaged[:40, index * cell : (index + 1) * cell]
        assert read_counter(damaged) is None, f"cell {index}"


@pytest.mark.parametrize(
    "spec",
    [
        PatternSpec(width=641),
        PatternSpec(height=8),
        PatternSpec(frame_rate=7),
        PatternSpec(gop=33),
        PatternSpec(b_frames=4),
        PatternSpec(seconds=0),
        PatternSpec(gop=0),
    ],
)
def test_impossible_specs_are_refused(spec: PatternSpec) -> None:
    with pytest.raises(ConfigError):
        pattern_loop(spec)
