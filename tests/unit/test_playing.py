"""A channel as Python sees it, on a Stream filled by hand."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from gbgw.base.codec import H264, PCMA
from gbgw.base.errors import MediaError, RequestError, StateError
from gbgw.media.hub import Stream
from gbgw.mux.pattern import PatternSpec, read_counter
from gbgw.playing import Playing
from tests.support.streams import feed, published, timed_units

SPEC = PatternSpec(width=320, height=180, seconds=2, gop=10, audio=PCMA)
KEY = "34020000001320000001-34020000001310000001"


class Source:
    """A StreamSource with one stream, or an error."""

    def __init__(self, stream: Stream | None = None) -> None:
        self.stream = stream
        self.opened = 0
        self.closed = 0

    async def open(self, key: str, **how: Any) -> "Source":
        if self.stream is None:
            raise RequestError("no such device", status=404, code="unknown_device")
        assert key == KEY
        assert how["protocol"] == "python"
        self.opened += 1
        return self

    async def close(self) -> None:
        self.closed += 1

    def request_keyframe(self) -> None: ...


async def test_open_and_closed_once() -> None:
    source = Source(published(timed_units(SPEC), until=40))
    playing = Playing(source, KEY)  # type: ignore[arg-type]
    with pytest.raises(StateError, match="async with"):
        _ = playing.stream
    async with playing:
        assert playing.stream is source.stream
        assert [track.codec for track in playing.tracks] == [H264, PCMA]
    assert (source.opened, source.closed) == (1, 1)
    with pytest.raises(StateError):
        _ = playing.tracks
    await playing.__aexit__(None, None, None)
    assert source.closed == 1


async def test_an_error_of_the_source_comes_out() -> None:
    with pytest.raises(RequestError) as raised:
        await Playing(Source(), KEY).__aenter__()  # type: ignore[arg-type]
    assert raised.value.code == "unknown_device"


async def test_units_from_the_cached_gop_to_the_regular_end() -> None:
    units = timed_units(SPEC)
    stream = published(units, until=40)
    async with Playing(Source(stream), KEY) as playing:  # type: ignore[arg-type]
        seen = []
        async for unit in playing.units():
            if not seen:
                feed(stream, units[40:])
                stream.close()
            seen.append(unit)
    assert seen[0].is_keyframe
    assert [bytes(unit) for unit in seen] == [bytes(unit) for unit in units[-len(seen) :]]


async def test_a_cause_is_raised_after_the_last_unit() -> None:
    stream = published(timed_units(SPEC), until=40)
    stream.close(MediaError("gone", code="media_stopped"))
    stream = published(timed_units(SPEC), until=40)
    async with Playing(Source(stream), KEY) as playing:  # type: ignore[arg-type]
        units = playing.units()
        assert (await anext(units)).is_keyframe
        stream.close(MediaError("gone", code="media_stopped"))
        with pytest.raises(MediaError) as raised:
            async for _ in units:
                pass
    assert raised.value.code == "media_stopped"


async def test_a_reader_that_leaves_is_detached_at_once() -> None:
    stream = published(timed_units(SPEC), until=40)
    async with Playing(Source(stream), KEY) as playing:  # type: ignore[arg-type]
        for reader in (playing.units(), playing.frames()):
            await anext(reader)
            assert len(stream._subscriptions) == 1
            await reader.aclose()
            assert len(stream._subscriptions) == 0


async def test_a_waiting_reader_can_be_cancelled() -> None:
    stream = published(timed_units(SPEC), until=40)
    async with Playing(Source(stream), KEY) as playing, asyncio.TaskGroup() as tasks:  # type: ignore[arg-type]

        async def read() -> None:
            async for _ in playing.units():
                pass

        task = tasks.create_task(read())
        await asyncio.sleep(0.01)
        task.cancel()
    assert task.cancelled()
    assert len(stream._subscriptions) == 0


@pytest.mark.parametrize("b_frames", [0, 2])
async def test_frames_are_the_pictures_in_order_to_the_last(b_frames: int) -> None:
    spec = PatternSpec(width=320, height=180, seconds=2, gop=10, audio=None, b_frames=b_frames)
    units = timed_units(spec)
    stream = published(units, until=5)
    async with Playing(Source(stream), KEY) as playing:  # type: ignore[arg-type]
        numbers = []
        async for picture in playing.frames():
            if not numbers:
                feed(stream, units[5:])
                stream.close()
            numbers.append(read_counter(picture.pixels))
            assert picture.pixels.shape == (180, 320, 3)
    assert numbers == list(range(len(units)))
    assert all(later == earlier + 1 for earlier, later in pairwise(numbers))
