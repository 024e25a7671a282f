"""A person turns a camera in Chromium: press and hold, keys, presets; and what another operator sees."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gbgw.demo import Demo
from gbgw.gb.ptz import Motion

pytestmark = pytest.mark.browser

BARS = """
(video) => {
  const canvas = document.createElement('canvas');
  canvas.width = 64; canvas.height = 36;
  const context = canvas.getContext('2d', {willReadFrequently: true});
  context.drawImage(video, 0, 0, 64, 36);
  const data = context.getImageData(0, 33, 64, 1).data;
  return Array.from({length: 64}, (_, at) => data[4 * at + 1]);
}
"""


async def bars(console: Any) -> list[int]:
    """Green along a line near the bottom: the coloured bars, which turn with the camera."""
    video = await console.page.get_by_test_id("player-video").element_handle()
    found: list[int] = await console.page.evaluate(BARS, video)
    return found


def apart(a: list[int], b: list[int]) -> float:
    return sum(abs(x - y) for x, y in zip(a, b, strict=True)) / len(a)


def held(demo: Demo) -> Motion:
    """How the first camera moves, as the gateway knows."""
    camera = demo.cameras[0]
    hold = demo.gateway.cameras._steering.holder((camera.device_id, camera.channel_id))
    return hold.motion if hold is not None else Motion()


async def until(demo: Demo, wanted: Callable[[Motion], bool], what: str) -> None:
    try:
        async with asyncio.timeout(5):
            while not wanted(held(demo)):  # noqa: ASYNC110 - the gateway tells nobody
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within 5 s: {what}; it is {held(demo)}") from None


async def test_press_hold_release_and_keys_turn_the_picture(demo: Demo, console_of: Callable[..., Any]) -> None:
    async with console_of(demo) as console:
        page = console.page
        await console.play(demo.cameras[0].key, "webrtc")
        await console.next_counter()
        before = await bars(console)
        right = page.get_by_test_id("steer.right")
        await right.hover()
        await page.mouse.down()
        await until(demo, lambda motion: motion.pan == 50, "it turns right")
        await asyncio.sleep(2.0)  # longer than one lease: it is renewed
        assert held(demo).pan == 50
        await page.mouse.up()
        await until(demo, lambda motion: not motion, "it stands")
        async with asyncio.timeout(5):
            while apart(before, await bars(console)) < 20:  # noqa: ASYNC110 - only the canvas knows
                await asyncio.sleep(0.05)
        await page.get_by_test_id("pad").focus()
        await page.keyboard.down("ArrowLeft")
        await page.keyboard.down("ArrowUp")
        await until(demo, lambda motion: motion.pan == -50 and motion.tilt == 50, "it turns left and up")
        await page.keyboard.up("ArrowUp")
        await until(demo, lambda motion: motion.pan == -50 and motion.tilt == 0, "it turns left")
        await page.keyboard.up("ArrowLeft")
        await until(demo, lambda motion: not motion, "it stands again")
        await page.get_by_test_id("preset-number").fill("3")
        await page.get_by_test_id("preset-name").fill("东门")
        await page.get_by_test_id("preset-set").click()
        await page.get_by_test_id("preset-3").click()
        await page.get_by_test_id("device-status").get_by_text("OFFDUTY").wait_for()
        await console.screenshot("steering")
        await page.get_by_test_id("reboot").click()
        await page.get_by_test_id("confirm").wait_for()
        await console.screenshot("steering-reboot")


async def test_the_camera_stands_when_the_page_is_closed(demo: Demo, console_of: Callable[..., Any]) -> None:
    async with console_of(demo) as console:
        await console.play(demo.cameras[0].key, "webrtc")
        await console.page.get_by_test_id("pad").focus()
        await console.page.keyboard.down("+")
        await until(demo, lambda motion: motion.zoom == 50, "it zooms")
        await console.page.close(run_before_unload=False)
        await until(demo, lambda motion: not motion, "it stands")


async def test_two_operators_and_a_phone(demo: Demo, console_of: Callable[..., Any]) -> None:
    async with console_of(demo) as first, console_of(demo, 390, 844) as second:
        for console in (first, second):
            await console.play(demo.cameras[0].key, "webrtc")
        await first.page.get_by_test_id("pad").focus()
        await first.page.keyboard.down("ArrowRight")
        await until(demo, lambda motion: motion.pan == 50, "the first turns it")
        await second.page.get_by_test_id("steer-open").click()
        up = second.page.get_by_test_id("steer.up")
        await up.scroll_into_view_if_needed()
        await up.dispatch_event("pointerdown", {"button": 0, "pointerId": 1, "bubbles": True})
        await second.page.get_by_test_id("steer-problem").wait_for()
        text = await second.page.get_by_test_id("steer-problem").inner_text()
        assert "admin steers this camera" in text
        await second.screenshot("steering-locked-phone")
        await first.page.keyboard.up("ArrowRight")
