"""One bytes object per chunk, written on every viewer's transport (architecture.md decision 3).

A Fanout is the one sink of a Feed. It writes to its viewers in slices of limits.FANOUT_SLICE and gives the loop its
turn between them; no viewer has a task or a queue of its own. Where a transport's buffer is empty, all that was ever
written to it is with the kernel: those sockets of a slice are written to by the core `_fanout` in one go, and what one
of them does not take goes to its transport, as everything does for the others. The transport's buffer tells who is
slow: such a viewer gets nothing until a chunk that starts a GOP finds its buffer drained, so it never delays another.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from gbgw import _fanout
from gbgw.base import limits
from gbgw.base.errors import GatewayError
from gbgw.base.tally import Tally
from gbgw.mux.feed import Attachment, Chunk, Feed
from gbgw.serve.viewers import Viewer

FrameChunk = Callable[[bytes], bytes]  # how a connection wants a chunk on the wire: as it is, or in a WebSocket frame


def plain(data: bytes) -> bytes:
    return data


def websocket_frame(data: bytes) -> bytes:
    """One unmasked, unfragmented binary frame (RFC 6455 section 5.2)."""
    size = len(data)
    if size < 126:
        return bytes((0x82, size)) + data
    if size < 65_536:
        return b"\x82\x7e" + size.to_bytes(2, "big") + data
    return b"\x82\x7f" + size.to_bytes(8, "big") + data


class Connection:
    """One viewer's transport. `on_end` is called once, when the feed ends or the viewer is given up."""

    __slots__ = (
        "_allowance",
        "_entering",
        "_fd",
        "_low",
        "_on_end",
        "_progress_at",
        "_serial",
        "_started",
        "_tally",
        "_transport",
        "_waiting",
        "ended",
        "frame",
        "socket",
        "viewer",
    )

    def __init__(
        self,
        viewer: Viewer,
        transport: asyncio.Transport,
        *,
        frame: FrameChunk = plain,
        on_end: Callable[[GatewayError | None], None],
        tally: Tally,
    ) -> None:
        self.viewer = viewer
        self.frame = frame
        self.ended = False
        self.socket = -1  # which to write to past the transport, whose buffer is empty; -1: the transport
        self._transport = transport
        self._fd = _plain_socket(transport)
        self._on_end = on_end
        self._tally = tally
        self._allowance = 0  # bytes of the first burst that may still stand in the buffer
        self._serial = 0
        self._started = False  # an init chunk was written
        self._waiting = True  # for a chunk that starts a GOP
        self._entering = True  # in its first GOP since then: it has nothing that leading pictures refer to
        self._low: int | None = None  # while slow: smallest buffer seen
        self._progress_at = 0.0
        viewer.queue = transport.get_write_buffer_size

    def begin(self, burst: Sequence[Chunk], serial: int) -> None:
        """Write what a new viewer gets at once: init and the cached GOP, up to chunk number `serial`."""
        self._serial = serial
        self._started = any(chunk.is_init for chunk in burst)
        self._waiting = not any(chunk.starts_gop for chunk in burst)
        if burst:
            data = b"".join([self.frame(chunk.data) for chunk in burst])
            self._write(data)
            self._allowance = self._transport.get_write_buffer_size()

    def wants(self, serial: int, chunk: Chunk, now: float) -> bool:
        """Is this chunk to be written now? Not where this viewer has it, or is behind and skips it. If so, `socket`
        says where to, until the loop's next turn."""
        if serial <= self._serial or self.ended:
            return False
        self._serial = serial
        if self._transport.is_closing():
            return False
        size = self._transport.get_write_buffer_size()
        self.socket = -1 if size else self._fd
        if chunk.is_init:
            self._started = True
            self._waiting = self._waiting and not chunk.starts_gop
            return True  # small, and everything after it depends on it: slow viewers get it too
        if chunk.starts_gop:
            self._entering = self._waiting
        elif chunk.is_leading and self._entering:
            return False
        if not self._waiting:
            if size <= limits.VIEWER_BUFFER_BYTES:
                self._allowance = 0
            elif size > limits.VIEWER_BUFFER_BYTES + self._allowance:
                self._waiting = True
                self._low = size
                self._progress_at = now
                self.viewer.skips += 1
                self._tally.add("http.viewer_skips", detail=self.viewer.key, now=now)
                self._drop()
                return False
            return True
        if self._started and chunk.starts_gop and size <= limits.VIEWER_BUFFER_BYTES // 4:
            self._waiting = False
            self._low = None
            return True
        if self._low is not None:
            self._drop()
            self._give_up_if_stalled(size, now)
        return False

    def write(self, data: bytes, sent: int = 0) -> None:
        """Write the rest of a chunk in wire form, of which the socket has taken `sent` bytes."""
        if sent < len(data):
            self._transport.write(data[sent:] if sent else data)
        self.viewer.bytes += len(data)

    def skip_to_keyframe(self) -> None:
        """Chunks were dropped before they reached this viewer."""
        if not self.ended:
            self._waiting = True
            self.viewer.skips += 1

    def finish(self, cause: GatewayError | None) -> None:
        """Nothing follows. A viewer that is behind is cut: it would hold its last megabytes for as long as it likes."""
        if self.ended:
            return
        self.ended = True
        if self._low is not None:
            self._transport.abort()
        self._on_end(cause)

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)
            self.viewer.bytes += len(data)

    def _drop(self) -> None:
        self.viewer.dropped += 1
        self._tally.add("http.viewer_dropped_chunks")

    def _give_up_if_stalled(self, size: int, now: float) -> None:
        if self._low is None or size < self._low:
            self._low = size
            self._progress_at = now
        elif now - self._progress_at > limits.VIEWER_STALL_SECONDS:
            self._tally.add("http.viewer_stalled", detail=self.viewer.key, now=now)
            self._transport.abort()
            self.finish(None)


