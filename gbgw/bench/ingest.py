"""`gbgw bench ingest`: what it costs to receive streams that nobody watches."""

import gc
import random
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from gbgw._load import Source
from gbgw.bench.conditions import allow_files
from gbgw.bench.content import content_of
from gbgw.bench.load import Bench, LoadOptions, Progress, bench, load_conditions, scene
from gbgw.bench.meter import Memory, Meter, rate, thread_rates
from gbgw.bench.report import Report
from gbgw.bench.statistics import median
from gbgw.bench.threads import Thread

BASELINE_SECONDS = 3.0
MEMORY_SAMPLES = 8  # over the window: the cached GOPs come and go
SPARE_FILES = 256


async def ingest(options: LoadOptions, progress: Progress, command: str) -> Report:
    """Measure one gateway with `options.streams` streams, nobody watching."""
    allow_files(4 * options.streams + SPARE_FILES)  # the gateway has RTP and RTCP of each
    async with bench(options, progress) as running:
        gateway = running.gateway
        meter = gateway.meter
        before, empty = meter.sample(), meter.memory()
        await progress.wait("idle baseline", min(BASELINE_SECONDS, options.seconds))
        idle = rate(before, meter.sample())
        await running.play(running.cameras.keys)
        await progress.wait("warm-up", options.warmup_seconds)
        running.source.worst_lateness()
        gc.collect()
        sent, received = running.cameras.figures(), await gateway.rtp()
        first = meter.sample()
        memory = []
        for _ in range(MEMORY_SAMPLES):
            await progress.wait("measuring", options.seconds / MEMORY_SAMPLES)
            memory.append(meter.memory())
        last = meter.sample()
        late, _, _ = running.source.worst_lateness()
        sent_after, received_after = running.cameras.figures(), await gateway.rtp()
        gateway.check()
        report = Report(
            f"ingest, {options.streams} streams, "
            + (f"muxed to {', '.join(options.eager)}" if options.eager else "nothing muxed"),
            load_conditions(options, running.loop, running.content, command),
        )
        total = rate(first, last)
        report.add("CPU per stream-second", (total - idle) / options.streams, "ms", "without the idle baseline")
        report.add("streams a core", 1000 * options.streams / max(total - idle, 1e-9), "", "by that figure")
        report.add("CPU in all", total, "ms/s")
        report.add("CPU idle", idle, "ms/s", "all cameras registered, no stream")
        for name, value in list(thread_rates(first, last).items())[:4]:
            report.add(f"CPU of {name}", value / options.streams, "ms", "per stream-second")
        _memory(report, options, running, empty, memory)
        _losses(report, sent, sent_after, received, received_after)
        report.add("sender, worst slot late", late * 1e3, "ms", "above a picture's time the load is not as stated")
        if late > 0.2:
            report.warnings.append(f"the sender was {late:.2f} s late: the machine had no CPU left for it")
        await _verify(running, report)
        return report


def _memory(report: Report, options: LoadOptions, running: Bench, empty: Memory, samples: Sequence[Memory]) -> None:
    count = options.streams
    rss = (median([each.rss for each in samples]) - empty.rss) / count
    pss = (median([each.pss for each in samples]) - empty.pss) / count
    # Streams are anywhere in their GOP, so on average the cache holds half of one.
    gop = running.loop.bitrate / 8 * options.scene.gop / options.scene.frame_rate / 2
    report.add("memory per stream", rss / 1e6, "MB", "RSS, its cached GOP included")
    report.add("memory per stream, PSS", pss / 1e6, "MB")
    report.add("GOP cached per stream", gop / 1e6, "MB", "mean, by the content")
    report.add("memory beside the GOP", (rss - gop) / 1e6, "MB", "per stream, RSS")
    report.add("memory of the empty gateway", empty.rss / 1e6, "MB", "RSS")


def _losses(
    report: Report,
    sent: dict[str, int],
    sent_after: dict[str, int],
    received: dict[str, int],
    received_after: dict[str, int],
) -> None:
    report.add("packets sent", sent_after["packets"] - sent["packets"], "", "in the window, by all cameras")
    report.add(
        "packets received", received_after.get("packets", 0) - received.get("packets", 0), "", "as the gateway counts"
    )
    for name in ("lost", "late", "duplicates", "kernel_drops"):
        value = received_after.get(name, 0)
        report.add(f"packets {name.replace('_', ' ')}", value, "", "since the streams began")
        if value and name in ("lost", "kernel_drops"):
            report.warnings.append(f"{value} packets {name.replace('_', ' ')}")
    unsent = sent_after["unsent"] + sent_after["refused"]
    report.add("packets unsent", unsent, "", "the kernel refused them at the cameras")
    if unsent:
        report.warnings.append(f"{unsent} packets could not be sent: the load is less than stated")


