"""What on this host needs which packages: workloads that use them, pushes under way, and what the store wants kept.

A package leaves the shelf only by `unless_needed`, in a thread. Pushes say what they bring in threads too, before any
of it is on the shelf, and wait for a removal that is under way; a workload says that it uses something on the agent's
loop, which waits for nothing: it may find that it was removed just before, and then has it brought again.
"""

import threading
from collections import Counter
from collections.abc import Callable

from outlive.cluster.commands import KeepPackages
from outlive.cluster.pushed import Pinned

from .observe import Clock

ARRIVING_S = 60.0
"""How long what was pushed stays without a record: as long as that may be on its way."""


class Needs:
    """Who needs what, of one run of the agent. wanted: what the store wants here; None: not known yet."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._removing = threading.Lock()
        self._counting = threading.Lock()
        self._used: dict[str, tuple[Pinned, ...]] = {}
        self._arriving: Counter[str] = Counter()
        self._arrived: dict[str, float] = {}
        self.wanted: KeepPackages | None = None

    def uses(self, workload: str, pins: tuple[Pinned, ...]) -> None:
        """A workload uses these from now on, and no others."""
        self._used[workload] = pins

    def done_with(self, workload: str) -> None:
        """Nothing of this workload is here any more."""
        self._used.pop(workload, None)

    def brings(self, id: str) -> None:
        """A push brings this, and is under way until `pushed`. For threads: it waits for a removal."""
        with self._removing, self._counting:
            self._arriving[id] += 1

    def pushed(self, id: str, *, refused: bool) -> None:
        """A push of this was answered. refused: surely no record comes of it; else there may be one on its way."""
        with self._counting:
            self._arriving.subtract([id])
            self._arriving = +self._arriving
            now = self._clock()
            self._arrived = {each: until for each, until in self._arrived.items() if now < until}
            if not refused:
                self._arrived[id] = now + ARRIVING_S

    def kept(self) -> frozenset[str]:
        """The ids of what is used here, or to be kept."""
        kept = {each.pinned.id for each in self.wanted.kept} if self.wanted is not None else set()
        return frozenset(kept | {each.id for pins in list(self._used.values()) for each in pins})

    def needed(self, id: str) -> bool:
        """Whether a package is needed by anybody here."""
        with self._counting:
            arriving = id in self._arriving or self._clock() < self._arrived.get(id, 0.0)
        return arriving or id in self.kept()

    def unless_needed(self, id: str, remove: Callable[[str], object]) -> bool:
        """Remove what nobody needs, and say whether that was so. For threads: it waits for others'."""
        with self._removing:
            if self.needed(id):
                return False
            remove(id)
            return True
