"""Fuzz target for gbgw/serve/feedback: any bytes as a compound RTCP packet of a viewer."""

from gbgw.base import limits
from gbgw.serve import feedback


def read(data: bytes) -> tuple[list[feedback.Feedback], bool]:
    """What it says, and whether it is damaged behind that."""
    found: list[feedback.Feedback] = []
    try:
        for one in feedback.read(data):
            found.append(one)
    except feedback.Damaged:
        return found, True
    return found, False


def check(data: bytes) -> None:
    """Values in their ranges, names bounded, and no more of them than the packet can hold."""
    found, is_damaged = read(data)
    numbers = 0
    for one in found:
        assert 0 <= one.ssrc < 1 << 32
        if isinstance(one, feedback.ReceptionReport):
            assert 0 <= one.fraction < 1
            assert -(1 << 23) <= one.lost < 1 << 23
        elif isinstance(one, feedback.Missed):
            assert all(0 <= number < 1 << 16 for number in one.numbers)
            numbers += len(one.numbers)
    assert numbers <= limits.WEBRTC_NACK_NUMBERS
    assert 8 * len(found) <= len(data)
    if not is_damaged:
        again, still_whole = read(data + data)
        assert not still_whole
        assert again[: len(found)] == found
