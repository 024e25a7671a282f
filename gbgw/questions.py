"""Questions and commands to devices, and the answers that belong to them: one owner of every pending one.

A question is a MESSAGE; its answer is another MESSAGE later, matched by `gb/query.py`. A device that puts its answer
into the body of the 200 is understood, too. Whoever asks waits here, each under its own deadline.
"""

import asyncio
import itertools
from types import TracebackType
from typing import Final, Protocol, Self

from gbgw.base import limits
from gbgw.base.errors import ManscdpError, PeerError
from gbgw.base.tally import Tally
from gbgw.directory import DeviceEntry, Directory
from gbgw.gb import invite, manscdp, query
from gbgw.gb.invite import Platform
from gbgw.gb.manscdp import Document, Edition
from gbgw.sip.flow import Flow
from gbgw.sip.message import Request, Response

PARTS: Final = 10_000  # of one answer that wait to be read: a catalog of single items
SIP_ANSWER_SECONDS: Final = 10.0  # for the 200 of the MESSAGE itself
BACKSTOP_SECONDS: Final = 900.0  # of the correlation table; the asker's own deadline comes first


class Asking(Protocol):
    async def request(self, request: Request, flow: Flow, timeout_seconds: float) -> Response:
        """Send a request outside dialogs; raises PeerError when no final answer comes."""


class Questions:
    """Every question that waits for a device's answer."""

    def __init__(self, sip: Asking, platform: Platform, directory: Directory, tally: Tally) -> None:
        self._sip = sip
        self._platform = platform
        self._directory = directory
        self._tally = tally
        self._table = query.Queries()
        self._serials = query.SerialNumbers()
        self._handles = itertools.count(1)
        self._answers: dict[int, asyncio.Queue[Document]] = {}

    @property
    def pending(self) -> int:
        return len(self._answers)

    def next_sn(self, device_id: str) -> int:
        return self._serials.next(device_id)

    def forget(self, device_id: str) -> None:
        self._serials.forget(device_id)

    def reachable(self, device_id: str) -> tuple[DeviceEntry, Flow]:
        """Return the device and the way to it. Raises PeerError `device_offline`."""
        entry = self._directory.get(device_id)
        if entry is None or entry.flow is None:
            raise PeerError(f"device {device_id} is offline", code="device_offline", remedy="wait until it registers")
        return entry, entry.flow

    def edition(self, device_id: str) -> Edition:
        """The edition of the standard to speak to a device."""
        entry = self._directory.get(device_id)
        return manscdp.edition_of(entry.edition or None) if entry is not None else manscdp.DEFAULT_EDITION

    def ask(self, device_id: str, cmd_type: str, target: str = "") -> "Question":
        """Return a question about `target` (the device itself by default): `async with` it, `send`, read `answers`."""
        return Question(self, device_id, cmd_type, target or device_id)

    async def send(self, device_id: str, body: bytes, what: str) -> Response:
        """Put a MESSAGE to a device and return its 2xx.

        what: for the error. Raises PeerError: `device_offline`, `query_refused` for any other answer, or the cause why
        there was none.
        """
        entry, flow = self.reachable(device_id)
        message = invite.build_message(self._platform, entry.id, body, flow)
        answer = await self._sip.request(message, flow, SIP_ANSWER_SECONDS)
        if answer.status >= 300:
            raise PeerError(
                f"device {entry.id} refused {what} with {answer.status}",
                code="query_refused",
                remedy="check the GB/T 28181 version set in the device",
            )
        return answer

    def arrived(self, device_id: str, document: Document) -> None:
        """Take a Response document of a device that is bound."""
        for effect in self._table.push(query.Arrived(device_id, document), asyncio.get_running_loop().time()):
            match effect:
                case query.Matched(handle, found) if handle in self._answers:
                    try:
                        self._answers[handle].put_nowait(found)
                    except asyncio.QueueFull:
                        self._tally.add("interview.parts_dropped", detail=device_id)
                case query.Unsolicited():
                    self._tally.add("interview.unsolicited", detail=document.cmd_type)

    def read_body(self, device_id: str, answer: Response) -> None:
        """Take a document that came in the body of a 2xx, where the standard has none (reference 3.1)."""
        if not answer.body:
            return
        try:
            document = manscdp.parse(answer.body)
        except ManscdpError as error:
            self._tally.add("question.body_unreadable", detail=f"{device_id}: {error.message}")
            return
        if document.root == "Response":
            self._tally.add("question.answered_in_200", detail=device_id)
            self.arrived(device_id, document)

    def opened(self, question: "Question") -> None:
        asked = query.Asked(
            question.handle, question.device_id, question.cmd_type, question.sn, question.target, BACKSTOP_SECONDS
        )
        self._table.push(asked, asyncio.get_running_loop().time())
        self._answers[question.handle] = question.answers

    def settled(self, question: "Question") -> None:
        self._answers.pop(question.handle, None)
        self._table.push(query.Settled(question.handle), asyncio.get_running_loop().time())

    def new_handle(self) -> int:
        return next(self._handles)


class Question:
    """One pending question; leaving the block settles it. target: the DeviceID inside it."""

    def __init__(self, owner: Questions, device_id: str, cmd_type: str, target: str) -> None:
        self._owner = owner
        self.device_id = device_id
        self.cmd_type = cmd_type
        self.target = target
        self.sn = owner.next_sn(device_id)
        self.handle = owner.new_handle()
        self.answers: asyncio.Queue[Document] = asyncio.Queue(PARTS)

    async def __aenter__(self) -> Self:
        self._owner.opened(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner.settled(self)

    async def send(self, body: bytes, what: str = "") -> None:
        """Put the question itself, whose SN must be `sn`. what: for the error. Raises as Questions.send does."""
        answer = await self._owner.send(self.device_id, body, what or f"the {self.cmd_type} query")
        self._owner.read_body(self.device_id, answer)

    async def answer(self, seconds: float = limits.QUERY_SECONDS) -> Document:
        """Wait for the next part of the answer. Raises PeerError `query_no_answer`."""
        try:
            async with asyncio.timeout(seconds):
                return await self.answers.get()
        except TimeoutError:
            raise PeerError(
                f"device {self.device_id} took {self.cmd_type} and did not answer it within {seconds:g} s",
                code="query_no_answer",
                remedy="many devices do not know this question; check the model's GB/T 28181 support",
            ) from None
