"""Lists of recordings as devices tell them."""

from collections.abc import Sequence

import pytest

from gbgw.base import limits
from gbgw.base.machine import TICK
from gbgw.gb import manscdp, records, times
from gbgw.gb.manscdp import Document, Edition
from gbgw.gb.records import Record, RecordQuery, RecordsDone
from gbgw.gb.xml import Element

CHANNEL = "34020000001310000001"
START = 1_770_048_000  # 2026-02-03T00:00:00 in Beijing
END = START + 86_400


def record(minute: int, *, minutes: int = 10, path: str = "") -> Record:
    at = START + 60 * minute
    return Record(at, at + 60 * minutes, CHANNEL, name=f"r{minute}", file_path=path, kind="time")


def parts(items: Sequence[Record], per_part: int = 1, edition: Edition = "3.0") -> list[Document]:
    return [
        manscdp.parse(body) for body in records.response(7, CHANNEL, "门口", items, per_part=per_part, edition=edition)
    ]


def raw(items: str, total: str = "1") -> Document:
    return manscdp.parse(
        f"<Response><CmdType>RecordInfo</CmdType><SN>7</SN><DeviceID>{CHANNEL}</DeviceID><Name>n</Name>"
        f"<SumNum>{total}</SumNum><RecordList Num='9'>{items}</RecordList></Response>".encode()
    )


def done_of(effects: Sequence[records.Effect]) -> RecordsDone | None:
    return next((effect for effect in effects if isinstance(effect, RecordsDone)), None)


def told(machine: RecordQuery, documents: Sequence[Document], now: float = 1.0) -> RecordsDone | None:
    done = None
    for document in documents:
        done = done_of(machine.push(document, now)) or done
    return done


@pytest.mark.conformance(48)
@pytest.mark.parametrize("edition", ["1.0", "2.0", "3.0"])
def test_the_query_always_has_type_and_secrecy(edition: Edition) -> None:
    body = manscdp.query("RecordInfo", 7, CHANNEL, edition, records.query_fields(START, END))
    element: Element = manscdp.parse(body).element
    names = [child.name for child in element.children]
    assert names == ["CmdType", "SN", "DeviceID", "StartTime", "EndTime", "Secrecy", "Type"]
    assert element.get("StartTime") == "2026-02-03T00:00:00"
    assert element.get("EndTime") == "2026-02-04T00:00:00"
    assert (element.get("Secrecy"), element.get("Type")) == ("0", "all")
    assert records.read_query(element) == (START, END, "all")


@pytest.mark.conformance(48)
@pytest.mark.parametrize("per_part", [1, 3, 100])
def test_parts_in_any_order_and_twice_become_one_sorted_list(per_part: int) -> None:
    items = [record(minute) for minute in range(0, 300, 10)]
    machine = RecordQuery(START, END, 0.0)
    documents = parts(items[::-1], per_part)
    documents = [*documents[1:], *documents[1:2], documents[0]]
    done = told(machine, documents)
    assert done == RecordsDone(tuple(items), True)
    assert machine.finished
    assert machine.deadline is None
    assert machine.push(documents[0], 2.0) == ()


def test_an_empty_list_is_whole() -> None:
    machine = RecordQuery(START, END, 0.0)
    assert told(machine, parts([])) == RecordsDone((), True)


def test_a_record_survives_being_written_and_read() -> None:
    whole = Record(START, START + 5, CHANNEL, "名", "/a&b", "街", "alarm", True, "rec1", 4_711)
    (document,) = parts([whole])
    assert records.read_part(document).items == (whole,)


def test_an_item_that_is_counted_twice_does_not_keep_the_list_open_for_long() -> None:
    machine = RecordQuery(START, END, 0.0)
    documents = parts([record(0), record(0), record(10)])
    assert told(machine, documents) is None
    assert machine.deadline == 2.0
    assert done_of(machine.push(TICK, 2.0)) == RecordsDone((record(0), record(10)), True)


def test_a_list_that_stops_is_partial() -> None:
    machine = RecordQuery(START, END, 0.0)
    assert told(machine, parts([record(0), record(10)])[:1]) is None
    assert machine.deadline == 1.0 + limits.RECORD_GAP_SECONDS
    assert done_of(machine.push(TICK, machine.deadline)) == RecordsDone((record(0),), False, "gap")


def test_silence_is_told_apart_from_an_empty_list() -> None:
    machine = RecordQuery(START, END, 0.0)
    assert machine.push(TICK, 1.0) == ()
    assert done_of(machine.push(TICK, limits.RECORD_FIRST_SECONDS)) == RecordsDone((), False, "no_answer")


@pytest.mark.parametrize(
    "item",
    [
        "",
        "<StartTime>2026-02-03T01:00:00</StartTime>",
        "<StartTime>2026-02-03T01:00:00</StartTime><EndTime>2026-02-03T01:00:00</EndTime>",
        "<StartTime>2026-02-03T02:00:00</StartTime><EndTime>2026-02-03T01:00:00</EndTime>",
        "<StartTime>soon</StartTime><EndTime>later</EndTime>",
        "<StartTime>2026-02-05T02:00:00</StartTime><EndTime>2026-02-05T03:00:00</EndTime>",  # not asked for
    ],
)
def test_items_that_are_none_are_left_out_and_counted_as_come(item: str) -> None:
    machine = RecordQuery(START, END, 0.0)
    assert told(machine, [raw(f"<Item><DeviceID>{CHANNEL}</DeviceID>{item}</Item>")]) == RecordsDone((), True)


def test_a_file_that_began_before_is_in_the_list() -> None:
    machine = RecordQuery(START, END, 0.0)
    item = (
        "<Item><StartTime>2026-02-02 23:50:00</StartTime><EndTime>2026-2-3 0:10:00</EndTime><Type>Alarm</Type></Item>"
    )
    done = told(machine, [raw(item)])
    assert done is not None
    assert done.records == (Record(START - 600, START + 600, CHANNEL, kind="alarm"),)


@pytest.mark.parametrize("total", ["-1", "many", "9" * 19, ""])
def test_a_total_that_is_none_counts_what_came(total: str) -> None:
    machine = RecordQuery(START, END, 0.0)
    (document,) = parts([record(0)])
    item = "<Item><StartTime>2026-02-03T00:00:00</StartTime><EndTime>2026-02-03T00:10:00</EndTime></Item>"
    assert document is not None
    done = told(machine, [raw(item, total)])
    assert done is not None
    assert done.complete
    assert len(done.records) == 1


def test_a_flood_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RECORDS", 5)
    machine = RecordQuery(START, END, 0.0)
    done = told(machine, parts([record(minute) for minute in range(9)]))
    assert done is not None
    assert (len(done.records), done.cause) == (5, "too_many")
    machine = RecordQuery(START, END, 0.0)
    done = None
    for _ in range(25):
        done = done or told(machine, parts([record(0), record(1)])[:1])
    assert done is not None
    assert done.cause == "too_many"


def test_lists_of_several_days_are_joined() -> None:
    over_midnight = Record(END - 60, END + 60, CHANNEL)
    assert records.merged([(record(0), over_midnight), (over_midnight, record(1_500))]) == (
        record(0),
        over_midnight,
        record(1_500),
    )
    assert times.days(START, END) == [(START, END)]
