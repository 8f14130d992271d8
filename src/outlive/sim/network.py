"""The network between hosts: messages that get lost, late, doubled and overtaken, and directions that are cut.

A cut counts how often it was made, so that overlapping faults heal independently. The store and the
datastore have ways of their own (`store`, `datastore`).
"""

from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from .agenda import Agenda
from .setup import Delays


class Network:
    """All directed ways between hosts. loss and duplication: probabilities; extra_delay_s: the most that is added."""

    def __init__(self, agenda: Agenda, random: Random, delays: Delays) -> None:
        self._agenda = agenda
        self._random = random
        self._delay_s = delays.network_s
        self._cuts: dict[tuple[str, str], int] = {}
        self.loss = delays.network_loss
        self.duplication = 0.0
        self.extra_delay_s = 0.0

    def cut(self, ways: Iterable[tuple[str, str]]) -> None:
        """Nothing goes these ways (from, to) until they are mended as often as they were cut."""
        for way in ways:
            self._cuts[way] = self._cuts.get(way, 0) + 1

    def mend(self, ways: Iterable[tuple[str, str]]) -> None:
        """Undo one cut of each way."""
        for way in ways:
            left = self._cuts.get(way, 0) - 1
            if left > 0:
                self._cuts[way] = left
            else:
                self._cuts.pop(way, None)

    def passes(self, sender: str, receiver: str) -> bool:
        """Whether the way is open."""
        return (sender, receiver) not in self._cuts

    def send(self, sender: str, receiver: str, arrive: Callable[..., None], *message: Any) -> None:
        """Carry a message; `arrive(*message)` happens never, once or twice."""
        if self._cuts and (sender, receiver) in self._cuts:
            return
        if sender == receiver:
            self._agenda.after(0.0001, arrive, *message)
            return
        if self.loss and self._random.random() < self.loss:
            return
        self._agenda.after(self._delay(), arrive, *message)
        if self.duplication and self._random.random() < self.duplication:
            self._agenda.after(self._delay() * 3, arrive, *message)

    def _delay(self) -> float:
        low, high = self._delay_s
        delay_s = low + (high - low) * self._random.random()
        if self.extra_delay_s:
            delay_s += self.extra_delay_s * self._random.random() ** 3
        return delay_s
