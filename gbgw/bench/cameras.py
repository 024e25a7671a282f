"""Simulated cameras as the gateway sees them: recorders that register, answer, and hand their pictures to a Source.

SIP is that of the simulated device (device.role on sip.agent); the media leave by _load.Source, which costs a tenth of
the device's own sender. A recorder has CHANNELS cameras behind one SIP socket, each camera a media socket of its own.
"""

import asyncio
import random
import secrets
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, cast

from gbgw._load import Source
from gbgw.base import limits
from gbgw.base.errors import LocalError
from gbgw.base.machine import TICK, Tick
from gbgw.base.tally import Tally
from gbgw.device.calls import CloseMedia, KeyFrame, OpenMedia, StartMedia
from gbgw.device.link import UdpLink
from gbgw.device.options import DeviceOptions
from gbgw.device.registration import Connect, Left, Registered, Unregistered
from gbgw.device.role import Connected, MediaFailed, MediaOpened, Role, ShellEvent, Start
from gbgw.sip import events as sip
from gbgw.sip.agent import UserAgent
from gbgw.sip.flow import Flow
from gbgw.sip.message import Message

CHANNELS: Final = limits.DEVICE_SESSIONS
FIRST_ID: Final = "34020000001180000001"  # type 118: a network video recorder
ITEMS: Final = 16  # of a catalog message: 8 kB, which loopback carries whole
REGISTER_SECONDS: Final = 30.0
TCP_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How the cameras send.

    positions: where in the round a camera begins, 0..1, in turn by the channel's number; empty: anywhere, by `seed`.
    """

    positions: tuple[float, ...] = ()
    segments: bool = False
    seed: int = 28181


@dataclass(slots=True)
class Camera:
    """One session's media. lane: of the Source, -1 before it sends."""

    plan: OpenMedia
    socket: socket.socket
    lane: int = -1


class Recorder:
    """One device and its channels on one SIP socket; everything happens in callbacks of the loop.

    changed: called when it registered, lost its registration, or began to send.
    """

    def __init__(self, options: DeviceOptions, source: Source, plan: Plan, changed: Callable[[], None]) -> None:
        self.options = options
        self.source = source
        self.plan = plan
        self.changed = changed
        self.tally = Tally()
        self.registered = False
        self.cameras: dict[int, Camera] = {}
        self.lanes: dict[str, int] = {}  # of each channel's newest session, kept when it ends
        self._agent = UserAgent(product="gbgw-bench")
        self._role = Role(self.options, self._agent.new_handle, call_id=secrets.token_hex(12), tag=secrets.token_hex(6))
        self._random = random.Random(f"{self.plan.seed} {self.options.device_id}")
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._link: UdpLink | None = None

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        _, self._link = await loop.create_datagram_endpoint(
            lambda: UdpLink(self._deliver, self.tally), remote_addr=self.options.server
        )
        self._perform(Start())

    def close(self) -> None:
        """Without goodbye: the gateway ends before or is told by nobody."""
        if self._timer is not None:
            self._timer.cancel()
        for handle in list(self.cameras):
            self._close_media(handle)
        if self._link is not None:
            self._link.close()

    def _deliver(self, message: Message, flow: Flow) -> None:
        self._perform(sip.Received(message, flow))

    def _tick(self) -> None:
        self._timer = None
        self._perform(TICK)

    def _perform(self, event: object) -> None:
        """Take one event and all that follows from it."""
        assert self._link is not None
        loop = asyncio.get_running_loop()
        now = loop.time()
        work: deque[object] = deque([event])
        while work:
            item = work.popleft()
            more: tuple[object, ...] = ()
            match item:
                case Tick():
                    more = (*self._agent.push(TICK, now), *self._role.push(TICK, now))
                case sip.Received() | sip.Ask() | sip.End() | sip.Reply():
                    more = tuple(self._agent.push(item, now))
                case sip.Send():
                    self._link.send(item.data)
                case sip.Counted():
                    self.tally.add(f"device.{item.name}", detail=item.detail)
                case OpenMedia():
                    more = (self._open_media(item),)
                case StartMedia():
                    more = self._start_media(item.handle)
                case CloseMedia():
                    self._close_media(item.handle)
                case Connect():
                    more = (Connected(self._link.flow),)
                case Registered():
                    self.registered = True
                    self.changed()
                case Unregistered() | Left():
                    self.registered = False
                    self.changed()
                case KeyFrame():
                    self.tally.add("device.key_frames_asked")  # a camera of a benchmark keeps its GOP
                case _:
                    more = tuple(self._role.push(cast(ShellEvent, item), now))
            work.extendleft(reversed(more))
        self._wind(loop)

    def _wind(self, loop: asyncio.AbstractEventLoop) -> None:
        due = [at for at in (self._agent.deadline, self._role.deadline) if at is not None]
        if not due:
            return
        if self._timer is not None:
            if self._timer_at <= min(due):
                return
            self._timer.cancel()
        self._timer_at = min(due)
        self._timer = loop.call_at(self._timer_at, self._tick)

    # Media

    def _open_media(self, plan: OpenMedia) -> MediaOpened | MediaFailed:
        try:
            if plan.transport == "udp":
                media = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                media.bind(("127.0.0.1", 0))
                media.connect(plan.remote)
                port = int(media.getsockname()[1])
            elif plan.transport == "tcp-active":
                media = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                port = 9  # the discard port: the side that connects names none (RFC 4145 section 4.1)
            else:
                return MediaFailed(plan.handle)
        except OSError as error:
            raise LocalError(f"no socket for a camera: {error}", code="file_limit") from error
        self.cameras[plan.handle] = Camera(plan, media)
        return MediaOpened(plan.handle, ("127.0.0.1", port))

    def _start_media(self, handle: int) -> tuple[MediaFailed, ...]:
        camera = self.cameras.get(handle)
        if camera is None:
            return ()
        if camera.plan.transport != "udp":
            try:
                camera.socket.settimeout(TCP_SECONDS)  # on loopback a connection is there at once or never
                camera.socket.connect(camera.plan.remote)
                camera.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                return (MediaFailed(handle),)
        camera.socket.setblocking(False)
        position = self._random.random()
        if self.plan.positions:
            number = self.options.channel_ids.index(camera.plan.channel_id)
            position = self.plan.positions[number % len(self.plan.positions)]
        camera.lane = self.source.open(
            camera.socket.fileno(),
            camera.plan.ssrc,
            number=self._random.getrandbits(16),
            position=position,
            tcp=camera.plan.transport != "udp",
            segments=self.plan.segments,
        )
        self.lanes[camera.plan.channel_id] = camera.lane
        self.changed()
        return ()

    def _close_media(self, handle: int) -> None:
        camera = self.cameras.pop(handle, None)
        if camera is None:
            return
        if camera.lane >= 0:
            self.source.close(camera.lane)
        camera.socket.close()


