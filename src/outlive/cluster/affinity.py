"""Rules between workloads: who is placed with whom, who apart from whom, and what that makes of each host.

`together_with` has a direction: a workload goes where those are that it names, and they wait for nothing. `apart_from`
binds both, whoever says it. Rules hold whenever a workload, its standby or the target of its move is placed; nothing
that runs is stopped for them. Which host is best is chosen in `placement`; what waits for whom in time is `ordering`'s.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from . import records as rec
from .host import Host
from .transaction import Compare, unchanged
from .workload import Apart, Workload

MOST_COMPARED = 64
"""Of how many others it is compared that they have not moved when a workload is placed; etcd takes 128 in all."""

Names = tuple[str, ...]
Where = Callable[[str], rec.PlacementRecord | None]
"""How a workload is placed; None: it never was."""


class Relations:
    """Which workloads are related to which, both ways. Made once for a picture of the workloads, never changed."""

    __slots__ = (
        "_ranks",
        "apart",
        "followers",
        "groups",
        "importance",
        "later",
        "of",
        "rather_apart",
        "rather_together",
        "together",
    )

    def __init__(self, workloads: Mapping[str, Workload], of: object = None) -> None:
        """of: what it was made from, by which a later look knows that it is still right."""
        self.of = of
        self.apart: dict[str, dict[str, Apart]] = {}
        self.together: dict[str, Names] = {}
        self.followers: dict[str, Names] = {}
        self.rather_apart: dict[str, Names] = {}
        self.rather_together: dict[str, Names] = {}
        self.groups: dict[str, Names] = {}
        self.later: dict[str, Names] = {}
        for name, workload in sorted(workloads.items()):
            rules = workload.placement
            for other in rules.apart_from:
                self._keep_apart(name, other, rules.apart)
                self._keep_apart(other, name, rules.apart)
            if rules.together_with:
                self.together[name] = rules.together_with
            _join(self.followers, rules.together_with, name)
            for mutual, others in (
                (self.rather_apart, rules.prefer_apart_from),
                (self.rather_together, rules.prefer_together_with),
            ):
                _join(mutual, others, name)
                for other in others:
                    _join(mutual, (name,), other)
            if rules.group:
                self.groups[rules.group] = (*self.groups.get(rules.group, ()), name)
            _join(self.later, workload.after, name)
        self.importance = _importance(workloads, self.later, self.followers)
        self._ranks = {
            name: (-self.important(each), len(each.placement.together_with), name) for name, each in workloads.items()
        }

    def _keep_apart(self, one: str, other: str, distance: Apart) -> None:
        known = self.apart.setdefault(one, {})
        known[other] = Apart.SITE if Apart.SITE in (distance, known.get(other)) else Apart.HOST

    def important(self, workload: Workload) -> int:
        """How early it is placed: its priority, or that of the most important one that cannot run without it."""
        return max(workload.priority, self.importance.get(workload.name, 0))

    def rank(self, name: str) -> tuple[int, int, str]:
        """Who has its turn first, the least: the more important, and of those they that others are placed with."""
        return self._ranks.get(name) or (0, 0, name)

    def minds(self, name: str) -> Names:
        """The workloads that may be kept from a place by where this one is, and by whether it runs."""
        return (*self.later.get(name, ()), *self.followers.get(name, ()), *self.apart.get(name, ()))

    def bound_to(self, name: str) -> Names:
        """The workloads whose places a required rule of this one looks at."""
        return tuple(sorted({*self.apart.get(name, ()), *self.together.get(name, ())}))


def _join(lists: dict[str, Names], keys: Iterable[str], name: str) -> None:
    for key in keys:
        known = lists.get(key, ())
        if name not in known:
            lists[key] = (*known, name)


def _importance(workloads: Mapping[str, Workload], *later: Mapping[str, Names]) -> dict[str, int]:
    """For each workload that others need before them: the highest priority among these, over any number of steps."""
    raised: dict[str, int] = {}
    needs: dict[str, set[str]] = {}
    for links in later:
        for before, others in links.items():
            for other in others:
                needs.setdefault(other, set()).add(before)
    for name in sorted(needs, key=lambda each: -workloads[each].priority):
        priority, found = workloads[name].priority, [name]
        while found:
            for before in needs.get(found.pop(), ()):
                if raised.get(before, -1) < priority:
                    raised[before] = priority
                    found.append(before)
    return raised


NO_RELATIONS = Relations({})


@dataclass(frozen=True, slots=True)
class Company:
    """What the rules between one workload and others make of each host.

    waits: why it cannot be placed anywhere for now; '': it can.  only: the one host that it is bound to, and why.
    refused, refused_sites: host or site → why it cannot be there.
    liked: host → how much company that it prefers is there, less what it prefers to be away from.
    near, near_site: how many of its group are on a host, in a site.
    escort: those who must go where it goes, each with the host where it is now.
    """

    waits: str = ""
    only: tuple[str, str] | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    refused_sites: Mapping[str, str] = field(default_factory=dict)
    liked: Mapping[str, int] = field(default_factory=dict)
    near: Mapping[str, int] = field(default_factory=dict)
    near_site: Mapping[str, int] = field(default_factory=dict)
    escort: tuple[tuple[Workload, str | None], ...] = ()

    def refusal(self, host: Host) -> str | None:
        """Why the company of others keeps it from this host; None when nothing does."""
        if self.only is not None and host.name != self.only[0]:
            return self.only[1]
        return self.refused.get(host.name) or self.refused_sites.get(host.site)


ALONE = Company()


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What there is to know of others: their relations, their wishes, their places, and the hosts."""

    relations: Relations
    workloads: Mapping[str, Workload]
    wanted: Callable[[str], bool]
    where: Where
    host: Callable[[str], Host | None]

    def company(self, workload: Workload, *, standby: bool = False) -> Company:
        """What others make of each host for this workload, or for its standby. Raises nothing."""
        relations, name = self.relations, workload.name
        apart, together = relations.apart.get(name), relations.together.get(name, ())
        rather = (relations.rather_together.get(name, ()), relations.rather_apart.get(name, ()))
        followers = relations.followers.get(name, ())
        group = relations.groups.get(workload.placement.group, ()) if workload.placement.group else ()
        if not (apart or together or followers or group or any(rather)):
            return ALONE
        waits, only = self._anchored(name, together, standby)
        refused, sites = self._apart(apart or {})
        liked: dict[str, int] = {}
        for others, worth in ((rather[0], 1), (followers, 1), (rather[1], -1)):
            for other in others:
                for host in self._taken(other):
                    liked[host] = liked.get(host, 0) + worth
        near, near_site = self._near(each for each in group if each != name)
        escort = () if standby else self._escort(name)
        return Company(waits, only, refused, sites, liked, near, near_site, escort)

    def _taken(self, other: str) -> Names:
        """The hosts where another workload is, or may go on at any moment."""
        placed = self.where(other)
        if placed is None:
            return ()
        return tuple(each for each in (placed.host, placed.standby, placed.moving_to) if each is not None)

    def _anchored(self, name: str, together: Names, standby: bool) -> tuple[str, tuple[str, str] | None]:
        waits, only = "", None
        for anchor in together:
            placed = self.where(anchor)
            if standby:
                if placed is not None and placed.standby is not None:
                    only = (placed.standby, f"it is kept with the standby of {anchor}, on {placed.standby}")
            elif placed is None or placed.host is None:
                if self.wanted(anchor):
                    waits = f"it goes where {anchor} is, which has no place"
            elif placed.order is rec.Order.STOP:
                waits = f"it goes where {anchor} is, which is being stopped"
            elif only is not None and only[0] != placed.host:
                waits = f"it goes where {anchor} is, on {placed.host}; but {only[1]}"
            else:
                only = (placed.host, f"it goes where {anchor} is, on {placed.host}")
        return waits, only

    def _apart(self, apart: Mapping[str, Apart]) -> tuple[dict[str, str], dict[str, str]]:
        refused: dict[str, str] = {}
        sites: dict[str, str] = {}
        for other, distance in sorted(apart.items()):
            for taken in self._taken(other):
                host = self.host(taken)
                refused[taken] = f"{other} is there, and it is to be apart from it"
                if distance is Apart.SITE and host is not None:
                    sites[host.site] = f"{other} is in its site {host.site}, and it is to be apart from it"
        return refused, sites

    def _near(self, others: Iterable[str]) -> tuple[dict[str, int], dict[str, int]]:
        near: dict[str, int] = {}
        near_site: dict[str, int] = {}
        for other in others:
            placed = self.where(other)
            host = self.host(placed.host) if placed is not None and placed.host is not None else None
            if host is not None:
                near[host.name] = near.get(host.name, 0) + 1
                near_site[host.site] = near_site.get(host.site, 0) + 1
        return near, near_site

    def _escort(self, name: str) -> tuple[tuple[Workload, str | None], ...]:
        found: dict[str, tuple[Workload, str | None]] = {}
        looking = [name]
        while looking:
            for other in self.relations.followers.get(looking.pop(), ()):
                if other not in found and other != name and self.wanted(other):
                    placed = self.where(other)
                    found[other] = (self.workloads[other], placed.host if placed is not None else None)
                    looking.append(other)
        return tuple(found.values())


