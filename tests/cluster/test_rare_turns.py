"""Rare turns of events that once led the machines astray, each as a short conversation."""

from collections import Counter

import pytest

from outlive.cluster.host import Capacity
from outlive.cluster.workload import PlacementRules

from .small_world import SmallWorld, service


@pytest.fixture
def world() -> SmallWorld:
    """Three hosts that have found a leader."""
    three = SmallWorld("a", "b", "c")
    three.run(2)
    return three


def test_of_two_hosts_the_one_that_outlives_the_leader_takes_over_and_goes_on_with_what_it_runs() -> None:
    world = SmallWorld("a", "b")
    world.run(2)
    leader = str(world.leads())
    survivor = world.other_than(leader)
    for name in ("one", "two"):
        world.apply(service(name))
    world.run(2)
    world.off.add(leader)
    world.run(10)
    assert world.leads() == survivor
    assert world.runs_on("one") == world.runs_on("two") == [survivor]
    assert "host.isolated" not in world.kinds()


def test_a_host_that_held_itself_isolated_finds_that_it_is_alone_once_no_other_holds_a_claim() -> None:
    world = SmallWorld("a", "b")
    world.run(2)
    leader = str(world.leads())
    survivor = world.other_than(leader)
    world.cut.add(leader)
    world.run(4)
    assert world.hosts[survivor].node.isolated
    world.off.add(leader)
    world.run(8)
    assert not world.hosts[survivor].node.isolated
    assert world.leads() == survivor


def test_workloads_placed_in_the_same_breath_share_the_hosts_and_never_exceed_one(world: SmallWorld) -> None:
    names = ("one", "two", "three", "four", "five", "six")
    for name in (*names, "zero"):
        world.apply(service(name, resources=Capacity(4, 100)))
    world.run(3)
    assert sorted(Counter(world.placement(name).host for name in names).values()) == [2, 2, 2]
    assert world.kinds().count("workload.waiting") == 1


def test_the_workloads_of_a_dead_host_are_spread_over_those_that_are_left(world: SmallWorld) -> None:
    victim = world.other_than(world.leads())
    names = ("one", "two", "three", "four")
    for name in names:
        world.apply(service(name, resources=Capacity(1, 100), placement=PlacementRules(hosts=(victim,))))
    world.run(2)
    for name in names:
        world.apply(service(name, resources=Capacity(1, 100)))
    world.run(1)
    world.off.add(victim)
    world.run(8)
    assert sorted(Counter(world.placement(name).host for name in names).values()) == [2, 2]
