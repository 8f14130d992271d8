"""What `outlive status` ends with: one verdict, its reason and what to do, from the picture of the store alone."""

from dataclasses import replace

import pytest

from outlive.cluster import outlook
from outlive.cluster import records as rec
from outlive.cluster.commands import Pair
from outlive.cluster.host import Capacity
from outlive.cluster.mirror import Mirror
from outlive.cluster.outlook import Outlook, Standing, WorkloadOutlook
from outlive.cluster.workload import Apart, PlacementRules

from .small_world import SmallWorld, host, machine, service


@pytest.fixture
def world() -> SmallWorld:
    """Three hosts that have found a leader."""
    three = SmallWorld("a", "b", "c")
    three.run(2)
    return three


def picture(world: SmallWorld) -> Mirror:
    """The store as a host that is on sees it."""
    name = next(name for name in world.hosts if name not in world.off)
    world.settle(name)
    return world.hosts[name].mirror


def look(world: SmallWorld, *, store_reachable: bool = True) -> Outlook:
    return outlook.look(picture(world), store_reachable=store_reachable, at=world.now)


def web(world: SmallWorld) -> WorkloadOutlook:
    [found] = look(world).workloads
    return found


def test_without_workloads_there_is_nothing_to_protect_and_the_next_step_is_named(world: SmallWorld) -> None:
    found = look(world)
    assert (found.standing, found.workloads) == (Standing.PROTECTED, ())
    assert found.sentence == "Nothing to protect yet. Do: `outlive run` or `outlive apply FILE`."
    assert found.failures_absorbed == 2
    assert found.leader == world.leads()
    assert [each.name for each in found.hosts if each.leads] == [found.leader]
    assert all(each.verdict == "alive" and each.claim for each in found.hosts)


def test_a_workload_that_runs_and_could_go_on_elsewhere_is_protected(world: SmallWorld) -> None:
    world.apply(service("web"))
    world.run(3)
    found, [where] = look(world), world.runs_on("web")
    [each] = found.workloads
    assert (each.state, each.host, each.standing, each.reason) == ("running", where, Standing.PROTECTED, "")
    assert set(each.could_go_to) == {"a", "b", "c"} - {where}
    assert found.sentence == "Protected."
    assert found.failures_absorbed == 2
    assert [host.workloads for host in found.hosts if host.name == where] == [("web",)]


@pytest.mark.parametrize(
    "rules",
    [PlacementRules(hosts=("a",)), PlacementRules(labels={"disk": "ssd"}), PlacementRules(sites=("there",))],
    ids=["named", "label", "site"],
)
def test_a_workload_that_only_one_host_may_have_is_at_risk_while_it_runs(rules: PlacementRules) -> None:
    world = SmallWorld("b", "c")
    world.boot(host("a", site="there", labels={"disk": "ssd"}))
    world.run(2)
    world.apply(service("web", placement=rules))
    world.run(3)
    found = look(world)
    assert world.runs_on("web") == ["a"]
    assert found.standing is Standing.AT_RISK
    assert found.failures_absorbed == 0
    assert found.sentence == (
        "At risk: web: no other host could take it over if a died. Do: add a host that meets its rules and has room."
    )


def test_the_only_host_of_a_cluster_protects_nothing_from_its_own_death() -> None:
    world = SmallWorld("a")
    world.run(2)
    world.apply(service("web"))
    world.run(3)
    assert (web(world).state, web(world).standing, web(world).could_go_to) == ("running", Standing.AT_RISK, ())


def test_room_that_others_use_is_no_room_to_go_to() -> None:
    world = SmallWorld()
    for name in ("a", "b"):
        world.boot(host(name, capacity=Capacity(2, 1024)))
    world.run(2)
    for name in ("one", "two"):
        world.apply(service(name, resources=Capacity(1.5, 100)))
        world.run(2)
    assert {each.host for each in look(world).workloads} == {"a", "b"}
    assert all(each.could_go_to == () and each.standing is Standing.AT_RISK for each in look(world).workloads)
    assert look(world).failures_absorbed == 0


def test_a_workload_that_cannot_be_placed_says_why_each_host_is_passed_over(world: SmallWorld) -> None:
    world.apply(service("web", placement=PlacementRules(labels={"disk": "ssd"})))
    world.run(2)
    each = web(world)
    assert (each.host, each.standing) == (None, Standing.AT_RISK)
    assert each.state == "waiting"
    assert each.remedy == "add a host that can have it, or lessen what it asks for"


def test_what_was_stopped_on_purpose_is_not_at_risk(world: SmallWorld) -> None:
    world.apply(service("web"))
    world.run(3)
    world.apply(service("web"), rec.Desired.STOPPED)
    assert web(world).standing is Standing.STOPPED
    world.run(3)
    each = web(world)
    assert (each.state, each.host, each.standing) == ("stopped", None, Standing.STOPPED)
    assert look(world).sentence == "Protected."


