"""What workloads stand on at this host, handed to each that is begun here."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from outlive.datastore.datastore import Datastore
from outlive.network.virtual_ip import VirtualIps
from outlive.runtime.service import Premises

from .guarding import GuardKeeper
from .observe import Clock
from .seating import Floor


@dataclass(frozen=True, slots=True)
class Ground:
    """superseded: whether a workload's placement is another host's, or newer than this generation, by the store."""

    host: str
    premises: Premises
    floor: Floor
    guard: GuardKeeper
    datastores: Mapping[str, Datastore]
    addresses: VirtualIps
    clock: Clock
    tasks: asyncio.TaskGroup
    superseded: Callable[[str, int], bool]

    def may_act(self) -> bool:
        """Whether the claim is in force, by what the guard is known to hold."""
        return self.clock() < self.guard.deadline_at
