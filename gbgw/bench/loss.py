"""`gbgw bench loss`: how many pictures survive a bad network, and what a viewer's decoder says of them.

In this process and in simulated time: the packets of a camera, a network that loses or reorders by a seed, the fold of
the gateway, and a decoder that hides nothing. A picture counts when it is, bit for bit, one that the camera coded.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import VIDEO
from gbgw.base.ticks import HZ
from gbgw.bench.conditions import conditions
from gbgw.bench.curve import Line, svg
from gbgw.bench.load import Progress, scene
from gbgw.bench.report import Report
from gbgw.device.sender import Impairments, Packetiser, Rates
from gbgw.media.hub import Stream
from gbgw.media.track import Track
from gbgw.mux.judge import judge
from gbgw.mux.loop import Loop, Player
from gbgw.mux.ps import Muxer
from gbgw.mux.scene import SceneSpec
from gbgw.net.receiver import Receiver, new_fold

SSRC: Final = 28_181
LINE_SECONDS: Final = 1_478 * 8 / 100e6  # from packet to packet at a port of 100 Mbit/s
TAIL_SECONDS: Final = 1.0  # sent behind what counts, so that the network gives back what it held
SETTLE_SECONDS: Final = 1.0  # after the last packet
COMMAND_SECONDS: Final = 0.1  # from the gateway's wish for a key frame until the camera obeys
COMMAND_GAP_SECONDS: Final = 2.0  # sip.keyframe_seconds
LOSSES: Final = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0)
REORDERS: Final = (0.0, 1.0, 2.0, 5.0, 10.0)
# A small picture at the bitrate of a large one: what a hole costs depends on packets, what decoding costs on pixels.
SCENE: Final = SceneSpec(640, 360, 25, 50, 4, 4_000_000)


@dataclass(frozen=True, slots=True)
class Policy:
    """loss: of `media.loss`. obeys: the camera sends a key frame when it is asked for one."""

    name: str
    loss: Literal["freeze", "pass"]
    obeys: bool


POLICIES: Final = (
    Policy("freeze, camera obeys IFrame", "freeze", True),
    Policy("freeze", "freeze", False),
    Policy("pass", "pass", False),
)


@dataclass(frozen=True, slots=True)
class LossOptions:
    seconds: float = 20.0
    seeds: int = 3
    losses: tuple[float, ...] = LOSSES
    reorders: tuple[float, ...] = REORDERS
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Pictures of one run. whole: shown exactly as coded; damaged: shown otherwise. complaints: of the decoder."""

    sent: int
    shown: int
    whole: int
    complaints: int

    @property
    def damaged(self) -> int:
        return self.shown - self.whole


class _Timer:
    __slots__ = ("at", "callback")

    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class VirtualClock:
    """net.receiver.Clock whose time only moves when it is told."""

    def __init__(self) -> None:
        self.now = 100.0
        self._timers: list[_Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None], /) -> _Timer:
        timer = _Timer(when, callback)
        self._timers.append(timer)
        return timer

    def advance(self, end: float) -> None:
        """Ring what falls due up to `end`, in order."""
        while True:
            self._timers = [timer for timer in self._timers if timer.callback is not None]
            first = min(self._timers, key=lambda timer: timer.at, default=None)
            if first is None or first.at > end:
                break
            self._timers.remove(first)
            self.now = max(self.now, first.at)
            if first.callback is not None:
                first.callback()
        self.now = max(self.now, end)


class Shown:
    """A viewer's end of a Stream: the video units that reach it."""

    def __init__(self) -> None:
        self.units: list[AccessUnit] = []

    def on_tracks(self, tracks: tuple[Track, ...], generation: int) -> None:
        pass

    def on_unit(self, unit: AccessUnit, track: Track) -> None:
        if track.codec.kind is VIDEO:
            self.units.append(unit)

    def on_end(self, cause: object) -> None:
        pass


