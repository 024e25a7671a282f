"""`gbgw bench`: small and short runs whose figures must agree with each other. How fast it is, is not asked here."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import Command, command, free_port

SMALL = ("--seconds", "1.5", "--warmup", "0.5", "--size", "320x176", "--bitrate", "0.4", "--gop", "25", "--json")


async def result(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    async with command("bench", *arguments, folder=folder, env=env) as running:
        assert await running.end(seconds=90) == 0, running.err
        assert os.listdir(folder) == [], "left behind"
        return dict(json.loads("\n".join(running.out)))


def figures(document: dict[str, Any], index: int = 0) -> dict[str, float]:
    return {each["name"]: each["value"] for each in document["reports"][index]["figures"]}


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_ingest(tmp_path: Path, transport: str) -> None:
    found = await result(tmp_path, "ingest", "--streams", "3", "--transport", transport, "--eager", "flv", *SMALL)
    values = figures(found)
    sent, received = values["packets sent"], values["packets received"]
    assert sent == pytest.approx(received, rel=0.1)
    # 25 video packets a second and more, as many for sound, for three cameras and one and a half seconds
    assert sent > 190
    assert values["packets lost"] == values["packets unsent"] == values["packets kernel drops"] == 0
    assert values["streams playing at the end"] == 3
    assert 0 < values["CPU per stream-second"] < 300
    assert values["CPU in all"] > values["CPU idle"] >= 0
    assert values["memory of the empty gateway"] > 20
    conditions = found["conditions"]
    assert "bench ingest --streams 3" in conditions["command"]
    assert {"cpu", "cores", "kernel", "python", "bitrate", "config", "window", "cameras"} <= set(conditions)


async def test_ingest_growth_and_repeat(tmp_path: Path) -> None:
    found = await result(tmp_path, "ingest", "--growth", "1", "--repeat", "2", *SMALL, "--warmup", "0")
    assert figures(found)["streams playing at the end"] == 1
    assert len(found["runs"]) == 2
    assert found["reports"][0]["figures"][0]["spread"] is not None


async def test_flv(tmp_path: Path) -> None:
    found = await result(tmp_path, "flv", "--viewers", "5", "--arrivals", "3", "--starts", "2", *SMALL)
    values = figures(found)
    assert values["bytes received"] == pytest.approx(values["bytes sent"], rel=0.15)
    assert values["fewest per viewer"] == pytest.approx(values["most per viewer"], rel=0.1)
    assert values["fewest per viewer"] == pytest.approx(0.45, rel=0.3)
    assert values["chunks dropped"] == 0
    assert 0 < values["new viewer, p50"] <= values["new viewer, max"] < 2_000
    for when in ("at once", "later"):
        assert 0 < values[f"key frame {when}, sent to viewer, p50"] < 2_000
        assert values[f"key frame {when}, sent to playable, p50"] <= values[f"key frame {when}, sent to viewer, max"]
    assert values["key frame at once, sent to playable, p50"] > 0


async def test_another_server_is_measured_by_its_url_and_pid(tmp_path: Path) -> None:
    """The other server is a gateway again, fed by a device of its own."""
    folder, own = tmp_path / "bench", tmp_path / "other"
    folder.mkdir()
    own.mkdir()
    sip, http = free_port(), free_port()
    settings = [f'sip.listen=["udp://127.0.0.1:{sip}"]', f"http.listen=127.0.0.1:{http}", "auth.play=open"]
    settings += ["sip.password=secret", "sip.advertise=127.0.0.1"]
    options = [word for each in settings for word in ("--set", each)]
    device = ("device", "--server", f"127.0.0.1:{sip}", "--server-id", "34020000002000000001")
    async with command("serve", *options, folder=own) as server:
        await server.line("console:")
        async with command(
            *device, "--id", "34020000001110000001", folder=own, env={"GBGW_DEVICE_PASSWORD": "secret"}
        ) as camera:
            await registered(camera)
            url = f"http://127.0.0.1:{http}/live/34020000001110000001-34020000001310000001.flv"
            found = await result(
                folder, "flv", "--url", url, "--pid", str(server.pid), "--viewers", "3", "--arrivals", "2", *SMALL
            )
    values = figures(found)
    assert values["CPU per viewer-second"] < 500
    assert values["bytes received"] > 0.01
    assert "CPU idle" not in values


async def registered(camera: Command) -> None:
    await camera.line("registered: 1 of 1")


async def test_rtp_to_another_server_counts_what_nobody_takes(tmp_path: Path) -> None:
    port = free_port()
    found = await result(tmp_path, "ingest", "--rtp", f"127.0.0.1:{port}", "--streams", "2", *SMALL)
    values = figures(found)
    assert values["packets sent"] > 100
    assert values["packets unsent"] > 0
    assert any("not measured without --pid" in line for line in found["reports"][0]["warnings"])
    assert any("every port open" in line for line in found["reports"][0]["warnings"])


@pytest.mark.parametrize(
    ("arguments", "expected", "code"),
    [
        (("flv", "--url", "http://127.0.0.1:9/x.flv", "--viewers", "2"), "no_connection", 1),
        (("flv", "--url", "ftp://127.0.0.1/x.flv", "--viewers", "2"), "url_unusable", 1),
        (("ingest", "--size", "321x1"), "WIDTHxHEIGHT", 2),
        (("ingest", "--rtp", "127.0.0.1:30000-30001", "--streams", "9"), "ports", 2),
        (("ingest", "--growth", "many"), "numbers", 2),
        (("ingest", "--set", "media.nonsense=1", "--size", "320x176"), "media.nonsense", 2),
    ],
)
async def test_errors_are_one_line_with_a_remedy(
    tmp_path: Path, arguments: tuple[str, ...], expected: str, code: int
) -> None:
    async with command("bench", *arguments, folder=tmp_path) as running:
        assert await running.end(seconds=60) == code
        text = "\n".join(running.err)
        assert expected in text
        assert "Traceback" not in text


async def test_webrtc(tmp_path: Path) -> None:
    found = await result(tmp_path, "webrtc", "--viewers", "3", "--storm", "4", *SMALL)
    values = figures(found)
    assert values["packets lost"] == 0
    assert values["viewers at the end"] == 3
    assert values["fewest pictures per viewer-second"] == pytest.approx(25, abs=3)
    assert values["most pictures per viewer-second"] == pytest.approx(25, abs=3)
    assert values["packets received"] == pytest.approx(3 * 1.5 * values["packets per viewer-second"], rel=0.01)
    assert 0 < values["offer to DTLS done, p50"] <= values["offer to first picture, max"]
    assert found["conditions"]["srtp"] == "SRTP_AEAD_AES_128_GCM"
    assert 0 < values["storm: offer to DTLS done, p50"] <= values["storm: offer to first picture, max"]
    assert 0 <= values["storm: latest picture during, p50"] <= values["storm: latest picture during, max"] < 2_000


async def test_sip(tmp_path: Path) -> None:
    found = await result(tmp_path, "sip", "--devices", "20", "--rate", "200", "--seconds", "1", "--json")
    values = figures(found)
    assert values["at 200/s: REGISTER requests"] == pytest.approx(200, rel=0.15)
    assert values["at 200/s: registrations"] == pytest.approx(values["at 200/s: REGISTER requests"] / 2, rel=0.1)
    assert values["as fast as it goes: REGISTER requests"] > 200
    assert values["at 200/s: request answered, p50"] <= values["at 200/s: registration answered, max"]
    assert 5 < values["tasks"] < 200
    assert found["reports"][0]["warnings"] == []


@pytest.mark.parametrize("more", [(), ("--low-latency",)])
async def test_hls(tmp_path: Path, more: tuple[str, ...]) -> None:
    found = await result(tmp_path, "hls", "--viewers", "3", *more, *SMALL, "--seconds", "4")
    values = figures(found)
    assert values["viewers at the end"] == 3
    assert values["missed"] == 0
    assert values["bitrate per viewer"] == pytest.approx(0.45, rel=0.5)
    assert values["requests per viewer-second"] > values["segments or parts per viewer-second"] > 0.2


async def test_loss(tmp_path: Path) -> None:
    options = ("--seconds", "4", "--seeds", "1", "--loss", "0,3", "--reorder", "5", "--out", str(tmp_path), "--json")
    async with command("bench", "loss", *options, folder=tmp_path) as running:
        assert await running.end(seconds=90) == 0, running.err
        found = json.loads("\n".join(running.out))
    assert figures(found, 1)["0 % lost: whole"] == figures(found, 3)["5 % reordered: whole"] == 100
    assert 0 < figures(found, 1)["3 % lost: whole"] < 100
    assert figures(found, 1)["3 % lost: damaged"] == figures(found, 1)["3 % lost: complaints"] == 0
    assert figures(found, 2)["3 % lost: damaged"] > 0
    assert sorted(os.listdir(tmp_path)) == ["loss.md", "loss.svg"]
