"""Choosing among very many hosts: the same answer as `placement.choose`, without a look at every one of them.

Of hosts about which a workload's rules and company say nothing special the emptiest is best. So those that can be given
work are kept in that order, and of them only the first that can have the workload is a candidate, in each site; beside
it stand those few of which something special is to be said. `placement` then ranks these few by all its rules. What no
host has room for is remembered for as long as a ranking lives: whatever asks for as much, or more, by the same rules is
not held against every host again.
"""

from bisect import bisect_left, insort
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from .affinity import ALONE, Company
from .host import Capacity
from .machine_rules import datastores_of
from .placement import (
    UNUSED,
    Candidate,
    Choice,
    Used,
    choose,
    choose_standby,
    fullness,
    is_able,
    leaves_anybody,
    refusal,
    with_used,
)
from .records import PlacementRecord
from .workload import Apart, Workload

Order = tuple[float, int, str]
UNCHANGED: Mapping[str, Candidate] = {}


@dataclass(slots=True)
class _InVain:
    """What no host had room for, and how that is told once somebody asked."""

    need: Capacity
    told: str = ""


class Ranking:
    """The hosts of one look. looked: how often one was held against a workload so far."""

    def __init__(self, hosts: Iterable[Candidate]) -> None:
        self.hosts = {each.host.name: each for each in hosts}
        self.looked = 0
        self._vain: dict[object, list[_InVain]] = {}
        self._sites: dict[str, list[Order]] = {}
        for each in self.hosts.values():
            if is_able(each):
                self._sites.setdefault(each.host.site, []).append(_order(each))
        for order in self._sites.values():
            order.sort()
        self._all = sorted(each for order in self._sites.values() for each in order)

    def copy(self) -> "Ranking":
        """The same hosts, for what is done in thought."""
        other = Ranking(())
        other.hosts, other._all = dict(self.hosts), list(self._all)
        other._sites = {site: list(order) for site, order in self._sites.items()}
        other._vain = {key: list(each) for key, each in self._vain.items()}
        return other

    def use(self, name: str, used: Used) -> None:
        """From now on so much is used on a host."""
        known = self.hosts.get(name)
        if known is None or (new := with_used(known, used)) is known:
            return
        self.hosts[name] = new
        if not is_able(known):
            return
        if not known.used.fits_in(new.used):
            self._vain.clear()
        for order in (self._all, self._sites[known.host.site]):
            del order[bisect_left(order, _order(known))]
            insort(order, _order(new))

    def used_on(self, name: str) -> Used:
        """What is used on a host."""
        known = self.hosts.get(name)
        return (known.used, known.workloads) if known is not None else UNUSED

    def seen(self, used: Mapping[str, Used]) -> "View":
        """The same hosts, for somebody for whom so much is used on some of them."""
        changed = {name: with_used(self.hosts[name], each) for name, each in used.items() if name in self.hosts}
        return View(self, changed)

    def is_vain(self, workload: Workload) -> bool:
        """Whether it is known that no host has what it asks for by its own rules."""
        return self._known_vain(workload) is not None

    def told(self, workload: Workload) -> str:
        """How that was told to somebody else; '' if nobody asked."""
        known = self._known_vain(workload)
        return known.told if known is not None else ""

    def tell(self, workload: Workload, told: str) -> None:
        """Remember how it is told that no host has what it asks for."""
        if (known := self._known_vain(workload)) is not None:
            known.told = told

    def _known_vain(self, workload: Workload) -> _InVain | None:
        need, found = workload.resources, self._vain.get(_rules(workload), ())
        return next((each for each in found if each.need.fits_in(need)), None)

    def first(self, workload: Workload, passed_over: "Passed", *, by_site: bool) -> list[str]:
        """The emptiest host that can have it, of all or in each site; none where nobody is left but the passed over."""
        if self.is_vain(workload):
            return []
        orders = list(self._sites.values()) if by_site else [self._all]
        found = [each for order in orders if (each := self._first_in(order, workload, passed_over)) is not None]
        if not found and not any(self._can_have(name, workload) for _, _, name in self._all):
            self.looked += len(self._all)
            self._vain.setdefault(_rules(workload), []).append(_InVain(workload.resources))
        return found

    def _can_have(self, name: str, workload: Workload) -> bool:
        return refusal(workload, self.hosts[name]) is None

    def _first_in(self, order: list[Order], workload: Workload, passed_over: "Passed") -> str | None:
        if not order or passed_over.is_shut(self.hosts[order[0][2]].host.site):
            return None
        for looked, (_, _, name) in enumerate(order, 1):
            if not passed_over.has(self.hosts[name]) and self._can_have(name, workload):
                self.looked += looked
                return name
        self.looked += len(order)
        return None


