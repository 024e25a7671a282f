"""How much of the machine is ours: processors and memory, by affinity and by what its control groups leave us (a
container, a unit of a service manager).

Kernel: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/{memory,../scheduler/sched-bwc}.rst. Leaves out: what other
programs use of it just now.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Capacity:
    """cpus: that may be kept busy at once, a share of one counted whole; 1 at least. memory: bytes."""

    cpus: int
    memory: int


def of_this_process(root: Path = Path("/")) -> Capacity:
    """What this process and its children may use. root: where /proc and /sys are found."""
    cpus = float(len(os.sched_getaffinity(0)))
    memory = _memory_of_machine(root)
    for folder in _groups(root):
        cpus = min(cpus, _cpus_of(folder))
        memory = min(memory, _memory_of(folder))
    return Capacity(max(1, ceil(cpus)), int(memory))


def _groups(root: Path) -> Iterator[Path]:
    """The folders of our control groups, of each hierarchy, and of all above them: the tightest limit holds.

    A container may see the name of its group as the host does, but its own group at the top: what is not there is
    passed over.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, name = (*line.split(":", 2), "", "")[:3]
        top = root / "sys/fs/cgroup" / controllers
        group = top / name.strip("/")
        yield group
        yield from (parent for parent in group.parents if parent.is_relative_to(top))


def _cpus_of(group: Path) -> float:
    quota, period = (*_read(group / "cpu.max").split(), "", "")[:2]
    if not quota:  # version 1, where -1 is no limit
        quota, period = _read(group / "cpu.cfs_quota_us").strip(), _read(group / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(period) else float("inf")


def _memory_of(group: Path) -> float:
    for name in ("memory.max", "memory.limit_in_bytes"):
        text = _read(group / name).strip()
        if text.isdecimal():
            return int(text)
    return float("inf")


def _memory_of_machine(root: Path) -> float:
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) << 10
    return float("inf")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
