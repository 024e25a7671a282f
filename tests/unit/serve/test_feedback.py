"""RTCP feedback: what aiortc writes is read, what RFC 5104 has beside it too, and damage ends in Damaged."""

import struct

import pytest
from aiortc.rtp import (
    RtcpByePacket,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSdesPacket,
    RtcpSenderInfo,
    RtcpSourceInfo,
    RtcpSrPacket,
)
from hypothesis import given
from hypothesis import strategies as st

from gbgw.base import limits
from gbgw.serve.feedback import Damaged, Missed, PictureLost, ReceptionReport, read

OURS = 0xC0FFEE
INFO = RtcpReceiverInfo(
    ssrc=OURS, fraction_lost=64, packets_lost=-3, highest_sequence=70_000, jitter=90, lsr=0x12345678, dlsr=65_536
)
REPORT = ReceptionReport(OURS, 0.25, -3, 90, 0x12345678, 65_536)


def fir(*sources: int) -> bytes:
    """RFC 5104 section 4.3.1: the media source of the head is 0, each entry names a source and counts requests."""
    entries = b"".join(struct.pack(">IBBBB", source, 7, 0, 0, 0) for source in sources)
    return struct.pack(">BBHII", 0x84, 206, 2 + len(entries) // 4, 1, 0) + entries


def test_reports_are_read_from_both_kinds() -> None:
    sender = RtcpSenderInfo(ntp_timestamp=1, rtp_timestamp=2, packet_count=3, octet_count=4)
    source = RtcpSdesPacket(chunks=[RtcpSourceInfo(ssrc=1, items=[(1, b"name")])])
    packet = bytes(RtcpSrPacket(1, sender, [INFO])) + bytes(RtcpRrPacket(1, [INFO, INFO])) + bytes(source)
    assert list(read(packet)) == [REPORT] * 3
    assert list(read(bytes(RtcpRrPacket(1)))) == []


@given(st.lists(st.integers(0, 65_535), min_size=1, max_size=60, unique=True).map(sorted))
def test_what_aiortc_misses_is_what_is_read(numbers: list[int]) -> None:
    (found,) = read(bytes(RtcpRtpfbPacket(1, 1, OURS, numbers)))
    assert isinstance(found, Missed)
    assert (found.ssrc, list(found.numbers)) == (OURS, numbers)


def test_numbers_go_on_past_the_end() -> None:
    (found,) = read(struct.pack(">BBHIIHH", 0x81, 205, 3, 1, OURS, 65_535, 0b101))
    assert found == Missed(OURS, (65_535, 0, 2))


def test_no_datagram_names_more_than_is_remembered() -> None:
    entries = b"\0\1\xff\xff" * 400
    one = struct.pack(">BBHII", 0x81, 205, 2 + len(entries) // 4, 1, OURS) + entries
    found = [told for told in read(one * 3) if isinstance(told, Missed)]
    assert sum(len(told.numbers) for told in found) == limits.WEBRTC_NACK_NUMBERS


def test_lost_pictures_by_either_message() -> None:
    pli = bytes(RtcpPsfbPacket(fmt=1, ssrc=1, media_ssrc=OURS))
    assert list(read(pli + fir(OURS, 2))) == [
        PictureLost(OURS, "pli"),
        PictureLost(OURS, "fir"),
        PictureLost(2, "fir"),
    ]


def test_what_is_of_no_use_passes() -> None:
    remb = bytes(RtcpPsfbPacket(fmt=15, ssrc=1, media_ssrc=0, fci=b"REMB" + bytes(8)))
    wide = struct.pack(">BBHII", 0x8F, 205, 2, 1, OURS)
    report = struct.pack(">BBHI", 0x80, 207, 1, 1)
    goodbye = bytes(RtcpByePacket([1]))
    padded = struct.pack(">BBHIII", 0xA1, 206, 3, 1, OURS, 4)
    assert list(read(remb + wide + report + goodbye + padded)) == [PictureLost(OURS, "pli")]


@pytest.mark.parametrize(
    "packet",
    [
        b"\x81",
        b"\x01\xce\x00\x02" + bytes(8),
        b"\x81\xce\x00\x03" + bytes(8),
        b"\x81\xce\x00\x01" + bytes(4),
        b"\x81\xcd\x00\x01" + bytes(4),
        b"\x82\xc9\x00\x07" + bytes(28),
        b"\xa1\xce\x00\x02" + bytes(8),
        b"\xa1\xce\x00\x02" + bytes(7) + b"\x10",
    ],
)
def test_damage_is_named(packet: bytes) -> None:
    with pytest.raises(Damaged):
        list(read(packet))
    with pytest.raises(Damaged):
        list(read(bytes(RtcpRrPacket(1)) + packet))


@given(st.binary(max_size=200), st.sampled_from([b"", bytes(RtcpRrPacket(1, [INFO])), fir(OURS)]))
def test_any_bytes_are_read_or_damaged(garbage: bytes, before: bytes) -> None:
    try:
        list(read(before + garbage))
    except Damaged:
        return
