"""`gbgw device`: the simulated camera on the command line."""

import json
import sys
from pathlib import Path

import click

from gbgw.base.errors import GatewayError


def _server(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, int] | None:
    if value is None:
        return None
    host, colon, port = value.rpartition(":")
    if not colon:
        host, port = value, "5060"
    if not (port.isascii() and port.isdigit()):
        raise click.BadParameter("HOST:PORT is expected")
    return host.strip("[]"), int(port)


def _list_quirks(as_json: bool) -> None:
    from gbgw.device.quirks import QUIRKS

    if as_json:
        click.echo(json.dumps([{"name": quirk.name, "description": quirk.description} for quirk in QUIRKS]))
        return
    width = max(len(quirk.name) for quirk in QUIRKS)
    for quirk in QUIRKS:
        click.echo(f"{quirk.name:<{width}}  {quirk.description}")


def _first(group: BaseExceptionGroup[GatewayError]) -> GatewayError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


@click.command(short_help="A simulated camera or NVR that registers at a platform.")
@click.option(
    "--server", callback=_server, metavar="HOST:PORT", help="Where the platform listens for SIP; port 5060 if left out."
)
@click.option("--server-id", metavar="ID", help="The platform's 20-digit id.")
@click.option("--domain", metavar="D", help="The platform's SIP domain; the first 10 digits of its id if left out.")
@click.option("--id", "device_id", metavar="ID", help="This device's 20-digit id; of the first device with --count.")
@click.option(
    "--password",
    default="",
    envvar="GBGW_DEVICE_PASSWORD",
    metavar="P",
    help="For the digest; also from $GBGW_DEVICE_PASSWORD.",
)
@click.option("--username", default="", metavar="NAME", help="For the digest, if it is not the device's id.")
@click.option("--name", default="Camera", show_default=True, help="What the catalog calls it.")
@click.option(
    "--channels", default=1, show_default=True, type=click.IntRange(0, 10_000), help="Cameras behind this device."
)
@click.option(
    "--catalog-items",
    default=2,
    show_default=True,
    type=click.IntRange(1, 1_000),
    help="Channels in one catalog message.",
)
@click.option(
    "--recordings",
    default=7,
    show_default=True,
    type=click.IntRange(0, 365),
    metavar="DAYS",
    help="Of recordings that it invents, up to now; 0: it is no recorder.",
)
@click.option(
    "--media",
    default="pattern",
    show_default=True,
    metavar="FILE|pattern",
    help="What to send: a media file with H.264 or H.265, or the moving test pattern.",
)
@click.option(
    "--video", default="h264", show_default=True, type=click.Choice(["h264", "h265"]), help="Codec of the pattern."
)
@click.option(
    "--audio",
    default="pcma",
    show_default=True,
    type=click.Choice(["pcma", "pcmu", "aac", "none"]),
    help="Codec of the sound.",
)
@click.option("--size", default="640x360", show_default=True, metavar="WxH", help="Of the pattern.")
@click.option(
    "--gop",
    default=25,
    show_default=True,
    type=click.IntRange(1, 200),
    help="Pictures between key frames of the pattern; a divisor of 200.",
)
@click.option(
    "--transport",
    default="udp",
    show_default=True,
    type=click.Choice(["udp", "tcp"]),
    help="For SIP; media goes as the platform asks.",
)
@click.option(
    "--version",
    "edition",
    default="3.0",
    show_default=True,
    type=click.Choice(["1.0", "1.1", "2.0", "3.0", "none"]),
    help="X-GB-Ver; none leaves the header out.",
)
@click.option(
    "--expires",
    default=3_600,
    show_default=True,
    type=click.IntRange(1),
    metavar="S",
    help="Registration lifetime asked for; refreshed at 0.8 of it.",
)
@click.option(
    "--keepalive",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0.05),
    metavar="S",
    help="Between keepalives; three without answer mean offline.",
)
@click.option(
    "--retry",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0.05),
    metavar="S",
    help="After a failed registration, plus up to half at random.",
)
@click.option(
    "--quirk",
    "quirks",
    multiple=True,
    metavar="NAME",
    help="A vendor behaviour; may be repeated. `list` names them all.",
)
@click.option(
    "--loss", default=0.0, type=click.FloatRange(0, 100), metavar="PCT", help="RTP packets over UDP that never arrive."
)
@click.option(
    "--reorder",
    default=0.0,
    type=click.FloatRange(0, 100),
    metavar="PCT",
    help="RTP packets over UDP that come up to three places late.",
)
@click.option(
    "--duplicate",
    default=0.0,
    type=click.FloatRange(0, 100),
    metavar="PCT",
    help="RTP packets over UDP that come twice.",
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="Same seed, same pattern, same losses."
)
@click.option(
    "--count",
    default=1,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Devices with consecutive ids in this process.",
)
@click.option(
    "--dump",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the video of the first device's newest session here, exactly as it is sent.",
)
@click.option("--quiet", is_flag=True, help="Only warnings and errors.")
@click.option("--json", "as_json", is_flag=True, help="Log and lists as JSON.")
def device(
    server: tuple[str, int] | None,
    server_id: str | None,
    domain: str | None,
    device_id: str | None,
    password: str,
    username: str,
    name: str,
    channels: int,
    catalog_items: int,
    recordings: int,
    media: str,
    video: str,
    audio: str,
    size: str,
    gop: int,
    transport: str,
    edition: str,
    expires: int,
    keepalive: float,
    retry: float,
    quirks: tuple[str, ...],
    loss: float,
    reorder: float,
    duplicate: float,
    seed: int,
    count: int,
    dump: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """A simulated camera or NVR: it registers at a platform, answers its catalog and sends pictures when invited.

    Runs until SIGTERM or Ctrl-C, then ends its sessions and unregisters.

    \b
    One camera for a gateway on this machine:
      gbgw device --server 127.0.0.1:5060 --server-id 34020000002000000001 \\
                  --id 34020000001110000001 --password SECRET
    A hundred of them that lose packets:
      gbgw device ... --count 100 --loss 1 --reorder 1
    """
    if "list" in quirks:
        _list_quirks(as_json)
        return
    missing = [
        flag for flag, value in (("--server", server), ("--server-id", server_id), ("--id", device_id)) if value is None
    ]
    if missing or server is None or server_id is None or device_id is None:
        raise click.UsageError(f"missing {', '.join(missing)}")

    import uvloop

    from gbgw.base.codec import by_name
    from gbgw.device.fleet import FleetOptions, run
    from gbgw.device.options import DeviceOptions
    from gbgw.device.sender import Rates
    from gbgw.gb.manscdp import EDITIONS
    from gbgw.observe import log

    width, cross, height = size.lower().partition("x")
    if not (cross and width.isdigit() and height.isdigit() and len(size) <= 11):
        raise click.BadParameter("WIDTHxHEIGHT is expected", param_hint="--size")
    options = FleetOptions(
        DeviceOptions(
            device_id,
            server_id,
            domain or server_id[:10],
            server,
            password=password,
            username=username,
            transport="tcp" if transport == "tcp" else "udp",
            name=name,
            channels=channels,
            items_per_message=catalog_items,
            edition=next((each for each in EDITIONS if each == edition), None),
            expires_seconds=expires,
            keepalive_seconds=keepalive,
            retry_seconds=retry,
            seed=seed,
            recording_days=recordings,
        ),
        count=count,
        media=None if media == "pattern" else Path(media),
        video=by_name(video.upper()),
        audio=None if audio == "none" else by_name(audio.upper()),
        width=int(width),
        height=int(height),
        gop=gop,
        quirks=quirks,
        rates=Rates(loss / 100, reorder / 100, duplicate / 100),
        dump=dump,
    )
    options.check()
    log.configure("warning" if quiet else "info", "json" if as_json else "auto", sys.stderr)

    def tell(line: str) -> None:
        if not quiet:
            click.echo(line)
            sys.stdout.flush()

    try:
        tally = uvloop.run(run(options, tell))
    except BaseExceptionGroup as group:
        known = group.subgroup(GatewayError)
        raise _first(known) if known is not None else group from None
    if not quiet:
        for counted, times in sorted(tally.counts.items()):
            tell(f"{counted} {times}")
