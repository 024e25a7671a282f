"""The ICE-lite side of all viewers on one UDP port, sans-IO (RFC 8445, RFC 7675).

A datagram is told apart by its user name while it is STUN, and by its source from then on. Nothing is kept for, or sent
to, a source that has not proved that it knows its viewer's password; what has no business here is dropped without an
answer. An answer is about as long as what asked for it, so that the port amplifies nothing.

A viewer that moves to another source (another network, a NAT that forgot) is followed when it nominates it, but not on
its word: its packets could carry anybody's address. The new source is asked, as a full agent would, and media goes
there only after its answer. Before DTLS is through there is no media, and the handshake itself is the proof.
"""

import secrets
import string
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from gbgw.base import limits
from gbgw.base.tally import Tally
from gbgw.serve import stun
from gbgw.serve.stun import Malformed, Message

Source = tuple[Any, ...]  # as sockets give it: (host, port), and two more with IPv6
_LETTERS: Final = string.ascii_letters + string.digits
_PROBE_PRIORITY: Final = 1_853_824_767  # peer reflexive: (110 << 24) + (32_767 << 8) + 255 (RFC 8445 section 5.1.2.1)


class Send(NamedTuple):
    data: bytes
    source: Source


class Deliver(NamedTuple):
    """Not STUN, and from a source that belongs to this agent: DTLS, SRTP, SRTCP."""

    agent: "Agent"
    data: bytes


class Selected(NamedTuple):
    """The agent has a source to send to, the first or another."""

    agent: "Agent"


Effect = Send | Deliver | Selected


@dataclass(slots=True, eq=False)
class Agent:
    """One viewer's credentials and what is known of its sources.

    is_proven: DTLS is through with `selected`; from then on another source is asked before it is believed. heard_at:
    when `selected` last proved itself, in loop seconds; None before there was one.
    """

    ufrag: str
    password: str
    remote_ufrag: str
    remote_password: str
    selected: Source | None = None
    is_proven: bool = False
    heard_at: float | None = None
    sources: dict[Source, float] = field(default_factory=dict)  # -> when each last proved itself, oldest first
    probe: tuple[bytes, Source, float] | None = None  # transaction, who is asked, when


