"""The process of one media worker: started with its two socket pairs, and ended without fail."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final

from gbgw.base.errors import LocalError
from gbgw.worker import handover

_MODULE: Final = "gbgw.worker"


class WorkerProcess:
    """One child process. channel, handover: control's ends; whoever takes them closes them."""

    def __init__(self, process: asyncio.subprocess.Process, channel: socket.socket, passing: socket.socket) -> None:
        self.channel = channel
        self.handover = passing
        self._process = process
        try:
            self._pidfd = os.pidfd_open(process.pid)  # a signal by number could reach another process, or reap this one
        except OSError:  # Linux before 5.3, or a sandbox: then by number, as long as nobody was told of its end
            self._pidfd = -1

    @classmethod
    async def start(cls) -> "WorkerProcess":
        """Raises LocalError "worker_failed" when no process can be had."""
        channel, its_channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        passing, its_passing = handover.pair()
        channel.setblocking(False)
        try:
            with its_channel, its_passing:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",  # what lies in the folder we run in is not imported
                    *("-m", _MODULE, str(its_channel.fileno()), str(its_passing.fileno())),
                    pass_fds=(its_channel.fileno(), its_passing.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,  # its log goes where ours goes
                    env=_environment(),
                )
        except BaseException as error:
            channel.close()
            passing.close()
            if isinstance(error, OSError):
                raise LocalError(
                    f"no media worker can be started: {error.strerror}",
                    code="worker_failed",
                    remedy="look at memory and at the limits of processes and open files",
                ) from error
            raise
        return cls(process, channel, passing)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None

    async def wait(self) -> str:
        """Return how it ended, in words."""
        status = await self._process.wait()
        pidfd, self._pidfd = self._pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)
        if status >= 0:
            return f"it exited with status {status}"
        with contextlib.suppress(ValueError):
            return f"it was ended by {signal.Signals(-status).name}"
        return f"it was ended by signal {-status}"

    async def end(self) -> None:
        """End one that was never used."""
        self.channel.close()
        self.handover.close()
        self.kill()
        await self.wait()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            elif not self.ended:
                self._process.kill()


def _environment() -> dict[str, str]:
    """An environment in which the child finds this very package, installed or not; without settings, which it is told,
    and the secrets among them."""
    root = str(Path(__file__).resolve().parents[2])
    found = os.environ.get("PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GBGW_") or name == "GBGW_STRICT"}
    return {**kept, "PYTHONPATH": f"{root}{os.pathsep}{found}" if found else root}
