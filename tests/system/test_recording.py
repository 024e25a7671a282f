"""What FFmpeg records from the gateway is what the camera sent: the decoded pictures are equal, one by one, by hash."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import av
import pytest

from tests.system.conftest import PASSWORD

SECONDS = 6
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


def decoded_hashes(data: bytes, form: str) -> list[int]:
    """The same through PyAV, which knows H.265 in FLV."""
    import io

    with av.open(io.BytesIO(data), format=form) as container:
        return [hash(frame.to_ndarray().tobytes()) for frame in container.decode(video=0)]


def assert_run_of(part: list[Any], whole: list[Any], at_least: int) -> None:
    """`part` is a run of `whole` without a picture missing or doubled."""
    assert len(part) >= at_least
    starts = [index for index, value in enumerate(whole) if value == part[0]]
    assert any(whole[start : start + len(part)] == part for start in starts), (
        f"{len(part)} recorded pictures are no run of the {len(whole)} sent"
    )


@pytest.mark.parametrize("options", [(), ("--quirk", "b-frames")], ids=["plain", "b-frames"])
async def test_ffmpeg_records_h264_exactly(
    gateway_at: Callable[..., Any], tmp_path: Path, options: tuple[str, ...]
) -> None:
    dump = tmp_path / "sent.264"
    async with (
        gateway_at("media.linger_seconds=30") as gateway,
        simulated_camera(gateway, "--dump", str(dump), *options),
    ):
        base = f"{gateway.http_url}/live/{KEY}"
        flv, hls = tmp_path / "flv.mkv", tmp_path / "hls.mkv"
        errors = await asyncio.gather(
            ffmpeg("-i", f"{base}.flv", "-t", str(SECONDS), "-c", "copy", str(flv)),
            ffmpeg("-i", f"{base}/index.m3u8", "-t", str(SECONDS), "-c", "copy", str(hls)),
        )
        assert errors == ["", ""]
    sent = await picture_hashes(dump)
    assert len(set(sent[:100])) > 50, "the pattern does not move"
    for recorded in (flv, hls):
        # FFmpeg's -t with B-frames cuts in decoding order: the last pictures may miss what they refer to
        pictures = (await picture_hashes(recorded))[: 25 * SECONDS - 10]
        assert_run_of(pictures, sent, 25 * (SECONDS - 1) - 10)


async def test_h265_arrives_exactly(gateway_at: Callable[..., Any], tmp_path: Path) -> None:
    from tests.system.test_first_picture import read_some

    dump = tmp_path / "sent.265"
    async with gateway_at() as gateway, simulated_camera(gateway, "--video", "h265", "--dump", str(dump)):
        data = await read_some(f"{gateway.http_url}/live/{KEY}.flv", 400_000, seconds=20)
    received = decoded_hashes(data, "flv")
    assert_run_of(received, decoded_hashes(dump.read_bytes(), "hevc"), 25)
