"""Rare turns of events that once led the machines astray, each as a short conversation."""

import pytest

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
