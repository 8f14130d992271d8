"""The two machines in conversation, in a world where nothing is slow and only what the test says goes wrong."""

from dataclasses import replace

import pytest

from outlive.cluster import records as rec
from outlive.cluster.commands import Act, KeepAlive, Prepare, TearDown, Transact
from outlive.cluster.events import GuardFired, GuardLost, ModuleChanged, PrepareFailed, SelfIsolated, Tick
from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.host import Capacity
from outlive.cluster.policies import Policies
from outlive.cluster.workload import Module, OnIsolation, PlacementRules, RestorePolicy, Workload

from .small_world import SmallWorld, host, service


@pytest.fixture
def world() -> SmallWorld:
    """Three hosts that have found a leader."""
    three = SmallWorld("a", "b", "c")
    three.run(2)
    return three


def placed(world: SmallWorld, workload: Workload | None = None) -> str:
    """Apply a workload and return the host that runs it."""
    workload = workload or service("web")
    world.apply(workload)
    world.run(2)
    [where] = world.runs_on(workload.name)
    return where


def fail(world: SmallWorld, name: str, module: str = "main", workload: str = "web") -> None:
    generation = world.placement(workload).generation
    world.tell(name, ModuleChanged(world.now, workload, generation, module, ModuleStatus.FAILED, "exit code 1"))


def test_one_host_leads_and_all_hold_claims(world: SmallWorld) -> None:
    assert world.leads() in {"a", "b", "c"}
    assert all(rec.CLAIMS + name in world.store.keys for name in world.hosts)


def test_an_applied_workload_runs_on_one_host_with_its_cause_on_record(world: SmallWorld) -> None:
    where = placed(world)
    assert world.placement("web").host == where
    chain = {event.id: event for event in world.happened}
    event = next(event for event in world.happened if event.kind == "module.running")
    kinds = [event.kind]
    while event.because in chain:
        event = chain[event.because]
        kinds.append(event.kind)
    assert kinds == ["module.running", "workload.prepared", "workload.placed"]
    assert event.because == "op"


def test_modules_start_in_the_order_of_after(world: SmallWorld) -> None:
    modules = (Module("front", ("x",), after=("base",)), Module("base", ("x",)))
    placed(world, service("web", *modules))
    started = [event.module for event in world.happened if event.kind == "module.running"]
    assert started == ["base", "front"]


def test_a_dead_hosts_workload_is_started_elsewhere_only_after_its_claim_has_surely_ended(world: SmallWorld) -> None:
    where = placed(world)
    if world.leads() == where:
        world.ask(rec.OperationRecord("o", rec.OperationKind.MIGRATE, "web"))
        world.run(2)
        [where] = world.runs_on("web")
    cut_at = world.now
    world.off.add(where)
    world.run(world.timing.claim_ttl_s - 0.6)
    assert world.placement("web").host == where
    world.run(2)
    [elsewhere] = world.runs_on("web")
    assert elsewhere != where
    started = next(event for event in world.happened if event.kind == "failover.started")
    assert world.timing.claim_ttl_s - world.timing.renew_s < started.at_s - cut_at < 5.0
    dead = next(event for event in world.happened if event.kind == "verdict.dead")
    assert dead.host == where
    assert "lease expired" in dead.text


def test_leader_and_primary_dying_together_are_both_replaced(world: SmallWorld) -> None:
    where = placed(world)
    leader = world.leads()
    if leader != where:
        world.ask(rec.OperationRecord("o", rec.OperationKind.MIGRATE, "web", target=leader))
        world.run(2)
    world.off.add(str(leader))
    world.run(8)
    assert world.leads() not in (None, leader)
    [elsewhere] = world.runs_on("web")
    assert elsewhere != leader


def test_a_failed_module_is_restored_in_place_and_verified_by_heartbeats(world: SmallWorld) -> None:
    where = placed(world)
    generation = world.placement("web").generation
    fail(world, where)
    world.run(1)
    assert world.runs_on("web") == [where]
    assert world.placement("web").generation == generation
    assert world.placement("web").restores == {"main": 1}
    assert [kind for kind in world.kinds() if "restore" in kind] == ["restore.ordered", "module.restored"]


