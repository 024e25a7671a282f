import pytest

from gbgw.base import limits
from gbgw.base.errors import LimitError
from gbgw.base.machine import TICK
from gbgw.gb import manscdp
from gbgw.gb.query import Arrived, Asked, Matched, Queries, SerialNumbers, Settled, TimedOut, Unsolicited

CAMERA = "34020000001320000001"
OTHER = "34020000001320000002"


def answer(sn: int, device_id: str = CAMERA) -> manscdp.Document:
    return manscdp.parse(manscdp.device_info(sn, device_id, manscdp.DeviceInfo(True)))


@pytest.mark.conformance(34)
def test_matches_by_command_and_sn() -> None:
    queries = Queries()
    queries.push(Asked(1, CAMERA, "DeviceInfo", 5, CAMERA), 0.0)
    queries.push(Asked(2, CAMERA, "DeviceInfo", 6, CAMERA), 0.0)
    queries.push(Asked(3, CAMERA, "Catalog", 7, CAMERA), 0.0)
    assert list(queries.push(Arrived(CAMERA, answer(6)), 1.0)) == [Matched(2, answer(6))]
    assert list(queries.push(Arrived(CAMERA, answer(7)), 1.0)) == [Unsolicited(CAMERA, answer(7))]
    assert list(queries.push(Arrived(OTHER, answer(6)), 1.0)) == [Unsolicited(OTHER, answer(6))]


def test_the_only_question_takes_an_answer_with_another_sn() -> None:
    queries = Queries()
    queries.push(Asked(1, CAMERA, "DeviceInfo", 5, CAMERA), 0.0)
    assert list(queries.push(Arrived(CAMERA, answer(0)), 1.0)) == [Matched(1, answer(0))]
    assert list(queries.push(Arrived(CAMERA, answer(0, OTHER)), 1.0)) == [Unsolicited(CAMERA, answer(0, OTHER))]


def test_time_out_and_more_time_with_each_part() -> None:
    queries = Queries()
    queries.push(Asked(1, CAMERA, "DeviceInfo", 5, CAMERA, seconds=10.0), 0.0)
    queries.push(Arrived(CAMERA, answer(5)), 8.0)
    assert list(queries.push(TICK, 10.0)) == []
    assert queries.deadline == 18.0
    assert list(queries.push(TICK, 18.0)) == [TimedOut(1)]
    assert queries.deadline is None
    assert queries.pending == 0


def test_settled_questions_leave_nothing() -> None:
    queries = Queries()
    for n in range(1_000):
        queries.push(Asked(n, CAMERA, "DeviceInfo", n, CAMERA), 0.0)
        queries.push(Settled(n), 0.0)
        queries.push(Settled(n), 0.0)
    assert queries.pending == 0
    assert len(queries._heap) < 100
    assert list(queries.push(TICK, 100.0)) == []


def test_the_number_of_questions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "QUERIES", 1)
    queries = Queries()
    queries.push(Asked(1, CAMERA, "DeviceInfo", 5, CAMERA), 0.0)
    with pytest.raises(LimitError):
        queries.push(Asked(2, CAMERA, "DeviceInfo", 6, CAMERA), 0.0)


def test_serial_numbers() -> None:
    numbers = SerialNumbers()
    assert [numbers.next(CAMERA), numbers.next(CAMERA), numbers.next(OTHER)] == [1, 2, 1]
    numbers._last[CAMERA] = (1 << 31) - 1
    assert numbers.next(CAMERA) == 1
    numbers.forget(OTHER)
    assert numbers.next(OTHER) == 1
