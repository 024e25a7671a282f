"""Recordings of devices as files: asked for through the API, fetched at more than their speed, kept for a while.

Each download is one task, from its INVITE to the finished MP4; a few run at once, the others wait in line. What is
known of it stands beside its file, so that a restart still lists it; one that a restart broke off says so. Both the
disk and the list have ceilings.
"""

import asyncio
import json
import shutil
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from gbgw.base import limits
from gbgw.base.config import DownloadConfig
from gbgw.base.errors import GatewayError, LimitError, LocalError
from gbgw.base.strict import is_strict
from gbgw.base.tally import Tally
from gbgw.observe import log
from gbgw.serve.source import StreamKey

State = Literal["waiting", "running", "finishing", "done", "failed"]
Fetch = Callable[[str], AsyncGenerator[bytes, None]]
Played = Callable[[str], float]
_GIGABYTE: Final = 1 << 30


@dataclass(slots=True)
class Download:
    """One download. speed: times the recorded one, as asked. made_at, ended_at: Unix seconds. played_seconds: of the
    recording, fetched so far; bytes: of it, then of the file. code, message, remedy: why it failed."""

    id: str
    key: str
    speed: int
    made_at: float
    state: State = "waiting"
    began_at: float | None = None
    ended_at: float | None = None
    bytes: int = 0
    played_seconds: float = 0.0
    code: str = ""
    message: str = ""
    remedy: str = ""

    @property
    def span(self) -> StreamKey:
        return StreamKey.parse(self.key)

    @property
    def over(self) -> bool:
        return self.state in ("done", "failed")


@dataclass(slots=True)
class _Running:
    task: asyncio.Task[None]
    files: list[Path] = field(default_factory=list)


