"""gbgw/net/receiver: the fold, on a virtual clock. A scripted demuxer shows what it is told; real cores come last."""

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gbgw._ps import AccessUnit
from gbgw.base import limits
from gbgw.base.codec import BY_NAME, H264, PCMA, Codec
from gbgw.media.hub import Stream
from gbgw.media.track import Track
from gbgw.net.receiver import Receiver, new_fold
from tests.model.fold_model import Fold

SPS = bytes.fromhex("674d001e9da82c049a6e02020280000003008000001942")
PPS = bytes.fromhex("68ee3c80")
FRAME = 3600
SOURCE = {"ssrc": None, "ssrc_mode": "adopt", "ordered": False}


class Timer:
    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class VirtualClock:
    """A loop's clock that moves only when told, and rings what falls due on the way."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[Timer] = []
        self.rings = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None], /) -> Timer:
        self.timers.append(Timer(when, callback))
        return self.timers[-1]

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer.at <= end and not timer.cancelled]:
            timer = min(due, key=lambda timer: timer.at)
            self.timers.remove(timer)
            self.now = max(self.now, timer.at)
            self.rings += 1
            assert self.rings < 10_000, "the timer rings without end"
            timer.callback()
        self.now = end

    @property
    def armed(self) -> list[float]:
        return [timer.at for timer in self.timers if not timer.cancelled]


@dataclass
class Elementary:
    stream_id: int
    declared: Codec | None
    detected: Codec | None = None


@dataclass
class Script:
    """A demuxer whose payloads are words: "K" key frame, "P" picture, "A" sound, "pack", "map"; "hold:K" waits for mark
    or poll.
    """

    log: list[str] = field(default_factory=list)
    packs: int = 0
    maps: int = 0
    streams: list[Elementary] = field(default_factory=list)
    deadline: float | None = None
    held: list[AccessUnit] = field(default_factory=list)
    position: int = 0
    damaged: bool = False
    codec: Codec = H264

    @property
    def counts(self) -> dict[str, int]:
        return {"ps.packs": self.packs, "ps.maps": self.maps}

    def unit(self, word: str, now: float) -> AccessUnit:
        self.position += FRAME
        hole, self.damaged = self.damaged, False
        if word == "A":
            return AccessUnit(bytes(160), PCMA, self.position, is_keyframe=True, track_id=0xC0, discontinuity=hole)
        key = word == "K"
        return AccessUnit(
            b"\0\0\0\1" + (b"\x65" if key else b"\x41") + bytes(20),
            self.codec,
            self.position,
            is_keyframe=key,
            parameter_sets=(SPS, PPS) if key else (),
            discontinuity=hole,
            arrived=now,
        )

    def push(self, payload: bytes, now: float) -> Sequence[AccessUnit]:
        self.log.append(payload.decode())
        out = []
        for word in payload.decode().split():
            if word == "pack":
                self.packs += 1
            elif word == "map":
                self.maps += 1
            elif word.startswith("hold:"):
                self.held.append(self.unit(word.removeprefix("hold:"), now))
                self.deadline = now + 0.1
            elif word in ("K", "P", "A"):
                out.append(self.unit(word, now))
        return out

    def gap(self) -> None:
        self.log.append("gap")
        self.damaged = True
        self.held.clear()
        self.deadline = None

    def _release(self) -> Sequence[AccessUnit]:
        out, self.held, self.deadline = self.held, [], None
        return out

    def mark(self, now: float) -> Sequence[AccessUnit]:
        self.log.append("mark")
        return self._release()

    def poll(self, now: float) -> Sequence[AccessUnit]:
        return self._release() if self.deadline is not None and now >= self.deadline else ()

    def flush(self) -> Sequence[AccessUnit]:
        return self._release()


class Viewer:
    def __init__(self) -> None:
        self.units: list[AccessUnit] = []
        self.tracks: tuple[Track, ...] = ()

    def on_tracks(self, tracks: tuple[Track, ...], generation: int) -> None:
        self.tracks = tracks

    def on_unit(self, unit: Any, track: Track) -> None:
        self.units.append(unit)

    def on_end(self, cause: object) -> None: ...

    @property
    def pictures(self) -> str:
        return "".join("K" if unit.is_keyframe else "P" for unit in self.units if unit.codec is not PCMA)


class Room:
    """A receiver and everything around it."""

    def __init__(self, *, real: bool = False, **options: Any) -> None:
        self.clock = VirtualClock()
        self.stream = Stream("cam")
        self.viewer = Viewer()
        self.stream.attach(self.viewer)
        self.script = Script()
        self.steps: list[str] = []
        self.wanted = 0
        self.number = 0
        ssrc, mode, ordered = (options.pop(name, default) for name, default in SOURCE.items())
        patience = 0.0 if ordered else limits.REORDER_SECONDS
        self.receiver = Receiver(
            self.stream,
            self.clock,
            fold=new_fold(ssrc, mode, ordered=ordered) if real else Fold(self.script, ssrc, mode, patience),
            expected_ssrc=ssrc,
            on_step=lambda name, now: self.steps.append(name),
            on_keyframe_wanted=self.want,
            **options,
        )

    def want(self) -> None:
        self.wanted += 1

    def datagram(self, text: str | bytes, *, number: int, marker: bool = False, ssrc: int = 5, pt: int = 96) -> bytes:
        payload = text if isinstance(text, bytes) else text.encode()
        return struct.pack("!BBHII", 0x80, pt | marker << 7, number % 65536, 3600 * number, ssrc) + payload

    def send(self, text: str | bytes, *, marker: bool = False, ssrc: int = 5, pt: int = 96, skip: int = 0) -> None:
        self.number += 1 + skip
        datagram = self.datagram(text, number=self.number, marker=marker, ssrc=ssrc, pt=pt)
        self.receiver.push_rtp(datagram, self.clock.now)


@pytest.fixture
def room() -> Room:
    return Room()


class TestFold:
    def test_steps_in_order_once(self, room: Room) -> None:
        for text in ("x", "pack", "map", "K", "P", "K"):
            room.send(text)
            room.clock.advance(0.01)
        assert room.steps == [
            "first_packet", "first_pack", "first_map", "parameter_sets", "first_keyframe", "published"
        ]  # fmt: skip
        assert room.receiver.steps["first_packet"] == 100.0
        assert room.receiver.steps["first_keyframe"] == pytest.approx(100.03)
        assert room.viewer.pictures == "KPK"

    def test_the_marker_is_passed_on_after_its_payload(self, room: Room) -> None:
        room.send("pack hold:K", marker=True)
        assert room.script.log == ["pack hold:K", "mark"]
        assert room.viewer.pictures == "K"

    def test_gap_comes_before_the_payload_behind_the_hole(self, room: Room) -> None:
        room.send("pack K")
        room.send("P", skip=2)
        room.clock.advance(1.0)
        assert room.script.log == ["pack K", "gap", "P"]

    def test_reordered_packets_reach_the_demuxer_in_order(self, room: Room) -> None:
        for number in (1, 3, 2):
            room.receiver.push_rtp(room.datagram(str(number), number=number), room.clock.now)
        assert room.script.log == ["1", "2", "3"]

    def test_over_tcp_a_hole_is_no_reason_to_wait(self) -> None:
        room = Room(ordered=True)
        room.send("pack K")
        room.send("P", skip=1)
        assert room.script.log == ["pack K", "gap", "P"]
        assert room.clock.armed == []
        room.receiver.ordered = False  # the camera sends by UDP after all
        room.send("P", skip=1)
        assert room.receiver.fold.depth == 1

    def test_silence_ends_a_unit(self, room: Room) -> None:
        room.send("pack hold:K")
        assert room.viewer.pictures == ""
        room.clock.advance(0.09)
        assert room.viewer.pictures == ""
        room.clock.advance(0.02)
        assert room.viewer.pictures == "K"

    def test_a_promise_of_sound_delays_publication_half_a_second(self, room: Room) -> None:
        room.script.streams = [Elementary(0xE0, H264), Elementary(0xC0, PCMA)]
        room.send("pack map K")
        assert not room.stream.published
        room.clock.advance(0.6)
        assert room.stream.published
        assert room.steps[-1] == "published"
        assert room.receiver.steps["published"] == pytest.approx(100.5)

    def test_sound_goes_through(self, room: Room) -> None:
        room.script.streams = [Elementary(0xE0, H264), Elementary(0xC0, None, PCMA)]
        room.send("pack map K")
        room.send("A")
        assert [track.codec for track in room.viewer.tracks] == [H264, PCMA]

    def test_one_timer_and_none_that_is_left(self, room: Room) -> None:
        for n in range(50):
            room.send("pack hold:P", skip=n % 3 == 0)
            room.clock.advance(0.01)
            assert len(room.clock.armed) <= 1
        room.receiver.close()
        assert room.clock.armed == []

    def test_close_gives_what_is_complete_and_takes_nothing_more(self, room: Room) -> None:
        room.send("pack K")
        room.send("P", skip=1)
        room.receiver.close()
        room.receiver.close()
        room.send("K")
        assert room.script.log == ["pack K", "gap", "P"]
        assert room.receiver.tally["rtp.received"] == 2

    def test_damage_never_raises(self) -> None:
        room = Room(real=True)
        chance = random.Random(1)
        for _ in range(300):
            room.receiver.push_rtp(chance.randbytes(chance.randrange(40)), room.clock.now)
            room.receiver.push_rtcp(chance.randbytes(chance.randrange(40)), room.clock.now)
        room.receiver.settle_counts()
        assert room.receiver.tally["rtp.malformed"] > 0


class TestLoss:
    def test_freeze_until_the_next_key_frame(self, room: Room) -> None:
        room.send("pack K")
        room.send("P")
        room.send("P", skip=1)
        room.clock.advance(0.2)
        room.send("P")
        room.send("A")
        room.send("K")
        room.send("P")
        assert room.viewer.pictures == "KPKP"
        assert room.receiver.tally["receiver.frozen_units"] == 2
        assert room.receiver.tally["receiver.freezes"] == 1
        assert room.wanted == 1

    def test_a_key_frame_right_behind_the_hole_ends_it(self, room: Room) -> None:
        room.send("pack K")
        room.send("K", skip=1)
        room.clock.advance(0.2)
        room.send("P")
        assert room.viewer.pictures == "KKP"

    def test_pass_drops_nothing_more(self) -> None:
        room = Room(loss="pass")
        room.send("pack K")
        room.send("P", skip=1)
        room.clock.advance(0.2)
        assert room.viewer.pictures == "KP"
        assert room.wanted == 1

    def test_damage_found_by_the_demuxer_freezes_too(self, room: Room) -> None:
        room.send("pack K")
        room.script.damaged = True
        room.send("P")
        room.send("P")
        assert room.viewer.pictures == "K"
        assert room.receiver.frozen

    def test_a_request_is_repeated_while_frozen(self, room: Room) -> None:
        room.send("pack K")
        room.send("P", skip=1)
        for _ in range(50):
            room.clock.advance(0.1)
            room.send("P")
        assert room.wanted == 3  # at once, after 2 s, after 4 s

    def test_loss_before_the_first_key_frame_asks_for_nothing(self, room: Room) -> None:
        room.send("pack P")
        room.send("P", skip=1)
        room.clock.advance(0.3)
        room.send("K")
        assert (room.wanted, room.viewer.pictures) == (0, "K")

    def test_another_source_is_a_hole(self, room: Room) -> None:
        room.send("pack K")
        for _ in range(8):
            room.send("P", ssrc=6)
        assert "gap" in room.script.log
        assert room.receiver.fold.ssrc == 6
        assert room.receiver.frozen


class TestRtcp:
    def test_report_and_goodbye(self, room: Room) -> None:
        assert room.receiver.receiver_report(100.0) == b""
        room.send("pack K")
        report = struct.pack("!BBHIQIII", 0x80, 200, 6, 5, 0x1122334455667788, 0, 0, 0)
        room.receiver.push_rtcp(report, 100.0)
        assert struct.unpack_from("!II", room.receiver.receiver_report(101.0), 24) == (0x33445566, 65536)
        room.receiver.push_rtcp(struct.pack("!BBHI", 0x81, 203, 1, 6), 100.0)
        assert room.receiver.goodbye_at is None
        room.receiver.push_rtcp(struct.pack("!BBHI", 0x81, 203, 1, 5), 100.0)
        assert room.receiver.goodbye_at == 100.0
        room.clock.advance(2.5)
        assert room.receiver.diagnose(room.clock.now).code == "media_stopped"


class TestLastPacket:
    def test_only_packets_of_the_source_count(self, room: Room) -> None:
        room.send("pack K")
        room.clock.advance(1.0)
        room.receiver.push_rtp(room.datagram("x", number=9, ssrc=77), room.clock.now)
        room.receiver.push_rtp(b"junk", room.clock.now)
        assert room.receiver.last_packet_at == 100.0
        room.send("P")
        assert room.receiver.last_packet_at == 101.0


class TestDiagnose:
    def code(self, room: Room) -> str:
        found = room.receiver.diagnose(room.clock.now)
        assert found.message.endswith(".")
        assert (found.remedy != "") == (found.code != "ok")
        assert found.error("cam").code == found.code
        return found.code

    def test_each_stage(self, room: Room) -> None:
        assert self.code(room) == "no_media"
        room.send("x")
        assert self.code(room) == "not_program_stream"
        room.send("pack")
        assert self.code(room) == "no_parameter_sets"
        room.script.streams = [Elementary(0xE0, H264), Elementary(0xC0, PCMA)]
        room.send("map P")
        assert self.code(room) == "no_parameter_sets"
        room.send("K")
        assert self.code(room) == "no_parameter_sets"  # the key frame is there, its sets are not published yet
        room.send("A")
        assert self.code(room) == "ok"
        room.clock.advance(6.0)
        assert self.code(room) == "media_stopped"

    def test_parameter_sets_without_a_key_frame(self, room: Room) -> None:
        room.script.unit = lambda word, now: AccessUnit(  # type: ignore[method-assign]
            b"\0\0\0\1\x41", H264, 3600, parameter_sets=(SPS, PPS)
        )
        room.send("pack P")
        assert self.code(room) == "no_key_frame"

    def test_wrong_ssrc(self) -> None:
        room = Room(ssrc=7, ssrc_mode="strict")
        room.send("pack K")
        assert self.code(room) == "wrong_ssrc"
        assert room.steps == []

    def test_codec_unsupported(self, room: Room) -> None:
        room.script.streams = [Elementary(0xE0, BY_NAME["SVAC"])]
        room.send("pack map")
        assert self.code(room) == "codec_unsupported"
        assert "SVAC" in room.receiver.diagnose(room.clock.now).message

    def test_not_rtp(self, room: Room) -> None:
        room.receiver.push_rtp(b"hello", 100.0)
        assert self.code(room) == "not_rtp"

    def test_only_sound(self, room: Room) -> None:
        room.script.streams = [Elementary(0xC0, PCMA)]
        room.send("pack map A")
        assert "no video" in room.receiver.diagnose(room.clock.now).message

    @pytest.mark.parametrize(
        ("pt", "payloads", "name"),
        [
            (98, [b"\x67\x4d\x00\x1e", b"\x68\xee\x3c\x80", b"\x65\x88\x84"], "H.264 over RTP"),
            (96, [b"\x7c\x85\x88\x84", b"\x7c\x05\x11\x22", b"\x7c\x45\x11\x22"], "H.264 over RTP"),
            (96, [b"\x40\x01\x0c", b"\x42\x01\x01", b"\x62\x01\x93"], "H.265 over RTP"),
            (96, [b"\0\0\0\1\x67\x4d\0", b"\0\0\0\1\x41\x9a\0", b"\0\0\1\x41\x9a\0"], "bare H.264"),
            (96, [b"\0\0\0\1\x40\x01\x0c"] * 3, "bare H.265"),
            (33, [b"\x47" + bytes(188 * 7 - 1)] * 3, "transport stream"),
            (8, [b"\xd5" * 160] * 3, "A-law"),
            (96, [b"\xff" * 50] * 3, "private format, or encrypted"),
        ],
    )
    def test_what_it_is_instead(self, pt: int, payloads: list[bytes], name: str) -> None:
        room = Room(real=True)
        for payload in payloads:
            room.send(payload, pt=pt)
        found = room.receiver.diagnose(room.clock.now)
        assert found.code == "not_program_stream"
        assert name in found.message
        assert "PS (GB/T 28181)" in found.remedy


@pytest.fixture
def recording(fixtures_dir: Path) -> tuple[bytes, bytes]:
    folder = fixtures_dir / "media/avstackdocs"
    (stream,) = folder.glob("01e168e1_*.ps")
    (elementary,) = folder.glob("01e168e1_*.264")
    return stream.read_bytes(), elementary.read_bytes()


def replay(room: Room, data: bytes, size: int, gone: frozenset[int] = frozenset(), swap: int = 0) -> bytes:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    order = list(range(len(pieces)))
    for n in range(1, len(order) - 1, swap or len(order)):
        order[n], order[n + 1] = order[n + 1], order[n]
    for n in order:
        if n not in gone:
            room.receiver.push_rtp(room.datagram(pieces[n], number=n + 65_000), room.clock.now)
        room.clock.advance(min(54 / len(pieces), 0.05))  # longer silence would end units
    room.receiver.close()
    return b"".join(bytes(unit) for unit in room.viewer.units if unit.codec is H264)


@pytest.mark.fixtures
@pytest.mark.parametrize(("size", "swap"), [(1400, 0), (1400, 7), (577, 0), (32_768, 0)])
def test_a_recorded_camera_comes_out_byte_for_byte(recording: tuple[bytes, bytes], size: int, swap: int) -> None:
    room = Room(real=True)
    out = replay(room, recording[0], size, swap=swap)
    assert len(out) > 3_000_000
    assert recording[1].startswith(out)
    keys = [unit for unit in room.viewer.units if unit.is_keyframe and unit.codec is H264]
    assert len(keys) == 54
    times = [unit.dts or 0 for unit in room.viewer.units if unit.codec is H264]
    assert all(b - a == FRAME for a, b in pairwise(times))
    assert room.receiver.diagnose(room.clock.now).code == "ok"


@pytest.mark.fixtures
@pytest.mark.parametrize("seed", range(3))
def test_after_loss_only_whole_groups_come_out(recording: tuple[bytes, bytes], seed: int) -> None:
    """Every unit is one of the recording's, and between a hole and the next key frame there is none."""
    whole = Room(real=True)
    replay(whole, recording[0], 1400)
    expected = [bytes(unit) for unit in whole.viewer.units]
    place = {data: n for n, data in enumerate(expected)}
    chance = random.Random(seed)
    room = Room(real=True)
    replay(room, recording[0], 1400, gone=frozenset(chance.sample(range(10, 2300), 25)))
    before = -1
    assert 0 < len(room.viewer.units) < len(expected)
    for unit in room.viewer.units:
        position = place[bytes(unit)]
        assert position == before + 1 or (position > before and unit.is_keyframe)
        before = position
    assert room.wanted > 0
    assert room.receiver.tally["rtp.lost"] == 25
