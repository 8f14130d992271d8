"""The signs of life of other hosts, as one observer has seen them, and what they say of modules.

Every agent gathers them, leader or not, so that a new leader starts with what it saw as a witness. Ages are counted on
the observer's clock from when it saw a sign, never from a time that the sign carries. No verdict is made here.
"""

import msgspec
from immutables import Map
from msgspec.structs import replace

from .detector import Evidence
from .heartbeat import Flags, Heartbeat, ModuleStatus, ModuleTable
from .mirror import Mirror
from .repeats import Repeats
from .timing import Timing


class Signs(msgspec.Struct, frozen=True):
    """What was seen of one host. Times are the observer's; None: never.

    repeated: the sequence under which it last said the same as in `heartbeat`, if higher than that one's own.
    """

    heartbeat: Heartbeat | None = None
    heartbeat_at: float | None = None
    repeated: int = 0
    slot: Heartbeat | None = None
    slot_at: float | None = None
    answered_at: float | None = None
    table: ModuleTable | None = None
    table_digest: bytes = b""
    asked_table_at: float | None = None
    asked_probe_at: float | None = None

    def newest(self) -> Heartbeat | None:
        """The newest statement of the host, by whatever way it came."""
        heartbeat, slot = self.heartbeat, self.slot
        if heartbeat is None or slot is None:
            return heartbeat or slot
        return heartbeat if max(heartbeat.sequence, self.repeated) >= slot.sequence else slot

    def newest_at(self) -> float | None:
        """When the newest statement was seen."""
        newest = self.newest()
        if newest is None:
            return None
        return self.heartbeat_at if newest is self.heartbeat else self.slot_at


class Sightings(msgspec.Struct, frozen=True):
    """The signs of all hosts that were ever seen. What hosts merely repeated is joined in only when asked for.

    kept: without what was repeated since.
    """

    kept: "Map[str, Signs]" = Map()
    repeats: Repeats = Repeats()

    def get(self, host: str) -> Signs:
        """What was seen of a host."""
        signs = self.kept.get(host, NOTHING_SEEN)
        newest = self.repeats.of(host)
        if newest is None or signs.heartbeat is None or newest[0] <= max(signs.heartbeat.sequence, signs.repeated):
            return signs
        return replace(signs, repeated=newest[0], heartbeat_at=newest[1])

    def heard_at(self, host: str) -> float | None:
        """When a host was last heard by network: what `get` says of it, for less."""
        newest, signs = self.repeats.of(host), self.kept.get(host)
        if signs is None or signs.heartbeat is None:
            return None if signs is None else signs.heartbeat_at
        return newest[1] if newest is not None and newest[0] > signs.heartbeat.sequence else signs.heartbeat_at

    def set(self, host: str, signs: Signs) -> "Sightings":
        """The same with other signs of one host."""
        return Sightings(self.kept.set(host, signs), self.repeats)

    def hosts(self) -> list[str]:
        """Who was ever seen, by name."""
        return sorted(self.kept)


NOTHING_SEEN = Signs()


def evidence(host: str, signs: Signs, mirror: Mirror, listening_since: float, at: float) -> Evidence:
    """The ages of a host's signs at `at`.

    listening_since: from when on silence counts; who did not listen before cannot call a host silent.
    """
    heard_at = listening_since if signs.heartbeat_at is None else max(signs.heartbeat_at, listening_since)
    newest = signs.newest()
    return Evidence(
        network_s=at - heard_at,
        probe_s=_age(signs.answered_at, at),
        slot_s=_age(signs.slot_at, at),
        slot_isolated=newest is not None and Flags.ISOLATED in newest.flags,
        lease_held=mirror.claimed(host) is not None,
    )


def _age(seen_at: float | None, at: float) -> float | None:
    return None if seen_at is None else at - seen_at


def statuses(signs: Signs, workload: str, generation: int) -> dict[str, ModuleStatus] | None:
    """What the host last said of a workload's modules; None when the table is unknown, {} when it has none of it."""
    newest = signs.newest()
    if newest is None or signs.table is None or newest.table != signs.table_digest:
        return None
    return {
        key.module: status
        for key, status in zip(signs.table.modules, newest.statuses, strict=False)
        if key.workload == workload and key.generation == generation
    }


def is_fresh(signs: Signs, timing: Timing, at: float) -> bool:
    """Whether the host spoke lately, by network or datastore."""
    network, slot = _age(signs.heartbeat_at, at), _age(signs.slot_at, at)
    return (network is not None and network < timing.dead_s) or (slot is not None and slot < timing.slot_stale_s)
