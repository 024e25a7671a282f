"""Fuzz target for gbgw/serve/offer: any bytes as a browser's offer and as its candidates."""

import ipaddress
import re

from aiortc.sdp import SessionDescription, candidate_from_sdp

from gbgw.base import limits
from gbgw.base.errors import RequestError
from gbgw.serve import offer as sdp


def check(data: bytes) -> None:
    """RequestError, or something that aiortc reads as it was meant and a player can match with its offer."""
    text = data.decode(errors="replace")
    ufrag, _, found = sdp.fragment(text)
    assert len(found) <= limits.WHEP_CANDIDATES
    assert "\n" not in ufrag
    for candidate in found:
        ipaddress.ip_address(candidate.host)
        assert candidate_from_sdp(sdp.write_candidate(candidate)).port == candidate.port
    try:
        offer = sdp.parse(text)
        served = sdp.choose(offer, profile=100, law="PCMA")
    except RequestError:
        return
    assert 1 <= len(served) <= 2
    plain = SessionDescription.parse(sdp.plain(offer, served))
    assert [media.rtp.muxId for media in plain.media] == [one.line.mid for one in served]
    for media in plain.media:
        assert media.ice is not None
        assert media.dtls is not None
        assert media.ice.usernameFragment
        assert media.ice.password
        assert media.dtls.fingerprints
        assert len(media.ice_candidates) <= limits.WHEP_CANDIDATES
    for one in served:
        assert 0 <= one.format.payload_type < 128
    sections = "".join(f"m={one.line.kind} 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:{one.line.mid}\r\n" for one in served)
    answer = sdp.answer(offer, served, "v=0\r\na=group:BUNDLE x\r\n" + sections)
    lines = re.findall(r"(?m)^m=([a-z]+) (\d+) ", answer)
    assert [kind for kind, _ in lines] == [line.kind for line in offer.lines]
    assert sum(1 for _, port in lines if port != "0") == len(served)
