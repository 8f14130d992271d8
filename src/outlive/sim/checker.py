"""What a checker is: it hears what happens in a world, and says when its rule does not hold.

Checkers look at the world as it truly is (who acts, what stands in the store, when), not at what the machines
believe. The rules are in `safety` and `liveness`.
"""

from dataclasses import dataclass

from outlive.cluster import records as rec
from outlive.cluster.records import EventRecord
from outlive.cluster.transaction import KeyValue, Transaction

from .parts import Parts
from .runtime import Life
from .store import Changes
from .voices import Disk, Stretch


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that did not hold. at_s: when that showed, in real (simulated) seconds."""

    checker: str
    at_s: float
    text: str


class Checker:
    """A rule. It overrides what it needs to hear of; what it returns is what is wrong, None if nothing."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    @property
    def name(self) -> str:
        """The rule's name, as people and tests know it."""
        letters = "".join(f"_{each.lower()}" if each.isupper() else each for each in type(self).__name__)
        return letters.lstrip("_")

    def acts(self, host: str, workload: str, generation: int) -> str | None:
        """A host begins to act, or goes on after a pause."""

    def ceases(self, host: str, workload: str, generation: int) -> str | None:
        """A host acts no longer."""

    def started(self, host: str, workload: str, generation: int, module: str) -> str | None:
        """A module's process was started."""

    def writes(self, origin: str, transaction: Transaction) -> str | None:
        """The store is about to accept this transaction."""

    def changed(self, origin: str, changes: Changes) -> str | None:
        """The store accepted these changes."""

    def rewritten(self, origin: str, changes: Changes) -> str | None:
        """The store accepted changes of what is wanted of workloads, among these."""

    def recorded(self, host: str, record: EventRecord) -> str | None:
        """A machine recorded an event."""

    def begins(self, workload: str, host: str, before: Stretch | None, disk: Disk | None) -> str | None:
        """A guest is about to start from nothing but its disks."""

    def speaks(self, stretch: Stretch, epoch: int) -> str | None:
        """The output of a guest up to that epoch is about to leave."""

    def adopts(self, before: Stretch, epoch: int, host: str) -> str | None:
        """A host is about to go on with a guest as it was at that epoch."""

    def cut_off(self, host: str, by: str) -> str | None:
        """A fence device is about to cut a host's power, as the agent of `by` asked."""

    def drops(self, host: str, package: str) -> str | None:
        """A host has removed its copy of a package, by id."""

    def looked(self) -> str | None:
        """Half a second has passed."""

    def ended(self) -> str | None:
        """The run is over."""


class KnowsEnds(Checker):
    """A checker that must know which hosts have ended which generations of what, by their own word."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._ended: set[tuple[str, str, int]] = set()

    def recorded(self, host: str, record: EventRecord) -> str | None:
        """Note an end."""
        if record.kind in ("workload.stopped", "workload.failed", "workload.lost"):
            self._ended.add((host, record.workload, record.generation))
        return None


def decoded(value: object) -> rec.Record | None:
    """What stands in a key; None when there is none, or a hand has spoilt it."""
    if not isinstance(value, KeyValue):
        return None
    try:
        return rec.decode(value.key, value.value)
    except rec.BadRecord:
        return None


def wanted(parts: Parts, workload: str) -> bool:
    """Whether the store says that it shall run."""
    record = decoded(parts.store.data.get(rec.WORKLOADS + workload))
    return isinstance(record, rec.WorkloadRecord) and record.desired is rec.Desired.RUNNING


def spoilt(parts: Parts, key: str) -> bool:
    """Whether a hand has written something over a key that nobody can read."""
    value = parts.store.data.get(key)
    return value is not None and decoded(value) is None


def runs_whole(parts: Parts, workload: str) -> bool:
    """Whether all its modules run, on one host."""
    acting = parts.ledger.acting.get(workload, {})
    if len(acting) != 1:
        return False
    program = parts.hosts[next(iter(acting))].runtime.programs.get(workload)
    if program is None:
        return False
    lives = [
        program.processes[module.name].life if module.name in program.processes else Life.GONE
        for module in program.workload.modules
    ]
    return all(life is Life.RUNNING for life in lives)
