"""Who waits for a place, and for what: such a workload is left alone until something that it depends on has grown.

Trying each of thousands against all hosts at every tick would keep a leader from everything else. So a workload that
nobody can have sleeps, and is woken by what it waits for: a host that came back or offers more than it did when it was
tried, a change of its own record or placement, of a workload that it comes after or is placed beside, of the policies,
or its own time: after each try in vain it sleeps longer, by the waits that the policies give to failures. Whoever is
woken is restless (`courses`), and one turn tries only so many in vain; the others have the next.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from . import beside, pacing
from . import records as rec
from .failover import Wait
from .heartbeat import Flags
from .host import Capacity, Host
from .leader_state import Turn
from .placement import Candidate, is_able

IN_VAIN_AT_ONCE = 64
"""How many may find no place in one turn; each costs a record that says why."""
HELD_AGAINST_AT_ONCE = 10_000
"""How many hosts may be held against workloads in one turn, once somebody found no place."""
LOOK_AGAIN_S = 1.0
MAKE_SURE_S = 10.0
"""How long one that waits for others sleeps at the most, though their changes wake it."""


@dataclass(frozen=True, slots=True)
class Waits:
    """One that sleeps.

    until_at: when it is woken in any case.  need: what it asks for, if it waits for room; None: room would not help it.
    version, placed: the revision of its record, and its placement, when it was tried: another one wakes it.
    tried: it was; else only its host's claim is waited for.
    """

    until_at: float
    need: Capacity | None
    version: int = 0
    placed: rec.PlacementRecord | None = None
    tried: bool = True


@dataclass(frozen=True, slots=True)
class Offer:
    """What a host has to give. crowded: it is starting as many workloads as it may."""

    host: Host
    flags: Flags
    free: Capacity
    crowded: bool


def is_asleep(turn: Turn, name: str) -> bool:
    """Whether nothing has changed of a workload itself since it was tried in vain."""
    waits, mirror = turn.state.waiting.get(name), turn.state.mirror
    if waits is None or not waits.tried or turn.state.at >= waits.until_at:
        return False
    wanted, placed = mirror.workloads.get(name), mirror.placements.get(name)
    if wanted is None or wanted.mod_revision != waits.version:
        return False
    return (placed.record if placed is not None else None) == waits.placed


def sleep(turn: Turn, name: str, until_at: float, *, need: Capacity | None = None) -> None:
    """Leave a workload alone until something changes. until_at: at the latest."""
    mirror = turn.state.mirror
    wanted, placed = mirror.workloads[name], mirror.placements.get(name)
    waits = Waits(until_at, need, wanted.mod_revision, placed.record if placed is not None else None)
    turn.set(waiting=turn.state.waiting.set(name, waits))


def for_claim(turn: Turn, name: str, wait: Wait) -> bool:
    """Whether a workload, whose host is not well, needs no look until its host's claim or word is another."""
    if not wait.on_claim or is_watched(turn, name):
        return False
    if wait.until_at is not None:
        turn.set(waiting=turn.state.waiting.set(name, Waits(wait.until_at, None, tried=False)))
    return True


def is_watched(turn: Turn, name: str) -> bool:
    """Whether something else is decided on it by time alone."""
    wanted = turn.state.mirror.workloads.get(name)
    rollout = wanted.record.rollout if wanted is not None else None
    return rollout is not None and rollout.state in (rec.RolloutState.WAITING, rec.RolloutState.TRIAL)


def expect(turn: Turn, record: rec.PlacementRecord) -> None:
    """The placement of one that sleeps is being written: that change is none to it."""
    if (waits := turn.state.waiting.get(record.workload)) is not None:
        turn.set(waiting=turn.state.waiting.set(record.workload, replace(waits, placed=record)))


def found_none(turn: Turn, name: str, need: Capacity | None, *others: float) -> None:
    """No host can have it: it sleeps until one offers more, longer after each try. others: moments to try it at."""
    course, policies = turn.course(name), turn.state.mirror.policies.record
    turn.in_vain.add(name)
    turn.set_course(name, in_vain=course.in_vain + 1)
    # The first of these waits is that before the try which was just made.
    moments = (turn.state.at + max(LOOK_AGAIN_S, policies.retry_after_s(course.in_vain + 2)), *others)
    sleep(turn, name, min(each for each in moments if each > turn.state.at), need=need)


def is_spent(turn: Turn) -> bool:
    """Whether so many were tried in vain that this turn must come to its end."""
    if not turn.in_vain:
        return False
    return len(turn.in_vain) >= IN_VAIN_AT_ONCE or turn.ranking().looked >= HELD_AGAINST_AT_ONCE


def wake(turn: Turn, names: Iterable[str]) -> None:
    """Have these looked at again, as far as they sleep."""
    waiting, woken = turn.state.waiting, set[str]()
    for name in names:
        if name in waiting:
            waiting = waiting.delete(name)
            woken.add(name)
    if woken:
        turn.set(waiting=waiting, restless=turn.state.restless | woken)


def forget(turn: Turn, name: str) -> None:
    """It waits no more."""
    if name in turn.state.waiting:
        turn.set(waiting=turn.state.waiting.delete(name))


def touched(turn: Turn, names: Iterable[str]) -> None:
    """What is known of these has changed: wake who comes after them, or is or was placed by where they are."""
    if turn.state.waiting:
        before = turn.state.relations
        both = (before, beside.relations(turn))
        wake(turn, {other for name in names for relations in both for other in relations.minds(name)})


def notice(turn: Turn, *, look: bool = True) -> None:
    """Wake those whose time has come, and those who wait for room when a host has more to give than it had.

    look: whether the hosts are to be looked at; not where nothing is known to have changed that matters.
    """
    state = turn.state
    if not any(waits.need is not None for waits in state.waiting.values()):
        look = False
        if state.offers is not None:
            turn.set(offers=None)
    before, offers = state.offers, _offers(turn) if look else {}
    if look:
        turn.set(offers=offers, stirred=False)
    # What was freed in the very turn in which the first of them was tried is known by no earlier look.
    grown = [each for name, each in offers.items() if before is None or _has_grown(before.get(name), each)]
    most = Capacity(
        max((each.free.cpus for each in grown), default=-1.0), max((each.free.memory_mib for each in grown), default=-1)
    )
    wake(
        turn,
        [
            name
            for name, waits in state.waiting.items()
            if state.at >= waits.until_at or (grown and waits.need is not None and waits.need.fits_in(most))
        ],
    )


def _offers(turn: Turn) -> Mapping[str, Offer]:
    crowd = pacing.crowded(turn)
    return {name: _offer(each, name in crowd) for name, each in turn.ranking().hosts.items() if is_able(each)}


def _offer(each: Candidate, crowded: bool) -> Offer:
    return Offer(each.host, each.flags & Flags.DATASTORE_REACHABLE, each.host.capacity - each.used, crowded)


def _has_grown(before: Offer | None, now: Offer) -> bool:
    if before is None or (before.crowded and not now.crowded) or before.flags != now.flags:
        return True
    return before.host != now.host or not now.free.fits_in(before.free)
