"""`gbgw bench sip`: REGISTER with digest, as fast as the gateway answers, and at a given rate."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

from gbgw.base.errors import LocalError
from gbgw.bench.conditions import allow_files, conditions
from gbgw.bench.gateway import ONE_PROCESS, GatewayProcess
from gbgw.bench.load import Progress
from gbgw.bench.meter import Sample, rate
from gbgw.bench.registrants import Setup
from gbgw.bench.report import Report

BASELINE_SECONDS: Final = 2.0
SPARE_FILES: Final = 256
ANSWER_SECONDS: Final = 660.0


@dataclass(frozen=True, slots=True)
class SipOptions:
    """rate: REGISTER requests a second in the second part; half of them are challenged, half succeed.

    window: registrations under way at once in the first part.
    """

    devices: int = 2_000
    window: int = 64
    rate: float = 5_000.0
    seconds: float = 10.0
    overrides: tuple[str, ...] = ()


class Client:
    """The process of the devices."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def run(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        async with asyncio.timeout(ANSWER_SECONDS):
            line = await self._process.stdout.readline()
        if not line:
            raise LocalError("the process of the devices died", code="load_died")
        return dict(json.loads(line))


@asynccontextmanager
async def client(setup: Setup) -> AsyncIterator[Client]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "gbgw.bench.registrants"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(asdict(setup)).encode() + b"\n")
        yield Client(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def sip(options: SipOptions, progress: Progress, command: str) -> Report:
    """Measure one gateway's registrar."""
    allow_files(options.devices + SPARE_FILES)
    report = Report(f"REGISTER with digest, {options.devices} devices", {"command": command, **conditions()})
    progress.step("starting the gateway")
    overrides = (ONE_PROCESS, *options.overrides)
    async with GatewayProcess(overrides) as gateway:
        config = gateway.config.sip
        setup = Setup(gateway.sip_port, config.id, config.domain, gateway.password, options.devices)
        sockets = min(setup.sockets, setup.devices)
        report.conditions["devices"] = (
            f"{setup.devices} on {sockets} UDP sockets, one process; MD5, a challenge each time"
        )
        report.conditions["transactions"] = "on: every request is remembered for 32 s (RFC 3261 timer J)"
        report.conditions["config"] = overrides
        report.conditions["window"] = f"{options.seconds:g} s each"
        async with client(setup) as devices:
            progress.step("registering all devices")
            first = await devices.run(run="first", window=options.window)
            if first["registrations"] != options.devices:
                report.warnings.append(f"only {first['registrations']} of {options.devices} devices registered")
            before = gateway.meter.sample()
            await progress.wait("idle baseline", BASELINE_SECONDS)
            idle = rate(before, gateway.meter.sample())
            report.add("CPU idle", idle, "ms/s", "all devices registered")
            progress.step("as fast as it goes")
            begin = gateway.meter.sample()
            found = await devices.run(run="refresh", seconds=options.seconds, window=options.window)
            _add(report, "as fast as it goes", found, begin, gateway.meter.sample(), idle)
            if options.rate:
                progress.step(f"at {options.rate:g} requests a second")
                begin = gateway.meter.sample()
                found = await devices.run(run="refresh", seconds=options.seconds, rate=options.rate / 2)
                _add(report, f"at {options.rate:g}/s", found, begin, gateway.meter.sample(), idle)
            seen = await gateway.api.vars()
            report.add("tasks", len(seen["tasks"]), "", "in the gateway, right after")
            memory = gateway.meter.memory()
            report.add("memory", memory.rss / 1e6, "MB", "RSS, right after")
        gateway.check()
        for line in gateway.complaints()[:3]:
            report.warnings.append(f"the gateway says: {line[:200]}")
    return report


def _add(report: Report, name: str, found: dict[str, Any], begin: Sample, end: Sample, idle: float) -> None:
    seconds = found["seconds"]
    requests = found["requests"]
    busy = (end.cpu - begin.cpu) - idle / 1e3 * (end.at - begin.at)
    report.add(f"{name}: REGISTER requests", requests / seconds, "/s", "half are challenged, half succeed")
    report.add(f"{name}: registrations", found["registrations"] / seconds, "/s")
    for label, key in (("request", "request"), ("registration", "registration")):
        for part, value in zip(("p50", "p99", "max"), found[key], strict=True):
            report.add(f"{name}: {label} answered, {part}", value * 1e3 if value is not None else None, "ms")
    report.add(f"{name}: CPU per request", busy / max(requests, 1) * 1e6, "µs", "without the idle baseline")
    report.add(f"{name}: CPU of the gateway", (end.cpu - begin.cpu) / (end.at - begin.at) * 1e3, "ms/s")
    report.add(f"{name}: CPU of the devices", found["cpu"] / seconds * 1e3, "ms/s", "another process")
    report.add(f"{name}: repeated", found["repeated"], "", "after 500 ms without an answer")
    if found["failed"]:
        report.warnings.append(f"{name}: {found['failed']} registrations failed")
    if found["late"]:
        report.warnings.append(f"{name}: {found['late']} could not begin when they should: the rate is too high")
