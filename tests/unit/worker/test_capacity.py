"""What of a machine is ours: its own figures, or the tightest limit of our control groups and those above them."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from gbgw.worker.capacity import Capacity, of_this_process

MEMINFO = "MemTotal:        4096000 kB\nMemFree:          100000 kB\n"
GIB = 1 << 30


def machine(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture(autouse=True)
def _eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


@pytest.mark.parametrize(
    ("files", "cpus", "memory"),
    [
        pytest.param({}, 8, 4_096_000 << 10, id="no control groups"),
        pytest.param(
            {
                "proc/self/cgroup": "0::/system.slice/gbgw.service\n",
                "sys/fs/cgroup/system.slice/gbgw.service/cpu.max": "max 100000\n",
                "sys/fs/cgroup/system.slice/gbgw.service/memory.max": "max\n",
            },
            8,
            4_096_000 << 10,
            id="groups without a limit",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/system.slice/gbgw.service\n",
                "sys/fs/cgroup/system.slice/gbgw.service/cpu.max": "max 100000\n",
                "sys/fs/cgroup/system.slice/gbgw.service/memory.max": f"{GIB}\n",
                "sys/fs/cgroup/system.slice/cpu.max": "150000 100000\n",
                "sys/fs/cgroup/system.slice/memory.max": f"{2 * GIB}\n",
            },
            2,
            GIB,
            id="the tightest of the group and what is above",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/docker/ab12\n",
                "sys/fs/cgroup/cpu.max": "50000 100000\n",
                "sys/fs/cgroup/memory.max": f"{GIB // 2}\n",
            },
            1,
            GIB // 2,
            id="a container that sees its group at the top",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "4:memory:/docker/ab12\n1:cpu,cpuacct:/docker/ab12\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/ab12/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/ab12/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/docker/ab12/memory.limit_in_bytes": f"{GIB}\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            4,
            GIB,
            id="version 1",
        ),
        pytest.param(
            {"proc/self/cgroup": "nonsense\n\n0::\n", "sys/fs/cgroup/cpu.max": "x 0", "sys/fs/cgroup/memory.max": ""},
            8,
            4_096_000 << 10,
            id="what nobody can read",
        ),
    ],
)
def test_capacity(tmp_path: Path, files: Mapping[str, str], cpus: int, memory: int) -> None:
    assert of_this_process(machine(tmp_path, files)) == Capacity(cpus, memory)


def test_this_machine_has_something() -> None:
    found = of_this_process()
    assert 1 <= found.cpus <= 8
    assert found.memory > 64 << 20
