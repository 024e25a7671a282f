"""What every benchmark with cameras shares: the options, the content, the gateway and the cameras in front of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from gbgw._load import Content, Source
from gbgw.bench.cameras import Cameras, Plan
from gbgw.bench.conditions import conditions
from gbgw.bench.content import content_of
from gbgw.bench.gateway import ONE_PROCESS, GatewayProcess
from gbgw.bench.threads import Thread
from gbgw.mux.loop import Loop
from gbgw.mux.scene import SceneSpec, scene_loop

STARTS_AT_ONCE = 32  # streams that are being opened


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """streams: cameras. seconds: of the steady window. warmup_seconds: before it, after the last stream plays.

    line_mbit: of a camera's Ethernet port, which spaces its packets; 0: a picture at once. gso: the marked extra.
    """

    streams: int = 100
    seconds: float = 10.0
    warmup_seconds: float = 3.0
    scene: SceneSpec = field(default_factory=SceneSpec)
    transport: Literal["udp", "tcp"] = "udp"
    eager: tuple[str, ...] = ()
    line_mbit: float = 100.0
    gso: bool = False
    overrides: tuple[str, ...] = ()

    def configuration(self) -> tuple[str, ...]:
        """What the gateway is told, beside its defaults."""
        own = [f"media.sessions={max(2_000, self.streams)}", ONE_PROCESS]
        if self.eager:
            own.append("media.eager=[" + ",".join(f'"{name}"' for name in self.eager) + "]")
        if self.transport == "tcp":
            own.append("media.transport=tcp-passive")
        return (*own, *self.overrides)


class Progress(Protocol):
    """Shows how far it is; `wait` is how benchmarks let time pass."""

    def step(self, text: str, total: float = 0.0) -> None: ...
    def advance(self, amount: float) -> None: ...
    async def wait(self, text: str, seconds: float) -> None: ...


@dataclass(slots=True)
class Bench:
    """A running gateway with registered cameras."""

    gateway: GatewayProcess
    cameras: Cameras
    source: Source
    content: Content
    loop: Loop
    progress: Progress

    async def play(self, keys: list[str]) -> None:
        """Start streams and return when all of them play. Raises the first refusal."""
        self.progress.step("opening streams", len(keys))
        gate = asyncio.Semaphore(STARTS_AT_ONCE)

        async def one(key: str) -> None:
            async with gate:
                await self.gateway.api.call("POST", "/streams", {"key": key})
                self.progress.advance(1)

        async with asyncio.TaskGroup() as group:
            for key in keys:
                group.create_task(one(key), name=f"play:{key}")


_loops: dict[SceneSpec, Loop] = {}  # of this process: --repeat and --growth send the same


async def scene(spec: SceneSpec, progress: Progress) -> Loop:
    if spec not in _loops:
        progress.step("encoding what the cameras send")
        _loops[spec] = await asyncio.to_thread(scene_loop, spec)
    return _loops[spec]


@asynccontextmanager
async def bench(options: LoadOptions, progress: Progress, plan: Plan | None = None) -> AsyncIterator[Bench]:
    """A gateway and its cameras, registered, none of them playing yet."""
    loop = await scene(options.scene, progress)
    content = content_of(loop)
    source = Source(content, line_bits=options.line_mbit * 1e6)
    progress.step("starting the gateway")
    gateway = GatewayProcess(options.configuration())
    sip = gateway.config.sip
    with Thread(source, "bench-send"):
        async with gateway:
            cameras = Cameras(
                options.streams,
                source,
                server=("127.0.0.1", gateway.sip_port),
                server_id=sip.id,
                domain=sip.domain,
                password=gateway.password,
                plan=plan or Plan(segments=options.gso),
            )
            async with cameras:
                await _known(gateway, cameras, progress)
                yield Bench(gateway, cameras, source, content, loop, progress)


async def _known(gateway: GatewayProcess, cameras: Cameras, progress: Progress) -> None:
    """Wait until the gateway has every camera's catalog."""
    progress.step("registering")
    async with asyncio.timeout(30.0):
        for recorder in cameras.recorders:
            path = f"/devices/{recorder.options.device_id}/channels?limit=500"
            while len((await gateway.api.call("GET", path))["items"]) < recorder.options.channels:
                gateway.check()
                await asyncio.sleep(0.1)


def load_conditions(options: LoadOptions, loop: Loop, content: Content, command: str) -> dict[str, Any]:
    """Machine and load, for the report."""
    spec = options.scene
    gso = ", GSO: the kernel cuts large datagrams, which no camera does" if options.gso else ""
    pace = f"packets spaced as by a {options.line_mbit:g} Mbit/s port" if options.line_mbit else "a picture at once"
    return {
        "command": command,
        **conditions(),
        "cameras": f"{options.streams}, {options.transport.upper()}, {pace}, out of phase, a socket each{gso}",
        "video": f"H.264 {spec.width}x{spec.height} {spec.frame_rate}/s GOP {spec.gop}",
        "sound": loop.audio.name if loop.audio is not None else "none",
        "bitrate": f"{loop.bitrate / 1e6:.2f} Mbit/s a stream with sound",
        "packets": f"{content.packets * 90_000 / content.duration:.0f}/s a stream, {content.max_payload} bytes",
        "config": options.configuration(),
        "window": f"{options.seconds:g} s after {options.warmup_seconds:g} s",
    }
