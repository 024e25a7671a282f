"""Ratios inside one run: the only figures CI may gate on (style.md section 5).

Benchmarks of one `group` whose param ids name the implementation ("core", and "model" or "ffmpeg") are compared: after
the run one line per group says how many times faster the core is. GBGW_BENCH_MINIMUM="group=ratio,..." fails the run
where a ratio is smaller.
"""

import os
from collections import defaultdict
from typing import Any

import pytest

CORE = "core"
BASELINES = ("model", "ffmpeg")


def ratios(benchmarks: list[Any]) -> dict[tuple[str, str], float]:
    """Return (group, baseline) -> median of the baseline ÷ median of the core."""
    medians: dict[str, dict[str, float]] = defaultdict(dict)
    for bench in benchmarks:
        for part in (bench.param or "").split("-"):
            if bench.group and part in (CORE, *BASELINES):
                medians[bench.group][part] = bench.stats.median
    return {
        (group, name): found[name] / found[CORE]
        for group, found in medians.items()
        for name in BASELINES
        if CORE in found and name in found and found[CORE] > 0
    }


def wanted(text: str) -> dict[str, float]:
    return {group: float(ratio) for group, _, ratio in (part.partition("=") for part in text.split(",") if part)}


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    found = ratios(getattr(getattr(session.config, "_benchmarksession", None), "benchmarks", []))
    minimum = wanted(os.environ.get("GBGW_BENCH_MINIMUM", ""))
    missed = [group for (group, _), ratio in found.items() if ratio < minimum.get(group, 0.0)]
    missed += [group for group in minimum if group not in {name for name, _ in found}]
    session.config.stash[_FOUND] = (found, missed)
    if missed and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


_FOUND = pytest.StashKey[tuple[dict[tuple[str, str], float], list[str]]]()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    found, missed = config.stash.get(_FOUND, ({}, []))
    if found:
        terminalreporter.section("times faster than the baseline in this run (medians)")
    for (group, name), ratio in sorted(found.items()):
        terminalreporter.line(f"{group:40} core : {name:7} {ratio:10.1f}")
    for group in missed:
        terminalreporter.line(f"{group}: below its minimum, or not run", red=True)
