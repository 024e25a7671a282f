"""A real Chromium on the console of a real gateway with simulated cameras in processes of their own."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gbgw.demo import Demo
from tests.conftest import ROOT

ARTIFACTS = ROOT / "artifacts"
SWITCHES = [
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Reads the burnt-in frame number from a <video>, by the geometry of gbgw/mux/pattern.py
READ_COUNTER = """
(video) => {
  const width = video.videoWidth, height = video.videoHeight;
  if (!width) return null;
  const canvas = document.createElement('canvas');
  canvas.width = width; canvas.height = height;
  const context = canvas.getContext('2d', {willReadFrequently: true});
  context.drawImage(video, 0, 0);
  const cell = (index) => {
    const left = Math.floor((index + 0.25) * width / 20), right = Math.floor((index + 0.75) * width / 20);
    const top = Math.floor(height / 36), bottom = Math.floor(height / 12);
    const data = context.getImageData(left, top, right - left, bottom - top).data;
    let sum = 0;
    for (let at = 0; at < data.length; at += 4) sum += data[at] + data[at + 1] + data[at + 2];
    return sum / (data.length / 4 * 3);
  };
  const white = cell(0), black = cell(1);
  if (white - black < 60) return null;
  let number = 0, ones = 0;
  for (let bit = 0; bit < 17; bit++) {
    const set = cell(2 + bit) > (white + black) / 2;
    ones += set;
    if (bit < 16) number = number * 2 + (set ? 1 : 0);
  }
  return ones % 2 ? number : null;
}
"""


def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path:
            return path
    pytest.fail("no Chromium here; tools/system-packages installs it")


@dataclass
class Console:
    """One page of the console, logged in."""

    page: Any
    demo: Demo
    errors: list[str]

    async def play(self, key: str, protocol: str) -> None:
        """Choose the protocol, then press Enter on the channel, as a person at a keyboard does."""
        page = self.page
        await page.get_by_test_id("protocol-select").select_option(protocol)
        channel = page.get_by_test_id(f"channel-{key}")
        await channel.focus()
        await page.keyboard.press("Enter")

    async def counter(self) -> int | None:
        video = await self.page.get_by_test_id("player-video").element_handle()
        found: int | None = await self.page.evaluate(READ_COUNTER, video)
        return found

    async def next_counter(self, seconds: float = 15.0) -> int:
        """Wait until a picture with a readable frame number is shown."""
        async with asyncio.timeout(seconds):
            while (found := await self.counter()) is None:  # noqa: ASYNC110 - only the canvas knows
                await asyncio.sleep(0.05)
            return found

    async def media(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.page.get_by_test_id("player-video").evaluate(
            "video => ({time: video.currentTime, width: video.videoWidth, height: video.videoHeight,"
            " frames: video.getVideoPlaybackQuality().totalVideoFrames,"
            " sound: video.webkitAudioDecodedByteCount ?? 0})"
        )
        return found

    async def first_picture_ms(self) -> float:
        text = await self.page.get_by_test_id("first-picture-ms").inner_text()
        return float("".join(char for char in text if char.isdigit() or char == "."))

    async def screenshot(self, name: str) -> None:
        ARTIFACTS.mkdir(exist_ok=True)
        await self.page.screenshot(path=ARTIFACTS / f"{name}.png")


@pytest_asyncio.fixture
async def demo() -> AsyncIterator[Demo]:
    async with Demo(2) as running:
        yield running


@pytest.fixture
def console_of() -> Callable[..., Any]:
    """`async with console_of(demo) as console`: a logged-in page at desktop size."""

    @asynccontextmanager
    async def open_console(demo: Demo, width: int = 1440, height: int = 900) -> AsyncIterator[Console]:
        from playwright.async_api import async_playwright

        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium(), args=SWITCHES)
            try:
                context = await browser.new_context(viewport={"width": width, "height": height}, locale="en-US")
                page = await context.new_page()
                errors: list[str] = []
                page.on("pageerror", lambda error: errors.append(str(error)))
                await page.goto(f"{demo.gateway.http_url}/")
                await page.get_by_test_id("login-token").fill(demo.token)
                await page.get_by_test_id("login-submit").click()
                yield Console(page, demo, errors)
                assert errors == []
            finally:
                await browser.close()

    os.environ.setdefault("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1")
    return open_console


@pytest.fixture(autouse=True, scope="session")
def _console_is_built() -> None:
    if not (Path(ROOT) / "gbgw/serve/console/index.html").is_file():
        pytest.fail("the console is not built; run make build")
