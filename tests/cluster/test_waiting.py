"""Who waits for a place is woken by what it waits for, and costs the leader next to nothing until then."""

import dataclasses
from itertools import pairwise

from immutables import Map
from msgspec.structs import replace

from outlive.bench.pretended_cluster import NEEDS, SITES, PretendedCluster
from outlive.cluster import courses, leader
from outlive.cluster import records as rec
from outlive.cluster.commands import Act, Command, Transact
from outlive.cluster.courses import LOOKED_AT_ONCE
from outlive.cluster.events import GuardLost, GuardReady
from outlive.cluster.host import Capacity
from outlive.cluster.leader_state import Turn
from outlive.cluster.policies import Freeze, Policies
from outlive.cluster.transaction import Put, Transaction
from outlive.cluster.waiting import IN_VAIN_AT_ONCE
from outlive.cluster.workload import PlacementRules, Workload

from .small_world import SmallWorld, service


def policies(world: PretendedCluster, wanted: Policies) -> None:
    world.store.write([Put(rec.POLICIES, rec.encode(wanted))], world.at)
    world.pass_tick()


def test_all_that_a_frozen_cluster_left_undone_is_done_at_once_when_it_is_unfrozen_however_much_there_is() -> None:
    world = PretendedCluster(6, LOOKED_AT_ONCE + 500, cpus=1000)
    policies(world, Policies(frozen=Freeze("root")))
    world.lose(SITES[0])
    world.end_claims()
    world.run(12)
    assert world.at_rest() == (0, 500)
    # Longer than it takes until each workload had its turn, so that only the change itself can be what wakes them.
    policies(world, Policies(restarts_per_host=1000))
    world.run(1.5)
    assert world.at_rest() == (500, 0)


def full(hosts: int, each: int) -> PretendedCluster:
    """A cluster whose hosts have room for nothing more, of which a site was lost, and whose workloads all wait."""
    world = PretendedCluster(hosts, hosts * each, cpus=NEEDS.cpus * each)
    world.run(2)
    world.lose(SITES[0])
    world.run(world.timing.claim_ttl_s)
    world.end_claims()
    world.run(4)
    return world


def waiting(world: PretendedCluster) -> set[str]:
    return {name for name, entry in world.store.mirror.placements.items() if entry.record.host is None}


def test_who_fits_nowhere_is_told_so_once_and_then_nothing_is_done_for_it() -> None:
    world = full(12, 10)
    assert len(waiting(world)) == 40
    assert world.said["workload.failed"] == 40
    assert world.state.restless == frozenset()
    revision, said = world.store.revision, dict(world.said)
    tried = [name for name, course in world.state.courses.items() if course.in_vain != 1 and name in waiting(world)]
    assert tried == []
    for _ in range(50):
        world.pass_tick()
        assert world.state.restless == frozenset()
    renewals = world.store.revision - revision
    assert world.said == said
    assert renewals <= 51 + 12 * 3  # nothing but claims


def test_hosts_that_come_back_wake_all_that_waited_and_the_more_important_go_first() -> None:
    world = full(12, 10)
    away = sorted(name for name in world.hosts if name.startswith(SITES[0]))
    world.bring_back(away[:1])
    world.run(1)
    left = waiting(world)
    assert len(left) == 30
    records = world.store.mirror.workloads
    placed = {name for name, host in world.began_on.items() if host in away and name not in left}
    least = min(records[name].record.workload.priority for name in placed)
    assert all(records[name].record.workload.priority <= least for name in left)
    world.bring_back(away[1:])
    world.run(1)
    assert waiting(world) == set()


def test_a_host_that_grows_is_given_just_what_it_has_become_able_to_have() -> None:
    world = full(12, 10)
    world.register(world.me, NEEDS.cpus * 13)
    world.run(1)
    assert len(waiting(world)) == 37


def test_who_asks_for_more_than_has_become_free_is_left_asleep() -> None:
    world = PretendedCluster(6, 6, cpus=4, needs=lambda number: Capacity(4 if number % 3 == 0 else 2, 1))
    world.lose(SITES[0])
    world.end_claims()
    world.run(12)
    assert len(waiting(world)) == 2
    before = {name: world.state.courses[name].in_vain for name in waiting(world)}
    world.register(world.me, 5)
    world.run(1)
    assert {name: world.state.courses[name].in_vain for name in waiting(world)} == before


def test_what_waits_is_tried_again_after_the_waits_of_the_policies_if_nothing_wakes_it() -> None:
    world = full(3, 2)
    policies(world, Policies(retry_minutes=(0.0, 0.05, 0.1, 0.2)))
    world.run(1)
    tries, name = list[float](), min(waiting(world))
    count = world.state.courses[name].in_vain
    for _ in range(300):
        world.pass_tick()
        if world.state.courses[name].in_vain > count:
            count = world.state.courses[name].in_vain
            tries.append(world.at)
    gaps = [round(later - earlier) for earlier, later in pairwise(tries)]
    assert gaps[:2] in ([6, 12], [12, 12])


def test_a_turn_tries_only_so_many_in_vain_and_the_others_have_the_next() -> None:
    world = full(30, 3)
    names = waiting(world)
    assert len(names) == 30
    turn = Turn(replace(world.state, waiting=Map(), restless=frozenset(names)))
    turn.in_vain |= {f"other-{number}" for number in range(IN_VAIN_AT_ONCE)}
    courses.advance(turn, turn.state.restless)
    assert turn.state.restless == frozenset(names)
    assert turn.put_off == names
    after = Turn(turn.state)
    courses.advance(after, after.state.restless)
    assert after.put_off == set()
    assert after.in_vain == names


