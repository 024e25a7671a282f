"""Asking devices for their recordings, in virtual time."""

import asyncio
from datetime import UTC, datetime

import pytest

from gbgw.archive import Archive
from gbgw.base import limits
from gbgw.base.errors import GatewayError, MediaError, RequestError
from gbgw.base.tally import Tally
from gbgw.directory import Directory
from gbgw.gb import manscdp, records
from gbgw.gb.invite import Platform
from gbgw.gb.records import Record
from gbgw.questions import Questions
from gbgw.sip.flow import Flow
from gbgw.sip.message import Request, Response
from tests.support import clock
from tests.unit.gb.support import CAMERA, DOMAIN, PLATFORM, udp

CHANNEL = "34020000001310000001"
OTHER = "34020000001310000002"
DAY = 86_400
START = 1_770_048_000  # 2026-02-03T00:00:00 in Beijing


class Recorder:
    """A device with a recording at each full hour; `parts` of each answer are sent, one item in each."""

    questions: Questions

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, int]] = []
        self.parts: int | None = None
        self.answers = True
        self.at_once = 0
        self.most = 0

    async def request(self, request: Request, flow: Flow, timeout_seconds: float) -> Response:
        document = manscdp.parse(request.body)
        asked = records.read_query(document.element)
        assert asked is not None
        assert document.sn is not None
        start, end, _ = asked
        target = document.device_id
        self.asked.append((target, start, end))
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        found = [Record(at, at + 1_800, target) for at in range(start - start % 3_600, end, 3_600)]
        await asyncio.sleep(0.1)
        if self.answers:
            for body in list(records.response(document.sn, target, "n", found))[: self.parts]:
                self.questions.arrived(CAMERA, manscdp.parse(body))
        self.at_once -= 1
        return Response.to(request, 200)


def world() -> tuple[Recorder, Archive]:
    now = datetime(2026, 2, 3, tzinfo=UTC)
    directory = Directory()
    directory.registered(CAMERA, udp(), edition="3.0", expires=now, now=now)
    recorder = Recorder()
    recorder.questions = Questions(recorder, Platform(PLATFORM, DOMAIN), directory, Tally())
    return recorder, Archive(recorder.questions, directory, Tally())


def test_each_day_is_a_question_of_its_own() -> None:
    async def main() -> None:
        recorder, archive = world()
        found = await archive.records(CAMERA, CHANNEL, START + 1, START + 2 * DAY)
        assert recorder.asked == [(CHANNEL, START + 1, START + DAY), (CHANNEL, START + DAY, START + 2 * DAY)]
        assert found.complete
        assert [record.start for record in found.records] == list(range(START, START + 2 * DAY, 3_600))

    clock.run(main())


def test_a_page_turned_does_not_ask_again() -> None:
    async def main() -> None:
        recorder, archive = world()
        first = await archive.records(CAMERA, CHANNEL, START, START + DAY)
        assert await archive.records(CAMERA, CHANNEL, START, START + DAY, kept=True) is first
        assert len(recorder.asked) == 1
        await archive.records(CAMERA, CHANNEL, START, START + DAY)
        assert len(recorder.asked) == 2
        await asyncio.sleep(limits.RECORD_ANSWER_SECONDS)
        await archive.records(CAMERA, CHANNEL, START, START + DAY, kept=True)
        assert len(recorder.asked) == 3

    clock.run(main())


def test_kept_answers_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RECORD_ANSWERS", 2)

    async def main() -> None:
        _, archive = world()
        for hour in range(5):
            await archive.records(CAMERA, CHANNEL, START, START + 3_600 * (hour + 1))
        assert len(archive._kept) == 2

    clock.run(main())


def test_a_device_is_asked_one_question_at_a_time() -> None:
    async def main() -> None:
        recorder, archive = world()
        async with asyncio.TaskGroup() as tasks:
            for channel in (CHANNEL, OTHER, CHANNEL):
                tasks.create_task(archive.records(CAMERA, channel, START, START + DAY))
        assert recorder.most == 1
        assert not archive._turns

    clock.run(main())


def test_what_came_of_a_list_that_stops_is_told_as_partial() -> None:
    async def main() -> None:
        recorder, archive = world()
        recorder.parts = 3
        found = await archive.records(CAMERA, CHANNEL, START, START + DAY)
        assert (len(found.records), found.complete) == (3, False)

    clock.run(main())


def test_silence_and_nonsense_have_their_causes() -> None:
    async def refused(archive: Archive, device: str, start: int, end: int) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            await archive.records(device, CHANNEL, start, end)
        return caught.value

    async def main() -> None:
        recorder, archive = world()
        recorder.answers = False
        silence = await refused(archive, CAMERA, START, START + DAY)
        assert isinstance(silence, MediaError)
        assert silence.code == "records_no_answer"
        for end in (START, START - 1, START + limits.RECORD_SPAN_SECONDS + 1):
            error = await refused(archive, CAMERA, START, end)
            assert isinstance(error, RequestError)
            assert (error.code, error.status) == ("bad_span", 400)
        assert (await refused(archive, "34020000001320000009", START, START + 1)).code == "unknown_device"

    clock.run(main())
