"""WebRTC end to end: a camera of raw bytes, a real gateway, aiortc's client as the player."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import aiohttp
import pytest

from tests.support import material
from tests.support.peer import Camera
from tests.support.whep import Player
from tests.system.conftest import KEY
from tests.system.steps import Sender, all_back, fact, online, sending

SAMPLES = 320  # of sound with each picture: 40 ms
SDP = {"Content-Type": "application/sdp"}


@cache
def pictures(size: str = "320x240") -> tuple[material.Picture, ...]:
    return tuple(material.pictures(material.elementary_stream("h264", size=size)))


def sound(index: int) -> bytes:
    """Samples that no other picture has."""
    return bytes((index * 7 + at) % 251 for at in range(SAMPLES))


def pack(index: int, size: str = "320x240") -> bytes:
    made = pictures(size)
    at = 90_000 + index * 3_600
    one = made[index % len(made)]
    return material.program_stream(material.Picture(one.data, at, at, one.is_keyframe), audio=sound(index))


def nals(data: bytes) -> list[bytes]:
    """Without delimiters, which are not sent."""
    parts = data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")
    return [part for part in parts if part and part[0] & 31 != 9]


@dataclass
class Scene:
    gateway: Any
    camera: Camera
    sender: Sender
    client: aiohttp.ClientSession
    player: Player
    location: str

    async def delete(self) -> int:
        async with self.client.delete(self.location) as response:
            return response.status


@asynccontextmanager
async def watched(gateway: Any) -> AsyncIterator[Scene]:
    """A camera that is asked because a player posts its offer, and both are connected."""
    async with online(gateway) as camera, aiohttp.ClientSession() as client, Player() as player:
        offer = await player.offer()

        async def post() -> tuple[int, str, str]:
            url = f"{gateway.http_url}/live/{KEY}/whep"
            async with client.post(url, data=offer, headers=SDP) as response:
                return response.status, await response.text(), response.headers.get("Location", "")

        async with asyncio.TaskGroup() as group:
            posting = group.create_task(post(), name="test:post")
            invite = await camera.expect("INVITE")
            await camera.answer_invite(invite)
            async with sending(camera, invite, pack) as sender:
                status, answer, location = await posting
                assert status == 201, answer
                await player.accept(answer)
                await fact(lambda: player.state == "connected", "connected", 8)
                yield Scene(gateway, camera, sender, client, player, gateway.http_url + location)


@pytest.mark.parametrize("workers", [0, 1], indirect=True)
async def test_the_camera_is_seen_and_heard_byte_for_byte(gateway_at: Callable[..., Any]) -> None:
    async with gateway_at() as gateway, watched(gateway) as scene:
        await fact(lambda: len(scene.player.pictures) > 80, "eighty pictures")
        await fact(lambda: len(scene.player.sound) > 60 * SAMPLES, "sound")
        seen = [found for _, found in scene.player.pictures]
        sent = [nals(pack_.data) for pack_ in pictures()]
        start = sent.index(seen[0])
        assert pictures()[start].is_keyframe
        assert seen == [sent[(start + index) % len(sent)] for index in range(len(seen))]
        heard = scene.player.sound
        everything = b"".join(sound(index) for index in range(scene.sender.index))
        assert heard in everything
        assert len(gateway.viewers) == 1
        assert await scene.delete() == 200
        assert await scene.delete() == 404
        await fact(lambda: scene.player.state == "closed", "the player noticed")
        assert len(gateway.viewers) == 0
        scene.camera.respond(await scene.camera.expect("BYE"), 200)
        await all_back(gateway)


@pytest.mark.parametrize("workers", [0, 1], indirect=True)
async def test_a_lost_picture_becomes_an_iframe_command(gateway_at: Callable[..., Any]) -> None:
    async with gateway_at() as gateway, watched(gateway) as scene:
        await fact(lambda: len(scene.player.pictures) > 5, "pictures")
        scene.camera.drain()
        await scene.player.lose_picture()
        message = await scene.camera.expect("MESSAGE")
        assert b"<IFameCmd>Send</IFameCmd>" in message.body or b"<IFrameCmd>Send</IFrameCmd>" in message.body
        scene.camera.respond(message, 200)
        for _ in range(20):
            await scene.player.lose_picture()
        await scene.camera.nothing(0.5, "MESSAGE")  # at most one in two seconds
        await scene.delete()
        scene.camera.respond(await scene.camera.expect("BYE"), 200)
        await all_back(gateway)


async def test_a_camera_that_changes_its_resolution_stays_in_the_picture(gateway_at: Callable[..., Any]) -> None:
    async with gateway_at() as gateway, watched(gateway) as scene:
        await fact(lambda: len(scene.player.pictures) > 5, "pictures")
        scene.sender.make = lambda index: pack(index, "640x480")
        wanted = nals(next(one.data for one in pictures("640x480") if one.is_keyframe))
        await fact(lambda: wanted in [found for _, found in scene.player.pictures], "the larger key frame")
        assert scene.player.state == "connected"
        await scene.delete()
        scene.camera.respond(await scene.camera.expect("BYE"), 200)
        await all_back(gateway)


@pytest.mark.parametrize("workers", [0, 1], indirect=True)
async def test_a_camera_that_falls_silent_ends_the_connection(gateway_at: Callable[..., Any]) -> None:
    async with gateway_at() as gateway, watched(gateway) as scene:
        await fact(lambda: len(scene.player.pictures) > 5, "pictures")
        scene.sender.paused = True
        scene.camera.respond(await scene.camera.expect("BYE", 8), 200)
        await fact(lambda: scene.player.state == "closed", "the player noticed", 8)
        assert await scene.delete() == 404
        assert len(gateway.viewers) == 0
        await all_back(gateway)
