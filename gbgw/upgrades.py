"""Firmware upgrades by order (DeviceUpgrade, GB/T 28181-2022 9.13): what was ordered and what the device reported.

The device answers the command, fetches the file, restarts, registers again, and reports DeviceUpgradeResult.
"""

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from gbgw.base import limits
from gbgw.base.errors import RequestError
from gbgw.base.tally import Tally
from gbgw.commands import Commands
from gbgw.gb import control
from gbgw.gb.answers import UpgradeResult

REASONS: Final = {  # UpgradeFailedReason -> in words
    "01": "the download took too long",
    "02": "the package is damaged",
    "03": "a fault of the device's system",
    "99": "another reason",
}


@dataclass(slots=True)
class Upgrade:
    """The last upgrade of one device. reason: why it failed; running: the firmware it reports."""

    device_id: str
    session_id: str
    firmware: str
    ordered: datetime
    state: Literal["ordered", "done", "failed"] = "ordered"
    running: str = ""
    reason: str = ""


class Upgrades:
    """The newest upgrade of each device. settled: told of a device's report."""

    def __init__(self, commands: Commands, tally: Tally, settled: Callable[[Upgrade], None]) -> None:
        self._commands = commands
        self._tally = tally
        self._settled = settled
        self._known: OrderedDict[str, Upgrade] = OrderedDict()

    async def order(self, device_id: str, firmware: str, file_url: str, manufacturer: str, *, forced: bool) -> Upgrade:
        upgrade = Upgrade(device_id, secrets.token_hex(32), firmware, datetime.now(UTC))
        command = control.upgrade(firmware, file_url, manufacturer, upgrade.session_id)
        await self._commands.command(device_id, device_id, command, forced=forced)
        self._known[device_id] = upgrade
        self._known.move_to_end(device_id)
        while len(self._known) > limits.UPGRADES:
            self._known.popitem(last=False)
        return upgrade

    def get(self, device_id: str) -> Upgrade:
        """Raises RequestError 404 `unknown_upgrade`."""
        upgrade = self._known.get(device_id)
        if upgrade is None:
            raise RequestError("No upgrade of this device was ordered.", status=404, code="unknown_upgrade")
        return upgrade

    def reported(self, device_id: str, report: UpgradeResult) -> None:
        upgrade = self._known.get(device_id)
        if upgrade is None or upgrade.session_id != report.session_id:
            self._tally.add("upgrade.unknown_session", detail=device_id)
            return
        ok = report.result.upper() == "OK"
        upgrade.state = "done" if ok else "failed"
        upgrade.running = report.firmware
        upgrade.reason = "" if ok else REASONS.get(report.reason, report.reason or REASONS["99"])
        self._settled(upgrade)
