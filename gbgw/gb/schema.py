"""Dataclasses <-> elements of MANSCDP, for the many small records of answers and parameter groups.

A field's element is called like the field in capitals (`pre_record_time` is PreRecordTime) unless `named` says
otherwise; a tuple of records is either a list element with items or items that repeat. Reading is tolerant: what is
absent or unreadable is None, "" or (), and a list is cut at its bound. Writing leaves out what is None.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

from gbgw.base import limits
from gbgw.gb.manscdp import Field
from gbgw.gb.xml import Element

R = TypeVar("R")
_WHOLE: Final = (1 << 63) - 1


def named(
    element: str, *, default: Any = None, listed_in: str = "", most: int = limits.ANSWER_ITEMS, count: str = ""
) -> Any:
    """A field with an element name of its own. listed_in: the element around the items of a list, which then has the
    attribute Num; count: an element before it that tells how many there are; most: of them that are kept."""
    meta = {"element": element, "list": listed_in, "most": most, "count": count}
    return dataclasses.field(default=default, metadata=meta)


@dataclasses.dataclass(frozen=True, slots=True)
class _Column:
    """One field of a record: its attribute, element and type."""

    name: str
    element: str
    kind: type
    repeats: bool
    listed_in: str
    most: int
    count: str


_KNOWN: Final[dict[type, tuple[_Column, ...]]] = {}  # by record: as many as the program has


def columns(record: Any) -> tuple[_Column, ...]:
    """Return the fields of a record (a dataclass), read off it once."""
    if record not in _KNOWN:
        _KNOWN[record] = _columns(record)
    return _KNOWN[record]


def _columns(record: type) -> tuple[_Column, ...]:
    hints = get_type_hints(record)
    found = []
    for each in dataclasses.fields(record):
        kind, repeats = _plain(hints[each.name])
        meta: Mapping[str, Any] = each.metadata
        element = meta.get("element") or "".join(part.capitalize() for part in each.name.split("_"))
        found.append(
            _Column(
                each.name,
                element,
                kind,
                repeats,
                meta.get("list", ""),
                meta.get("most", limits.ANSWER_ITEMS),
                meta.get("count", ""),
            )
        )
    return tuple(found)


def _plain(hint: Any) -> tuple[type, bool]:
    """`int | None` -> int; `tuple[X, ...]` -> X, repeated."""
    if get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(each for each in get_args(hint) if each is not type(None))
    if get_origin(hint) is tuple:
        return get_args(hint)[0], True
    return hint, False


def read(record: type[R], element: Element) -> R:
    """Return a record out of the children of `element`."""
    values: dict[str, Any] = {}
    for column in columns(record):
        if column.repeats:
            around = element.find(column.listed_in) if column.listed_in else element
            items = list(around.find_all(column.element))[: column.most] if around is not None else []
            values[column.name] = tuple(_value(column.kind, item) for item in items)
        else:
            child = element.find(column.element)
            if child is not None:
                values[column.name] = _value(column.kind, child)
    return record(**values)


def _value(kind: type, element: Element) -> Any:
    if dataclasses.is_dataclass(kind):
        return read(kind, element)
    text = element.text
    if kind is str:
        return text[: limits.ANSWER_TEXT]
    if kind is bool:
        return text.upper() in ("1", "TRUE", "ON", "YES") if text else None
    try:
        number = float(text[:32])
    except ValueError:
        return None
    if not math.isfinite(number) or abs(number) > _WHOLE:
        return None
    return number if kind is float else int(number)


def write(value: Any) -> list[Field]:
    """Return the children of the element of a record, in the order of its fields."""
    return list(_fields(value))


def _fields(value: Any) -> Iterator[Field]:
    for column in columns(type(value)):
        own = getattr(value, column.name)
        if own is None or (own == "" and not column.repeats):
            continue
        if not column.repeats:
            yield column.element, _text(own)
            continue
        if column.count:
            yield column.count, len(own)
        items: list[Field] = [(column.element, _text(item)) for item in own]
        if not column.listed_in:
            yield from items
        elif items or not column.count:
            yield f'{column.listed_in} Num="{len(items)}"', items


def _text(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return write(value)
    if isinstance(value, bool):
        return int(value)
    return f"{value:g}" if isinstance(value, float) else value
