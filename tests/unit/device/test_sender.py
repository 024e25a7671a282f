"""The RTP side of the simulated device, without sockets: packets, losses on purpose, quirks, pacing."""

import asyncio
import struct
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gbgw import _ps, _rtp
from gbgw.base.codec import H264, H265, PCMA, Kind
from gbgw.base.ticks import HZ
from gbgw.device.quirks import BY_THE_BOOK, QUIRKS, Behaviour, behaviour
from gbgw.device.sender import Burst, Impairments, Packetiser, Rates, Streamer, StreamPlan, pace
from gbgw.mux.loop import Loop
from gbgw.mux.pattern import PatternSpec, pattern_loop

SSRC = 200_000_001


@pytest.fixture(scope="module")
def loop() -> Loop:
    return pattern_loop(PatternSpec(width=320, height=180, seconds=2, audio=PCMA))


def take(streamer: Streamer, seconds: float) -> list[Burst]:
    bursts = []
    while streamer.next_at < seconds * HZ:
        bursts.append(streamer.take())
    return bursts


def demux(packets: Sequence[bytes]) -> tuple[list[_ps.AccessUnit], _ps.Demuxer]:
    demuxer, units = _ps.Demuxer(), []
    for packet in packets:
        parsed = _rtp.parse(packet)
        assert parsed is not None
        units += demuxer.push(parsed.payload, 0.0)
        if parsed.marker:
            units += demuxer.mark(0.0)
    return [*units, *demuxer.flush()], demuxer


def packets_of(bursts: Sequence[Burst]) -> list[bytes]:
    return [packet for burst in bursts for packet in burst.packets]


def test_packet_of_the_worked_vector() -> None:
    """GB/T 28181 reference 7.9: PT 96, marker, sequence 1, timestamp 90000."""
    (packet,) = Packetiser(SSRC, sequence=1).packets(b"\x00\x00\x01\xba", 90_000)
    assert packet.hex() == "80e0000100015f900bebc201" + "000001ba"


@given(st.binary(min_size=1, max_size=9_000), st.integers(0, 0xFFFF), st.integers(0, 1 << 40), st.integers(1, 1_400))
def test_packets_carry_everything_once(data: bytes, sequence: int, timestamp: int, size: int) -> None:
    packetiser = Packetiser(SSRC, sequence=sequence, max_payload=size)
    parsed = [_rtp.parse(packet) for packet in packetiser.packets(data, timestamp)]
    assert b"".join(packet.payload for packet in parsed) == data
    assert all(len(packet.payload) <= size for packet in parsed)
    assert [packet.marker for packet in parsed] == [False] * (len(parsed) - 1) + [True]
    assert {packet.timestamp for packet in parsed} == {timestamp % (1 << 32)}
    assert [packet.sequence_number for packet in parsed] == [(sequence + n) % 65_536 for n in range(len(parsed))]
    assert packetiser.sequence == (sequence + len(parsed)) % 65_536


def numbered(count: int) -> list[bytes]:
    return [struct.pack(">I", index) for index in range(count)]


def test_a_perfect_network_changes_nothing() -> None:
    assert Impairments(Rates(), 1).push(numbered(50)) == numbered(50)


@pytest.mark.parametrize("seed", range(5))
def test_impairments_happen_at_their_rate_and_are_repeatable(seed: int) -> None:
    rates = Rates(loss=0.1, reorder=0.05, duplicate=0.02)
    once, again = Impairments(rates, seed), Impairments(rates, seed)
    sent = numbered(5_000)
    out = [packet for at in range(0, 5_000, 7) for packet in once.push(sent[at : at + 7])]
    assert out == [packet for at in range(0, 5_000, 7) for packet in again.push(sent[at : at + 7])]
    numbers = [int.from_bytes(packet, "big") for packet in out]
    assert 0.07 < 1 - len(set(numbers)) / 5_000 < 0.13
    assert 0.01 < (len(numbers) - len(set(numbers))) / 5_000 < 0.03
    late = [number - later for number, later in pairwise(numbers) if later < number]
    assert 0.02 < len(late) / 5_000 < 0.08
    # A held packet waits for at most three others, of which some were lost.
    assert max(late) < 12


