"""What tests of control do: the API of a running gateway, and a raw camera that is told things."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.support.peer import Camera, Text
from tests.system.conftest import CHANNEL, DEVICE
from tests.system.steps import fact, ready, server_of

CONTROL = "/api/v1"
HERE = f"{CONTROL}/devices/{DEVICE}/channels/{CHANNEL}"
DEVICE_PATH = f"{CONTROL}/devices/{DEVICE}"


class Api:
    """The API as one token sees it."""

    def __init__(self, client: aiohttp.ClientSession, url: str, token: str) -> None:
        self.client, self.url, self.token = client, url, token

    async def raw(self, method: str, path: str, **options: Any) -> tuple[int, Any, bytes]:
        headers = {"Authorization": f"Bearer {self.token}"}
        async with self.client.request(method, self.url + path, headers=headers, **options) as answer:
            data = await answer.read()
            is_json = answer.content_type == "application/json" and data
            return answer.status, (await answer.json() if is_json else None), data

    async def __call__(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        found, value, data = await self.raw(method, path, **options)
        assert found == status, (method, path, found, data)
        return value

    async def refused(self, method: str, path: str, status: int, **options: Any) -> str:
        """The cause code of a refusal."""
        return str((await self(method, path, status, **options))["error"]["code"])

    async def another(self, name: str, *scopes: str) -> "Api":
        made = await self("POST", "/api/v1/tokens", 201, json={"name": name, "scopes": scopes})
        return Api(self.client, self.url, made["token"])


@asynccontextmanager
async def api_of(gateway: Any) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession() as client:
        yield Api(client, gateway.http_url, gateway.new_admin_token)


@asynccontextmanager
async def controlled(gateway: Any, **options: Any) -> AsyncIterator[tuple[Camera, Api]]:
    """A raw camera that is online with one channel, and the API."""
    async with Camera(DEVICE, server=server_of(gateway, options.get("transport", "udp")), **options) as camera:
        await ready(camera, gateway)
        async with api_of(gateway) as api:
            yield camera, api


def element(message: Text, name: str) -> str:
    match = re.search(rf"<{name}>(.*?)</{name}>", message.body.decode("gb18030"), re.DOTALL)
    assert match is not None, message.body
    return match[1]


async def told(camera: Camera, cmd_type: str = "DeviceControl") -> Text:
    """The next MESSAGE with this CmdType; it is answered 200."""
    return (await camera.query(cmd_type))[1]


def says(
    camera: Camera, cmd_type: str, sn: int | str, inside: str = "<Result>OK</Result>", target: str = CHANNEL
) -> None:
    """The camera's answer to a question."""
    camera.send(
        camera.message(
            f"<Response>\n<CmdType>{cmd_type}</CmdType>\n<SN>{sn}</SN>\n<DeviceID>{target}</DeviceID>\n{inside}\n</Response>"
        )
    )


@asynccontextmanager
async def while_asked(call: Any) -> AsyncIterator["asyncio.Task[Any]"]:
    """Run an API call beside what the camera does; at the end of the block it is awaited."""
    task = asyncio.ensure_future(call)
    try:
        yield task
        async with asyncio.timeout(10):
            await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


BESIDE = frozenset(("CmdType", "SN", "DeviceID", "Info", "PTZCmdParams", "StreamNumber", "DeviceID2", "TargetArea"))


def sub_commands(message: Text) -> list[str]:
    """Names of the elements beside CmdType, SN, DeviceID and what belongs to a command."""
    body = re.sub(r"^<\?xml.*?\?>", "", message.body.decode("gb18030"))
    inside = re.search(r"<Control>(.*)</Control>", body, re.DOTALL)
    assert inside is not None
    names, depth = [], 0
    for close, name in re.findall(r"<(/?)([A-Za-z0-9]+)[^>]*>", inside[1]):
        if close:
            depth -= 1
        else:
            if depth == 0:
                names.append(name)
            depth += 1
    return [name for name in names if name not in BESIDE]


__all__ = [
    "CONTROL", "DEVICE_PATH", "HERE", "Api", "api_of", "controlled", "element", "fact", "says", "sub_commands", "told",
    "while_asked",
]  # fmt: skip
