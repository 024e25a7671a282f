"""gbgw/_webrtc: what leaves is what libsrtp, read by its front door, and aiortc's RTP parser say it is."""

import os
import socket
import struct

import pylibsrtp
import pytest
from aiortc import rtp
from hypothesis import given, settings
from hypothesis import strategies as st

from gbgw._webrtc import MAX_BATCH, MAX_PAYLOAD_BYTES, Batch, Payloads, Sender, protected
from gbgw.base import limits
from tests.support.srtp import EXTENSION, EXTENSIONS, PROFILES, SrtpViewer, protect_address, session_address, sessions


def send_all(sender: Sender, payloads: Payloads, timestamp: int, send_time: int = 0) -> int:
    return sum(
        sender.send(payloads, timestamp, begin, min(begin + MAX_BATCH, len(payloads)), send_time)
        for begin in range(0, len(payloads), MAX_BATCH)
    )


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("segments", [True, False])
def test_what_leaves_is_read_by_others(segments: bool, profile: str, family: int) -> None:
    """Sequence numbers and time stamps wrap; the marker is on the last; extensions are as negotiated."""
    units = [[bytes((unit, index)) * 500 for index in range(unit + 1)] for unit in range(20)]
    with SrtpViewer(profile=profile, segments=segments, extension=EXTENSION, family=family) as viewer:
        number = 65_530
        for unit, parts in enumerate(units):
            assert send_all(viewer.sender, Payloads(parts), unit * 3_600, 0x123456) == len(parts)
            for index, packet in enumerate(viewer.read(len(parts))):
                assert packet.payload == parts[index]
                assert packet.sequence_number == number & 0xFFFF
                assert packet.timestamp == (0xFFFFFF00 + unit * 3_600) & 0xFFFFFFFF
                assert packet.marker == (index == len(parts) - 1)
                assert (packet.ssrc, packet.payload_type) == (0xC0FFEE, 96)
                assert (packet.extensions.mid, packet.extensions.abs_send_time) == ("0", 0x123456)
                number += 1
        assert viewer.silence()
        assert viewer.sender.packets == 210
        assert viewer.sender.octets == 210 * 1_000
        assert viewer.sender.sequence_number == number & 0xFFFF
        assert viewer.sender.timestamp == (0xFFFFFF00 + 19 * 3_600) & 0xFFFFFFFF
        assert (viewer.sender.unsent, viewer.sender.error) == (0, 0)
        assert viewer.batch.segments == segments


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([1, 2, 99, 100, 1_199, 1_200, 1_201, 1_400]), min_size=1, max_size=150),
    segments=st.booleans(),
)
def test_any_sizes_arrive_in_order(sizes: list[int], segments: bool) -> None:
    """Whatever runs of one size there are, cut by the kernel or not."""
    parts = [os.urandom(size) for size in sizes]
    with SrtpViewer(segments=segments) as viewer:
        payloads = Payloads(parts)
        assert (len(payloads), payloads.size, list(payloads)) == (len(parts), sum(sizes), parts)
        for begin in range(0, len(parts), MAX_BATCH):
            end = min(begin + MAX_BATCH, len(parts))
            assert viewer.sender.send(payloads, 5, begin, end) == end - begin
            assert [packet.payload for packet in viewer.read(end - begin)] == parts[begin:end]


def test_lost_packets_are_found_and_sent_again() -> None:
    with SrtpViewer(extension=EXTENSION) as viewer:
        first = Payloads([b"a", b"bc"])
        send_all(viewer.sender, first, 0)
        send_all(viewer.sender, Payloads([b"d"]), 9)
        plain = list(viewer.read(3))
        for index, packet in enumerate(plain):
            found = viewer.sender.find(packet.sequence_number)
            assert found is not None
            payloads, at, timestamp = found
            assert (payloads[at], timestamp) == (packet.payload, packet.timestamp)
            assert viewer.repair.resend(*found, packet.sequence_number, repair=True)
            (again,) = viewer.read(1)
            assert (again.ssrc, again.payload_type) == (0xBEEF, 97)
            assert again.sequence_number == (65_530 + index) & 0xFFFF
            assert again.timestamp == packet.timestamp
            unwrapped = rtp.unwrap_rtx(again, payload_type=96, ssrc=0xC0FFEE)
            assert bytes(unwrapped.serialize(EXTENSIONS)) == bytes(packet.serialize(EXTENSIONS))
        assert viewer.repair.packets == 3
        assert viewer.sender.packets == 3
        # without RFC 4588 the very packet goes again, and the viewer's window says that it had it
        found = viewer.sender.find(plain[0].sequence_number)
        assert found is not None
        assert viewer.sender.resend(*found, plain[0].sequence_number)
        with pytest.raises(pylibsrtp.Error, match="replay"):
            list(viewer.read(1))


