"""Parameter sets as read here against what FFmpeg says of the same files."""

import json
import subprocess
from pathlib import Path

import pytest

from gbgw.base.codec import H264, H265
from gbgw.media import params

pytestmark = pytest.mark.fixtures

CODECS = {".264": H264, ".h264": H264, ".265": H265, ".h265": H265}


def _probe(path: Path) -> dict[str, object]:
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_streams", "-of", "json", str(path)]
    found = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    stream: dict[str, object] = found["streams"][0]
    return stream


@pytest.mark.parametrize(
    ("folder", "at_least"), [("openh264", 17), ("goke-iframes", 8), ("misc", 5), ("avstackdocs", 1)]
)
def test_size_and_reordering(fixtures_dir: Path, folder: str, at_least: int) -> None:
    compared = 0
    for path in sorted((fixtures_dir / "media" / folder).iterdir()):
        codec = CODECS.get(path.suffix)
        if codec is None:
            continue
        parsed = [
            params.parse_sps(codec, unit)
            for unit in params.nal_units(path.read_bytes())
            if (params.h264_type(unit) == 7 if codec is H264 else params.h265_type(unit) == 33)
        ]
        assert parsed, path.name
        theirs = _probe(path)
        for sps in parsed:
            assert sps is not None, path.name
            assert (sps.width, sps.height) == (theirs["width"], theirs["height"]), path.name
            if sps.reorder_depth is not None:
                assert sps.reorder_depth == theirs["has_b_frames"], path.name
            if sps.frame_rate is not None:
                assert f"{sps.frame_rate:g}/1" == theirs["r_frame_rate"], path.name
            if codec is H265:
                assert f".L{theirs['level']}." in sps.rfc6381, path.name
            else:
                assert int(sps.rfc6381[-2:], 16) == theirs["level"], path.name
        compared += 1
    assert compared >= at_least


def test_adts_frames_match(fixtures_dir: Path) -> None:
    import av

    for name in ("misc/srsbench_avatar.aac", "androidx/sample.adts"):
        path = fixtures_dir / "media" / name
        splitter = params.AdtsSplitter()
        ours = splitter.push(path.read_bytes())
        with av.open(str(path)) as container:
            theirs = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
            stream = container.streams.audio[0]
            assert {(frame.sample_rate, frame.channels) for frame in ours} == {(stream.rate, stream.channels)}
        assert len(ours) == len(theirs) > 20
        assert all(packet.endswith(frame.data) for frame, packet in zip(ours, theirs, strict=True))
        assert splitter.refused == 0
