"""A real gateway on loopback ports of its own, and a reader of its HTTP answers."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gbgw.base.config import Config, load
from gbgw.gateway import Gateway

PASSWORD = "an excellent secret"
# Two runs on one machine do not share ports, and no socket of a test gets one of them by chance (32768 and above)
FIRST_PORT = 10_000 + os.getpid() % 100 * 200
DEVICE = "34020000001320000001"
CHANNEL = "34020000001310000001"
KEY = f"{DEVICE}-{CHANNEL}"


def configuration(folder: Path, *more: str) -> Config:
    """Everything on loopback, ports chosen by the kernel, short patience."""
    return load(
        overrides=(
            'sip.listen=["udp://127.0.0.1:0", "tcp://127.0.0.1:0"]',
            f"sip.password={PASSWORD}",
            "sip.invite_seconds=3",
            f"media.ports={FIRST_PORT}-{FIRST_PORT + 199}",
            "media.first_packet_seconds=2",
            "media.key_frame_seconds=3",
            "media.idle_seconds=3",
            "media.linger_seconds=0.2",
            "http.listen=127.0.0.1:0",
            "auth.play=open",
            f"store.url=sqlite:///{folder}/gbgw.db",
            *more,
        )
    ).config


@pytest.fixture
def workers(request: pytest.FixtureRequest) -> int:
    """Media worker processes; `@pytest.mark.parametrize("workers", [0, 2], indirect=True)` runs a test with both.

    GBGW_MEDIA__WORKERS=1 in the environment runs all with one, which only those can tell that look inside.
    """
    return int(getattr(request, "param", os.environ.get("GBGW_MEDIA__WORKERS", "0")))


@pytest.fixture(params=[0, 1])
def media_workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A test of commands runs with both, and sees no difference."""
    monkeypatch.setenv("GBGW_MEDIA__WORKERS", str(request.param))
    return int(request.param)


@pytest.fixture
def gateway_at(tmp_path: Path, workers: int) -> Callable[..., object]:
    """`async with gateway_at("media.loss=pass") as gateway`; at the end everything it owned must be back."""

    @asynccontextmanager
    async def run(*more: str) -> AsyncIterator[Gateway]:
        async with Gateway(configuration(tmp_path, f"media.workers={workers}", *more)) as gateway:
            yield gateway
        assert gateway.resources() == {"sessions": 0, "ports": 0, "ssrcs": 0, "dialogs": 0, "questions": 0}

    return run


async def http_get(url: str, *, seconds: float = 5.0, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    import aiohttp

    async with asyncio.timeout(seconds), aiohttp.ClientSession() as client, client.get(url, headers=headers) as answer:
        return answer.status, await answer.read()
