"""A placement that a hand removed or spoilt, and nobody remembers: which host may act for the workload?

Who saw the record before writes it again as it was (`courses`); this is for a leader that came later. The report in the
store may be older than the lost placement, so it proves nothing. The hosts themselves are asked: by the tables of
their heartbeats. As long as one of them may act and does not say, nothing is decided (DESIGN: never two).
"""

from dataclasses import replace
from operator import itemgetter

from .failover import Wait
from .generation import first_generation
from .heartbeat import Heartbeat, ModuleStatus
from .lease import surely_over
from .mirror import Mirror
from .proofs import confirm, is_proven, needs_fence, needs_word
from .records import PLACEMENTS, Order, PlacementRecord, name_in
from .signs import Sightings, Signs, is_fresh
from .timing import Timing

FORMER = "a workload of that name that was removed has not ended there yet"


NEVER_SEEN = 1
"""The incarnation of a host whose claims came and went unseen: its record stands for all of them."""


def lost_placements(mirror: Mirror) -> tuple[str, ...]:
    """The workloads, by name, that some host may act for by a placement that nobody remembers."""
    reported = {name for name in mirror.reports if name in mirror.workloads and name not in mirror.lost}
    spoilt = {name_in(key) for key in mirror.bad if key.startswith(PLACEMENTS)}
    return tuple(sorted((reported | spoilt) - {*mirror.placements}))


def held_generations(signs: Signs, workload: str) -> frozenset[int] | None:
    """At which generations the host says that it holds the workload; None when its table is unknown."""
    newest = signs.newest()
    if newest is None or signs.table is None or newest.table != signs.table_digest:
        return None
    rows = zip(signs.table.modules, newest.statuses, strict=False)
    return frozenset(
        key.generation for key, status in rows if key.workload == workload and status is not ModuleStatus.STOPPED
    )


def recovered(
    workload: str,
    version: int,
    mirror: Mirror,
    signs: Sightings,
    timing: Timing,
    at: float,
    disk_host: str | None = None,
) -> PlacementRecord | Wait:
    """The placement that must have been, or one that names nobody once it is certain that nobody acts.

    at: seconds on the leader's clock.  disk_host: where an operator says that its disks are. Raises nothing.
    """
    holders: list[tuple[int, str, Heartbeat]] = []
    for host in sorted({*mirror.hosts, *mirror.claims}):
        seen = signs.get(host)
        newest, held = seen.newest(), held_generations(seen, workload)
        fresh = newest is not None and held is not None and is_fresh(seen, timing, at)
        if fresh and newest is not None and held:
            holders.append((max(held), host, newest))
        elif not fresh:
            claim = mirror.claims.get(host)
            incarnation = claim.incarnation if claim is not None else NEVER_SEEN
            over = surely_over(mirror, host, incarnation, timing, at)
            if not over or (needs_fence(mirror) and not is_proven(mirror, host, incarnation)):
                asks = over and needs_word(mirror, host, incarnation)
                hint = f"; once you know that it is off: {confirm(host)}" if asks else ""
                reason = f"its placement is lost, and {host} has not said whether it acts for it"
                return Wait(reason + hint, unfenced=over)
    entry = mirror.workloads.get(workload)
    keeps_disks = entry is not None and entry.record.workload.keeps_disks
    # Pairings, like generations, must come out above all that ever were.
    pairing = first_generation(mirror)
    if not holders:
        if keeps_disks and disk_host is None:
            return Wait("its placement is lost, and nobody remembers which host has its disks")
        disk_hosts = (disk_host,) if keeps_disks and disk_host is not None else ()
        return PlacementRecord(
            workload, first_generation(mirror), None, version=version, pairing=pairing, disk_hosts=disk_hosts
        )
    generation, host, newest = max(holders, key=itemgetter(0, 1))
    if entry is not None and generation < entry.create_revision:
        # First generations are the store's revision: this one is of a workload of that name that was removed before.
        anew = first_generation(mirror)
        former = PlacementRecord(
            workload, anew, host, newest.claim, Order.STOP, version=version, reason=FORMER, pairing=pairing
        )
        return replace(former, boot_id=newest.boot_id, heartbeats=newest.sequence)
    disk_hosts = (host,) if keeps_disks else ()
    held_there = PlacementRecord(
        workload, generation, host, newest.claim, version=version, pairing=pairing, disk_hosts=disk_hosts
    )
    return replace(held_there, boot_id=newest.boot_id, heartbeats=newest.sequence)
