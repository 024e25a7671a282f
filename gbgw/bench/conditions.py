"""The conditions that stand beside a figure: machine, system, versions. And what this process may open."""

import os
import platform
import resource
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gbgw import __version__
from gbgw.base.errors import LocalError


def conditions() -> dict[str, Any]:
    """Return what is the same for every benchmark on this machine."""
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "load before": round(os.getloadavg()[0], 2),
        "niceness": os.nice(0),  # of the gateway too; other than 0 where the machine had other work to do
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": [f"{name} {_version(name)}" for name in ("av", "aiohttp", "uvloop", "aiortc")],
        "gbgw": __version__,
    }


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "Hardware"):
            return value.strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def allow_files(wanted: int) -> None:
    """Raise the soft limit of open files, ours and our children's, to `wanted`. LocalError where it may not be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise LocalError(
                f"{wanted} open files are needed, {hard} are allowed",
                code="file_limit",
                remedy=f"raise the hard limit (ulimit -Hn {wanted} as root), or ask for fewer streams or viewers",
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
