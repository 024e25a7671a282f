"""What mux/ps.py writes, _ps reads back: same units, same times, in every style and at every cut."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gbgw._ps import AccessUnit, Demuxer
from gbgw.base.codec import AAC, H264, H265, PCMA, PCMU, Codec, Kind
from gbgw.mux.loop import adts_header, load_file
from gbgw.mux.pattern import PatternSpec, pattern_loop
from gbgw.mux.ps import HIKVISION, PLAIN, Muxer, Style, pes_packet

STYLES = {
    "plain": PLAIN,
    "no map": Style(program_map=False),
    "bad crc": Style(valid_crc=False),
    "zero length": Style(zero_length=True),
    "stuffing": Style(stuffing=7),
    "private stream": Style(private_stream=True, map_descriptors=b"\x40\x03abc"),
    "vendor": replace(HIKVISION, delimiter=True, write_dts=True),
}
HEADS = {
    H264: ("00000001 09f0 00000001 6742c01eda 00000001 68ce3c80 00000001 6588", "00000001 09f0 00000001 419a"),
    H265: (
        "00000001 460150 00000001 40010c01ffff 00000001 420101016000 00000001 4401c172 00000001 2601af",
        "00000001 460150 00000001 0201d0",
    ),
}


@st.composite
def streams(draw: st.DrawFn) -> list[AccessUnit]:
    """A second or so of units: pictures with a key frame first, sound between them, times anywhere up to the wrap."""
    video = draw(st.sampled_from([H264, H265]))
    audio = draw(st.sampled_from([PCMA, PCMU, AAC]))
    start = draw(st.sampled_from([0, 90_000, (1 << 33) - 7_200, (1 << 32) + 5]))
    count = draw(st.integers(1, 8))
    reordered = draw(st.booleans())
    units = []
    for index in range(count):
        key = index == 0 or draw(st.booleans())
        # No zero bytes: content that looks like a start code is no legal NAL unit (H.264 (08/2021) section 7.4.1).
        size = draw(st.sampled_from([1, 100, 1_400, 65_400, 65_500, 70_000]))
        filler = bytes(draw(st.integers(1, 255)) for _ in range(3))
        data = bytes.fromhex(HEADS[video][0 if key else 1]) + (filler * (size // 3 + 1))[:size] + b"\x80"
        dts = start + index * 3_600
        pts = dts + (7_200 if reordered and index % 2 == 0 else 0)  # two pictures of one stream never share a PTS
        units.append(AccessUnit(data, video, pts, dts, is_keyframe=key))
        if draw(st.booleans()):
            # Not what begins like ADTS, which the demultiplexer rightly believes over the map
            sound = draw(st.binary(min_size=8, max_size=400).filter(lambda data: data[0] != 0xFF))
            if audio is AAC:
                sound = adts_header(len(sound), 16_000) + sound
            units.append(AccessUnit(sound, audio, dts, dts, is_keyframe=True, track_id=0xC0))
    return units


def codecs_of(units: Sequence[AccessUnit]) -> tuple[Codec, Codec | None]:
    audio = next((unit.codec for unit in units if unit.codec.kind is Kind.AUDIO), None)
    return units[0].codec, audio


def demux(stream: bytes, cuts: Sequence[int]) -> tuple[list[AccessUnit], Demuxer]:
    demuxer, found, at = Demuxer(), [], 0
    for cut in [*sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]:
        found += demuxer.push(stream[at:cut], 0.0)
        at = cut
    return [*found, *demuxer.flush()], demuxer


def decoding_time(unit: AccessUnit) -> int:
    """Return its dts; a PES without DTS has that of its PTS."""
    time = unit.dts if unit.dts is not None else unit.pts
    assert time is not None
    return time


def facts(units: Sequence[AccessUnit], kind: Kind) -> list[tuple[bytes, int, int, bool]]:
    """Bytes, pts and dts since the first picture (whose own time is known only modulo 2^33), key frame."""
    start = next(decoding_time(unit) for unit in units if unit.codec.kind is Kind.VIDEO)
    return [
        (bytes(unit), (unit.pts or 0) - start, decoding_time(unit) - start, unit.is_keyframe)
        for unit in units
        if unit.codec.kind is kind
    ]


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES.keys())
@settings(max_examples=15, deadline=None)
@given(units=streams(), cuts=st.lists(st.integers(0, 1 << 20), max_size=30))
def test_every_style_is_read_back_at_every_cut(style: Style, units: list[AccessUnit], cuts: list[int]) -> None:
    video, audio = codecs_of(units)
    muxer = Muxer(video, audio, style)
    found, demuxer = demux(b"".join(muxer.push(unit) for unit in units), cuts)
    assert facts(found, Kind.VIDEO) == facts(units, Kind.VIDEO)
    if style.program_map or audio in (None, AAC, PCMA):
        assert facts(found, Kind.AUDIO) == facts(units, Kind.AUDIO)
        assert {unit.codec for unit in found} == {video, audio} - {None}
    assert (decoding_time(units[0]) - next(decoding_time(u) for u in found if u.codec is video)) % (1 << 33) == 0
    assert demuxer.counts["ps.malformed"] == 0
    assert demuxer.counts["ps.dropped_units"] == 0


@pytest.mark.parametrize("codec", [H264, H265])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_the_pattern_is_read_back(codec: Codec, b_frames: int) -> None:
    loop = pattern_loop(PatternSpec(video=codec, width=320, height=180, seconds=2, b_frames=b_frames, audio=AAC))
    muxer = Muxer(codec, AAC)
    found, demuxer = demux(b"".join(map(muxer.push, loop.units)), range(0, 1 << 20, 1_400))
    for kind in Kind:
        assert facts(found, kind) == facts(loop.units, kind)
    sets = [unit.parameter_sets for unit in found if unit.codec is codec and unit.is_keyframe]
    assert sets == [unit.parameter_sets for unit in loop.units if unit.codec is codec and unit.is_keyframe]
    assert demuxer.maps == 2


def test_private_units_between_packs_are_passed_over() -> None:
    muxer = Muxer(H264, None)
    units = [AccessUnit(bytes.fromhex(HEADS[H264][0]), H264, n * 3_600, is_keyframe=True) for n in range(3)]
    stream = b"".join(muxer.push(unit) + pes_packet(0xBD, b"\x00\x00\x01\xba" * 8) for unit in units)
    found, demuxer = demux(stream, [])
    assert [bytes(unit) for unit in found] == [bytes(unit) for unit in units]
    assert demuxer.counts["ps.private"] == 3


@pytest.mark.fixtures
def test_real_elementary_streams_are_read_back(fixtures_dir: Path) -> None:
    for name, codec in (("srsbench_avatar.h264", H264), ("srsbench_avatar.h265", H265)):
        loop = load_file(fixtures_dir / "media/misc" / name, None)
        assert loop.video is codec
        muxer = Muxer(codec, None, Style(delimiter=False))
        found, _ = demux(b"".join(map(muxer.push, loop.units)), range(0, 1 << 24, 1_400))
        assert facts(found, Kind.VIDEO) == facts(loop.units, Kind.VIDEO)
        assert b"".join(bytes(unit) for unit in found) == (fixtures_dir / "media/misc" / name).read_bytes()
