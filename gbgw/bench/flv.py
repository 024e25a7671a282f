"""`gbgw bench flv`: one stream to many viewers of HTTP-FLV, what a new viewer waits, and how soon a stream plays."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from gbgw._load import Drain
from gbgw.base.errors import LocalError, PeerError
from gbgw.base.ticks import HZ
from gbgw.bench.cameras import Plan
from gbgw.bench.conditions import allow_files, conditions
from gbgw.bench.gateway import GatewayProcess
from gbgw.bench.load import Bench, LoadOptions, Progress, bench, load_conditions
from gbgw.bench.meter import Meter, rate, thread_rates
from gbgw.bench.report import Report
from gbgw.bench.request import connect, play_request
from gbgw.bench.statistics import quantile
from gbgw.bench.threads import Thread

BASELINE_SECONDS: Final = 3.0
ARRIVALS: Final = 50  # viewers that come before the first of them are waited for
KEY_SECONDS: Final = 20.0  # for a viewer's first key frame, an idle camera's GOP included
STARTS_AT_ONCE: Final = 4
START_LEAD_SECONDS: Final = 0.6  # from the first packet to the first key frame, of every second camera
SPARE_FILES: Final = 256


@dataclass(frozen=True, slots=True)
class FlvOptions:
    """viewers: of one stream. arrivals: single viewers that come to it. starts: idle cameras that a viewer asks for."""

    viewers: int = 500
    arrivals: int = 40
    starts: int = 40
    audio: str = "native"


class Viewers:
    """Connections that a Drain empties; closed with the block."""

    def __init__(self, drain: Drain, *, whole: bool = False) -> None:
        self._drain = drain
        self._whole = whole
        self._news = asyncio.Event()
        self.open: list[tuple[int, socket.socket]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Viewers"]:
        loop = asyncio.get_running_loop()
        with Thread(self._drain, "bench-drain"):
            loop.add_reader(self._drain.news_fd, self._on_news)
            try:
                yield self
            finally:
                loop.remove_reader(self._drain.news_fd)
                for number, connection in self.open:
                    self._drain.close(number)
                    connection.close()
                self.open.clear()

    def _on_news(self) -> None:
        self._drain.heard()
        self._news.set()

    def add(self, url: str) -> int:
        """Ask for `url` once more; return the viewer's number."""
        address, request = play_request(url)
        connection = connect(address)
        try:
            connection.setblocking(False)
            number = self._drain.open(connection.fileno(), whole=self._whole)
        except BaseException:
            connection.close()
            raise
        self.open.append((number, connection))
        connection.send(request)  # smaller than any socket buffer
        return number

    def remove(self, number: int) -> None:
        for entry in self.open:
            if entry[0] == number:
                self.open.remove(entry)
                self._drain.close(number)
                entry[1].close()
                return

    async def seen(self, numbers: Sequence[int]) -> None:
        """Wait until each of them has had a key frame. PeerError when one was refused, LocalError after KEY_SECONDS."""
        waiting = list(numbers)
        try:
            async with asyncio.timeout(KEY_SECONDS):
                while waiting:
                    self._news.clear()
                    waiting = [number for number in waiting if not self._has_key(number)]
                    if waiting:
                        await self._news.wait()
        except TimeoutError:
            raise LocalError(
                f"{len(waiting)} of {len(numbers)} viewers saw no key frame in {KEY_SECONDS:.0f} s", code="no_picture"
            ) from None

    def _has_key(self, number: int) -> bool:
        figures = self._drain.figures(number)
        if figures["ended_at"] is not None:
            status = figures["status"]
            what = f"answered {status}" if status != 200 else f"closed after {figures['bytes']} bytes"
            raise PeerError(
                f"the server {what}", code="viewer_refused", remedy="check the URL: it must be HTTP-FLV of H.264"
            )
        return figures["key_at"] is not None

    def figures(self, number: int) -> dict[str, Any]:
        return self._drain.figures(number)

    def bytes(self) -> list[int]:
        return [self._drain.figures(number)["bytes"] for number, _ in self.open]