def test_past_the_threshold_a_failing_module_moves_its_workload_to_another_host(world: SmallWorld) -> None:
    where = placed(world)
    world.failing.add((where, "main"))
    fail(world, where)
    world.run(10)
    [elsewhere] = world.runs_on("web")
    assert elsewhere != where
    assert world.kinds().count("restore.ordered") == RestorePolicy().attempts
    assert world.kinds().count("restore.given_up") == 1


def test_with_no_host_left_it_is_failed_and_tried_again_when_the_avoided_hosts_may_be_tried(world: SmallWorld) -> None:
    placed(world)
    world.failing = {(name, "main") for name in world.hosts}
    fail(world, world.runs_on("web")[0])
    world.run(60)
    assert world.runs_on("web") == []
    assert world.placement("web").host is None
    assert "workload.failed" in world.kinds()
    world.failing.clear()
    world.run(Policies().retry_after_s(len(world.hosts)))
    assert len(world.runs_on("web")) == 1


def test_a_host_that_cannot_prepare_is_passed_over(world: SmallWorld) -> None:
    refused: list[str] = []

    def refuse(name: str, command: object) -> bool:
        if isinstance(command, Prepare) and not refused:
            refused.append(name)
            world.hosts[name].waiting.append(
                PrepareFailed(world.now, "web", command.generation, "lock", "held by another")
            )
            return True
        return False

    world.swallow = refuse
    world.apply(service("web"))
    world.run(4)
    assert world.runs_on("web") == [world.placement("web").host]
    assert world.runs_on("web") != refused
    assert "workload.refused" in world.kinds()


def test_nothing_is_placed_without_capacity_and_it_is_when_capacity_comes(world: SmallWorld) -> None:
    world.apply(service("web", resources=Capacity(16, 1024)))
    world.run(3)
    assert world.runs_on("web") == []
    assert "workload.waiting" in world.kinds()
    world.boot(host("d", capacity=Capacity(32, 65536)))
    world.run(3)
    assert world.runs_on("web") == ["d"]


def test_rules_of_site_label_and_host_are_kept() -> None:
    world = SmallWorld("a", "b")
    world.boot(host("c", site="there", labels={"disk": "fast"}))
    world.run(2)
    assert placed(world, service("web", placement=PlacementRules(sites=("there",)))) == "c"
    assert placed(world, service("db", placement=PlacementRules(labels={"disk": "fast"}))) == "c"
    assert placed(world, service("app", placement=PlacementRules(hosts=("b",)))) == "b"


def test_an_isolated_host_stops_and_its_workload_goes_where_clients_are(world: SmallWorld) -> None:
    where = placed(world)
    world.cut.add(where)
    world.run(8)
    [elsewhere] = world.runs_on("web")
    assert elsewhere != where
    assert "verdict.dead" not in world.kinds()


def test_an_isolated_workload_that_is_to_be_left_running_is_never_started_twice(world: SmallWorld) -> None:
    where = placed(world, service("web", on_isolation=OnIsolation.LEAVE))
    generation = world.placement("web").generation
    world.cut.add(where)
    world.run(20)
    assert world.runs_on("web") == [where]
    assert world.placement("web").generation == generation


def on_isolation(world: SmallWorld, response: OnIsolation) -> None:
    world.store.put(rec.POLICIES, rec.encode(Policies(on_isolation=response)))
    world.run(0.5)


def test_what_an_isolated_host_does_is_the_clusters_to_say_where_no_file_does(world: SmallWorld) -> None:
    on_isolation(world, OnIsolation.LEAVE)
    where = placed(world)
    world.cut.add(where)
    world.run(10)
    assert world.runs_on("web") == [where]
    on_isolation(world, OnIsolation.STOP)
    world.run(10)
    [elsewhere] = world.runs_on("web")
    assert elsewhere != where


