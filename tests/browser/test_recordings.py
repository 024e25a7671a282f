"""A person scrubs through yesterday's recordings in Chromium: timeline, seek, speed, pause, download."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gbgw.demo import Demo
from tests.system.steps import fact

pytestmark = pytest.mark.browser
RATE = 25


async def at_hour(page: Any, hour: float) -> None:
    """Click on the line of the day."""
    box = await page.get_by_test_id("timeline").bounding_box()
    await page.mouse.click(box["x"] + box["width"] * hour / 24, box["y"] + 12)


async def shows(console: Any, second: float, slack: float = 30.0) -> None:
    """A picture recorded soon after `second` is on the screen."""

    async with asyncio.timeout(20):
        while True:
            number = await console.counter()
            if number is not None and (number - int(second * RATE)) % 65_536 < slack * RATE:
                return
            await asyncio.sleep(0.05)


async def test_yesterday_is_scrubbed(demo: Demo, console_of: Callable[..., Any]) -> None:
    async with console_of(demo) as console:
        page, key = console.page, demo.cameras[0].key
        await page.get_by_test_id("nav-recordings").click()
        channel = page.get_by_test_id(f"channel-{key}")
        await channel.focus()
        await page.keyboard.press("Enter")
        offset = await page.evaluate("new Date().getTimezoneOffset()")
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(minutes=offset)
        day = today - timedelta(days=1)
        await page.get_by_test_id("day").fill(f"{day - timedelta(minutes=offset):%Y-%m-%d}")
        await page.locator(".timeline i").nth(47).wait_for()  # two files an hour
        assert await page.locator(".timeline i").count() == 48
        start = day.timestamp()
        await at_hour(page, 6.1)
        await shows(console, start + 6.1 * 3_600 - 60, 150)
        await fact(lambda: len(demo.gateway.history_keys()) == 1, "one playback")
        await at_hour(page, 12.0001)
        await shows(console, start + 12 * 3_600 - 60, 180)
        assert len(demo.gateway.history_keys()) == 1  # the same playback went there
        await page.get_by_test_id("speed").select_option("4")
        (playing,) = (demo.gateway.session(str(each)) for each in demo.gateway.history_keys())
        await fact(lambda: playing.playhead.scale == 4, "four times")
        await page.get_by_test_id("recording-pause").click()
        await fact(lambda: playing.playhead.paused, "paused")
        await page.get_by_test_id("recording-pause").click()
        await fact(lambda: not playing.playhead.paused, "goes on")
        assert await page.locator("[data-phase=playing]").count() == 1
        await page.get_by_test_id("download").click()
        await page.get_by_test_id("download-state").filter(has_text="%").wait_for()
        await console.screenshot("recordings")
        await page.get_by_test_id("player-stop").click()
        await fact(lambda: not [key for key in demo.gateway.history_keys() if key.name[0] == "p"], "it ended")
        for row in demo.gateway.downloads.rows():
            await demo.gateway.downloads.delete(row.id)
