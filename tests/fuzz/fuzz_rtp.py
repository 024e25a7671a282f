"""Fuzz target for gbgw/_rtp: `python tests/fuzz/fuzz_rtp.py tests/fuzz/corpus/rtp` under atheris.

test_corpus.py replays the corpus without it.
"""

import sys

from gbgw import _rtp
from tests.model import rtp_model


def check(data: bytes) -> None:
    """Hold the core against its model, and whole input against byte by byte; nothing may raise."""
    core, model = _rtp.Framer(5), rtp_model.Framer(5)
    framed = list(core.push(data))
    assert framed == list(model.push(data))
    assert core.counts == model.counts
    slow = _rtp.Framer(5)
    assert [one for byte in data for one in slow.push(bytes([byte]))] == framed
    assert slow.buffered == core.buffered <= 131072

    # The same bytes as a network: one byte of delay, one of length, a datagram.
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
        assert len(_rtp.parse_rtcp(datagram)) == len(rtp_model.parse_rtcp(datagram))
    assert len(buffer.flush()) == len(twin.flush())


if __name__ == "__main__":
    import atheris  # type: ignore[import-untyped]  # not a dependency: an outsider's tool, installed where one fuzzes

    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
