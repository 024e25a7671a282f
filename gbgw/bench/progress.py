"""How far a benchmark is, on the terminal; silent where there is none."""

import asyncio
import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

STEP_SECONDS = 0.25


class Bar:
    """`with Bar() as bar`; load.Progress. run: which of several, shown before the text."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self.run = ""
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            console=console,
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, text: str, total: float = 0.0) -> None:
        self._bar.reset(self._task, description=f"{self.run}{text}", total=total or None)

    def advance(self, amount: float) -> None:
        self._bar.advance(self._task, amount)

    async def wait(self, text: str, seconds: float) -> None:
        """Let time pass."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        self.step(text, seconds)
        while (left := end - loop.time()) > 0:
            await asyncio.sleep(min(left, STEP_SECONDS))
            self._bar.update(self._task, completed=seconds - max(0.0, end - loop.time()))
