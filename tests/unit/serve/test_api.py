"""The control API over a real loopback server: shapes, statuses, scopes, pages, events."""

import asyncio
import json
import re
from typing import Any

import pytest

from gbgw.base import limits
from gbgw.base.errors import MediaError
from gbgw.serve.api import PREFIX, ROUTES
from tests.unit.serve.support import CHANNEL, DEVICE, KEY, device, until, world

OTHER = "34020000001320000002"


async def test_devices_have_the_documented_fields_and_times() -> None:
    async with world() as it:
        found = await it.json("GET", f"{PREFIX}/devices")
        assert found["next"] is None
        (item,) = found["items"]
        assert item["id"] == DEVICE
        expected = ["id", "name", "online", "transport", "address", "last_seen", "channel_count", "manufacturer"]
        assert set(expected) <= set(item)
        assert item["last_seen"] == "2026-02-03T04:05:06Z"
        assert "password" not in json.dumps(item).replace("has_password", "")
        assert await it.json("GET", f"{PREFIX}/devices/{DEVICE}") == item
        missing = await it.json("GET", f"{PREFIX}/devices/{OTHER}", status=404)
        assert missing["error"]["code"] == "unknown_device"


async def test_a_device_is_created_once_changed_and_forgotten() -> None:
    async with world() as it:
        body = {"id": OTHER, "name": "Yard", "password": "s3cret!"}
        made = await it.json("POST", f"{PREFIX}/devices", json=body, status=201)
        assert made["name"] == "Yard"
        assert "s3cret!" not in json.dumps(made)
        assert it.control.passwords[OTHER] == "s3cret!"
        again = await it.json("POST", f"{PREFIX}/devices", json=body, status=409)
        assert again["error"]["code"] == "device_exists"
        changed = await it.json("PATCH", f"{PREFIX}/devices/{OTHER}", json={"name": "Door"})
        assert changed["name"] == "Door"
        for _ in range(2):
            assert await it.json("DELETE", f"{PREFIX}/devices/{OTHER}", status=204) is None
        await it.json("PATCH", f"{PREFIX}/devices/{OTHER}", json={"name": "x"}, status=404)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "bad_body"),
        (b"[]", 400, "bad_body"),
        (b'{"id":"a-b"}', 400, "bad_body"),
        (b'{"id":"123456789012345678901234567890123"}', 400, "bad_body"),
        (b'{"id":"34020000001320000002","colour":"red"}', 400, "bad_body"),
        (b'{"id":"34020000001320000002","media_transport":"carrier pigeon"}', 400, "bad_body"),
        (b'{"id":"34020000001320000002","name":"a\\u0000b"}', 400, "bad_body"),
        (b"[" * 100_000, 400, "bad_body"),
        (b"\xff\xfe", 400, "bad_body"),
        (b" " * (limits.HTTP_BODY_BYTES + 1), 413, "body_too_long"),
    ],
)
async def test_bad_bodies_are_refused_in_words(body: bytes, status: int, code: str) -> None:
    async with world() as it:
        headers = {"Content-Type": "application/json"} | it.bearer()
        async with it.client.post(f"{it.url}{PREFIX}/devices", data=body, headers=headers) as response:
            assert response.status == status
            assert (await response.json())["error"]["code"] == code
        headers["Content-Type"] = "text/plain"
        async with it.client.post(f"{it.url}{PREFIX}/devices", data=b"{}", headers=headers) as response:
            assert response.status == 415
        assert list(it.control.known) == [DEVICE]


async def test_a_secret_in_a_refused_body_is_not_echoed() -> None:
    async with world() as it:
        body = {"id": OTHER, "password": "has space"}
        refused = await it.json("POST", f"{PREFIX}/devices", json=body, status=400)
        assert "has space" not in json.dumps(refused)


