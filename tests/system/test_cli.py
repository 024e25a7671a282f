"""The `gbgw` command as a person or a service manager meets it: real processes, their lines, signals and exit codes."""

import asyncio
import json
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner

import gbgw
from gbgw.cli import main
from tests.support.peer import Camera
from tests.support.process import Command, command, descendants, free_port, is_bound, is_running
from tests.system.conftest import CHANNEL, DEVICE, KEY, PASSWORD
from tests.system.steps import fact, sending

pytestmark = pytest.mark.timeout(60)


@asynccontextmanager
async def served(folder: Path, *more: str, sip: int | None = None) -> AsyncIterator[Command]:
    """`gbgw serve` on loopback, ready."""
    port = sip or free_port()
    settings = (
        f'sip.listen=["udp://127.0.0.1:{port}", "tcp://127.0.0.1:{port}"]',
        f"sip.password={PASSWORD}",
        "media.ports=32000-32099",
        "http.listen=127.0.0.1:0",
        "auth.play=open",
        f"store.url=sqlite:///{folder}/gbgw.db",
    )
    options = [part for setting in (*settings, *more) for part in ("--set", setting)]
    async with command("serve", *options, folder=folder) as gateway:
        await gateway.line("console:")
        yield gateway


def url_of(gateway: Command) -> str:
    line = next(line for line in gateway.out if line.startswith("console: "))
    return line.removeprefix("console: ").rstrip("/")


def token_of(gateway: Command) -> str:
    (line,) = [line for line in gateway.out if line.startswith("admin token: ")]
    return line.removeprefix("admin token: ")


async def status_of(url: str, token: str = "") -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with asyncio.timeout(5), aiohttp.ClientSession() as client, client.get(url, headers=headers) as answer:
        return answer.status, await answer.text()


# Start


async def test_the_first_start_prints_a_token_and_later_ones_honour_it(tmp_path: Path) -> None:
    file = tmp_path / "token"
    async with served(tmp_path, f"auth.admin_token_file={file}") as gateway:
        token = token_of(gateway)
        assert len(gateway.out) == 2
        assert file.read_text().strip() == token
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "gbgw.db").stat().st_mode) == 0o600
        assert (await status_of(f"{url_of(gateway)}/api/v1/whoami", token))[0] == 200
        assert (await status_of(f"{url_of(gateway)}/api/v1/whoami", token + "x"))[0] == 401
        assert (await status_of(f"{url_of(gateway)}/api/v1/whoami"))[0] == 401
        assert await gateway.end(signal.SIGTERM) == 0
    assert token not in "\n".join(gateway.err)
    async with served(tmp_path) as gateway:
        assert [line for line in gateway.out if "token" in line] == []
        assert (await status_of(f"{url_of(gateway)}/api/v1/whoami", token))[0] == 200
        assert await gateway.end(signal.SIGINT) == 0


@pytest.mark.usefixtures("media_workers")
async def test_the_log_is_one_json_event_a_line(tmp_path: Path) -> None:
    async with served(tmp_path) as gateway:
        assert await gateway.end(signal.SIGTERM) == 0
    events = [json.loads(line) for line in gateway.err]
    assert [event["event"] for event in events] == ["ready", "stopping"]


async def test_the_log_is_columns_when_asked(tmp_path: Path) -> None:
    async with served(tmp_path, "log.format=console") as gateway:
        assert await gateway.end(signal.SIGTERM) == 0
    ready = re.compile(r"\d\d:\d\d:\d\d \[info     \] gateway   ready +http=http://127")
    assert len(list(filter(ready.match, gateway.err))) == 1


# The end


