"""Derived dts against the dts that real files with B-frames carry."""

from itertools import pairwise
from pathlib import Path

import av
import pytest
from av.bitstream import BitStreamFilterContext

from gbgw._ps import AccessUnit
from gbgw.base.codec import H264, H265, Codec
from gbgw.media import params
from gbgw.media.timeline import Timeline

pytestmark = pytest.mark.fixtures


def _units(path: Path, codec: Codec) -> tuple[list[AccessUnit], list[int]]:
    """Units with pts only, in coding order, and the dts of the file."""
    kinds = (7, 8) if codec is H264 else (32, 33, 34)
    kind_of = params.h264_type if codec is H264 else params.h265_type
    units, dts = [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        annexb = BitStreamFilterContext(f"{codec.container}_mp4toannexb", stream)
        assert stream.time_base is not None
        scale = 90_000 * stream.time_base
        for packet in container.demux(stream):
            for out in annexb.filter(packet) if packet.size else ():
                data = bytes(out)
                sets = tuple(bytes(nal) for nal in params.nal_units(data) if kind_of(nal) in kinds)
                assert out.pts is not None
                assert out.dts is not None
                units.append(AccessUnit(data, codec, round(out.pts * scale), parameter_sets=sets))
                dts.append(round(out.dts * scale))
    return units, dts


@pytest.mark.parametrize(
    ("name", "codec", "told"),
    [
        ("androidx/h265_bframes.mp4", H265, True),
        ("fate/h264_h264_3bf_nopyramid_nobsrestriction.mp4", H264, False),
        ("fate/h264_h264_3bf_pyramid_nobsrestriction.mp4", H264, False),
    ],
)
def test_derived_dts(fixtures_dir: Path, name: str, codec: Codec, told: bool) -> None:
    units, theirs = _units(fixtures_dir / "media" / name, codec)
    line = Timeline()
    ours = [timed for unit in units for timed in line.push(unit, 0.0)]
    assert len(ours) == len(units) > 20
    assert any(later.pts < earlier.pts for earlier, later in pairwise(units) if later.pts and earlier.pts), (
        "no B-frames"
    )
    assert all(later.dts > earlier.dts for earlier, later in pairwise(ours))  # type: ignore[operator]
    assert all(unit.dts <= unit.pts for unit in ours)  # type: ignore[operator]
    # without a word in the SPS the depth is learnt from the first B-frames, whose times are repaired
    start = 0 if told else 12
    assert [unit.pts for unit in ours[start:]] == [unit.pts for unit in units[start:]]
    skew = {our.dts - their for our, their in zip(ours, theirs, strict=True) if our.dts is not None}
    if told:
        assert max(skew) - min(skew) <= 2
