"""gbgw/_rtp: parsing, order, sources, statistics, framing. Every test runs on the core and on its model."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gbgw import _rtp
from tests.model import rtp_model

PACK = b"\x00\x00\x01\xba"


@pytest.fixture(params=[_rtp, rtp_model], ids=["core", "model"])
def rtp(request: pytest.FixtureRequest) -> Any:
    return request.param


def packet(
    number: int,
    *,
    ssrc: int = 0x0BEBC201,
    timestamp: int | None = None,
    payload: bytes = b"x",
    marker: bool = False,
    pt: int = 96,
) -> bytes:
    stamp = 3600 * number if timestamp is None else timestamp
    return struct.pack("!BBHII", 0x80, pt | marker << 7, number % 65536, stamp % 2**32, ssrc) + payload


def numbers(packets: Sequence[Any]) -> list[int]:
    return [one.sequence_number for one in packets]


def frame(one: bytes) -> bytes:
    return len(one).to_bytes(2, "big") + one


class TestParse:
    def test_fields(self, rtp: Any) -> None:
        one = rtp.parse(packet(0x1234, ssrc=7, timestamp=0x89ABCDEF, payload=b"abc", marker=True, pt=98))
        assert (one.payload_type, one.marker, one.sequence_number, one.timestamp) == (98, True, 0x1234, 0x89ABCDEF)
        assert (one.ssrc, one.payload, one.lost_before, one.extended_sequence_number) == (7, b"abc", 0, 0x1234)

    def test_csrc_extension_and_padding_are_removed(self, rtp: Any) -> None:
        fixed = struct.pack("!BBHII", 0x80 | 0x20 | 0x10 | 2, 96, 1, 2, 3)
        extension = struct.pack("!HH", 0xBEDE, 2) + bytes(8)
        assert rtp.parse(fixed + bytes(8) + extension + b"data" + b"\0\0\3").payload == b"data"

    @pytest.mark.parametrize(
        "datagram",
        [
            b"",
            b"\x80",
            packet(1)[:11],
            b"\x40" + packet(1)[1:],
            b"\x81" + packet(1, payload=b"abc")[1:],  # a CSRC that is not there
            b"\x90" + packet(1, payload=b"\0\0\0")[1:],  # half an extension header
            b"\x90" + packet(1, payload=b"\xbe\xde\0\2" + bytes(7))[1:],  # an extension one byte short
            b"\xa0" + packet(1, payload=b"")[1:],  # padding without a count
            b"\xa0" + packet(1, payload=b"ab\0")[1:],  # a count of zero
            b"\xa0" + packet(1, payload=b"ab\4")[1:],  # more padding than payload
            b"\x80\xc8" + packet(1)[2:],  # RTCP
            b"\x80\xcc" + packet(1)[2:],
        ],
    )
    def test_not_rtp(self, rtp: Any, datagram: bytes) -> None:
        assert rtp.parse(datagram) is None

    def test_bounds_met_exactly(self, rtp: Any) -> None:
        assert rtp.parse(packet(1, payload=b"")).payload == b""
        assert rtp.parse(b"\xa0" + packet(1, payload=b"ab\3")[1:]).payload == b""
        assert rtp.parse(b"\x90" + packet(1, payload=b"\xbe\xde\0\2" + bytes(8))[1:]).payload == b""
        assert rtp.parse(b"\x8f" + packet(1, payload=bytes(60))[1:]).payload == b""
        assert rtp.parse(b"\x8f" + packet(1, payload=bytes(59))[1:]) is None

    def test_core_packets_are_frozen(self) -> None:
        one = _rtp.parse(packet(1))
        with pytest.raises(AttributeError):
            one.payload = b"other"  # type: ignore[union-attr, misc]
        with pytest.raises(TypeError):
            _rtp.RtpPacket()

    @pytest.mark.parametrize("wrong", [None, bytearray(b"x"), "x"])
    def test_core_takes_only_bytes(self, wrong: Any) -> None:
        for call in (_rtp.parse, _rtp.is_rtcp, _rtp.parse_rtcp, _rtp.Framer().push):
            with pytest.raises(TypeError):
                call(wrong)


class TestRtcp:
    REPORT = struct.pack("!BBHIQIII", 0x80, 200, 6, 9, 0x1122334455667788, 90000, 10, 2000)
    GOODBYE = struct.pack("!BBHII", 0x82, 203, 2, 9, 10)

    def test_is_rtcp(self, rtp: Any) -> None:
        assert [rtp.is_rtcp(bytes([0x80, kind])) for kind in (199, 200, 204, 205)] == [False, True, True, False]
        assert not rtp.is_rtcp(b"\x80")
        assert not rtp.is_rtcp(b"\x40\xc8")

    def test_compound(self, rtp: Any) -> None:
        description = struct.pack("!BBHI", 0x81, 202, 2, 9) + b"\1\2ab"
        report, first, second = rtp.parse_rtcp(self.REPORT + description + self.GOODBYE)
        assert (report.ssrc, report.ntp, report.timestamp) == (9, 0x1122334455667788, 90000)
        assert (report.packet_count, report.octet_count) == (10, 2000)
        assert (first.ssrc, second.ssrc) == (9, 10)

    @pytest.mark.parametrize(
        "damaged",
        [
            b"",
            REPORT[:-1],
            REPORT + b"\x80",
            REPORT + GOODBYE[:-1],
            struct.pack("!BBHI", 0x80, 200, 1, 9) + bytes(0),  # a sender report without its body
            struct.pack("!BBHI", 0x82, 203, 1, 9),  # two sources said, one there
            b"\x40" + REPORT[1:],
            struct.pack("!BBHI", 0x80, 204, 1, 9),  # nothing of use
        ],
    )
    def test_damage_gives_nothing(self, rtp: Any, damaged: bytes) -> None:
        assert list(rtp.parse_rtcp(damaged)) == []


class TestOrder:
    def test_in_order_passes_straight_through(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer()
        assert [numbers(buffer.push(packet(n), n / 100)) for n in range(5)] == [[n] for n in range(5)]
        assert buffer.deadline is None
        assert buffer.counts["rtp.received"] == 5
        assert buffer.counts["rtp.bytes"] == 65

    def test_empty_results_are_one_shared_tuple(self) -> None:
        buffer = _rtp.JitterBuffer()
        assert buffer.poll(0.0) is buffer.flush()

    def test_a_swap_is_put_right(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer()
        out = [numbers(buffer.push(packet(n), 0.0)) for n in (1, 3, 2, 4)]
        assert out == [[1], [], [2, 3], [4]]
        assert buffer.counts["rtp.reordered"] == 1
        assert buffer.counts["rtp.lost"] == 0

    def test_a_hole_is_given_up_after_its_time(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer(max_seconds=0.25)
        buffer.push(packet(1), 10.0)
        assert list(buffer.push(packet(4), 10.0)) == []
        assert buffer.deadline == 10.25
        assert buffer.depth == 1
        assert list(buffer.poll(10.2)) == []
        (one,) = buffer.poll(10.25)
        assert (one.sequence_number, one.lost_before) == (4, 2)
        assert buffer.counts["rtp.lost"] == 2
        assert buffer.deadline is None

    def test_patience_may_change(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer(max_seconds=0.0)
        buffer.push(packet(1), 0.0)
        assert numbers(buffer.push(packet(3), 0.0)) == [3]
        buffer.max_seconds = 0.5
        assert numbers(buffer.push(packet(5), 0.0)) == []
        assert buffer.deadline == 0.5

    def test_push_gives_up_what_is_due_before_it_looks_at_the_packet(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer(max_seconds=0.25)
        buffer.push(packet(1), 0.0)
        buffer.push(packet(3), 0.0)
        assert numbers(buffer.push(packet(2), 0.25)) == [3]
        assert buffer.counts["rtp.late"] == 1

    def test_time_counts_from_the_packet_that_waits_longest(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer(max_seconds=0.25)
        buffer.push(packet(1), 0.0)
        buffer.push(packet(5), 0.0)
        buffer.push(packet(3), 0.125)
        assert buffer.deadline == 0.25
        assert [(one.sequence_number, one.lost_before) for one in buffer.poll(0.25)] == [(3, 1), (5, 1)]

    def test_bounded_by_packets(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer(max_packets=4)
        buffer.push(packet(0), 0.0)
        assert [numbers(buffer.push(packet(n), 0.0)) for n in (2, 3, 4)] == [[], [], []]
        assert numbers(buffer.push(packet(5), 0.0)) == [2, 3, 4, 5]
        assert numbers(buffer.push(packet(100), 0.0)) == []
        assert numbers(buffer.flush()) == [100]
        assert buffer.counts["rtp.lost"] == 95

    def test_bounded_by_bytes(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer(max_bytes=1000)
        buffer.push(packet(0), 0.0)
        buffer.push(packet(2, payload=bytes(600)), 0.0)
        assert buffer.buffered == 600
        buffer.push(packet(4, payload=bytes(400)), 0.0)
        assert buffer.buffered == 1000
        assert numbers(buffer.push(packet(6, payload=b"x"), 0.0)) == [2]
        assert buffer.buffered == 401

    def test_duplicates_and_late_ones(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer(max_packets=8)
        for n in (10, 11, 13, 13):
            buffer.push(packet(n), 0.0)
        assert buffer.counts["rtp.duplicate"] == 1
        buffer.push(packet(11), 0.0)
        assert buffer.counts["rtp.duplicate"] == 2
        assert numbers(buffer.flush()) == [13]
        buffer.push(packet(12), 0.0)
        buffer.push(packet(12), 0.0)
        assert (buffer.counts["rtp.late"], buffer.counts["rtp.duplicate"]) == (1, 3)
        buffer.push(packet(3), 0.0)
        assert buffer.counts["rtp.late"] == 2

    def test_wraps(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer()
        out = [one for n in (65534, 65535, 1, 0, 2) for one in buffer.push(packet(n), 0.0)]
        assert numbers(out) == [65534, 65535, 0, 1, 2]
        assert [one.extended_sequence_number for one in out] == [65534, 65535, 65536, 65537, 65538]

    def test_flush_marks_every_hole(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer()
        for n in (1, 3, 6):
            buffer.push(packet(n), 0.0)
        assert [(one.sequence_number, one.lost_before) for one in buffer.flush()] == [(3, 1), (6, 2)]
        assert buffer.depth == 0

    def test_damage_is_counted(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer()
        for datagram in (b"", b"\x80", b"OPTIONS sip:x SIP/2.0", TestRtcp.REPORT):
            assert list(buffer.push(datagram, 0.0)) == []
        assert buffer.counts["rtp.malformed"] == 4
        assert buffer.ssrc is None

    @pytest.mark.parametrize(
        ("arguments", "options"),
        [((None, "strict"), {}), ((1, "loose"), {}), ((), {"max_packets": 0}), ((), {"max_seconds": float("nan")})],
    )
    def test_misuse_of_the_core_raises(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        with pytest.raises(ValueError):
            _rtp.JitterBuffer(*arguments, **options)


class TestRestart:
    def test_two_in_a_row_far_away_are_a_restart(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer()
        buffer.push(packet(5000), 0.0)
        buffer.push(packet(5002), 0.0)
        assert list(buffer.push(packet(7), 0.0)) == []
        out = buffer.push(packet(8), 0.0)
        assert [(one.sequence_number, one.lost_before) for one in out] == [(5002, 1), (7, 1), (8, 0)]
        assert [one.extended_sequence_number for one in out] == [5002, 65543, 65544]
        assert buffer.counts["rtp.restart"] == 1
        assert buffer.counts["rtp.lost"] == 1
        assert numbers(buffer.push(packet(9), 0.0)) == [9]

    def test_one_stray_changes_nothing(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer()
        out = [numbers(buffer.push(packet(n), 0.0)) for n in (5000, 7, 5001, 8, 5002)]
        assert out == [[5000], [], [5001], [], [5002]]
        assert buffer.counts["rtp.stray"] == 2
        assert buffer.counts["rtp.restart"] == 0

    @pytest.mark.parametrize(("jump", "restarted"), [(1000, False), (1001, True), (-1000, False), (-1002, True)])
    def test_the_threshold(self, rtp: Any, jump: int, restarted: bool) -> None:
        buffer = rtp.JitterBuffer()
        buffer.push(packet(20000), 0.0)
        buffer.push(packet(20000 + jump), 0.0)
        buffer.push(packet(20001 + jump), 0.0)
        assert buffer.counts["rtp.restart"] == restarted

    def test_under_an_unchanged_timestamp_eight_are_needed(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer()
        buffer.push(packet(5000, timestamp=1), 0.0)
        for n in range(7):
            assert list(buffer.push(packet(n, timestamp=1), 0.0)) == []
        assert numbers(buffer.push(packet(7, timestamp=1), 0.0)) == list(range(8))

    def test_what_is_left_of_the_run_before_is_no_restart_backwards(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer()
        for n in (5000, 5001, 5004):
            buffer.push(packet(n), 0.0)
        buffer.push(packet(7), 0.1)
        assert numbers(buffer.push(packet(8), 0.1))[-2:] == [7, 8]
        for n in (5002, 5003, 5004, 5001):
            assert list(buffer.push(packet(n), 0.2)) == []
        assert numbers(buffer.push(packet(9), 0.2)) == [9]
        assert buffer.counts["rtp.restart"] == 1
        assert buffer.counts["rtp.stray"] == 4
        buffer.push(packet(5005), 0.3)  # what goes on where the old run ended is one
        assert numbers(buffer.push(packet(5006), 0.3)) == [5005, 5006]

    def test_later_it_is_one(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer()
        for n in (5000, 7, 8):
            buffer.push(packet(n), 0.0)
        buffer.push(packet(4999), 3.0)
        assert numbers(buffer.push(packet(5000), 3.0)) == [4999, 5000]


class TestTwoOnOnePort:
    """Two cameras that send to one port, a burst for each picture."""

    @staticmethod
    def run(buffer: Any, seconds: float = 4.0, burst: int = 20) -> list[int]:
        shown = []
        for turn in range(int(seconds * 25)):
            for ssrc in (1, 2):
                for n in range(burst):
                    out = buffer.push(packet(turn * burst + n, ssrc=ssrc, timestamp=turn), turn / 25 + 0.02 * ssrc)
                    shown += [one.ssrc for one in out]
        return shown

    def test_the_expected_one_keeps_its_place(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer(1)
        assert set(self.run(buffer)) == {1}
        assert buffer.counts["rtp.wrong_ssrc"] == 2_000
        assert buffer.counts["rtp.lost"] == 0

    def test_the_expected_one_takes_its_place(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer(2)
        assert set(self.run(buffer)[20:]) == {2}
        assert buffer.counts["rtp.ssrc_change"] == 1

    def test_they_do_not_take_turns(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer()
        assert set(self.run(buffer)[20:]) == {2}
        assert buffer.counts["rtp.ssrc_change"] == 1

    def test_one_that_stops_gives_its_place_up(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer(1)
        self.run(buffer, 1.0)
        shown = [one.ssrc for n in range(40) for one in buffer.push(packet(500 + n, ssrc=2), 1.0 + n / 100)]
        assert set(shown) == {2}
        assert len(shown) >= 15


class TestSource:
    OTHER = 0x47868C01

    @pytest.mark.parametrize("mode", ["latch", "adopt"])
    def test_the_first_source_is_taken_whatever_was_expected(self, rtp: Any, mode: str) -> None:
        buffer = rtp.JitterBuffer(1, mode)
        assert numbers(buffer.push(packet(1, ssrc=0), 0.0)) == [1]
        assert buffer.ssrc == 0

    def test_strict_takes_only_the_expected(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer(1, "strict")
        for n in range(20):
            assert list(buffer.push(packet(n, ssrc=2), n * 1.0)) == []
        assert buffer.ssrc is None
        assert numbers(buffer.push(packet(5, ssrc=1), 20.0)) == [5]
        for n in range(20):
            assert list(buffer.push(packet(n, ssrc=2), 30.0 + n)) == []
        assert buffer.counts["rtp.wrong_ssrc"] == 40

    def test_latch_never_changes(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer(None, "latch")
        buffer.push(packet(1), 0.0)
        for n in range(20):
            assert list(buffer.push(packet(n, ssrc=self.OTHER), 10.0 + n)) == []
        assert buffer.counts["rtp.wrong_ssrc"] == 20

    def test_a_single_packet_of_another_never_disturbs(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer()
        out = []
        for n in range(50):
            out += buffer.push(packet(n), n * 1.0)
            out += buffer.push(packet(n + 7, ssrc=self.OTHER), n * 1.0)
        assert numbers(out) == list(range(50))
        assert all(one.lost_before == 0 for one in out)
        buffer.push(packet(50), 49.0)  # the rival of the last turn is dropped here
        assert buffer.counts["rtp.wrong_ssrc"] == 50

    def test_not_even_after_a_silence(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer()
        buffer.push(packet(1), 0.0)
        assert list(buffer.push(packet(9, ssrc=self.OTHER), 100.0)) == []
        assert numbers(buffer.push(packet(2), 101.0)) == [2]

    def test_eight_in_a_row_take_over_without_loss(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer()
        buffer.push(packet(1), 0.0)
        for n in range(65530, 65537):
            assert list(buffer.push(packet(n, ssrc=self.OTHER), 0.1)) == []
        out = buffer.push(packet(65537, ssrc=self.OTHER), 0.1)
        assert numbers(out) == [65530, 65531, 65532, 65533, 65534, 65535, 0, 1]
        assert [one.lost_before for one in out] == [1, 0, 0, 0, 0, 0, 0, 0]
        assert buffer.ssrc == self.OTHER
        assert buffer.counts["rtp.ssrc_change"] == 1
        assert buffer.counts["rtp.received"] == 9
        assert buffer.counts["rtp.wrong_ssrc"] == 0

    def test_after_three_seconds_of_silence_two_are_enough(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer()
        buffer.push(packet(1), 0.0)
        assert list(buffer.push(packet(7, ssrc=self.OTHER), 2.9)) == []
        assert numbers(buffer.push(packet(8, ssrc=self.OTHER), 3.0)) == [7, 8]

    def test_a_broken_run_starts_again(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer()
        buffer.push(packet(1), 0.0)
        for n in (1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12):
            assert list(buffer.push(packet(n, ssrc=self.OTHER), 0.1)) == []
        assert numbers(buffer.push(packet(13, ssrc=self.OTHER), 0.1)) == [6, 7, 8, 9, 10, 11, 12, 13]
        assert buffer.counts["rtp.wrong_ssrc"] == 4


class TestStatistics:
    def test_nothing_to_report_before_the_first_packet(self, rtp: Any) -> None:
        assert rtp.JitterBuffer().receiver_report(1, 0.0) == b""
        assert rtp.JitterBuffer().jitter_seconds == 0.0

    def test_report_layout(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer()
        for n in (65534, 65535, 1, 2):
            buffer.push(packet(n, ssrc=9), 0.0)
        (report,) = rtp.parse_rtcp(struct.pack("!BBHIQIII", 0x80, 200, 6, 9, 0x1122334455667788, 0, 0, 0))
        buffer.sender_report(report, 10.0)
        data = buffer.receiver_report(0xCAFE, 11.5)
        (flags, kind, words, reporter, source, loss, highest, _, lsr, dlsr) = struct.unpack_from("!BBHIIIIIII", data)
        assert (flags, kind, words, reporter, source) == (0x81, 201, 7, 0xCAFE, 9)
        assert (loss >> 24, loss & 0xFFFFFF) == (256 // 5, 1)  # one of five
        assert highest == 65538
        assert (lsr, dlsr) == (0x33445566, 98304)
        description = data[32:]
        assert description[:4] == b"\x81\xca\x00\x05"
        assert len(description) == 24
        assert description[4:10] == b"\x00\x00\xca\xfe\x01\x0d"
        assert description[10:] == b"0000cafe@gbgw" + bytes(1)

    def test_fraction_covers_only_the_interval(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer()
        for n in (0, 2, 3):
            buffer.push(packet(n), 0.0)
        assert buffer.receiver_report(1, 0.0)[12] == 64
        for n in (4, 5):
            buffer.push(packet(n), 0.0)
        report = buffer.receiver_report(1, 0.0)
        assert report[12:16] == b"\x00\x00\x00\x01"
        assert buffer.receiver_report(1, 0.0)[12] == 0

    def test_duplicates_make_the_loss_negative(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer()
        for n in (1, 1, 1):
            buffer.push(packet(n), 0.0)
        assert buffer.receiver_report(1, 0.0)[12:16] == b"\x00\xff\xff\xfe"

    def test_a_report_of_another_source_is_ignored(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer()
        buffer.push(packet(1, ssrc=8), 0.0)
        (report,) = rtp.parse_rtcp(TestRtcp.REPORT)
        buffer.sender_report(report, 0.0)
        assert buffer.receiver_report(1, 0.0)[24:32] == bytes(8)

    def test_jitter(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer()
        buffer.push(packet(0, timestamp=2**32 - 900), 0.0)
        buffer.push(packet(1, timestamp=0), 0.01)
        assert buffer.jitter_seconds == 0.0
        buffer.push(packet(2, timestamp=900), 0.03)  # 10 ms late
        assert buffer.jitter_seconds == pytest.approx(0.01 / 16)

    def test_another_clock(self, rtp: Any) -> None:
        buffer = rtp.JitterBuffer(clock_hz=8000)
        buffer.push(packet(0, timestamp=0), 0.0)
        buffer.push(packet(1, timestamp=160), 0.04)
        assert buffer.jitter_seconds == pytest.approx(0.02 / 16)


def rtcp_frame(ssrc: int) -> bytes:
    return frame(struct.pack("!BBHI", 0x80, 201, 1, ssrc))


class TestFramer:
    @staticmethod
    def video(count: int, *, ssrc: int = 5, start: int = 0, size: int = 50) -> list[bytes]:
        return [packet(start + n, ssrc=ssrc, payload=bytes([n % 256]) * size) for n in range(count)]

    def test_a_known_source_needs_no_confirmation(self, rtp: Any) -> None:
        framer = rtp.Framer(5)
        (one,) = self.video(1)
        assert list(framer.push(frame(one))) == [one]
        assert framer.buffered == 0

    def test_a_pack_needs_no_confirmation(self, rtp: Any) -> None:
        one = packet(1, payload=PACK + bytes(10))
        assert list(rtp.Framer().push(frame(one))) == [one]

    def test_an_unknown_source_waits_for_its_second_frame(self, rtp: Any) -> None:
        framer = rtp.Framer(99)
        first, second = self.video(2)
        assert list(framer.push(frame(first))) == []
        assert list(framer.push(frame(second))) == [first, second]

    def test_byte_by_byte(self, rtp: Any) -> None:
        packets = self.video(5)
        framer = rtp.Framer()
        out = [one for byte in b"".join(map(frame, packets)) for one in framer.push(bytes([byte]))]
        assert out == packets

    @pytest.mark.parametrize("size", [0, 65535 - 12])
    def test_smallest_and_largest_frame(self, rtp: Any, size: int) -> None:
        packets = self.video(3, size=size)
        assert list(rtp.Framer().push(b"".join(map(frame, packets)))) == packets

    @pytest.mark.parametrize("garbage", [b"\x01", b"HTTP/1.1 200 OK\r\n\r\n", bytes(range(256)) * 8, b"\xff" * 5000])
    @pytest.mark.parametrize("ssrc", [None, 5, 99])
    def test_garbage_between(self, rtp: Any, garbage: bytes, ssrc: int | None) -> None:
        first, second = self.video(3), self.video(20, start=3, size=4000)  # garbage may claim a frame of 64 KiB
        framer = rtp.Framer(ssrc)
        assert list(framer.push(b"".join(map(frame, first)) + garbage + b"".join(map(frame, second)))) == first + second
        assert framer.counts["rtp.framer_garbage"] == len(garbage)
        assert framer.counts["rtp.framer_resync"] == 1

    def test_private_prefix(self, rtp: Any) -> None:
        packets = self.video(3)
        framer = rtp.Framer()
        prefix = b"\x01\x00\x80" + bytes(253)
        assert list(framer.push(prefix + b"".join(map(frame, packets)))) == packets
        assert framer.counts["rtp.framer_garbage"] == 256

    def test_interleaved(self, rtp: Any) -> None:
        packets = self.video(4)
        framer = rtp.Framer()
        out = list(framer.push(b"".join(b"$\0" + frame(one) for one in packets)))
        assert out == packets
        assert framer.counts["rtp.framer_interleaved"] == 4
        assert framer.counts["rtp.framer_garbage"] == 0

    def test_a_length_that_begins_with_a_dollar(self, rtp: Any) -> None:
        packets = self.video(2, size=0x24FF - 12)
        framer = rtp.Framer(5)
        assert list(framer.push(b"".join(map(frame, packets)))) == packets
        assert framer.counts["rtp.framer_interleaved"] == 0

    def test_rtcp_and_empty_frames_inside(self, rtp: Any) -> None:
        one, two = self.video(2)
        report, other = rtcp_frame(5), rtcp_frame(77)
        framer = rtp.Framer(5)
        data = report + b"\0\0" + frame(one) + b"\0\0\0\0" + other + frame(two) + report
        assert list(framer.push(data)) == [report[2:], one, other[2:], two, report[2:]]
        assert framer.counts["rtp.framer_garbage"] == 0

    def test_a_changed_source_is_followed(self, rtp: Any) -> None:
        packets = self.video(3) + self.video(3, ssrc=6)
        framer = rtp.Framer(5)
        assert list(framer.push(b"".join(map(frame, packets)))) == packets
        assert framer.counts["rtp.framer_resync"] == 0

    def test_garbage_that_looks_long_holds_nothing_back(self, rtp: Any) -> None:
        """A length of 60 KB and a version of 2 by chance: the camera's own frames behind it come at once."""
        one, two = self.video(2)
        looks_long = b"\xea\x60\x80\x60" + bytes(range(1, 60))
        framer = rtp.Framer(5)
        assert list(framer.push(looks_long + frame(one))) == [one]
        assert list(framer.push(looks_long + frame(two))) == [two]
        assert framer.counts["rtp.framer_resync"] == 2

    def test_core_refuses_a_buffer_too_small_for_a_frame(self) -> None:
        with pytest.raises(ValueError):
            _rtp.Framer(max_bytes=131071)

    def test_never_more_than_its_ceiling(self) -> None:
        framer = _rtp.Framer(max_bytes=131072)
        head = frame(packet(1, payload=bytes(65000)))[:-1]
        framer.push(head)
        for _ in range(50):
            framer.push(bytes(range(256)) * 400)
            assert framer.buffered <= 131072


