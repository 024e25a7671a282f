import re
from pathlib import Path
from typing import get_args

import pytest

from gbgw.base import codec, limits
from gbgw.base.errors import SdpError
from gbgw.gb import sdp

PLATFORM = "34020000002000000001"
CAMERA = "34020000001320000001"
OFFER = sdp.live_offer(PLATFORM, "198.51.100.5", 30000, "udp", "0200000001")
TCP_OFFER = sdp.live_offer(PLATFORM, "198.51.100.5", 30000, "tcp-passive", "0200000001")


def reply(*extra: str, media: str = "m=video 15060 RTP/AVP 96", connection: str = "c=IN IP4 192.0.2.10") -> bytes:
    lines = [f"o={CAMERA} 0 0 IN IP4 192.0.2.10", "v=0", "s=EmbeddedNetDVR", connection, "t=0 0", media, *extra]
    return "\r\n".join(lines).encode()


def test_udp_offer_is_exact() -> None:
    offer = sdp.live_offer(PLATFORM, "198.51.100.5", 30000, "udp", "0200000001", "ps+es")
    assert offer.serialize() == (
        b"v=0\r\no=34020000002000000001 0 0 IN IP4 198.51.100.5\r\ns=Play\r\nc=IN IP4 198.51.100.5\r\nt=0 0\r\n"
        b"m=video 30000 RTP/AVP 96 97 98\r\na=recvonly\r\na=rtpmap:96 PS/90000\r\na=rtpmap:97 MPEG4/90000\r\n"
        b"a=rtpmap:98 H264/90000\r\ny=0200000001\r\n"
    )


@pytest.mark.parametrize("role", ["passive", "active"])
def test_tcp_offer_is_exact(role: str) -> None:
    offer = sdp.live_offer(PLATFORM, "2001:db8::5", 30000, f"tcp-{role}", "0200000001")  # type: ignore[arg-type]
    assert offer.serialize().decode() == (
        "v=0\r\no=34020000002000000001 0 0 IN IP6 2001:db8::5\r\ns=Play\r\nc=IN IP6 2001:db8::5\r\nt=0 0\r\n"
        "m=video 30000 TCP/RTP/AVP 96\r\na=recvonly\r\na=rtpmap:96 PS/90000\r\n"
        f"a=setup:{role}\r\na=connection:new\r\ny=0200000001\r\n"
    )


def test_sub_stream_selector_and_profiles() -> None:
    offer = sdp.live_offer(PLATFORM, "192.0.2.1", 1, "udp", "0200000001", stream_attribute=("streamnumber", "1"))
    assert b"a=streamnumber:1\r\ny=" in offer.serialize()
    assert all(
        sdp.live_offer(PLATFORM, "192.0.2.1", 1, "udp", "0", profile).media[0].formats[0] == "96"
        for profile in get_args(sdp.Profile)
    )


def test_serialize_refuses_what_breaks_a_line() -> None:
    with pytest.raises(ValueError, match="control"):
        sdp.live_offer(PLATFORM, "192.0.2.1\r\ny=1", 1, "udp", "0200000001").serialize()


def test_answer() -> None:
    body = reply("a=sendonly", "a=rtpmap:96 PS/90000", "y=0200000001", "f=v/2/6/25/1/2048a/1/8/1")
    answer = sdp.read_answer(body, OFFER)
    assert answer == sdp.Answer(
        "192.0.2.10",
        15060,
        "udp",
        None,
        200000001,
        (sdp.PayloadType(96, "PS", 90000),),
        "v/2/6/25/1/2048a/1/8/1",
        CAMERA,
    )


