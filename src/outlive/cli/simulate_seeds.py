"""Running seeds for `outlive simulate`: a bar while they run, what was broken and how little it takes, and the sum.

What a seed is stands in `outlive.sim.campaign`; what a person may ask for in `simulate`.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .output import print_json

if TYPE_CHECKING:
    from outlive.sim.campaign import Outcome
    from outlive.sim.campaign_log import Piece

SHOWN = 3
PIECE_SEEDS = 500
BAR_EVERY_S = 0.2


def one(seed: int, hosts: int, faults: tuple[int, ...] | None, as_json: bool) -> int:
    """Run one seed, and show its whole timeline. faults: numbers of those to do; None: all.

    Raises UsageInvalid for a fault that it has not.
    """
    from outlive.sim.campaign import Outcome, Stopwatch, run_seed

    watch = Stopwatch()
    found: list[Outcome] = []
    with _progress(1) as show:
        outcome = run_seed(seed, hosts, only=faults, tell=not as_json)
        found += [outcome] if outcome.violation is not None else []
        show(1, len(found), outcome.simulated_s, watch.reads_s())
    wall_s = watch.reads_s()
    if not found and not as_json:
        click.echo(outcome.told)
    _tell(found, hosts, as_json, shrink=faults is None)
    return _sum(seed, 1, hosts, found, outcome.simulated_s, wall_s, as_json)


def many(first: int, count: int, hosts: int, jobs: int | None, log: Path | None, as_json: bool) -> int:
    """Run seeds and tell what came of them. log: runs only what that file does not have, and adds to it.

    Raises BadLog.
    """
    if log is not None:
        return _logged(log, first, count, hosts, jobs, as_json)
    found, simulated_s, wall_s = _run([(first, count)], hosts, jobs, lambda _: None)
    _tell(found, hosts, as_json)
    return _sum(first, count, hosts, found, simulated_s, wall_s, as_json)


def _logged(log: Path, first: int, count: int, hosts: int, jobs: int | None, as_json: bool) -> int:
    from outlive.sim import campaign_log

    stretches = campaign_log.still_to_run(campaign_log.read(log), first, count, hosts, PIECE_SEEDS)
    found, _, _ = _run(stretches, hosts, jobs, lambda piece: campaign_log.add(log, piece))
    _tell(found, hosts, as_json)
    run = [
        each
        for each in campaign_log.read(log)
        if each.hosts == hosts and first <= each.first_seed and each.first_seed + each.seeds <= first + count
    ]
    broken = sorted({seed for each in run for seed in each.broken})
    if broken:
        click.echo(f"Rules were broken in: {', '.join(map(str, broken))}", err=as_json)
    decisions = {each.decisions for each in run}
    several = "" if len(decisions) < 2 else f" They ran {len(decisions)} different states of the decisions."
    done, simulated_h, wall_s = (
        sum(each.seeds for each in run), sum(each.simulated_h for each in run), sum(each.wall_s for each in run),
    )  # fmt: skip
    click.echo(
        f"{done} seeds of {hosts} hosts in {len(run)} pieces, {simulated_h:.1f} simulated hours in "
        f"{wall_s / 3600.0:.1f} h: {_broken(len(broken))}.{several}",
        err=as_json,
    )
    if as_json:
        print_json(
            {
                "seeds": done,
                "first_seed": first,
                "hosts": hosts,
                "violations": len(broken),
                "broken": broken,
                "pieces": len(run),
                "decisions": sorted(decisions),
                "simulated_hours": round(simulated_h, 3),
                "wall_s": round(wall_s, 2),
                "found": [_found(outcome) for outcome in found],
            }
        )
    return 1 if broken else 0


def _run(
    stretches: list[tuple[int, int]], hosts: int, jobs: int | None, whole: "Callable[[Piece], None]"
) -> "tuple[list[Outcome], float, float]":
    """Run stretches of seeds; what was broken, in order, the simulated and the real seconds. whole: told each piece."""
    from outlive.sim.campaign import Stopwatch, processors, run_seeds
    from outlive.sim.campaign_log import Piece, decisions

    watch, total_s, done, count = Stopwatch(), 0.0, 0, sum(seeds for _, seeds in stretches)
    found: list[Outcome] = []
    decided = decisions()
    try:
        with _progress(count) as show:
            for first, seeds in stretches:
                began_s, simulated_s, broken = watch.reads_s(), 0.0, []
                for outcome in run_seeds(first, seeds, hosts, jobs or processors()):
                    done += 1
                    simulated_s += outcome.simulated_s
                    if outcome.violation is not None:
                        broken.append(outcome)
                    show(done, len(found) + len(broken), total_s + simulated_s, watch.reads_s())
                found += broken
                total_s += simulated_s
                seeds_broken = tuple(sorted(each.seed for each in broken))
                took_s = watch.reads_s() - began_s
                whole(Piece(first, seeds, hosts, seeds_broken, simulated_s / 3600.0, took_s, decided))
    except KeyboardInterrupt:
        click.echo(f"Stopped after {done} of {count} seeds, {_broken(len(found))} so far.", err=True)
        raise
    return sorted(found, key=lambda outcome: outcome.seed), total_s, watch.reads_s()


def _sum(
    first: int, count: int, hosts: int, found: "list[Outcome]", simulated_s: float, wall_s: float, as_json: bool
) -> int:
    click.echo(
        f"{count} seeds of {hosts} hosts, {simulated_s / 3600.0:.1f} simulated hours in {wall_s:.0f} s "
        f"({simulated_s / wall_s:.0f} simulated seconds a second): {_broken(len(found))}.",
        err=as_json,
    )
    if as_json:
        print_json(
            {
                "seeds": count,
                "first_seed": first,
                "hosts": hosts,
                "violations": len(found),
                "simulated_hours": round(simulated_s / 3600.0, 3),
                "simulated_s_per_wall_s": round(simulated_s / wall_s, 1),
                "wall_s": round(wall_s, 2),
                "found": [_found(outcome) for outcome in found],
            }
        )
    return 1 if found else 0


def _found(outcome: "Outcome") -> dict[str, object]:
    assert outcome.violation is not None
    checker, at_s, text = outcome.violation
    return {
        "seed": outcome.seed,
        "checker": checker,
        "at_s": round(at_s, 3),
        "text": text,
        "faults": list(outcome.faults),
        "planned": outcome.planned,
    }


def _tell(found: "list[Outcome]", hosts: int, as_json: bool, *, shrink: bool = True) -> None:
    """Show the first of what was found, each with as few faults as it takes; `found` has these then."""
    for place, outcome in enumerate(found[:SHOWN]):
        least = _shrunk(outcome, hosts) if shrink else outcome
        found[place] = least
        click.echo(least.told, err=as_json)
        again = f"outlive simulate --seed {outcome.seed} --hosts {hosts}"
        if len(least.faults) < least.planned:
            again += f" --faults {','.join(map(str, least.faults))}"
        click.echo(f"Again: {again}\n", err=as_json)
    if len(found) > SHOWN:
        others = ", ".join(str(outcome.seed) for outcome in found[SHOWN:])
        click.echo(f"Rules were broken in these seeds too: {others}\n", err=as_json)


def _shrunk(outcome: "Outcome", hosts: int) -> "Outcome":
    """With fewer faults, found while a line says how far that is; once no fewer do."""
    from outlive.sim.campaign import smallest

    is_seen = sys.stderr.isatty()

    def tried(runs: int, left: int) -> None:
        if is_seen:
            sys.stderr.write(f"\r\x1b[Kseed {outcome.seed}: {outcome.planned} faults broke it, {left} do; run {runs}")
            sys.stderr.flush()

    try:
        return smallest(outcome, hosts, tried=tried)
    finally:
        if is_seen:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _broken(count: int) -> str:
    return "no rule was broken" if count == 0 else f"a rule was broken in {count} of them"


@contextmanager
def _progress(count: int) -> Iterator["Callable[[int, int, float, float], None]"]:
    """A bar on stderr with rate and time left, where there is a terminal."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    shown_at = -1.0

    def show(done: int, found: int, simulated_s: float, wall_s: float) -> None:
        nonlocal shown_at
        if wall_s - shown_at < BAR_EVERY_S and done < count:
            return
        shown_at = wall_s
        width = 30
        full = width * done // count
        left_s = wall_s / done * (count - done)
        sys.stderr.write(
            f"\r\x1b[K{'█' * full}{'░' * (width - full)} {done}/{count} seeds, {simulated_s / wall_s:.0f} s/s, "
            f"{left_s:.0f} s left" + (f", {found} broken" if found else "")
        )
        sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
