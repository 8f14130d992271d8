"""What virtual machines have said to the outside, in truth: every stretch of a guest's life, and how far it spoke.

A stretch begins with a cold start, or goes on from the epoch of another at which a standby (or the target of a
migration) adopted it. Nothing is judged here; the rule `one_voice` listens. Beside it the ledger is kept: whoever is
adopted from acts no longer, whatever still runs there, since it can say nothing any more; that rule makes sure of it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from .ledger import Ledger


@dataclass(slots=True)
class Stretch:
    """One host's part of a guest's life. released: the newest epoch that left; over_at: from where another went on."""

    workload: str
    host: str
    generation: int
    released: int = 0
    over_at: int | None = None
    over_by: str = ""


class Voices:
    """All stretches of the machines that have lived, the newest of each by its name."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._newest: dict[str, Stretch] = {}
        self.on_release: Callable[[Stretch, int], None] = lambda stretch, epoch: None
        self.on_adopt: Callable[[Stretch, int, str], None] = lambda stretch, epoch, host: None

    def begins(self, workload: str, host: str, generation: int) -> Stretch:
        """A guest starts from nothing: what came before it may say no more than it has."""
        before = self._newest.get(workload)
        if before is not None and before.over_at is None:
            before.over_at, before.over_by = before.released, host
        stretch = self._newest[workload] = Stretch(workload, host, generation)
        return stretch

    def releases(self, stretch: Stretch, epoch: int) -> None:
        """All output up to that epoch has left."""
        if epoch > stretch.released:
            self.on_release(stretch, epoch)
            stretch.released = epoch

    def adopts(self, before: Stretch, epoch: int, host: str, generation: int) -> Stretch:
        """A host goes on with a guest as it was at that epoch."""
        self.on_adopt(before, epoch, host)
        before.over_at, before.over_by = epoch, host
        self._ledger.end(before.host, before.workload, before.generation)
        stretch = self._newest[before.workload] = Stretch(before.workload, host, generation, released=epoch)
        return stretch
