import re
from pathlib import Path

import pytest

from gbgw.base import limits
from gbgw.base.errors import ManscdpError
from gbgw.gb import manscdp
from gbgw.gb.manscdp import CatalogItem, CatalogPart, DeviceControl, DeviceInfo, DeviceStatus, Keepalive, MediaStatus

CAMERA = "34020000001320000001"
RECORDER = "34020000001180000001"


def wrap(root: str, cmd_type: str, rest: str = "", device_id: str = RECORDER) -> bytes:
    return f"<{root}><CmdType>{cmd_type}</CmdType><SN>7</SN><DeviceID>{device_id}</DeviceID>{rest}</{root}>".encode()


def items(rest: str) -> CatalogPart:
    payload = manscdp.parse(wrap("Response", "Catalog", rest)).payload
    assert isinstance(payload, CatalogPart)
    return payload


def test_keepalive_takes_the_outer_device_id() -> None:
    body = f"""<Notify><Info><DeviceID>{CAMERA}</DeviceID><DeviceID>x</DeviceID></Info><CmdType> keepalive </CmdType>
        <DeviceID>{RECORDER}</DeviceID><SN>43</SN><Status>ok</Status></Notify>"""
    document = manscdp.parse(body.encode())
    assert (document.root, document.cmd_type, document.sn, document.device_id) == ("Notify", "Keepalive", 43, RECORDER)
    assert document.payload == Keepalive(ok=True, faulty=(CAMERA, "x"))
    assert manscdp.parse(wrap("Notify", "Keepalive", "<Status>ERROR</Status>")).payload == Keepalive(ok=False)


def test_catalog_item_with_everything() -> None:
    part = items(
        f"""<SumNum>2</SumNum><DeviceList Num=1><Item><DeviceID>{CAMERA}</DeviceID><Name>R&D <1> gate</Name>
        <Manufacturer>V</Manufacturer><Model>M</Model><Owner>O</Owner><CivilCode>340200</CivilCode><Block>b</Block>
        <Address>A<B</Address><Parental>65535</Parental><ParentID>{RECORDER}/34020000002160000001/../-</ParentID>
        <RegisterWay>1</RegisterWay><Secrecy>1</Secrecy><Status>OFFILE</Status><Longitude>121.5</Longitude>
        <Latitude></Latitude><Password>hunter2</Password>
        <Info><PTZType>3</PTZType><BusinessGroupID>34020000002150000001</BusinessGroupID>
        <StreamNumberList>0/1/x</StreamNumberList></Info></Item></DeviceList>"""
    )
    assert part == CatalogPart(
        (
            CatalogItem(
                CAMERA, "R&D <1> gate", "V", "M", "O", "340200", "b", "A<B", False, (RECORDER, "34020000002160000001"),
                "34020000002150000001", 1, True, False, 121.5, None, 3, (0, 1),
            ),
        ),
        total=2,
    )  # fmt: skip
    assert "hunter2" not in repr(part)
    assert part.items[0].is_channel


@pytest.mark.parametrize(
    ("status", "online"),
    [
        ("ON", True),
        ("OFF", False),
        ("ONLINE", True),
        ("Offline", False),
        ("OK", True),
        ("1", True),
        ("0", False),
        ("", True),
    ],
)
def test_item_status(status: str, online: bool) -> None:
    part = items(f"<DeviceList><Item><DeviceID>{CAMERA}</DeviceID><Status>{status}</Status></Item></DeviceList>")
    assert part.items[0].online is online
    assert part.total is None


def test_broken_items_are_skipped_and_counted() -> None:
    rest = "".join(f"<Item><DeviceID>{text}</DeviceID></Item>" for text in (CAMERA, "", "a-b", "x" * 33, "34"))
    part = items(f"<SumNum>5</SumNum><DeviceList>{rest}</DeviceList>")
    assert [item.device_id for item in part.items] == [CAMERA, "34"]
    assert part.skipped == 3


