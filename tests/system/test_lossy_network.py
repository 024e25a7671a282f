"""The simulated camera behind a bad network: what FFmpeg records of it is whole, whatever was lost."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.system.test_recording import (
    KEY,
    RATE,
    TAIL,
    assert_run_of,
    decoded_hashes,
    ffmpeg,
    picture_hashes,
    simulated_camera,
)

SECONDS = 6
STRICT = ("-xerror", "-err_detect", "explode")


async def recorded(gateway: Any, folder: Path, *endings: str) -> list[Path]:
    files = [folder / f"{ending.replace('/', '-')}.mkv" for ending in endings]
    said = await asyncio.gather(
        *(
            ffmpeg("-i", f"{gateway.http_url}/live/{KEY}{ending}", "-t", str(SECONDS), "-c", "copy", str(file))
            for ending, file in zip(endings, files, strict=True)
        )
    )
    assert said == [""] * len(files)
    for file in files:
        assert await ffmpeg(*STRICT, "-i", str(file), "-map", "0:v:0", "-f", "null", "-") == ""
    return files


@pytest.mark.timeout(120)
async def test_order_and_duplicates_leave_no_trace(gateway_at: Callable[..., Any], tmp_path: Path) -> None:
    dump = tmp_path / "sent.264"
    options = ("--reorder", "5", "--duplicate", "5", "--seed", "1", "--dump", str(dump))
    async with gateway_at("media.linger_seconds=30") as gateway, simulated_camera(gateway, *options):
        files = await recorded(gateway, tmp_path, ".flv", "/index.m3u8")
        counts = gateway.tally.counts
    assert counts["rtp.reordered"] > 0
    assert counts["rtp.duplicate"] > 0
    assert counts.get("rtp.lost", 0) == 0
    sent = await picture_hashes(dump)
    for file in files:
        assert_run_of((await picture_hashes(file))[:-TAIL], sent, RATE * SECONDS - 2 * TAIL)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("options", [(), ("--quirk", "b-frames")], ids=["plain", "b-frames"])
async def test_loss_shows_as_stillness_alone(
    gateway_at: Callable[..., Any], tmp_path: Path, options: tuple[str, ...]
) -> None:
    dump = tmp_path / "sent.264"
    lossy = ("--loss", "2", "--seed", "2", "--dump", str(dump), *options)
    async with gateway_at("media.linger_seconds=30") as gateway, simulated_camera(gateway, *lossy):
        files = await recorded(gateway, tmp_path, ".flv", ".ts")
        assert gateway.tally.counts["receiver.freezes"] > 0
    sent = set(await asyncio.to_thread(decoded_hashes, dump, "h264"))
    for file in files:
        shown = await asyncio.to_thread(decoded_hashes, file)
        assert len(shown) > RATE  # the key frames alone are six, and the camera obeys when it is asked for one
        assert set(shown[:-TAIL]) <= sent
