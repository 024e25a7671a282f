"""Slow twin of gbgw._ps.Demuxer, written from reference 7.1 to 7.8 and architecture.md decision 11.

It keeps the stream as one bytearray with an index into it and reads it in straight lines: a generator that waits
wherever bytes are missing. No buffers are moved, nothing is given back but the index. Oracle and benchmark baseline;
never a production fallback.
"""

import re
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from gbgw._ps import AccessUnit
from gbgw.base import limits
from gbgw.base.codec import AAC, BY_STREAM_TYPE, H264, H265, PCMA, VIDEO, Codec, by_name

Wait = Generator[None, None, None]
WaitBool = Generator[None, None, bool]
Times = tuple[int | None, int | None]

NONE: Times = (None, None)
START = re.compile(rb"\x00\x00\x01")
SPS_PROFILES = {66, 77, 88, 100, 110, 122, 244, 44, 83, 86, 118, 128}
HIGH_PROFILES = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}
NAMES = (
    *("packs", "maps", "units", "malformed", "resync", "skipped_bytes", "private", "dropped_units", "oversize"),
    *("codec_mismatch", "no_map", "unsupported", "other_video"),
)


@dataclass(frozen=True, slots=True)
class ElementaryStream:
    stream_id: int
    declared: Codec | None
    detected: Codec | None


@dataclass(slots=True)
class Track:
    declared: Codec | None = None
    detected: Codec | None = None
    disputed: tuple[Codec, Codec] | None = None
    misses: int = 0


@dataclass(slots=True)
class Unit:
    """A video unit in progress; offsets count from its first byte."""

    times: Times
    damaged: bool = False
    leftover: bool = False
    doubted: bool = False  # its last PES is longer than it said, of a camera whose PES keep their word
    header_inside: bool = False  # that PES has a header inside
    said: int = 0  # its payload by its length
    said_length: int = 0
    data: bytearray = field(default_factory=bytearray)
    scanned: int = 0
    settled: int = 0
    pes_begin: int = 0
    marked: int | None = None
    spanned: bool = False
    nals: list[tuple[int, bytes]] = field(default_factory=list)  # offset of the NAL unit, its first three bytes

    def add(self, offset: int) -> None:
        self.nals.append((offset, bytes(self.data[offset : offset + 3]).ljust(3, b"\0")))


def kind264(head: bytes) -> int:
    return head[0] & 0x1F


def kind265(head: bytes) -> int:
    return head[0] >> 1


def starts_picture(codec: Codec | None, head: bytes) -> bool | None:
    if codec is H264:
        kind = kind264(head)
        return head[1] >= 0x80 if kind in (1, 2, 5) else kind in (6, 7, 8, 9, 14, 15, 16, 17, 18)
    if codec is H265:
        kind = kind265(head) & 0x3F
        return head[2] >= 0x80 if kind < 32 else kind in (32, 33, 34, 35, 39, *range(41, 45), *range(48, 56))
    return None


def goes_on(codec: Codec | None, head: bytes) -> bool:
    """A slice that is not its picture's first."""
    if codec is H264:
        return kind264(head) in (3, 4) or (kind264(head) in (1, 2, 5) and head[1] < 0x80)
    return codec is H265 and kind265(head) & 0x3F < 32 and head[2] < 0x80


def valid264(head: bytes) -> bool:
    first, kind, reference = head[0], kind264(head), head[0] & 0x60
    if first >= 0x80:
        return False
    return (
        kind == 1
        or (kind == 5 and bool(reference))
        or (kind == 7 and bool(reference) and head[1] in SPS_PROFILES)
        or (kind == 8 and bool(reference) and head[1] >= 4)
        or (kind in (6, 9, 10, 11, 12) and not reference)
    )


def vcl264(head: bytes) -> bool:
    return head[0] < 0x80 and (kind264(head) == 1 or (kind264(head) in (2, 5) and bool(head[0] & 0x60)))


def header265(head: bytes) -> bool:
    return not head[0] & 0x81 and 1 <= head[1] <= 7


def vcl265(head: bytes) -> bool:
    return header265(head) and (kind265(head) <= 9 or 16 <= kind265(head) <= 21)


def valid265(head: bytes) -> bool:
    return header265(head) and head[1] == 1 and kind265(head) in (0, 1, *range(16, 22), *range(32, 36), 39, 40)


def set_codec(head: bytes) -> Codec | None:
    if head[0] < 0x80 and kind264(head) in (7, 8):
        return H264
    return H265 if head[0] in (0x40, 0x42, 0x44) and head[1] == 1 else None


def time(coded: bytes) -> int | None:
    if not coded[0] & coded[2] & coded[4] & 1:
        return None
    return (coded[0] >> 1 & 7) << 30 | coded[1] << 22 | coded[2] >> 1 << 15 | coded[3] << 7 | coded[4] >> 1


def unescape(payload: bytes) -> bytes:
    clean = bytearray()
    zeros = 0
    skip = False
    for byte in payload:
        if not skip and zeros >= 2 and byte == 3:
            zeros, skip = 0, True
            continue
        skip = False
        clean.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(clean)