@pytest.mark.parametrize("ending", ["\n", "\r", "\r\n", "\n\n"])
def test_line_ends_blanks_and_order(ending: str) -> None:
    body = ending.join(
        ["Y = 0200000001 ", "m=VIDEO 9 rtp/avp 96", " f= v/2", "c= IN IP4 192.0.2.10", "nonsense", "a=x"]
    ).encode()
    description = sdp.parse(b"\0" + body)
    assert description.ssrc == 200000001
    assert description.media[0].port == 9
    assert description.media_format == "v/2"
    assert sdp.read_answer(body, OFFER).address == "192.0.2.10"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0200000001", 200000001),
        ("100000001", 100000001),  # the leading zero lost
        ("00200000001", 200000001),
        ("0200000001\\n", 200000001),
        ("  0200000001  debris", 200000001),
        ("0000000000", None),
        ("", None),
        ("x", None),
        ("-5", None),
        ("4294967295", 4294967295),
        ("4294967296", None),
        ("9" * 30, None),
    ],
)
def test_ssrc_of_the_answer(text: str, value: int | None) -> None:
    assert sdp.read_ssrc(text) == value
    answer = sdp.read_answer(reply(f"y={text}"), OFFER)
    assert answer.ssrc == value
    expected = () if value == 200000001 else ("sdp.no_ssrc",) if value is None else ("sdp.other_ssrc",)
    assert answer.remarks == expected


def test_answer_without_y() -> None:
    assert sdp.read_answer(reply(), OFFER).remarks == ("sdp.no_ssrc",)


@pytest.mark.parametrize("body", [b"", b"\r\n", b"\0\0"])
def test_an_answer_without_description_agrees_to_what_was_offered(body: bytes) -> None:
    answer = sdp.read_answer(body, OFFER)
    assert (answer.transport, answer.setup, answer.ssrc, answer.address) == ("udp", None, None, "")
    assert [each.number for each in answer.payload_types] == [96]
    assert answer.remarks == ("sdp.no_description",)
    passive = sdp.live_offer("34020000002000000001", "192.0.2.1", 30000, "tcp-passive", "0200000001")
    assert (sdp.read_answer(body, passive).transport, sdp.read_answer(body, passive).setup) == ("tcp", "active")
    active = sdp.live_offer("34020000002000000001", "192.0.2.1", 9, "tcp-active", "0200000001")
    with pytest.raises(SdpError) as caught:  # there is nowhere to connect to
        sdp.read_answer(body, active)
    assert caught.value.code == "sdp_unusable"


@pytest.mark.parametrize(
    "connection", ["c=IN IP4 0.0.0.0", "c=IN IP4", "", "c=IN IP4 camera.local", "c=IN IP4 224.1.1.1/127"]
)
def test_addresses_that_are_none(connection: str) -> None:
    assert sdp.read_answer(reply(connection=connection), OFFER).address == ""


def test_media_level_address_wins() -> None:
    assert sdp.read_answer(reply("c=IN IP4 192.0.2.99/32"), OFFER).address == "192.0.2.99"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (reply(media="m=video 0 RTP/AVP 96"), "sdp_unusable"),
        (reply(media="m=video x RTP/AVP 96"), "sdp_unusable"),
        (reply(media="m=video 99999 RTP/AVP 96"), "sdp_unusable"),
        (reply(media="m=video"), "sdp_unusable"),
        (b"\xff" * 100, "sdp_unusable"),
        (reply("a=rtpmap:98 H264/90000", media="m=video 15060 RTP/AVP 98"), "not_program_stream"),
        (reply(media="m=video 15060 RTP/AVP"), "not_program_stream"),
        (reply(media="m=application 15060 RTP/AVP 96"), "not_program_stream"),
        (reply("a=setup:passive", media="m=video 15060 TCP/RTP/AVP 96"), "media_not_supported"),
        (b"m=video 1 RTP/AVP 96\n" * (2 * limits.SDP_LINES), "sdp_unusable"),
        (b"a" * (limits.SDP_BYTES + 1), "sdp_unusable"),
    ],
)
def test_unusable_answers(body: bytes, code: str) -> None:
    with pytest.raises(SdpError) as caught:
        sdp.read_answer(body, OFFER)
    assert caught.value.code == code


