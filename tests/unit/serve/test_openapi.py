"""The OpenAPI document: complete, resolvable, and what the answers really look like."""

import re
from collections.abc import Iterator
from typing import Any

from gbgw.serve.api import PREFIX, ROUTES
from gbgw.serve.openapi import document, path_names
from tests.unit.serve.support import KEY, world


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "$ref":
                yield item
            else:
                yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_every_route_is_an_operation_with_its_parameters() -> None:
    made = document(ROUTES, server=PREFIX)
    assert made["openapi"].startswith("3.1")
    operations = [(path, method) for path, item in made["paths"].items() for method in item]
    assert len(operations) == len(ROUTES)
    identities = [item["operationId"] for paths in made["paths"].values() for item in paths.values()]
    assert len(set(identities)) == len(identities)
    for route in ROUTES:
        operation = made["paths"][route.path][route.method.lower()]
        named = [item["name"] for item in operation["parameters"] if item["in"] == "path"]
        assert named == path_names(route.path)
        assert (route.method == "GET") != ("dempotent" in operation["description"])
        assert "401" in operation["responses"]
    assert {reference.rpartition("/")[2] for reference in references(made)} <= set(made["components"]["schemas"])


def test_no_schema_shows_a_stored_hash() -> None:
    schemas = document(ROUTES, server=PREFIX)["components"]["schemas"]
    outgoing = [name for name in schemas if not name.endswith("Input")]
    assert not any("sha256" in str(schemas[name]) or "'password'" in str(schemas[name]) for name in outgoing)


async def test_answers_have_exactly_the_fields_of_their_schema() -> None:
    async with world(public_url="https://x.example/pre") as it:
        async with it.client.get(f"{it.url}{PREFIX}/openapi.json") as response:
            made = await response.json()
        assert made["servers"] == [{"url": f"/pre{PREFIX}"}]
        stream = await it.json("POST", f"{PREFIX}/streams", json={"key": KEY})
        assert set(stream) == set(made["components"]["schemas"]["StreamOut"]["properties"])
        (device,) = (await it.json("GET", f"{PREFIX}/devices"))["items"]
        assert set(device) == set(made["components"]["schemas"]["Device"]["properties"])


async def test_the_page_needs_nothing_foreign() -> None:
    async with world() as it, it.client.get(f"{it.url}/api/docs") as response:
        assert response.status == 200
        page = await response.text()
        assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert policy.count("'sha256-") == 2
        assert "unsafe" not in policy
