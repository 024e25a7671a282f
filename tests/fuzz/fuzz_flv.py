"""Fuzz target for gbgw/_flv: tags of any bytes are those of their slow twin.

Input: one byte whose bit 0 says H.265, bits 1 to 4 how long the head is; four of time stamp; the unit in Annex B.
"""

from gbgw import _flv
from gbgw.mux import flv

HEAD = bytes(range(16))
H265_SETS = range(32, 35)


def nal_units(data: bytes) -> list[bytes]:
    """By the plainest reading of Annex B."""
    return [one for part in data.split(b"\0\0\1")[1:] if (one := part.rstrip(b"\0"))]


def is_set(nal: bytes) -> bool:
    """Less than two bytes are no header (H.265 section 7.3.1.2)."""
    return len(nal) >= 2 and nal[0] >> 1 & 0x3F in H265_SETS


def check(data: bytes) -> None:
    """A tag of the bytes as they are, and one of the NAL units in them."""
    first = data[0] if data else 0
    is_h265, head = bool(first & 1), HEAD[: first >> 1 & 15]
    timestamp, unit = int.from_bytes(data[1:5], "big"), data[5:]
    assert _flv.tag(9, timestamp, head, unit) == flv.tag(9, timestamp, head + unit)
    kept = [nal for nal in nal_units(unit) if not (is_h265 and is_set(nal))]
    body = b"".join(len(nal).to_bytes(4, "big") + nal for nal in kept)
    expected = flv.tag(9, timestamp, head + body) if kept else b""
    assert _flv.nal_tag(9, timestamp, head, unit, is_h265) == expected
