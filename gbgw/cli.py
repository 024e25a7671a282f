"""The command line: arguments to configuration to a running gateway.

Exit codes: 0 ok, 1 failed, 2 usage. Errors are one line that names the cause and the remedy, never a traceback.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from gbgw import __version__
from gbgw.base import config as configuration
from gbgw.base.errors import ConfigError, GatewayError
from gbgw.observe import log
from gbgw.observe.garbage import Garbage

TABLE_WIDTH = 300
SHUTDOWN_SECONDS = 4.5  # what a clean end may take; interface.md promises five


class Group(click.Group):
    """A command group whose GatewayErrors become a line for each problem and exit code 1, or 2 for configuration."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GatewayError as error:
            problems = error.problems if isinstance(error, ConfigError) else (error.message,)
            for problem in problems:
                click.echo(f"gbgw: {error.code}: {problem}" + (f" ({error.remedy})" if error.remedy else ""), err=True)
            ctx.exit(2 if isinstance(error, ConfigError) else 1)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="gbgw")
def main() -> None:
    """GB/T 28181 media gateway: cameras register by SIP, browsers play by WebRTC, HLS and HTTP-FLV.

    \b
    Start here:
      gbgw demo                        a gateway and two simulated cameras, all on this machine
      gbgw serve --set sip.password=…  a gateway for your own cameras
      gbgw config show                 every setting, its value and where it came from
    """


config_option = click.option(
    "-c", "--config", "path", type=click.Path(dir_okay=False), help="TOML file; every key is optional."
)
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override one key; may be repeated."
)


@main.command()
@config_option
@set_option
def serve(path: str | None, overrides: tuple[str, ...]) -> None:
    """Run the gateway until SIGTERM or Ctrl-C.

    Cameras are configured with this machine's address, port 5060, the platform id (sip.id), the domain (sip.domain) and
    the password (sip.password, or one per device through the API). SIGHUP reads the file again and says which keys
    need a restart.
    """
    loaded = configuration.load(path, env=os.environ, overrides=overrides)
    log.configure(loaded.config.log.level, loaded.config.log.format)
    run(lambda: _serve(loaded, path, overrides))


async def _serve(loaded: configuration.Loaded, path: str | None, overrides: tuple[str, ...]) -> None:
    from gbgw.gateway import Gateway

    def reload() -> None:
        try:
            fresh = configuration.load(path, env=os.environ, overrides=overrides)
        except ConfigError as error:
            log.get("config").error("not reloaded", reason=str(error))
            return
        for line in gateway.reload(fresh.config):
            log.get("config").warning(line)
        log.get("config").info("reloaded")

    gateway = Gateway(loaded.config, served=True)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
    async with gateway:
        if gateway.new_admin_token:
            click.echo(f"admin token: {gateway.new_admin_token}")
        click.echo(f"console: {gateway.http_url}/")
        sys.stdout.flush()
        with Garbage(gateway.tally) as garbage:
            try:
                await garbage.run()
            finally:
                log.get("gateway").info("stopping")


@main.command(short_help="A gateway and simulated cameras on loopback.")
@click.option(
    "--cameras",
    default=2,
    show_default=True,
    type=click.IntRange(1, 64),
    help="How many; every second one is H.265.",
)
@set_option
def demo(cameras: int, overrides: tuple[str, ...]) -> None:
    """A gateway and simulated cameras on loopback; data in a temporary folder that disappears."""
    log.configure("warning", "auto")
    run(lambda: _demo(cameras, overrides), signal.SIGHUP)  # its terminal is gone


async def _demo(cameras: int, overrides: tuple[str, ...]) -> None:
    from gbgw.demo import Demo

    async with Demo(cameras, overrides) as running:
        console = Console(highlight=False)
        console.print(f"\n[bold]gbgw {__version__} demo[/bold]")
        console.print(f"  console      {running.gateway.http_url}/")
        console.print(f"  login token  {running.token}")
        for camera in running.cameras:
            url = f"{running.gateway.http_url}/live/{camera.key}.flv?token={running.play_token(camera.key)}"
            console.print(f"  {camera.title:<12} {url}", soft_wrap=True)
        for remark in running.remarks:
            console.print(f"  {remark}")
        console.print("  Ctrl-C ends it and leaves nothing behind.\n")
        sys.stdout.flush()
        await running.wait()


@main.group(cls=Group, name="config")
def config_group() -> None:
    """Check a configuration file, or show what is in effect."""


@config_group.command("check")
@click.argument("file", type=click.Path(dir_okay=False))
def config_check(file: str) -> None:
    """Validate FILE; every problem names its line and what was expected."""
    configuration.load(file)
    click.echo(f"{file}: ok")


@config_group.command("show")
@config_option
@set_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def config_show(path: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print every key with its value and where the value came from."""
    from gbgw.worker import capacity, shares

    loaded = configuration.load(path, env=os.environ, overrides=overrides)
    rows = []
    for section, options in loaded.config.model_dump(mode="json").items():
        for key, value in options.items():
            shown = "***" if key == "password" and value else value
            rows.append((f"{section}.{key}", shown, loaded.origins.get(f"{section}.{key}", "default")))
    here = shares.count(loaded.config, capacity.of_this_process())
    if as_json:
        listed: list[dict[str, Any]] = [{"key": key, "value": value, "origin": origin} for key, value, origin in rows]
        for row in listed:
            if (row["key"], row["value"]) == ("media.workers", "auto"):
                row |= {"here": here.workers, "reason": here.reason}
        click.echo(json_text(listed))
        return
    table = Table(box=None, pad_edge=False)
    for title in ("key", "value", "origin"):
        table.add_column(title, no_wrap=True, overflow="ignore")
    for key, value, origin in rows:
        table.add_row(key, repr(value) if isinstance(value, str) else str(value), origin)
    width = None if sys.stdout.isatty() else TABLE_WIDTH  # a file or a pipe has no edge
    Console(width=width, highlight=False).print(table, soft_wrap=True)
    if here.reason:
        click.echo(f"media.workers 'auto' is {here.workers} here, by {here.reason}", err=True)


def json_text(value: object) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, indent=2)


def run(start: Callable[[], Awaitable[None]], *more: signal.Signals) -> None:
    """Run `start` on uvloop until it ends, or until SIGINT, SIGTERM or one of `more`; a second one exits at once."""
    import uvloop

    stopping = (signal.SIGINT, signal.SIGTERM, *more)

    async def guarded() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        asked = False

        def stop(number: int) -> None:
            nonlocal asked
            if asked:
                os._exit(128 + number)
            asked = True
            loop.call_later(SHUTDOWN_SECONDS, _too_slow)
            task.cancel()

        for number in stopping:
            loop.add_signal_handler(number, stop, number)
        try:
            await start()
        except asyncio.CancelledError:
            if not asked:
                raise
        finally:
            for number in stopping:
                loop.remove_signal_handler(number)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(guarded())
    except* GatewayError as group:
        raise _first(group) from None


def _too_slow() -> None:
    click.echo("gbgw: could not end cleanly in time; leaving now", err=True)
    os._exit(1)


def _first(group: BaseExceptionGroup[GatewayError]) -> GatewayError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, GatewayError)
    return error


def _add_commands() -> None:
    from gbgw.bench.cli import bench
    from gbgw.device.cli import device

    main.add_command(bench)
    main.add_command(device)


_add_commands()
