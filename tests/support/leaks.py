"""The leak gate: what an async test leaves behind — tasks, file descriptors, threads, child processes — fails it."""

import asyncio
import gc
import os
import threading
from collections import Counter
from dataclasses import dataclass


def open_files() -> Counter[str]:
    """What the open file descriptors of this process point at; sockets and pipes by kind only."""
    found: Counter[str] = Counter()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue  # the descriptor of the listing itself
        if target == "/dev/null":
            continue  # libuv keeps one from its first listen() on, to have a descriptor to spare at EMFILE
        kind = target.split(":", 1)[0]
        found[kind if kind in ("socket", "pipe", "anon_inode") else target] += 1
    return found


def children() -> set[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return {int(pid) for pid in file.read().split()}


@dataclass
class Snapshot:
    tasks: frozenset["asyncio.Task[object]"]
    files: Counter[str]
    threads: frozenset[str]
    children: frozenset[int]

    @classmethod
    def take(cls) -> "Snapshot":
        return cls(
            frozenset(asyncio.all_tasks()),
            open_files(),
            frozenset(thread.name for thread in threading.enumerate()),
            frozenset(children()),
        )

    def leaks(self, after: "Snapshot") -> list[str]:
        found = [
            f"task {task.get_name()} {task.get_coro()!r}"
            for task in after.tasks - self.tasks
            if task is not asyncio.current_task()
        ]
        found += [f"{count} file(s) {name}" for name, count in (after.files - self.files).items()]
        # The loop's own default executor lives as long as the loop does.
        found += [
            f"thread {name}" for name in after.threads - self.threads if not name.startswith(("asyncio_", "uvloop_"))
        ]
        found += [f"process {pid}" for pid in after.children - self.children]
        return found


async def settle_and_compare(before: Snapshot, seconds: float = 1.0) -> list[str]:
    """Give closing transports a moment, then tell what stays."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        await asyncio.sleep(0.01)
        leaks = before.leaks(Snapshot.take())
        if not leaks or asyncio.get_running_loop().time() > deadline:
            return leaks
        gc.collect()
