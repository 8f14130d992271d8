"""Sums over all placements of a picture: what is used on each host, what starts there, and who has no place.

A leader needs them at every decision, and a picture changes in few places at once: so they are kept from one picture
to the next, by the names of the workloads that changed. Each host's sum is made anew from its own workloads, in the
order of their names, so that it is the same to the last bit as if all had been summed up (`placement.usage`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from immutables import Map

from . import records as rec
from .host import Capacity
from .mirror import Mirror
from .placement import NOTHING, takes_room_beside
from .upcoming import is_upcoming

Used = tuple[Capacity, int]
SUMMED = (rec.WORKLOADS, rec.PLACEMENTS, rec.REPORTS)
"""The rooms of the store that are summed up here."""


@dataclass(frozen=True, slots=True)
class Tally:
    """The sums of one picture.

    mirror: that picture; where another has the same workloads, placements and reports, they are its sums too.
    there: host → the workloads that take room on it.  used: host → what they use there, and how many they are.
    starting: host → how many workloads are on their way up there.
    homeless: those that are to run and nobody acts for.  unfollowed: hot machines that have a place and no standby.
    """

    mirror: Mirror = Mirror()
    there: "Map[str, frozenset[str]]" = Map()
    used: "Map[str, Used]" = Map()
    starting: "Map[str, int]" = Map()
    homeless: "Map[str, bool]" = Map()
    unfollowed: "Map[str, bool]" = Map()

    def is_of(self, mirror: Mirror) -> bool:
        """Whether these are the sums of this picture."""
        of = self.mirror
        return of.placements is mirror.placements and of.workloads is mirror.workloads and of.reports is mirror.reports

    def used_with(self, meant: Mapping[str, str], followed: Mapping[str, str]) -> dict[str, Used]:
        """What is used on each host when some workloads are elsewhere than the picture shows.

        meant, followed: workload → the host, or the standby, that was written for it since. The caller's own.
        """
        used, elsewhere = dict(self.used), dict[str, tuple[str, ...]]()
        for name in sorted({*meant, *followed}):
            entry = self.mirror.placements.get(name)
            if name not in self.mirror.workloads or (entry is None and name not in meant):
                continue
            host = meant.get(name, entry.record.host if entry is not None else None)
            elsewhere[name] = tuple(each for each in (host, followed.get(name)) if each is not None)
        incoming: dict[str, set[str]] = {}
        for name, hosts in elsewhere.items():
            for host in (*hosts, *rooms(self.mirror, name)):
                incoming.setdefault(host, set()).add(name)
        for host, names in incoming.items():
            used[host] = _sum(self.mirror, host, names | self.there.get(host, frozenset()), elsewhere)
        return used

    def starting_with(self, meant: Mapping[str, str]) -> dict[str, int]:
        """How many are on their way up on each host, with those that were written since. The caller's own."""
        starting = dict(self.starting)
        for name, host in meant.items():
            if (known := coming_up_on(self.mirror, name)) is not None:
                starting[known] -= 1
            starting[host] = starting.get(host, 0) + 1
        return starting


EMPTY = Tally()


def tally(mirror: Mirror) -> Tally:
    """The sums of a picture, made from all of it."""
    return moved(EMPTY, mirror, {*mirror.placements, *mirror.workloads})


def moved(known: Tally, mirror: Mirror, names: Iterable[str]) -> Tally:
    """The sums of the next picture, in which these workloads' records, placements or reports are others."""
    before, dirty, begun = known.mirror, set[str](), set[str]()
    there, starting = known.there.mutate(), known.starting.mutate()
    homeless, unfollowed = known.homeless.mutate(), known.unfollowed.mutate()
    for name in names:
        old, new = set(rooms(before, name)), set(rooms(mirror, name))
        dirty |= old | new
        for host in old - new:
            there[host] = there[host] - {name}
        for host in new - old:
            there[host] = there.get(host, frozenset()) | {name}
        for picture, by in ((before, -1), (mirror, 1)):
            if (rising := coming_up_on(picture, name)) is not None:
                starting[rising] = starting.get(rising, 0) + by
                begun.add(rising)
        for kept, holds in ((homeless, _is_homeless), (unfollowed, _is_unfollowed)):
            if holds(mirror, name):
                kept[name] = True
            elif name in kept:
                del kept[name]
    used = known.used.mutate()
    for host in dirty:
        if names_there := there.get(host):
            used[host] = _sum(mirror, host, names_there, {})
        else:
            there.pop(host, None)
            used.pop(host, None)
    for host in begun:
        if not starting[host]:
            del starting[host]
    return Tally(mirror, there.finish(), used.finish(), starting.finish(), homeless.finish(), unfollowed.finish())


def rooms(mirror: Mirror, name: str) -> tuple[str, ...]:
    """The hosts where a workload takes room, that where it runs first."""
    entry = mirror.placements.get(name)
    if entry is None or name not in mirror.workloads:
        return ()
    hosts = (entry.record.host, *takes_room_beside(entry.record))
    return tuple(host for host in hosts if host is not None)


def coming_up_on(mirror: Mirror, name: str) -> str | None:
    """The host where a workload is on its way up."""
    entry = mirror.placements.get(name)
    return entry.record.host if entry is not None and is_upcoming(entry.record, mirror.reports.get(name)) else None


def _sum(mirror: Mirror, host: str, names: Iterable[str], elsewhere: Mapping[str, tuple[str, ...]]) -> Used:
    cpus, memory_mib, count = NOTHING.cpus, NOTHING.memory_mib, 0
    for name in sorted(names):
        need = mirror.workloads[name].record.workload.resources
        for each in elsewhere[name] if name in elsewhere else rooms(mirror, name):
            if each == host:
                cpus, memory_mib, count = cpus + need.cpus, memory_mib + need.memory_mib, count + 1
    return Capacity(cpus, memory_mib), count


def _is_homeless(mirror: Mirror, name: str) -> bool:
    wanted, placed = mirror.workloads.get(name), mirror.placements.get(name)
    if wanted is None or wanted.record.desired is not rec.Desired.RUNNING:
        return False
    return placed is None or placed.record.host is None


def _is_unfollowed(mirror: Mirror, name: str) -> bool:
    wanted, placed = mirror.workloads.get(name), mirror.placements.get(name)
    if wanted is None or placed is None or not wanted.record.workload.is_hot:
        return False
    return placed.record.host is not None and placed.record.standby is None
