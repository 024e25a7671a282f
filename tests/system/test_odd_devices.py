"""Devices as they are sold: what the vendors' firmwares write in place of what the standard says (reference section
10), each registered, asked for its channels and played, or kept alive, over real sockets.
"""

import asyncio
import re
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from gbgw.base.errors import GatewayError
from tests.support.peer import Camera, Text, digest
from tests.system.conftest import DEVICE, PASSWORD
from tests.system.steps import ends, fact, online, opened, plays_on, sending, server_of

GatewayAt = Callable[..., Any]
Change = Callable[[str], str]
NOW = "media.linger_seconds=0"  # the last viewer takes the picture along


async def registered(
    camera: Camera, change: Change, *, credentials: Change = str, uri: str = "", qop: bool = False
) -> Text:
    """REGISTER with digest, each message changed before it leaves; returns the answer to the second."""
    target = f"sip:{camera.server_id}@{camera.domain}"
    uri = uri or target

    def register(*headers: str) -> bytes:
        text = camera.request(
            "REGISTER", uri=target, to=camera.id, call_id="odd@camera", headers=("Expires: 3600", *headers)
        )
        return change(text.decode("latin-1")).encode("latin-1")

    camera.send(register())
    challenge = await camera.expect(401)
    value = digest("REGISTER", uri, camera.id, PASSWORD, challenge["WWW-Authenticate"], qop=qop)
    camera.send(register(f"Authorization: {credentials(value)}"))
    return await camera.receive()


def without(name: str) -> Change:
    return lambda text: re.sub(rf"(?im)^{name}:.*\r\n", "", text)


def swapped(old: str, new: str) -> Change:
    def change(text: str) -> str:
        changed = re.sub(old, new, text)
        assert changed != text, old
        return changed

    return change


