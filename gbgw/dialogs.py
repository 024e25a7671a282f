"""The dialogs that a crash must not leave open in cameras: written before an INVITE leaves, ended by the next start."""

import asyncio
import time
from dataclasses import replace
from typing import Protocol

from gbgw.base import limits
from gbgw.base.errors import GatewayError
from gbgw.base.tally import Tally
from gbgw.serve.source import StreamKey
from gbgw.sip.dialog import contact_of
from gbgw.sip.events import DialogOpened, DialogOver
from gbgw.sip.flow import Flow
from gbgw.sip.message import Request, Response, Uri
from gbgw.store.base import Store, StoredDialog, StoreError


class Asking(Protocol):
    async def request(self, request: Request, flow: Flow, timeout_seconds: float) -> Response: ...


class Dialogs:
    """What the store knows of the dialogs in progress; session.Dialogs."""

    def __init__(self, store: Store, tally: Tally) -> None:
        self._store = store
        self._tally = tally
        self._open: dict[int, StoredDialog] = {}  # by handle, until the user agent knows of them no more
        self._orphans: dict[str, list[StoredDialog]] = {}  # of the last life, by device; as many as the store had

    async def dialog_opening(self, handle: int, key: str, request: Request, flow: Flow, ssrc: str, port: int) -> None:
        """Return when it is on disk, or when the disk had its time (ADR 9): the INVITE may leave."""
        dialog = StoredDialog(
            request.call_id,
            request.from_.tag or "",
            key,
            str(request.from_.uri),
            str(request.to_.uri),
            flow,
            1,  # CSeq of the INVITE, which the user agent numbers
            time.time(),
            ssrc=ssrc,
            port=port,
        )
        self._open[handle] = dialog
        try:
            async with asyncio.timeout(limits.DIALOG_WRITE_SECONDS):
                await self._store.dialog_opening(dialog)
        except (TimeoutError, StoreError) as error:
            reason = str(error) or f"not written within {limits.DIALOG_WRITE_SECONDS} s"
            self._tally.add("dialog.unwritten", detail=f"{key}: {reason}")

    def heard(self, told: DialogOpened | DialogOver) -> None:
        """Take the user agent's word: a dialog is in the store until its camera has answered the BYE, or never will.

        That may be long after its session: the BYE waits for a camera that lost its connection.
        """
        dialog = self._open.get(told.handle)
        if dialog is None:
            return
        match told:
            case DialogOpened(handle, response):
                opened = replace(dialog, remote_tag=response.to_.tag or "", remote_target=contact_of(response))
                self._open[handle] = opened
                self._store.dialog_confirmed(opened)
            case DialogOver(handle):
                self.dialog_unused(handle)

    def dialog_unused(self, handle: int) -> None:
        dialog = self._open.pop(handle, None)
        if dialog is not None:
            self._store.dialog_closed(dialog.call_id, dialog.local_tag)

    async def end_old(self, dialog: StoredDialog, sip: Asking) -> None:
        """BYE to a camera that may still be sending to a gateway that died. One that cannot be reached as it was then
        is told when it registers: see `end_orphans`."""
        if not dialog.remote_tag or time.time() - dialog.opened > limits.ORPHAN_SECONDS:
            self._store.dialog_closed(dialog.call_id, dialog.local_tag)
        elif dialog.flow.transport != "udp" or not await self._say_bye(dialog, dialog.flow, sip):
            self._orphans.setdefault(StreamKey.parse(dialog.key).device_id, []).append(dialog)

    def has_orphans(self, device_id: str) -> bool:
        return device_id in self._orphans

    async def end_orphans(self, device_id: str, flow: Flow, sip: Asking) -> None:
        """BYE to a device that has registered, for every dialog of the last life that it was not told of."""
        for dialog in self._orphans.pop(device_id, ()):
            if not await self._say_bye(dialog, flow, sip):
                self._store.dialog_closed(dialog.call_id, dialog.local_tag)

    async def _say_bye(self, dialog: StoredDialog, flow: Flow, sip: Asking) -> bool:
        try:
            await sip.request(_bye(dialog), flow, limits.GOODBYE_SECONDS)
        except GatewayError as error:
            self._tally.add("dialog.orphan_unanswered", detail=f"{dialog.key}: {error.code}")
            return False
        self._store.dialog_closed(dialog.call_id, dialog.local_tag)
        return True


def _bye(dialog: StoredDialog) -> Request:
    """The BYE of a dialog that this process did not open (RFC 3261 section 12.2.1.1)."""
    headers = {
        "From": f"<{dialog.local_uri}>;tag={dialog.local_tag}",
        "To": f"<{dialog.remote_uri}>;tag={dialog.remote_tag}",
        "Call-ID": dialog.call_id,
        "CSeq": f"{dialog.local_cseq + 1} BYE",
    }
    return Request.new("BYE", Uri.parse(dialog.remote_target or dialog.remote_uri), headers)
