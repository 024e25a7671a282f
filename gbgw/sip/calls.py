"""What the UserAgent remembers of calls: our INVITEs under way, and the book of dialogs."""

from dataclasses import dataclass, field
from typing import Any, Literal

from gbgw.sip.dialog import Dialog, same_peer
from gbgw.sip.flow import Flow
from gbgw.sip.message import Request
from gbgw.sip.transaction import Transaction


@dataclass(slots=True, eq=False)
class Asked:
    """A request of the transaction user outside INVITE."""

    handle: int


@dataclass(slots=True, eq=False)
class Call:
    """An INVITE of ours, until its transaction is forgotten.

    inside: the dialog that a re-INVITE belongs to. wanted: nobody has ended it. provisional: a CANCEL may go out.
    over: the user was told the outcome. answered: dialogs by To tag, of every 2xx that came. peer: see Ask.
    """

    handle: int
    flow: Flow
    inside: Dialog | None = None
    transaction: Transaction | None = None
    wanted: bool = True
    provisional: bool = False
    cancelled: bool = False
    over: bool = False
    answered: dict[str, Dialog] = field(default_factory=dict)
    peer: str = ""


@dataclass(slots=True, eq=False)
class Bye:
    """A BYE of ours. told: the user waits for Ended. reason: given already, else by the answer."""

    dialog: Dialog
    told: bool
    reason: Literal["bye", "closed", "no_answer", "no_ack", "cancelled", "transport"] | None


class Dialogs:
    """Dialogs by handle, by Call-ID, by connection and by peer."""

    __slots__ = ("_by_call_id", "_by_connection", "_by_handle", "_by_peer")

    def __init__(self) -> None:
        self._by_handle: dict[int, Dialog] = {}
        self._by_call_id: dict[str, list[Dialog]] = {}
        self._by_connection: dict[int, set[Dialog]] = {}
        self._by_peer: dict[str, set[Dialog]] = {}

    def __len__(self) -> int:
        return len(self._by_handle)

    def get(self, handle: int) -> Dialog | None:
        return self._by_handle.get(handle)

    def on(self, flow: Flow) -> list[Dialog]:
        """Return the dialogs on a connection."""
        return list(self._by_connection.get(flow.connection, ()))

    def of(self, peer: str) -> list[Dialog]:
        """Return the dialogs of a peer."""
        return list(self._by_peer.get(peer, ()))

    def add(self, dialog: Dialog) -> None:
        self._by_handle[dialog.handle] = dialog
        self._by_call_id.setdefault(dialog.call_id.lower(), []).append(dialog)
        if dialog.flow.connection:
            self._by_connection.setdefault(dialog.flow.connection, set()).add(dialog)
        if dialog.peer:
            self._by_peer.setdefault(dialog.peer, set()).add(dialog)

    def remove(self, dialog: Dialog) -> bool:
        """Forget a dialog; return whether it was known."""
        if self._by_handle.get(dialog.handle) is not dialog:
            return False
        del self._by_handle[dialog.handle]
        key = dialog.call_id.lower()
        same = self._by_call_id[key]
        same.remove(dialog)
        if not same:
            del self._by_call_id[key]
        _discard(self._by_connection, dialog.flow.connection, dialog)
        _discard(self._by_peer, dialog.peer, dialog)
        return True

    def move(self, dialog: Dialog, flow: Flow) -> None:
        """Have a known dialog go on over another flow."""
        _discard(self._by_connection, dialog.flow.connection, dialog)
        dialog.flow = flow
        if flow.connection:
            self._by_connection.setdefault(flow.connection, set()).add(dialog)

    def find(self, request: Request, flow: Flow) -> tuple[Dialog | None, bool]:
        """Return the dialog of a peer's request, and whether the Call-ID is only known from other peers.

        Both tags decide; wrong or missing ones are forgiven within the dialog's own flow (reference section 2.7, quirk
        39), where a Call-ID alone is enough. It never is across flows.
        """
        same_call = self._by_call_id.get(request.call_id.lower())
        if not same_call:
            return None, False
        here = [dialog for dialog in same_call if same_peer(dialog.flow, flow)]
        for dialog in here:
            if dialog.matches(request):
                return dialog, False
        if len(here) == 1:
            return here[0], False
        return None, not here


def _discard(index: dict[Any, set[Dialog]], key: object, dialog: Dialog) -> None:
    group = index.get(key)
    if group is not None:
        group.discard(dialog)
        if not group:
            del index[key]
