"""A strict reader of media playlists, written from RFC 8216bis alone: it imports nothing of gbgw.

`read` refuses what section 4 forbids within one playlist; a Watcher refuses what section 6.2.1 and 6.2.2 forbid between
two readings of a live one, and rebuilds delta updates as a client does (6.3.7).
"""

import re
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction

ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"\r\n]*"|[^",\s]+)(?:,|$)')
KNOWN = {
    "EXTM3U",
    "EXT-X-VERSION",
    "EXT-X-TARGETDURATION",
    "EXT-X-SERVER-CONTROL",
    "EXT-X-PART-INF",
    "EXT-X-MEDIA-SEQUENCE",
    "EXT-X-DISCONTINUITY-SEQUENCE",
    "EXT-X-INDEPENDENT-SEGMENTS",
    "EXT-X-SKIP",
    "EXT-X-DISCONTINUITY",
    "EXT-X-MAP",
    "EXT-X-PROGRAM-DATE-TIME",
    "EXT-X-PART",
    "EXTINF",
    "EXT-X-GAP",
    "EXT-X-PRELOAD-HINT",
    "EXT-X-ENDLIST",
}
ONCE = KNOWN - {
    "EXT-X-DISCONTINUITY",
    "EXT-X-MAP",
    "EXT-X-PROGRAM-DATE-TIME",
    "EXT-X-PART",
    "EXTINF",
    "EXT-X-GAP",
    "EXT-X-PRELOAD-HINT",
}


class PlaylistError(AssertionError):
    """A rule was broken."""


def need(rule: object, what: str) -> None:
    if not rule:
        raise PlaylistError(what)


@dataclass(frozen=True)
class PartEntry:
    uri: str
    duration: Fraction
    independent: bool
    gap: bool


@dataclass
class Entry:
    """A segment; uri is None while it is not whole."""

    sequence: int
    uri: str | None = None
    duration: Fraction = Fraction(0)
    map: str | None = None
    discontinuity: int = 0  # its discontinuity sequence number
    date: datetime | None = None
    parts: list[PartEntry] = field(default_factory=list)


@dataclass
class Playlist:
    version: int = 1
    target: int = 0
    control: dict[str, str] = field(default_factory=dict)
    part_target: Fraction | None = None
    sequence: int = 0
    discontinuity_sequence: int = 0
    independent: bool = False
    skipped: int = 0
    entries: list[Entry] = field(default_factory=list)  # whole ones; the skipped ones are not here
    open: Entry | None = None
    hint: str | None = None
    ended: bool = False

    @property
    def seconds(self) -> Fraction:
        return sum((entry.duration for entry in self.entries), Fraction(0))

    @property
    def last_part(self) -> tuple[int, int]:
        """(media sequence number, part index) of the newest part; index -1 where it has none."""
        if self.open is not None:
            return self.open.sequence, len(self.open.parts) - 1
        return self.entries[-1].sequence, len(self.entries[-1].parts) - 1


def attributes(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    for match in ATTRIBUTE.finditer(text):
        need(match.start() == at, f"a list of attributes has something between: {text}")
        need(match[1] not in found, f"{match[1]} is there twice: {text}")
        found[match[1]] = match[2].strip('"')
        at = match.end()
    need(at == len(text) and not text.endswith(","), f"this is no list of attributes: {text}")
    return found


def decimal(text: str) -> Fraction:
    need(re.fullmatch(r"\d+(\.\d+)?", text), f"{text} is no decimal")
    return Fraction(text)


def read(text: str) -> Playlist:
    """Read one media playlist. Raises PlaylistError."""
    need(text.endswith("\n"), "the last line has no end")
    need(not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ufeff]", text), "a control character")
    lines = text.split("\n")[:-1]
    need(lines and lines[0] == "#EXTM3U", "the first line is not #EXTM3U (4.4.1.1)")
    out = Playlist()
    seen: set[str] = set()
    current: Entry | None = None
    number = 0
    discontinuity = 0
    map_uri: str | None = None
    duration: Fraction | None = None
    uris: set[str] = set()

    def entry() -> Entry:
        nonlocal current
        if current is None:
            current = Entry(number, map=map_uri, discontinuity=discontinuity)
        return current

    def fresh(uri: str) -> str:
        need(uri not in uris, f"{uri} is there twice")
        uris.add(uri)
        return uri

    for line in lines[1:]:
        need(line.strip() == line and line, f"an empty or padded line: {line!r}")
        if not line.startswith("#"):
            need(duration is not None, f"{line} has no EXTINF (4.4.4.1)")
            assert duration is not None
            whole = entry()
            whole.uri, whole.duration = fresh(line), duration
            out.entries.append(whole)
            current, duration = None, None
            number += 1
            continue
        name, _, value = line[1:].partition(":")
        need(name in KNOWN, f"an unknown tag: {line}")
        need(name not in ONCE or name not in seen, f"{name} is there twice")
        seen.add(name)
        need(not out.hint or name == "EXT-X-PRELOAD-HINT", f"{name} after the hint")
        match name:
            case "EXT-X-VERSION":
                out.version = int(value)
            case "EXT-X-TARGETDURATION":
                need(re.fullmatch(r"\d+", value), "the target duration is no integer (4.4.3.1)")
                out.target = int(value)
            case "EXT-X-SERVER-CONTROL":
                out.control = attributes(value)
            case "EXT-X-PART-INF":
                out.part_target = decimal(attributes(value)["PART-TARGET"])
            case "EXT-X-MEDIA-SEQUENCE":
                need(not out.entries and current is None, "MEDIA-SEQUENCE after a segment (4.4.3.2)")
                out.sequence = number = int(value)
            case "EXT-X-DISCONTINUITY-SEQUENCE":
                need(not out.entries and current is None, "DISCONTINUITY-SEQUENCE after a segment (4.4.3.3)")
                out.discontinuity_sequence = discontinuity = int(value)
            case "EXT-X-INDEPENDENT-SEGMENTS":
                out.independent = True
            case "EXT-X-SKIP":
                need(not out.entries and current is None, "SKIP after a segment (4.4.5.2)")
                out.skipped = int(attributes(value)["SKIPPED-SEGMENTS"])
                number += out.skipped
            case "EXT-X-DISCONTINUITY":
                need(current is None, "DISCONTINUITY inside a segment (4.4.4.9)")
                discontinuity += 1
                entry()
            case "EXT-X-MAP":
                need(current is None or not current.parts, "MAP after a part of its segment (4.4.4.9)")
                map_uri = attributes(value)["URI"]
                entry().map = map_uri
            case "EXT-X-PROGRAM-DATE-TIME":
                need(current is None or not current.parts, "DATE-TIME after a part of its segment (4.4.4.9)")
                need(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", value), f"no date: {value}")
                entry().date = datetime.fromisoformat(value)
            case "EXT-X-PART":
                found = attributes(value)
                need(found.keys() <= {"URI", "DURATION", "INDEPENDENT", "GAP"}, f"odd attributes: {line}")
                flags = {found.get("INDEPENDENT", "YES"), found.get("GAP", "YES")}
                need(flags == {"YES"}, f"INDEPENDENT and GAP are YES or absent: {line}")
                part = PartEntry(
                    fresh(found["URI"]), decimal(found["DURATION"]), "INDEPENDENT" in found, "GAP" in found
                )
                entry().parts.append(part)
            case "EXTINF":
                duration = decimal(value.partition(",")[0])
                need(value.endswith(","), "EXTINF without its comma")
            case "EXT-X-PRELOAD-HINT":
                hint = attributes(value)
                need(hint["TYPE"] == "PART", f"a hint of {hint['TYPE']}")
                out.hint = fresh(hint["URI"])
            case "EXT-X-ENDLIST":
                out.ended = True
    need(duration is None, "EXTINF without a URI")
    need(current is None or current.parts, "tags that belong to nothing")
    out.open = current
    check(out, seen)
    return out


def check(playlist: Playlist, seen: set[str]) -> None:
    """The rules that take the whole playlist."""
    entries = playlist.entries
    need("EXT-X-TARGETDURATION" in seen, "no TARGETDURATION (4.4.3.1)")
    for entry in entries:
        rounded = int(entry.duration + Fraction(1, 2))
        need(
            rounded <= playlist.target, f"{entry.uri} of {float(entry.duration)} s is longer than the target (4.4.3.1)"
        )
        if entry.parts:
            total = sum((part.duration for part in entry.parts), Fraction(0))
            off = abs(total - entry.duration)
            need(off <= Fraction(len(entry.parts) + 1, 100_000), f"{entry.uri}: parts of {float(total)} s")
    if any(entry.map for entry in entries):
        need(playlist.version >= 6, "MAP needs version 6 (4.4.4.5)")
        need(all(entry.map for entry in entries) or playlist.skipped, "a segment without MAP among others")
    need(playlist.version >= 3, "decimals need version 3 (8)")
    need(playlist.version >= 9 or not playlist.skipped, "SKIP needs version 9 (8)")
    need(all(entry.date for entry in entries), "a segment without a date")
    with_parts = [entry for entry in [*entries, playlist.open] if entry is not None and entry.parts]
    if playlist.part_target is None:
        need(not with_parts and playlist.hint is None, "parts without PART-INF (4.4.3.7)")
        return
    target = playlist.part_target
    control = playlist.control
    need(control.get("CAN-BLOCK-RELOAD") == "YES", "parts without blocking reloads")
    need(decimal(control["PART-HOLD-BACK"]) >= 3 * target, "PART-HOLD-BACK below three parts (4.4.3.8)")
    if "HOLD-BACK" in control:
        need(decimal(control["HOLD-BACK"]) >= 3 * playlist.target, "HOLD-BACK below three targets (4.4.3.8)")
    if "CAN-SKIP-UNTIL" in control:
        need(decimal(control["CAN-SKIP-UNTIL"]) >= 6 * playlist.target, "CAN-SKIP-UNTIL below six targets (4.4.3.8)")
    need("CAN-SKIP-UNTIL" in control or not playlist.skipped, "SKIP without CAN-SKIP-UNTIL")
    for entry in with_parts:
        for index, part in enumerate(entry.parts):
            need(part.duration <= target, f"{part.uri} of {float(part.duration)} s is above the target (4.4.4.9)")
            is_last = entry.uri is not None and index == len(entry.parts) - 1
            is_exempt = part.independent or part.gap or is_last
            need(
                is_exempt or part.duration >= target * Fraction(85, 100),
                f"{part.uri} of {float(part.duration)} s is below 85 % of {float(target)} (4.4.4.9)",
            )
    # Parts are listed up to three target durations from the end, without a hole (6.2.2).
    left = sum((part.duration for part in playlist.open.parts), Fraction(0)) if playlist.open else Fraction(0)
    listed = True
    for entry in reversed(entries):
        need(listed or not entry.parts, f"{entry.uri} has parts, a later one has not")
        listed = listed and bool(entry.parts)
        left += entry.duration
    need(playlist.ended == (playlist.hint is None), "a live playlist without a hint, or an ended one with it (4.4.5.3)")


@dataclass
class Watcher:
    """A client of one live playlist: gives back each reading as a full playlist. `texts`: bytes read."""

    last: Playlist | None = None
    texts: int = 0
    full: dict[int, Entry] = field(default_factory=dict)
    parts: dict[str, tuple[int, int]] = field(default_factory=dict)  # URI: (sequence, index)
    hints: set[str] = field(default_factory=set)

    def take(self, text: str) -> Playlist:
        found = read(text)
        self.texts += len(text)
        if found.skipped:
            need(self.last is not None, "a delta for one who has nothing yet")
            assert self.last is not None
            skipped = [self.full.get(found.sequence + index) for index in range(found.skipped)]
            need(all(skipped), "a delta skips what this client never had (6.2.5.1)")
            first = found.entries[0]
            before = skipped[-1]
            assert before is not None
            if first.map is None:
                for entry in [*found.entries, found.open]:
                    if entry is not None and entry.map is None:
                        entry.map = before.map
            gone = before.discontinuity - found.discontinuity_sequence
            for entry in [*found.entries, found.open]:
                if entry is not None:
                    entry.discontinuity += gone
            boundary = decimal(found.control["CAN-SKIP-UNTIL"])
            left = found.seconds + sum((part.duration for part in found.open.parts) if found.open else (), Fraction(0))
            need(left >= boundary - Fraction(1, 1_000), "a delta skips beyond its boundary (4.4.5.2)")
            found.entries = [entry for entry in skipped if entry is not None] + found.entries
            found.skipped = 0
        self._compare(found)
        self.last = found
        return found

    def _compare(self, found: Playlist) -> None:
        last = self.last
        if last is not None:
            need(found.target == last.target, "the target duration changed (6.2.1)")
            need(found.sequence >= last.sequence, "the media sequence number went back (6.2.2)")
            need(found.discontinuity_sequence >= last.discontinuity_sequence, "the discontinuity sequence went back")
            need(not last.ended or found.ended, "an ended playlist goes on (6.2.1)")
            need(found.last_part >= last.last_part, "something listed is gone (6.2.1)")
            if found.entries and found.sequence > last.sequence:
                need(found.seconds >= 3 * found.target, "a segment left a playlist of three target durations (6.2.2)")
        for entry in [*found.entries, *([found.open] if found.open else [])]:
            known = self.full.get(entry.sequence)
            if known is not None:
                need(known.map == entry.map, f"{entry.sequence}: another MAP")
                need(known.discontinuity == entry.discontinuity, f"{entry.sequence}: another discontinuity number")
                need(known.date == entry.date, f"{entry.sequence}: another date")
                need(known.uri is None or known.uri == entry.uri, f"{entry.sequence}: another URI")
                if known.parts and entry.parts:
                    need(entry.parts[: len(known.parts)] == known.parts, f"{entry.sequence}: other parts (6.2.1)")
            for index, part in enumerate(entry.parts):
                place = self.parts.setdefault(part.uri, (entry.sequence, index))
                need(place == (entry.sequence, index), f"{part.uri} moved")
            if known is None or entry.parts or entry.uri:
                self.full[entry.sequence] = entry
        need(self.hints <= self.parts.keys() | {found.hint} or found.ended, "a hint that never became a part (6.2.2)")
        if found.hint is not None:
            self.hints.add(found.hint)
