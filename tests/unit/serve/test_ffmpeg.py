"""FFmpeg plays every URL: no error line, and pictures that follow each other."""

import asyncio
import io
from pathlib import Path

import av
import pytest

from tests.unit.serve.support import KEY, Camera, world


async def pump(camera: Camera) -> None:
    """Feed in real time, as a camera does."""
    while True:
        await asyncio.sleep(0.04)
        camera.push(1)


@pytest.mark.asyncio(loop_factories=["uvloop"])
@pytest.mark.parametrize(
    "tail",
    [f"{KEY}.flv", f"{KEY}.mp4", f"{KEY}.ts", f"{KEY}/index.m3u8", f"{KEY}/index.m3u8?container=ts"],
    ids=["flv", "mp4", "ts", "hls", "hls-ts"],
)
async def test_ffmpeg_records_three_seconds_without_an_error_line(tail: str, tmp_path: Path) -> None:
    recorded = tmp_path / "out.mkv"
    async with world() as it, asyncio.TaskGroup() as tasks:
        pumping = tasks.create_task(pump(it.source.cameras[KEY]))
        process = await asyncio.create_subprocess_exec(
            *("ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "warning", "-i", f"{it.url}/live/{tail}"),
            *("-t", "3", "-c", "copy", str(recorded)),
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(20):
                _, said = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        pumping.cancel()
    assert process.returncode == 0, said
    # FFmpeg reads EXT-X-MAP again after each reload of a live playlist and then warns of the moov it skips.
    lines = [line for line in said.decode().splitlines() if "duplicated MOOV" not in line and "repeated" not in line]
    assert lines == []
    with av.open(io.BytesIO(recorded.read_bytes())) as container:
        times = [round((frame.time or 0.0) * 25) for frame in container.decode(video=0)]
    assert len(times) >= 60
    assert times == list(range(times[0], times[0] + len(times)))
