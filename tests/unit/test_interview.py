"""Asking devices what they are and have, in virtual time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from gbgw import interview, questions
from gbgw.base import limits
from gbgw.base.errors import PeerError
from gbgw.base.tally import Tally
from gbgw.directory import Directory
from gbgw.gb import manscdp
from gbgw.gb.catalog import CatalogDone
from gbgw.gb.invite import Platform
from gbgw.gb.manscdp import CatalogItem, DeviceInfo
from gbgw.interview import ANSWER_SECONDS, INTERVIEWERS, Interviews
from gbgw.questions import Questions
from gbgw.sip.flow import Flow
from gbgw.sip.message import Request, Response
from tests.support import clock
from tests.unit.gb.support import CAMERA, DOMAIN, PLATFORM, udp

NOW = datetime(2026, 2, 3, tzinfo=UTC)


def device(number: int) -> str:
    return f"340200000013200{number:05d}"


def channels(count: int, first: int = 0) -> list[CatalogItem]:
    return [CatalogItem(f"340200000013100{first + number:05d}", name="c", register_way=1) for number in range(count)]


class World:
    """Devices that answer as they are told, and what was learned of them."""

    def __init__(self) -> None:
        self.directory = Directory()
        self.tally = Tally()
        self.asked: list[tuple[str, str, int, float]] = []  # device, CmdType, SN, when
        self.described_as: dict[str, DeviceInfo] = {}
        self.catalogs: list[CatalogDone] = []
        self.answer: Callable[[str, str, int], None] = lambda device_id, cmd_type, sn: None
        self.sip_seconds = 0.01
        self.sip_status = 200
        self.asking = 0
        self.most = 0
        self.questions = Questions(self, Platform(PLATFORM, DOMAIN), self.directory, self.tally)
        self.interviews = Interviews(self.questions, self, self.tally)

    def online(self, device_id: str = CAMERA) -> None:
        self.directory.registered(device_id, udp(), edition="3.0", expires=NOW, now=NOW)

    # Asking

    async def request(self, request: Request, flow: Flow, timeout_seconds: float) -> Response:
        document = manscdp.parse(request.body)
        assert document.sn is not None
        self.asked.append((document.device_id, document.cmd_type, document.sn, asyncio.get_running_loop().time()))
        self.asking += 1
        self.most = max(self.most, self.asking)
        try:
            async with asyncio.timeout(timeout_seconds):
                await asyncio.sleep(self.sip_seconds)
        except TimeoutError:
            raise PeerError("no answer", code="timeout") from None
        finally:
            self.asking -= 1
        if self.sip_status < 300:
            self.answer(document.device_id, document.cmd_type, document.sn)
        return Response.to(request, self.sip_status)

    # Learned

    async def described(self, device_id: str, info: DeviceInfo) -> None:
        self.described_as[device_id] = info

    async def catalogued(self, device_id: str, done: CatalogDone) -> None:
        self.catalogs.append(done)

    # What devices say

    def says_catalog(self, device_id: str, sn: int, total: int, items: list[CatalogItem]) -> None:
        self.questions.arrived(device_id, manscdp.parse(manscdp.catalog_part(sn, device_id, total, items)))

    def says_info(self, device_id: str, sn: int) -> None:
        xml = (
            f'<?xml version="1.0"?><Response><CmdType>DeviceInfo</CmdType><SN>{sn}</SN><DeviceID>{device_id}</DeviceID>'
            "<Result>OK</Result><Manufacturer>Maker</Manufacturer></Response>"
        )
        self.questions.arrived(device_id, manscdp.parse(xml.encode()))

    def behaves(self, device_id: str, cmd_type: str, sn: int) -> None:
        """A camera by the book, with two channels."""
        if cmd_type == "Catalog":
            self.says_catalog(device_id, sn, 2, channels(1))
            self.says_catalog(device_id, sn, 2, channels(1, 1))
        else:
            self.says_info(device_id, sn)


@asynccontextmanager
async def interviewing() -> AsyncIterator[World]:
    world = World()
    async with world.interviews:
        yield world
    assert world.questions.pending == 0
    assert world.questions._table.pending == 0


def test_a_device_by_the_book() -> None:
    async def main() -> None:
        async with interviewing() as world:
            world.online()
            world.answer = world.behaves
            world.interviews.schedule(CAMERA)
            await asyncio.sleep(1)
            assert [(cmd_type, sn) for _, cmd_type, sn, _ in world.asked] == [("Catalog", 1), ("DeviceInfo", 2)]
            (done,) = world.catalogs
            assert done.complete
            assert done.items == tuple(channels(2))
            assert world.described_as[CAMERA].manufacturer == "Maker"

    clock.run(main())


def test_many_devices_are_asked_in_turn_each_once() -> None:
    async def main() -> None:
        async with interviewing() as world:
            world.answer = world.behaves
            world.sip_seconds = 1.0
            for number in range(100):
                world.online(device(number))
                world.interviews.schedule(device(number))
                world.interviews.schedule(device(number))
            await asyncio.sleep(60)
            assert len(world.catalogs) == 100
            assert world.most == INTERVIEWERS
            world.interviews.schedule(device(0))
            await asyncio.sleep(5)
            assert len(world.catalogs) == 101, "later it may be asked again"

    clock.run(main())


def test_a_full_line_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interview, "LINE", 3)

    async def main() -> None:
        async with interviewing() as world:
            for number in range(5):
                world.interviews.schedule(device(number))
            assert world.tally["interview.line_full"] == 2

    clock.run(main())


def test_no_device_info_is_no_failure() -> None:
    async def main() -> None:
        async with interviewing() as world:
            world.online()
            world.answer = lambda device_id, cmd_type, sn: (
                world.behaves(device_id, cmd_type, sn) if cmd_type == "Catalog" else None
            )
            world.interviews.schedule(CAMERA)
            await asyncio.sleep(2 * ANSWER_SECONDS)
            assert world.tally["interview.no_device_info"] == 1
            assert world.tally["interview.failed"] == 0
            assert world.catalogs[0].complete

    clock.run(main())


@pytest.mark.parametrize(("status", "seconds"), [(400, 0.01), (200, 1e6)], ids=["refused", "no SIP answer"])
def test_a_query_that_fails_is_told_and_the_line_goes_on(status: int, seconds: float) -> None:
    async def main() -> None:
        async with interviewing() as world:
            world.online()
            world.sip_status, world.sip_seconds = status, seconds
            world.interviews.schedule(CAMERA)
            await asyncio.sleep(3 * ANSWER_SECONDS)
            assert [done.cause for done in world.catalogs] == ["refused"]
            assert world.tally["interview.failed"] == 1
            world.sip_status, world.sip_seconds = 200, 0.01
            world.answer = world.behaves
            world.interviews.schedule(CAMERA)
            await asyncio.sleep(1)
            assert world.catalogs[-1].complete

    clock.run(main())


def test_a_device_that_is_gone_when_its_turn_comes() -> None:
    async def main() -> None:
        async with interviewing() as world:
            world.interviews.schedule(CAMERA)
            await asyncio.sleep(1)
            assert world.asked == []
            assert world.tally["interview.failed"] == 1
            with pytest.raises(PeerError) as raised:
                await world.interviews.catalog(CAMERA)
            assert raised.value.code == "device_offline"

    clock.run(main())


def test_a_catalog_that_stops_is_partial() -> None:
    async def main() -> None:
        async with interviewing() as world:
            world.online()
            world.answer = lambda device_id, cmd_type, sn: world.says_catalog(device_id, sn, 5, channels(2))
            began = asyncio.get_running_loop().time()
            done = await world.interviews.catalog(CAMERA)
            assert not done.complete
            assert done.cause == "gap"
            assert len(done.items) == 2
            took = asyncio.get_running_loop().time() - began
            assert took == pytest.approx(limits.CATALOG_GAP_SECONDS, abs=0.1)
            assert world.catalogs == [done]

    clock.run(main())


def test_a_silent_catalog() -> None:
    async def main() -> None:
        async with interviewing() as world:
            world.online()
            done = await world.interviews.catalog(CAMERA)
            assert (done.cause, done.items) == ("no_answer", ())

    clock.run(main())


def test_two_who_ask_for_a_catalog_wait_for_each_other() -> None:
    async def main() -> None:
        async with interviewing() as world:
            world.online()
            world.answer = world.behaves
            async with asyncio.TaskGroup() as tasks:
                for _ in range(3):
                    tasks.create_task(world.interviews.catalog(CAMERA))
            assert len(world.catalogs) == 3
            assert world.most == 1

    clock.run(main())


def test_what_nobody_asked_for_is_counted() -> None:
    async def main() -> None:
        async with interviewing() as world:
            world.says_catalog(CAMERA, 5, 1, channels(1))
            assert world.tally["interview.unsolicited"] == 1

    clock.run(main())


def test_a_flood_of_parts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "PARTS", 10)

    async def main() -> None:
        async with interviewing() as world:
            world.online()

            def floods(device_id: str, cmd_type: str, sn: int) -> None:
                for number in range(50):
                    world.says_catalog(device_id, sn, 5, channels(1, number))

            world.answer = floods
            done = await world.interviews.catalog(CAMERA)
            assert len(done.items) <= 10
            assert world.tally["interview.parts_dropped"] == 40

    clock.run(main())


def test_a_cancelled_question_leaves_nothing() -> None:
    async def main() -> None:
        async with interviewing() as world:
            world.online()
            for delay in (0.0, 0.005, 5.0):
                async with asyncio.TaskGroup() as tasks:
                    task = tasks.create_task(world.interviews.catalog(CAMERA))
                    await asyncio.sleep(delay)
                    task.cancel()
                assert task.cancelled()
                assert world.questions.pending == 0

    clock.run(main())


def test_the_gateway_ends_in_the_middle() -> None:
    async def main() -> None:
        async with interviewing() as world:
            world.online()
            world.interviews.schedule(CAMERA)
            await asyncio.sleep(5)
            assert world.questions.pending == 1

    clock.run(main())


def test_forgotten_a_device_starts_anew() -> None:
    async def main() -> None:
        async with interviewing() as world:
            assert [world.questions.next_sn(CAMERA) for _ in range(3)] == [1, 2, 3]
            world.interviews.forget(CAMERA)
            assert world.questions.next_sn(CAMERA) == 1

    clock.run(main())
