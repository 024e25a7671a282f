"""The fuzz targets: which there are, and what each is given to begin with.

A target is a module `fuzz_NAME.py` with `check(data)`. Those in NATIVE have their quick half in
native/native_targets.pyx as well. Seeds are the files of `corpus/NAME`, made here, and, only while a run lasts, pieces
of the fixtures; what mutation would take long to find is in `dictionaries/NAME.dict`.
"""

import ast
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
NATIVE: Final = ("ps", "psm", "rtp", "rtcp", "framer", "fold", "webrtc", "flv", "timeline")
# The cores that each runs, which its counts belong to.
CORES_OF: Final = {
    **{"ps": ("_ps",), "psm": ("_ps",), "rtp": ("_rtp", "_receiver"), "rtcp": ("_rtp",), "framer": ("_rtp",)},
    **{"fold": ("_ps", "_rtp", "_receiver"), "webrtc": ("_webrtc",), "flv": ("_flv",), "timeline": ("_timeline",)},
}
TARGETS: Final = tuple(sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.py")))
PYTHON: Final = tuple(name for name in TARGETS if name not in NATIVE)
# Bytes of one input. Room for several headers of a kind, and no more: time goes with length.
INPUT_BYTES: Final = {
    **{
        "ps": 768,
        "psm": 1_024,
        "rtp": 384,
        "rtcp": 512,
        "framer": 512,
        "fold": 320,
        "webrtc": 64,
        "flv": 512,
        "timeline": 320,
    },
    **{
        "adts": 256,
        "params": 512,
        "sip": 768,
        "stun": 512,
        "feedback": 512,
        "worker": 768,
        "demux": 1_024,
        "config": 1_024,
    },
}
TEXT_BYTES: Final = 1_024


def check_of(name: str) -> Callable[[bytes], None]:
    check: Callable[[bytes], None] = importlib.import_module(f"tests.fuzz.fuzz_{name}").check
    return check


def input_bytes(name: str) -> int:
    return INPUT_BYTES.get(name, TEXT_BYTES)


def corpus(name: str) -> list[Path]:
    return sorted(path for path in (HERE / "corpus" / name).glob("*") if path.is_file() and path.name != "README.md")


def from_fixtures(name: str, folder: Path) -> Iterator[bytes]:
    """Pieces of real material that a target can use; nothing for a target without any."""
    yield from _FROM_FIXTURES.get(name, lambda _: iter(()))(folder)


def _head(path: Path, count: int = 1 << 14) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def _programs(folder: Path) -> Iterator[bytes]:
    for path in sorted((folder / "media").rglob("*.ps")):
        data = _head(path, 1 << 19)
        yield from (data[at : at + 2_048] for at in range(0, min(len(data), 1 << 16), 2_048))
        at = data.find(b"\0\0\1\xba")
        for _ in range(12):  # whole packs too
            end = data.find(b"\0\0\1\xba", at + 4)
            if at < 0 or end < 0:
                break
            yield data[at : min(end, at + 2_048)] + data[end : end + 64]
            at = end
    for path in sorted((folder / "media" / "srs-utest").glob("*.bin")):
        yield path.read_bytes()[12:]


def _maps(folder: Path) -> Iterator[bytes]:
    for path in sorted((folder / "media").rglob("*.ps")):
        data = _head(path, 1 << 20)
        at = data.find(b"\0\0\1\xbc")
        for _ in range(4):
            if at < 0:
                break
            yield data[at + 6 : at + 6 + int.from_bytes(data[at + 4 : at + 6], "big")]
            at = data.find(b"\0\0\1\xbc", at + 4)


def _datagrams(folder: Path) -> Iterator[bytes]:
    for path in sorted((folder / "pcap" / "peers").glob("*.rfc4571")):
        data = _head(path, 1 << 18)
        at = 0
        while at + 2 <= len(data):
            length = int.from_bytes(data[at : at + 2], "big")
            yield data[at + 2 : at + 2 + length]
            at += 2 + length
    for path in sorted((folder / "media" / "srs-utest").glob("*.bin")):
        yield path.read_bytes()


def _networks(folder: Path) -> Iterator[bytes]:
    found = [bytes((1, min(len(one), 255))) + one[:255] for one in _datagrams(folder) if one]
    yield from (b"".join(found[at : at + 4]) for at in range(0, min(len(found), 80), 4))


def _doings(folder: Path) -> Iterator[bytes]:
    found = [
        bytes((8 if one[1] & 0x80 else 0, min(len(one) - 12, 255))) + one[12:267]
        for one in _datagrams(folder)
        if len(one) > 12
    ]
    yield from (b"".join(found[at : at + 4]) for at in range(0, min(len(found), 80), 4))


def _streams(folder: Path) -> Iterator[bytes]:
    for path in sorted((folder / "pcap" / "peers").glob("*.rfc4571")):
        data = _head(path, 1 << 14)
        yield from (data[at : at + 1_024] for at in range(0, len(data), 1_024))
    yield from _go(folder, "Interleaved")


def _elementary(folder: Path) -> Iterator[bytes]:
    for pattern in ("*.264", "*.h264", "*.265", "*.h265"):
        for path in sorted((folder / "media").rglob(pattern)):
            yield _head(path, TEXT_BYTES)


def _sets(folder: Path) -> Iterator[bytes]:
    yield from _elementary(folder)
    yield from _go(folder, "")


def _adts(folder: Path) -> Iterator[bytes]:
    for pattern in ("*.aac", "*.adts"):
        for path in sorted((folder / "media").rglob(pattern)):
            yield _head(path, TEXT_BYTES)
    yield from _go(folder, "ADTS")


def _messages(folder: Path) -> Iterator[bytes]:
    yield from (path.read_bytes() for path in sorted((folder / "sip").glob("*.sip")))
    for path in sorted((folder / "torture").rglob("*")):
        if path.is_file() and not path.name.startswith("sdp"):
            data = path.read_bytes()
            yield data.partition(b"\n")[2] if data.startswith(b"expected_error") else data


def _bodies(folder: Path, first: bytes) -> Iterator[bytes]:
    for message in _messages(folder):
        for border in (b"\r\n\r\n", b"\n\n"):
            body = message.partition(border)[2]
            if body.lstrip().startswith(first):
                yield body
                break


def _go(folder: Path, part: str) -> Iterator[bytes]:
    """Seeds in Go's text form of a corpus: []byte("...")."""
    for path in sorted((folder / "fuzz").rglob("*")):
        if not path.is_file() or part not in path.name:
            continue
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            if line.startswith("[]byte(") and line.endswith(")") and line.isascii():
                yield ast.literal_eval(f"b{line[7:-1]}")


_FROM_FIXTURES: Final[dict[str, Callable[[Path], Iterator[bytes]]]] = {
    "ps": _programs,
    "psm": _maps,
    "rtp": _networks,
    "rtcp": lambda folder: (one for one in _datagrams(folder) if len(one) < 200),
    "framer": _streams,
    "fold": _doings,
    "params": _sets,
    "payloads": _elementary,
    "flv": lambda folder: (bytes(5) + one[:507] for one in _elementary(folder)),
    "adts": _adts,
    "sip": _messages,
    "sdp": lambda folder: _bodies(folder, b"v="),
    "whep_sdp": lambda folder: _bodies(folder, b"v="),
    "manscdp": lambda folder: _bodies(folder, b"<"),
}
