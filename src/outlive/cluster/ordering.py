"""Which workloads must run before another is started, and what keeps it waiting.

`Workload.after` names them; what a workload is placed with (`affinity`) must at least have a place. It holds at every
start, the first and each failover: so after the loss of many hosts things come back in their order, the more important
first where there is a choice (`courses`).
"""

from . import records as rec
from .mirror import Mirror
from .workload import Workload


def cycle(mirror: Mirror, workload: str) -> tuple[str, ...]:
    """The names along which a workload waits for itself, from and back to it; empty when it does not."""
    came_from: dict[str, str] = {}
    waiting = [workload]
    while waiting:
        name = waiting.pop()
        entry = mirror.workloads.get(name)
        for before in _needed(entry.record.workload) if entry is not None else ():
            if before == workload:
                trail = [name]
                while trail[-1] != workload:
                    trail.append(came_from[trail[-1]])
                return (*reversed(trail), workload)
            if before not in came_from:
                came_from[before] = name
                waiting.append(before)
    return ()


def looked_at(mirror: Mirror, workload: Workload) -> tuple[str, ...]:
    """The workloads by which it is known whether it waits for itself: all that it needs before it, over any steps."""
    found: dict[str, None] = {}
    looking = list(_needed(workload))
    while looking:
        name = looking.pop()
        if name == workload.name or name in found:
            continue
        found[name] = None
        entry = mirror.workloads.get(name)
        if entry is not None:
            looking.extend(_needed(entry.record.workload))
    return tuple(found)


def _needed(workload: Workload) -> tuple[str, ...]:
    """What must be there before it: running, or at least placed."""
    return (*workload.after, *workload.placement.together_with)


def waits_for(mirror: Mirror, workload: str) -> str | None:
    """Why it must not be started yet; None when all that it comes after runs."""
    entry = mirror.workloads.get(workload)
    if entry is None or not _needed(entry.record.workload):
        return None
    if circle := cycle(mirror, workload):
        return f"workloads wait for each other: {' → '.join(circle)}"
    for before in entry.record.workload.after:
        if not _runs(mirror, before):
            return f"it comes after {before}, which does not run"
    return None


def _runs(mirror: Mirror, workload: str) -> bool:
    placed, report = mirror.placements.get(workload), mirror.reports.get(workload)
    if placed is None or report is None or placed.record.host is None or placed.record.order is rec.Order.STOP:
        return False
    claim = mirror.claimed(placed.record.host)
    if claim is None or claim.incarnation != placed.record.claim:
        return False
    mine = (report.record.generation, report.record.host) == (placed.record.generation, placed.record.host)
    return mine and report.record.stage is rec.Stage.RUNNING
