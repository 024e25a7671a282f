"""Chromium plays every output from a key press on the console: the burnt-in frame number advances, sound is decoded."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gbgw.demo import Demo

pytestmark = pytest.mark.browser

ROUND = 200  # frame numbers of one round of the pattern
FIRST_PICTURE_RUNNING_MS = 1_000  # for a stream that runs already
FIRST_PICTURE_DEMAND_MS = 2_000  # for one that has to be invited: 1 s and one GOP of 1 s


async def assert_moves(console: Any, pictures: int = 25, seconds: float = 15.0) -> None:
    """The picture goes on by at least so many frame numbers, with nothing but forward steps."""
    advanced, last = 0, await console.next_counter()
    async with asyncio.timeout(seconds):
        while advanced < pictures:
            await asyncio.sleep(0.1)
            now = await console.next_counter()
            step = (now - last) % ROUND
            assert step < ROUND // 2, f"the picture went back from {last} to {now}"
            advanced += step
            last = now


async def assert_sounds(console: Any, seconds: float = 10.0) -> None:
    """Two seconds of 16 kbit/s AAC were decoded."""
    async with asyncio.timeout(seconds):
        while (await console.media())["sound"] < 4_000:  # noqa: ASYNC110 - only the element knows
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("protocol", ["webrtc", "ws-flv", "hls", "flv"])
async def test_h264_plays_with_sound(demo: Demo, console_of: Callable[..., Any], protocol: str) -> None:
    key = demo.cameras[0].key
    async with console_of(demo) as console:
        await console.play(key, protocol)
        await assert_moves(console)
        first = await console.first_picture_ms()
        media = await console.media()
        assert (media["width"], media["height"]) == (640, 360)
        if protocol != "webrtc":  # there sound is judged by its own test: elements do not count what WebRTC decodes
            await assert_sounds(console)
        await console.screenshot(f"h264-{protocol}")
        assert first <= FIRST_PICTURE_DEMAND_MS


@pytest.mark.parametrize("protocol", ["webrtc", "ws-flv"])
async def test_a_running_stream_is_there_within_a_second(
    demo: Demo, console_of: Callable[..., Any], protocol: str
) -> None:
    key = demo.cameras[0].key
    await demo.gateway.start(key)
    async with console_of(demo) as console:
        await console.play(key, protocol)
        await assert_moves(console)
        assert await console.first_picture_ms() <= FIRST_PICTURE_RUNNING_MS


@pytest.mark.parametrize("protocol", ["auto"])
async def test_h265_plays_through_the_transcode(demo: Demo, console_of: Callable[..., Any], protocol: str) -> None:
    async with console_of(demo) as console:
        await console.play(demo.cameras[1].key, protocol)
        await assert_moves(console, seconds=25)
        await console.screenshot(f"h265-{protocol}")


async def test_an_error_is_shown_in_words(demo: Demo, console_of: Callable[..., Any]) -> None:
    camera = demo.cameras[0]
    async with console_of(demo) as console:
        channel = console.page.get_by_test_id(f"channel-{camera.key}")
        await channel.wait_for()
        demo.gateway.directory.offline(camera.device_id, "keepalive")
        await console.play(camera.key, "ws-flv")
        error = console.page.get_by_test_id("player-error")
        await error.wait_for()
        assert "offline" in (await error.inner_text()).lower()
