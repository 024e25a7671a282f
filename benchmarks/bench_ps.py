"""Program stream demultiplexing: the core, its model, and FFmpeg's demuxer through PyAV on the same stream.

The stream is what a camera sends: 1080p at 25 pictures and 4 Mbit/s, a key frame of 150 KB each 2 s, pictures of 10 to
20 KB between, G.711 beside them, in payloads of 1400 bytes. MB/s is in extra_info; ratios are printed by conftest.py.
"""

import io
import random
from collections.abc import Callable

import av
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from gbgw import _ps
from tests.model import ps_model
from tests.support import build

PAYLOAD_BYTES = 1_400
GOP = 50


def slice_data(size: int, rng: random.Random) -> bytes:
    """Entropy-coded looking bytes: random, with emulation prevention as an encoder would insert it."""
    data = rng.randbytes(size)
    return data.replace(b"\0\0\0", b"\0\0\3").replace(b"\0\0\1", b"\0\0\3").replace(b"\0\0\2", b"\0\0\3")


def camera(gops: int) -> tuple[bytes, int]:
    """Return the stream and how many units are in it."""
    rng = random.Random(28181)
    out = []
    for number in range(gops * GOP):
        pts = 3_600 * number
        head = build.pack(pts, stuffing=b"\xff" * 6)
        if number % GOP == 0:
            picture = build.nals(build.SPS264, build.PPS264, b"\x65\x88" + slice_data(150_000, rng))
            head += build.system_header() + build.program_map(crc=0)
        else:
            picture = build.nals(b"\x41\x9a" + slice_data(rng.randint(10_000, 20_000), rng))
        out.append(head + build.pes_run(picture, pts=pts) + build.pes(b"\xd5" * 320, 0xC0, pts))
    return b"".join(out), 2 * gops * GOP


def run_demuxer(make: Callable[[], _ps.Demuxer | ps_model.Demuxer], payloads: list[bytes]) -> int:
    demuxer = make()
    push = demuxer.push
    count = 0
    for payload in payloads:
        count += len(push(payload, 0.0))
    return count + len(demuxer.flush())


def run_ffmpeg(data: bytes) -> int:
    with av.open(io.BytesIO(data), "r", format="mpeg") as container:
        return sum(packet.size > 0 for packet in container.demux())


@pytest.mark.benchmark(group="ps demux")
@pytest.mark.parametrize("who", ["core", "model", "ffmpeg"])
def test_demux(benchmark: BenchmarkFixture, who: str) -> None:
    data, units = camera(2 if who == "model" else 8)
    payloads = [data[at : at + PAYLOAD_BYTES] for at in range(0, len(data), PAYLOAD_BYTES)]
    if who == "ffmpeg":
        found = benchmark.pedantic(run_ffmpeg, (data,), rounds=5, warmup_rounds=1)
        assert found >= units // 2  # FFmpeg cuts the sound as it likes
    else:
        make = _ps.Demuxer if who == "core" else ps_model.Demuxer
        rounds = 20 if who == "core" else 2
        found = benchmark.pedantic(run_demuxer, (make, payloads), rounds=rounds, warmup_rounds=1)
        assert found == units
    benchmark.extra_info["bytes"] = len(data)
    benchmark.extra_info["MB/s"] = round(len(data) / benchmark.stats.stats.min / 1e6, 1)
    benchmark.extra_info["MB/s median"] = round(len(data) / benchmark.stats.stats.median / 1e6, 1)