REGISTERS: dict[str, Change] = {
    "line-feeds": lambda text: text.replace("\r\n", "\n"),
    "no-rport": swapped(";rport", ""),
    "rport-with-value": swapped(";rport", ";rport=5060"),
    "no-branch": swapped(r";branch=\S+", ""),
    "wrong-cookie": swapped("branch=z9hG4bK", "branch=z3hG9bK"),
    "no-contact": without("Contact"),
    "contact-without-port": swapped(r"(Contact: <sip:[^@]+@[^:]+):\d+>", r"\1>"),
    "contact-ipv6": swapped(r"Contact: <sip:([^@]+)@[^>]+>", r"Contact: <sip:\1@[fe80::1]:5060>"),
    "contact-bare-ipv6": swapped(r"Contact: <sip:([^@]+)@[^>]+>", r"Contact: <sip:\1@fe80::1:5060>"),
    "contact-garbage": swapped(r"Contact: .*\r\n", r"Contact: <sip:@0.0.0.0:0;;>;q=;\r\n"),
    "contact-no-host": swapped(r"Contact: .*\r\n", r"Contact: <sip:34020000001320000001@:5060>\r\n"),
    "contact-with-name": swapped("Contact: <", 'Contact: "IPC, 1" <'),
    "no-angles": swapped(r"(?m)^(From|To): <([^>]+)>", r"\1: \2"),
    "names": swapped(r"(?m)^(From|To): <", r'\1: "Camera; 1" <'),
    "no-max-forwards": without("Max-Forwards"),
    "max-forwards-0": swapped("Max-Forwards: 70", "Max-Forwards: 0"),
    "no-length": without("Content-Length"),
    "padded-length": swapped("Content-Length: 0", "Content-Length:     0"),
    "colons": swapped(r"(?m)^(Call-ID|CSeq|Via|From):", r"\1  :"),
    "folded": swapped(r";branch=", "\r\n ;branch="),
    "lower": swapped(r"(?m)^(REGISTER )", "register "),
    "route": swapped("Max-Forwards", "Route: <sip:127.0.0.1:5060;lr>\r\nMax-Forwards"),
    "hosts-of-addresses": swapped(r"@3402000000>", "@127.0.0.1:5060>"),
    "uri-without-user": swapped(r"^REGISTER \S+", "REGISTER sip:3402000000"),
    "uri-with-params": swapped(r"^REGISTER (\S+)", r"REGISTER \1;transport=udp"),
    "old-clock": swapped("Max-Forwards", "Date: 1970-01-01T00:00:00.000\r\nMax-Forwards"),
    "trailing-nuls": lambda text: text + "\0\0\0\0",
    "supported": swapped("Max-Forwards", "Supported: path, gruu, timer\r\nMax-Forwards"),
    "gb-version-words": swapped("Max-Forwards", "X-GB-ver: V2.0 (2016)\r\nMax-Forwards"),
    "cseq-0": swapped(r"CSeq: \d+ ", "CSeq: 0 "),
    "from-tag-empty": swapped(r"(?m)^(From: .*);tag=\S+", r"\1;tag="),
    "from-tag-absent": swapped(r"(?m)^(From: .*);tag=\S+", r"\1"),
    "user-agent-gbk": lambda text: text.replace(
        "Max-Forwards", "User-Agent: \xba\xa3\xbf\xb5\xcd\xfe\xca\xd3\r\nMax-Forwards"
    ),
    "port-in-user": swapped(r"(Via: SIP/2.0/UDP) [^;]+;", r"\1 192.168.1.64;"),
    "via-host-name": swapped(r"(Via: SIP/2.0/UDP) [^;]+;", r"\1 ipc-1.local:5060;"),
    "via-ipv6": swapped(r"(Via: SIP/2.0/UDP) [^;]+;", r"\1 [fe80::1%eth0]:5060;"),
    "via-transport-lower": swapped(r"Via: SIP/2.0/UDP", r"Via: SIP/2.0/udp"),
    "two-contacts": swapped(r"(Contact: )(<[^>]+>)", r"\1\2, <sip:x@10.0.0.1>"),
    "expires-twice": swapped(r"(Contact: <[^>]+>)", r"\1;expires=3600"),
    "expires-words": swapped(r"Expires: 3600", r"Expires: 3600 "),
}


@pytest.mark.parametrize("name", REGISTERS)
async def test_a_register_with_an_oddity(gateway_at: GatewayAt, name: str) -> None:
    change = REGISTERS[name]
    async with gateway_at() as gateway, Camera(DEVICE, server=server_of(gateway)) as camera:
        answer = await registered(camera, change)
        assert answer.status == 200, answer.raw
        assert gateway.directory.get(DEVICE).online


CREDENTIALS: dict[str, tuple[bool, Change]] = {
    "upper-hex": (
        False,
        lambda text: re.sub(r'response="\w+"', lambda m: m[0].upper().replace("RESPONSE", "response"), text),
    ),
    "quoted-algorithm": (False, swapped("algorithm=MD5", 'algorithm="MD5"')),
    "small-algorithm": (False, swapped("algorithm=MD5", "algorithm=md5")),
    "no-algorithm": (False, swapped(",algorithm=MD5", "")),
    "quoted-qop": (True, swapped("qop=auth,nc=00000001", 'qop="auth",nc="00000001"')),
    "unquoted": (True, lambda text: text.replace('"', "")),
    "spaces": (True, lambda text: text.replace(",", " , ").replace("=", " = ", 3)),
    "comma-end": (False, lambda text: text + ","),
    "folded": (False, lambda text: text.replace(",", ",\r\n\t")),
    "two-blanks": (False, lambda text: text.replace("Digest ", "Digest   ")),
    "opaque-empty": (True, lambda text: text + ',opaque=""'),
    "small-scheme": (False, lambda text: text.replace("Digest", "digest")),
    "tab": (False, lambda text: text.replace("Digest ", "Digest\t")),
    "stray-quote": (False, lambda text: text.replace('realm="', 'realm = "')),
}


