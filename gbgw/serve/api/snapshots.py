"""Pictures that cameras take by order (GB/T 28181-2022 9.14): the orders, their pictures, and where cameras upload to.

The upload needs no token: its address holds the 256 random bits of the SessionID. POST and PUT are taken, a multipart
form or the JPEG itself, since the standard fixes neither.
"""

import asyncio
from typing import Any, Final

from aiohttp import BodyPartReader, web
from pydantic import Field

from gbgw.base import limits
from gbgw.base.errors import RequestError
from gbgw.serve.api.shapes import CAMERA, FORCE, GONE, Input, Page, channel_of, forced, number_of, page_of
from gbgw.serve.cameras import Snapshot
from gbgw.serve.context import PATH, SERVING
from gbgw.serve.openapi import Call, Query, Route

UPLOAD: Final = "/snapshot-upload"
WAIT: Final = Query("wait", "number", "seconds to wait for its end, at most 60")
_UPLOAD_SECONDS: Final = 30.0
_WAIT_SECONDS: Final = 60.0


class SnapshotInput(Input):
    count: int = Field(1, ge=1, le=limits.SNAPSHOT_FILES)
    interval: int = Field(1, ge=1, le=3_600, description="seconds between two pictures")
    base_url: str | None = Field(
        None,
        max_length=256,
        pattern=r"^http://[!-~]+$",
        description="how the camera reaches this gateway's HTTP; by default http.public_url, else as you reached it",
    )


async def order_snapshot(call: Call) -> Any:
    channel, body = channel_of(call), call.body
    base = (body.base_url or call.serving.base_url(call.request)).rstrip("/")
    return await call.serving.cameras.order_snapshot(
        channel.device_id,
        channel.id,
        body.count,
        body.interval,
        lambda session: f"{base}{UPLOAD}/{session}",
        forced=forced(call),
    )


async def list_snapshots(call: Call) -> Any:
    channel = channel_of(call)
    orders = call.serving.cameras.snapshots(channel.device_id, channel.id)
    return page_of(call, sorted(orders, key=lambda order: order.id), lambda order: order.id)


async def get_snapshot(call: Call) -> Any:
    try:
        wait = float(call.request.query.get("wait", "0")[:16])
    except ValueError:
        wait = -1.0
    if not 0 <= wait <= _WAIT_SECONDS:
        raise RequestError(f"wait is 0 to {_WAIT_SECONDS:g} seconds.", code="bad_query")
    return await call.serving.cameras.snapshot(call.path["snapshot"], wait)


async def get_snapshot_picture(call: Call) -> Any:
    number = number_of(call, "n", range(1, limits.SNAPSHOT_FILES + 1))
    data = call.serving.cameras.picture(call.path["snapshot"], number)
    return web.Response(body=data, content_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "POST",
        "/devices/{id}/channels/{cid}/snapshot",
        order_snapshot,
        "Have a camera take pictures and upload them (3.0)",
        "control",
        Snapshot,
        SnapshotInput,
        status=202,
        idempotent=False,
        query=(FORCE,),
        errors=CAMERA,
        audit="snapshot",
    ),
    Route(
        "GET",
        "/devices/{id}/channels/{cid}/snapshots",
        list_snapshots,
        "Snapshot orders of a channel in the last hour",
        "view",
        Page[Snapshot],
        paged=True,
        errors=GONE,
    ),
    Route(
        "GET", "/snapshots/{snapshot}", get_snapshot, "One snapshot order", "view", Snapshot, query=(WAIT,), errors=GONE
    ),
    Route(
        "GET",
        "/snapshots/{snapshot}/{n}",
        get_snapshot_picture,
        "A picture of an order",
        "view",
        bytes,
        errors=GONE,
        media="image/jpeg",
    ),
)


# The camera's side


def mount(app: web.Application, prefix: str) -> None:
    path = f"{prefix}{UPLOAD}/{{session:[0-9a-f]{{64}}}}"
    for tail in ("", "/{name:[^/]{0,128}}"):
        app.router.add_route("POST", path + tail, upload)
        app.router.add_route("PUT", path + tail, upload)


async def upload(request: web.Request) -> web.Response:
    cameras = request.app[SERVING].cameras
    session = request.match_info["session"]
    request[PATH] = f"{UPLOAD}/..."  # the log must not tell where anybody may upload to
    cameras.expect_upload(session)  # before its bytes are read
    try:
        async with asyncio.timeout(_UPLOAD_SECONDS):
            pictures = await _pictures(request)
    except TimeoutError:
        raise RequestError("The body did not arrive in time.", status=408, code="body_timeout") from None
    if not pictures:
        raise RequestError("There is no picture in the body.", code="bad_body")
    for name, data in pictures:
        cameras.take_upload(session, name, data)
    return web.Response(status=200, headers={"Cache-Control": "no-store"})


async def _pictures(request: web.Request) -> list[tuple[str, bytes]]:
    """Return (name, bytes) of each picture: the body itself, or every part of a form that is longer than a field."""
    if not request.content_type.startswith("multipart/"):
        return [(request.match_info.get("name", ""), await _bounded(request.content.read))]
    found: list[tuple[str, bytes]] = []
    try:
        reader = await request.multipart()
        while (part := await reader.next()) is not None and len(found) < limits.SNAPSHOT_FILES:
            if isinstance(part, BodyPartReader):
                data = await _bounded(part.read_chunk)
                if part.filename or data.startswith(b"\xff\xd8\xff"):
                    found.append((part.filename or "", data))
    except ValueError as error:
        raise RequestError(f"The form cannot be read: {error}", code="bad_body") from None
    return found


async def _bounded(read: Any) -> bytes:
    data = bytearray()
    while piece := await read(1 << 16):
        data += piece
        if len(data) > limits.SNAPSHOT_BYTES:
            raise RequestError(
                f"The picture has more than {limits.SNAPSHOT_BYTES >> 20} MiB.", status=413, code="body_too_long"
            )
    return bytes(data)
