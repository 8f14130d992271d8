"""What virtual machines have said to the outside, in truth: every stretch of a guest's life, and how far it spoke.

A stretch begins with a cold start, or goes on from the epoch of another at which a standby (or the target of a
migration) adopted it. So too what is on the disks of each host: of which stretch, up to which epoch. Nothing is judged
here; the rules `one_voice` and `disks_are_newest` listen. Beside it the ledger is kept: whoever is adopted from acts no
longer, whatever still runs there, since it can say nothing any more; the first of these rules makes sure of it.
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


ALL = 10**9
"""The epoch up to which the disks of a host hold what runs there."""

Disk = tuple[Stretch, int]


class Voices:
    """All stretches of the machines that have lived, the newest of each by its name.

    on_begin: told (workload, host, the newest stretch before it, what is on the host's disks) of a cold start.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._newest: dict[str, Stretch] = {}
        self._disks: dict[tuple[str, str], Disk] = {}
        self.on_begin: Callable[[str, str, Stretch | None, Disk | None], None] = lambda *about: None
        self.on_release: Callable[[Stretch, int], None] = lambda stretch, epoch: None
        self.on_adopt: Callable[[Stretch, int, str], None] = lambda stretch, epoch, host: None

    def begins(self, workload: str, host: str, generation: int) -> Stretch:
        """A guest starts from nothing: what came before it may say no more than it has."""
        before = self._newest.get(workload)
        self.on_begin(workload, host, before, self._disks.get((workload, host)))
        if before is not None and before.over_at is None:
            before.over_at, before.over_by = before.released, host
        stretch = self._newest[workload] = Stretch(workload, host, generation)
        self._disks[workload, host] = (stretch, ALL)
        return stretch

    def keeps(self, workload: str, host: str, stretch: Stretch | None, epoch: int) -> None:
        """The disks of a standby are those of this epoch from now on; of no stretch: they are being written over."""
        if stretch is None:
            self._disks.pop((workload, host), None)
        else:
            self._disks[workload, host] = (stretch, epoch)

    def forgets(self, workload: str) -> None:
        """It was removed: what comes by its name is another machine."""
        self._newest.pop(workload, None)
        for key in [key for key in self._disks if key[0] == workload]:
            del self._disks[key]

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
        self._disks[before.workload, host] = (stretch, ALL)
        return stretch
