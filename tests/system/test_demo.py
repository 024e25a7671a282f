"""`gbgw demo` as a person meets it: ready in seconds, two cameras, and nothing left behind however it ends."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from tests.support.process import Command, command, descendants, is_bound, is_running

pytestmark = pytest.mark.timeout(90)


def url_and_token(demo: Command) -> tuple[str, str]:
    text = "\n".join(demo.out)
    url = re.search(r"console +(http://\S+)/", text)
    token = re.search(r"login token +(\S+)", text)
    assert url is not None
    assert token is not None
    return url[1], token[1]


async def ready(demo: Command, seconds: float = 20.0) -> None:
    await demo.line("Ctrl-C ends it", seconds)


async def api(url: str, token: str) -> list[dict[str, object]]:
    async with (
        asyncio.timeout(5),
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as client,
        client.get(f"{url}/api/v1/devices") as answer,
    ):
        assert answer.status == 200
        items: list[dict[str, object]] = (await answer.json())["items"]
        return items


async def gone(pids: list[int], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while any(map(is_running, pids)):  # noqa: ASYNC110 - a fact to look at, there is no event for it
            await asyncio.sleep(0.02)


def ports_of(url: str) -> int:
    return int(url.rpartition(":")[2])


async def test_ready_soon_two_cameras_online_a_picture_and_nothing_left(tmp_path: Path, media_workers: int) -> None:
    began = asyncio.get_running_loop().time()
    async with command("demo", folder=tmp_path) as demo:
        await ready(demo)
        assert asyncio.get_running_loop().time() - began < 10
        url, token = url_and_token(demo)
        devices = await api(url, token)
        assert [(device["online"], device["channel_count"]) for device in devices] == [(True, 1), (True, 1)]
        plays = re.findall(r"H\.26[45] camera +(http://\S+)", "\n".join(demo.out))
        assert len(plays) == 2
        async with aiohttp.ClientSession() as client:
            for play in plays:
                async with asyncio.timeout(10), client.get(play) as answer:
                    assert answer.status == 200
                    assert (await answer.content.readexactly(3)) == b"FLV"
                async with client.get(play.partition("?")[0]) as answer:
                    assert answer.status == 401
        (folder,) = os.listdir(tmp_path)
        assert folder.startswith("gbgw-demo-")
        below = descendants(demo.pid)
        assert len(below) >= 2 + media_workers
        assert await demo.end(signal.SIGINT, 5) == 0
    assert not any(map(is_running, below))
    assert os.listdir(tmp_path) == []
    assert not is_bound(ports_of(url), socket.SOCK_STREAM)
    assert demo.err == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_other_ways_to_end_it(tmp_path: Path, number: signal.Signals) -> None:
    """A terminal that is closed sends SIGHUP."""
    async with command("demo", "--cameras", "1", folder=tmp_path) as demo:
        await ready(demo)
        below = descendants(demo.pid)
        assert await demo.end(number, 5) == 0
    assert not any(map(is_running, below))
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("media_workers")
async def test_ended_while_it_starts(tmp_path: Path) -> None:
    async with command("demo", folder=tmp_path) as demo:
        async with asyncio.timeout(10):
            while not (below := descendants(demo.pid)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await demo.end(signal.SIGINT, 5) == 0
    await gone(below)
    assert os.listdir(tmp_path) == []
    assert demo.out == []
    assert demo.err == []


@pytest.mark.parametrize(
    ("signals", "code"),
    [
        ((signal.SIGINT,), 0),
        ((signal.SIGINT, signal.SIGINT), 128 + signal.SIGINT),
        ((signal.SIGKILL,), -signal.SIGKILL),
    ],
    ids=["once", "twice", "killed"],
)
@pytest.mark.usefixtures("media_workers")
async def test_whatever_ends_it_takes_cameras_and_transcoders_along(
    tmp_path: Path, signals: tuple[signal.Signals, ...], code: int
) -> None:
    async with command("demo", folder=tmp_path) as demo, aiohttp.ClientSession() as client:
        await ready(demo)
        cameras = descendants(demo.pid)
        assert len(cameras) >= 2
        play = re.findall(r"H\.265 camera +(http://\S+)", "\n".join(demo.out))[0]
        async with asyncio.timeout(20), client.get(f"{play}&video=h264") as answer:
            assert answer.status == 200
            assert (await answer.content.readexactly(3)) == b"FLV"
            below = descendants(demo.pid)
            assert len(below) > len(cameras), "a transcoder runs"
            for number in signals:
                demo.process.send_signal(number)
                await asyncio.sleep(0.02)  # two that come as one are one
            assert await demo.end() == code
            await gone(below)


async def test_busy_ports_are_replaced_and_it_says_so(tmp_path: Path) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sip,
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as http,
    ):
        sip.bind(("127.0.0.1", 0 if is_bound(5060, socket.SOCK_DGRAM) else 5060))
        http.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        http.bind(("127.0.0.1", 0 if is_bound(8080, socket.SOCK_STREAM) else 8080))
        http.listen()
        async with command("demo", "--cameras", "1", folder=tmp_path) as demo:
            await ready(demo)
            text = "\n".join(demo.out)
            url, token = url_and_token(demo)
            assert ports_of(url) != 8080
            assert re.search(r"port 8080 is taken, so the console is at \d+", text)
            assert re.search(r"port 5060 is taken, so SIP is at \d+", text)
            assert len(await api(url, token)) == 1
            assert await demo.end(signal.SIGINT, 5) == 0


async def test_settings_that_cannot_be_are_named(tmp_path: Path) -> None:
    """No traceback, no process, no folder."""
    async with command("demo", "--cameras", "1", "--set", "sip.id=1", folder=tmp_path) as demo:
        assert await demo.end(None, 20) == 2
    assert len(demo.err) == 1
    assert "sip.id" in demo.err[0]
    assert os.listdir(tmp_path) == []


def test_a_demo_asks_for_nothing_it_does_not_have() -> None:
    """Importing it needs no socket and starts nothing."""
    code = "import gbgw.demo; d = gbgw.demo.Demo(3); print([c.title for c in d.cameras], d.cameras[1].key)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.startswith("['H.264 camera', 'H.265 camera', 'H.264 camera'] 34020000001110000002-34020000001310000002")