def test_the_second_media_line_may_be_the_usable_one() -> None:
    body = reply(
        "a=rtpmap:98 H264/90000", "m=video 16000 RTP/AVP 96", "a=rtpmap:96 PS/90000", media="m=video 15060 RTP/AVP 98"
    )
    assert sdp.read_answer(body, OFFER).port == 16000


@pytest.mark.parametrize("name", ["DAHUA", "hikvision"])
def test_vendor_names_in_rtpmap(name: str) -> None:
    answer = sdp.read_answer(reply(f"a=rtpmap:96 {name}/90000"), OFFER)
    assert answer.is_vendor_private


def test_the_rtpmap_decides_not_the_number() -> None:
    media = sdp.parse(
        reply("a=rtpmap:99 H265/90000", "a=rtpmap:100 PS/90000", media="m=video 1 RTP/AVP 99 100 8 x 999")
    ).media[0]
    assert [(each.number, each.codec, each.is_program_stream) for each in media.payload_types] == [
        (99, codec.H265, False),
        (100, None, True),
        (8, codec.PCMA, False),
    ]


@pytest.mark.parametrize(
    ("lines", "media", "remarks"),
    [
        (["a=setup:active"], "m=video 9 TCP/RTP/AVP 96", ()),
        (["a=setup:passive"], "m=video 9 TCP/RTP/AVP 96", ("sdp.setup_copied",)),
        ([], "m=video 9 tcp/rtp/avp 96", ("sdp.setup_copied",)),
        (["a=setup:active"], "m=video 9 RTP/AVP 96", ("sdp.protocol_not_tcp",)),
        ([], "m=video 9 RTP/AVP/TCP 96", ("sdp.setup_copied",)),
    ],
)
def test_tcp_roles(lines: list[str], media: str, remarks: tuple[str, ...]) -> None:
    answer = sdp.read_answer(reply(*lines, "y=0200000001", media=media), TCP_OFFER)
    assert (answer.transport, answer.setup, answer.remarks) == ("tcp", "active", remarks)


def test_udp_answer_to_a_tcp_offer() -> None:
    """It will send by UDP to the same port number (reference 6.6)."""
    answer = sdp.read_answer(reply(), TCP_OFFER)
    assert (answer.transport, answer.setup) == ("udp", None)
    assert "sdp.udp_answer" in answer.remarks


def test_tcp_answer_without_a_role_to_a_udp_offer() -> None:
    """Written whatever was offered: UDP follows, else the session says what the camera answered."""
    answer = sdp.read_answer(reply("y=0200000001", media="m=video 28793 TCP/RTP/AVP 96"), OFFER)
    assert (answer.transport, answer.setup, answer.port, answer.remarks) == ("udp", None, 28793, (sdp.TCP_ANSWER,))


@pytest.mark.parametrize("transport", get_args(sdp.Transport))
def test_device_role(transport: sdp.Transport) -> None:
    ours = sdp.live_offer(PLATFORM, "198.51.100.5", 30000, transport, "0200000001", "ps+es")
    offer = sdp.read_offer(ours.serialize())
    assert (offer.mode, offer.address, offer.port, offer.ssrc, offer.origin_id) == (
        "play",
        "198.51.100.5",
        30000,
        200000001,
        PLATFORM,
    )
    answer = sdp.read_answer(sdp.live_answer(offer, CAMERA, "192.0.2.10", 15060).serialize(), ours)
    assert answer.remarks == ()
    assert answer.setup == {"udp": None, "tcp-passive": "active", "tcp-active": "passive"}[transport]
    assert answer.payload_types == (sdp.PayloadType(96, "PS", 90000),)
    assert sdp.read_answer(sdp.live_answer(offer, CAMERA, "192.0.2.10", 15060, ssrc="").serialize(), ours).ssrc is None


