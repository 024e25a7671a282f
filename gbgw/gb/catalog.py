"""Directories: assembles the parts of a Catalog answer and builds the tree (GB/T 28181-2022 section 9.5 and Annex J;
reference rules 3.2 and 3.4).

Parts arrive in any order and may repeat; SumNum and Num cannot be trusted. A catalog is complete only when as many
different items came as SumNum promises; everything else ends as partial, and a partial catalog never deletes a channel.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gbgw.base import limits
from gbgw.base.machine import Tick
from gbgw.gb import ids
from gbgw.gb.manscdp import CatalogItem, CatalogPart, Document

_SETTLE_SECONDS: Final = 2.0  # after as many items as SumNum, not all different: a lost part may still come


@dataclass(frozen=True, slots=True)
class QueryFailed:
    """The Catalog query got no 2xx."""

    reason: str


@dataclass(frozen=True, slots=True)
class CatalogDone:
    """The directory as far as it came.

    complete: all of it, so that what is missing from it does not exist. cause: why it is not complete.
    """

    device_id: str
    items: tuple[CatalogItem, ...]
    complete: bool
    cause: Literal["", "gap", "no_answer", "refused", "too_large"] = ""


@dataclass(frozen=True, slots=True)
class Counted:
    name: str
    detail: str = ""


Event = Document | QueryFailed | Tick
Effect = CatalogDone | Counted


class CatalogQuery:
    """One Catalog query, from the moment it was sent until its directory is complete or no part came for too long."""

    __slots__ = (
        "_deadline",
        "_done",
        "_items",
        "_latest",
        "_parts",
        "_received",
        "_repeats",
        "_total",
        "device_id",
        "sn",
    )

    def __init__(self, device_id: str, sn: int, now: float) -> None:
        self.device_id = device_id
        self.sn = sn
        self._items: dict[str, CatalogItem] = {}
        self._received = 0
        self._parts: set[tuple[str, ...]] = set()  # the ids of each part, to know a repeated one
        self._repeats = 0  # items of a part that are no new ids by their own fault: doubles inside it, unusable ids
        self._total: int | None = None
        self._deadline = now + limits.CATALOG_FIRST_SECONDS
        self._latest = now + limits.CATALOG_SECONDS
        self._done = False

    @property
    def deadline(self) -> float | None:
        return None if self._done else self._deadline

    @property
    def finished(self) -> bool:
        return self._done

    @property
    def progress(self) -> tuple[int, int | None]:
        """Different items so far, and how many are promised."""
        return len(self._items), self._total

    def push(self, event: Event, now: float) -> Sequence[Effect]:
        """Take a Catalog response that the correlation matched, or fire the gap timer."""
        if self._done:
            return ()
        if now >= self._deadline:
            return self._finish("gap" if self._total is not None else "no_answer")
        match event:
            case QueryFailed():
                return self._finish("refused")
            case Document(payload=CatalogPart() as part):
                return self._take(part, now)
        return ()

    def _take(self, part: CatalogPart, now: float) -> Sequence[Effect]:
        self._total = max(self._total or 0, part.total if part.total is not None else len(part.items))
        self._received += len(part.items) + part.skipped
        fingerprint = tuple(item.device_id for item in part.items)
        if fingerprint not in self._parts:
            self._parts.add(fingerprint)
            self._repeats += len(fingerprint) - len(set(fingerprint)) + part.skipped
        merge(self._items, part.items)
        effects: list[Effect] = [Counted("catalog.item_unusable")] if part.skipped else []
        if len(self._items) > limits.CHANNELS or self._received > 4 * limits.CHANNELS:
            return [*effects, *self._finish("too_large")]
        if len(self._items) + self._repeats >= self._total:
            return [*effects, *self._finish("")]
        gap = _SETTLE_SECONDS if self._received >= self._total else limits.CATALOG_GAP_SECONDS
        self._deadline = min(now + gap, self._latest)
        return effects

    def _finish(self, cause: Literal["", "gap", "no_answer", "refused", "too_large"]) -> Sequence[Effect]:
        self._done = True
        done = CatalogDone(self.device_id, tuple(self._items.values())[: limits.CHANNELS], not cause, cause)
        return [done] if not cause else [done, Counted(f"catalog.{cause}", self.device_id)]


def merge(known: dict[str, CatalogItem], items: Iterable[CatalogItem]) -> None:
    """Put `items` into `known`; of two with one id the last that is ON wins (GB/T 28181-2022 Annex H)."""
    for item in items:
        old = known.get(item.device_id)
        if old is None or item.online or not old.online:
            known[item.device_id] = item


@dataclass(frozen=True, slots=True)
class Tree:
    """A directory as a tree under its device; an item with several parents hangs under each of them.

    children: ids under an id, in catalog order; the device itself is the root and may be missing from items.
    """

    root: str
    items: Mapping[str, CatalogItem]
    parents: Mapping[str, tuple[str, ...]]
    children: Mapping[str, tuple[str, ...]]


def build_tree(items: Iterable[CatalogItem], device_id: str, platform_id: str = "") -> Tree:
    """Return the tree of a directory, without cycles: every item is reachable from `device_id`.

    Parents are the known ids of ParentID; without one the business group, then the region, then the root. Regions
    hang under the longest known prefix of their code. ParentID equal to `platform_id` means the root (Hikvision).
    """
    by_id: dict[str, CatalogItem] = {}
    merge(by_id, items)
    by_id.pop(device_id, None)
    parents = {item.device_id: _parents(item, by_id, device_id, platform_id) for item in by_id.values()}
    _break_cycles(parents, device_id)
    children: dict[str, list[str]] = {device_id: []}
    for item_id, above in parents.items():
        for parent in above:
            children.setdefault(parent, []).append(item_id)
    return Tree(
        device_id,
        by_id,
        {key: tuple(value) for key, value in parents.items()},
        {k: tuple(v) for k, v in children.items()},
    )


def _parents(item: CatalogItem, known: Mapping[str, CatalogItem], root: str, platform_id: str) -> list[str]:
    own = item.device_id
    if ids.is_region(own):
        prefixes = [own[:length] for length in range(len(own) - 2, 0, -2)]
        return [next((prefix for prefix in prefixes if prefix in known), root)]
    named = [root if parent in (root, platform_id) else parent for parent in item.parent_ids]
    found = [parent for parent in dict.fromkeys(named) if parent != own and (parent in known or parent == root)]
    if found and found != [root]:
        return [parent for parent in found if parent != root] if _in_group(found, known) else found
    for parent in (item.business_group_id, item.civil_code):
        if parent != own and parent in known:
            return [parent]
    return [root]


def _in_group(parents: Iterable[str], known: Mapping[str, CatalogItem]) -> bool:
    """Tell whether one of the parents is a group or organisation: the device's own id beside it says nothing more."""
    grouping = (ids.BUSINESS_GROUP, ids.VIRTUAL_ORGANISATION)
    return any(parent in known and ids.type_code(parent) in grouping for parent in parents)


def _break_cycles(parents: dict[str, list[str]], root: str) -> None:
    """Remove the link that closes each cycle, walking towards the root; what lost every parent hangs under the root."""
    settled: set[str] = {root}
    for start in parents:
        path: list[tuple[str, int]] = [(start, 0)] if start not in settled else []
        on_path = {start} if path else set()
        while path:
            item_id, position = path.pop()
            above = parents[item_id]
            if position == len(above):
                on_path.discard(item_id)
                settled.add(item_id)
                if not above:
                    above.append(root)
                continue
            parent = above[position]
            if parent in on_path:
                del above[position]
                path.append((item_id, position))
                continue
            path.append((item_id, position + 1))
            if parent not in settled:
                path.append((parent, 0))
                on_path.add(parent)
