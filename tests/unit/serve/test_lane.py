"""The native lane: pace, retransmissions, reports, and its end. What it sends is read by tests.support.srtp."""

import asyncio
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from aiortc.rtp import RtcpByePacket, RtcpPacket, RtcpSdesPacket, RtcpSrPacket

from gbgw._webrtc import Payloads
from gbgw.base import limits
from gbgw.base.tally import Tally
from gbgw.serve import lane as module
from gbgw.serve.feedback import Missed, ReceptionReport
from gbgw.serve.lane import Destination, NativeLane, Way
from gbgw.serve.outlet import Cut
from gbgw.serve.pacer import Pacer
from gbgw.serve.viewers import Viewer, Viewers
from tests.support.srtp import SrtpViewer
from tests.unit.serve.support import until


@dataclass
class Bench:
    lane: NativeLane
    there: SrtpViewer
    viewer: Viewer
    tally: Tally
    destination: Destination | None
    rtcp: list[bytes] = field(default_factory=list)
    stopped: int = 0

    def way(self, *, repair: bool = True) -> Way:
        return Way(
            self.there.sender,
            self.there.repair if repair else None,
            lambda: self.destination,
            self.rtcp.append,
            "a name",
        )

    def put(self, *sizes: int, is_paced: bool = False, at: float = 0.0, timestamp: int = 0) -> tuple[int, bool]:
        cut = Cut(Payloads([bytes(size) for size in sizes]), timestamp, at)
        return self.lane.put(cut, is_keyframe=True, is_paced=is_paced)


