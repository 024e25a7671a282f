"""/metrics of a whole gateway is what Prometheus reads: every family once, every series once, few labels."""

from collections.abc import Callable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.system.conftest import http_get


async def test_every_family_appears_once(gateway_at: Callable[..., Any]) -> None:
    async with gateway_at() as gateway:
        tokens = {"Authorization": f"Bearer {gateway.new_admin_token}"}
        status, body = await http_get(f"{gateway.http_url}/metrics", headers=tokens)
    assert status == 200
    text = body.decode()
    named = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(named) == len(set(named))
    series = [line.rpartition(" ")[0] for line in text.splitlines() if line and not line.startswith("#")]
    assert len(series) == len(set(series))
    families = {family.name: family for family in text_string_to_metric_families(text)}
    kinds = {sample.labels["kind"] for sample in families["gbgw_tasks"].samples}
    assert {"registrar", "other"} <= kinds
    assert not {kind for kind in kinds if kind.startswith("Task-")}
