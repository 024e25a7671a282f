"""All transactions of a user agent: where they are filed, when their timers are due, how many there are."""

from collections import Counter
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Final

from gbgw.sip.flow import Flow
from gbgw.sip.message import Request, Response
from gbgw.sip.transaction import Action, Input, Kind, State, Transaction

Act = Callable[[Transaction, Sequence[Action], Response | None, float], None]

_SLACK: Final = 1_024  # dead entries the heap may hold beside as many as there are live ones


class Ledger:
    """Transactions by key, connection and deadline.

    act: performs the actions of a step. gone: told of each transaction that terminated.
    clients: by (branch, method) and, looser, by (Call-ID, CSeq, method). servers: by RFC 3261 section 17.2.3.
    invites: INVITE server transactions by (Call-ID, CSeq).
    """

    __slots__ = ("_act", "_connections", "_gone", "_heap", "_order", "_states", "clients", "invites", "live", "servers")

    def __init__(self, act: Act, gone: Callable[[Transaction], None]) -> None:
        self.clients: dict[object, Transaction] = {}
        self.servers: dict[object, Transaction] = {}
        self.invites: dict[object, Transaction] = {}
        self.live = 0
        self._act = act
        self._gone = gone
        self._order = count()
        self._heap: list[tuple[float, int, Transaction]] = []  # one entry per transaction, at or before its deadline
        self._connections: dict[int, set[Transaction]] = {}
        self._states: Counter[tuple[Kind, State]] = Counter()

    @property
    def deadline(self) -> float | None:
        heap = self._heap
        while heap and (heap[0][2].finished or heap[0][2].scheduled != heap[0][0]):
            heappop(heap)
        return heap[0][0] if heap else None

    def figures(self) -> dict[tuple[str, str], int]:
        """Return the number of live transactions by (kind, state)."""
        return {(kind.value, state.value): number for (kind, state), number in self._states.items() if number}

    def on(self, flow: Flow) -> list[Transaction]:
        """Return the transactions on a connection."""
        return list(self._connections.get(flow.connection, ()))

    def open(
        self, kind: Kind, request: Request, flow: Flow, now: float, *, handle: int = 0, owner: object = None
    ) -> Transaction:
        transaction = Transaction(kind, request, flow, now, handle=handle)
        transaction.owner = owner
        self.live += 1
        self._states[kind, transaction.state] += 1
        if flow.connection:
            self._connections.setdefault(flow.connection, set()).add(transaction)
        self.schedule(transaction)
        return transaction

    def file(self, transaction: Transaction, book: dict[object, Transaction], *keys: object) -> None:
        for key in keys:
            book[key] = transaction
            transaction.filed.append((book, key))

    def step(self, transaction: Transaction, event: Input, now: float, response: Response | None = None) -> None:
        before = transaction.state
        actions = transaction.push(event, now)
        self._settle(transaction, before)
        self._act(transaction, actions, response, now)

    def drop(self, transaction: Transaction) -> None:
        """End a transaction without a word."""
        before, transaction.state = transaction.state, State.TERMINATED
        self._settle(transaction, before)

    def schedule(self, transaction: Transaction) -> None:
        """Make sure that the transaction is looked at by its deadline."""
        at = transaction.deadline
        if at < transaction.scheduled:
            transaction.scheduled = at
            heap = self._heap
            if len(heap) > 2 * self.live + _SLACK:
                heap[:] = [entry for entry in heap if not entry[2].finished and entry[2].scheduled == entry[0]]
                heapify(heap)
            heappush(heap, (at, next(self._order), transaction))

    def fire(self, now: float) -> None:
        """Fire every timer that is due."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, transaction = heappop(heap)
            if transaction.finished or transaction.scheduled != at:
                continue
            transaction.scheduled = inf
            while not transaction.finished:
                before = transaction.state
                actions = transaction.fire(now)
                if actions is None:
                    break
                self._settle(transaction, before)
                self._act(transaction, actions, None, now)
            if not transaction.finished:
                self.schedule(transaction)

    def _settle(self, transaction: Transaction, before: State) -> None:
        """Note a change of state; forget what is terminated."""
        after = transaction.state
        if after is not before:
            self._states[transaction.kind, before] -= 1
            if after is State.TERMINATED:
                self._forget(transaction)
                return
            self._states[transaction.kind, after] += 1
        self.schedule(transaction)

    def _forget(self, transaction: Transaction) -> None:
        self.live -= 1
        for book, key in transaction.filed:
            if book.get(key) is transaction:
                del book[key]
        group = self._connections.get(transaction.flow.connection)
        if group is not None:
            group.discard(transaction)
            if not group:
                del self._connections[transaction.flow.connection]
        self._gone(transaction)