def test_a_workloads_own_word_on_isolation_goes_before_the_clusters(world: SmallWorld) -> None:
    on_isolation(world, OnIsolation.LEAVE)
    where = placed(world, service("web", on_isolation=OnIsolation.STOP))
    world.cut.add(where)
    world.run(10)
    assert world.runs_on("web") not in ([], [where])


def test_the_leader_cut_off_from_all_resigns_and_another_leads(world: SmallWorld) -> None:
    leader = world.leads()
    world.cut.add(str(leader))
    world.run(5)
    assert world.leads() not in (None, leader)
    assert "leader.resigned" in world.kinds()


def test_of_two_hosts_the_leader_stays_when_they_lose_each_other() -> None:
    world = SmallWorld("a", "b")
    world.run(2)
    leader = world.leads()
    world.cut.add("a")
    world.run(8)
    assert world.leads() == leader
    isolated = [event.host for event in world.happened if event.kind == "host.isolated"]
    assert isolated == [world.other_than(leader)]


def test_a_host_that_cannot_renew_gives_up_before_its_deadline_and_comes_back_with_a_new_claim(
    world: SmallWorld,
) -> None:
    where = placed(world)
    incarnation = world.hosts[where].node.session.incarnation

    def unreachable(name: str, command: object) -> bool:
        return name == where and isinstance(command, Transact | KeepAlive)

    world.swallow = unreachable
    world.run(world.timing.claim_ttl_s)
    assert where not in world.runs_on("web")
    stopped = next(event for event in world.happened if event.kind == "claim.lost")
    assert stopped.at_s < world.hosts[where].node.session.deadline_at
    world.swallow = lambda name, command: False
    world.run(6)
    assert len(world.runs_on("web")) == 1
    assert world.hosts[where].node.session.incarnation > incarnation
    assert world.placement("web").generation > 1


def test_what_the_guard_stopped_is_begun_anew_at_a_new_generation(world: SmallWorld) -> None:
    where = placed(world)
    world.tell(where, GuardFired(world.now, "web", world.first("web")))
    world.run(3)
    assert len(world.runs_on("web")) == 1
    assert world.placement("web").generation == world.first("web") + 1


def test_a_host_without_a_guard_does_not_act(world: SmallWorld) -> None:
    where = placed(world)
    world.tell(where, GuardLost(world.now))
    world.run(8)
    assert where not in world.runs_on("web")
    assert len(world.runs_on("web")) == 1


def test_migrate_stops_here_then_starts_there_and_the_operation_ends(world: SmallWorld) -> None:
    where = placed(world)
    target = world.other_than(where)
    world.ask(rec.OperationRecord("o", rec.OperationKind.MIGRATE, "web", target=target))
    world.run(2)
    assert world.runs_on("web") == [target]
    assert world.operation("o").state is rec.OperationState.DONE
    assert world.placement("web").generation == world.first("web") + 1


@pytest.mark.parametrize(
    ("target", "reason"),
    [("same", "already"), ("nowhere", "no host nowhere")],
)
def test_an_impossible_migration_is_refused_before_anything_is_changed(
    world: SmallWorld, target: str, reason: str
) -> None:
    where = placed(world)
    target = where if target == "same" else target
    world.ask(rec.OperationRecord("o", rec.OperationKind.MIGRATE, "web", target=target))
    world.run(2)
    assert world.operation("o").state is rec.OperationState.REFUSED
    assert reason in world.operation("o").reason
    assert world.placement("web").generation == world.first("web")


def test_a_forced_failover_of_a_host_that_does_not_stop_ends_its_claim_first(world: SmallWorld) -> None:
    where = placed(world)
    world.swallow = lambda name, command: name == where and isinstance(command, TearDown)
    world.ask(rec.OperationRecord("o", rec.OperationKind.FAILOVER, "web"))
    world.run(6)
    assert "claim.revoked" in world.kinds()
    assert world.placement("web").host == where
    world.off.add(where)
    world.run(10)
    [elsewhere] = world.runs_on("web")
    assert elsewhere != where
    assert world.operation("o").state is rec.OperationState.DONE


