import io

import av
import pytest

from gbgw._ps import Demuxer
from gbgw.base.codec import H264, PCMA
from gbgw.bench.content import content_of, find_times, pieces_of, read_scr
from gbgw.mux.loop import Loop
from gbgw.mux.ps import PLAIN, Muxer, pack_header
from gbgw.mux.scene import SceneSpec, scene_loop

SPEC = SceneSpec(320, 176, 25, 25, 2, 400_000)


@pytest.fixture(scope="module")
def loop() -> Loop:
    return scene_loop(SPEC)


def test_a_scene_holds_its_bitrate_and_decodes(loop: Loop) -> None:
    assert loop.frames == 50
    assert sum(unit.is_keyframe for unit in loop.units if unit.codec is H264) == 2
    assert loop.units[0].is_keyframe
    assert 0.85 * SPEC.bitrate < loop.bitrate - 64_000 < 1.25 * SPEC.bitrate
    video = b"".join(bytes(unit) for unit in loop.units if unit.codec is H264)
    with av.open(io.BytesIO(video), format="h264") as container:
        assert sum(1 for _ in container.decode(video=0)) == 50


def test_equal_specs_give_equal_bytes(loop: Loop) -> None:
    again = scene_loop(SPEC)
    assert [bytes(unit) for unit in again.units] == [bytes(unit) for unit in loop.units]


@pytest.mark.parametrize("spec", [SceneSpec(frame_rate=7), SceneSpec(gop=33), SceneSpec(width=321)])
def test_what_cannot_be_drawn_is_refused(spec: SceneSpec) -> None:
    with pytest.raises(ValueError):
        scene_loop(spec)


@pytest.mark.parametrize("scr", [0, 1, 0x1_2345_6789, 2**33 - 1])
def test_scr_is_read_back(scr: int) -> None:
    assert read_scr(pack_header(scr)) == scr


def test_times_are_found_behind_maps_and_stuffing(loop: Loop) -> None:
    from dataclasses import replace

    for style in (PLAIN, replace(PLAIN, stuffing=5)):
        muxer = Muxer(H264, PCMA, style)
        for unit in loop.units[:4]:
            data = muxer.push(unit.with_times(90_000, 86_400 if unit.codec is H264 else 90_000))
            pts_at, dts_at = find_times(data)
            assert data[pts_at] >> 4 == (3 if dts_at else 2)
            assert dts_at == (pts_at + 5 if unit.codec is H264 else 0)


def test_what_is_sent_demuxes_to_the_loop_for_ever(loop: Loop) -> None:
    content, demuxer = content_of(loop), Demuxer()
    units = []
    for turn in range(2):
        for index in range(len(content)):
            units += demuxer.push(content.packet(index, round=turn)[12:], 0.0)
    units += demuxer.flush()
    assert len(units) == 2 * len(loop.units)
    video = [unit for unit in units if unit.codec is H264]
    assert [unit.pts for unit in video] == [90_000 + 3_600 * number for number in range(100)]
    sound = b"".join(bytes(unit) for unit in units if unit.codec is PCMA)
    assert sound == 2 * b"".join(bytes(unit) for unit in loop.units if unit.codec is PCMA)
    assert [bytes(unit) for unit in video[:50]] == [bytes(unit) for unit in video[50:]]
    assert [piece[0] for piece in pieces_of(loop)] == sorted(piece[0] for piece in pieces_of(loop))