def test_what_was_never_sent_or_is_forgotten_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WEBRTC_HISTORY", 4)
    with SrtpViewer(sequence_number=10) as viewer:
        assert viewer.sender.find(10) is None
        for unit in range(3):
            send_all(viewer.sender, Payloads([b"x", b"y"]), unit)
        assert [number for number in range(65_536) if viewer.sender.find(number)] == [12, 13, 14, 15]
        send_all(viewer.sender, Payloads([b"z"] * 9), 3)  # more than is kept: the last unit stays whole
        assert [number for number in range(65_536) if viewer.sender.find(number)] == list(range(16, 25))


def test_a_unit_half_sent_is_found_only_as_far(monkeypatch: pytest.MonkeyPatch) -> None:
    with SrtpViewer(sequence_number=10) as viewer:
        viewer.sender.send(Payloads([b"x"] * 5), 0, 0, 2)
        assert [number for number in range(20) if viewer.sender.find(number)] == [10, 11]


def test_a_socket_that_is_gone_or_full_is_told() -> None:
    with SrtpViewer() as viewer:
        viewer.sender.aim(viewer.out.fileno(), b"\x02\0" + bytes(14))  # port 0
        assert viewer.sender.send(Payloads([b"x"] * 3), 0, 0, 3) == 0
        assert viewer.sender.error
        assert (viewer.sender.unsent, viewer.sender.packets) == (3, 3)
        viewer.sender.aim(viewer.out.fileno(), viewer.address)
        found = viewer.sender.find(65_531)
        assert found is not None
        assert viewer.repair.resend(*found, 65_531, repair=True)  # what the kernel refused is not lost
        assert next(viewer.read(1)).payload == struct.pack(">H", 65_531) + b"x"


def test_mistakes_of_the_caller_are_told() -> None:
    with pytest.raises(ValueError, match="at most"):
        Payloads([bytes(MAX_PAYLOAD_BYTES + 1)])
    with pytest.raises(IndexError):
        Payloads([b"x"])[1]
    own, _ = sessions()
    good: dict[str, object] = {
        "ssrc": 1,
        "payload_type": 96,
        "sequence_number": 1,
        "timestamp_origin": 1,
        "protect": protect_address(),
        "session": session_address(own),
        "owner": own,
    }
    for bad, words in (
        ({"payload_type": 128}, "payload type"),
        ({"extension": b"abc"}, "header extension"),
        ({"extension": bytes(68)}, "header extension"),
        ({"extension": bytes(8), "send_time_at": 6}, "send time"),
        ({"protect": 0}, "SRTP"),
        ({"session": 0}, "SRTP"),
    ):
        with pytest.raises(ValueError, match=words):
            Sender(Batch(), **{**good, **bad})  # type: ignore[arg-type]
    sender = Sender(Batch(), **good)  # type: ignore[arg-type]
    one = Payloads([b"x"] * (MAX_BATCH + 1))
    with pytest.raises(ValueError, match="not aimed"):
        sender.send(one, 0, 0, 1)
    for address in (b"", bytes(33)):
        with pytest.raises(ValueError, match="address"):
            sender.aim(1, address)
    with SrtpViewer() as viewer:
        for begin, end in ((0, MAX_BATCH + 1), (-1, 1), (2, 1), (0, len(one) + 1)):
            with pytest.raises(ValueError, match="payloads"):
                viewer.sender.send(one, 0, begin, end)
        for index in (-1, len(one)):
            with pytest.raises(ValueError, match="payload"):
                viewer.sender.resend(one, index, 0, 0)
        assert viewer.silence()


def test_protected_is_what_the_front_door_makes() -> None:
    own, reading = sessions()
    packet = struct.pack(">BBHII", 0x80, 96, 7, 8, 9) + b"payload"
    made = protected(protect_address(), session_address(own), packet)
    assert made != packet
    assert reading.unprotect(made) == packet
    with pytest.raises(OSError, match="libsrtp refuses"):
        protected(protect_address(), session_address(own), b"short")
    with pytest.raises(ValueError, match="too long"):
        protected(protect_address(), session_address(own), bytes(MAX_PAYLOAD_BYTES + 1))
