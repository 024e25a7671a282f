"""The working copy of devices and channels."""

from datetime import UTC, datetime, timedelta

import pytest

from gbgw.base import limits
from gbgw.base.errors import LimitError, RequestError
from gbgw.directory import DeviceEntry, Directory
from gbgw.gb.manscdp import CatalogItem, DeviceInfo
from tests.unit.gb.support import CAMERA, RECORDER, udp

CHANNEL = "34020000001310000001"
OTHER = "34020000001310000002"
GROUP = "34020000002150000001"  # a business group: listed, never playable
NOW = datetime(2026, 2, 3, 8, 15, tzinfo=UTC)


def online(directory: Directory, device_id: str = CAMERA) -> DeviceEntry:
    return directory.registered(device_id, udp(), edition="2022", expires=NOW + timedelta(days=1), now=NOW)


def item(device_id: str, name: str = "") -> CatalogItem:
    return CatalogItem(device_id, name=name)


def code_of(directory: Directory, device_id: str, channel_id: str) -> tuple[str, int]:
    with pytest.raises(RequestError) as raised:
        directory.find(device_id, channel_id)
    assert raised.value.remedy
    assert raised.value.stream == f"{device_id}-{channel_id}"
    return raised.value.code, raised.value.status


def test_a_device_comes_and_goes() -> None:
    directory = Directory()
    entry = online(directory)
    assert (entry.online, entry.flow, entry.registered, entry.last_seen) == (True, udp(), NOW, NOW)
    directory.seen(CAMERA, NOW + timedelta(seconds=5))
    directory.seen("nobody", NOW)
    assert entry.last_seen == NOW + timedelta(seconds=5)
    assert directory.offline(CAMERA, "expired") is entry
    assert (entry.online, entry.flow, entry.reason) == (False, None, "expired")
    assert directory.offline("nobody", "expired") is None
    assert online(directory) is entry
    assert directory.remove(CAMERA) is entry
    assert directory.remove(CAMERA) is None
    assert len(directory) == 0


def test_why_a_channel_cannot_be_played() -> None:
    directory = Directory()
    assert code_of(directory, CAMERA, CHANNEL) == ("unknown_device", 404)
    directory.add(DeviceEntry(CAMERA))
    assert code_of(directory, CAMERA, CHANNEL) == ("not_registered", 504)
    online(directory)
    directory.catalogued(CAMERA, [item(CHANNEL)], complete=True)
    assert code_of(directory, CAMERA, OTHER) == ("unknown_channel", 404)
    directory.offline(CAMERA, "keepalive")
    assert code_of(directory, CAMERA, CHANNEL) == ("device_offline", 504)
    assert code_of(directory, CAMERA, OTHER) == ("unknown_channel", 404)


def test_before_the_catalog_is_known_the_camera_decides() -> None:
    directory = Directory()
    entry = online(directory)
    found, channel = directory.find(CAMERA, CHANNEL)
    assert found is entry
    assert channel.device_id == CHANNEL
    assert code_of(directory, CAMERA, GROUP) == ("unknown_channel", 404)
    directory.catalogued(CAMERA, [item(OTHER, "gate")], complete=False)
    assert directory.find(CAMERA, OTHER)[1].name == "gate"
    assert directory.find(CAMERA, CHANNEL)[1].name == ""


def test_only_channels_of_the_catalog_are_shown_as_playable() -> None:
    entry = DeviceEntry(RECORDER, channels={CHANNEL: item(CHANNEL), GROUP: item(GROUP)})
    assert entry.playable(CHANNEL)
    assert not entry.playable(OTHER)
    assert not entry.playable(GROUP)


def test_only_a_complete_catalog_removes_channels() -> None:
    directory = Directory()
    entry = online(directory)
    directory.catalogued(CAMERA, [item(CHANNEL)], complete=False)
    assert (entry.catalog, set(entry.channels)) == ("partial", {CHANNEL})
    directory.catalogued(CAMERA, [item(OTHER)], complete=True)
    assert (entry.catalog, set(entry.channels)) == ("complete", {OTHER})
    directory.catalogued(CAMERA, [item(CHANNEL)], complete=False)
    assert (entry.catalog, set(entry.channels)) == ("complete", {CHANNEL, OTHER})
    assert directory.catalogued("nobody", [], complete=True) is None


def test_what_the_operator_named_stays_named() -> None:
    directory = Directory()
    directory.add(DeviceEntry(CAMERA, name="gate"))
    entry = directory.described(CAMERA, DeviceInfo(True, name="IPC", manufacturer="Maker", model="M1"))
    assert entry is not None
    assert (entry.name, entry.manufacturer, entry.model) == ("gate", "Maker", "M1")
    directory.described(CAMERA, DeviceInfo(True))
    assert (entry.manufacturer, entry.model) == ("Maker", "M1"), "an empty answer takes nothing away"
    assert directory.described("nobody", DeviceInfo(True)) is None


def test_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DEVICES", 2)
    monkeypatch.setattr(limits, "CHANNELS", 3)
    directory = Directory()
    first = online(directory)
    online(directory, RECORDER)
    with pytest.raises(LimitError) as raised:
        directory.add(DeviceEntry("34020000001320000009"))
    assert raised.value.code == "devices_full"
    assert directory.add(DeviceEntry(CAMERA)) is first, "a known one is no new one"
    ids = [f"3402000000131000000{number}" for number in range(5)]
    directory.catalogued(CAMERA, map(item, ids), complete=True)
    assert set(first.channels) == set(ids[:3])
    directory.catalogued(CAMERA, [item(ids[0], "renamed"), item(ids[4])], complete=False)
    assert first.channels[ids[0]].name == "renamed"
    assert len(first.channels) == 3


def test_devices_are_listed_by_id() -> None:
    directory = Directory()
    for device_id in (CAMERA, RECORDER):
        online(directory, device_id)
    assert [entry.id for entry in directory] == sorted((CAMERA, RECORDER))
    assert directory.get(RECORDER) is not None
