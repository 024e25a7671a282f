"""A stream as the bytes of a file."""

import asyncio
from typing import Any

import pytest

from gbgw.base import limits
from gbgw.base.errors import GatewayError, MediaError
from gbgw.fetching import muxed
from gbgw.mux.feed import Feeds
from tests.unit.serve.support import KEY, Camera, FakeSource


async def read(camera: Camera, cause: GatewayError | None = None) -> tuple[bytes, FakeSource]:
    """All of a stream that goes on for a while and then ends."""
    source = FakeSource({KEY: camera})
    data = bytearray()
    pieces = muxed(source, Feeds(), KEY)
    data += await anext(pieces)
    for _ in range(4):
        camera.push(25)
        await asyncio.sleep(0)
    camera.stream.close(cause)
    try:
        async for piece in pieces:
            data += piece
    finally:
        assert source.watching == 0
    return bytes(data), source


async def test_every_picture_is_in_it_to_the_end() -> None:
    data, _ = await read(Camera())
    assert data.startswith(b"FLV")
    assert data.count(b"\x09", 13) >= 100


async def test_a_stream_that_breaks_off_says_why() -> None:
    with pytest.raises(MediaError) as caught:
        await read(Camera(), MediaError("gone", code="media_stopped"))
    assert caught.value.code == "media_stopped"


async def test_a_reader_that_falls_behind_ends(monkeypatch: Any) -> None:
    monkeypatch.setattr(limits, "DOWNLOAD_PENDING_BYTES", 1_000)
    with pytest.raises(GatewayError) as caught:
        await read(Camera())
    assert caught.value.code == "download_slow"
