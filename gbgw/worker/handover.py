"""How a connection gets from control to a media worker: its descriptor and the bytes that were read from it, as one
message of a Unix socket pair (SOCK_SEQPACKET, SCM_RIGHTS)."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from gbgw.base import limits
from gbgw.base.errors import LocalError
from gbgw.base.tally import Tally

_TURN: Final = 64  # connections taken before the loop gets its turn


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends, control's first."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * limits.WORKER_HEAD_BYTES)
    return ours, theirs


class Handover:
    """Control's end. One sender at a time; the others wait for their turn."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._lock = asyncio.Lock()
        self._writable: asyncio.Future[None] | None = None

    def open(self, sock: socket.socket) -> None:
        self._socket = sock

    def close(self) -> None:
        """May be called again."""
        sock, self._socket = self._socket, None
        if sock is not None:
            if self._writable is not None:
                asyncio.get_running_loop().remove_writer(sock.fileno())
                if not self._writable.done():
                    self._writable.set_result(None)
            sock.close()

    async def send(self, connection: socket.socket, head: bytes) -> None:
        """Raises LocalError "worker_lost" when the worker is gone, "worker_slow" when it takes none."""
        try:
            async with asyncio.timeout(limits.WORKER_ANSWER_SECONDS), self._lock:
                while not self._try(connection, head):
                    await self._until_writable()
        except TimeoutError:
            raise LocalError(
                "the media worker takes no more viewers just now",
                code="worker_slow",
                remedy="the machine may be overloaded: look at gbgw_worker_cpu_seconds_total",
            ) from None

    def _try(self, connection: socket.socket, head: bytes) -> bool:
        if self._socket is None:
            raise _gone()
        try:
            # An empty message would look like the end.
            socket.send_fds(self._socket, [head or b"\0"], [connection.fileno()])
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                raise LocalError(
                    "the request is too long to be passed on", code="head_too_long", remedy="shorten its address"
                ) from None
            raise _gone() from error
        return True

    async def _until_writable(self) -> None:
        sock = self._socket
        if sock is None:
            raise _gone()
        loop = asyncio.get_running_loop()
        writable = self._writable = loop.create_future()
        loop.add_writer(sock.fileno(), lambda: None if writable.done() else writable.set_result(None))
        try:
            await writable
        finally:
            self._writable = None
            if self._socket is sock:
                loop.remove_writer(sock.fileno())


class Landing:
    """The worker's end. on_connection: takes the socket, and the head (b"": control's own connection)."""

    def __init__(
        self, sock: socket.socket, on_connection: Callable[[socket.socket, bytes], None], tally: Tally
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._on_connection = on_connection
        self._tally = tally

    def __enter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._on_readable)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def _on_readable(self) -> None:
        for _ in range(_TURN):
            try:
                head, descriptors, flags, _ = socket.recv_fds(self._socket, limits.WORKER_HEAD_BYTES + 1, 1)
            except BlockingIOError:
                return
            except OSError as error:
                self._tally.add("worker.handover_failed", detail=str(error))
                return
            if not head:  # control is gone; its channel says so too
                asyncio.get_running_loop().remove_reader(self._socket.fileno())
                return
            if not descriptors or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                for descriptor in descriptors:
                    socket.close(descriptor)
                self._tally.add("worker.handover_failed", detail="no descriptor is free")
                continue
            os.set_inheritable(descriptors[0], False)
            connection = socket.socket(fileno=descriptors[0])
            connection.setblocking(False)
            self._on_connection(connection, b"" if head == b"\0" else head)


def _gone() -> LocalError:
    return LocalError(
        "the media worker that should serve this died",
        code="worker_lost",
        remedy="play again: another worker takes over; the log says how it died",
    )
