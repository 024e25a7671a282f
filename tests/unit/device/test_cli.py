"""`gbgw device`: options to a fleet; nothing is opened here."""

import json
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from gbgw.base.codec import AAC, H264, H265, PCMA
from gbgw.base.errors import ConfigError
from gbgw.base.tally import Tally
from gbgw.device import fleet
from gbgw.device.cli import device
from gbgw.device.fleet import FleetOptions
from gbgw.device.quirks import QUIRKS

NEEDED = ["--server", "127.0.0.1:5070", "--server-id", "34020000002000000001", "--id", "34020000001110000001"]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[FleetOptions]:
    """What would have run."""
    seen: list[FleetOptions] = []

    async def run(options: FleetOptions, tell: Callable[[str], None]) -> Tally:
        seen.append(options)
        tell("registered: 1 of 1")
        tally = Tally()
        tally.add("device.inbox_full", 2)
        return tally

    monkeypatch.setattr(fleet, "run", run)
    return seen


def invoke(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(device, list(arguments), env=env)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_defaults(started: list[FleetOptions]) -> None:
    assert invoke(*NEEDED) == (0, "registered: 1 of 1\ndevice.inbox_full 2\n")
    (options,) = started
    assert options.device.server == ("127.0.0.1", 5_070)
    assert options.device.domain == "3402000000"
    assert (options.device.transport, options.device.edition, options.device.retry_seconds) == ("udp", "3.0", 60.0)
    assert (options.video, options.audio, options.count, options.media) == (H264, PCMA, 1, None)


def test_everything_said(started: list[FleetOptions]) -> None:
    more = "--domain 3402000001 --password p --channels 3 --media film.mp4 --video h265 --audio aac --transport tcp "
    more += "--quirk no-psm --quirk b-frames --loss 1.5 --reorder 2 --duplicate 3 --seed 7 --count 5 --size 1280x720 "
    more += "--gop 50 --version 2.0 --expires 90 --keepalive 5 --retry 1 --dump out.h265 --catalog-items 9 --quiet"
    assert invoke(*NEEDED, *more.split()) == (0, "")
    (options,) = started
    made = options.device
    assert (made.domain, made.password, made.channels, made.transport) == ("3402000001", "p", 3, "tcp")
    assert (made.edition, made.expires_seconds, made.keepalive_seconds, made.retry_seconds) == ("2.0", 90, 5.0, 1.0)
    assert (made.items_per_message, made.seed) == (9, 7)
    assert (options.video, options.audio, options.count) == (H265, AAC, 5)
    assert (options.width, options.height, options.gop) == (1_280, 720, 50)
    assert (options.rates.loss, options.rates.reorder, options.rates.duplicate) == (0.015, 0.02, 0.03)
    assert options.quirks == ("no-psm", "b-frames")
    assert (str(options.media), str(options.dump)) == ("film.mp4", "out.h265")


def test_the_password_may_come_from_the_environment(started: list[FleetOptions]) -> None:
    invoke(*NEEDED, env={"GBGW_DEVICE_PASSWORD": "hidden"})
    assert started[0].device.password == "hidden"


@pytest.mark.parametrize(
    ("server", "expected"),
    [("camera.example", ("camera.example", 5_060)), ("[::1]:5062", ("::1", 5_062)), ("10.0.0.1:1", ("10.0.0.1", 1))],
)
def test_server_addresses(started: list[FleetOptions], server: str, expected: tuple[str, int]) -> None:
    invoke(*NEEDED, "--server", server)
    assert started[0].device.server == expected


def test_without_sound_and_without_version(started: list[FleetOptions]) -> None:
    invoke(*NEEDED, "--audio", "none", "--version", "none")
    assert (started[0].audio, started[0].device.edition) == (None, None)


def test_quirk_list_needs_nothing_else() -> None:
    code, text = invoke("--quirk", "list")
    assert code == 0
    assert [line.split()[0] for line in text.splitlines()] == [quirk.name for quirk in QUIRKS]
    code, text = invoke("--quirk", "list", "--json")
    assert [row["name"] for row in json.loads(text)] == [quirk.name for quirk in QUIRKS]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        NEEDED[:2],
        [*NEEDED, "--server", "host:port"],
        [*NEEDED, "--video", "mpeg4"],
        [*NEEDED, "--loss", "101"],
        [*NEEDED, "--count", "0"],
        [*NEEDED, "--size", "big"],
        [*NEEDED, "--size", "640×360"],
    ],
)
def test_wrong_usage_is_2(started: list[FleetOptions], arguments: list[str]) -> None:
    code, text = invoke(*arguments)
    assert code == 2
    assert "Error: " in text
    assert started == []


@pytest.mark.parametrize("arguments", [["--id", "12"], ["--server-id", "x"], ["--quirk", "nonsense"]])
def test_what_cannot_work_is_a_config_error(started: list[FleetOptions], arguments: list[str]) -> None:
    with pytest.raises(ConfigError):
        invoke(*NEEDED, *arguments)
    assert started == []


def test_help_names_every_option() -> None:
    code, text = invoke("--help")
    assert code == 0
    for parameter in device.params:
        assert parameter.opts[0] in text
