"""The bench of decisions: a third of the hosts is lost at once, and the leader places what ran there, in virtual time.

The leader machine alone, with a stand-in for the store that does every transaction at once, and hosts that say the same
five times a second until their site is lost. What is measured is the processor's time of its steps, at three sizes.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from outlive.errors import Failed

from .pretended_cluster import SITES, PretendedCluster

LOST = SITES[0]
BEFORE_S, AT_MOST_S = 4.0, 120.0

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Row:
    """One size. Times of the processor in milliseconds.

    moved: workloads placed anew; left: those without a place at the end.  each_ms: for one of them, of all steps from
    the loss on.  look_ms: a tick that looks at everything, while nothing is the matter; worst_ms: the longest step
    after the loss.  placed_s: virtual seconds from the loss until all were placed.
    """

    hosts: int
    workloads: int
    moved: int
    left: int
    each_ms: float
    look_ms: float
    worst_ms: float
    placed_s: float


def sizes(hosts: int, workloads: int) -> tuple[tuple[int, int], ...]:
    """The sizes that are compared, the largest last."""
    return tuple(sorted({(max(3, hosts * part // 10), max(1, workloads * part // 10)) for part in (1, 3, 10)}))


def play(hosts: int, workloads: int, progress: Progress) -> tuple[Row, ...]:
    """Measure all sizes. Raises Failed when workloads keep waiting that have a place."""
    rows = []
    for size in sizes(hosts, workloads):
        progress(f"{size[0]} hosts with {size[1]} workloads")
        rows.append(_measure(*size))
    return tuple(rows)


def _measure(hosts: int, workloads: int) -> Row:
    world = PretendedCluster(hosts, workloads)
    world.run(BEFORE_S)
    ticks = [spent for kind, spent in world.steps if kind == "Tick"]
    # One tick in ten looks at everything; the first ones have verdicts to write.
    look_ms = median(sorted(ticks[len(ticks) // 2 :])[-2:])
    world.lose(LOST)
    world.steps.clear()
    lost_at, ended = world.at, False
    while world.at_rest()[1]:
        if world.at - lost_at > AT_MOST_S:
            break
        world.pass_tick()
        if not ended and world.at - lost_at >= world.timing.claim_ttl_s:
            world.end_claims()
            ended = True
    moved, left = world.at_rest()
    if not moved:
        raise Failed(f"Nothing was placed within {AT_MOST_S:g} virtual seconds.")
    spent = [each for _, each in world.steps]
    return Row(hosts, workloads, moved, left, sum(spent) / moved, look_ms, max(spent), world.at - lost_at)


def told(rows: tuple[Row, ...]) -> dict[str, Any]:
    """The bench as one object."""

    def growth(row: Row) -> float | None:
        return round(row.each_ms / rows[0].each_ms, 2) if rows[0].each_ms else None

    listed = [{**{name: round(value, 3) for name, value in asdict(row).items()}, "growth": growth(row)} for row in rows]
    return {"rows": listed, "all_placed": not any(row.left for row in rows)}
