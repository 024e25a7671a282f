"""Checklist statements 1-15 over real sockets: registration, identity, keepalive."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from tests.support.peer import Camera, Text, digest
from tests.system.conftest import DEVICE, KEY, PASSWORD
from tests.system.steps import fact, online, playing, server_of

GatewayAt = Callable[..., Any]
KEEPALIVE = "<Notify><CmdType>Keepalive</CmdType><SN>7</SN><DeviceID>{}</DeviceID><Status>OK</Status></Notify>"


@asynccontextmanager
async def camera_at(gateway: Any, device_id: str = DEVICE, **options: Any) -> AsyncIterator[Camera]:
    async with Camera(device_id, server=server_of(gateway, options.get("transport", "udp")), **options) as camera:
        yield camera


async def ask(camera: Camera, *headers: str, contact: bool = True, expires: str = "Expires: 3600", **more: Any) -> Text:
    """Send one REGISTER and return what comes back."""
    given = [expires, *headers] if expires else list(headers)
    camera.send(camera.request("REGISTER", to=camera.id, headers=given, contact=contact, **more))
    return await register_answer(camera)


async def register_answer(camera: Camera) -> Text:
    while True:
        text = await camera.receive()
        if text.status and text.cseq[1] == "REGISTER":
            return text
        if text.method:
            camera.respond(text, 200)


def credentials(
    camera: Camera, challenge: Text, *, qop: bool = False, uri: str = "", password: str = PASSWORD, user: str = ""
) -> str:
    uri = uri or f"sip:{camera.server_id}@{camera.domain}"
    value = digest("REGISTER", uri, user or camera.id, password, challenge["WWW-Authenticate"], qop=qop)
    return f"Authorization: {value}"


def entry_of(gateway: Any, device_id: str = DEVICE) -> Any:
    return gateway.directory.get(device_id)


@pytest.mark.conformance(1)
async def test_register_over_udp_and_tcp_on_one_port_number(gateway_at: GatewayAt) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with gateway_at(f'sip.listen=["udp://127.0.0.1:{port}", "tcp://127.0.0.1:{port}"]') as gateway:
        assert gateway.sip_ports == {"udp": port, "tcp": port}
        for transport, device_id in (("udp", DEVICE), ("tcp", "34020000001320000002")):
            async with camera_at(gateway, device_id, transport=transport) as camera:
                assert (await camera.register(PASSWORD)).status == 200
                await fact(lambda one=device_id: entry_of(gateway, one).online, "online")  # type: ignore[misc]
                assert entry_of(gateway, device_id).flow.transport == transport


@pytest.mark.conformance(2)
async def test_a_register_without_credentials_is_challenged(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, camera_at(gateway) as camera:
        answer = await ask(camera)
        assert answer.status == 401
        challenge = answer["WWW-Authenticate"]
        assert challenge.startswith("Digest ")
        assert 'realm="3402000000"' in challenge
        assert re.search(r'nonce="[^"]{16,}"', challenge)


@pytest.mark.conformance(3)
@pytest.mark.parametrize("qop", [False, True])
@pytest.mark.parametrize("uri", ["", "sip:34020000002000000001@192.168.1.9:5060", "sip:3402000000"])
async def test_a_right_digest_is_accepted_over_the_uri_it_names(gateway_at: GatewayAt, qop: bool, uri: str) -> None:
    async with gateway_at() as gateway, camera_at(gateway) as camera:
        challenge = await ask(camera)
        answer = await ask(camera, credentials(camera, challenge, qop=qop, uri=uri))
        assert answer.status == 200
        await fact(lambda: entry_of(gateway).online, "online")


@pytest.mark.conformance(4)
async def test_a_wrong_digest_changes_nothing_and_tells_nothing(gateway_at: GatewayAt) -> None:
    """An id that may register and one that may not get the same, header by header."""
    answers = []
    async with gateway_at() as gateway:
        for device_id in (DEVICE, "98765"):
            async with camera_at(gateway, device_id) as camera:
                challenge = await ask(camera)
                answer = await ask(camera, credentials(camera, challenge, password="guess"))
                answers.append((challenge.status, [name for name, _ in challenge.headers], answer.status))
                answers[-1] += ([name for name, _ in answer.headers],)
                assert answer.status == 403
                assert entry_of(gateway, device_id) is None
        assert answers[0] == answers[1]
        async with online(gateway) as camera, camera_at(gateway, seed=5) as thief:
            flow = entry_of(gateway).flow
            challenge = await ask(thief)
            assert (await ask(thief, credentials(thief, challenge, password="guess"))).status == 403
            assert entry_of(gateway).flow == flow
            assert (await camera.keepalive()).status == 200


@pytest.mark.conformance(5)
async def test_the_200_has_contact_expires_and_beijing_time(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, camera_at(gateway) as camera:
        answer = await camera.register(PASSWORD, expires=1_800)
        assert answer["Contact"].startswith(f"<sip:{DEVICE}@127.0.0.1:{camera.local[1]}>")
        assert answer["Expires"] == "1800"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}", answer["Date"])
        beijing = datetime.now(timezone(timedelta(hours=8))).replace(tzinfo=None)
        assert abs(datetime.fromisoformat(answer["Date"]) - beijing) < timedelta(seconds=5)


@pytest.mark.conformance(6)
async def test_every_final_answer_to_register_names_our_edition(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, camera_at(gateway) as camera:
        challenge = await ask(camera)
        refused = await ask(camera, credentials(camera, challenge, password="guess"))
        accepted = await camera.register(PASSWORD)
        broken = await ask(camera, sender="34020000001320000077")
        gone = await camera.register(PASSWORD, expires=0)
        assert [text.status for text in (challenge, refused, accepted, broken, gone)] == [401, 403, 200, 403, 200]
        for text in (challenge, refused, accepted, broken, gone):
            assert text["X-GB-Ver"] == "3.0"


@pytest.mark.conformance(7)
@pytest.mark.parametrize(("version", "command"), [("2.0", "IFameCmd"), ("3.0", "IFrameCmd"), (None, "IFameCmd")])
async def test_the_edition_of_the_peer_decides_what_it_is_sent(
    gateway_at: GatewayAt, version: str | None, command: str
) -> None:
    async with gateway_at() as gateway, online(gateway, version=version) as camera:
        assert entry_of(gateway).edition == (version or "2.0")
        async with playing(gateway, camera):
            await gateway.request_keyframe(*KEY.split("-"))
            message = await camera.expect("MESSAGE")
            camera.respond(message, 200)
            assert f"<{command}>Send</{command}>".encode() in message.body


@pytest.mark.conformance(8)
@pytest.mark.parametrize(
    ("contact", "header", "expected"),
    [
        (";expires=600", "Expires: 7200", "600"),
        ("", "Expires: 7200", "7200"),
        ("", "", "86400"),
        (";expires=900", "", "900"),
    ],
)
async def test_contact_expires_goes_before_the_header(
    gateway_at: GatewayAt, contact: str, header: str, expected: str
) -> None:
    async with gateway_at() as gateway, camera_at(gateway) as camera:
        line = f"Contact: <sip:{DEVICE}@127.0.0.1:{camera.local[1]}>{contact}"
        challenge = await ask(camera, line, contact=False, expires=header)
        answer = await ask(camera, line, credentials(camera, challenge), contact=False, expires=header)
        assert answer.status == 200
        assert answer["Expires"] == expected


@pytest.mark.conformance(9)
async def test_expires_0_unregisters_whoever_proves_himself(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway) as camera:
        challenge = await ask(camera, expires="Expires: 0")
        assert challenge.status == 401
        wrong = await ask(camera, credentials(camera, challenge, password="guess"), expires="Expires: 0")
        assert wrong.status == 403
        assert entry_of(gateway).online
        assert (await camera.register(PASSWORD, expires=0)).status == 200
        await fact(lambda: not entry_of(gateway).online, "offline")
        assert entry_of(gateway).reason == "unregistered"
        assert (await camera.keepalive()).status == 403


@pytest.mark.conformance(10)
@pytest.mark.parametrize("qop", [False, True])
async def test_a_nonce_is_good_once(gateway_at: GatewayAt, qop: bool) -> None:
    """Without qop its second use, with qop a count that does not rise: 401 with stale=true."""
    async with gateway_at() as gateway, camera_at(gateway) as camera:
        line = credentials(camera, await ask(camera), qop=qop)
        assert (await ask(camera, line)).status == 200
        again = await ask(camera, line)
        assert again.status == 401
        assert re.search(r"stale\s*=\s*\"?true", again["WWW-Authenticate"], re.IGNORECASE)
        assert (await ask(camera, credentials(camera, again, qop=qop))).status == 200


@pytest.mark.conformance(11)
async def test_a_repeated_register_gets_the_same_answer(gateway_at: GatewayAt) -> None:
    """Processed twice it would find its nonce consumed."""
    async with gateway_at() as gateway, camera_at(gateway) as camera:
        challenge = await ask(camera)
        message = camera.request("REGISTER", to=camera.id, headers=["Expires: 3600", credentials(camera, challenge)])
        answers = []
        for _ in range(3):
            camera.send(message)
            answers.append((await register_answer(camera)).raw)
        assert answers[0].startswith(b"SIP/2.0 200")
        assert answers == [answers[0]] * 3


@pytest.mark.conformance(13)
async def test_a_silent_device_is_offline_after_interval_times_count(gateway_at: GatewayAt) -> None:
    clock = asyncio.get_running_loop().time
    async with (
        gateway_at("sip.keepalive_seconds=5", "sip.keepalive_misses=1") as gateway,
        camera_at(gateway) as camera,
    ):
        assert (await camera.register(PASSWORD)).status == 200
        at = clock()
        await fact(lambda: entry_of(gateway).online, "online")
        await fact(lambda: not entry_of(gateway).online, "offline", 8)
        assert 4.9 <= clock() - at < 7
        assert entry_of(gateway).reason == "keepalive"


@pytest.mark.conformance(15)
async def test_keepalives_are_answered_empty_and_at_once(gateway_at: GatewayAt) -> None:
    clock = asyncio.get_running_loop().time
    waits = []
    async with gateway_at() as gateway, online(gateway) as camera:
        for sn in range(50):
            at = clock()
            answer = await camera.keepalive(sn)
            waits.append(clock() - at)
            assert (answer.status, answer.body, answer["Content-Length"]) == (200, b"", "0")
        assert sorted(waits)[45] < 0.1
        async with camera_at(gateway, "34020000001320000088") as unknown:
            assert (await unknown.keepalive()).status in (403, 404)


@pytest.mark.conformance(87)
async def test_a_claimed_id_counts_only_from_its_binding(gateway_at: GatewayAt) -> None:
    """MESSAGE, NOTIFY, BYE and INFO in the name of an online device, from another address."""
    async with (
        gateway_at() as gateway,
        online(gateway) as camera,
        playing(gateway, camera) as (watch, _, invite),
        camera_at(gateway, seed=77) as stranger,
    ):
        seen = entry_of(gateway).last_seen
        inside: Sequence[bytes] = [
            camera.bye(invite, cseq=40),
            camera.bye(invite, cseq=41).replace(b"BYE", b"INFO"),
        ]
        outside = [
            stranger.message(KEEPALIVE.format(DEVICE)),
            stranger.request("NOTIFY", headers=["Event: presence"]),
            stranger.request("BYE"),
            stranger.request("INFO"),
        ]
        for message in [*outside, *inside]:
            stranger.send(message)
            assert (await stranger.receive()).status in (403, 481)
        assert entry_of(gateway).last_seen == seen
        assert not watch.stream.ended


@pytest.mark.conformance(89)
async def test_guessing_is_slowed_down_by_address_and_id(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway:
        async with camera_at(gateway) as guesser:
            for _ in range(5):
                challenge = await ask(guesser)
                assert challenge.status == 401
                assert (await ask(guesser, credentials(guesser, challenge, password="guess"))).status == 403
            assert (await ask(guesser)).status == 403  # not even challenged any more
            assert gateway.tally.counts["registrar.throttled"] == 1
        async with camera_at(gateway, "34020000001320000002") as other:
            assert (await other.register(PASSWORD)).status == 200


@pytest.mark.conformance(91)
async def test_a_device_password_is_kept_as_hash_and_never_returned(gateway_at: GatewayAt, tmp_path: Any) -> None:
    import aiohttp

    secret = "a-secret-of-this-camera-only"
    async with gateway_at() as gateway, camera_at(gateway) as camera:
        headers = {"Authorization": f"Bearer {gateway.new_admin_token}"}
        async with aiohttp.ClientSession(headers=headers) as client:
            url = f"{gateway.http_url}/api/v1/devices"
            async with client.post(url, json={"id": DEVICE, "password": secret}) as made:
                assert made.status in (200, 201), await made.text()
                assert secret not in await made.text()
            async with client.get(f"{url}/{DEVICE}") as shown:
                text = await shown.text()
                assert secret not in text
                assert gateway.devices.credentials(DEVICE).ha1_md5 not in text
        assert (await camera.register(PASSWORD)).status == 403
        assert (await camera.register(secret)).status == 200
        await gateway._store.flush()
        stored = b"".join(path.read_bytes() for path in tmp_path.glob("gbgw.db*"))
        assert DEVICE.encode() in stored
        assert secret.encode() not in stored
