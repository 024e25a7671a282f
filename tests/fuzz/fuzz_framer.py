"""Fuzz target for RFC 4571 framing in gbgw/_rtp: the model's frames, at any cut."""

from gbgw import _rtp
from tests.model import rtp_model


def check(data: bytes) -> None:
    """Read the input as a TCP stream."""
    core, model = _rtp.Framer(5), rtp_model.Framer(5)
    framed = list(core.push(data))
    assert framed == list(model.push(data))
    assert core.counts == model.counts
    for size in (1, 7) if len(data) < 4_096 else (97, 1_400):
        slow = _rtp.Framer(5)
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        assert [one for piece in pieces for one in slow.push(piece)] == framed
        assert slow.counts == core.counts
        assert slow.buffered == core.buffered <= 131_072
    assert sum(map(len, framed)) + 2 * len(framed) + core.buffered <= len(data)