@pytest.fixture
async def it(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(limits, "WEBRTC_SLICE_SECONDS", 10.0)  # the pace alone decides, however slow the machine
    tally, viewer, pacer = Tally(), Viewers().add("k", "webrtc", "127.0.0.1"), Pacer()
    with SrtpViewer() as there:

        def on_stopped() -> None:
            bench.stopped += 1

        lane = NativeLane(viewer, tally, pacer, on_stopped=on_stopped)
        bench = Bench(lane, there, viewer, tally, Destination(there.out.fileno(), there.address))
        yield bench
        lane.stop()
        pacer.close()


async def test_what_comes_before_the_keys_waits_for_them(it: Bench) -> None:
    it.put(10, 20)
    assert it.lane.queued_bytes == 30
    it.lane.start(it.way())
    assert [len(packet.payload) for packet in it.there.read(2)] == [10, 20]
    assert it.lane.queued_bytes == 0
    assert it.viewer.bytes == 30
    it.put(5)
    assert [len(packet.payload) for packet in it.there.read(1)] == [5]


async def test_a_picture_of_one_burst_leaves_in_the_call(it: Bench) -> None:
    it.lane.start(it.way())
    it.put(*[1_200] * limits.WEBRTC_BURST_PACKETS)
    assert it.there.sender.packets == limits.WEBRTC_BURST_PACKETS


async def test_a_large_picture_keeps_the_pace_and_the_order(it: Bench) -> None:
    """What comes meanwhile waits behind it."""
    it.lane.start(it.way())
    loop = asyncio.get_running_loop()
    begun = loop.time()
    it.put(*[1_200] * 320)
    it.put(7)
    left: list[int] = []
    while it.there.sender.packets < 321:
        left.append(it.there.sender.packets)
        await asyncio.sleep(0)
    assert loop.time() - begun > 8 * limits.WEBRTC_BURST_SECONDS
    assert max(after - before for before, after in pairwise(left)) <= limits.WEBRTC_BURST_PACKETS + 1
    assert [len(packet.payload) for packet in it.there.read(321)] == [1_200] * 320 + [7]


async def test_the_cached_gop_is_slower(it: Bench) -> None:
    it.lane.start(it.way())
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for _ in range(100):
        it.put(1_200, is_paced=True)
    await until(lambda: it.there.sender.packets == 100)
    assert loop.time() - begun > 100 * 1_200 / module.CATCH_UP_BYTES_PER_SECOND - limits.WEBRTC_BURST_SECONDS * 2


async def test_a_held_lane_gives_nothing(it: Bench) -> None:
    it.lane.start(it.way())
    it.lane.hold(True)
    it.put(10)
    assert it.there.sender.packets == 0
    it.lane.hold(False)
    assert it.there.sender.packets == 1


async def test_it_follows_ice_to_another_address(it: Bench) -> None:
    it.lane.start(it.way())
    it.put(10)
    list(it.there.read(1))
    with SrtpViewer() as elsewhere:
        elsewhere.reading = it.there.reading
        it.destination = Destination(it.there.out.fileno(), elsewhere.address)
        it.put(11)
        assert [len(packet.payload) for packet in elsewhere.read(1)] == [11]
        assert it.there.silence()
    it.destination = None  # the socket is gone
    it.put(12)
    assert it.lane.queued_bytes == 12
    assert it.there.sender.packets == 2


async def test_a_full_socket_is_tried_again(it: Bench) -> None:
    it.lane.start(it.way())
    good = it.destination
    it.destination = Destination(it.there.out.fileno(), b"\x02\0" + bytes(14))  # port 0: the kernel refuses
    it.put(10)
    assert it.tally["webrtc.send_error"] == 1
    assert it.there.sender.unsent == 1
    it.destination = good
    it.put(11)
    await until(lambda: it.there.sender.packets == 2)
    assert [len(packet.payload) for packet in it.there.read(1)] == [11]
    it.lane.resend([65_530])
    assert [len(packet.payload) for packet in it.there.read(1)] == [12]  # the lost one, its number in front


@pytest.mark.parametrize("repair", [True, False])
async def test_lost_packets_go_again_within_bounds(it: Bench, repair: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WEBRTC_REPAIRS", 10)
    it.lane._repairs = 10
    it.lane.resend([1])  # before the keys
    it.lane.start(it.way(repair=repair))
    for _ in range(30):
        it.put(100)
    assert len(list(it.there.read(30))) == 30
    it.lane.resend([65_530, 65_529, 65_531, 65_530 + 30])
    assert it.tally["webrtc.resent"] == it.viewer.resent == 2
    assert it.tally["webrtc.nack_too_late"] == 2
    it.lane.resend([65_530] * 1_000)
    assert it.tally["webrtc.resent"] == 10
    assert it.tally["webrtc.repairs_exhausted"] == 1
    for _ in range(8):
        it.put(100)
    it.lane.resend([65_530] * 1_000)
    assert it.tally["webrtc.resent"] == 10 + 8 * limits.WEBRTC_REPAIR_SHARE
    assert it.there.repair.packets == (12 if repair else 0)


async def test_what_a_viewer_misses_goes_twice(it: Bench) -> None:
    """Since a repair that is lost too is a freeze; a moment apart, and once only."""
    it.lane.start(it.way())
    it.put(*[100] * 20)
    assert len(list(it.there.read(20))) == 20
    it.lane.on_missed(Missed(it.there.sender.ssrc, (65_530, 65_533)))
    it.lane.on_missed(Missed(it.there.sender.ssrc, (65_535,)))
    first = list(it.there.read(3))
    assert [packet.payload[:2] for packet in first] == [b"\xff\xfa", b"\xff\xfd", b"\xff\xff"]
    assert it.there.silence()
    await until(lambda: it.there.repair.packets == 6)
    copies = list(it.there.read(3))
    assert [packet.payload for packet in copies] == [packet.payload for packet in first]
    assert [packet.sequence_number for packet in copies] == [packet.sequence_number + 3 & 0xFFFF for packet in first]
    assert (it.viewer.resent, it.tally["webrtc.resent"], it.tally["webrtc.resent_twice"]) == (3, 3, 3)
    assert it.lane._double_timer is None


@pytest.mark.parametrize("has_way", [True, False])
async def test_nothing_goes_twice_where_it_costs_more_than_it_gives(it: Bench, has_way: bool) -> None:
    """Half of the retransmissions are used up: the way is worse than a copy mends; without a sequence of its own a
    copy is the same packet twice."""
    it.lane.start(it.way(repair=has_way))
    it.put(*[100] * 20)
    if has_way:
        it.lane._repairs = limits.WEBRTC_REPAIRS / 2
    it.lane.on_missed(Missed(it.there.sender.ssrc, (65_530,)))
    assert it.viewer.resent == 1
    assert it.lane._double_timer is None


async def test_copies_are_bounded_and_end_with_the_lane(it: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WEBRTC_REPAIRS", 4)
    it.lane.start(it.way())
    it.put(*[100] * 20)
    for _ in range(3):
        it.lane._repairs = 50
        it.lane.on_missed(Missed(it.there.sender.ssrc, (65_530, 65_531, 65_532)))
    assert len(it.lane._doubled) == 4
    it.lane.stop()
    assert it.lane._double_timer is not None
    assert it.lane._double_timer.cancelled()


async def test_sender_reports_relate_time_stamps_to_the_clock(it: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPORT_SECONDS", 0.01)
    it.lane.start(it.way())
    await asyncio.sleep(0.05)
    assert it.rtcp == []  # nothing to report yet
    it.put(10, 20, at=1_700_000_000.5, timestamp=9_000)
    await until(lambda: bool(it.rtcp))
    sender, source = RtcpPacket.parse(it.rtcp[0])
    assert isinstance(sender, RtcpSrPacket)
    assert isinstance(source, RtcpSdesPacket)
    assert sender.ssrc == 0xC0FFEE
    assert sender.sender_info.ntp_timestamp == (1_700_000_000 + 2_208_988_800) << 32 | 1 << 31
    assert sender.sender_info.rtp_timestamp == (0xFFFFFF00 + 9_000) & 0xFFFFFFFF
    assert (sender.sender_info.packet_count, sender.sender_info.octet_count) == (2, 30)
    assert source.chunks[0].ssrc == 0xC0FFEE
    assert source.chunks[0].items == [(1, b"a name")]


async def test_what_the_viewer_reports_is_counted_once(it: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPORT_SECONDS", 0.01)
    it.lane.start(it.way())
    for _ in range(20):
        it.put(10, at=1_700_000_000.5)
    await until(lambda: bool(it.rtcp))
    middle = struct.unpack(">I", it.rtcp[0][10:14])[0]

    def tell(lost: int, last_report: int = 0, delay: int = 0) -> None:
        it.lane.on_report(ReceptionReport(0xC0FFEE, 0.0, lost, 0, last_report, delay))

    for lost in (0, 3, 3, 2, 5, -7, 5):  # duplicates make it fall
        tell(lost)
    assert it.viewer.lost == it.tally["webrtc.lost"] == 5
    tell(1 << 22)  # no viewer loses more than there was
    assert it.viewer.lost == 20
    assert it.viewer.round_trip is None
    tell(20, last_report=middle ^ 1)
    assert it.viewer.round_trip is None
    tell(20, last_report=middle, delay=1)
    assert it.viewer.round_trip is not None
    assert 0 <= it.viewer.round_trip < 5
    tell(20, last_report=middle, delay=1 << 31)
    assert it.viewer.round_trip == 0
    it.lane.on_missed(Missed(0xC0FFEE, (65_530, 65_531)))
    assert it.viewer.nacks == it.tally["webrtc.nacked"] == 2
    assert it.viewer.resent == 2


@pytest.mark.parametrize("length", range(1, 9))
def test_every_length_of_name_is_padded(length: int) -> None:
    with SrtpViewer() as there:
        name = "n" * length
        _, source = RtcpPacket.parse(module.report(there.sender, 0, name))
        assert isinstance(source, RtcpSdesPacket)
        assert source.chunks[0].items == [(1, name.encode())]


async def test_stop_says_goodbye_once_and_takes_no_more(it: Bench) -> None:
    it.lane.start(it.way())
    it.put(*[1_200] * 100)
    it.lane.stop()
    it.lane.stop()
    (goodbye,) = RtcpPacket.parse(it.rtcp[0])
    assert isinstance(goodbye, RtcpByePacket)
    assert goodbye.sources == [0xC0FFEE]
    assert len(it.rtcp) == 1
    sent = it.there.sender.packets
    it.put(10)
    it.lane.hold(False)
    it.lane.resend([65_530])
    it.lane.start(it.way())
    await asyncio.sleep(0.02)
    assert it.there.sender.packets == sent
    assert it.stopped == 0  # that was us


async def test_a_session_that_cannot_protect_ends_the_lane(it: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("libsrtp refuses")

    it.lane.start(it.way())
    monkeypatch.setattr(NativeLane, "_burst", refuse)
    it.put(10)
    assert it.stopped == 1
    assert it.tally["webrtc.srtp_refused"] == 1
    it.put(10)
    assert it.stopped == 1