def test_stop_start_and_remove(world: SmallWorld) -> None:
    placed(world)
    world.apply(service("web"), rec.Desired.STOPPED)
    world.run(2)
    assert world.runs_on("web") == []
    world.apply(service("web"))
    world.run(2)
    assert len(world.runs_on("web")) == 1
    generation = world.placement("web").generation
    world.apply(service("web"), rec.Desired.REMOVED)
    world.run(2)
    assert world.runs_on("web") == []
    assert rec.WORKLOADS + "web" not in world.store.keys
    assert rec.REPORTS + "web" not in world.store.keys
    placed(world)
    assert world.placement("web").generation > generation


def test_a_changed_file_restarts_the_workload_where_it_is(world: SmallWorld) -> None:
    where = placed(world)
    changed = service("web", Module("main", ("/bin/false",)))
    world.apply(changed, version=2)
    world.run(2)
    assert world.runs_on("web") == [where]
    assert world.placement("web").version == 2
    assert world.hosts[where].node.reigns["web"].workload == changed


@pytest.mark.parametrize("value", [b"{", b'{"workload":"web","generation":-1,"host":"b"}', b"\xff\xfe", b"[]"])
def test_a_placement_garbled_by_hand_is_healed_and_nothing_stops(world: SmallWorld, value: bytes) -> None:
    where = placed(world)
    before = world.placement("web")
    world.store.put(rec.PLACEMENTS + "web", value)
    world.run(2)
    assert world.placement("web") == before
    assert world.runs_on("web") == [where]
    assert "record.healed" in world.kinds()


def test_a_placement_removed_by_hand_comes_back_as_it_was(world: SmallWorld) -> None:
    where = placed(world)
    before = world.placement("web")
    world.store.delete(rec.PLACEMENTS + "web")
    world.run(2)
    assert world.placement("web") == before
    assert world.runs_on("web") == [where]


def test_an_older_generation_written_by_hand_is_not_acted_on(world: SmallWorld) -> None:
    where = placed(world)
    fail(world, where)
    world.apply(service("web", Module("main", ("other",))), version=2)
    world.run(3)
    now = world.placement("web")
    assert now.generation == world.first("web") + 1
    held = world.hosts[where].node.reigns["web"]
    world.store.put(rec.PLACEMENTS + "web", rec.encode(replace(now, generation=world.first("web"))))
    world.run(0.3)
    assert all(each.node.acted.get("web") != world.first("web") or name != where for name, each in world.hosts.items())
    assert held.generation == now.generation


def test_a_crash_of_the_leader_between_two_decisions_loses_nothing(world: SmallWorld) -> None:
    where = placed(world)
    leader = str(world.leads())
    target = world.other_than(where, leader) if where != leader else world.other_than(where)
    world.ask(rec.OperationRecord("o", rec.OperationKind.MIGRATE, "web", target=target))

    def silent(name: str, command: object) -> bool:
        return name == leader and isinstance(command, Transact) and command.purpose.act is Act.PLACE

    world.run(0.1)
    world.swallow = silent
    world.run(0.5)
    world.off.add(leader)
    world.swallow = lambda name, command: False
    world.run(12)
    assert len(world.runs_on("web")) == 1
    assert world.operation("o").state in rec.ENDED


def test_a_late_observer_listens_anew_before_it_accuses(world: SmallWorld) -> None:
    leader = str(world.leads())
    before = len(world.happened)
    world.now += 30
    world.store.leases = {lease: (world.now + ttl_s, ttl_s) for lease, (_, ttl_s) in world.store.leases.items()}
    world.tell(leader, Tick(world.now, 0.1, 0))
    assert not [kind for kind in world.kinds(before) if kind.startswith("verdict.")]
    assert "observer.lagged" in world.kinds(before)


def test_machines_ignore_events_that_are_not_theirs(world: SmallWorld) -> None:
    world.tell("a", SelfIsolated(world.now, False))
    world.tell("a", PrepareFailed(world.now, "unknown", 7, "lock", "held"))
    world.tell("a", GuardFired(world.now, "unknown", 7))
    world.run(1)
    assert world.leads() is not None