@pytest.mark.fixtures
@pytest.mark.parametrize("name", ["sbgb28181_gst_udp_ps.rfc4571", "sbgb28181_gst_tcp_ps.rfc4571"])
@pytest.mark.parametrize("cut", [1, 7, 1460, 1 << 20])
def test_recorded_peers(fixtures_dir: Path, name: str, cut: int) -> None:
    """A third-party device's RTP over both transports: every frame found, in order, nothing lost, in any cut."""
    data = (fixtures_dir / "pcap/peers" / name).read_bytes()
    expected, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        at += 2 + size
        if at <= len(data):  # the TCP recording ends inside a frame
            expected.append(data[at - size : at])
    framer, buffer = _rtp.Framer(), _rtp.JitterBuffer()
    framed = [one for at in range(0, len(data), cut) for one in framer.push(data[at : at + cut])]
    assert framed == expected
    assert framer.counts == {"rtp.framer_garbage": 0, "rtp.framer_resync": 0, "rtp.framer_interleaved": 0}
    media = [one for one in framed if not _rtp.is_rtcp(one)]
    out = [one for n, datagram in enumerate(media) for one in buffer.push(datagram, n / 1000)]
    assert len(out) == len(media) > 200
    assert buffer.counts["rtp.lost"] == buffer.counts["rtp.malformed"] == 0
    assert b"".join(one.payload for one in out).startswith(PACK)
