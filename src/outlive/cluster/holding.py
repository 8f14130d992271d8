"""Room that is held for the more important: what a less important workload may not take from those about to need it.

When many must be placed at once, their turns come at slightly different times (each host's claim ends when it ends), so
that looking at them in order is not enough. Here the more important ones that have no place, or whose host is not
alive, are placed in thought, by the very rules of placement; what they take is not there for others. It is held for a
while only: a workload that does not come to take its room does not keep others waiting for ever.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from . import records as rec
from .beside import company, relations
from .host import Capacity
from .leader_state import Turn
from .placement import NOTHING, Candidate, choose
from .workload import Workload

MOST_HELD = 200
"""For how many workloads room is held at once, the most important ones."""

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
    if turn.held is None:
        turn.held = _hold(turn)
    least = relations(turn).important(workload) - (1 if standby else 0)
    held = tuple(each for each in turn.held if each.importance > least and each.workload.name != workload.name)
    return tuple(each for each in held if not turn.is_busy(rec.PLACEMENTS + each.workload.name))


def with_held(used: dict[str, tuple[Capacity, int]], held: tuple[Held, ...]) -> dict[str, tuple[Capacity, int]]:
    """What is used when what is held counts as taken."""
    taken = dict(used)
    for each in held:
        capacity, count = taken.get(each.host, (NOTHING, 0))
        taken[each.host] = (capacity + each.workload.resources, count)
    return taken


def _hold(turn: Turn) -> tuple[Held, ...]:
    """Place in thought, the most important first, all that need a place now or are about to."""
    known = relations(turn)
    pending = sorted(
        (-known.important(each), each.name, each) for each in _pending(turn) if _is_timely(turn, each.name)
    )
    if len({importance for importance, _, _ in pending}) < 2 and not any(_lacks_a_standby(turn)):
        return ()
    used, found = turn.used(), []
    state = turn.state
    hosts = {each.host.name: each for each in turn.candidates(used)}
    for importance, name, workload in pending[:MOST_HELD]:
        placed = state.mirror.placements.get(name)
        disk_hosts = placed.record.disk_hosts if placed is not None else ()
        choice = choose(workload, list(hosts.values()), {}, disk_hosts=disk_hosts, company=company(turn, workload))
        if choice.host is not None:
            found.append(Held(choice.host, workload, -importance))
            hosts[choice.host] = _fuller(hosts[choice.host], workload)
    return tuple(found)


def _lacks_a_standby(turn: Turn) -> Iterator[bool]:
    mirror = turn.state.mirror
    for entry in mirror.placements.values():
        placed = entry.record
        if placed.host is not None and placed.standby is None and placed.workload in mirror.workloads:
            yield mirror.workloads[placed.workload].record.workload.is_hot


def _fuller(host: Candidate, workload: Workload) -> Candidate:
    used, count = host.used + workload.resources, host.workloads + 1
    return replace(host, used=used, workloads=count)


def _pending(turn: Turn) -> list[Workload]:
    """The workloads that are to run and have no place, or one on a host that is not alive."""
    mirror, verdicts = turn.state.mirror, turn.state.verdicts
    lost = {name for name in mirror.hosts if verdicts.get(name, rec.Verdict.SUSPECT) not in _LIVES}
    found = []
    for name, entry in mirror.workloads.items():
        if entry.record.desired is not rec.Desired.RUNNING or turn.is_busy(rec.PLACEMENTS + name):
            continue
        placed = mirror.placements.get(name)
        if placed is not None and placed.record.paired:
            continue  # its standby has its room already
        host = placed.record.host if placed is not None else None
        if host is None or host in lost or host not in mirror.hosts:
            found.append(entry.record.workload)
    return found


def _is_timely(turn: Turn, name: str) -> bool:
    """Whether it has not kept others waiting for long; each step on the way to a new place counts from anew."""
    course, at = turn.course(name), turn.state.at
    placed = turn.state.mirror.placements.get(name)
    host = placed.record.host if placed is not None else None
    step = str(turn.state.verdicts.get(host, rec.Verdict.DEAD)) if host is not None else "unplaced"
    if course.held_for != step:
        turn.set_course(name, held_for=step, held_since=at)
        return True
    most_s = turn.state.timing.hold_room_s
    if course.after_since is not None:
        # It waits for others in order, and that is known to take longer.
        most_s = max(most_s, turn.state.mirror.workloads[name].record.workload.after_limit_s)
    return at - course.held_since < most_s
