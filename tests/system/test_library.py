"""gbgw as a library: `async with Gateway(...)`, `play`, units and frames, and exceptions that come out as they are."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gbgw
from gbgw.base import limits
from gbgw.base.codec import H264, H265, Codec
from gbgw.base.errors import LocalError, MediaError, RequestError, StateError
from gbgw.mux.loop import Loop
from gbgw.mux.pattern import PatternSpec, pattern_loop, read_counter
from tests.support import build
from tests.support.peer import Camera
from tests.system.conftest import CHANNEL, DEVICE, configuration
from tests.system.steps import online, picture_stream, playing, plays_on, sending

GatewayAt = Callable[..., Any]


@asynccontextmanager
async def watched(gateway: Any, camera: Camera, make: Callable[[int], bytes] = picture_stream) -> AsyncIterator[Any]:
    """`gateway.play` of a camera that answers and sends."""
    live = gateway.play(DEVICE, CHANNEL)
    async with asyncio.TaskGroup() as tasks:
        entering = tasks.create_task(live.__aenter__(), name="test:enter")
        invite = await camera.expect("INVITE")
        await camera.answer_invite(invite)
        async with sending(camera, invite, make):
            assert await entering is live
            yield live
            await live.__aexit__(None, None, None)
            camera.respond(await camera.expect("BYE"), 200)


async def test_units_come_in_order_from_a_key_frame(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway) as camera, watched(gateway, camera) as live:
        units = []
        async for unit in live.units():
            units.append(unit)
            if len(units) == 40:
                break
        assert units[0].is_keyframe
        assert {unit.codec for unit in units} == {H264}
        assert {later.pts - earlier.pts for earlier, later in pairwise(units)} == {3_600}
        assert live.tracks == live.stream.tracks
        assert live.tracks[0].codec is H264


@pytest.mark.parametrize("body_error", [ValueError("mine"), TimeoutError("mine"), KeyError("mine")])
async def test_what_the_body_raises_comes_out_as_it_is(gateway_at: GatewayAt, body_error: Exception) -> None:
    """No ExceptionGroup around the user's own exception, neither from play nor from the gateway."""
    with pytest.raises(type(body_error)) as raised:  # noqa: PT012 - the blocks are what is tested
        async with (
            gateway_at("media.transcode=1") as gateway,
            online(gateway) as camera,
            playing(gateway, camera),
            gateway.play(DEVICE, CHANNEL) as live,
        ):
            await anext(live.units())
            raise body_error
    assert raised.value is body_error


async def test_errors_come_out_of_the_gateway_block_unchanged(tmp_path: Path) -> None:
    error = RuntimeError("mine")
    with pytest.raises(RuntimeError) as raised:
        async with gbgw.Gateway(configuration(tmp_path)):
            raise error
    assert raised.value is error
    with pytest.raises(RequestError) as unknown:
        async with gbgw.Gateway(configuration(tmp_path)) as gateway, gateway.play(DEVICE, CHANNEL):
            pytest.fail("nothing to play")
    assert unknown.value.code == "unknown_device"
    assert unknown.value.status == 404
    assert unknown.value.remedy
    group = ExceptionGroup("mine", [ValueError("a")])
    with pytest.raises(ExceptionGroup) as same:
        async with gbgw.Gateway(configuration(tmp_path)):
            raise group
    assert same.value is group


async def test_cancelling_the_body_cancels(tmp_path: Path) -> None:
    entered = asyncio.Event()

    async def life() -> None:
        async with gbgw.Gateway(configuration(tmp_path)):
            entered.set()
            await asyncio.get_running_loop().create_future()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(life(), name="test:life")
        await entered.wait()
        task.cancel()
    assert task.cancelled()


async def test_unknown_and_unregistered(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway):
        with pytest.raises(RequestError) as raised:
            await gateway.play(DEVICE, "34020000001310000099").__aenter__()
        assert raised.value.code == "unknown_channel"
        with pytest.raises(RequestError):
            await gateway.play("nonsense", CHANNEL).__aenter__()
        outside = gateway.play(DEVICE, CHANNEL)
        with pytest.raises(StateError):
            _ = outside.tracks


