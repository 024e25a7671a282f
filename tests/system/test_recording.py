"""What FFmpeg records from the gateway is what the camera sent: the decoded pictures are equal, one by one, by hash."""

import asyncio
import hashlib
import io
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import av
import pytest

from tests.system.conftest import PASSWORD

LENGTHS = [pytest.param(6, id="6s"), pytest.param(30, id="30s", marks=pytest.mark.soak)]
RATE = 25  # pictures a second
TAIL = 5  # pictures at the end of a recording that may miss what they refer to: -t cuts in decoding order
DEVICE = "34020000001110000001"
KEY = f"{DEVICE}-34020000001310000001"


@asynccontextmanager
async def simulated_camera(gateway: Any, *options: str, key: str = KEY) -> AsyncIterator[None]:
    """`gbgw device` in a process of its own, registered and with its catalog read."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gbgw", "device", "--server", f"127.0.0.1:{gateway.sip_ports['udp']}"),
        *("--server-id", gateway.config.sip.id, "--domain", gateway.config.sip.domain, "--id", DEVICE, "--quiet"),
        *options,
        env=os.environ | {"GBGW_DEVICE_PASSWORD": PASSWORD},
    )
    try:
        async with asyncio.timeout(30):
            while not gateway.is_playable(key):
                assert process.returncode is None, "the camera ended"
                await asyncio.sleep(0.05)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def ffmpeg(*arguments: str) -> str:
    """Run FFmpeg and return what it wrote as errors."""
    process = await asyncio.create_subprocess_exec(
        "ffmpeg", "-nostdin", "-v", "error", "-y", *arguments, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return errors.decode()


async def picture_hashes(path: Path) -> list[str]:
    listing = path.with_suffix(".md5")
    await ffmpeg("-i", str(path), "-map", "0:v:0", "-fps_mode", "passthrough", "-f", "framemd5", str(listing))
    return [line.split(",")[-1].strip() for line in listing.read_text().splitlines() if not line.startswith("#")]


def decoded_hashes(source: Any, form: str | None = None, pictures: int | None = None) -> list[str]:
    """The same through PyAV, which knows H.265 in FLV; `source` is a file, a URL or bytes."""
    found: list[str] = []
    with av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source), format=form) as container:
        for frame in container.decode(video=0):
            found.append(hashlib.md5(frame.to_ndarray(), usedforsecurity=False).hexdigest())
            if len(found) == pictures:
                break
    return found


def assert_run_of(part: list[Any], whole: list[Any], at_least: int) -> None:
    """`part` is a run of `whole` without a picture missing or doubled."""
    assert len(part) >= at_least
    starts = [index for index, value in enumerate(whole) if value == part[0]]
    assert any(whole[start : start + len(part)] == part for start in starts), (
        f"{len(part)} recorded pictures are no run of the {len(whole)} sent"
    )


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seconds", LENGTHS)
@pytest.mark.parametrize(
    ("options", "workers"),
    [((), 0), (("--quirk", "b-frames"), 0), ((), 1)],
    ids=["plain", "b-frames", "worker"],
    indirect=["workers"],
)
async def test_ffmpeg_records_h264_exactly(
    gateway_at: Callable[..., Any], tmp_path: Path, options: tuple[str, ...], seconds: int
) -> None:
    dump = tmp_path / "sent.264"
    async with (
        gateway_at("media.linger_seconds=30") as gateway,
        simulated_camera(gateway, "--dump", str(dump), *options),
    ):
        base = f"{gateway.http_url}/live/{KEY}"
        flv, hls, ts = tmp_path / "flv.mkv", tmp_path / "hls.mkv", tmp_path / "ts.mkv"
        errors = await asyncio.gather(
            ffmpeg("-i", f"{base}.flv", "-t", str(seconds), "-c", "copy", str(flv)),
            ffmpeg("-i", f"{base}/index.m3u8", "-t", str(seconds), "-c", "copy", str(hls)),
            ffmpeg("-i", f"{base}/index.m3u8?container=ts", "-t", str(seconds), "-c", "copy", str(ts)),
        )
        assert errors == ["", "", ""]
    sent = await picture_hashes(dump)
    assert len(set(sent[: 4 * RATE])) > 2 * RATE, "the pattern does not move"
    for recorded in (flv, hls, ts):
        pictures = (await picture_hashes(recorded))[:-TAIL]
        assert_run_of(pictures, sent, RATE * seconds - 2 * TAIL)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seconds", LENGTHS)
async def test_h265_arrives_exactly(gateway_at: Callable[..., Any], tmp_path: Path, seconds: int) -> None:
    dump = tmp_path / "sent.265"
    pictures = RATE * seconds
    async with (
        gateway_at("media.linger_seconds=30") as gateway,
        simulated_camera(gateway, "--video", "h265", "--dump", str(dump)),
    ):
        base = f"{gateway.http_url}/live/{KEY}"
        received = await asyncio.gather(
            asyncio.to_thread(decoded_hashes, f"{base}.flv", None, pictures),
            asyncio.to_thread(decoded_hashes, f"{base}/index.m3u8", None, pictures),
        )
    sent = decoded_hashes(dump, "hevc")
    assert len(set(sent[: 4 * RATE])) > 2 * RATE, "the pattern does not move"
    for got in received:
        assert_run_of(got, sent, pictures)
