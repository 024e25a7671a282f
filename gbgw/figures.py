"""The figures of /metrics that the gateway itself knows; `serve.metrics` writes them."""

import asyncio
import resource
from collections import Counter
from collections.abc import Iterable, Mapping

from gbgw.directory import Directory
from gbgw.gb.ssrc import SsrcPool
from gbgw.observe.histogram import Histogram
from gbgw.serve.source import Sample
from gbgw.session import Session, State
from gbgw.worker.base import PortCounts


def samples(
    directory: Directory, sessions: Mapping[str, Session], ssrcs: SsrcPool, ports: PortCounts, first_frames: Histogram
) -> Iterable[Sample]:
    """Yield every figure once."""
    online = sum(entry.online for entry in directory)
    yield Sample("devices", online, labels={"state": "online"}, help="Devices known to the platform.")
    yield Sample("devices", len(directory) - online, labels={"state": "offline"})
    states = Counter(session.state.value for session in sessions.values())
    for state in State:
        yield Sample("streams", states[state.value], labels={"state": state.value}, help="Streams by state.")
    yield Sample("ssrcs", ssrcs.in_use, labels={"state": "in_use"}, help="SSRCs of the platform's pool.")
    yield Sample("ssrcs", ssrcs.available, labels={"state": "free"})
    yield Sample("ports", ports.in_use, labels={"state": "in_use"}, help="RTP port pairs.")
    yield Sample("ports", ports.free, labels={"state": "free"})
    kinds = Counter(_kind(task.get_name()) for task in asyncio.all_tasks())
    for kind, count in sorted(kinds.items()):
        yield Sample("tasks", count, labels={"kind": kind}, help="asyncio tasks by kind.")
    yield Sample(
        "invite_to_first_frame_seconds",
        first_frames.sum,
        "histogram",
        help="From the INVITE to the first playable picture.",
        buckets=first_frames.buckets,
    )
    for key, session in sessions.items():
        yield from _of_stream(key, session)


def of_this_process(sessions: Mapping[str, Session]) -> Iterable[Sample]:
    """What a pool of workers tells of each, where there is none (`media.workers = 0`)."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    now = asyncio.get_running_loop().time()
    labels = {"worker": "0"}
    streams = [session.stream for session in sessions.values() if session.ingest is not None]
    yield Sample("workers", 0, labels={"state": "running"}, help="Media worker processes.")
    yield Sample("workers", 0, labels={"state": "starting"})
    yield Sample("worker_cpu_seconds", used.ru_utime + used.ru_stime, "counter", labels)
    yield Sample("worker_streams", len(streams), labels=labels)
    yield Sample("worker_bitrate", sum(stream.bitrate(now) for stream in streams if stream is not None), labels=labels)


def _of_stream(key: str, session: Session) -> Iterable[Sample]:
    figures = session.figures()
    labels = {"stream": key}
    for name, value in (
        ("packets", figures.packets),
        ("lost", figures.lost),
        ("reordered", figures.reordered),
        ("late", figures.late),
        ("duplicates", figures.duplicates),
        ("kernel_drops", figures.kernel_drops),
    ):
        yield Sample(f"rtp_{name}", value, "counter", labels, help=f"RTP packets {name} by stream.")
    yield Sample("rtp_bytes", figures.bytes, "counter", labels, help="RTP bytes received by stream.")
    yield Sample("rtp_jitter_seconds", figures.jitter_seconds, "gauge", labels, help="RFC 3550 jitter.")
    yield Sample("av_skew_seconds", figures.skew_seconds, "gauge", labels, help="Sound late against the picture.")


def _kind(task: str) -> str:
    """The kind in "kind:id"; libraries leave their tasks the names of asyncio, which are endless."""
    return "other" if task.startswith("Task-") else task.split(":", 1)[0]
