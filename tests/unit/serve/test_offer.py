"""Offers as the players of this world make them: what is served of each, and what aiortc and the player are told."""

import re

import pytest
from aiortc.sdp import SessionDescription

from gbgw.base import limits
from gbgw.base.errors import RequestError
from gbgw.serve import offer as sdp

ICE = ("a=ice-ufrag:abcd", "a=ice-pwd:" + "p" * 24)
PRINT = "a=fingerprint:sha-256 " + ":".join(["AB"] * 32)
SECURE = (*ICE, PRINT, "a=setup:actpass", "a=rtcp-mux")
BASELINE, MAIN, HIGH = 66, 77, 100


def offer(*sections: tuple[str, ...], session: tuple[str, ...] = ()) -> str:
    rows = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", *session]
    return "\r\n".join([*rows, *(row for section in sections for row in section)]) + "\r\n"


def video(
    *formats: str, mid: str = "0", types: str = "96 97 98 99", secure: tuple[str, ...] = SECURE
) -> tuple[str, ...]:
    return (
        f"m=video 9 UDP/TLS/RTP/SAVPF {types}",
        "c=IN IP4 0.0.0.0",
        f"a=mid:{mid}",
        "a=recvonly",
        *secure,
        *formats,
    )


def audio(*formats: str, mid: str = "1", types: str = "111 0 8", secure: tuple[str, ...] = SECURE) -> tuple[str, ...]:
    return (
        f"m=audio 9 UDP/TLS/RTP/SAVPF {types}",
        "c=IN IP4 0.0.0.0",
        f"a=mid:{mid}",
        "a=recvonly",
        *secure,
        *formats,
    )


def h264(number: int, level: str = "42e01f", mode: str = "1", repair: int | None = None) -> tuple[str, ...]:
    rows: tuple[str, ...] = (
        f"a=rtpmap:{number} H264/90000",
        f"a=rtcp-fb:{number} nack",
        f"a=rtcp-fb:{number} nack pli",
        f"a=rtcp-fb:{number} transport-cc",
        f"a=fmtp:{number} level-asymmetry-allowed=1;packetization-mode={mode};profile-level-id={level}",
    )
    return rows if repair is None else (*rows, f"a=rtpmap:{repair} rtx/90000", f"a=fmtp:{repair} apt={number}")


OPUS = ("a=rtpmap:111 opus/48000/2", "a=fmtp:111 minptime=10;useinbandfec=1")
BUNDLE = ("a=group:BUNDLE 0 1",)

