"""No unit with a hole, by construction: what comes out of a damaged stream is, byte for byte, in the undamaged one.

Streams go as RTP through a way that loses, delays and repeats packets, into the Fold that the gateway uses. Each unit
that comes out must be one of those that the same packets give undamaged: the same bytes under the same time, none
twice, none out of order, and behind each one that is missing a discontinuity.
"""

import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from gbgw import _ps, _receiver
from gbgw._ps import AccessUnit
from gbgw._receiver import Fold
from tests.differential.test_generated import AUDIO, VIDEO, encoded, ffmpeg, program
from tests.support import build

SECONDS = 0.002  # between two packets
SPARED = 12  # packets at the start: what comes before the first map is judged by content alone


@dataclass(frozen=True)
class Way:
    """What happens to packets, each with this chance; `late` ones arrive so many packets later."""

    lost: float = 0.0
    burst: int = 1
    twice: float = 0.0
    late: float = 0.0
    by: int = 6

    def send(self, packets: Sequence[bytes], rng: random.Random) -> Iterator[bytes]:
        waiting: list[tuple[int, bytes]] = []
        losing = 0
        yield from packets[:SPARED]
        for number, packet in enumerate(packets[SPARED:]):
            yield from (one for due, one in waiting if due == number)
            waiting = [(due, one) for due, one in waiting if due > number]
            if losing or rng.random() < self.lost / self.burst:
                losing = (losing or rng.randint(1, 2 * self.burst - 1)) - 1
            elif rng.random() < self.late:
                waiting.append((number + rng.randint(1, self.by), packet))
            else:
                yield packet
            if rng.random() < self.twice:
                waiting.append((number + rng.randint(1, self.by), packet))
        yield from (one for _, one in waiting)


WAYS = {
    "1 % lost": Way(lost=0.01),
    "5 % lost": Way(lost=0.05),
    "5 % lost in runs": Way(lost=0.05, burst=8),
    "20 % lost": Way(lost=0.2),
    "reordered": Way(late=0.1),
    "repeated": Way(twice=0.1),
    "all of it": Way(lost=0.03, burst=3, twice=0.05, late=0.05),
}


def received(packets: Sequence[bytes]) -> list[AccessUnit]:
    fold = Fold(max_seconds=0.2)
    now = 0.0
    units: list[AccessUnit] = []
    for packet in packets:
        now += SECONDS
        while (due := fold.deadline) is not None and due <= now:
            fold.poll(due)
        fold.push(packet, now)
        units += [event.unit for event in fold.events() if event.kind == _receiver.UNIT and event.unit is not None]
    fold.close(now)
    return units + [event.unit for event in fold.events() if event.unit is not None]


def judge(undamaged: list[AccessUnit], found: list[AccessUnit]) -> int:
    """Hold `found` against `undamaged`; return how many of these are missing."""
    missing = 0
    for track in {unit.track_id for unit in undamaged}:
        originals = [unit for unit in undamaged if unit.track_id == track]
        at = 0
        for unit in (unit for unit in found if unit.track_id == track):
            here = at
            while here < len(originals) and (originals[here].pts, bytes(originals[here])) != (unit.pts, bytes(unit)):
                here += 1
            assert here < len(originals), f"{len(unit)} bytes at {unit.pts} that were never sent, or sent before"
            assert (unit.codec, unit.dts, unit.is_keyframe, unit.parameter_sets) == (
                *(originals[here].codec, originals[here].dts),
                *(originals[here].is_keyframe, originals[here].parameter_sets),
            )
            assert here == at or unit.discontinuity, f"{here - at} units before {unit.pts} are missing without a word"
            missing += here - at
            at = here + 1
        missing += len(originals) - at
    return missing


def rtp(data: bytes, size: int) -> list[bytes]:
    """Packets of one pack never share a time stamp with another; the last of each has the marker."""
    starts = []
    at = data.find(b"\0\0\1\xba")
    while at >= 0:
        starts.append(at)
        at = data.find(b"\0\0\1\xba", at + 1)
    packets: list[bytes] = []
    for number, (begin, end) in enumerate(zip(starts, [*starts[1:], len(data)], strict=True)):
        packets += build.rtp_run(data[begin:end], 65_000 + len(packets), 3_600 * number, limit=size)
    return packets


def material(name: str, sound: str) -> list[bytes]:
    codec, encoder = AUDIO[sound]
    raw = ffmpeg(f"-f lavfi -i sine=frequency=440:duration=2 {encoder}")
    pieces = [raw[at : at + 320] for at in range(0, len(raw), 320)]
    stream_type = build.H265 if name.startswith("h265") else build.H264
    source = list(encoded(VIDEO[name]))
    later = [one._replace(pts=one.pts + 180_000, dts=one.dts + 180_000) for one in source]
    return rtp(program(source + later, stream_type, pieces, codec.stream_type or 0), 300)


