"""What a protocol machine looks like: push in, effects out, time is an argument.

A machine owns its state, its timers and nothing else. It never waits and never reads a clock: the shell in
`net/drive.py` reads the loop's clock
once per wake-up and hands it over. `deadline` is the earliest of its timers; `push` fires what is already due before
it looks at the event.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Final, Protocol, TypeVar, runtime_checkable


class Tick(Enum):
    """The only event that carries no news: a deadline has passed."""

    TICK = "tick"


TICK: Final = Tick.TICK


@runtime_checkable
class Effect(Protocol):
    """Something the shell must do for a machine; effects are frozen slotted dataclasses."""


EventT_contra = TypeVar("EventT_contra", contravariant=True)
EffectT_co = TypeVar("EffectT_co", covariant=True)


class Machine(Protocol[EventT_contra, EffectT_co]):
    """A sans-IO state machine."""

    @property
    def deadline(self) -> float | None:
        """Loop seconds of the earliest timer, or None when no timer is armed."""

    @property
    def finished(self) -> bool:
        """True once no event can change anything any more."""

    def push(self, event: EventT_contra | Tick, now: float) -> Sequence[EffectT_co]:
        """Fire the timers due at `now`, then take `event`; return the effects in the order they must be performed."""
