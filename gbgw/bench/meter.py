"""CPU time and memory of a process and its children, from /proc (proc(5))."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from gbgw._load import now

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Sample:
    """at: seconds of the monotonic clock. cpu: seconds of all threads so far. by_thread: the same by group."""

    at: float
    cpu: float
    by_thread: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. rss counts shared pages in full, pss their share."""

    rss: int
    pss: int


class Meter:
    """Watches a process tree. pid: its root; LookupError when it is gone."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def processes(self) -> list[int]:
        """The root and its living children, all generations."""
        found, ahead = [], [self.pid]
        while ahead:
            pid = ahead.pop()
            try:
                children = [
                    int(child)
                    for thread in os.listdir(f"/proc/{pid}/task")
                    for child in _read(f"/proc/{pid}/task/{thread}/children").split()
                ]
            except OSError:
                continue
            found.append(pid)
            ahead += children
        if not found:
            raise LookupError(f"process {self.pid} is gone")
        return found

    def sample(self) -> Sample:
        """Return the CPU time used so far."""
        threads: dict[str, float] = {}
        total = 0.0
        for pid in self.processes():
            precise: dict[str, float] = {}
            try:
                for thread in os.listdir(f"/proc/{pid}/task"):
                    name = "main thread" if thread == str(pid) else "other threads"  # Python names them from 3.14 on
                    if pid != self.pid:
                        name = "child processes"
                    spent = int(_read(f"/proc/{pid}/task/{thread}/schedstat").split()[0]) / 1e9
                    precise[name] = precise.get(name, 0.0) + spent
                fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
            except OSError:
                continue
            # stat knows threads that have ended, schedstat knows nanoseconds; without schedstat it says 0
            coarse = (int(fields[11]) + int(fields[12])) / TICKS
            exact = sum(precise.values())
            total += exact if abs(exact - coarse) < 0.1 else coarse
            for name, spent in precise.items():
                threads[name] = threads.get(name, 0.0) + spent
        return Sample(now(), total, threads)

    def memory(self) -> Memory:
        rss = pss = 0
        for pid in self.processes():
            try:
                lines = _read(f"/proc/{pid}/smaps_rollup").splitlines()
            except OSError:
                continue
            values = {
                name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines[1:])
            }
            rss += values.get("Rss", 0)
            pss += values.get("Pss", 0)
        return Memory(rss, pss)


def rate(before: Sample, after: Sample) -> float:
    """CPU milliseconds per second between two samples."""
    return (after.cpu - before.cpu) / (after.at - before.at) * 1e3


def thread_rates(before: Sample, after: Sample) -> dict[str, float]:
    """The same by group of threads, largest first, those below 0.1 ms left out."""
    span = after.at - before.at
    found = {name: (after.by_thread[name] - before.by_thread.get(name, 0.0)) / span * 1e3 for name in after.by_thread}
    return dict(sorted(((k, v) for k, v in found.items() if v >= 0.1), key=lambda item: -item[1]))


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace")
