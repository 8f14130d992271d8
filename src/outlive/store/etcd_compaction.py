"""Whether etcd may be made to forget: its past is one for everybody who has keys there.

Others may watch from revisions that we need no more, or keep the past on purpose. So unless we were told otherwise it
is touched only while nobody else has keys, and whoever may not look is not taken to be alone.
"""

from dataclasses import dataclass
from enum import Enum

from .base import HistoryKept


class Compaction(Enum):
    """Who sees to it that etcd forgets."""

    ALONE = "alone"
    """We, as long as nobody else has keys there."""
    ALWAYS = "always"
    NEVER = "never"
    """etcd itself, or nobody."""


@dataclass(frozen=True, slots=True)
class Tenancy:
    """Who has keys in an etcd. others: how many keys are not ours; None: our user may not know."""

    others: int | None

    def kept(self) -> HistoryKept | None:
        """Why its past is not ours to forget; None when it is."""
        if self.others == 0:
            return None
        cause = "this host's user may not look whether others have keys there"
        if self.others:
            cause = f"{self.others} of its keys are other programs'"
        return HistoryKept(
            "etcd is not made to forget old changes, and grows.",
            cause=cause,
            remedy="have etcd do it (--auto-compaction-retention=1h) and write store_compaction = 'never' into "
            "agents' files; or 'always', if nobody else needs them",
        )
