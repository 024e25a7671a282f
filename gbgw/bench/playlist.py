"""HLS playlists as a player reads them (RFC 8216; low latency by draft-pantos-hls-rfc8216bis). sans-IO."""

import re
from dataclasses import dataclass, field

_URI = re.compile(r'URI="([^"]+)"')


@dataclass(slots=True)
class Playlist:
    """A media playlist, or a multivariant one, which has `variants` and nothing else.

    segments: URI by media sequence number. parts: URI by (media sequence number, part). blocks: it may be asked for
    before it is due.
    """

    variants: list[str] = field(default_factory=list)
    target_seconds: float = 0.0
    init: str = ""
    segments: dict[int, str] = field(default_factory=dict)
    parts: dict[tuple[int, int], str] = field(default_factory=dict)
    blocks: bool = False
    ended: bool = False

    @property
    def edge(self) -> tuple[int, int]:
        """Media sequence number and part that come next; part 0 where there are no parts."""
        number = max(self.segments, default=-1) + 1
        parts = [part for at, part in self.parts if at == number]
        return number, max(parts, default=-1) + 1


def parse(text: str) -> Playlist:
    """Read a playlist. ValueError for what is none."""
    lines = [line.strip() for line in text.splitlines()]
    if not lines or lines[0] != "#EXTM3U":
        raise ValueError("no playlist")
    found = Playlist()
    number, part = 0, 0
    is_variant = is_gap = False
    for line in lines[1:]:
        name, _, value = line.partition(":")
        match name:
            case "#EXT-X-TARGETDURATION":
                found.target_seconds = float(value)
            case "#EXT-X-MEDIA-SEQUENCE":
                number = int(value)
            case "#EXT-X-SKIP":  # a delta update: the skipped ones are known from before
                skipped = re.search(r"SKIPPED-SEGMENTS=(\d+)", value)
                number += int(skipped[1]) if skipped else 0
            case "#EXT-X-SERVER-CONTROL":
                found.blocks = "CAN-BLOCK-RELOAD=YES" in value
            case "#EXT-X-MAP":
                found.init = _uri(value)
            case "#EXT-X-PART":
                found.parts[number, part] = _uri(value)
                part += 1
            case "#EXT-X-STREAM-INF":
                is_variant = True
            case "#EXT-X-GAP":
                is_gap = True
            case "#EXT-X-ENDLIST":
                found.ended = True
            case _ if line and not line.startswith("#"):
                if is_variant:
                    found.variants.append(line)
                    is_variant = False
                else:
                    if not is_gap:
                        found.segments[number] = line
                    number, part, is_gap = number + 1, 0, False
    return found


def _uri(attributes: str) -> str:
    match = _URI.search(attributes)
    if match is None:
        raise ValueError("an attribute list without URI")
    return match[1]
