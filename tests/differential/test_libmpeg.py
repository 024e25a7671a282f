"""Our demultiplexer against libmpeg of ireader/media-server, where a developer has one at hand.

`GBGW_LIBMPEG` names it as a shared library (cc -DNDEBUG -shared -fPIC -Iinclude -o libmpeg.so source/*.c); run it by
`pytest -m libmpeg`, the ordinary suite deselects it. Damage goes through libmpeg unseen: it is asked about whole
streams only.
"""

import ctypes
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from gbgw import _ps
from gbgw._ps import AccessUnit
from gbgw.base.codec import AAC, H264, H265, PCMA, PCMU, Codec
from tests.differential.test_generated import VIDEO, encoded, packets, program
from tests.support import build

pytestmark = pytest.mark.libmpeg

ON_PACKET = ctypes.CFUNCTYPE(
    ctypes.c_int,
    *(ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int),
    *(ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_size_t),
)
DELIMITER = re.compile(rb"^\x00\x00\x00\x01(\x09.|\x46\x01.)", re.DOTALL)
CODECS: dict[int, Codec] = {one.stream_type or 0: one for one in (H264, H265, PCMA, PCMU, AAC)}


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    found = ctypes.CDLL(os.environ["GBGW_LIBMPEG"])
    found.ps_demuxer_create.restype = ctypes.c_void_p
    found.ps_demuxer_create.argtypes = [ON_PACKET, ctypes.c_void_p]
    found.ps_demuxer_input.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    found.ps_demuxer_destroy.argtypes = [ctypes.c_void_p]
    return found


def theirs(library: ctypes.CDLL, data: bytes, cut: int = 1_400) -> dict[Codec, dict[int, bytes]]:
    """{codec: {pts: bytes}} of everything it gives."""
    out: dict[Codec, dict[int, bytes]] = defaultdict(lambda: defaultdict(bytes))

    def take(_: int, _stream: int, codec: int, _flags: int, pts: int, _dts: int, at: int, size: int) -> int:
        if codec in CODECS:
            out[CODECS[codec]][pts] += ctypes.string_at(at, size)
        return 0

    callback = ON_PACKET(take)
    demuxer = library.ps_demuxer_create(callback, None)
    rest = b""
    for at in range(0, len(data), cut):
        rest += data[at : at + cut]
        consumed = library.ps_demuxer_input(demuxer, rest, len(rest))
        if consumed < 0:  # it gives up; what it gave till then counts
            break
        rest = rest[consumed:]
    library.ps_demuxer_destroy(demuxer)
    return out


def ours(data: bytes, codec: Codec) -> dict[int, bytes]:
    demuxer = _ps.Demuxer()
    units: list[AccessUnit] = [*demuxer.push(data, 0.0), *demuxer.flush()]
    out: dict[int, bytes] = defaultdict(bytes)
    for unit in units:
        if unit.codec is codec and unit.pts is not None:
            out[unit.pts] += bytes(unit)
    return out


def agree(ours: dict[int, bytes], theirs: dict[int, bytes]) -> int:
    """The same bytes in the same order; return for how many of the times.

    libmpeg keeps the last picture back, leaves access unit delimiters out, and on the Hikvision recording gives two
    pictures under the second's time once, where FFmpeg agrees with us.
    """
    mine = [(pts, DELIMITER.sub(b"", data)) for pts, data in ours.items()]
    their = list(theirs.items())
    assert b"".join(data for _, data in mine).startswith(b"".join(data for _, data in their))
    return len(set(mine) & set(their))


@pytest.mark.parametrize("name", VIDEO)
def test_generated_streams(library: ctypes.CDLL, name: str) -> None:
    is_h265 = name.startswith("h265")
    codec = H265 if is_h265 else H264
    data = program(list(encoded(VIDEO[name])), build.H265 if is_h265 else build.H264, [b"\xd5" * 320] * 50)
    found = theirs(library, data)
    given = sum(map(len, found.values()))  # less than all where it gave up
    assert agree(ours(data, codec), found[codec]) >= (45 if given > 90 else 1)
    assert agree(ours(data, PCMA), found[PCMA]) >= (45 if given > 90 else 1)


def recordings(folder: Path) -> Iterator[bytes]:
    yield from (path.read_bytes() for path in (folder / "media" / "avstackdocs").glob("*.ps"))


@pytest.mark.fixtures
def test_recorded_streams(library: ctypes.CDLL, fixtures_dir: Path) -> None:
    for data in recordings(fixtures_dir):
        assert agree(ours(data, H264), theirs(library, data)[H264]) > 1_300


def elementary(folder: Path) -> list[Path]:
    suffixes = (".264", ".h264", ".265", ".h265")
    return sorted(path for path in (folder / "media").rglob("*") if path.suffix in suffixes)


@pytest.mark.fixtures
def test_every_elementary_stream_in_a_program_stream(library: ctypes.CDLL, fixtures_dir: Path) -> None:
    found = elementary(fixtures_dir)
    assert len(found) > 25
    for path in found:
        is_h265 = path.suffix.endswith("265")
        pictures = packets(path.read_bytes(), "hevc" if is_h265 else "h264")
        timed = [one._replace(pts=3_600 * n, dts=3_600 * n) for n, one in enumerate(pictures)]
        sound = [bytes((0xD5, n % 251)) * 160 for n in range(len(timed))]
        data = program(timed, build.H265 if is_h265 else build.H264, sound)
        mine, their = ours(data, H265 if is_h265 else H264), theirs(library, data)[H265 if is_h265 else H264]
        assert b"".join(mine.values()) == b"".join(one.data for one in pictures), path.name
        # The last picture is kept back, and some are put under another's time; the bytes are the same.
        assert agree(mine, their) >= 0.7 * (len(pictures) - 1)
        assert agree(ours(data, PCMA), theirs(library, data)[PCMA]) == len(pictures)


def peers(folder: Path) -> Iterator[bytes]:
    """Program streams of a third party's device, out of their RTP packets."""
    for path in sorted((folder / "pcap" / "peers").glob("*.rfc4571")):
        data, at, stream = path.read_bytes(), 0, b""
        while at + 2 <= len(data):
            length = int.from_bytes(data[at : at + 2], "big")
            stream += data[at + 14 : at + 2 + length]
            at += 2 + length
        yield stream


@pytest.mark.fixtures
def test_streams_of_another_device(library: ctypes.CDLL, fixtures_dir: Path) -> None:
    found = list(peers(fixtures_dir))
    assert found
    for data in found:
        assert agree(ours(data, H264), theirs(library, data)[H264]) > 100
