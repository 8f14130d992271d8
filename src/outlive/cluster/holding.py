"""Room that is held for the more important: what a less important workload may not take from those about to need it.

When many must be placed at once, their turns come at slightly different times (each host's claim ends when it ends), so
that looking at them in order is not enough. Here the more important ones that have no place, or whose host is not
alive, are placed in thought, by the very rules of placement; what they take is not there for others. It is held for a
while only: a workload that does not come to take its room does not keep others waiting for ever.
"""

from dataclasses import dataclass

from . import records as rec
from .beside import company, relations
from .leader_state import Turn
from .workload import Workload

MOST_HELD = 200
"""For how many workloads room is held at once, the most important ones."""

_UNPLACED = "unplaced"
_STEPS = (
    "",
    rec.Verdict.ALIVE,
    rec.Verdict.SUSPECT,
    rec.Verdict.PARTITIONED,
    rec.Verdict.ISOLATED,
    rec.Verdict.DEAD,
    _UNPLACED,
)
"""The way to a new place, in order: a host that goes to and fro on it is on no new step."""

_LIVES = frozenset({rec.Verdict.ALIVE, rec.Verdict.SUSPECT})


@dataclass(frozen=True, slots=True)
class Held:
    """Room that is held: on which host, for whom, how important that one is."""

    host: str
    workload: Workload
    importance: int


def held_before(turn: Turn, workload: Workload, *, standby: bool = False) -> tuple[Held, ...]:
    """The room that is held for workloads more important than this one. Raises nothing.

    standby: it is for a standby of it, which goes after all that is as important and has no place.
    """
    least = relations(turn).important(workload) - (1 if standby else 0)
    if turn.pending is None:
        turn.pending = _pending(turn)
    pending = turn.pending
    while pending and turn.is_busy(rec.PLACEMENTS + pending[-1][1]):
        pending.pop()
    if all(importance <= least or name == workload.name for importance, name in pending[-2:]):
        return ()
    if turn.held is None:
        turn.held = _hold(turn, pending)
    held = tuple(each for each in turn.held if each.importance > least and each.workload.name != workload.name)
    return tuple(each for each in held if not turn.is_busy(rec.PLACEMENTS + each.workload.name))


def _hold(turn: Turn, pending: list[tuple[int, str]]) -> tuple[Held, ...]:
    """Place in thought, the most important first, all that need a place now or are about to."""
    found, hosts, mirror = list[Held](), turn.ranking().copy(), turn.state.mirror
    for importance, name in reversed(pending):
        if len(found) >= MOST_HELD:
            break
        workload = mirror.workloads[name].record.workload
        if hosts.is_vain(workload) or not _is_timely(turn, name):
            continue
        placed = mirror.placements.get(name)
        disk_hosts = placed.record.disk_hosts if placed is not None else ()
        host = hosts.seen({}).choose(workload, {}, None, disk_hosts, company(turn, workload)).host
        if host is not None:
            found.append(Held(host, workload, importance))
            used, count = hosts.used_on(host)
            hosts.use(host, (used + workload.resources, count + 1))
    return tuple(found)


def _pending(turn: Turn) -> list[tuple[int, str]]:
    """The workloads that are to run and have no place, or one on a host that is not alive; the most important last."""
    mirror, verdicts, known = turn.state.mirror, turn.state.verdicts, relations(turn)
    names = set(turn.tally().homeless)
    for host in mirror.there:
        if host not in mirror.hosts or verdicts.get(host, rec.Verdict.SUSPECT) not in _LIVES:
            names.update(mirror.placed_on(host))
    found = []
    for name in names:
        wanted, placed = mirror.workloads.get(name), mirror.placements.get(name)
        if wanted is None or wanted.record.desired is not rec.Desired.RUNNING or turn.is_busy(rec.PLACEMENTS + name):
            continue
        if placed is None or not placed.record.paired:  # else its standby has its room already
            found.append(known.rank(name))
    return [(-rank[0], rank[2]) for rank in sorted(found, reverse=True)]


def _is_timely(turn: Turn, name: str) -> bool:
    """Whether it has not kept others waiting for long; each further step to a new place counts from anew."""
    course, at = turn.course(name), turn.state.at
    placed = turn.state.mirror.placements.get(name)
    host = placed.record.host if placed is not None else None
    step = str(turn.state.verdicts.get(host, rec.Verdict.DEAD)) if host is not None else _UNPLACED
    if _STEPS.index(step) > _STEPS.index(course.held_for):
        turn.set_course(name, held_for=step, held_since=at)
        return True
    most_s = turn.state.timing.hold_room_s
    if course.after_since is not None:
        # It waits for others in order, and that is known to take longer.
        most_s = max(most_s, turn.state.mirror.workloads[name].record.workload.after_limit_s)
    return at - course.held_since < most_s
