import random
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import pytest

from gbgw._ps import AccessUnit
from gbgw.base import limits
from gbgw.base.codec import H264, H265, PCMA, Codec, by_name
from gbgw.base.errors import RequestError
from gbgw.media import params
from gbgw.media.hub import Stream
from gbgw.media.timeline import Timeline
from gbgw.media.track import Track
from gbgw.mux.decode import Decoder, Picture

FRAMES = 20
STEP = 3_600


def _grey(index: int) -> int:
    return 20 + 10 * index


def _encode(codec: Codec, *, b_frames: int = 0, size: int = 128) -> list[AccessUnit]:
    """Pictures of one brightness each, two GOPs of ten."""
    name = {"H264": "libx264", "H265": "libx265"}[codec.name]
    context = av.CodecContext.create(name, "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width = context.height = size
    context.pix_fmt = "yuv420p"
    context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
    extra = (
        f"keyint=10:min-keyint=10:scenecut=0:bframes={b_frames}:b-adapt=0:repeat-headers=1:log-level=none:open-gop=0"
    )
    context.options = {f"{name[3:]}-params": extra.replace("log-level", "log_level") if codec is H264 else extra}
    if codec is H264:
        context.options = {**context.options, "x264-params": extra.replace(":log-level=none", "")}
    packets = []
    for index in [*range(FRAMES), None]:
        frame = None
        if index is not None:
            frame = av.VideoFrame.from_ndarray(np.full((size, size, 3), _grey(index), np.uint8), format="rgb24")
            frame.pts = index
        packets += context.encode(frame)
    kinds = (params.H264_SPS, params.H264_PPS) if codec is H264 else (32, 33, 34)
    kind_of = params.h264_type if codec is H264 else params.h265_type
    units = []
    for packet in packets:
        assert packet.pts is not None
        data = bytes(packet)
        sets = tuple(bytes(nal) for nal in params.nal_units(data) if kind_of(nal) in kinds)
        unit = AccessUnit(data, codec, packet.pts * STEP, is_keyframe=packet.is_keyframe, parameter_sets=sets)
        units.append(unit)
    return units


def _published(units: list[AccessUnit]) -> tuple[Track, list[AccessUnit]]:
    line, stream, timed = Timeline(), Stream("cam"), []
    for unit in units:
        for ready in line.push(unit, 0.0):
            stream.push(ready, 0.0)
            timed.append(ready)
    assert stream.video is not None
    return stream.video, timed  # type: ignore[return-value]


@pytest.fixture(scope="module")
def h264() -> tuple[Track, list[AccessUnit]]:
    return _published(_encode(H264))


def _check(pictures: list[Picture], indices: Iterator[int] | range) -> None:
    assert [picture.pts for picture in pictures] == [index * STEP for index in indices]
    for picture in pictures:
        assert picture.pixels.shape == (128, 128, 3)
        assert abs(int(picture.pixels.mean()) - _grey(picture.pts // STEP)) <= 3


@pytest.mark.parametrize("codec", [H264, H265])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_pictures_come_in_order_with_their_times(codec: Codec, b_frames: int) -> None:
    track, units = _published(_encode(codec, b_frames=b_frames))
    decoder = Decoder(track)
    pictures = [picture for unit in units for picture in decoder.push(unit)]
    pictures += decoder.flush()
    _check(pictures, range(FRAMES))
    assert [picture.pts // STEP for picture in pictures if picture.is_keyframe] == [0, 10]
    assert not decoder.tally.counts


def test_without_b_frames_each_picture_comes_at_once(h264: tuple[Track, list[AccessUnit]]) -> None:
    track, units = h264
    assert track.reorder_depth == 0
    decoder = Decoder(track)
    for index, unit in enumerate(units):
        _check(decoder.push(unit), range(index, index + 1))


def test_starts_at_a_key_frame_and_again_after_a_hole(h264: tuple[Track, list[AccessUnit]]) -> None:
    track, units = h264
    decoder = Decoder(track)
    holed = AccessUnit(bytes(units[4]), H264, units[4].pts, units[4].dts, discontinuity=True)
    pictures = [
        picture for unit in [*units[7:], units[0], units[1], holed, *units[5:]] for picture in decoder.push(unit)
    ]
    assert [picture.pts // STEP for picture in pictures] == [*range(10, 20), 0, 1, *range(10, 20)]
    assert decoder.tally["decode.skipped"] == 3 + 6


def test_the_tracks_parameter_sets_help_a_bare_key_frame(h264: tuple[Track, list[AccessUnit]]) -> None:
    track, units = h264
    bare = b"".join(
        b"\0\0\0\1" + bytes(nal) for nal in params.nal_units(units[0]) if params.h264_type(nal) not in (7, 8)
    )
    unit = AccessUnit(bare, H264, 0, 0, is_keyframe=True)
    _check(Decoder(track).push(unit), range(1))


def test_damage_is_counted_and_decoding_goes_on(h264: tuple[Track, list[AccessUnit]]) -> None:
    track, units = h264
    chance = random.Random(1)
    decoder = Decoder(track)
    for unit in units * 10:
        data = bytearray(bytes(unit))
        for _ in range(chance.randrange(1, 20)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        decoder.push(AccessUnit(bytes(data), H264, unit.pts, unit.dts, is_keyframe=unit.is_keyframe))
    decoder.push(AccessUnit(b"", H264, 0, 0, is_keyframe=True))
    decoder.push(AccessUnit(bytes(1_000), H264, 0, 0, is_keyframe=True))
    assert decoder.tally["decode.error"] > 0
    decoder.flush()
    _check([picture for unit in units for picture in decoder.push(unit)], range(FRAMES))


def test_a_picture_above_the_ceiling_is_refused(
    h264: tuple[Track, list[AccessUnit]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DECODE_PIXELS", 128 * 128 - 1)
    track, units = h264
    decoder = Decoder(track)
    assert decoder.push(units[0]) == []
    assert decoder.tally["decode.error"] == 1


def test_close_may_be_repeated(h264: tuple[Track, list[AccessUnit]]) -> None:
    track, units = h264
    decoder = Decoder(track)
    decoder.push(units[0])
    decoder.close()
    decoder.close()
    assert decoder.flush() == []
    _check(decoder.push(units[10]), range(10, 11))


@pytest.mark.parametrize("codec", [PCMA, by_name("SVAC")])
def test_only_video_that_is_supported(codec: Codec) -> None:
    with pytest.raises(RequestError) as caught:
        Decoder(Track(0xC0, codec))
    assert caught.value.code == "codec_unsupported"