STREAMS = {
    "h264 with B-frames": "PCMA",
    "h264 in five slices": "AAC",
    "h264 in slices of 200 bytes": "PCMU",
    "h264": "PCMA",
    "h265 with B-frames": "AAC",
    "h265 in three slices": "PCMA",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", STREAMS)
def test_generated_streams(name: str, way: str) -> None:
    packets = material(name, STREAMS[name])
    undamaged = received(packets)
    assert len(undamaged) >= 150
    lost = 0
    for seed in range(6):
        rng = random.Random(f"{name} {way} {seed}")
        missing = judge(undamaged, received(list(WAYS[way].send(packets, rng))))
        assert WAYS[way].lost > 0.05 or missing < len(undamaged) // 2
        lost += missing
    assert bool(lost) == bool(WAYS[way].lost)


def datagrams(path: Path) -> Iterator[bytes]:
    """RFC 4571 by the plainest reading; RTP only."""
    data = path.read_bytes()
    at = 0
    while at + 2 <= len(data):
        (length,) = struct.unpack_from(">H", data, at)
        packet = data[at + 2 : at + 2 + length]
        at += 2 + length
        if len(packet) > 12 and not 200 <= packet[1] <= 204:
            yield packet


@pytest.mark.parametrize("name", STREAMS)
def test_bytes_that_vanish_without_a_word_spoil_two_units_at_most(name: str) -> None:
    """Nobody tells of this hole: to the demultiplexer it is a camera whose PES lengths are wrong, and whose pictures it
    must give. The damage ends with the next header."""
    source = list(encoded(VIDEO[name]))
    data = program(source, build.H265 if name.startswith("h265") else build.H264, [b"\xd5" * 320] * 50)
    demuxer = _ps.Demuxer()
    undamaged = {(unit.track_id, unit.pts, bytes(unit)) for unit in [*demuxer.push(data, 0.0), *demuxer.flush()]}
    rng = random.Random(name)
    for _ in range(60):
        at, size = rng.randrange(len(data)), rng.choice((1, 3, 20, 200, 1_400, 5_000))
        cut = data[:at] + data[at + size :]
        demuxer = _ps.Demuxer()
        found = [(unit.track_id, unit.pts, bytes(unit)) for unit in [*demuxer.push(cut, 0.0), *demuxer.flush()]]
        assert len(set(found) - undamaged) <= 2
        passed = sum(len(unit) for _, _, unit in undamaged - set(found))  # of the units that are missing
        assert passed <= size + 3 * max(len(unit) for _, _, unit in undamaged)


@pytest.mark.fixtures
@pytest.mark.parametrize("way", WAYS)
def test_recorded_streams(fixtures_dir: Path, way: str) -> None:
    """A Hikvision camera's program stream as RTP, and a GStreamer device's own packets."""
    (program_path,) = (fixtures_dir / "media" / "avstackdocs").glob("01e168e1_*.ps")
    recorded = rtp(program_path.read_bytes()[: 1 << 20], 1_300)
    for packets in (recorded, list(datagrams(fixtures_dir / "pcap/peers/sbgb28181_gst_udp_ps.rfc4571"))):
        undamaged = received(packets)
        assert len(undamaged) > 100
        for seed in range(3):
            missing = judge(undamaged, received(list(WAYS[way].send(packets, random.Random(f"{way} {seed}")))))
            if not WAYS[way].lost:
                assert missing == 0
            elif WAYS[way].lost <= 0.05:
                assert missing < 0.7 * len(undamaged)


def test_the_judge_can_fail() -> None:
    """A unit with a hole, one twice, one out of order, and silence about a loss are all told."""
    undamaged = received(material("h264", "PCMA"))
    pictures = [unit for unit in undamaged if unit.track_id == build.VIDEO_ID]
    first, second, third = pictures[:3]
    holed = AccessUnit(bytes(second)[:-1], second.codec, second.pts, second.dts, track_id=second.track_id)
    for found in ([first, holed], [first, second, second], [second, first], [first, third]):
        with pytest.raises(AssertionError):
            judge(undamaged, found)
    assert judge(undamaged, undamaged) == 0


# Bytes that are missing from a stream whose packets all came: a camera or a relay lost them before it counted.


def demuxed(data: bytes) -> list[AccessUnit]:
    demuxer = _ps.Demuxer()
    return [*demuxer.push(data, 0.0), *demuxer.flush()]


HOLES = (1, 2, 3, 5, 7, 20, 100, 1_400, 5_000)
HOLES_EACH = 250
UNSEEN = 0.1  # of the holes: those that take a whole PES out, or a piece of sound of a stream without more to go by


@pytest.mark.parametrize("name", STREAMS)
def test_holes_without_a_word(name: str) -> None:
    codec, encoder = AUDIO[STREAMS[name]]
    raw = ffmpeg(f"-f lavfi -i sine=frequency=440:duration=2 {encoder}")
    pieces = [raw[at : at + 320] for at in range(0, len(raw), 320)]
    source = [
        one._replace(pts=one.pts + 180_000 * turn, dts=one.dts + 180_000 * turn)
        for turn in range(3)
        for one in encoded(VIDEO[name])
    ]
    data = program(source, build.H265 if name.startswith("h265") else build.H264, pieces, codec.stream_type or 0)
    undamaged = demuxed(data)
    whole = {bytes(unit) for unit in undamaged}
    rng = random.Random(name)
    wrong = 0
    for _ in range(HOLES_EACH):
        at, size = rng.randrange(len(data) // 4, len(data) - 6_000), rng.choice(HOLES)
        units = demuxed(data[:at] + data[at + size :])
        assert len(units) > len(undamaged) - 60  # one hole costs what it hit, never the rest
        wrong += any(bytes(unit) not in whole for unit in units)
    assert wrong <= UNSEEN * HOLES_EACH, wrong
