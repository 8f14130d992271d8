"""A count of slots: how many hosts can surely be lost, for clusters where not every choice of them can be tried.

A slot is room for the largest workload there is. Each that must be placed anew takes at most one, whatever the order;
so it finds a host while slots are left among those where it may be. Hosts that hold the most slots and the most that
would have to be placed anew are the worst to lose, and these numbers simply add up: the result is never too high, and
often lower than what is possible (VMware's slot policy has the same trait). Workloads with the same rules count as one
kind.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from .affinity import Relations
from .host import Capacity
from .machine_rules import datastores_of
from .mirror import Mirror
from .placement import Candidate, misfit
from .workload import Apart, Workload

MOST_KINDS = 100
MOST_SLOTS = 1_000_000
TAKES = 3
"""The most hosts that one workload is on at once: its primary, its standby, and where it moves to."""

_Rules = tuple[object, ...]


@dataclass(slots=True)
class _Kind:
    """Workloads with the same rules: the hosts where they may be (bits), the largest of them, where they are now."""

    hosts: int
    largest: Capacity
    on: dict[str | None, int]
    apart: int


def surely_losable(hosts: list[Candidate], wanted: Iterable[Workload], mirror: Mirror, relations: Relations) -> int:
    """So many of these hosts can be lost, whichever; 0 where slots cannot tell. Raises nothing."""
    kinds: dict[_Rules, _Kind] = {}
    most = max(0, len(hosts) - 1)
    names = {each.host.name for each in hosts}
    for workload in wanted:
        apart = relations.apart.get(workload.name, {})
        if Apart.SITE in apart.values() or workload.name in relations.together or len(kinds) > MOST_KINDS:
            return 0
        placed = mirror.placements.get(workload.name)
        if workload.keeps_disks and placed is not None:
            most = min(most, len(names.intersection(placed.record.disk_hosts)) - 1)
        key = _rules(workload)
        kind = kinds.get(key)
        if kind is None:
            kind = kinds[key] = _Kind(_where(workload, hosts), NOTHING, {}, 0)
        kind.largest = _larger(kind.largest, workload.resources)
        kind.apart = max(kind.apart, len(apart))
        primary, standby = (placed.record.host, placed.record.standby) if placed is not None else (None, None)
        # A standby that is lost is chosen anew, and takes a slot as well.
        for host in (primary if primary in names else None, *([standby] if standby in names else [])):
            kind.on[host] = kind.on.get(host, 0) + 1
    bits = {each.host.name: 1 << number for number, each in enumerate(hosts)}
    for kind in kinds.values():
        near = [each for each in kinds.values() if each.hosts & kind.hosts or each is kind]
        most = min(most, _losable(kind, near, hosts, bits))
    return max(0, most)


NOTHING = Capacity()


def _rules(workload: Workload) -> _Rules:
    rules = workload.placement
    return (rules.sites, rules.hosts, tuple(sorted(rules.labels.items())), tuple(datastores_of(workload)))


def _where(workload: Workload, hosts: list[Candidate]) -> int:
    found = 0
    for number, each in enumerate(hosts):
        if not each.maintenance and misfit(workload, each.host) is None:
            found |= 1 << number
    return found


def _losable(kind: _Kind, near: list[_Kind], hosts: list[Candidate], bits: dict[str, int]) -> int:
    """How many hosts may go before some workload of this kind could find no slot."""
    largest = kind.largest
    for each in near:
        largest = _larger(largest, each.largest)
    slots = {
        each.host.name: _slots(each.host.capacity - each.used, largest) if kind.hosts & bits[each.host.name] else 0
        for each in hosts
    }
    # Some hosts may be closed to it, since others are there from which it is apart.
    closed = sum(sorted(slots.values(), reverse=True)[: kind.apart * TAKES])
    left = sum(slots.values()) - closed - sum(each.on.get(None, 0) for each in near)
    costs = sorted((slots[name] + sum(each.on.get(name, 0) for each in near) for name in bits), reverse=True)
    lost = 0
    for cost in costs:
        left -= cost
        if left < 0:
            break
        lost += 1
    return lost


def _slots(free: Capacity, largest: Capacity) -> int:
    most = MOST_SLOTS
    if largest.cpus > 0:
        most = min(most, int((free.cpus + 1e-9) // largest.cpus))
    if largest.memory_mib > 0:
        most = min(most, free.memory_mib // largest.memory_mib)
    return max(0, most)


def _larger(one: Capacity, other: Capacity) -> Capacity:
    return Capacity(max(one.cpus, other.cpus), max(one.memory_mib, other.memory_mib))