class Responder:
    """All agents of one port."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._agents: dict[str, Agent] = {}  # by our ufrag
        self._owners: dict[Source, Agent] = {}
        self._probes: dict[bytes, Agent] = {}  # by transaction; one an agent
        self._tie_breaker = secrets.token_bytes(8)

    def __len__(self) -> int:
        return len(self._agents)

    @property
    def sources(self) -> int:
        return len(self._owners)

    def add(self, remote_ufrag: str, remote_password: str) -> Agent:
        """A viewer with credentials of its own (RFC 8445 section 5.3: 24 and 128 bits at least)."""
        while (ufrag := _word(8)) in self._agents:
            continue
        agent = Agent(ufrag, _word(24), remote_ufrag, remote_password)
        self._agents[ufrag] = agent
        return agent

    def remove(self, agent: Agent) -> None:
        """Quiet when it is gone already."""
        if self._agents.pop(agent.ufrag, None) is None:
            return
        for source in agent.sources:
            del self._owners[source]
        agent.sources.clear()
        agent.selected = None
        self._forget_probe(agent)

    def silent(self, now: float) -> list[Agent]:
        """Agents whose chosen source has not proved itself for so long that the viewer no longer consents to be sent
        anything (RFC 7675 section 5.1)."""
        return [
            agent
            for agent in self._agents.values()
            if agent.heard_at is not None and now - agent.heard_at > limits.WEBRTC_CONSENT_SECONDS
        ]

    def push(self, data: bytes, source: Source, now: float) -> list[Effect]:
        """Take one datagram; return what follows from it."""
        if not data or data[0] >= 4:
            owner = self._owners.get(source)
            if owner is None or not data:
                self._tally.add("webrtc.stray")
                return []
            return [Deliver(owner, data)]
        try:
            message = stun.parse(data)
        except Malformed:
            self._tally.add("webrtc.stun_malformed")
            return []
        if message.kind == "request":
            return self._asked(message, source, now)
        if message.kind in ("success", "error"):
            return self._answered(message, source, now)
        return []  # an indication keeps a NAT open and wants nothing

    # Requests

    def _asked(self, request: Message, source: Source, now: float) -> list[Effect]:
        ours, theirs = request.usernames
        agent = self._agents.get(ours)
        if agent is None or theirs != agent.remote_ufrag:
            self._tally.add("webrtc.stun_unknown")
            return []
        key = agent.password.encode()
        if not request.is_from(key):
            self._tally.add("webrtc.stun_refused")
            return []
        if request.unknown:
            return [Send(stun.failure(request, stun.UNKNOWN_ATTRIBUTE, key), source)]
        if stun.ICE_CONTROLLED in request.attributes:
            # A lite agent is controlled for good (RFC 8445 section 6.1.1): the other switches, whatever the numbers.
            self._tally.add("webrtc.role_conflict")
            return [Send(stun.failure(request, stun.ROLE_CONFLICT, key), source)]
        answer = stun.success(request, str(source[0]), int(source[1]), key)
        effects: list[Effect] = [Send(answer, source)]
        if not self._claim(agent, source, now):
            return effects
        if source == agent.selected:
            agent.heard_at = now
        elif request.nominates or self._is_quiet(agent, now):
            effects += self._nominate(agent, source, now)
        return effects

    def _claim(self, agent: Agent, source: Source, now: float) -> bool:
        """Note that this source is the agent's; False when it is another's, who was heard there a moment ago."""
        owner = self._owners.get(source)
        if owner is not None and owner is not agent:
            if now - owner.sources[source] < limits.WEBRTC_SOURCE_HELD_SECONDS:
                self._tally.add("webrtc.source_taken")
                return False
            self._disown(owner, source)
        elif owner is None and len(agent.sources) >= limits.WEBRTC_SOURCES:
            self._disown(agent, next(one for one in agent.sources if one != agent.selected))
        agent.sources.pop(source, None)  # so that the oldest stays first
        agent.sources[source] = now
        self._owners[source] = agent
        return True

    def _disown(self, agent: Agent, source: Source) -> None:
        del agent.sources[source], self._owners[source]
        if agent.selected == source:
            agent.selected = None

    def _is_quiet(self, agent: Agent, now: float) -> bool:
        """Whether the chosen source fell silent: a NAT may have changed it under a viewer that nominates only once."""
        return agent.heard_at is not None and now - agent.heard_at >= limits.WEBRTC_SOURCE_HELD_SECONDS

    def _nominate(self, agent: Agent, source: Source, now: float) -> list[Effect]:
        if agent.selected is None or not agent.is_proven:
            return self._select(agent, source, now)
        if agent.probe is not None and now - agent.probe[2] < limits.WEBRTC_PROBE_SECONDS:
            return []
        self._forget_probe(agent)
        transaction = secrets.token_bytes(12)
        agent.probe = (transaction, source, now)
        self._probes[transaction] = agent
        attributes = [
            (stun.USERNAME, f"{agent.remote_ufrag}:{agent.ufrag}".encode()),
            (stun.PRIORITY, _PROBE_PRIORITY.to_bytes(4, "big")),
            (stun.ICE_CONTROLLED, self._tie_breaker),
        ]
        return [Send(stun.build("request", transaction, attributes, agent.remote_password.encode()), source)]

    def _select(self, agent: Agent, source: Source, now: float) -> list[Effect]:
        agent.selected, agent.heard_at = source, now
        return [Selected(agent)]

    # Answers

    def _answered(self, answer: Message, source: Source, now: float) -> list[Effect]:
        agent = self._probes.get(answer.transaction)
        if agent is None or agent.probe is None or agent.probe[1] != source:
            self._tally.add("webrtc.stray")
            return []
        if not answer.is_from(agent.remote_password.encode()):
            self._tally.add("webrtc.stun_refused")
            return []
        self._forget_probe(agent)
        if answer.kind == "error" or self._owners.get(source) is not agent:
            return []
        self._tally.add("webrtc.moved")
        return self._select(agent, source, now)

    def _forget_probe(self, agent: Agent) -> None:
        if agent.probe is not None:
            del self._probes[agent.probe[0]]
            agent.probe = None


def _word(length: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(length))
