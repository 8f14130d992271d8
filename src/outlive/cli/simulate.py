"""`outlive simulate`: run the cluster's decisions through simulated worlds, and check what must hold.

The worlds, their faults and the checkers are `outlive.sim`; here is what a person asks for, and scenarios. Running
seeds and showing what came of them is `simulate_seeds`.
"""

import math
from pathlib import Path

import click

from . import simulate_seeds
from .output import json_option, print_json

DEFAULT_SEEDS = 100


@click.command()
@click.option("--seeds", type=click.IntRange(1), metavar="N", help=f"How many worlds; {DEFAULT_SEEDS} if not said.")
@click.option("--first-seed", type=click.IntRange(0), default=0, show_default=True, metavar="K", help="The first one.")
@click.option("--seed", type=click.IntRange(0), metavar="S", help="Only this world; its whole timeline is shown.")
@click.option("--faults", metavar="N,…", help="With --seed: only these of its faults, by number.")
@click.option("--hosts", type=click.IntRange(1, 50), default=5, show_default=True, metavar="N", help="Hosts in each.")
@click.option("--hours", type=click.FloatRange(0, min_open=True), metavar="H", help="As many worlds as take so long.")
@click.option(
    "--scenario", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help="Run this script instead, and show its timeline.",
)  # fmt: skip
@click.option("--accept", is_flag=True, help="With --scenario: keep its timeline as the expected one, beside it.")
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Processes; as many as processors if not said.")
@click.option(
    "--log",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Run what FILE does not say was run, and add to it, a piece at a time.",
)
@json_option
def command(
    seeds: int | None,
    first_seed: int,
    seed: int | None,
    faults: str | None,
    hosts: int,
    hours: float | None,
    scenario: Path | None,
    accept: bool,
    jobs: int | None,
    log: Path | None,
    as_json: bool,
) -> int:
    """Run worlds with faults drawn from seeds, in virtual time, and check every rule.

    Ends with 1 when a rule was broken; the same seed and number of hosts break it again. The first that were broken are
    run again with fewer and fewer faults, and shown with those that it takes.

    \b
      outlive simulate --seeds 2000
      outlive simulate --seeds 100000 --log campaign.jsonl     stop it, and say it again to go on
      outlive simulate --seed 270 --hosts 5 --faults 3,12
    """
    if sum(each is not None for each in (seeds, seed, hours, scenario)) > 1:
        raise click.UsageError("say only one of --seeds, --seed, --hours and --scenario")
    if faults is not None and seed is None:
        raise click.UsageError("--faults goes with --seed")
    if log is not None and (seed is not None or scenario is not None):
        raise click.UsageError("--log goes with --seeds or --hours")
    if accept and scenario is None:
        raise click.UsageError("--accept goes with --scenario")
    if scenario is not None:
        return _scenario(scenario, accept, as_json)
    from outlive.sim.chance import CALM_S, FAULTS_S, SETTLE_S

    if seed is not None:
        return simulate_seeds.one(seed, hosts, _numbers(faults), as_json)
    if hours is not None:
        seeds = math.ceil(hours * 3600.0 / (SETTLE_S + FAULTS_S + CALM_S))
    return simulate_seeds.many(first_seed, seeds or DEFAULT_SEEDS, hosts, jobs, log, as_json)


def _numbers(faults: str | None) -> tuple[int, ...] | None:
    if faults is None:
        return None
    try:
        return tuple(int(word) for word in faults.split(",") if word.strip())
    except ValueError:
        raise click.UsageError(f"--faults takes numbers with commas between them, not {faults!r}") from None


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