class Downloads:
    """All downloads of one gateway; an async context manager that leaves no task and no half file behind.

    fetch: opens a recording under a key and yields it as FLV to its end, or raises why not. played: seconds of it that
    have come so far.
    """

    def __init__(self, config: DownloadConfig, folder: Path, *, fetch: Fetch, played: Played, tally: Tally) -> None:
        self._config = config
        self._folder = folder
        self._fetch = fetch
        self._played = played
        self._tally = tally
        self._rows: dict[str, Download] = {}
        self._running: dict[str, _Running] = {}
        self._places = asyncio.Semaphore(limits.DOWNLOADS)
        self._tasks = asyncio.TaskGroup()
        self._log = log.get("download")

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._load)
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for running in self._running.values():
            running.task.cancel()
        await self._tasks.__aexit__(None, None, None)

    # For the API

    def rows(self) -> list[Download]:
        return sorted(self._rows.values(), key=lambda row: row.id)

    def get(self, download_id: str) -> Download | None:
        row = self._rows.get(download_id)
        if row is not None and row.state == "running":
            row.played_seconds = max(row.played_seconds, self._played(row.key))
        return row

    def file(self, row: Download) -> Path:
        """Where the finished file of a download is."""
        return self._folder / f"{row.id}.mp4"

    async def start(self, key: StreamKey, speed: int) -> Download:
        """Begin to fetch what `key` names. Raises LimitError when the list or the disk is full."""
        await asyncio.to_thread(self._sweep)
        if len(self._rows) >= limits.DOWNLOAD_ROWS:
            raise LimitError(
                f"{limits.DOWNLOAD_ROWS} downloads are listed", code="downloads_exhausted", remedy="delete old ones"
            )
        await asyncio.to_thread(self._check_disk)
        row = Download(key.name, str(key), speed, time.time())
        self._rows[row.id] = row
        await asyncio.to_thread(self._save, row)
        self._running[row.id] = _Running(self._tasks.create_task(self._run(row), name=f"download:{row.id}"))
        return row

    async def delete(self, download_id: str) -> None:
        """Stop it where it runs, and remove its file; quiet when it is unknown."""
        running = self._running.get(download_id)
        if running is not None:
            running.task.cancel()
            await asyncio.wait((running.task,))
        row = self._rows.pop(download_id, None)
        if row is not None:
            await asyncio.to_thread(self._remove, download_id)

    # One download

    async def _run(self, row: Download) -> None:
        raw = self._folder / f"{row.id}.part"
        try:
            async with self._places:
                row.state, row.began_at = "running", time.time()
                await self._receive(row, raw)
                row.state = "finishing"
                await self._finish(row, raw)
            row.state = "done"
        except GatewayError as error:
            self._fail(row, error)
        except OSError as error:
            self._fail(row, _disk(f"the disk refused the download: {error.strerror}"))
        except asyncio.CancelledError:
            self._fail(row, _broken_off())
            raise
        except Exception:
            self._tally.add("bug.download")
            self._log.exception("bug", download=row.id)
            self._fail(row, LocalError("a fault of the gateway ended the download", code="internal"))
            if is_strict():
                raise
        finally:
            row.ended_at = time.time()
            self._running.pop(row.id, None)
            for left in (raw, self._folder / f"{row.id}.new"):
                left.unlink(missing_ok=True)
            if row.id in self._rows:
                self._save(row)
            self._log.info("over", download=row.id, stream=row.key, cause=row.code or None, bytes=row.bytes)

    async def _receive(self, row: Download, raw: Path) -> None:
        with await asyncio.to_thread(raw.open, "wb") as file:
            async with aclosing(self._fetch(row.key)) as pieces:
                async for piece in pieces:
                    await asyncio.to_thread(file.write, piece)
                    before = row.bytes
                    row.bytes += len(piece)
                    row.played_seconds = max(row.played_seconds, self._played(row.key))
                    if before // limits.DOWNLOAD_CHECK_BYTES != row.bytes // limits.DOWNLOAD_CHECK_BYTES:
                        await asyncio.to_thread(self._check_disk)

    async def _finish(self, row: Download, raw: Path) -> None:
        """Make an MP4 of it, in a process of its own."""
        made = self._folder / f"{row.id}.new"
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "gbgw.mux.remux", str(raw), str(made)),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(limits.DOWNLOAD_FINISH_SECONDS):
                _, complaint = await process.communicate()
        except TimeoutError:
            complaint = b"it took too long"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            self._tally.add("download.unfinished", detail=complaint[-limits.TRANSCODE_STDERR_LINE :].decode("replace"))
            raise LocalError(
                "no MP4 could be made of what was downloaded",
                code="download_unusable",
                remedy="play the span instead; the log says what the recording lacks",
            )
        made.replace(self.file(row))
        row.bytes = self.file(row).stat().st_size

    @staticmethod
    def _fail(row: Download, error: GatewayError) -> None:
        row.state, row.code, row.message, row.remedy = "failed", error.code, error.message, error.remedy

    # The folder; called in threads

    def _load(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._folder.glob("d*.json"))[: limits.DOWNLOAD_ROWS]:
            try:
                row = Download(**json.loads(path.read_text(encoding="utf-8")))
                StreamKey.parse(row.key)
            except (ValueError, TypeError, GatewayError) as error:
                self._tally.add("download.row_unreadable", detail=f"{path.name}: {error}")
                continue
            if not row.over:
                self._fail(row, _broken_off())
                row.ended_at = row.ended_at or time.time()
                self._rows[row.id] = row
                self._save(row)
            elif row.state == "failed" or self.file(row).exists():
                self._rows[row.id] = row
        for pattern in ("d*.part", "d*.new"):
            for left in self._folder.glob(pattern):
                left.unlink(missing_ok=True)
        self._sweep()

    def _save(self, row: Download) -> None:
        path = self._folder / f"{row.id}.json"
        fresh = path.with_suffix(".json.new")
        data: dict[str, Any] = asdict(row)
        fresh.write_text(json.dumps(data), encoding="utf-8")
        fresh.replace(path)

    def _remove(self, download_id: str) -> None:
        for ending in ("mp4", "json", "part", "new"):
            (self._folder / f"{download_id}.{ending}").unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what was kept long enough."""
        oldest = time.time() - self._config.hours * 3_600
        for row in [row for row in self._rows.values() if row.over and (row.ended_at or row.made_at) < oldest]:
            del self._rows[row.id]
            self._remove(row.id)

    def _check_disk(self) -> None:
        used = sum(path.stat().st_size for path in self._folder.glob("d*.*") if path.is_file())
        if used >= self._config.gigabytes * _GIGABYTE:
            raise _disk(f"downloads hold {self._config.gigabytes:g} GB already")
        if shutil.disk_usage(self._folder).free < limits.DOWNLOAD_FREE_BYTES:
            raise _disk("the disk of the downloads is nearly full")


def _disk(message: str) -> LocalError:
    return LocalError(
        message, code="download_disk_full", remedy="delete downloads, raise download.gigabytes, or use another folder"
    )


def _broken_off() -> LocalError:
    return LocalError("the download was broken off", code="download_interrupted", remedy="start it again")
