"""Who watches what: one row per viewer of any protocol, for the API, the metrics and the console's own player."""

import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from gbgw.base import limits
from gbgw.base.errors import LimitError

_WANTED: Final = re.compile(r"[0-9A-Za-z-]{16,64}")  # long enough not to meet another's by chance


def _no_queue() -> int:
    return 0


@dataclass(slots=True, eq=False)
class Viewer:
    """One viewer. The sink that serves it counts here; `queue` tells the bytes that wait for it in this process."""

    id: str
    key: str
    protocol: str
    remote: str
    since: datetime
    bytes: int = 0
    dropped: int = 0  # chunks not sent because it was slow
    skips: int = 0  # times it was made to skip to a key frame
    # Of WebRTC, what the viewer's RTCP tells:
    lost: int = 0  # packets that did not arrive, before any repair
    nacks: int = 0  # packets it asked for again
    resent: int = 0  # packets sent once more
    plis: int = 0  # pictures it could not decode, for want of which it asked for a key frame (PLI, FIR)
    round_trip: float | None = None  # seconds to it and back; None until it has answered a sender report
    queue: Callable[[], int] = field(default=_no_queue, repr=False)


class Viewers:
    """The registry. Counts of viewers that left stay in the totals by protocol."""

    def __init__(self) -> None:
        self._viewers: dict[str, Viewer] = {}
        self._gone_bytes: Counter[str] = Counter()
        self._gone_dropped: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Viewer]:
        return iter(tuple(self._viewers.values()))

    def __len__(self) -> int:
        return len(self._viewers)

    def add(self, key: str, protocol: str, remote: str, *, wanted: str = "") -> Viewer:
        """A new row. Raises LimitError at limits.VIEWERS.

        wanted: id the player chose; taken when it is fit and free. A page cannot read the headers of a WebSocket's
        answer, so this is how it finds its own row.
        """
        if len(self._viewers) >= limits.VIEWERS:
            raise self.full(key)
        is_fit = _WANTED.fullmatch(wanted) is not None and wanted not in self._viewers
        viewer = Viewer(wanted if is_fit else secrets.token_hex(8), key, protocol, remote, datetime.now(UTC))
        self._viewers[viewer.id] = viewer
        return viewer

    @staticmethod
    def full(key: str) -> LimitError:
        """What a viewer is told when there are limits.VIEWERS."""
        return LimitError(
            f"{limits.VIEWERS} viewers are connected; no more are taken.",
            code="viewer_limit",
            remedy="Close other players, or spread viewers over more gateways.",
            stream=key,
        )

    def remove(self, viewer: Viewer) -> None:
        """Quiet when it is gone already."""
        if self._viewers.pop(viewer.id, None) is not None:
            self._gone_bytes[viewer.protocol] += viewer.bytes
            self._gone_dropped[viewer.protocol] += viewer.dropped
            viewer.queue = _no_queue

    def get(self, viewer_id: str) -> Viewer | None:
        return self._viewers.get(viewer_id)

    def of(self, key: str) -> list[Viewer]:
        return [viewer for viewer in self._viewers.values() if viewer.key == key]

    def counts_by_key(self) -> dict[str, Counter[str]]:
        """Viewers by stream key, then by protocol."""
        counts: dict[str, Counter[str]] = {}
        for viewer in self._viewers.values():
            counts.setdefault(viewer.key, Counter())[viewer.protocol] += 1
        return counts

    def by_protocol(self) -> Iterable[tuple[str, int, int, int]]:
        """Yield (protocol, viewers now, bytes ever, dropped chunks ever)."""
        now: Counter[str] = Counter()
        sent = self._gone_bytes.copy()
        dropped = self._gone_dropped.copy()
        for viewer in self._viewers.values():
            now[viewer.protocol] += 1
            sent[viewer.protocol] += viewer.bytes
            dropped[viewer.protocol] += viewer.dropped
        for protocol in sorted(now.keys() | sent.keys()):
            yield protocol, now[protocol], sent[protocol], dropped[protocol]
