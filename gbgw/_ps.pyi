"""MPEG program stream demultiplexer: any slices of a program stream in, access units out.

Rec. ITU-T H.222.0 (2021) section 2.5; GB/T 28181-2022 Annex C.

Leaves out: scrambling, MPEG-1 system streams beyond their pack and PES headers, elementary streams that are only named
(base.codec, supported=False).
"""

from collections.abc import Sequence
from typing import final

from gbgw.base.codec import Codec

@final
class AccessUnit:
    """See gbgw.base.access_unit.AccessUnit, of which this is the class."""

    def __init__(
        self,
        data: bytes,
        codec: Codec,
        pts: int | None,
        dts: int | None = None,
        *,
        is_keyframe: bool = False,
        parameter_sets: tuple[bytes, ...] = (),
        track_id: int = 0xE0,
        discontinuity: bool = False,
        arrived: float = 0.0,
        refresh: int = 0,
    ) -> None: ...
    @property
    def codec(self) -> Codec: ...
    @property
    def track_id(self) -> int: ...
    @property
    def pts(self) -> int | None: ...
    @property
    def dts(self) -> int | None: ...
    @property
    def is_keyframe(self) -> bool: ...
    @property
    def parameter_sets(self) -> tuple[bytes, ...]: ...
    @property
    def discontinuity(self) -> bool: ...
    @property
    def arrived(self) -> float: ...
    @property
    def refresh(self) -> int: ...
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __bytes__(self) -> bytes: ...
    def __eq__(self, other: object, /) -> bool:
        """Equal in everything but `arrived`, which is a measurement, not content."""

    def __hash__(self) -> int: ...
    def with_times(self, pts: int, dts: int) -> AccessUnit: ...

@final
class ElementaryStream:
    """What is known of one elementary stream."""

    @property
    def stream_id(self) -> int: ...
    @property
    def declared(self) -> Codec | None:
        """By the program stream map; None where it says nothing or nothing known."""

    @property
    def detected(self) -> Codec | None:
        """By content (reference 7.8); wins over `declared`."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Demuxer:
    """Incremental demultiplexer of one program stream.

    An access unit that begins inside a PES is found by its NAL units (7.6 rule d); a time stamp goes to the first
    one that begins in its PES. A video unit ends at the RTP marker once the marker has proved itself, or where slice
    data has gone on into another PES without one; at the next pack header or PES with another PTS; or after 100 ms of
    silence. An audio unit ends with its PES (architecture.md decision 11). A unit with a hole is never returned. Damage
    is counted in `counts`, never raised; memory stays below max_unit_bytes plus one PES.
    """

    def __new__(cls, *, max_unit_bytes: int = 8388608, silence_seconds: float = 0.1) -> Demuxer: ...
    def push(self, payload: bytes, now: float) -> Sequence[AccessUnit]:
        """Consume one RTP payload and return the access units it completed, oldest first.

        payload: any slice of a program stream; cuts need not match packs.
        now: loop seconds, used to stamp and to age an unfinished unit.
        """

    def gap(self) -> None:
        """Bytes are missing here: drop the unfinished unit and skip to the next pack header.

        The next unit of each track is a discontinuity.
        """

    def mark(self, now: float) -> Sequence[AccessUnit]:
        """The payload just pushed ended with the RTP marker."""

    def poll(self, now: float) -> Sequence[AccessUnit]:
        """Return the unit that silence has ended, if any."""

    def flush(self) -> Sequence[AccessUnit]:
        """The stream ends here: return what is complete."""

    @property
    def deadline(self) -> float | None:
        """Loop seconds at which poll() will end the unfinished unit; None when there is none."""

    @property
    def streams(self) -> Sequence[ElementaryStream]:
        """The elementary streams seen or promised by the map so far, by stream_id."""

    @property
    def packs(self) -> int:
        """Pack headers seen."""

    @property
    def maps(self) -> int:
        """Program stream maps accepted."""

    @property
    def buffered(self) -> int:
        """Bytes held just now."""

    @property
    def counts(self) -> dict[str, int]:
        """Counters so far.

        ps.packs ps.maps ps.units ps.malformed ps.resync ps.skipped_bytes ps.private ps.dropped_units ps.oversize
        ps.codec_mismatch; ps.no_map: units of streams that no map declares; ps.unsupported: units of codecs known only
        by name; ps.other_video: PES of a second video stream_id (the first wins).
        """
