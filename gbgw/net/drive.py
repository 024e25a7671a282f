"""The shell that runs any Machine: one task, one inbox, one clock reading per wake-up."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from gbgw.base.machine import TICK, Machine, Tick

EventT = TypeVar("EventT")
EffectT = TypeVar("EffectT")

BURST: Final = 64  # events taken in a row before other tasks get the loop: about 5 ms of SIP requests
BURST_SECONDS: Final = 0.01  # and the longest they may take: some events are documents of 2 ms each


async def drive(
    machine: Machine[EventT, EffectT],
    inbox: "asyncio.Queue[EventT]",
    perform: Callable[[EffectT], Awaitable[None] | None],
) -> None:
    """Feed `machine` from `inbox` and its own deadline until it is finished, performing its effects in order.

    perform: may be a plain function; the effects of a machine that many share must be performed without awaiting.
    """
    clock = asyncio.get_running_loop().time
    taken, since = 0, clock()
    while not machine.finished:
        event: EventT | Tick = TICK
        if inbox.empty():
            try:
                async with asyncio.timeout_at(machine.deadline):
                    event = await inbox.get()
            except TimeoutError:
                pass
            taken, since = 0, clock()
        else:
            event = inbox.get_nowait()
            taken += 1
            if taken >= BURST or clock() - since >= BURST_SECONDS:
                await asyncio.sleep(0)
                taken, since = 0, clock()
        for effect in machine.push(event, clock()):
            waiting = perform(effect)
            if waiting is not None:
                await waiting
