"""Which workloads must run before another is started, and what keeps it waiting.

`Workload.after` names them. It holds at every start, the first and each failover: so after the loss of many hosts
things come back in their order, the more important first where there is a choice (`courses`).
"""

from . import records as rec
from .mirror import Mirror


def cycle(mirror: Mirror, workload: str) -> tuple[str, ...]:
    """The names along which a workload waits for itself, from and back to it; empty when it does not."""
    came_from: dict[str, str] = {}
    waiting = [workload]
    while waiting:
        name = waiting.pop()
        entry = mirror.workloads.get(name)
        for before in entry.record.workload.after if entry is not None else ():
            if before == workload:
                trail = [name]
                while trail[-1] != workload:
                    trail.append(came_from[trail[-1]])
                return (*reversed(trail), workload)
            if before not in came_from:
                came_from[before] = name
                waiting.append(before)
    return ()


def waits_for(mirror: Mirror, workload: str) -> str | None:
    """Why it must not be started yet; None when all that it comes after runs."""
    entry = mirror.workloads.get(workload)
    if entry is None or not entry.record.workload.after:
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
