"""The loop factories of conftest.py do what they say."""

import asyncio

import pytest


async def test_each_id_has_its_loop(request: pytest.FixtureRequest) -> None:
    running = type(asyncio.get_running_loop())
    assert ("uvloop" in request.node.name) == (running.__module__.startswith("uvloop"))
    assert "uvloop" in request.node.name or "asyncio" in request.node.name
