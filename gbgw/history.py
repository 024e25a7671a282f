"""What the REST API sees and steers of the past that devices keep (serve.history.History)."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gbgw.base.errors import MediaError, RequestError
from gbgw.control import cause_of
from gbgw.downloads import Download
from gbgw.gb.manscdp import edition_of
from gbgw.gb.records import Record
from gbgw.serve import places
from gbgw.serve.history import DownloadInfo, PlaybackChange, PlaybackInfo, Recording, Recordings, RecordType
from gbgw.serve.source import Cause, StreamKey
from gbgw.session import Session

if TYPE_CHECKING:
    from gbgw.gateway import Gateway


class HistoryDesk:
    """Implements serve.history.History over one Gateway."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway

    async def recordings(
        self, device_id: str, channel_id: str, start: int, end: int, kind: RecordType, *, kept: bool
    ) -> Recordings:
        found = await self._gateway.archive.records(device_id, channel_id, start, end, kind, kept=kept)
        items = []
        same = 0
        before: tuple[int, int] | None = None
        for record in found.records:
            span = (record.start, record.end)
            same, before = (same + 1 if span == before else 0), span
            items.append(_recording(record, f"{record.start:011}-{record.end:011}-{same:05}"))
        return Recordings(items, found.complete)

    # Playbacks

    def playbacks(self) -> Sequence[PlaybackInfo]:
        self._gateway.playbacks.sweep(asyncio.get_running_loop().time())
        keys = {playback.name: playback.key for playback in self._gateway.playbacks}
        for key in self._gateway.history_keys():
            keys.setdefault(key.name, key)
        return [self._info(keys[name]) for name in sorted(keys)]

    async def playback(self, playback_id: str) -> PlaybackInfo:
        key = self._key(playback_id)
        session = self._gateway.session(str(key))
        if session is not None and session.ingest is not None:
            await session.ingest.settle()
        return self._info(key)

    def make_playback(self, device_id: str, channel_id: str, start: int, end: int) -> PlaybackInfo:
        self._gateway.directory.find(device_id, channel_id)
        key = StreamKey(device_id, channel_id, "", start, end, places.new_name(places.SHARED))
        self._gateway.playbacks.make(key, asyncio.get_running_loop().time())
        return self._info(key)

    async def change_playback(self, playback_id: str, change: PlaybackChange) -> PlaybackInfo:
        key = self._key(playback_id)
        session = self._gateway.session(str(key))
        if session is None:
            raise RequestError(
                "the playback does not play",
                status=409,
                code="not_streaming",
                remedy="open one of its play URLs first",
                stream=str(key),
            )
        playhead, ingest = session.controlled()
        if change.speed is not None and change.speed < 0:
            self._check_reverse(session)
        try:
            if change.position is not None:
                await playhead.seek(ingest, change.position)
            if change.speed is not None:
                await playhead.set_scale(ingest, change.speed)
            if change.paused is not None and change.paused != playhead.paused:
                await (playhead.pause(ingest) if change.paused else playhead.resume(ingest))
        finally:
            session.steered()
        return await self.playback(playback_id)

    def _check_reverse(self, session: Session) -> None:
        """Backwards is of the 2022 edition; a device of an earlier one may take it for something else."""
        entry = self._gateway.directory.get(session.target.device_id)
        if entry is None or edition_of(entry.edition or None) != "3.0":
            raise RequestError(
                "this device speaks an edition of GB/T 28181 without playing backwards",
                status=409,
                code="reverse_unsupported",
                remedy="update its firmware to the 2022 edition, or seek",
                stream=session.key,
            )

    async def end_playback(self, playback_id: str) -> None:
        playback = self._gateway.playbacks.drop(playback_id)
        key = playback.key if playback is not None else self._running(playback_id)
        session = self._gateway.session(str(key)) if key is not None else None
        if session is not None:
            session.close(
                MediaError(
                    "the playback was ended by the operator", code="stream_stopped", remedy="make another to see more"
                )
            )
            await session.closed()

    # Downloads

    def downloads(self) -> Sequence[DownloadInfo]:
        return [_download(row) for row in self._gateway.downloads.rows()]

    def download(self, download_id: str) -> DownloadInfo:
        return _download(self._download(download_id))

    def download_file(self, download_id: str) -> Path:
        row = self._download(download_id)
        if row.state != "done":
            raise RequestError(
                "the download is not finished",
                status=409,
                code="not_finished",
                remedy="wait until its state is done; a failed one names its cause",
            )
        return self._gateway.downloads.file(row)

    async def make_download(self, device_id: str, channel_id: str, start: int, end: int, speed: int) -> DownloadInfo:
        self._gateway.directory.find(device_id, channel_id)
        key = StreamKey(device_id, channel_id, "", start, end, places.new_name(places.DOWNLOAD))
        return _download(await self._gateway.downloads.start(key, speed))

    async def end_download(self, download_id: str) -> None:
        await self._gateway.downloads.delete(download_id)

    def _download(self, download_id: str) -> Download:
        row = self._gateway.downloads.get(download_id)
        if row is None:
            raise RequestError(
                "there is no such download (any more)",
                status=404,
                code="unknown_download",
                remedy="/api/v1/downloads lists them",
            )
        return row

    def _key(self, playback_id: str) -> StreamKey:
        playback = self._gateway.playbacks.get(playback_id, asyncio.get_running_loop().time())
        key = playback.key if playback is not None else self._running(playback_id)
        if key is None:
            raise RequestError(
                "there is no such playback (any more)",
                status=404,
                code="unknown_playback",
                remedy="/api/v1/playbacks lists them",
            )
        return key

    def _running(self, playback_id: str) -> StreamKey | None:
        return next((key for key in self._gateway.history_keys() if key.name == playback_id), None)

    def _info(self, key: StreamKey) -> PlaybackInfo:
        """As it stands; idle where no session runs, with the cause of the last one's end."""
        running = self._gateway.session(str(key))
        last = running or self._gateway.last_session(str(key))
        position: datetime | None = None
        playhead = running.playhead if running is not None else None
        figures = running.figures() if running is not None else None
        if playhead is not None and figures is not None and running is not None and running.stream is not None:
            position = datetime.fromtimestamp(playhead.position(figures.played_seconds), UTC)
        return PlaybackInfo(
            key.name,
            key.device_id,
            key.channel_id,
            str(key),
            datetime.fromtimestamp(key.start, UTC),
            datetime.fromtimestamp(key.stop, UTC),
            running.state.value if running is not None else "idle",
            cause_of(last.cause) if last is not None else None,
            position,
            playhead.paused if playhead is not None else False,
            playhead.scale if playhead is not None else 1.0,
            figures.speed if figures is not None else None,
        )


def _download(row: Download) -> DownloadInfo:
    key = row.span
    seconds = min(row.played_seconds, key.stop - key.start)
    done = row.state in ("finishing", "done")
    took = (row.ended_at or time.time()) - row.began_at if row.began_at is not None else 0.0
    return DownloadInfo(
        row.id,
        key.device_id,
        key.channel_id,
        row.key,
        datetime.fromtimestamp(key.start, UTC),
        datetime.fromtimestamp(key.stop, UTC),
        row.speed,
        row.state,
        Cause(row.code, row.message, row.remedy) if row.code else None,
        datetime.fromtimestamp(row.made_at, UTC),
        datetime.fromtimestamp(row.ended_at, UTC) if row.ended_at is not None else None,
        round(seconds, 1),
        100.0 if done else round(100 * seconds / (key.stop - key.start), 1),
        round(seconds / took, 2) if took > 1 else None,
        row.bytes,
    )


def _recording(record: Record, identity: str) -> Recording:
    return Recording(
        identity,
        datetime.fromtimestamp(record.start, UTC),
        datetime.fromtimestamp(record.end, UTC),
        record.name,
        record.kind,
        record.size,
        record.file_path,
        record.secrecy,
    )
