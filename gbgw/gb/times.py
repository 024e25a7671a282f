"""Times on the wire: local time without a zone, which is Beijing's (GB/T 28181-2016 and -2022 section 9.10; Annex A
types), and Unix seconds inside.

What is written is what the schema wants, `2026-02-03T16:15:30`; what is read forgives a blank for the T, digits left
out, fractions of a second, and believes a zone where a device names one (reference quirk 42).
"""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

BEIJING: Final = timezone(timedelta(hours=8))
_LOCAL: Final = re.compile(
    r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})(?:[T ]+(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.\d{1,9})?)?)?"
    r"\s*(Z|[+-]\d{2}:?\d{2})?",
    re.IGNORECASE | re.ASCII,
)


def write_local(seconds: int) -> str:
    """Return Unix seconds as the standard writes them."""
    return datetime.fromtimestamp(seconds, BEIJING).strftime("%Y-%m-%dT%H:%M:%S")


def read_local(text: str) -> int | None:
    """Return the Unix seconds that `text` names, fractions cut off; None when it names none."""
    match = _LOCAL.fullmatch(text.strip()[:64])
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    try:
        # 24:00:00 and a leap second are written by devices that end a day or a minute with them
        moment = datetime(year, month, day, tzinfo=_zone(match[7])) + timedelta(
            hours=hour, minutes=minute, seconds=second
        )
        return int(moment.timestamp()) if hour <= 24 and minute <= 59 and second <= 60 else None
    except (ValueError, OverflowError):
        return None


def _zone(text: str | None) -> timezone:
    if not text:
        return BEIJING
    if text.upper() == "Z":
        return UTC
    hours, minutes = int(text[1:3]), int(text[-2:])
    span = timedelta(hours=hours, minutes=minutes)
    return timezone(-span if text[0] == "-" else span)


def days(start: int, end: int) -> list[tuple[int, int]]:
    """Cut the Unix seconds [start, end) at Beijing's midnights: devices list a day at a time reliably."""
    cuts: list[tuple[int, int]] = []
    while start < end:
        moment = datetime.fromtimestamp(start, BEIJING)
        midnight = datetime(moment.year, moment.month, moment.day, tzinfo=BEIJING) + timedelta(days=1)
        stop = min(end, int(midnight.timestamp()))
        cuts.append((start, stop))
        start = stop
    return cuts
