"""A device that speaks from another address: its dialogs go with it, and nobody else gets them (reference sections 2.1,
2.9)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gbgw.gateway import Gateway
from tests.support.peer import Camera
from tests.system.conftest import CHANNEL, DEVICE, PASSWORD, configuration
from tests.system.steps import FREE, fact, online, playing, plays_on, server_of


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with Gateway(configuration(tmp_path)) as gateway:
        yield gateway


async def over(gateway: Any, camera: Camera) -> None:
    """The platform says BYE, and gives everything back but the interview of a device that came again."""
    camera.respond(await camera.expect("BYE"), 200)
    await all_back_but_questions(gateway)


async def all_back_but_questions(gateway: Any) -> None:
    await fact(lambda: gateway.resources() | {"questions": 0} == FREE, "everything back")
    async with asyncio.timeout(5):
        while await gateway._store.dialogs():  # noqa: ASYNC110 - the store tells nobody
            await asyncio.sleep(0.02)


async def again(camera: Camera) -> None:
    """Register from where the camera is now."""
    assert (await camera.register(PASSWORD)).status == 200
    camera.drain()


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_bye_goes_to_where_the_camera_is_now(gateway: Any, transport: str) -> None:
    async with (
        online(gateway, transport=transport) as camera,
        playing(gateway, camera) as (watch, _, _),
        camera.moving(),
    ):
        await again(camera)
        await plays_on(watch)
        await watch.close()
        await over(gateway, camera)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_the_cameras_own_bye_is_believed_from_where_it_is_now(gateway: Any, transport: str) -> None:
    async with online(gateway, transport=transport) as camera, playing(gateway, camera) as (watch, _, invite):
        async with camera.moving():
            await again(camera)
            camera.send(camera.bye(invite))
            assert (await camera.expect(200)).cseq[1] == "BYE"
            await fact(lambda: watch.stream.ended, "the stream ends")
            assert watch.stream.cause.code == "closed_by_camera"
        await all_back_but_questions(gateway)


async def test_a_stream_outlives_the_connection_it_was_asked_for_by(gateway: Any) -> None:
    async with online(gateway, transport="tcp") as camera, playing(gateway, camera) as (watch, _, _):
        async with camera.moving():
            await again(camera)
        await plays_on(watch, 30)  # the old connection is closed now
        assert gateway.tally["sip.dialog_moved"] == 1
        await watch.close()
        await over(gateway, camera)


async def test_a_camera_that_lost_its_connection_hears_the_bye_when_it_is_back(gateway: Any) -> None:
    async with online(gateway, transport="tcp") as camera, playing(gateway, camera) as (watch, sender, _):
        await camera.hang_up()
        await fact(lambda: watch.stream.ended, "an offline device has no streams")
        await asyncio.sleep(0.1)
        await camera.__aenter__()
        camera.send(camera.request("REGISTER", to=camera.id))  # not yet authenticated: nothing is said
        await camera.expect(401)
        await camera.nothing(0.2, "BYE")
        await again_with_bye(camera)
        assert sender.index > 0
        await watch.close()
        await fact(lambda: gateway._sip.agent.farewells == 0, "the dialog is over")
        async with asyncio.timeout(5):
            while await gateway._store.dialogs():  # noqa: ASYNC110 - the store tells nobody
                await asyncio.sleep(0.02)


async def again_with_bye(camera: Camera) -> None:
    assert (await camera.register(PASSWORD)).status == 200
    bye = await camera.expect("BYE")
    camera.respond(bye, 200)


async def test_a_stranger_at_the_old_address_gets_nothing(gateway: Any) -> None:
    """Nor does an unauthenticated one at a new address."""
    async with (
        online(gateway) as camera,
        playing(gateway, camera) as (watch, _, invite),
        Camera(DEVICE, server=server_of(gateway)) as stranger,
    ):
        stranger.send(stranger.request("REGISTER", to=DEVICE))
        await stranger.expect(401)
        stranger.send(stranger.bye(invite))
        assert (await stranger.expect(481)).cseq[1] == "BYE"
        await plays_on(watch)
        await watch.close()
        await over(gateway, camera)
        await stranger.nothing(0.1, "BYE")


async def test_a_bye_that_waits_for_a_camera_outlives_a_crash(tmp_path: Path) -> None:
    """The camera lost its connection, so its stream is over; the gateway dies before the camera is back."""
    first, killed = tmp_path / "first", tmp_path / "killed"
    for folder in (first, killed):
        folder.mkdir()
    async with (
        Gateway(configuration(first)) as gateway,
        online(gateway, transport="tcp") as camera,
        playing(gateway, camera) as (watch, _, _),
    ):
        await camera.hang_up()
        await fact(lambda: watch.stream.ended, "an offline device has no streams")
        await watch.close()
        await fact(lambda: gateway.resources()["sessions"] == 0, "the session is over")
        assert gateway._sip.agent.farewells == 1
        await gateway._store.flush()
        for file in first.glob("gbgw.db*"):
            (killed / file.name).write_bytes(file.read_bytes())
    async with Gateway(configuration(killed)) as gateway:
        async with Camera(DEVICE, server=server_of(gateway, "tcp"), transport="tcp") as camera:
            await again_with_bye(camera)
            await camera.serve_catalog([CHANNEL])
        await all_back_but_questions(gateway)


async def test_after_a_crash_a_camera_by_tcp_hears_the_bye_when_it_is_back(tmp_path: Path) -> None:
    first, killed = tmp_path / "first", tmp_path / "killed"
    for folder in (first, killed):
        folder.mkdir()
    async with (
        Gateway(configuration(first)) as gateway,
        online(gateway, transport="tcp") as camera,
        playing(gateway, camera),
    ):
        await gateway._store.flush()
        for file in first.glob("gbgw.db*"):
            (killed / file.name).write_bytes(file.read_bytes())
        camera.drain()
    async with Gateway(configuration(killed)) as gateway:
        async with Camera(DEVICE, server=server_of(gateway, "tcp"), transport="tcp") as camera:
            await again_with_bye(camera)
            await camera.serve_catalog([CHANNEL])
        await all_back_but_questions(gateway)
