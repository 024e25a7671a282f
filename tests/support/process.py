"""A gbgw command as a process: its lines as they come, its end, and what it left behind."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

MEDIA_PORTS = range(30_000, 35_000)  # the configuration's own default


def free_port(kind: socket.SocketKind = socket.SOCK_DGRAM) -> int:
    """A port that is free for UDP (or TCP) on loopback just now."""
    while True:
        with socket.socket(socket.AF_INET, kind) as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in MEDIA_PORTS:
            return port


def is_bound(port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1 if kind == socket.SOCK_STREAM else 0)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def descendants(pid: int) -> list[int]:
    """Process ids below `pid`, all generations."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            children = Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
            for child in map(int, children):
                found += [child, *descendants(child)]
    except (FileNotFoundError, ProcessLookupError):
        return found
    return found


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


class Command:
    """One running `python -m gbgw ...`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.out: list[str] = []
        self.err: list[str] = []
        self._grown = asyncio.Event()

    @property
    def pid(self) -> int:
        return self.process.pid

    async def _read(self, pipe: asyncio.StreamReader, lines: list[str]) -> None:
        while line := await pipe.readline():
            lines.append(line.decode().rstrip("\n"))
            self._grown.set()

    async def line(self, containing: str, seconds: float = 20.0, *, err: bool = False) -> str:
        """Wait for a line of output (or of the log)."""
        lines = self.err if err else self.out
        try:
            async with asyncio.timeout(seconds):
                while True:
                    for line in lines:
                        if containing in line:
                            return line
                    self._grown.clear()
                    await self._grown.wait()
        except TimeoutError:
            raise AssertionError(f"no line {containing!r} in {seconds} s: {self.out} {self.err}") from None

    async def end(self, number: int | None = None, seconds: float = 5.0) -> int:
        """Send a signal, if any, and return the exit code, which must come in time."""
        if number is not None:
            self.process.send_signal(number)
        async with asyncio.timeout(seconds):
            return await self.process.wait()


@asynccontextmanager
async def command(*arguments: str, folder: Path, env: dict[str, str] | None = None) -> AsyncIterator[Command]:
    """Run a gbgw command; at the end of the block it is killed if it still runs, and all of its output is read."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "gbgw", *arguments),
        cwd=folder,
        env=os.environ | {"TMPDIR": str(folder), "PYTHONPATH": os.getcwd()} | (env or {}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    running = Command(process)
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(running._read(process.stdout, running.out), name="test:out")
        tasks.create_task(running._read(process.stderr, running.err), name="test:err")
        try:
            yield running
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    process._transport.close()  # type: ignore[attr-defined]
