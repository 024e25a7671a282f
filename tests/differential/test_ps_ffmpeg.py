"""Our demultiplexer against FFmpeg's, and real recordings against their elementary streams."""

import io
import struct
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import av
import pytest

from gbgw import _ps
from gbgw._ps import AccessUnit
from gbgw.base.codec import AAC, H264, H265, PCMA, by_name
from tests.support import build

pytestmark = pytest.mark.fixtures


def run(data: bytes, cut: int = 1_400) -> tuple[list[AccessUnit], _ps.Demuxer]:
    demuxer = _ps.Demuxer()
    units: list[AccessUnit] = []
    for at in range(0, len(data), cut):
        units += demuxer.push(data[at : at + cut], 0.0)
    units += demuxer.flush()
    return units, demuxer


def joined(units: list[AccessUnit]) -> bytes:
    return b"".join(map(bytes, units))


def packets(data: bytes, format_name: str) -> list[tuple[int | None, bytes]]:
    """(pts, bytes) of the video packets as FFmpeg finds them."""
    with av.open(io.BytesIO(data), "r", format=format_name) as container:
        stream = container.streams.video[0]
        return [(packet.pts, bytes(packet)) for packet in container.demux(stream) if packet.size]


@pytest.fixture(scope="module")
def hikvision(fixtures_dir: Path) -> tuple[bytes, bytes]:
    folder = fixtures_dir / "media" / "avstackdocs"
    (program,) = folder.glob("01e168e1_*.ps")
    (elementary,) = folder.glob("01e168e1_*.264")
    return program.read_bytes(), elementary.read_bytes()


@pytest.mark.parametrize("cut", [13, 1_400, 65_536, 4_000_000])
def test_hikvision_recording_equals_its_elementary_stream(hikvision: tuple[bytes, bytes], cut: int) -> None:
    program, elementary = hikvision
    units, demuxer = run(program, cut)
    data = joined(units)
    common = min(len(data), len(elementary))
    assert common > 3_200_000
    assert data[:common] == elementary[:common]
    assert len(units) == 1_347
    keys = [unit for unit in units if unit.is_keyframe]
    assert len(keys) == 54
    assert all(len(unit.parameter_sets) == 2 for unit in keys)
    assert [unit.pts for unit in units] == [5_476_751_910 + 3_600 * number for number in range(1_347)]
    assert demuxer.counts["ps.private"] == demuxer.maps == 54
    assert demuxer.packs == 1_347
    for name in ("malformed", "resync", "skipped_bytes", "dropped_units", "codec_mismatch", "no_map"):
        assert demuxer.counts[f"ps.{name}"] == 0


def test_hikvision_recording_as_ffmpeg_reads_it(hikvision: tuple[bytes, bytes]) -> None:
    units, _ = run(hikvision[0])
    assert [(unit.pts, bytes(unit)) for unit in units] == packets(hikvision[0], "mpeg")


def test_hikvision_recording_with_every_tenth_packet_lost(hikvision: tuple[bytes, bytes]) -> None:
    program, _ = hikvision
    whole = {unit.pts: bytes(unit) for unit in run(program)[0]}
    demuxer = _ps.Demuxer()
    units: list[AccessUnit] = []
    for number, at in enumerate(range(0, len(program), 1_400)):
        if number % 10 == 9:
            demuxer.gap()
        else:
            units += demuxer.push(program[at : at + 1_400], 0.0)
    units += demuxer.flush()
    assert len(units) > 700
    assert all(whole[unit.pts] == bytes(unit) for unit in units)
    assert any(unit.discontinuity for unit in units)


