"""The transaction machines as tables (RFC 3261 section 17 with RFC 6026, section 7; figures 5 to 8 there).

A pair absent from a table is ignored. Timers of a state are data too; those that a state shares with the one before
run on. Beyond the RFC each machine has an end of its own: Abandoned (a 2xx after the time-out is still acknowledged),
C (no final answer ever) and U (a transaction user that forgets to answer).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Final

from gbgw.base import limits
from gbgw.sip.flow import Flow
from gbgw.sip.message import Request

T1: Final = 0.5
T2: Final = 4.0
T4: Final = 5.0
TRYING_AFTER: Final = 0.2  # RFC 3261 section 17.2.1: 100 when the user has not answered by then


class _Word(Enum):
    """An Enum that hashes by identity: these are looked up several times in every step, and Enum hashes their names."""

    __hash__ = object.__hash__


class Kind(_Word):
    INVITE_CLIENT = "invite_client"
    CLIENT = "client"
    INVITE_SERVER = "invite_server"
    SERVER = "server"
    ACCEPT = "accept"  # the UAS core's repetition of a 2xx until ACK (RFC 3261 section 13.3.1.4)


class State(_Word):
    CALLING = "calling"
    TRYING = "trying"
    PROCEEDING = "proceeding"
    ACCEPTED = "accepted"
    COMPLETED = "completed"
    CONFIRMED = "confirmed"
    ABANDONED = "abandoned"
    TERMINATED = "terminated"


class Input(_Word):
    PROVISIONAL = "1xx"  # received by a client, given by the user to a server
    SUCCESS = "2xx"
    FAILURE = "3xx-6xx"
    REQUEST = "request"  # a retransmission
    ACK = "ack"
    ERROR = "transport error"
    A = "A"
    B = "B"
    C = "C"
    D = "D"
    E = "E"
    F = "F"
    G = "G"
    H = "H"
    I = "I"  # noqa: E741
    J = "J"
    K = "K"
    L = "L"
    M = "M"
    T = "T"  # 100 Trying is due
    U = "U"  # the user never answered


class Action(Enum):
    SEND = "send"  # what was sent last, again
    DELIVER = "deliver"
    ACK = "ack"  # of a 3xx to 6xx
    TRYING = "trying"
    TIMED_OUT = "timed out"
    BROKEN = "broken"
    UNANSWERED = "unanswered"
    UNACKNOWLEDGED = "unacknowledged"


Table = Mapping[tuple[State, Input], tuple[State, tuple[Action, ...]]]

INVITE_CLIENT: Final[Table] = {
    (State.CALLING, Input.A): (State.CALLING, (Action.SEND,)),
    (State.CALLING, Input.B): (State.ABANDONED, (Action.TIMED_OUT,)),
    (State.CALLING, Input.PROVISIONAL): (State.PROCEEDING, (Action.DELIVER,)),
    (State.CALLING, Input.SUCCESS): (State.ACCEPTED, (Action.DELIVER,)),
    (State.CALLING, Input.FAILURE): (State.COMPLETED, (Action.ACK, Action.DELIVER)),
    (State.CALLING, Input.ERROR): (State.TERMINATED, (Action.BROKEN,)),
    (State.PROCEEDING, Input.PROVISIONAL): (State.PROCEEDING, (Action.DELIVER,)),
    (State.PROCEEDING, Input.SUCCESS): (State.ACCEPTED, (Action.DELIVER,)),
    (State.PROCEEDING, Input.FAILURE): (State.COMPLETED, (Action.ACK, Action.DELIVER)),
    (State.PROCEEDING, Input.C): (State.ABANDONED, (Action.TIMED_OUT,)),
    (State.PROCEEDING, Input.ERROR): (State.TERMINATED, (Action.BROKEN,)),
    (State.ACCEPTED, Input.SUCCESS): (State.ACCEPTED, (Action.DELIVER,)),
    (State.ACCEPTED, Input.M): (State.TERMINATED, ()),
    (State.ACCEPTED, Input.ERROR): (State.TERMINATED, ()),
    (State.COMPLETED, Input.FAILURE): (State.COMPLETED, (Action.ACK,)),
    (State.COMPLETED, Input.D): (State.TERMINATED, ()),
    (State.COMPLETED, Input.ERROR): (State.TERMINATED, ()),
    (State.ABANDONED, Input.SUCCESS): (State.ABANDONED, (Action.DELIVER,)),
    (State.ABANDONED, Input.FAILURE): (State.ABANDONED, (Action.ACK,)),
    (State.ABANDONED, Input.M): (State.TERMINATED, ()),
    (State.ABANDONED, Input.ERROR): (State.TERMINATED, ()),
}

CLIENT: Final[Table] = {
    (State.TRYING, Input.E): (State.TRYING, (Action.SEND,)),
    (State.TRYING, Input.F): (State.TERMINATED, (Action.TIMED_OUT,)),
    (State.TRYING, Input.PROVISIONAL): (State.PROCEEDING, (Action.DELIVER,)),
    (State.TRYING, Input.SUCCESS): (State.COMPLETED, (Action.DELIVER,)),
    (State.TRYING, Input.FAILURE): (State.COMPLETED, (Action.DELIVER,)),
    (State.TRYING, Input.ERROR): (State.TERMINATED, (Action.BROKEN,)),
    (State.PROCEEDING, Input.E): (State.PROCEEDING, (Action.SEND,)),
    (State.PROCEEDING, Input.F): (State.TERMINATED, (Action.TIMED_OUT,)),
    (State.PROCEEDING, Input.PROVISIONAL): (State.PROCEEDING, (Action.DELIVER,)),
    (State.PROCEEDING, Input.SUCCESS): (State.COMPLETED, (Action.DELIVER,)),
    (State.PROCEEDING, Input.FAILURE): (State.COMPLETED, (Action.DELIVER,)),
    (State.PROCEEDING, Input.ERROR): (State.TERMINATED, (Action.BROKEN,)),
    (State.COMPLETED, Input.K): (State.TERMINATED, ()),
    (State.COMPLETED, Input.ERROR): (State.TERMINATED, ()),
}

INVITE_SERVER: Final[Table] = {
    (State.PROCEEDING, Input.T): (State.PROCEEDING, (Action.TRYING,)),
    (State.PROCEEDING, Input.REQUEST): (State.PROCEEDING, (Action.SEND,)),
    (State.PROCEEDING, Input.PROVISIONAL): (State.PROCEEDING, (Action.SEND,)),
    (State.PROCEEDING, Input.SUCCESS): (State.ACCEPTED, (Action.SEND,)),
    (State.PROCEEDING, Input.FAILURE): (State.COMPLETED, (Action.SEND,)),
    (State.PROCEEDING, Input.C): (State.PROCEEDING, (Action.UNANSWERED,)),
    (State.PROCEEDING, Input.ERROR): (State.TERMINATED, (Action.BROKEN,)),
    (State.ACCEPTED, Input.L): (State.TERMINATED, ()),
    (State.ACCEPTED, Input.ERROR): (State.TERMINATED, ()),
    (State.COMPLETED, Input.REQUEST): (State.COMPLETED, (Action.SEND,)),
    (State.COMPLETED, Input.G): (State.COMPLETED, (Action.SEND,)),
    (State.COMPLETED, Input.ACK): (State.CONFIRMED, ()),
    (State.COMPLETED, Input.H): (State.TERMINATED, ()),
    (State.COMPLETED, Input.ERROR): (State.TERMINATED, ()),
    (State.CONFIRMED, Input.I): (State.TERMINATED, ()),
    (State.CONFIRMED, Input.ERROR): (State.TERMINATED, ()),
}

SERVER: Final[Table] = {
    (State.TRYING, Input.PROVISIONAL): (State.PROCEEDING, (Action.SEND,)),
    (State.TRYING, Input.SUCCESS): (State.COMPLETED, (Action.SEND,)),
    (State.TRYING, Input.FAILURE): (State.COMPLETED, (Action.SEND,)),
    (State.TRYING, Input.U): (State.TRYING, (Action.UNANSWERED,)),
    (State.TRYING, Input.ERROR): (State.TERMINATED, ()),
    (State.PROCEEDING, Input.REQUEST): (State.PROCEEDING, (Action.SEND,)),
    (State.PROCEEDING, Input.PROVISIONAL): (State.PROCEEDING, (Action.SEND,)),
    (State.PROCEEDING, Input.SUCCESS): (State.COMPLETED, (Action.SEND,)),
    (State.PROCEEDING, Input.FAILURE): (State.COMPLETED, (Action.SEND,)),
    (State.PROCEEDING, Input.U): (State.PROCEEDING, (Action.UNANSWERED,)),
    (State.PROCEEDING, Input.ERROR): (State.TERMINATED, ()),
    (State.COMPLETED, Input.REQUEST): (State.COMPLETED, (Action.SEND,)),
    (State.COMPLETED, Input.J): (State.TERMINATED, ()),
    (State.COMPLETED, Input.ERROR): (State.TERMINATED, ()),
}

ACCEPT: Final[Table] = {
    (State.ACCEPTED, Input.G): (State.ACCEPTED, (Action.SEND,)),
    (State.ACCEPTED, Input.ACK): (State.TERMINATED, (Action.DELIVER,)),
    (State.ACCEPTED, Input.H): (State.TERMINATED, (Action.UNACKNOWLEDGED,)),
    (State.ACCEPTED, Input.ERROR): (State.TERMINATED, ()),
}


@dataclass(frozen=True, slots=True)
class Timer:
    """A timer of a state.

    first: seconds on UDP. reliable: seconds on TCP, None when it does not run there. cap: repeats, doubling, up to
    this; 0 runs once.
    """

    name: Input
    first: float
    reliable: float | None
    cap: float = 0.0


_A: Final = Timer(Input.A, T1, None, inf)
_E: Final = Timer(Input.E, T1, None, T2)
_E_SLOW: Final = Timer(Input.E, T2, None, T2)
_F: Final = Timer(Input.F, 64 * T1, 64 * T1)
_C: Final = Timer(Input.C, limits.SIP_PROCEEDING_SECONDS, limits.SIP_PROCEEDING_SECONDS)
_U: Final = Timer(Input.U, 64 * T1, 64 * T1)
_M: Final = Timer(Input.M, 64 * T1, 64 * T1)
_H: Final = Timer(Input.H, 64 * T1, 64 * T1)

TIMERS: Final[Mapping[tuple[Kind, State], tuple[Timer, ...]]] = {
    (Kind.INVITE_CLIENT, State.CALLING): (_A, Timer(Input.B, 64 * T1, 64 * T1)),
    (Kind.INVITE_CLIENT, State.PROCEEDING): (_C,),
    (Kind.INVITE_CLIENT, State.ACCEPTED): (_M,),
    (Kind.INVITE_CLIENT, State.ABANDONED): (_M,),
    (Kind.INVITE_CLIENT, State.COMPLETED): (Timer(Input.D, 32.0, 0.0),),
    (Kind.CLIENT, State.TRYING): (_E, _F),
    (Kind.CLIENT, State.PROCEEDING): (_E_SLOW, _F),
    (Kind.CLIENT, State.COMPLETED): (Timer(Input.K, T4, 0.0),),
    (Kind.INVITE_SERVER, State.PROCEEDING): (Timer(Input.T, TRYING_AFTER, TRYING_AFTER), _C),
    (Kind.INVITE_SERVER, State.ACCEPTED): (Timer(Input.L, 64 * T1, 64 * T1),),
    (Kind.INVITE_SERVER, State.COMPLETED): (Timer(Input.G, T1, None, T2), _H),
    (Kind.INVITE_SERVER, State.CONFIRMED): (Timer(Input.I, T4, 0.0),),
    (Kind.SERVER, State.TRYING): (_U,),
    (Kind.SERVER, State.PROCEEDING): (_U,),
    (Kind.SERVER, State.COMPLETED): (Timer(Input.J, 64 * T1, 0.0),),
    (Kind.ACCEPT, State.ACCEPTED): (Timer(Input.G, T1, T1, T2), _H),  # on TCP too: the way back may have other hops
}

TABLES: Final[Mapping[Kind, Table]] = {
    Kind.INVITE_CLIENT: INVITE_CLIENT,
    Kind.CLIENT: CLIENT,
    Kind.INVITE_SERVER: INVITE_SERVER,
    Kind.SERVER: SERVER,
    Kind.ACCEPT: ACCEPT,
}
FIRST: Final = {
    Kind.INVITE_CLIENT: State.CALLING,
    Kind.CLIENT: State.TRYING,
    Kind.INVITE_SERVER: State.PROCEEDING,
    Kind.SERVER: State.TRYING,
    Kind.ACCEPT: State.ACCEPTED,
}


class Transaction:
    """One machine of the tables above. It knows its timers; its owner performs the actions.

    sent: bytes that SEND repeats. filed: the dictionaries and keys where the owner has filed it. scheduled: when the
    owner's heap will look at it. owner: what the owner needs to know when an action comes.
    """

    __slots__ = (
        "_interval",
        "_timers",
        "filed",
        "flow",
        "handle",
        "kind",
        "owner",
        "request",
        "scheduled",
        "sent",
        "state",
        "tag",
    )  # fmt: skip

    def __init__(
        self, kind: Kind, request: Request, flow: Flow, now: float, *, handle: int = 0, sent: bytes = b""
    ) -> None:
        self.kind = kind
        self.request = request
        self.flow = flow
        self.handle = handle
        self.sent = sent
        self.filed: list[tuple[dict[object, Transaction], object]] = []
        self.owner: object = None
        self.tag = ""  # of a server transaction: the To tag of its answers
        self.scheduled = inf
        self.state = FIRST[kind]
        self._interval = 0.0
        self._timers: dict[Input, float] = {}
        self._arm(now)

    @property
    def deadline(self) -> float:
        """The earliest timer; infinite when none runs."""
        return min(self._timers.values(), default=inf)

    @property
    def finished(self) -> bool:
        return self.state is State.TERMINATED

    def push(self, event: Input, now: float) -> tuple[Action, ...]:
        """Take one step; return what to do."""
        row = TABLES[self.kind].get((self.state, event))
        if row is None:
            return ()
        state, actions = row
        if state is not self.state:
            self.state = state
            self._arm(now)
        return actions

    def fire(self, now: float) -> tuple[Action, ...] | None:
        """Fire the earliest timer that is due; None when none is. Call again until None."""
        due = [(at, name.value, name) for name, at in self._timers.items() if at <= now]
        if not due:
            return None
        at, _, name = min(due)
        timer = next(row for row in TIMERS[self.kind, self.state] if row.name is name)
        if timer.cap:
            self._interval = max(timer.first, min(2 * self._interval, timer.cap))
            self._timers[name] = max(at + self._interval, now)
        else:
            del self._timers[name]
        return self.push(name, now)

    def limit(self, name: Input, at: float) -> None:
        """Bring a running timer forward to `at` (after CANCEL, RFC 3261 section 9.1)."""
        if name in self._timers:
            self._timers[name] = min(self._timers[name], at)

    def stop(self, name: Input) -> None:
        self._timers.pop(name, None)

    def _arm(self, now: float) -> None:
        running, self._timers = self._timers, {}
        for timer in TIMERS.get((self.kind, self.state), ()):
            seconds = timer.reliable if self.flow.reliable else timer.first
            if seconds is None:
                continue
            if seconds == 0.0:
                self.push(timer.name, now)
                return
            if timer.cap and timer.name not in running:
                self._interval = seconds
            self._timers[timer.name] = running.get(timer.name, now + seconds)
