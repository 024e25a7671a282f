import contextlib
import time

import pytest

from gbgw.base import limits
from gbgw.base.errors import ManscdpError
from gbgw.gb import xml


def parse(text: str) -> xml.Element:
    return xml.parse(text.encode())


@pytest.mark.parametrize("declared", ["GB2312", "gb2312", "GBK", "GB18030", "UTF-8", ""])
@pytest.mark.parametrize("actual", ["gb2312", "gbk", "gb18030", "utf-8", "utf-8-sig"])
def test_declared_and_misdeclared_charsets(declared: str, actual: str) -> None:
    prolog = f'<?xml version="1.0" encoding="{declared}"?>' if declared else ""
    body = f"{prolog}\r\n<Notify><Name>东门摄像机</Name></Notify>".encode(actual)
    assert xml.parse(body).get("Name") == "东门摄像机"


def test_characters_beyond_gb2312() -> None:
    assert xml.parse("<Notify><Name>㐀𠀀</Name></Notify>".encode("gb18030")).get("Name") == "㐀𠀀"


def test_undecodable_bytes_become_marks() -> None:
    assert xml.parse(b"<Notify><Name>a\xff\xffb</Name></Notify>").get("Name").startswith("a\ufffd")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("R&D", "R&D"),
        ("R&amp;D &lt;1&gt; &#65;&#x42;", "R&D <1> AB"),
        ("&unknown;", "&unknown;"),
        ("1 < 2", "1 < 2"),
        ("gate <b road", "gate <b road"),
        ("<3", "<3"),
        ("a > b", "a > b"),
        ("<![CDATA[a < b & c]]>", "a < b & c"),
        ("x<!-- y -->z", "xz"),
        ("a\x01\x0b\x1fb", "ab"),
        ("  padded\r\n", "padded"),
    ],
)
def test_damaged_text(written: str, read: str) -> None:
    element = parse(f"<Notify><Name>{written}</Name><SN>1</SN></Notify>")
    assert element.get("Name") == read
    assert element.get("SN") == "1"


@pytest.mark.parametrize("attribute", ['Num="2"', "Num='2'", "Num=2", "num = 2", 'xmlns="u" Num=2', "junk Num=2"])
def test_attributes(attribute: str) -> None:
    element = parse(f"<Response><DeviceList {attribute}><Item/></DeviceList></Response>")
    listing = element.find("devicelist")
    assert listing is not None
    assert listing.attributes == {"num": "2"}
    assert len(listing.children) == 1


@pytest.mark.parametrize("frame", ["{}", "\0\0{}", "  \r\n{}", "{}\0\0\0", "{}trailing", "\ufeff{}", "junk{}"])
def test_frames(frame: str) -> None:
    body = frame.format('<?xml version="1.0" encoding="UTF-8" ?>\n<notify><CMDTYPE>x</CMDTYPE></notify>')
    assert parse(body).get("CmdType") == "x"


def test_missing_end_tags_keep_what_parsed() -> None:
    assert parse("<Response><CmdType>Catalog</CmdType><SN>4</SN><DeviceList><Item><DeviceID>1</Dev").get("SN") == "4"


def test_namespaces_and_aliases() -> None:
    element = parse('<g:Control xmlns:g="u"><Firmwareversion>7</Firmwareversion></g:Control>'.replace("g:", "", 1))
    assert element.get("Firmware") == "7"


def test_secrets_are_dropped() -> None:
    element = parse(
        "<Response><Password>hunter2<x>hunter2</x></Password><BasicParam><PASSWORD>hunter2</PASSWORD></BasicParam></Response>"
    )
    assert "hunter2" not in repr(element)


@pytest.mark.conformance(88)
@pytest.mark.parametrize(
    "body",
    [
        '<!DOCTYPE a [<!ENTITY x "y">]><Notify>&x;</Notify>',
        '<?xml version="1.0"?><!doctype a SYSTEM "file:///etc/passwd"><Notify/>',
        '<Notify><!ENTITY % p SYSTEM "http://127.0.0.1/"></Notify>',
    ],
)
def test_document_types_are_refused(body: str) -> None:
    with pytest.raises(ManscdpError) as caught:
        parse(body)
    assert caught.value.code == "manscdp_dtd"


@pytest.mark.conformance(88)
def test_entities_are_not_resolved() -> None:
    assert parse("<Notify><Name>&file;</Name></Notify>").get("Name") == "&file;"


@pytest.mark.parametrize("body", ["", "hello", "<html><body/></html>", "\0", "<?xml version='1.0'?>"])
def test_what_is_no_manscdp(body: str) -> None:
    with pytest.raises(ManscdpError):
        parse(body)


def test_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = "<Notify>" + "<a>" * limits.XML_DEPTH
    with pytest.raises(ManscdpError, match="deeper"):
        parse(deep)
    assert parse("<Notify>" + "<a>" * (limits.XML_DEPTH - 1)).name == "Notify"
    with pytest.raises(ManscdpError, match="characters"):
        parse(f"<Notify><a>{'x' * (limits.XML_TEXT + 1)}</a></Notify>")
    monkeypatch.setattr(limits, "XML_ELEMENTS", 10)
    assert parse("<Notify>" + "<a/>" * 9 + "</Notify>").name == "Notify"
    with pytest.raises(ManscdpError, match="elements"):
        parse("<Notify>" + "<a/>" * 10 + "</Notify>")
    monkeypatch.setattr(limits, "XML_BYTES", 100)
    with pytest.raises(ManscdpError, match="bytes"):
        parse("<Notify>" + " " * 100)


@pytest.mark.parametrize(
    "evil",
    [
        b"<![CDATA[",
        b"<a ",
        b"<!--",
        b"&",
        b"&#",
        b"<a b=",
        b"<x/>",
        b"</a>",
        b"<a a=1 a=2 ",
        b"<a>",
        b"\xff",
        b"<?xml ",
        b"<!D",
    ],
)
def test_time_is_linear(evil: bytes) -> None:
    """A megabyte of anything takes at most a second: nothing backtracks."""
    body = b"<Notify " + evil * (1_000_000 // len(evil))
    start = time.perf_counter()
    with contextlib.suppress(ManscdpError):
        xml.parse(body)
    assert time.perf_counter() - start < 2.0
