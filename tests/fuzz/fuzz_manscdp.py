"""Fuzz target for gbgw/gb/manscdp: any bytes as the body of a MESSAGE."""

from gbgw.base import limits
from gbgw.base.errors import ManscdpError
from gbgw.gb import manscdp
from gbgw.gb.manscdp import CatalogPart
from gbgw.gb.xml import Element


def check(data: bytes) -> None:
    """The outcome is a document within the limits, or ManscdpError; what is read of a catalog can be written and read
    again."""
    try:
        document = manscdp.parse(data)
    except ManscdpError:
        return
    assert document.cmd_type
    assert document.sn is None or isinstance(document.sn, int)
    _bounded(document.element, 1)
    if isinstance(document.payload, CatalogPart):
        part = document.payload
        assert len(part.items) + part.skipped <= limits.CATALOG_ITEMS
        assert all(len(item.parent_ids) <= limits.CATALOG_PARENTS for item in part.items)
        written = manscdp.catalog_part(1, "34020000001180000001", len(part.items), part.items, "3.0")
        again = manscdp.parse(written).payload
        assert isinstance(again, CatalogPart)
        assert [item.device_id for item in again.items] == [item.device_id for item in part.items]


def _bounded(element: Element, depth: int) -> None:
    assert depth <= limits.XML_DEPTH
    assert len(element.text) <= limits.XML_TEXT
    if element.name.lower() == "password":
        assert not element.text
        assert not element.children
    for child in element.children:
        _bounded(child, depth + 1)
