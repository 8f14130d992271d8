"""Where a workload goes: who may have it, and who is best.

Rules first (site, host names, labels, datastore, capacity), then the emptiest host; ties go by name, so that the same
picture always gives the same answer. Every host that is passed over has its reason, since people ask.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from immutables import Map

from .heartbeat import Flags
from .host import Capacity, Host
from .mirror import Mirror
from .records import Verdict
from .signs import Signs
from .workload import Workload

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


@dataclass(frozen=True, slots=True)
class Choice:
    """The host chosen, or None; `passed_over` says why each other host was not eligible."""

    host: str | None
    passed_over: dict[str, str]

    def told(self) -> str:
        """The reasons in one sentence."""
        return "; ".join(f"{name}: {reason}" for name, reason in sorted(self.passed_over.items())) or "no hosts"


def usage(mirror: Mirror, meant: Mapping[str, str] = NOWHERE) -> dict[str, tuple[Capacity, int]]:
    """What placements use on each host: capacity and number of workloads.

    meant: workload → the host that it was placed on since the picture was taken.
    """
    used: dict[str, tuple[Capacity, int]] = {}
    hosts = {name: entry.record.host for name, entry in mirror.placements.items()} | dict(meant)
    for name, host in sorted(hosts.items()):
        spec = mirror.workloads.get(name)
        if host is not None and spec is not None:
            capacity, count = used.get(host, (NOTHING, 0))
            used[host] = (capacity + spec.record.workload.resources, count + 1)
    return used


def candidates(
    mirror: Mirror,
    signs: "Map[str, Signs]",
    verdicts: "Map[str, Verdict]",
    used: dict[str, tuple[Capacity, int]],
) -> list[Candidate]:
    """All registered hosts, by name."""
    found = []
    for name, entry in sorted(mirror.hosts.items()):
        newest = signs.get(name, Signs()).newest()
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
            )
        )
    return found


def refusal(workload: Workload, candidate: Candidate) -> str | None:
    """Why this host cannot have the workload now; None when it can."""
    host, rules = candidate.host, workload.placement
    if candidate.verdict is not Verdict.ALIVE:
        return f"it is {candidate.verdict}"
    if not candidate.claimed:
        return "it holds no claim"
    if host.maintenance or Flags.MAINTENANCE in candidate.flags:
        return "it is in maintenance"
    if Flags.ISOLATED in candidate.flags:
        return "it is isolated"
    if rules.hosts and host.name not in rules.hosts:
        return "the workload's rules name other hosts"
    if rules.sites and host.site not in rules.sites:
        return f"its site {host.site} is not among the workload's"
    for label, value in rules.labels.items():
        if host.labels.get(label) != value:
            return f"its label {label} is not {value}"
    if workload.data_on is not None:
        if workload.data_on not in host.datastores:
            return f"it has no datastore {workload.data_on}"
        if Flags.DATASTORE_REACHABLE not in candidate.flags:
            return "it cannot reach its datastore"
    if not workload.resources.fits_in(host.capacity - candidate.used):
        return "it has too little capacity left"
    return None


def choose(workload: Workload, hosts: list[Candidate], avoid: dict[str, str], prefer: str | None = None) -> Choice:
    """The best eligible host: the preferred one, else the emptiest, else the first by name.

    avoid: host → why it is not to be tried now. Raises nothing.
    """
    passed_over: dict[str, str] = {}
    eligible: list[Candidate] = []
    for candidate in hosts:
        reason = avoid.get(candidate.host.name) or refusal(workload, candidate)
        if reason is None:
            eligible.append(candidate)
        else:
            passed_over[candidate.host.name] = reason
    if not eligible:
        return Choice(None, passed_over)
    best = min(eligible, key=lambda each: (each.host.name != prefer, _fullness(each), each.host.name))
    return Choice(best.host.name, passed_over)


def _fullness(candidate: Candidate) -> tuple[float, int]:
    capacity = candidate.host.capacity
    shares = [
        candidate.used.cpus / capacity.cpus if capacity.cpus else 0.0,
        candidate.used.memory_mib / capacity.memory_mib if capacity.memory_mib else 0.0,
    ]
    return (round(max(shares), 3), candidate.workloads)
