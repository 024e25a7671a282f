"""Chromium's Media Source Extensions take gbgw's fragments: pictures move, and 8 kHz AAC-LC, which G.711 becomes, is
heard.

The page gets each unit's fragment as it is made, one append each, exactly what WebSocket-fMP4 does.
"""

import base64
from typing import Any

import pytest
from playwright.async_api import async_playwright

from gbgw._ps import AccessUnit
from gbgw.base.access_unit import AccessUnit as Unit
from gbgw.base.codec import AAC, H264, PCMA
from gbgw.media.hub import Stream
from gbgw.mux.feed import Feeds
from gbgw.mux.hls import Segmenter
from gbgw.mux.pattern import PatternSpec
from gbgw.mux.transcode_child import AacEncoder
from tests.support.streams import Viewer, feed, timed_units

pytestmark = pytest.mark.browser

PLAY = """
async ([mime, pieces]) => {
  if (!MediaSource.isTypeSupported(mime)) return {error: 'not supported: ' + mime};
  const video = document.createElement('video');
  document.body.append(video);
  const source = new MediaSource();
  video.src = URL.createObjectURL(source);
  await new Promise(done => source.addEventListener('sourceopen', done, {once: true}));
  const buffer = source.addSourceBuffer(mime);
  for (const piece of pieces) {
    const bytes = Uint8Array.from(atob(piece), c => c.charCodeAt(0));
    const ended = new Promise((done, failed) => {
      buffer.addEventListener('updateend', done, {once: true});
      buffer.addEventListener('error', () => failed(new Error('refused')), {once: true});
    });
    buffer.appendBuffer(bytes);
    try { await ended; } catch (error) { return {error: String(error) + ' ' + (video.error && video.error.message)}; }
  }
  source.endOfStream();
  const ranges = [];
  for (let i = 0; i < video.buffered.length; i++) ranges.push([video.buffered.start(i), video.buffered.end(i)]);
  video.playbackRate = 4;
  const over = new Promise(done => video.addEventListener('ended', done, {once: true}));
  await video.play();
  await Promise.race([over, new Promise(done => setTimeout(done, 15000))]);
  return {
    error: video.error && video.error.message, ranges, time: video.currentTime, ended: video.ended,
    frames: video.getVideoPlaybackQuality().totalVideoFrames, corrupted:
    video.getVideoPlaybackQuality().corruptedVideoFrames, width: video.videoWidth, audioBytes:
    video.webkitAudioDecodedByteCount,
  };
}
"""


async def played(mime: str, pieces: list[bytes]) -> dict[str, Any]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        try:
            page = await browser.new_page()
            result = await page.evaluate(PLAY, [mime, [base64.b64encode(piece).decode() for piece in pieces]])
        finally:
            await browser.close()
    assert isinstance(result, dict)
    return result


def with_aac(units: list[Unit]) -> list[Unit]:
    """The units with their G.711 as the transcoding child would make it."""
    encoder = AacEncoder("PCMA")
    config = encoder.config[:2]
    out: list[Unit] = []
    for unit in units:
        if unit.codec is not PCMA:
            out.append(unit)
            continue
        for pts, raw in encoder.push(bytes(unit), unit.pts or 0):
            sound = AccessUnit(raw, AAC, pts, pts, is_keyframe=True, parameter_sets=(config,), track_id=0xC0)
            out.append(sound)
    return out


def published(units: list[Unit]) -> Stream:
    stream = Stream("browser")
    stream.promise(any(unit.codec is AAC for unit in units))
    return stream


def mime_of(stream: Stream) -> str:
    return f'video/mp4; codecs="{",".join(track.rfc6381 for track in stream.tracks)}"'


@pytest.mark.parametrize("b_frames", [0, 2])
async def test_fragments_play_one_by_one(b_frames: int) -> None:
    units = with_aac(timed_units(PatternSpec(audio=PCMA, width=320, height=180, seconds=4, b_frames=b_frames)))
    stream = published(units)
    viewer = Viewer()
    Feeds().get(stream, "mp4").attach(viewer)
    feed(stream, units)
    result = await played(mime_of(stream), [chunk.data for chunk in viewer.chunks])
    assert result["error"] is None, result
    assert len(result["ranges"]) == 1, result
    assert result["ranges"][0][1] == pytest.approx(4.0, abs=0.3), result
    assert result["frames"] >= 90, result
    assert result["corrupted"] == 0, result
    assert result["width"] == 320
    assert result["audioBytes"] > 1_000, result
    assert result["ended"], result


async def test_hls_segments_play() -> None:
    units = with_aac(timed_units(PatternSpec(audio=PCMA, width=320, height=180, seconds=4)))
    stream = published(units)
    segmenter = Segmenter("mp4")
    Feeds().get(stream, "mp4").attach(segmenter, splice=True)
    feed(stream, units)
    stream.close()
    init = segmenter.playlist.init(0)
    assert init is not None
    assert [track.codec for track in stream.tracks] == [H264, AAC]
    result = await played(mime_of(stream), [init, *(segment.data for segment in segmenter.playlist.segments)])
    assert result["error"] is None, result
    assert len(result["ranges"]) == 1, result
    assert result["frames"] >= 90, result
    assert result["audioBytes"] > 1_000, result
