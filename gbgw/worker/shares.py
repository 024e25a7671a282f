"""What each of several media workers gets of what the configuration gives to all: ports, and processors to run on."""

from collections.abc import Sequence
from dataclasses import dataclass

from gbgw.base import limits
from gbgw.base.config import Config, cpu_list, port_range
from gbgw.base.errors import ConfigError
from gbgw.worker.capacity import Capacity


@dataclass(frozen=True, slots=True)
class Count:
    """Media workers: how many, and what keeps "auto" from more; "" for a number that was asked for."""

    workers: int
    reason: str = ""


def count(config: Config, capacity: Capacity) -> Count:
    """How many workers `media.workers` means.

    "auto": one for each processor but one, at least one, as far as there are ports to share and memory for them. Where
    memory is for one process only, 0.
    """
    media, ports = config.media, config.webrtc.ports
    if media.workers != "auto":
        return Count(media.workers)
    processors = f"{capacity.cpus} processors" if capacity.cpus > 1 else "1 processor"
    bounds = [
        Count(max(1, capacity.cpus - 1), processors),
        Count(capacity.memory // limits.WORKER_MEMORY_BYTES - 1, f"{capacity.memory >> 20} MiB of memory"),
        Count(len(_pairs(media.ports)), f"media.ports {media.ports}"),
        Count(limits.WORKERS, "no more are of use"),
    ]
    if media.single_port:
        bounds.append(Count(1, "media.single_port"))
    if ports:
        bounds.append(Count(len(port_range(ports)), f"webrtc.ports {ports}"))
    least = min(bounds, key=lambda bound: bound.workers)
    return Count(max(0, least.workers), least.reason)


def divide(config: Config, workers: int) -> list[Config]:
    """The configuration of each worker: its own part of `media.ports` and `webrtc.ports`, else as it is.

    The parts are disjoint and together the whole. Raises ConfigError when there are too few ports.
    """
    if config.media.single_port and workers > 1:
        raise ConfigError(
            f"media.single_port {config.media.single_port} cannot be shared by {workers} media workers",
            remedy="set media.workers = 1 or 0, or media.single_port = 0",
        )
    pairs = _pairs(config.media.ports)
    if len(pairs) < workers:
        raise ConfigError(
            f"media.ports {config.media.ports} has {len(pairs)} pairs of ports for {workers} media workers",
            remedy="widen media.ports or lower media.workers",
        )
    media = [f"{part[0]}-{part[-1] + 1}" for part in _parts(pairs, workers)]
    webrtc = [""] * workers
    if config.webrtc.ports:
        ports = port_range(config.webrtc.ports)
        if len(ports) < workers:
            raise ConfigError(
                f"webrtc.ports {config.webrtc.ports} has {len(ports)} ports for {workers} media workers",
                remedy="give each worker one at least, lower media.workers, or leave webrtc.ports empty",
            )
        # A part of one port is that port, which all viewers of the worker share.
        webrtc = [f"{part[0]}-{part[-1]}" if len(part) > 1 else f"{part[0]}" for part in _parts(ports, workers)]
    return [
        config.model_copy(
            update={
                "sip": config.sip.model_copy(update={"password": ""}),  # none of a worker's business
                "media": config.media.model_copy(update={"ports": media[number], "workers": 0}),
                "webrtc": config.webrtc.model_copy(update={"ports": webrtc[number]}),
            }
        )
        for number in range(workers)
    ]


def pin(wanted: str, workers: int, allowed: Sequence[int]) -> list[tuple[int, ...]]:
    """The processors of each worker; () for all. wanted: `media.worker_cpus`; allowed: those that this process may use.

    "auto": one each, in turn, the first of them left to control where there are enough. A list: one each, in turn.
    Raises ConfigError for a processor that is not there.
    """
    if not wanted:
        return [()] * workers
    if wanted == "auto":
        cpus = list(allowed[1:] if len(allowed) > workers else allowed)
    else:
        cpus = cpu_list(wanted)
        missing = [cpu for cpu in cpus if cpu not in allowed]
        if missing:
            raise ConfigError(
                f"media.worker_cpus: this process may not use processor {missing[0]}",
                remedy=f"it may use {', '.join(map(str, allowed))}",
            )
    return [(cpus[number % len(cpus)],) for number in range(workers)]


def _pairs(ports: str) -> range:
    """The even ports that have the odd one above them in the range."""
    whole = port_range(ports)
    first = whole[0] + whole[0] % 2
    return range(first, whole[-1], 2)


def _parts(whole: range, count: int) -> list[range]:
    return [whole[len(whole) * number // count : len(whole) * (number + 1) // count] for number in range(count)]
