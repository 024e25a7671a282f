"""What a device has recorded: the RecordInfo query and the assembly of its answer (GB/T 28181-2022 and -2016, section
9.7 and Annex A; reference 3.2 and 3.6).

Parts arrive in any order and may repeat, items come unsorted, twice, or from outside of what was asked; SumNum and Num
cannot be trusted. Leaves out: the query's FilePath, Address and RecorderID filters, and search by alarm.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gbgw.base import limits
from gbgw.base.machine import Tick
from gbgw.gb import ids, manscdp, times
from gbgw.gb.manscdp import DEFAULT_EDITION, Document, Edition, Field
from gbgw.gb.xml import Element

CMD_TYPE: Final = "RecordInfo"
_SETTLE_SECONDS: Final = 1.0  # after as many items as SumNum, not all different: a lost part may still come
_TYPES: Final = ("time", "alarm", "manual")
_TEXT: Final = 256  # characters kept of a name or a path

RecordType = Literal["time", "alarm", "manual", "all"]


@dataclass(frozen=True, slots=True, order=True)
class Record:
    """One recording. start, end: Unix seconds, start < end. kind: time, alarm or manual, "" when the device does not
    say. size: bytes, None when unknown. location: id of what stores it (3.0, indistinct queries)."""

    start: int
    end: int
    channel_id: str
    name: str = ""
    file_path: str = ""
    address: str = ""
    kind: str = ""
    secrecy: bool = False
    recorder_id: str = ""
    size: int | None = None
    location: str = ""
    stream: int | None = None

    @property
    def identity(self) -> tuple[str, int, int, str]:
        """What makes two items the same recording."""
        return (self.channel_id, self.start, self.end, self.file_path)


@dataclass(frozen=True, slots=True)
class RecordPart:
    """One message of an answer.

    total: SumNum; None when absent or not a number. skipped: items without usable times.
    """

    items: tuple[Record, ...]
    total: int | None
    skipped: int = 0


def query_fields(start: int, end: int, kind: RecordType = "all") -> list[Field]:
    """Return what follows DeviceID in a RecordInfo query, the same in every edition.

    Type and Secrecy always: Dahua answers empty without them.
    """
    return [
        ("StartTime", times.write_local(start)),
        ("EndTime", times.write_local(end)),
        ("Secrecy", 0),
        ("Type", kind),
    ]


def read_query(element: Element) -> tuple[int, int, str] | None:
    """Return (start, end, Type) of a RecordInfo query, None when its times cannot be read."""
    start, end = times.read_local(element.get("StartTime")), times.read_local(element.get("EndTime"))
    if start is None or end is None:
        return None
    return start, end, element.get("Type").lower() or "all"


def read_part(document: Document) -> RecordPart:
    """Read a RecordInfo Response; never raises. Num is not looked at, the items are counted."""
    element = document.element
    listing = element.find("RecordList")
    elements = list(listing.find_all("Item"))[: limits.RECORDS] if listing is not None else []
    items = tuple(item for item in (_item(each, document.device_id) for each in elements) if item is not None)
    total = _number(element.get("SumNum"))
    return RecordPart(items, total, len(elements) - len(items))


def _item(element: Element, channel_id: str) -> Record | None:
    start, end = times.read_local(element.get("StartTime")), times.read_local(element.get("EndTime"))
    if start is None or end is None or start >= end:
        return None
    own = element.get("DeviceID")
    kind = element.get("Type").lower()
    return Record(
        start,
        end,
        own if ids.is_opaque_id(own) else channel_id,
        name=element.get("Name")[:_TEXT],
        file_path=element.get("FilePath")[:_TEXT],
        address=element.get("Address")[:_TEXT],
        kind=kind if kind in _TYPES else "",
        secrecy=element.get("Secrecy") == "1",
        recorder_id=element.get("RecorderID")[:_TEXT],
        size=_number(element.get("FileSize")),
        location=element.get("RecordLocation")[:64],
        stream=_number(element.get("StreamNumber")),
    )


def _number(text: str) -> int | None:
    """A count or a size: what is negative or longer than 18 digits says nothing."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


@dataclass(frozen=True, slots=True)
class RecordsDone:
    """The recordings as far as they were told, in order of time, each once.

    complete: all of them. cause: why not.
    """

    records: tuple[Record, ...]
    complete: bool
    cause: Literal["", "gap", "no_answer", "too_many"] = ""


@dataclass(frozen=True, slots=True)
class Counted:
    name: str
    detail: str = ""


