"""Rare turns of events that once led the machines astray, each as a short conversation."""

from collections import Counter
from dataclasses import replace

import pytest
from msgspec import structs

from outlive.cluster import node
from outlive.cluster import records as rec
from outlive.cluster.commands import Act, Command, Held, Journal, Prepare, Purpose, StartModule, TearDown, Transact
from outlive.cluster.events import (
    AgentStarted,
    GuardLost,
    GuardReady,
    LeaseGranted,
    ModuleChanged,
    Outcome,
    Prepared,
    StoreMoved,
    Tick,
    TornDown,
    Transacted,
)
from outlive.cluster.heartbeat import Flags, ModuleStatus
from outlive.cluster.host import Capacity
from outlive.cluster.mirror import Mirror, changed
from outlive.cluster.timing import Timing
from outlive.cluster.transaction import KeyValue
from outlive.cluster.workload import Module, OnIsolation, PlacementRules

from .small_world import SmallWorld, host, service


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


def test_a_registration_whose_answer_got_lost_is_taken_up_without_losing_it_first() -> None:
    world = SmallWorld("a", "b")
    lost: list[Command] = []

    def swallow(name: str, command: Command) -> bool:
        if name != "a" or lost or not isinstance(command, Transact) or command.purpose.act is not Act.REGISTER:
            return False
        lost.append(command)
        world.store.transact(command.transaction)
        world.hosts[name].waiting.append(Transacted(world.now, command.purpose, world.now, Outcome.UNKNOWN))
        return True

    world.swallow = swallow
    world.run(5)
    told = [event.kind for event in world.happened if event.by == "a" and event.kind.startswith("claim.")]
    assert lost
    assert told == ["claim.registered"]


def test_what_an_agent_finds_running_without_a_claim_is_torn_down_at_once(world: SmallWorld) -> None:
    held = Held(service("web"), 3, 17, {}, "cause")
    journal = Journal("before", 0, 0, (held,))
    alive = {"web": {"main": ModuleStatus.RUNNING}}
    state = node.start(host("d"), "b" * 32, "c" * 16, world.timing)
    picture = world.hosts["a"].mirror
    state, commands = node.step(state, AgentStarted(world.now, "run", journal, alive, world.now + 3, picture))
    assert [type(command) for command in commands if isinstance(command, TearDown)] == [TearDown]
    assert state.reigns["web"].shown("main") is ModuleStatus.RESTORING


def test_after_a_pause_nothing_is_started_on_a_claim_that_is_over(world: SmallWorld) -> None:
    world.swallow = lambda name, command: isinstance(command, Prepare)
    world.apply(service("web"))
    world.run(1)
    where = str(world.placement("web").host)
    state, generation = world.hosts[where].node, world.placement("web").generation
    later = state.session.deadline_at + 1
    state, commands = node.step(state, Prepared(later, "web", generation))
    assert not [command for command in commands if isinstance(command, StartModule)]
    assert [command for command in commands if isinstance(command, TearDown)]


def test_the_late_answer_to_a_renewal_of_an_earlier_claim_says_nothing_of_the_present_one(world: SmallWorld) -> None:
    before = world.hosts["a"].node.session
    world.store.delete("claims/a")
    world.run(2)
    after = world.hosts["a"].node.session
    assert after.incarnation > before.incarnation
    late = Transacted(world.now, Purpose(Act.RENEW, "a", before.sequence), world.now - 2, Outcome.REFUSED)
    world.tell("a", late)
    assert world.hosts["a"].node.session.incarnation == after.incarnation


def test_a_leader_that_is_cut_off_resigns_until_the_store_has_heard_it(world: SmallWorld) -> None:
    leader = str(world.leads())
    lost: list[Command] = []

    def swallow(name: str, command: Command) -> bool:
        if lost or not isinstance(command, Transact) or command.purpose.act is not Act.RESIGN:
            return False
        lost.append(command)
        world.hosts[name].waiting.append(Transacted(world.now, command.purpose, world.now, Outcome.UNKNOWN))
        return True

    world.swallow = swallow
    world.cut.add(leader)
    world.run(8)
    assert lost
    assert world.leads() not in (None, leader)
    assert world.kinds().count("leader.resigned") == 1


def test_a_migration_ends_when_its_workload_is_stopped_meanwhile(world: SmallWorld) -> None:
    world.apply(service("web"))
    world.run(2)
    [where] = world.runs_on("web")
    world.swallow = lambda name, command: name == where and isinstance(command, TearDown)
    world.ask(rec.OperationRecord("o", rec.OperationKind.MIGRATE, "web"))
    world.run(1)
    world.apply(service("web"), rec.Desired.STOPPED)
    world.run(1)
    world.tell(where, TornDown(world.now, "web", world.first("web")))
    world.run(1)
    assert world.operation("o").state is rec.OperationState.FAILED
    assert "stopped" in world.operation("o").reason


