"""The console in Chromium while the camera becomes another: whoever watches goes on watching, without a click."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from gbgw.demo import Demo
from tests.browser.conftest import Console
from tests.browser.test_playback import ROUND, assert_sounds
from tests.support.live import camera

pytestmark = pytest.mark.browser

PROTOCOLS = ["ws-flv", "hls", "webrtc"]
CHANGE_SECONDS = 4.0  # into the session, of the quirks
RETURN_SECONDS = 6.0


@pytest_asyncio.fixture
async def demo() -> AsyncIterator[Demo]:
    async with Demo(0) as running:
        yield running


async def until(console: Console, script: str, seconds: float = 20.0) -> None:
    """Wait until `script`, a function of the page, returns true; fail with what the console shows."""
    try:
        async with asyncio.timeout(seconds):
            while not await console.page.evaluate(script):  # noqa: ASYNC110 - only the page knows
                await asyncio.sleep(0.1)
    except TimeoutError:
        await console.screenshot("stands")
        pytest.fail(f"not within {seconds} s: {script}; {await console.media()}")


async def goes_on(console: Console, pictures: int = 40, seconds: float = 20.0) -> None:
    """Numbers burnt into the picture go on, and no error is shown."""
    advanced, last = 0, await console.next_counter()
    async with asyncio.timeout(seconds):
        while advanced < pictures:
            await asyncio.sleep(0.1)
            found = await console.counter()
            if found is not None:
                advanced += (found - last) % ROUND if (found - last) % ROUND < ROUND // 2 else 0
                last = found
    assert await console.page.get_by_test_id("player-error").count() == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_another_resolution(demo: Demo, console_of: Callable[..., Any], protocol: str) -> None:
    async with camera(demo, "resolution-change") as own, console_of(demo) as console:
        await console.play(own.key, protocol)
        await console.next_counter()
        await until(console, "() => document.querySelector('video').videoWidth === 1280")
        await goes_on(console)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_another_codec_is_watched_by_the_transcode(
    demo: Demo, console_of: Callable[..., Any], protocol: str
) -> None:
    """H.264, then H.265, which this Chromium does not decode."""
    async with camera(demo, "codec-change") as own, console_of(demo) as console:
        await console.play(own.key, protocol)
        await console.next_counter()
        await until(console, "() => document.querySelector('[data-testid=player-notes]') !== null")
        await goes_on(console)
        await console.screenshot(f"codec-change-{protocol}")


@pytest.mark.parametrize("protocol", ["ws-flv", "hls"])
async def test_sound_that_comes_late_is_heard(demo: Demo, console_of: Callable[..., Any], protocol: str) -> None:
    """Media Source Extensions take no further track: FLV is opened again, HLS had silence from the start."""
    async with camera(demo, "late-audio") as own, console_of(demo) as console:
        await console.play(own.key, protocol)
        await console.next_counter()
        await asyncio.sleep(CHANGE_SECONDS)
        await goes_on(console, 50)
        await assert_sounds(console)


@pytest.mark.parametrize("protocol", ["hls", "webrtc"])
async def test_a_camera_that_reboots(demo: Demo, console_of: Callable[..., Any], protocol: str) -> None:
    async with camera(demo, "reboot") as own, console_of(demo) as console:
        await console.play(own.key, protocol)
        await console.next_counter()
        await asyncio.sleep(RETURN_SECONDS)  # three seconds of picture, three of silence
        await goes_on(console, 75)


@pytest.mark.parametrize(
    ("quirk", "protocol"), [("clock-back", "ws-flv"), ("pts-wrap", "hls"), ("slow-clock", "webrtc")]
)
async def test_a_clock_that_goes_wrong(demo: Demo, console_of: Callable[..., Any], quirk: str, protocol: str) -> None:
    async with camera(demo, quirk) as own, console_of(demo) as console:
        await console.play(own.key, protocol)
        await console.next_counter()
        await asyncio.sleep(CHANGE_SECONDS)
        await goes_on(console, 50)
