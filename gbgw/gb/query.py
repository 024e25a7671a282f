"""Matches the answers of devices to the questions they were asked (GB/T 28181-2022 section 9; reference rule 3.1).

The answer to a MANSCDP request is a new MESSAGE in the other direction. It belongs to the request with the same
device, CmdType and SN; some devices send another SN, so a sole pending request of the same device, CmdType and
DeviceID takes it too.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gbgw.base import limits
from gbgw.base.errors import LimitError
from gbgw.base.machine import Tick
from gbgw.gb.manscdp import Document

_LAST_SN: Final = (1 << 31) - 1


class SerialNumbers:
    """The SN counters, one for each peer: 1 to 2**31-1, never 0."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def next(self, device_id: str) -> int:
        number = self._last.get(device_id, 0) % _LAST_SN + 1
        self._last[device_id] = number
        return number

    def forget(self, device_id: str) -> None:
        self._last.pop(device_id, None)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question went out. handle: the caller's name for it. target: the DeviceID inside it. seconds: how long its
    answer may take."""

    handle: int
    device_id: str
    cmd_type: str
    sn: int
    target: str
    seconds: float = limits.QUERY_SECONDS


@dataclass(frozen=True, slots=True)
class Arrived:
    """A Response document came from a device (already checked to be bound)."""

    device_id: str
    document: Document


@dataclass(frozen=True, slots=True)
class Settled:
    """Nobody waits for this question any more: it was answered in full, refused, or given up."""

    handle: int


@dataclass(frozen=True, slots=True)
class Matched:
    """`document` answers the question `handle`, which stays open until Settled, since answers may have several
    parts."""

    handle: int
    document: Document


@dataclass(frozen=True, slots=True)
class Unsolicited:
    """Nobody asked for this."""

    device_id: str
    document: Document


@dataclass(frozen=True, slots=True)
class TimedOut:
    handle: int


Event = Asked | Arrived | Settled | Tick
Effect = Matched | Unsolicited | TimedOut


class Queries:
    """Every pending question to every device, with its deadline; each Matched part gives it `seconds` more."""

    __slots__ = ("_by_device", "_heap", "_open")

    def __init__(self) -> None:
        self._open: dict[int, tuple[Asked, float]] = {}  # handle -> (question, loop seconds when it fails)
        self._by_device: dict[str, list[int]] = {}
        self._heap: list[tuple[float, int]] = []

    @property
    def deadline(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    @property
    def finished(self) -> bool:
        return False

    @property
    def pending(self) -> int:
        return len(self._open)

    def push(self, event: Event, now: float) -> Sequence[Effect]:
        """Fail what is overdue, then take `event`. Raises LimitError when limits.QUERIES questions are open."""
        effects: list[Effect] = self._expire(now)
        match event:
            case Asked():
                if len(self._open) >= limits.QUERIES:
                    raise LimitError(f"{limits.QUERIES} questions to devices are open", code="queries_exhausted")
                self._open[event.handle] = (event, now + event.seconds)
                self._by_device.setdefault(event.device_id, []).append(event.handle)
                heapq.heappush(self._heap, (now + event.seconds, event.handle))
            case Settled():
                self._close(event.handle)
            case Arrived():
                handle = self._match(event)
                if handle is None:
                    effects.append(Unsolicited(event.device_id, event.document))
                else:
                    question = self._open[handle][0]
                    self._open[handle] = (question, now + question.seconds)
                    effects.append(Matched(handle, event.document))
        return effects

    def _match(self, event: Arrived) -> int | None:
        document = event.document
        alike = [
            self._open[handle][0]
            for handle in self._by_device.get(event.device_id, ())
            if self._open[handle][0].cmd_type == document.cmd_type
        ]
        for question in alike:
            if question.sn == document.sn:
                return question.handle
        sole = [question for question in alike if question.target == document.device_id]
        return sole[0].handle if len(sole) == 1 else None

    def _expire(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        while self._heap and self._heap[0][0] <= now:
            handle = heapq.heappop(self._heap)[1]
            if handle not in self._open:
                continue
            due = self._open[handle][1]
            if due > now:
                heapq.heappush(self._heap, (due, handle))
            else:
                self._close(handle)
                effects.append(TimedOut(handle))
        return effects

    def _close(self, handle: int) -> None:
        entry = self._open.pop(handle, None)
        if entry is None:
            return
        handles = self._by_device[entry[0].device_id]
        handles.remove(handle)
        if not handles:
            del self._by_device[entry[0].device_id]
        if len(self._heap) > 2 * len(self._open) + 64:  # settled questions leave their heap entries behind
            self._heap = [(due, each) for each, (_, due) in self._open.items()]
            heapq.heapify(self._heap)