def test_a_failover_can_be_forced_when_a_migration_hangs_because_its_host_does_not_stop(world: SmallWorld) -> None:
    world.apply(service("web"))
    world.run(2)
    [where] = world.runs_on("web")
    world.swallow = lambda name, command: name == where and isinstance(command, TearDown)
    world.ask(rec.OperationRecord("m", rec.OperationKind.MIGRATE, "web"))
    world.run(6)
    world.ask(rec.OperationRecord("f", rec.OperationKind.FAILOVER, "web"))
    world.run(6)
    assert "claim.revoked" in world.kinds()
    assert world.operation("m").state is rec.OperationState.FAILED
    world.tell(where, TornDown(world.now, "web", world.first("web")))
    world.swallow = lambda name, command: False
    world.run(3)
    assert world.operation("f").state is rec.OperationState.DONE
    assert world.runs_on("web") == [world.placement("web").host]
    assert world.placement("web").host != where


def test_a_leader_that_no_longer_sees_the_store_decides_and_tells_nothing(world: SmallWorld) -> None:
    leader = str(world.leads())

    def swallow(name: str, command: Command) -> bool:
        if name != leader or not isinstance(command, Transact):
            return False
        world.hosts[name].waiting.append(Transacted(world.now, command.purpose, world.now, Outcome.UNKNOWN))
        return True

    world.swallow = swallow
    world.apply(service("web"))
    world.run(0.2)
    world.hosts[leader].seen = 10**9
    world.off |= set(world.hosts) - {leader}
    world.run(world.timing.claim_ttl_s)
    before = len(world.happened)
    world.run(20)
    assert [event.kind for event in world.happened[before:] if event.by == leader] == []


def test_a_refused_placement_is_not_tried_again_in_the_same_breath(world: SmallWorld) -> None:
    tries: list[float] = []

    def swallow(name: str, command: Command) -> bool:
        if not isinstance(command, Transact) or command.purpose.act is not Act.PLACE:
            return False
        tries.append(world.now)
        world.hosts[name].waiting.append(Transacted(world.now, command.purpose, world.now, Outcome.REFUSED, 10**9))
        return True

    world.swallow = swallow
    world.apply(service("web"))
    world.run(3)
    assert 1 < len(tries) <= 3 / world.timing.renew_s


def test_a_dead_hosts_claim_that_a_hand_freed_of_its_lease_does_not_stand_for_ever(world: SmallWorld) -> None:
    victim = world.other_than(world.leads())
    world.apply(service("web", placement=PlacementRules(hosts=(victim,))))
    world.run(2)
    world.apply(service("web"))
    world.off.add(victim)
    world.store.put(rec.CLAIMS + victim, world.store.keys[rec.CLAIMS + victim].value)
    world.run(20)
    assert "claim.revoked" in world.kinds()
    assert world.runs_on("web") == [world.placement("web").host]
    assert world.placement("web").host != victim


@pytest.mark.parametrize("garbled", [True, False])
def test_a_hosts_record_that_a_hand_spoilt_is_written_again_by_the_host(world: SmallWorld, garbled: bool) -> None:
    before = world.store.keys[rec.HOSTS + "b"].value
    if garbled:
        world.store.put(rec.HOSTS + "b", b"{")
    else:
        world.store.delete(rec.HOSTS + "b")
    world.run(2)
    assert world.store.keys[rec.HOSTS + "b"].value == before
    assert not world.hosts["a"].mirror.bad


def test_a_verdict_that_a_hand_spoilt_is_written_again(world: SmallWorld) -> None:
    world.store.put(rec.VERDICTS + "b", b"{")
    world.run(2)
    assert rec.decode(rec.VERDICTS + "b", world.store.keys[rec.VERDICTS + "b"].value)
    assert not world.hosts["a"].mirror.bad


def test_maintenance_outlasts_a_lost_claim(world: SmallWorld) -> None:
    world.store.put(rec.MAINTENANCE + "b", rec.encode(rec.MaintenanceRecord("b")))
    world.store.delete(rec.CLAIMS + "b")
    world.run(2)
    assert world.hosts["a"].mirror.in_maintenance("b")
    assert Flags.MAINTENANCE in (world.hosts["b"].node.beat or pytest.fail("it says nothing")).flags