async def flv(options: LoadOptions, wanted: FlvOptions, progress: Progress, command: str) -> Report:
    """Measure a gateway with one watched stream."""
    allow_files(3 * wanted.viewers + 6 * wanted.starts + SPARE_FILES)
    many = replace(options, streams=1 + wanted.starts, overrides=("media.linger_seconds=0.5", *options.overrides))
    ticks = options.scene.gop * HZ / options.scene.frame_rate
    lead = max(0.0, (ticks - START_LEAD_SECONDS * HZ) / (options.scene.seconds * HZ))
    async with bench(many, progress, Plan((0.0, lead), options.gso)) as running:
        gateway = running.gateway
        key = running.cameras.keys[0]
        report = Report(
            f"HTTP-FLV, {wanted.viewers} viewers of one stream",
            load_conditions(replace(many, streams=1), running.loop, running.content, command),
        )
        before = gateway.meter.sample()
        await progress.wait("idle baseline", min(BASELINE_SECONDS, options.seconds))
        report.add("CPU idle", rate(before, gateway.meter.sample()), "ms/s", "no stream")
        await running.play([key])
        await progress.wait("warm-up", options.scene.gop / options.scene.frame_rate + 0.5)
        url = f"{gateway.url}/live/{key}.flv?audio={wanted.audio}"
        await _starts(report, running, wanted)
        await _audience(report, url, gateway.meter, options, wanted, progress, gateway)
        gateway.check()
        rtp = await gateway.rtp()
        for name in ("lost", "kernel_drops"):
            if rtp.get(name):
                report.warnings.append(f"{rtp[name]} packets of the camera {name.replace('_', ' ')}")
        for line in gateway.complaints()[:3]:
            report.warnings.append(f"the gateway says: {line[:200]}")
        return report


async def flv_of(
    url: str, pid: int | None, options: LoadOptions, wanted: FlvOptions, progress: Progress, command: str
) -> Report:
    """Measure another server that has a stream at `url`."""
    allow_files(wanted.viewers + SPARE_FILES)
    meter = Meter(pid) if pid is not None else None
    report = Report(f"HTTP-FLV, {wanted.viewers} viewers of {url}", {"command": command, **conditions()})
    report.conditions["window"] = f"{options.seconds:g} s after {options.warmup_seconds:g} s"
    await _audience(report, url, meter, options, wanted, progress, None)
    if meter is None:
        report.warnings.append("CPU is not measured without --pid")
    return report


async def _audience(
    report: Report,
    url: str,
    meter: Meter | None,
    options: LoadOptions,
    wanted: FlvOptions,
    progress: Progress,
    gateway: GatewayProcess | None,
) -> None:
    """One viewer, then single ones that come and go, then all of them, and single ones among all of them."""
    crowd = Viewers(Drain(capacity=wanted.viewers + 1))
    single = Viewers(Drain(capacity=4, tick_seconds=0.0))
    async with crowd.running(), single.running():
        await crowd.seen([crowd.add(url)])
        await _arrivals(report, single, url, wanted, progress, "")
        first = meter.sample() if meter else None
        await progress.wait("baseline with one viewer", min(BASELINE_SECONDS, options.seconds))
        alone = rate(first, meter.sample()) if meter and first else 0.0
        await _gather(crowd, url, wanted.viewers, progress)
        await progress.wait("warm-up", options.warmup_seconds)
        before, bytes_before = (meter.sample() if meter else None), crowd.bytes()
        counted = await gateway.viewers("flv") if gateway else {}
        await progress.wait("measuring", options.seconds)
        after, bytes_after = (meter.sample() if meter else None), crowd.bytes()
        counted_after = await gateway.viewers("flv") if gateway else {}
        if meter and before and after:
            _cost(report, rate(before, after), alone, wanted.viewers, thread_rates(before, after))
            memory = meter.memory()
            report.add("memory", memory.rss / 1e6, "MB", "RSS of the server with all viewers")
        _bytes(report, bytes_before, bytes_after, options.seconds)
        if gateway is not None:
            report.add("bytes sent", (counted_after["bytes"] - counted["bytes"]) / 1e6, "MB", "as the gateway counts")
            report.add("chunks dropped", counted_after["dropped"], "", "for slow viewers")
            if counted_after["dropped"]:
                report.warnings.append(f"{counted_after['dropped']} chunks were kept from slow viewers")
        await _arrivals(report, single, url, wanted, progress, " among all")
        ended = sum(crowd.figures(number)["ended_at"] is not None for number, _ in crowd.open)
        if ended:
            report.warnings.append(f"{ended} viewers lost their connection")


def _cost(report: Report, total: float, alone: float, viewers: int, threads: dict[str, float]) -> None:
    each = (total - alone) / max(viewers - 1, 1)
    report.add("CPU per viewer-second", each, "ms", "above the server with one viewer")
    report.add("viewers a core", 1000 / each if each > 0 else None, "", "by that figure")
    report.add("CPU in all", total, "ms/s")
    report.add("CPU with one viewer", alone, "ms/s", "its stream included")
    for name, value in list(threads.items())[:3]:
        report.add(f"CPU of {name}", value, "ms/s")