@pytest.mark.parametrize("name", CREDENTIALS)
async def test_credentials_with_an_oddity(gateway_at: GatewayAt, name: str) -> None:
    qop, change = CREDENTIALS[name]
    async with gateway_at() as gateway, Camera(DEVICE, server=server_of(gateway)) as camera:
        answer = await registered(camera, str, credentials=change, qop=qop)
        assert answer.status == 200, answer.raw


@pytest.mark.parametrize(
    "uri", ["sip:127.0.0.1:5060", "sip:34020000002000000001@10.1.1.1", "sip:3402000000", "34020000002000000001"]
)
async def test_a_digest_over_whatever_uri_it_names(gateway_at: GatewayAt, uri: str) -> None:
    async with gateway_at() as gateway, Camera(DEVICE, server=server_of(gateway)) as camera:
        assert (await registered(camera, str, uri=uri)).status == 200


SIGNS: Sequence[bytes] = (
    b"<Notify><CmdType>Keepalive</CmdType><SN>1</SN><DeviceID>%b</DeviceID><Status>OK</Status></Notify>",
    b"<notify><cmdtype>keepalive</cmdtype><sn>1</sn><deviceid>%b</deviceid><status>ok</status></notify>",
    b"<Notify><CmdType>KEEPALIVE</CmdType><SN>1</SN><DeviceID>%b</DeviceID></Notify>",
    b"\r\n\r\n <?xml version='1.0'?>\n<Notify>\n<CmdType> Keepalive </CmdType>\n<DeviceID>%b</DeviceID>\n</Notify>\0",
    b'\xef\xbb\xbf<?xml version="1.0"?><Notify><CmdType>Keepalive</CmdType><DeviceID>%b</DeviceID></Notify>',
    b'<?xml version="1.0"?>\n<Notify>\n<CmdType>Keepalive</CmdType>\n<DeviceID>%b</DeviceID>\n<Status>OK</Sta',
    b"<Notify><CmdType>Keepalive</CmdType><DeviceID>%b</DeviceID><Status>ERROR</Status></Notify>",
)


@pytest.mark.parametrize("kind", ["Application/MANSCDP+xml", "application/xml", "", "text/plain;charset=gb2312"])
async def test_a_sign_of_life_in_any_spelling(gateway_at: GatewayAt, kind: str) -> None:
    async with gateway_at() as gateway, online(gateway) as camera:
        device = gateway.devices._registrar._devices[DEVICE]
        assert device.kept_at is None
        for body in SIGNS:
            before = device.kept_at
            headers = [f"Content-Type: {kind}"] if kind else []
            camera.send(camera.request("MESSAGE", headers=headers, body=body % DEVICE.encode()))
            assert (await camera.expect(200)).body == b""
            await fact(lambda before=before: device.kept_at != before, f"{body!r} taken for a sign of life")


def catalog(sn: object, items: str, total: object, head: str = '<?xml version="1.0" encoding="GB2312"?>\r\n') -> str:
    return (
        f"{head}<Response>\r\n<CmdType>Catalog</CmdType>\r\n<SN>{sn}</SN>\r\n<DeviceID>{DEVICE}</DeviceID>\r\n"
        f'<SumNum>{total}</SumNum>\r\n<DeviceList Num="{items.count("<Item>")}">\r\n{items}</DeviceList>\r\n'
        "</Response>\r\n"
    )


def entry(channel: str, name: str) -> str:
    return f"<Item>\r\n<DeviceID>{channel}</DeviceID>\r\n<Name>{name}</Name>\r\n<Status>ON</Status>\r\n</Item>\r\n"


NAMES = {f"3402000000131000{number:04}": f"东门摄像机{number}号" for number in range(1, 7)}


