"""Maintenance: a host is emptied, kept empty, and given back what it had if that is wished.

The wish is a record in the store, so that it outlives every agent and leader. From it alone, and from what stands
where, each look finds what is still to be done: the most important first, a few at a time, each as a migration of its
own (`operations`), which refuses what cannot go anywhere before it is stopped. Only where the wish says so is such a
workload stopped. A host that dies meanwhile is no business of this file: what it had is failed over.
"""

from bisect import bisect
from collections.abc import Iterable
from dataclasses import replace

from . import operations, pairs, placing
from . import records as rec
from .commands import Act
from .leader_state import Turn
from .mirror import Entry, Mirror
from .transaction import Delete, Put, absent, unchanged
from .upcoming import is_up

ASKED_AT_ONCE = 8
"""How often all hosts are looked at for one that could have a workload, in one turn."""
ASK_AGAIN_MOST_S = 10.0
"""How long at most what could go nowhere is not asked about again while no host offers more."""


def held_by(mirror: Mirror, host: str) -> tuple[str, ...]:
    """The workloads that are on a host, the most important first."""
    return ranked(mirror, mirror.placed_on(host))


def followed_on(mirror: Mirror, host: str) -> tuple[str, ...]:
    """The workloads whose standby, or whose live migration's target, a host is."""
    named = ((name, mirror.placements[name].record) for name in mirror.there.get(host, ()))
    return ranked(mirror, (name for name, placed in named if host in (placed.standby, placed.moving_to)))


def ranked(mirror: Mirror, names: Iterable[str]) -> tuple[str, ...]:
    """These workloads, the most important first."""

    def rank(name: str) -> tuple[int, str]:
        entry = mirror.workloads.get(name)
        return (-entry.record.workload.priority if entry is not None else 0, name)

    return tuple(sorted(names, key=rank))


def advance_all(turn: Turn) -> None:
    """Take the hosts' maintenance as far as it can go now: those first that had to wait for their turn."""
    hosts = sorted(turn.state.mirror.maintenance)
    begin = bisect(hosts, turn.state.drained_up_to)
    moves, asked = _moves(turn) if hosts else {}, _Asked()
    for host in hosts[begin:] + hosts[:begin]:
        if asked.enough:
            break
        turn.set(drained_up_to=host)
        entry = turn.state.mirror.maintenance[host]
        if turn.is_busy(rec.MAINTENANCE + host) or not _may_order(turn, host):
            continue
        if entry.record.phase is rec.MaintenancePhase.ON:
            _empty(turn, entry, moves, asked)
        else:
            _bring_back(turn, entry, moves, asked)
    turn.set(drains_due=asked.enough)


class _Asked:
    """How often it was asked in a turn whether some host can have a workload: each time, all hosts are looked at."""

    def __init__(self) -> None:
        self.times = 0

    @property
    def enough(self) -> bool:
        """Whether the rest has to wait for the next turn."""
        return self.times >= ASKED_AT_ONCE


def _may_order(turn: Turn, host: str) -> bool:
    alive = turn.state.verdicts.get(host) is rec.Verdict.ALIVE
    return alive and turn.state.mirror.claimed(host) is not None


def _moves(turn: Turn) -> dict[str, rec.OperationRecord]:
    """The moves that are under way or asked for, by workload."""
    return {
        entry.record.workload: entry.record
        for entry in turn.state.mirror.operations.values()
        if entry.record.state not in rec.ENDED and entry.record.kind is not rec.OperationKind.CHECKPOINT
    }


def _empty(
    turn: Turn, entry: Entry[rec.MaintenanceRecord], moves: dict[str, rec.OperationRecord], asked: _Asked
) -> None:
    mirror, host = turn.state.mirror, entry.record.host
    there, followed = held_by(mirror, host), followed_on(mirror, host)
    if not there and not followed:
        _say_empty(turn, entry)
        return
    going = {name for name in there if name in moves or mirror.placements[name].record.order is rec.Order.STOP}
    going |= {name for name in followed if name in moves}
    going |= {name for name in (*there, *followed) if _is_begun(turn, name)}
    room = mirror.policies.record.moves_per_host - len(going)
    for names, begin in ((there, _move), (followed, _follow_elsewhere)):
        for name in names:
            if room <= 0 or asked.enough:
                break
            if name not in going and _is_due(turn, name) and begin(turn, entry, name, asked):
                room -= 1


def _is_begun(turn: Turn, name: str) -> bool:
    """Whether its leaving has just been written, though the picture does not show it yet."""
    return turn.is_busy(rec.PLACEMENTS + name) or turn.is_busy(rec.OPERATIONS + turn.course(name).move)


def _is_due(turn: Turn, name: str) -> bool:
    """Whether to ask anew where it could go: soon after it could go nowhere, then less often, at once for more room."""
    course, state = turn.course(name), turn.state
    if course.stayed_at is None or state.roomier_at > course.stayed_at:
        return True
    wait_s = state.timing.retry_first_s * 2.0 ** min(course.stayed - 1, 20)
    return state.at - course.stayed_at >= min(wait_s, ASK_AGAIN_MOST_S)


def _say_empty(turn: Turn, entry: Entry[rec.MaintenanceRecord]) -> None:
    if entry.record.empty:
        return
    host = entry.record.host
    cause = turn.note("host.emptied", host=host, because=entry.record.because)
    _write(turn, entry, replace(entry.record, empty=True, because=cause), (), cause)


