"""The slow twin of _timeline.Drift, whose docstring tells the method."""

from collections import deque
from typing import Final

from gbgw.base import ticks

WINDOW_SECONDS: Final = 1.0
SLEW: Final = 25  # one part in 25: what music still bears, and twice what the worst camera seen needs
SKEW_START: Final = ticks.HZ // 20  # sound 50 ms off is noticed (ITU-R BT.1359: 45 ms ahead, 125 ms behind)
SKEW_LOST: Final = ticks.HZ  # so much is no drift, but a camera that counts its pictures or samples wrongly
SKEW_WINDOWS: Final = 2  # in a row
LINE_START: Final = ticks.HZ // 2
LINE_WINDOWS: Final = 30  # over which the line's lead must have moved, and in each third of them alike
LINE_STEADY: Final = ticks.HZ // 10  # less over these is no drift that a player cannot follow: 0.3 %
_FRESH: Final = 2  # windows at the start, when cameras send what they have stored


class _Lead:
    """The greatest lead of one track in the window in progress, and in the last whole one.

    is_live: that window ran at the speed of the wall clock.
    """

    __slots__ = ("best", "first", "index", "is_live", "last", "seen", "value", "window")

    def __init__(self) -> None:
        self.window: int | None = None
        self.best = 0
        self.first: tuple[int, float] = (0, 0.0)
        self.last: tuple[int, float] = (0, 0.0)
        self.seen = 0
        self.is_live = False
        self.index: int | None = None  # of the last whole window
        self.value = 0

    def push(self, time: int, arrived: float) -> bool:
        """Note a unit; True when a window has become whole."""
        window = int(arrived / WINDOW_SECONDS)
        lead = time - ticks.from_seconds(arrived)
        done = False
        if window != self.window:
            passed, took = self.last[0] - self.first[0], self.last[1] - self.first[1]
            if self.window is not None and took >= WINDOW_SECONDS / 2 and passed > 0:
                self.seen += 1
                self.is_live = 0.8 <= passed / (took * ticks.HZ) <= 1.25
                self.index, self.value = self.window, self.best
                done = self.seen > _FRESH
            self.window, self.best, self.first = window, lead, (time, arrived)
        self.best = max(self.best, lead)
        self.last = (time, arrived)
        return done


class Drift:
    """The slews of one program. Feed it every placed unit; add `line` to all times, and `sound` to those of sound.

    skew: sound against picture in the last window that had both, ticks; positive: sound is late on the line, that is
    shown after what was heard with it. 0 while unknown.
    """

    def __init__(self) -> None:
        self.line = 0
        self.sound = 0
        self.skew = 0
        self._leads = {True: _Lead(), False: _Lead()}  # by: is it a picture
        self._apart: int | None = None  # leads of sound and picture apart, as they should be
        self._base: int | None = None  # the master's lead as it should be
        self._past: deque[int] = deque(maxlen=LINE_WINDOWS + 1)  # the master's leads
        self._judged: int | None = None  # the last window that had both
        self._skewed = 0  # windows in a row
        self._lost = 0
        self._synced = 0  # the window after which the effect of the last resync can be seen
        self._sound_due = 0  # what is still to be added to `sound`
        self._line_due = 0
        self._rest = 0  # the window after which the effect of the last slew can be seen

    def push(self, is_picture: bool, time: int, step: int, arrived: float) -> str:
        """Note a unit at `time` ticks that follows the last of its kind by `step`; return "sound" or "line" where a
        slew begins, else "".

        A unit that takes part in the line's slew moves `line` or `sound`, which counts from the next unit on.
        """
        master = is_picture or self._leads[True].window is None
        most = min(max(step, 0), ticks.HZ) // SLEW
        if master and self._line_due:
            moved = min(max(self._line_due, -most), most)
            self.line += moved
            self._line_due -= moved
        if not is_picture and self._sound_due:
            moved = min(max(self._sound_due, -most), most)
            self.sound += moved
            self._sound_due -= moved
            self._rest = int(arrived / WINDOW_SECONDS)
        if not self._leads[is_picture].push(time, arrived):
            return ""
        if master and self._judge_line():
            return "line"
        return "sound" if self._judge_skew() else ""

    def resync(self) -> int:
        """Return how far sound is too late where no slew will catch up with it, negative: too early; else 0. Whoever
        asks moves the one that is behind.
        """
        if self._lost < SKEW_WINDOWS:
            return 0
        self._lost = self._skewed = self._sound_due = 0
        self._rest = self._synced = (self._judged or 0) + 1
        return self.skew

    def restart(self) -> None:
        """The line was put anew: its lead is another. Sound and picture stay as far apart as they should be."""
        self._base = None
        self._past.clear()
        self._line_due = 0

    def _judge_skew(self) -> bool:
        picture, sound = self._leads[True], self._leads[False]
        if picture.index is None or picture.index != sound.index or picture.index == self._judged:
            return False
        self._judged = picture.index
        apart = sound.value - picture.value
        if self._apart is None:
            self._apart = apart
        self.skew = apart - self._apart
        if picture.index > self._synced:
            self._lost = self._lost + 1 if abs(self.skew) > SKEW_LOST else 0
        if self._sound_due or picture.index <= self._rest:
            return False
        if abs(self.skew) <= SKEW_START:
            self._skewed = 0
            return False
        self._skewed += 1
        if self._skewed < SKEW_WINDOWS:
            return False
        self._skewed = 0
        self._sound_due = -self.skew
        return True

    def _judge_line(self) -> bool:
        lead = self._leads[True] if self._leads[True].window is not None else self._leads[False]
        value = lead.value
        if not lead.is_live:
            self.restart()
            return False
        past = self._past
        past.append(value)
        if self._base is None:
            self._base = value
        off = value - self._base
        if self._line_due:
            past.clear()
            return False
        if len(past) <= LINE_WINDOWS:
            return False
        third = LINE_WINDOWS // 3
        moves = [past[at + third] - past[at] for at in range(0, LINE_WINDOWS, third)]
        if abs(sum(moves)) < LINE_STEADY:
            self._base = value
            return False
        # A network that becomes slower does so once, or up and down; a clock goes on and on.
        is_ramp = min(map(abs, moves)) * 2 > max(map(abs, moves)) and abs(sum(moves)) == sum(map(abs, moves))
        if not is_ramp or abs(off) <= LINE_START or (off < 0) != (moves[0] < 0):
            return False
        self._line_due = -off
        return True
