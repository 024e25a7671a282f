"""The API of recordings on devices, over a real loopback server."""

from datetime import UTC, datetime

from gbgw.serve.api import PREFIX
from gbgw.serve.history import Recording, Recordings, RecordType
from tests.unit.serve.support import CHANNEL, DEVICE, World, world

RECORDS = f"{PREFIX}/devices/{DEVICE}/channels/{CHANNEL}/records"
SPAN = "start=20260203T000000Z&end=20260204T000000Z"


def recording(hour: int) -> Recording:
    start, end = datetime(2026, 2, 3, hour, tzinfo=UTC), datetime(2026, 2, 3, hour, 30, tzinfo=UTC)
    return Recording(f"{hour:03}", start, end, "lens", "time", None, "", False)


class Past:
    """A device that recorded half of each hour."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int, int, str, bool]] = []
        self.complete = True

    async def recordings(
        self, device_id: str, channel_id: str, start: int, end: int, kind: RecordType, *, kept: bool
    ) -> Recordings:
        self.asked.append((device_id, channel_id, start, end, kind, kept))
        return Recordings([recording(hour) for hour in range(24)], self.complete)


def with_past(it: World) -> Past:
    past = Past()
    it.serving.history = past
    return past


async def test_recordings_are_listed_in_pages() -> None:
    async with world() as it:
        past = with_past(it)
        first = await it.json("GET", f"{RECORDS}?{SPAN}&limit=20")
        assert len(first["items"]) == 20
        assert first["items"][1] == {
            "id": "001",
            "start": "2026-02-03T01:00:00Z",
            "end": "2026-02-03T01:30:00Z",
            "name": "lens",
            "kind": "time",
            "bytes": None,
            "file_path": "",
            "secrecy": False,
        }
        assert first["complete"] is True
        last = await it.json("GET", f"{RECORDS}?{SPAN}&limit=20&after={first['next']}")
        assert [item["id"] for item in last["items"]] == ["020", "021", "022", "023"]
        assert last["next"] is None
        assert past.asked == [
            (DEVICE, CHANNEL, 1_770_076_800, 1_770_163_200, "all", False),
            (DEVICE, CHANNEL, 1_770_076_800, 1_770_163_200, "all", True),
        ]


async def test_a_partial_list_says_so() -> None:
    async with world() as it:
        with_past(it).complete = False
        assert (await it.json("GET", f"{RECORDS}?{SPAN}&type=alarm"))["complete"] is False


async def test_questions_that_cannot_be_asked() -> None:
    async with world() as it:
        past = with_past(it)
        assert (await it.json("GET", RECORDS, status=400))["error"]["code"] == "bad_time"
        assert (await it.json("GET", f"{RECORDS}?{SPAN}&type=odd", status=400))["error"]["code"] == "bad_query"
        other = RECORDS.replace(CHANNEL, "34020000001310000009")
        assert (await it.json("GET", f"{other}?{SPAN}", status=404))["error"]["code"] == "unknown_channel"
        foreign = RECORDS.replace(DEVICE, "34020000001320000009")
        assert (await it.json("GET", f"{foreign}?{SPAN}", status=404))["error"]["code"] == "unknown_device"
        assert past.asked == []