def test_a_workload_that_sleeps_is_woken_by_a_change_of_its_own_record() -> None:
    world = full(6, 2)
    name = min(waiting(world))
    entry = world.store.mirror.workloads[name].record
    smaller = rec.WorkloadRecord(dataclasses.replace(entry.workload, resources=Capacity()), entry.desired, version=2)
    world.store.write([Put(rec.WORKLOADS + name, rec.encode(smaller))], world.at)
    world.run(0.5)
    assert name not in waiting(world)


def test_a_workload_that_is_to_be_apart_from_another_sleeps_until_that_one_moves() -> None:
    world = PretendedCluster(3, 3, cpus=8)
    lost = next(name for name, host in world.began_on.items() if host.startswith(SITES[0]))
    others = tuple(sorted(set(world.began_on) - {lost}))
    entry = world.store.mirror.workloads[lost].record
    alone = dataclasses.replace(entry.workload, placement=PlacementRules(apart_from=others))
    world.store.write([Put(rec.WORKLOADS + lost, rec.encode(dataclasses.replace(entry, workload=alone)))], world.at)
    world.lose(SITES[0])
    world.end_claims()
    world.run(8)
    assert waiting(world) == {lost}
    assert lost not in world.state.restless
    gone = world.store.mirror.workloads[others[0]].record
    stopped = dataclasses.replace(gone, desired=rec.Desired.STOPPED)
    placed = dataclasses.replace(world.store.mirror.placements[others[0]].record, host=None, order=rec.Order.STOP)
    puts = [Put(rec.WORKLOADS + others[0], rec.encode(stopped)), Put(rec.PLACEMENTS + others[0], rec.encode(placed))]
    world.store.write(puts, world.at)
    world.run(0.5)
    assert lost not in waiting(world)


def on_a(workload: Workload, *apart_from: str) -> Workload:
    """The same workload, for the host `a` alone."""
    return dataclasses.replace(workload, placement=PlacementRules(hosts=("a",), apart_from=apart_from))


def until_it_runs(world: SmallWorld, workload: str, within_s: float) -> None:
    until = world.now + within_s
    while not world.runs_on(workload):
        assert world.now < until, world.hosts[world.leads() or "a"].leader.waiting
        world.run(0.5)


def test_who_was_kept_apart_is_woken_when_the_rule_is_dropped_by_the_other() -> None:
    world = SmallWorld("a", "b")
    world.run(3)
    world.apply(on_a(service("first"), "second"))
    world.run(5)
    world.apply(on_a(service("second")))
    world.run(20)
    assert not world.runs_on("second")
    world.apply(on_a(service("first")), version=2)
    until_it_runs(world, "second", 5)


def test_room_that_is_freed_in_the_very_turn_in_which_it_was_missed_is_not_missed_for_long() -> None:
    world = SmallWorld("a", "b")
    world.run(3)
    whole = world.hosts["a"].node.host.capacity
    world.apply(dataclasses.replace(service("leaves"), resources=whole))
    world.run(4)
    assert world.placement("leaves").host == "a"
    wanted = dataclasses.replace(on_a(service("comes")), resources=whole, priority=200)
    comes = Put(rec.WORKLOADS + "comes", rec.encode(rec.WorkloadRecord(wanted)))
    told = list[str]()

    def together(_: str, command: Command) -> bool:
        """Have the store tell at once that the one has stopped and that the other is wanted."""
        if not isinstance(command, Transact) or command.purpose.act is not Act.REPORT or told:
            return False
        [write] = command.transaction.writes
        report = rec.decode(write.key, write.value) if isinstance(write, Put) else None
        if not isinstance(report, rec.ReportRecord) or report.stage not in rec.FINAL:
            return False
        told.append(write.key)
        return world.store.transact(Transaction(command.transaction.compares, (write, comes)))

    world.swallow = together
    world.ask(rec.OperationRecord("op", rec.OperationKind.MIGRATE, "leaves", target="b"))
    world.run(2)
    until_it_runs(world, "comes", 5)
    assert told == [rec.REPORTS + "leaves"]


def test_a_leader_that_was_unfit_for_a_moment_and_kept_its_office_looks_at_what_it_passed_over() -> None:
    world = SmallWorld("a", "b")
    world.run(3)
    led = world.hosts["a"]
    assert world.leads() == "a"
    world.store.put(rec.MAINTENANCE + "b", rec.encode(rec.MaintenanceRecord("b")))
    world.apply(dataclasses.replace(service("anchor"), placement=PlacementRules(hosts=("b",))))
    world.run(3)
    world.apply(dataclasses.replace(service("follows"), placement=PlacementRules(together_with=("anchor",))))
    world.run(130)
    resigned = list[float]()

    def unheard(host: str, command: Command) -> bool:
        """As the anchor is being placed the leader's guard dies; its resignation does not reach the store."""
        anchored = isinstance(command, Transact) and command.purpose.subject == rec.PLACEMENTS + "anchor"
        if host == "a" and anchored and not resigned:
            resigned.append(world.now)
            led.leader, _ = leader.step(led.leader, GuardLost(world.now, "it died"))
        return False

    world.swallow = unheard
    world.store.delete(rec.MAINTENANCE + "b")
    while not resigned or world.now < resigned[0] + 0.15:
        world.run(0.1)
    led.leader, _ = leader.step(led.leader, GuardReady(world.now))
    assert led.leader.office_since is not None
    until_it_runs(world, "follows", 10)
