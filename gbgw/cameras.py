"""What the API asks of cameras beyond their pictures (serve.cameras.Cameras): commands, steering, parameters,
snapshots, upgrades, and the audit log of it all."""

import asyncio
import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self

from gbgw.base import limits
from gbgw.base.errors import RequestError
from gbgw.base.tally import Tally
from gbgw.commands import Commands
from gbgw.gb import answers, notices, schema
from gbgw.gb.answers import DutyList, SnapshotsDone, UpgradeResult
from gbgw.gb.control import Command
from gbgw.gb.manscdp import DeviceStatus, Document, Edition, Field
from gbgw.gb.parameters import GROUPS, Group
from gbgw.gb.ptz import STILL, Motion
from gbgw.gb.steering import Hold, Operator
from gbgw.observe import log
from gbgw.observe.events import Events
from gbgw.questions import Questions
from gbgw.serve.cameras import AuditEntry, Caller, Snapshot, SnapshotFile, Status, Steered, UpgradeInfo
from gbgw.snapshots import Order, Snapshots
from gbgw.steering import Place, Steering
from gbgw.store.base import AuditRow, Store
from gbgw.upgrades import Upgrade, Upgrades

LEASE: Final = Caller("", "gbgw")  # whose the stop of a movement is that nobody renewed


class CameraDesk:
    """Implements serve.cameras.Cameras; `async with` it owns every movement it started."""

    def __init__(self, questions: Questions, store: Store, events: Events, tally: Tally) -> None:
        self._commands = Commands(questions, tally)
        self._steering = Steering(self._commands, tally, self._lease_ended)
        self._snapshots = Snapshots(self._commands, tally, self._snapshot_settled)
        self._upgrades = Upgrades(self._commands, tally, self._upgrade_settled)
        self._store = store
        self._events = events
        self._tally = tally
        self._log = log.get("control")

    async def __aenter__(self) -> Self:
        await self._steering.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._steering.__aexit__(kind, error, trace)

    # What devices tell

    def notified(self, device_id: str, document: Document) -> None:
        """Take a Notify of a device that is bound."""
        match document.cmd_type:
            case "UploadSnapShotFinished":
                self._snapshots.finished(device_id, answers.read(SnapshotsDone, document.element))
            case "DeviceUpgradeResult":
                self._upgrades.reported(device_id, answers.read(UpgradeResult, document.element))
            case "Alarm":
                found = notices.alarm(document, device_id)
                self._events.emit("device.alarm", id=device_id, alarm=dataclasses.asdict(found))
            case "MobilePosition":
                positions = [dataclasses.asdict(each) for each in notices.positions(document, device_id)]
                for first in range(0, len(positions), limits.POSITIONS_TOLD):
                    told = positions[first : first + limits.POSITIONS_TOLD]
                    self._events.emit("device.positions", id=device_id, positions=told)

    def gone(self, device_id: str) -> None:
        self._steering.gone(device_id)

    # Steering

    async def steer(
        self,
        device_id: str,
        channel_id: str,
        caller: Caller,
        session: str,
        motion: Motion,
        seconds: float,
        priority: int,
    ) -> Steered:
        before = self._steering.holder((device_id, channel_id))
        operator = _operator(caller, session, priority)
        hold = await self._steering.move((device_id, channel_id), operator, motion, seconds)
        if before is not None and before.operator.id != operator.id:
            self._events.emit("ptz.taken", id=device_id, channel=channel_id, by=operator.name)
        return _steered(hold, operator.id)

    async def let_go(self, device_id: str, channel_id: str, caller: Caller, session: str) -> None:
        await self._steering.release((device_id, channel_id), _operator(caller, session, 1))

    def steered(self, device_id: str, channel_id: str, caller: Caller, session: str) -> Steered:
        return _steered(self._steering.holder((device_id, channel_id)), _operator(caller, session, 1).id)

    async def aim(
        self,
        device_id: str,
        channel_id: str,
        caller: Caller,
        session: str,
        priority: int,
        commands: Sequence[Command],
        *,
        forced: bool,
    ) -> None:
        operator = _operator(caller, session, priority)
        await self._steering.aim((device_id, channel_id), operator, commands, forced=forced)

    def _lease_ended(self, place: Place, operator: Operator) -> None:
        self.record(LEASE, "ptz.stop", place[0], place[1], "ok", {"moved_by": operator.name})
        self._events.emit("ptz.stopped", id=place[0], channel=place[1], moved_by=operator.name)

    # Commands and queries

    def edition(self, device_id: str) -> Edition:
        return self._commands.edition(device_id)

    async def command(self, device_id: str, target: str, command: Command, *, forced: bool) -> None:
        await self._commands.command(device_id, target, command, forced=forced)

    async def ask(
        self,
        device_id: str,
        target: str,
        cmd_type: str,
        record: type[schema.R],
        *,
        fields: Iterable[Field] = (),
        since: Edition = "2.0",
        forced: bool = False,
    ) -> schema.R:
        return await self._commands.ask(device_id, target, cmd_type, record, fields=fields, since=since, forced=forced)

    async def status(self, device_id: str, target: str) -> Status:
        document = await self._commands.document(device_id, target, "DeviceStatus")
        found = document.payload
        assert isinstance(found, DeviceStatus)
        inputs = answers.read(DutyList, document.element).inputs
        return Status(
            found.ok,
            found.online,
            found.working,
            found.reason,
            found.encoding,
            found.recording,
            found.device_time,
            inputs,
        )

    async def configure(self, device_id: str, target: str, group: Group, value: Any, *, forced: bool) -> None:
        await self._commands.configure(device_id, target, group, value, forced=forced)

    async def configuration(
        self, device_id: str, target: str, groups: Sequence[Group], *, forced: bool
    ) -> dict[str, Any]:
        edition = self._commands.edition(device_id)
        known = [group for group in GROUPS if group.since <= edition]
        return await self._commands.configuration(device_id, target, groups or known, forced=forced)

    # Snapshots

    async def order_snapshot(
        self, device_id: str, channel_id: str, count: int, interval: int, upload: Callable[[str], str], *, forced: bool
    ) -> Snapshot:
        return _snapshot(await self._snapshots.order(device_id, channel_id, count, interval, upload, forced=forced))

    async def snapshot(self, session: str, wait: float = 0.0) -> Snapshot:
        return _snapshot(await self._snapshots.wait(session, wait))

    def snapshots(self, device_id: str, channel_id: str) -> Sequence[Snapshot]:
        return [_snapshot(order) for order in self._snapshots.of(device_id, channel_id)]

    def picture(self, session: str, number: int) -> bytes:
        pictures = self._snapshots.get(session).pictures
        if not 1 <= number <= len(pictures):
            raise RequestError("There is no such picture.", status=404, code="unknown_snapshot")
        return pictures[number - 1].data

    def expect_upload(self, session: str) -> None:
        self._snapshots.expects(session)

    def take_upload(self, session: str, name: str, data: bytes) -> None:
        self._snapshots.take(session, name, data)

    def _snapshot_settled(self, order: Order) -> None:
        self._events.emit(
            "snapshot.state",
            id=order.device_id,
            channel=order.channel_id,
            snapshot=order.id,
            state=order.state,
            pictures=len(order.pictures),
        )

    # Upgrades

    async def upgrade(
        self, device_id: str, firmware: str, file_url: str, manufacturer: str, *, forced: bool
    ) -> UpgradeInfo:
        return _upgrade(await self._upgrades.order(device_id, firmware, file_url, manufacturer, forced=forced))

    def upgrade_of(self, device_id: str) -> UpgradeInfo:
        return _upgrade(self._upgrades.get(device_id))

    def _upgrade_settled(self, upgrade: Upgrade) -> None:
        self._events.emit(
            "device.upgrade", id=upgrade.device_id, state=upgrade.state, firmware=upgrade.running, reason=upgrade.reason
        )

    # Audit

    def record(
        self, caller: Caller, action: str, device_id: str, channel_id: str, result: str, detail: Mapping[str, Any]
    ) -> None:
        self._log.info("command", action=action, device=device_id, channel=channel_id, token=caller.name, result=result)
        text = json.dumps(dict(detail), ensure_ascii=False, separators=(",", ":"))
        row = AuditRow(
            0, time.time(), caller.id, caller.name, caller.remote, action, device_id, channel_id, result, text
        )
        self._store.add_audit(row)

    async def audit(self, limit: int, before: int | None, device_id: str) -> Sequence[AuditEntry]:
        return [
            AuditEntry(
                row.id,
                datetime.fromtimestamp(row.time, UTC),
                row.token,
                row.name,
                row.remote,
                row.action,
                row.device_id,
                row.channel_id,
                row.result,
                json.loads(row.detail),
            )
            for row in await self._store.audit(limit, before=before, device_id=device_id)
        ]


