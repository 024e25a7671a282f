"""Transcoding with real children: times kept, one child for all sound, caps, deaths, and nothing left behind."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from gbgw._ps import AccessUnit
from gbgw.base import limits
from gbgw.base.access_unit import AccessUnit as Unit
from gbgw.base.codec import AAC, H264, H265, PCMA, PCMU
from gbgw.base.errors import LimitError, RequestError
from gbgw.base.tally import Tally
from gbgw.media.hub import Stream
from gbgw.mux import transcode
from gbgw.mux.pattern import PatternSpec, read_counter
from gbgw.mux.transcode import AAC_CONFIG, AAC_SILENCE, Transcoders
from gbgw.mux.transcode_child import AacEncoder
from tests.support.streams import UnitSink, timed_units

SOUND = PatternSpec(audio=PCMA, width=320, height=180, seconds=4)
HEVC = PatternSpec(video=H265, audio=PCMA, width=320, height=180, seconds=4)


def now() -> float:
    return asyncio.get_running_loop().time()


def push(stream: Stream, units: list[Unit]) -> None:
    """As the receiver does: on the loop's clock."""
    for unit in units:
        stream.push(unit, now())


def live(units: list[Unit], *, key: str = "camera") -> Stream:
    stream = Stream(key)
    stream.promise(any(unit.codec in (PCMA, PCMU, AAC) for unit in units))
    push(stream, units)
    assert stream.published
    return stream


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 — what is waited for happens in another process
            await asyncio.sleep(0.01)


def gone(pid: int) -> bool:
    """True when no such process exists, not even as a zombie."""
    return not Path(f"/proc/{pid}").exists()


def children() -> set[int]:
    tasks = Path(f"/proc/{os.getpid()}/task")
    return {int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()}


async def test_sound_becomes_aac_and_pictures_pass_untouched() -> None:
    units = timed_units(SOUND)
    source = live(units[:2])
    sink = UnitSink()
    async with Transcoders() as transcoders:
        derived = await transcoders.aac(source)
        derived.stream.attach(sink)
        for unit in units[2:]:
            source.push(unit, now())
            await asyncio.sleep(0.001)
        await until(lambda: sum(unit.codec is AAC for unit in sink.units) >= 24)
        tracks = derived.stream.tracks
        await derived.close()
    assert [track.codec for track in tracks] == [H264, AAC]
    assert (tracks[1].sample_rate, tracks[1].channels, tracks[1].config) == (8_000, 1, bytes.fromhex("1588"))
    passed = {id(unit) for unit in sink.units if unit.codec is H264}
    assert passed <= {id(unit) for unit in units}
    heard = [unit.pts for unit in sink.units if unit.codec is AAC]
    assert {b - a for a, b in pairwise(heard)} == {11_520}
    assert len(sink.tracks) == 1  # sound did not join later, with a generation of its own
    assert sink.ends == [None]


async def test_the_picture_does_not_wait_for_the_child() -> None:
    source = live(timed_units(SOUND)[:40])
    sink = UnitSink()
    async with Transcoders() as transcoders:
        derived = await transcoders.aac(source)
        derived.stream.attach(sink)
        assert [track.codec for track in derived.stream.tracks] == [H264, AAC]
        assert sink.units[0].is_keyframe
        await derived.close()


async def test_sound_that_comes_late_is_aac_too() -> None:
    """For those who asked when there was none yet; and a child starts only with the first sound."""
    units = timed_units(SOUND)
    silent = [unit for unit in units[:80] if unit.codec is H264]
    source = Stream("camera")
    push(source, silent)
    assert source.published
    sink = UnitSink()
    before = children()
    async with Transcoders() as transcoders:
        derived = await transcoders.aac(source)
        derived.stream.attach(sink)
        assert [track.codec for track in derived.stream.tracks] == [H264]
        assert transcoders.audio_pid is None
        assert children() <= before
        for unit in units[80:]:
            source.push(unit, now())
            await asyncio.sleep(0.002)
        await until(lambda: sum(unit.codec is AAC for unit in sink.units) >= 8)
        assert [track.codec for track in derived.stream.tracks] == [H264, AAC]
        assert not any(unit.codec is PCMA for unit in sink.units)
        await derived.close()
    assert children() <= before


def test_what_is_announced_is_what_the_encoder_makes() -> None:
    encoder = AacEncoder("PCMU")
    assert encoder.config[:2] == AAC_CONFIG
    decoder = av.CodecContext.create("aac", "r")
    decoder.extradata = AAC_CONFIG
    (frame,) = decoder.decode(av.Packet(AAC_SILENCE))
    assert (frame.samples, frame.sample_rate) == (1_024, 8_000)
    assert not frame.to_ndarray().any()