def test_total_loss_sends_nothing() -> None:
    assert Impairments(Rates(loss=1.0), 0).push(numbered(100)) == []


def test_a_stream_by_the_book(loop: Loop) -> None:
    sent: list[bytes] = []
    bursts = take(Streamer(loop, StreamPlan(SSRC), sent.append), 3.0)
    units, demuxer = demux(packets_of(bursts))
    video = [unit for unit in units if unit.codec is H264]
    assert b"".join(sent) == b"".join(bytes(unit) for unit in video)
    assert [unit.pts for unit in video] == [3_600 * index for index in range(75)]
    assert [unit.pts for unit in units if unit.codec is PCMA] == [3_600 * index for index in range(75)]
    assert demuxer.maps == 3
    assert [burst.at for burst in bursts] == sorted(burst.at for burst in bursts)
    assert [index for index, burst in enumerate(bursts) if burst.starts_gop] == [0, 50, 100]
    sequence = [_rtp.parse(packet).sequence_number for packet in packets_of(bursts)]
    assert all((later - earlier) % 65_536 == 1 for earlier, later in pairwise(sequence))


def test_tcp_frames_are_read_back(loop: Loop) -> None:
    bursts = take(Streamer(loop, StreamPlan(SSRC, tcp=True)), 2.0)
    framer = _rtp.Framer()
    packets = [packet for burst in bursts for chunk in burst.packets for packet in framer.push(chunk)]
    assert packets == packets_of(take(Streamer(loop, StreamPlan(SSRC)), 2.0))


def test_the_same_seed_sends_the_same_bytes(loop: Loop) -> None:
    plan = StreamPlan(SSRC, rates=Rates(0.1, 0.1, 0.1), seed=9)
    assert take(Streamer(loop, plan), 2.0) == take(Streamer(loop, plan), 2.0)
    assert take(Streamer(loop, plan), 2.0) != take(Streamer(loop, replace(plan, seed=10)), 2.0)


def test_restart_makes_the_next_unit_a_key_frame(loop: Loop) -> None:
    streamer = Streamer(loop, StreamPlan(SSRC))
    for _ in range(21):
        streamer.take()
    streamer.restart()
    assert streamer.take().starts_gop


def stream(loop: Loop, shape: Behaviour, seconds: float = 3.9, *, tcp: bool = False) -> list[Burst]:
    return take(Streamer(loop, StreamPlan(SSRC, behaviour=shape, tcp=tcp)), seconds)


def test_quirk_no_psm(loop: Loop) -> None:
    units, demuxer = demux(packets_of(stream(loop, behaviour(["no-psm"]))))
    assert demuxer.maps == 0
    assert {unit.codec for unit in units} == {H264, PCMA}


def test_quirk_zero_length_pes(loop: Loop) -> None:
    bursts = stream(loop, behaviour(["zero-length-pes"]))
    assert all(b"\x00\x00\x01\xe0\x00\x00" in b"".join(burst.packets) for burst in bursts[::2])
    units, _ = demux(packets_of(bursts))
    assert len([unit for unit in units if unit.codec is H264]) >= 96


def test_quirk_psm_lies_about_audio(loop: Loop) -> None:
    packets = packets_of(stream(loop, behaviour(["psm-lies-about-audio"])))
    units, demuxer = demux(packets)
    assert {unit.codec for unit in units} == {H264}
    assert PCMA in {known.declared for known in demuxer.streams}


def test_quirk_late_audio(loop: Loop) -> None:
    units, demuxer = demux(packets_of(stream(loop, behaviour(["late-audio"]))))
    first = next(unit for unit in units if unit.codec is PCMA)
    assert first.pts == 2 * HZ
    assert units[0].codec is H264
    assert PCMA in {known.declared for known in demuxer.streams}


