"""Fuzz target for parameter sets in gbgw/media/params: any bytes as Annex B and as one kind of NAL unit, by length."""

import re

from gbgw.base import limits
from gbgw.base.codec import H264, H265
from gbgw.media import params

RFC6381 = re.compile(r"avc1\.[0-9a-f]{6}|hvc1\.[ABC]?\d{1,2}\.[0-9A-F]{1,8}\.[LH]\d{1,3}(\.[0-9A-F]{1,2}){0,6}")
HEADS = (b"", b"\x67", b"\x42\x01", b"\x40\x01", b"\x68", b"\x44\x01")


def check(data: bytes) -> None:
    """Every answer is None or within what its docstring says; a view and its bytes are read alike."""
    units = list(params.nal_units(data))
    assert len(units) <= limits.NAL_UNITS
    if len(units) < limits.NAL_UNITS:
        pieces = data.split(b"\0\0\1")[1:]
        assert [bytes(unit) for unit in units] == [piece.rstrip(b"\0") for piece in pieces if piece.rstrip(b"\0")]
    for unit in units:
        judge(unit)
    judge(memoryview(HEADS[len(data) % len(HEADS)] + data))


def judge(nal: memoryview) -> None:
    raw = params.unescape(nal)
    assert len(raw) <= len(nal)
    assert b"\0\0\3" not in bytes(nal) or len(raw) < len(nal)
    for codec in (H264, H265):
        sps = params.parse_sps(codec, nal)
        assert sps == params.parse_sps(codec, bytes(nal))
        if sps is not None:
            assert 0 <= sps.sps_id <= 31
            assert 1 <= sps.width <= 16_384
            assert 1 <= sps.height <= 16_384
            assert sps.reorder_depth is None or 0 <= sps.reorder_depth <= 16
            assert sps.frame_rate is None or 0.1 <= sps.frame_rate <= 1_000
            assert RFC6381.fullmatch(sps.rfc6381), sps.rfc6381
            assert params.parameter_set_key(codec, nal) is not None
        key = params.parameter_set_key(codec, nal)
        if key is not None:
            assert key[0] in ((7, 8) if codec is H264 else (32, 33, 34))
            assert 0 <= key[1] <= 255
    vps = params.parse_h265_vps(nal)
    if vps is not None:
        assert 0 <= vps.vps_id <= 15
        assert RFC6381.fullmatch(vps.profile.rfc6381), vps.profile.rfc6381
