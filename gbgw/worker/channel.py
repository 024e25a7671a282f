"""One end of the channel between control and a media worker: messages over a Unix socket pair, questions and their
answers.

Sending never waits: the other end reads all the time, and one that does not is as good as dead (`on_lost`).
"""

import asyncio
import socket
from collections.abc import Callable
from itertools import count
from typing import TypeVar, cast

from gbgw.base import limits
from gbgw.base.errors import GatewayError, LocalError
from gbgw.worker import protocol
from gbgw.worker.protocol import Answer, Decoder, Done, Failed, Message, ProtocolError, Question

T = TypeVar("T", bound=Answer)


class Channel(asyncio.Protocol):
    """on_message: called with each message that is no answer, in order; must not wait. on_lost: called once, with the
    reason, when the other end is gone or speaks nonsense; not after `close`.
    """

    def __init__(self, on_message: Callable[[Message], None], on_lost: Callable[[str], None]) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self._questions: dict[int, asyncio.Future[Answer]] = {}
        self._numbers = count(1)
        self._over = False
        self._gone = asyncio.Event()

    async def open(self, sock: socket.socket) -> None:
        """Take one end of a pair of stream sockets."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=sock)

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._over

    def next_number(self) -> int:
        """For a question, or for what lasts."""
        return next(self._numbers)

    def send(self, message: Message) -> None:
        """Quiet when the other end is gone: `on_lost` told it."""
        transport = self._transport
        if transport is None or self._over:
            return
        if transport.get_write_buffer_size() > limits.WORKER_PENDING_BYTES:
            self._lose("it does not read what it is told")
            return
        transport.write(protocol.encode(message))

    async def ask(self, question: Question, kind: type[T], seconds: float | None = limits.WORKER_ANSWER_SECONDS) -> T:
        """Send a question, whose `ask` came from `next_number`, and return its answer.

        seconds: None waits for as long as there is a channel. Raises the GatewayError that the other end answered,
        LocalError "worker_lost" when it is gone, "worker_slow" when it does not answer.
        """
        if not self.is_open:
            raise lost()
        waiting = self._questions[question.ask] = asyncio.get_running_loop().create_future()
        try:
            self.send(question)
            async with asyncio.timeout(seconds):
                answer = await waiting
        except TimeoutError:
            raise LocalError(
                f"the media worker did not answer within {seconds:g} s",
                code="worker_slow",
                remedy="the machine may be overloaded: look at gbgw_worker_cpu_seconds_total",
            ) from None
        finally:
            self._questions.pop(question.ask, None)
        if isinstance(answer, Failed):
            raise answer.failure.exception()
        if not isinstance(answer, kind):
            raise ProtocolError(f"a media worker answered {type(question).__name__} by {type(answer).__name__}")
        return answer

    def answer(self, ask: int, error: GatewayError | None = None, value: int = 0) -> None:
        if ask:
            self.send(Done(ask, value) if error is None else Failed(ask, protocol.Failure.of(error)))

    def close(self) -> None:
        """End it without a word to `on_lost`. May be called again."""
        self._end()
        if self._transport is not None:
            self._transport.abort()

    async def finish(self) -> None:
        """End it once everything was said."""
        self._end()
        if self._transport is not None:
            self._transport.close()
            await self._gone.wait()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's do not derive from it

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._decoder.push(data):
                if self._over:
                    return
                if isinstance(message, Answer):
                    waiting = self._questions.get(message.to)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(message)
                else:
                    self._on_message(message)
        except ProtocolError as error:
            self._lose(error.message)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone.set()
        self._transport = None
        self._lose("its channel closed" if exc is None else str(exc))

    def _lose(self, reason: str) -> None:
        if self._end():
            if self._transport is not None:
                self._transport.abort()
            self._on_lost(reason)

    def _end(self) -> bool:
        if self._over:
            return False
        self._over = True
        for waiting in self._questions.values():
            if not waiting.done():
                waiting.set_exception(lost())
        return True


def lost(reason: str = "") -> LocalError:
    """The cause of everything that ended with a media worker."""
    return LocalError(
        "the media worker that had the stream died" + (f": {reason}" if reason else ""),
        code="worker_lost",
        remedy="play again: another worker takes over; the log says how it died",
    )
