"""Which workloads are on their way up, and where: placed, and not yet running, nor ended there."""

from collections.abc import Mapping

from . import records as rec
from .mirror import Mirror

_UP = frozenset({rec.Stage.RUNNING, rec.Stage.DEGRADED, rec.Stage.STOPPING, *rec.FINAL})


def is_up(report: rec.ReportRecord | None, placed: rec.PlacementRecord) -> bool:
    """Whether a workload has come up where it was placed, or come to an end there."""
    if report is None or (report.generation, report.host) != (placed.generation, placed.host):
        return False
    return report.stage in _UP


def upcoming(mirror: Mirror, meant: Mapping[str, str]) -> dict[str, int]:
    """How many are on their way up on each host. meant: where some were placed that the picture does not show yet."""
    counts: dict[str, int] = {}
    for name, entry in mirror.placements.items():
        placed, report = entry.record, mirror.reports.get(name)
        if placed.host is None or name in meant or placed.order is rec.Order.STOP:
            continue
        if not is_up(report.record if report is not None else None, placed):
            counts[placed.host] = counts.get(placed.host, 0) + 1
    for host in meant.values():
        counts[host] = counts.get(host, 0) + 1
    return counts
