"""From a Player to the wire: packs, RTP packets (RFC 3550; RFC 4571 on TCP), losses on purpose, pacing.

Everything but `pace` is sans-IO. Leaves out: RTCP sender reports, elementary streams in RTP of their own.
"""

import asyncio
import random
import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import AAC, Codec, Kind
from gbgw.base.ticks import HZ
from gbgw.device.clockwork import RIGHT
from gbgw.device.quirks import BY_THE_BOOK, Behaviour
from gbgw.mux.live import LivePlayer
from gbgw.mux.loop import Due, Loop, Player
from gbgw.mux.pattern import PatternSpec
from gbgw.mux.ps import Muxer

MAX_PAYLOAD: Final = 1_400
HEADER: Final = struct.Struct(">BBHII")
GARBAGE_EVERY: Final = 97  # packets; a prime, so that garbage does not keep step with pictures
HELD_PACKETS: Final = 3  # a packet sent out of order comes up to this many places late


class Packetiser:
    """Cut packs into RTP packets (GB/T 28181-2022 Annex C: PS in RTP; RFC 3550 section 5.1)."""

    def __init__(self, ssrc: int, *, payload_type: int = 96, sequence: int = 0, max_payload: int = MAX_PAYLOAD) -> None:
        self.ssrc = ssrc
        self.sequence = sequence & 0xFFFF  # of the next packet
        self._payload_type = payload_type
        self._max_payload = max_payload

    def packets(self, data: bytes, timestamp: int) -> list[bytes]:
        """Return one pack as packets of one timestamp, the marker on the last."""
        made = []
        for start in range(0, len(data), self._max_payload):
            payload = data[start : start + self._max_payload]
            marker = 0x80 if start + self._max_payload >= len(data) else 0
            header = HEADER.pack(
                0x80, marker | self._payload_type, self.sequence, timestamp & 0xFFFF_FFFF, self.ssrc & 0xFFFF_FFFF
            )
            made.append(header + payload)
            self.sequence = (self.sequence + 1) & 0xFFFF
        return made


@dataclass(frozen=True, slots=True)
class Rates:
    """Chances, 0.0 to 1.0, that a packet is lost, comes late, or comes twice."""

    loss: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0


PERFECT: Final = Rates()


class Impairments:
    """A bad network in miniature; the same seed does the same to the same packets."""

    def __init__(self, rates: Rates, seed: int) -> None:
        self._rates = rates
        self._random = random.Random(seed)
        self._held: list[tuple[int, bytes]] = []  # (places still to wait, packet)

    def push(self, packets: Sequence[bytes]) -> list[bytes]:
        """Return what of these (and of those held back) goes out now, in order of sending."""
        if not (self._rates.loss or self._rates.reorder or self._rates.duplicate):
            return list(packets)
        out: list[bytes] = []
        for packet in packets:
            if self._random.random() < self._rates.loss:
                continue
            if len(self._held) < HELD_PACKETS and self._random.random() < self._rates.reorder:
                self._held.append((self._random.randint(1, HELD_PACKETS), packet))
                continue
            out.append(packet)
            if self._random.random() < self._rates.duplicate:
                out.append(packet)
            self._held = [(places - 1, held) for places, held in self._held]
            out.extend(held for places, held in self._held if places <= 0)
            self._held = [(places, held) for places, held in self._held if places > 0]
        return out


@dataclass(frozen=True, slots=True)
class Burst:
    """What one unit became on the wire.

    at: ticks since the start at which it is due. starts_gop: a viewer can begin here.
    """

    at: int
    packets: tuple[bytes, ...]
    starts_gop: bool


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """Everything that shapes one session's media. tcp: packets are framed by RFC 4571."""

    ssrc: int
    payload_type: int = 96
    tcp: bool = False
    rates: Rates = PERFECT
    behaviour: Behaviour = BY_THE_BOOK
    seed: int = 0


class Playing(Protocol):
    """What gives the units: mux.loop.Player, or mux.live.LivePlayer."""

    @property
    def loop(self) -> Loop: ...
    @property
    def next_at(self) -> int: ...
    @property
    def next_is_picture(self) -> bool: ...
    def take(self) -> Due: ...
    def restart(self) -> None: ...


