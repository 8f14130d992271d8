"""Making sure that a host has ended: what it takes, the ways to do it, and how far that is.

Nouns alone; `failover` says when a host's end has to be proven, and `fencing` has it proven. A proof is of one
incarnation of a host's claim: a host that came back since is another, and is never fenced on its account.
"""

from dataclasses import dataclass
from enum import StrEnum


class EndProof(StrEnum):
    """What a cluster asks for before it calls a silent host ended.

    CLAIM: that its claim has certainly ended, which its guard sees to.  FENCE: that a fence method, or a person, has
    proven it besides.
    """

    CLAIM = "claim"
    FENCE = "fence"


class FenceState(StrEnum):
    """How far the fencing of one incarnation is. FAILED: every method was tried; they are tried again in a while."""

    TRYING = "trying"
    FAILED = "failed"
    PROVEN = "proven"


BY_HAND = "by hand"
"""The name of the method that is a person's word."""


@dataclass(frozen=True, slots=True)
class FenceMethod:
    """A way to fence hosts that the leader's agent has, as decisions see it.

    hosts: whom it can fence; None: any.  run_locks: it ends no host, but proves of single workloads that nobody acts
    for them, by taking their run locks.  tries: attempts in a row before the next method has its turn.
    """

    name: str
    hosts: frozenset[str] | None = None
    run_locks: bool = False
    tries: int = 1

    def can_fence(self, host: str) -> bool:
        """Whether it knows this host."""
        return self.hosts is None or host in self.hosts


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A workload that waits for the proof, and the datastore with its run lock (None: it has none)."""

    workload: str
    generation: int
    datastore: str | None


@dataclass(frozen=True, slots=True)
class Pursuit:
    """The fencing of one incarnation by this leader. Times in seconds on its clock.

    method: which of the methods that can fence the host is next, and attempt: its attempts so far.
    number: of the try under way, 0 for none; sought: what it is to prove.  rounds: how often all were tried in vain.
    cause:  id of the latest event in its course.
    """

    claim: int
    method: int = 0
    attempt: int = 0
    number: int = 0
    sought: tuple[Unfinished, ...] = ()
    rounds: int = 0
    next_at: float = 0.0
    cause: str = ""