def misstated(data: bytes, wrong: int | None) -> bytes:
    """A message whose Content-Length is off by so many bytes, but not below zero; None: without one."""
    if wrong is None:
        return re.sub(rb"Content-Length:.*\r\n", b"", data)
    return re.sub(rb"(?<=Content-Length: )\d+", lambda length: b"%d" % max(0, int(length[0]) + wrong), data)


@pytest.mark.conformance(30)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize(
    "wrong",
    [-40_000, -400, -8, 2, 40, 4_000, None],
    ids=["zero", "far-too-small", "too-small", "line-end", "too-large", "far-too-large", "missing"],
)
async def test_a_length_that_is_wrong_costs_no_channel(
    gateway_at: GatewayAt, wrong: int | None, transport: str
) -> None:
    """Counted before encoding, or with other line ends than were sent: the document knows better. Over TCP the next
    message, or silence, tells; the connection lives on, and only wrong lengths are counted."""
    if transport == "udp" and wrong == 2:
        wrong = 1
    async with (
        gateway_at() as gateway,
        Camera(DEVICE, server=server_of(gateway, transport), transport=transport) as camera,
    ):
        assert (await camera.register(PASSWORD)).status == 200
        sn, _ = await camera.query("Catalog")
        body = catalog(sn, "".join(entry(*each) for each in NAMES.items()), len(NAMES)).encode("gb2312")
        data = camera.request("MESSAGE", headers=["Content-Type: Application/MANSCDP+xml"], body=body)
        assert b"Content-Length: %d\r\n" % len(body) in data
        camera.send(misstated(data, wrong))
        assert (await camera.expect(200)).cseq[1] == "MESSAGE"
        await fact(lambda: gateway.directory.get(DEVICE).catalog == "complete", "catalog read")
        assert {channel: each.name for channel, each in gateway.directory.get(DEVICE).channels.items()} == NAMES
        assert gateway.tally.counts.get("sip.wrong_length", 0) == (transport == "tcp" or wrong is not None)
        assert (await camera.keepalive()).status == 200
        assert gateway.tally.counts.get("sip.wrong_length", 0) == (transport == "tcp" or wrong is not None)
        assert gateway.tally.counts.get("sip.malformed", 0) == 0


@pytest.mark.conformance(30)
@pytest.mark.parametrize("wrong", [-30, -4, 9, 2_000, None])
async def test_signs_of_life_with_wrong_lengths_one_after_the_other_over_tcp(
    gateway_at: GatewayAt, wrong: int | None
) -> None:
    """In one segment: each tells where the one before it ended."""
    async with gateway_at() as gateway, online(gateway, transport="tcp") as camera:
        body = f"<Notify>\r\n<CmdType>Keepalive</CmdType>\r\n<SN>1</SN>\r\n<DeviceID>{DEVICE}</DeviceID>\r\n</Notify>"
        camera.send(b"".join(misstated(camera.message(body), wrong) for _ in range(20)))
        for _ in range(20):
            assert (await camera.expect(200)).cseq[1] == "MESSAGE"
        assert gateway.tally.counts["sip.wrong_length"] == 20
        assert (await camera.keepalive()).status == 200


@pytest.mark.conformance(30)
async def test_a_request_inside_a_body_over_tcp_is_none(gateway_at: GatewayAt) -> None:
    """Of another device, as if a peer forwarded what somebody else wrote: whole, and with lengths that are wrong."""
    async with gateway_at() as gateway, online(gateway, transport="tcp") as camera:
        inside = camera.request("REGISTER", to="34020000001320000077", headers=["Expires: 60"]).decode()
        head = "<Notify>\r\n<CmdType>Keepalive</CmdType>\r\n<Info>\r\n"
        document = f"{head}{inside}</Info>\r\n</Notify>"
        before = gateway._sip.agent.messages["in", "REGISTER", 0]
        for body, wrong in ((f"{document}\r\n{inside}", 0), (document, -20), (document, 7)):
            camera.send(misstated(camera.message(body), wrong))
            assert (await camera.expect(200)).cseq[1] == "MESSAGE"
            assert (await camera.keepalive()).status == 200
        camera.send(misstated(camera.message(document), -40_000))
        await fact(lambda: gateway.tally.counts.get("sip.malformed", 0) == 1, "the connection is given up")
        assert gateway._sip.agent.messages["in", "REGISTER", 0] == before


