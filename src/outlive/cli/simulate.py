"""`outlive simulate`: run the cluster's decisions through simulated worlds, and check what must hold.

The worlds, their faults and the checkers are `outlive.sim`; here is what a person asks for and sees. A violation is
shown with its seed, which brings it about again on any machine.
"""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .output import json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlive.sim.campaign import Outcome

SHOWN = 3
DEFAULT_SEEDS = 100
BAR_EVERY_S = 0.2


@click.command()
@click.option("--seeds", type=click.IntRange(1), metavar="N", help=f"How many worlds; {DEFAULT_SEEDS} if not said.")
@click.option("--first-seed", type=click.IntRange(0), default=0, show_default=True, metavar="K", help="The first one.")
@click.option("--seed", type=click.IntRange(0), metavar="S", help="Only this world; its whole timeline is shown.")
@click.option("--hosts", type=click.IntRange(1, 50), default=5, show_default=True, metavar="N", help="Hosts in each.")
@click.option("--hours", type=click.FloatRange(0, min_open=True), metavar="H", help="As many worlds as take so long.")
@click.option(
    "--scenario", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help="Run this script instead, and show its timeline.",
)  # fmt: skip
@click.option("--accept", is_flag=True, help="With --scenario: keep its timeline as the expected one, beside it.")
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Processes; as many as processors if not said.")
@json_option
def command(
    seeds: int | None,
    first_seed: int,
    seed: int | None,
    hosts: int,
    hours: float | None,
    scenario: Path | None,
    accept: bool,
    jobs: int | None,
    as_json: bool,
) -> int:
    """Run worlds with faults drawn from seeds, in virtual time, and check every rule.

    Ends with 1 when a rule was broken; the same seed and number of hosts break it again.
    """
    if sum(each is not None for each in (seeds, seed, hours, scenario)) > 1:
        raise click.UsageError("say only one of --seeds, --seed, --hours and --scenario")
    if accept and scenario is None:
        raise click.UsageError("--accept goes with --scenario")
    if scenario is not None:
        return _scenario(scenario, accept, as_json)
    from outlive.sim.chance import CALM_S, FAULTS_S, SETTLE_S

    if seed is not None:
        first_seed, seeds = seed, 1
    elif hours is not None:
        seeds = math.ceil(hours * 3600.0 / (SETTLE_S + FAULTS_S + CALM_S))
    return _seeds(first_seed, seeds or DEFAULT_SEEDS, hosts, jobs, as_json, whole=seed is not None)


def _seeds(first: int, count: int, hosts: int, jobs: int | None, as_json: bool, *, whole: bool) -> int:
    from outlive.sim.campaign import Stopwatch, processors, run_seeds

    watch, simulated_s, done = Stopwatch(), 0.0, 0
    found: list[Outcome] = []
    try:
        with _progress(count) as show:
            for outcome in run_seeds(first, count, hosts, jobs or processors()):
                done += 1
                simulated_s += outcome.simulated_s
                if outcome.violation is not None:
                    found.append(outcome)
                show(done, len(found), simulated_s, watch.reads_s())
    except KeyboardInterrupt:
        click.echo(f"Stopped after {done} of {count} seeds, {_broken(len(found))} so far.", err=True)
        raise
    wall_s = watch.reads_s()
    found.sort(key=lambda outcome: outcome.seed)
    if whole and not found and not as_json:
        _show_whole(first, hosts)
    _tell(found, hosts, as_json)
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
    return {"seed": outcome.seed, "checker": checker, "at_s": round(at_s, 3), "text": text}


def _tell(found: list["Outcome"], hosts: int, as_json: bool) -> None:
    for outcome in found[:SHOWN]:
        click.echo(outcome.told, err=as_json)
        click.echo(f"Again: outlive simulate --seed {outcome.seed} --hosts {hosts}\n", err=as_json)
    if len(found) > SHOWN:
        others = ", ".join(str(outcome.seed) for outcome in found[SHOWN:])
        click.echo(f"Rules were broken in these seeds too: {others}\n", err=as_json)


def _show_whole(seed: int, hosts: int) -> None:
    from outlive.sim.campaign import world
    from outlive.sim.timeline import written

    click.echo(written(world(seed, hosts)[0].run().timeline.entries))


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


def _scenario(path: Path, accept: bool, as_json: bool) -> int:
    from outlive.sim import scenario
    from outlive.sim.campaign import Stopwatch

    watch = Stopwatch()
    result = scenario.run(scenario.read(path.read_text(), path.name))
    wall_s = watch.reads_s()
    told = scenario.timeline(result)
    click.echo(told, nl=False, err=as_json)
    wrong, beside = result.violation, scenario.expected_beside(path)
    if accept and wrong is None:
        beside.write_text(told)
    as_expected = not beside.exists() or beside.read_text() == told
    if not as_expected:
        click.echo(f"This is not what {beside.name} expects. If it is right, say --accept.", err=True)
    if as_json:
        print_json(
            {
                "scenario": path.name,
                "seeds": 1,
                "violations": int(wrong is not None),
                "as_expected": as_expected,
                "simulated_hours": round(result.simulated_s / 3600.0, 3),
                "simulated_s_per_wall_s": round(result.simulated_s / wall_s, 1),
            }
        )
    return 0 if wrong is None and as_expected else 1
