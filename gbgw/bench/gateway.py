"""The gateway under test: `gbgw serve` as a process of its own on loopback, its data in a folder that disappears."""

import asyncio
import ctypes
import os
import signal
import socket
import sys
import tempfile
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from gbgw.base import config as configuration
from gbgw.base.config import Config
from gbgw.base.errors import LocalError
from gbgw.bench.meter import Meter, rate
from gbgw.bench.request import Api

ONE_PROCESS: Final = "media.workers=0"  # a figure by the core is one of one process; --set media.workers=1 wins
READY_SECONDS: Final = 30.0  # three are usual
QUIET_MS: Final = 50.0  # of CPU a second: a spare media worker that still loads takes 500 and more
QUIET_WINDOW_SECONDS: Final = 0.5
STOP_SECONDS: Final = 10.0
PR_SET_PDEATHSIG: Final = 1
_LIBC = ctypes.CDLL(None)  # loaded before any fork


def free_port(kind: socket.SocketKind) -> int:
    """Return a port of loopback that is free for UDP or TCP just now and lies outside the default media ports."""
    media = configuration.port_range(Config().media.ports)
    for _ in range(64):
        with socket.socket(socket.AF_INET, kind) as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in media:
            return port
    raise LocalError("no free port on loopback", code="ports_exhausted", remedy="stop some programs and try again")


def _die_with(parent: int) -> None:
    """In the child: end when the benchmark is gone, however it went."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


class GatewayProcess:
    """`async with GatewayProcess(overrides) as gateway`: ready inside the block.

    overrides: what `gbgw serve --set` takes, after the benchmark's own, so that they win.
    """

    def __init__(self, overrides: tuple[str, ...] = ()) -> None:
        self.password = os.urandom(12).hex()
        self.sip_port = free_port(socket.SOCK_DGRAM)
        self._overrides = (
            f'sip.listen=["udp://127.0.0.1:{self.sip_port}"]',
            f"sip.password={self.password}",
            "sip.advertise=127.0.0.1",
            "http.listen=127.0.0.1:0",
            "auth.play=open",
            "log.level=warning",
            *overrides,
        )
        self.config = configuration.load(overrides=self._overrides).config
        self.shown = [each for each in overrides if each]
        self.url = ""
        self.api: Api
        self.meter: Meter
        self._exit = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gbgw-bench-", ignore_cleanup_errors=True))
            errors = stack.enter_context((Path(folder) / "log").open("w+b"))
            options = [word for each in self._overrides for word in ("--set", each)]
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "gbgw", "serve", *options, "--set", f"store.url=sqlite:///{folder}/gbgw.db"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                preexec_fn=partial(_die_with, os.getpid()),
            )
            stack.push_async_callback(_stop, process)
            token = await self._ready(process, Path(folder) / "log")
            self.api = Api(self.url, token)
            self.meter = Meter(process.pid)
            self._log = Path(folder) / "log"
            self._process = process
            await self._quiet()
            self._exit = stack.pop_all()
        return self

    async def _quiet(self) -> None:
        """Wait until it does nothing: what it uses idle, and empty, is taken off what it uses at work."""
        loop = asyncio.get_running_loop()
        until = loop.time() + READY_SECONDS
        before = self.meter.sample()
        while loop.time() < until:
            await asyncio.sleep(QUIET_WINDOW_SECONDS)
            after = self.meter.sample()
            if rate(before, after) < QUIET_MS:
                return
            before = after

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exit.aclose()

    async def _ready(self, process: asyncio.subprocess.Process, log: Path) -> str:
        assert process.stdout is not None
        token = ""
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not self.url:
                    line = (await process.stdout.readline()).decode().strip()
                    if not line:
                        break
                    name, _, value = line.partition(": ")
                    if name == "admin token":
                        token = value
                    elif name == "console":
                        self.url = value.rstrip("/")
        except TimeoutError:
            self.url = ""
        if not self.url:
            raise LocalError(f"the gateway did not start: {_last_line(log)}", code="gateway_died")
        return token

    def check(self) -> None:
        """Raise LocalError when it has ended."""
        if self._process.returncode is not None:
            raise LocalError(
                f"the gateway ended with code {self._process.returncode}: {_last_line(self._log)}", code="gateway_died"
            )

    def complaints(self) -> list[str]:
        """Lines of its log, which has warnings and errors only."""
        return self._log.read_text(encoding="utf-8", errors="replace").splitlines()

    async def counts(self) -> dict[str, int]:
        """Everything it counts, by name."""
        return dict((await self.api.vars())["counts"])

    async def rtp(self) -> dict[str, int]:
        """packets, lost, late, kernel_drops ... of all streams together."""
        found: dict[str, int] = {}
        for figure in (await self.api.vars())["figures"]:
            name = str(figure["name"])
            if name.startswith("rtp_") and "stream" in figure["labels"] and name != "rtp_jitter_seconds":
                name = name.removeprefix("rtp_")
                found[name] = found.get(name, 0) + int(figure["value"])
        return found

    async def viewers(self, protocol: str) -> dict[str, int]:
        """now, bytes, dropped of one protocol."""
        none = {"now": 0, "bytes": 0, "dropped": 0}
        return dict((await self.api.vars())["viewers"].get(protocol, none))

    async def streams(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            page = await self.api.call("GET", f"/streams?limit=500{after}")
            found += page["items"]
            if not page["next"]:
                return found
            after = f"&after={page['next']}"


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
    await process.communicate()


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