def test_quirk_wrong_codec(loop: Loop) -> None:
    units, demuxer = demux(packets_of(stream(loop, behaviour(["wrong-codec"]))))
    assert {known.declared.name for known in demuxer.streams if known.declared} == {"H265", "PCMA"}
    assert {unit.codec for unit in units} == {H264, PCMA}


def test_quirk_ssrc_change(loop: Loop) -> None:
    packets = packets_of(stream(loop, behaviour(["ssrc-change"]), 5.0))
    seen = [_rtp.parse(packet).ssrc for packet in packets]
    assert len(dict.fromkeys(seen)) == 2
    assert seen[0] == SSRC
    change = next(index for index, ssrc in enumerate(seen) if ssrc != SSRC)
    assert set(seen[change:]) == {seen[change]}
    assert b"\x00\x00\x01\xbc" in packets[change]


def test_quirk_restart_mid_stream(loop: Loop) -> None:
    streamer = Streamer(loop, StreamPlan(SSRC, behaviour=behaviour(["restart-mid-stream"])))
    bursts = take(streamer, 5.0)
    times = [_rtp.parse(packet).timestamp for packet in packets_of(bursts)]
    back = [index for index, (earlier, later) in enumerate(pairwise(times)) if later < earlier]
    assert len(back) == 1
    assert times[back[0] + 1] == 0
    assert [burst.at for burst in bursts] == sorted(burst.at for burst in bursts)


def test_quirk_silent_after(loop: Loop) -> None:
    bursts = stream(loop, behaviour(["silent-after"]), 5.0)
    assert all(bool(burst.packets) == (burst.at < 3 * HZ) for burst in bursts)


def test_quirk_tcp_garbage(loop: Loop) -> None:
    dirty = stream(loop, behaviour(["tcp-garbage"]), 5.0, tcp=True)
    framer = _rtp.Framer(SSRC)
    found = [packet for burst in dirty for chunk in burst.packets for packet in framer.push(chunk)]
    assert framer.counts["rtp.framer_garbage"] > 0
    clean = packets_of(stream(loop, BY_THE_BOOK, 5.0))
    assert found == clean[: len(found)]
    assert len(found) >= 2 * 97  # garbage that looks like a length holds back what follows the third piece of it


@pytest.mark.parametrize("name", [quirk.name for quirk in QUIRKS])
def test_each_quirk_changes_the_behaviour(name: str) -> None:
    assert behaviour([name]) != BY_THE_BOOK


class Sink:
    """Takes packets; full while told so."""

    def __init__(self) -> None:
        self.full = False
        self.sent: list[bytes] = []

    def send(self, packets: Sequence[bytes]) -> None:
        self.sent.extend(packets)


