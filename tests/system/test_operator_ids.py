"""A camera whose id is no 20-digit code registers once the operator has made it, and only then."""

from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from tests.support.peer import Camera
from tests.system.conftest import PASSWORD
from tests.system.steps import fact, server_of

EIGHTEEN = "130909113319427420"  # the length that platforms of one vendor use


@pytest.mark.parametrize("own", ["", "its-own-password"])
async def test_an_id_of_another_form_is_the_operators_choice(gateway_at: Callable[..., Any], own: str) -> None:
    password = own or PASSWORD
    async with gateway_at() as gateway, Camera(EIGHTEEN, server=server_of(gateway, "udp")) as camera:
        assert (await camera.register(password)).status == 403
        body = {"id": EIGHTEEN, "password": own} if own else {"id": EIGHTEEN}
        headers = {"Authorization": f"Bearer {gateway.new_admin_token}"}
        url = f"{gateway.http_url}/api/v1/devices"
        async with aiohttp.ClientSession(headers=headers) as client, client.post(url, json=body) as made:
            assert made.status == 201, await made.text()
        assert (await camera.register(password)).status == 200
        await fact(lambda: gateway.directory.get(EIGHTEEN).online, "online")
