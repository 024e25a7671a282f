"""Fuzz target: any bytes, as a datagram and as a stream, into the parser, the digest reader and the user agent.

The outcome is a value or a documented error; whole and byte by byte agree; what was written can be read.
"""

from collections.abc import Sequence

from gbgw.base import limits
from gbgw.base.errors import AuthError, SipError
from gbgw.base.machine import TICK
from gbgw.sip.agent import Incoming, Received, Reply, UserAgent
from gbgw.sip.digest import Authorization, Challenge
from gbgw.sip.flow import Flow
from gbgw.sip.message import Message, Response
from gbgw.sip.parse import Ping, RefusedError, StreamParser, parse, serialize

UDP = Flow("udp", ("192.0.2.1", 5060), ("192.0.2.10", 5062))
TCP = Flow("tcp", ("192.0.2.1", 5060), ("192.0.2.10", 5062), 1)


def streamed(data: bytes, piece: int, *, mends: bool = False) -> list[object]:
    """Return what a stream, and then silence, gives in pieces of a size; refusals by their text."""
    parser = StreamParser(mends=mends)
    found: list[object] = []

    def keep(items: Sequence[Message | RefusedError | Ping]) -> bool:
        for item in items:
            found.append((item.message, item.fatal) if isinstance(item, RefusedError) else item)
        assert parser.pending_bytes <= limits.SIP_STREAM_BYTES
        return bool(items)

    for start in range(0, len(data), piece):
        keep(parser.push(data[start : start + piece]))
    while keep(parser.quiet()):
        pass
    assert mends or parser.quiet_seconds is None
    return found


def examine(message: Message) -> None:
    """Look at everything the layers above look at."""
    assert parse(serialize(message)) == message
    for name in ("Authorization", "WWW-Authenticate"):
        for text in message.headers.all(name):
            for read in (Authorization.parse, Challenge.parse):
                try:
                    read(text)
                except AuthError:
                    continue
    _ = message.expires, message.content_type, message.user_agent
    try:
        _ = message.contacts, message.vias
    except SipError:
        return


def converse(messages: list[Message], flow: Flow) -> None:
    """Give messages to a user agent that answers all, and let it run to its end."""
    agent = UserAgent()
    now = 0.0
    for message in messages:
        for effect in agent.push(Received(message, flow), now):
            if isinstance(effect, Incoming):
                agent.push(Reply(effect.handle, Response.to(effect.request, 200)), now)
        now += 0.1
    steps = 0
    while (at := agent.deadline) is not None:
        now = max(now, at)
        agent.push(TICK, now)
        steps += 1
        assert steps < 1000 * (1 + len(messages)), "timers without end"
    assert agent.transactions == 0


def check(data: bytes) -> None:
    """Raise AssertionError, or anything undocumented, when `data` shows a mistake."""
    messages: list[Message] = []
    answer = None
    try:
        messages.append(parse(data))
    except RefusedError as error:
        answer = error.answer
    if answer is not None:  # what it copies stays in its line
        assert serialize(answer).count(b"\r\n") == len(answer.headers) + 3
    piece = 1 if len(data) < 128 else 1 + len(data) % 61
    whole = streamed(data, len(data) or 1)
    assert whole == streamed(data, piece)
    mended = streamed(data, len(data) or 1, mends=True)
    assert mended == streamed(data, piece, mends=True)
    messages += [item for item in (*whole, *mended) if not isinstance(item, tuple | Ping)]  # type: ignore[misc]
    for message in messages:
        examine(message)
    converse(messages, (UDP, TCP)[len(data) % 2])
