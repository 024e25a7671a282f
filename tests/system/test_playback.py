"""Recordings on a device, played through the gateway: checklist statements 59, 66, 67 and 68 over real sockets."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from gbgw.base import limits
from tests.support.peer import Camera, Text
from tests.system.conftest import CHANNEL, DEVICE, KEY, http_get
from tests.system.steps import Sender, all_back, fact, online, playing, plays_on, sending

GatewayAt = Callable[..., Any]
PLATFORM = "34020000002000000001"
START = 1_770_076_800  # 2026-02-03T00:00:00Z
STOP = START + 3_600
SPAN = "20260203T000000Z-20260203T010000Z"
WORKERS = pytest.mark.parametrize("workers", [0, 1], indirect=True)


def url(gateway: Any, ending: str = ".flv", span: str = SPAN) -> str:
    return f"{gateway.http_url}/playback/{KEY}/{span}{ending}"


async def api(gateway: Any, method: str, path: str, status: int = 200, **options: Any) -> Any:
    headers = {"Authorization": f"Bearer {gateway.new_admin_token}"}
    async with (
        asyncio.timeout(10),
        aiohttp.ClientSession(headers=headers) as client,
        client.request(method, f"{gateway.http_url}/api/v1{path}", **options) as answer,
    ):
        text = await answer.text()
        assert answer.status == status, text
        return await answer.json() if text else None


@asynccontextmanager
async def watching(address: str) -> AsyncIterator["asyncio.Task[tuple[int, bytes]]"]:
    """Somebody reads `address` to its end."""
    task = asyncio.create_task(http_get(address, seconds=20), name="test:watch")
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def played(camera: Camera, address: str, **how: Any) -> AsyncIterator[tuple[Any, Text, Sender]]:
    """Somebody watches a recording, which the camera sends: (the reading, the INVITE, the sender)."""
    async with watching(address) as reading:
        invite = await camera.expect("INVITE")
        await camera.answer_invite(invite)
        async with sending(camera, invite, tcp="TCP" in invite.sdp["m"][0], **how) as sender:
            yield reading, invite, sender


def in_dialog(camera: Camera, invite: Text, sn: int = 8, *, device_id: str = CHANNEL, cseq: int = 2) -> bytes:
    """The notice that the file has ended, inside the dialog that the platform's INVITE opened."""
    body = (
        '<?xml version="1.0" encoding="GB2312"?>\r\n<Notify>\r\n<CmdType>MediaStatus</CmdType>\r\n'
        f"<SN>{sn}</SN>\r\n<DeviceID>{device_id}</DeviceID>\r\n<NotifyType>121</NotifyType>\r\n</Notify>\r\n"
    ).encode()
    lines = [
        f"MESSAGE sip:{PLATFORM}@{camera.server[0]}:{camera.server[1]} SIP/2.0",
        f"Via: SIP/2.0/UDP {camera.local[0]}:{camera.local[1]};rport;branch=z9hG4bKend{cseq}",
        f"From: {invite['To']};tag=peer",
        f"To: {invite['From']}",
        f"Call-ID: {invite['Call-ID']}",
        f"CSeq: {cseq} MESSAGE",
        "Max-Forwards: 70",
        "Content-Type: Application/MANSCDP+xml",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def ended(camera: Camera, *, sender: str | None = None, device_id: str = CHANNEL) -> bytes:
    """The same notice outside any dialog."""
    return camera.message(
        f"<Notify>\r\n<CmdType>MediaStatus</CmdType>\r\n<SN>9</SN>\r\n<DeviceID>{device_id}</DeviceID>\r\n"
        "<NotifyType>121</NotifyType>\r\n</Notify>",
        sender=sender,
    )


async def goes(gateway: Any, camera: Camera, reading: Any) -> bytes:
    """The platform says BYE, the viewer comes to a clean end, and everything is back. Returns what he saw."""
    bye = await camera.expect("BYE", 8)
    camera.respond(bye, 200)
    status, body = await reading
    assert status == 200
    assert body.startswith(b"FLV")
    await all_back(gateway)
    return bytes(body)


@pytest.mark.conformance(59, 66)
@WORKERS
async def test_the_invite_for_a_recording(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway) as camera, played(camera, url(gateway)) as (_, first, _):
        sdp = first.sdp
        assert first.uri.startswith(f"sip:{CHANNEL}@")
        assert sdp["s"] == ["Playback"]
        assert sdp["u"] == [f"{CHANNEL}:0"]
        assert sdp["t"] == [f"{START} {STOP}"]
        assert re.fullmatch(r"1\d{9}", sdp["y"][0])
        assert [line[:1] for line in first.body.decode().splitlines()][:7] == list("vosuctm")
        serial = re.fullmatch(rf"{CHANNEL}:(1[0-9A-Za-z]{{1,31}}),{PLATFORM}:\w+", first["Subject"])
        assert serial is not None
        # Another viewer of the same span has a playback of his own, which does not touch the first
        async with played(camera, url(gateway)) as (_, second, _):
            assert second["Subject"] != first["Subject"]
            assert second["Call-ID"] != first["Call-ID"]
            assert second.sdp["y"] != sdp["y"]
            assert second.sdp["m"] != sdp["m"]
            await fact(lambda: gateway.resources()["sessions"] == 2, "two playbacks")
            # And live pictures of the channel are a third thing
            async with playing(gateway, camera) as (watch, _, live):
                assert live.sdp["s"] == ["Play"]
                assert live.sdp["t"] == ["0 0"]
                await plays_on(watch)
                assert gateway.resources()["sessions"] == 3
                assert {key.name[0] for key in gateway.history_keys()} == {"a"}


@pytest.mark.conformance(68)
@WORKERS
@pytest.mark.parametrize("how", ["in dialog", "outside", "from the platform", "by the recorder", "bye"])
async def test_a_recording_ends(gateway_at: GatewayAt, how: str) -> None:
    async with gateway_at() as gateway, online(gateway) as camera:
        async with played(camera, url(gateway)) as (reading, invite, sender):
            await fact(lambda: sender.index > 30, "some pictures were sent")
            sender.paused = True
            match how:
                case "in dialog":
                    camera.send(in_dialog(camera, invite))
                    assert (await camera.expect(200)).cseq == (2, "MESSAGE")
                    camera.send(in_dialog(camera, invite, cseq=3))  # told twice
                case "outside":
                    camera.send(ended(camera))
                case "from the platform":
                    camera.send(ended(camera, sender=PLATFORM))
                case "by the recorder":
                    camera.send(ended(camera, device_id=DEVICE))
                case "bye":
                    camera.send(camera.bye(invite))
                    assert (await camera.expect(200)).cseq[1] == "BYE"
                    assert (await reading)[0] == 200
                    await all_back(gateway)
                    return
            assert len(await goes(gateway, camera, reading)) > 30_000
        session = gateway.last_session(f"{KEY}-{START}-{STOP}-{invite_name(gateway)}")
        assert session is not None
        assert session.cause is None
        # Told once more, when nothing plays: answered, and of no effect
        camera.send(ended(camera))
        assert (await camera.expect(200)).cseq[1] == "MESSAGE"


def invite_name(gateway: Any) -> str:
    """The name of the last playback that ended."""
    return str(next(reversed(gateway._ended)).rsplit("-", 1)[1])


@pytest.mark.conformance(68)
@WORKERS
async def test_silence_at_the_end_is_the_end_and_before_it_is_a_fault(gateway_at: GatewayAt) -> None:
    async with gateway_at("media.idle_seconds=1") as gateway, online(gateway) as camera:
        async with played(camera, url(gateway, span=f"{START}-{START + 4}")) as (reading, _, sender):
            await fact(lambda: sender.index > 60, "two seconds of pictures were sent")
            sender.paused = True
            await goes(gateway, camera, reading)
        session = gateway.last_session(f"{KEY}-{START}-{START + 4}-{invite_name(gateway)}")
        assert session.cause is None
        async with played(camera, url(gateway)) as (reading, _, sender):
            await fact(lambda: sender.index > 60, "two seconds of pictures were sent")
            sender.paused = True
            camera.respond(await camera.expect("BYE", 8), 200)
            await reading
        await all_back(gateway)
        session = gateway.last_session(f"{KEY}-{START}-{STOP}-{invite_name(gateway)}")
        assert session.cause.code == "media_stopped"


async def test_of_two_playbacks_a_notice_that_fits_both_ends_none(gateway_at: GatewayAt) -> None:
    async with (
        gateway_at() as gateway,
        online(gateway) as camera,
        played(camera, url(gateway)) as (first, invite, _),
        played(camera, url(gateway)) as (second, _, _),
    ):
        camera.send(ended(camera))
        assert (await camera.expect(200)).cseq[1] == "MESSAGE"
        await fact(lambda: gateway.tally.counts.get("playback.end_unclear"), "the notice was counted")
        assert not first.done()
        assert not second.done()
        camera.send(in_dialog(camera, invite))
        camera.respond(await camera.expect("BYE", 8), 200)
        assert (await first)[0] == 200
        assert not second.done()


@WORKERS
async def test_hls_of_a_recording_has_an_end(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway) as camera:
        async with played(camera, url(gateway, "/index.m3u8")) as (reading, invite, sender):
            status, master = await reading
            assert status == 200
            uri = next(line for line in master.decode().splitlines() if line and not line.startswith("#"))
            media = url(gateway, f"/{uri}")
            status, playlist = await http_get(media)
            assert status == 200
            assert b"#EXT-X-ENDLIST" not in playlist
            first = re.search(rb"^p?\d+\.m4s", playlist, re.MULTILINE) or re.search(rb'URI="(p\d+\.m4s)"', playlist)
            assert first is not None
            sender.paused = True
            camera.send(in_dialog(camera, invite))
            camera.respond(await camera.expect("BYE", 8), 200)
            status, playlist = await http_get(media)
            assert status == 200
            assert playlist.rstrip().endswith(b"#EXT-X-ENDLIST")
        await all_back(gateway)


async def test_a_recording_that_has_nothing_is_named(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway) as camera, watching(url(gateway)) as reading:
        invite = await camera.expect("INVITE")
        await camera.answer_invite(invite)
        camera.send(in_dialog(camera, invite))
        camera.respond(await camera.expect("BYE", 8), 200)
        status, body = await reading
        assert status == 504
        assert b'"no_record"' in body
        await all_back(gateway)


async def test_a_busy_recorder_is_named(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway) as camera, watching(url(gateway)) as reading:
        camera.respond(await camera.expect("INVITE"), 486)
        status, body = await reading
        assert status in (409, 504)
        assert b"invite_rejected_486" in body
        await all_back(gateway)


@WORKERS
async def test_a_viewer_who_leaves_ends_his_playback_at_once(gateway_at: GatewayAt) -> None:
    async with gateway_at("media.linger_seconds=60") as gateway, online(gateway) as camera:
        async with played(camera, url(gateway)) as (reading, _, _):
            await fact(lambda: len(gateway.viewers) == 1, "he watches")
            reading.cancel()
            camera.respond(await camera.expect("BYE", limits.PLAYBACK_LINGER_SECONDS + 3), 200)
        await all_back(gateway)


async def test_addresses_that_mean_nothing(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway):
        for span, status, code in (
            (f"{STOP}-{START}", 400, b"bad_span"),
            (f"{START}-{START}", 400, b"bad_span"),
            (f"{START}-9999999999", 400, b"bad_time"),
            (f"{START}-{STOP}-p00000000", 404, b"unknown_playback"),
        ):
            answer = await http_get(url(gateway, span=span))
            assert answer[0] == status, answer
            assert code in answer[1]
        assert (await http_get(f"{gateway.http_url}/live/{KEY}-{START}-{STOP}-a00000000.flv"))[0] == 404
        assert (await http_get(url(gateway, span=f"{START}-{STOP}-a00000000")))[0] == 404


async def made(gateway: Any) -> Any:
    body = {"key": KEY, "start": "2026-02-03T00:00:00Z", "end": "2026-02-03T01:00:00Z"}
    return await api(gateway, "POST", "/playbacks", 201, json=body)


async def answered(
    camera: Camera, change: "asyncio.Task[Any]", body: bytes = b"", status: int = 200
) -> tuple[Text, Any]:
    """Answer the next INFO; return it and what the API made of the answer."""
    info = await camera.expect("INFO")
    headers = ["Content-Type: Application/MANSRTSP"] if body else []
    camera.respond(info, status, body=body, headers=headers)
    return info, await change


@pytest.mark.conformance(67)
@WORKERS
async def test_a_playback_is_steered(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway) as camera:
        playback = await made(gateway)
        path = f"/playbacks/{playback['id']}"
        assert playback["state"] == "idle"
        assert (await api(gateway, "PATCH", path, 409, json={"paused": True}))["error"]["code"] == "not_streaming"
        async with played(camera, playback["urls"]["flv"]) as (reading, invite, sender):
            await fact(lambda: len(gateway.viewers) == 1, "he watches")
            await fact(lambda: gateway.session(playback["stream"]).state.value == "playing", "it plays")

            async def change(status: int = 200, body: bytes = b"", sip: int = 200, **wanted: Any) -> tuple[str, Any]:
                task = asyncio.create_task(api(gateway, "PATCH", path, status, json=wanted), name="test:change")
                info, answer = await answered(camera, task, body, sip)
                assert info["Content-Type"] == "Application/MANSRTSP"
                assert int(info["Content-Length"]) == len(info.body)
                assert info["Call-ID"] == invite["Call-ID"]
                assert info.tag("To") == "peer"
                assert info.tag("From") == invite.tag("From")
                assert info.cseq[0] > invite.cseq[0]
                return info.body.decode(), answer

            text, answer = await change(paused=True)
            assert text == "PAUSE RTSP/1.0\r\nCSeq: 1\r\nPauseTime: now\r\n\r\n"
            assert answer["paused"] is True
            sender.paused = True
            text, answer = await change(paused=False)
            assert text == "PLAY RTSP/1.0\r\nCSeq: 2\r\nRange: npt=now-\r\n\r\n"
            assert answer["paused"] is False
            sender.paused = False
            text, answer = await change(speed=2)
            assert text == "PLAY RTSP/1.0\r\nCSeq: 3\r\nScale: 2.0\r\n\r\n"
            assert answer["speed"] == 2
            text, answer = await change(
                position="2026-02-03T00:01:40Z",
                body=b"RTSP/1.0 200 OK\r\nCSeq: 9\r\nRange: npt=100-\r\nRTP-Info: seq=4711;rtptime=2250000000\r\n\r\n",
            )
            assert text == "PLAY RTSP/1.0\r\nCSeq: 4\r\nRange: npt=100-\r\n\r\n"
            assert "2026-02-03T00:01:4" in answer["position"]
            text, answer = await change(speed=-1)
            assert text == "PLAY RTSP/1.0\r\nCSeq: 5\r\nScale: -1.0\r\n\r\n"
            text, answer = await change(status=504, sip=200, body=b"RTSP/1.0 454 No\r\nCSeq: 6\r\n\r\n", speed=8)
            assert answer["error"]["code"] == "control_refused"
            text, answer = await change(status=504, sip=488, speed=4)
            assert answer["error"]["code"] == "control_refused"
            assert (await api(gateway, "GET", path))["speed"] == -1
            for wanted, code in ({"speed": 9}, "bad_speed"), ({"position": "2026-02-03T01:00:00Z"}, "bad_position"):
                assert (await api(gateway, "PATCH", path, 400, json=wanted))["error"]["code"] == code
            assert not reading.done()
            ending = asyncio.create_task(api(gateway, "DELETE", path, 204), name="test:end")
            camera.respond(await camera.expect("BYE", 8), 200)
            await ending
        await all_back(gateway)
        await api(gateway, "GET", path, 404)


@WORKERS
async def test_viewers_of_one_playback_share_it_and_it_begins_with_the_first(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway) as camera:
        playback = await made(gateway)
        await camera.nothing(0.2, "INVITE")
        async with played(camera, playback["urls"]["flv"]) as (_, _, sender):
            await fact(lambda: sender.index > 20, "pictures were sent")
            async with watching(playback["urls"]["ts"]):
                await fact(lambda: len(gateway.viewers) == 2, "two watch")
                assert gateway.resources()["sessions"] == 1
                listed = await api(gateway, "GET", "/playbacks")
                assert [item["id"] for item in listed["items"]] == [playback["id"]]
                assert listed["items"][0]["state"] == "playing"
                (stream,) = (await api(gateway, "GET", "/streams"))["items"]
                assert (stream["kind"], stream["key"]) == ("playback", playback["stream"])
                assert stream["urls"]["flv"].split("?")[0] == playback["urls"]["flv"].split("?")[0]


async def test_a_paused_playback_is_not_taken_for_a_dead_one(gateway_at: GatewayAt) -> None:
    async with gateway_at("media.idle_seconds=0.5") as gateway, online(gateway) as camera:
        playback = await made(gateway)
        path = f"/playbacks/{playback['id']}"
        async with played(camera, playback["urls"]["flv"]) as (reading, _, sender):
            await fact(lambda: gateway.session(playback["stream"]) is not None, "it began")
            await fact(lambda: gateway.session(playback["stream"]).state.value == "playing", "it plays")
            change = asyncio.create_task(api(gateway, "PATCH", path, json={"paused": True}), name="test:pause")
            sender.paused = True
            await answered(camera, change)
            await camera.nothing(1.2, "BYE")
            assert not reading.done()
            change = asyncio.create_task(api(gateway, "PATCH", path, json={"paused": False}), name="test:resume")
            await answered(camera, change)
            camera.respond(await camera.expect("BYE", 8), 200)  # it did not go on: now the silence counts
            await reading
        await all_back(gateway)


async def test_backwards_is_not_asked_of_a_device_that_does_not_know_it(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway, version="2.0") as camera:
        playback = await made(gateway)
        async with played(camera, playback["urls"]["flv"]):
            await fact(lambda: gateway.session(playback["stream"]) is not None, "it began")
            await fact(lambda: gateway.session(playback["stream"]).state.value == "playing", "it plays")
            refused = await api(gateway, "PATCH", f"/playbacks/{playback['id']}", 409, json={"speed": -1})
            assert refused["error"]["code"] == "reverse_unsupported"
            await camera.nothing(0.2, "INFO")
