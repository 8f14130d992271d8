"""Pairs: a primary and the standby that follows it, in a world where nothing is slow and one thing goes wrong."""

from dataclasses import replace
from typing import Any

import pytest

from outlive.cluster import records as rec
from outlive.cluster.commands import Act, Command, GoAlone, Pair, PrepareStandby, TakeOver, Transact
from outlive.cluster.events import (
    ModuleChanged,
    Outcome,
    PeerLost,
    StandbyFailed,
    TakeOverFailed,
    Transacted,
)
from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.host import Capacity
from outlive.cluster.mirror import unplaced
from outlive.cluster.workload import Apart, PlacementRules, Protection

from .small_world import SmallWorld, host, machine


@pytest.fixture
def world() -> SmallWorld:
    """Three hosts, and a hot machine that one of them follows."""
    return paired(SmallWorld("a", "b", "c"))


def paired(world: SmallWorld, **changes: Any) -> SmallWorld:
    world.run(2)
    world.apply(machine("vm", **changes))
    world.run(3)
    return world


def lose(world: SmallWorld, name: str) -> None:
    """Cut the power of a host; its links fall silent."""
    world.off.add(name)
    world.run(0.1)
    world.break_link("vm")


def follows(world: SmallWorld) -> tuple[str, str]:
    """The primary and its standby."""
    placed = world.placement("vm")
    assert placed.host is not None
    assert placed.standby is not None
    return placed.host, placed.standby


# Pairing.


def test_a_hot_machine_is_given_a_standby_that_is_seeded_and_then_protects_it(world: SmallWorld) -> None:
    primary, standby = follows(world)
    assert primary != standby
    assert world.placement("vm").paired
    assert world.placement("vm").disk_hosts == (primary, standby)
    assert world.said(standby) == ["PrepareStandby"]
    assert world.said(primary) == ["Pair"]
    kinds = world.kinds()
    assert kinds.index("workload.running") < kinds.index("standby.chosen") < kinds.index("workload.protected")


def test_a_standby_uses_capacity_like_its_primary() -> None:
    world = SmallWorld()
    for name in "abc":
        world.boot(host(name, capacity=Capacity(4, 4096)))
    paired(world, resources=Capacity(3, 100))
    free = world.other_than(*follows(world))
    world.apply(machine("other", Protection.COLD, resources=Capacity(3, 100)))
    world.run(2)
    assert world.runs_on("other") == [free]


def test_a_standby_is_in_another_site_where_the_rules_ask_for_it() -> None:
    world = SmallWorld()
    for name, site in (("a", "north"), ("b", "north"), ("c", "south")):
        world.boot(host(name, site=site))
    paired(world, placement=PlacementRules(apart=Apart.SITE, prefer_sites=("north",)))
    assert follows(world)[0] in ("a", "b")
    assert follows(world)[1] == "c"


def test_a_machine_that_nobody_can_follow_runs_and_says_why_it_is_unprotected() -> None:
    world = SmallWorld("a", "b")
    paired(world, placement=PlacementRules(apart=Apart.SITE))
    assert world.runs_on("vm") != []
    [told] = [event for event in world.happened if event.kind == "workload.unprotected"]
    assert told.text.startswith("no host can be its standby: ")
    assert "it is in the same site here" in told.text


@pytest.mark.parametrize("role", [0, 1], ids=["primary", "standby"])
def test_an_agent_that_starts_again_leaves_its_pair_as_it_is(world: SmallWorld, role: int) -> None:
    hosts = follows(world)
    before = world.placement("vm")
    world.restart_agent(hosts[role])
    world.run(3)
    assert world.placement("vm") == before
    world.break_link("vm")
    assert world.runs_on("vm") == [hosts[1]]


def test_an_agent_that_dies_between_winning_and_taking_over_has_it_taken_over_by_the_next(world: SmallWorld) -> None:
    primary, standby = follows(world)
    world.swallow = lambda name, command: isinstance(command, TakeOver)
    lose(world, primary)
    assert world.placement("vm").host == standby
    assert world.runs_on("vm") == []
    world.swallow = lambda name, command: False
    world.restart_agent(standby)
    world.run(1)
    assert world.said(standby).count("TakeOver") == 1
    assert world.runs_on("vm") == [standby]
    assert world.placement("vm").took_over


