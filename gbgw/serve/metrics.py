"""/metrics in the Prometheus text format, /healthz, /readyz and /debug/vars.

The figures are read when they are asked for; nothing is kept here. /metrics and /debug/vars name streams and devices
and therefore need a token that may view (Prometheus: `authorization: credentials`); the health checks need none.
"""

import asyncio
import json
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from gbgw import __version__
from gbgw.serve.context import SERVING, Serving
from gbgw.serve.source import Sample

_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")


class GatewayCollector(Collector):
    """Turn the gateway's samples, its tally and this server's viewers into metric families."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        serving = self._serving
        build = GaugeMetricFamily("gbgw_build_info", "Version of the gateway", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        yield from _families([*serving.observed.samples(), *serving.samples()])
        events = CounterMetricFamily("gbgw_events", "Everything that is counted, by name", labels=["name"])
        for name, count in sorted(serving.observed.counts().items()):
            events.add_metric([name], count)
        yield events
        viewers = GaugeMetricFamily("gbgw_viewers", "Viewers now", labels=["protocol"])
        sent = CounterMetricFamily("gbgw_viewer_bytes", "Bytes sent to viewers", labels=["protocol"])
        dropped = CounterMetricFamily(
            "gbgw_viewer_dropped_chunks", "Chunks kept from slow viewers", labels=["protocol"]
        )
        for protocol, now, sent_bytes, dropped_chunks in serving.viewers.by_protocol():
            viewers.add_metric([protocol], now)
            sent.add_metric([protocol], sent_bytes)
            dropped.add_metric([protocol], dropped_chunks)
        yield from (viewers, sent, dropped)


def _families(samples: Iterable[Sample]) -> Iterable[Metric]:
    grouped: dict[str, list[Sample]] = {}
    for sample in merged(samples):
        if _NAME.fullmatch(sample.name):
            grouped.setdefault(sample.name, []).append(sample)
    for name, group in grouped.items():
        first = group[0]
        labels = sorted(first.labels)
        same = [sample for sample in group if sorted(sample.labels) == labels and sample.kind == first.kind]
        text = first.help or name.replace("_", " ")
        if first.kind == "histogram":
            histogram = HistogramMetricFamily(f"gbgw_{name}", text, labels=labels)
            for sample in same:
                histogram.add_metric([sample.labels[label] for label in labels], _buckets(sample), sample.value)
            yield histogram
            continue
        kind = CounterMetricFamily if first.kind == "counter" else GaugeMetricFamily
        family = kind(f"gbgw_{name}", text, labels=labels)
        for sample in same:
            family.add_metric([sample.labels[label] for label in labels], sample.value)
        yield family


_MERGE: Final[dict[str, Callable[[float, float], float]]] = {"sum": operator.add, "max": max, "min": min}


def merged(samples: Iterable[Sample]) -> Iterable[Sample]:
    """Make one figure of those that several processes tell, as it says of itself."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], Sample] = {}
    for sample in samples:
        identity = (sample.name, tuple(sorted(sample.labels.items())))
        known = found.get(identity)
        if known is not None:
            value = _MERGE[sample.merge](known.value, sample.value)
            sample = replace(known, value=value, help=known.help or sample.help)  # noqa: PLW2901
        found[identity] = sample
    return found.values()


def _buckets(sample: Sample) -> list[tuple[str, float]]:
    found = [(str(bound), float(count)) for bound, count in sample.buckets if bound != float("inf")]
    return [*found, ("+Inf", float(sample.buckets[-1][1] if sample.buckets else 0))]


def mount(app: web.Application, prefix: str) -> None:
    app.router.add_get(f"{prefix}/metrics", metrics)
    app.router.add_get(f"{prefix}/healthz", healthz)
    app.router.add_get(f"{prefix}/readyz", readyz)
    app.router.add_get(f"{prefix}/debug/vars", debug_vars)


async def metrics(request: web.Request) -> web.Response:
    serving = request.app[SERVING]
    serving.authority.require(request, "view", query=True)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(GatewayCollector(serving))
    return web.Response(
        body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"}
    )


async def healthz(_request: web.Request) -> web.Response:
    """The loop turns and answers: alive."""
    return _json({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    reasons = list(request.app[SERVING].observed.not_ready())
    return _json({"status": "ok" if not reasons else "not ready", "reasons": reasons}, 200 if not reasons else 503)


async def debug_vars(request: web.Request) -> web.Response:
    serving = request.app[SERVING]
    serving.authority.require(request, "view", query=True)
    figures = [
        {"name": sample.name, "value": sample.value, "labels": dict(sample.labels)}
        for sample in merged([*serving.observed.samples(), *serving.samples()])
    ]
    viewers = {
        protocol: {"now": now, "bytes": sent, "dropped": dropped}
        for protocol, now, sent, dropped in serving.viewers.by_protocol()
    }
    return _json(
        {
            "version": __version__,
            "counts": dict(sorted(serving.observed.counts().items())),
            "figures": figures,
            "viewers": viewers,
            "tasks": sorted(task.get_name() for task in asyncio.all_tasks()),
        }
    )


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(
        status=status,
        body=json.dumps(value, ensure_ascii=False).encode(),
        content_type="application/json",
        charset="utf-8",
        headers={"Cache-Control": "no-store"},
    )
