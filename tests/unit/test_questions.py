"""Questions to devices and what becomes of them, in virtual time."""

import asyncio
from datetime import UTC, datetime

import pytest

from gbgw.base.errors import PeerError
from gbgw.base.tally import Tally
from gbgw.directory import Directory
from gbgw.gb import manscdp
from gbgw.gb.invite import Platform
from gbgw.questions import Questions
from gbgw.sip.flow import Flow
from gbgw.sip.message import Request, Response
from tests.support import clock
from tests.unit.gb.support import CAMERA, DOMAIN, PLATFORM, udp

NOW = datetime(2026, 2, 3, tzinfo=UTC)
CHANNEL = "34020000001310000001"


class World:
    """One device; `status` and `body` are of the 200 it gives."""

    def __init__(self) -> None:
        self.directory = Directory()
        self.tally = Tally()
        self.status = 200
        self.body = b""
        self.heard: list[bytes] = []
        self.questions = Questions(self, Platform(PLATFORM, DOMAIN), self.directory, self.tally)

    def online(self) -> None:
        self.directory.registered(CAMERA, udp(), edition="3.0", expires=NOW, now=NOW)

    async def request(self, request: Request, flow: Flow, timeout_seconds: float) -> Response:
        self.heard.append(request.body)
        return Response.to(request, self.status, "", {}, self.body)


def presets(sn: int, device_id: str = CHANNEL) -> bytes:
    fields = [("CmdType", "PresetQuery"), ("SN", sn), ("DeviceID", device_id)]
    return manscdp.write("Response", fields, "3.0")


async def ask(world: World, seconds: float = 10.0) -> manscdp.Document:
    async with world.questions.ask(CAMERA, "PresetQuery", CHANNEL) as question:
        await question.send(manscdp.query("PresetQuery", question.sn, CHANNEL))
        return await question.answer(seconds)


def test_an_answer_finds_who_asked() -> None:
    async def main() -> None:
        world = World()
        world.online()
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(ask(world))
            await asyncio.sleep(1)
            assert world.questions.pending == 1
            world.questions.arrived(CAMERA, manscdp.parse(presets(1)))
        assert asking.result().sn == 1
        assert world.questions.pending == 0

    clock.run(main())


def test_an_answer_in_the_body_of_the_200_is_one() -> None:
    async def main() -> None:
        world = World()
        world.online()
        world.body = presets(1)
        assert (await ask(world)).device_id == CHANNEL
        assert world.tally["question.answered_in_200"] == 1
        world.body = b"<Response><CmdType>"
        with pytest.raises(PeerError):
            await ask(world)
        assert world.tally["question.body_unreadable"] == 1

    clock.run(main())


def test_silence_and_refusal_have_causes_of_their_own() -> None:
    async def main() -> None:
        world = World()
        with pytest.raises(PeerError) as offline:
            await ask(world)
        world.online()
        with pytest.raises(PeerError) as silent:
            await ask(world)
        world.status = 403
        with pytest.raises(PeerError) as refused:
            await ask(world)
        codes = [error.value.code for error in (offline, silent, refused)]
        assert codes == ["device_offline", "query_no_answer", "query_refused"]
        assert world.questions.pending == 0

    clock.run(main())


def test_a_late_answer_disturbs_nobody() -> None:
    async def main() -> None:
        world = World()
        world.online()
        with pytest.raises(PeerError):
            await ask(world, 2.0)
        world.questions.arrived(CAMERA, manscdp.parse(presets(1)))
        assert world.tally["interview.unsolicited"] == 1

    clock.run(main())
