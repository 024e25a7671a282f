"""hls.js in Chromium on low-latency HLS: how far behind it plays, that it does not stall, and that it goes on when the
stream changes.

The stream is fed by the test itself, so that the burnt-in frame number on the screen tells the delay from the call that
brings a picture to its pixels, without a second clock.
"""

import asyncio
import statistics
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from gbgw._ps import AccessUnit as Unit
from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import AAC, VIDEO
from gbgw.base.ticks import HZ
from gbgw.media.hub import Stream
from gbgw.mux.pattern import PatternSpec
from tests.browser.conftest import READ_COUNTER, SWITCHES, chromium
from tests.conftest import ROOT
from tests.support.streams import timed_units
from tests.unit.serve.support import KEY, FakeSource, world

pytestmark = pytest.mark.browser

RATE = 25
SPEC = PatternSpec(audio=AAC, width=640, height=360, seconds=8, gop=50)
LATENCY_SECONDS = 1.5
PLAYER = """
([url, config]) => {
  const video = document.createElement('video');
  video.muted = true; video.id = 'video';
  document.body.append(video);
  const seen = window.seen = {stalls: 0, fatal: [], errors: [], parts: 0, whole: 0, blocked: 0, deltas: 0, waiting: 0};
  const hls = window.hls = new Hls({lowLatencyMode: true, ...config});
  hls.on(Hls.Events.ERROR, (_, data) => {
    (data.fatal ? seen.fatal : seen.errors).push(data.details + ' ' + (data.error && data.error.message));
    if (data.details === 'bufferStalledError') seen.stalls++;
    if (data.fatal && data.type === 'mediaError') hls.recoverMediaError();
  });
  hls.on(Hls.Events.FRAG_LOADED, (_, data) => { data.part ? seen.parts++ : seen.whole++; });
  hls.on(Hls.Events.LEVEL_LOADED, (_, data) => {
    if (data.details.skippedSegments || data.details.deltaUpdateFailed) seen.deltas++;
    if (String(data.networkDetails && data.networkDetails.responseURL).includes('_HLS_msn')) seen.blocked++;
  });
  video.addEventListener('waiting', () => seen.waiting++);
  hls.loadSource(url); hls.attachMedia(video);
  hls.on(Hls.Events.MANIFEST_PARSED, () => video.play());
}
"""
LOOK = """
() => {
  const video = document.getElementById('video'), quality = video.getVideoPlaybackQuality();
  const end = video.buffered.length ? video.buffered.end(video.buffered.length - 1) : 0;
  return {time: video.currentTime, width: video.videoWidth, frames: quality.totalVideoFrames,
          dropped: quality.droppedVideoFrames, corrupted: quality.corruptedVideoFrames,
          buffer: end - video.currentTime, rate: video.playbackRate, latency: hls.latency,
          target: hls.targetLatency, sound: video.webkitAudioDecodedByteCount, ...seen};
}
"""


@dataclass
class LiveCamera:
    """Feeds a Stream in real time; what it shows can be exchanged while it runs. Counted in pictures."""

    spec: PatternSpec = SPEC
    stream: Stream = field(default_factory=lambda: Stream(KEY))
    number: int = -1  # burnt into the newest picture
    _units: Sequence[AccessUnit] = ()
    _at: int = 0  # in _units
    _by: int = 0  # ticks added to their times
    _pause: float = 0.0

    def show(self, spec: PatternSpec) -> None:
        """From the next picture on: another pattern, from its beginning."""
        last = (self._units[self._at - 1].dts or 0) + self._by + 3_600 if self._units and self._at else self._by
        self.spec, self._units, self._at, self._by = spec, timed_units(spec), 0, last
        self.number = -1
        self._by -= self._units[0].dts or 0
        self.stream.promise(spec.audio is not None)

    def pause(self, seconds: float) -> None:
        """Send nothing for so long; then go on with the next key frame, as after a loss."""
        self._pause = seconds

    def step(self, now: float) -> None:
        """One picture, and the sound around it."""
        while True:
            if self._at == len(self._units):
                self._at = 0
                self._by += self.spec.seconds * HZ
                self.number = -1
            unit = self._units[self._at]
            self._at += 1
            times = (unit.pts or 0) + self._by, (unit.dts or 0) + self._by
            self.stream.push(
                Unit(
                    bytes(unit),
                    unit.codec,
                    *times,
                    is_keyframe=unit.is_keyframe,
                    parameter_sets=unit.parameter_sets,
                    track_id=unit.track_id,
                    arrived=now,
                ),
                now,
            )
            if unit.codec.kind is VIDEO:
                self.number += 1
                return

    def _skip_to_keyframe(self) -> None:
        """Leave pictures out; the time they would have taken is no pause of its own."""
        since = self._at
        while self._at < len(self._units) and not (
            self._units[self._at].is_keyframe and self._units[self._at].codec.kind is VIDEO
        ):
            self.number += self._units[self._at].codec.kind is VIDEO
            self._at += 1
        if self._at < len(self._units) and since < len(self._units):
            self._by -= (self._units[self._at].dts or 0) - (self._units[since].dts or 0)

    async def run(self) -> None:
        clock = asyncio.get_running_loop().time
        due = clock()
        while True:
            due += 1 / RATE
            if self._pause:
                due += self._pause
                self._by += round(self._pause * HZ)
                self._pause = 0.0
                self._skip_to_keyframe()
            await asyncio.sleep(max(0.0, due - clock()))
            self.step(clock())


