"""Ports and processors are divided without a rest and without an overlap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gbgw.base.config import Config, MediaConfig, SipConfig, WebRtcConfig, cpu_list, port_range
from gbgw.base.errors import ConfigError
from gbgw.net.media import PortPool
from gbgw.worker import shares
from gbgw.worker.capacity import Capacity

LARGE = 1 << 40


def config(media: str = "30000-34999", webrtc: str = "", **more: object) -> Config:
    return Config(media=MediaConfig.model_validate({"ports": media, **more}), webrtc=WebRtcConfig(ports=webrtc))


@given(first=st.integers(6_000, 60_000), size=st.integers(1, 400), workers=st.integers(1, 16), extra=st.integers(0, 40))
def test_parts_are_disjoint_and_the_whole(first: int, size: int, workers: int, extra: int) -> None:
    whole = f"{first}-{first + size}"
    webrtc = f"1024-{1_024 + workers - 1 + extra}"
    pairs = PortPool(port_range(whole)).free
    if pairs < workers:
        with pytest.raises(ConfigError):
            shares.divide(config(whole, webrtc), workers)
        return
    parts = shares.divide(config(whole, webrtc), workers)
    assert len(parts) == workers
    pools = [PortPool(port_range(part.media.ports)) for part in parts]
    assert sum(pool.free for pool in pools) == pairs
    assert all(pool.free for pool in pools)
    media = [set(port_range(part.media.ports)) for part in parts]
    udp = [set(port_range(part.webrtc.ports)) for part in parts]
    for sets in (media, udp):
        assert len(set().union(*sets)) == sum(map(len, sets))
    assert set().union(*udp) == set(port_range(webrtc))
    assert all(part.media.workers == 0 for part in parts)


def test_secrets_stay_with_control() -> None:
    made = Config(sip=SipConfig(password="hush"))
    assert [part.sip.password for part in shares.divide(made, 2)] == ["", ""]


def test_one_media_port_is_for_one_worker() -> None:
    made = config(single_port=9_000, workers="auto")
    assert shares.count(made, Capacity(8, LARGE)) == shares.Count(1, "media.single_port")
    assert [part.media.single_port for part in shares.divide(made, 1)] == [9_000]
    with pytest.raises(ConfigError, match="single_port"):
        shares.divide(made, 2)


def test_one_webrtc_port_is_for_one_worker() -> None:
    assert [part.webrtc.ports for part in shares.divide(config(webrtc="9000"), 1)] == ["9000"]
    assert [part.webrtc.ports for part in shares.divide(config(webrtc="9000-9001"), 2)] == ["9000", "9001"]
    with pytest.raises(ConfigError, match=r"webrtc\.ports 9000 has 1 ports for 2"):
        shares.divide(config(webrtc="9000"), 2)
    assert [part.webrtc.ports for part in shares.divide(config(), 3)] == ["", "", ""]


@pytest.mark.parametrize(
    ("workers", "cpus", "memory_mb", "media", "webrtc", "count", "reason"),
    [
        (0, 8, 64_000, "30000-34999", "", 0, ""),
        (3, 1, 64_000, "30000-34999", "", 3, ""),
        ("auto", 1, 2_000, "30000-34999", "", 1, "1 processor"),
        ("auto", 2, 2_000, "30000-34999", "", 1, "2 processors"),
        ("auto", 8, 64_000, "30000-34999", "", 7, "8 processors"),
        ("auto", 200, 640_000, "30000-34999", "", 64, "no more are of use"),
        ("auto", 8, 64_000, "30000-34999", "9000", 1, "webrtc.ports 9000"),
        ("auto", 8, 64_000, "30000-34999", "9000-9002", 3, "webrtc.ports 9000-9002"),
        ("auto", 8, 64_000, "30000-30003", "", 2, "media.ports 30000-30003"),
        ("auto", 8, 2_000, "30000-34999", "", 2, "2000 MiB of memory"),
        ("auto", 2, 1_000, "30000-34999", "", 0, "1000 MiB of memory"),
        ("auto", 1, 200, "30000-34999", "", 0, "200 MiB of memory"),
        (2, 1, 200, "30000-34999", "", 2, ""),
    ],
)
def test_how_many(workers: object, cpus: int, memory_mb: int, media: str, webrtc: str, count: int, reason: str) -> None:
    made = config(media, webrtc, workers=workers)
    assert shares.count(made, Capacity(cpus, memory_mb << 20)) == shares.Count(count, reason)
    if count:
        assert len(shares.divide(made, count)) == count


@pytest.mark.parametrize(
    ("wanted", "workers", "allowed", "pins"),
    [
        ("", 2, [0, 1], [(), ()]),
        ("auto", 2, [0, 1, 2], [(1,), (2,)]),
        ("auto", 2, [0, 1], [(0,), (1,)]),
        ("auto", 3, [4], [(4,), (4,), (4,)]),
        ("1,3-4", 4, [0, 1, 3, 4], [(1,), (3,), (4,), (1,)]),
    ],
)
def test_processors(wanted: str, workers: int, allowed: list[int], pins: list[tuple[int, ...]]) -> None:
    assert shares.pin(wanted, workers, allowed) == pins


def test_a_processor_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="processor 7"):
        shares.pin("0,7", 2, [0, 1])


def test_lists_of_processors() -> None:
    assert cpu_list("0, 2-4,3") == [0, 2, 3, 4]
    for text in ("x", "1-", "3-1", "-1", "1,,2", "9999"):
        with pytest.raises(ValueError):
            cpu_list(text)
        with pytest.raises(ValidationError):
            MediaConfig(worker_cpus=text)


@pytest.mark.parametrize("workers", [-1, 65, "many", 1.5])
def test_numbers_of_workers_that_are_none(workers: object) -> None:
    with pytest.raises(ValidationError):
        MediaConfig.model_validate({"workers": workers})