def test_a_standby_that_was_gone_when_its_agent_started_again_is_replaced(world: SmallWorld) -> None:
    primary, standby = follows(world)
    there = world.hosts[standby]
    assert there.journal is not None
    there.journal = replace(there.journal, held=tuple(replace(each, ended=None) for each in there.journal.held))
    held, there.journal = there.journal, replace(there.journal, held=())
    world.restart_agent(standby)
    there.journal = held
    world.run(4)
    assert world.placement("vm").paired
    assert world.placement("vm").host == primary


# Taking over.


def test_when_the_primary_dies_the_standby_takes_over_within_a_transaction(world: SmallWorld) -> None:
    primary, standby = follows(world)
    before = world.placement("vm")
    lose(world, primary)
    placed = world.placement("vm")
    assert (placed.generation, placed.host, placed.took_over) == (before.generation + 1, standby, True)
    assert (placed.standby, placed.paired, placed.disk_hosts) == (None, False, (standby,))
    assert world.said(standby) == ["PrepareStandby", "TakeOver"]
    assert world.runs_on("vm") == [standby]


def test_a_standby_takes_over_without_a_leader() -> None:
    world = paired(SmallWorld("a", "b", "c"), placement=PlacementRules(hosts=("a", "b", "c")))
    leader = str(world.leads())
    if follows(world)[0] != leader:
        world.apply(
            machine("vm", placement=PlacementRules(hosts=tuple({*world.hosts} - {follows(world)[0]}))), version=2
        )
        world.run(12)
    primary, standby = follows(world)
    lose(world, primary)
    assert world.runs_on("vm") == [standby]


def test_after_a_takeover_a_new_standby_is_chosen_and_seeded(world: SmallWorld) -> None:
    primary, standby = follows(world)
    lose(world, primary)
    world.run(8)
    assert follows(world) == (standby, world.other_than(primary, standby))
    assert world.placement("vm").paired
    kinds = world.kinds()
    assert kinds.count("workload.taken_over") == 1
    assert kinds.count("workload.protected") == 2
    assert "failover.started" not in kinds


def test_the_old_primary_that_comes_back_becomes_the_standby_since_it_has_a_copy_of_the_disks() -> None:
    world = paired(SmallWorld("a", "b"))
    primary, standby = follows(world)
    world.break_link("vm")
    world.run(6)
    assert follows(world) == (standby, primary)
    assert world.placement("vm").paired


def test_when_the_standby_dies_the_primary_goes_on_alone_only_once_the_store_has_said_so(world: SmallWorld) -> None:
    primary, standby = follows(world)
    before = world.placement("vm")
    away = [True]
    world.swallow = lambda name, command: away[0] and isinstance(command, Transact) and command.purpose.act is Act.ALONE
    world.off.add(standby)
    world.run(0.1)
    world.break_link("vm")
    world.run(0.2)
    assert "GoAlone" not in world.said(primary)
    away[0] = False
    world.run(1.5)
    placed = world.placement("vm")
    assert placed.generation == before.generation
    assert world.said(primary)[:2] == ["Pair", "GoAlone"]
    assert world.runs_on("vm") == [primary]
    assert "workload.unprotected" in world.kinds()


def test_of_two_that_lose_each_other_one_goes_on(world: SmallWorld) -> None:
    primary, standby = follows(world)
    world.break_link("vm")
    world.run(1)
    # The standby was faster here: the primary finds that it was taken over, and stops without another word.
    assert world.runs_on("vm") == [standby]
    assert "GoAlone" not in world.said(primary)
    world = paired(SmallWorld("a", "b", "c"))
    primary, standby = follows(world)
    placed = world.placement("vm")
    about = (world.now, "vm", placed.generation, placed.pairing)
    for name, role in ((primary, "primary"), (standby, "standby")):
        world.tell(name, PeerLost(*about, role, "silent", whole=True))  # type: ignore[arg-type]
    world.run(1)
    assert world.runs_on("vm") == [primary]
    assert "TakeOver" not in world.said(standby)
    assert "DiscardStandby" in world.said(standby)


