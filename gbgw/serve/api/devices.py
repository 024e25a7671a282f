"""Devices and their channels."""

from typing import Any, Final

from pydantic import Field

from gbgw.serve.api.shapes import CAMERA, GONE, Input, Name, Page, Password, channel_of, device_of, page_of
from gbgw.serve.openapi import Call, Route
from gbgw.serve.source import CatalogState, Channel, Device, DeviceChange, NewDevice, Transport, TreeNode


class DeviceInput(Input):
    id: str = Field(pattern=r"^[0-9A-Za-z_]{1,32}$", description="20-digit code of the device, or what it calls itself")
    name: Name = ""
    password: Password | None = Field(None, description="its SIP password; kept as a hash only")
    media_transport: Transport | None = None


class DeviceChangeInput(Input):
    """Absent or null: leave as it is."""

    name: Name | None = None
    password: Password | None = None
    media_transport: Transport | None = None


async def list_devices(call: Call) -> Any:
    return page_of(call, call.serving.control.devices(), lambda device: device.id)


async def create_device(call: Call) -> Any:
    body: DeviceInput = call.body
    return await call.serving.control.create_device(NewDevice(body.id, body.name, body.password, body.media_transport))


async def get_device(call: Call) -> Any:
    return device_of(call)


async def change_device(call: Call) -> Any:
    body: DeviceChangeInput = call.body
    device = device_of(call)
    return await call.serving.control.update_device(
        device.id, DeviceChange(body.name, body.password, body.media_transport)
    )


async def delete_device(call: Call) -> None:
    await call.serving.control.delete_device(call.path["id"])


async def refresh_catalog(call: Call) -> Any:
    await call.serving.control.refresh_catalog(device_of(call).id)
    return await list_channels(call)


async def get_catalog(call: Call) -> Any:
    return call.serving.control.catalog_state(device_of(call).id)


async def list_tree(call: Call) -> Any:
    return page_of(call, await call.serving.control.tree(device_of(call).id), lambda node: node.id)


async def list_channels(call: Call) -> Any:
    return page_of(call, call.serving.control.channels(device_of(call).id), lambda channel: channel.id)


async def get_channel(call: Call) -> Any:
    return channel_of(call)


async def send_iframe(call: Call) -> None:
    channel = channel_of(call)
    await call.serving.control.request_keyframe(channel.device_id, channel.id)


ROUTES: Final[tuple[Route, ...]] = (
    Route("GET", "/devices", list_devices, "All devices", "view", Page[Device], paged=True),
    Route(
        "POST",
        "/devices",
        create_device,
        "Admit a device",
        "admin",
        Device,
        DeviceInput,
        status=201,
        idempotent=False,
        errors=(409, 503),
    ),
    Route("GET", "/devices/{id}", get_device, "One device", "view", Device, errors=GONE),
    Route(
        "PATCH",
        "/devices/{id}",
        change_device,
        "Change a device",
        "admin",
        Device,
        DeviceChangeInput,
        errors=GONE,
    ),
    Route("DELETE", "/devices/{id}", delete_device, "Forget a device and end its streams", "admin"),
    Route(
        "POST",
        "/devices/{id}/catalog",
        refresh_catalog,
        "Ask a device for its catalog",
        "control",
        Page[Channel],
        paged=True,
        errors=CAMERA,
    ),
    Route(
        "GET",
        "/devices/{id}/catalog",
        get_catalog,
        "How far the list of channels can be trusted, and a reading of it has come",
        "view",
        CatalogState,
        errors=GONE,
    ),
    Route(
        "GET",
        "/devices/{id}/tree",
        list_tree,
        "The directory of a device as a tree: regions, groups, organisations, channels",
        "view",
        Page[TreeNode],
        paged=True,
        errors=GONE,
    ),
    Route(
        "GET",
        "/devices/{id}/channels",
        list_channels,
        "Channels of a device",
        "view",
        Page[Channel],
        paged=True,
        errors=GONE,
    ),
    Route("GET", "/devices/{id}/channels/{cid}", get_channel, "One channel", "view", Channel, errors=GONE),
    Route(
        "POST",
        "/devices/{id}/channels/{cid}/iframe",
        send_iframe,
        "Ask a channel for a key frame",
        "control",
        audit="iframe",
        errors=CAMERA,
    ),
)
