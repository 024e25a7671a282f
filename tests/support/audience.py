"""`python -m tests.support.audience URL PATH COUNT`: WebRTC viewers that only count, in a process of their own.

Says "ready" when all are connected; at the end of its input one line of JSON: viewers, packets, lost.
"""

import asyncio
import json
import sys

from gbgw._load import Ears
from gbgw.bench.request import Api
from gbgw.bench.webrtc import Audience

AT_ONCE = 10


async def main(url: str, path: str, count: int) -> None:
    audience, api = Audience(Ears(capacity=count)), Api(url, "")
    async with audience.running():
        while len(audience.seats) < count:
            async with asyncio.TaskGroup() as group:
                for number in range(min(AT_ONCE, count - len(audience.seats))):
                    group.create_task(audience.add(api, path), name=f"viewer:{number}")
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        figures = audience.figures()
        lost = sum(max(flow["lost"], 0) for figure in figures for flow in figure["flows"])
        packets = [figure["packets"] for figure in figures]
        print(json.dumps({"viewers": len(packets), "packets": sum(packets), "fewest": min(packets), "lost": lost}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
