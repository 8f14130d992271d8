"""Where machines are, read from a host's picture of the store, and what follows from it for its virtual networks.

The bridge between `mirror` and `overlay`; it decides nothing of its own.
"""

from collections.abc import Iterable

from . import records as rec
from .mirror import Mirror
from .overlay import Whereabouts, Wiring, wiring


def whereabouts(placements: Iterable[rec.PlacementRecord]) -> tuple[Whereabouts, ...]:
    """Where each placed workload is; the target of a live migration counts as a standby that cannot take over."""
    return tuple(
        Whereabouts(
            placed.workload,
            placed.generation,
            placed.host,
            placed.standby or placed.moving_to,
            placed.pairing,
            placed.paired and placed.standby is not None,
        )
        for placed in placements
    )


def wiring_of(mirror: Mirror, host: str) -> Wiring:
    """What `host` must have for its virtual networks, as of this picture of the store. Raises nothing."""
    machines = {
        name: entry.record.workload.machine
        for name, entry in mirror.workloads.items()
        if entry.record.workload.machine is not None
    }
    return wiring(
        host,
        (entry.record for entry in mirror.networks.values()),
        machines,
        whereabouts(entry.record for entry in mirror.placements.values()),
        {name: entry.record.address for name, entry in mirror.hosts.items()},
    )