def test_a_standby_that_holds_no_whole_epoch_never_takes_over(world: SmallWorld) -> None:
    primary, standby = follows(world)
    placed = world.placement("vm")
    world.off.add(primary)
    lost = PeerLost(world.now, "vm", placed.generation, placed.pairing, role="standby", reason="silent")  # type: ignore[arg-type]
    world.tell(standby, lost)
    world.run(1)
    assert world.runs_on("vm") == []
    assert world.placement("vm").generation == placed.generation


def test_what_a_link_of_another_pairing_says_changes_nothing(world: SmallWorld) -> None:
    primary, standby = follows(world)
    placed = world.placement("vm")
    for name, role in ((primary, "primary"), (standby, "standby")):
        world.tell(name, PeerLost(world.now, "vm", placed.generation, placed.pairing + 7, role, "silent", whole=True))  # type: ignore[arg-type]
    world.run(1)
    assert world.placement("vm") == placed


def test_an_answer_that_gets_lost_is_found_in_the_store() -> None:
    world = paired(SmallWorld("a", "b", "c"))
    primary, standby = follows(world)

    def swallow(name: str, command: Command) -> bool:
        if not isinstance(command, Transact) or command.purpose.act not in (Act.ALONE, Act.TAKE_OVER):
            return False
        world.store.transact(command.transaction)
        world.hosts[name].waiting.append(Transacted(world.now, command.purpose, world.now, Outcome.UNKNOWN))
        return True

    world.swallow = swallow
    lose(world, primary)
    world.run(0.5)
    assert world.runs_on("vm") == [standby]
    world = paired(SmallWorld("a", "b", "c"))
    primary, standby = follows(world)
    world.swallow = swallow
    lose(world, standby)
    world.run(0.5)
    assert world.said(primary) == ["Pair", "GoAlone"]


def test_a_host_that_has_lost_its_claim_does_not_take_over(world: SmallWorld) -> None:
    primary, standby = follows(world)
    world.store.delete(rec.CLAIMS + standby)
    before = world.placement("vm")
    placed = before
    world.off.add(primary)
    world.tell(standby, PeerLost(world.now, "vm", placed.generation, placed.pairing, "standby", "silent", whole=True))  # type: ignore[arg-type]
    world.run(0.5)
    assert world.placement("vm").host == primary
    assert world.said(standby)[-1] == "DiscardStandby"


def test_a_machine_that_fails_is_gone_on_with_by_its_standby_and_not_restored(world: SmallWorld) -> None:
    primary, standby = follows(world)
    placed = world.placement("vm")
    world.tell(primary, ModuleChanged(world.now, "vm", placed.generation, "vm", ModuleStatus.FAILED, "killed"))
    world.run(0.3)
    assert "restore.ordered" not in world.kinds()
    world.break_link("vm")
    world.run(1)
    assert world.runs_on("vm") == [standby]


def test_a_machine_that_fails_and_is_not_taken_over_is_restored_once_it_is_alone(world: SmallWorld) -> None:
    primary, _ = follows(world)
    placed = world.placement("vm")
    world.tell(primary, ModuleChanged(world.now, "vm", placed.generation, "vm", ModuleStatus.FAILED, "killed"))
    world.run(5)
    kinds = world.kinds()
    assert kinds.index("workload.unprotected") < kinds.index("restore.ordered")
    assert world.runs_on("vm") == [primary]
    assert world.placement("vm").paired


def test_a_takeover_that_fails_is_followed_by_a_start_from_the_standbys_disk(world: SmallWorld) -> None:
    primary, standby = follows(world)
    world.swallow = lambda name, command: isinstance(command, TakeOver)
    lose(world, primary)
    generation = world.placement("vm").generation
    world.swallow = lambda name, command: False
    world.tell(standby, TakeOverFailed(world.now, "vm", generation, "the state could not be loaded"))
    world.run(8)
    placed = world.placement("vm")
    assert (placed.host, placed.generation, placed.took_over) == (standby, generation + 1, False)
    assert world.runs_on("vm") == [standby]


# When there is nobody to take over.


def test_an_unpaired_machine_waits_for_the_host_that_has_its_disks_and_says_so() -> None:
    world = SmallWorld("a", "b", "c")
    world.swallow = lambda name, command: isinstance(command, PrepareStandby)
    paired(world)
    primary = str(world.placement("vm").host)
    world.off.add(primary)
    world.run(12)
    assert world.runs_on("vm") == []
    assert f"its disks are on {primary} alone" in world.placement("vm").reason
    world.boot(host(primary))
    world.run(8)
    assert world.runs_on("vm") == [primary]


