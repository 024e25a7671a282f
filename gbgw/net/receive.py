"""The receive thread of this process, seen from the loop: one thread, one descriptor that says when to look."""

import asyncio
import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final, Protocol, Self

from gbgw import _receiver
from gbgw.base import limits
from gbgw.base.strict import is_strict
from gbgw.base.tally import Tally
from gbgw.observe import log

_JOIN_SECONDS: Final = 2.0  # it ends within a tick


class Listener(Protocol):
    """Owner of an inlet or a trunk."""

    def on_received(self) -> None:
        """There are events in its fold, or strangers at its inlet. Must not wait."""


class Receiving:
    """Owns the thread; `open` lends it sockets.

    tick_seconds: see _receiver.ReceiveThread. tally: counts receive.*.
    """

    def __init__(self, *, tally: Tally, tick_seconds: float = limits.RECEIVE_TICK_SECONDS) -> None:
        self._tally = tally
        self._core = _receiver.ReceiveThread(tick_seconds=tick_seconds)
        self._thread = threading.Thread(target=self._core.run, name="gbgw-receive", daemon=True)
        self._seen: dict[str, int] = {}
        self._log = log.get("receive")

    def __len__(self) -> int:
        """Sockets lent."""
        return len(self._core)

    async def __aenter__(self) -> Self:
        self._thread.start()
        asyncio.get_running_loop().add_reader(self._core.event_fd, self._on_ready)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._core.event_fd)
        self._core.stop()
        self._thread.join(_JOIN_SECONDS)
        if self._thread.is_alive():
            self._tally.add("receive.slow_stop")  # its descriptors stay with it
        else:
            self._core.close()

    def open(self, fold: _receiver.Fold, fd: int, owner: Listener) -> _receiver.Inlet:
        """Have a non-blocking UDP socket read into `fold`. OSError when that cannot be."""
        try:
            return self._core.open(fold, fd, owner)
        except OverflowError as error:
            raise OSError(str(error)) from error

    def open_trunk(self, fd: int, owner: Listener) -> _receiver.Trunk:
        """Have a non-blocking UDP socket read for many folds. OSError when that cannot be."""
        try:
            return self._core.open_trunk(fd, owner)
        except OverflowError as error:
            raise OSError(str(error)) from error

    def settle_counts(self) -> None:
        self._tally.absorb(self._core.counts, self._seen)

    def worst_lateness(self) -> float:
        """Seconds that the worst tick since the last question came late."""
        return self._core.worst_lateness()

    def worst_loop_lateness(self) -> float:
        """Seconds that units waited for the loop, at worst since the last question."""
        return self._core.worst_loop_lateness()

    @property
    def overrun_units(self) -> int:
        """Units dropped since the loop did not take them."""
        return self._core.counts["receive.overrun_units"]

    @property
    def busy_seconds(self) -> float:
        """The thread at work, neither asleep nor waiting."""
        return self._core.busy_seconds

    @property
    def waiting_bytes(self) -> int:
        """Of units that the loop has not taken yet."""
        return self._core.waiting_bytes

    def _on_ready(self) -> None:
        for owner in _listeners(self._core.drain()):
            try:
                owner.on_received()
            except Exception:
                self._log.exception("bug")
                self._tally.add("bug")
                if is_strict():
                    raise


def _listeners(owners: Iterable[object]) -> Iterator[Listener]:
    for owner in owners:
        if owner is not None:
            yield owner  # type: ignore[misc]  # `open` takes no others
