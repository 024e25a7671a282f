"""Two hundred WebRTC viewers of one stream on one UDP port, one of them Chromium: a minute without a freeze."""

import asyncio
import json
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest

from gbgw.demo import Demo, free_port
from tests.browser.test_loss import figure
from tests.browser.test_playback import assert_moves

pytestmark = [pytest.mark.browser, pytest.mark.soak]

OTHERS = 199
SECONDS = 60


async def test_one_of_two_hundred_plays_a_minute(console_of: Callable[..., Any]) -> None:
    port = free_port(8_189, socket.SOCK_DGRAM)
    async with Demo(1, (f"webrtc.ports={port}",)) as demo:
        key = demo.cameras[0].key
        path = f"/live/{key}/whep?token={demo.play_token(key)}"
        others = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.audience", demo.gateway.http_url, path, str(OTHERS)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert others.stdin is not None
        assert others.stdout is not None
        try:
            async with asyncio.timeout(90):
                assert await others.stdout.readline() == b"ready\n"
            async with console_of(demo) as console:
                await console.play(key, "webrtc")
                await assert_moves(console, pictures=50)
                assert len(demo.gateway.viewers) == OTHERS + 1
                before = await console.media()
                await asyncio.sleep(SECONDS)
                after = await console.media()
                freezes = await figure(console, "stat-freezes")
                await console.screenshot("crowd")
                others.stdin.close()
                heard = json.loads(await others.stdout.readline())
                shown = after["frames"] - before["frames"]
                print(f"{heard}; Chromium: {shown} pictures in {SECONDS} s, freezes {freezes:.0f}")
                assert freezes == 0
                assert shown >= SECONDS * 25 * 0.98
                assert heard["viewers"] == OTHERS
                assert heard["lost"] == 0
        finally:
            if others.returncode is None and not others.stdin.is_closing():
                others.kill()
            await others.wait()
