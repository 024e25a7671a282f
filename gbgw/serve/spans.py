"""Times in URLs: `20260203T081530Z`, RFC 3339, or Unix seconds; and the span of a playback."""

import re
from datetime import UTC, datetime
from typing import Final

from gbgw.base.errors import RequestError

TIME: Final = r"[0-9]{1,10}|[0-9]{8}T[0-9]{6}Z"  # as it may stand in a path
_BASIC: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_LATEST: Final = 4_102_444_800  # the year 2100: a device stores such times in 32 bits at best


def read_time(text: str, name: str) -> int:
    """Return Unix seconds, fractions cut off. Raises RequestError `bad_time`, naming the parameter."""
    seconds = _seconds(text.strip()[:40])
    if seconds is None or not 0 <= seconds < _LATEST:
        raise RequestError(
            f"{name} is no time.",
            code="bad_time",
            remedy="Write 20260203T081530Z, 2026-02-03T08:15:30Z, or Unix seconds.",
        )
    return seconds


def _seconds(text: str) -> int | None:
    if text.isascii() and text.isdigit() and len(text) <= 10:
        return int(text)
    try:
        if _BASIC.fullmatch(text):
            return int(datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp())
        moment = datetime.fromisoformat(text.replace(" ", "+"))  # a plus sign that was not escaped
    except ValueError:
        return None
    return int(moment.timestamp()) if moment.tzinfo is not None else None


def write_time(seconds: int) -> str:
    """Return Unix seconds as they stand in our URLs."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%SZ")
