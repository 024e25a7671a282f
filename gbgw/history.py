"""What the REST API sees of the past that devices keep (serve.history.History)."""

from datetime import UTC, datetime

from gbgw.archive import Archive
from gbgw.gb.records import Record
from gbgw.serve.history import Recording, Recordings, RecordType


class HistoryDesk:
    """Implements serve.history.History."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    async def recordings(
        self, device_id: str, channel_id: str, start: int, end: int, kind: RecordType, *, kept: bool
    ) -> Recordings:
        found = await self._archive.records(device_id, channel_id, start, end, kind, kept=kept)
        items = []
        same = 0
        before: tuple[int, int] | None = None
        for record in found.records:
            span = (record.start, record.end)
            same, before = (same + 1 if span == before else 0), span
            items.append(_recording(record, f"{record.start:011}-{record.end:011}-{same:05}"))
        return Recordings(items, found.complete)


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
