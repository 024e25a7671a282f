from collections.abc import Sequence

import pytest

from gbgw.base import limits
from gbgw.base.machine import TICK
from gbgw.gb import manscdp
from gbgw.gb.catalog import CatalogDone, CatalogQuery, Counted, QueryFailed, build_tree, merge
from gbgw.gb.manscdp import CatalogItem

RECORDER = "34020000001180000001"
PLATFORM = "34020000002000000001"


def channel(n: int, **fields: object) -> CatalogItem:
    return CatalogItem(f"34020000001320{n:06d}", register_way=1, **fields)  # type: ignore[arg-type]


def part(total: int, *items: CatalogItem) -> manscdp.Document:
    return manscdp.parse(manscdp.catalog_part(7, RECORDER, total, items))


def done(effects: Sequence[object]) -> list[CatalogDone]:
    return [effect for effect in effects if isinstance(effect, CatalogDone)]


@pytest.mark.conformance(35)
def test_a_thousand_items_one_by_one_with_duplicates() -> None:
    query = CatalogQuery(RECORDER, 7, 0.0)
    items = [channel(n) for n in range(1_000)]
    finished: list[CatalogDone] = []
    for n, item in enumerate(items):
        assert not query.finished
        finished += done(query.push(part(1_000, item), n * 0.01))
        if n % 3 == 0 and n < 999:
            finished += done(query.push(part(1_000, item), n * 0.01))
    assert finished == [CatalogDone(RECORDER, tuple(items), True)]
    assert query.finished
    assert query.deadline is None
    assert query.progress == (1_000, 1_000)


def test_duplicates_do_not_stand_for_lost_parts() -> None:
    """As many items as SumNum, but one came twice and one is lost: not complete, whatever the count says."""
    query = CatalogQuery(RECORDER, 7, 0.0)
    query.push(part(3, channel(1)), 1.0)
    query.push(part(3, channel(1)), 1.1)
    assert done(query.push(part(3, channel(2)), 1.2)) == []
    deadline = query.deadline
    assert deadline is not None
    assert deadline < 1.2 + limits.CATALOG_GAP_SECONDS
    assert done(query.push(TICK, deadline)) == [CatalogDone(RECORDER, (channel(1), channel(2)), False, "gap")]


def test_the_late_part_still_completes() -> None:
    query = CatalogQuery(RECORDER, 7, 0.0)
    for item in (channel(1), channel(1), channel(2)):
        query.push(part(3, item), 1.0)
    assert done(query.push(part(3, channel(3)), 2.0))[0].complete


def test_a_double_inside_one_part_counts() -> None:
    query = CatalogQuery(RECORDER, 7, 0.0)
    assert done(query.push(part(2, channel(1), channel(1)), 1.0)) == [CatalogDone(RECORDER, (channel(1),), True)]


def test_repeated_part_with_a_double_counts_once() -> None:
    query = CatalogQuery(RECORDER, 7, 0.0)
    query.push(part(4, channel(1), channel(1)), 1.0)
    assert done(query.push(part(4, channel(1), channel(1)), 1.0)) == []
    assert done(query.push(part(4, channel(2), channel(3)), 1.0))[0].complete


@pytest.mark.conformance(36)
def test_gap_ends_as_partial() -> None:
    query = CatalogQuery(RECORDER, 7, 0.0)
    query.push(part(3, channel(1)), 5.0)
    assert query.deadline == 5.0 + limits.CATALOG_GAP_SECONDS
    effects = query.push(TICK, 5.0 + limits.CATALOG_GAP_SECONDS)
    assert effects == [CatalogDone(RECORDER, (channel(1),), False, "gap"), Counted("catalog.gap", RECORDER)]
    assert query.push(part(3, channel(2)), 6.0) == ()


def test_no_answer_at_all() -> None:
    query = CatalogQuery(RECORDER, 7, 0.0)
    assert query.deadline == limits.CATALOG_FIRST_SECONDS
    assert done(query.push(TICK, 30.0)) == [CatalogDone(RECORDER, (), False, "no_answer")]


def test_refused() -> None:
    query = CatalogQuery(RECORDER, 7, 0.0)
    assert done(query.push(QueryFailed("403"), 1.0)) == [CatalogDone(RECORDER, (), False, "refused")]


