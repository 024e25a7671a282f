import dataclasses

import pytest

from gbgw.base.codec import AAC, H264, H265, PCMA, PCMU, by_name
from gbgw.media.track import Track
from tests.support import nal


@pytest.mark.parametrize(
    ("track", "expected"),
    [
        (Track(0xE0, H264, (nal.h264_sps(profile=77, constraints=0x40, level=31), nal.h264_pps())), "avc1.4d401f"),
        (Track(0xE0, H265, (nal.h265_vps(), nal.h265_sps(), nal.h265_pps())), "hvc1.1.6.L93.B0"),
        (Track(0xC0, AAC, config=b"\x12\x10"), "mp4a.40.2"),
        (Track(0xC0, AAC, config=b"\x2b\x11"), "mp4a.40.5"),
        (Track(0xC0, AAC), "mp4a.40.2"),
        (Track(0xC0, PCMA), "alaw"),
        (Track(0xC0, PCMU), "ulaw"),
        (Track(0xE0, H264), ""),
        (Track(0xE0, H264, (b"\x67\x4d",)), ""),
        (Track(0xE0, H265, (b"\x42\x01\x01",)), ""),
        (Track(0xC0, by_name("G723")), ""),
    ],
)
def test_codecs_parameter(track: Track, expected: str) -> None:
    assert track.rfc6381 == expected


def test_video_and_audio() -> None:
    assert Track(0xE0, H265).is_video
    assert not Track(0xC0, PCMA).is_video


def test_a_track_is_a_value() -> None:
    track = Track(0xC0, PCMA, sample_rate=8_000, channels=1)
    assert track == Track(0xC0, PCMA, sample_rate=8_000, channels=1)
    assert track != dataclasses.replace(track, channels=2)
    assert len({track, Track(0xC0, PCMA, sample_rate=8_000, channels=1)}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        track.channels = 2  # type: ignore[misc]
