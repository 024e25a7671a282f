"""Simulated cameras whose streams become others in mid-stream, at a real gateway, and what was read of them by HTTP."""

import asyncio
import io
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import aiohttp
import av
import numpy as np

from gbgw.base import config as configuration
from gbgw.demo import FIRST_DEVICE, Demo, DemoCamera
from gbgw.mux.pattern import read_counter

READY_SECONDS = 40.0  # a machine under load draws some patterns first
TICK_LEVEL = 0.42  # of the pattern's sound: more is its tick at a full second, less its tone
TICK_SECONDS = 0.3  # louder sound closer together than this is one tick


@asynccontextmanager
async def camera(
    demo: Demo, *quirks: str, number: int = 1, video: str = "h264", **options: object
) -> AsyncIterator[DemoCamera]:
    """A `gbgw device` in a process of its own at the gateway of `demo`. options: of its command line."""
    own = DemoCamera(str(FIRST_DEVICE + 100 + number), video)
    sip = demo.gateway.config.sip
    _, host, port = configuration.split_url(sip.listen[0], ["udp", "tcp"])
    more = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "gbgw", "device", "--server", f"{host}:{port}", "--server-id", sip.id, "--domain", sip.domain),
        *("--id", own.device_id, "--video", video, "--quiet", *more),
        *[text for quirk in quirks for text in ("--quirk", quirk)],
        env=os.environ | {"GBGW_DEVICE_PASSWORD": sip.password},
        stdin=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(READY_SECONDS):
            while not demo.gateway.is_playable(own.key):
                assert process.returncode is None, "the camera ended"
                await asyncio.sleep(0.05)
        yield own
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def read(url: str, seconds: float) -> tuple[bytes, bool]:
    """What an HTTP answer brings within `seconds`, and whether it ended by itself."""
    got: list[bytes] = []
    async with aiohttp.ClientSession() as client:
        try:
            async with asyncio.timeout(seconds), client.get(url) as answer:
                assert answer.status == 200, await answer.text()
                async for piece in answer.content.iter_any():
                    got.append(piece)
        except TimeoutError:
            return b"".join(got), False
    return b"".join(got), True


@dataclass
class Shown:
    """What a decoder that forgives nothing makes of a recording. Times in seconds.

    pictures: (time, number burnt into it). sizes: each as often as it begins. ticks: where the sound's ticks begin.
    """

    pictures: list[tuple[float, int | None]] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    ticks: list[float] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def steps(self) -> Sequence[float]:
        """From picture to picture."""
        times = [time for time, _ in self.pictures]
        return [later - earlier for earlier, later in pairwise(times)]

    @property
    def numbers(self) -> Sequence[int | None]:
        return [number for _, number in self.pictures]

    def apart(self, rate: int = 25, after: float = 0.0) -> Sequence[float]:
        """How late each tick is heard after the picture of its full second was shown."""
        full = [time for time, number in self.pictures if number is not None and number % rate == 0]
        last = self.pictures[-1][0]
        heard = [tick for tick in self.ticks if after <= tick <= last]
        return [tick - min(full, key=lambda time: abs(time - tick)) for tick in heard]


def shown(data: bytes, form: str, *, strict: bool = True) -> Shown:
    """Decode a whole recording. form: FFmpeg's name of the format. strict: stop at what is not as it should be."""
    seen = Shown()
    loud = float("-inf")
    with av.logging.Capture() as told, av.open(io.BytesIO(data), format=form) as container:
        for stream in container.streams.video if strict else ():
            stream.codec_context.options = {"err_detect": "explode"}
        for frame in container.decode():
            one: Any = frame
            time = float(one.pts * one.time_base)
            if isinstance(frame, av.VideoFrame):
                seen.pictures.append((time, read_counter(frame.to_ndarray(format="rgb24"))))
                if seen.sizes[-1:] != [(frame.width, frame.height)]:
                    seen.sizes.append((frame.width, frame.height))
                continue
            assert isinstance(frame, av.AudioFrame)
            (at,) = np.nonzero(np.abs(frame.to_ndarray().reshape(-1)) > TICK_LEVEL)
            if at.size:
                if time + at[0] / frame.sample_rate - loud > TICK_SECONDS:
                    seen.ticks.append(time + float(at[0]) / frame.sample_rate)
                loud = time + float(at[-1]) / frame.sample_rate
    seen.complaints = [text.strip() for level, _, text in told if level <= av.logging.ERROR]
    return seen


def without_tail(seen: Shown, pictures: int) -> Shown:
    """The same without its last pictures: where a recording was broken off, B-frames may be missing before them."""
    return replace(seen, pictures=seen.pictures[:-pictures])