def test_empty_catalog() -> None:
    assert items("<SumNum>0</SumNum>") == CatalogPart((), 0)
    assert items('<SumNum>0</SumNum><DeviceList Num="0"/>') == CatalogPart((), 0)
    assert items("<SumNum>-1</SumNum>").total is None


def test_items_of_one_message_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CATALOG_ITEMS", 2)
    item = f"<Item><DeviceID>{CAMERA}</DeviceID></Item>"
    assert len(items(f"<DeviceList>{item * 2}</DeviceList>").items) == 2
    with pytest.raises(ManscdpError, match="items"):
        items(f"<DeviceList>{item * 3}</DeviceList>")


def test_device_info_spellings() -> None:
    for spelling in ("Firmware", "FirmWare", "FirmwareVersion"):
        rest = f"<DeviceName>n</DeviceName><Result>OK</Result><{spelling}>1.2</{spelling}><MaxCamera>4</MaxCamera>"
        assert manscdp.parse(wrap("Response", "deviceinfo", rest)).payload == DeviceInfo(
            True, "n", firmware="1.2", channels=4
        )


def test_device_status() -> None:
    rest = "<Result>OK</Result><Online>OFFLINE</Online><Status>ERROR</Status><Encode>ON</Encode>"
    assert manscdp.parse(wrap("Response", "DeviceStatus", rest)).payload == DeviceStatus(True, False, False, "", True)


def test_media_status() -> None:
    payload = manscdp.parse(wrap("Notify", "MediaStatus", "<NotifyType>121</NotifyType>")).payload
    assert payload == MediaStatus("121")
    assert payload.finished


@pytest.mark.parametrize("spelling", ["IFameCmd", "IFrameCmd", "iframecmd"])
def test_both_spellings_of_the_key_frame_command(spelling: str) -> None:
    assert manscdp.parse(wrap("Control", "DeviceControl", f"<{spelling}>Send</{spelling}>")).payload == DeviceControl(
        "IFrameCmd", "Send"
    )


@pytest.mark.parametrize(
    ("root", "spelt", "meant"),
    [
        ("Query", "PersetQuery", "PresetQuery"),
        ("Query", "HomePosition", "HomePositionQuery"),
        ("Query", "ConfigDownLoad", "ConfigDownload"),
        ("Response", "catalog", "Catalog"),
        ("Notify", "SensorCatalog", "SensorCatalog"),
    ],
)
def test_cmd_types(root: str, spelt: str, meant: str) -> None:
    assert manscdp.parse(wrap(root, spelt)).cmd_type == meant


@pytest.mark.parametrize("sn", ["", "x", "1.5", "9" * 19, "٣"])
def test_unusable_sn(sn: str) -> None:
    assert manscdp.parse(f"<Notify><CmdType>x</CmdType><SN>{sn}</SN></Notify>".encode()).sn is None


def test_without_cmd_type() -> None:
    with pytest.raises(ManscdpError, match="CmdType"):
        manscdp.parse(b"<Notify><SN>1</SN></Notify>")


@pytest.mark.parametrize(
    ("header", "edition"),
    [
        (None, "2.0"),
        ("", "2.0"),
        ("junk", "2.0"),
        ("1.0", "1.0"),
        ("1.1", "1.1"),
        (" 2.0 ", "2.0"),
        ("3.0", "3.0"),
        ("3", "3.0"),
        ("4.1", "3.0"),
        ("0.9", "1.0"),
    ],
)
def test_editions(header: str | None, edition: str) -> None:
    assert manscdp.edition_of(header) == edition


def test_query_bytes() -> None:
    assert manscdp.query("DeviceInfo", 1021, CAMERA) == (
        b'<?xml version="1.0" encoding="GB2312"?>\r\n<Query>\r\n<CmdType>DeviceInfo</CmdType>\r\n<SN>1021</SN>\r\n'
        b"<DeviceID>34020000001320000001</DeviceID>\r\n</Query>\r\n"
    )
    assert manscdp.query("Catalog", 1, CAMERA, "3.0").startswith(b'<?xml version="1.0" encoding="GB18030"?>')


