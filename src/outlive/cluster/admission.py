"""How many hosts a cluster can lose with all that is to run still placed, by the very rules of placement.

Hosts are taken away in thought, whichever it may be, and what ran there is placed again as the leader would: the more
important first, with what it is together with and apart from, where its disks are, where it may be and there is room.
All choices of one host are tried, then all of two, and so on, while that stays cheap; where it does not, a count of
slots (`slots`) tells a number that is surely not too high. It goes by what the store says; losses are at one time, and
nothing else changes meanwhile. Nothing here decides: it is told, and a wish may be refused for it, never a failover.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb

from . import records as rec
from .affinity import Neighbours, Relations
from .beside import neighbours, relations_in
from .heartbeat import Flags
from .host import Capacity
from .mirror import Mirror
from .placement import NOTHING, Candidate, choose, choose_standby, usage
from .slots import surely_losable
from .workload import OnAfterLimit, Workload

MOST_LOOKS = 60_000
"""How often a workload is held against a host, in all; a tenth of a second, or a few."""
MOST_TOLD = 20
PASSES = 3


@dataclass(frozen=True, slots=True)
class Without:
    """A workload that would have no place, and why."""

    workload: str
    reason: str


@dataclass(frozen=True, slots=True)
class Losable:
    """So many hosts may die at once, whichever they are, and all that is to run still has a place.

    exact: one more would be too many; otherwise that was not found out, and more may be possible.
    worst: hosts whose loss is too much; empty when none is known, or when something has no place even now.
    without: what would have no place then, the most important first, at most MOST_TOLD.
    """

    hosts: int
    exact: bool
    worst: tuple[str, ...] = ()
    without: tuple[Without, ...] = ()

    def told(self) -> str:
        """The number in a sentence."""
        if self.without and not self.worst:
            return "not everything has a place even now"
        number = f"{'' if self.exact else 'at least '}{self.hosts} host{'' if self.hosts == 1 else 's'}"
        return f"it can lose {number}"


def losable(mirror: Mirror, most_looks: int = MOST_LOOKS) -> Losable:
    """How many hosts may be lost. most_looks: what it may cost. Raises nothing."""
    world = _World(mirror)
    if world.looks(0) > 4 * most_looks:
        return Losable(0, False)
    now = world.without(())
    if now:
        return Losable(0, True, (), now)
    able = world.able
    looks, found = most_looks, 0
    while found + 1 < len(able):
        cost = comb(len(able), found + 1) * (len(able) + world.looks(found + 1))
        if cost > looks:
            break
        looks -= cost
        worst = next((lost for lost in combinations(able, found + 1) if not world.has_room(lost)), None)
        if worst is not None:
            return Losable(found, True, worst, world.without(worst))
        found += 1
    if found + 1 >= len(able):
        # Without its last host nothing has a place, and there is nothing to know.
        last = tuple(able) if world.wanted else ()
        return Losable(max(0, len(able) - 1), True, last, world.without(last) if last else ())
    found = max(found, surely_losable(world.candidates(), world.wanted, mirror, world.relations))
    return _bounded(world, found, most_looks)


def _bounded(world: "_World", found: int, most_looks: int) -> Losable:
    """Too many choices to try: look at the likeliest to be too much, the fullest hosts of all and of each site."""
    if world.looks(found + 1) > most_looks:
        return Losable(found, False)
    fullest = sorted(world.able, key=lambda name: (-world.count(name), name))
    guesses = [fullest[: found + 1]]
    for site in sorted({world.hosts[name].host.site for name in fullest})[:4]:
        guesses.append([name for name in fullest if world.hosts[name].host.site == site][: found + 1])
    for guess in guesses:
        if len(guess) == found + 1 and (without := world.without(guess)):
            return Losable(found, True, tuple(sorted(guess)), without)
    return Losable(found, False)


class _World:
    """The picture, made ready for taking hosts away in thought."""

    def __init__(self, mirror: Mirror) -> None:
        self.mirror = mirror
        self.relations: Relations = relations_in(mirror)
        used = usage(mirror)
        self.hosts = {name: _candidate(mirror, name, used) for name in sorted(mirror.hosts)}
        self.able = [name for name, each in self.hosts.items() if each.verdict is rec.Verdict.ALIVE and each.claimed]
        self.wanted = [
            entry.record.workload
            for _, entry in sorted(mirror.workloads.items())
            if entry.record.desired is rec.Desired.RUNNING
        ]
        self._around = neighbours(mirror, self.relations)
        self._order = {each.name: self._rank(each) for each in self.wanted}
        self._on: dict[str | None, list[Workload]] = {}
        self._followed: dict[str, list[Workload]] = {}
        living = set(self.able)
        for each in self.wanted:
            placed = self._around.where(each.name)
            host = placed.host if placed is not None and placed.host in living else None
            self._on.setdefault(host, []).append(each)
            if placed is not None and placed.standby is not None:
                self._followed.setdefault(placed.standby, []).append(each)

    def _rank(self, workload: Workload) -> tuple[int, int, str]:
        together = len(self.relations.together.get(workload.name, ()))
        return (-self.relations.important(workload), together, workload.name)

    def count(self, host: str) -> int:
        """How many would have to be placed anew without this host."""
        return len(self._on.get(host, ()))

    def looks(self, lost: int) -> int:
        """About how often a workload is held against a host when so many hosts are taken away, at the most."""
        most = sorted((self.count(name) for name in self.able), reverse=True)[:lost]
        return (sum(most) + len(self._on.get(None, ()))) * len(self.able)

    def candidates(self) -> list[Candidate]:
        """The hosts that are left when none is taken away."""
        return [self.hosts[name] for name in self.able]

    def has_room(self, lost: Iterable[str]) -> bool:
        """Whether everything has a place without these hosts."""
        return not self.without(lost)

    def without(self, lost: Iterable[str]) -> tuple[Without, ...]:
        """What has no place without these hosts, and why."""
        return _Loss(self, frozenset(lost)).without()

    def displaced(self, lost: frozenset[str]) -> list[Workload]:
        """What runs nowhere without these hosts, the most important first."""
        found = [each for host in (None, *sorted(lost)) for each in self._on.get(host, ())]
        return sorted(found, key=lambda each: self._order[each.name])

    def unfollowed(self, lost: frozenset[str]) -> list[Workload]:
        """What may need another standby without these hosts."""
        found = {each.name: each for host in lost for each in (*self._followed.get(host, ()), *self._on.get(host, ()))}
        return [each for _, each in sorted(found.items()) if each.is_hot]

    def where(self, name: str) -> rec.PlacementRecord | None:
        """How a workload is placed now."""
        return self._around.where(name)

    def around(self, where: dict[str, rec.PlacementRecord]) -> Neighbours:
        """What is known of neighbours, some of them placed otherwise than now."""
        return replace(self._around, where=lambda name: where.get(name) or self._around.where(name))


class _Loss:
    """One choice of hosts that are gone, and what is placed anew for it."""

    def __init__(self, world: _World, lost: frozenset[str]) -> None:
        self._world = world
        self._lost = lost
        self._hosts = {name: world.hosts[name] for name in world.able if name not in lost}
        self._where: dict[str, rec.PlacementRecord] = {}
        self._around = world.around(self._where)

    def without(self) -> tuple[Without, ...]:
        waiting = [each for each in self._world.displaced(self._lost) if not self._is_taken_over(each)]
        followers = self._world.unfollowed(self._lost)
        reasons: dict[str, str] = {}
        for _ in range(PASSES):
            # Who was in another's way may be elsewhere by now, as after a while in truth.
            left = [each for each in waiting if (why := self._place(each)) and reasons.update({each.name: why}) is None]
            if not left or len(left) == len(waiting):
                waiting = left
                break
            waiting = left
        for each in followers:
            self._follow(each)
        missing = {each.name: reasons[each.name] for each in waiting}
        for each in self._world.displaced(self._lost):
            if each.name not in missing and (why := self._never_starts(each, missing)):
                missing[each.name] = why
        ranked = [each.name for each in self._world.displaced(self._lost) if each.name in missing]
        return tuple(Without(name, missing[name]) for name in ranked[:MOST_TOLD])

    def _is_taken_over(self, workload: Workload) -> bool:
        """Its standby goes on with it, on room that it has already."""
        placed = self._world.where(workload.name)
        if placed is None or not placed.paired or placed.standby not in self._hosts:
            return False
        self._where[workload.name] = replace(placed, host=placed.standby, standby=None, paired=False)
        return True

    def _place(self, workload: Workload) -> str:
        """Place it as the leader would; '' or why that cannot be."""
        placed = self._where.get(workload.name) or self._world.where(workload.name)
        if placed is not None and placed.host is not None:
            for host in (placed.host, placed.standby, placed.moving_to):
                self._take(host, Capacity() - workload.resources, -1)
        disk_hosts = placed.disk_hosts if placed is not None else ()
        company = self._around.company(workload)
        choice = choose(workload, list(self._hosts.values()), {}, disk_hosts=disk_hosts, company=company)
        record = placed or rec.PlacementRecord(workload.name, 1, None)
        left = replace(record, host=choice.host, standby=None, moving_to=None, paired=False, order=rec.Order.RUN)
        self._where[workload.name] = left
        self._take(choice.host, workload.resources)
        return "" if choice.host is not None else f"no host can have it: {choice.told()}"

    def _follow(self, workload: Workload) -> None:
        """Give a hot machine another standby if that can be; it goes without if not."""
        placed = self._where.get(workload.name) or self._world.where(workload.name)
        if placed is None or placed.host not in self._hosts or placed.standby in self._hosts:
            return
        company = self._around.company(workload, standby=True)
        choice = choose_standby(workload, list(self._hosts.values()), placed, company=company)
        self._take(choice.host, workload.resources)

    def _take(self, name: str | None, need: Capacity, count: int = 1) -> None:
        if name is not None and name in self._hosts:
            host = self._hosts[name]
            self._hosts[name] = replace(host, used=host.used + need, workloads=host.workloads + count)

    def _never_starts(self, workload: Workload, missing: dict[str, str]) -> str:
        """Why it would not start though it has a place: what it comes after does not run, over any number of steps."""
        looking, seen = [workload], {workload.name}
        while looking:
            one = looking.pop()
            if one.on_after_limit is OnAfterLimit.START:
                continue
            for before in one.after:
                if before in missing or not self._around.wanted(before):
                    return f"it comes after {before}, which would not run"
                if before not in seen:
                    seen.add(before)
                    looking.append(self._around.workloads[before])
        return ""


def _candidate(mirror: Mirror, name: str, used: dict[str, tuple[Capacity, int]]) -> Candidate:
    """A host as the store knows it."""
    verdict, (capacity, count) = mirror.verdicts.get(name), used.get(name, (NOTHING, 0))
    return Candidate(
        host=mirror.hosts[name].record,
        verdict=verdict.record.verdict if verdict is not None else rec.Verdict.SUSPECT,
        claimed=mirror.claimed(name) is not None,
        flags=Flags.DATASTORE_REACHABLE,
        used=capacity,
        workloads=count,
        maintenance=mirror.in_maintenance(name),
    )
