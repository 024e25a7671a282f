"""Receive one channel as numpy arrays and watch for motion: python examples/frames.py DEVICE CHANNEL [COUNT]

Settings come from GBGW_SECTION__KEY in the environment, as for examples/units.py.
"""

import asyncio
import os
import sys

import numpy as np

from gbgw import Gateway
from gbgw.base.config import load


async def main(device: str, channel: str, count: int = 50) -> None:
    async with Gateway(load(env=os.environ).config) as gateway:
        await gateway.until_playable(device, channel)  # it has to register first
        async with gateway.play(device, channel) as playing:
            before = None
            async for picture in playing.frames():
                grey = picture.pixels.mean(axis=2, dtype=np.float32)  # pixels: height x width x 3, RGB, uint8
                moved = 0.0 if before is None else float((abs(grey - before) > 25).mean())
                print(f"{picture.pts / 90_000:9.3f} s  {picture.pixels.shape}  {moved:6.1%} of the picture moved")
                before = grey
                count -= 1
                if count == 0:
                    break


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])))
