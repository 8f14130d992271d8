"""How many hosts can be lost, as this agent's picture tells, and whether a wish leaves enough of them.

Counting takes a moment in large clusters, so it is done beside the loop, once for each picture. A wish that takes no
more room than before is never weighed; nor is anything that the cluster does by itself.
"""

import asyncio
from dataclasses import replace

from outlive.cluster import records as rec
from outlive.cluster.admission import Losable, losable
from outlive.cluster.mirror import Entry
from outlive.cluster.policies import AdmissionMode
from outlive.errors import RefusedForSafety

from .view import View


class NoRoomToSpare(RefusedForSafety):
    """After the wish too few hosts could be lost."""

    id = "admission.refused"


class Counted:
    """The number for a view's newest picture, counted once for each picture that tells something else."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._by: tuple[tuple[object, ...], frozenset[str]] = ((), frozenset())
        self._found: Losable | None = None

    async def now(self) -> Losable:
        """How many hosts can be lost."""
        picture = self._view.mirror
        rooms = (picture.hosts, picture.workloads, picture.placements, picture.verdicts)
        # Claims are renewed all the time; only who holds one matters.
        held = frozenset(name for name in picture.hosts if picture.claimed(name) is not None)
        same = len(self._by[0]) == len(rooms) and all(a is b for a, b in zip(rooms, self._by[0], strict=True))
        if self._found is None or not same or held != self._by[1]:
            found = await asyncio.to_thread(losable, picture)
            self._by, self._found = (rooms, held), found
            return found
        return self._found


async def weigh(view: View, stands: rec.WorkloadRecord | None, wanted: rec.WorkloadRecord, *, force: bool) -> list[str]:
    """What is to be said of a wish that leaves less to lose than the policy asks for. Raises NoRoomToSpare."""
    policy = view.mirror.policies.record.admission
    if policy.mode is AdmissionMode.OFF or not _takes_more(stands, wanted):
        return []
    name = wanted.workload.name
    entry = Entry(wanted, 0, 0)
    after = await asyncio.to_thread(losable, replace(view.mirror, workloads=view.mirror.workloads.set(name, entry)))
    if after.hosts >= policy.can_lose_hosts:
        return []
    if policy.mode is AdmissionMode.WARN and len(view.mirror.hosts) <= policy.can_lose_hosts:
        return []  # so few hosts can do no better, and `outlive status` says so
    told = f"With {name} {_number(after)}, and the policy is that it can lose {policy.can_lose_hosts}."
    why = _why(after)
    if policy.mode is AdmissionMode.REFUSE and after.exact and not force:
        raise NoRoomToSpare(
            told,
            cause=why,
            remedy="add hosts, or ask for less in its [resources] and rules; `--force` starts it all the same, and "
            "`outlive policy set admission.mode=warn` does for all",
        )
    return [f"{told} {why[:1].upper()}{why[1:]}." if why else told]


def _takes_more(stands: rec.WorkloadRecord | None, wanted: rec.WorkloadRecord) -> bool:
    if wanted.desired is not rec.Desired.RUNNING:
        return False
    if stands is None or stands.desired is not rec.Desired.RUNNING:
        return True
    before, after = stands.workload, wanted.workload
    return (before.resources, before.placement, before.after) != (after.resources, after.placement, after.after)


def _number(found: Losable) -> str:
    if found.without and not found.worst:
        return "not everything has a place even now"
    return f"the cluster could lose {'' if found.exact else 'at least '}{found.hosts} of its hosts"


def _why(found: Losable) -> str:
    """What would have no place."""
    if not found.without:
        return "" if found.exact else "more could not be proven in the time that there is"
    first, more = found.without[0], len(found.without) - 1
    lost = f"without {' and '.join(found.worst)} " if found.worst else ""
    others = f", nor would {more} more" if more else ""
    return f"{lost}{first.workload} would have no place{others}: {first.reason}"
