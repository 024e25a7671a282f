"""Receive one channel as access units: python examples/units.py DEVICE CHANNEL [COUNT]

The gateway runs inside this program; cameras register at it as at `gbgw serve`. Settings come from GBGW_SECTION__KEY in
the environment, for example GBGW_SIP__PASSWORD (docs/operations.md lists them).
"""

import asyncio
import os
import sys

from gbgw import Gateway
from gbgw.base.config import load


async def main(device: str, channel: str, count: int = 50) -> None:
    async with Gateway(load(env=os.environ).config) as gateway:
        await gateway.until_playable(device, channel)  # it has to register first
        async with gateway.play(device, channel) as playing:
            print("tracks", *(track.rfc6381 or track.codec.name for track in playing.tracks))
            async for unit in playing.units():
                print(unit.codec.name, unit.pts, len(bytes(unit)), "key" if unit.is_keyframe else "")
                count -= 1
                if count == 0:
                    break


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])))