Effect = RecordsDone | Counted


class RecordQuery:
    """One RecordInfo query, from the moment it was sent until its list is whole or no part came for too long."""

    __slots__ = ("_deadline", "_done", "_end", "_foreign", "_found", "_latest", "_received", "_start", "_total")

    def __init__(self, start: int, end: int, now: float) -> None:
        """start, end: Unix seconds of what was asked for; recordings that do not touch it are left out."""
        self._start = start
        self._end = end
        self._found: dict[tuple[str, int, int, str], Record] = {}
        self._foreign = 0  # usable or not, items that will never be in the list
        self._received = 0
        self._total: int | None = None
        self._deadline = now + limits.RECORD_FIRST_SECONDS
        self._latest = now + limits.RECORD_SECONDS
        self._done = False

    @property
    def deadline(self) -> float | None:
        return None if self._done else self._deadline

    @property
    def finished(self) -> bool:
        return self._done

    def push(self, event: Document | Tick, now: float) -> Sequence[Effect]:
        """Take a response that the correlation matched, or fire the gap timer."""
        if self._done:
            return ()
        if now >= self._deadline:
            return self._finish("gap" if self._total is not None else "no_answer")
        if isinstance(event, Tick):
            return ()
        return self._take(read_part(event), now)

    def _take(self, part: RecordPart, now: float) -> Sequence[Effect]:
        self._total = max(self._total or 0, part.total if part.total is not None else len(part.items))
        self._received += len(part.items) + part.skipped
        self._foreign += part.skipped
        for item in part.items:
            if item.end <= self._start or item.start >= self._end:
                self._foreign += 1
            elif len(self._found) < limits.RECORDS:
                self._found.setdefault(item.identity, item)
        effects: list[Effect] = [Counted("records.item_unusable")] if part.skipped else []
        if len(self._found) >= limits.RECORDS or self._received > 4 * limits.RECORDS:
            return [*effects, *self._finish("too_many")]
        if len(self._found) + self._foreign >= self._total:
            return [*effects, *self._finish("")]
        gap = _SETTLE_SECONDS if self._received >= self._total else limits.RECORD_GAP_SECONDS
        self._deadline = min(now + gap, self._latest)
        return effects

    def _finish(self, cause: Literal["", "gap", "no_answer", "too_many"]) -> Sequence[Effect]:
        """Enough items came, if not all different, counts as whole: devices send some twice and count them twice."""
        self._done = True
        if cause == "gap" and self._received >= (self._total or 0):
            cause = ""
        done = RecordsDone(tuple(sorted(self._found.values(), key=_order)), not cause, cause)
        return [done] if not cause else [done, Counted(f"records.{cause}")]


def _order(record: Record) -> tuple[int, int, str, str]:
    return (record.start, record.end, record.channel_id, record.file_path)


def merged(lists: Iterable[Sequence[Record]]) -> tuple[Record, ...]:
    """Join the answers of several queries: a recording over midnight is in both days."""
    known = {record.identity: record for records in lists for record in records}
    return tuple(sorted(known.values(), key=_order))


# The device's side


def response(
    sn: int,
    channel_id: str,
    name: str,
    records: Sequence[Record],
    *,
    per_part: int = 1,
    edition: Edition = DEFAULT_EDITION,
) -> Iterator[bytes]:
    """Yield the messages that carry `records`, `per_part` in each; one without a list when there are none."""
    for at in range(0, max(len(records), 1), per_part):
        part = records[at : at + per_part]
        fields: list[Field] = [("CmdType", CMD_TYPE), ("SN", sn), ("DeviceID", channel_id)]
        fields += [("Name", name), ("SumNum", len(records))]
        if part:
            fields.append((f'RecordList Num="{len(part)}"', [("Item", _fields(each)) for each in part]))
        yield manscdp.write("Response", fields, edition)


def _fields(record: Record) -> list[Field]:
    fields: list[Field] = [
        ("DeviceID", record.channel_id),
        ("Name", record.name),
        ("FilePath", record.file_path),
        ("Address", record.address),
        ("StartTime", times.write_local(record.start)),
        ("EndTime", times.write_local(record.end)),
        ("Secrecy", int(record.secrecy)),
        ("Type", record.kind or "time"),
    ]
    if record.recorder_id:
        fields.append(("RecorderID", record.recorder_id))
    if record.size is not None:
        fields.append(("FileSize", record.size))
    return fields