class BitReader:
    def __init__(self, data: bytes) -> None:
        self._text = "".join(f"{byte:08b}" for byte in data)
        self._at = 0

    def u(self, count: int) -> int:
        if self._at + count > len(self._text):
            raise EOFError
        self._at += count
        return int(self._text[self._at - count : self._at], 2)

    def ue(self, most: int = 1 << 40) -> int:
        zeros = 0
        while zeros < 32 and not self.u(1):
            zeros += 1
        value = (1 << zeros | (self.u(zeros) if zeros else 0)) - 1 if zeros else 0
        if value > most:
            raise ValueError
        return value


def excludes_fields(sps: bytes) -> bool:
    """frame_mbs_only_flag of an SPS whose first 64 bytes are given."""
    reader = BitReader(unescape(sps[4:]))
    bits, ue = reader.u, reader.ue
    try:
        profile = sps[1]
        ue(31)
        if profile in HIGH_PROFILES:
            if ue(3) == 3:
                bits(1)
            ue(6)
            ue(6)
            bits(1)
            if bits(1):
                return False
        ue(12)
        order = ue(2)
        if order == 0:
            ue(12)
        elif order == 1:
            bits(1)
            ue()
            ue()
            for _ in range(ue(255)):
                ue()
        ue(16)
        bits(1)
        ue(1023)
        ue(1023)
        return bool(bits(1))
    except (EOFError, ValueError, IndexError):
        return False


def recovery_point(sei: bytes, codec: Codec) -> int:
    """recovery_frame_cnt or recovery_poc_cnt of an SEI NAL unit; -1 without."""
    bits = BitReader(unescape(sei[1 if codec is H264 else 2 :][:256]))

    def number() -> int:
        value, byte = 0, 255
        while byte == 255 and value <= 256:
            byte = bits.u(8)
            value += byte
        return value

    try:
        for _ in range(16):
            kind, size = number(), number()
            if kind == 6:
                code = bits.ue()
                count = code if codec is H264 else (code + 1) // 2 if code % 2 else -code // 2
                return count if 0 <= count <= 1_000 else -1
            for _ in range(size):
                bits.u(8)
    except EOFError:
        pass
    return -1


def way_in(nals: list[bytes], codec: Codec) -> int:
    """How decoding may begin: 0 at once, n after n pictures, -1 not. nals: from their headers on."""
    recovery = -1
    has_sets = False
    for nal in nals[:16]:
        head = nal[:3].ljust(3, b"\0")
        if codec is H264:
            kind = kind264(head)
            if 1 <= kind <= 5:
                intra = head[1] >> 4 == 0b1011 or head[1] == 0b10001000
                if kind == 1 and intra and (has_sets or recovery >= 0):
                    return 0
                return max(recovery, 0) or -1
            has_sets = has_sets or kind == 7
        else:
            kind = kind265(head) & 63
            if kind < 32:
                return recovery
        if kind == (6 if codec is H264 else 39):
            recovery = max(recovery, recovery_point(nal, codec))
    return -1


def adts_frames(payload: bytes) -> list[int] | None:
    """Lengths of the ADTS frames that fill the payload; None at the first that does not fit, unless two came before."""
    lengths: list[int] = []
    at = 0
    while at < len(payload):
        head = payload[at : at + 7]
        length = 0
        if len(head) == 7 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 and head[2] >> 2 & 15 <= 12:
            length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
        if length < 7:
            return lengths if len(lengths) >= 2 else None
        lengths.append(length)
        if at + length > len(payload):
            return lengths if len(lengths) >= 2 else None
        at += length
    return lengths or None


def is_mpeg_audio(payload: bytes) -> bool:
    if len(payload) < 4 or payload[0] != 0xFF or payload[1] & 0xE0 != 0xE0:
        return False
    return (
        payload[1] & 6 != 0
        and payload[1] & 0x18 != 8
        and 0x10 <= payload[2] < 0xF0
        and payload[2] & 12 != 12
        and payload[3] & 3 != 2
    )


def confirm(data: bytes | bytearray, at: int, end: int, pack_only: bool) -> bool | None:
    """Does the start code at `at` begin the header it announces? None: more bytes decide."""
    c = bytes(data[at : min(end, at + 32)])
    if len(c) < 4:
        return None
    code = c[3]

    def system_code(offset: int) -> bool:
        return c[offset : offset + 3] == b"\0\0\1" and c[offset + 3] >= 0xB9

    if code == 0xBA:
        if len(c) < 8:
            return None
        if system_code(4):
            return c[7] != 0xBA
        if c[4] & 0xC0 == 0x40:
            if len(c) < 14:
                return None
            if not (c[4] & 4 and c[6] & 4 and c[8] & 4 and c[9] & 1 and c[12] & 3 == 3):
                return False
            length = 14 + (c[13] & 7)
        elif c[4] & 0xF1 == 0x21:
            if len(c) < 12:
                return None
            if not (c[6] & 1 and c[8] & 1 and c[9] & 0x80 and c[11] & 1):
                return False
            length = 12
        else:
            return False
        return None if len(c) < length + 4 else system_code(length)
    if pack_only or code < 0xB9:
        return False
    if code == 0xB9:
        return True
    if len(c) < 9:
        return None
    length = c[4] << 8 | c[5]
    if code == 0xBB:
        return 6 <= length <= limits.SYSTEM_HEADER_BYTES and bool(c[6] & 0x80 and c[8] & 1)
    if code == 0xBC:
        return 6 <= length <= limits.PSM_BYTES and bool(c[7] & 1)
    if code == 0xBD or 0xC0 <= code <= 0xEF:
        if c[6] & 0xC0 != 0x80 or c[7] & 0xC0 == 0x40:
            return False
        return code >= 0xE0 if length == 0 else 3 + c[8] <= length
    return False


