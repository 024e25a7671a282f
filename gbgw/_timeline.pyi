"""Time line core: one continuous line out of what cameras put into PTS and DTS (architecture.md decision 14).

The method is told in _timeline.pyx. Times are 90 kHz ticks; one beyond 2^60 is none.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, final

from typing_extensions import disjoint_base

from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import Codec
from gbgw.base.tally import Tally

@final
class ReorderMeter:
    """Measure the reorder depth of pictures that come in decoding order: how many at most precede one and are shown
    after it.

    `depth` never falls: a stream that has shown B-frames may show them again.
    """

    @property
    def depth(self) -> int: ...
    def push(self, pts: int) -> None: ...
    def restart(self) -> None:
        """The times before are of another time line: forget them, keep the depth."""

@final
class Witness:
    """Does a camera's PTS count 90 kHz? Firmware was seen that counts milliseconds, or sound by its samples.

    A witness counts the same units by another clock: pictures by their RTP time stamps, sound by its samples. It is
    heard only while it runs like the wall clock, and the PTS is doubted only while it does not, so that a recording
    played fast or sound with pauses is no reason to doubt anything.
    """

    @property
    def misled(self) -> bool:
        """True while the PTS is in another unit."""

    @property
    def astray(self) -> int:
        """When that was found out, by how many ticks the track had gone too far on the line since the last comparison
        that was right."""

    def hear(self, pts: int, passed: int | None, arrived: float, line: int | None) -> bool:
        """Compare; True when the verdict has changed.

        pts: as the camera says. passed: ticks since the last unit as the witness says; None: it does not know. arrived:
        loop seconds. line: where the track's last unit stands.
        """

    def move(self, by: int) -> None:
        """The track was put elsewhere on the line, which is no fault of its PTS."""

@final
class Drift:
    """How far sound drifts from the picture, and both from the wall clock: the slews of one program. Feed it every
    placed unit; add `line` to all times, and `sound` to those of sound.

    A unit's lead is its time on the line less its arrival. In windows of a second the greatest lead of a track is that
    of its least delayed unit, which says little about the network and much about the camera's clock. Two figures come
    of it: `skew`, the leads of sound and picture in the same window apart, against what that was at first; and the
    picture's own lead (the sound's where there is no picture) against what it was. Where one of them grows too large,
    the answer is a slew: an offset that changes by at most four per cent of the time that passes, so that no gap is
    heard. A lead that steps and then stays is a network that became slower or faster: nothing is done about it. A
    stream that does not run at the speed of the wall clock, such as a recording played fast, is left alone.
    """

    @property
    def line(self) -> int: ...
    @property
    def sound(self) -> int: ...
    @property
    def skew(self) -> int:
        """Sound against picture in the last window that had both, ticks; positive: sound is late on the line, that is
        shown after what was heard with it. 0 while unknown."""

    def push(self, is_picture: bool, time: int, step: int, arrived: float) -> str:
        """Note a unit at `time` ticks that follows the last of its kind by `step`; return "sound" or "line" where a
        slew begins, else "".

        A unit that takes part in the line's slew moves `line` or `sound`, which counts from the next unit on.
        """

    def resync(self) -> int:
        """Return how far sound is too late where no slew will catch up with it, negative: too early; else 0. Whoever
        asks moves the one that is behind."""

    def restart(self) -> None:
        """The line was put anew: its lead is another. Sound and picture stay as far apart as they should be."""

class _Frame(Protocol):
    """See media.params.AdtsFrame."""

    @property
    def data(self) -> bytes: ...
    @property
    def config(self) -> bytes: ...
    @property
    def sample_rate(self) -> int: ...
    @property
    def carried(self) -> bool: ...

class _Splitter(Protocol):
    """See media.params.AdtsSplitter."""

    skipped: int
    refused: int

    def push(self, data: bytes, /) -> Sequence[_Frame]: ...
    def reset(self) -> None: ...

@disjoint_base
class Timeline:
    """The time line of one program: all tracks of one Stream go through one Timeline. media.timeline makes them.

    tally: counts timeline.*.
    read_sets: what the parameter sets of a picture say: its reorder depth, 0..16 or None where they do not tell, and
    a picture's duration in ticks or None; None instead of both where there is no readable SPS.
    new_splitter: cuts the ADTS of one track into frames.
    """

    def __init__(
        self,
        tally: Tally,
        read_sets: Callable[[Codec, tuple[bytes, ...]], tuple[int | None, int | None] | None],
        new_splitter: Callable[[], _Splitter],
    ) -> None: ...
    @property
    def tally(self) -> Tally: ...
    @property
    def skew_seconds(self) -> float:
        """By how much sound is late against the picture, measured by arrival and before the slew that heals it; 0.0
        while unknown."""

    def push(self, unit: AccessUnit, now: float, rtp_timestamp: int | None = None) -> Sequence[AccessUnit]:
        """Return the unit with pts and dts set: one, or for AAC one per raw frame completed, whose parameter_sets is
        its AudioSpecificConfig.

        unit: an AccessUnit of _ps. rtp_timestamp: of the packet it came with, 90 kHz, 32 bits; used where the PTS is
        missing or stands still. dts rises strictly within a track_id and never passes pts. Never raises on input;
        damage is tallied.
        """
