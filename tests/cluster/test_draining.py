"""A host in maintenance is emptied in order, a little at a time, whatever happens meanwhile, and stays empty."""

from dataclasses import replace

import pytest
from immutables import Map
from msgspec.structs import replace as replace_state

from outlive.cluster import leader, mirror
from outlive.cluster import records as rec
from outlive.cluster.commands import Transact
from outlive.cluster.draining import ASKED_AT_ONCE
from outlive.cluster.emptying import plan
from outlive.cluster.events import StoreMoved, Tick
from outlive.cluster.host import Capacity
from outlive.cluster.policies import Policies
from outlive.cluster.transaction import KeyValue
from outlive.cluster.workload import PlacementRules, Protection

from .small_world import SmallWorld, host, machine, service


def wish(world: SmallWorld, name: str, **changes: object) -> None:
    record = rec.MaintenanceRecord(name, because="op")
    world.store.put(rec.MAINTENANCE + name, rec.encode(replace(record, **changes)))  # type: ignore[arg-type]


def record(world: SmallWorld, name: str) -> rec.MaintenanceRecord | None:
    value = world.store.keys.get(rec.MAINTENANCE + name)
    found = rec.decode(value.key, value.value) if value is not None else None
    assert found is None or isinstance(found, rec.MaintenanceRecord)
    return found


@pytest.fixture
def world() -> SmallWorld:
    three = SmallWorld("a", "b", "c")
    three.run(2)
    return three


def on(world: SmallWorld, *names: str, where: str = "b", **changes: object) -> None:
    """Have services run on one host, though all may have them."""
    for name in names:
        world.apply(service(name, placement=PlacementRules(hosts=(where,)), **changes))
    world.run(3)
    for name in names:
        assert world.runs_on(name) == [where]
        world.apply(service(name, **changes))
    world.run(0.2)


def spread(world: SmallWorld, name: str) -> str | None:
    return world.placement(name).host


def test_services_move_and_nothing_comes_back_until_it_is_over(world: SmallWorld) -> None:
    on(world, "one", "two")
    wish(world, "b", had=("one", "two"))
    world.run(10)
    assert "b" not in (spread(world, "one"), spread(world, "two"))
    assert all(len(world.runs_on(name)) == 1 for name in ("one", "two"))
    wished = record(world, "b")
    assert wished is not None
    assert wished.empty
    assert world.kinds().count("host.emptied") == 1
    world.apply(service("three", placement=PlacementRules(hosts=("b",))))
    world.run(3)
    assert world.runs_on("three") == []
    world.store.delete(rec.MAINTENANCE + "b")
    world.run(3)
    assert world.runs_on("three") == ["b"]
    assert "b" not in (spread(world, "one"), spread(world, "two"))


def test_what_was_there_comes_back_when_that_is_wished(world: SmallWorld) -> None:
    on(world, "one", "two")
    wish(world, "b", had=("one", "two"))
    world.run(10)
    wished = record(world, "b")
    assert wished is not None
    wish(world, "b", phase=rec.MaintenancePhase.RETURNING, had=wished.had)
    world.run(10)
    assert (world.runs_on("one"), world.runs_on("two")) == (["b"], ["b"])
    assert record(world, "b") is None


def test_only_so_many_leave_at_once_and_the_most_important_first(world: SmallWorld) -> None:
    world.store.put(rec.POLICIES, rec.encode(Policies(moves_per_host=1)))
    on(world, "low", priority=10)
    on(world, "high", priority=200)
    wish(world, "b")
    world.run(15)
    moved = [event.workload for event in world.happened if event.kind == "migrate.started"]
    ended = [event.workload for event in world.happened if event.kind == "migrate.done"]
    assert moved == ended == ["high", "low"]