def reference(loop: Loop) -> dict[bytes, int]:
    """Return the hash of each picture of a round by its coded bytes; the loop has closed GOPs, so it is always that."""
    units = [unit for unit in loop.units if unit.codec.kind is VIDEO]
    verdict = judge(units, loop.video)
    return {bytes(unit): verdict.pictures[unit.pts] for unit in units if unit.pts is not None}


def run(loop: Loop, known: dict[bytes, int], rates: Rates, policy: Policy, seconds: float, seed: int) -> Outcome:
    """Send `seconds` of `loop` through a bad network and judge what a viewer gets."""
    clock = VirtualClock()
    stream = Stream("bench")
    player = Player(loop, origin=HZ)
    wishes: list[float] = []
    receiver = Receiver(
        stream,
        clock,
        fold=new_fold(SSRC),
        expected_ssrc=SSRC,
        loss=policy.loss,
        on_keyframe_wanted=lambda: wishes.append(clock.now),
    )
    viewer = Shown()
    stream.attach(viewer)
    muxer, packetiser, network = Muxer(loop.video, loop.audio), Packetiser(SSRC), Impairments(rates, seed)
    start, obeyed = clock.now, 0.0
    sent: dict[int, int] = {}
    port_free = start
    while player.next_at < (seconds + TAIL_SECONDS) * HZ:
        if policy.obeys and wishes and clock.now >= max(wishes[0] + COMMAND_SECONDS, obeyed + COMMAND_GAP_SECONDS):
            player.restart()
            obeyed = clock.now
        wishes = [at for at in wishes if at + COMMAND_SECONDS > clock.now] if policy.obeys else []
        due = player.take()
        port_free = max(port_free, start + due.at / HZ)
        if due.unit.codec.kind is VIDEO and due.unit.pts is not None and due.at < seconds * HZ:
            sent[due.unit.pts] = known[bytes(due.unit)]
        # The first picture arrives whole: what is measured is a stream that plays.
        packets = packetiser.packets(muxer.push(due.unit), due.unit.pts or 0)
        arriving = packets if len(sent) <= 1 else network.push(packets)
        for packet in arriving:
            clock.advance(port_free)
            receiver.push_rtp(packet, clock.now)
            port_free += LINE_SECONDS
    clock.advance(clock.now + SETTLE_SECONDS)
    receiver.close()
    stream.close()
    return compare(viewer.units, sent, loop)


def compare(units: Sequence[AccessUnit], sent: dict[int, int], loop: Loop) -> Outcome:
    """Judge units by the pictures that were sent, hash by pts on the camera's clock; the gateway's begins elsewhere."""
    verdict = judge(units, loop.video)
    if not units or not sent:
        return Outcome(len(sent), 0, 0, verdict.complaints)
    shift = min(sent) - min(unit.pts for unit in units if unit.pts is not None)
    counted = {pts + shift: picture for pts, picture in verdict.pictures.items() if pts + shift <= max(sent)}
    whole = sum(sent.get(pts) == picture for pts, picture in counted.items())
    return Outcome(len(sent), len(counted), whole, verdict.complaints)


async def loss(options: LossOptions, progress: Progress, command: str) -> list[Report]:
    """Every policy at every rate, and the published picture."""
    loop = await scene(SCENE, progress)
    known = await asyncio.to_thread(reference, loop)
    shared = {
        "command": command,
        **conditions(),
        "stream": f"H.264 {SCENE.width}x{SCENE.height} {SCENE.frame_rate}/s GOP {SCENE.gop}, "
        f"{loop.bitrate / 1e6:.2f} Mbit/s with sound, packets of 1400 bytes",
        "run": f"{options.seconds:g} s with each of {options.seeds} seeds; the first picture arrives whole",
        "whole picture": "decoded bit for bit as the camera coded it",
        "decoder": "FFmpeg, one thread; complaints are units it refused or warned about",
        "IFrame": f"obeyed {COMMAND_SECONDS:g} s after the wish, {COMMAND_GAP_SECONDS:g} s apart at least",
    }
    lossy, disordered = [], []
    steps = len(options.losses) * len(POLICIES) + len(options.reorders)
    progress.step("sending and decoding", steps)
    for policy in POLICIES:
        report = Report(f"loss, {policy.name}", shared)
        for rate in options.losses:
            await _point(report, loop, known, Rates(loss=rate / 100), policy, options, f"{rate:g} % lost")
            progress.advance(1)
        lossy.append(report)
    report = Report("reordering up to three places, freeze", shared)
    for rate in options.reorders:
        await _point(report, loop, known, Rates(reorder=rate / 100), POLICIES[1], options, f"{rate:g} % reordered")
        progress.advance(1)
    disordered.append(report)
    if options.folder is not None:
        publish(options, lossy, disordered, shared)
    return [*lossy, *disordered]


