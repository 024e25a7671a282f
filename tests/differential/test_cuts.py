"""Real streams, cut into pieces of every size: the same units, whatever RTP packets a camera makes of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gbgw import _ps
from gbgw._ps import AccessUnit
from tests.fuzz import targets

pytestmark = pytest.mark.fixtures

SMALL_BYTES = 1 << 16
SIZES = range(1, 1_601)  # of pieces: all that a datagram can have on an Ethernet
LARGE_BYTES = 1 << 20
LARGE_SIZES = (1, 2, 3, 5, 7, 11, 13, 31, 64, 188, 255, 256, 500, 1_000, 1_388, 1_400, 1_460, 4_096, 65_535, 65_536)


def programs(folder: Path) -> Iterator[tuple[str, bytes]]:
    """(name, program stream) of everything in the fixtures that is one."""
    for path in sorted((folder / "media").rglob("*.ps")):
        yield path.name, path.read_bytes()
    for path in sorted((folder / "pcap" / "peers").glob("*.rfc4571")):
        data, at, stream = path.read_bytes(), 0, b""
        while at + 2 <= len(data):
            length = int.from_bytes(data[at : at + 2], "big")
            stream += data[at + 14 : at + 2 + length]
            at += 2 + length
        yield path.name, stream
    single = b"".join(path.read_bytes()[12:] for path in sorted((folder / "media" / "srs-utest").glob("*.bin")))
    yield "srs-utest", single


def pieces(data: bytes, size: int) -> tuple[list[AccessUnit], object]:
    demuxer = _ps.Demuxer()
    units: list[AccessUnit] = []
    for at in range(0, len(data), size):
        units += demuxer.push(data[at : at + size], 0.0)
    units += demuxer.flush()
    return units, (demuxer.counts, demuxer.streams)


def test_every_size_of_piece_of_what_is_small(fixtures_dir: Path) -> None:
    found = 0
    for name, stream in programs(fixtures_dir):
        data = stream[:SMALL_BYTES]
        whole = pieces(data, len(data))
        found += len(whole[0])
        for size in SIZES:
            assert pieces(data, size) == whole, f"{name} in pieces of {size}"
    assert found > 30


def test_whole_streams(fixtures_dir: Path) -> None:
    for name, stream in programs(fixtures_dir):
        data = stream[:LARGE_BYTES]
        whole = pieces(data, len(data))
        for size in LARGE_SIZES:
            assert pieces(data, size) == whole, f"{name} in pieces of {size}"


def test_every_place_of_one_cut(fixtures_dir: Path) -> None:
    """Around the headers of real streams, where what matters lies: both sides of each byte of the first kilobytes."""
    for name, stream in programs(fixtures_dir):
        data = stream[: 6 << 10]
        whole = pieces(data, len(data))
        for at in range(1, len(data)):
            demuxer = _ps.Demuxer()
            units = [*demuxer.push(data[:at], 0.0), *demuxer.push(data[at:], 0.0), *demuxer.flush()]
            assert (units, (demuxer.counts, demuxer.streams)) == whole, f"{name} cut at {at}"


def test_every_seed_of_the_fuzz_targets(fixtures_dir: Path) -> None:
    """Pieces of the fixtures that begin anywhere, at every size of piece up to their own."""
    for data in targets.from_fixtures("ps", fixtures_dir):
        whole = pieces(data, len(data) or 1)
        for size in (*range(1, 33), *range(33, len(data), 97)):
            assert pieces(data, size) == whole, (data[:16], size)
