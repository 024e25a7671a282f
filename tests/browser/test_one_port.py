"""Browsers on the single UDP port: several at once, over IPv4 and IPv6, and one that moves to another source."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import async_playwright

from gbgw.demo import Demo, free_port
from tests.browser.conftest import SWITCHES, chromium
from tests.browser.test_loss import detour
from tests.browser.test_playback import assert_moves
from tests.browser.test_whep import whep
from tests.support.relay import lossy

pytestmark = pytest.mark.browser

WATCH = """
async ([url, port]) => {
  const peer = new RTCPeerConnection();
  peer.addTransceiver('video', {direction: 'recvonly'});
  const video = document.createElement('video');
  video.autoplay = true; video.muted = true; document.body.append(video);
  peer.ontrack = ({streams, track}) => { video.srcObject = new MediaStream([track]); };
  await peer.setLocalDescription(await peer.createOffer());
  const headers = {'Content-Type': 'application/sdp'};
  const answer = await fetch(url, {method: 'POST', headers, body: peer.localDescription.sdp});
  await peer.setRemoteDescription({type: 'answer', sdp: await answer.text()});
  const inbound = async () => [...(await peer.getStats()).values()].find((one) => one.type === 'inbound-rtp');
  const begun = performance.now();
  while (performance.now() - begun < 8000) {
    const found = await inbound();
    if (found && found.framesDecoded > 50) break;
    await new Promise((done) => setTimeout(done, 100));
  }
  const found = await inbound();
  const pairs = [...(await peer.getStats()).values()].filter((one) => one.type === 'candidate-pair' && one.nominated);
  const remotes = [...(await peer.getStats()).values()].filter((one) => one.type === 'remote-candidate');
  const result = {
    frames: found?.framesDecoded ?? 0, freezes: found?.freezeCount ?? -1, pairs: pairs.length,
    remotes: remotes.map((one) => [one.address, one.port]),
  };
  await fetch(answer.headers.get('Location'), {method: 'DELETE'});
  peer.close();
  return result;
}
"""


@pytest_asyncio.fixture
async def one_port(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Demo, int]]:
    """A demo, and its port. The parameter: where else than usual it listens for HTTP."""
    port = free_port(8_189, socket.SOCK_DGRAM)
    listen = [f"http.listen={request.param}"] if hasattr(request, "param") else []
    async with Demo(1, (f"webrtc.ports={port}", *listen)) as running:
        yield running, port


def sessions(demo: Demo) -> float:
    """WebRTC sessions by the gateway's figures, wherever they are: what a port keeps of each ends with it."""
    found = [sample.value for sample in demo.gateway.samples() if sample.name == "webrtc_sessions"]
    assert found
    return sum(found)


@pytest.mark.parametrize(
    ("one_port", "host"), [("[::]:8080", "127.0.0.1"), ("[::]:8080", "[::1]")], indirect=["one_port"]
)
async def test_viewers_of_one_browser_share_the_port(one_port: tuple[Demo, int], host: str) -> None:
    demo, port = one_port
    key = demo.cameras[0].key
    address = demo.gateway.http_url.rsplit(":", 1)[1]
    base = f"http://{host}:{address}"
    url = f"{base}/live/{key}/whep?token={demo.play_token(key)}"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=SWITCHES)
        try:
            pages = [await browser.new_page() for _ in range(3)]
            for page in pages:
                await page.goto(f"{base}/healthz")
            found = await asyncio.gather(*[page.evaluate(WATCH, [url, port]) for page in pages])
        finally:
            await browser.close()
    for one in found:
        assert one["frames"] > 50
        assert one["remotes"] == [[host.strip("[]"), port]]
    async with asyncio.timeout(5):
        while sessions(demo) or len(demo.gateway.viewers):  # noqa: ASYNC110 - a fact, there is no event for it
            await asyncio.sleep(0.05)


async def test_sound_and_the_end_are_as_with_a_port_each(one_port: tuple[Demo, int]) -> None:
    demo, _ = one_port
    found = await whep(demo, demo.cameras[0].key)
    assert found["status"] == 201
    assert found["hz"] == pytest.approx(440, abs=10)
    assert found["lost"] == 0
    assert (found["deleted"], found["again"]) == (200, 404)


async def test_a_viewer_behind_a_nat_that_forgets_keeps_its_picture(
    one_port: tuple[Demo, int], console_of: Callable[..., Any]
) -> None:
    demo, _ = one_port
    async with lossy(0.0) as relay, console_of(demo) as console:
        await detour(console, relay)
        await console.play(demo.cameras[0].key, "webrtc")
        await assert_moves(console, pictures=25)
        await relay.move()
        async with asyncio.timeout(10):
            while not demo.gateway.tally["webrtc.moved"]:  # noqa: ASYNC110 - counted, not told
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)  # what was lost meanwhile is repaired
        await assert_moves(console, pictures=50)
        assert len(demo.gateway.viewers) == 1
        assert re.fullmatch(r"0|1.*", await console.page.get_by_test_id("stat-freezes").inner_text())
