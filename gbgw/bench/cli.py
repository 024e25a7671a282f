"""`gbgw bench ...`: options to benchmarks, results to tables."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from gbgw.base.config import port_range
from gbgw.base.errors import GatewayError

if TYPE_CHECKING:
    from gbgw.bench.load import LoadOptions, Progress
    from gbgw.bench.report import Report

Run = Callable[["Progress"], Awaitable[list["Report"]]]


@click.group(
    name="bench", short_help="Load on loopback and what it costs.", context_settings={"max_content_width": 110}
)
def bench() -> None:
    """Load on loopback: what the gateway costs, with the conditions printed beside the figures.

    Each command starts a gateway of its own in a temporary folder, puts simulated cameras and viewers around it, waits
    until all is steady, and measures the gateway's process tree by /proc. CPU is milliseconds of one core for one
    second of one stream or viewer: 2.0 means 500 of them on a core. Read ratios of one machine, not times of two.

    \b
    gbgw bench ingest --streams 200 --eager flv    cameras in, everything muxed, nobody watching
    gbgw bench flv --viewers 500                   one stream to many viewers
    gbgw bench ingest --growth                     is the cost of one stream the same with 10 and with 400?

    Another server is measured with the same load by `ingest --rtp HOST:PORT --ssrc N --pid PID` and
    `flv --url URL --pid PID`.
    """


def common(command: Callable[..., None]) -> Callable[..., None]:
    """Options of every benchmark."""
    for option in reversed(
        (
            click.option(
                "--seconds",
                default=10.0,
                show_default=True,
                type=click.FloatRange(1, 3_600),
                metavar="S",
                help="Length of the measured window.",
            ),
            click.option(
                "--warmup",
                default=3.0,
                show_default=True,
                type=click.FloatRange(0, 600),
                metavar="S",
                help="Before the window, once all is playing.",
            ),
            click.option(
                "--repeat",
                default=1,
                show_default=True,
                type=click.IntRange(1, 100),
                help="Run so often, each time with a new gateway; medians are shown.",
            ),
            click.option(
                "--set",
                "overrides",
                multiple=True,
                metavar="SECTION.KEY=VALUE",
                help="Configure the gateway under test; may be repeated.",
            ),
            click.option("--json", "as_json", is_flag=True, help="Print JSON, every single run included."),
        )
    ):
        command = option(command)
    return command


def camera(command: Callable[..., None]) -> Callable[..., None]:
    """Options of what cameras send."""
    for option in reversed(
        (
            click.option(
                "--bitrate",
                default=4.0,
                show_default=True,
                type=click.FloatRange(0.1, 100),
                metavar="MBIT",
                help="Of the video.",
            ),
            click.option(
                "--fps", default=25, show_default=True, type=click.IntRange(1, 100), help="A divisor of 90000."
            ),
            click.option(
                "--gop",
                default=50,
                show_default=True,
                type=click.IntRange(1, 500),
                help="Pictures from key frame to key frame.",
            ),
            click.option("--size", default="1920x1080", show_default=True, metavar="WxH"),
            click.option(
                "--transport", default="udp", show_default=True, type=click.Choice(["udp", "tcp"]), help="Of the media."
            ),
            click.option(
                "--line-mbit",
                default=100.0,
                show_default=True,
                type=click.FloatRange(0),
                metavar="MBIT",
                help="A camera's Ethernet port, which spaces its packets; 0 sends a picture at once.",
            ),
            click.option(
                "--gso",
                is_flag=True,
                help="Let the kernel cut large datagrams. Cheaper for both sides, and not what cameras do.",
            ),
        )
    ):
        command = option(command)
    return command


def options_of(
    *,
    streams: int,
    seconds: float,
    warmup: float,
    overrides: tuple[str, ...],
    bitrate: float,
    fps: int,
    gop: int,
    size: str,
    transport: str,
    line_mbit: float,
    gso: bool,
    eager: tuple[str, ...] = (),
) -> "LoadOptions":
    from gbgw.bench.load import LoadOptions
    from gbgw.mux.scene import SceneSpec

    width, cross, height = size.lower().partition("x")
    if not (cross and width.isdigit() and height.isdigit()) or int(width) % 2 or int(height) % 2:
        raise click.BadParameter("WIDTHxHEIGHT with even numbers is expected", param_hint="--size")
    if 90_000 % fps:
        raise click.BadParameter("a divisor of 90000 is expected", param_hint="--fps")
    rounds = max(2, -(-4 * fps // gop))  # GOPs of one round: about four seconds
    while rounds * gop % fps:
        rounds += 1
    scene = SceneSpec(int(width), int(height), fps, gop, rounds * gop // fps, round(bitrate * 1e6))
    return LoadOptions(
        streams,
        seconds,
        warmup,
        scene,
        "tcp" if transport == "tcp" else "udp",
        eager,
        line_mbit,
        gso,
        overrides,
    )


def measure(run: Run, repeat: int, as_json: bool) -> None:
    """Run a benchmark `repeat` times and print what it found."""
    import uvloop

    from gbgw.bench.progress import Bar
    from gbgw.bench.report import as_json as json_text
    from gbgw.bench.report import merge, show
    from gbgw.observe import log

    log.configure("error", "auto", sys.stderr)
    runs: list[list[Report]] = []

    async def all_runs() -> None:
        with Bar() as bar:
            for number in range(repeat):
                bar.run = f"{number + 1}/{repeat} " if repeat > 1 else ""
                runs.append(await run(bar))

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(all_runs())
    except BaseExceptionGroup as group:
        raise _first(group) from None
    reports = [merge(each) for each in zip(*runs, strict=True)]
    if as_json:
        click.echo(json_text(reports, runs))
    else:
        show(reports, Console(width=None if sys.stdout.isatty() else 150, highlight=False))


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    """The cause that a person can do something about, else all of it."""
    known = group.subgroup(GatewayError)
    error: BaseException = known if known is not None else group
    while isinstance(error, BaseExceptionGroup) and known is not None:
        error = error.exceptions[0]
    return error


def command_line() -> str:
    """What was typed."""
    return " ".join(["gbgw", *sys.argv[1:]])


def counts_of(text: str | None, usual: Sequence[int]) -> Sequence[int]:
    """Parse "10,100,400"; the usual ones for an empty text."""
    if not text:
        return usual
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise click.BadParameter("numbers like 10,100,400 are expected", param_hint="--growth")
    return counts


@bench.command(short_help="Cameras in, nobody watching.")
@click.option("--streams", default=100, show_default=True, type=click.IntRange(1, 4_000), help="Cameras that send.")
@click.option(
    "--eager",
    multiple=True,
    type=click.Choice(["flv", "mp4", "ts"]),
    help="Mux this without a viewer; may be repeated. Without it nothing is muxed.",
)
@click.option(
    "--growth",
    is_flag=False,
    flag_value="10,50,100,200,400",
    metavar="N,N...",
    help="Run with each of these numbers of streams; 10,50,100,200,400 where none are given.",
)
@click.option(
    "--rtp",
    "target",
    metavar="HOST:PORT[-PORT]",
    help="Send to another server, which must expect the streams: a port each, or one for all.",
)
@click.option(
    "--ssrc",
    default=1,
    show_default=True,
    type=click.IntRange(0, 0xFFFF_FFFF),
    help="Of the first stream with --rtp; the others count up.",
)
@click.option(
    "--port-step",
    default=2,
    show_default=True,
    type=click.IntRange(1, 100),
    help="From one stream's port to the next with --rtp.",
)
@click.option("--pid", type=click.IntRange(1), help="The other server's process, to measure it.")
@camera
@common
def ingest(
    streams: int,
    eager: tuple[str, ...],
    growth: str | None,
    target: str | None,
    ssrc: int,
    port_step: int,
    pid: int | None,
    repeat: int,
    as_json: bool,
    **rest: Any,
) -> None:
    """Cameras in, nobody watching: CPU and memory of one stream, packets lost on the way.

    \b
    gbgw bench ingest --streams 200 --eager flv --repeat 5
    gbgw bench ingest --streams 200                          nothing muxed: receive, demultiplex, keep the GOP
    gbgw bench ingest --rtp 127.0.0.1:30000-30199 --streams 100 --ssrc 1 --pid 4711     another server

    The packets of a camera come one by one, as its port of 100 Mbit/s spaces them; the cameras are out of phase. Read
    `packets lost` and `kernel drops` first: a server that drops packets looks cheap.
    """
    from gbgw.bench import ingest as benchmark

    options = options_of(streams=streams, eager=eager, **rest)
    counts = counts_of(growth, ()) if growth else ()

    async def run(progress: "Progress") -> "list[Report]":
        if target is not None:
            return [
                await benchmark.send_to(
                    _target(target, ssrc, port_step, pid, streams), options, progress, command_line()
                )
            ]
        if counts:
            return await benchmark.growth(options, counts, progress, command_line())
        return [await benchmark.ingest(options, progress, command_line())]

    measure(run, repeat, as_json)


def _target(text: str, ssrc: int, step: int, pid: int | None, streams: int) -> Any:
    from gbgw.bench.ingest import Target

    host, colon, ports = text.rpartition(":")
    try:
        found = Target(host.strip("[]"), port_range(ports), ssrc, step, pid)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--rtp") from None
    if not colon or not host:
        raise click.BadParameter("HOST:PORT or HOST:FIRST-LAST is expected", param_hint="--rtp")
    if found.room is not None and found.room < streams:
        raise click.BadParameter(
            f"{streams} streams need {streams * step} ports, {len(found.ports)} are given", param_hint="--rtp"
        )
    return found


@bench.command(short_help="One stream to many viewers of HTTP-FLV.")
@click.option(
    "--viewers", default=500, show_default=True, type=click.IntRange(2, 4_000), help="Of one stream, at once."
)
@click.option(
    "--arrivals",
    default=40,
    show_default=True,
    type=click.IntRange(0, 1_000),
    help="Single viewers whose first key frame is timed, before and among the others.",
)
@click.option(
    "--starts",
    default=40,
    show_default=True,
    type=click.IntRange(0, 400),
    help="Idle cameras that a viewer asks for; how soon they play is timed.",
)
@click.option(
    "--audio",
    default="native",
    show_default=True,
    type=click.Choice(["native", "aac"]),
    help="G.711 as it is, or AAC made of it in a child process.",
)
@click.option(
    "--growth",
    is_flag=False,
    flag_value="10,100,300,1000",
    metavar="N,N...",
    help="Run with each of these numbers of viewers; 10,100,300,1000 where none are given.",
)
@click.option("--url", help="Measure another server that plays HTTP-FLV here.")
@click.option("--pid", type=click.IntRange(1), help="The other server's process, to measure it.")
@camera
@common
def flv(
    viewers: int,
    arrivals: int,
    starts: int,
    audio: str,
    growth: str | None,
    url: str | None,
    pid: int | None,
    repeat: int,
    as_json: bool,
    **rest: Any,
) -> None:
    """One stream to many viewers of HTTP-FLV: CPU of one viewer, how long a new one waits, how soon a stream plays.

    \b
    gbgw bench flv --viewers 1000 --repeat 5
    gbgw bench flv --url http://127.0.0.1:8081/live/1.flv --pid 4711 --viewers 500     another server

    The viewers are emptied by one thread that throws away what it gets unread, so they do not take the CPU that is
    measured. `fewest` and `most per viewer` must agree: a server that skips for its viewers looks cheap.
    """
    from gbgw.bench import flv as benchmark

    options = options_of(streams=1, **rest)
    wanted = benchmark.FlvOptions(viewers, arrivals, starts, audio)
    counts = counts_of(growth, ()) if growth else ()

    async def run(progress: "Progress") -> "list[Report]":
        if url is not None:
            return [await benchmark.flv_of(url, pid, options, wanted, progress, command_line())]
        if counts:
            return await benchmark.growth(options, wanted, counts, progress, command_line())
        return [await benchmark.flv(options, wanted, progress, command_line())]

    measure(run, repeat, as_json)


@bench.command(short_help="One stream to many WebRTC viewers.")
@click.option(
    "--viewers", default=200, show_default=True, type=click.IntRange(2, 2_000), help="Of one stream, at once."
)
@click.option(
    "--growth",
    is_flag=False,
    flag_value="10,50,100,200",
    metavar="N,N...",
    help="Run with each of these numbers of viewers; 10,50,100,200 where none are given.",
)
@click.option(
    "--storm",
    default=0,
    show_default=True,
    type=click.IntRange(0, 1_000),
    metavar="N",
    help="At the end let N more viewers come at once, and see how late the others get their pictures.",
)
@camera
@common
def webrtc(viewers: int, growth: str | None, storm: int, repeat: int, as_json: bool, **rest: Any) -> None:
    """One stream to many WebRTC viewers, each with ICE, DTLS and SRTP of its own: CPU of one viewer, packets lost.

    \b
    gbgw bench webrtc --viewers 200 --repeat 5

    The viewers do what a browser does towards the server (consent checks, receiver reports) and count SRTP packets by
    their sequence numbers without decrypting them.
    """
    from gbgw.bench import webrtc as benchmark

    options = options_of(streams=1, **rest)

    async def run(progress: "Progress") -> "list[Report]":
        counts = counts_of(growth, ()) if growth else (viewers,)
        return [await benchmark.webrtc(options, count, storm, progress, command_line()) for count in counts]

    measure(run, repeat, as_json)


@bench.command(short_help="REGISTER with digest.")
@click.option(
    "--devices",
    default=2_000,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="That register again and again.",
)
@click.option(
    "--window",
    default=64,
    show_default=True,
    type=click.IntRange(1, 4_096),
    help="Registrations under way at once, where it goes as fast as it can.",
)
@click.option(
    "--rate",
    default=5_000.0,
    show_default=True,
    type=click.FloatRange(0, 1_000_000),
    metavar="N",
    help="REGISTER requests a second in the second part; 0 leaves it out.",
)
@click.option(
    "--seconds",
    default=10.0,
    show_default=True,
    type=click.FloatRange(1, 600),
    metavar="S",
    help="Length of each part.",
)
@click.option(
    "--repeat",
    default=1,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Run so often, each time with a new gateway; medians are shown.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Configure the gateway under test; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, every single run included.")
def sip(
    devices: int, window: int, rate: float, seconds: float, repeat: int, overrides: tuple[str, ...], as_json: bool
) -> None:
    """REGISTER with digest: how many a second, how soon they are answered, tasks and memory.

    \b
    gbgw bench sip --repeat 5
    gbgw bench sip --devices 20000 --rate 8000

    Each registration is two requests: one that is challenged (401) and one that succeeds. First as many as the gateway
    answers, then at a fixed rate whatever it answers, which is the load that shows its latency.
    """
    from gbgw.bench import sip as benchmark

    options = benchmark.SipOptions(devices, window, rate, seconds, overrides)

    async def run(progress: "Progress") -> "list[Report]":
        return [await benchmark.sip(options, progress, command_line())]

    measure(run, repeat, as_json)


@bench.command(short_help="Pictures that survive a bad network.")
@click.option(
    "--seconds",
    default=20.0,
    show_default=True,
    type=click.FloatRange(1, 600),
    metavar="S",
    help="Of the stream, in each run.",
)
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1, 100), help="Runs of each point.")
@click.option("--loss", "losses", metavar="PCT,PCT...", help="Rates of loss; 0 to 10 % where none are given.")
@click.option(
    "--reorder", "reorders", metavar="PCT,PCT...", help="Rates of packets up to three places late; 0 to 10 %."
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Write loss.svg and loss.md into this folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def loss(seconds: float, seeds: int, losses: str | None, reorders: str | None, out: Path | None, as_json: bool) -> None:
    """How many pictures survive loss and reordering, by policy, and what a decoder says of what is shown.

    \b
    gbgw bench loss
    gbgw bench loss --out benchmarks            the published curve

    In this process and in simulated time, so it needs no ports and gives the same figures everywhere. A picture counts
    when it is decoded bit for bit as the camera coded it.
    """
    from gbgw.bench import loss as benchmark

    options = benchmark.LossOptions(
        seconds,
        seeds,
        _rates(losses, "--loss") or benchmark.LOSSES,
        _rates(reorders, "--reorder") or benchmark.REORDERS,
        out,
    )

    async def run(progress: "Progress") -> "list[Report]":
        return await benchmark.loss(options, progress, command_line())

    measure(run, 1, as_json)


def _rates(text: str | None, hint: str) -> tuple[float, ...]:
    """Parse "0,0.5,1"; () for an empty text."""
    try:
        rates = tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        rates = (-1.0,)
    if any(not 0 <= rate < 100 for rate in rates):
        raise click.BadParameter("percentages like 0,0.5,1 are expected", param_hint=hint)
    return rates


@bench.command(short_help="One stream to many players that poll.")
@click.option(
    "--viewers", default=100, show_default=True, type=click.IntRange(2, 2_000), help="Of one stream, at once."
)
@click.option("--low-latency", is_flag=True, help="Ask for parts by blocking reload, where the server has them.")
@click.option(
    "--growth",
    is_flag=False,
    flag_value="10,50,100,300",
    metavar="N,N...",
    help="Run with each of these numbers of viewers; 10,50,100,300 where none are given.",
)
@click.option("--url", help="Measure another server that plays HLS here.")
@click.option("--pid", type=click.IntRange(1), help="The other server's process, to measure it.")
@camera
@common
def hls(
    viewers: int,
    low_latency: bool,
    growth: str | None,
    url: str | None,
    pid: int | None,
    repeat: int,
    as_json: bool,
    **rest: Any,
) -> None:
    """One stream to many HLS players: CPU of one, requests, segments or parts, how long until the first.

    \b
    gbgw bench hls --viewers 100 --repeat 5
    gbgw bench hls --viewers 100 --low-latency

    A player has one connection, reads the playlist when a player would and takes every new segment or part. They are
    Python, so on two cores a few hundred of them are as many as they can be.
    """
    from gbgw.bench import hls as benchmark

    options = options_of(streams=1, **rest)
    counts = counts_of(growth, ()) if growth else (viewers,)

    async def run(progress: "Progress") -> "list[Report]":
        if url is not None:
            return [
                await benchmark.hls_of(url, pid, options, viewers, progress, command_line(), low_latency=low_latency)
            ]
        return [
            await benchmark.hls(options, count, progress, command_line(), low_latency=low_latency) for count in counts
        ]

    measure(run, repeat, as_json)