async def test_until_playable_outlives_a_lag_and_ends_with_the_gateway(tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as tasks:
        async with gbgw.Gateway(configuration(tmp_path)) as gateway:
            waiting = tasks.create_task(gateway.until_playable(DEVICE, CHANNEL), name="test:until")
            await asyncio.sleep(0)
            for number in range(1_000):  # more than a follower may lag
                gateway.events.emit("test", number=number)
            await asyncio.sleep(0.05)
            assert not waiting.done()
            async with online(gateway):
                await waiting
            ended = tasks.create_task(_cause(gateway.until_playable(DEVICE, "34020000001310009999")), name="test:ended")
            await asyncio.sleep(0)
        assert await ended == "stopping"


async def _cause(wait: Coroutine[Any, Any, None]) -> str:
    with pytest.raises(LocalError) as raised:
        await wait
    return raised.value.code


async def test_the_cause_of_an_end_is_raised_by_the_reader(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway) as camera:
        entering = asyncio.create_task(gateway.play(DEVICE, CHANNEL).__aenter__(), name="test:enter")
        invite = await camera.expect("INVITE")
        await camera.answer_invite(invite)
        async with sending(camera, invite):
            live = await entering
            with pytest.raises(MediaError) as ended:  # noqa: PT012 - a reader and what happens to it
                async for number, _ in aenumerate(live.units()):
                    if number == 10:
                        camera.send(camera.bye(invite))
            assert ended.value.code == "closed_by_camera"
            await live.__aexit__(None, None, None)


async def aenumerate(source: AsyncIterator[Any]) -> AsyncIterator[tuple[int, Any]]:
    number = 0
    async for each in source:
        yield number, each
        number += 1


def large_pictures(index: int) -> bytes:
    pts = 90_000 + index * 3_600
    if index % 10 == 0:
        return picture_stream(index)
    return build.pack(pts) + build.pes_run(build.p264(60_000, index + 1), build.VIDEO_ID, pts)


async def test_a_slow_reader_skips_and_delays_nobody(gateway_at: GatewayAt) -> None:
    async with (
        gateway_at() as gateway,
        online(gateway) as camera,
        playing(gateway, camera, make=large_pictures) as (watch, _, _),
        gateway.play(DEVICE, CHANNEL) as live,
    ):
        slow = live.units()
        first = await anext(slow)
        assert first.is_keyframe
        assert len(first) > 4_000
        await plays_on(watch, 2 * limits.SUBSCRIPTION_BYTES // 60_000)  # meanwhile it reads nothing
        pts = [first.pts]
        async for unit in slow:
            pts.append(unit.pts)
            if len(pts) == 60:
                break
        steps = Counter(later - earlier for earlier, later in pairwise(pts))
        holes = [step for step in steps if step != 3_600]
        assert len(holes) == 1
        assert steps[holes[0]] == 1
        assert holes[0] > 20 * 3_600
        await slow.aclose()


# Pictures


@lru_cache(maxsize=2)
def pattern(codec: Codec) -> Loop:
    return pattern_loop(PatternSpec(video=codec, audio=None, width=320, height=180, frame_rate=25, seconds=4, gop=10))


def packs_of(codec: Codec) -> Callable[[int], bytes]:
    """The test pattern, whose every picture carries its number, as a camera sends it."""
    units = pattern(codec).units
    stream_type = build.H264 if codec is H264 else build.H265

    def make(index: int) -> bytes:
        unit = units[index % len(units)]
        pts = 90_000 + index * 3_600
        pack = build.pack(pts)
        if unit.is_keyframe:
            pack += build.system_header() + build.program_map(((stream_type, build.VIDEO_ID),))
        return pack + build.pes_run(bytes(unit), build.VIDEO_ID, pts)

    return make


@pytest.mark.parametrize("codec", [H264, H265], ids=["h264", "h265"])
async def test_every_frame_is_the_one_after_the_last(gateway_at: GatewayAt, codec: Codec) -> None:
    make = packs_of(codec)
    async with gateway_at() as gateway, online(gateway) as camera, watched(gateway, camera, make) as live:
        numbers, times = [], []
        frames = live.frames()
        async for picture in frames:
            assert picture.pixels.shape == (180, 320, 3)
            assert picture.pixels.dtype == np.uint8
            numbers.append(read_counter(picture.pixels))
            times.append(picture.pts)
            if len(numbers) == 60:
                break
        await frames.aclose()
    count = len(pattern(codec).units)
    assert None not in numbers
    assert {(later - earlier) % count for earlier, later in pairwise(numbers)} == {1}
    assert {later - earlier for earlier, later in pairwise(times)} == {3_600}
