"""The README's examples, run as a reader runs them, against the simulated camera."""

import asyncio
import os
import re
import signal
import socket
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
DEVICE, CHANNEL = "34020000001110000001", "34020000001310000001"
PASSWORD = "an excellent secret"
COUNT = 30


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def run_example(name: str, folder: Path) -> list[str]:
    """Return the lines that the example printed."""
    sip = free_udp_port()
    settings = {
        "GBGW_SIP__LISTEN": f'["udp://127.0.0.1:{sip}"]',
        "GBGW_SIP__PASSWORD": PASSWORD,
        "GBGW_HTTP__LISTEN": "127.0.0.1:0",
        "GBGW_MEDIA__PORTS": "31200-31299",
        "GBGW_STORE__URL": f"sqlite:///{folder}/gbgw.db",
    }
    example = await asyncio.create_subprocess_exec(
        *(sys.executable, str(EXAMPLES / name), DEVICE, CHANNEL, str(COUNT)),
        env=os.environ | settings,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    camera = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gbgw", "device", "--server", f"127.0.0.1:{sip}", "--quiet", "--retry", "0.3"),
        *("--server-id", "34020000002000000001", "--domain", "3402000000", "--id", DEVICE),
        env=os.environ | {"GBGW_DEVICE_PASSWORD": PASSWORD},
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(60):
            out, _ = await example.communicate()
            assert example.returncode == 0, out.decode()
            return out.decode().splitlines()
    finally:
        for process in (example, camera):
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                await process.wait()


async def test_units(tmp_path: Path) -> None:
    lines = await run_example("units.py", tmp_path)
    assert [line for line in lines if line.startswith("tracks avc1.")], lines
    units = [match for line in lines if (match := re.fullmatch(r"(H264|PCMA) (\d+) (\d+) (key)?", line))]
    assert len(units) == COUNT
    assert units[0][1] == "H264"
    assert units[0][4] == "key"
    video = [int(unit[2]) for unit in units if unit[1] == "H264"]
    assert video == [video[0] + 3_600 * n for n in range(len(video))]
    assert any(unit[1] == "PCMA" for unit in units)


async def test_frames(tmp_path: Path) -> None:
    lines = await run_example("frames.py", tmp_path)
    moved = [match for line in lines if (match := re.search(r"\((\d+), (\d+), 3\) +([\d.]+)% of", line))]
    assert len(moved) == COUNT
    assert {match.group(1, 2) for match in moved} == {("360", "640")}
    assert max(float(match[3]) for match in moved) > 0.1


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_readme_shows_the_examples(readme: str) -> None:
    text = (EXAMPLES.parent / readme).read_text(encoding="utf-8")
    for name in ("units.py", "frames.py"):
        body = (EXAMPLES / name).read_text(encoding="utf-8")
        shown = body[body.index("        async with gateway.play") : body.index("\n\nif __name__")].rstrip()
        assert shown in text, f"{readme} no longer shows what examples/{name} does"