def chain(world: SmallWorld, kind: str) -> list[str]:
    """The newest event of a kind and what led to it, newest first; the last is what an operator asked, if one did."""
    events = {event.id: event for event in world.happened}
    event = next(event for event in reversed(world.happened) if event.kind == kind)
    kinds = [event.kind]
    while event.because in events:
        event = events[event.because]
        kinds.append(event.kind)
    return [*kinds, event.because] if event.because else kinds


def test_a_migration_is_told_as_caused_by_who_asked_for_it_and_not_by_a_trouble_long_over(world: SmallWorld) -> None:
    victim = world.other_than(world.leads())
    world.apply(service("web", on_isolation=OnIsolation.LEAVE, placement=PlacementRules(hosts=(victim,))))
    world.run(2)
    world.apply(service("web", on_isolation=OnIsolation.LEAVE))
    world.cut.add(victim)
    world.run(8)
    assert "failover.waiting" in world.kinds()
    world.cut.clear()
    world.run(4)
    world.ask(rec.OperationRecord("o", rec.OperationKind.MIGRATE, "web", because="asked"))
    world.run(3)
    assert chain(world, "workload.placed") == [
        "workload.placed",
        "workload.stopped",
        "workload.stopping",
        "migrate.started",
        "asked",
    ]


def test_a_chain_of_verdicts_begins_anew_with_each_trouble(world: SmallWorld) -> None:
    victim = world.other_than(world.leads())
    for _ in range(2):
        world.off.add(victim)
        world.run(8)
        world.off.clear()
        world.run(4)
    assert chain(world, "verdict.alive") == ["verdict.alive", "verdict.dead", "verdict.partitioned", "verdict.suspect"]


def test_a_new_leaders_verdict_follows_that_of_the_leader_before() -> None:
    world = SmallWorld("a", "b", "c", "d")
    world.run(2)
    leader = world.leads()
    victim = world.other_than(leader)
    world.off.add(victim)
    world.run(3)
    world.off.add(str(leader))
    world.run(8)
    dead = next(event for event in world.happened if event.kind == "verdict.dead" and event.host == victim)
    before = next(event for event in world.happened if event.id == dead.because)
    assert (before.kind, before.host, before.by) == ("verdict.partitioned", victim, leader)


@pytest.mark.parametrize(
    ("modules", "problem"),
    [
        ((Module("x", ("t",), after=("y",)), Module("y", ("t",), after=("x",))), "wait for each other"),
        ((Module("x", ("t",), after=("z",)),), "comes after z"),
        ((Module("x", ("t",)), Module("x", ("t",))), "same name"),
        ((Module("../x", ("t",)),), "no name"),
    ],
)
def test_a_workload_that_could_never_start_is_named_as_unreadable(
    world: SmallWorld, modules: tuple[Module, ...], problem: str
) -> None:
    world.apply(service("web", *modules))
    world.run(1)
    assert rec.PLACEMENTS + "web" not in world.store.keys
    assert problem in world.hosts["a"].mirror.bad[rec.WORKLOADS + "web"][1]


def test_nothing_is_remembered_of_the_course_of_removed_workloads(world: SmallWorld) -> None:
    for name in ("one", "two"):
        world.apply(service(name))
        world.run(1)
        world.apply(service(name), rec.Desired.REMOVED)
        world.run(2)
    leader = world.hosts[str(world.leads())].leader
    assert len(leader.courses) == len(leader.restless) == len(leader.in_flight) == len(leader.meant) == 0


def test_a_host_that_is_cut_off_begins_nothing_that_it_would_have_to_stop(world: SmallWorld) -> None:
    where = world.other_than(world.leads())
    each = world.hosts[where]
    placement = rec.PlacementRecord("web", 1, where, claim=each.node.session.incarnation)
    values = [
        KeyValue(rec.WORKLOADS + "web", rec.encode(rec.WorkloadRecord(service("web"))), 900, 900),
        KeyValue(rec.PLACEMENTS + "web", rec.encode(placement), 900, 900),
    ]
    cut_off = structs.replace(each.node, isolated=True)
    late = StoreMoved(world.now, changed(each.mirror, 900, values, world.now))
    state, commands = node.step(cut_off, late)
    assert not [command for command in commands if isinstance(command, Prepare)]
    assert state.reigns["web"].shown("main") is ModuleStatus.STOPPED


