"""The recordings that a simulated recorder claims to have: the same for everybody who asks, for ever.

Each hour has two files with a break behind each, so that a timeline has holes to show; every fourth hour the second is
of an alarm.
"""

from typing import Final

from gbgw.gb.records import Record

FILES: Final = ((0, 1_500), (1_800, 3_300))  # seconds into the hour
BYTES_A_SECOND: Final = 25_000  # of the pattern, about
_HOUR: Final = 3_600


def recordings(channel_id: str, start: int, stop: int, now: float, days: int, kind: str = "all") -> list[Record]:
    """Return what touches [start, stop), Unix seconds, of the last `days` up to `now`."""
    start, stop = max(start, int(now) - days * 86_400), min(stop, int(now))
    found: list[Record] = []
    hour = start - start % _HOUR
    while hour < stop:
        for index, (first, last) in enumerate(FILES):
            begin, end = hour + first, min(hour + last, int(now))
            of_alarm = index == 1 and hour // _HOUR % 4 == 0
            name = "alarm" if of_alarm else "time"
            if begin < min(stop, end) and end > start and kind in ("all", name):
                path = f"/disk0/{channel_id}/{begin}.ps"
                found.append(Record(begin, end, channel_id, name, path, "", name, size=(end - begin) * BYTES_A_SECOND))
        hour += _HOUR
    return found


def pieces(channel_id: str, start: int, stop: int, now: float, days: int) -> tuple[tuple[int, int], ...]:
    """Return the recorded parts of [start, stop), in order."""
    return tuple(
        (max(record.start, start), min(record.end, stop)) for record in recordings(channel_id, start, stop, now, days)
    )
