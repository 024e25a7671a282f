"""Fuzz target for the JitterBuffer of gbgw/_rtp: order, bounds and statistics are its model's."""

from gbgw import _rtp
from tests.model import rtp_model


def check(data: bytes) -> None:
    """Read the input as a network: one byte of delay, one of length, a datagram."""
    buffer = _rtp.JitterBuffer(max_packets=16, max_bytes=4096)
    twin = rtp_model.JitterBuffer(max_packets=16, max_bytes=4096)
    at, now = 0, 0.0
    while at + 2 <= len(data):
        now += data[at] / 256
        datagram = data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + data[at + 1]
        got, expected = buffer.push(datagram, now), twin.push(datagram, now)
        assert [(one.extended_sequence_number, one.lost_before, one.payload) for one in got] == [
            (one.extended_sequence_number, one.lost_before, one.payload) for one in expected
        ]
        assert buffer.counts == twin.counts
        assert buffer.receiver_report(1, now) == twin.receiver_report(1, now)
        assert buffer.depth <= 16
        assert buffer.buffered <= 4096
    assert len(buffer.flush()) == len(twin.flush())
