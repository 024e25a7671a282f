"""Orders of pictures: what is kept, for how long, and how they end, in virtual time."""

import asyncio
from typing import Any

import pytest

from gbgw.base import limits
from gbgw.base.errors import GatewayError, LimitError, PeerError, RequestError
from gbgw.base.tally import Tally
from gbgw.gb.answers import SnapshotsDone
from gbgw.gb.parameters import Group, SnapShotConfig
from gbgw.snapshots import Order, Snapshots
from tests.support import clock

DEVICE, CHANNEL = "34020000001320000001", "34020000001310000001"
JPEG = b"\xff\xd8\xff\xe0" + bytes(1_000)


class World:
    """Commands that note what a camera was told."""

    def __init__(self) -> None:
        self.told: list[SnapShotConfig] = []
        self.failure: GatewayError | None = None
        self.settled: list[tuple[str, str]] = []
        self.tally = Tally()
        self.snapshots = Snapshots(self, self.tally, self._settled)  # type: ignore[arg-type]

    async def configure(self, device_id: str, target: str, group: Group, value: Any, *, forced: bool) -> None:
        self.told.append(value)
        if self.failure is not None:
            raise self.failure

    def _settled(self, order: Order) -> None:
        self.settled.append((order.id, order.state))

    async def order(self, count: int = 2) -> Order:
        return await self.snapshots.order(
            DEVICE, CHANNEL, count, 1, lambda session: f"http://g/{session}", forced=False
        )


def test_an_order_says_where_to_and_ends_with_its_last_picture() -> None:
    async def main() -> None:
        world = World()
        order = await world.order()
        assert world.told == [SnapShotConfig(2, 1, f"http://g/{order.id}", order.id)]
        world.snapshots.take(order.id, "a.jpg", JPEG)
        waiting = asyncio.ensure_future(world.snapshots.wait(order.id, 10))
        await asyncio.sleep(1)
        assert not waiting.done()
        world.snapshots.take(order.id, "", JPEG)
        assert (await waiting).state == "done"
        assert [picture.name for picture in order.pictures] == ["a.jpg", f"{CHANNEL}02.jpg"]
        assert world.settled == [(order.id, "done")]
        with pytest.raises(RequestError):
            world.snapshots.take(order.id, "c.jpg", JPEG)

    clock.run(main())


def test_the_notice_may_come_before_the_pictures_it_names() -> None:
    async def main() -> None:
        world = World()
        order = await world.order(3)
        world.snapshots.finished(DEVICE, SnapshotsDone(order.id, ("a", "b")))
        assert order.state == "waiting"
        for name in "ab":
            world.snapshots.take(order.id, name, JPEG)
        assert order.state == "partial"
        world.snapshots.take(order.id, "c", JPEG)
        assert order.state == "done", "a picture that was not announced counts, too"

    clock.run(main())


def test_silence_ends_an_order_and_the_hour_forgets_it() -> None:
    async def main() -> None:
        world = World()
        silent, half = await world.order(), await world.order()
        world.snapshots.take(half.id, "", JPEG)
        assert (await world.snapshots.wait(silent.id, 1_000)).state == "failed"
        assert world.snapshots.get(half.id).state == "partial"
        await asyncio.sleep(limits.SNAPSHOT_KEPT_SECONDS + 1)
        assert world.snapshots.of(DEVICE, CHANNEL) == []
        with pytest.raises(RequestError):
            world.snapshots.get(half.id)

    clock.run(main())


def test_another_devices_notice_and_a_refused_order_count_for_nothing() -> None:
    async def main() -> None:
        world = World()
        order = await world.order()
        world.snapshots.finished("34020000001320000002", SnapshotsDone(order.id, ()))
        assert (order.state, world.tally["snapshot.unknown_session"]) == ("waiting", 1)
        world.failure = PeerError("no", code="command_failed")
        with pytest.raises(PeerError):
            await world.order()
        assert len(world.snapshots.of(DEVICE, CHANNEL)) == 1

    clock.run(main())


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SNAPSHOTS_BYTES", 2_500)
    monkeypatch.setattr(limits, "SNAPSHOT_SESSIONS", 3)

    async def main() -> None:
        world = World()
        old, new = await world.order(), await world.order()
        world.snapshots.take(old.id, "", JPEG)
        world.snapshots.take(new.id, "", JPEG)
        world.snapshots.take(new.id, "", JPEG)
        assert (len(old.pictures), len(new.pictures)) == (0, 2)
        big = await world.order()
        with pytest.raises(LimitError):
            world.snapshots.take(big.id, "", JPEG * 3)
        for _ in range(5):
            await world.order()
        assert len(world.snapshots.of(DEVICE, CHANNEL)) == 3

    clock.run(main())