class Streamer:
    """One session's media: each `take` gives the next unit as packets. `dump` gets the video exactly as it is sent.

    scenes: what is sent later, each from so many ticks after the first unit on; as it is, wherever the camera looks.
    """

    def __init__(
        self,
        loop: Loop,
        plan: StreamPlan,
        dump: Callable[[bytes], object] | None = None,
        new_player: Callable[[Loop], Playing] = Player,
        *,
        scenes: Sequence[tuple[int, Loop]] = (),
    ) -> None:
        self._plan = plan
        self._behaviour = plan.behaviour
        self._new_player = new_player
        self._player = new_player(loop)
        self._base = 0  # ticks that earlier players took, after a restart
        self._origin = 0  # ticks that were sent for the first unit: times run on from there, but for a restart
        self._last_at = 0
        self._scenes = deque(scenes)
        self._random = random.Random(plan.seed)
        self._audio = None if plan.behaviour.empty_promise else loop.audio
        self._muxer = Muxer(loop.video, self._audio, plan.behaviour.style_for(loop.video))
        self._packetiser = self._new_packetiser(plan.ssrc)
        self._impairments = Impairments(plan.rates, plan.seed)
        self._dump = dump
        self._count = 0
        self._events = {
            name: seconds * HZ
            for name, seconds in (
                ("ssrc", plan.behaviour.ssrc_change_after),
                ("restart", plan.behaviour.restart_after),
            )
            if seconds is not None
        }

    @property
    def ssrc(self) -> int:
        return self._packetiser.ssrc

    @property
    def is_live(self) -> bool:
        """`take` may have to draw and encode: not on the event loop."""
        return isinstance(self._player, LivePlayer) and self._player.is_live

    def restart(self) -> None:
        """The platform asked for a key frame: it is the next unit."""
        self._player.restart()

    @property
    def next_at(self) -> int:
        """When the next unit is due, in ticks since the start."""
        return self._base + self._player.next_at

    def take(self) -> Burst:
        """Return the next unit's packets; none for what a quirk holds back, but its moment still passes."""
        due = self._next()
        at = self._base + due.at
        unit = self._timed(due.unit, at)
        self._last_at = max(self._last_at, at)
        is_video = unit.codec.kind is Kind.VIDEO
        starts_gop = is_video and unit.is_keyframe
        if not self._sends(unit.codec, at):
            return Burst(at, (), False)
        if self._events.get("ssrc", float("inf")) <= at and starts_gop:
            del self._events["ssrc"]
            self._packetiser = self._new_packetiser(self._random.getrandbits(31))
        if is_video and self._dump is not None:
            self._dump(self._muxer.elementary(unit))
        packets = self._packetiser.packets(self._muxer.push(unit), unit.pts or 0)
        if self._plan.tcp:
            return Burst(at, tuple(self._frame(packet) for packet in packets), starts_gop)
        return Burst(at, tuple(self._impairments.push(packets)), starts_gop)

    def _next(self) -> Due:
        if self._events.get("restart", float("inf")) <= self.next_at:
            del self._events["restart"]
            loop = self._player.loop
            self._base = self._last_at + round(HZ / loop.frame_rate)
            self._origin = -self._base
            self._player = self._new_player(loop)
            self._packetiser = self._new_packetiser(self._packetiser.ssrc)
        if self._scenes and self._player.next_is_picture and self.next_at >= self._scenes[0][0]:
            self._base = self.next_at
            _, loop = self._scenes.popleft()
            self._player = Player(loop, origin=self._base + self._origin)
            self._audio = None if self._behaviour.empty_promise else loop.audio
            self._muxer.retrack(loop.video, self._audio)
        return self._player.take()

    def _timed(self, unit: AccessUnit, at: int) -> AccessUnit:
        """The unit with the times that the camera's clock shows."""
        clock = self._behaviour.clock
        if clock is RIGHT or unit.pts is None or unit.dts is None:
            return unit
        is_picture = unit.codec.kind is Kind.VIDEO
        return unit.with_times(
            clock.read(unit.pts, at, is_picture=is_picture), clock.read(unit.dts, at, is_picture=is_picture)
        )

    def _sends(self, codec: Codec, at: int) -> bool:
        behaviour = self._behaviour
        if not behaviour.media or _is_within(at, behaviour.silent_after, behaviour.returns_after):
            return False
        if codec.kind is Kind.VIDEO:
            return True
        if self._audio is None or _is_within(at, behaviour.audio_silent_after, None):
            return False
        return at >= (behaviour.audio_after or 0.0) * HZ

    def _frame(self, packet: bytes) -> bytes:
        framed = len(packet).to_bytes(2, "big") + packet
        self._count += 1
        if self._behaviour.tcp_garbage and self._count % GARBAGE_EVERY == 1:
            return self._random.randbytes(self._random.randint(1, 64)) + framed
        return framed

    def _new_packetiser(self, ssrc: int) -> Packetiser:
        return Packetiser(ssrc, payload_type=self._plan.payload_type, sequence=self._random.getrandbits(16))


def _is_within(at: int, start: float | None, end: float | None) -> bool:
    """Is the tick `at` between these seconds? start None: never; end None: for ever."""
    return start is not None and at >= start * HZ and (end is None or at < end * HZ)


class RecordingSender:
    """A recording's units as packets; their times are those at which they were recorded, Unix seconds in ticks."""

    def __init__(self, spec: PatternSpec, plan: StreamPlan) -> None:
        audio = spec.audio if spec.audio is not AAC else None
        self.spec = replace(spec, audio=audio)
        self._tcp = plan.tcp
        self._muxer = Muxer(spec.video, audio, plan.behaviour.style_for(spec.video))
        self._packetiser = Packetiser(plan.ssrc, payload_type=plan.payload_type)

    def packets(self, second: int, unit: AccessUnit) -> list[bytes]:
        """Return the packets of a unit of a Unix second."""
        at = second * HZ
        timed = unit.with_times(at + (unit.pts or 0), at + (unit.dts or 0))
        packets = self._packetiser.packets(self._muxer.push(timed), timed.pts or 0)
        return [len(packet).to_bytes(2, "big") + packet for packet in packets] if self._tcp else packets


class PacketSink(Protocol):
    """Where packets go. `send` never waits; `full` says that the receiver does not keep up."""

    @property
    def full(self) -> bool: ...
    def send(self, packets: Sequence[bytes]) -> None: ...


async def pace(streamer: Streamer, sink: PacketSink, count: Callable[[str, int], object] | None = None) -> None:
    """Send each unit when it is due, until cancelled. A full sink loses whole units up to the next key frame."""
    clock = asyncio.get_running_loop().time
    start = clock()
    skipping = False
    while True:
        # Also with nothing to wait for the loop gets its turn, or a sender that is late would never let go.
        await asyncio.sleep(max(0.0, start + streamer.next_at / HZ - clock()))
        burst = await asyncio.to_thread(streamer.take) if streamer.is_live else streamer.take()
        skipping = sink.full or (skipping and not burst.starts_gop)
        if skipping:
            if count is not None and burst.packets:
                count("device.dropped_units", 1)
        elif burst.packets:
            sink.send(burst.packets)
