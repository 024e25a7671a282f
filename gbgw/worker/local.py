"""The media worker in this process: sockets, receivers and the pool of ports (`media.workers = 0`)."""

import asyncio
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Literal, Self

from gbgw.base import limits
from gbgw.base.config import MediaConfig, port_range
from gbgw.base.errors import GatewayError, LocalError, MediaError
from gbgw.base.tally import Tally
from gbgw.media.hub import Stream
from gbgw.media.pace import Pace
from gbgw.mux.feed import Attachment, Chunk, Feeds
from gbgw.net.media import MediaEndpoint, PortPool
from gbgw.net.receive import Receiving
from gbgw.net.receiver import Receiver, new_fold
from gbgw.net.shared import SharedPort
from gbgw.serve.source import Sample
from gbgw.worker.base import Ingest, IngestFigures, IngestListener, IngestSpec, PortCounts
from gbgw.worker.overload import Overload


class LocalWorker:
    """Opens ingests. Formats of `media.eager` are muxed from publication on, viewer or not."""

    def __init__(self, config: MediaConfig, feeds: Feeds, *, tally: Tally) -> None:
        self.ports = PortPool(port_range(config.ports), tally=tally)
        self._config = config
        self._feeds = feeds
        self._tally = tally
        self._ingests: set[LocalIngest] = set()
        self.receiving = Receiving(tally=tally) if config.receive == "thread" else None
        self.shared: SharedPort | None = None
        if config.single_port and self.receiving is not None:
            self.shared = SharedPort(config.single_port, receiving=self.receiving, tally=tally)
        self.overload = Overload(config.overload_seconds)
        self._loop_late = 0.0  # at worst since the last scrape
        self._overrun_units = 0
        self._look: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        if self.receiving is not None:
            await self.receiving.__aenter__()
        if self.shared is not None:
            try:
                await self.shared.__aenter__()
            except BaseException:
                if self.receiving is not None:
                    await self.receiving.__aexit__(None, None, None)
                raise
        self._look_later()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._look is not None:
            self._look.cancel()
        try:
            for ingest in list(self._ingests):
                await ingest.close()
            self.ports.close()
            if self.shared is not None:
                await self.shared.__aexit__(None, None, None)
        finally:
            if self.receiving is not None:
                await self.receiving.__aexit__(None, None, None)

    def not_ready(self) -> Sequence[str]:
        return ["the media worker is overloaded and takes no more streams"] if self.overload.active else []

    def port_counts(self) -> PortCounts:
        return PortCounts(self.ports.in_use, self.ports.free, self.ports.resting)

    def samples(self) -> Iterable[Sample]:
        """Figures of /metrics."""
        if self.receiving is not None:
            self.receiving.settle_counts()
            yield Sample("receive_sockets", len(self.receiving), help="UDP sockets that the receive thread reads.")
            yield Sample(
                "receive_late_seconds",
                self.receiving.worst_lateness(),
                help="How late the worst tick of the receive thread was since the last scrape.",
                merge="max",
            )
            yield Sample(
                "receive_busy_seconds", self.receiving.busy_seconds, "counter", help="The receive thread at work."
            )
            yield Sample("receive_waiting_bytes", self.receiving.waiting_bytes, help="Units that wait for the loop.")
        if self.shared is not None:
            self.shared.settle_counts()
        yield Sample(
            "single_port_kernel_drops",
            self.shared.kernel_drops if self.shared is not None else 0,
            "counter",
            help="Datagrams that the kernel dropped at the one media port.",
        )
        buffers = [ingest.receive_buffer_bytes for ingest in self._ingests if ingest.receive_buffer_bytes]
        if buffers:
            yield Sample(
                "receive_buffer_bytes",
                min(buffers),
                help="The smallest receive buffer of an RTP socket in use.",
                merge="min",
            )
        yield Sample(
            "loop_lag_seconds",
            self._loop_late,
            help="How late the event loop was at worst since the last scrape.",
            merge="max",
        )
        self._loop_late = 0.0
        yield Sample("overloaded", self.overload.active, help="1 while new streams are refused.", merge="max")

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + limits.LOAD_SECONDS
        self._look = loop.call_at(due, self._look_at_load, due)

    def _look_at_load(self, due: float) -> None:
        """The loop is as late as this very call, or as the units that waited meanwhile."""
        now = asyncio.get_running_loop().time()
        late, overruns = now - due, 0
        if self.receiving is not None:
            late = max(late, self.receiving.worst_loop_lateness())
            overruns = self.receiving.overrun_units
        self._loop_late = max(self._loop_late, late)
        was_active = self.overload.active
        self.overload.push(late, overruns > self._overrun_units, now)
        self._overrun_units = overruns
        if self.overload.active and not was_active:
            self._tally.add("worker.overloaded", detail=f"the loop is {late:.2f} s late", now=now)
        self._look_later()

    async def open_ingest(self, spec: IngestSpec, listener: IngestListener) -> Ingest:
        if self.overload.active:
            self._tally.add("worker.overload_refused")
            raise LocalError(
                "the gateway is at its limit: what it receives waits too long to be served",
                code="overloaded",
                remedy="stop some streams, watch fewer, or spread the cameras over more machines",
                stream=spec.key,
            )
        ingest = LocalIngest(self, spec, listener)
        await ingest.open()
        return ingest