@pytest.mark.parametrize("sn", ["", "0", "007", "x"])
async def test_a_catalog_with_an_odd_number(gateway_at: GatewayAt, sn: str) -> None:
    async with gateway_at() as gateway, Camera(DEVICE, server=server_of(gateway)) as camera:
        assert (await camera.register(PASSWORD)).status == 200
        await camera.query("Catalog")
        body = catalog(sn, "".join(entry(*each) for each in NAMES.items()), len(NAMES)).encode("gb2312")
        camera.send(camera.request("MESSAGE", headers=["Content-Type: Application/MANSCDP+xml"], body=body))
        await fact(lambda: len(gateway.directory.get(DEVICE).channels) == len(NAMES), "catalog read")


def told(camera: Camera, invite: Text, sdp: bytes | None = None) -> bytes:
    """The plain 200, with SDP for an offer of UDP if none is given."""
    contact = f"Contact: <sip:{camera.id}@{camera.local[0]}:{camera.local[1]}>"
    body = camera.sdp_answer(invite, port=15060) if sdp is None else sdp
    return camera.response(invite, 200, "OK", body=body, headers=["Content-Type: application/sdp", contact])


@asynccontextmanager
async def invited(gateway: Any, camera: Camera) -> AsyncIterator[tuple[Text, Callable[..., Awaitable[None]]]]:
    """The INVITE of a viewer, and what to call once pictures flow: it waits for them, leaves, and wants all back."""
    opening = asyncio.create_task(opened(gateway), name="test:open")

    async def watched(then: Callable[[], Awaitable[None]] | None = None) -> None:
        async with asyncio.timeout(5):
            watch = await opening
        assert not isinstance(watch, GatewayError), watch
        if then is not None:
            await then()
        await plays_on(watch)
        await watch.close()
        await ends(gateway, camera)

    try:
        yield await camera.expect("INVITE"), watched
    finally:
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)


