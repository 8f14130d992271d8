"""Whole worlds: rules hold, runs reproduce, a quiet world is quiet, and what went wrong can be told."""

import os
import subprocess
import sys
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from random import Random

import pytest

from outlive.cluster.commands import Command
from outlive.cluster.events import Event
from outlive.sim import campaign, checkers, faults
from outlive.sim.chance import draw
from outlive.sim.faults import Fault
from outlive.sim.setup import Setup
from outlive.sim.world import World

SAMPLE = range(700, 712)


@pytest.mark.parametrize("seed", SAMPLE)
def test_no_rule_is_broken(seed: int) -> None:
    outcome = campaign.run_seed(seed, hosts=5)
    assert outcome.violation is None, outcome.told


@pytest.mark.parametrize("hosts", [1, 2, 3, 8])
def test_no_rule_is_broken_with_other_numbers_of_hosts(hosts: int) -> None:
    outcome = campaign.run_seed(1, hosts=hosts)
    assert outcome.violation is None, outcome.told


def digest(seed: int) -> str:
    """All that the machines of a run were told and asked for, in a few letters."""
    told = blake2b(digest_size=16)

    def spy(now: float, host: str, machine: str, event: Event, commands: tuple[Command, ...]) -> None:
        told.update(repr((now, host, machine, type(event).__name__, commands)).encode())

    random = Random(seed)
    setup, planned = draw(random)
    World(setup, planned, random, spy=spy).run()
    return told.hexdigest()


def test_one_seed_is_one_run_byte_for_byte_in_any_process() -> None:
    # Another hash seed gives every set and map of strings another order.
    runs = [
        subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
             "import test_world\nprint(test_world.digest(41))"],
            env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True, timeout=100,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert runs[0] == runs[1]
    assert runs[0].strip() == digest(41)


def quiet(seed: int) -> Setup:
    setup, _ = draw(Random(seed))
    workloads = tuple(replace(each, broken=False, applied_at_s=1.0) for each in setup.workloads)
    return replace(setup, workloads=workloads, calm_at_s=6.0, end_s=120.0)


def test_two_percent_of_loss_accuse_nobody_and_move_nothing() -> None:
    setup = quiet(3)
    setup = replace(setup, delays=replace(setup.delays, network_loss=0.02))
    world = World(setup, (), Random(3))
    result = world.run()
    kinds = [entry.record.kind for entry in result.timeline.entries if entry.record and entry.at_s > 10.0]
    assert result.violation is None
    assert not [kind for kind in kinds if kind != "verdict.suspect" and kind != "verdict.alive"]
    wanted = [each.workload.name for each in setup.workloads]
    assert [name for name in wanted if checkers.runs_whole(world.parts, name)] == wanted


def test_violation_is_told_with_its_seed_its_faults_and_what_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    class NobodyCrashes(checkers.Checker):
        def looked(self) -> str | None:
            down = [name for name, host in self.parts.hosts.items() if not host.powered]
            return f"{down[0]} has no power" if down else None

    monkeypatch.setattr(campaign, "World", lambda *args: World(*args, checkers=(NobodyCrashes,)))
    played = (campaign.run_seed(seed, hosts=3) for seed in range(50))
    # A host's power may also be cut by a fence device, which is no fault.
    outcome = next(each for each in played if each.violation and "world  crash " in each.told)
    assert outcome.violation is not None
    assert outcome.violation[0] == "nobody_crashes"
    assert outcome.told.startswith(f"seed {outcome.seed}, 3 hosts: nobody_crashes at ")
    assert "leader.elected" in outcome.told
    assert "has no power" in outcome.told.splitlines()[-1]


def test_outcomes_do_not_depend_on_how_many_processes_share_the_work() -> None:
    alone = list(campaign.run_seeds(5, 3, hosts=3, jobs=1, faults_s=5.0))
    shared = sorted(campaign.run_seeds(5, 3, hosts=3, jobs=2, faults_s=5.0), key=lambda outcome: outcome.seed)
    assert alone == shared


def test_faults_end_before_the_calm() -> None:
    for seed in range(50):
        setup, planned = draw(Random(seed))
        assert planned
        assert max(fault.at_s + (fault.for_s or 0.0) for fault in planned) <= setup.calm_at_s + 1e-6
        assert setup.calm_at_s < setup.end_s


def test_clocks_stay_within_the_allowed_drift_of_each_other() -> None:
    for seed in range(50):
        setup, _ = draw(Random(seed))
        rates = [host.clock_rate for host in setup.hosts]
        assert max(rates) / min(rates) <= 1.0 + setup.timing.drift_ratio + 1e-12


def test_fault_reads_as_a_line_of_a_scenario() -> None:
    assert str(Fault(5.0, "crash", ("b",), 20.0)) == "at 5 s: crash b for 20 s"
    assert str(Fault(1.25, "migrate", ("web", "c"))) == "at 1.25 s: migrate web c"


def test_every_rule_and_every_verb_is_in_the_documentation() -> None:
    told = (Path(__file__).parent.parent.parent / "docs" / "simulator.md").read_text()
    rules = [kind(World(*draw(Random(1)), Random(1)).parts).name for kind in checkers.ALL]
    assert [name for name in (*rules, *faults.VERBS) if f"`{name}`" not in told] == []
