"""Device commands. So far one: send a key frame now (GB/T 28181-2016 and -2022, DeviceControl), not more often than a
camera can obey."""

from gbgw.gb import manscdp
from gbgw.gb.manscdp import Edition


class KeyFrameCommands:
    """Makes IFrame commands, at most one a channel in `seconds`: a camera may need that long to obey."""

    __slots__ = ("_seconds", "_sent")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._sent: dict[str, float] = {}  # stream key -> loop seconds, oldest first

    def ready(self, key: str, now: float) -> bool:
        """Tell whether the channel may be asked now, and if so count it as asked."""
        while self._sent:
            oldest = next(iter(self._sent))
            if now - self._sent[oldest] < self._seconds:
                break
            del self._sent[oldest]
        if key in self._sent:
            return False
        self._sent[key] = now
        return True

    def make(self, key: str, channel_id: str, sn: int, edition: Edition, now: float) -> bytes | None:
        """Return the MESSAGE body that asks `channel_id` for a key frame, or None when it was asked just now."""
        return manscdp.iframe(sn, channel_id, edition) if self.ready(key, now) else None
