"""A frozen cluster leaves everything as it is but for what is asked of it, and makes up for it afterwards."""

import pytest

from outlive.cluster import records as rec
from outlive.cluster.commands import Role
from outlive.cluster.events import ModuleChanged, PeerLost
from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.policies import Freeze, Policies

from .small_world import SmallWorld, machine, service

FROZEN = Policies(frozen=Freeze("root on a", "new switch"))


def freeze(world: SmallWorld, *, frozen: bool = True) -> None:
    world.store.put(rec.POLICIES, rec.encode(FROZEN if frozen else Policies()))
    world.run(0.5)


@pytest.fixture
def world() -> SmallWorld:
    """Three hosts, a service on one that does not lead."""
    three = SmallWorld("a", "b", "c")
    three.run(2)
    three.apply(service("web"))
    three.run(3)
    [where] = three.runs_on("web")
    if where == three.leads():
        three.ask(rec.OperationRecord("away", rec.OperationKind.MIGRATE, "web", three.other_than(where)))
        three.run(3)
    return three


def test_nothing_is_failed_over_until_the_cluster_is_unfrozen_and_then_it_is(world: SmallWorld) -> None:
    freeze(world)
    [where] = world.runs_on("web")
    generation = world.placement("web").generation
    world.off.add(where)
    world.run(20)
    assert world.placement("web").generation == generation
    assert "verdict.dead" in world.kinds()
    told = [event.text for event in world.happened if event.kind == "failover.frozen"]
    assert len(told) == 1
    assert "frozen by root on a: new switch" in told[0]
    freeze(world, frozen=False)
    world.run(3)
    assert world.placement("web").generation == generation + 1
    assert len(world.runs_on("web")) == 1


def test_a_failed_module_is_left_alone_until_then(world: SmallWorld) -> None:
    freeze(world)
    [where] = world.runs_on("web")
    failed = ModuleChanged(world.now, "web", world.placement("web").generation, "main", ModuleStatus.FAILED, "it ended")
    world.hosts[where].waiting.append(failed)
    world.run(5)
    assert "restore.ordered" not in world.kinds()
    freeze(world, frozen=False)
    world.run(3)
    assert "module.restored" in world.kinds()


def test_what_is_asked_for_is_done(world: SmallWorld) -> None:
    freeze(world)
    world.apply(service("mail"))
    world.run(3)
    assert len(world.runs_on("mail")) == 1
    target = world.other_than(*world.runs_on("mail"))
    world.ask(rec.OperationRecord("m1", rec.OperationKind.MIGRATE, "mail", target))
    world.run(3)
    assert world.runs_on("mail") == [target]
    world.apply(service("mail"), rec.Desired.STOPPED)
    world.run(3)
    assert world.runs_on("mail") == []
    world.apply(service("mail"))
    world.run(3)
    assert len(world.runs_on("mail")) == 1
    world.apply(service("mail", priority=7), version=2)
    world.run(3)
    assert len(world.runs_on("mail")) == 1
    assert world.placement("mail").version == 2


def test_a_failover_by_name_works_also_for_what_has_died(world: SmallWorld) -> None:
    freeze(world)
    [where] = world.runs_on("web")
    world.off.add(where)
    world.run(10)
    world.ask(rec.OperationRecord("f1", rec.OperationKind.FAILOVER, "web"))
    world.run(5)
    assert len(world.runs_on("web")) == 1
    assert where not in world.runs_on("web")


def test_a_host_is_emptied_also_then(world: SmallWorld) -> None:
    freeze(world)
    [where] = world.runs_on("web")
    world.store.put(rec.MAINTENANCE + where, rec.encode(rec.MaintenanceRecord(where)))
    world.run(4)
    [elsewhere] = world.runs_on("web")
    assert elsewhere != where


def test_a_host_that_is_cut_off_stops_nothing_until_then(world: SmallWorld) -> None:
    assert Policies().stops_when_isolated(service("web"))
    freeze(world)
    [where] = world.runs_on("web")
    world.cut.add(where)
    world.run(6)
    assert "host.isolated" in world.kinds()
    assert world.runs_on("web") == [where]
    freeze(world, frozen=False)
    world.run(10)
    assert len(world.runs_on("web")) == 1
    assert where not in world.runs_on("web")


def test_no_standby_is_chosen_but_a_pair_settles_between_its_two_hosts(world: SmallWorld) -> None:
    world.apply(machine("vm"))
    world.run(4)
    placed = world.placement("vm")
    assert placed.paired
    freeze(world)
    primary = str(placed.host)
    world.off.add(primary)
    other = world.hosts[str(placed.standby)]
    lost = PeerLost(world.now, "vm", placed.generation, placed.pairing, Role.STANDBY, "silent", whole=True)
    other.waiting.append(lost)
    world.run(12)
    after = world.placement("vm")
    assert (after.host, after.took_over, after.standby) == (placed.standby, True, None)
    freeze(world, frozen=False)
    world.run(5)
    assert world.placement("vm").paired


def test_policies_that_nobody_could_ever_read_may_say_that_it_is_frozen_and_count_as_that() -> None:
    world = SmallWorld("a", "b", "c")
    world.store.put(rec.POLICIES, b"{")
    world.run(2)
    world.apply(service("web"))
    world.run(3)
    [where] = world.runs_on("web")
    world.off.add(where)
    world.run(20)
    assert world.placement("web").host == where
    assert [event.kind for event in world.happened if "`outlive unfreeze` writes them anew" in event.text]
    freeze(world, frozen=False)
    world.run(3)
    assert world.runs_on("web") != [where]


@pytest.mark.parametrize("last", [FROZEN, Policies()])
def test_policies_that_cannot_be_read_any_more_hold_as_they_were(world: SmallWorld, last: Policies) -> None:
    world.store.put(rec.POLICIES, rec.encode(last))
    world.run(0.5)
    world.store.put(rec.POLICIES, b"{")
    [where] = world.runs_on("web")
    world.off.add(where)
    world.run(20)
    assert (world.placement("web").host == where) == (last is FROZEN)
