"""Sound that is not there: AAC frames of nothing, which keep up with the pictures (ISO/IEC 14496-3 section 4.4.2).

For players that fill one buffer with both (Media Source Extensions): where the sound of such a buffer ends, the
picture stops, and one that began without sound can never take any. So a pause in the sound is filled, also when it ends
altogether, and a format that `adds_sound` has a sound track from the start. Sans-IO; frames are 4 or 7 bytes.
"""

from typing import Final

from gbgw.base.codec import AAC
from gbgw.base.ticks import HZ
from gbgw.media.track import Track

TRACK_ID: Final = 0xBF  # of no elementary stream: padding has 0xBE, sound begins at 0xC0
NOTHING: Final = Track(TRACK_ID, AAC, config=b"\x15\x88", sample_rate=8_000, channels=1)  # as G.711 becomes
FRAMES: Final = {  # by channels: one element of that many, without a single band, and the end
    1: bytes.fromhex("00000007"),
    2: bytes.fromhex("2000000000000e"),
}
FRAME_SAMPLES: Final = 1_024
AAC_LC: Final = 2  # audio object type
PATIENCE: Final = round(0.5 * HZ)  # beyond its usual delay, before a pause in the sound is filled
LONGEST: Final = HZ  # a longer hole in the pictures is a hole in the silence as well
PICTURE: Final = HZ // 25  # how long the last one is taken to last
MOST_LAG: Final = 2 * HZ  # sound that is later than this against its picture is not waited for


class Silence:
    """What fills the pauses of one sound track. Times are 90 kHz ticks of the output.

    is_alone: there is no sound of this track any more, or not yet: nothing is waited for.
    """

    __slots__ = ("_base", "_count", "_has_filled", "_lag", "_picture", "is_alone", "track")

    def __init__(self, track: Track, *, is_alone: bool = False) -> None:
        self.track = track
        self.is_alone = is_alone
        self._base: int | None = None  # where the sound so far ended when `_count` was 0
        self._count = 0  # frames of silence since then
        self._lag = 0  # of the sound behind the pictures, as last heard
        self._picture = 0
        self._has_filled = False

    @staticmethod
    def suits(track: Track) -> bool:
        """True where silence of this track is known."""
        if track.codec is not AAC or not track.config:
            return False
        return track.config[0] >> 3 == AAC_LC and track.channels in FRAMES

    @property
    def frame(self) -> bytes:
        return FRAMES[self.track.channels]

    @property
    def _end(self) -> int | None:
        if self._base is None:
            return None
        return self._base + self._count * FRAME_SAMPLES * HZ // self.track.sample_rate

    def heard(self, dts: int) -> bool:
        """A unit of the real sound came; False where silence stands in its place already."""
        until = dts + FRAME_SAMPLES * HZ // self.track.sample_rate
        self._lag = min(max(self._picture - until, 0), MOST_LAG)
        end = self._end
        if self._has_filled and end is not None and dts < end:
            return False
        self._has_filled = False
        self._base, self._count = until, 0
        return True

    def finish(self) -> list[int]:
        """No picture follows: return the times of the frames with which the sound lasts as long as the last one. Sound
        that comes later for that time is too late, as always.
        """
        times: list[int] = []
        end = self._end
        while end is not None and self._picture - LONGEST - self._lag <= end < self._picture + PICTURE:
            times.append(end)
            self._count += 1
            end = self._end
        self._has_filled = self._has_filled or bool(times)
        return times

    def follow(self, dts: int) -> list[int]:
        """A picture came: return the times of the frames of silence that are due."""
        self._picture = max(self._picture, dts)
        end = self._end
        if end is None or dts - end > LONGEST + self._lag:
            self._base, self._count, end = dts, 0, dts
            if not self.is_alone:
                return []
        limit = dts if self.is_alone else dts - self._lag - PATIENCE
        if end > limit:
            return []
        if not self.is_alone:
            limit += PATIENCE
        times: list[int] = []
        while end is not None and end <= limit:
            times.append(end)
            self._count += 1
            end = self._end
        self._has_filled = True
        return times
