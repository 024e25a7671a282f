"""Fuzz target for gbgw/gb/manscdp, the records made of it, and the simulated device that hears it: any bytes as the
body of a MESSAGE."""

from gbgw.base import limits
from gbgw.base.errors import ManscdpError
from gbgw.device.controls import Controls
from gbgw.device.options import DeviceOptions
from gbgw.gb import answers, manscdp, notices, parameters, schema
from gbgw.gb.manscdp import CatalogPart, DeviceControl, Document
from gbgw.gb.xml import Element

DEVICE = "34020000001320000001"
RECORDS = (
    *(answers.Presets, answers.HomePositionAnswer, answers.CruiseTracks, answers.CruiseTrackPoints),
    *(answers.PtzPosition, answers.SdCards, answers.SnapshotsDone, answers.UpgradeResult, answers.DutyList),
)


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
    _records(document)
    _device(document)
    if isinstance(document.payload, CatalogPart):
        part = document.payload
        assert len(part.items) + part.skipped <= limits.CATALOG_ITEMS
        assert all(len(item.parent_ids) <= limits.CATALOG_PARENTS for item in part.items)
        written = manscdp.catalog_part(1, "34020000001180000001", len(part.items), part.items, "3.0")
        again = manscdp.parse(written).payload
        assert isinstance(again, CatalogPart)
        assert [item.device_id for item in again.items] == [item.device_id for item in part.items]


def _records(document: Document) -> None:
    """What the small answers, parameters and notices make of it: bounded values, whatever stands there."""
    for record in RECORDS:
        for value in schema.write(answers.read(record, document.element)):
            assert len(str(value)) <= limits.ANSWER_ITEMS * (limits.ANSWER_TEXT + 1_024)
    parameters.read(document.element)
    assert set(notices.alarm(document, DEVICE).methods) <= set(notices.METHODS)
    found = notices.positions(document, DEVICE)
    assert len(found) <= limits.POSITIONS
    assert all(abs(each.longitude) <= 180 and abs(each.latitude) <= 90 for each in found)


def _device(document: Document) -> None:
    """The simulated device hears it and goes on."""
    controls = Controls(DeviceOptions(DEVICE, "34020000002000000001", "3402000000", ("192.0.2.1", 5060)))
    if document.root == "Query":
        controls.answer(document, 1.0, encoding=False)
    elif isinstance(document.payload, DeviceControl):
        controls.control(document, 1.0)
        view = controls.view(DEVICE, 2.0)
        assert 0 <= view.pan < 360
    elif document.root == "Control" and document.cmd_type == "DeviceConfig":
        controls.configure(document)


def _bounded(element: Element, depth: int) -> None:
    assert depth <= limits.XML_DEPTH
    assert len(element.text) <= limits.XML_TEXT
    if element.name.lower() == "password":
        assert not element.text
        assert not element.children
    for child in element.children:
        _bounded(child, depth + 1)