class Demuxer:
    def __init__(
        self,
        *,
        max_unit_bytes: int = limits.ACCESS_UNIT_BYTES,
        silence_seconds: float = limits.UNIT_SILENCE_SECONDS,
    ) -> None:
        if max_unit_bytes < 1:
            raise ValueError(f"max_unit_bytes must be positive, not {max_unit_bytes}")
        self._max = max_unit_bytes
        self._silence = silence_seconds
        self._contradicted = False
        self._counts: Counter[str] = Counter()
        self._tracks: dict[int, Track] = {}
        self._lost: set[int] = set()
        self._last_pts: int | None = None
        self._video_id: int | None = None
        self._unaligned = self._frames_only = False
        self._agreements = 0
        self._proved = self._mark_due = self._unmarked = False
        self._kept_lengths = self._key_lies = 0
        self._is_key_pes = False
        self._since_key = 1 << 30
        self._passed = 0  # stream offset of _data[0]
        self._reread_from = 0
        self._out: list[AccessUnit] = []
        self._now = self._arrived = 0.0
        self._begin()

    def _begin(self) -> None:
        """Forget everything unfinished."""
        self._passed += len(getattr(self, "_data", b""))
        self._data = bytearray()
        self._at = 0
        self._unit: Unit | None = None
        self._closed: Times | None = None
        self._closed_by_mark = False
        self._pending: Times = NONE
        self._pending_before: Times = NONE
        self._pack_since_video = False
        self._strayed = False  # no start code where one was due, since the last video PES
        self._where = "hunt"
        self._owed: int | None = 0
        self._held_audio = b""
        self._side_id = 0
        self._side_times: Times = NONE
        self._parser = self._parse()
        next(self._parser)

    # --- what callers use ---

    def push(self, payload: bytes, now: float) -> Sequence[AccessUnit]:
        if not isinstance(payload, bytes):
            raise TypeError(f"bytes, not {type(payload).__name__}")
        self._now = now
        if payload:
            self._unmarked = self._unmarked or self._mark_due
            self._mark_due = True
        self._data += payload
        next(self._parser)
        if self._at > 1 << 17:
            del self._data[: self._at - (1 << 16)]
            self._passed += self._at - (1 << 16)
            self._at = 1 << 16
        return self._take()

    def gap(self) -> None:
        self._lose()
        self._since_key = 1 << 30
        self._lost.update(range(0xC0, 0xF0))

    def _distrust(self) -> None:
        self._agreements = 0
        self._proved = False
        self._contradicted = True

    def mark(self, now: float) -> Sequence[AccessUnit]:
        self._mark_due = False
        unit = self._unit
        if unit is None or unit.damaged:
            return self._take()
        length = len(unit.data)
        if unit.marked is not None and unit.marked < length:
            self._distrust()
        whole = self._where in ("synced", "landing") or (self._where == "video" and self._owed is None)
        if not whole or self._at < len(self._data):
            self._distrust()
            unit.marked = None
        else:
            unit.marked = length
            trusted = self._agreements >= 8 and self._proved
            if self._has_vcl() and (trusted or self._proves_mark()):
                self._closed_by_mark = True
                self._end_early()
        return self._take()

    def poll(self, now: float) -> Sequence[AccessUnit]:
        if self._endable() and now >= self._arrived + self._silence:
            self._closed_by_mark = False
            self._end_early()
        return self._take()

    def flush(self) -> Sequence[AccessUnit]:
        if self._where == "landing":
            self._end_audio(self._held_audio)
            self._where = "synced"
        if self._unit is not None:
            if self._where == "video" and self._owed:
                self._unit.damaged = True
            self._close(len(self._unit.data))
            self._unit = None
        units = self._take()
        self._lose()
        return units

    @property
    def deadline(self) -> float | None:
        return self._arrived + self._silence if self._endable() else None

    @property
    def streams(self) -> Sequence[ElementaryStream]:
        return [ElementaryStream(key, track.declared, track.detected) for key, track in sorted(self._tracks.items())]

    @property
    def packs(self) -> int:
        return self._counts["packs"]

    @property
    def maps(self) -> int:
        return self._counts["maps"]

    @property
    def buffered(self) -> int:
        return len(self._data) - self._at + len(self._unit.data if self._unit else b"") + len(self._held_audio)

    @property
    def counts(self) -> dict[str, int]:
        return {f"ps.{name}": self._counts[name] for name in NAMES}

    # --- the stream ---

    def _take(self) -> Sequence[AccessUnit]:
        units, self._out = self._out, []
        return units

    def _need(self, count: int) -> Wait:
        while len(self._data) - self._at < count:
            yield

    def _peek(self, count: int) -> bytes:
        return bytes(self._data[self._at : self._at + count])

    def _lose(self) -> None:
        audio = self._where in ("side", "landing") and 0xC0 <= self._side_id < 0xE0
        if (self._unit is not None and self._unit.data) or audio:
            self._counts["dropped_units"] += 1
        self._begin()

    def _parse(self) -> Wait:
        yield
        yield from self._search(pack_only=True)
        after_video = False
        while True:
            self._where = "synced"
            yield from self._need(4)
            head = self._peek(4)
            code = head[3]
            if head[:3] != b"\0\0\1" or code < 0xB9:
                if after_video and self._unit is not None:
                    self._counts["malformed"] += 1
                    self._unit.doubted = self._break_length(is_key=self._is_key_pes)
                    yield from self._video(None)
                    after_video = False
                else:
                    self._strayed = True
                    yield from self._damage(0)
                    after_video = False
                continue
            if self._unit is not None:
                self._unit.settled = len(self._unit.data)
            if after_video and self._is_key_pes:
                self._key_lies = max(self._key_lies - 1, 0)
            elif after_video:
                self._kept_lengths = min(self._kept_lengths + 1, 32)
            after_video = False
            if code == 0xBA:
                yield from self._pack()
            elif code == 0xBB:
                yield from self._system_header()
            elif code == 0xBC:
                yield from self._map()
            elif code == 0xB9:
                if self._unit is not None:
                    self._close(len(self._unit.data))
                    self._unit = None
                self._at += 4
            else:
                after_video = yield from self._pes(code)

    def _damage(self, consumed: int) -> Wait:
        self._counts["malformed"] += 1
        self._counts["resync"] += 1
        self._lost.update(range(0xC0, 0xF0))
        self._at += consumed
        yield from self._search(pack_only=False)

    def _search(self, *, pack_only: bool) -> Wait:
        self._where = "hunt"
        while True:
            found = START.search(self._data, self._at)
            if found is None:
                skip = max(len(self._data) - 2 - self._at, 0)
                self._counts["skipped_bytes"] += skip
                self._at += skip
                yield
                continue
            self._counts["skipped_bytes"] += found.start() - self._at
            self._at = found.start()
            verdict = confirm(self._data, self._at, len(self._data), pack_only)
            if verdict:
                return
            if verdict is None:
                yield
                continue
            if self._unit is not None and self._data[self._at + 3] == self._video_id:
                self._unit.damaged = True
            self._counts["skipped_bytes"] += 3
            self._at += 3

    def _pack(self) -> Wait:
        yield from self._need(7)
        head = self._peek(7)
        length = 0
        if head[4:] == b"\0\0\1":
            length = 4
        elif head[4] & 0xC0 == 0x40:
            yield from self._need(14)
            length = 14 + (self._data[self._at + 13] & 7)
        elif head[4] & 0xF0 == 0x20:
            length = 12
        if not length:
            yield from self._damage(4)
            return
        yield from self._need(length)
        self._counts["packs"] += 1
        self._pack_since_video = True
        self._at += length

    def _system_header(self) -> Wait:
        yield from self._need(6)
        length = 6 + int.from_bytes(self._peek(6)[4:], "big")
        if length > 6 + limits.SYSTEM_HEADER_BYTES:
            yield from self._damage(6)
            return
        yield from self._need(length)
        inside = self._peek(length).find(b"\0\0\1", 6)
        if inside >= 0:
            self._counts["malformed"] += 1
            length = inside
        self._at += length

    def _map(self) -> Wait:
        yield from self._need(6)
        length = 6 + int.from_bytes(self._peek(6)[4:], "big")
        if length == 6 or length > 6 + limits.PSM_BYTES:
            yield from self._damage(6)
            return
        yield from self._need(length + 4)
        unit = self._peek(length + 4)
        if unit[length : length + 3] != b"\0\0\1":
            for found in START.finditer(unit[:length], 6):
                at = found.start()
                if unit[at + 3] >= 0xB9 and confirm(unit, at, length + 4, False) is not False:
                    self._counts["malformed"] += 1
                    length = at
                    break
        accepted = self._read_map(unit[6:length])
        self._counts["maps" if accepted else "malformed"] += 1
        self._at += length

    def _read_map(self, body: bytes) -> bool:
        if len(body) < 4:
            return False
        skip = 4 + int.from_bytes(body[2:4], "big")
        if skip + 2 > len(body):
            return False
        room = int.from_bytes(body[skip : skip + 2], "big")
        rest = body[skip + 2 :]
        rest = rest[: min(room, len(rest) - 4 if len(rest) >= 8 else len(rest))]
        rows: dict[int, Codec | None] = {}
        while len(rest) >= 4:
            stream_type, stream_id = rest[0], rest[1]
            if stream_id < 0xBC:
                break
            codec = BY_STREAM_TYPE.get(stream_type)
            if codec is not None and (codec.kind is VIDEO) != (stream_id >= 0xE0):
                codec = None
            rows[stream_id] = codec
            rest = rest[4 + int.from_bytes(rest[2:4], "big") :]
        if not rows:
            return False
        for stream_id in range(0xC0, 0xF0):
            declared = rows.get(stream_id)
            if stream_id in rows:
                self._tracks.setdefault(stream_id, Track())
            track = self._tracks.get(stream_id)
            if track is not None and track.declared is not declared:
                track.declared = declared
                if stream_id < 0xE0:
                    track.detected = None
                    track.misses = 0
                self._dispute(track)
        return True

    def _pes(self, stream_id: int) -> WaitBool:
        """Read one PES packet; True when it was a video PES of known length, read to its end."""
        yield from self._need(6)
        length = int.from_bytes(self._peek(6)[4:], "big")
        timed = 0xC0 <= stream_id <= 0xEF
        ignored = 0xE0 <= stream_id <= 0xEF and self._video_id not in (None, stream_id)
        header: int | None = 6
        times = NONE
        if timed:
            if 0 < length < 3:
                yield from self._damage(6)
                return False
            yield from self._need(9)
            if self._peek(9)[6] & 0xC0 == 0x80:
                header = 9 + self._peek(9)[8]
                if length and header > 6 + length:
                    header = None
                else:
                    yield from self._need(header)
                    times = self._times2(self._peek(header))
            else:
                ahead = min(34, 6 + length) if length else 34
                yield from self._need(ahead)
                header, times = self._times1(self._peek(ahead))
            if header is None:
                if self._unit is not None and stream_id == self._video_id:
                    self._unit.damaged = True
                yield from self._damage(6)
                return False
            if ignored:
                times = NONE
            elif times[0] is not None:
                times = (self._unwrap(times[0]), times[1])
                self._last_pts = times[0]
                if times[1] is not None:
                    times = (times[0], self._unwrap(times[1]))
            self._tracks.setdefault(stream_id, Track())
        assert header is not None
        if stream_id >= 0xE0 and timed and not ignored:
            payload = 6 + length - header if length else None
            yield from self._begin_video(stream_id, header, payload, times)
            if payload == 0:
                return False
            return (yield from self._video(payload))
        if length == 0:
            if ignored:
                self._counts["other_video"] += 1
                self._at += header
                yield from self._search(pack_only=False)
            else:
                yield from self._damage(header)
            return False
        if ignored:
            self._counts["other_video"] += 1
        elif not timed and stream_id != 0xBE:
            self._counts["private"] += 1
        self._at += header
        self._side_id, self._side_times = stream_id, times
        if length + 6 > header:
            yield from self._side(length + 6 - header)
        return False

    @staticmethod
    def _times2(head: bytes) -> Times:
        pts = dts = None
        if head[7] & 0x80 and len(head) >= 14:
            pts = time(head[9:14])
            if head[7] & 0x40 and len(head) >= 19:
                dts = time(head[14:19])
        return (pts, dts) if pts is not None else NONE

    @staticmethod
    def _times1(head: bytes) -> tuple[int | None, Times]:
        at = 6
        while at < 22 and head[at : at + 1] == b"\xff":
            at += 1
        padded = head + bytes(16)
        if padded[at] & 0xC0 == 0x40:
            at += 2
        pts = dts = None
        if padded[at] >> 4 == 2:
            pts = time(padded[at : at + 5])
            at += 5
        elif padded[at] >> 4 == 3:
            pts, dts = time(padded[at : at + 5]), time(padded[at + 5 : at + 10])
            at += 10
        elif padded[at] == 0x0F:
            at += 1
        else:
            return None, NONE
        if at > len(head):
            return None, NONE
        return at, (pts, dts) if pts is not None else NONE

    def _unwrap(self, value: int) -> int:
        if self._last_pts is None:
            return value
        delta = (value - self._last_pts) % (1 << 33)
        return self._last_pts + (delta - (1 << 33) if delta >= 1 << 32 else delta)

    # --- video ---

    def _begin_video(self, stream_id: int, header: int, payload: int | None, times: Times) -> Wait:
        yield from self._need(header + (7 if payload is None else min(payload, 7)))
        self._video_id = stream_id
        head = self._peek(header + (7 if payload is None else min(payload, 7)))
        said_length, first = int.from_bytes(head[4:6], "big"), head[header:]
        self._at += header
        if payload == 0:
            return
        prefix = 4 if first[2:3] in (b"\0", b"") else 3
        starts = first[:prefix] in (b"\0\0\1", b"\0\0\0\1") and len(first) >= prefix
        head = first[prefix:].ljust(3, b"\0")[:3]
        picture = starts_picture(self._judge(), head) if starts else False
        middle = starts and goes_on(self._judge(), head)
        unit = self._unit
        current = unit.times[0] if unit is not None else None
        fresh = times[0] is not None and times[0] != current
        if unit is None:
            if self._closed is not None:
                other = times[0] is not None and times[0] != self._closed[0]
                fresh = starts and not middle and (other or picture is not False)
                if self._closed_by_mark and fresh:
                    self._agreements, self._proved = min(self._agreements + 1, 8), True
                elif self._closed_by_mark:
                    self._distrust()
                if not fresh and not starts and times[0] is not None:
                    self._unaligned = True
            else:
                fresh = (
                    starts and not middle and ((times[0] is not None and not self._unaligned) or picture is not False)
                )
            self._closed = None
            unit = self._unit = Unit(times if fresh else NONE, damaged=not fresh)
            self._pending = NONE if fresh or (starts and not self._unaligned) else times
            self._pending_before = NONE
        elif fresh and starts:
            self._measure(unit, len(unit.data))
            self._scan(final=True)
            unit = self._unit
            assert unit is not None
            ahead = self._judge() in (H264, H265) and unit.nals and all(head[0] < 0x80 for _, head in unit.nals)
            ahead = ahead and not unit.damaged and not self._has_vcl()
            early = False  # the first byte came with the PES before
            if self._unaligned and (ahead or picture is False):
                self._pending_before, self._pending = self._pending, times
            else:
                if not ahead:
                    border = len(unit.data)
                    if prefix == 3 and border > 0 and unit.data[-1] == 0:
                        border -= 1
                    if unit.marked is not None:
                        unit.marked = min(unit.marked, border)
                    whole = border == len(unit.data)
                    early = not whole and self._unaligned
                    self._close(border)
                    if whole:
                        self._unit = Unit(times)
                    unit = self._unit
                    assert unit is not None
                if not early:
                    unit.times = times
                self._pending = times if early else NONE
                self._pending_before = NONE
        else:
            unit.spanned = unit.spanned or self._has_vcl()
            self._pending_before, self._pending = self._pending, times if fresh else NONE
            headless = fresh and not self._unaligned and self._kept_lengths >= 16
            unit.damaged = unit.damaged or self._strayed or headless
            self._unaligned = self._unaligned or fresh
        self._strayed = False
        unit.pes_begin = unit.settled = len(unit.data)
        unit.header_inside = False
        unit.said, unit.said_length = payload or 0, said_length

    def _video(self, owed: int | None) -> WaitBool:
        self._where, self._owed = "video", owed
        while self._owed is None or self._owed > 0:
            yield from self._need(1)
            if self._unit is None:
                self._unit = Unit(NONE, damaged=True, leftover=True)
                self._closed = None
            piece = self._peek(len(self._data) if self._owed is None else self._owed)
            self._at += len(piece)
            self._unit.data += piece
            if self._owed is not None:
                self._owed -= len(piece)
            self._arrived = self._now
            if self._scan(final=False):
                self._owed = 0
                return False
        self._is_key_pes = self._is_key()
        return True

    def _is_key(self) -> bool:
        heads = [head for _, head in self._unit.nals] if self._unit is not None else []
        return any((vcl264(h) and kind264(h) == 5) or (vcl265(h) and kind265(h) >= 16) for h in heads)

    def _break_length(self, *, is_key: bool) -> bool:
        """True when a PES that does not end where it said has lost bytes."""
        kept, lies = self._kept_lengths, self._key_lies
        if is_key:
            self._key_lies = min(lies + 2, 4)
        else:
            self._kept_lengths = max(kept - 4, 0)
        return kept >= 16 and (not is_key or lies < 2)

    @staticmethod
    def _settle_doubt(unit: Unit, end: int) -> None:
        if unit.doubted:
            unit.doubted = False
            more = end - unit.pes_begin - unit.said
            unit.damaged = unit.damaged or unit.header_inside or (unit.said_length != 0xFFFF and more % 0x1_0000 != 0)

    def _scan(self, *, final: bool) -> bool:
        """Look at the start codes not yet looked at; True when a header was found where the unit must end."""
        while True:
            unit = self._unit
            assert unit is not None
            found = START.search(unit.data, unit.scanned)
            if found is None:
                unit.scanned = max(unit.scanned, len(unit.data) - 2)
                break
            at = found.start()
            there = len(unit.data) - at
            self._measure(unit, at - 1)
            if there < 4 and not final:
                unit.scanned = at
                break
            if there >= 4 and unit.data[at + 3] >= 0xB9 and at >= unit.settled and self._where == "video":
                verdict = confirm(unit.data, at, len(unit.data), self._owed is not None)
                if verdict is None and not final:
                    unit.scanned = at
                    break
                if verdict:
                    self._cut(unit, at)
                    return True
            if there < 6 and not final:
                unit.scanned = at
                break
            if there >= 4 and self._next_picture(unit, at):
                unit.damaged = unit.damaged or (unit.header_inside and self._kept_lengths >= 16)
                self._close(at - 1 if at and unit.data[at - 1] == 0 else at)
                continue
            unit.scanned = at + 3
        self._measure(unit, unit.scanned - 1)
        return False

    def _measure(self, unit: Unit, length: int) -> None:
        """The unit is at least this long."""
        if length > self._max and not unit.damaged:
            unit.damaged = True
            self._counts["oversize"] += 1

    def _cut(self, unit: Unit, at: int) -> None:
        if self._owed is not None:
            self._counts["malformed"] += 1
            self._counts["resync"] += 1
            unit.damaged = self._break_length(is_key=self._is_key()) or unit.damaged
        self._settle_doubt(unit, at)
        self._at -= len(unit.data) - at
        del unit.data[at:]
        unit.scanned = at
        self._where = "synced"
        if unit.leftover:
            unit.leftover = False
            if at == 0:
                self._closed = self._closed_times
                self._unit = None
            elif self._closed_by_mark:
                self._distrust()

    def _next_picture(self, unit: Unit, at: int) -> bool:
        """Note the NAL unit behind the start code at `at`, unless it begins the next access unit."""
        head = bytes(unit.data[at + 3 : at + 6]).ljust(3, b"\0")
        any_vcl = any(vcl264(h) or vcl265(h) for _, h in unit.nals)
        if at > 0 and (any_vcl or unit.damaged) and head[0] < 0x80:
            codec = self._judge()
            vcl = vcl264 if codec is H264 else vcl265
            if (unit.damaged or any(vcl(h) for _, h in unit.nals)) and starts_picture(codec, head):
                sure = codec is H265 or kind264(head) > 5 or self._frames_only or self._unaligned
                if sure or (self._pack_since_video and at <= unit.pes_begin + 1):
                    return True
        self._end_set(unit, at)
        unit.add(at + 3)
        unit.header_inside = unit.header_inside or (head[0] == self._video_id and at >= unit.pes_begin)
        if at >= unit.pes_begin:
            self._pack_since_video = False
        return False

    def _end_set(self, unit: Unit, end: int) -> None:
        if not unit.damaged and unit.nals and unit.nals[-1][1][0] < 0x80 and kind264(unit.nals[-1][1]) == 7:
            nal = bytes(unit.data[unit.nals[-1][0] : end]).rstrip(b"\0")
            if 0 < len(nal) <= limits.PARAMETER_SET_BYTES and len(self._sets(unit, end, None)) <= limits.PARAMETER_SETS:
                self._frames_only = excludes_fields(nal[:64])

    def _sets(self, unit: Unit, end: int, codec: Codec | None) -> tuple[bytes, ...]:
        """The parameter sets of the unit; of both codecs for None."""
        ends = [offset - 3 for offset, _ in unit.nals[1:]] + [end]
        sets: list[tuple[Codec, bytes]] = []
        for (offset, head), stop in zip(unit.nals, ends, strict=True):
            nal = bytes(unit.data[offset:stop]).rstrip(b"\0")
            kind = set_codec(head)
            if kind is not None and 0 < len(nal) <= limits.PARAMETER_SET_BYTES and len(sets) < limits.PARAMETER_SETS:
                sets.append((kind, nal))
        return tuple(nal for kind, nal in sets if codec in (None, kind))

    def _judge(self) -> Codec | None:
        heads = [head for _, head in self._unit.nals] if self._unit is not None else []
        forbidden = any(head[0] >= 0x80 for head in heads)
        sets264 = {kind264(head) for head in heads if valid264(head)} & {7, 8}
        sets265 = {kind265(head) for head in heads if valid265(head)} & {32, 33, 34}
        is264 = 7 in sets264 and not forbidden
        is265 = bool(sets265 & {32, 33}) and not forbidden
        if is264 and is265:
            is264, is265 = len(sets264) == 2, len(sets265) == 3
        if is264 != is265:
            return H264 if is264 else H265
        track = self._tracks.get(self._video_id) if self._video_id is not None else None
        if track is None:
            return None
        if track.detected is not None:
            return track.detected
        if heads and all(map(valid264, heads)) and not any(map(valid265, heads)):
            return H264
        if heads and all(map(valid265, heads)) and not any(map(valid264, heads)):
            return H265
        if any(head[0] == 0xB3 for head in heads):
            return by_name("MPEG2V")
        if any(head[0] in (0xB0, 0xB6) for head in heads):
            return by_name("MPEG4")
        return track.declared

    def _has_vcl(self) -> bool:
        codec = self._judge()
        heads = [head for _, head in self._unit.nals] if self._unit is not None else []
        return (codec is H264 and any(map(vcl264, heads))) or (codec is H265 and any(map(vcl265, heads)))

    def _close(self, length: int) -> None:
        unit = self._unit
        assert unit is not None
        assert self._video_id is not None
        if length == len(unit.data):
            self._scan(final=True)
            unit = self._unit
            assert unit is not None
            length = len(unit.data)
        self._settle_doubt(unit, length)
        self._measure(unit, length)
        self._end_set(unit, length)
        marked = unit.marked
        if marked is not None and marked <= length and not unit.damaged:
            if marked == length:
                self._agreements = min(self._agreements + 1, 8)
                self._proved = self._proved or self._unmarked
            else:
                self._distrust()
            marked = None
        self._unmarked = False
        track = self._tracks[self._video_id]
        codec = self._judge()
        heads = [head for _, head in unit.nals]
        sets = any(
            (valid264(h) and kind264(h) in (7, 8)) or (valid265(h) and kind265(h) in (32, 33, 34)) for h in heads
        )
        if codec is not None and (codec is not track.declared or sets or self._has_vcl()):
            track.detected = codec
            self._dispute(track)
        if codec is not None and not codec.supported:
            self._counts["unsupported"] += 1
        elif unit.damaged or not self._has_vcl():
            self._counts["dropped_units"] += 1
            self._lost.add(self._video_id)
        else:
            assert codec is not None
            if codec is H264:
                is_key = any(vcl264(h) and kind264(h) == 5 for h in heads)
            else:
                is_key = any(vcl265(h) and kind265(h) >= 16 for h in heads)
            data = bytes(unit.data[:length])
            starts = [found.start() for found in START.finditer(data)]
            nals = [data[start + 3 : end] for start, end in zip(starts, [*starts[1:], None], strict=False)]
            refresh = 0 if is_key else way_in(nals, codec)
            is_key = 0 <= refresh <= self._since_key
            self._since_key = 0 if is_key else self._since_key + 1
            sets = self._sets(unit, length, codec)
            self._emit(data, codec, unit.times, is_key, sets, self._video_id, self._arrived, refresh if is_key else 0)
        times = self._pending_before
        if length >= unit.pes_begin:
            times, self._pending = self._pending, NONE
        self._pending_before = NONE
        self._unit = Unit(times)
        self._unit.data = unit.data[length:]
        self._unit.settled = max(unit.settled - length, 0)
        self._unit.pes_begin = unit.pes_begin - length
        self._unit.marked = marked - length if marked is not None else None
        self._unit.header_inside = unit.header_inside
        self._unit.said, self._unit.said_length = unit.said, unit.said_length

    def _emit(
        self,
        data: bytes,
        codec: Codec,
        times: Times,
        is_key: bool,
        sets: tuple[bytes, ...],
        track_id: int,
        arrived: float,
        refresh: int = 0,
    ) -> None:
        self._out.append(
            AccessUnit(
                data,
                codec,
                *times,
                is_keyframe=is_key,
                parameter_sets=sets,
                track_id=track_id,
                discontinuity=track_id in self._lost,
                arrived=arrived,
                refresh=refresh,
            )
        )
        self._lost.discard(track_id)
        self._counts["units"] += 1
        if self._tracks[track_id].declared is None:
            self._counts["no_map"] += 1

    def _endable(self) -> bool:
        unit = self._unit
        if unit is None or unit.damaged or self._where in ("hunt", "video") or (self._agreements == 8 and self._proved):
            return False
        return self._has_vcl()

    def _proves_mark(self) -> bool:
        unit = self._unit
        return (
            unit is not None
            and unit.spanned
            and not self._contradicted
            and self._unmarked
            and self._where != "video"
            and (self._frames_only or self._judge() is H265)
        )

    def _end_early(self) -> None:
        assert self._unit is not None
        self._closed = self._closed_times = self._unit.times
        self._unit.marked = None
        self._close(len(self._unit.data))
        self._unit = None

    def _dispute(self, track: Track) -> None:
        if track.declared is None or track.detected is None or track.declared is track.detected:
            return
        if track.disputed != (track.declared, track.detected):
            track.disputed = (track.declared, track.detected)
            self._counts["codec_mismatch"] += 1

    # --- audio and private ---

    def _side(self, length: int) -> Wait:
        self._where = "side"
        yield from self._need(length)
        payload = self._peek(length)
        self._at += length
        candidates = (found.start() for found in START.finditer(payload))
        suspect = next((at for at in candidates if confirm(payload, at, length, False) is not False), None)
        if suspect is not None:
            self._where, self._held_audio = "landing", payload
            yield from self._need(4)
            head = self._peek(4)
            begin = self._passed + self._at - length + suspect
            if (head[:3] != b"\0\0\1" or head[3] < 0xB9) and begin >= self._reread_from:
                self._held_audio = b""
                self._counts["malformed"] += 1
                self._counts["resync"] += 1
                if 0xC0 <= self._side_id <= 0xDF:
                    self._counts["dropped_units"] += 1
                    self._lost.add(self._side_id)
                self._reread_from = self._passed + self._at
                self._at -= length - suspect
                return
            self._held_audio = b""
        self._end_audio(payload)

    def _end_audio(self, payload: bytes) -> None:
        if not 0xC0 <= self._side_id <= 0xDF:
            return
        track = self._tracks[self._side_id]
        codec = self._sniff(track, payload)
        if codec is not track.declared or codec is AAC:
            track.detected = codec
            self._dispute(track)
        if not codec.supported:
            self._counts["unsupported"] += 1
            return
        self._emit(payload, codec, self._side_times, True, (), self._side_id, self._now)

    @staticmethod
    def _sniff(track: Track, payload: bytes) -> Codec:
        if adts_frames(payload):
            track.misses = 0
            return AAC
        if track.detected is AAC and track.declared is not AAC:
            track.misses += 1
            if track.misses < 8:
                return AAC
            track.misses = 0
            track.detected = None
        if track.declared is not None:
            return track.declared
        if is_mpeg_audio(payload):
            return by_name("MP1A")
        return track.detected or PCMA