async def test_pages_cover_everything_once_also_while_devices_vanish() -> None:
    async with world() as it:
        ids = [f"3402000000132{number:07}" for number in range(1, 26)]
        it.control.known = {each: device(each) for each in ids}
        seen: list[str] = []
        after = ""
        while True:
            page = await it.json("GET", f"{PREFIX}/devices?limit=10&after={after}")
            seen += [item["id"] for item in page["items"]]
            if page["next"] is None:
                break
            after = page["next"]
            it.control.known.pop(after, None)
        assert seen == ids
        for bad in ("0", "-1", "x", str(limits.PAGE_ITEMS + 1)):
            await it.json("GET", f"{PREFIX}/devices?limit={bad}", status=400)


async def test_channels_catalog_and_keyframe() -> None:
    async with world() as it:
        base = f"{PREFIX}/devices/{DEVICE}"
        (channel,) = (await it.json("GET", f"{base}/channels"))["items"]
        assert {"id", "device_id", "name", "online", "playable", "parent_id", "ptz"} <= set(channel)
        assert await it.json("GET", f"{base}/channels/{CHANNEL}") == channel
        await it.json("GET", f"{base}/channels/{OTHER}", status=404)
        await it.json("GET", f"{PREFIX}/devices/{OTHER}/channels", status=404)
        await it.json("POST", f"{base}/catalog")
        assert it.control.refreshed == [DEVICE]
        await it.json("POST", f"{base}/channels/{CHANNEL}/iframe", status=204)
        assert it.control.keyframes == [(DEVICE, CHANNEL)]
        assert it.cameras.audited == [("admin", "iframe", DEVICE, CHANNEL, "ok")]
        it.control.failure = MediaError("Silence.", code="device_offline")
        late = await it.json("POST", f"{base}/catalog", status=504)
        assert late["error"]["code"] == "device_offline"


async def test_streams_show_their_viewers_and_urls() -> None:
    async with world(public_url="https://video.example/gbgw") as it:
        started = await it.json("POST", f"{PREFIX}/streams", json={"key": KEY})
        assert {"key", "kind", "state", "cause", "tracks", "viewers", "urls", "started", "bitrate"} <= set(started)
        assert started["viewers"] == 0
        assert started["urls"]["flv"] == f"https://video.example/gbgw/live/{KEY}.flv"
        assert started["urls"]["ws-flv"] == f"wss://video.example/gbgw/live/{KEY}.flv"
        async with it.client.get(f"{it.url}/live/{KEY}.flv") as response:
            viewer_id = response.headers["X-Gbgw-Viewer"]
            (shown,) = (await it.json("GET", f"{PREFIX}/streams"))["items"]
            assert shown["viewers"] == 1
            assert shown["viewers_by_protocol"] == {"flv": 1}
            (viewer,) = (await it.json("GET", f"{PREFIX}/streams/{KEY}/viewers"))["items"]
            assert viewer["id"] == viewer_id
            own = await it.json("GET", f"{PREFIX}/streams/{KEY}/viewers/{viewer_id}")
            assert own["protocol"] == "flv"
            assert own["queue_bytes"] >= 0
            await it.json("GET", f"{PREFIX}/streams/{KEY[:-1]}9/viewers/{viewer_id}", status=404)
        diagnosis = await it.json("GET", f"{PREFIX}/streams/{KEY}/diagnosis")
        assert diagnosis["cause"]["code"] == "no_media"
        assert await it.json("GET", f"{PREFIX}/streams/{KEY}/ladder") == diagnosis["steps"]
        for _ in range(2):
            await it.json("DELETE", f"{PREFIX}/streams/{KEY}", status=204)
        assert (await it.json("GET", f"{PREFIX}/streams/{KEY}", status=404))["error"]["code"] == "unknown_stream"
        assert (await it.json("GET", f"{PREFIX}/streams/{KEY}/diagnosis", status=404))["error"]["stream"] == KEY
        await it.json("POST", f"{PREFIX}/streams", json={"key": "../../etc"}, status=404)


