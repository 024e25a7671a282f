"""The SIP stack: endpoints, one bounded inbox, one task that drives the one UserAgent, and an async face for users."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

from gbgw.base import limits
from gbgw.base.errors import PeerError
from gbgw.base.machine import Tick
from gbgw.base.strict import is_strict
from gbgw.base.tally import Tally
from gbgw.net.drive import drive
from gbgw.net.endpoints import (
    Address,
    Connection,
    Datagrams,
    local_host_towards,
    open_datagrams,
    open_server,
    plain_host,
)
from gbgw.observe import log
from gbgw.sip import agent
from gbgw.sip.agent import Ask, Effect, End, Event, FlowClosed, Incoming, Rebound, Received, Reply, Send, UserAgent
from gbgw.sip.compose import PRODUCT
from gbgw.sip.flow import Flow
from gbgw.sip.message import Message, Request, Response

CallEvent = agent.Provisional | agent.Final | agent.Failed | agent.Ended
Told = CallEvent | agent.Acknowledged | agent.Cancelled
DialogTold = agent.DialogOpened | agent.DialogOver
Listener = Callable[[CallEvent], None]

_SWEEP_SECONDS: Final = 5.0


class Call:
    """An INVITE of ours and the dialog it opens.

    Iterating gives its events, the last of which is Failed, Ended or a refusal.
    """

    def __init__(self, stack: "SipStack", handle: int, flow: Flow) -> None:
        self.handle = handle
        self.flow = flow
        self._stack = stack
        self._events: deque[CallEvent] = deque()
        self._arrived = asyncio.Event()
        self._over = asyncio.Event()
        self._ending = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> CallEvent:
        while not self._events:
            if self._over.is_set():
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._events.popleft()

    @property
    def over(self) -> bool:
        return self._over.is_set()

    def end(self) -> None:
        """CANCEL or BYE, whatever fits. Idempotent; `ended` tells when the peer has agreed."""
        if not self._ending and not self._over.is_set():
            self._ending = True
            self._stack.submit(End(self.handle))

    async def ended(self) -> None:
        """Wait until nothing more can come. Bound it: a silent peer takes 32 seconds."""
        await self._over.wait()

    async def ask(
        self, method: str, body: bytes = b"", content_type: str | None = None, *, timeout_seconds: float = 10.0
    ) -> Response:
        """Send a request inside the dialog. Raises PeerError with code "timeout" or "transport"."""
        request = Request.new(method, "", body=body, content_type=content_type)
        return await self._stack.request(request, self.flow, timeout_seconds, dialog=self.handle)

    def tell(self, event: CallEvent) -> None:
        """Take an event from the stack."""
        if isinstance(event, agent.Provisional) and len(self._events) >= limits.SIP_CALL_EVENTS:
            self._stack.tally.add("sip.call_events_dropped")
            return
        self._events.append(event)
        refused = isinstance(event, agent.Final) and event.response.status >= 300
        if refused or isinstance(event, agent.Failed | agent.Ended):
            self._over.set()
        self._arrived.set()


class SipStack:
    """SIP over UDP and TCP for one role, platform or device.

    listen: "udp://host:port" and "tcp://host:port"; port 0 takes a free one, told by `flow_to` and `ports`.
    on_incoming: takes a request and returns at once; `reply` answers it later. on_flow_closed: a connection is gone.
    on_event: takes what concerns requests of peers (Acknowledged, Cancelled, Ended) and has no listener.
    on_dialog: takes what becomes of the dialogs of named peers, from their 2xx to their last trace.
    advertise: host in Via and Contact; empty: per peer, by route.
    """

    def __init__(
        self,
        listen: Sequence[str],
        *,
        on_incoming: Callable[[Incoming], None],
        on_flow_closed: Callable[[Flow], None] | None = None,
        on_event: Callable[[Told], None] | None = None,
        on_dialog: Callable[[DialogTold], None] | None = None,
        advertise: str = "",
        tally: Tally | None = None,
        product: str = PRODUCT,
    ) -> None:
        self.tally = tally if tally is not None else Tally()
        self.agent = UserAgent(address=self._address, product=product)
        self._addresses = [Address.parse(url) for url in listen]
        self._on_incoming = on_incoming
        self._on_flow_closed = on_flow_closed
        self._on_event = on_event
        self._on_dialog = on_dialog
        self._advertise = advertise
        self._inbox: asyncio.Queue[Event] = asyncio.Queue()  # bounded for the network: see `received`
        self._listeners: dict[int, tuple[Listener, bool]] = {}
        self._datagrams: list[Datagrams] = []
        self._servers: list[asyncio.Server] = []
        self._connections: dict[int, Connection] = {}
        self._per_host: Counter[str] = Counter()
        self.pending_bytes = 0  # of unfinished messages on all connections
        self._exit = AsyncExitStack()
        self._log = log.get("sip")

    # Life

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._close_sockets)
            for address in self._addresses:
                if address.transport == "udp":
                    self._datagrams.append(await open_datagrams(self, address))
                else:
                    self._servers.append(await open_server(self, address))
            group = await stack.enter_async_context(asyncio.TaskGroup())
            for task in (
                group.create_task(drive(_Guard(self), self._inbox, self._perform), name="sip:agent"),
                group.create_task(self._sweep(), name="sip:idle"),
            ):
                stack.callback(task.cancel)
            self._exit = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._exit.__aexit__(None, None, None)  # what the body raised is not the task group's to wrap
        finally:
            for handle in list(self._listeners):
                self._tell(agent.Failed(handle, "transport"))
            self.agent.forget_dialogs()

    async def _close_sockets(self) -> None:
        gone = [endpoint.gone for endpoint in self._datagrams]
        for server in self._servers:
            server.close()
        for endpoint in self._datagrams:
            endpoint.close()
        for connection in list(self._connections.values()):
            gone.append(connection.gone)
            connection.close()
        if gone:
            await asyncio.wait(gone, timeout=limits.GOODBYE_SECONDS)

    # What users of the stack do

    @property
    def ports(self) -> dict[str, int]:
        """The first port of each transport."""
        found: dict[str, int] = {}
        for endpoint in self._datagrams:
            found.setdefault("udp", endpoint.port)
        for server in self._servers:
            if server.sockets:
                found.setdefault("tcp", server.sockets[0].getsockname()[1])
        return found

    def new_handle(self) -> int:
        return self.agent.new_handle()

    def submit(self, event: Ask | End | Rebound | Reply, listener: Listener | None = None) -> None:
        """Give the user agent an event; what it says of the handle of an Ask goes to `listener` until the last word.

        The last word is Ended or Failed, a refusal, and for other requests than INVITE any final answer.
        """
        if isinstance(event, Ask) and listener is not None:
            self._listeners[event.handle] = (listener, event.request.method == "INVITE")
        self._inbox.put_nowait(event)

    def reply(self, handle: int, response: Response) -> None:
        """Answer a request that `on_incoming` was given."""
        self._inbox.put_nowait(Reply(handle, response))

    async def request(
        self, request: Request, flow: Flow, timeout_seconds: float, *, dialog: int | None = None
    ) -> Response:
        """Send a request other than INVITE and return its final answer, whatever its status.

        Raises PeerError with code "timeout" when none came in time, "transport" when the connection is gone. Cancelled
        or timed out it leaves nothing behind.
        """
        handle = self.new_handle()
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

        def told(event: CallEvent) -> None:
            if answer.done():
                return
            if isinstance(event, agent.Final):
                answer.set_result(event.response)
            elif isinstance(event, agent.Failed):
                answer.set_exception(self._failure(request, flow, event.reason))

        self.submit(Ask(handle, request, flow, dialog), told)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await answer
        except TimeoutError:
            raise self._failure(request, flow, "timeout") from None
        finally:
            if self._listeners.pop(handle, None) is not None:
                self.submit(End(handle))

    def invite(self, request: Request, flow: Flow) -> Call:
        """Send an INVITE. Leaving the Call as a context manager ends it."""
        call = Call(self, self.new_handle(), flow)
        self.submit(Ask(call.handle, request, flow), call.tell)
        return call

    async def connect(self, host: str, port: int) -> Flow:
        """Open a TCP connection. Raises PeerError with code "transport"."""
        try:
            _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection(self), host, port)
        except OSError as error:
            raise PeerError(f"No connection to {host}:{port}: {error}.", code="transport") from error
        if not connection.accepted:
            raise PeerError(f"Too many connections to {host}.", code="transport")
        return connection.flow

    def disconnect(self, flow: Flow) -> None:
        """Close the TCP connection of a flow."""
        connection = self._connections.get(flow.connection)
        if connection is not None:
            connection.close()

    def flow_to(self, host: str, port: int) -> Flow:
        """Return the UDP flow to an address. Raises PeerError when no UDP endpoint reaches it."""
        for endpoint in self._datagrams:
            if endpoint.reaches(host):
                return endpoint.flow_to(host, port)
        raise PeerError(f"No UDP endpoint reaches {host}.", code="transport")

    def contact_host(self, flow: Flow) -> str:
        """Return the address at which the peer of `flow` reaches us."""
        return self._address(flow)[0]

    def figures(self) -> dict[str, object]:
        """Return what metrics show: transactions by (kind, state), messages by (way, method, status), and sizes."""
        return {
            "transactions": self.agent.figures(),
            "messages": dict(self.agent.messages),
            "dialogs": self.agent.dialogs,
            "connections": len(self._connections),
            "inbox": self._inbox.qsize(),
            "pending_bytes": self.pending_bytes,
        }

    # What endpoints tell

    def received(self, message: Message, flow: Flow) -> None:
        if self._inbox.qsize() >= limits.SIP_INBOX:
            self.tally.add("sip.inbox_full", detail=str(flow), now=asyncio.get_running_loop().time())
            return  # UDP repeats it
        self._inbox.put_nowait(Received(message, flow))

    def opened(self, connection: Connection) -> bool:
        host = connection.flow.remote[0]
        full = len(self._connections) >= limits.SIP_CONNECTIONS
        if full or self._per_host[host] >= limits.SIP_CONNECTIONS_PER_HOST:
            self.tally.add("sip.connections_full", detail=host, now=asyncio.get_running_loop().time())
            return False
        self._connections[connection.id] = connection
        self._per_host[host] += 1
        return True

    def closed(self, connection: Connection) -> None:
        self._connections.pop(connection.id, None)
        host = connection.flow.remote[0]
        self._per_host[host] -= 1
        if not self._per_host[host]:
            del self._per_host[host]
        self._inbox.put_nowait(FlowClosed(connection.flow))
        if self._on_flow_closed is not None:
            take = self._on_flow_closed
            self.guarded(lambda: take(connection.flow))

    # Inside

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send(data, flow):
                self._send(data, flow)
            case Incoming():
                self.guarded(lambda: self._on_incoming(effect))
            case agent.DialogOpened() | agent.DialogOver():
                if self._on_dialog is not None:
                    take = self._on_dialog
                    self.guarded(lambda: take(effect))
            case agent.Counted(name, detail):
                self.tally.add(name, detail=detail, now=asyncio.get_running_loop().time())
            case _:
                self._tell(effect)

    def _tell(self, event: Told) -> None:
        known = self._listeners.get(event.handle)
        if known is None:
            if self._on_event is not None:
                take = self._on_event
                self.guarded(lambda: take(event))
            return
        listener, is_invite = known
        if isinstance(event, agent.Acknowledged | agent.Cancelled):
            return
        last = isinstance(event, agent.Failed | agent.Ended)
        if isinstance(event, agent.Final):
            last = not is_invite or event.response.status >= 300
        if last:
            del self._listeners[event.handle]
        self.guarded(lambda: listener(event))

    def guarded(self, call: Callable[[], None]) -> None:
        """Keep a mistake of one user of the stack from ending SIP for all; under GBGW_STRICT it ends the process."""
        try:
            call()
        except Exception:
            self.tally.add("bug.sip")
            self._log.exception("bug")
            if is_strict():
                raise

    def _send(self, data: bytes, flow: Flow) -> None:
        if flow.transport == "tcp":
            connection = self._connections.get(flow.connection)
            if connection is not None:
                connection.send(data)
                return
        else:
            for endpoint in self._datagrams:
                if endpoint.serves(flow):
                    endpoint.send(data, flow)
                    return
            for endpoint in self._datagrams:  # a flow of a process before this one
                if endpoint.reaches(flow.remote[0]):
                    endpoint.send(data, flow)
                    return
        self.tally.add("sip.send_failed", detail=str(flow), now=asyncio.get_running_loop().time())

    def _address(self, flow: Flow) -> tuple[str, int]:
        host = self._advertise or flow.local[0]
        if host in ("", "0.0.0.0", "::"):
            host = plain_host(local_host_towards(flow.remote[0]) or host)
        return host, flow.local[1]

    async def _sweep(self) -> None:
        """Close connections whose peer is silent or stuck."""
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = clock()
            for connection in list(self._connections.values()):
                if connection.overdue(now):
                    self.tally.add("sip.connection_idle", detail=str(connection.flow), now=now)
                    connection.close()

    def _failure(self, request: Request, flow: Flow, reason: str) -> PeerError:
        if reason == "timeout":
            return PeerError(f"{flow} did not answer {request.method}.", code="timeout")
        return PeerError(f"The way to {flow} is gone.", code="transport")


class _Guard:
    """The UserAgent as `drive` sees it: a mistake in it costs one event, not SIP for all."""

    def __init__(self, stack: SipStack) -> None:
        self._stack = stack
        self._agent = stack.agent

    @property
    def deadline(self) -> float | None:
        return self._agent.deadline

    @property
    def finished(self) -> bool:
        return self._agent.finished

    def push(self, event: Event | Tick, now: float) -> Sequence[Effect]:
        made: Sequence[Effect] = ()

        def step() -> None:
            nonlocal made
            made = self._agent.push(event, now)

        self._stack.guarded(step)
        return made
