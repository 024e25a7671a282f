"""What the API asks of cameras beyond their pictures, as a Protocol; `gbgw/cameras.py` implements it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from gbgw.gb import schema
from gbgw.gb.answers import AlarmDuty
from gbgw.gb.control import Command
from gbgw.gb.manscdp import Edition, Field
from gbgw.gb.parameters import Group
from gbgw.gb.ptz import Motion


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls the API: the token's id and name, and the address it came from."""

    id: str
    name: str
    remote: str = ""
    admin: bool = False


@dataclass(frozen=True, slots=True)
class Steered:
    """Who has a camera. mine: the caller himself. until: others of the same priority may have it then."""

    moving: bool
    holder: str | None
    priority: int | None
    until: datetime | None
    mine: bool
    motion: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Status:
    """What a device says of itself; None: it did not say."""

    ok: bool
    online: bool
    working: bool
    reason: str
    encoding: bool | None
    recording: bool | None
    device_time: str  # its clock, as sent
    alarm_inputs: tuple[AlarmDuty, ...] = ()


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    number: int  # from 1
    name: str
    time: datetime
    bytes: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An order of pictures. missing: how many of those ordered did not come; reported: the files the camera says it
    uploaded, None before it said anything."""

    id: str
    device_id: str
    channel_id: str
    state: Literal["waiting", "done", "partial", "failed"]
    wanted: int
    missing: int
    ordered: datetime
    files: tuple[SnapshotFile, ...]
    reported: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class UpgradeInfo:
    """reason: why it failed. running: the firmware the device reports."""

    device_id: str
    session_id: str
    firmware: str
    state: Literal["ordered", "done", "failed"]
    ordered: datetime
    running: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One control command: who had what done to which device, and what came of it ("ok" or a cause code)."""

    id: int
    time: datetime
    token: str
    name: str
    remote: str
    action: str
    device_id: str
    channel_id: str
    result: str
    detail: Mapping[str, Any] = field(default_factory=dict)


class Cameras(Protocol):
    """Commands raise PeerError or RequestError with the cause code where they fail. target: a device or one of its
    channels. forced: also what the device's edition does not have."""

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
        """Move for `seconds`; the same again renews it. Raises RequestError 409 `ptz_locked`."""

    async def let_go(self, device_id: str, channel_id: str, caller: Caller, session: str) -> None:
        """Stop and give the camera back; quiet when another has it."""

    def steered(self, device_id: str, channel_id: str, caller: Caller, session: str) -> Steered: ...

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
        """Commands that move a camera by themselves, one message each. Raises RequestError 409 `ptz_locked`."""

    def edition(self, device_id: str) -> Edition:
        """Which edition of the standard a device speaks."""

    async def command(self, device_id: str, target: str, command: Command, *, forced: bool) -> None: ...
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
    ) -> schema.R: ...
    async def status(self, device_id: str, target: str) -> Status: ...
    async def configure(self, device_id: str, target: str, group: Group, value: Any, *, forced: bool) -> None: ...
    async def configuration(
        self, device_id: str, target: str, groups: Sequence[Group], *, forced: bool
    ) -> dict[str, Any]:
        """Fields of gb.parameters.Parameters that came. groups empty: all that the device's edition has."""

    async def order_snapshot(
        self, device_id: str, channel_id: str, count: int, interval: int, upload: Callable[[str], str], *, forced: bool
    ) -> Snapshot: ...
    async def snapshot(self, session: str, wait: float = 0.0) -> Snapshot:
        """Raises RequestError 404 `unknown_snapshot`."""

    def snapshots(self, device_id: str, channel_id: str) -> Sequence[Snapshot]:
        """Of one channel, newest first."""

    def picture(self, session: str, number: int) -> bytes: ...
    def expect_upload(self, session: str) -> None:
        """Raises RequestError where no picture of this order may come."""

    def take_upload(self, session: str, name: str, data: bytes) -> None: ...
    async def upgrade(
        self, device_id: str, firmware: str, file_url: str, manufacturer: str, *, forced: bool
    ) -> UpgradeInfo: ...
    def upgrade_of(self, device_id: str) -> UpgradeInfo: ...

    def record(
        self, caller: Caller, action: str, device_id: str, channel_id: str, result: str, detail: Mapping[str, Any]
    ) -> None:
        """Write a line of the audit log."""

    async def audit(self, limit: int, before: int | None, device_id: str) -> Sequence[AuditEntry]:
        """Newest first; before: an id; device_id "": of all."""
