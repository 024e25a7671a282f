"""gbgw/net/diagnosis: every cause code that sockets decide, with what was seen and what to try."""

from dataclasses import replace
from typing import Any

import pytest

from gbgw.net.diagnosis import Payload, Seen, diagnose, guess_payload
from gbgw.net.media import NetworkFacts

NOTHING = Seen(
    steps={},
    rtp={"rtp.received": 0, "rtp.lost": 0, "rtp.wrong_ssrc": 0, "rtp.malformed": 0},
    quiet_seconds=0.0,
    samples=(),
    video=(),
    audio=(),
    ssrc=None,
    expected_ssrc=200000001,
    goodbye=False,
    units=0,
)
UDP = NetworkFacts(
    transport="udp",
    port=30000,
    source=None,
    connections=0,
    connected=False,
    head=b"",
    frames=0,
    garbage_bytes=0,
    wrong_source=0,
    malformed=0,
    refused_from=None,
    error="",
    target=None,
)
PASSIVE = replace(UDP, transport="tcp-passive")
ACTIVE = replace(UDP, transport="tcp-active", target=("192.0.2.9", 15060))
ALL = {"first_packet": 1.0, "first_pack": 1.0, "first_map": 1.0, "parameter_sets": 1.0, "first_keyframe": 1.0}


def reached(*names: str, **changes: Any) -> Seen:
    return replace(NOTHING, steps=dict.fromkeys(names, 1.0), **changes)


@pytest.mark.parametrize(
    ("network", "code", "words"),
    [
        (UDP, "no_media", "media port 30000"),
        (replace(UDP, malformed=4), "not_rtp", "not RTP"),
        (replace(UDP, wrong_source=3, refused_from=("192.0.2.66", 9)), "wrong_source", "192.0.2.66"),
        (PASSIVE, "no_media", "did not connect to media port 30000"),
        (replace(PASSIVE, connections=1, connected=True), "no_media", "sends nothing"),
        (replace(PASSIVE, connections=1), "no_media", "closed the media connection"),
        (replace(PASSIVE, connections=1, head=b"\x16\x03\x01\x02", garbage_bytes=500), "encrypted", "TLS"),
        (replace(PASSIVE, connections=1, head=b"HTTP", garbage_bytes=500), "not_rtp", "500 bytes"),
        (ACTIVE, "no_media", "no connection"),
        (replace(ACTIVE, error="cannot connect to 192.0.2.9:15060: no answer"), "no_media", "192.0.2.9:15060"),
    ],
)
def test_nothing_arrived(network: NetworkFacts, code: str, words: str) -> None:
    found = diagnose(NOTHING, network)
    assert found.code == code
    assert words in found.message
    assert found.remedy


def test_without_sockets() -> None:
    assert diagnose(NOTHING).code == "no_media"
    assert diagnose(replace(NOTHING, rtp=NOTHING.rtp | {"rtp.malformed": 1})).code == "not_rtp"


def test_wrong_ssrc_names_the_expected_one() -> None:
    found = diagnose(replace(NOTHING, rtp=NOTHING.rtp | {"rtp.wrong_ssrc": 9}), UDP)
    assert (found.code, "200000001" in found.message) == ("wrong_ssrc", True)


def test_a_stranger_that_holds_the_port_is_named() -> None:
    seen = reached("first_packet", rtp=NOTHING.rtp | {"rtp.received": 2})
    network = replace(UDP, source=("192.0.2.66", 9), wrong_source=50, refused_from=("192.0.2.7", 5))
    found = diagnose(seen, network)
    assert found.code == "wrong_source"
    assert "192.0.2.66" in found.message
    assert "192.0.2.7" in found.message
    assert diagnose(seen, replace(network, wrong_source=1)).code == "not_program_stream"


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (reached("first_packet", quiet_seconds=9.0), "media_stopped"),
        (reached("first_packet", quiet_seconds=3.0, goodbye=True), "media_stopped"),
        (reached("first_packet", quiet_seconds=3.0), "not_program_stream"),
        (reached("first_packet", "first_pack", video=(("SVAC", False),)), "codec_unsupported"),
        (reached("first_packet", "first_pack", video=(("SVAC", False), ("H264", True))), "no_parameter_sets"),
        (reached("first_packet", "first_pack", "parameter_sets", video=(("H264", True),)), "no_key_frame"),
        (reached(*ALL), "no_parameter_sets"),
        (reached(*ALL, "published"), "ok"),
        (reached(*ALL, "published", quiet_seconds=5.0), "media_stopped"),
    ],
)
def test_where_it_got_stuck(seen: Seen, code: str) -> None:
    assert diagnose(seen, UDP).code == code


def test_loss_recommends_tcp() -> None:
    seen = reached("first_packet", "first_pack", "parameter_sets", rtp=NOTHING.rtp | {"rtp.lost": 40})
    assert "use TCP" in diagnose(seen, UDP).remedy


def test_a_guess_needs_agreement() -> None:
    h264 = Payload(96, b"\x7c\x85\x88\x84", 1400)
    noise = Payload(96, b"\xfe\xff", 1400)
    assert guess_payload([]) == ""
    assert guess_payload([noise] * 5 + [h264] * 2) == ""
    assert guess_payload([noise] * 5 + [h264] * 3).startswith("H.264")
    assert guess_payload([h264]).startswith("H.264")
    assert guess_payload([Payload(96, b"\0\0\1\xe0\0\0", 1400)] * 3) == ""
    assert guess_payload([Payload(96, b"", 0), Payload(96, b"x", 1)]) == ""