CHROMIUM = offer(
    video(
        "a=extmap:1 urn:ietf:params:rtp-hdrext:toffset",
        f"a=extmap:2 {sdp.SEND_TIME_EXTENSION}",
        f"a=extmap:9 {sdp.MID_EXTENSION}",
        "a=rtcp-rsize",
        "a=rtpmap:96 VP8/90000",
        *h264(103, "42001f", repair=104),
        *h264(107, "42001f", "0"),
        *h264(109, repair=114),
        *h264(39, "4d001f", repair=40),
        *h264(112, "64001f"),
        "a=rtpmap:35 AV1/90000",
        types="96 103 104 107 109 114 39 40 112 35",
    ),
    audio(*OPUS, "a=rtpmap:0 PCMU/8000", "a=rtpmap:8 PCMA/8000"),
    session=(*BUNDLE, "a=extmap-allow-mixed", "a=msid-semantic: WMS"),
)
FIREFOX = offer(  # credentials of the session, candidates for RTCP too, stereo opus, H.264 twice
    audio(
        *OPUS, "a=rtpmap:0 PCMU/8000", "a=rtpmap:8 PCMA/8000", mid="0", secure=(*ICE, "a=setup:actpass", "a=rtcp-mux")
    ),
    video(
        *h264(126, repair=127),
        *h264(97, mode="0"),
        types="126 127 97",
        mid="1",
        secure=(
            *ICE,
            "a=setup:actpass",
            "a=rtcp-mux",
            "a=candidate:0 1 UDP 2122252543 192.0.2.9 50000 typ host",
            "a=candidate:0 2 UDP 2122252542 192.0.2.9 50001 typ host",
            "a=candidate:1 1 TCP 2105524479 192.0.2.9 9 typ host tcptype active",
            "a=end-of-candidates",
        ),
    ),
    session=(PRINT, *BUNDLE, "a=ice-options:trickle"),
)
SAFARI = offer(
    video(*h264(96, "640c1f", repair=97), *h264(98, repair=99), *h264(100, "640c1f", "0"), types="96 97 98 99 100"),
    audio(*OPUS, "a=rtpmap:8 PCMA/8000", "a=rtpmap:0 PCMU/8000"),
    session=BUNDLE,
)
GSTREAMER = offer(  # no fmtp, no direction on audio, PCMA named dynamic
    video("a=rtpmap:96 H264/90000", "a=rtcp-fb:96 nack pli", types="96"),
    tuple(row for row in audio("a=rtpmap:97 PCMA/8000", types="97") if row != "a=recvonly"),
    session=BUNDLE,
)
PION = offer(  # ICE lite, passive, one transport each
    video(*h264(102, "42001f"), types="102", secure=(*ICE, PRINT, "a=setup:passive", "a=rtcp-mux")),
    audio(
        "a=rtpmap:8 PCMA/8000", types="8", secure=("a=ice-ufrag:efgh", *ICE[1:], PRINT, "a=setup:active", "a=rtcp-mux")
    ),
    session=("a=ice-lite",),
)
BUNDLE_ONLY = offer(
    video(*h264(96)),
    tuple(row.replace(" 9 ", " 0 ") for row in audio("a=bundle-only", "a=rtpmap:8 PCMA/8000", secure=())),
    session=BUNDLE,
)
DATA_FIRST = offer(
    ("m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "a=mid:d", "a=sctp-port:5000", *SECURE),
    video("a=rtpmap:96 VP8/90000", mid="v8", secure=()),
    video(*h264(96), secure=()),
    audio("a=rtpmap:8 PCMA/8000", secure=()),
    audio("a=rtpmap:8 PCMA/8000", mid="2"),
    session=("a=group:BUNDLE d v8 0 1 2",),
)


def served(text: str, profile: int | None = HIGH, law: sdp.Law = "PCMA") -> list[tuple[str, str, int, int | None]]:
    read = sdp.parse(text)
    found = sdp.choose(read, profile=profile, law=law)
    return [(one.line.kind, one.line.mid, one.format.payload_type, one.format.repair) for one in found]


@pytest.mark.parametrize(
    ("text", "profile", "wanted"),
    [
        (CHROMIUM, HIGH, [("video", "0", 112, None), ("audio", "1", 8, None)]),
        (CHROMIUM, MAIN, [("video", "0", 39, 40), ("audio", "1", 8, None)]),
        (CHROMIUM, BASELINE, [("video", "0", 109, 114), ("audio", "1", 8, None)]),
        (CHROMIUM, None, [("video", "0", 109, 114), ("audio", "1", 8, None)]),
        (FIREFOX, HIGH, [("audio", "0", 8, None), ("video", "1", 126, 127)]),
        (SAFARI, HIGH, [("video", "0", 96, 97), ("audio", "1", 8, None)]),
        (SAFARI, MAIN, [("video", "0", 98, 99), ("audio", "1", 8, None)]),
        (GSTREAMER, HIGH, [("video", "0", 96, None), ("audio", "1", 97, None)]),
        (PION, HIGH, [("video", "0", 102, None), ("audio", "1", 8, None)]),
        (BUNDLE_ONLY, HIGH, [("video", "0", 96, None), ("audio", "1", 8, None)]),
        (DATA_FIRST, HIGH, [("video", "0", 96, None), ("audio", "1", 8, None)]),
        (offer(audio("a=rtpmap:0 PCMU/8000", types="0")), HIGH, [("audio", "1", 0, None)]),
        (offer(audio(*OPUS, types="111 8")), HIGH, [("audio", "1", 8, None)]),  # static, without rtpmap
        (offer(audio(*OPUS), video(*h264(96))), HIGH, [("audio", "1", 8, None), ("video", "0", 96, None)]),
    ],
)
def test_what_is_served(text: str, profile: int | None, wanted: list[tuple[str, str, int, int | None]]) -> None:
    assert served(text, profile) == wanted


ALL = [CHROMIUM, FIREFOX, SAFARI, GSTREAMER, PION, BUNDLE_ONLY, DATA_FIRST]


@pytest.mark.parametrize("text", ALL)
def test_aiortc_can_read_what_it_is_given(text: str) -> None:
    read = sdp.parse(text)
    chosen = sdp.choose(read, profile=HIGH, law="PCMA")
    plain = SessionDescription.parse(sdp.plain(read, chosen))
    assert [media.kind for media in plain.media] == [one.line.kind for one in chosen]
    for media, one in zip(plain.media, chosen, strict=True):
        assert media.rtp.muxId == one.line.mid
        assert media.ice is not None
        assert media.dtls is not None
        assert (media.ice.usernameFragment, media.ice.password) == (one.transport.ufrag, one.transport.password)
        assert [found.algorithm for found in media.dtls.fingerprints] == ["sha-256"]
        assert media.rtcp_mux
        assert media.direction == "recvonly"
        assert all(found.component == 1 and found.protocol == "udp" for found in media.ice_candidates)
    assert ("a=ice-lite" in str(plain)) == (text is PION)
    assert bool(plain.group) == ("BUNDLE" in text)


def test_firefox_candidates_are_one() -> None:
    read = sdp.parse(FIREFOX)
    plain = sdp.plain(read, sdp.choose(read, profile=HIGH, law="PCMA"))
    assert set(re.findall(r"a=candidate:(.*)\r", plain)) == {"0 1 udp 2122252543 192.0.2.9 50000 typ host"}
    assert "end-of-candidates" not in plain


def local(text: str) -> str:
    """What aiortc would answer, in short."""
    sections = re.split(r"(?m)^(?=m=)", text)[1:]
    rows = "v=0\r\no=- 2 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE x\r\na=msid-semantic:WMS *\r\n"
    for section in sections:
        kind = section[2:7]
        mid = re.search(r"a=mid:(\S+)", section)
        assert mid is not None
        rows += f"m={kind} 40000 UDP/TLS/RTP/SAVPF 96\r\na=sendonly\r\na=mid:{mid[1]}\r\na=ice-ufrag:zzzz\r\n"
    return rows


@pytest.mark.parametrize("text", ALL)
def test_the_answer_has_each_line_in_its_place(text: str) -> None:
    read = sdp.parse(text)
    chosen = sdp.choose(read, profile=HIGH, law="PCMA")
    answer = sdp.answer(read, chosen, local(sdp.plain(read, chosen)))
    wanted = [(line.kind, line.mid) for line in read.lines]
    sections = re.split(r"(?m)^(?=m=)", answer)[1:]
    mids = {one.line.mid for one in chosen}
    assert len(sections) == len(wanted)
    for section, (kind, mid) in zip(sections, wanted, strict=True):
        assert section.startswith(f"m={kind} {40000 if mid in mids else 0} ")
        assert f"a=mid:{mid}\r\n" in section
        assert ("a=inactive" in section) == (mid not in mids)
    group = re.search(r"a=group:BUNDLE ([^\r]+)", answer)
    assert (set(group[1].split()) if group else set()) == (mids if "BUNDLE" in text else set())


def test_a_line_without_a_mid_gets_none() -> None:
    text = offer(tuple(row for row in video(*h264(96)) if not row.startswith("a=mid")))
    read = sdp.parse(text)
    chosen = sdp.choose(read, profile=HIGH, law="PCMA")
    assert "a=mid" not in sdp.answer(read, chosen, local(sdp.plain(read, chosen)))


def test_the_answer_tells_the_offered_profile_and_feedback() -> None:
    read = sdp.parse(CHROMIUM)
    chosen = sdp.choose(read, profile=HIGH, law="PCMA")[0].format
    assert chosen.parameters == {
        "level-asymmetry-allowed": "1",
        "packetization-mode": "1",
        "profile-level-id": "64001f",
    }
    assert chosen.feedback == ("nack", "nack pli")
    bare = sdp.choose(sdp.parse(GSTREAMER), profile=HIGH, law="PCMA")[0].format
    assert bare.parameters == {}


@pytest.mark.parametrize(
    ("text", "status", "code", "words"),
    [
        (offer(video("a=rtpmap:96 VP8/90000")), 406, "no_codec_fits", "no codec"),
        (offer(video("a=rtpmap:96 VP8/90000"), audio()), 406, "no_codec_fits", "no codec"),
        (offer(video(*h264(96, mode="0"))), 406, "no_codec_fits", "single packets"),
        (offer(audio(*OPUS, types="111")), 406, "no_codec_fits", "no codec"),
        (offer(audio("a=rtpmap:8 PCMA/8000/2", types="8")), 406, "no_codec_fits", "no codec"),
        (offer(video(*h264(72), types="72")), 406, "no_codec_fits", "no codec"),
        (offer(video(*h264(200), types="200")), 406, "no_codec_fits", "no codec"),
        (offer(video("a=sendonly", *h264(96))), 406, "no_codec_fits", "no codec"),
        (offer(tuple(row.replace("video 9", "video 0") for row in video(*h264(96)))), 406, "no_codec_fits", "no codec"),
        (offer(video(*h264(96), secure=SECURE[2:])), 400, "sdp_offer_invalid", "ice-ufrag"),
        (offer(video(*h264(96), secure=(*ICE, *SECURE[3:]))), 400, "sdp_offer_invalid", "fingerprint"),
        (
            offer(video(*h264(96), secure=(*ICE, PRINT, "a=setup:holdconn", "a=rtcp-mux"))),
            400,
            "sdp_offer_invalid",
            "setup",
        ),
        (offer(video(*h264(96), secure=SECURE[:4])), 400, "sdp_offer_invalid", "rtcp-mux"),
        (offer(video(*h264(96)), video(*h264(96))), 400, "sdp_offer_invalid", "one mid"),
        ("v=0\r\n", 400, "sdp_offer_invalid", "no media line"),
        ("v=0\r\nm=video nine RTP/SAVPF 1\r\n", 400, "sdp_offer_invalid", "media line"),
        ("v=0\r\n" + "m=audio 9 RTP/SAVPF 0\r\n" * 33, 400, "sdp_offer_invalid", "too many"),
    ],
)
def test_what_is_refused_says_why(text: str, status: int, code: str, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        served(text)
    assert (caught.value.status, caught.value.code) == (status, code)
    assert words in caught.value.message


@pytest.mark.parametrize(
    "value",
    [
        "1 1 tcp 1 192.0.2.1 9 typ host tcptype active",
        "1 2 udp 1 192.0.2.1 9000 typ host",
        "1 1 udp 1 224.0.0.1 9000 typ host",
        "1 1 udp 1 0.0.0.0 9000 typ host",
        "1 1 udp 1 255.255.255.255 9 typ host",
        "1 1 udp 1 192.0.2.1 0 typ host",
        "1 1 udp 1 192.0.2.1 65536 typ host",
        "1 1 udp 4294967296 192.0.2.1 9 typ host",
        "1 1 udp 1 6b0c4b4e.local 9000 typ host",
        "1 1 udp 1 192.0.2.1 9000 typ prflx",
        "",
        "1 1 udp",
        "1 1 udp 1 ::g 9 typ host",
    ],
)
def test_candidates_of_no_use(value: str) -> None:
    assert sdp.parse_candidate(value) is None


def test_candidates_of_use() -> None:
    assert sdp.parse_candidate("1 1 UDP 5 192.0.2.1 9000 typ srflx raddr 10.0.0.1 rport 9") == (
        "1",
        5,
        "192.0.2.1",
        9000,
        "srflx",
    )
    assert sdp.parse_candidate("candidate:1 1 udp 5 2001:DB8::1 9000 typ host generation 0 ufrag abcd") == (
        "1",
        5,
        "2001:db8::1",
        9000,
        "host",
    )


def test_a_fragment() -> None:
    text = "a=ice-ufrag:abcd\r\na=mid:1\r\na=candidate:1 1 udp 5 192.0.2.1 9000 typ host\r\na=candidate:x\r\n"
    assert sdp.fragment(text) == ("abcd", "1", [("1", 5, "192.0.2.1", 9000, "host")])
    assert len(sdp.fragment(text + text * 100)[2]) == limits.WHEP_CANDIDATES


def test_the_largest_offers_take_little_time() -> None:
    """64 KiB of anything stays below the 5 ms that a call may keep the loop, ten times over for slow machines."""
    import time

    head = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF " + " ".join(str(number % 128) for number in range(128)) + "\r\n"
    body = "".join(
        f"a=rtpmap:{number} H264/90000\r\na=rtpmap:{number + 1} rtx/90000\r\n" for number in range(0, 128, 2)
    )
    lines = [
        "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n",
        "a=rtcp-fb:* nack\r\n",
        "a=fmtp:1 a=b;\r\n",
        "a=mid:x\r\n",
    ]
    for line in [*lines, "a=group:BUNDLE " + "a " * 100 + "\r\n", "a=candidate:" + "1 " * 200 + "\r\n", "a\r\n"]:
        text = (head + body + line * 20_000)[: limits.WHEP_SDP_BYTES]
        begin = time.perf_counter()
        try:
            read = sdp.parse(text)
            sdp.choose(read, profile=HIGH, law="PCMA")
        except RequestError:
            pass
        assert time.perf_counter() - begin < 0.05 * 2


def h265_line(number: int, parameters: str, repair: int = 0) -> tuple[str, ...]:
    rows = (f"a=rtpmap:{number} H265/90000", *((f"a=fmtp:{number} {parameters}",) if parameters else ()))
    return (*rows, f"a=rtpmap:{repair} rtx/90000", f"a=fmtp:{repair} apt={number}") if repair else rows


H265_CHROMIUM = offer(
    video(
        *h264(103, "42001f"),
        *h265_line(49, "level-id=180;profile-id=1;tier-flag=0;tx-mode=SRST", 50),
        *h265_line(51, "level-id=180;profile-id=2;tier-flag=0;tx-mode=SRST"),
        types="103 49 50 51",
    )
)


@pytest.mark.parametrize(
    ("text", "profile", "picked"),
    [
        (H265_CHROMIUM, 1, (49, 50)),
        (H265_CHROMIUM, 2, (51, None)),
        (H265_CHROMIUM, None, (49, 50)),
        (offer(video(*h265_line(98, "profile-id=2"), types="98")), 1, (98, None)),
        (offer(video(*h265_line(98, ""), types="98")), 1, (98, None)),
    ],
)
def test_h265_is_taken_by_the_profile(text: str, profile: int | None, picked: tuple[int, int | None]) -> None:
    (chosen,) = sdp.choose(sdp.parse(text), profile=profile, law="PCMA", video="H265")
    assert (chosen.format.payload_type, chosen.format.repair) == picked
    assert chosen.format.video == "H265"


def test_h265_is_answered_as_it_was_offered() -> None:
    (chosen,) = sdp.choose(sdp.parse(H265_CHROMIUM), profile=1, law="PCMA", video="H265")
    assert chosen.format.parameters == {"level-id": "180", "profile-id": "1", "tier-flag": "0", "tx-mode": "SRST"}
    (bare,) = sdp.choose(sdp.parse(offer(video(*h265_line(98, ""), types="98"))), profile=1, law="PCMA", video="H265")
    assert bare.format.parameters == {"level-id": "93", "profile-id": "1", "tier-flag": "0", "tx-mode": "SRST"}


@pytest.mark.parametrize(
    "text",
    [
        CHROMIUM,
        offer(video(*h265_line(98, "profile-id=2"), types="98")),
        offer(video(*h265_line(98, "profile-id=3;tx-mode=MRST"), types="98")),
        offer(video(*h265_line(98, "profile-id=3;level-id=1\x0b2"), types="98")),
    ],
)
def test_who_cannot_take_h265_is_told_what_to_ask_for(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        sdp.choose(sdp.parse(text), profile=3, law="PCMA", video="H265")
    assert (caught.value.status, caught.value.code) == (406, "no_codec_fits")
    assert "video=h264" in caught.value.remedy
