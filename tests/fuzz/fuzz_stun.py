"""Fuzz target for gbgw/serve/stun and ice: datagrams of any kind and source to the port that all viewers share.

Input: one doing after the other, of one byte of what, one of length, and bytes. Bits 0, 1 of what: from which of four
sources. Bits 2, 3: 0 the bytes as they are; 1 as attributes of a message with the right length and fingerprint; 2 as
attributes of a request that is signed; 3 as those of a signed answer to what the port asked last. Bit 4: nominated. Bit
5: of the other viewer. Bit 6: DTLS is through. Bit 7: seconds go by.
"""

import binascii
import struct
from collections.abc import Iterator
from itertools import count

from gbgw.base import limits
from gbgw.base.tally import Tally
from gbgw.serve import ice, stun
from gbgw.serve.ice import Agent, Deliver, Responder, Send, Source

SOURCES: tuple[Source, ...] = (
    *(("192.0.2.1", 4_000), ("192.0.2.1", 4_001), ("198.51.100.9", 4_000)),
    ("2001:db8::1", 4_000, 0, 0),
)
LONGER_BYTES = 24  # an answer may be so much longer than what asked for it


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """As they stand in the bytes; what is cut is left out."""
    at = 0
    while at + 4 <= len(data):
        name, size = struct.unpack_from(">HH", data, at)
        if at + 4 + size > len(data):
            return
        if name not in (stun.MESSAGE_INTEGRITY, stun.FINGERPRINT):
            yield name, data[at + 4 : at + 4 + size]
        at += 4 + size + -size % 4


def wrapped(data: bytes) -> bytes:
    """A message whose attributes are these bytes, with a fingerprint that is right."""
    body = data + bytes(-len(data) % 4)
    before = struct.pack(">HHI12s", stun.BINDING, len(body) + 8, stun.COOKIE, b"transaction!") + body
    return before + struct.pack(">HHI", stun.FINGERPRINT, 4, binascii.crc32(before) ^ 0x5354554E)


def check(data: bytes) -> None:
    """Nothing but Malformed; nobody is followed or heard who has not proved himself; every table is bounded."""
    responder = Responder(Tally())
    agents = viewers(responder)
    at, now, asked = 0, 100.0, b""
    while at + 2 <= len(data):
        what, length = data[at], data[at + 1]
        body = data[at + 2 : at + 2 + length]
        at += 2 + length
        now += 40.0 if what & 0x80 else 0.5
        agent, source = agents[what >> 5 & 1], SOURCES[what & 3]
        agent.is_proven = agent.is_proven or bool(what & 0x40)
        kind = what >> 2 & 3
        datagram = (body, wrapped(body), request(agent, body, bool(what & 0x10)), answer(agent, asked, body))[kind]
        before = [(one.selected, list(one.sources)) for one in agents]
        effects = responder.push(datagram, source, now)
        for effect in effects:
            if isinstance(effect, Send):
                assert effect.source == source
                assert len(effect.data) <= len(datagram) + LONGER_BYTES
                sent = stun.parse(effect.data)
                asked = effect.data if sent.kind == "request" else asked
            elif isinstance(effect, Deliver):
                assert source in effect.agent.sources
                assert effect.data == datagram
            else:
                assert effect.agent.selected == source
        if kind < 2:  # no signature
            assert [(one.selected, list(one.sources)) for one in agents] == before
        assert responder.sources == sum(len(one.sources) for one in agents)
        for one in agents:
            assert len(one.sources) <= limits.WEBRTC_SOURCES
            assert one.selected is None or one.selected in one.sources
        responder.silent(now)
    for agent in agents:
        responder.remove(agent)
    assert (len(responder), responder.sources) == (0, 0)


def viewers(responder: Responder) -> list[Agent]:
    """Two; their own names are no matter of chance, which would be another input."""
    numbers, by_chance = count(10_000_000), ice._word
    ice._word = lambda length: f"{next(numbers):0{length}d}"
    try:
        return [responder.add(f"them{number}", f"their password {number} of 24") for number in range(2)]
    finally:
        ice._word = by_chance


def request(agent: Agent, body: bytes, is_nominated: bool) -> bytes:
    found = [(stun.USERNAME, f"{agent.ufrag}:{agent.remote_ufrag}".encode()), *attributes(body)]
    if is_nominated:
        found.append((stun.USE_CANDIDATE, b""))
    made = stun.build("request", b"transaction!", found, agent.password.encode())
    message = stun.parse(made)
    assert message.is_from(agent.password.encode())
    assert not message.is_from(b"another password")
    assert message.usernames == (agent.ufrag, agent.remote_ufrag)
    return made


def answer(agent: Agent, asked: bytes, body: bytes) -> bytes:
    transaction = stun.parse(asked).transaction if asked else bytes(12)
    kind = "error" if body[:1] == b"e" else "success"
    return stun.build(kind, transaction, attributes(body), agent.remote_password.encode())
