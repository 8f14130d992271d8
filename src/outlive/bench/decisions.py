"""The bench of decisions: a third of the hosts is lost at once, and the leader places what ran there, in virtual time.

The leader machine alone, in a cluster that is pretended around it. What is measured is the processor's time of its
steps, at three sizes, and in two clusters of each: one with room for all, and one that was full, where what ran in the
lost site has to wait until hosts come back.
"""

import gc
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from outlive.cluster.host import Capacity
from outlive.errors import Failed

from .pretended_cluster import SITES, PretendedCluster

LOST = SITES[0]
BEFORE_S, AT_MOST_S = 4.0, 120.0
NEEDS_AT_MOST = 0.6
WAITED_TICKS = 30

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


@dataclass(frozen=True, slots=True)
class Shortage:
    """One size, in a full cluster. Times of the processor in milliseconds.

    waited: workloads that found no room; left: those without a place at the end.  first_ms: of all ticks until each
    had been told so, the longest.  tick_ms: a tick while all wait, the mean; woken_ms: the longest tick once a host
    came back that has room for a few of them.  longest_text: of all that was put on record, in characters.
    """

    hosts: int
    workloads: int
    waited: int
    left: int
    first_ms: float
    tick_ms: float
    woken_ms: float
    longest_text: int


def sizes(hosts: int, workloads: int) -> tuple[tuple[int, int], ...]:
    """The sizes that are compared, the largest last."""
    return tuple(sorted({(max(3, hosts * part // 10), max(1, workloads * part // 10)) for part in (1, 3, 10)}))


def play(hosts: int, workloads: int, progress: Progress) -> tuple[tuple[Row, ...], tuple[Shortage, ...]]:
    """Measure all sizes. Raises Failed when workloads keep waiting that have a place."""
    rows, shortages = [], []
    for size in sizes(hosts, workloads):
        progress(f"{size[0]} hosts with {size[1]} workloads")
        rows.append(_measure(*size))
        progress(f"{size[0]} hosts with {size[1]} workloads, and no room")
        shortages.append(_fill_up(*size))
    return tuple(rows), tuple(shortages)


def _begin(world: PretendedCluster) -> None:
    # As an agent does, for which the garbage collector would walk through its whole picture again and again.
    gc.collect()
    gc.freeze()
    world.run(BEFORE_S)


def _needs(number: int) -> Capacity:
    """Many different sizes, so that what is known of one workload says little of the next."""
    return Capacity(0.5 + number % 97 / 1000, 512 + number % 89)


def _fill_up(hosts: int, workloads: int) -> Shortage:
    """Lose a site of a cluster that has no room, wait, and bring one host back."""
    each = -(-workloads // hosts)
    world = PretendedCluster(hosts, workloads, NEEDS_AT_MOST * each, _needs)
    _begin(world)
    world.take_up_rest(0.4)
    world.run(1.0)
    world.lose(LOST)
    world.run(world.timing.claim_ttl_s)
    world.end_claims()
    first_ms, lost_at = 0.0, world.at
    while len(world.state.waiting) < world.at_rest()[1] and world.at - lost_at < AT_MOST_S:
        first_ms = max(first_ms, _tick_ms(world))
    waited = world.at_rest()[1]
    ticks = [_tick_ms(world) for _ in range(WAITED_TICKS)]
    world.bring_back([name for name in world.hosts if name.startswith(LOST)][:1])
    woken_ms = max(_tick_ms(world) for _ in range(WAITED_TICKS))
    # With a little more than before: the same workloads need not fit in the very same way.
    away = [name for name in world.hosts if name.startswith(LOST)][1:]
    for name in away:
        world.register(name, 2 * NEEDS_AT_MOST * each)
    world.bring_back(away)
    back_at = world.at
    while world.at_rest()[1] and world.at - back_at < AT_MOST_S:
        world.pass_tick()
    gc.unfreeze()
    left, longest = world.at_rest()[1], world.longest_text
    return Shortage(hosts, workloads, waited, left, first_ms, sum(ticks) / len(ticks), woken_ms, longest)


def _tick_ms(world: PretendedCluster) -> float:
    """What all steps of one tick's time take."""
    before = len(world.steps)
    world.pass_tick()
    return sum(spent for _, spent in world.steps[before:])


def _measure(hosts: int, workloads: int) -> Row:
    world = PretendedCluster(hosts, workloads)
    _begin(world)
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
    gc.unfreeze()
    moved, left = world.at_rest()
    if not moved:
        raise Failed(f"Nothing was placed within {AT_MOST_S:g} virtual seconds.")
    spent = [each for _, each in world.steps]
    return Row(hosts, workloads, moved, left, sum(spent) / moved, look_ms, max(spent), world.at - lost_at)


def told(rows: tuple[Row, ...], shortages: tuple[Shortage, ...] = ()) -> dict[str, Any]:
    """The bench as one object."""

    def growth(row: Row) -> float | None:
        return round(row.each_ms / rows[0].each_ms, 2) if rows[0].each_ms else None

    listed = [{**{name: round(value, 3) for name, value in asdict(row).items()}, "growth": growth(row)} for row in rows]
    short = [{name: round(value, 3) for name, value in asdict(each).items()} for each in shortages]
    left = [row.left for row in rows] + [each.left for each in shortages]
    return {"rows": listed, "no_room": short, "all_placed": not any(left)}