async def _verify(running: Bench, report: Report) -> None:
    """Every stream must play still, or the figures are of something else."""
    streams = await running.gateway.streams()
    playing = sum(each["state"] in ("playing", "lingering") for each in streams)
    report.add("streams playing at the end", playing)
    if playing != len(running.cameras.keys):
        report.warnings.append(f"only {playing} of {len(running.cameras.keys)} streams play at the end")
    for line in running.gateway.complaints()[:3]:
        report.warnings.append(f"the gateway says: {line[:200]}")


async def growth(options: LoadOptions, counts: Sequence[int], progress: Progress, command: str) -> list[Report]:
    """The same with growing numbers of streams: the cost of one must stay flat."""
    return [await ingest(replace(options, streams=count), progress, command) for count in counts]


@dataclass(frozen=True, slots=True)
class Target:
    """Another server's RTP ports. ports: a stream each, `step` apart; with one port all go there. ssrc: of the first.

    pid: the process to measure, None: only the sending side is told.
    """

    host: str
    ports: range
    ssrc: int
    step: int = 2
    pid: int | None = None

    def port(self, index: int) -> int:
        """Return the port of the index-th stream."""
        return self.ports[index * self.step] if len(self.ports) > 1 else self.ports[0]

    @property
    def room(self) -> int | None:
        """Streams that fit; None: any number."""
        return -(-len(self.ports) // self.step) if len(self.ports) > 1 else None


async def send_to(target: Target, options: LoadOptions, progress: Progress, command: str) -> Report:
    """Send to a server that expects the streams already, and measure it where its pid is known."""
    allow_files(options.streams + SPARE_FILES)
    loop = await scene(options.scene, progress)
    content = content_of(loop)
    source = Source(content, line_bits=options.line_mbit * 1e6)
    meter = Meter(target.pid) if target.pid is not None else None
    rng = random.Random(28181)
    kind = socket.SOCK_DGRAM if options.transport == "udp" else socket.SOCK_STREAM
    with ExitStack() as stack:
        sockets = []
        for index in range(options.streams):
            media = stack.enter_context(socket.socket(socket.AF_INET, kind))
            media.settimeout(5.0)
            media.connect((target.host, target.port(index)))
            media.setblocking(False)
            sockets.append(media)
        before = meter.sample() if meter else None
        empty = meter.memory() if meter else None
        await progress.wait("idle baseline", min(BASELINE_SECONDS, options.seconds))
        idle = rate(before, meter.sample()) if meter and before else 0.0
        stack.enter_context(Thread(source, "bench-send"))
        lanes = [
            source.open(
                media.fileno(),
                target.ssrc + index,
                number=rng.getrandbits(16),
                position=rng.random(),
                tcp=options.transport == "tcp",
                segments=options.gso,
            )
            for index, media in enumerate(sockets)
        ]
        await progress.wait("warm-up", options.warmup_seconds + options.scene.gop / options.scene.frame_rate)
        source.worst_lateness()
        first = meter.sample() if meter else None
        sent = sum(source.figures(lane)["packets"] for lane in lanes)
        await progress.wait("measuring", options.seconds)
        last = meter.sample() if meter else None
        memory = meter.memory() if meter else None
        late, _, _ = source.worst_lateness()
        figures = [source.figures(lane) for lane in lanes]
    report = Report(
        f"ingest, {options.streams} streams to {target.host}", load_conditions(options, loop, content, command)
    )
    report.conditions["config"] = "of the other server; not known here"
    if first and last:
        total = rate(first, last)
        report.add("CPU per stream-second", (total - idle) / options.streams, "ms", "without the idle baseline")
        report.add("CPU in all", total, "ms/s")
        report.add("CPU idle", idle, "ms/s")
    if memory and empty:
        report.add("memory per stream", (memory.rss - empty.rss) / options.streams / 1e6, "MB", "RSS")
    report.add("packets sent", sum(each["packets"] for each in figures) - sent, "", "in the window")
    unsent = sum(each["unsent"] + each["refused"] for each in figures)
    report.add("packets unsent", unsent, "", "or refused by its host: nobody listens at that port")
    report.add("sender, worst slot late", late * 1e3, "ms")
    if unsent:
        report.warnings.append(f"{unsent} packets were not taken: is every port open at {target.host}?")
    if meter is None:
        report.warnings.append("CPU and memory are not measured without --pid")
    return report
