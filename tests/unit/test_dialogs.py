"""gbgw/dialogs: what is written before an INVITE leaves."""

import asyncio
from typing import Any, cast

import pytest

from gbgw.base import limits
from gbgw.base.tally import Tally
from gbgw.dialogs import Dialogs
from gbgw.sip.events import DialogOpened, DialogOver
from gbgw.sip.message import Request, Response, Uri
from gbgw.store.base import Store, StoredDialog, StoreError
from tests.unit.gb.support import CAMERA, PLATFORM, udp

KEY = f"{CAMERA}-{CAMERA}"


class Disk:
    """The part of a store that dialogs use."""

    def __init__(self, *, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.seconds = seconds
        self.error = error
        self.written: dict[str, StoredDialog] = {}

    async def dialog_opening(self, dialog: StoredDialog) -> None:
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        self.written[dialog.call_id] = dialog

    def dialog_confirmed(self, dialog: StoredDialog) -> None:
        self.written[dialog.call_id] = dialog

    def dialog_closed(self, call_id: str, local_tag: str) -> None:
        self.written.pop(call_id, None)


def invite() -> Request:
    headers = {
        "From": f"<sip:{PLATFORM}@3402000000>;tag=ours",
        "To": f"<sip:{CAMERA}@3402000000>",
        "Call-ID": "call-1",
        "CSeq": "1 INVITE",
    }
    return Request.new("INVITE", Uri.parse(f"sip:{CAMERA}@3402000000"), headers)


async def open_one(disk: Disk, tally: Tally) -> Dialogs:
    dialogs = Dialogs(cast(Store, cast(Any, disk)), tally)
    await dialogs.dialog_opening(1, KEY, invite(), udp(), "0200000001", 30_000)
    return dialogs


async def test_the_dialog_is_written_before_the_invite_leaves() -> None:
    disk, tally = Disk(seconds=0.01), Tally()
    dialogs = await open_one(disk, tally)
    assert (disk.written["call-1"].key, disk.written["call-1"].local_tag) == (KEY, "ours")
    dialogs.dialog_unused(1)
    assert disk.written == {}
    assert tally["dialog.unwritten"] == 0


@pytest.mark.parametrize(
    "disk", [Disk(seconds=60.0), Disk(error=StoreError("the store failed: disk full"))], ids=["stalled", "full"]
)
async def test_a_picture_does_not_wait_for_an_ill_disk(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DIALOG_WRITE_SECONDS", 0.05)
    tally = Tally()
    async with asyncio.timeout(5):
        dialogs = await open_one(disk, tally)
    assert tally["dialog.unwritten"] == 1
    dialogs.dialog_unused(1)  # known all the same


async def test_it_stays_until_nothing_is_left_of_it() -> None:
    """Also where its session is long over and another one has the same key."""
    disk = Disk()
    dialogs = await open_one(disk, Tally())
    answer = Response.to(invite(), 200, headers={"Contact": f"<sip:{CAMERA}@192.0.2.9:5060>"})
    answer = answer.with_header("To", f"<sip:{CAMERA}@3402000000>;tag=theirs")
    dialogs.heard(DialogOpened(1, answer))
    dialogs.heard(DialogOpened(99, answer))  # nobody's
    (written,) = disk.written.values()
    assert (written.remote_tag, written.remote_target) == ("theirs", f"sip:{CAMERA}@192.0.2.9:5060")
    second = invite().with_header("Call-ID", "call-2")
    await dialogs.dialog_opening(2, KEY, second, udp(), "0200000002", 30_002)
    dialogs.heard(DialogOver(2))
    assert list(disk.written) == ["call-1"]
    dialogs.heard(DialogOver(1))
    dialogs.heard(DialogOver(1))
    assert disk.written == {}