def test_empty_is_complete() -> None:
    assert done(CatalogQuery(RECORDER, 7, 0.0).push(part(0), 1.0)) == [CatalogDone(RECORDER, (), True)]


def test_sum_num_that_changes_is_the_largest() -> None:
    query = CatalogQuery(RECORDER, 7, 0.0)
    query.push(part(2, channel(1)), 1.0)
    query.push(part(3, channel(2)), 1.0)
    assert not query.finished
    assert done(query.push(part(1, channel(3)), 1.0))[0].complete


def test_it_cannot_be_kept_open(monkeypatch: pytest.MonkeyPatch) -> None:
    query = CatalogQuery(RECORDER, 7, 0.0)
    now = 0.0
    while not query.finished:
        now += 5.0
        query.push(part(99, channel(1)), now)
        assert now <= limits.CATALOG_SECONDS + 5
    monkeypatch.setattr(limits, "CHANNELS", 2)
    query = CatalogQuery(RECORDER, 7, 0.0)
    effects = query.push(part(5, channel(1), channel(2), channel(3)), 1.0)
    assert done(effects) == [CatalogDone(RECORDER, (channel(1), channel(2)), False, "too_large")]


def test_merge_prefers_on() -> None:
    known: dict[str, CatalogItem] = {}
    merge(known, [channel(1, name="a"), channel(1, name="b", online=False), channel(2, name="c", online=False)])
    merge(known, [channel(2, name="d", online=False)])
    assert [(item.name, item.online) for item in known.values()] == [("a", True), ("d", False)]


@pytest.mark.conformance(38)
def test_tree() -> None:
    group, upper, lower = "34020000002150000001", "34020000002160000001", "34020000002160000002"
    items = [
        CatalogItem("34", name="province"),
        CatalogItem("340200", name="county"),
        CatalogItem("34020001", name="unit"),
        CatalogItem(group, parent_ids=(RECORDER,)),
        CatalogItem(upper, business_group_id=group),
        CatalogItem(lower, business_group_id=group, parent_ids=(upper,)),
        channel(1, parent_ids=(RECORDER, lower)),
        channel(2, civil_code="340200"),
        channel(3, parent_ids=(upper, lower, "34020000001110000099")),
        channel(4, parent_ids=(PLATFORM,)),
        channel(5, parent_ids=(channel(5).device_id,)),
        channel(6, parent_ids=("34020000",), civil_code="99"),
    ]
    tree = build_tree(items, RECORDER, PLATFORM)
    assert tree.parents == {
        "34": (RECORDER,),
        "340200": ("34",),
        "34020001": ("340200",),
        group: (RECORDER,),
        upper: (group,),
        lower: (upper,),
        channel(1).device_id: (lower,),
        channel(2).device_id: ("340200",),
        channel(3).device_id: (upper, lower),
        channel(4).device_id: (RECORDER,),
        channel(5).device_id: (RECORDER,),
        channel(6).device_id: (RECORDER,),
    }
    assert tree.children[upper] == (lower, channel(3).device_id)
    assert set(tree.children[RECORDER]) == {"34", group, *(channel(n).device_id for n in (4, 5, 6))}


@pytest.mark.conformance(38)
def test_cycles_are_broken_and_everything_stays_reachable() -> None:
    one, two, three = channel(1).device_id, channel(2).device_id, channel(3).device_id
    items = [channel(1, parent_ids=(three,)), channel(2, parent_ids=(one,)), channel(3, parent_ids=(two, one))]
    tree = build_tree(items, RECORDER)
    seen, todo = set(), [RECORDER]
    while todo:
        item_id = todo.pop()
        assert item_id not in seen or len(tree.parents[item_id]) > 1
        seen.add(item_id)
        todo += tree.children.get(item_id, ())
    assert seen == {RECORDER, one, two, three}


def test_the_device_itself_among_its_items() -> None:
    tree = build_tree([CatalogItem(RECORDER), channel(1, parent_ids=(RECORDER,))], RECORDER)
    assert tree.children == {RECORDER: (channel(1).device_id,)}


def test_a_long_chain_needs_no_recursion() -> None:
    items = [channel(n, parent_ids=(channel(n + 1).device_id,)) for n in range(20_000)]
    tree = build_tree(items, RECORDER)
    assert tree.children[RECORDER] == (channel(19_999).device_id,)