class LocalIngest:
    """One receiver and its sockets; worker.base.Ingest."""

    def __init__(self, worker: LocalWorker, spec: IngestSpec, listener: IngestListener) -> None:
        self._worker = worker
        self._closed = False
        self._eager: list[Attachment] = []
        loop = asyncio.get_running_loop()
        self._loop = loop
        self.stream = Stream(spec.key, tally=worker._tally, on_published=self._on_published)
        self._receiver = Receiver(
            self.stream,
            loop,
            fold=new_fold(spec.ssrc, ordered=spec.transport != "udp"),
            expected_ssrc=spec.ssrc,
            loss=spec.loss,
            on_step=listener.on_step,
            on_keyframe_wanted=listener.on_keyframe_wanted,
            pace=Pace() if spec.history else None,
            tally=worker._tally,
        )
        self._endpoint = MediaEndpoint(
            worker.ports,
            self._receiver,
            transport=spec.transport,
            name=spec.key,
            ssrc=spec.ssrc,
            expected_hosts=(spec.sip_host,),
            rtcp=spec.rtcp,
            receiving=worker.receiving,
            shared=worker.shared,
            tally=worker._tally,
        )

    async def open(self) -> None:
        await self._endpoint.open()
        self._worker._ingests.add(self)

    @property
    def worker(self) -> int:
        return 0

    @property
    def port(self) -> int:
        return self._endpoint.port

    @property
    def receive_buffer_bytes(self) -> int:
        """What the kernel granted its RTP socket; 0 where there is none."""
        return self._endpoint.receive_buffer_bytes

    @property
    def last_packet_at(self) -> float | None:
        return self._receiver.last_packet_at

    def figures(self) -> IngestFigures:
        self._receiver.settle_counts()
        counts, pace = self._receiver.counts, self._receiver.pace
        return IngestFigures(
            packets=counts.get("rtp.received", 0),
            bytes=counts.get("rtp.bytes", 0),
            lost=counts.get("rtp.lost", 0),
            reordered=counts.get("rtp.reordered", 0),
            late=counts.get("rtp.late", 0),
            duplicates=counts.get("rtp.duplicate", 0),
            jitter_seconds=self._receiver.fold.jitter_seconds,
            kernel_drops=self._endpoint.kernel_drops or 0,
            skew_seconds=self._receiver.skew_seconds,
            played_seconds=pace.played if pace is not None else 0.0,
            speed=pace.measured if pace is not None else 1.0,
        )

    async def answered(
        self, *, address: str, port: int, transport: Literal["udp", "tcp"], ssrc: int | None, sip_host: str
    ) -> None:
        if transport == "udp":
            self._receiver.ordered = False  # a camera may answer an offer of TCP by UDP
        await self._endpoint.answered(address=address, port=port, transport=transport, ssrc=ssrc, sip_host=sip_host)

    async def settle(self) -> None:
        """All of it is read where it is counted."""

    async def pace(self, *, scale: float | None = None, seek: bool = False) -> None:
        pace, now = self._receiver.pace, self._loop.time()
        if pace is None:
            return
        if seek:
            pace.seek(now)
        if scale is not None:
            pace.set_scale(scale, now)

    async def diagnose(self) -> GatewayError:
        return self._receiver.diagnose(self._loop.time(), self._endpoint.facts).error(self.stream.key)

    async def close(self, cause: MediaError | None = None) -> None:
        if self._closed:
            return
        self._closed = True
        self._worker._ingests.discard(self)
        try:
            self._receiver.close()
            for attachment in self._eager:
                attachment.detach()
            self.stream.close(cause)
        finally:
            await self._endpoint.close()

    def _on_published(self, stream: Stream) -> None:
        for name in self._worker._config.eager:
            self._eager.append(self._worker._feeds.get(stream, name).attach(_Nobody()))


class _Nobody:
    """Keeps a feed running."""

    def on_chunk(self, chunk: Chunk) -> None:
        pass

    def on_end(self, cause: object) -> None:
        pass
