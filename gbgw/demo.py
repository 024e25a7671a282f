"""The demo: a gateway on loopback and simulated cameras in processes of their own; everything goes when it ends."""

import asyncio
import ctypes
import os
import signal
import socket
import sys
import tempfile
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

from gbgw.base import config as configuration
from gbgw.base.config import Config
from gbgw.base.errors import GatewayError, LocalError
from gbgw.gateway import Gateway

FIRST_DEVICE = 34020000001110000001
FIRST_CHANNEL = 34020000001310000001
SIP_PORT = 5060
HTTP_PORT = 8080
READY_SECONDS = 30.0  # three are usual; a loaded machine encodes the H.265 pattern slowly
PORT_ATTEMPTS = 16
PR_SET_PDEATHSIG = 1
MEDIA_PORTS = configuration.port_range(Config().media.ports)  # where SIP must not listen
_LIBC = ctypes.CDLL(None)  # loaded before any fork


@dataclass(frozen=True, slots=True)
class DemoCamera:
    device_id: str
    video: str

    @property
    def channel_id(self) -> str:
        return str(FIRST_CHANNEL + int(self.device_id) - FIRST_DEVICE)

    @property
    def key(self) -> str:
        return f"{self.device_id}-{self.channel_id}"

    @property
    def title(self) -> str:
        return {"h264": "H.264 camera", "h265": "H.265 camera"}[self.video]


def free_port(preferred: int, *kinds: socket.SocketKind) -> int:
    """Return `preferred` if it can be bound on loopback for all `kinds` of socket, else a port that can."""
    for asked in (preferred, *(0,) * PORT_ATTEMPTS):
        with ExitStack() as probes:
            port = asked
            try:
                for kind in kinds:
                    probe = probes.enter_context(socket.socket(socket.AF_INET, kind))
                    if kind == socket.SOCK_STREAM:  # connections of a demo before this one may linger
                        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port))
                    port = int(probe.getsockname()[1])
            except OSError:
                continue
            if port not in MEDIA_PORTS:
                return port
    raise LocalError("no free port on loopback", code="ports_exhausted", remedy="stop some programs and try again")


def _die_with(parent: int) -> None:
    """In the child: get SIGTERM when the parent is gone, so that a killed demo leaves no camera behind."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it was gone already
        os._exit(1)


class Demo:
    """`async with Demo(2) as demo`: running and registered inside the block."""

    def __init__(self, cameras: int, overrides: tuple[str, ...] = ()) -> None:
        self.cameras = [DemoCamera(str(FIRST_DEVICE + n), "h264" if n % 2 == 0 else "h265") for n in range(cameras)]
        self._overrides = overrides
        self._exit = AsyncExitStack()
        self._processes: list[asyncio.subprocess.Process] = []
        self.gateway: Gateway
        self.token = ""
        self.remarks: list[str] = []  # what differs from what the documents say

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gbgw-demo-", ignore_cleanup_errors=True))
            self._config = self._configure(folder)
            self.gateway = await stack.enter_async_context(Gateway(self._config, served=True))
            self.token = self.gateway.new_admin_token or ""
            stack.push_async_callback(self._stop_cameras)
            for camera in self.cameras:
                self._processes.append(await self._start_camera(camera))
            await self._registered()
            self._exit = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exit.aclose()

    def _configure(self, folder: str) -> Config:
        sip = free_port(SIP_PORT, socket.SOCK_DGRAM, socket.SOCK_STREAM)
        http = free_port(HTTP_PORT, socket.SOCK_STREAM)
        own = (
            f'sip.listen=["udp://127.0.0.1:{sip}", "tcp://127.0.0.1:{sip}"]',
            f"sip.password={os.urandom(12).hex()}",
            "sip.advertise=127.0.0.1",
            f"http.listen=127.0.0.1:{http}",
            f"store.url=sqlite:///{folder}/gbgw.db",
            "media.transcode=2",
        )
        config = configuration.load(env=os.environ, overrides=(*own, *self._overrides)).config
        if http != HTTP_PORT and config.http.listen.endswith(f":{http}"):
            self.remarks.append(f"port {HTTP_PORT} is taken, so the console is at {http}")
        if sip != SIP_PORT and config.sip.listen[0].endswith(f":{sip}"):
            self.remarks.append(f"port {SIP_PORT} is taken, so SIP is at {sip}")
        return config

    async def _start_camera(self, camera: DemoCamera) -> asyncio.subprocess.Process:
        _, host, port = configuration.split_url(self._config.sip.listen[0], ["udp", "tcp"])
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "gbgw", "device", "--server", f"{host}:{port}", "--server-id", self._config.sip.id),
            *("--domain", self._config.sip.domain, "--id", camera.device_id),
            *("--channels", "1", "--video", camera.video, "--audio", "pcma", "--name", camera.title, "--quiet"),
            env=os.environ | {"GBGW_DEVICE_PASSWORD": self._config.sip.password},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=partial(_die_with, os.getpid()),
        )

    async def _registered(self) -> None:
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not all(self.gateway.is_playable(camera.key) for camera in self.cameras):
                    for camera, process in zip(self.cameras, self._processes, strict=True):
                        if process.returncode is not None:
                            raise LocalError(
                                f"the {camera.title} ended with code {process.returncode}", code="demo_camera_died"
                            )
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise GatewayError(
                f"the simulated cameras did not register within {READY_SECONDS:.0f} s",
                code="demo_not_ready",
                remedy="run gbgw device by hand against this port to see why",
            ) from None

    async def _stop_cameras(self) -> None:
        running = [process for process in self._processes if process.returncode is None]
        for process in running:
            process.terminate()
        try:
            async with asyncio.timeout(2):
                for process in running:
                    await process.wait()
        finally:
            for process in running:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    def play_token(self, key: str) -> str:
        return self.gateway.play_token(key)

    async def wait(self) -> None:
        await self.gateway.wait()
