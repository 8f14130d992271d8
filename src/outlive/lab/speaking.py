"""Listening who speaks for a machine: the kernel's own count of the frames that leave each host's taps.

A hot machine has two emulators, and only one of them may be heard. Hosts are looked at in turn every few
milliseconds; once another host has spoken, the one before it must stay silent until it takes over again.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from . import namespaces
from .lab import Lab
from .lookouts import looking

LOOK_S = 0.005
TAPS = "ol"
NETWORKS = ("olbr", "olvx", "olvs")


@dataclass
class Voices:
    """Who spoke. turns: (unix_s, host) each time that another host began; both: hosts that spoke out of turn."""

    turns: list[tuple[float, str]] = field(default_factory=list)
    both: list[tuple[float, str]] = field(default_factory=list)
    looks: int = 0

    def heard(self, at_s: float, host: str, since_s: float | None = None) -> None:
        """A host spoke just now, or at some moment since it was looked at before."""
        before = [each for _, each in self.turns]
        if before and before[-1] == host:
            return
        # It may have been before the other began. If it was not, the next look tells.
        if host in before and since_s is not None and since_s < self.turns[-1][0]:
            return
        # The one that was replaced may be seen a moment late, since hosts are looked at one after the other.
        if host in before and at_s - self.turns[-1][0] < 1.0:
            self.both.append((at_s, host))
            return
        self.turns.append((at_s, host))


class _Host:
    """One host's taps, from a thread that has entered its namespace."""

    def __init__(self, name: str, namespace: str) -> None:
        self.name = name
        self._namespace = namespace
        self._sent = -1

    def enter(self) -> None:
        namespaces.enter(self._namespace)

    def spoke(self) -> bool:
        """Whether frames of a guest left since the last look."""
        sent = 0
        with open("/proc/thread-self/net/dev") as table:
            for line in table:
                name, _, counts = line.strip().partition(":")
                if name.startswith(TAPS) and not name.startswith(NETWORKS):
                    sent += int(counts.split()[1])
        before, self._sent = self._sent, sent
        return 0 <= before < sent


@contextmanager
def listened(lab: Lab) -> Iterator[Voices]:
    """Listen to all hosts of a lab for as long as the block lasts. Raises Failed when one could not be listened to."""
    voices, lock = Voices(), threading.Lock()

    def listen(host: _Host, stop: threading.Event) -> None:
        host.enter()
        since_s = time.time()
        while not stop.wait(LOOK_S):
            looked_s = time.time()
            spoke, now = host.spoke(), time.time()
            with lock:
                voices.looks += 1
                if spoke:
                    voices.heard(now, host.name, since_s)
            since_s = looked_s

    listening = [partial(listen, _Host(each.name, each.namespace)) for each in lab.plan.hosts]
    with looking("A host of the lab was not listened to.", listening):
        yield voices
