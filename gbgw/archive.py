"""Which recordings devices have: asks them, a day at a time, and keeps an answer while somebody turns its pages."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from weakref import WeakValueDictionary

from gbgw.base import limits
from gbgw.base.errors import MediaError, RequestError
from gbgw.base.machine import TICK
from gbgw.base.tally import Tally
from gbgw.directory import Directory
from gbgw.gb import manscdp, records, times
from gbgw.gb.manscdp import Document
from gbgw.gb.records import Record, RecordQuery, RecordsDone, RecordType
from gbgw.questions import Questions


@dataclass(frozen=True, slots=True)
class RecordList:
    """What a channel has recorded in a span of time. complete: the device told all of it."""

    records: tuple[Record, ...]
    complete: bool


Span = tuple[str, str, int, int, RecordType]


class Archive:
    """One owner of every RecordInfo query. A device is asked one question of this kind at a time."""

    def __init__(self, questions: Questions, directory: Directory, tally: Tally) -> None:
        self._questions = questions
        self._directory = directory
        self._tally = tally
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._kept: OrderedDict[Span, tuple[float, RecordList]] = OrderedDict()

    async def records(
        self, device_id: str, channel_id: str, start: int, end: int, kind: RecordType = "all", *, kept: bool = False
    ) -> RecordList:
        """Return what the channel recorded between `start` and `end`, Unix seconds.

        kept: an answer of the last minute will do. Raises RequestError for a span that cannot be asked for and for
        unknown channels, MediaError `records_no_answer` when the device does not answer, PeerError when it refuses.
        """
        self._directory.find(device_id, channel_id)
        if not 0 < end - start <= limits.RECORD_SPAN_SECONDS:
            raise RequestError(
                f"recordings are listed from start to a later end, {limits.RECORD_SPAN_SECONDS // 86_400} days at most",
                code="bad_span",
                remedy="ask for less at a time",
            )
        span: Span = (device_id, channel_id, start, end, kind)
        clock = asyncio.get_running_loop().time
        known = self._kept.get(span)
        if kept and known is not None and clock() - known[0] < limits.RECORD_ANSWER_SECONDS:
            return known[1]
        turn = self._turns.setdefault(device_id, asyncio.Lock())
        found: list[RecordsDone] = []
        async with turn:
            for first, last in times.days(start, end):
                found.append(await self._ask(device_id, channel_id, first, last, kind))
        answer = RecordList(records.merged(each.records for each in found), all(each.complete for each in found))
        self._kept.pop(span, None)
        self._kept[span] = (clock(), answer)
        while len(self._kept) > limits.RECORD_ANSWERS:
            self._kept.popitem(last=False)
        return answer

    async def _ask(self, device_id: str, channel_id: str, start: int, end: int, kind: RecordType) -> RecordsDone:
        clock = asyncio.get_running_loop().time
        edition = self._questions.edition(device_id)
        async with self._questions.ask(device_id, records.CMD_TYPE, channel_id) as question:
            fields = records.query_fields(start, end, kind)
            await question.send(manscdp.query(records.CMD_TYPE, question.sn, channel_id, edition, fields))
            machine = RecordQuery(start, end, clock())
            while True:
                try:
                    async with asyncio.timeout_at(machine.deadline):
                        event: Document = await question.answers.get()
                    effects = machine.push(event, clock())
                except TimeoutError:
                    effects = machine.push(TICK, clock())
                for effect in effects:
                    if isinstance(effect, records.Counted):
                        self._tally.add(effect.name, detail=f"{device_id}-{channel_id}", now=clock())
                done = next((effect for effect in effects if isinstance(effect, RecordsDone)), None)
                if done is not None:
                    return self._usable(done, device_id)

    @staticmethod
    def _usable(done: RecordsDone, device_id: str) -> RecordsDone:
        if done.cause != "no_answer":
            return done
        raise MediaError(
            f"device {device_id} did not answer the question for its recordings",
            code="records_no_answer",
            remedy="some devices answer for one day or one channel at a time; ask for less, or look into its log",
        )