@dataclass(frozen=True, slots=True)
class Passed:
    """Hosts that are not among the plain ones for a workload.

    names: those to avoid, or looked at by themselves.  sites: the only ones; none: all.  besides: a site that is none.
    """

    avoid: Container[str]
    special: frozenset[str]
    company: Company
    sites: tuple[str, ...] = ()
    besides: str | None = None

    def has(self, each: Candidate) -> bool:
        """Whether this host is one of them."""
        name = each.host.name
        return name in self.avoid or name in self.special or self.company.refusal(each.host) is not None

    def is_shut(self, site: str) -> bool:
        """Whether all hosts of a site are, for a workload that looks at sites one by one."""
        return site == self.besides or bool(self.sites and site not in self.sites)


class View:
    """The hosts as one workload finds them: with the room on some of them changed for it alone."""

    def __init__(self, ranking: Ranking, changed: Mapping[str, Candidate] = UNCHANGED) -> None:
        self._ranking = ranking
        self._changed = changed

    def all(self) -> list[Candidate]:
        """Every host, by name."""
        self._ranking.looked += len(self._ranking.hosts)
        return [self._changed.get(name, each) for name, each in self._ranking.hosts.items()]

    def _get(self, names: Iterable[str]) -> list[Candidate]:
        hosts = self._ranking.hosts
        return [self._changed.get(name, hosts[name]) for name in sorted(set(names)) if name in hosts]

    def choose(
        self,
        workload: Workload,
        avoid: Mapping[str, str],
        prefer: str | None = None,
        disk_hosts: tuple[str, ...] = (),
        company: Company = ALONE,
    ) -> Choice:
        """What `placement.choose` finds; but it says of a few hosts only why they are passed over (`why_none`)."""
        bound = (disk_hosts if workload.keeps_disks else ()) or workload.placement.hosts
        passed = Passed(avoid, frozenset({prefer or ""}), company)
        return choose(workload, self._few(workload, passed, bound), avoid, prefer, disk_hosts, company)

    def why_none(
        self,
        workload: Workload,
        avoid: Mapping[str, str],
        disk_hosts: tuple[str, ...] = (),
        company: Company = ALONE,
    ) -> str:
        """Why no host can have it, in one sentence."""
        # What is changed on a host that can be given nothing makes no difference.
        own_room = any(is_able(each) for each in self._changed.values())
        plain = not (avoid or own_room or (disk_hosts and workload.keeps_disks)) and company is ALONE
        if plain and (told := self._ranking.told(workload)):
            return told
        told = choose(workload, self.all(), avoid, None, disk_hosts, company).told()
        if plain:
            self._ranking.tell(workload, told)
        return told

    def choose_standby(
        self,
        workload: Workload,
        placed: PlacementRecord,
        last: frozenset[str] = frozenset(),
        prefer: str | None = None,
        company: Company = ALONE,
    ) -> Choice:
        """What `placement.choose_standby` finds; where it finds one, why others are passed over is said of a few."""
        primary = self._ranking.hosts.get(placed.host or "")
        special = frozenset({prefer or "", placed.host or "", *last, *placed.disk_hosts, *placed.copies})
        besides = primary.host.site if primary is not None and workload.placement.apart is Apart.SITE else None
        passed = Passed((), special, company, besides=besides)
        few = self._few(workload, passed, workload.placement.hosts)
        choice = choose_standby(workload, few, placed, last, prefer, company)
        if choice.host is not None or primary is None:
            return choice
        return choose_standby(workload, self.all(), placed, last, prefer, company)

    def _few(self, workload: Workload, passed: Passed, bound: tuple[str, ...]) -> list[Candidate]:
        """A few hosts, with the best of all among them if anybody can have it. bound: the only ones; none: all."""
        company, rules, special = passed.company, workload.placement, passed.special
        if company.only is not None:
            return self._get({company.only[0], *special})
        if bound:
            return self._get({*bound, *special})
        if leaves_anybody(company):
            return self.all()
        special = special.union(self._changed, company.liked, company.near)
        passed = Passed(passed.avoid, special, company, rules.sites, passed.besides)
        by_site = bool(rules.prefer_sites or rules.sites or company.near_site or passed.besides is not None)
        return self._get({*self._ranking.first(workload, passed, by_site=by_site), *special})


def _rules(workload: Workload) -> object:
    """All by which a workload's own rules pass over hosts, but for how much it asks for."""
    rules = workload.placement
    return rules.hosts, rules.sites, tuple(sorted(rules.labels.items())), datastores_of(workload)


def _order(each: Candidate) -> Order:
    return (*fullness(each), each.host.name)
