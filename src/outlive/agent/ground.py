"""What workloads stand on at this host, handed to each that is begun here."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from outlive.cluster.mirror import Mirror
from outlive.cluster.records import Stage
from outlive.datastore.datastore import Datastore
from outlive.network.virtual_ip import VirtualIps
from outlive.runtime.service import Premises

from .guarding import GuardKeeper
from .observe import Clock
from .packages import Packages
from .seating import Floor


@dataclass(frozen=True, slots=True)
class Ground:
    """picture: the newest of the store."""

    host: str
    premises: Premises
    floor: Floor
    guard: GuardKeeper
    datastores: Mapping[str, Datastore]
    addresses: VirtualIps
    clock: Clock
    tasks: asyncio.TaskGroup
    picture: Callable[[], Mirror]
    packages: Packages

    def may_act(self) -> bool:
        """Whether the claim is in force, by what the guard is known to hold."""
        return self.clock() < self.guard.deadline_at

    def superseded(self, workload: str, generation: int) -> bool:
        """Whether the store has a workload elsewhere, or at a newer generation."""
        placed = self.picture().placements.get(workload)
        return placed is not None and (placed.record.generation > generation or placed.record.host != self.host)

    def ran_before(self, workload: str, generation: int) -> bool:
        """Whether the store knows that a workload ran at an earlier generation; it may not remember."""
        report = self.picture().reports.get(workload)
        if report is None or report.record.generation >= generation:
            return False
        return report.record.stage in (Stage.RUNNING, Stage.DEGRADED)

    def resume_at(self, workload: str, generation: int) -> str:
        """The checkpoint that an operator wants it to begin from at this generation; '' for none."""
        placed = self.picture().placements.get(workload)
        return placed.record.resume_at if placed is not None and placed.record.generation == generation else ""
