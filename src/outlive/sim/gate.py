"""The gate through which everything reaches a process: open, closed for a while, or shut for good.

A stopped process, and all on a paused host, take in nothing; what came meanwhile waits, in order, and is dealt with on
waking. What is meant for a dead process goes nowhere.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from .agenda import Agenda


class Gate:
    """Closings are counted, so that a pause of the host and a stop of the process overlap rightly."""

    __slots__ = ("_agenda", "_closed", "_shut", "_waiting")

    def __init__(self, agenda: Agenda) -> None:
        self._agenda = agenda
        self._closed = 0
        self._shut = False
        self._waiting: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()

    @property
    def now(self) -> float:
        """The real moment, in seconds."""
        return self._agenda.now

    @property
    def is_open(self) -> bool:
        """Whether the process runs and takes in what comes."""
        return not self._closed and not self._shut

    @property
    def is_shut(self) -> bool:
        """Whether the process is gone."""
        return self._shut

    def after(self, delay_s: float, act: Callable[..., None], *args: Any) -> None:
        """Have the process do something later, or when it wakes after that."""
        self._agenda.after(delay_s, self.enter, act, *args)

    def enter(self, act: Callable[..., None], *args: Any) -> None:
        """Have the process take something in: now, on waking, or never."""
        if self._shut:
            return
        if self._closed or self._waiting:
            self._waiting.append((act, args))
        else:
            act(*args)

    def enter_if_room(self, most: int, act: Callable[..., None], *args: Any) -> None:
        """The same, but lost when `most` things wait already: a socket's buffer."""
        if not self._closed or len(self._waiting) < most:
            self.enter(act, *args)

    def close(self) -> None:
        """The process stands still."""
        self._closed += 1

    def open(self) -> None:
        """It goes on, with what has waited."""
        self._closed -= 1
        while self._waiting and not self._closed and not self._shut:
            act, args = self._waiting.popleft()
            act(*args)

    def shut(self) -> None:
        """The process is dead."""
        self._shut = True
        self._waiting.clear()
