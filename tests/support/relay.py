"""A UDP relay between one viewer and the gateway that loses packets of media by a seed."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class LossyRelay:
    """Passes on what comes from either side; drops a share of SRTP and SRTCP (RFC 7983: first byte 128 to 191), so
    that connecting is the same in each run.

    loss: share lost on the way to the viewer; loss_back: on the way back. port: where the viewer sends. target: where
    the gateway listens, known once it has answered.
    """

    loss: float
    loss_back: float
    seed: int = 1
    target: tuple[str, int] | None = None
    passed: int = 0
    dropped: int = 0
    port: int = 0
    _viewer: tuple[str, int] | None = None
    _near: Any = None
    _far: Any = None
    _chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)

    def from_viewer(self, data: bytes, address: tuple[str, int]) -> None:
        self._viewer = address
        if self.target is not None and self._passes(data, self.loss_back):
            self._far.sendto(data, self.target)

    def from_gateway(self, data: bytes, _: tuple[str, int]) -> None:
        if self._viewer is not None and self._passes(data, self.loss):
            self._near.sendto(data, self._viewer)

    async def move(self) -> None:
        """The gateway sees another source from now on, as when a NAT forgets; what it sends to the old one is lost."""
        self._far.close()
        self._far, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _End(self.from_gateway), ("127.0.0.1", 0)
        )

    def _passes(self, data: bytes, loss: float) -> bool:
        if data and 128 <= data[0] < 192 and self._chance.random() < loss:
            self.dropped += 1
            return False
        self.passed += 1
        return True


class _End(asyncio.DatagramProtocol):
    def __init__(self, on_datagram: Any) -> None:
        self.datagram_received = on_datagram


@asynccontextmanager
async def lossy(loss: float, *, seed: int = 1) -> AsyncIterator[LossyRelay]:
    relay = LossyRelay(loss, loss, seed)
    loop = asyncio.get_running_loop()
    relay._near, _ = await loop.create_datagram_endpoint(lambda: _End(relay.from_viewer), ("127.0.0.1", 0))
    relay._far, _ = await loop.create_datagram_endpoint(lambda: _End(relay.from_gateway), ("127.0.0.1", 0))
    relay.port = relay._near.get_extra_info("sockname")[1]
    try:
        yield relay
    finally:
        relay._near.close()
        relay._far.close()
