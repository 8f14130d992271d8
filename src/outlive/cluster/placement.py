"""Where a workload goes: who may have it, and who is best.

Rules first (site, host names, labels, datastores, disks, company, capacity), then room for those who must come along,
the preferred site, the preferred company, spreading, and the emptiest host; ties go by name, so that the same picture
always gives the same answer. A standby is chosen by the same rules, away from its primary. Every host that is passed
over has its reason, since people ask.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from immutables import Map

from .affinity import ALONE, Company
from .heartbeat import Flags
from .host import Capacity, Host
from .machine_rules import datastores_of
from .mirror import Mirror
from .naming import by_reason
from .records import Order, PlacementRecord, Verdict
from .signs import Sightings
from .workload import Apart, Workload

Used = tuple[Capacity, int]
"""What is used on a host, and by how many."""
NOTHING = Capacity()
NOWHERE: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A host as placement sees it."""

    host: Host
    verdict: Verdict
    claimed: bool
    flags: Flags
    used: Capacity
    workloads: int
    maintenance: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """The host chosen, or None; `passed_over` says why each other host was not eligible, `waits` why none is."""

    host: str | None
    passed_over: dict[str, str]
    waits: str = ""

    def told(self) -> str:
        """The reasons in one sentence, however many hosts there are."""
        if self.waits:
            return self.waits
        return by_reason(self.passed_over) or "no hosts"


def usage(mirror: Mirror, meant: Mapping[str, str] = NOWHERE, followed: Mapping[str, str] = NOWHERE) -> dict[str, Used]:
    """What placements use on each host: capacity and number of workloads. A standby uses what its primary does.

    What is being stopped to be started elsewhere has its room there already.
    meant, followed: workload → the host, or the standby, that was written for it since the picture was taken.
    """
    used: dict[str, Used] = {}
    for name in sorted({*mirror.placements, *meant}):
        entry, spec = mirror.placements.get(name), mirror.workloads.get(name)
        if spec is None:
            continue
        hosts = [entry.record.host, *takes_room_beside(entry.record)] if entry is not None else []
        if name in meant:
            hosts = [meant[name]]
        if name in followed:
            hosts = [*hosts[:1], followed[name]]
        for host in hosts:
            if host is not None:
                capacity, count = used.get(host, (NOTHING, 0))
                used[host] = (capacity + spec.record.workload.resources, count + 1)
    return used


def takes_room_beside(placed: PlacementRecord) -> tuple[str | None, ...]:
    """Where it takes room besides where it runs: with who follows it, and where it is about to be started next."""
    on_its_way = placed.next_host if placed.order is Order.STOP and placed.next_host != placed.host else None
    return placed.standby, placed.moving_to, on_its_way


def candidates(
    mirror: Mirror,
    signs: Sightings,
    verdicts: "Map[str, Verdict]",
    used: dict[str, Used],
) -> list[Candidate]:
    """All registered hosts, by name."""
    found = []
    for name, entry in sorted(mirror.hosts.items()):
        newest = signs.get(name).newest()
        claim = mirror.claimed(name)
        capacity, count = used.get(name, (NOTHING, 0))
        found.append(
            Candidate(
                host=entry.record,
                verdict=verdicts.get(name, Verdict.SUSPECT),
                # A host that gave its claim up says so before the store shows it: what rests on it would never run.
                claimed=claim is not None and (newest is None or newest.claim == claim.incarnation),
                flags=newest.flags if newest is not None else Flags.NONE,
                used=capacity,
                workloads=count,
                maintenance=mirror.in_maintenance(name),
            )
        )
    return found


UNUSED = (NOTHING, 0)


def with_used(candidate: Candidate, used: Used) -> Candidate:
    """The same host when so much is used on it."""
    if candidate.used == used[0] and candidate.workloads == used[1]:
        return candidate
    return replace(candidate, used=used[0], workloads=used[1])


def is_able(candidate: Candidate) -> bool:
    """Whether this host can be given any work at all now."""
    return _unable(candidate) is None


def _unable(candidate: Candidate) -> str | None:
    if candidate.verdict is not Verdict.ALIVE:
        return f"it is {candidate.verdict}"
    if not candidate.claimed:
        return "it holds no claim"
    if candidate.maintenance:
        return "it is in maintenance"
    return "it is isolated" if Flags.ISOLATED in candidate.flags else None


def refusal(workload: Workload, candidate: Candidate) -> str | None:
    """Why this host cannot have the workload now; None when it can."""
    host = candidate.host
    if (unable := _unable(candidate)) is not None:
        return unable
    if (unfit := misfit(workload, host)) is not None:
        return unfit
    if datastores_of(workload) and Flags.DATASTORE_REACHABLE not in candidate.flags:
        return "it cannot reach its datastore"
    if not workload.resources.fits_in(host.capacity - candidate.used):
        return "it has too little capacity left"
    return None