@pytest.mark.parametrize("codec", ["PCMA", "PCMU"])
def test_the_aac_says_what_the_g711_said(codec: str) -> None:
    """Decoded, a burst of noise stands where its pts says, to the width of the coder's window."""
    coded = np.full(8_000 * 3, 0xD5 if codec == "PCMA" else 0xFF, dtype=np.uint8)  # silence
    loud = (0xAA, 0x2A) if codec == "PCMA" else (0x80, 0x00)  # the greatest sample, either sign
    coded[8_000:12_000] = [loud[number // 8 % 2] for number in range(4_000)]
    encoder = AacEncoder(codec)
    decoder = av.CodecContext.create("aac", "r")
    decoder.extradata = encoder.config
    level: dict[int, float] = {}
    for number in range(75):
        piece = coded[number * 320 : number * 320 + 320].tobytes()
        for pts, raw in encoder.push(piece, 900_000 + number * 3_600):
            for frame in decoder.decode(av.Packet(raw)):
                values = frame.to_ndarray()[0]
                for at in range(0, 1_024, 64):
                    milliseconds = (pts - 900_000) // 90 + at // 8
                    level[milliseconds] = float(np.sqrt(np.mean(values[at : at + 64] ** 2)))
    on = [at for at, value in level.items() if value > 0.1]
    assert min(on) == pytest.approx(1_000, abs=24)
    assert max(on) == pytest.approx(1_500, abs=24)


def test_times_follow_the_input_across_a_gap() -> None:
    encoder = AacEncoder("PCMA")
    out: list[int] = []
    for number in range(100):
        pts = number * 3_600 + (180_000 if number >= 50 else 0)  # two seconds missing
        out += [at for at, _ in encoder.push(bytes([0xD5]) * 320, pts)]
    before = [at for at in out if at < 50 * 3_600]
    after = [at for at in out if at >= 50 * 3_600]
    assert after[0] == 50 * 3_600 + 180_000
    assert {b - a for a, b in pairwise(before)} == {11_520}
    assert {b - a for a, b in pairwise(after)} == {11_520}
    # Jitter below 60 ms is no gap; a step back is not said twice.
    assert [at for at, _ in encoder.push(bytes(320 * 8), 100 * 3_600 + 180_000 + 4_000)]
    rest = [at for at, _ in (*encoder.push(bytes(320 * 8), 0), *encoder.push(bytes(320 * 8), 9_000_000))]
    rest += [at for at, _ in encoder.push(bytes(320 * 8), 9_000_000 + 320 * 90)]
    assert rest == sorted(set(rest))
    assert rest[0] > after[-1]
    assert rest[-1] >= 9_000_000


async def test_one_child_encodes_every_stream_and_users_share_a_derived() -> None:
    units = timed_units(SOUND)
    async with Transcoders() as transcoders:
        before = children()
        sources = [live(units[:2], key=f"camera {n}") for n in range(3)]
        held = [await transcoders.aac(source) for source in sources]
        again = await transcoders.aac(sources[0])
        assert again.stream is held[0].stream
        sinks = [UnitSink() for _ in held]
        for derived, sink in zip(held, sinks, strict=True):
            derived.stream.attach(sink)
        await until(lambda: transcoders.audio_pid is not None)
        for unit in units[2:]:
            for source in sources:
                source.push(unit, now())
            await asyncio.sleep(0.001)
        await until(lambda: all(any(unit.codec is AAC for unit in sink.units) for sink in sinks))
        assert len(children() - before) == 1
        await held[0].close()
        await held[0].close()
        assert not again.stream.ended
        await again.close()
        assert again.stream.ended
        assert sources[0].subscriptions == 0
        assert not held[1].stream.ended


@pytest.mark.parametrize("forgiven", [60.0, 0.0])
async def test_a_dead_audio_child_is_replaced_and_sound_comes_back(
    forgiven: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, whether the child was young or, with `forgiven` 0, has lived long enough to begin from the front."""
    monkeypatch.setattr(transcode, "BACKOFF_FORGIVEN_SECONDS", forgiven)
    units = timed_units(SOUND)
    tally = Tally()
    source = live(units[:2])
    sink = UnitSink()
    async with Transcoders(tally=tally) as transcoders:
        derived = await transcoders.aac(source)
        derived.stream.attach(sink)
        await until(lambda: transcoders.audio_pid is not None)
        first = transcoders.audio_pid
        assert first is not None
        push(source, units[2:100])
        await until(lambda: any(unit.codec is AAC for unit in sink.units))
        os.kill(first, signal.SIGKILL)
        died = now()
        await until(lambda: transcoders.audio_pid not in (None, first))
        assert now() - died < 3.0  # the first pause is 0.1 s; after 5 s of silence the stream has no sound any more
        heard = sum(unit.codec is AAC for unit in sink.units)
        push(source, units[100:])
        await until(lambda: sum(unit.codec is AAC for unit in sink.units) > heard)
        assert tally["transcode.audio_died"] == 1
        assert not derived.stream.ended
        assert gone(first)
        await derived.close()
    times = [unit.pts for unit in sink.units if unit.codec is AAC]
    assert times == sorted(set(times))


async def test_h265_becomes_h264_that_shows_the_same_pictures() -> None:
    units = timed_units(HEVC)
    source = live(units[:2])
    sink = UnitSink()
    async with Transcoders(video_limit=1) as transcoders:
        derived = await transcoders.h264(source)
        derived.stream.attach(sink)
        await until(lambda: transcoders.video_pids)
        push(source, units[2:])
        await until(lambda: sum(unit.codec is H264 for unit in sink.units) >= 99)
        tracks = derived.stream.tracks
        await derived.close()
    assert [track.codec for track in tracks] == [H264, PCMA]
    assert (tracks[0].width, tracks[0].height, tracks[0].reorder_depth) == (320, 180, 0)
    pictures = [unit for unit in sink.units if unit.codec is H264]
    sent = {unit.pts for unit in units if unit.codec is H265}
    assert {unit.pts for unit in pictures} <= sent
    assert all(unit.pts == unit.dts for unit in pictures)
    assert [unit.pts - pictures[0].pts for unit in pictures if unit.is_keyframe] == [0, 90_000, 180_000, 270_000]
    assert all(len(unit.parameter_sets) == 2 for unit in pictures if unit.is_keyframe)
    decoder = av.CodecContext.create("h264", "r")
    shown = []
    for unit in pictures:
        packet = av.Packet(bytes(unit))
        packet.pts = unit.pts
        shown += [(frame.pts, read_counter(frame.to_ndarray(format="rgb24"))) for frame in decoder.decode(packet)]
    assert [counter for _, counter in shown] == list(range(len(shown)))
    assert len(shown) >= 95


async def test_b_frames_are_put_in_order_and_wide_pictures_are_scaled() -> None:
    units = timed_units(PatternSpec(audio=None, b_frames=2, width=640, height=360, seconds=2))
    source = live(units[:1])
    sink = UnitSink()
    async with Transcoders(video_limit=1, max_width=320) as transcoders:
        derived = await transcoders.h264(source)
        derived.stream.attach(sink)
        await until(lambda: transcoders.video_pids)
        push(source, units[1:])
        await until(lambda: len(sink.units) >= 45)
        track = derived.stream.tracks[0]
        await derived.close()
    assert (track.width, track.height, track.reorder_depth) == (320, 180, 0)
    times = [unit.pts for unit in sink.units]
    assert times == sorted(times)


async def test_pictures_are_transcoded_only_where_the_operator_allows_it() -> None:
    async with Transcoders(video_limit=0) as transcoders:
        with pytest.raises(RequestError) as caught:
            await transcoders.h264(live(timed_units(HEVC)[:2], key="one"))
    assert (caught.value.code, caught.value.status) == ("transcode_off", 406)


async def test_no_more_than_the_configured_number_of_pictures() -> None:
    units = timed_units(HEVC)
    one, two = live(units[:2], key="one"), live(units[:2], key="two")
    async with Transcoders(video_limit=1) as transcoders:
        first = await transcoders.h264(one)
        shared = await transcoders.h264(one)
        with pytest.raises(LimitError) as caught:
            await transcoders.h264(two)
        assert caught.value.code == "transcode_limit"
        assert "media.transcode" in caught.value.remedy
        await first.close()
        assert transcoders.videos == 1
        await shared.close()
        assert transcoders.videos == 0
        third = await transcoders.h264(two)
        await third.close()


async def test_a_dead_video_child_ends_its_stream_with_a_cause() -> None:
    units = timed_units(HEVC)
    source = live(units[:2])
    tally = Tally()
    sink = UnitSink()
    async with Transcoders(video_limit=1, tally=tally) as transcoders:
        before = children()
        derived = await transcoders.h264(source)
        derived.stream.attach(sink)
        push(source, units[2:])
        await until(lambda: sink.units)
        (pid,) = transcoders.video_pids
        assert pid in children() - before
        os.kill(pid, signal.SIGKILL)
        await until(lambda: sink.ends)
        (cause,) = sink.ends
        assert cause is not None
        assert cause.code == "transcoder_died"
        assert (transcoders.videos, tally["transcode.video_died"]) == (0, 1)
        assert source.subscriptions == 0
        assert not source.ended
        await until(lambda: gone(pid))
        await derived.close()


async def test_leaving_ends_every_child_at_once() -> None:
    units = timed_units(HEVC)
    source = live(units[:2])
    before = children()
    async with Transcoders(video_limit=1) as transcoders:
        derived = [await transcoders.aac(source), await transcoders.h264(source)]
        await until(lambda: len(children() - before) == 2)
        mine = children() - before
        started = time.monotonic()
    assert time.monotonic() - started < 1.0
    assert all(gone(pid) for pid in mine)
    assert all(hold.stream.ended for hold in derived)
    assert not source.ended


async def test_leaving_before_a_child_has_started_is_as_clean() -> None:
    source = live(timed_units(HEVC)[:2])
    before = children()
    async with Transcoders(video_limit=1) as transcoders:
        await transcoders.h264(source)
        await transcoders.aac(source)
    assert children() == before


async def test_the_source_ends_its_derived() -> None:
    source = live(timed_units(SOUND)[:40])
    sink = UnitSink()
    async with Transcoders() as transcoders:
        derived = await transcoders.aac(source)
        derived.stream.attach(sink)
        source.close()
        assert sink.ends == [None]
        await derived.close()


async def test_damaged_pictures_cost_no_more_than_their_gop() -> None:
    units = timed_units(PatternSpec(video=H265, audio=None, width=320, height=180, seconds=4))
    source = live(units[:1])
    tally = Tally()
    sink = UnitSink()
    async with Transcoders(video_limit=1, tally=tally) as transcoders:
        derived = await transcoders.h264(source)
        derived.stream.attach(sink)
        await until(lambda: transcoders.video_pids)
        for number, unit in enumerate(units[1:60], 1):
            if number % 7 == 0:
                broken = b"\0\0\0\1\x02\x01" + bytes((number * 37 + n) & 0xFF for n in range(200))
                source.push(AccessUnit(broken, H265, unit.pts, unit.dts), now())
            else:
                source.push(unit, now())
        await until(lambda: any(unit.pts == units[55].pts for unit in sink.units))
        assert not derived.stream.ended
        await derived.close()
    shown = {unit.pts for unit in sink.units}
    assert {units[at].pts for at in (0, 6, 25, 27, 50, 55)} <= shown


async def test_a_child_that_does_not_read_costs_pictures_not_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    units = timed_units(HEVC)
    source = live(units[:2])
    tally = Tally()
    monkeypatch.setattr(limits, "TRANSCODE_PENDING_BYTES", 20_000)
    monkeypatch.setattr(limits, "ACCESS_UNIT_BYTES", 20_000)
    async with Transcoders(video_limit=1, tally=tally) as transcoders:
        before = children()
        derived = await transcoders.h264(source)
        await until(lambda: children() - before)
        (pid,) = children() - before
        os.kill(pid, signal.SIGSTOP)
        for turn in range(20):
            push(source, [u.with_times((u.pts or 0) + turn * 360_000, (u.dts or 0) + turn * 360_000) for u in units])
            await asyncio.sleep(0)
        assert tally["transcode.dropped"] > 100
        os.kill(pid, signal.SIGCONT)
        await derived.close()
        await until(lambda: gone(pid))


@pytest.mark.parametrize("kind", ["aac", "h264"])
async def test_a_child_that_takes_nothing_is_killed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    units = timed_units(HEVC)
    source = live(units[:2])
    tally = Tally()
    monkeypatch.setattr(limits, "TRANSCODE_STUCK_SECONDS", 0.2)
    async with Transcoders(video_limit=1, tally=tally) as transcoders:
        derived = await (transcoders.aac(source) if kind == "aac" else transcoders.h264(source))
        await until(lambda: transcoders.audio_pid or transcoders.video_pids)
        pid = transcoders.audio_pid or transcoders.video_pids[0]
        os.kill(pid, signal.SIGSTOP)
        turn = 0
        async with asyncio.timeout(10):
            while not gone(pid):
                turn += 1
                push(
                    source, [u.with_times((u.pts or 0) + turn * 360_000, (u.dts or 0) + turn * 360_000) for u in units]
                )
                await asyncio.sleep(0.02)
        assert tally["transcode.stuck"] == 1
        assert derived.stream.ended == (kind == "h264")
        await derived.close()