def _plain_socket(transport: asyncio.Transport) -> int:
    """The descriptor of the transport's socket, if what is written there goes on the wire as it is; -1: it does not."""
    socket = transport.get_extra_info("socket")
    return -1 if socket is None or transport.get_extra_info("sslcontext") is not None else socket.fileno()


class _Burst:
    """A sink that stays for one call: what the feed hands a new viewer at once."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []

    def on_chunk(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)

    def on_end(self, cause: GatewayError | None) -> None:
        """The Fanout's own place at the feed says so."""


class Fanout:
    """The viewers of one Feed. Attached to the feed from its first viewer to its last."""

    def __init__(
        self, feed: Feed, *, loop: asyncio.AbstractEventLoop, tally: Tally, on_idle: Callable[["Fanout"], None]
    ) -> None:
        self.feed = feed
        self.ended = False
        self.cause: GatewayError | None = None
        self._loop = loop
        self._tally = tally
        self._on_idle = on_idle
        self._connections: dict[Connection, None] = {}
        self._serial = 0
        self._pending: deque[tuple[int, Chunk]] = deque()
        self._targets: Sequence[Connection] = ()  # of the chunk in hand
        self._next = 0
        self._chunk: tuple[int, Chunk] | None = None
        self._framed: dict[FrameChunk, bytes] = {}
        self._scheduled = False
        self._joining = True
        self._handle: Attachment | None = feed.attach(self)  # replays its cache to us; nobody is there yet
        self._joining = False

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, connection: Connection) -> None:
        """Give it the init and the cached GOP now, the live chunks from here on."""
        if self.ended:
            connection.finish(self.cause)
            return
        burst = _Burst()
        self.feed.attach(burst).detach()
        connection.begin(burst.chunks, self._serial)
        self._connections[connection] = None

    def remove(self, connection: Connection) -> None:
        """Idempotent; the last one out releases the feed."""
        connection.ended = True
        self._connections.pop(connection, None)
        self.release_unused()

    def release_unused(self) -> None:
        """Leave the feed when nobody is here: also for those who never came to add themselves."""
        if not self._connections:
            self._release()

    def on_chunk(self, chunk: Chunk) -> None:
        if self._joining or not self._connections:
            return
        self._serial += 1
        self._pending.append((self._serial, chunk))
        if len(self._pending) > limits.FANOUT_PENDING:
            self._drop_pending()
        elif not self._scheduled:
            self._run()

    def on_end(self, cause: GatewayError | None) -> None:
        while self._pending or self._next < len(self._targets):
            self._slice()
        self.ended = True
        self.cause = cause
        for connection in tuple(self._connections):
            connection.finish(cause)

    def _run(self) -> None:
        """Write slices until the chunks are out, one per turn of the loop when there is more than one."""
        self._scheduled = False
        self._slice()
        if self._pending or self._next < len(self._targets):
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _slice(self) -> None:
        if self._next >= len(self._targets):
            if not self._pending:
                return
            self._targets = tuple(self._connections)
            self._next = 0
            self._framed = {}
            self._chunk = self._pending.popleft()
        if self._chunk is None:
            return
        serial, chunk = self._chunk
        now = self._loop.time()
        ready: dict[FrameChunk, tuple[list[Connection], list[int]]] = {}
        for connection in self._targets[self._next : self._next + limits.FANOUT_SLICE]:
            if not connection.wants(serial, chunk, now):
                continue
            fd = connection.socket
            if fd < 0:
                connection.write(self._in_frame(connection.frame, chunk))
                continue
            group = ready.get(connection.frame)
            if group is None:
                group = ready[connection.frame] = ([], [])
            group[0].append(connection)
            group[1].append(fd)
        for frame, (connections, fds) in ready.items():
            data = self._in_frame(frame, chunk)
            short = dict(_fanout.send_all(fds, data))
            for at, connection in enumerate(connections):
                connection.write(data, short.get(at, len(data)))
        self._next += limits.FANOUT_SLICE

    def _in_frame(self, frame: FrameChunk, chunk: Chunk) -> bytes:
        data = self._framed.get(frame)
        if data is None:
            data = self._framed[frame] = frame(chunk.data)
        return data

    def _drop_pending(self) -> None:
        """The loop cannot follow: let everybody start again at the next key frame; what the decoders need stays."""
        kept = [(serial, chunk) for serial, chunk in self._pending if chunk.is_init]
        self._tally.add("http.fanout_overrun", len(self._pending) - len(kept), now=self._loop.time())
        self._pending = deque(kept[-8:])
        for connection in self._connections:
            connection.skip_to_keyframe()

    def _release(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.detach()
            self._pending.clear()
            self._targets = ()
            self._next = 0
            self._on_idle(self)


class Fanouts:
    """The fan-outs in use, one per feed."""

    def __init__(self, *, tally: Tally) -> None:
        self._tally = tally
        self._fanouts: dict[Feed, Fanout] = {}

    def __len__(self) -> int:
        return len(self._fanouts)

    def __iter__(self) -> Iterator[Fanout]:
        return iter(tuple(self._fanouts.values()))

    def of(self, feed: Feed) -> Fanout:
        """The feed's fan-out; made, and attached, when it has none. May raise what Feed.attach raises."""
        fanout = self._fanouts.get(feed)
        if fanout is None or fanout.ended:
            fanout = Fanout(feed, loop=asyncio.get_running_loop(), tally=self._tally, on_idle=self._forget)
            self._fanouts[feed] = fanout
        return fanout

    def close(self) -> None:
        """The server stops: every viewer ends."""
        for fanout in tuple(self._fanouts.values()):
            fanout.on_end(None)

    def _forget(self, fanout: Fanout) -> None:
        if self._fanouts.get(fanout.feed) is fanout:
            del self._fanouts[fanout.feed]
