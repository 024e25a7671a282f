"""After a device registers: which channels it has (Catalog), and what it is (DeviceInfo), which many never answer.

A handful of tasks work through one bounded line of devices, so that ten thousand cameras that come back at once are
asked in turn. The answers come through `questions.py`.
"""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Protocol, Self

from gbgw.base.errors import GatewayError, PeerError
from gbgw.base.machine import TICK
from gbgw.base.tally import Tally
from gbgw.directory import DeviceEntry
from gbgw.gb import manscdp
from gbgw.gb.catalog import CatalogDone, CatalogQuery, QueryFailed
from gbgw.gb.manscdp import DeviceInfo
from gbgw.observe import log
from gbgw.questions import Question, Questions

INTERVIEWERS: Final = 32  # devices asked at once; a silent one holds its place for 40 s
LINE: Final = 100_000  # devices that wait: all a directory can hold
ANSWER_SECONDS: Final = 10.0  # for a DeviceInfo


class Learned(Protocol):
    """Told what an interview found."""

    async def described(self, device_id: str, info: DeviceInfo) -> None: ...
    async def catalogued(self, device_id: str, done: CatalogDone) -> None: ...


class Interviews:
    """Asks devices in turn."""

    def __init__(self, questions: Questions, learned: Learned, tally: Tally) -> None:
        self._questions = questions
        self._learned = learned
        self._tally = tally
        self._line: asyncio.Queue[str] = asyncio.Queue(LINE)
        self._waiting: set[str] = set()
        self._catalogs: dict[str, asyncio.Lock] = {}
        self._reading: dict[str, CatalogQuery] = {}  # catalogs on their way
        self._tasks = asyncio.TaskGroup()
        self._log = log.get("interview")

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._workers = [
            self._tasks.create_task(self._work(), name=f"interview:{number}") for number in range(INTERVIEWERS)
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.cancel()
        await self._tasks.__aexit__(None, None, None)

    def schedule(self, device_id: str) -> None:
        """Put a device at the end of the line, once."""
        if device_id in self._waiting:
            return
        try:
            self._line.put_nowait(device_id)
        except asyncio.QueueFull:
            self._tally.add("interview.line_full")
            return
        self._waiting.add(device_id)

    def progress(self, device_id: str) -> tuple[int, int | None] | None:
        """Channels of a catalog that is being read, so far, and how many are promised; None when none is."""
        machine = self._reading.get(device_id)
        return machine.progress if machine is not None else None

    def forget(self, device_id: str) -> None:
        self._questions.forget(device_id)
        self._catalogs.pop(device_id, None)

    async def _work(self) -> None:
        while True:
            device_id = await self._line.get()
            self._waiting.discard(device_id)
            try:
                await self.catalog(device_id)
                await self.device_info(device_id)
            except GatewayError as error:
                self._tally.add("interview.failed", detail=f"{device_id}: {error}")
                self._log.info("failed", device=device_id, code=error.code, reason=error.message)

    async def device_info(self, device_id: str) -> None:
        """Ask for DeviceInfo; silence is no error, many devices know no answer."""
        entry, _ = self._questions.reachable(device_id)
        async with self._questions.ask(device_id, "DeviceInfo") as question:
            await self._send(entry, question)
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    document = await question.answers.get()
            except TimeoutError:
                self._tally.add("interview.no_device_info")
                return
        if isinstance(document.payload, DeviceInfo):
            await self._learned.described(device_id, document.payload)

    async def catalog(self, device_id: str) -> CatalogDone:
        """Ask for the whole catalog and wait until it is complete or given up; one query a device at a time."""
        async with self._catalogs.setdefault(device_id, asyncio.Lock()):
            entry, _ = self._questions.reachable(device_id)
            async with self._questions.ask(device_id, "Catalog") as question:
                done = await self._collect(entry, question)
            await self._learned.catalogued(device_id, done)
            return done

    async def _collect(self, entry: DeviceEntry, question: Question) -> CatalogDone:
        loop = asyncio.get_running_loop()
        machine = self._reading[entry.id] = CatalogQuery(entry.id, question.sn, loop.time())
        try:
            return await self._read(machine, entry, question)
        finally:
            del self._reading[entry.id]

    async def _read(self, machine: CatalogQuery, entry: DeviceEntry, question: Question) -> CatalogDone:
        loop = asyncio.get_running_loop()
        try:
            await self._send(entry, question)
        except PeerError as error:
            effects: Sequence[object] = machine.push(QueryFailed(error.message), loop.time())
        else:
            effects = ()
        while True:
            for effect in effects:
                if isinstance(effect, CatalogDone):
                    return effect
                self._tally.add(getattr(effect, "name", "catalog.odd"))
            try:
                async with asyncio.timeout_at(machine.deadline):
                    document = await question.answers.get()
                effects = machine.push(document, loop.time())
            except TimeoutError:
                effects = machine.push(TICK, loop.time())

    async def _send(self, entry: DeviceEntry, question: Question) -> None:
        await question.send(
            manscdp.query(question.cmd_type, question.sn, entry.id, manscdp.edition_of(entry.edition or None))
        )
