"""When a workload is tried again: failures wait, hosts' deaths do not unless several come in a row."""

import pytest

from outlive.cluster import records as rec
from outlive.cluster.commands import Command, Prepare
from outlive.cluster.events import ModuleChanged, Prepared
from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.policies import Policies
from outlive.cluster.transaction import Put, Transaction
from outlive.cluster.workload import Module, PlacementRules, RestorePolicy

from .small_world import SmallWorld, host, service

FRAGILE = Module("main", ("/bin/false",), restore=RestorePolicy(attempts=1, backoff_s=0.1))


def broken(world: SmallWorld, *names: str) -> None:
    world.failing |= {(name, "main") for name in names}


def tries(world: SmallWorld) -> list[str]:
    kinds = ("workload.placed", "failover.started")
    return [event.host for event in world.happened if event.kind in kinds and event.workload == "web"]


@pytest.fixture
def world() -> SmallWorld:
    three = SmallWorld("a", "b", "c")
    three.run(2)
    return three


def test_each_host_is_tried_soon_and_where_it_failed_only_after_growing_waits(world: SmallWorld) -> None:
    broken(world, "a", "b", "c")
    world.apply(service("web", FRAGILE))
    world.run(60)
    assert sorted(tries(world)) == ["a", "b", "c"]
    assert "it failed 3 times in a row" in str(
        [event.text for event in world.happened if event.kind == "placement.delayed"]
    )
    world.run(5 * 60)
    assert len(tries(world)) == 3
    world.run(90)
    assert len(tries(world)) == 4, "6 min after the third failure"


def test_a_new_leader_goes_on_counting_failures_and_a_run_that_lasts_ends_the_row(world: SmallWorld) -> None:
    broken(world, "a", "b", "c")
    world.apply(service("web", FRAGILE))
    world.run(60)
    assert world.placement("web").failures == 3
    world.failing.clear()
    gone = str(world.leads())
    world.off.add(gone)
    world.run(20)
    [where] = world.runs_on("web")
    assert (world.leads() != gone, world.placement("web").failures) == (True, 3)
    broken(world, where)
    world.hosts[where].waiting.append(
        ModuleChanged(world.now, "web", world.placement("web").generation, "main", ModuleStatus.FAILED, "as told")
    )
    world.run(10)
    told = [event.text for event in world.happened if event.kind in ("placement.delayed", "workload.failed")]
    assert world.placement("web").failures == 4, told
    world.run(90)
    assert (len(world.runs_on("web")), world.placement("web").failures) == (1, 0)


@pytest.mark.parametrize("how", ["joins", "leaves maintenance", "workload removed", "file changes", "stop and start"])
def test_it_is_tried_at_once_when_something_changes(world: SmallWorld, how: str) -> None:
    if how == "leaves maintenance":
        world.store.put(rec.MAINTENANCE + "c", rec.encode(rec.MaintenanceRecord("c")))
    world.apply(service("other"))
    broken(world, "a", "b", "c", "d")
    world.failing -= {("c", "main")} if how == "leaves maintenance" else set()
    world.apply(
        service("web", FRAGILE, placement=PlacementRules(hosts=("a", "b", "d")) if how == "joins" else PlacementRules())
    )
    world.run(60)
    before = len(tries(world))
    world.failing.clear()
    if how == "joins":
        world.boot(host("d"))
    elif how == "leaves maintenance":
        world.store.delete(rec.MAINTENANCE + "c")
    elif how == "workload removed":
        world.apply(service("other"), rec.Desired.REMOVED)
    elif how == "file changes":
        world.apply(service("web"), version=2)
    else:
        world.apply(service("web", FRAGILE), rec.Desired.STOPPED)
        world.run(1)
        world.apply(service("web", FRAGILE))
    world.run(6)
    assert len(tries(world)) == before + 1
    assert len(world.runs_on("web")) == 1


def test_what_hosts_offer_is_known_from_the_moment_that_somebody_waits_for_more_and_only_until_then(
    world: SmallWorld,
) -> None:
    broken(world, "a", "b", "c")
    world.apply(service("web", FRAGILE))
    waited = set[bool]()
    for _ in range(200):
        world.run(0.1)
        state = world.hosts[world.leads() or "a"].leader
        waits = any(course.next_try_at > state.at for course in state.courses.values())
        assert state.offered is not None or not waits
        waited.add(waits)
    assert waited == {False, True}
    world.apply(service("web"), rec.Desired.REMOVED)
    world.run(10)
    assert world.hosts[world.leads() or "a"].leader.offered is None


