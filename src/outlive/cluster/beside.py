"""What the leader knows of a workload's company at the moment it is placed, and that it still holds when written.

`affinity` says what the rules mean; here they meet the leader's picture. A workload whose required rules look at the
place of another is not placed while a write to that place is under way, and its own write holds only if those others
have not moved: so two that are to be apart are never put together by decisions that crossed.
"""

from dataclasses import replace

from . import records as rec
from .affinity import ALONE, Company, Neighbours, Relations, unmoved
from .host import Host
from .leader_state import Turn
from .mirror import Mirror
from .transaction import Compare
from .workload import Workload


def relations(turn: Turn) -> Relations:
    """Which workloads are related to which, as of the newest picture; kept until the workloads change."""
    workloads = turn.state.mirror.workloads
    if turn.state.relations.of is not workloads:
        turn.set(relations=relations_in(turn.state.mirror))
    return turn.state.relations


def relations_in(mirror: Mirror) -> Relations:
    """The same for a picture by itself."""
    return Relations({name: entry.record.workload for name, entry in mirror.workloads.items()}, mirror.workloads)


def neighbours(mirror: Mirror, known: Relations) -> Neighbours:
    """What a picture of the store tells of everybody's neighbours."""

    def where(name: str) -> rec.PlacementRecord | None:
        entry = mirror.placements.get(name)
        return entry.record if entry is not None else None

    def wanted(name: str) -> bool:
        entry = mirror.workloads.get(name)
        return entry is not None and entry.record.desired is rec.Desired.RUNNING

    def host(name: str) -> Host | None:
        entry = mirror.hosts.get(name)
        return entry.record if entry is not None else None

    return Neighbours(known, _Workloads(mirror), wanted, where, host)


class _Workloads(dict[str, Workload]):
    """The workloads of a picture by name, without a copy of all of them."""

    def __init__(self, mirror: Mirror) -> None:
        super().__init__()
        self._mirror = mirror

    def __missing__(self, name: str) -> Workload:
        return self._mirror.workloads[name].record.workload


def company(turn: Turn, workload: Workload, *, standby: bool = False) -> Company:
    """What others make of each host for a workload, or for its standby."""
    found, state = neighbours(turn.state.mirror, relations(turn)), turn.state

    def where(name: str) -> rec.PlacementRecord | None:
        """As written, though the picture may not show it yet."""
        placed, meant = found.where(name), state.meant.get(name)
        if meant is None or not turn.is_busy(rec.PLACEMENTS + name):
            return placed
        return replace(placed, host=meant) if placed is not None else rec.PlacementRecord(name, 1, meant)

    return replace(found, where=where).company(workload, standby=standby)


def is_unsettled(turn: Turn, name: str) -> bool:
    """Whether the place of another that its required rules look at is just being changed."""
    return any(turn.is_busy(rec.PLACEMENTS + other) for other in relations(turn).bound_to(name))


def still(turn: Turn, name: str) -> tuple[Compare, ...]:
    """That those whose places its required rules look at are where they were seen, or still unreadable."""
    mirror = turn.state.mirror

    def revision(other: str) -> int:
        entry, spoilt = mirror.placements.get(other), mirror.bad.get(rec.PLACEMENTS + other)
        if spoilt is not None:
            return spoilt[0]
        return entry.mod_revision if entry is not None else 0

    return unmoved(relations(turn).bound_to(name), revision)


def alone(found: Company) -> bool:
    """Whether no rule about others has a say."""
    return found is ALONE
