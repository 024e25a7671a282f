"""WHEP with a browser's own offer: sound is heard, and ending it gives everything back."""

import asyncio
from typing import Any

import pytest
from playwright.async_api import async_playwright

from gbgw.demo import Demo
from tests.browser.conftest import SWITCHES, chromium

pytestmark = pytest.mark.browser

PLAY = """
async (url) => {
  const peer = new RTCPeerConnection();
  for (const kind of ['video', 'audio']) peer.addTransceiver(kind, {direction: 'recvonly'});
  const stream = new MediaStream(), video = document.createElement('video');
  let sound;
  video.autoplay = true; video.srcObject = stream; document.body.append(video);
  peer.ontrack = ({track}) => { stream.addTrack(track); if (track.kind === 'audio') sound = track; };
  await peer.setLocalDescription(await peer.createOffer());
  const headers = {'Content-Type': 'application/sdp'}, body = peer.localDescription.sdp;
  const answer = await fetch(url, {method: 'POST', headers, body});
  const text = await answer.text();
  if (answer.status !== 201) return {status: answer.status, error: JSON.parse(text).error};
  await peer.setRemoteDescription({type: 'answer', sdp: text});
  await video.play();
  const context = new AudioContext();
  await context.resume();
  const analyser = context.createAnalyser();
  analyser.fftSize = 8192;
  context.createMediaStreamSource(new MediaStream([sound])).connect(analyser);
  await new Promise((done) => setTimeout(done, 2500));
  const levels = new Float32Array(analyser.frequencyBinCount);
  analyser.getFloatFrequencyData(levels);
  let loudest = 1;
  levels.forEach((level, index) => { if (index > 0 && level > levels[loudest]) loudest = index; });
  const stats = [];
  (await peer.getStats()).forEach((entry) => { if (entry.type === 'inbound-rtp') stats.push(entry); });
  const found = {
    status: answer.status, hz: loudest * context.sampleRate / 8192,
    frames: stats.find((entry) => entry.kind === 'video').framesDecoded,
    lost: stats.reduce((sum, entry) => sum + entry.packetsLost, 0),
    codecs: text.split('\\r\\n').filter((line) => line.startsWith('a=rtpmap:')),
    location: answer.headers.get('Location'),
  };
  const gone = await fetch(found.location, {method: 'DELETE'});
  found.deleted = gone.status;
  found.again = (await fetch(found.location, {method: 'DELETE'})).status;
  return found;
}
"""


async def whep(demo: Demo, key: str, query: str = "") -> dict[str, Any]:
    url = f"{demo.gateway.http_url}/live/{key}/whep?token={demo.play_token(key)}{query}"
    async with async_playwright() as playwright:
        switches = [*SWITCHES, "--autoplay-policy=no-user-gesture-required"]
        browser = await playwright.chromium.launch(executable_path=chromium(), args=switches)
        try:
            page = await browser.new_page()
            await page.goto(f"{demo.gateway.http_url}/healthz")
            found: dict[str, Any] = await page.evaluate(PLAY, url)
            return found
        finally:
            await browser.close()


async def test_the_tone_is_heard_and_the_session_ends(demo: Demo) -> None:
    found = await whep(demo, demo.cameras[0].key)
    assert found["status"] == 201
    assert found["hz"] == pytest.approx(440, abs=10)
    assert found["frames"] > 40
    assert found["lost"] == 0
    assert {line.split(" ")[1] for line in found["codecs"]} <= {"H264/90000", "rtx/90000", "PCMA/8000"}
    assert (found["deleted"], found["again"]) == (200, 404)
    async with asyncio.timeout(5):
        while len(demo.gateway.viewers):  # noqa: ASYNC110 - a fact to look at, there is no event for it
            await asyncio.sleep(0.05)


async def test_h265_is_refused_with_a_remedy(demo: Demo) -> None:
    found = await whep(demo, demo.cameras[1].key)
    assert found["status"] == 406
    assert found["error"]["code"] == "no_codec_fits"
    assert "video=h264" in found["error"]["remedy"]


async def test_h265_plays_transcoded(demo: Demo) -> None:
    found = await whep(demo, demo.cameras[1].key, "&video=h264")
    assert found["status"] == 201
    assert found["frames"] > 30
