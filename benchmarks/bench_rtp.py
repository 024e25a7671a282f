"""gbgw/_rtp against its pure-Python model, in one run: parsing, order, framing."""

import random
import struct
from typing import Any

import pytest

from gbgw import _rtp
from tests.model import rtp_model

PAYLOAD = random.Random(28181).randbytes(1400)
COUNT = 500


def packets() -> list[bytes]:
    return [
        struct.pack("!BBHII", 0x80, 96, (65300 + n) % 65536, n // 10 * 3600, 0x0BEBC201) + PAYLOAD for n in range(COUNT)
    ]


@pytest.fixture(params=[_rtp, rtp_model], ids=["core", "model"])
def rtp(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.benchmark(group="rtp.parse")
def test_parse(benchmark: Any, rtp: Any) -> None:
    data = packets()
    out = benchmark(lambda: [rtp.parse(one) for one in data])
    assert len(out[0].payload) == 1400
    benchmark.extra_info["ns_per_packet"] = benchmark.stats["median"] / COUNT * 1e9


@pytest.mark.benchmark(group="rtp.in_order")
def test_in_order(benchmark: Any, rtp: Any) -> None:
    data = packets()

    def run() -> int:
        buffer = rtp.JitterBuffer()
        return sum(len(buffer.push(one, n / 1000)) for n, one in enumerate(data))

    assert benchmark(run) == COUNT


@pytest.mark.benchmark(group="rtp.reordered")
def test_reordered(benchmark: Any, rtp: Any) -> None:
    """Every tenth packet comes five late, every fiftieth never: far worse than a network that anybody would accept."""
    data = packets()
    order = [n for n in sorted(range(COUNT), key=lambda n: n + 5.5 * (n % 10 == 3)) if n % 50 != 7]

    def run() -> int:
        buffer = rtp.JitterBuffer()
        return sum(len(buffer.push(data[n], place / 1000)) for place, n in enumerate(order)) + len(buffer.flush())

    assert benchmark(run) == len(order)


@pytest.mark.benchmark(group="rtp.framing")
def test_framing(benchmark: Any, rtp: Any) -> None:
    stream = b"".join(len(one).to_bytes(2, "big") + one for one in packets()[:50])
    reads = [stream[at : at + 65536] for at in range(0, len(stream), 65536)]

    def run() -> int:
        framer = rtp.Framer()
        return sum(len(framer.push(read)) for read in reads)

    assert benchmark(run) == 50


@pytest.mark.benchmark(group="rtp.framing_hostile")
@pytest.mark.parametrize(
    "seed",
    [b"\xff", b"\x00\x01", b"\x80\x80", b"$\x00\xff\xff"],
    ids=["ff", "zeros", "versions", "dollars"],
)
def test_framing_of_garbage(benchmark: Any, seed: bytes) -> None:
    """Nanoseconds a byte when nothing in a megabyte is a frame: linear, whatever the garbage claims."""
    stream = seed * ((1 << 20) // len(seed))

    def run() -> int:
        framer = _rtp.Framer(5)
        for at in range(0, len(stream), 1460):
            framer.push(stream[at : at + 1460])
        return int(framer.buffered)

    assert benchmark(run) <= 131072