async def test_tokens_their_scopes_and_their_end() -> None:
    async with world(play="token") as it:
        made = await it.json("POST", f"{PREFIX}/tokens", json={"name": "wall", "scopes": ["view"]}, status=201)
        view = it.bearer(made["token"])

        async def status(method: str, path: str, **options: Any) -> int:
            async with it.client.request(method, f"{it.url}{PREFIX}{path}", headers=view, **options) as response:
                return response.status

        assert await status("GET", "/devices") == 200
        assert await status("POST", "/streams", json={"key": KEY}) == 403
        assert await status("GET", "/tokens") == 403
        async with it.client.get(f"{it.url}{PREFIX}/whoami", headers=view) as response:
            me = await response.json()
        assert (me["name"], me["scopes"]) == ("wall", ["view"])
        listed = await it.json("GET", f"{PREFIX}/tokens")
        assert made["token"] not in json.dumps(listed)
        assert {item["name"] for item in listed["items"]} == {"admin", "wall"}
        for _ in range(2):
            await it.json("DELETE", f"{PREFIX}/tokens/{made['id']}", status=204)
        assert await status("GET", "/whoami") == 401
        body = {"scopes": ["view"], "expires": "2020-01-01T00:00:00Z"}
        await it.json("POST", f"{PREFIX}/tokens", json=body, status=400)
        await it.json("POST", f"{PREFIX}/tokens", json={"scopes": ["root"]}, status=400)


async def test_a_bearer_in_the_query_is_not_taken_by_the_api() -> None:
    async with world() as it, it.client.get(f"{it.url}{PREFIX}/devices?token={it.admin}") as response:
        assert response.status == 401


async def test_a_play_token_plays() -> None:
    async with world(play="token") as it:
        made = await it.json("POST", f"{PREFIX}/play-tokens", json={"key": KEY, "seconds": 60}, status=201)
        assert set(made["urls"]) == {"flv", "ws-flv", "hls", "mp4", "ws-mp4", "ts", "ws-ts", "webrtc"}
        async with it.client.get(made["urls"]["flv"]) as response:
            assert response.status == 200
        async with it.client.get(made["urls"]["flv"].replace(".flv", ".ts")) as response:
            assert response.status == 200
        await it.json("POST", f"{PREFIX}/play-tokens", json={"key": f"{DEVICE}-{OTHER}"}, status=404)
        await it.json("POST", f"{PREFIX}/play-tokens", json={"key": KEY, "seconds": 0}, status=400)


async def test_every_operation_refuses_strangers() -> None:
    async with world() as it:
        for route in ROUTES:
            path = route.path.replace("{id}", DEVICE).replace("{cid}", CHANNEL).replace("{key}", KEY)
            url = f"{it.url}{PREFIX}{re.sub(r'{[a-z]+}', 'x', path)}"
            for headers in ({}, it.bearer("gbgw_wrong")):
                async with it.client.request(route.method, url, headers=headers) as response:
                    assert response.status == 401, route.path
                    assert (await response.json())["error"]["code"] in ("token_missing", "token_invalid")


async def test_events_resume_and_end_with_their_reader() -> None:
    async with world() as it:
        url = f"{it.url}{PREFIX}/events?token={it.admin}"
        async with it.client.get(url, headers={"Last-Event-ID": "1"}) as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            lines: list[str] = []
            async with asyncio.timeout(2):
                while not lines or not lines[-1].startswith("data:"):
                    lines.append((await response.content.readline()).decode().rstrip())
            assert lines[2:4] == ["id: 2", "event: stream.state"]
            event = json.loads(lines[4].removeprefix("data: "))
            assert event == {"id": 2, "type": "stream.state", "time": "2026-02-03T04:05:06Z", "data": {"key": KEY}}
            assert it.serving.event_streams == 1
        await until(lambda: it.serving.event_streams == 0)
        async with it.client.get(url, headers={"Last-Event-ID": "x"}) as response:
            assert response.status == 400


async def test_event_streams_have_a_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EVENT_VIEWERS", 0)
    async with world() as it:
        refused = await it.json("GET", f"{PREFIX}/events", status=503)
        assert refused["error"]["code"] == "event_limit"


async def test_a_heartbeat_keeps_the_event_stream_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EVENT_HEARTBEAT_SECONDS", 0.02)
    async with world() as it, it.client.get(f"{it.url}{PREFIX}/events", headers=it.bearer()) as response:
        async with asyncio.timeout(2):
            while await response.content.readline() != b": beat\n":
                pass