def test_what_no_other_host_can_have_stays_and_is_told_and_leaves_once_one_can(world: SmallWorld) -> None:
    world.boot(host("d", capacity=Capacity(64, 65536)))
    world.run(2)
    world.apply(service("big", resources=Capacity(32, 1024)))
    world.run(3)
    assert world.runs_on("big") == ["d"]
    [leaving] = plan(world.hosts["a"].mirror, "d")
    assert (leaving.workload, leaving.to) == ("big", None)
    assert "too little capacity" in leaving.reason
    wish(world, "d")
    world.run(5)
    assert world.runs_on("big") == ["d"]
    assert world.kinds().count("maintenance.waiting") == 1
    world.boot(host("e", capacity=Capacity(64, 65536)))
    world.run(10)
    assert world.runs_on("big") == ["e"]


def test_what_can_go_nowhere_is_asked_about_less_and_less_often(world: SmallWorld) -> None:
    world.boot(host("d", capacity=Capacity(64, 65536)))
    world.run(2)
    world.apply(service("big", resources=Capacity(32, 1024)))
    world.run(3)
    wish(world, "d")
    world.run(1)
    for _ in range(30):  # others' news are no reason to ask again
        world.apply(service("other"))
        world.run(1)
    course = world.hosts[str(world.leads())].leader.courses["big"]
    assert 5 <= course.stayed <= 8
    assert world.runs_on("big") == ["d"]


def test_however_often_the_store_moves_hosts_are_looked_at_once_a_tick(world: SmallWorld) -> None:
    on(world, "one")
    leads = world.hosts[str(world.leads())]
    key = rec.MAINTENANCE + "b"
    noted = rec.encode(rec.MaintenanceRecord("b", because="op"))
    news = mirror.changed(leads.mirror, 10**6, [KeyValue(key, noted, 1, 10**6)], world.now)
    state, commands = leader.step(leads.leader, StoreMoved(world.now, news, frozenset({key})))
    assert (state.drains_due, commands) == (True, ())
    state, commands = leader.step(state, Tick(world.now + 0.1, 0.1, 0))
    assert [each.purpose.subject.startswith(rec.OPERATIONS) for each in commands if isinstance(each, Transact)] == [
        True
    ]
    assert not state.drains_due


def test_all_that_must_wait_for_the_next_turn_has_its_turn(world: SmallWorld) -> None:
    names = [f"w{number}" for number in range(3 * ASKED_AT_ONCE)]
    world.store.put(rec.POLICIES, rec.encode(Policies(moves_per_host=100)))
    on(world, *names, resources=Capacity(0.01, 1))
    leads = world.hosts[str(world.leads())]
    supposed = Map({"b": mirror.Entry(rec.MaintenanceRecord("b"), 1, 1)})
    picture = replace(leads.mirror, maintenance=supposed)
    state, at = replace_state(leads.leader, mirror=picture, drains_due=True), world.now
    for turn in (1, 2, 3):
        at += 0.1
        state, commands = leader.step(state, Tick(at, 0.1, 0))
        written = [each.purpose.subject for each in commands if isinstance(each, Transact)]
        assert sum(key.startswith(rec.OPERATIONS) for key in written) == ASKED_AT_ONCE, f"in turn {turn}"
    wish(world, "b")
    world.run(10)
    assert "b" not in [spread(world, name) for name in names]


def test_what_is_foretold_minds_the_company_of_those_that_leave_too(world: SmallWorld) -> None:
    together = PlacementRules(together_with=("anchor",))
    on(world, "anchor")
    world.apply(service("mate", priority=200, placement=together))
    world.run(3)
    assert world.runs_on("mate") == ["b"]
    foretold = {each.workload: each.to for each in plan(world.hosts["a"].mirror, "b")}
    assert foretold["mate"] == foretold["anchor"]
    assert foretold["anchor"] in ("a", "c")
    on(world, "one", "two")
    for name, other in (("one", "two"), ("two", "one")):
        world.apply(service(name, placement=PlacementRules(apart_from=(other,))))
    world.run(0.2)
    foretold = {each.workload: each.to for each in plan(world.hosts["a"].mirror, "b")}
    assert {foretold["one"], foretold["two"]} == {"a", "c"}


