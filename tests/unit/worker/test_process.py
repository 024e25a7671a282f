"""A worker's process ends without fail, and says how."""

import errno
import os

import pytest

from gbgw.base.errors import LocalError
from gbgw.worker.process import WorkerProcess


def _refuse(*_: object) -> int:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


@pytest.mark.parametrize("has_pidfd", [True, False], ids=["pidfd", "before Linux 5.3"])
async def test_it_ends_when_it_is_told_to(monkeypatch: pytest.MonkeyPatch, has_pidfd: bool) -> None:
    if not has_pidfd:
        monkeypatch.setattr(os, "pidfd_open", _refuse)
    process = await WorkerProcess.start()
    assert not process.ended
    await process.end()
    assert process.ended
    process.kill()  # of one that is gone: nothing
    assert await process.wait() == "it was ended by SIGKILL"


async def test_what_keeps_it_from_starting_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(LocalError) as failed:
        await WorkerProcess.start()
    assert failed.value.code == "worker_failed"
    assert len(os.listdir("/proc/self/fd")) == before
