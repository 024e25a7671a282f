"""A Player whose pictures are drawn as a camera's head looks just now, encoded one by one.

Until the head moves for the first time the shared loop is played as it is, which costs nothing; from then on each
picture takes some milliseconds: call `take` off the event loop while `is_live`.
"""

from collections.abc import Callable

from gbgw._ps import AccessUnit
from gbgw.base.codec import Kind
from gbgw.mux.loop import Due, Loop, Player, describe
from gbgw.mux.pattern import Painter, PatternSpec, PictureEncoder
from gbgw.mux.ps import VIDEO_STREAM_ID
from gbgw.mux.view import AHEAD, View


class LivePlayer:
    """`loop` made of `spec`, seen from `view()`."""

    def __init__(self, loop: Loop, spec: PatternSpec, view: Callable[[], View]) -> None:
        self._player = Player(loop)
        self._spec = spec
        self._view = view
        self._painter: Painter | None = None
        self._encoder: PictureEncoder | None = None
        self._taken = 0  # pictures
        self._key = True

    @property
    def loop(self) -> Loop:
        return self._player.loop

    @property
    def next_at(self) -> int:
        return self._player.next_at

    @property
    def next_is_picture(self) -> bool:
        return self._player.next_is_picture

    @property
    def is_live(self) -> bool:
        """The next unit may have to be drawn."""
        return self._encoder is not None or self._view() != AHEAD

    def restart(self) -> None:
        self._player.restart()
        self._key = True

    def take(self) -> Due:
        due = self._player.take()
        if due.unit.codec.kind is not Kind.VIDEO:
            return due
        number = self._taken % self._spec.frames
        self._taken += 1
        if self._encoder is None:
            if self._view() == AHEAD:
                return due
            self._painter, self._encoder = Painter(self._spec), PictureEncoder(self._spec)
            self._key = True
        assert self._painter is not None
        key = self._key or due.unit.is_keyframe
        self._key = False
        data = self._encoder.encode(self._painter.paint(number, self._view()), key=key)
        is_key, parameter_sets = describe(data, self._spec.video)
        unit = AccessUnit(
            data,
            self._spec.video,
            due.unit.dts,
            due.unit.dts,
            is_keyframe=is_key,
            parameter_sets=parameter_sets,
            track_id=VIDEO_STREAM_ID,
        )
        return Due(unit, due.at)
