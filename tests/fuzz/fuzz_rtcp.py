"""Fuzz target for RTCP of gbgw/_rtp: what is believed of a compound packet is what its model believes."""

from gbgw import _rtp
from tests.model import rtp_model


def check(data: bytes) -> None:
    """Read the input as one datagram."""
    found, expected = _rtp.parse_rtcp(data), rtp_model.parse_rtcp(data)
    assert _rtp.is_rtcp(data) == rtp_model.is_rtcp(data)
    assert len(found) == len(expected)
    assert 4 * len(found) <= len(data)
    for one, twin in zip(found, expected, strict=True):
        assert one.ssrc == twin.ssrc
        if isinstance(one, _rtp.SenderReport):
            assert isinstance(twin, rtp_model.SenderReport)
            assert (one.ntp, one.timestamp, one.packet_count, one.octet_count) == (
                *(twin.ntp, twin.timestamp),
                *(twin.packet_count, twin.octet_count),
            )
        else:
            assert isinstance(twin, rtp_model.Goodbye)
    if found:
        assert not _rtp.parse_rtcp(data[:-1])
        assert len(_rtp.parse_rtcp(data * 2)) == 2 * len(found)
    packet = _rtp.parse(data)
    assert packet is None or not _rtp.is_rtcp(data)
    assert (packet is None) == (rtp_model.parse(data) is None)