def test_the_reason_of_a_failure_is_not_told_any_more_once_all_runs_again(world: SmallWorld) -> None:
    world.apply(service("web"))
    world.run(2)
    [where] = world.runs_on("web")
    world.tell(where, ModuleChanged(world.now, "web", world.first("web"), "main", ModuleStatus.FAILED, "exit code 1"))
    assert "exit code 1" in world.hosts[where].node.reigns["web"].reason
    world.run(2)
    assert world.runs_on("web") == [where]
    assert world.hosts[where].node.reigns["web"].reason == ""


def test_generations_go_on_when_a_hand_removes_the_placement_of_a_removed_workload(world: SmallWorld) -> None:
    world.apply(service("web"))
    world.run(2)
    world.apply(service("web"), rec.Desired.REMOVED)
    world.run(2)
    world.store.delete(rec.PLACEMENTS + "web")
    world.run(2)
    world.apply(service("web"))
    world.run(2)
    assert world.placement("web").generation > world.first("web")
    assert world.runs_on("web") == [world.placement("web").host]


def test_a_workload_whose_generations_began_anew_under_a_new_leader_is_not_stuck_on_who_knew_them(
    world: SmallWorld,
) -> None:
    only = service("web", placement=PlacementRules(hosts=("b",)))
    for _ in range(3):
        world.apply(only, rec.Desired.RUNNING)
        world.run(2)
        world.apply(only, rec.Desired.REMOVED)
        world.run(2)
    world.store.delete(rec.PLACEMENTS + "web")
    world.run(1)
    for each in world.hosts.values():
        each.mirror = replace(each.mirror, lost=type(each.mirror.lost)())
    world.apply(only)
    world.run(20)
    assert world.runs_on("web") == ["b"]
    assert world.placement("web").generation > 3


def test_a_workload_by_the_name_of_a_removed_one_that_still_runs_begins_only_once_that_ended(world: SmallWorld) -> None:
    world.apply(service("web"))
    world.run(2)
    [where] = world.runs_on("web")
    before = world.placement("web").generation
    for room in (rec.WORKLOADS, rec.PLACEMENTS, rec.REPORTS):
        world.store.delete(room + "web")
    world.run(1)
    for each in world.hosts.values():
        each.mirror = replace(each.mirror, lost=type(each.mirror.lost)())
    assert world.runs_on("web") == [where]
    world.apply(service("web"))
    already = len(world.happened)
    world.run(5)
    assert world.runs_on("web") == [world.placement("web").host]
    stopped, begun = (
        [(at, each.generation) for at, each in enumerate(world.happened[already:]) if each.kind == kind]
        for kind in ("workload.stopped", "workload.prepared")
    )
    assert [generation for _, generation in stopped] == [before]
    assert min(begun) > max(stopped)
    assert all(generation > before for _, generation in begun)


@pytest.mark.parametrize(("predecessor", "takes_it_away"), [("mine", True), ("", False), ("another", False)])
def test_a_claim_under_our_name_is_taken_away_only_when_our_own_journal_knows_its_run(
    predecessor: str, takes_it_away: bool
) -> None:
    claim = rec.encode(rec.ClaimRecord("a", "boot", "mine", 5, 1))
    seen = changed(Mirror(), 9, [KeyValue("claims/a", claim, 9, 9, 5)], 100.0)
    state = node.start(host("a"), "boot", "0" * 16, Timing())
    journal = Journal(run=predecessor) if predecessor else None
    said: list[Command] = []
    for event in (
        AgentStarted(100.0, "new", journal, {}, 0.0, seen),
        LeaseGranted(100.1, 6),
        Tick(100.2),
        Tick(100.3),
    ):
        state, commands = node.step(state, event)
        said += commands
    acts = {command.purpose.act for command in said if isinstance(command, Transact)}
    assert acts == ({Act.UNREGISTER} if takes_it_away else set())


def test_a_leader_that_is_shut_down_resigns_before_it_could_place_anything_on_itself_again() -> None:
    world = SmallWorld("a")
    world.run(2)
    world.apply(service("web"))
    world.run(2)
    first = world.placement("web").generation
    world.tell("a", GuardLost(world.now, "it is shut down"))
    world.run(2)
    assert world.runs_on("web") == []
    assert world.leads() is None
    assert world.placement("web").generation == first
    world.tell("a", GuardReady(world.now))
    world.run(8)
    assert world.runs_on("web") == ["a"]


def test_a_host_that_gave_its_claim_up_gets_nothing_before_the_store_shows_that(world: SmallWorld) -> None:
    world.apply(service("web"))
    world.run(2)
    was_on = str(world.placement("web").host)
    world.tell(was_on, GuardLost(world.now, "this host is being shut down"))
    world.run(2)
    assert world.placement("web").host != was_on