async def test_sigterm_with_a_playing_stream_says_bye(tmp_path: Path) -> None:
    sip = free_port()
    async with (
        served(tmp_path, "media.transcode=1", sip=sip) as gateway,
        Camera(DEVICE, server=("127.0.0.1", sip)) as camera,
    ):
        assert (await camera.register(PASSWORD)).status == 200
        await camera.serve_catalog([CHANNEL])
        async with aiohttp.ClientSession() as client, asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(client.get(f"{url_of(gateway)}/live/{KEY}.flv"), name="test:get")
            invite = await camera.expect("INVITE")
            await camera.answer_invite(invite)
            async with sending(camera, invite), await asking as answer:
                assert answer.status == 200
                assert (await answer.content.readexactly(3)) == b"FLV"
                gateway.process.send_signal(signal.SIGTERM)
                camera.respond(await camera.expect("BYE"), 200)
                with suppress(aiohttp.ClientPayloadError):  # cut off in the middle, or ended
                    await answer.content.read()
            assert await gateway.end() == 0
    http, media = int(url_of(gateway).rpartition(":")[2]), camera.media_target(invite)[1]
    for port, kind in (
        (sip, socket.SOCK_DGRAM), (sip, socket.SOCK_STREAM), (http, socket.SOCK_STREAM), (media, socket.SOCK_DGRAM),
    ):  # fmt: skip
        assert not is_bound(port, kind), port
    events = [json.loads(line) for line in gateway.err]
    assert [event["level"] for event in events if event["level"] not in ("info", "warning")] == []
    assert "Traceback" not in "".join(gateway.err)


async def test_a_camera_that_never_answers_the_bye_does_not_hold_it(tmp_path: Path) -> None:
    sip = free_port()
    async with served(tmp_path, sip=sip) as gateway, Camera(DEVICE, server=("127.0.0.1", sip)) as camera:
        assert (await camera.register(PASSWORD)).status == 200
        async with aiohttp.ClientSession() as client, asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(client.get(f"{url_of(gateway)}/live/{KEY}.flv"), name="test:get")
            invite = await camera.expect("INVITE")
            await camera.answer_invite(invite)
            async with sending(camera, invite), await asking:
                assert await gateway.end(signal.SIGTERM) == 0
        await camera.expect("BYE")


@pytest.mark.usefixtures("media_workers")
async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    sip = free_port()
    async with served(tmp_path, sip=sip) as gateway, Camera(DEVICE, server=("127.0.0.1", sip)) as camera:
        assert (await camera.register(PASSWORD)).status == 200
        async with aiohttp.ClientSession() as client, asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(client.get(f"{url_of(gateway)}/live/{KEY}.flv"), name="test:get")
            invite = await camera.expect("INVITE")
            await camera.answer_invite(invite)
            async with sending(camera, invite), await asking:
                gateway.process.send_signal(signal.SIGTERM)
                await camera.expect("BYE")  # is being waited for now
                below = descendants(gateway.pid)
                assert await gateway.end(signal.SIGTERM, 0.5) == 128 + signal.SIGTERM
                await fact(lambda: not any(map(is_running, below)), "no worker is left", 0.5)


# Configuration


@pytest.mark.usefixtures("media_workers")
async def test_sighup_takes_what_can_change_and_names_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "gbgw.toml"
    port = free_port()
    base = (
        f"[sip]\nlisten = ['udp://127.0.0.1:{port}']\n[http]\nlisten = '127.0.0.1:0'\n[log]\nformat = 'json'\n"
        f"[store]\nurl = 'sqlite:///{tmp_path}/gbgw.db'\n"
    )
    file.write_text(base)
    async with command("serve", "-c", str(file), folder=tmp_path) as gateway:
        await gateway.line("console:")
        file.write_text(base + "[media]\nlinger_seconds = 5\nports = '40000-40099'\n[auth]\nplay = 'open'\n")
        gateway.process.send_signal(signal.SIGHUP)
        await gateway.line("reloaded", err=True)
        told = "\n".join(gateway.err)
        assert "media.ports changed; restart" in told
        assert "auth.play changed; restart" in told
        assert "linger_seconds" not in told
        file.write_text(base + "[media]\nlinger_seconds = -5\n")
        gateway.process.send_signal(signal.SIGHUP)
        refused = json.loads(await gateway.line("not reloaded", err=True))
        assert "media.linger_seconds" in refused["reason"]
        file.write_text(base.replace("[log]\n", "[log]\nlevel = 'error'\n"))
        gateway.process.send_signal(signal.SIGHUP)
        await asyncio.sleep(0.3)  # nothing is to be seen: the level is error now
        assert await gateway.end(signal.SIGTERM) == 0
    assert json.loads(gateway.err[-1])["event"] == "not reloaded"


