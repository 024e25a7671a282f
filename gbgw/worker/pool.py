"""All media workers of a gateway: one slot for each, in which a process runs, and after its death the next.

The pool is a MediaWorker: it places each new stream by measured load. What a dead worker carried, its sessions hear of
at once (worker/remote.py); inviting again is the gateway's.
"""

import asyncio
from collections.abc import Iterable, Sequence, Set
from types import TracebackType
from typing import Final, Self

from gbgw.base import limits
from gbgw.base.config import Config
from gbgw.base.errors import GatewayError, LocalError
from gbgw.base.tally import Tally
from gbgw.mux.transcode import PermitCount
from gbgw.observe import log
from gbgw.serve.source import Sample
from gbgw.serve.viewers import Viewers
from gbgw.worker import placement
from gbgw.worker.base import Ingest, IngestListener, IngestSpec, MediaWorker, PortCounts
from gbgw.worker.channel import lost
from gbgw.worker.process import WorkerProcess
from gbgw.worker.protocol import Done, Logging, Start, Stop
from gbgw.worker.remote import Desk, RemoteWorker

BACKOFF_SECONDS: Final = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # before the next start; from the front after a while
BACKOFF_FORGIVEN_SECONDS: Final = 60.0
LOOK_AGAIN_SECONDS: Final = 1.0
_ELSEWHERE: Final = frozenset({"overloaded", "ports_exhausted", "worker_slow"})  # that another worker may do better


