"""A media worker dies under a watched picture: Chromium shows it again without anybody's help, by every protocol."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from gbgw.demo import Demo
from tests.browser.test_playback import assert_moves

pytestmark = pytest.mark.browser

BACK_SECONDS = (
    8.0  # from the death to moving pictures: the browser notices, the console waits a moment, the camera's GOP
)


@pytest.mark.parametrize("protocol", ["webrtc", "ws-flv", "hls"])
async def test_the_picture_comes_back_by_itself(console_of: Callable[..., Any], protocol: str) -> None:
    async with Demo(1, ("media.workers=1",)) as demo, console_of(demo) as console:
        key = demo.cameras[0].key
        await console.play(key, protocol)
        await assert_moves(console)
        pid = demo.gateway._pool.pids[0]
        died_at = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(BACK_SECONDS):
            while demo.gateway.tally["worker.reinvited"] == 0:  # noqa: ASYNC110 - a fact to look at
                await asyncio.sleep(0.02)
        invited = time.monotonic() - died_at
        await console.page.locator(".overlay.error, .overlay.stalled, .overlay.opening").first.wait_for(
            timeout=BACK_SECONDS * 1e3
        )
        told = time.monotonic() - died_at
        async with asyncio.timeout(BACK_SECONDS):
            before = await console.next_counter()
            while (await console.counter()) in (None, before):  # noqa: ASYNC110 - only the canvas knows
                await asyncio.sleep(0.02)
        back = time.monotonic() - died_at
        await assert_moves(console)
        print(
            f"{protocol}: stream back {invited:.2f} s, viewer told {told:.2f} s, picture {back:.2f} s after the death"
        )
        assert back < BACK_SECONDS
        assert demo.gateway._pool.pids[0] not in (None, pid)