def run(*arguments: str, folder: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`python -m gbgw`, to its end."""
    import os

    return subprocess.run(
        [sys.executable, "-m", "gbgw", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.getcwd()} | (env or {}),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize(
    ("kind", "setting", "remedy"),
    [
        (socket.SOCK_DGRAM, 'sip.listen=["udp://127.0.0.1:{port}"]', "choose another sip.listen"),
        (socket.SOCK_STREAM, 'sip.listen=["tcp://127.0.0.1:{port}"]', "choose another sip.listen"),
        (socket.SOCK_STREAM, "http.listen=127.0.0.1:{port}", "choose another http.listen"),
    ],
    ids=["sip-udp", "sip-tcp", "http"],
)
@pytest.mark.usefixtures("media_workers")
def test_a_port_in_use(tmp_path: Path, kind: socket.SocketKind, setting: str, remedy: str) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        settings = {
            "sip.listen": '["udp://127.0.0.1:0"]',
            "http.listen": "127.0.0.1:0",
            "media.ports": "20000-20999",
        }
        key, _, value = setting.format(port=port).partition("=")
        settings[key] = value
        options = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
        ended = run("serve", *options, folder=tmp_path)
    assert ended.returncode == 1
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("gbgw: listen_failed: cannot listen on ")
    assert f"127.0.0.1:{port}: Address already in use" in line
    assert remedy in line


def test_bad_configuration_is_a_line_a_problem(tmp_path: Path) -> None:
    file = tmp_path / "gbgw.toml"
    file.write_text("[sip]\nid = '12'\npassword = 7\n[media]\nport = 5\nidle_seconds = 'x'\n")
    ended = run("serve", "-c", "gbgw.toml", folder=tmp_path)
    assert ended.returncode == 2
    lines = sorted(ended.stderr.splitlines())
    assert [line.split(": ")[:3] for line in lines] == [
        ["gbgw", "config_invalid", f"gbgw.toml:{number}"] for number in (2, 5, 6)
    ]
    assert "unknown key media.port" in lines[1]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("serve", "-c", "none.toml"), 2, "none.toml: No such file or directory"),
        (("serve", "--set", "sip"), 2, "expected SECTION.KEY=VALUE"),
        (("serve", "--set", "store.url=sqlite:////none/there/gbgw.db"), 2, "cannot be opened"),
        (("config", "check", "none.toml"), 2, "none.toml: No such file or directory"),
        (("demo", "--set", "media.ports=1"), 2, "media.ports"),
    ],
)
def test_an_error_is_one_line_with_its_code(tmp_path: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    ended = run(*arguments, folder=tmp_path)
    assert ended.returncode == code
    (line,) = ended.stderr.splitlines()
    assert re.match(r"gbgw: [a-z_]+: .+ \(.+\)$", line)
    assert said in line


@pytest.mark.usefixtures("media_workers")
def test_a_folder_that_cannot_take_the_token_is_named(tmp_path: Path) -> None:
    setting = f"auth.admin_token_file={tmp_path}/none/token"
    ended = run(
        "serve", "--set", setting, "--set", 'sip.listen=["udp://127.0.0.1:0"]', "--set", "http.listen=127.0.0.1:0",
        folder=tmp_path,
    )  # fmt: skip
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert "none/token: No such file or directory" in line


def test_config_check(tmp_path: Path) -> None:
    (tmp_path / "good.toml").write_text("[sip]\nid = '34020000002000000009'\n")
    ended = run("config", "check", "good.toml", folder=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "good.toml: ok\n", "")


def test_config_show_tells_value_and_origin_of_every_key(tmp_path: Path) -> None:
    (tmp_path / "gbgw.toml").write_text("[media]\nidle_seconds = 9\n")
    arguments = ("config", "show", "-c", "gbgw.toml", "--set", "sip.password=hush", "--set", "media.ports=30000-30499")
    env = {"GBGW_HTTP__LISTEN": "127.0.0.1:9"}
    shown = {row["key"]: row for row in json.loads(run(*arguments, "--json", folder=tmp_path, env=env).stdout)}
    assert shown["media.idle_seconds"] == {"key": "media.idle_seconds", "value": 9.0, "origin": "gbgw.toml:2"}
    assert shown["media.ports"]["origin"] == "--set"
    assert shown["http.listen"] == {"key": "http.listen", "value": "127.0.0.1:9", "origin": "GBGW_HTTP__LISTEN"}
    assert shown["sip.password"]["value"] == "***"
    assert shown["sip.id"]["origin"] == "default"
    table = run(*arguments, folder=tmp_path, env=env).stdout
    assert "hush" not in table
    for key in shown:
        (line,) = [line for line in table.splitlines() if line.split()[0] == key]
        assert line.rstrip().endswith(shown[key]["origin"])
    told = run("config", "show", folder=tmp_path)
    workers = next(row for row in json.loads(run("config", "show", "--json", folder=tmp_path).stdout) if "here" in row)
    assert told.stderr == f"media.workers 'auto' is {workers['here']} here, by {workers['reason']}\n"
    assert run("config", "show", "--set", "media.workers=2", folder=tmp_path).stderr == ""


@pytest.mark.parametrize(
    "name",
    [
        *((), ("serve",), ("demo",), ("device",), ("config",), ("config", "check"), ("config", "show")),
        *(("bench",), ("bench", "ingest"), ("bench", "flv"), ("bench", "webrtc"), ("bench", "sip")),
        *(("bench", "hls"), ("bench", "loss")),
    ],
)
def test_help(name: tuple[str, ...]) -> None:
    for flag in ("--help", "-h"):
        result = CliRunner().invoke(main, [*name, flag])
        assert result.exit_code == 0
        assert result.output.startswith("Usage:")
    if "Commands:" in result.output:
        assert "..." not in result.output.split("Commands:")[-1], "a one-line help is not cut"
    for line in result.output.splitlines():
        assert len(line) <= 110


def test_usage_errors() -> None:
    for arguments in (["nothing"], ["serve", "--nothing"], ["demo", "--cameras", "0"], ["device"]):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2
        assert "Error: " in result.output


def test_version_module_and_quirks(tmp_path: Path) -> None:
    assert run("--version", folder=tmp_path).stdout == f"gbgw, version {gbgw.__version__}\n"
    listed = run("device", "--quirk", "list", folder=tmp_path)
    assert listed.returncode == 0
    assert len(listed.stdout.splitlines()) >= 10


async def test_a_bug_in_one_session_is_counted_and_costs_only_that_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under GBGW_STRICT=1, as in these tests, it would end the gateway; without, the others play on."""
    from gbgw.gateway import Gateway
    from gbgw.session import Session
    from tests.system.conftest import configuration
    from tests.system.steps import FREE, online, opened, playing, plays_on

    other = "34020000001320000002"
    original = Session._answered

    async def broken(self: Session, *how: object) -> None:
        if self.target.device_id == other:
            raise ZeroDivisionError("a bug")
        await original(self, *how)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "_answered", broken)
    monkeypatch.delenv("GBGW_STRICT", raising=False)
    async with Gateway(configuration(tmp_path)) as gateway:
        async with (
            online(gateway) as camera,
            online(gateway, other) as second,
            playing(gateway, camera) as (watch, _, _),
        ):
            async with asyncio.TaskGroup() as tasks:
                asking = tasks.create_task(opened(gateway, f"{other}-{CHANNEL}"), name="test:open")
                invite = await second.expect("INVITE")
                await second.answer_invite(invite)
                second.respond(await second.expect("BYE"), 200)
            assert asking.result().code == "internal"
            await fact(lambda: gateway.tally["bug.session"] == 1, "counted")
            await plays_on(watch)
            camera_bye = asyncio.ensure_future(camera.expect("BYE", 10))
            await watch.close()
            camera.respond(await camera_bye, 200)
        async with asyncio.timeout(5):
            while gateway.resources() != FREE:  # noqa: ASYNC110 - a fact to look at, there is no event for it
                await asyncio.sleep(0.01)


async def test_strict_a_bug_in_a_session_ends_the_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gbgw.gateway import Gateway
    from gbgw.session import Session
    from tests.system.conftest import configuration
    from tests.system.steps import online, opened

    async def broken(self: Session, *how: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Session, "_open", broken)
    monkeypatch.setenv("GBGW_STRICT", "1")

    async def life() -> None:
        async with Gateway(configuration(tmp_path)) as gateway, online(gateway):
            await opened(gateway)
            await gateway.wait()

    with pytest.raises(ExceptionGroup) as ended:
        async with asyncio.timeout(10):
            await life()
    assert ended.group_contains(ZeroDivisionError)