def misfit(workload: Workload, host: Host) -> str | None:
    """Why this host can never have the workload, whatever else is there; None when it could."""
    rules = workload.placement
    if rules.hosts and host.name not in rules.hosts:
        return "the workload's rules name other hosts"
    if rules.sites and host.site not in rules.sites:
        return f"its site {host.site} is not among the workload's"
    for label, value in rules.labels.items():
        if host.labels.get(label) != value:
            return f"its label {label} is not {value}"
    for datastore in datastores_of(workload):
        if datastore not in host.datastores:
            return f"it has no datastore {datastore}"
    return None


def choose(
    workload: Workload,
    hosts: list[Candidate],
    avoid: Mapping[str, str],
    prefer: str | None = None,
    disk_hosts: tuple[str, ...] = (),
    company: Company = ALONE,
) -> Choice:
    """The best eligible host: the preferred one, else by newest disk, company, preferred site, emptiness and name.

    avoid: host → why it is not to be tried now.  disk_hosts: who has its disks, if it keeps any; nobody else can have
    it.  company: what other workloads make of each host. Raises nothing.
    """
    if company.waits:
        return Choice(None, {}, company.waits)
    bound = disk_hosts if workload.keeps_disks else ()
    if bound:
        elsewhere = f"its disks are on {' and '.join(bound)} alone"
        avoid = {**{each.host.name: elsewhere for each in hosts if each.host.name not in bound}, **avoid}

    def rank(each: Candidate) -> tuple[Any, ...]:
        name = each.host.name
        newest = bound.index(name) if bound else 0
        return (name != prefer, newest, _leaves_behind(workload, each, company), *_likings(workload, each, company))

    return _best(workload, hosts, avoid, company, rank)


def choose_standby(
    workload: Workload,
    hosts: list[Candidate],
    placed: PlacementRecord,
    last: frozenset[str] = frozenset(),
    prefer: str | None = None,
    company: Company = ALONE,
) -> Choice:
    """The best host to follow a primary from: one that has a copy of its disks first, since little is sent then.

    Never the primary's own host, and where the rules ask for it never its site.  last: hosts to take only when there
    is no other. Raises nothing.
    """
    primary = next((each.host for each in hosts if each.host.name == placed.host), None)
    if primary is None:
        return Choice(None, {placed.host or "": "where it runs is not known"})
    near = {primary.name: "it runs there"}
    if workload.placement.apart is Apart.SITE:
        near |= {
            each.host.name: f"it is in the same site {primary.site}"
            for each in hosts
            if each.host.site == primary.site and each.host.name != primary.name
        }
    copies = (*placed.disk_hosts, *placed.copies)

    def rank(each: Candidate) -> tuple[Any, ...]:
        name = each.host.name
        return (name != prefer, name in last, name not in copies, *_likings(workload, each, company))

    return _best(workload, hosts, near, company, rank)


def _best(
    workload: Workload,
    hosts: list[Candidate],
    avoid: Mapping[str, str],
    company: Company,
    rank: Callable[[Candidate], tuple[Any, ...]],
) -> Choice:
    passed_over: dict[str, str] = {}
    eligible: list[Candidate] = []
    for candidate in hosts:
        host = candidate.host
        reason = avoid.get(host.name) or refusal(workload, candidate) or company.refusal(host)
        if reason is None:
            eligible.append(candidate)
        else:
            passed_over[host.name] = reason
    if not eligible:
        return Choice(None, passed_over)
    return Choice(min(eligible, key=rank).host.name, passed_over)


def _likings(workload: Workload, each: Candidate, company: Company) -> tuple[Any, ...]:
    """What decides between hosts that could have it, the least first."""
    name, site = each.host.name, each.host.site
    spread = (company.near_site.get(site, 0), company.near.get(name, 0))
    return (_site_rank(workload, each), -company.liked.get(name, 0), *spread, fullness(each), name)


def leaves_anybody(company: Company) -> bool:
    """Whether others have to go where it goes, so that room for them counts too."""
    return bool(company.escort)


def _leaves_behind(workload: Workload, each: Candidate, company: Company) -> bool:
    """Whether some of those who must go where it goes could not be on that host with it."""
    coming = [other for other, host in company.escort if host != each.host.name]
    if not coming:
        return False
    need = sum((other.resources for other in coming), workload.resources)
    fits = need.fits_in(each.host.capacity - each.used)
    return not fits or any(misfit(other, each.host) is not None for other in coming)


def _site_rank(workload: Workload, candidate: Candidate) -> int:
    preferred = workload.placement.prefer_sites
    return preferred.index(candidate.host.site) if candidate.host.site in preferred else len(preferred)


def fullness(candidate: Candidate) -> tuple[float, int]:
    """How full a host is: what decides between hosts of which nothing else is to be said."""
    capacity = candidate.host.capacity
    shares = [
        candidate.used.cpus / capacity.cpus if capacity.cpus else 0.0,
        candidate.used.memory_mib / capacity.memory_mib if capacity.memory_mib else 0.0,
    ]
    return (round(max(shares), 3), candidate.workloads)