def _write(
    turn: Turn,
    entry: Entry[rec.MaintenanceRecord],
    record: rec.MaintenanceRecord | None,
    more: tuple[Put, ...],
    because: str,
) -> None:
    key = rec.MAINTENANCE + entry.record.host
    itself = Put(key, rec.encode(record)) if record is not None else Delete(key)
    compares = (unchanged(key, entry.mod_revision), *(absent(each.key) for each in more))
    turn.write(Act.OPERATION, key, compares, (itself, *more), because)


def _move(turn: Turn, entry: Entry[rec.MaintenanceRecord], name: str, looks: _Asked) -> bool:
    """Have a workload leave; True when something was begun."""
    mirror, course, host = turn.state.mirror, turn.course(name), entry.record.host
    wanted, placed = mirror.workloads.get(name), mirror.placements[name]
    if wanted is None or wanted.record.desired is not rec.Desired.RUNNING or turn.is_busy(rec.PLACEMENTS + name):
        return False
    if course.moved_at is not None and turn.state.at - course.moved_at < turn.state.timing.retry_most_s:
        return False
    asked = _asked(turn, "leave", name, None, entry.record.because)
    looks.times += 1
    refusal = operations.refusal(turn, asked)
    if refusal is None:
        key = rec.OPERATIONS + asked.id
        turn.set_course(name, moved_at=turn.state.at, move=asked.id, drain="", stayed=0, stayed_at=None)
        stands = unchanged(rec.MAINTENANCE + host, entry.mod_revision)
        turn.write(Act.OPERATION, key, (absent(key), stands), (Put(key, rec.encode(asked)),), asked.because)
        return True
    if not entry.record.force:
        _stays(turn, entry, name, refusal)
        return False
    about = {"workload": name, "generation": placed.record.generation, "host": host}
    cause = turn.note("workload.given_up", text=refusal, because=entry.record.because, **about)
    placing.order_stop(turn, placed, f"{host} is in maintenance, and {refusal}", cause)
    return True


def _asked(turn: Turn, why: str, name: str, target: str | None, because: str) -> rec.OperationRecord:
    number = f"{why}-{name}-{turn.state.mirror.revision}"
    return rec.OperationRecord(number, rec.OperationKind.MIGRATE, name, target, because=because)


def _stays(turn: Turn, entry: Entry[rec.MaintenanceRecord], name: str, reason: str) -> None:
    """It cannot leave, for now: said once for each different reason."""
    turn.set_course(name, stayed=turn.course(name).stayed + 1, stayed_at=turn.state.at)
    if turn.course(name).drain == reason:
        return
    turn.set_course(name, drain=reason)
    turn.note("maintenance.waiting", workload=name, host=entry.record.host, text=reason, because=entry.record.because)


def _follow_elsewhere(turn: Turn, entry: Entry[rec.MaintenanceRecord], name: str, looks: _Asked) -> bool:
    """Have another host stand by for a machine; True when that was written."""
    mirror, host = turn.state.mirror, entry.record.host
    wanted, placed = mirror.workloads.get(name), mirror.placements[name]
    record, report = placed.record, mirror.reports.get(name)
    ready = record.standby == host and not record.hand_over and record.order is rec.Order.RUN
    if wanted is None or not ready or turn.is_busy(rec.PLACEMENTS + name):
        return False
    if report is None or not is_up(report.record, record):
        return False
    looks.times += 1
    choice = pairs.standby_for(turn, wanted.record.workload, record)
    about = {"workload": name, "generation": record.generation}
    if choice.host is None:
        reason = f"no other host can be its standby: {choice.told()}"
        if not entry.record.force:
            _stays(turn, entry, name, reason)
            return False
        pairs.leave(turn, placed, host, f"{host} is in maintenance, and {reason}")
        return True
    text = f"{host} is in maintenance"
    cause = turn.note("standby.replaced", host=choice.host, text=text, because=entry.record.because, **about)
    pairs.name_standby(turn, wanted.record.workload, placed, choice.host, replace(record, because=cause))
    return True


def _bring_back(
    turn: Turn, entry: Entry[rec.MaintenanceRecord], moves: dict[str, rec.OperationRecord], looks: _Asked
) -> None:
    """Ask for what was there to come back, a few at a time; what cannot or need not is left where it is."""
    mirror, host = turn.state.mirror, entry.record.host
    room = mirror.policies.record.moves_per_host - sum(1 for each in moves.values() if each.target == host)
    left, begun = list[str](), list[Put]()
    for name in ranked(mirror, entry.record.had):
        placed = mirror.placements.get(name)
        if placed is None or placed.record.host in (None, host) or name not in mirror.workloads:
            continue
        if name in moves or room <= 0 or looks.enough:
            left.append(name)
            continue
        looks.times += 1
        asked = _asked(turn, "return", name, host, entry.record.because)
        if refusal := operations.refusal(turn, asked):
            turn.note("maintenance.stayed", workload=name, host=host, text=refusal, because=asked.because)
            continue
        begun.append(Put(rec.OPERATIONS + asked.id, rec.encode(asked)))
        room -= 1
    if not left:
        cause = turn.note("maintenance.returned", host=host, because=entry.record.because)
        _write(turn, entry, None, tuple(begun), cause)
    elif tuple(left) != entry.record.had:
        _write(turn, entry, replace(entry.record, had=tuple(left)), tuple(begun), entry.record.because)