def test_the_deaths_of_hosts_delay_nothing_until_three_in_a_row(world: SmallWorld) -> None:
    for name in ("d", "e", "f", "g"):
        world.boot(host(name))
    world.run(2)
    world.apply(service("web"))
    world.run(3)
    for _ in range(2):
        world.off |= set(world.runs_on("web"))
        world.run(12)
        assert len(world.runs_on("web")) == 1
    world.off |= set(world.runs_on("web"))
    world.run(12)
    assert world.runs_on("web") == []
    [told] = [event for event in world.happened if event.kind == "workload.suspected"]
    assert "3 hosts in a row died" in told.text
    world.boot(host("h"))
    world.run(5)
    assert world.runs_on("web") == [], "more room is no reason to kill another host"
    world.run(125)
    assert len(world.runs_on("web")) == 1


def test_who_ran_for_long_is_not_suspected_for_the_end_of_its_host(world: SmallWorld) -> None:
    world.store.put(rec.POLICIES, rec.encode(Policies(host_deaths=2, host_deaths_minutes=0.2)))
    for name in ("d", "e"):
        world.boot(host(name))
    world.apply(service("web"))
    world.run(3)
    for _ in range(3):
        world.off |= set(world.runs_on("web"))
        world.run(30)
        assert len(world.runs_on("web")) == 1
        assert world.placement("web").host_deaths == 0
    assert "workload.suspected" not in world.kinds()


def test_only_so_many_start_on_a_host_at_once_and_the_most_important_first() -> None:
    world = SmallWorld("a")
    world.store.put(rec.POLICIES, rec.encode(Policies(restarts_per_host=2)))
    world.run(2)
    slow: list[ModuleChanged] = []

    def hold(name: str, command: Command) -> bool:
        if isinstance(command, Prepare):
            slow.append(
                ModuleChanged(0, command.workload.name, command.generation, "main", ModuleStatus.RUNNING, "as told")
            )
            return True
        return False

    world.swallow = hold
    applied = [service(f"w{number}", priority=number) for number in range(5)]
    writes = tuple(Put(rec.WORKLOADS + each.name, rec.encode(rec.WorkloadRecord(each))) for each in applied)
    world.store.transact(Transaction((), writes))
    world.run(3)
    assert sorted(each.workload for each in slow) == ["w3", "w4"]
    assert world.kinds().count("placement.queued") == 3
    first = next(each for each in slow if each.workload == "w4")
    world.hosts["a"].waiting.append(Prepared(world.now, "w4", first.generation))
    world.run(3)
    assert sorted(each.workload for each in slow) == ["w2", "w3", "w4"]
    world.boot(host("b"))
    world.run(3)
    assert sorted(each.workload for each in slow) == ["w0", "w1", "w2", "w3", "w4"]


def deafen(world: SmallWorld, name: str) -> None:
    """From now on nothing of the store's changes reaches the host."""
    world.hosts[name].seen = 10**9


def test_a_host_that_begins_nothing_is_given_up_once_that_is_certain() -> None:
    world = SmallWorld("a", "b")
    world.store.put(rec.POLICIES, rec.encode(Policies(begin_within_s=10)))
    world.run(2)
    deaf = world.other_than(str(world.leads()))
    deafen(world, deaf)
    world.apply(service("web", placement=PlacementRules(prefer_sites=("here",), hosts=(deaf, str(world.leads())))))
    world.ask(rec.OperationRecord("m", rec.OperationKind.MIGRATE, "web", deaf))
    world.run(8)
    if world.placement("web").host != deaf:
        pytest.fail("it was to be placed on the deaf host")
    world.run(10)
    assert "placement.ignored" in world.kinds()
    assert world.placement("web").order is rec.Order.STOP
    assert world.placement("web").host == deaf, "nothing is proven yet"
    world.run(25)
    assert world.runs_on("web") == [world.leads()]
    assert "claim.revoked" in world.kinds()


def test_a_deaf_host_that_runs_something_else_keeps_it_and_a_person_is_told() -> None:
    world = SmallWorld("a", "b")
    world.store.put(rec.POLICIES, rec.encode(Policies(begin_within_s=10)))
    world.run(2)
    deaf = world.other_than(str(world.leads()))
    world.apply(service("old", placement=PlacementRules(hosts=(deaf,))))
    world.run(3)
    deafen(world, deaf)
    world.apply(service("web", placement=PlacementRules(hosts=(deaf,))))
    world.run(40)
    assert "claim.revoked" not in world.kinds()
    [told] = [event for event in world.happened if event.kind == "placement.stuck"]
    assert "outlive failover web" in told.text
    assert world.runs_on("old") == [deaf]


def test_a_leader_that_sees_nothing_of_the_store_leaves_the_office() -> None:
    world = SmallWorld("a", "b", "c")
    world.run(2)
    leader = str(world.leads())
    deafen(world, leader)
    world.run(9)
    assert world.leads() not in (None, leader)
    assert "leader.resigned" in world.kinds()
