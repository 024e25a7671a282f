"""Streams that FFmpeg encodes, in a program stream built by hand: source, FFmpeg's demultiplexer and ours agree.

On bytes, on pts and dts, and on what is a key frame, for every codec the gateway carries and for the shapes of H.264
and H.265 that cameras have.
"""

import io
import subprocess
from functools import lru_cache
from typing import NamedTuple

import av
import pytest

from gbgw import _ps
from gbgw.base.codec import AAC, H264, H265, PCMA, PCMU, Codec
from tests.support import build

X264 = "-c:v libx264 -g 25 -x264-params log-level=none:aud=1"
X265 = "-c:v libx265 -x265-params log-level=none:aud=1:keyint=25"
VIDEO = {
    "h264": f"{X264} -bf 0",
    "h264 with B-frames": f"{X264} -bf 3",
    "h264 with a pyramid of B-frames": f"{X264}:b-pyramid=normal -bf 4 -b_strategy 0",
    "h264 in five slices": f"{X264}:slices=5 -bf 2",
    "h264 in slices of 200 bytes": f"{X264}:slice-max-size=200 -bf 0",
    "h264 interlaced": f"{X264}:tff=1 -flags +ildct+ilme -bf 1",
    "h264 with another set's id": f"{X264}:sps-id=5 -bf 1",
    "h264 with sets before every key frame": f"{X264}:repeat-headers=1 -bf 0",
    "h264 of one picture in each group": f"{X264}:keyint=1",
    "h265": f"{X265}:bframes=0",
    "h265 with B-frames": f"{X265}:bframes=3",
    "h265 in three slices": f"{X265}:slices=3:bframes=1",
    "h265 with an open group": f"{X265}:open-gop=1:bframes=2",
}
AUDIO: dict[str, tuple[Codec, str]] = {
    "AAC": (AAC, "-c:a aac -f adts"),
    "PCMA": (PCMA, "-c:a pcm_alaw -ar 8000 -ac 1 -f alaw"),
    "PCMU": (PCMU, "-c:a pcm_mulaw -ar 8000 -ac 1 -f mulaw"),
}


class Packet(NamedTuple):
    """Of a picture. pts, dts: 90 kHz ticks."""

    pts: int
    dts: int
    is_keyframe: bool
    data: bytes


def ffmpeg(arguments: str) -> bytes:
    command = ["ffmpeg", "-v", "error", "-nostdin", *arguments.split(), "-"]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


def packets(data: bytes, form: str, kind: str = "video") -> list[Packet]:
    with av.open(io.BytesIO(data), "r", format=form) as container:
        return [
            Packet(packet.pts or 0, packet.pts if packet.dts is None else packet.dts, packet.is_keyframe, bytes(packet))  # type: ignore[arg-type]
            for packet in container.demux()
            if packet.size and packet.stream.type == kind
        ]


@lru_cache(maxsize=32)
def encoded(encoder: str, size: str = "160x120") -> tuple[Packet, ...]:
    pattern = f"-f lavfi -i testsrc2=size={size}:rate=25:duration=2"
    return tuple(packets(ffmpeg(f"{pattern} -pix_fmt yuv420p -threads 1 {encoder} -f mpegts"), "mpegts"))


def program(source: list[Packet], stream_type: int, sound: list[bytes], sound_type: int = build.PCMA) -> bytes:
    """A pack for a picture; the map before key frames, and a piece of sound behind each."""
    data = b""
    for number, packet in enumerate(source):
        data += build.pack(packet.dts)
        if packet.is_keyframe:
            entries = [(stream_type, build.VIDEO_ID), *([(sound_type, build.AUDIO_ID)] if sound else [])]
            data += build.system_header() + build.program_map(entries)
        dts = packet.dts if packet.dts != packet.pts else None
        data += build.pes_run(packet.data, build.VIDEO_ID, packet.pts, dts, limit=3_000)
        if number < len(sound):
            data += build.pes(sound[number], build.AUDIO_ID, packet.dts)
    return data


def ours(data: bytes, codec: Codec, cut: int) -> list[Packet]:
    demuxer = _ps.Demuxer()
    units = [unit for at in range(0, len(data), cut) for unit in demuxer.push(data[at : at + cut], 0.0)]
    units += demuxer.flush()
    damage = ("malformed", "resync", "skipped_bytes", "dropped_units", "codec_mismatch", "no_map")
    assert [name for name in damage if demuxer.counts[f"ps.{name}"]] == []
    found = [unit for unit in units if unit.codec is codec]
    assert all(unit.pts is not None for unit in found)
    return [
        Packet(unit.pts or 0, (unit.pts if unit.dts is None else unit.dts) or 0, unit.is_keyframe, bytes(unit))
        for unit in found
    ]


@pytest.mark.parametrize("name", VIDEO)
def test_pictures(name: str) -> None:
    source = list(encoded(VIDEO[name]))
    assert len(source) == 50
    assert sum(packet.is_keyframe for packet in source) >= 2
    is_h265 = name.startswith("h265")
    data = program(source, build.H265 if is_h265 else build.H264, [b"\xd5" * 320] * 50)
    assert ours(data, H265 if is_h265 else H264, 1_400) == source
    assert ours(data, H265 if is_h265 else H264, 11) == source
    assert packets(data, "mpeg") == source


def test_another_size_in_the_middle() -> None:
    """A new SPS takes over where it comes; the units know which sets are theirs."""
    first, second = (list(encoded(VIDEO["h264"], size)) for size in ("160x120", "320x240"))
    later = [packet._replace(pts=packet.pts + 180_000, dts=packet.dts + 180_000) for packet in second]
    source = first + later
    data = program(source, build.H264, [])
    assert ours(data, H264, 1_400) == source == packets(data, "mpeg")
    demuxer = _ps.Demuxer()
    units = [*demuxer.push(data, 0.0), *demuxer.flush()]
    sets = [unit.parameter_sets for unit in units if unit.is_keyframe]
    assert len({one[0] for one in sets}) == 2
    assert all(bytes(unit).count(one) for unit in units for one in unit.parameter_sets)


@pytest.mark.parametrize("name", AUDIO)
def test_sound(name: str) -> None:
    """AAC frame by frame, G.711 sample for sample, between pictures."""
    codec, encoder = AUDIO[name]
    raw = ffmpeg(f"-f lavfi -i sine=frequency=440:duration=2 {encoder}")
    if codec is AAC:
        pieces = [packet.data for packet in packets(raw, "aac", "audio")]
        pieces = [b"".join(pieces[at : at + 2]) for at in range(0, len(pieces), 2)]  # as cameras do
    else:
        pieces = [raw[at : at + 320] for at in range(0, len(raw), 320)]
    source = list(encoded(VIDEO["h264"]))
    data = program(source, build.H264, pieces, codec.stream_type or 0)
    found = ours(data, codec, 1_400)
    assert [packet.data for packet in found] == pieces[: len(source)]
    assert [packet.pts for packet in found] == [packet.dts for packet in source[: len(found)]]
    theirs = packets(data, "mpeg", "audio")
    assert b"".join(packet.data for packet in found).startswith(b"".join(packet.data for packet in theirs))
    assert sum(len(packet.data) for packet in theirs) >= sum(map(len, pieces[: len(source)])) - 2_048
    if codec is not PCMU:  # FFmpeg has no stream type 0x91 in program streams and takes it for MPEG audio
        assert {packet.pts for packet in found} <= {packet.pts for packet in theirs} | {found[-1].pts}
