"""After a device registers: which channels it has (Catalog), and what it is (DeviceInfo), which many never answer.

A handful of tasks work through one bounded line of devices, so that ten thousand cameras that come back at once are
asked in turn. The answers come as MESSAGEs of their own; `arrived` hands them to whoever asked.
"""

import asyncio
import itertools
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Protocol, Self

from gbgw.base.errors import GatewayError, PeerError
from gbgw.base.machine import TICK
from gbgw.base.tally import Tally
from gbgw.directory import DeviceEntry, Directory
from gbgw.gb import invite, manscdp, query
from gbgw.gb.catalog import CatalogDone, CatalogQuery, QueryFailed
from gbgw.gb.invite import Platform
from gbgw.gb.manscdp import DeviceInfo, Document
from gbgw.observe import log
from gbgw.sip.flow import Flow
from gbgw.sip.message import Request, Response

INTERVIEWERS: Final = 32  # devices asked at once; a silent one holds its place for 40 s
LINE: Final = 100_000  # devices that wait: all a directory can hold
PARTS: Final = 10_000  # of one answer that wait to be read: a catalog of single items
ANSWER_SECONDS: Final = 10.0  # for the SIP answer, and for a DeviceInfo
BACKSTOP_SECONDS: Final = 900.0  # of the correlation table; the asker's own deadline comes first


class Asking(Protocol):
    async def request(self, request: Request, flow: Flow, timeout_seconds: float) -> Response:
        """Send a request outside dialogs; raises PeerError when no final answer comes."""


class Learned(Protocol):
    """Told what an interview found."""

    async def described(self, device_id: str, info: DeviceInfo) -> None: ...
    async def catalogued(self, device_id: str, done: CatalogDone) -> None: ...


class Interviews:
    """Asks devices; one owner of every pending question."""

    def __init__(self, sip: Asking, platform: Platform, directory: Directory, learned: Learned, tally: Tally) -> None:
        self._sip = sip
        self._platform = platform
        self._directory = directory
        self._learned = learned
        self._tally = tally
        self._questions = query.Queries()
        self._serials = query.SerialNumbers()
        self._handles = itertools.count(1)
        self._answers: dict[int, asyncio.Queue[Document]] = {}
        self._line: asyncio.Queue[str] = asyncio.Queue(LINE)
        self._waiting: set[str] = set()
        self._catalogs: dict[str, asyncio.Lock] = {}
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

    @property
    def pending(self) -> int:
        return len(self._answers)

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

    def arrived(self, device_id: str, document: Document) -> None:
        """Take a Response document of a device that is bound."""
        for effect in self._questions.push(query.Arrived(device_id, document), asyncio.get_running_loop().time()):
            match effect:
                case query.Matched(handle, found) if handle in self._answers:
                    try:
                        self._answers[handle].put_nowait(found)
                    except asyncio.QueueFull:
                        self._tally.add("interview.parts_dropped", detail=device_id)
                case query.Unsolicited():
                    self._tally.add("interview.unsolicited", detail=document.cmd_type)

    def forget(self, device_id: str) -> None:
        self._serials.forget(device_id)
        self._catalogs.pop(device_id, None)

    def next_sn(self, device_id: str) -> int:
        return self._serials.next(device_id)

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
        entry, flow = self._reachable(device_id)
        async with _Question(self, device_id, "DeviceInfo") as question:
            await self._send(entry, flow, question)
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
            entry, flow = self._reachable(device_id)
            async with _Question(self, device_id, "Catalog") as question:
                done = await self._collect(entry, flow, question)
            await self._learned.catalogued(device_id, done)
            return done

    async def _collect(self, entry: DeviceEntry, flow: Flow, question: "_Question") -> CatalogDone:
        loop = asyncio.get_running_loop()
        machine = CatalogQuery(entry.id, question.sn, loop.time())
        try:
            await self._send(entry, flow, question)
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

    def _reachable(self, device_id: str) -> tuple[DeviceEntry, Flow]:
        entry = self._directory.get(device_id)
        if entry is None or entry.flow is None:
            raise PeerError(f"device {device_id} is offline", code="device_offline", remedy="wait until it registers")
        return entry, entry.flow

    async def _send(self, entry: DeviceEntry, flow: Flow, question: "_Question") -> None:
        body = manscdp.query(question.cmd_type, question.sn, entry.id, manscdp.edition_of(entry.edition or None))
        answer = await self._sip.request(
            invite.build_message(self._platform, entry.id, body, flow), flow, ANSWER_SECONDS
        )
        if answer.status >= 300:
            raise PeerError(
                f"device {entry.id} refused the {question.cmd_type} query with {answer.status}",
                code="query_refused",
                remedy="check the GB/T 28181 version set in the device",
            )


class _Question:
    """One pending question; leaving the block settles it."""

    def __init__(self, owner: Interviews, device_id: str, cmd_type: str) -> None:
        self._owner = owner
        self._device_id = device_id
        self.cmd_type = cmd_type
        self.sn = owner.next_sn(device_id)
        self.handle = next(owner._handles)
        self.answers: asyncio.Queue[Document] = asyncio.Queue(PARTS)

    async def __aenter__(self) -> Self:
        asked = query.Asked(self.handle, self._device_id, self.cmd_type, self.sn, self._device_id, BACKSTOP_SECONDS)
        self._owner._questions.push(asked, asyncio.get_running_loop().time())
        self._owner._answers[self.handle] = self.answers
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner._answers.pop(self.handle, None)
        self._owner._questions.push(query.Settled(self.handle), asyncio.get_running_loop().time())