def test_a_dead_host_is_named_and_what_ran_there_is_failing_over(world: SmallWorld) -> None:
    world.apply(service("web"))
    world.run(3)
    if world.leads() in world.runs_on("web"):
        world.ask(rec.OperationRecord("o", rec.OperationKind.MIGRATE, "web"))
        world.run(3)
    [where] = world.runs_on("web")
    world.off.add(where)
    states = []
    for _ in range(60):
        world.run(0.1)
        states.append((web(world).state, web(world).standing))
    assert (f"running, {where} suspect", Standing.AT_RISK) in states
    assert states[-1] == ("running", Standing.PROTECTED)
    assert web(world).host != where
    found = look(world)
    assert found.sentence == f"At risk: host {where} is dead. Do: look after {where}."
    assert {host.name: host.verdict for host in found.hosts}[where] == "dead"
    assert {host.name: host.evidence for host in found.hosts}[where]["lease"] == "expired"


def test_no_leader_is_at_risk_and_will_pass(world: SmallWorld) -> None:
    found = outlook.look(replace(picture(world), leader=None), store_reachable=True, at=world.now)
    assert (found.leader, found.standing) == (None, Standing.AT_RISK)
    assert found.sentence == "At risk: the cluster has no leader at present. Do: wait a few seconds, look again."


def test_a_leader_that_falls_silent_is_told_before_its_claim_has_ended(world: SmallWorld) -> None:
    leader = world.leads()
    assert leader is not None
    world.off.add(leader)
    world.run(world.timing.dead_s - 1.0)
    assert look(world).standing is Standing.PROTECTED
    world.run(1.8)
    found = look(world)
    assert (found.leader, found.standing) == (leader, Standing.AT_RISK)
    assert found.sentence.startswith(f"At risk: the leader {leader} has been silent for ")


def test_a_record_that_cannot_be_read_is_named_before_everything_else(world: SmallWorld) -> None:
    world.apply(service("web"))
    world.run(3)
    world.store.put(rec.HOSTS + "b", b"{")
    found = look(world)
    assert set(found.bad_records) == {"hosts/b"}
    assert found.standing is Standing.AT_RISK
    assert found.sentence.startswith("At risk: the record hosts/b cannot be read (")


def test_with_an_unreachable_store_everything_is_unknown_and_nothing_is_called_protected(world: SmallWorld) -> None:
    world.apply(service("web"))
    world.run(3)
    found = look(world, store_reachable=False)
    assert found.standing is Standing.UNKNOWN
    assert found.sentence == "Unknown: the store does not answer. Do: look at `outlive doctor` on this host."
    assert {each.standing for each in found.workloads} == {Standing.UNKNOWN}
    assert {each.verdict for each in found.hosts} == {"unknown"}


def test_an_empty_store_can_be_looked_at() -> None:
    found = outlook.look(Mirror(), store_reachable=True, at=0.0)
    assert (found.cluster, found.leader, found.hosts, found.workloads) == ("", None, (), ())
    assert found.standing is Standing.AT_RISK


def test_looking_changes_nothing_and_says_the_same_on_every_host(world: SmallWorld) -> None:
    world.apply(service("web"))
    world.run(3)
    pictures = []
    for name, each in world.hosts.items():
        world.settle(name)
        pictures.append(replace(each.mirror, began_at=0.0))
    assert len({outlook.look(each, store_reachable=True, at=world.now).sentence for each in pictures}) == 1


def hot(*names: str, **changes: object) -> SmallWorld:
    world = SmallWorld(*names)
    world.run(2)
    world.apply(machine("vm", **changes))  # type: ignore[arg-type]
    world.run(3)
    return world


def test_a_hot_machine_is_protected_by_the_standby_that_follows() -> None:
    world = hot("a", "b", "c")
    found = look(world)
    standby = world.placement("vm").standby
    assert found.sentence == f"Protected: a standby follows on {standby}."
    [vm] = found.workloads
    assert (vm.standing, vm.could_go_to) == (Standing.PROTECTED, (standby,))


def test_a_hot_machine_that_nobody_can_follow_is_at_risk_and_says_why() -> None:
    world = hot("a", "b", placement=PlacementRules(apart=Apart.SITE))
    where = str(world.placement("vm").host)
    other = world.other_than(where)
    assert look(world).sentence == (
        f"At risk: vm: unprotected, no host can be its standby: {where}: it runs there; "
        f"{other}: it is in the same site here. Do: add a host that meets its rules and has room."
        if where < other
        else f"At risk: vm: unprotected, no host can be its standby: {other}: it is in the same site here; "
        f"{where}: it runs there. Do: add a host that meets its rules and has room."
    )


def test_a_hot_machine_is_at_risk_while_its_standby_is_seeded() -> None:
    world = SmallWorld("a", "b")
    world.run(2)
    world.swallow = lambda name, command: isinstance(command, Pair)
    world.apply(machine("vm"))
    world.run(3)
    standby = world.placement("vm").standby
    assert look(world).sentence.startswith(
        f"At risk: vm: unprotected until its standby on {standby} holds a whole copy"
    )


def test_a_hot_machine_whose_standby_fell_silent_is_at_risk() -> None:
    world = hot("a", "b", "c")
    leader, placed = str(world.leads()), world.placement("vm")
    if placed.standby == leader:
        world = hot("b", "a", "c")
        placed = world.placement("vm")
    world.off.add(str(placed.standby))
    world.run(2.5)
    assert "its standby may not be able to take over: " in look(world).sentence
