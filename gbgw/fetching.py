"""A stream of this process as the bytes of a file, none left out: for downloads, which come faster than recorded."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from gbgw.base import limits
from gbgw.base.errors import GatewayError, LocalError
from gbgw.mux.feed import Chunk, Feeds
from gbgw.serve.source import StreamSource


class _Pipe:
    """Takes chunks as they come; a ChunkSink."""

    def __init__(self) -> None:
        self.chunks: deque[bytes] = deque()
        self.waiting_bytes = 0
        self.news = asyncio.Event()
        self.ended = False
        self.cause: GatewayError | None = None

    def on_chunk(self, chunk: Chunk) -> None:
        self.chunks.append(chunk.data)
        self.waiting_bytes += len(chunk.data)
        self.news.set()

    def on_end(self, cause: GatewayError | None) -> None:
        self.ended, self.cause = True, cause
        self.news.set()


async def muxed(source: StreamSource, feeds: Feeds, key: str) -> AsyncGenerator[bytes, None]:
    """Yield the stream as FLV to its regular end. Raises its cause where it has one, LocalError `download_slow` when
    the reader falls behind by limits.DOWNLOAD_PENDING_BYTES."""
    viewing = await source.open(key, protocol="download", viewer=key)
    pipe = _Pipe()
    try:
        attachment = feeds.get(viewing.stream, "flv").attach(pipe)
        try:
            while pipe.chunks or not pipe.ended:
                await pipe.news.wait()
                pipe.news.clear()
                if pipe.waiting_bytes > limits.DOWNLOAD_PENDING_BYTES:
                    raise LocalError(
                        "the disk does not keep up with the download",
                        code="download_slow",
                        remedy="ask for a lower speed, or use a faster disk",
                        stream=key,
                    )
                data = b"".join(pipe.chunks)
                pipe.chunks.clear()
                pipe.waiting_bytes = 0
                if data:
                    yield data
            if pipe.cause is not None:
                raise pipe.cause
        finally:
            attachment.detach()
    finally:
        await viewing.close()
