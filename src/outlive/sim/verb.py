"""How a fault's verb is known: what it does, how many arguments it takes, and which of them name hosts."""

from collections.abc import Callable
from dataclasses import dataclass

Undo = Callable[[], None] | None
"""How a fault is undone when its time is over; None: it is done once and has no length."""


class UnknownVerb(ValueError):
    """A fault that no world knows."""


@dataclass(frozen=True, slots=True)
class Verb:
    """act: does it. least, most: how many arguments it takes. hosts: which of them name hosts (`a+b`: several)."""

    act: Callable[..., Undo]
    least: int
    most: int
    hosts: tuple[int, ...] = ()