def rfc4571(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + 2 <= len(data):
        (length,) = struct.unpack_from(">H", data, at)
        if length >= 12 and at + 2 + length <= len(data):
            yield data[at + 2 : at + 2 + length]
        at += 2 + length


@pytest.mark.parametrize("name", ["sbgb28181_gst_tcp_ps", "sbgb28181_gst_udp_ps"])
def test_gstreamer_peer(fixtures_dir: Path, name: str) -> None:
    """One map in the whole stream and about 15 pictures in each pack; the marker tells the truth."""
    demuxer = _ps.Demuxer()
    units: list[AccessUnit] = []
    marked = 0
    program = b""
    for packet in rfc4571((fixtures_dir / "pcap" / "peers" / f"{name}.rfc4571").read_bytes()):
        program += packet[12:]
        units += demuxer.push(packet[12:], 0.0)
        if packet[1] & 0x80:
            ended = demuxer.mark(0.0)
            marked += len(ended)
            units += ended
    units += demuxer.flush()
    assert demuxer.packs == 10
    assert demuxer.maps == 1
    assert marked >= 140
    assert len(units) >= 148
    assert {later.pts - unit.pts for unit, later in pairwise(units)} == {3_600}  # type: ignore[operator]
    assert sum(unit.is_keyframe for unit in units) == 12
    assert all(unit.dts is not None for unit in units)
    assert [(unit.pts, bytes(unit)) for unit in units] == packets(program, "mpeg")[: len(units)]


def test_srs_packets(fixtures_dir: Path) -> None:
    """Single packets of a camera: whatever begins in the middle is skipped, a map is read, nothing breaks."""
    folder = fixtures_dir / "media" / "srs-utest"
    paths = sorted(folder.glob("*.bin"))
    assert len(paths) == 10
    for path in paths:
        units, demuxer = run(path.read_bytes()[12:])
        assert units == []
        assert demuxer.counts["ps.malformed"] == 0
        whole = path.name.endswith("PsPacketDecodeNormal_00.bin")
        assert (demuxer.packs, demuxer.maps) == ((1, 1) if whole else (0, 0)), path.name
        if whole:
            assert {stream.stream_id: stream.declared for stream in demuxer.streams} == {0xC0: AAC, 0xE0: H264}


def test_dvd_style_stream_is_named_and_refused(fixtures_dir: Path) -> None:
    data = (fixtures_dir / "media" / "androidx" / "sample_h262_mpeg_audio.ps").read_bytes()
    units, demuxer = run(data)
    assert units == []
    assert [(stream.stream_id, stream.detected) for stream in demuxer.streams] == [
        (0xC0, by_name("MP1A")),
        (0xE0, by_name("MPEG2V")),
    ]
    assert demuxer.packs == 24
    assert demuxer.counts["ps.unsupported"] > 0


def ffmpeg(*arguments: str | Path) -> bytes:
    command = ["ffmpeg", "-v", "error", "-nostdin", *map(str, arguments), "-"]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


MATERIAL = [
    ("media/misc/srsbench_avatar.h264", "h264"),
    ("media/misc/srsbench_avatar.h265", "hevc"),
    ("media/misc/girlshy.h265", "hevc"),
    ("media/openh264/Cisco_Men_whisper_640x320_CABAC_Bframe_9.264", "h264"),
    ("media/openh264/BA_MW_D.264", "h264"),
    ("media/openh264/SVA_BA1_B.264", "h264"),
]
FORMATS = {"vob": "MPEG-2 syntax", "mpeg": "MPEG-1 syntax"}


@pytest.mark.parametrize("muxer", FORMATS)
@pytest.mark.parametrize(("name", "elementary"), MATERIAL, ids=lambda value: Path(value).name)
def test_bytes_of_streams_that_ffmpeg_muxed(fixtures_dir: Path, name: str, elementary: str, muxer: str) -> None:
    """2048-byte packs whose PES ignore picture borders and have no times: only the NAL units tell pictures apart."""
    source = fixtures_dir / name
    muxed = ffmpeg("-i", source, "-map", "0:v", "-c", "copy", "-muxrate", "50M", "-f", muxer)
    units, demuxer = run(muxed)
    assert {unit.codec for unit in units} == {H265 if elementary == "hevc" else H264}
    assert joined(units) == b"".join(packet for _, packet in packets(muxed, "mpeg"))
    assert [bytes(unit) for unit in units] == [packet for _, packet in packets(source.read_bytes(), elementary)]
    assert demuxer.counts["ps.malformed"] == demuxer.counts["ps.resync"] == 0


ENCODERS = {
    "h264": "-c:v libx264 -bf 3 -g 25 -b_strategy 0 -x264-params log-level=none:slices=1 -f mpegts",
    "hevc": "-c:v libx265 -x265-params bframes=3:keyint=25:log-level=none -f mpegts",
}


@pytest.mark.parametrize("muxer", FORMATS)
@pytest.mark.parametrize("size", ["64x64", "320x240"])
@pytest.mark.parametrize("elementary", ENCODERS)
def test_times_of_streams_that_ffmpeg_muxed(elementary: str, size: str, muxer: str, tmp_path: Path) -> None:
    """B pictures keep their times, and a time stamp goes to the first picture that begins in its PES."""
    source = tmp_path / "source.ts"
    pattern = f"testsrc2=size={size}:rate=25:duration=3"
    encoder = ENCODERS[elementary].split()
    source.write_bytes(ffmpeg("-f", "lavfi", "-i", pattern, "-pix_fmt", "yuv420p", "-threads", "1", *encoder))
    muxed = ffmpeg("-copyts", "-i", source, "-map", "0:v", "-c", "copy", "-muxrate", "50M", "-f", muxer)
    units, demuxer = run(muxed)
    theirs = packets(muxed, "mpeg")
    assert len(units) == 75
    assert joined(units) == b"".join(packet for _, packet in theirs)
    assert [bytes(unit) for unit in units] == [packet for _, packet in theirs]
    timed = [(unit.pts, their) for unit, (their, _) in zip(units, theirs, strict=True) if unit.pts is not None]
    assert len(timed) >= 10
    assert all(pts == their for pts, their in timed if their is not None)
    assert any(unit.dts is not None and unit.dts != unit.pts for unit in units)
    assert demuxer.counts["ps.malformed"] == demuxer.counts["ps.resync"] == 0


def test_g711_beside_a_picture(fixtures_dir: Path) -> None:
    """The recorded samples come back as they were; muxed by hand, since FFmpeg writes no G.711 into program streams."""
    (path,) = (fixtures_dir / "media" / "avstackdocs").glob("*.g711a")
    sound = path.read_bytes()[:160_000]
    data = b""
    for number, at in enumerate(range(0, len(sound), 320)):
        data += build.pack(number) + (build.program_map() if number % 25 == 0 else b"")
        data += build.pes(build.idr264(50) if number % 25 == 0 else build.p264(), pts=number * 3_600)
        data += build.pes(sound[at : at + 320], 0xC0, number * 3_600)
    units, _ = run(data)
    audio = [unit for unit in units if unit.codec is PCMA]
    assert joined(audio) == sound
    assert [unit.pts for unit in audio] == [number * 3_600 for number in range(500)]