Answer = Callable[[bytes], bytes]
ANSWERS: dict[str, Answer] = {
    "line-feeds": lambda data: data.replace(b"\r\n", b"\n"),
    "no-contact": lambda data: re.sub(rb"Contact:.*\r\n", b"", data),
    "private-contact": lambda data: re.sub(rb"(Contact: <sip:\d+@)[^>]+", rb"\g<1>192.168.254.3:5060", data),
    "garbage-contact": lambda data: re.sub(rb"Contact:.*\r\n", b"Contact: <sip:@>;;=\r\n", data),
    "contact-ipv6": lambda data: re.sub(rb"(Contact: <sip:\d+@)[^>]+", rb"\g<1>[2001:db8::7]:5060", data),
    "contact-bare-ipv6": lambda data: re.sub(rb"(Contact: <sip:\d+@)[^>]+", rb"\g<1>2001:db8::7", data),
    "contact-without-user": lambda data: re.sub(rb"Contact: <sip:\d+@", rb"Contact: <sip:", data),
    "contact-only-user": lambda data: re.sub(rb"Contact:.*\r\n", b"Contact: 34020000001320000001\r\n", data),
    "no-type": lambda data: re.sub(rb"Content-Type:.*\r\n", b"", data),
    "no-length": lambda data: re.sub(rb"Content-Length:.*\r\n", b"", data),
    "wrong-length": lambda data: re.sub(rb"(?<=Content-Length: )\d+", lambda m: b"%d" % (int(m[0]) + 11), data),
    "no-to-tag": lambda data: re.sub(rb"(?m)^(To: <[^>]+>);tag=peer", rb"\1", data),
    "bare-via": lambda data: re.sub(rb"(Via: SIP/2.0/UDP [^;]+);[^\r]*(;branch=[^;\r]+)[^\r]*", rb"\1\2", data),
    "spelt-branch": lambda data: data.replace(b";branch=", b";Branch="),
    "no-reason": lambda data: data.replace(b"SIP/2.0 200 OK", b"SIP/2.0 200"),
    "chinese-reason": lambda data: data.replace(b"200 OK", "200 成功".encode("gb2312")),
    "name-in-from": lambda data: re.sub(rb"(?m)^(From: )<", rb'\1"gbgw" <', data),
    "tags-without-angles": lambda data: re.sub(rb"(?m)^(From|To): <([^>]+)>", rb"\1: \2", data),
    "route": lambda data: data.replace(b"Call-ID", b"Record-Route: <sip:10.9.9.9;lr>\r\nCall-ID"),
    "no-end": lambda data: data.rstrip(b"\r\n"),
    "nuls": lambda data: data + b"\0\0\0",
}
DESCRIPTIONS: dict[str, Answer] = {
    "line-feeds": lambda sdp: sdp.replace(b"\r\n", b"\n"),
    "junk-name": lambda sdp: sdp.replace(b"s=Play", b"s=##ms20091214"),
    "junk-lines": lambda sdp: sdp.replace(b"t=0 0", b"t=0 0\r\nb=AS:4096\r\nk=\r\nz\r\ni=\xb6\xab\xc3\xc5"),
    "y-first": lambda sdp: re.sub(rb"(?s)(v=0\r\n)(.*)(y=\d+\r\n)", rb"\3\1\2", sdp),
    "private-rtpmap": lambda sdp: sdp.replace(b"PS/90000", b"DAHUA/90000"),
    "spelt-rtpmap": lambda sdp: sdp.replace(b"96 PS/90000", b" 96  ps/90000"),
    "no-rtpmap": lambda sdp: re.sub(rb"a=rtpmap.*\r\n", b"", sdp),
    "many-types": lambda sdp: sdp.replace(b"RTP/AVP 96", b"RTP/AVP 96 98 97"),
    "spelt-protocol": lambda sdp: sdp.replace(b"RTP/AVP 96", b"rtp/avp 96"),
    "address-0": lambda sdp: sdp.replace(b"c=IN IP4 127.0.0.1", b"c=IN IP4 0.0.0.0"),
    "address-private": lambda sdp: sdp.replace(b"c=IN IP4 127.0.0.1", b"c=IN IP4 192.168.1.64"),
    "address-ipv6": lambda sdp: sdp.replace(b"c=IN IP4 127.0.0.1", b"c=IN IP6 fe80::1"),
    "address-in-media": lambda sdp: re.sub(rb"(?s)(c=IN[^\r]+\r\n)(t=.*?m=[^\r]+\r\n)", rb"\2\1", sdp),
    "no-address": lambda sdp: sdp.replace(b"c=IN IP4 127.0.0.1\r\n", b""),
    "setup-for-udp": lambda sdp: sdp.replace(b"a=sendonly", b"a=setup:passive\r\na=connection:new\r\na=sendonly"),
    "recvonly": lambda sdp: sdp.replace(b"a=sendonly", b"a=recvonly"),
    "blanks": lambda sdp: sdp.replace(b"m=video", b"m = video").replace(b"y=", b"y= "),
    "sound-refused": lambda sdp: sdp.replace(b"m=video", b"m=audio 0 RTP/AVP 8\r\nm=video"),
    "format": lambda sdp: sdp + b"f=v/2/6/25/1/2048a/1/8/1\r\n",
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_with_an_oddity_plays(gateway_at: GatewayAt, name: str) -> None:
    async with gateway_at(NOW) as gateway, online(gateway) as camera, invited(gateway, camera) as (invite, watched):
        plain = told(camera, invite)
        odd = ANSWERS[name](plain)
        assert odd != plain
        camera.send(odd)
        assert (await camera.expect("ACK")).body == b""
        async with sending(camera, invite):
            await watched()


@pytest.mark.parametrize("name", DESCRIPTIONS)
async def test_a_description_with_an_oddity_plays(gateway_at: GatewayAt, name: str) -> None:
    async with gateway_at(NOW) as gateway, online(gateway) as camera, invited(gateway, camera) as (invite, watched):
        plain = camera.sdp_answer(invite, port=15060)
        odd = DESCRIPTIONS[name](plain)
        assert odd != plain
        camera.send(told(camera, invite, odd))
        await camera.expect("ACK")
        async with sending(camera, invite):
            await watched()


@pytest.mark.conformance(30)
@pytest.mark.parametrize("wrong", [-30, -3, 11, 900, None])
async def test_an_answer_with_a_wrong_length_over_tcp_plays(gateway_at: GatewayAt, wrong: int | None) -> None:
    async with gateway_at(NOW) as gateway, online(gateway, transport="tcp") as camera, invited(gateway, camera) as call:
        invite, watched = call
        camera.send(misstated(told(camera, invite), wrong))
        await camera.expect("ACK")
        async with sending(camera, invite):
            await watched()


@pytest.mark.parametrize("transport", ["udp", "tcp-passive"])
async def test_a_camera_that_agrees_without_a_word_plays(gateway_at: GatewayAt, transport: str) -> None:
    async with (
        gateway_at(NOW, f"media.transport={transport}") as gateway,
        online(gateway) as camera,
        invited(gateway, camera) as (invite, watched),
    ):
        camera.send(told(camera, invite, b""))
        await camera.expect("ACK")
        async with sending(camera, invite, tcp=transport != "udp"):
            await watched()


@pytest.mark.parametrize("transport", ["udp", "tcp-passive"])
async def test_a_payload_type_of_its_own_plays(gateway_at: GatewayAt, transport: str) -> None:
    async with (
        gateway_at(NOW, f"media.transport={transport}") as gateway,
        online(gateway) as camera,
        invited(gateway, camera) as (invite, watched),
    ):
        form = "udp" if transport == "udp" else "tcp-active"
        sdp = camera.sdp_answer(invite, port=9, transport=form)
        camera.send(told(camera, invite, sdp.replace(b"AVP 96", b"AVP 108").replace(b"rtpmap:96", b"rtpmap:108")))
        await camera.expect("ACK")
        async with sending(camera, invite, tcp=transport != "udp") as sender:
            sender.payload_type = 108
            await watched()


async def test_a_camera_that_rings_in_every_way_and_answers_three_times(gateway_at: GatewayAt) -> None:
    async with gateway_at(NOW) as gateway, online(gateway) as camera, invited(gateway, camera) as (invite, watched):
        sdp, typed = camera.sdp_answer(invite, port=9), ["Content-Type: application/sdp"]
        for status, tag, body in (
            (100, "", b""),
            (100, "early", b""),
            (183, "early", sdp),
            (180, "", b""),
            (182, "x", b""),
        ):
            camera.respond(invite, status, body=body, headers=typed if body else (), to_tag=tag)
        answer = told(camera, invite)
        for _ in range(3):
            camera.send(answer)
            assert (await camera.expect("ACK"))["To"].endswith("tag=peer")

        async def once_more() -> None:
            camera.send(answer)
            await camera.expect("ACK")

        async with sending(camera, invite):
            await watched(once_more)


class Sent(NamedTuple):
    """What is odd about the media: the packets of a picture, the address they come from."""

    packets: Callable[[list[bytes]], list[bytes]] = lambda packets: packets
    source: str = "127.0.0.1"
    size: int = 1_400


def headed(change: Callable[[int, bytearray], bytes]) -> Callable[[list[bytes]], list[bytes]]:
    return lambda packets: [change(index, bytearray(packet)) for index, packet in enumerate(packets)]


def marked(index: int, packet: bytearray) -> bytes:
    packet[1] |= 0x80
    return bytes(packet)


def unmarked(index: int, packet: bytearray) -> bytes:
    packet[1] &= 0x7F
    return bytes(packet)


def timeless(index: int, packet: bytearray) -> bytes:
    packet[4:8] = bytes(4)
    return bytes(packet)


def own_times(index: int, packet: bytearray) -> bytes:
    packet[4:8] = struct.pack(">I", (struct.unpack(">I", packet[4:8])[0] + 7 * index) & 0xFFFFFFFF)
    return bytes(packet)


def extended(index: int, packet: bytearray) -> bytes:
    """Two CSRC, a header extension of two words and four bytes of padding."""
    return (
        bytes([packet[0] | 0x32, *packet[1:12]])
        + bytes(8)
        + b"\xbe\xde\x00\x02"
        + b"\x90" * 8
        + bytes(packet[12:])
        + b"\0\0\0\x04"
    )


SENT: dict[str, Sent] = {
    "marker-on-each": Sent(headed(marked)),
    "no-marker": Sent(headed(unmarked)),
    "one-timestamp": Sent(headed(timeless)),
    "a-timestamp-for-each": Sent(headed(own_times)),
    "extension-and-padding": Sent(headed(extended)),
    "each-twice": Sent(lambda packets: [packet for packet in packets for _ in range(2)]),
    "swapped": Sent(lambda packets: packets[::-1]),
    "punches": Sent(lambda packets: [b"", b"\0" * 4, *packets, b"\x80\xc9\0\1\0\0\0\1"]),
    "small": Sent(size=64),
    "jumbo": Sent(size=9_000),
    "another-address": Sent(source="127.0.0.2"),
}


@pytest.mark.parametrize("name", SENT)
async def test_media_with_an_oddity_plays(gateway_at: GatewayAt, name: str) -> None:
    odd = SENT[name]
    async with gateway_at(NOW) as gateway, online(gateway) as camera, invited(gateway, camera) as (invite, watched):
        camera.send(told(camera, invite))
        await camera.expect("ACK")
        async with sending(camera, invite, local=(odd.source, 0)) as sender:
            sender.size = odd.size
            plain = sender.packets
            sender.packets = lambda: odd.packets(plain())  # type: ignore[method-assign]
            await watched()


def interleaved(data: bytes) -> bytes:
    """RFC 4571 frames as RTSP would interleave them: a dollar sign and a channel before each length."""
    out, at = bytearray(), 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 2], "big")
        out += b"$\0" + data[at : at + 2 + length]
        at += 2 + length
    return bytes(out)


@pytest.mark.parametrize("name", ["interleaved", "private-head", "another-address", "second-connection"])
async def test_media_over_tcp_with_an_oddity_plays(gateway_at: GatewayAt, name: str) -> None:
    async with (
        gateway_at(NOW, "media.transport=tcp-passive") as gateway,
        online(gateway) as camera,
        invited(gateway, camera) as (invite, watched),
    ):
        await camera.answer_invite(invite)
        target = camera.media_target(invite)
        if name == "second-connection":  # the first was given up before a byte
            first = await camera.media_tcp(target)
            first.close()
            await first.wait_closed()
        source = ("127.0.0.2", 0) if name == "another-address" else None
        _, writer = await asyncio.open_connection(*target, local_addr=source)
        write = writer.write
        if name == "private-head":
            write(b"\x01\x00\x01\x00" + bytes(range(252)))
        if name == "interleaved":
            writer.write = lambda data: write(interleaved(bytes(data)))  # type: ignore[method-assign]
        async with sending(camera, invite, writer=writer):
            await watched()
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
