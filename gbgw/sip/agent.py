"""The user agent: the one machine that holds every transaction and dialog to its end (RFC 3261 sections 8, 9, 12 to 15,
17; RFC 6026). Its events and effects are in `sip/events.py` and re-exported here.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from typing import Literal

from gbgw.base import limits
from gbgw.base.machine import Tick
from gbgw.sip import compose
from gbgw.sip.calls import Asked, Bye, Call, Dialogs
from gbgw.sip.compose import ACCEPT, ALLOW, METHODS, PRODUCT, Address, Composer
from gbgw.sip.dialog import Dialog, same_peer
from gbgw.sip.events import (
    Acknowledged,
    Ask,
    Cancelled,
    Counted,
    DialogOpened,
    DialogOver,
    Effect,
    End,
    Ended,
    Event,
    Failed,
    Final,
    FlowClosed,
    Incoming,
    Provisional,
    Rebound,
    Received,
    Reply,
    Send,
)
from gbgw.sip.flow import Flow
from gbgw.sip.ledger import Ledger
from gbgw.sip.message import Message, Request, Response
from gbgw.sip.parse import serialize
from gbgw.sip.transaction import T1, Action, Input, Kind, State, Transaction

__all__ = [
    "Acknowledged", "Ask", "Cancelled", "Counted", "DialogOpened", "DialogOver", "Effect", "End", "Ended", "Event",
    "Failed", "Final", "FlowClosed", "Incoming", "Provisional", "Rebound", "Received", "Reply", "Send", "UserAgent",
]  # fmt: skip

_DONE = Request()  # stands in for a request whose answer is sent: 160,000 of them wait for timer J at full load
_EndReason = Literal["bye", "closed", "no_answer", "no_ack", "cancelled", "transport"]


def _class_of(status: int) -> Input:
    return Input.PROVISIONAL if status < 200 else Input.SUCCESS if status < 300 else Input.FAILURE


class UserAgent:
    """Transactions and dialogs over flows.

    address: (host, port) by which the peer of a flow reaches us, for Via and Contact; the flow's own socket by default.
    make_token: source of branches, tags and Call-IDs (tests).
    """

    def __init__(
        self,
        *,
        address: Address = lambda flow: flow.local,
        make_token: Callable[[], str] = compose.make_token,
        product: str = PRODUCT,
    ) -> None:
        self._composer = Composer(address, make_token, product)
        self._handles = count(1)
        self._effects: list[Effect] = []
        self._ledger = Ledger(self._act, self._gone)
        self._waiting: dict[int, Transaction] = {}  # server transactions without final answer, by handle
        self._asked: dict[int, Transaction] = {}  # our other requests without final answer, by handle
        self._calls: dict[int, Call] = {}  # our INVITEs without final answer, by handle
        self._dialogs = Dialogs()
        self._accepts: dict[int, Transaction] = {}  # 2xx waiting for ACK, by the dialog's handle
        self._stranded: dict[int, float] = {}  # dialogs whose flow is gone, by handle, the oldest first: given up when
        self.messages: Counter[tuple[str, str, int]] = Counter()  # ("in" or "out", method, status; 0 for requests)

    # The Machine protocol

    @property
    def deadline(self) -> float | None:
        given_up = next(iter(self._stranded.values()), None)
        deadline = self._ledger.deadline
        return deadline if given_up is None else given_up if deadline is None else min(deadline, given_up)

    @property
    def finished(self) -> bool:
        """Never: the agent lives as long as its stack."""
        return False

    @property
    def idle(self) -> bool:
        """True when no transaction and no dialog is left."""
        return not (self.transactions or self._waiting or self._calls or len(self._dialogs))

    def new_handle(self) -> int:
        return next(self._handles)

    def push(self, event: Event | Tick, now: float) -> Sequence[Effect]:
        """Fire due timers, take `event`, return what to do. What peers send never raises.

        Raises SipError when a request given by Ask has no usable From.
        """
        self._ledger.fire(now)
        self._give_up(now)
        match event:
            case Received(Request() as request, flow):
                self._on_request(request, flow, now)
            case Received(Response() as response, flow):
                self._on_response(response, flow, now)
            case Reply(handle, response):
                self._reply(handle, response, now)
            case Ask():
                self._ask(event, now)
            case End(handle):
                self._end(handle, now)
            case FlowClosed(flow):
                self._on_closed(flow, now)
            case Rebound(peer, flow):
                self._rebind(peer, flow, now)
            case _:
                pass
        effects, self._effects = self._effects, []
        return effects

    def forget_dialogs(self) -> None:
        """Forget every dialog without a word: the sockets are gone."""
        self._dialogs = Dialogs()
        self._stranded.clear()

    # Figures

    @property
    def transactions(self) -> int:
        return self._ledger.live

    @property
    def dialogs(self) -> int:
        """Dialogs that somebody uses."""
        return len(self._dialogs) - self.farewells

    @property
    def farewells(self) -> int:
        """Dialogs that are over for their users, and whose peer has yet to hear the BYE."""
        return sum(dialog.told for handle in self._stranded if (dialog := self._dialogs.get(handle)) is not None)

    def figures(self) -> dict[tuple[str, str], int]:
        """Return the number of live transactions by (kind, state)."""
        return self._ledger.figures()

    # Steps of transactions

    def _gone(self, transaction: Transaction) -> None:
        if transaction.kind is not Kind.ACCEPT:
            self._waiting.pop(transaction.handle, None)
        elif self._accepts.get(transaction.handle) is transaction:
            del self._accepts[transaction.handle]

    def _act(self, transaction: Transaction, actions: Sequence[Action], response: Response | None, now: float) -> None:
        for action in actions:
            match action:
                case Action.SEND:
                    if transaction.sent:
                        self._effects.append(Send(transaction.sent, transaction.flow))
                case Action.ACK if response is not None:
                    self._send(compose.acknowledge(transaction.request, response), transaction.flow)
                case Action.DELIVER if response is not None:
                    self._deliver(transaction, response, now)
                case Action.TRYING:
                    answer = Response.to(transaction.request, 100)
                    self._answer(transaction, answer, now)
                case Action.TIMED_OUT:
                    self._count("sip.timeout", transaction.request.method)
                    self._fail(transaction, "timeout", now)
                case Action.BROKEN:
                    self._fail(transaction, "transport", now)
                case Action.UNANSWERED:
                    self._count("sip.unanswered", transaction.request.method)
                    self._waiting.pop(transaction.handle, None)
                    self._answer(transaction, Response.to(transaction.request, 500), now)
                    if transaction.kind is Kind.INVITE_SERVER:
                        self._effects.append(Ended(transaction.handle, "cancelled"))
                case Action.UNACKNOWLEDGED:
                    self._unacknowledged(transaction, now)
                case _:
                    pass

    def _send(self, message: Message, flow: Flow) -> bytes:
        data = serialize(message)
        self._note("out", message)
        self._effects.append(Send(data, flow))
        return data

    def _note(self, way: str, message: Message) -> None:
        if isinstance(message, Request):
            self.messages[way, message.method if message.method in METHODS else "other", 0] += 1
        else:
            method = message.cseq[1]
            self.messages[way, method if method in METHODS else "other", message.status] += 1

    def _count(self, name: str, detail: str = "") -> None:
        self._effects.append(Counted(name, detail))

    # Requests that come in

    def _on_request(self, request: Request, flow: Flow, now: float) -> None:
        self._note("in", request)
        method = request.method
        key = compose.server_key(request, flow, "INVITE" if method == "ACK" else method)
        known = self._ledger.servers.get(key)
        if method == "ACK":
            self._on_ack(request, flow, known, now)
            return
        if known is not None:
            self._count("sip.retransmission", method)
            self._ledger.step(known, Input.REQUEST, now)
            return
        if self.transactions >= limits.SIP_TRANSACTIONS:
            self._count("sip.overload", method)
            answer = Response.to(request, 503, headers=(("Retry-After", "10"),))
            self._send(self._composer.response(request, answer, flow, self._composer.token()), flow)
            return
        kind = Kind.INVITE_SERVER if method == "INVITE" else Kind.SERVER
        transaction = self._ledger.open(kind, request, flow, now, handle=self.new_handle())
        transaction.tag = self._composer.token()
        self._ledger.file(transaction, self._ledger.servers, key)
        if kind is Kind.INVITE_SERVER:
            self._ledger.file(transaction, self._ledger.invites, (request.call_id.lower(), request.cseq[0]))
        refusal = self._refusal(request)
        if refusal is not None:
            self._answer(transaction, refusal, now)
        elif method == "CANCEL":
            self._on_cancel(transaction, now)
        else:
            self._place(transaction, now)

    def _refusal(self, request: Request) -> Response | None:
        """Answer what needs no user: methods, extensions and addresses we do not know."""
        if request.method not in METHODS:
            return Response.to(request, 405, headers=(("Allow", ALLOW),))
        if request.target.scheme not in ("sip", "sips"):
            return Response.to(request, 416)
        extensions = compose.unsupported(request) if request.method != "CANCEL" else ""
        if extensions:
            return Response.to(request, 420, headers=(("Unsupported", extensions),))
        if request.method == "OPTIONS":
            return Response.to(request, 200, headers=(("Allow", ALLOW), ("Accept", ACCEPT)))
        return None

    def _place(self, transaction: Transaction, now: float) -> None:
        """Find the dialog of a request; deliver it or answer it."""
        request, flow, method = transaction.request, transaction.flow, transaction.request.method
        inside = bool(request.to_.tag)
        dialog: Dialog | None = None
        if inside or method != "INVITE":
            dialog, elsewhere = self._dialogs.find(request, flow)
            if elsewhere and (inside or method in ("BYE", "INFO")):
                self._count("sip.dialog_wrong_flow", f"{method} from {flow}")
                self._answer(transaction, Response.to(request, 481), now)
                return
        if dialog is None:
            if method in ("BYE", "INFO") or (method == "INVITE" and inside):
                self._count("sip.no_dialog", method)
                self._answer(transaction, Response.to(request, 481), now)
                return
            if method == "INVITE" and len(self._dialogs) >= limits.SIP_DIALOGS:
                self._count("sip.overload", method)
                self._answer(transaction, Response.to(request, 503, headers=(("Retry-After", "10"),)), now)
                return
        elif method == "BYE":
            self._answer(transaction, Response.to(request, 200), now)
            self._on_bye(dialog, now)
            return
        elif dialog.matches(request):
            number = request.cseq[0]
            if dialog.remote_cseq is not None and number < dialog.remote_cseq:
                self._answer(transaction, Response.to(request, 500), now)
                return
            dialog.remote_cseq = number
        else:
            self._count("sip.dialog_loose_match", method)
        transaction.owner = dialog
        self._waiting[transaction.handle] = transaction
        self._effects.append(Incoming(transaction.handle, request, flow, dialog.handle if dialog else None))

    def _on_bye(self, dialog: Dialog, now: float) -> None:
        if dialog.ending and dialog.handle not in self._accepts:
            return  # our own BYE is under way: its answer ends the dialog
        self._close(dialog, "bye")

    def _on_cancel(self, transaction: Transaction, now: float) -> None:
        request, flow = transaction.request, transaction.flow
        invite = self._ledger.servers.get(compose.server_key(request, flow, "INVITE"))
        if invite is None:
            invite = self._ledger.invites.get((request.call_id.lower(), request.cseq[0]))
            if invite is not None and not same_peer(invite.flow, flow):
                self._count("sip.dialog_wrong_flow", f"CANCEL from {flow}")
                invite = None
        self._answer(transaction, Response.to(request, 200 if invite else 481), now)
        if invite is not None and self._waiting.pop(invite.handle, None) is not None:
            self._answer(invite, Response.to(invite.request, 487), now)
            self._effects.append(Cancelled(invite.handle))

    def _on_ack(self, request: Request, flow: Flow, known: Transaction | None, now: float) -> None:
        if known is None:
            known = self._ledger.invites.get((request.call_id.lower(), request.cseq[0]))
            if known is not None and not same_peer(known.flow, flow):
                known = None
        if known is not None and known.state is State.COMPLETED:
            self._ledger.step(known, Input.ACK, now)
            return
        dialog, elsewhere = self._dialogs.find(request, flow)
        accept = self._accepts.get(dialog.handle) if dialog is not None else None
        if dialog is None or accept is None:
            if elsewhere or dialog is None:
                self._count("sip.ack_unmatched", str(flow))
            return
        invite_handle = accept.owner
        self._ledger.step(accept, Input.ACK, now)
        assert isinstance(invite_handle, int)
        if dialog.ending:
            self._bye(dialog, now)
        else:
            self._effects.append(Acknowledged(invite_handle, request))

    # Answers that we give

    def _reply(self, handle: int, response: Response, now: float) -> None:
        transaction = self._waiting.get(handle)
        if transaction is None:
            self._count("sip.unknown_handle", "reply")
            return
        if response.status >= 200:
            del self._waiting[handle]
        request, dialog = transaction.request, transaction.owner
        sent = self._answer(transaction, response, now)
        if request.method != "INVITE" or not 200 <= response.status < 300:
            return
        if isinstance(dialog, Dialog):
            dialog.refresh(request)
        else:
            dialog = Dialog.answered(handle, request, sent, transaction.flow)
            self._dialogs.add(dialog)
        accept = self._ledger.open(Kind.ACCEPT, request, transaction.flow, now, handle=dialog.handle, owner=handle)
        accept.sent = transaction.sent
        self._accepts[dialog.handle] = accept

    def _answer(self, transaction: Transaction, response: Response, now: float) -> Response:
        """Send an answer through its transaction; return it as it was sent."""
        full = self._composer.response(transaction.request, response, transaction.flow, transaction.tag)
        transaction.sent = serialize(full)
        self._note("out", full)
        transaction.stop(Input.T)
        if transaction.kind is Kind.SERVER and response.status >= 200:
            transaction.request = _DONE
        self._ledger.step(transaction, _class_of(response.status), now)
        return full

    def _unacknowledged(self, accept: Transaction, now: float) -> None:
        dialog = self._dialogs.get(accept.handle)
        self._count("sip.no_ack", str(accept.flow))
        if dialog is not None:
            self._bye(dialog, now, reason="no_ack")

    # Requests that we send

    def _ask(self, ask: Ask, now: float) -> None:
        request, flow, owner = ask.request, ask.flow, None
        if ask.dialog is not None:
            owner = self._dialogs.get(ask.dialog)
            if owner is None or owner.ending:
                self._count("sip.unknown_handle", "ask")
                self._effects.append(Failed(ask.handle, "transport"))
                return
            flow = owner.flow
            request = owner.request(request.method, request)
            if request.method == "INVITE":
                owner.invite_cseq = request.cseq[0]
        if request.method == "INVITE":
            call = Call(ask.handle, flow, owner, peer=ask.peer)
            call.transaction = self._start(Kind.INVITE_CLIENT, request, flow, now, call)
            self._calls[ask.handle] = call
        else:
            self._asked[ask.handle] = self._start(Kind.CLIENT, request, flow, now, Asked(ask.handle))

    def _start(
        self, kind: Kind, request: Request, flow: Flow, now: float, owner: object, *, branch: str = ""
    ) -> Transaction:
        branch = branch or self._composer.branch()
        full = self._composer.request(request, flow, branch) if kind is Kind.INVITE_CLIENT or owner else request
        transaction = self._ledger.open(kind, full, flow, now, owner=owner)
        number = full.cseq[0]
        loose = (full.call_id.lower(), number, full.method)
        self._ledger.file(transaction, self._ledger.clients, (branch, full.method), loose)
        transaction.sent = self._send(full, flow)
        return transaction

    def _on_response(self, response: Response, flow: Flow, now: float) -> None:
        self._note("in", response)
        number, method = response.cseq
        transaction = self._ledger.clients.get((response.via.branch, method))
        if transaction is None:
            transaction = self._ledger.clients.get((response.call_id.lower(), number, method))
            if transaction is not None and (
                transaction.request.from_.tag != response.from_.tag or transaction.flow.remote[0] != flow.remote[0]
            ):
                transaction = None
        if transaction is None:
            self._count("sip.response_unmatched", f"{response.status} {flow}")
            return
        self._ledger.step(transaction, _class_of(response.status), now, response)

    def _deliver(self, transaction: Transaction, response: Response, now: float) -> None:
        owner = transaction.owner
        if isinstance(owner, Call):
            self._on_call(owner, response, now)
        elif isinstance(owner, Asked):
            final = response.status >= 200
            if final:
                self._asked.pop(owner.handle, None)
            made = Final(owner.handle, response, transaction.flow) if final else Provisional(owner.handle, response)
            self._effects.append(made)
        elif isinstance(owner, Bye) and response.status >= 200:
            self._close(owner.dialog, owner.reason or "closed", told=owner.told)

    def _fail(self, transaction: Transaction, reason: Literal["timeout", "transport"], now: float) -> None:
        owner = transaction.owner
        if isinstance(owner, Call):
            self._calls.pop(owner.handle, None)
            effect: Effect = Failed(owner.handle, reason)
            if not owner.wanted:
                effect = Ended(owner.handle, "transport" if reason == "transport" else "cancelled")
            self._effects.append(effect)
            if not owner.over and owner.peer:
                self._effects.append(DialogOver(owner.handle))
            owner.wanted = False
            owner.over = True
        elif isinstance(owner, Asked):
            self._asked.pop(owner.handle, None)
            self._effects.append(Failed(owner.handle, reason))
        elif isinstance(owner, Bye) and reason == "transport" and owner.dialog.peer:
            self._strand(owner.dialog, now)
        elif isinstance(owner, Bye):
            ended: _EndReason = "no_answer" if reason == "timeout" else "transport"
            self._close(owner.dialog, owner.reason or ended, told=owner.told)
        elif transaction.kind is Kind.INVITE_SERVER:
            self._effects.append(Ended(transaction.handle, "transport"))

    # Our INVITEs

    def _on_call(self, call: Call, response: Response, now: float) -> None:
        if response.status < 200:
            call.provisional = True
            if call.wanted:
                self._effects.append(Provisional(call.handle, response))
            else:
                self._cancel(call, now)
        elif response.status < 300:
            self._on_success(call, response, now)
        else:
            self._calls.pop(call.handle, None)
            call.over = True
            made = Final(call.handle, response, call.flow) if call.wanted else Ended(call.handle, "cancelled")
            self._effects.append(made)
            if call.peer:
                self._effects.append(DialogOver(call.handle))

    def _on_success(self, call: Call, response: Response, now: float) -> None:
        """Take a 2xx: the first opens the dialog, a repeated one is ACKed again, any other is ACKed and ended."""
        tag = response.to_.tag
        answered = call.answered.get(tag)
        if answered is not None:
            self._effects.append(Send(answered.ack, call.flow))
            return
        if len(call.answered) >= limits.SIP_FORKS:
            self._count("sip.forked", str(call.flow))
            return
        first = not call.over
        assert call.transaction is not None
        dialog = call.inside if first else None
        if dialog is None:
            dialog = Dialog.called(call.handle, call.transaction.request, response, call.flow)
            dialog.peer = call.peer
        else:
            dialog.refresh(response)
        call.answered[tag] = dialog
        ack = self._composer.request(dialog.request("ACK"), call.flow, self._composer.branch())
        dialog.ack = self._send(ack, call.flow)
        if not first:
            self._count("sip.forked", str(call.flow))
            self._bye(dialog, now, told=False)
            return
        call.over = True
        self._calls.pop(call.handle, None)
        if call.inside is None:
            self._dialogs.add(dialog)
            if call.peer:
                self._effects.append(DialogOpened(call.handle, response))
        if call.wanted:
            self._effects.append(Final(call.handle, response, call.flow))
        else:
            self._bye(dialog, now)

    def _end(self, handle: int, now: float) -> None:
        asked = self._asked.pop(handle, None)
        if asked is not None:
            self._ledger.drop(asked)
            return
        call = self._calls.get(handle)
        if call is not None:
            if call.wanted:
                call.wanted = False
                if call.provisional:
                    self._cancel(call, now)
            return
        dialog = self._dialogs.get(handle)
        if dialog is not None:
            if not dialog.ending:
                dialog.ending = True
                if handle in self._stranded:
                    self._tell_end(dialog, "transport")  # BYE is said once he is back, and nobody waits for that
                    return
                if handle not in self._accepts:  # RFC 3261 section 15: the callee waits for the ACK
                    self._bye(dialog, now)
            return
        waiting = self._waiting.pop(handle, None)
        if waiting is None:
            self._count("sip.unknown_handle", "end")
            return
        self._answer(waiting, Response.to(waiting.request, 480), now)
        self._effects.append(Ended(handle, "cancelled"))

    def _cancel(self, call: Call, now: float) -> None:
        invite = call.transaction
        if call.cancelled or invite is None or invite.state is not State.PROCEEDING:
            return
        call.cancelled = True
        self._start(Kind.CLIENT, compose.cancel(invite.request), call.flow, now, None, branch=invite.request.via.branch)
        invite.limit(Input.C, now + 64 * T1)
        self._ledger.schedule(invite)

    def _bye(self, dialog: Dialog, now: float, *, told: bool = True, reason: _EndReason | None = None) -> None:
        dialog.ending = True
        self._start(Kind.CLIENT, dialog.request("BYE"), dialog.flow, now, Bye(dialog, told, reason))

    def _close(self, dialog: Dialog, reason: _EndReason, *, told: bool = True) -> None:
        """Forget a dialog and what was under way for it."""
        self._stranded.pop(dialog.handle, None)
        if not self._dialogs.remove(dialog):
            return
        if told:
            self._tell_end(dialog, reason)
            accept = self._accepts.get(dialog.handle)
            if accept is not None:
                self._ledger.drop(accept)
        if dialog.peer:
            self._effects.append(DialogOver(dialog.handle))

    def _tell_end(self, dialog: Dialog, reason: _EndReason) -> None:
        if not dialog.told:
            dialog.told = True
            self._effects.append(Ended(dialog.handle, reason))

    def _on_closed(self, flow: Flow, now: float) -> None:
        if not flow.connection:
            return
        for transaction in self._ledger.on(flow):
            self._ledger.step(transaction, Input.ERROR, now)
        for dialog in self._dialogs.on(flow):
            self._strand(dialog, now)

    # Dialogs whose flow is gone

    def _strand(self, dialog: Dialog, now: float) -> None:
        """Keep a dialog for a while: a peer who lost his connection soon comes by another."""
        if not dialog.peer:
            self._close(dialog, "transport")
        elif self._dialogs.get(dialog.handle) is dialog:
            self._stranded.setdefault(dialog.handle, now + limits.SIP_STRANDED_SECONDS)
            if dialog.ending:
                self._tell_end(dialog, "transport")

    def _give_up(self, now: float) -> None:
        for handle in [handle for handle, at in self._stranded.items() if at <= now]:
            dialog = self._dialogs.get(handle)
            if dialog is not None:
                self._close(dialog, "transport")

    def _rebind(self, peer: str, flow: Flow, now: float) -> None:
        for call in self._calls.values():
            if call.peer == peer:
                call.flow = flow  # where its ACK goes
        for dialog in self._dialogs.of(peer):
            stranded = self._stranded.pop(dialog.handle, None) is not None
            if not stranded and same_peer(dialog.flow, flow):
                continue
            self._dialogs.move(dialog, flow)
            self._count("sip.dialog_moved", str(flow))
            if dialog.ending:
                self._bye(dialog, now)  # the one before went to where nobody is