class FakeClock:
    """Stands in for the loop's clock and for sleeping, so that seconds of pacing take no time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, until: float) -> None:
        self.now = 100.0
        self.until = 100.0 + until
        self.hooks: list[tuple[float, object]] = []
        self._real = asyncio.sleep
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)
        monkeypatch.setattr("gbgw.device.sender.asyncio.sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds
        for at, hook in [entry for entry in self.hooks if entry[0] <= self.now - 100.0]:
            self.hooks.remove((at, hook))
            hook()  # type: ignore[operator]
        if self.now >= self.until:
            raise asyncio.CancelledError


async def test_pacing_sends_each_unit_at_its_time(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(monkeypatch, 4.0)
    times: list[tuple[float, bytes]] = []
    sink = Sink()
    monkeypatch.setattr(sink, "send", lambda packets: times.extend((clock.now - 100.0, packet) for packet in packets))
    with pytest.raises(asyncio.CancelledError):
        await pace(Streamer(loop, StreamPlan(SSRC)), sink)
    for at, packet in times:
        assert at == pytest.approx(_rtp.parse(packet).timestamp / HZ, abs=1e-6)
    assert times[-1][0] > 3.9


async def test_a_full_sink_loses_whole_units_up_to_a_key_frame(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(monkeypatch, 4.0)
    sink = Sink()
    clock.hooks = [(1.4, lambda: setattr(sink, "full", True)), (1.6, lambda: setattr(sink, "full", False))]
    lost: list[str] = []
    with pytest.raises(asyncio.CancelledError):
        await pace(Streamer(loop, StreamPlan(SSRC)), sink, lambda name, count: lost.append(name))
    units, _ = demux(sink.sent)
    video = [unit.pts for unit in units if unit.codec.kind is Kind.VIDEO]
    missing = sorted(set(range(0, 4 * HZ, 3_600)) - set(video))
    assert missing[0] == 35 * 3_600
    assert missing == list(range(35 * 3_600, 2 * HZ, 3_600))
    assert next(unit for unit in units if unit.pts == 2 * HZ and unit.codec is H264).is_keyframe
    assert lost == ["device.dropped_units"] * len(lost)
    assert len(lost) == 30


def pictures_of(bursts: Sequence[Burst]) -> list[_ps.AccessUnit]:
    return [unit for unit in demux(packets_of(bursts))[0] if unit.codec.kind is Kind.VIDEO]


def test_scenes_follow_one_another_without_a_gap(loop: Loop) -> None:
    """Another size, then another codec: each begins with a key frame where the next picture was due."""
    large = pattern_loop(PatternSpec(width=480, height=270, seconds=2, audio=PCMA))
    other = pattern_loop(PatternSpec(video=H265, width=320, height=180, seconds=2, audio=None))
    bursts = take(Streamer(loop, StreamPlan(SSRC), scenes=((HZ, large), (3 * HZ, other))), 4.0)
    units = pictures_of(bursts)
    assert [unit.pts for unit in units] == [index * 3_600 for index in range(len(units))]
    assert [unit.codec for unit in units] == [H264] * 75 + [H265] * (len(units) - 75)
    assert units[25].is_keyframe
    assert units[25].parameter_sets != units[0].parameter_sets
    assert units[75].is_keyframe
    sound = [unit.pts for unit in demux(packets_of(bursts))[0] if unit.codec is PCMA]
    assert sound == [index * 3_600 for index in range(75)]


def test_quirk_reboot(loop: Loop) -> None:
    """Silence of three seconds, then another SSRC, another sequence, times from zero."""
    bursts = stream(loop, behaviour(["reboot"]), 8.0)
    assert not any(burst.packets for burst in bursts if 3 * HZ <= burst.at < 6 * HZ)
    (before, after) = (
        [_rtp.parse(packet) for burst in bursts if is_later == (burst.at >= 6 * HZ) for packet in burst.packets]
        for is_later in (False, True)
    )
    assert {packet.ssrc for packet in before if packet} == {SSRC}
    assert SSRC not in {packet.ssrc for packet in after if packet}
    assert after[0] is not None
    assert after[0].timestamp == 0


def test_quirk_audio_vanishes(loop: Loop) -> None:
    units, _ = demux(packets_of(stream(loop, behaviour(["audio-vanishes"]), 6.0)))
    assert max(unit.pts or 0 for unit in units if unit.codec is PCMA) < 4 * HZ
    assert max(unit.pts or 0 for unit in units if unit.codec is H264) > 5 * HZ


@pytest.mark.parametrize(
    ("quirk", "before", "after"),
    [
        ("clock-forward", 3.96, 3_604.0),
        ("clock-back", 7_203.96, 3_604.0),
        ("clock-stands", 3.96, 4.0),
        ("pts-wrap", 2**33 / HZ - 0.04, 2**33 / HZ),  # the demultiplexer unwraps it
    ],
)
def test_quirks_of_the_clock(loop: Loop, quirk: str, before: float, after: float) -> None:
    units = pictures_of(stream(loop, behaviour([quirk]), 6.0))
    assert (units[99].pts or 0) / HZ == pytest.approx(before, abs=1e-4)
    assert (units[100].pts or 0) / HZ == pytest.approx(after, abs=1e-4)
