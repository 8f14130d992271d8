"""What emptying a host would do, before anything is changed: where each workload would go, or why it can go nowhere.

A forecast by a picture of the store alone, for people who are about to ask for it. What is then done, and when, is
decided in `draining`, step by step and by what holds at each; so a forecast promises nothing.
"""

from dataclasses import dataclass, replace

from . import pairs
from . import records as rec
from .beside import neighbours, relations_in
from .draining import followed_on, held_by
from .mirror import Mirror
from .outlook import candidate
from .placement import NOTHING, Candidate, choose, choose_standby, usage
from .upcoming import is_up
from .workload import Kind, Workload


@dataclass(frozen=True, slots=True)
class Leaving:
    """What is to become of a workload that a host has to let go of.

    how: `live`, `handed over`, `restarted`, or `standby` for one that only stands by there.
    to: where it would go; None: nowhere, and `reason` says why.
    """

    workload: str
    how: str
    to: str | None
    reason: str = ""


def plan(mirror: Mirror, host: str) -> tuple[Leaving, ...]:
    """What emptying a host would do, by what the store says now; nothing is changed.

    Each workload takes its room where it would go, so that two are never promised the same, and is company there for
    those that are related to it.
    """
    forecast = _Forecast(mirror, host)
    waiting = [name for name in held_by(mirror, host) if _is_wanted(mirror, name)]
    found: dict[str, Leaving] = {}
    before = -1
    while len(waiting) != before:
        # What goes where another is can be told only once that one has gone.
        before = len(waiting)
        found |= {name: forecast.leaving(mirror.workloads[name].record.workload) for name in waiting}
        waiting = [name for name in waiting if found[name].to is None]
    standbys = [forecast.followed(name) for name in followed_on(mirror, host) if _stands_by(mirror, name, host)]
    return (*(found[name] for name in held_by(mirror, host) if name in found), *standbys)


def _is_wanted(mirror: Mirror, name: str) -> bool:
    entry = mirror.workloads.get(name)
    return entry is not None and entry.record.desired is rec.Desired.RUNNING


def _stands_by(mirror: Mirror, name: str, host: str) -> bool:
    return name in mirror.workloads and mirror.placements[name].record.standby == host


class _Forecast:
    """Where all that is on a host would go, one after the other, by a picture that is not changed."""

    def __init__(self, mirror: Mirror, host: str) -> None:
        self._mirror = mirror
        self._host = host
        self._used = usage(mirror)
        self._gone: dict[str, rec.PlacementRecord] = {}
        now = neighbours(mirror, relations_in(mirror))
        self._neighbours = replace(now, where=lambda name: self._gone.get(name) or now.where(name))

    def leaving(self, workload: Workload) -> Leaving:
        """Where a workload that acts there would go."""
        mirror, name = self._mirror, workload.name
        placed = mirror.placements[name].record
        if workload.is_hot and placed.paired and pairs.gone_for_good(mirror, placed) is None:
            self._gone[name] = replace(placed, host=placed.standby, standby=None)
            return Leaving(name, "handed over", placed.standby)
        report = mirror.reports.get(name)
        runs = report is not None and is_up(report.record, placed) and report.record.stage is rec.Stage.RUNNING
        live = workload.kind is Kind.VM and runs
        # A live migration takes local disks along; a restart finds them only where they are.
        disk_hosts = () if live else placed.disk_hosts
        company = self._neighbours.company(workload)
        choice = choose(workload, self._hosts(workload), {self._host: "it is to be emptied"}, None, disk_hosts, company)
        self._take(workload, choice.host)
        if choice.host is not None:
            self._gone[name] = replace(placed, host=choice.host)
        told = "" if choice.host else choice.told()
        return Leaving(name, "live" if live else "restarted", choice.host, told)

    def followed(self, name: str) -> Leaving:
        """From where a machine whose standby is there would be followed."""
        workload, placed = self._mirror.workloads[name].record.workload, self._mirror.placements[name].record
        hosts = self._hosts(workload)
        hosts = [replace(each, maintenance=each.maintenance or each.host.name == self._host) for each in hosts]
        company = self._neighbours.company(workload, standby=True)
        choice = choose_standby(workload, hosts, placed, company=company)
        self._take(workload, choice.host)
        if choice.host is not None:
            self._gone[name] = replace(placed, standby=choice.host)
        return Leaving(name, "standby", choice.host, "" if choice.host else choice.told())

    def _hosts(self, workload: Workload) -> list[Candidate]:
        return [candidate(self._mirror, each, workload, self._used) for each in sorted(self._mirror.hosts)]

    def _take(self, workload: Workload, host: str | None) -> None:
        if host is not None:
            capacity, count = self._used.get(host, (NOTHING, 0))
            self._used[host] = (capacity + workload.resources, count + 1)
