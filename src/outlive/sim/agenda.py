"""Virtual time: what is to happen when, and nothing else.

Two things due at the same moment happen in the order in which they were put here, so a run depends on nothing but
its seed.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class Agenda:
    """A heap of things to do, each at a moment of real (simulated) time, in seconds."""

    __slots__ = ("_heap", "_put", "done", "halted", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self.done = 0
        self.halted = False
        self._put = 0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []

    def at(self, when_s: float, act: Callable[..., None], *args: Any) -> None:
        """Do it at that moment; at once (after what is due already) when the moment has passed."""
        self._put += 1
        heappush(self._heap, (when_s if when_s > self.now else self.now, self._put, act, args))

    def after(self, delay_s: float, act: Callable[..., None], *args: Any) -> None:
        """Do it `delay_s` seconds from now."""
        self._put += 1
        heappush(self._heap, (self.now + delay_s, self._put, act, args))

    def halt(self) -> None:
        """Do nothing more: the run has shown what it had to show."""
        self.halted = True

    def run_until(self, end_s: float) -> None:
        """Let time pass to `end_s`, doing all that is due up to then, or until halted."""
        heap = self._heap
        while heap and heap[0][0] <= end_s and not self.halted:
            when_s, _, act, args = heappop(heap)
            self.now = when_s
            self.done += 1
            act(*args)
        if not self.halted:
            self.now = max(self.now, end_s)
