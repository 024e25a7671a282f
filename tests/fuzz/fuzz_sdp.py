"""Fuzz target for gbgw/gb/sdp: any bytes as an offer and as the answer to each of ours."""

from gbgw.base.errors import SdpError
from gbgw.gb import sdp

PLATFORM = "34020000002000000001"
OFFERS = tuple(
    sdp.live_offer(PLATFORM, "198.51.100.5", 30000, transport, "0200000001")
    for transport in ("udp", "tcp-passive", "tcp-active")
)


def check(data: bytes) -> None:
    """Every reader gives a usable value or SdpError; what was read can be written and means the same when read
    again."""
    try:
        description = sdp.parse(data)
    except SdpError:
        description = None
    if description is not None:
        assert description.media
        try:
            text = description.serialize()
        except ValueError:
            text = b""  # a control character inside a line
        if text:
            assert sdp.parse(text).serialize() == text
    for offer in OFFERS:
        try:
            answer = sdp.read_answer(data, offer)
        except SdpError:
            continue
        assert 0 < answer.port <= 65_535
        assert answer.payload_types
        assert answer.ssrc is None or 0 < answer.ssrc < 1 << 32
        assert (answer.setup is None) == (answer.transport == "udp")
    try:
        wanted = sdp.read_offer(data)
    except SdpError:
        return
    ours = sdp.live_answer(wanted, "34020000001320000001", "192.0.2.10", 9, ssrc="0200000001").serialize()
    assert sdp.parse(ours).ssrc == 200000001
