"""All streams over one media port, end to end: pictures come, floods change nothing, all is given back."""

import asyncio
import random
import socket
from collections.abc import Callable
from typing import Any

import pytest

from gbgw.base.errors import LocalError
from gbgw.gateway import Gateway
from tests.support import build
from tests.system.conftest import CHANNEL, KEY, configuration
from tests.system.steps import ends, fact, online, playing, plays_on
from tests.system.test_hostile import SEED, attacker, throw, undisturbed

GatewayAt = Callable[..., Any]
SINGLE = 31_600
ONE_PORT = f"media.single_port={SINGLE}"
OTHER_DEVICE = "34020000001320000002"
OTHER_KEY = f"{OTHER_DEVICE}-{CHANNEL}"


@pytest.mark.parametrize("transport", ["udp", "tcp-passive"])
async def test_two_cameras_play_through_one_port(gateway_at: GatewayAt, transport: str) -> None:
    async with (
        gateway_at(ONE_PORT, f"media.transport={transport}") as gateway,
        online(gateway) as camera,
        online(gateway, OTHER_DEVICE) as other,
    ):
        async with playing(gateway, camera) as (watch, _, invite):
            assert invite.sdp["m"][0].split()[1] == str(SINGLE)
            async with playing(gateway, other, key=OTHER_KEY) as (second, _, offer):
                assert offer.sdp["m"][0].split()[1] == str(SINGLE)
                assert offer.sdp["y"] != invite.sdp["y"]
                await plays_on(second)
                await plays_on(watch)
            other.respond(await other.expect("BYE"), 200)
            await plays_on(watch)
            figures = gateway.last_session(KEY).figures()
            assert figures.packets > 0
            assert figures.lost == 0
            assert gateway._worker.ports.in_use == 0
        await ends(gateway, camera)
        assert len(gateway._worker.shared) == 0


async def test_a_flood_to_the_port_changes_nothing(gateway_at: GatewayAt) -> None:
    """From the camera's own host: random bytes, RTP with other SSRCs, and with the stream's own."""
    rng = random.Random(SEED)
    async with gateway_at(ONE_PORT) as gateway, undisturbed(gateway, "net.unclaimed", "rtp.wrong_source"):
        ssrc = gateway.last_session(KEY).ingest._endpoint.ssrc
        async with attacker(("127.0.0.1", SINGLE)) as (wire, _):
            for number in range(3_000):
                data = rng.randbytes(rng.randrange(1_400))
                if number % 3:
                    chosen = ssrc if number % 3 == 2 else rng.randrange(1 << 32)
                    data = build.rtp(data, rng.randrange(65_536), rng.randrange(1 << 32), chosen)
                wire.sendto(data)
                if number % 500 == 499:
                    wire.sendto(bytes(65_000))
                if number % 20 == 19:
                    await asyncio.sleep(0.002)
        await fact(lambda: counted(gateway, "net.malformed"), "bytes that are no RTP are counted")


def counted(gateway: Any, name: str) -> int:
    gateway._worker.shared.settle_counts()
    return int(gateway.tally.counts.get(name, 0))


async def test_garbage_over_tcp_changes_nothing(gateway_at: GatewayAt) -> None:
    rng = random.Random(SEED)
    async with (
        gateway_at(ONE_PORT, "media.transport=tcp-passive") as gateway,
        undisturbed(gateway, "net.tcp_unclaimed"),
    ):
        for _ in range(50):
            await throw(("127.0.0.1", SINGLE), rng.randbytes(rng.randrange(1, 9_000)), read=False)


async def test_a_port_that_is_taken_stops_the_start(tmp_path: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", SINGLE))
        with pytest.raises(LocalError, match=str(SINGLE)) as caught:
            await Gateway(configuration(tmp_path, ONE_PORT)).__aenter__()
    assert caught.value.code == "bind_failed"