class Cameras:
    """`async with Cameras(...)`: so many cameras, registered inside the block. server: where the gateway's SIP is."""

    def __init__(
        self,
        count: int,
        source: Source,
        *,
        server: tuple[str, int],
        server_id: str,
        domain: str,
        password: str,
        plan: Plan | None = None,
    ) -> None:
        first = DeviceOptions(
            FIRST_ID,
            server_id,
            domain,
            server,
            password=password,
            channels=CHANNELS,
            items_per_message=ITEMS,
            keepalive_seconds=30.0,
        )
        self.source = source
        self._news = asyncio.Event()
        self.recorders = [
            Recorder(first.numbered(index), source, plan or Plan(), self._news.set)
            for index in range(-(-count // CHANNELS))
        ]
        self.keys = [
            f"{recorder.options.device_id}-{channel}"
            for recorder in self.recorders
            for channel in recorder.options.channel_ids
        ][:count]

    async def __aenter__(self) -> Self:
        try:
            for recorder in self.recorders:
                await recorder.open()
            async with asyncio.timeout(REGISTER_SECONDS):
                while not all(recorder.registered for recorder in self.recorders):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            self.close()
            raise LocalError("the simulated recorders did not register", code="bench_not_registered") from None
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for recorder in self.recorders:
            recorder.close()

    def lane(self, key: str) -> int | None:
        """Return the lane of a key's newest session; None before it sent."""
        device, _, channel = key.partition("-")
        for recorder in self.recorders:
            if recorder.options.device_id == device:
                return recorder.lanes.get(channel)
        return None

    def figures(self) -> dict[str, int]:
        """packets, bytes, unsent, refused of all cameras together."""
        total = dict.fromkeys(("packets", "bytes", "unsent", "refused"), 0)
        for recorder in self.recorders:
            for lane in recorder.lanes.values():
                figures = self.source.figures(lane)
                for name in total:
                    total[name] += figures[name]
        return total
