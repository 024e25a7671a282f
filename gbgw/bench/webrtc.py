"""`gbgw bench webrtc`: one stream to many WebRTC viewers, each with ICE, DTLS and SRTP of its own."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from gbgw._load import Ears, now
from gbgw.base.errors import LocalError, PeerError
from gbgw.bench.conditions import allow_files
from gbgw.bench.load import LoadOptions, Progress, bench, load_conditions
from gbgw.bench.meter import rate, thread_rates
from gbgw.bench.peer import Received, State, Viewer
from gbgw.bench.report import Report
from gbgw.bench.request import Api
from gbgw.bench.statistics import quantile
from gbgw.bench.threads import Thread

ARRIVALS: Final = 4  # viewers that connect at once
ATTEMPTS: Final = 5  # of one viewer, where the gateway says that it is too busy
CONNECT_SECONDS: Final = 20.0
TICK_SECONDS: Final = 0.1
BASELINE_SECONDS: Final = 3.0
CALM_SECONDS: Final = 3.0  # before a storm and after it: what it is compared with
RECEIVE_BYTES: Final = 4 << 20
SPARE_FILES: Final = 256


@dataclass(slots=True)
class Seat:
    """One viewer and its socket. asked_at: when its offer was posted."""

    viewer: Viewer
    socket: socket.socket
    ear: int
    asked_at: float = 0.0
    connected_at: float = 0.0
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Audience:
    """Viewers of one stream; `running` drives them all. Media never pass through Python."""

    def __init__(self, ears: Ears) -> None:
        self._ears = ears
        self._by_ear: dict[int, Seat] = {}
        self.seats: list[Seat] = []
        self.refused = 0  # answers of 503, after which the offer was posted again

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Audience"]:
        loop = asyncio.get_running_loop()
        with Thread(self._ears, "bench-ears"):
            loop.add_reader(self._ears.news_fd, self._on_news)
            try:
                async with asyncio.TaskGroup() as group:
                    clock = group.create_task(self._tick(), name="bench:webrtc")
                    yield self
                    clock.cancel()
            finally:
                loop.remove_reader(self._ears.news_fd)
                for seat in self.seats:
                    self._ears.close(seat.ear)
                    seat.socket.close()
                self.seats.clear()
                self._by_ear.clear()

    async def add(self, api: Api, path: str) -> Seat:
        """Post an offer and return once DTLS is done. PeerError when it is refused or fails."""
        media = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            media.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
            media.bind(("127.0.0.1", 0))
            media.setblocking(False)
            seat = Seat(Viewer(media.getsockname()), media, self._ears.open(media.fileno()))
        except BaseException:
            media.close()
            raise
        self.seats.append(seat)
        self._by_ear[seat.ear] = seat
        for _ in range(ATTEMPTS):
            seat.asked_at = now()
            status, answer = await api.post(path, seat.viewer.offer.encode(), "application/sdp")
            if status != 503:
                break
            self.refused += 1
        if status != 201:
            raise PeerError(
                f"the offer was answered {status}: {answer[:200].decode(errors='replace')}", code="whep_refused"
            )
        seat.viewer.accept(answer.decode())
        assert seat.viewer.remote is not None
        media.connect(seat.viewer.remote)
        self._send(seat, seat.viewer.tick(now()))
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await seat.done.wait()
        except TimeoutError:
            raise LocalError(f"a viewer did not connect: {seat.viewer.state.value}", code="whep_unusable") from None
        if seat.viewer.state is State.FAILED:
            raise PeerError("DTLS failed", code="whep_unusable")
        return seat

    def figures(self) -> list[dict[str, Any]]:
        return [self._ears.figures(seat.ear) for seat in self.seats]

    def figure(self, seat: Seat) -> dict[str, Any]:
        found: dict[str, Any] = self._ears.figures(seat.ear)
        return found

    def forget_gaps(self) -> None:
        for seat in self.seats:
            self._ears.forget_gaps(seat.ear)

    def longest_gap(self, seat: Seat) -> float:
        """Seconds between two pictures since `forget_gaps`."""
        flows = sorted(self.figure(seat)["flows"], key=lambda flow: -int(flow["packets"]))
        return float(flows[0]["longest_gap"]) if flows else 0.0

    def _on_news(self) -> None:
        self._ears.heard()
        for ear in self._ears.waiting():
            seat = self._by_ear.get(ear)
            for datagram in self._ears.take(ear):
                if seat is not None:
                    self._send(seat, seat.viewer.push(datagram))

    def _send(self, seat: Seat, datagrams: Sequence[bytes]) -> None:
        for datagram in datagrams:
            try:
                seat.socket.send(datagram)
            except OSError:
                continue  # as lost on the way; every one of them is repeated
        if seat.viewer.state in (State.CONNECTED, State.FAILED) and not seat.done.is_set():
            seat.connected_at = now()
            seat.done.set()

    async def _tick(self) -> None:
        while True:
            moment = now()
            for seat in self.seats:
                flows = self._ears.figures(seat.ear)["flows"] if seat.viewer.state is State.CONNECTED else ()
                received = [Received(flow["ssrc"], flow["highest"] - 65_536, max(flow["lost"], 0)) for flow in flows]
                self._send(seat, seat.viewer.tick(moment, received))
            await asyncio.sleep(TICK_SECONDS)


async def webrtc(options: LoadOptions, viewers: int, storm: int, progress: Progress, command: str) -> Report:
    """Measure a gateway with one stream that `viewers` watch. storm: how many more come then, all at once; 0: none."""
    allow_files(3 * (viewers + storm) + SPARE_FILES)
    options = replace(options, streams=1)
    async with bench(options, progress) as running:
        gateway = running.gateway
        key = running.cameras.keys[0]
        path = f"/live/{key}/whep"
        report = Report(
            f"WebRTC, {viewers} viewers of one stream",
            load_conditions(options, running.loop, running.content, command),
        )
        report.conditions["viewers"] = "ICE, DTLS, SRTP each; a receiver report a second, no NACK"
        await running.play([key])
        audience = Audience(Ears(capacity=viewers + storm))
        async with audience.running():
            await audience.add(gateway.api, path)
            await progress.wait("warm-up", options.scene.gop / options.scene.frame_rate + 1.0)
            first = gateway.meter.sample()
            await progress.wait("baseline with one viewer", min(BASELINE_SECONDS, options.seconds))
            alone = rate(first, gateway.meter.sample())
            await _gather(audience, gateway.api, path, viewers, progress)
            await progress.wait("warm-up", options.warmup_seconds)
            before, heard = gateway.meter.sample(), audience.figures()
            await progress.wait("measuring", options.seconds)
            after, heard_after = gateway.meter.sample(), audience.figures()
            memory = gateway.meter.memory()
            counted = await gateway.viewers("webrtc")
            total = rate(before, after)
            each = (total - alone) / max(viewers - 1, 1)
            report.add("CPU per viewer-second", each, "ms", "above the gateway with one viewer")
            report.add("viewers a core", 1000 / each if each > 0 else None, "", "by that figure")
            report.add("CPU in all", total, "ms/s")
            report.add("CPU with one viewer", alone, "ms/s", "its stream included")
            for name, value in list(thread_rates(before, after).items())[:3]:
                report.add(f"CPU of {name}", value, "ms/s")
            report.add("memory", memory.rss / 1e6, "MB", "RSS of the gateway with all viewers")
            _heard(report, heard, heard_after, options)
            _times(report, audience.seats, audience, ARRIVALS)
            profiles = {seat.viewer.srtp_profile.decode() for seat in audience.seats}
            report.conditions["srtp"] = ", ".join(sorted(profiles))
            report.add("viewers at the end", counted["now"], "", "as the gateway counts")
            if counted["now"] != viewers:
                report.warnings.append(f"only {counted['now']} of {viewers} viewers are there at the end")
            if audience.refused:
                report.warnings.append(f"{audience.refused} offers were answered 503 and posted again")
            report.add("units dropped", counted["dropped"], "", "for slow viewers")
            if storm:
                await _storm(report, audience, gateway.api, path, storm, options, progress)
        gateway.check()
        rtp = await gateway.rtp()
        for name in ("lost", "kernel_drops"):
            if rtp.get(name):
                report.warnings.append(f"{rtp[name]} packets of the camera {name.replace('_', ' ')}")
        for line in gateway.complaints()[:3]:
            report.warnings.append(f"the gateway says: {line[:200]}")
        return report


async def _gather(audience: Audience, api: Api, path: str, viewers: int, progress: Progress) -> None:
    progress.step("viewers connect", viewers)
    while len(audience.seats) < viewers:
        async with asyncio.TaskGroup() as group:
            for number in range(min(ARRIVALS, viewers - len(audience.seats))):
                group.create_task(audience.add(api, path), name=f"viewer:{number}")
        progress.advance(ARRIVALS)


def _heard(
    report: Report, before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]], options: LoadOptions
) -> None:
    packets = [later["packets"] - earlier["packets"] for earlier, later in zip(before, after, strict=True)]
    octets = sum(later["bytes"] - earlier["bytes"] for earlier, later in zip(before, after, strict=True))
    lost = sum(max(flow["lost"], 0) for one in after for flow in one["flows"])
    pictures = [_pictures(later) - _pictures(earlier) for earlier, later in zip(before, after, strict=True)]
    seconds = options.seconds
    report.add("packets received", sum(packets), "", "by all viewers in the window")
    report.add("packets per viewer-second", sum(packets) / len(packets) / seconds)
    report.add("packets lost", lost, "", "by sequence number, since each viewer came")
    report.add("bitrate per viewer", octets * 8 / len(packets) / seconds / 1e6, "Mbit/s", "RTP and SRTP bytes included")
    report.add("fewest pictures per viewer-second", min(pictures) / seconds)
    report.add("most pictures per viewer-second", max(pictures) / seconds)
    if lost:
        report.warnings.append(f"{lost} packets did not reach the viewers")
    if min(pictures) < 0.9 * options.scene.frame_rate * seconds:
        report.warnings.append("some viewers did not get every picture")


def _pictures(figures: dict[str, Any]) -> int:
    """Markers of the stream that has most packets: pictures; sound has markers of another meaning."""
    flows = sorted(figures["flows"], key=lambda flow: -int(flow["packets"]))
    return int(flows[0]["markers"]) if flows else 0


def _times(report: Report, seats: Sequence[Seat], audience: Audience, at_once: int, who: str = "") -> None:
    connected = [seat.connected_at - seat.asked_at for seat in seats]
    shown = [
        picture_at - seat.asked_at for seat in seats if (picture_at := audience.figure(seat)["picture_at"]) is not None
    ]
    for name, values in (("offer to DTLS done", connected), ("offer to first picture", shown)):
        for part, label in ((0.5, "p50"), (0.95, "p95"), (1.0, "max")):
            value = quantile(values, part)
            note = f"{len(values)} viewers, {at_once} at once"
            report.add(f"{who}{name}, {label}", value * 1e3 if value is not None else None, "ms", note)


async def _storm(
    report: Report,
    audience: Audience,
    api: Api,
    path: str,
    storm: int,
    options: LoadOptions,
    progress: Progress,
) -> None:
    """`storm` more viewers at once, and how late pictures are for those who watch already."""
    present = list(audience.seats)
    audience.forget_gaps()
    await progress.wait("quiet", CALM_SECONDS)
    calm = [audience.longest_gap(seat) for seat in present]
    audience.forget_gaps()
    progress.step(f"{storm} viewers at once")
    async with asyncio.TaskGroup() as group:
        for number in range(storm):
            group.create_task(audience.add(api, path), name=f"storm:{number}")
    await progress.wait("their first pictures", CALM_SECONDS)
    shaken = [audience.longest_gap(seat) for seat in present]
    _times(report, audience.seats[len(present) :], audience, storm, "storm: ")
    expected = 1 / options.scene.frame_rate
    for name, gaps in (("before", calm), ("during", shaken)):
        for part, label in ((0.5, "p50"), (1.0, "max")):
            gap = quantile(gaps, part)
            value = max(0.0, gap - expected) * 1e3 if gap is not None else None
            report.add(
                f"storm: latest picture {name}, {label}", value, "ms", f"of {len(gaps)} viewers, each its latest"
            )
