"""The threads of the load: each core runs in one, owned here from start to join."""

import threading
from types import TracebackType
from typing import Protocol, Self

from gbgw.base.errors import LocalError

JOIN_SECONDS = 5.0  # a turn takes milliseconds; the machine may be very busy


class Core(Protocol):
    def run(self) -> None: ...
    def stop(self) -> None: ...


class Thread:
    """`with Thread(core, name)`: the core runs inside the block."""

    def __init__(self, core: Core, name: str) -> None:
        self._core = core
        self._thread = threading.Thread(target=core.run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._core.stop()
        self._thread.join(JOIN_SECONDS)
        if self._thread.is_alive():
            raise LocalError(f"the thread {self._thread.name} does not end", code="load_stuck")
