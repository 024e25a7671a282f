"""gbgw/_flv: the tags equal those of the slow twins, whatever the bytes are."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gbgw import _flv
from gbgw._ps import AccessUnit
from gbgw.base.codec import H264, H265
from gbgw.mux import flv, fragment

TIMES = st.integers(0, 1 << 40)
ANNEX_B = st.lists(
    st.one_of(
        st.sampled_from([b"\0", b"\0\0\1", b"\0\0\0\1", b"\0\0\1\x40\1", b"\0\0\1\x26\1", b"\0\0\1\x44\1"]),
        st.binary(max_size=8),
    ),
    max_size=150,
).map(b"".join)


@given(kind=st.integers(0, 255), timestamp=TIMES, head=st.binary(max_size=9), data=st.binary(max_size=300))
def test_a_tag_equals_its_twin(kind: int, timestamp: int, head: bytes, data: bytes) -> None:
    assert _flv.tag(kind, timestamp, head, data) == flv.tag(kind, timestamp, head + data)


@given(data=ANNEX_B, timestamp=TIMES, is_h265=st.booleans())
@example(data=b"\0\0\1\x65" * 200, timestamp=0, is_h265=False)  # more NAL units than are remembered
@example(data=b"\0\0\0\1\x65\0\0\0" * 65, timestamp=0, is_h265=False)
@example(data=b"\0\0\1\x40", timestamp=0, is_h265=True)  # half a header
@example(data=b"\0\0\1\x26\1" * 64 + b"\0\0\1\x40\1" * 3, timestamp=0, is_h265=True)
def test_nal_units_stand_behind_their_lengths(data: bytes, timestamp: int, is_h265: bool) -> None:
    codec = H265 if is_h265 else H264
    unit = AccessUnit(data, codec, 0)
    sample = fragment.length_prefixed(unit, codec)
    expected = flv.tag(9, timestamp, b"head" + sample) if sample else b""
    assert _flv.nal_tag(9, timestamp, b"head", data, is_h265) == expected
    assert _flv.nal_tag(9, timestamp, b"head", unit, is_h265) == expected


def test_a_body_has_24_bits_of_length() -> None:
    data = bytes(0xFFFFFF)
    assert len(_flv.tag(8, 0, b"", data)) == 11 + 0xFFFFFF + 4
    with pytest.raises(ValueError, match="16777216 bytes"):
        _flv.tag(8, 0, b"x", data)
    with pytest.raises(ValueError, match="byte"):
        _flv.tag(256, 0, b"", b"")
