"""The shared datastore: heartbeat slots, and run locks by generation.

For each host it is reachable or not, prompt or hung, and what a reader sees may be stale. A write that hung happens
when the hang ends, if its host still lives. A run lock goes when its holder's process dies; a host that lost power
keeps it a while longer, as a file server's client would.
"""

from dataclasses import dataclass
from enum import Enum
from random import Random

from outlive.cluster.heartbeat import Heartbeat, ModuleTable

from .agenda import Agenda
from .setup import Delays

KEPT = 12


class Access(Enum):
    """How the datastore answers one host now."""

    PROMPT = "prompt"
    HUNG = "hung"
    AWAY = "away"


class Grip(Enum):
    """The outcome of an attempt to take a run lock."""

    TAKEN = "taken"
    HELD = "held by another"
    OLDER = "a newer generation has had it"
    AWAY = "the datastore cannot be reached"


@dataclass(frozen=True, slots=True)
class Slot:
    """One version of a host's slot, and when it was written."""

    written_at: float
    heartbeat: Heartbeat
    table: ModuleTable


@dataclass(slots=True)
class Lock:
    """The run lock of a workload. free_at: from when on it can be taken; None: it is held.

    fenced: it was taken to see that nobody holds it, so that nobody takes it at this generation any more.
    """

    generation: int = 0
    holder: str = ""
    free_at: float | None = 0.0
    fenced: bool = False


class Datastore:
    """checks_generation: what a run lock is for; only a test turns it off."""

    def __init__(self, agenda: Agenda, random: Random, delays: Delays) -> None:
        self._agenda = agenda
        self._random = random
        self._delays = delays
        self._slots: dict[str, list[Slot]] = {}
        self._locks: dict[str, Lock] = {}
        self._away: dict[str, int] = {}
        self._hung: dict[str, int] = {}
        self._down = 0
        self.stale_s: dict[str, float] = {}
        self.checks_generation = True

    def set_away(self, host: str, by: int = 1) -> None:
        """Make it unreachable for a host (by=-1: reachable again)."""
        self._away[host] = self._away.get(host, 0) + by

    def set_hung(self, host: str, by: int = 1) -> None:
        """Make it hang for a host (by=-1: no longer)."""
        self._hung[host] = self._hung.get(host, 0) + by

    def set_down(self, by: int = 1) -> None:
        """Make it unreachable for all (by=-1: reachable again)."""
        self._down += by

    def access(self, host: str) -> Access:
        """How it answers the host now."""
        if self._down or self._away.get(host):
            return Access.AWAY
        return Access.HUNG if self._hung.get(host) else Access.PROMPT

    def write(self, host: str, heartbeat: Heartbeat, table: ModuleTable) -> None:
        """The host's slot now holds this; older content than it has is not written over newer."""
        versions = self._slots.setdefault(host, [])
        if versions and versions[-1].heartbeat.sequence >= heartbeat.sequence:
            return
        versions.append(Slot(self._agenda.now, heartbeat, table))
        if len(versions) > KEPT:
            del versions[0]

    def read(self, reader: str) -> list[Slot]:
        """The slots of all other hosts, as this reader sees them."""
        seen = []
        horizon = self._agenda.now - self.stale_s.get(reader, 0.0)
        for host, versions in self._slots.items():
            if host != reader:
                for slot in reversed(versions):
                    if slot.written_at <= horizon:
                        seen.append(slot)
                        break
        return seen

    def table_of(self, host: str, digest: bytes) -> ModuleTable | None:
        """The module table beside a host's slot, if it is the one asked for."""
        versions = self._slots.get(host)
        if versions and versions[-1].heartbeat.table == digest:
            return versions[-1].table
        return None

    def take(self, host: str, workload: str, generation: int) -> Grip:
        """Try to take a workload's run lock for a generation."""
        if self.access(host) is not Access.PROMPT:
            return Grip.AWAY
        lock = self._locks.setdefault(workload, Lock())
        if lock.free_at is None or lock.free_at > self._agenda.now:
            return Grip.HELD
        if self.checks_generation and generation < lock.generation + lock.fenced:
            return Grip.OLDER
        lock.generation, lock.holder, lock.free_at, lock.fenced = generation, host, None, False
        return Grip.TAKEN

    def fence(self, host: str, workload: str, generation: int) -> Grip:
        """Take the lock away from a generation, and let go of it again."""
        lock = self._locks.get(workload)
        if lock is None or lock.generation != generation:
            return Grip.OLDER  # one that the accused never held proves nothing of it
        grip = self.take(host, workload, generation)
        if grip is Grip.TAKEN:
            lock.holder, lock.free_at, lock.fenced = "", self._agenda.now, True
        return Grip.TAKEN if grip is Grip.OLDER and lock.fenced else grip

    def is_fenced(self, workload: str, generation: int) -> bool:
        """Whether nobody can take the lock at this generation any more."""
        lock = self._locks.get(workload)
        return lock is not None and (lock.generation > generation or (lock.generation == generation and lock.fenced))

    def release(self, host: str, workload: str, generation: int, *, late: bool = False) -> None:
        """The holder is gone; late: it vanished without a word, and its hold has to run out."""
        lock = self._locks.get(workload)
        if lock is None or lock.holder != host or lock.generation != generation or lock.free_at is not None:
            return
        low, high = self._delays.lock_freed_s if late else (0.0, 0.0)
        lock.free_at = self._agenda.now + low + (high - low) * self._random.random()
