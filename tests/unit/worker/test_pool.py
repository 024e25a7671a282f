"""A stream goes where there is room for it, as long as there is room anywhere."""

from typing import Any, cast

import pytest

from gbgw.base.config import Config
from gbgw.base.errors import GatewayError, LocalError, PortsExhaustedError
from gbgw.base.tally import Tally
from gbgw.serve.viewers import Viewers
from gbgw.worker.base import Ingest, IngestListener, IngestSpec
from gbgw.worker.placement import Load
from gbgw.worker.pool import WorkerPool

SPEC = IngestSpec("KEY", "udp", 1)
LISTENER = cast(IngestListener, None)
FULL = LocalError("late", code="overloaded")
NO_PORTS = PortsExhaustedError("none is free")
SLOW = LocalError("no answer", code="worker_slow")
ODD = LocalError("odd", code="worker_lost")


class FakeWorker:
    """Opens an ingest, or refuses it."""

    def __init__(self, number: int, refusal: GatewayError | None, asked: list[int]) -> None:
        self.number = number
        self.usable = True
        self.load = Load(number, streams=number)
        self._refusal = refusal
        self._asked = asked

    async def open_ingest(self, spec: IngestSpec, listener: IngestListener) -> Ingest:
        self._asked.append(self.number)
        if self._refusal is not None:
            raise self._refusal
        return cast(Ingest, self)


def pool_of(*refusals: GatewayError | None) -> tuple[WorkerPool, list[int], Tally]:
    asked: list[int] = []
    tally = Tally()
    count = len(refusals)
    pool = WorkerPool([Config()] * count, [()] * count, desk=cast(Any, None), viewers=Viewers(), tally=tally)
    for slot, refusal in zip(pool._slots, refusals, strict=True):
        slot._worker = cast(Any, FakeWorker(slot.number, refusal, asked))
    return pool, asked, tally


@pytest.mark.parametrize("refusal", [FULL, NO_PORTS, SLOW])
async def test_one_without_room_is_passed_over(refusal: GatewayError) -> None:
    pool, asked, tally = pool_of(refusal, refusal, None)
    assert cast(Any, await pool.open_ingest(SPEC, LISTENER)).number == 2
    assert asked == [0, 1, 2]
    assert tally["worker.passed_over"] == 2


async def test_the_last_one_says_why_there_is_none() -> None:
    pool, asked, tally = pool_of(FULL, NO_PORTS)
    with pytest.raises(PortsExhaustedError):
        await pool.open_ingest(SPEC, LISTENER)
    assert asked == [0, 1]
    assert tally["worker.passed_over"] == 1


async def test_what_has_another_reason_is_not_tried_elsewhere() -> None:
    pool, asked, _ = pool_of(ODD, None)
    with pytest.raises(LocalError) as refused:
        await pool.open_ingest(SPEC, LISTENER)
    assert refused.value.code == "worker_lost"
    assert asked == [0]


async def test_a_viewer_who_is_at_a_worker_already_is_not_sent_elsewhere() -> None:
    pool, asked, _ = pool_of(None, FULL)
    with pytest.raises(LocalError) as refused:
        await pool.pinned(1).open_ingest(SPEC, LISTENER)
    assert refused.value.code == "overloaded"
    assert asked == [1]
