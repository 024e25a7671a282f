"""Fuzz target for gbgw/serve/payloads: what a viewer puts together is what was cut (RFC 6184), and no sound is lost."""

from gbgw._webrtc import Payloads
from gbgw.base import limits
from gbgw.media import params
from gbgw.serve import payloads

STAP_A, FU_A = 24, 28


def put_together(pieces: list[bytes]) -> list[bytes]:
    """NAL units of the payloads of one picture (RFC 6184 sections 5.6 to 5.8)."""
    found: list[bytes] = []
    fragments: bytearray | None = None
    for piece in pieces:
        kind = piece[0] & 0x1F
        if kind == FU_A:
            if piece[1] & 0x80:
                assert fragments is None
                fragments = bytearray((piece[0] & 0xE0 | piece[1] & 0x1F,))
            assert fragments is not None
            assert piece[0] & 0xE0 == fragments[0] & 0xE0
            assert piece[1] & 0x1F == fragments[0] & 0x1F
            assert not piece[1] & 0x20
            fragments += piece[2:]
            if piece[1] & 0x40:
                assert not piece[1] & 0x80
                found.append(bytes(fragments))
                fragments = None
            continue
        assert fragments is None
        if kind == STAP_A:
            at = 1
            while at < len(piece):
                length = int.from_bytes(piece[at : at + 2], "big")
                found.append(piece[at + 2 : at + 2 + length])
                at += 2 + length
            assert at == len(piece)
        else:
            found.append(piece)
    assert fragments is None
    return found


def check(data: bytes) -> None:
    """Read the input as a picture, and as sound."""
    nals = [bytes(nal) for nal in params.nal_units(data)]
    pieces = payloads.h264(nals)
    assert all(0 < len(piece) <= limits.RTP_PAYLOAD_BYTES for piece in pieces)
    wanted = [nal for nal in nals if 0 < nal[0] & 0x1F < STAP_A and nal[0] & 0x1F not in (9, 10, 11, 12)]
    assert put_together(pieces) == wanted
    assert list(Payloads(pieces)) == pieces
    samples = payloads.pieces(data)
    assert b"".join(samples) == data
    assert all(0 < len(piece) <= limits.RTP_SOUND_SAMPLES for piece in samples)
    assert not samples or max(map(len, samples)) - min(map(len, samples)) < len(samples)
