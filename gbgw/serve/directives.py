"""Delivery directives: what a low-latency HLS client asks of one reading of a playlist (RFC 8216bis section 6.2.5)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gbgw.base.errors import RequestError

_INTEGER: Final = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class Directives:
    """sequence, part: answer once the playlist has this segment, or this part of it. skip: a delta will do."""

    sequence: int | None = None
    part: int | None = None
    skip: bool = False

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "Directives":
        """Read `_HLS_msn`, `_HLS_part` and `_HLS_skip`. Raises RequestError 400; unknown directives are ignored."""
        sequence = _integer(query, "_HLS_msn")
        part = _integer(query, "_HLS_part")
        if part is not None and sequence is None:
            raise RequestError("_HLS_part means nothing without _HLS_msn.", code="bad_query")
        return cls(sequence, part, query.get("_HLS_skip") in ("YES", "v2"))


def _integer(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if _INTEGER.fullmatch(text) is None:
        raise RequestError(f"{name} is a decimal integer.", code="bad_query")
    return int(text)
