"""aiortc's own sender as a Lane (`webrtc.sender = "aiortc"`): fed with units that are cut already."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from gbgw.base import limits
from gbgw.serve.outlet import CATCH_UP_BYTES_PER_SECOND, Cut, CutQueue
from gbgw.serve.viewers import Viewer


class Paced:
    """Stands in for RTCIceTransport._send: a large picture leaves in bursts with the loop's turn in between.

    aiortc sends all packets of a picture without letting go: 0.1 ms each, for every viewer.
    """

    def __init__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._send = send
        self._burst = 0

    async def __call__(self, data: bytes) -> None:
        await self._send(data)
        self._burst += 1
        if self._burst >= limits.WEBRTC_BURST_PACKETS:
            self._burst = 0
            await asyncio.sleep(limits.WEBRTC_BURST_SECONDS)


class Ready:
    """Stands in for the encoder of a sender whose track gives Cuts."""

    def pack(self, cut: Cut) -> tuple[list[bytes], int]:
        return list(cut.payloads), cut.timestamp


class PacketTrack(MediaStreamTrack):
    """An aiortc track that gives Cuts to aiortc's own sender; serve.outlet.Lane."""

    def __init__(self, kind: str, viewer: Viewer, on_stopped: Callable[[], None]) -> None:
        super().__init__()
        self.kind = kind
        self._viewer = viewer
        self._on_stopped = on_stopped
        self._queue = CutQueue()
        self._ready = asyncio.Event()
        self._held = False

    @property
    def queued_bytes(self) -> int:
        return self._queue.bytes

    def put(self, cut: Cut, *, is_keyframe: bool, is_paced: bool) -> tuple[int, bool]:
        result = self._queue.put(cut, is_keyframe=is_keyframe, is_paced=is_paced)
        self._ready.set()
        return result

    def hold(self, is_held: bool) -> None:
        self._held = is_held
        self._ready.set()

    def stop(self) -> None:
        super().stop()
        self._ready.set()
        self._on_stopped()

    async def recv(self) -> Any:
        """The next unit; called by aiortc's sender."""
        while self._held or not self._queue:
            if self.readyState != "live":
                raise MediaStreamError
            self._ready.clear()
            await self._ready.wait()
        cut, is_paced = self._queue.take()
        if is_paced:
            await asyncio.sleep(cut.payloads.size / CATCH_UP_BYTES_PER_SECOND)
        self._viewer.bytes += cut.payloads.size
        return cut
