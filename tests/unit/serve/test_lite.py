"""One port for all viewers, over real sockets, with aiortc's client on the other end."""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator
from typing import Literal

import aioice.ice
import pytest

from gbgw.base import limits
from gbgw.base.errors import LocalError, RequestError
from gbgw.base.tally import Tally
from gbgw.serve import lite
from gbgw.serve.lite import LiteConnection, SharedPort, open_port
from gbgw.serve.turns import Turns
from tests.support.relay import LossyRelay, lossy
from tests.support.whep import Player
from tests.unit.serve.support import until
from tests.unit.serve.test_webrtc import Bench, Camera, bench, candidates, free_port, units, video


@contextlib.asynccontextmanager
async def shared(sender: Literal["native", "aiortc"] = "native") -> AsyncIterator[tuple[Camera, Bench, SharedPort]]:
    """A bench with one port, and the port."""
    camera = Camera(units())
    camera.push(30)
    async with bench(camera.stream, ports=str(free_port()), sender=sender) as it:
        yield camera, it, await it.rtc.addresses.shared_port("127.0.0.1")


async def through(relay: LossyRelay, it: Bench, player: Player) -> None:
    """Connect with a relay in between."""
    answer, _, _ = await it.answer(await player.offer())
    host, port, _ = candidates(answer)[0]
    relay.target = (host, port)
    await it.connect(player, answer.replace(f" {port} typ", f" {relay.port} typ"))


@pytest.mark.parametrize("sender", ["native", "aiortc"])
async def test_all_viewers_share_one_socket(sender: Literal["native", "aiortc"]) -> None:
    async with shared(sender) as (camera, it, port), contextlib.AsyncExitStack() as stack:
        players = [await stack.enter_async_context(Player()) for _ in range(6)]
        sessions = [(await it.play(player))[0] for player in players]
        assert len(port) == port.responder.sources == 6
        assert len(it.rtc.addresses._shared) == 1
        live = await camera.run(40)
        for player in players:
            await until(lambda player=player: len(player.pictures) >= len(video(live)))  # type: ignore[misc]
            assert [nals for _, nals in player.pictures[-3:]] == video(live)[-3:]
        for session in sessions:
            assert await it.rtc.delete(session)
        assert (len(port), len(port.responder), port.responder.sources) == (0, 0, 0)


async def test_the_answer_says_lite_and_a_lite_offer_is_refused() -> None:
    async with shared() as (_, it, _), Player() as player:
        offer = await player.offer()
        answer, _, _ = await it.answer(offer)
        assert re.search(r"(?m)^a=ice-lite\r$", answer.partition("m=")[0])
        with pytest.raises(RequestError) as caught:
            await it.answer(offer.replace("t=0 0\r\n", "t=0 0\r\na=ice-lite\r\n"))
        assert caught.value.code == "sdp_offer_invalid"


@pytest.mark.parametrize("sender", ["native", "aiortc"])
async def test_a_viewer_that_moves_keeps_its_picture(
    sender: Literal["native", "aiortc"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """aioice nominates once, so it is followed when its old source has fallen silent."""
    monkeypatch.setattr(aioice.ice, "CONSENT_INTERVAL", 0.05)
    monkeypatch.setattr(limits, "WEBRTC_SOURCE_HELD_SECONDS", 0.2)
    async with lossy(0.0) as relay, shared(sender) as (camera, it, _), Player() as player:
        await through(relay, it, player)
        await until(lambda: len(player.pictures) > 3)
        await relay.move()
        async with asyncio.timeout(8):
            while not it.tally["webrtc.moved"]:
                await camera.run(1, 0.02)
        known = len(player.pictures)
        await camera.run(60)
        await until(lambda: len(player.pictures) > known + 25)
        assert player.state == "connected"


async def test_who_stops_consenting_is_sent_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WEBRTC_CONSENT_SECONDS", 0.3)
    monkeypatch.setattr(lite, "SWEEP_SECONDS", 0.05)
    async with shared() as (_, it, port), Player() as player:
        await it.play(player)  # its next check is five seconds away
        await until(lambda: not len(it.rtc))
        assert it.tally["webrtc.consent_expired"] == 1
        assert (it.viewing.closes, len(port)) == (1, 0)


async def test_a_port_that_is_taken_is_said_plainly() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        with pytest.raises(LocalError) as caught:
            await open_port(Tally(), Turns(), "127.0.0.1", other.getsockname()[1])
    assert caught.value.code == "webrtc_bind_failed"


async def test_a_port_that_dies_ends_its_viewers() -> None:
    async with shared() as (_, it, port), Player() as player:
        await it.play(player)
        port.close()
        await until(lambda: not len(it.rtc))
        assert it.viewing.closes == 1


async def test_a_full_socket_holds_every_viewer() -> None:
    port = await open_port(Tally(), Turns(), "127.0.0.1", 0)
    told: list[bool] = []
    connections = [LiteConnection(port, ("127.0.0.1",), "them", "x" * 22, told.append) for _ in range(2)]
    port.pause_writing()
    port.resume_writing()
    assert told == [False, False, True, True]
    port.error_received(OSError())
    assert port.tally["webrtc.send_error"] == 1
    for connection in connections:
        await connection.close()
    port.close()
    await until(lambda: port.fd < 0)


async def test_what_waits_for_dtls_is_bounded() -> None:
    port = await open_port(Tally(), Turns(), "127.0.0.1", 0)
    it = LiteConnection(port, ("127.0.0.1",), "them", "x" * 22, lambda is_writable: None)
    with pytest.raises(ConnectionError):
        await it.send(b"nobody is there")
    for _ in range(limits.WEBRTC_DATAGRAMS + 5):
        it.deliver(b"\x16 dtls")
    assert port.tally["webrtc.flood"] == 5
    assert await it.recv() == b"\x16 dtls"
    taken: list[bytes] = []
    it.on_srtcp = taken.append
    it.deliver(b"\x81\xce")
    it.deliver(b"\x16 more")
    assert taken == [b"\x81\xce"]
    await it.close()
    while it._queue:
        await it.recv()
    for wait in (it.recv, it.connect):
        with pytest.raises(ConnectionError):
            await wait()
    await it.get_event()
    port.close()
    await until(lambda: port.fd < 0)
