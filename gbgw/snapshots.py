"""Pictures that cameras take and upload by order (SnapShotConfig, GB/T 28181-2022 9.14 and A.2.3.2.9; reference 3.15).

An order has a SessionID, which is in the address that the camera uploads to and in its notice that it is done. The
standard fixes neither method nor form of the upload: whatever body comes is taken. Pictures are kept in memory, bounded
in number, bytes and time.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from gbgw.base import limits
from gbgw.base.errors import LimitError, RequestError
from gbgw.base.tally import Tally
from gbgw.commands import Commands
from gbgw.gb.answers import SnapshotsDone
from gbgw.gb.parameters import SnapShotConfig, group_of

State = Literal["waiting", "done", "partial", "failed"]


@dataclass(frozen=True, slots=True)
class Picture:
    name: str
    time: datetime
    data: bytes = field(repr=False)


@dataclass(slots=True)
class Order:
    """One order. until: loop seconds when it is given up. ids: the files the camera says it sent."""

    id: str
    device_id: str
    channel_id: str
    wanted: int
    ordered: datetime
    until: float
    state: State = "waiting"
    pictures: list[Picture] = field(default_factory=list)
    ids: tuple[str, ...] | None = None
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def bytes(self) -> int:
        return sum(len(picture.data) for picture in self.pictures)


class Snapshots:
    """Orders and their pictures. settled: told when an order has come to its end."""

    def __init__(self, commands: Commands, tally: Tally, settled: Callable[[Order], None]) -> None:
        self._commands = commands
        self._tally = tally
        self._settled = settled
        self._orders: OrderedDict[str, Order] = OrderedDict()

    async def order(
        self, device_id: str, channel_id: str, count: int, interval: int, upload: Callable[[str], str], *, forced: bool
    ) -> Order:
        """Have a camera take `count` pictures, `interval` seconds apart; return once it said it will.

        upload: SessionID -> the address to upload to.
        """
        self._tidy()
        session = secrets.token_hex(32)
        until = self._now() + count * interval + limits.SNAPSHOT_SECONDS
        order = Order(session, device_id, channel_id, count, datetime.now(UTC), until)
        self._orders[session] = order  # before the command leaves: cameras upload at once
        asked = SnapShotConfig(count, interval, upload(session), session)
        try:
            await self._commands.configure(device_id, channel_id, group_of("SnapShotConfig"), asked, forced=forced)
        except BaseException:
            self._orders.pop(session, None)
            raise
        while len(self._orders) > limits.SNAPSHOT_SESSIONS:
            self._orders.popitem(last=False)
        return order

    def get(self, session: str) -> Order:
        """Raises RequestError 404 `unknown_snapshot`."""
        self._tidy()
        order = self._orders.get(session)
        if order is None:
            raise RequestError("There is no such snapshot order.", status=404, code="unknown_snapshot")
        return order

    def of(self, device_id: str, channel_id: str) -> list[Order]:
        """The orders of a channel, newest first."""
        self._tidy()
        return [
            order
            for order in reversed(self._orders.values())
            if (order.device_id, order.channel_id) == (device_id, channel_id)
        ]

    async def wait(self, session: str, seconds: float) -> Order:
        """Return the order when it has come to its end, or as it is after `seconds`."""
        order = self.get(session)
        try:
            async with asyncio.timeout(min(seconds, max(0.0, order.until - self._now()))):
                await order.settled.wait()
        except TimeoutError:
            self._tidy()
        return order

    def expects(self, session: str) -> Order:
        """Return the order whose pictures may still come. Raises RequestError 404 `unknown_snapshot`, 409
        `snapshot_over`."""
        order = self.get(session)
        if order.state not in ("waiting", "partial") or len(order.pictures) >= order.wanted:
            raise RequestError("All pictures of this order have come.", status=409, code="snapshot_over")
        return order

    def take(self, session: str, name: str, data: bytes) -> None:
        """Take an uploaded picture. Raises as `expects` does, RequestError 415 `not_a_jpeg`, LimitError
        `snapshots_full`."""
        order = self.expects(session)
        if not data.startswith(b"\xff\xd8\xff"):
            raise RequestError("The body is no JPEG.", status=415, code="not_a_jpeg")
        if not self._room(len(data), order):
            raise LimitError(
                "The snapshots kept fill their memory.", code="snapshots_full", remedy="Order fewer at once."
            )
        name = name or f"{order.channel_id}{len(order.pictures) + 1:02}.jpg"
        order.pictures.append(Picture(name[:128], datetime.now(UTC), data))
        self._tally.add("snapshot.uploaded")
        self._judge(order)

    def finished(self, device_id: str, notice: SnapshotsDone) -> None:
        """The camera says that it sent what it could (statement 49)."""
        order = self._orders.get(notice.session_id)
        if order is None or order.device_id != device_id:
            self._tally.add("snapshot.unknown_session", detail=device_id)
            return
        order.ids = notice.files
        self._judge(order)

    def _judge(self, order: Order) -> None:
        """All pictures are here: done. The camera says it is done with fewer: partial, or failed with none."""
        if len(order.pictures) >= order.wanted:
            self._settle(order, "done")
        elif order.ids is not None:
            promised = min(len(order.ids), order.wanted)
            if len(order.pictures) >= promised:  # else what it announced is still on its way
                self._settle(order, "partial" if order.pictures else "failed")

    def _settle(self, order: Order, state: State) -> None:
        if order.state == state:
            return
        order.state = state
        order.settled.set()
        self._tally.add(f"snapshot.{state}")
        self._settled(order)

    def _tidy(self) -> None:
        now = self._now()
        for session, order in list(self._orders.items()):
            if order.state == "waiting" and now >= order.until:
                self._settle(order, "partial" if order.pictures else "failed")
            if now >= order.until + limits.SNAPSHOT_KEPT_SECONDS:
                del self._orders[session]

    def _room(self, size: int, keep: Order) -> bool:
        """Make room by forgetting the oldest pictures of other orders."""
        total = sum(order.bytes for order in self._orders.values()) + size
        for order in self._orders.values():
            if total <= limits.SNAPSHOTS_BYTES:
                break
            if order is not keep:
                total -= order.bytes
                order.pictures.clear()
        return total <= limits.SNAPSHOTS_BYTES

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
