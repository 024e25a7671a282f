"""/metrics of a whole gateway is what Prometheus reads, and what docs/operations.md tells."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.system import steps
from tests.system.conftest import http_get

DOCS = Path(__file__).parents[2] / "docs"


async def scrape(gateway: Any) -> str:
    tokens = {"Authorization": f"Bearer {gateway.new_admin_token}"}
    status, body = await http_get(f"{gateway.http_url}/metrics", headers=tokens)
    assert status == 200
    return body.decode()


async def test_every_family_appears_once(gateway_at: Callable[..., Any]) -> None:
    async with gateway_at() as gateway:
        text = await scrape(gateway)
    named = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(named) == len(set(named))
    series = [line.rpartition(" ")[0] for line in text.splitlines() if line and not line.startswith("#")]
    assert len(series) == len(set(series))
    families = {family.name: family for family in text_string_to_metric_families(text)}
    kinds = {sample.labels["kind"] for sample in families["gbgw_tasks"].samples}
    assert {"registrar", "other"} <= kinds
    assert not {kind for kind in kinds if kind.startswith("Task-")}


@pytest.mark.parametrize("name", ["operations.md", "operations.zh-CN.md"])
async def test_the_manual_lists_every_metric(gateway_at: Callable[..., Any], name: str) -> None:
    rows = re.findall(r"^\| `(gbgw_.*?)` \|", (DOCS / name).read_text(encoding="utf-8"), re.MULTILINE)
    listed = {metric for row in rows for metric in re.findall(r"gbgw_[a-z_]+", row)}
    async with gateway_at() as gateway, steps.online(gateway) as camera:
        async with steps.playing(gateway, camera):
            text = await scrape(gateway)
        await steps.ends(gateway, camera)
    families = text_string_to_metric_families(text)
    told = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    assert listed == told
