"""Chromium over a lossy way: what is lost comes again, the picture goes on, and both sides count the same."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

from gbgw.demo import Demo
from tests.browser.test_playback import assert_moves
from tests.support.relay import LossyRelay, lossy

pytestmark = pytest.mark.browser

SECONDS = 12
DARK_SECONDS = 4.5  # Chromium asks for a key frame after three without a picture


async def detour(console: Any, relay: LossyRelay) -> None:
    """The console's own offer and answer, but for the port in the answer's candidates: it is the relay's."""

    async def answer(route: Any) -> None:
        response = await route.fetch()
        text = await response.text()
        found = re.search(r"(?m)^a=candidate:\S+ 1 udp \d+ (\S+) (\d+) ", text)
        if found is None:  # OPTIONS
            await route.fulfill(response=response)
            return
        relay.target = (found[1], int(found[2]))
        await route.fulfill(response=response, body=text.replace(f" {found[2]} typ", f" {relay.port} typ"))

    await console.page.route(re.compile(r"/whep(\?|$)"), answer)


async def figure(console: Any, name: str) -> float:
    text = await console.page.get_by_test_id(name).get_attribute("data-value")
    return float(text or 0)


@pytest.mark.parametrize("loss", [0.02, 0.05])
async def test_lost_packets_cost_no_picture(demo: Demo, console_of: Callable[..., Any], loss: float) -> None:
    key = demo.cameras[0].key
    async with lossy(loss) as relay, console_of(demo) as console:
        await detour(console, relay)
        await console.play(key, "webrtc")
        await assert_moves(console, pictures=25 * SECONDS, seconds=SECONDS * 2)
        await console.screenshot(f"loss-{loss:.0%}")
        lost = await figure(console, "stat-lost")
        asked = await figure(console, "stat-asked")
        shown = await console.page.get_by_test_id("stat-lost").inner_text()
        repaired = int(shown.split(",")[1])
        (row,) = demo.gateway.viewers.of(key)
        tally = demo.gateway.tally
        async with asyncio.timeout(3):  # a media worker tells its figures once a second
            while row.nacks < repaired or row.round_trip is None:  # noqa: ASYNC110 - counted, not told
                await asyncio.sleep(0.05)
        print(
            f"loss {loss:.0%}: dropped {relay.dropped} of {relay.dropped + relay.passed}; browser: lost {lost:.0f},"
            f" NACK messages {asked:.0f}, repaired {repaired}, freezes {await figure(console, 'stat-freezes'):.0f};"
            f" gateway: lost {row.lost}, nacked {row.nacks}, resent {row.resent}, PLI {row.plis}, RTT {row.round_trip}"
        )
        assert relay.dropped > 0
        assert lost > 0
        assert repaired >= lost * 0.7  # the newest are on their way
        assert 0 < row.lost <= relay.dropped
        assert row.resent == tally["webrtc.resent"] > 0
        assert row.round_trip < 0.5
        # Each repair goes twice. One freeze for a NACK that is lost with its answer, or a decoder that waited for one
        # of two cores; what is not repaired at all is a PLI, and those are counted below.
        assert await figure(console, "stat-freezes") <= 1
        assert tally["webrtc.resent_twice"] >= tally["webrtc.resent"] * 0.8  # the newest are to follow
        assert row.plis <= 1


async def test_a_way_that_is_dark_for_seconds_asks_the_camera(demo: Demo, console_of: Callable[..., Any]) -> None:
    """More than can be repaired: the viewer says so, the camera is asked at its pace, and the picture goes on."""
    key = demo.cameras[0].key
    async with lossy(0.0) as relay, console_of(demo) as console:
        await detour(console, relay)
        await console.play(key, "webrtc")
        await assert_moves(console, pictures=25)
        (row,) = demo.gateway.viewers.of(key)
        before = row.plis
        relay.loss = 1.0
        await asyncio.sleep(DARK_SECONDS)
        dark = await console.next_counter()
        relay.loss = 0.0
        async with asyncio.timeout(8):
            while await console.next_counter() == dark:  # noqa: ASYNC110 - only the canvas knows
                await asyncio.sleep(0.05)
        await assert_moves(console, pictures=50, seconds=8)
        print(f"PLI {row.plis}, asked of the camera {demo.gateway.tally['keyframe.asked']}")
        assert row.plis > before
        assert 0 < demo.gateway.tally["keyframe.asked"] <= (DARK_SECONDS + 8) / demo.gateway.config.sip.keyframe_seconds
        assert demo.gateway.tally["webrtc.pli"] == row.plis
