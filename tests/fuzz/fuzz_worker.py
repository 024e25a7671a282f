"""Fuzz target for gbgw/worker/protocol and channel: any bytes as what the other end of a worker's channel says.

Input: as many bytes as the first says are JSON bodies apart by newlines, each sent behind its right length; the rest
follows as it is.
"""

import asyncio
from typing import Any

from gbgw.base import limits
from gbgw.base.errors import GatewayError
from gbgw.worker import protocol
from gbgw.worker.channel import Channel
from gbgw.worker.protocol import Answer, Decoder, Failed, Message, ProtocolError, Tracks

LOOP = asyncio.new_event_loop()
PIECES = (1, 3, 16, 61)
QUESTIONS = 3


class _Transport:
    """Takes all."""

    def __init__(self) -> None:
        self.aborted = 0

    def abort(self) -> None:
        self.aborted += 1

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        assert len(data) <= limits.WORKER_MESSAGE_BYTES + 4


def stream(data: bytes) -> bytes:
    """The input as bytes of the channel."""
    count = 4 * data[0] if data else 0
    bodies = [body for body in data[1 : 1 + count].split(b"\n") if body]
    return b"".join(len(body).to_bytes(4, "big") + body for body in bodies) + data[1 + count :]


def decode(data: bytes) -> tuple[list[Message], str]:
    """The messages, and why there are no more."""
    decoder = Decoder()
    found: list[Message] = []
    try:
        for message in decoder.push(data):
            found.append(message)
        assert len(decoder._pending) < limits.WORKER_MESSAGE_BYTES + 4
    except ProtocolError as error:
        return found, error.message
    return found, ""


def again(message: Message) -> None:
    """What was understood can be said, and means the same."""
    said = protocol.encode(message)
    (heard,), reason = decode(said)
    assert not reason
    assert protocol.encode(heard) == said  # by their bytes: NaN is not itself
    if isinstance(message, Failed):
        error = message.failure.exception()
        assert isinstance(error, GatewayError)
        assert protocol.Failure.of(error).message == message.failure.message
    if isinstance(message, Tracks):
        for row in message.tracks:
            try:
                track = row.track()
            except ProtocolError:
                continue
            assert protocol.TrackRow.of(track) == row


def check(data: bytes) -> None:
    """The same messages at any cut; nonsense ends the channel, once, and every question with it."""
    said = stream(data)
    messages, reason = decode(said)
    size = PIECES[len(said) % len(PIECES)]
    for message in messages:
        again(message)
    heard: list[Message] = []
    lost: list[str] = []
    channel = Channel(heard.append, lost.append)
    transport: Any = _Transport()
    channel.connection_made(transport)
    waiting: list[asyncio.Future[Answer]] = [LOOP.create_future() for _ in range(QUESTIONS)]
    channel._questions.update(enumerate(waiting, 1))
    for at in range(0, len(said), size):
        channel.data_received(said[at : at + size])
    answers = [message for message in messages if isinstance(message, Answer)]
    assert repr(heard) == repr([message for message in messages if not isinstance(message, Answer)])
    assert (lost, transport.aborted) == (([reason], 1) if reason else ([], 0))
    for number, one in enumerate(waiting, 1):
        fit = [answer for answer in answers if answer.to == number]
        if fit:
            assert repr(one.result()) == repr(fit[0])
        else:
            assert one.done() == bool(reason)
    channel.connection_lost(None)
    assert len(lost) == 1
    assert all(one.done() for one in waiting)
    for one in waiting:
        one.exception()
