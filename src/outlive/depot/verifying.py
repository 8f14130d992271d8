"""Whether what lies on a shelf is still what it was: each package is read through, slowly, and again after days.

Disks lose what nobody reads, and a copy that is damaged is found out when it is needed most. What is damaged leaves the
shelf with every package that has it, so that all that is on the shelf is whole, and what left can be fetched anew. When
a package was last read through, its manifest's time of change tells: that outlives agents and is one small write.
"""

import errno
import threading
from dataclasses import dataclass

from outlive.cluster.package import Component

from .errors import ComponentDamaged, ComponentMissing, DepotFailed, PackageMissing
from .shelf import Shelf

EACH_S = 7 * 86400.0
"""How long after it was read through a package is read again."""
BYTES_A_SECOND = 16 << 20
"""How fast packages are read, so that a disk has time for its workloads."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast to read. cancelled: ends a reading that is under way."""

    cancelled: threading.Event
    bytes_a_second: float = BYTES_A_SECOND

    def after(self, count: int) -> bool:
        """Rest as long as so many bytes are to take; False when the reading is to end."""
        return not self.cancelled.wait(count / self.bytes_a_second)


def due(shelf: Shelf, now: float) -> str | None:
    """The package that was read longest ago, if it is to be read now. now: seconds since 1970, as files' times are.

    A clock that was wrong has it read early, never late. Raises DepotFailed.
    """
    ages = {id: now - at for id, at in shelf.read_at().items()}
    late = [(age, id) for id, age in ages.items() if age >= EACH_S or age < 0]
    return max(late, key=lambda each: (abs(each[0]), each[1]))[1] if late else None


def damaged(shelf: Shelf, id: str, pace: Pace, now: float) -> tuple[Component, ...] | None:
    """Read all of a package: what of it is missing, cannot be read or is not what it was; None: it was broken off.

    That it was read is remembered. Raises PackageMissing, with a cause where the manifest was the damage; DepotFailed.
    """
    wrong = []
    for component in shelf.manifest(id).components:
        try:
            for piece in shelf.components.read(component):
                if not pace.after(len(piece)):
                    return None
        except (ComponentMissing, ComponentDamaged):
            wrong.append(component)
        except DepotFailed as failed:
            if getattr(failed.__cause__, "errno", None) != errno.EIO:
                raise  # too many files open, say: that tells nothing of the content
            wrong.append(component)
    shelf.was_read(id, now)
    return tuple(wrong)


def throw_out(shelf: Shelf, wrong: tuple[Component, ...]) -> frozenset[str]:
    """Take what is damaged, and all packages that have it, from the shelf; their ids. Raises DepotFailed."""
    gone: set[str] = set()
    digests = {component.digest for component in wrong}
    while found := {id for id in shelf.ids() if _has(shelf, id, digests)}:
        for id in found:
            shelf.remove(id)
        for component in wrong:
            shelf.components.discard(component)
        gone |= found  # and once more, for what was put there meanwhile
    return frozenset(gone)


def _has(shelf: Shelf, id: str, digests: set[str]) -> bool:
    try:
        return any(component.digest in digests for component in shelf.manifest(id).components)
    except PackageMissing:
        return False