def _operator(caller: Caller, session: str, priority: int) -> Operator:
    """Two pages of one token are two operators."""
    return Operator(f"{caller.id}/{session}", caller.name or caller.id, priority)


def _steered(hold: Hold | None, operator_id: str) -> Steered:
    if hold is None:
        return Steered(False, None, None, None, False, _motion(STILL))
    left = max(hold.until, hold.moves_until) - asyncio.get_running_loop().time()
    return Steered(
        bool(hold.motion),
        hold.operator.name,
        hold.operator.priority,
        datetime.now(UTC) + timedelta(seconds=max(0.0, left)),
        hold.operator.id == operator_id,
        _motion(hold.motion),
    )


def _motion(motion: Motion) -> dict[str, int]:
    return {name: getattr(motion, name) for name in ("pan", "tilt", "zoom", "focus", "iris")}


def _snapshot(order: Order) -> Snapshot:
    files = tuple(
        SnapshotFile(number, picture.name, picture.time, len(picture.data))
        for number, picture in enumerate(order.pictures, 1)
    )
    return Snapshot(
        order.id,
        order.device_id,
        order.channel_id,
        order.state,
        order.wanted,
        order.wanted - len(files),
        order.ordered,
        files,
        order.ids,
    )


def _upgrade(upgrade: Upgrade) -> UpgradeInfo:
    return UpgradeInfo(
        upgrade.device_id,
        upgrade.session_id,
        upgrade.firmware,
        upgrade.state,
        upgrade.ordered,
        upgrade.running,
        upgrade.reason,
    )