def _bytes(report: Report, before: Sequence[int], after: Sequence[int], seconds: float) -> None:
    got = [later - earlier for earlier, later in zip(before, after, strict=True)]
    report.add("bytes received", sum(got) / 1e6, "MB", "by all viewers in the window")
    report.add("fewest per viewer", min(got) * 8 / seconds / 1e6, "Mbit/s")
    report.add("most per viewer", max(got) * 8 / seconds / 1e6, "Mbit/s")
    if min(got) < 0.8 * max(got):
        report.warnings.append("some viewers got less than others: they were skipped, or the window is too short")


async def _gather(crowd: Viewers, url: str, viewers: int, progress: Progress) -> None:
    progress.step("viewers arrive", viewers)
    while len(crowd.open) < viewers:
        numbers = [crowd.add(url) for _ in range(min(ARRIVALS, viewers - len(crowd.open)))]
        await crowd.seen(numbers)
        progress.advance(len(numbers))


async def _arrivals(
    report: Report, single: Viewers, url: str, wanted: FlvOptions, progress: Progress, when: str
) -> None:
    """Single viewers, one after the other: from the request to the last byte of the first key frame."""
    progress.step("single viewers", wanted.arrivals)
    rng = random.Random(28181)
    waited = []
    for _ in range(wanted.arrivals):
        number = single.add(url)
        await single.seen([number])
        figures = single.figures(number)
        waited.append(figures["key_at"] - figures["asked_at"])
        single.remove(number)
        progress.advance(1)
        await asyncio.sleep(rng.uniform(0.005, 0.05))  # at any moment of a picture's time
    for part, name in ((0.5, "p50"), (0.95, "p95"), (1.0, "max")):
        value = quantile(waited, part)
        report.add(
            f"new viewer{when}, {name}",
            value * 1e3 if value is not None else None,
            "ms",
            f"request to first key frame whole, {len(waited)} viewers",
        )


async def _starts(report: Report, running: Bench, wanted: FlvOptions) -> None:
    """Viewers of idle cameras: from the last packet of the camera's first key frame to that frame at the viewer.

    Every second camera begins with a key frame, so that nothing is known of it before; the others send some pictures
    first, which the gateway cannot show but learns from.
    """
    keys = running.cameras.keys[1:]
    running.progress.step("idle cameras", len(keys))
    gate = asyncio.Semaphore(STARTS_AT_ONCE)
    opened: list[float] = []
    found: dict[str, tuple[list[float], list[float]]] = {"at once": ([], []), "later": ([], [])}
    viewers = Viewers(Drain(capacity=2 * STARTS_AT_ONCE, tick_seconds=0.0))

    async def one(key: str) -> None:
        async with gate:
            number = viewers.add(f"{running.gateway.url}/live/{key}.flv?audio={wanted.audio}")
            await viewers.seen([number])
            figures = viewers.figures(number)
            viewers.remove(number)
            lane = running.cameras.lane(key)
            sent = running.source.figures(lane) if lane is not None else {}
            if sent.get("key_at") is None:
                raise LocalError(f"{key} showed a picture before it was sent", code="bench_confused")
            playable, shown = found[
                "later" if sent["key_at"] - sent["first_at"] > START_LEAD_SECONDS / 2 else "at once"
            ]
            playable.append(figures["head_at"] - sent["key_at"])
            shown.append(figures["key_at"] - sent["key_at"])
            opened.append(sent["first_at"] - figures["asked_at"])
            running.progress.advance(1)

    async with viewers.running(), asyncio.TaskGroup() as group:
        for key in keys:
            group.create_task(one(key), name=f"start:{key}")
    rows = [("request to camera's first packet", opened, "INVITE, answer, ACK")]
    for when, (playable, shown) in found.items():
        what = f"key frame {when}"
        told = "first thing sent" if when == "at once" else f"{START_LEAD_SECONDS:g} s after the first packet"
        rows.append((f"{what}, sent to playable", playable, f"{told}; its last packet to the viewer's HTTP head"))
        rows.append((f"{what}, sent to viewer", shown, f"{told}; its last packet to the frame whole at the viewer"))
    for name, values, note in rows:
        for part, label in ((0.5, "p50"), (0.99, "p99"), (1.0, "max")):
            value = quantile(values, part)
            note_of = f"{note}; {len(values)} cameras"
            report.add(f"{name}, {label}", value * 1e3 if value is not None else None, "ms", note_of)


async def growth(
    options: LoadOptions, wanted: FlvOptions, counts: Sequence[int], progress: Progress, command: str
) -> list[Report]:
    """The same with growing audiences: the cost of one viewer must stay flat."""
    return [await flv(options, replace(wanted, viewers=count, starts=0), progress, command) for count in counts]
