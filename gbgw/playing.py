"""A channel as Python sees it: access units, or decoded frames as numpy arrays for analytics."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from copy import copy
from types import TracebackType
from typing import TYPE_CHECKING, Self

from gbgw.base.access_unit import AccessUnit
from gbgw.base.errors import StateError
from gbgw.media.hub import QueuedSubscription, Stream
from gbgw.media.track import Track
from gbgw.serve.source import StreamSource, Viewing

if TYPE_CHECKING:
    from gbgw.mux.decode import Picture


class Playing:
    """`async with gateway.play(device, channel) as playing`; the camera is invited on entry and released after the
    last viewer."""

    def __init__(self, source: StreamSource, key: str) -> None:
        self.key = key
        self._source = source
        self._viewing: Viewing | None = None

    async def __aenter__(self) -> Self:
        self._viewing = await self._source.open(self.key, protocol="python", viewer=f"python:{id(self):x}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._viewing is not None:
            await self._viewing.close()
            self._viewing = None

    @property
    def stream(self) -> Stream:
        if self._viewing is None:
            raise StateError("the picture is not open", remedy="use it inside `async with`")
        return self._viewing.stream

    @property
    def tracks(self) -> tuple[Track, ...]:
        return self.stream.tracks

    async def units(self) -> AsyncGenerator[AccessUnit, None]:
        """Yield access units of all tracks in order of arrival, from the last key frame on.

        A reader that cannot keep up loses units up to a later key frame (`limits.SUBSCRIPTION_BYTES`) and never delays
        anybody. Ends when the stream ends regularly; raises its cause otherwise.
        """
        async with aclosing(self._pairs()) as pairs:
            async for unit, _ in pairs:
                yield unit

    async def frames(self) -> "AsyncGenerator[Picture, None]":
        """Yield decoded pictures: `pixels` is height x width x 3, RGB, uint8; `pts` is 90 kHz ticks.

        Decoding runs in a thread; a consumer that cannot keep up skips to later key frames.
        """
        from gbgw.mux.decode import Decoder

        decoder: Decoder | None = None
        async with aclosing(self._pairs()) as pairs:
            async for unit, track in pairs:
                if not track.is_video:
                    continue
                if decoder is None or decoder.track != track:
                    decoder = Decoder(track)
                for picture in await asyncio.to_thread(decoder.push, unit):
                    yield picture
        if decoder is not None:
            for picture in await asyncio.to_thread(decoder.flush):
                yield picture

    async def _pairs(self) -> AsyncGenerator[tuple[AccessUnit, Track], None]:
        ready = asyncio.Event()
        queue = QueuedSubscription(wake=ready.set)
        subscription = self.stream.attach(queue)
        try:
            while len(queue) or not queue.ended:  # what came while the reader was busy is still its own
                await ready.wait()
                ready.clear()
                for delivery in queue.take():
                    yield delivery.unit, delivery.track
            if queue.cause is not None:
                raise copy(queue.cause)  # a traceback grows with every raise, and others read too
        finally:
            subscription.detach()
