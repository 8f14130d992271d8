"""Which workloads are on their way up, and where: placed, and not yet running, nor ended there."""

from collections.abc import Mapping

from . import records as rec
from .mirror import Entry, Mirror

_UP = frozenset({rec.Stage.RUNNING, rec.Stage.DEGRADED, rec.Stage.STOPPING, *rec.FINAL})


def is_up(report: rec.ReportRecord | None, placed: rec.PlacementRecord) -> bool:
    """Whether a workload has come up where it was placed, or come to an end there."""
    if report is None or (report.generation, report.host) != (placed.generation, placed.host):
        return False
    return report.stage in _UP


def is_upcoming(placed: rec.PlacementRecord, report: Entry[rec.ReportRecord] | None) -> bool:
    """Whether a workload is on its way up where it was placed."""
    if placed.host is None or placed.order is rec.Order.STOP:
        return False
    return not is_up(report.record if report is not None else None, placed)


def upcoming(mirror: Mirror, meant: Mapping[str, str]) -> dict[str, int]:
    """How many are on their way up on each host. meant: where some were placed that the picture does not show yet."""
    counts: dict[str, int] = {}
    for name, entry in mirror.placements.items():
        host = entry.record.host
        if host is not None and name not in meant and is_upcoming(entry.record, mirror.reports.get(name)):
            counts[host] = counts.get(host, 0) + 1
    for host in meant.values():
        counts[host] = counts.get(host, 0) + 1
    return counts