@pytest.mark.conformance(7)
def test_key_frame_command_by_edition() -> None:
    for edition, tag in (("1.0", "IFameCmd"), ("1.1", "IFameCmd"), ("2.0", "IFameCmd"), ("3.0", "IFrameCmd")):
        body = manscdp.iframe(3, CAMERA, edition)  # type: ignore[arg-type]
        assert f"<{tag}>Send</{tag}>".encode() in body
        assert body.count(b"Cmd>") == 2  # exactly one sub-command


def test_text_is_escaped_and_stays_in_the_charset() -> None:
    item = CatalogItem(CAMERA, name="a<b>&\x00门㐀")
    old = manscdp.catalog_part(1, RECORDER, 1, [item], "2.0")
    assert "<Name>a&lt;b&gt;&amp;门?</Name>".encode("gb2312") in old
    new = manscdp.parse(manscdp.catalog_part(1, RECORDER, 1, [item], "3.0")).payload
    assert isinstance(new, CatalogPart)
    assert new.items[0].name == "a<b>&门㐀"


def test_catalog_response_splits_and_counts() -> None:
    listed = [CatalogItem(f"3402000000132000000{n}", name=str(n), register_way=1) for n in range(5)]
    parts = [manscdp.parse(body).payload for body in manscdp.catalog_response(9, RECORDER, listed, per_part=2)]
    assert [len(part.items) for part in parts if isinstance(part, CatalogPart)] == [2, 2, 1]
    assert all(isinstance(part, CatalogPart) and part.total == 5 for part in parts)
    empty = list(manscdp.catalog_response(9, RECORDER, []))
    assert len(empty) == 1
    assert b"DeviceList" not in empty[0]


def test_writers_are_read_back() -> None:
    info = DeviceInfo(True, "n", "m", "o", "f", 3)
    status = DeviceStatus(True, True, False, "why", True, False, "2026-02-03T08:15:30")
    assert manscdp.parse(manscdp.device_info(1, CAMERA, info)).payload == info
    assert manscdp.parse(manscdp.device_status(1, CAMERA, status)).payload == status
    assert manscdp.parse(manscdp.keepalive(2, CAMERA, ok=False, faulty=["x"])).payload == Keepalive(False, ("x",))
    assert manscdp.parse(manscdp.media_status(2, CAMERA)).payload == MediaStatus("121")
    assert manscdp.parse(manscdp.result("DeviceControl", 2, CAMERA, ok=False)).payload == manscdp.Result(False)


@pytest.mark.fixtures
def test_every_captured_document_is_read(fixtures_dir: Path) -> None:
    """Every MANSCDP body of the fixtures names its kind as the file name does, with the ids that its text has."""
    seen = 0
    for file in sorted((fixtures_dir / "sip").glob("*.sip")):
        head, _, body = file.read_bytes().partition(b"\r\n\r\n")
        if not re.search(rb"content-type:.*manscdp", head, re.IGNORECASE):
            continue
        document = manscdp.parse(body)
        named = re.search(r"_(N|Q|R|C)(Keepalive|Catalog|Device\w+|RecordInfo)", file.stem)
        assert named is not None, file.name
        root = {"N": "Notify", "Q": "Query", "R": "Response", "C": "Control"}[named[1]]
        assert (document.root, document.cmd_type) == (root, named[2].split("_")[0]), file.name
        assert document.sn is not None
        assert re.fullmatch(r"[0-9]{18,20}", document.device_id), file.name
        if isinstance(document.payload, CatalogPart):
            assert len(document.payload.items) >= 1
            assert document.payload.skipped == 0
        seen += 1
    assert seen >= 18


@pytest.mark.fixtures
def test_captured_secrets_are_dropped(fixtures_dir: Path) -> None:
    body = (fixtures_dir / "sip" / "iss_004_dahua_MESSAGE_RDeviceInfo_ext.sip").read_bytes().partition(b"\r\n\r\n")[2]
    secret = re.search(rb"<Password>([^<]+)</Password>", body)
    document = manscdp.parse(body)
    assert document.element.get("Password") == ""
    if secret is not None:
        assert f"'{secret[1].decode()}'" not in repr(document)
