"""FLV core: one tag for one unit, in one piece of memory (Adobe FLV 10.1 annex E.4.1)."""

from gbgw.base.access_unit import AccessUnit

def tag(kind: int, timestamp: int, head: bytes, data: bytes | AccessUnit) -> bytes:
    """Return a tag with its PreviousTagSize, whose body is `head` and `data`; mux.flv.tag is its twin.

    timestamp: milliseconds, taken modulo 2^31. ValueError for a body above 2^24 - 1 bytes.
    """

def nal_tag(kind: int, timestamp: int, head: bytes, data: bytes | AccessUnit, is_h265: bool) -> bytes:
    """Return a tag whose body is `head` and the NAL units of an Annex B byte stream, each behind its length in 4 bytes.

    Bytes before the first start code, trailing zeros, empty NAL units and parameter sets of H.265 are left out
    (ISO/IEC 14496-15 sections 5.2.3 and 8.4.1); b"" where nothing remains. ValueError as in `tag`.
    """