class WorkerPool:
    """configs, cpus: of each worker (worker.shares). viewers: gets the rows of all of them."""

    def __init__(
        self, configs: list[Config], cpus: list[tuple[int, ...]], *, desk: Desk, viewers: Viewers, tally: Tally
    ) -> None:
        self.permits = PermitCount(configs[0].media.transcode)
        self._slots = [_Slot(self, number, config, cpus[number]) for number, config in enumerate(configs)]
        self._desk = desk
        self._viewers = viewers
        self._tally = tally
        self._tasks = asyncio.TaskGroup()
        self._spare: WorkerProcess | None = None  # of a pool of one: nobody else could take over meanwhile
        self._changed = asyncio.Event()  # set, and replaced, when a worker is ready
        self._stopping = False
        self._log = log.get("worker")

    def __len__(self) -> int:
        return len(self._slots)

    async def __aenter__(self) -> Self:
        """Return when all workers are ready. Raises what keeps one from it."""
        await self._tasks.__aenter__()
        try:
            for slot in self._slots:
                slot.task = self._tasks.create_task(slot.run(), name=f"worker:{slot.number}")
            for slot in self._slots:
                await slot.began.wait()
                if slot.failure is not None:
                    raise slot.failure
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        """Ask all to end, kill those that do not, and wait for every process."""
        self._stopping = True
        for slot in self._slots:
            slot.stop()
        spare, self._spare = self._spare, None
        if spare is not None:
            await spare.end()
        # Not told of an error in the body, which would come out wrapped in a group
        await self._tasks.__aexit__(None, None, None)

    # worker.base.MediaWorker

    async def open_ingest(self, spec: IngestSpec, listener: IngestListener, *, number: int | None = None) -> Ingest:
        """number: the worker that must have it, where there is one; else the least loaded gets it, or the next where
        that one has no room: ports and time are each one's own, but to a camera they are the gateway's."""
        tried: set[int] = set()
        while True:
            worker = await self._place(number, tried)
            try:
                return await worker.open_ingest(spec, listener)
            except GatewayError as error:
                tried.add(worker.number)
                others = {other.number for other in self._usable()} - tried
                if error.code not in _ELSEWHERE or number is not None or not others:
                    raise
                self._tally.add("worker.passed_over", detail=f"{worker.number}: {error.code}")

    def pinned(self, number: int) -> MediaWorker:
        """This pool, whose next stream goes to one worker as long as that is running."""
        return _Pinned(self, number)

    def port_counts(self) -> PortCounts:
        counts = [worker.ports for worker in self._usable()]
        in_use = sum(len(worker.ingests) for worker in self._usable())  # without waiting for a report
        return PortCounts(
            in_use,
            sum(count.free for count in counts),
            sum(count.resting for count in counts),
        )

    def samples(self) -> Iterable[Sample]:
        for running in self._usable():
            yield from running.samples()
        usable = {slot.number for slot in self._slots if slot.usable is not None}
        yield Sample("workers", len(usable), labels={"state": "running"}, help="Media workers.")
        yield Sample("workers", len(self._slots) - len(usable), labels={"state": "starting"})
        for slot in self._slots:
            labels = {"worker": str(slot.number)}
            worker = slot.usable
            yield Sample(
                "worker_cpu_seconds",
                slot.cpu_seconds,
                "counter",
                labels,
                help="Processor time that a media worker used.",
            )
            yield Sample("worker_streams", len(worker.ingests) if worker is not None else 0, labels=labels)
            bitrate = worker.load.bitrate if worker is not None else 0.0
            yield Sample("worker_bitrate", bitrate, labels=labels, help="Bits a second that come into a media worker.")

    def not_ready(self) -> list[str]:
        usable = list(self._usable())
        if not usable:
            return ["no media worker is running"]
        if all(worker.overloaded for worker in usable):
            return ["the media workers are overloaded and take no more streams"]
        return []

    def configure_logging(self, level: str, form: log.Form) -> None:
        for slot in self._slots:
            slot.log(level, form)

    # serve.relay.Carriers, but for the stream

    def carrier(self, number: int) -> RemoteWorker | None:
        return self._slots[number].usable if number < len(self._slots) else None

    def any_carrier(self) -> RemoteWorker:
        for worker in self._usable():
            return worker
        raise none_running()

    @property
    def pids(self) -> list[int | None]:
        """Process ids by number; None while there is none."""
        return [slot.pid for slot in self._slots]

    def _usable(self) -> Iterable[RemoteWorker]:
        return (slot.usable for slot in self._slots if slot.usable is not None)

    async def _place(self, number: int | None, tried: Set[int]) -> RemoteWorker:
        wanted = self.carrier(number) if number is not None else None
        if wanted is not None:
            return wanted
        try:
            async with asyncio.timeout(limits.WORKER_START_SECONDS):  # the next one is on its way, however busy we are
                while not self._stopping:
                    loads = [worker.load for worker in self._usable() if worker.number not in tried]
                    if loads:
                        found = self.carrier(placement.choose(loads).number)
                        assert found is not None
                        return found
                    await self._changed.wait()
        except TimeoutError:
            pass
        raise none_running()

    async def take_process(self) -> WorkerProcess:
        """The spare, if there is one that lives, else a new process. Raises LocalError."""
        spare, self._spare = self._spare, None
        if spare is not None:
            if not spare.ended:
                return spare
            await spare.end()
        return await WorkerProcess.start()

    async def keep_spare(self) -> None:
        """Have a process ready for the one that may die: it has loaded everything, which takes longest."""
        if len(self._slots) > 1 or self._stopping or self._spare is not None:
            return
        try:
            self._spare = await WorkerProcess.start()
        except LocalError as error:
            self._tally.add("worker.no_spare", detail=error.message)
        if self._stopping and self._spare is not None:
            spare, self._spare = self._spare, None
            await spare.end()

    def announce(self) -> None:
        """A worker is ready, or none will be."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class _Slot:
    """One worker's place: its ports, its processors, and the process that has them now."""

    def __init__(self, pool: WorkerPool, number: int, config: Config, cpus: tuple[int, ...]) -> None:
        self.number = number
        self.began = asyncio.Event()  # the first process is ready, or failed
        self.failure: GatewayError | None = None  # of the first process
        self.task: asyncio.Task[None] | None = None
        self._pool = pool
        self._config = config
        self._cpus = cpus
        self._worker: RemoteWorker | None = None
        self._process: WorkerProcess | None = None
        self._cpu_before = 0.0  # of processes that are gone
        self._wake = asyncio.Event()  # it was lost, or told to stop
        self._reason = ""

    @property
    def usable(self) -> RemoteWorker | None:
        return self._worker if self._worker is not None and self._worker.usable else None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and not self._process.ended else None

    @property
    def cpu_seconds(self) -> float:
        return self._cpu_before + (self._worker.cpu_seconds if self._worker is not None else 0.0)

    def stop(self) -> None:
        if self._worker is not None:
            self._worker.channel.send(Stop())
        self._wake.set()

    def log(self, level: str, form: log.Form) -> None:
        self._config = self._config.model_copy(
            update={"log": self._config.log.model_copy(update={"level": level, "format": form})}
        )
        if self._worker is not None:
            self._worker.channel.send(Logging(level, form))

    async def run(self) -> None:
        """Keep a process running until the pool stops."""
        clock = asyncio.get_running_loop().time
        failures = 0
        try:
            while not self._pool._stopping:
                started = clock()
                await self._life()
                if not self.began.is_set():
                    return
                failures = 1 if clock() - started > BACKOFF_FORGIVEN_SECONDS else failures + 1
                self._wake.clear()
                if self._pool._stopping:
                    return
                pause = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS)) - 1]
                try:
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            self.began.set()
            self._pool.announce()

    async def _life(self) -> None:
        """One process, from its start to its end."""
        pool = self._pool
        try:
            process = self._process = await pool.take_process()
        except LocalError as error:
            self._failed(error)
            return
        self._reason = ""
        worker = RemoteWorker(
            self.number,
            desk=pool._desk,
            permits=pool.permits,
            viewers=pool._viewers,
            tasks=pool._tasks,
            tally=pool._tally,
            on_lost=self._on_lost,
        )
        worker.handover.open(process.handover)
        try:
            try:
                await worker.channel.open(process.channel)
            except BaseException:
                process.channel.close()
                raise
            self._worker = worker
            is_first = not self.began.is_set()
            await self._start(worker)
            # The gateway's own "ready" names the first; one after it follows on a "worker lost".
            tell = pool._log.debug if is_first else pool._log.info
            tell("worker ready", worker=self.number, pid=process.pid, ports=self._config.media.ports)
            await pool.keep_spare()
            await self._watch(worker)
        except GatewayError as error:
            self._failed(error)
        finally:
            await self._bury(process, worker)

    async def _start(self, worker: RemoteWorker) -> None:
        start = Start(self.number, self._config.model_dump_json(), self._cpus, ask=worker.channel.next_number())
        try:
            await worker.channel.ask(start, Done, limits.WORKER_START_SECONDS)
        except LocalError as error:
            if error.code not in ("worker_lost", "worker_slow"):
                raise  # its own words
            raise LocalError(
                f"media worker {self.number} ended before it was ready",
                code="worker_failed",
                remedy="its last words are on standard error; media.workers = 0 does without",
            ) from error
        worker.heard_at = asyncio.get_running_loop().time()
        worker.ready = True
        self.began.set()
        self._pool._tally.add("worker.started")
        self._pool.announce()

    async def _watch(self, worker: RemoteWorker) -> None:
        """Return when it is lost, when it hangs, or when the pool stops.

        It hangs when it was silent for too long and still is a second later: after a pause of this very process its
        reports are there, but not read yet.
        """
        clock = asyncio.get_running_loop().time
        looked = None  # at this silence already
        while not self._wake.is_set():
            due = worker.heard_at + limits.WORKER_STUCK_SECONDS
            try:
                async with asyncio.timeout_at(due if looked != worker.heard_at else clock() + LOOK_AGAIN_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                if clock() < worker.heard_at + limits.WORKER_STUCK_SECONDS:
                    continue
                if looked == worker.heard_at:
                    self._pool._tally.add("worker.stuck", detail=str(self.number), now=clock())
                    worker.lose(f"it said nothing for {limits.WORKER_STUCK_SECONDS:g} s")
                looked = worker.heard_at

    async def _bury(self, process: WorkerProcess, worker: RemoteWorker) -> None:
        """End the process if it has not ended, and give back what control held for it."""
        pool = self._pool
        try:
            if pool._stopping:
                try:
                    async with asyncio.timeout(limits.WORKER_STOP_SECONDS):
                        await process.wait()
                except TimeoutError:
                    pool._tally.add("worker.killed", detail=str(self.number))
        finally:
            process.kill()
            worker.close()
            self._cpu_before += worker.cpu_seconds
            self._worker = None
            how = await process.wait()
            if worker.ready and not pool._stopping:
                pool._tally.add("worker.lost")
                pool._log.error("worker lost", worker=self.number, pid=process.pid, reason=self._reason, end=how)

    def _on_lost(self, reason: str) -> None:
        self._reason = reason
        self._wake.set()

    def _failed(self, error: GatewayError) -> None:
        """It did not start. The first time that ends the gateway's start; later it is tried again."""
        if not self.began.is_set():
            self.failure = error
        else:
            self._pool._tally.add("worker.start_failed", detail=error.code)
            self._pool._log.error("worker not started", worker=self.number, code=error.code, reason=error.message)


class _Pinned:
    """A MediaWorker."""

    def __init__(self, pool: WorkerPool, number: int) -> None:
        self._pool = pool
        self._number = number

    async def open_ingest(self, spec: IngestSpec, listener: IngestListener) -> Ingest:
        return await self._pool.open_ingest(spec, listener, number=self._number)

    def port_counts(self) -> PortCounts:
        return self._pool.port_counts()

    def not_ready(self) -> Sequence[str]:
        return self._pool.not_ready()

    def samples(self) -> Iterable[Sample]:
        return self._pool.samples()


def none_running() -> LocalError:
    error = lost()
    return LocalError(
        "no media worker is running just now", code=error.code, remedy="try again in a moment; the log says why"
    )
