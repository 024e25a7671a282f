"""Many simulated devices in one process: one loop of media, one clean end."""

import asyncio
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from gbgw.base.codec import H264, PCMA, Codec
from gbgw.base.errors import ConfigError, LocalError
from gbgw.base.tally import Tally
from gbgw.base.ticks import HZ
from gbgw.device.device import Device, Media
from gbgw.device.options import DeviceOptions
from gbgw.device.quirks import behaviour
from gbgw.device.sender import PERFECT, Rates
from gbgw.mux.loop import Loop, load_file
from gbgw.mux.pattern import PatternSpec, pattern_loop

STOP_SECONDS: Final = 2.5  # a device's goodbye; what is still there then is cancelled
STAGGER_SECONDS: Final = 0.002  # between two devices that begin: a thousand REGISTERs at once only cost retransmissions


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """`count` devices, the first of which is `device`.

    media: a file, or None for the test pattern. video, audio: of the pattern; of a file only the sound is made anew.
    """

    device: DeviceOptions
    count: int = 1
    media: Path | None = None
    video: Codec = H264
    audio: Codec | None = PCMA
    width: int = 640
    height: int = 360
    gop: int = 25
    quirks: tuple[str, ...] = ()
    rates: Rates = PERFECT
    dump: Path | None = None

    def check(self) -> None:
        """Raise ConfigError for what cannot work."""
        self.device.check()
        if behaviour(self.quirks).scenes and self.media is not None:
            raise ConfigError("a media file does not become another in mid-stream", remedy="--media pattern")
        if not 1 <= self.count <= 10_000:
            raise ConfigError("one process runs 1 to 10000 devices")
        for name, rate in (
            ("loss", self.rates.loss),
            ("reorder", self.rates.reorder),
            ("duplicate", self.rates.duplicate),
        ):
            if not 0.0 <= rate <= 1.0:
                raise ConfigError(f"{name} is 0 to 100 percent")

    def make_loops(self) -> tuple[Loop, tuple[tuple[int, Loop], ...]]:
        """Encode or load the media: what is sent first, and what from so many ticks on. Takes up to two seconds each,
        off the event loop.
        """
        spec = self.pattern
        if spec is None:
            return load_file(self.media or Path(), self.audio), ()
        first, later = pattern_loop(spec), []
        for scene in sorted(behaviour(self.quirks).scenes, key=lambda scene: scene.after):
            spec = scene.change(spec)
            later.append((round(scene.after * HZ), pattern_loop(spec)))
        return first, tuple(later)

    @property
    def pattern(self) -> PatternSpec | None:
        """What is drawn at first; None for a file."""
        if self.media is not None:
            return None
        shape = behaviour(self.quirks)
        return PatternSpec(
            video=self.video,
            audio=self.audio,
            width=self.width,
            height=self.height,
            gop=self.gop,
            b_frames=shape.b_frames,
            seed=self.device.seed,
            open_gop=shape.open_gop,
        )


class Fleet:
    """`async with Fleet(options) as fleet`: the devices run inside the block and unregister at its end."""

    def __init__(self, options: FleetOptions) -> None:
        options.check()
        self._options = options
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []
        self.tally = Tally()
        self.devices: list[Device] = []

    async def __aenter__(self) -> Self:
        options = self._options
        with ThreadPoolExecutor(1, thread_name_prefix="encode") as encoder:
            loop, scenes = await asyncio.get_running_loop().run_in_executor(encoder, options.make_loops)
        media = Media(loop, scenes, behaviour(options.quirks), options.rates, pattern=options.pattern)
        await self._group.__aenter__()
        for index in range(options.count):
            shared = replace(media, dump=options.dump if index == 0 else None)
            device = Device(options.device.numbered(index), shared, tally=self.tally)
            self.devices.append(device)
            name = f"device:{device.options.device_id}"
            self._tasks.append(self._group.create_task(self._run(device, index * STAGGER_SECONDS), name=name))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None or isinstance(error, asyncio.CancelledError):
                await self._stop()
        finally:
            for task in self._tasks:
                task.cancel()
            if isinstance(error, asyncio.CancelledError):  # it may come from the group itself, which knows
                await self._group.__aexit__(kind, error, trace)
            else:
                await self._group.__aexit__(None, None, None)

    @property
    def registered(self) -> int:
        """Devices that are registered just now."""
        return sum(device.registered.is_set() for device in self.devices)

    async def until_registered(self) -> None:
        """Return once every device has been registered."""
        for device in self.devices:
            await device.registered.wait()

    async def _run(self, device: Device, wait: float) -> None:
        await asyncio.sleep(wait)
        try:
            await device.run()
        except OSError as error:
            raise LocalError(
                f"{device.options.device_id} cannot run: {error}",
                code="device_failed",
                remedy="Check the platform's address and the limit of open files.",
            ) from error

    async def _stop(self) -> None:
        for device in self.devices:
            device.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.wait(self._tasks)


async def run(options: FleetOptions, tell: Callable[[str], None]) -> Tally:
    """Run the fleet until SIGTERM or SIGINT; return what was counted."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    fleet = Fleet(options)
    async with fleet, asyncio.TaskGroup() as group:
        watch = group.create_task(_tell_registered(fleet, tell), name="fleet:registered")
        await stop.wait()
        watch.cancel()
    return fleet.tally


async def _tell_registered(fleet: Fleet, tell: Callable[[str], None]) -> None:
    await fleet.until_registered()
    tell(f"registered: {len(fleet.devices)} of {len(fleet.devices)}")