def test_an_operator_may_have_a_machine_started_from_another_hosts_disks_when_its_own_are_lost() -> None:
    world = SmallWorld("a", "b", "c")
    world.swallow = lambda name, command: isinstance(command, PrepareStandby)
    paired(world)
    primary = str(world.placement("vm").host)
    world.off.add(primary)
    world.run(12)
    assert world.placement("vm").host is None
    target = world.other_than(primary)
    kind = rec.OperationKind.FAILOVER
    world.ask(rec.OperationRecord("op", kind, "vm", target, because="asked"))
    world.run(3)
    assert world.runs_on("vm") == [target]
    assert world.operation("op").state is rec.OperationState.DONE
    assert world.placement("vm").disk_hosts[0] == target


def test_an_operator_may_say_where_the_disks_are_that_nobody_remembers(world: SmallWorld) -> None:
    primary, standby = follows(world)
    other = world.other_than(primary, standby)
    world.off |= {primary, standby}
    for each in world.hosts.values():
        each.mirror = unplaced(each.mirror, "vm")
    world.store.delete(rec.PLACEMENTS + "vm")
    world.run(12)
    assert rec.PLACEMENTS + "vm" not in world.store.keys
    world.ask(rec.OperationRecord("op", rec.OperationKind.FAILOVER, "vm", other, because="asked"))
    world.run(3)
    assert world.runs_on("vm") == [other]
    assert world.operation("op").state is rec.OperationState.DONE


def test_a_paired_machine_whose_standby_does_not_take_over_in_time_is_started_from_its_disk(world: SmallWorld) -> None:
    primary, standby = follows(world)
    world.off.add(primary)
    world.run(5)
    assert "takeover.waiting" in world.kinds()
    assert world.runs_on("vm") == []
    world.run(4)
    assert world.runs_on("vm") == [standby]
    assert not world.placement("vm").took_over


def test_a_standby_that_failed_is_replaced_by_another(world: SmallWorld) -> None:
    primary, standby = follows(world)
    placed = world.placement("vm")
    world.tell(standby, StandbyFailed(world.now, "vm", placed.generation, placed.pairing, "its disk is full"))
    world.run(4)
    assert follows(world) == (primary, world.other_than(primary, standby))
    assert world.placement("vm").paired
    assert world.said(primary) == ["Pair", "GoAlone", "Pair"]
    told = next(event.text for event in world.happened if event.kind == "workload.unprotected")
    assert told == f"{standby}: its disk is full"


def test_a_standby_that_died_with_its_primary_unaware_is_replaced(world: SmallWorld) -> None:
    primary, standby = follows(world)
    world.off.add(standby)
    world.run(8)
    assert follows(world) == (primary, world.other_than(primary, standby))
    assert world.runs_on("vm") == [primary]


def test_a_machine_that_is_stopped_is_not_taken_over(world: SmallWorld) -> None:
    primary, standby = follows(world)
    world.apply(machine("vm"), rec.Desired.STOPPED)
    world.run(0.2)
    world.break_link("vm")
    world.run(3)
    assert world.runs_on("vm") == []
    assert "TakeOver" not in world.said(standby)
    assert world.placement("vm").host is None
    assert world.placement("vm").disk_hosts[0] == primary
    world.apply(machine("vm"))
    world.run(4)
    assert world.runs_on("vm") == [primary]
    assert world.placement("vm").paired


def test_a_placement_that_nobody_remembers_gets_a_pairing_above_all_that_were(world: SmallWorld) -> None:
    primary, _ = follows(world)
    before = world.placement("vm")
    for each in world.hosts.values():
        each.mirror = unplaced(each.mirror, "vm")
    world.store.delete(rec.PLACEMENTS + "vm")
    world.run(8)
    after = world.placement("vm")
    assert after.pairing > before.pairing
    assert world.runs_on("vm") == [primary]
    assert GoAlone in {type(command) for name, command in world.told if name == primary}
    assert after.paired
    assert [command.pairing for _, command in world.told if isinstance(command, Pair)][-1] == after.pairing
