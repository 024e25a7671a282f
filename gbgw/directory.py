"""The devices and channels this platform knows: the working copy of what the store keeps, with what only the moment
knows (who is online, from where).

Synchronous and without a clock: wall time is an argument. The gateway's tasks write into it, the API and the sessions
read.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from gbgw.base import limits
from gbgw.base.errors import LimitError, RequestError
from gbgw.gb import ids
from gbgw.gb.manscdp import CatalogItem, DeviceInfo
from gbgw.sip.flow import Flow

MediaTransport = Literal["udp", "tcp-passive", "tcp-active"]
PTZ_TYPES = frozenset({1, 4, 5})  # dome, remote-controlled gun and half-dome (GB/T 28181-2022 A.2.1.9)


@dataclass(slots=True)
class DeviceEntry:
    """One device.

    flow: where requests to it go; None while it is offline. reason: why it is offline.
    catalog: how far its channel list can be trusted.
    """

    id: str
    name: str = ""
    manufacturer: str = ""
    model: str = ""
    firmware: str = ""
    edition: str = ""
    media_transport: MediaTransport | None = None
    has_password: bool = False
    online: bool = False
    reason: str = "never_registered"
    flow: Flow | None = None
    registered: datetime | None = None
    expires: datetime | None = None
    last_seen: datetime | None = None
    catalog: Literal["unknown", "partial", "complete"] = "unknown"
    channels: dict[str, CatalogItem] = field(default_factory=dict)

    def playable(self, channel_id: str) -> bool:
        item = self.channels.get(channel_id)
        return item is not None and ids.is_channel(channel_id)


class Directory:
    """All devices, by id."""

    def __init__(self) -> None:
        self._devices: dict[str, DeviceEntry] = {}

    def __iter__(self) -> Iterator[DeviceEntry]:
        return iter(sorted(self._devices.values(), key=lambda entry: entry.id))

    def __len__(self) -> int:
        return len(self._devices)

    def get(self, device_id: str) -> DeviceEntry | None:
        return self._devices.get(device_id)

    def add(self, entry: DeviceEntry) -> DeviceEntry:
        """Put a device in, or return the one already there. Raises LimitError when the directory is full."""
        known = self._devices.get(entry.id)
        if known is not None:
            return known
        if len(self._devices) >= limits.DEVICES:
            raise LimitError(
                f"{limits.DEVICES} devices are known already", code="devices_full", remedy="delete unused devices"
            )
        self._devices[entry.id] = entry
        return entry

    def remove(self, device_id: str) -> DeviceEntry | None:
        return self._devices.pop(device_id, None)

    def find(self, device_id: str, channel_id: str) -> tuple[DeviceEntry, CatalogItem]:
        """Return the device and the channel to play.

        A device whose catalog is not known yet may be asked for any channel: the camera itself will refuse a wrong
        one. Raises RequestError 404 `unknown_device` or `unknown_channel`, 504 `not_registered` or `device_offline`.
        """
        key = ids.stream_key(device_id, channel_id)
        entry = self._devices.get(device_id)
        if entry is None:
            raise RequestError(
                f"no device {device_id} is known",
                status=404,
                code="unknown_device",
                stream=key,
                remedy="register the camera with this gateway, or check the id in the URL",
            )
        item = entry.channels.get(channel_id)
        if item is None and (entry.catalog == "complete" or not ids.is_channel(channel_id)):
            raise RequestError(
                f"device {device_id} has no channel {channel_id}",
                status=404,
                code="unknown_channel",
                stream=key,
                remedy=f"its channels are listed at /api/v1/devices/{device_id}/channels",
            )
        if not entry.online or entry.flow is None:
            never = entry.reason == "never_registered"
            raise RequestError(
                f"device {device_id} " + ("has never registered" if never else f"is offline ({entry.reason})"),
                status=504,
                code="not_registered" if never else "device_offline",
                stream=key,
                remedy="check its power, its network and the platform address, id and password set in it",
            )
        return entry, item or CatalogItem(channel_id)

    def configured(
        self, device_id: str, *, name: str, media_transport: MediaTransport | None, has_password: bool
    ) -> DeviceEntry:
        """Take what the operator wrote of a device, known or new."""
        entry = self.add(DeviceEntry(device_id))
        entry.name, entry.media_transport, entry.has_password = name, media_transport, has_password
        return entry

    def registered(self, device_id: str, flow: Flow, *, edition: str, expires: datetime, now: datetime) -> DeviceEntry:
        entry = self.add(DeviceEntry(device_id))
        entry.online, entry.reason, entry.flow = True, "", flow
        entry.edition = edition
        entry.registered = entry.last_seen = now
        entry.expires = expires
        return entry

    def seen(self, device_id: str, now: datetime) -> None:
        entry = self._devices.get(device_id)
        if entry is not None:
            entry.last_seen = now

    def offline(self, device_id: str, reason: str) -> DeviceEntry | None:
        entry = self._devices.get(device_id)
        if entry is not None:
            entry.online, entry.reason, entry.flow = False, reason, None
        return entry

    def described(self, device_id: str, info: DeviceInfo) -> DeviceEntry | None:
        """Take a DeviceInfo answer; what the operator named stays named."""
        entry = self._devices.get(device_id)
        if entry is not None:
            entry.name = entry.name or info.name
            entry.manufacturer = info.manufacturer or entry.manufacturer
            entry.model = info.model or entry.model
            entry.firmware = info.firmware or entry.firmware
        return entry

    def catalogued(self, device_id: str, items: Iterable[CatalogItem], *, complete: bool) -> DeviceEntry | None:
        """Take a catalog. Only a complete one removes channels (statement 36); at most limits.CHANNELS are kept."""
        entry = self._devices.get(device_id)
        if entry is None:
            return None
        channels = {} if complete else dict(entry.channels)
        for item in items:
            if item.device_id in channels or len(channels) < limits.CHANNELS:
                channels[item.device_id] = item
        entry.channels = channels
        entry.catalog = "complete" if complete else ("complete" if entry.catalog == "complete" else "partial")
        return entry