def unmoved(names: Names, mod_revision: Callable[[str], int]) -> tuple[Compare, ...]:
    """That these workloads are placed as they were seen: what a required rule was decided by still holds."""
    return tuple(unchanged(rec.PLACEMENTS + name, mod_revision(name)) for name in names[:MOST_COMPARED])


def contradiction(workload: Workload, others: Mapping[str, Workload]) -> str | None:
    """Why it can never be placed beside these others, by what all their rules say; None when nothing is in the way.

    others: all that the cluster knows, by name; names that nobody has are no contradiction. Circles of `together_with`
    and `after` are found by `ordering.cycle`.
    """
    known = {**others, workload.name: workload}
    relations = Relations(known)
    joined = _joined(relations, workload.name)
    for one in sorted(joined):
        for other in sorted(relations.apart.get(one, {}).keys() & joined):
            if one < other:
                return f"{one} and {other} are to be apart, and rules of {' and '.join(sorted(joined))} join them"
    present = [known[name].placement for name in sorted(joined) if name in known]
    for what, named in (("host", [each.hosts for each in present]), ("site", [each.sites for each in present])):
        allowed = [set(each) for each in named if each]
        if allowed and not set.intersection(*allowed):
            return f"there is no {what} where all of {', '.join(sorted(joined))} may be"
    labels: dict[str, str] = {}
    for each in present:
        for label, value in each.labels.items():
            if labels.setdefault(label, value) != value:
                return f"no host's label {label} can be both {labels[label]} and {value}"
    return None


def _joined(relations: Relations, name: str) -> set[str]:
    """All that must be on one host with it, itself among them."""
    found, looking = {name}, [name]
    while looking:
        one = looking.pop()
        for other in (*relations.together.get(one, ()), *relations.followers.get(one, ())):
            if other not in found:
                found.add(other)
                looking.append(other)
    return found
