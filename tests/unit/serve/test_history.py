"""The API of recordings on devices, over a real loopback server."""

from datetime import UTC, datetime
from pathlib import Path

from gbgw.base.errors import RequestError
from gbgw.serve.api import PREFIX
from gbgw.serve.history import DownloadInfo, PlaybackChange, PlaybackInfo, Recording, Recordings, RecordType
from tests.unit.serve.support import CHANNEL, DEVICE, KEY, NOW, World, world

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
        self.rows: dict[str, PlaybackInfo] = {}
        self.changes: list[PlaybackChange] = []
        self.fetched: dict[str, DownloadInfo] = {}
        self.file: Path | None = None

    async def recordings(
        self, device_id: str, channel_id: str, start: int, end: int, kind: RecordType, *, kept: bool
    ) -> Recordings:
        self.asked.append((device_id, channel_id, start, end, kind, kept))
        return Recordings([recording(hour) for hour in range(24)], self.complete)

    def playbacks(self) -> list[PlaybackInfo]:
        return [self.rows[name] for name in sorted(self.rows)]

    async def playback(self, playback_id: str) -> PlaybackInfo:
        if playback_id not in self.rows:
            raise RequestError("There is none.", status=404, code="unknown_playback")
        return self.rows[playback_id]

    def make_playback(self, device_id: str, channel_id: str, start: int, end: int) -> PlaybackInfo:
        name = f"p{len(self.rows):08x}"
        key = f"{device_id}-{channel_id}-{start}-{end}-{name}"
        span = datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(end, UTC)
        self.rows[name] = PlaybackInfo(name, device_id, channel_id, key, *span, "idle", None, None, False, 1.0, None)
        return self.rows[name]

    async def change_playback(self, playback_id: str, change: PlaybackChange) -> PlaybackInfo:
        self.changes.append(change)
        return await self.playback(playback_id)

    async def end_playback(self, playback_id: str) -> None:
        self.rows.pop(playback_id, None)

    def downloads(self) -> list[DownloadInfo]:
        return [self.fetched[name] for name in sorted(self.fetched)]

    def download(self, download_id: str) -> DownloadInfo:
        if download_id not in self.fetched:
            raise RequestError("There is none.", status=404, code="unknown_download")
        return self.fetched[download_id]

    def download_file(self, download_id: str) -> Path:
        self.download(download_id)
        if self.file is None:
            raise RequestError("Not yet.", status=409, code="not_finished")
        return self.file

    async def make_download(self, device_id: str, channel_id: str, start: int, end: int, speed: int) -> DownloadInfo:
        span = datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(end, UTC)
        made = DownloadInfo("d1", device_id, channel_id, KEY, *span, speed, "waiting", None, NOW, None, 0, 0, None, 0)
        self.fetched["d1"] = made
        return made

    async def end_download(self, download_id: str) -> None:
        self.fetched.pop(download_id, None)


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


PLAYBACKS = f"{PREFIX}/playbacks"
BODY = {"key": KEY, "start": "2026-02-03T08:00:00+08:00", "end": "2026-02-03T01:00:00Z"}


async def test_a_playback_is_made_read_changed_and_ended() -> None:
    async with world(play="token") as it:
        past = with_past(it)
        made = await it.json("POST", PLAYBACKS, json=BODY, status=201)
        assert (made["id"], made["state"], made["speed"]) == ("p00000000", "idle", 1.0)
        assert (made["start"], made["end"]) == ("2026-02-03T00:00:00Z", "2026-02-03T01:00:00Z")
        address, _, token = made["urls"]["flv"].partition("?token=")
        assert address == f"{it.url}/playback/{KEY}/20260203T000000Z-20260203T010000Z-p00000000.flv"
        assert token
        assert made["urls"]["webrtc"].startswith(address.removesuffix(".flv") + "/whep?")
        await it.json("POST", PLAYBACKS, json=BODY, status=201)
        listed = await it.json("GET", f"{PLAYBACKS}?limit=1")
        assert ([item["id"] for item in listed["items"]], listed["next"]) == (["p00000000"], "p00000000")
        path = f"{PLAYBACKS}/p00000000"
        change = {"position": "2026-02-03T00:30:00Z", "speed": -0.5, "paused": True}
        await it.json("PATCH", path, json=change)
        await it.json("PATCH", path, json={})
        assert past.changes == [PlaybackChange(1_770_078_600.0, -0.5, True), PlaybackChange()]
        assert (await it.json("GET", path))["id"] == "p00000000"
        await it.json("DELETE", path, status=204)
        await it.json("DELETE", path, status=204)
        assert (await it.json("GET", path, status=404))["error"]["code"] == "unknown_playback"


async def test_playbacks_that_cannot_be_made() -> None:
    async with world() as it:
        past = with_past(it)
        for change, code in (
            ({"end": BODY["start"]}, "bad_span"),
            ({"key": f"{KEY}-1-2"}, "bad_span"),
            ({"start": "1960-01-01T00:00:00Z"}, "bad_span"),
            ({"start": "2026-02-03T00:00:00"}, "bad_body"),
        ):
            refused = await it.json("POST", PLAYBACKS, json={**BODY, **change}, status=400)
            assert refused["error"]["code"] == code
        assert past.rows == {}


async def test_a_download_is_made_and_its_file_fetched_by_ranges(tmp_path: Path) -> None:
    async with world() as it:
        past = with_past(it)
        path = f"{PREFIX}/downloads"
        assert (await it.json("POST", path, json={**BODY, "speed": 17}, status=400))["error"]["code"] == "bad_body"
        assert (await it.json("POST", path, json={**BODY, "end": BODY["start"]}, status=400))["error"][
            "code"
        ] == "bad_span"
        made = await it.json("POST", path, json={**BODY, "speed": 8}, status=201)
        assert (made["id"], made["speed"], made["state"]) == ("d1", 8, "waiting")
        assert [item["id"] for item in (await it.json("GET", path))["items"]] == ["d1"]
        assert (await it.json("GET", f"{path}/d1/file", status=409))["error"]["code"] == "not_finished"
        past.file = tmp_path / "d1.mp4"
        past.file.write_bytes(bytes(range(200)))
        url = f"{it.url}{path}/d1/file?token={it.admin}"
        async with it.client.get(url, headers={"Range": "bytes=10-19"}) as response:
            assert (response.status, await response.read()) == (206, bytes(range(10, 20)))
            assert response.content_type == "video/mp4"
            name = f"{CHANNEL}-20260203T000000Z-20260203T010000Z.mp4"
            assert response.headers["Content-Disposition"] == f'attachment; filename="{name}"'
        async with it.client.get(f"{it.url}{path}/d1/file?token=gbgw_wrong") as response:
            assert response.status == 401
        await it.json("DELETE", f"{path}/d1", status=204)
        await it.json("GET", f"{path}/d1", status=404)
