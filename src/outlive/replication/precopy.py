"""The first copy: memory and disks brought over while the guest runs, until little is left to stop it for.

First the disks' different blocks, then memory in rounds: all pages that are not zero, then again and again what was
written meanwhile, until that is few or no longer shrinks. What the guest writes to its disks goes along with each step.
Always from the beginning for memory: a standby's memory is empty when a pairing begins, since nothing proves what an
interrupted one left there; disks keep what was acknowledged (`disk_journal`). Nothing is held and nobody is stopped.
"""

from collections.abc import Callable
from dataclasses import dataclass

from outlive.replication.feed import Feed, Step
from outlive.replication.kernels import Staging
from outlive.replication.machine import Machine
from outlive.replication.memory import PAGE_BYTES, Runs, nonzero

FEW_PAGES = 300
MOST_ROUNDS = 30
SHRINKS = 0.8
_PATIENT_ROUNDS = 3
_STEP_PAGES = 4
_DISK_STEP_BYTES = 8 << 20
_SEEDING_STEPS = 4


class Interrupted(Exception):
    """The first copy was broken off: the standby is lost, or something else is wanted."""


@dataclass(frozen=True, slots=True)
class SeedProgress:
    done_bytes: int
    total_bytes: int
    round: int


class PreCopy:
    """One first copy. pause: called whenever there is time; raises Interrupted to break it off.

    next_step: gives the number of the next step.
    """

    def __init__(
        self,
        machine: Machine,
        feed: Feed,
        next_step: Callable[[], int],
        pause: Callable[[float], None],
        tell: Callable[[SeedProgress], None],
    ) -> None:
        self._machine = machine
        self._feed = feed
        self._next_step = next_step
        self._pause = pause
        self._tell = tell
        self._done = 0
        self._total = 0
        self.rounds: list[int] = []

    def run(self) -> None:
        """Copy until little is left. Raises Interrupted, and what the machine raises."""
        memory = self._machine.memory
        self._machine.tracker.scan(self._machine.runs)
        # The pages that are not zero, as they are now; whatever is written from here on, the next scan tells.
        everything = Runs.of([(0, memory.pages)])
        first = nonzero(memory, everything, Runs.for_pages(memory.pages))
        self._total = self._machine.journal.different_bytes + first.pages * PAGE_BYTES
        self._disks()
        self._memory(first)
        self.rounds.append(first.pages)
        while True:
            self._disks()
            self._until_acknowledged()
            runs = self._machine.tracker.scan(self._machine.runs)
            self.rounds.append(runs.pages)
            self._total += runs.pages * PAGE_BYTES
            self._memory(runs)
            if runs.pages < FEW_PAGES or len(self.rounds) >= MOST_ROUNDS or self._no_longer_shrinks():
                break
        self._disks()
        self._until_acknowledged()
        self._tell(SeedProgress(self._total, self._total, len(self.rounds)))

    def staging(self) -> Staging:
        """Room for pages; waits until the standby keeps up."""
        while self._feed.stagings.empty():
            self._pause(0.02)
        return self._feed.stagings.get()

    def _disks(self) -> None:
        journal = self._machine.journal
        while True:
            copied = journal.copy_some(_DISK_STEP_BYTES)
            if copied or journal.open_bytes:
                self._done += copied
                self._put([])
            if not copied:
                return

    def _memory(self, runs: Runs) -> None:
        position = 0
        while position < runs.pages:
            stagings: list[Staging] = []
            while position < runs.pages and len(stagings) < _STEP_PAGES:
                staging = self.staging()
                position += staging.copy_out(self._machine.tracker.source, runs, position)
                stagings.append(staging)
                if self._feed.stagings.empty():
                    break
            self._done += sum(staging.pages for staging in stagings) * PAGE_BYTES
            self._put(stagings)

    def _put(self, stagings: list[Staging]) -> None:
        number = self._next_step()
        self._feed.put(Step(number, stagings, self._machine.journal.cut(number), seeding=True))
        self._tell(SeedProgress(self._done, max(self._done, self._total), len(self.rounds)))
        self._pause(0.0)
        while not self._feed.room(_SEEDING_STEPS):
            self._pause(0.02)

    def _until_acknowledged(self) -> None:
        # Else the first epoch, for which clients wait already, would stand behind the rest of the copy.
        while self._feed.unacknowledged:
            self._pause(0.005)

    def _no_longer_shrinks(self) -> bool:
        recent = self.rounds[-_PATIENT_ROUNDS - 1 :]
        return len(recent) > _PATIENT_ROUNDS and min(recent[1:]) > recent[0] * SHRINKS
