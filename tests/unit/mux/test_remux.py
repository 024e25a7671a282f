"""An MP4 of what was downloaded."""

from fractions import Fraction
from pathlib import Path

import av
import pytest

from gbgw.base.codec import AAC, PCMA, Codec
from gbgw.media.hub import Stream
from gbgw.mux.feed import Feeds
from gbgw.mux.pattern import PatternSpec, read_counter
from gbgw.mux.remux import remux
from tests.support.streams import Viewer, feed, timed_units


def downloaded(folder: Path, audio: Codec | None) -> Path:
    """Four seconds as they come from a stream, as FLV."""
    units = timed_units(PatternSpec(width=320, height=180, seconds=4, audio=audio))
    stream = Stream("K")
    if audio is not None:
        stream.promise(True, video=True)
    viewer = Viewer()
    feed(stream, units[:10])
    Feeds().get(stream, "flv").attach(viewer)
    feed(stream, units[10:])
    stream.close()
    source = folder / "in.part"
    source.write_bytes(viewer.data)
    return source


@pytest.mark.parametrize("audio", [PCMA, AAC, None])
def test_pictures_are_copied_and_sound_is_aac(tmp_path: Path, audio: Codec | None) -> None:
    target = tmp_path / "out.mp4"
    remux(str(downloaded(tmp_path, audio)), str(target))
    head = target.read_bytes()
    assert head.index(b"moov") < head.index(b"mdat")
    with av.open(str(target)) as container:
        assert [stream.codec_context.name for stream in container.streams.audio] == (["aac"] if audio else [])
        for stream in container.streams.audio:
            assert float((stream.duration or 0) * (stream.time_base or Fraction(1))) == pytest.approx(4, abs=0.3)
        numbers = [read_counter(frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= 95


def test_what_has_no_video_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.part"
    source.write_bytes(b"FLV\x01\x00\x00\x00\x00\x09\x00\x00\x00\x00")
    with pytest.raises((ValueError, av.FFmpegError)):
        remux(str(source), str(tmp_path / "out.mp4"))