@dataclass
class Watcher:
    page: Any
    camera: LiveCamera
    log: list[str]

    async def look(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.page.evaluate(LOOK)
        return found

    async def until(self, condition: Callable[[dict[str, Any]], bool], seconds: float = 15.0) -> dict[str, Any]:
        """Look again and again until what is seen is as wanted."""
        found: dict[str, Any] = {}
        try:
            async with asyncio.timeout(seconds):
                while True:
                    found = await self.look()
                    if condition(found):
                        return found
                    await asyncio.sleep(0.1)
        except TimeoutError:
            pytest.fail(f"not within {seconds} s: {found}; {self.log[-20:]}")

    async def delay(self) -> float | None:
        """Seconds from pushing a picture to seeing it; None where its number cannot be read."""
        video = await self.page.query_selector("#video")
        shown = await self.page.evaluate(READ_COUNTER, video)
        behind = (self.camera.number - shown) % self.camera.spec.frames if shown is not None else None
        return None if behind is None else behind / RATE


@asynccontextmanager
async def watching(camera: LiveCamera, **config: Any) -> AsyncIterator[Watcher]:
    """A page whose hls.js plays the camera."""
    from playwright.async_api import async_playwright

    source = FakeSource({KEY: camera})  # type: ignore[dict-item]
    async with world(source=source) as it, async_playwright() as playwright, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(camera.run())
        browser = await playwright.chromium.launch(executable_path=chromium(), args=SWITCHES)
        try:
            page = await browser.new_page()
            log: list[str] = []
            page.on("console", lambda message: log.append(message.text))
            await page.goto(f"{it.url}/healthz")
            await page.add_script_tag(path=str(ROOT / "console/node_modules/hls.js/dist/hls.min.js"))
            await page.evaluate(PLAYER, [f"{it.url}/live/{KEY}/index.m3u8", config])
            yield Watcher(page, camera, log)
        finally:
            await browser.close()
            running.cancel()


def camera_of(spec: PatternSpec = SPEC, *later: PatternSpec) -> LiveCamera:
    """A camera that shows `spec`. later: what it shows later, drawn now, since that takes a second each."""
    for other in later:
        timed_units(other)
    camera = LiveCamera()
    camera.show(spec)
    return camera


def is_right(seen: dict[str, Any]) -> bool:
    """Nothing broke: no error that ends playing, no damaged picture."""
    return not seen["fatal"] and seen["corrupted"] == 0


@pytest.mark.parametrize("gop", [25, 50])
async def test_it_plays_close_behind_and_does_not_stall(gop: int) -> None:
    async with watching(camera_of(replace(SPEC, gop=gop)), maxLiveSyncPlaybackRate=1.5) as watcher:
        first = await watcher.until(lambda seen: seen["time"] > 3)
        delays = []
        for _ in range(40):
            delays.append(await watcher.delay())
            await asyncio.sleep(0.25)
        seen = await watcher.look()
    known = [delay for delay in delays if delay is not None]
    assert len(known) > 30
    assert statistics.median(known) < LATENCY_SECONDS, (known, seen)
    assert seen["latency"] < LATENCY_SECONDS, seen
    assert seen["stalls"] == first["stalls"], seen
    assert seen["time"] - first["time"] > 9, seen
    assert seen["parts"] > 30, seen
    assert seen["blocked"] > 30, seen
    assert seen["sound"] > first["sound"], seen
    assert is_right(seen), seen


async def assert_goes_on(watcher: Watcher, seconds: float = 6.0) -> dict[str, Any]:
    """Pictures move on, at the live edge."""
    since = await watcher.look()
    seen = await watcher.until(lambda now: now["frames"] > since["frames"] + seconds * RATE * 0.8, seconds * 3)
    delay = await watcher.delay()
    assert delay is None or delay < LATENCY_SECONDS + 2.0, (delay, seen)
    assert is_right(seen), (seen, watcher.log[-30:])
    return seen


async def test_another_resolution_or_profile_goes_on() -> None:
    small, large = replace(SPEC, width=320, height=180), replace(SPEC, width=960, height=540)
    profile = replace(SPEC, b_frames=2, seed=2)  # and with it another codec string
    async with watching(camera_of(SPEC, small, large, profile), maxLiveSyncPlaybackRate=1.5) as watcher:
        await watcher.until(lambda seen: seen["time"] > 3)
        for spec in (small, large, profile):
            watcher.camera.show(spec)
            await watcher.until(lambda seen, width=spec.width: seen["width"] == width)
            await assert_goes_on(watcher, 3)


@pytest.mark.parametrize("seconds", [0.6, 3.0])
async def test_a_pause_of_the_camera_is_got_over(seconds: float) -> None:
    async with watching(camera_of()) as watcher:
        await watcher.until(lambda seen: seen["time"] > 3)
        watcher.camera.pause(seconds)
        await assert_goes_on(watcher)


async def test_sound_that_comes_and_goes_leaves_the_picture() -> None:
    mute, mute_again = replace(SPEC, audio=None), replace(SPEC, audio=None, seed=1)
    async with watching(camera_of(mute, SPEC, mute_again), maxLiveSyncPlaybackRate=1.5) as watcher:
        await watcher.until(lambda seen: seen["time"] > 3)
        watcher.camera.show(SPEC)
        await watcher.until(lambda seen: seen["sound"] > 1_000)
        await assert_goes_on(watcher, 3)
        watcher.camera.show(mute_again)
        await assert_goes_on(watcher, 8)  # five until the sound is taken for gone