def test_a_standby_is_foretold_apart_from_what_it_may_not_follow_beside(world: SmallWorld) -> None:
    world.apply(machine("vm"))
    world.run(4)
    placed = world.placement("vm")
    primary, standby = str(placed.host), str(placed.standby)
    other = world.other_than(primary, standby)
    world.apply(service("loner", placement=PlacementRules(hosts=(other,), apart_from=("vm",))))
    world.run(3)
    assert world.runs_on("loner") == [other]
    [leaving] = [each for each in plan(world.hosts["a"].mirror, standby) if each.how == "standby"]
    assert leaving.to is None
    assert "apart" in leaving.reason


def test_by_force_it_is_stopped_and_started_again_when_the_host_may_have_it(world: SmallWorld) -> None:
    on(world, "only", where="b")
    world.apply(service("only", placement=PlacementRules(hosts=("b",))))
    world.run(3)
    wish(world, "b", force=True)
    world.run(5)
    assert world.runs_on("only") == []
    assert "b: it is in maintenance" in world.placement("only").reason
    world.store.delete(rec.MAINTENANCE + "b")
    world.run(3)
    assert world.runs_on("only") == ["b"]


def test_two_that_leave_are_never_promised_the_same_room() -> None:
    world = SmallWorld("b")
    world.run(2)
    for name in ("one", "two"):
        world.apply(service(name, resources=Capacity(3, 1024)))
    world.run(3)
    for name in ("a", "c"):
        world.boot(host(name, capacity=Capacity(4, 8192)))
    world.run(2)
    assert sorted(str(each.to) for each in plan(world.hosts["b"].mirror, "b")) == ["a", "c"]
    wish(world, "b")
    world.run(10)
    assert sorted([*world.runs_on("one"), *world.runs_on("two")]) == ["a", "c"]
    assert "workload.waiting" not in world.kinds()


def test_a_leader_that_dies_meanwhile_leaves_the_rest_to_the_next(world: SmallWorld) -> None:
    world.store.put(rec.POLICIES, rec.encode(Policies(moves_per_host=1)))
    leader = str(world.leads())
    emptied = world.other_than(leader)
    on(world, "one", "two", "three", where=emptied)
    wish(world, emptied)
    world.run(0.2)
    world.off.add(leader)
    world.run(30)
    assert all(len(world.runs_on(name)) == 1 for name in ("one", "two", "three"))
    assert emptied not in [spread(world, name) for name in ("one", "two", "three")]
    wished = record(world, emptied)
    assert wished is not None
    assert wished.empty


def test_a_host_that_dies_while_it_is_emptied_has_its_workloads_failed_over(world: SmallWorld) -> None:
    world.store.put(rec.POLICIES, rec.encode(Policies(moves_per_host=1)))
    leader = str(world.leads())
    emptied = world.other_than(leader)
    on(world, "one", "two", "three", where=emptied)
    wish(world, emptied)
    world.run(0.2)
    world.off.add(emptied)
    world.run(20)
    assert emptied not in [spread(world, name) for name in ("one", "two", "three")]
    assert all(len(world.runs_on(name)) == 1 for name in ("one", "two", "three"))


def test_a_hot_machine_is_handed_over_and_a_standby_is_replaced(world: SmallWorld) -> None:
    world.apply(machine("vm"))
    world.run(4)
    placed = world.placement("vm")
    assert placed.paired
    primary, standby = str(placed.host), str(placed.standby)
    wish(world, standby)
    world.run(5)
    placed = world.placement("vm")
    assert (placed.host, placed.paired) == (primary, True)
    assert placed.standby not in (primary, standby)
    world.store.delete(rec.MAINTENANCE + standby)
    wish(world, primary)
    world.run(8)
    placed = world.placement("vm")
    assert placed.took_over
    assert primary not in (placed.host, placed.standby)
    assert placed.paired


def test_a_warm_machine_moves_live(world: SmallWorld) -> None:
    world.apply(machine("vm", Protection.WARM))
    world.run(4)
    primary = str(world.placement("vm").host)
    assert [each.how for each in plan(world.hosts["a"].mirror, primary)] == ["live"]
    wish(world, primary)
    world.run(5)
    placed = world.placement("vm")
    assert placed.host != primary
    assert placed.took_over