def test_history_offer() -> None:
    body = b"v=0\ns=Playback\nu=x:3\nc=IN IP4 192.0.2.1\nt=3979066530 1770078330\nm=video 6000 RTP/AVP 96\n"
    offer = sdp.read_offer(body)
    assert (offer.mode, offer.start, offer.stop) == ("playback", 1770077730, 1770078330)


@pytest.mark.parametrize("body", [b"m=video 0 RTP/AVP 96\nc=IN IP4 192.0.2.1", b"m=video 5 RTP/AVP 96\n"])
def test_unusable_offers(body: bytes) -> None:
    with pytest.raises(SdpError):
        sdp.read_offer(body)


@pytest.mark.fixtures
def test_every_captured_description_is_read(fixtures_dir: Path) -> None:
    seen = 0
    for file in sorted((fixtures_dir / "sip").glob("*sdp*.sip")):
        head, _, body = file.read_bytes().partition(b"\r\n\r\n")
        port = re.search(rb"m=video (\d+)", body)
        ssrc = re.search(rb"y=(\d+)", body)
        assert port is not None
        assert ssrc is not None
        if head.startswith(b"INVITE"):
            offer = sdp.read_offer(body)
            assert (offer.port, offer.ssrc, offer.mode) == (int(port[1]), int(ssrc[1]), "play"), file.name
        else:
            answer = sdp.read_answer(body, OFFER)
            assert (answer.port, answer.ssrc) == (int(port[1]), int(ssrc[1])), file.name
            assert answer.payload_types[0].is_program_stream
        seen += 1
    assert seen >= 7


@pytest.mark.conformance(59)
def test_offers_for_recordings_are_exact() -> None:
    span = {"channel_id": "34020000001320000001", "start": 1_769_875_200, "stop": 1_769_961_599}
    offer = sdp.history_offer(PLATFORM, "192.0.2.1", 30_002, "udp", "1200000001", profile="ps+es", **span)  # type: ignore[arg-type]
    assert offer.serialize() == (
        b"v=0\r\no=34020000002000000001 0 0 IN IP4 192.0.2.1\r\ns=Playback\r\nu=34020000001320000001:0\r\n"
        b"c=IN IP4 192.0.2.1\r\nt=1769875200 1769961599\r\nm=video 30002 RTP/AVP 96 97 98\r\na=recvonly\r\n"
        b"a=rtpmap:96 PS/90000\r\na=rtpmap:97 MPEG4/90000\r\na=rtpmap:98 H264/90000\r\ny=1200000001\r\n"
    )
    offer = sdp.history_offer(
        PLATFORM,
        "192.0.2.1",
        30_004,
        "tcp-passive",
        "1200000002",
        download_speed=4,
        **span,  # type: ignore[arg-type]
    )
    assert offer.serialize() == (
        b"v=0\r\no=34020000002000000001 0 0 IN IP4 192.0.2.1\r\ns=Download\r\nu=34020000001320000001:0\r\n"
        b"c=IN IP4 192.0.2.1\r\nt=1769875200 1769961599\r\nm=video 30004 TCP/RTP/AVP 96\r\na=recvonly\r\n"
        b"a=rtpmap:96 PS/90000\r\na=setup:passive\r\na=connection:new\r\na=downloadspeed:4\r\ny=1200000002\r\n"
    )
    read = sdp.read_offer(offer.serialize())
    assert (read.mode, read.start, read.stop, read.download_speed) == ("download", 1_769_875_200, 1_769_961_599, 4)
    answer = sdp.live_answer(read, "34020000001320000001", "192.0.2.9", 9, file_size=4_711)
    assert answer.name == "Download"
    assert sdp.read_answer(answer.serialize(), offer).file_size == 4_711


@pytest.mark.parametrize("text", ["-1", "0", "", "many", "9" * 19])
def test_a_file_size_that_says_nothing(text: str) -> None:
    body = f"v=0\r\nc=IN IP4 192.0.2.9\r\nm=video 9 RTP/AVP 96\r\na=filesize:{text}\r\n".encode()
    assert sdp.read_answer(body, OFFER).file_size is None
