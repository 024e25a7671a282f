"""Devices as they are sold: what the vendors' firmwares write in place of what the standard says (reference section
10), each registered, asked for its channels and played, or kept alive, over real sockets.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.support.peer import Camera, Text, digest
from tests.system.conftest import CHANNEL, DEVICE, PASSWORD
from tests.system.steps import fact, online, server_of

GatewayAt = Callable[..., Any]
Change = Callable[[str], str]


async def registered(camera: Camera, change: Change, *, credentials: Change = str, uri: str = "", qop: bool = False) -> Text:
    """REGISTER with digest, each message changed before it leaves; returns the answer to the second."""
    target = f"sip:{camera.server_id}@{camera.domain}"
    uri = uri or target

    def register(*headers: str) -> bytes:
        text = camera.request("REGISTER", uri=target, to=camera.id, call_id="odd@camera", headers=("Expires: 3600", *headers))
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
    "user-agent-gbk": lambda text: text.replace("Max-Forwards", "User-Agent: \xba\xa3\xbf\xb5\xcd\xfe\xca\xd3\r\nMax-Forwards"),
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
    "upper-hex": (False, lambda text: re.sub(r'response="\w+"', lambda m: m[0].upper().replace("RESPONSE", "response"), text)),
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


@pytest.mark.parametrize("uri", ["sip:127.0.0.1:5060", "sip:34020000002000000001@10.1.1.1", "sip:3402000000", "34020000002000000001"])
async def test_a_digest_over_whatever_uri_it_names(gateway_at: GatewayAt, uri: str) -> None:
    async with gateway_at() as gateway, Camera(DEVICE, server=server_of(gateway)) as camera:
        assert (await registered(camera, str, uri=uri)).status == 200


DOCUMENTS: Sequence[tuple[str, bytes]] = [
    ("plain", b"<Notify><CmdType>Keepalive</CmdType><SN>1</SN><DeviceID>%b</DeviceID><Status>OK</Status></Notify>"),
    ("case", b"<notify><cmdtype>keepalive</cmdtype><sn>1</sn><deviceid>%b</deviceid><status>ok</status></notify>"),
    ("upper", b"<Notify><CmdType>KEEPALIVE</CmdType><SN>1</SN><DeviceID>%b</DeviceID></Notify>"),
    ("blanks", b"\r\n\r\n <?xml version='1.0'?>\r\n<Notify>\n<CmdType> Keepalive </CmdType>\n<DeviceID>%b</DeviceID>\n</Notify>\0"),
    ("bom", b"\xef\xbb\xbf<?xml version=\"1.0\" encoding=\"UTF-8\"?><Notify><CmdType>Keepalive</CmdType><DeviceID>%b</DeviceID></Notify>"),
    ("cut", b"<?xml version=\"1.0\"?>\n<Notify>\n<CmdType>Keepalive</CmdType>\n<DeviceID>%b</DeviceID>\n<Status>OK</Sta"),
    ("status-error", b"<Notify><CmdType>Keepalive</CmdType><DeviceID>%b</DeviceID><Status>ERROR</Status></Notify>"),
]


@pytest.mark.parametrize(("name", "body"), DOCUMENTS, ids=[name for name, _ in DOCUMENTS])
@pytest.mark.parametrize("content_type", ["Application/MANSCDP+xml", "application/xml", "", "text/plain;charset=gb2312"])
async def test_a_sign_of_life_in_any_spelling(gateway_at: GatewayAt, name: str, body: bytes, content_type: str) -> None:
    async with gateway_at() as gateway, online(gateway) as camera:
        registrar = gateway.devices._registrar
        device = registrar._devices[DEVICE]
        assert device.kept_at is None
        headers = [f"Content-Type: {content_type}"] if content_type else []
        camera.send(camera.request("MESSAGE", headers=headers, body=body % DEVICE.encode()))
        answer = await camera.expect(200)
        assert answer.body == b""
        await fact(lambda: device.kept_at is not None, "taken for a sign of life")


def catalog(sn: object, items: str, total: object, head: str = '<?xml version="1.0" encoding="GB2312"?>\r\n') -> str:
    return (
        f"{head}<Response>\r\n<CmdType>Catalog</CmdType>\r\n<SN>{sn}</SN>\r\n<DeviceID>{DEVICE}</DeviceID>\r\n"
        f'<SumNum>{total}</SumNum>\r\n<DeviceList Num="{items.count("<Item>")}">\r\n{items}</DeviceList>\r\n</Response>\r\n'
    )


def entry(channel: str, name: str) -> str:
    return f"<Item>\r\n<DeviceID>{channel}</DeviceID>\r\n<Name>{name}</Name>\r\n<Status>ON</Status>\r\n</Item>\r\n"


NAMES = {f"3402000000131000{number:04}": f"东门摄像机{number}号" for number in range(1, 7)}


@pytest.mark.parametrize("wrong", [-400, -8, 40, 4_000], ids=["far-too-small", "too-small", "too-large", "far-too-large"])
async def test_a_length_that_is_wrong_costs_no_channel(gateway_at: GatewayAt, wrong: int) -> None:
    """Counted before encoding, or with other line ends than were sent: the datagram knows better."""
    async with gateway_at() as gateway, Camera(DEVICE, server=server_of(gateway)) as camera:
        assert (await camera.register(PASSWORD)).status == 200
        sn, _ = await camera.query("Catalog")
        body = catalog(sn, "".join(entry(*each) for each in NAMES.items()), len(NAMES)).encode("gb2312")
        data = camera.request("MESSAGE", headers=["Content-Type: Application/MANSCDP+xml"], body=body)
        length = b"Content-Length: %d"
        assert length % len(body) in data
        camera.send(data.replace(length % len(body), length % (len(body) + wrong)))
        assert (await camera.expect(200)).cseq[1] == "MESSAGE"
        await fact(lambda: gateway.directory.get(DEVICE).catalog == "complete", "catalog read")
        assert {channel: each.name for channel, each in gateway.directory.get(DEVICE).channels.items()} == NAMES


@pytest.mark.parametrize("sn", ["", "0", "007", "x"])
async def test_a_catalog_with_an_odd_number(gateway_at: GatewayAt, sn: str) -> None:
    async with gateway_at() as gateway, Camera(DEVICE, server=server_of(gateway)) as camera:
        assert (await camera.register(PASSWORD)).status == 200
        await camera.query("Catalog")
        body = catalog(sn, "".join(entry(*each) for each in NAMES.items()), len(NAMES)).encode("gb2312")
        camera.send(camera.request("MESSAGE", headers=["Content-Type: Application/MANSCDP+xml"], body=body))
        await fact(lambda: len(gateway.directory.get(DEVICE).channels) == len(NAMES), "catalog read")
