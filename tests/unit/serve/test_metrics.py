"""Metrics, health and readiness."""

from prometheus_client.parser import text_string_to_metric_families

from tests.unit.serve.support import KEY, world


async def test_metrics_parse_and_carry_samples_counts_and_viewers() -> None:
    async with world() as it:
        async with (
            it.client.get(f"{it.url}/live/{KEY}.flv") as playing,
            it.client.get(f"{it.url}/metrics", headers=it.bearer()) as response,
        ):
            assert playing.status == response.status == 200
            text = await response.text()
        values = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        assert all(name.startswith("gbgw_") for name, _ in values)
        assert values[("gbgw_devices_online", ())] == 3
        assert values[("gbgw_ports", (("state", "used"),))] == 2
        assert values[("gbgw_sip_requests_total", (("method", "REGISTER"),))] == 7
        assert values[("gbgw_events_total", (("name", "ps.malformed"),))] == 4
        assert values[("gbgw_viewers", (("protocol", "flv"),))] == 1
        assert values[("gbgw_viewer_bytes_total", (("protocol", "flv"),))] > 0
        assert values[("gbgw_first_frame_seconds_bucket", (("le", "1.0"),))] == 2
        assert values[("gbgw_first_frame_seconds_count", ())] == 3
        assert values[("gbgw_first_frame_seconds_sum", ())] == 1.5


async def test_metrics_and_vars_need_a_token_health_does_not() -> None:
    async with world() as it:
        for path, status in [("/metrics", 401), ("/debug/vars", 401), ("/healthz", 200), ("/readyz", 200)]:
            async with it.client.get(it.url + path) as response:
                assert response.status == status
        found = await it.json("GET", "/debug/vars")
        assert found["counts"] == {"ps.malformed": 4}
        assert "http:sweep" in found["tasks"]


async def test_readiness_gives_its_reasons() -> None:
    async with world() as it:
        it.control.reasons = ["The SIP port is not open."]
        async with it.client.get(f"{it.url}/readyz") as response:
            assert response.status == 503
            assert (await response.json())["reasons"] == ["The SIP port is not open."]
        async with it.client.get(f"{it.url}/healthz") as response:
            assert response.status == 200