async def _point(
    report: Report,
    loop: Loop,
    known: dict[bytes, int],
    rates: Rates,
    policy: Policy,
    options: LossOptions,
    name: str,
) -> None:
    outcomes = [
        await asyncio.to_thread(run, loop, known, rates, policy, options.seconds, seed) for seed in range(options.seeds)
    ]
    sent = sum(each.sent for each in outcomes)
    report.add(f"{name}: whole", 100 * sum(each.whole for each in outcomes) / sent, "%", "of all pictures")
    report.add(f"{name}: damaged", 100 * sum(each.damaged for each in outcomes) / sent, "%", "shown all the same")
    report.add(f"{name}: complaints", sum(each.complaints for each in outcomes), "", "of the decoder, all seeds")
    if policy.loss == "freeze" and any(each.complaints or each.damaged for each in outcomes):
        report.warnings.append(f"{name}: a damaged picture under freeze")


def publish(
    options: LossOptions, lossy: Sequence[Report], disordered: Sequence[Report], shared: dict[str, Any]
) -> None:
    """Write loss.svg and loss.md."""
    assert options.folder is not None
    colours = ("#1a9850", "#2b6cb0", "#d97706")
    lines = [
        Line(policy.name, points_of(report, options.losses, "lost", "whole"), colour)
        for policy, report, colour in zip(POLICIES, lossy, colours, strict=True)
    ]
    damaged = points_of(lossy[2], options.losses, "lost", "damaged")
    lines.append(Line("pass: damaged pictures that are shown", damaged, "#d73027", dashed=True))
    picture = svg("Whole pictures against packet loss", "packets lost, %", "pictures, %", lines)
    (options.folder / "loss.svg").write_text(picture, encoding="utf-8")
    rows = [
        "# Pictures against packet loss",
        "",
        "![Whole pictures against packet loss, by policy](loss.svg)",
        "",
        "Made by `" + shared["command"] + "`.",
        "",
        *(f"- {name}: {shared[name]}" for name in ("stream", "run", "whole picture", "decoder", "IFrame")),
        "",
        "| packets lost | " + " | ".join(f"{policy.name}: whole / damaged / complaints" for policy in POLICIES) + " |",
        "| --- |" + " --- |" * len(POLICIES),
    ]
    rows += [
        f"| {rate:g} % | " + " | ".join(_cell(report, f"{rate:g} % lost") for report in lossy) + " |"
        for rate in options.losses
    ]
    rows += ["", "| packets reordered | freeze: whole / damaged / complaints |", "| --- | --- |"]
    rows += [f"| {rate:g} % | {_cell(disordered[0], f'{rate:g} % reordered')} |" for rate in options.reorders]
    (options.folder / "loss.md").write_text("\n".join([*rows, ""]), encoding="utf-8")


def points_of(report: Report, rates: Sequence[float], how: str, what: str) -> list[tuple[float, float]]:
    return [(rate, report.value(f"{rate:g} % {how}: {what}")) for rate in rates]


def _cell(report: Report, name: str) -> str:
    whole, damaged = report.value(f"{name}: whole"), report.value(f"{name}: damaged")
    return f"{whole:.1f} % / {damaged:.1f} % / {report.value(f'{name}: complaints'):.0f}"
