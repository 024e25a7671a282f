"""`gbgw bench hls`: one stream to many players that poll, by whole segments or by low-latency parts."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urljoin, urlsplit

from gbgw._load import now
from gbgw.base.errors import LocalError, PeerError
from gbgw.bench.conditions import allow_files, conditions
from gbgw.bench.gateway import GatewayProcess
from gbgw.bench.load import LoadOptions, Progress, bench, load_conditions
from gbgw.bench.meter import Meter, rate, thread_rates
from gbgw.bench.playlist import Playlist, parse
from gbgw.bench.report import Report
from gbgw.bench.statistics import quantile

READ_BYTES: Final = 256 << 10
BASELINE_SECONDS: Final = 4.0
OPEN_SECONDS: Final = 30.0
REQUEST_SECONDS: Final = 20.0
ARRIVALS: Final = 20  # players that open at once
SPARE_FILES: Final = 256


@dataclass(slots=True)
class Counted:
    """One player. gaps: segments or parts that were gone before it came for them."""

    requests: int = 0
    bytes: int = 0
    pieces: int = 0
    gaps: int = 0
    refused: int = 0
    opened_at: float = 0.0
    playing_at: float = 0.0
    playing: asyncio.Event = field(default_factory=asyncio.Event)


class Player:
    """One viewer on one connection: playlist, init, then every new segment or part, for ever."""

    def __init__(self, url: str, *, low_latency: bool) -> None:
        self._url = url
        self._low_latency = low_latency
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self.counted = Counted()

    async def run(self) -> None:
        """Play until cancelled. PeerError when the server refuses, LocalError when it cannot be reached."""
        parts = urlsplit(self._url)
        try:
            self._reader, self._writer = await asyncio.open_connection(
                parts.hostname, parts.port or 80, limit=READ_BYTES
            )
        except OSError as error:
            raise LocalError(f"no connection to {parts.netloc}: {error}", code="no_connection") from error
        try:
            self.counted.opened_at = now()
            await self._play()
        finally:
            self._writer.close()

    async def _play(self) -> None:
        url = self._url
        playlist = await self._playlist(url)
        if playlist.variants:
            url = urljoin(url, playlist.variants[0])
            playlist = await self._playlist(url)
        if playlist.init:
            await self._get(urljoin(url, playlist.init))
        by_parts = self._low_latency and playlist.blocks and bool(playlist.parts)
        # Players begin three segments from the end, or three parts where they are at the live edge.
        seen = max(playlist.segments, default=0) - (0 if by_parts else 3)
        at_part = playlist.edge
        while True:
            before = playlist
            if by_parts:
                at_part = await self._parts(url, playlist, at_part)
                query = f"{'&' if '?' in url else '?'}_HLS_msn={at_part[0]}&_HLS_part={at_part[1]}"
                playlist = await self._playlist(url + query)
                continue
            for number, uri in sorted(playlist.segments.items()):
                if number > seen:
                    self.counted.gaps += max(0, number - seen - 1) if self.counted.pieces else 0
                    seen = number
                    await self._piece(urljoin(url, uri))
            asked = now()
            playlist = await self._playlist(url)
            unchanged = playlist.segments.keys() == before.segments.keys()
            # RFC 8216 section 6.3.4: a target duration, half of it where nothing was new
            pause = playlist.target_seconds / (2 if unchanged else 1)
            await asyncio.sleep(max(0.05, pause - (now() - asked)))

    async def _parts(self, url: str, playlist: Playlist, after: tuple[int, int]) -> tuple[int, int]:
        """Fetch what is new; return what comes next."""
        fresh = sorted(at for at in playlist.parts if at >= after)
        if fresh and fresh[0] != after and fresh[0] != (after[0] + 1, 0) and self.counted.pieces:
            self.counted.gaps += 1
        for at in fresh:
            await self._piece(urljoin(url, playlist.parts[at]))
        return max(playlist.edge, after)

    async def _piece(self, url: str) -> None:
        await self._get(url)
        self.counted.pieces += 1
        if not self.counted.playing.is_set():
            self.counted.playing_at = now()
            self.counted.playing.set()

    async def _playlist(self, url: str) -> Playlist:
        try:
            return parse((await self._get(url, keep=True)).decode())
        except ValueError as error:
            raise PeerError(f"{url} is no playlist: {error}", code="url_unusable", remedy="give an .m3u8 URL") from None

    async def _get(self, url: str, *, keep: bool = False) -> bytes:
        """Return a body, or b"" where it is only counted."""
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        self._writer.write(f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: gbgw-bench\r\n\r\n".encode())
        async with asyncio.timeout(REQUEST_SECONDS):
            head = await self._reader.readuntil(b"\r\n\r\n")
            self.counted.requests += 1
            status = int(head[9:12])
            kept = b"".join([piece async for piece in self._body(head, keep=keep)])
        if status == 404 and not keep:
            self.counted.gaps += 1
        elif status >= 300:
            self.counted.refused += 1
            raise PeerError(f"{url} was answered {status}", code="viewer_refused", remedy="check the URL")
        return kept

    async def _body(self, head: bytes, *, keep: bool) -> AsyncIterator[bytes]:
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            while size := int((await self._reader.readline()).partition(b";")[0], 16):
                piece = await self._reader.readexactly(size)
                await self._reader.readline()
                self.counted.bytes += size
                if keep:
                    yield piece
            await self._reader.readline()
            return
        at = lower.find(b"content-length:")
        left = int(lower[at + 15 : lower.find(b"\r", at)]) if at >= 0 else 0
        while left:
            piece = await self._reader.read(min(left, READ_BYTES))
            if not piece:
                raise PeerError("the server closed in the middle of an answer", code="viewer_refused")
            left -= len(piece)
            self.counted.bytes += len(piece)
            if keep:
                yield piece


class Crowd:
    """Players, each a task of one group."""

    def __init__(self, url: str, *, low_latency: bool) -> None:
        self._url = url
        self._low_latency = low_latency
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []
        self.players: list[Player] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Crowd"]:
        async with self._group:
            try:
                yield self
            finally:
                for task in self._tasks:
                    task.cancel()

    async def grow(self, count: int) -> None:
        """Open up to `count` players; all of them play when this returns."""
        while len(self.players) < count:
            fresh = [
                Player(self._url, low_latency=self._low_latency)
                for _ in range(min(ARRIVALS, count - len(self.players)))
            ]
            for player in fresh:
                self.players.append(player)
                self._tasks.append(self._group.create_task(player.run(), name=f"player:{len(self.players)}"))
            try:
                async with asyncio.timeout(OPEN_SECONDS):
                    for player in fresh:
                        await player.counted.playing.wait()
            except TimeoutError:
                raise LocalError(f"no segment within {OPEN_SECONDS:.0f} s", code="no_picture") from None

    def totals(self) -> list[tuple[int, int, int]]:
        """(requests, bytes, pieces) of each."""
        return [(each.counted.requests, each.counted.bytes, each.counted.pieces) for each in self.players]


async def hls(options: LoadOptions, viewers: int, progress: Progress, command: str, *, low_latency: bool) -> Report:
    """Measure a gateway with one stream."""
    allow_files(3 * viewers + SPARE_FILES)
    options = replace(options, streams=1)
    async with bench(options, progress) as running:
        gateway = running.gateway
        key = running.cameras.keys[0]
        report = Report(_title(viewers, low_latency), load_conditions(options, running.loop, running.content, command))
        await running.play([key])
        url = f"{gateway.url}/live/{key}/index.m3u8"
        await _watched(report, url, gateway.meter, viewers, options, progress, gateway, low_latency=low_latency)
        gateway.check()
        for line in gateway.complaints()[:3]:
            report.warnings.append(f"the gateway says: {line[:200]}")
        return report


async def hls_of(
    url: str,
    pid: int | None,
    options: LoadOptions,
    viewers: int,
    progress: Progress,
    command: str,
    *,
    low_latency: bool,
) -> Report:
    """Measure another server that plays HLS at `url`."""
    allow_files(viewers + SPARE_FILES)
    report = Report(_title(viewers, low_latency), {"command": command, **conditions()})
    meter = Meter(pid) if pid is not None else None
    await _watched(report, url, meter, viewers, options, progress, None, low_latency=low_latency)
    if meter is None:
        report.warnings.append("CPU is not measured without --pid")
    return report


def _title(viewers: int, low_latency: bool) -> str:
    return f"HLS{' with low latency' if low_latency else ''}, {viewers} viewers of one stream"


async def _watched(
    report: Report,
    url: str,
    meter: Meter | None,
    viewers: int,
    options: LoadOptions,
    progress: Progress,
    gateway: GatewayProcess | None,
    *,
    low_latency: bool,
) -> None:
    crowd = Crowd(url, low_latency=low_latency)
    async with crowd.running():
        progress.step("first viewer")
        await crowd.grow(1)
        first = meter.sample() if meter else None
        await progress.wait("baseline with one viewer", min(BASELINE_SECONDS, options.seconds))
        alone = rate(first, meter.sample()) if meter and first else 0.0
        progress.step("viewers arrive")
        await crowd.grow(viewers)
        await progress.wait("warm-up", options.warmup_seconds)
        before, counted = (meter.sample() if meter else None), crowd.totals()
        begin = now()
        await progress.wait("measuring", options.seconds)
        after, counted_after = (meter.sample() if meter else None), crowd.totals()
        seconds = now() - begin
        if meter and before and after:
            total = rate(before, after)
            each = (total - alone) / max(viewers - 1, 1)
            report.add("CPU per viewer-second", each, "ms", "above the server with one viewer")
            report.add("viewers a core", 1000 / each if each > 0 else None, "", "by that figure")
            report.add("CPU in all", total, "ms/s")
            report.add("CPU with one viewer", alone, "ms/s", "its stream included")
            for name, value in list(thread_rates(before, after).items())[:3]:
                report.add(f"CPU of {name}", value, "ms/s")
            report.add("memory", meter.memory().rss / 1e6, "MB", "RSS of the server with all viewers")
        _counted(report, crowd, counted, counted_after, seconds)
        if gateway is not None:
            seen = await gateway.viewers("hls")
            report.add("viewers at the end", seen["now"], "", "as the gateway counts")
            if seen["now"] != viewers:
                report.warnings.append(f"{seen['now']} of {viewers} viewers are there at the end")


def _counted(
    report: Report,
    crowd: Crowd,
    before: Sequence[tuple[int, int, int]],
    after: Sequence[tuple[int, int, int]],
    seconds: float,
) -> None:
    viewers = len(after)
    requests, octets, pieces = (sum(b[n] - a[n] for a, b in zip(before, after, strict=True)) for n in range(3))
    report.add("requests per viewer-second", requests / viewers / seconds)
    report.add("bitrate per viewer", octets * 8 / viewers / seconds / 1e6, "Mbit/s", "of bodies")
    report.add("segments or parts per viewer-second", pieces / viewers / seconds)
    gaps = sum(player.counted.gaps for player in crowd.players)
    report.add("missed", gaps, "", "segments or parts that were gone when they were asked for")
    if gaps:
        report.warnings.append(f"{gaps} segments or parts were missed")
    waited = [player.counted.playing_at - player.counted.opened_at for player in crowd.players]
    for part, label in ((0.5, "p50"), (0.95, "p95"), (1.0, "max")):
        value = quantile(waited, part)
        report.add(
            f"open to first segment, {label}",
            value * 1e3 if value is not None else None,
            "ms",
            f"{ARRIVALS} at once, the first one waits for the segment to be made",
        )
