"""Machines that move without a stop, checkpoints, resumptions, and workloads that come after others."""

from dataclasses import replace

import pytest

from outlive.cluster.commands import (
    Act,
    GoAlone,
    HandOver,
    MigrateTo,
    Prepare,
    PrepareStandby,
    TakeCheckpoint,
    Transact,
)
from outlive.cluster.events import MigrationFailed
from outlive.cluster.records import OperationKind, OperationRecord, OperationState
from outlive.cluster.workload import Protection

from .small_world import SmallWorld, host, machine, service


@pytest.fixture
def world() -> SmallWorld:
    """Three hosts with a hot machine that is paired, and a warm one."""
    three = SmallWorld("a", "b", "c")
    three.run(2)
    three.apply(machine("vm"))
    three.apply(machine("warm", Protection.WARM))
    three.run(3)
    assert three.placement("vm").paired
    return three


def ask(world: SmallWorld, kind: OperationKind, workload: str, target: str | None = None, **about: str) -> None:
    world.ask(OperationRecord("op", kind, workload, target, because="asked", **about))  # type: ignore[arg-type]


def test_a_hot_machine_hands_over_to_its_standby(world: SmallWorld) -> None:
    before = world.placement("vm")
    ask(world, OperationKind.MIGRATE, "vm")
    world.run(1)
    placed = world.placement("vm")
    assert (placed.host, placed.generation, placed.took_over) == (before.standby, before.generation + 1, True)
    assert world.operation("op").state is OperationState.DONE
    assert world.operation("op").reason == f"it runs on {before.standby}"
    assert world.said(str(before.host))[:2] == ["Pair", "HandOver"]
    world.run(4)
    assert world.placement("vm").standby == before.host
    assert world.placement("vm").paired


def test_a_hot_machine_is_first_paired_with_the_host_that_it_is_to_go_to(world: SmallWorld) -> None:
    before = world.placement("vm")
    target = world.other_than(before.host, before.standby)
    ask(world, OperationKind.MIGRATE, "vm", target)
    world.run(2)
    assert world.runs_on("vm") == [target]
    assert world.operation("op").state is OperationState.DONE
    assert world.said(str(before.host))[:4] == ["Pair", "GoAlone", "Pair", "HandOver"]


def test_what_is_handed_over_and_not_taken_goes_on_where_it_was(world: SmallWorld) -> None:
    before = world.placement("vm")
    world.swallow = lambda name, command: isinstance(command, HandOver)
    ask(world, OperationKind.MIGRATE, "vm")
    world.run(1)
    assert world.operation("op").state is OperationState.RUNNING
    world.run(3)
    assert world.operation("op").state is OperationState.FAILED
    assert "did not take over what was handed to it" in world.operation("op").reason
    assert "GoAlone" in world.said(str(before.host))
    assert world.runs_on("vm") == [before.host]
    world.swallow = lambda name, command: False
    world.run(3)
    assert world.placement("vm").paired
    assert not world.placement("vm").hand_over


def test_a_forced_failover_of_a_paired_machine_goes_to_its_standby(world: SmallWorld) -> None:
    before = world.placement("vm")
    ask(world, OperationKind.FAILOVER, "vm")
    world.run(1)
    assert world.runs_on("vm") == [before.standby]
    assert world.placement("vm").took_over


def test_a_machine_migrates_live(world: SmallWorld) -> None:
    before = world.placement("warm")
    target = world.other_than(before.host)
    ask(world, OperationKind.MIGRATE, "warm", target)
    world.run(1)
    placed = world.placement("warm")
    assert (placed.host, placed.generation, placed.took_over) == (target, before.generation + 1, True)
    assert placed.moving_to is None
    assert world.operation("op").state is OperationState.DONE
    assert world.runs_on("warm") == [target]
    told = [type(command).__name__ for name, command in world.told if getattr(command, "workload", "") == "warm"]
    assert told == ["MigrateTo", "TakeOver"]


def test_a_migration_that_fails_is_undone_and_says_why(world: SmallWorld) -> None:
    before = world.placement("warm")
    target = world.other_than(before.host)
    world.swallow = lambda name, command: isinstance(command, MigrateTo)
    ask(world, OperationKind.MIGRATE, "warm", target)
    world.run(1)
    during = world.placement("warm")
    assert (during.moving_to, during.generation) == (target, before.generation)
    failed = MigrationFailed(world.now, "warm", during.generation, during.pairing, "the target has no room")
    world.tell(str(before.host), failed)
    world.run(1)
    assert world.operation("op").state is OperationState.FAILED
    assert world.operation("op").reason == "it goes on alone: the target has no room"
    assert world.runs_on("warm") == [before.host]
    assert world.placement("warm").moving_to is None
    assert world.said(str(before.host)).count("GoAlone") == 1


def test_a_migration_can_be_cancelled(world: SmallWorld) -> None:
    before = world.placement("warm")
    target = world.other_than(before.host)
    world.swallow = lambda name, command: isinstance(command, MigrateTo)
    ask(world, OperationKind.MIGRATE, "warm", target)
    world.run(1)
    world.ask(replace(world.operation("op"), state=OperationState.CANCELLED))
    world.run(1)
    placed = world.placement("warm")
    assert (placed.host, placed.generation, placed.moving_to, placed.operation) == (
        before.host, before.generation, None, None,
    )  # fmt: skip
    assert world.operation("op").state is OperationState.CANCELLED
    assert "DiscardStandby" in world.said(target)
    assert any(isinstance(command, GoAlone) and command.workload == "warm" for _, command in world.told)


def test_a_migration_whose_target_dies_is_undone(world: SmallWorld) -> None:
    before = world.placement("warm")
    target = world.other_than(before.host, world.leads())
    if before.host == world.leads():
        target = world.other_than(before.host)
    world.swallow = lambda name, command: isinstance(command, MigrateTo)
    ask(world, OperationKind.MIGRATE, "warm", target)
    world.run(1)
    world.off.add(target)
    world.run(8)
    assert world.runs_on("warm") == [before.host]
    assert world.operation("op").state is OperationState.FAILED
    assert world.operation("op").reason == f"{target} lost its claim"


def test_a_machine_whose_source_dies_in_a_migration_is_started_anew(world: SmallWorld) -> None:
    before = world.placement("warm")
    target = world.other_than(before.host)
    world.swallow = lambda name, command: isinstance(command, Transact) and command.purpose.act is Act.MOVED
    ask(world, OperationKind.MIGRATE, "warm", target)
    world.run(0.5)
    world.off.add(str(before.host))
    world.swallow = lambda name, command: False
    world.run(10)
    assert len(world.runs_on("warm")) == 1
    assert world.runs_on("warm") != [before.host]
    assert not world.placement("warm").took_over


def test_a_service_migrates_by_a_stop_and_a_start_as_ever(world: SmallWorld) -> None:
    world.apply(service("web"))
    world.run(2)
    before = world.placement("web")
    ask(world, OperationKind.MIGRATE, "web")
    world.run(2)
    assert world.operation("op").state is OperationState.DONE
    assert world.runs_on("web") != [before.host]


# Checkpoints.


def test_a_checkpoint_is_made_by_the_host_and_closes_its_operation(world: SmallWorld) -> None:
    ask(world, OperationKind.CHECKPOINT, "warm", checkpoint="before-upgrade")
    world.run(0.5)
    assert world.operation("op").state is OperationState.DONE
    assert "checkpoint.done" in world.kinds()


def test_a_checkpoint_that_is_cut_short_by_a_failover_is_called_failed(world: SmallWorld) -> None:
    world.swallow = lambda name, command: isinstance(command, TakeCheckpoint)
    ask(world, OperationKind.CHECKPOINT, "warm")
    world.run(0.5)
    assert world.operation("op").state is OperationState.RUNNING
    world.off.add(str(world.placement("warm").host))
    world.run(10)
    assert world.operation("op").state is OperationState.FAILED
    assert world.operation("op").reason == "the machine did not stay where it was begun"


@pytest.mark.parametrize("kind", [OperationKind.CHECKPOINT, OperationKind.RESUME])
def test_only_a_warm_machine_has_checkpoints(world: SmallWorld, kind: OperationKind) -> None:
    ask(world, kind, "vm")
    world.run(0.5)
    assert world.operation("op").state is OperationState.REFUSED
    assert "does not say protection = warm" in world.operation("op").reason


def test_a_machine_is_resumed_from_the_checkpoint_that_was_named(world: SmallWorld) -> None:
    asked: list[Prepare] = []

    def spy(name: str, command: object) -> bool:
        if isinstance(command, Prepare):
            asked.append(command)
        return False

    world.swallow = spy
    before = world.placement("warm")
    ask(world, OperationKind.RESUME, "warm", checkpoint="monday")
    world.run(2)
    assert [command.resume_at for command in asked] == ["monday"]
    assert world.operation("op").state is OperationState.DONE
    assert world.placement("warm").host == before.host
    world.off.add(str(before.host))
    world.run(10)
    assert [command.resume_at for command in asked if command.workload.name == "warm"] == ["monday", ""]


# Order.


def test_a_workload_is_started_once_what_it_comes_after_runs() -> None:
    world = SmallWorld("a", "b")
    world.run(2)
    world.apply(service("front", after=("base",)))
    world.run(1)
    assert world.runs_on("front") == []
    waiting = [event.text for event in world.happened if event.kind == "workload.waiting"]
    assert waiting == ["it comes after base, which does not run"]
    world.apply(service("base"))
    world.run(2)
    running = [event.workload for event in world.happened if event.kind == "workload.running"]
    assert running == ["base", "front"]


def test_after_a_mass_failure_workloads_come_back_in_priority_and_dependency_order() -> None:
    world = SmallWorld("a")
    world.run(2)
    for name, priority, after in (("one", 10, ()), ("two", 200, ("three",)), ("three", 100, ())):
        world.apply(service(name, priority=priority, after=after))
    world.run(3)
    since = len(world.happened)
    world.off.add("a")
    world.boot(host("b"))
    world.run(12)
    placed = [event.workload for event in world.happened[since:] if event.kind == "failover.started"]
    running = [event.workload for event in world.happened[since:] if event.kind == "workload.running"]
    assert sorted(running) == ["one", "three", "two"]
    assert placed.index("three") < placed.index("one")
    assert running.index("three") < running.index("two")


def test_workloads_that_wait_for_each_other_say_so() -> None:
    world = SmallWorld("a", "b")
    world.run(2)
    for name, after in (("one", "two"), ("two", "three"), ("three", "one")):
        world.apply(service(name, after=(after,)))
    world.run(2)
    told = {event.workload: event.text for event in world.happened if event.kind == "workload.waiting"}
    assert told["one"] == "workloads wait for each other: one → two → three → one"
    assert len(told) == 3


def test_a_standby_is_not_begun_for_a_file_that_has_changed() -> None:
    world = SmallWorld("a", "b")
    world.run(2)
    world.apply(machine("vm"))
    world.run(0.2)
    world.apply(machine("vm", priority=7), version=2)
    world.run(4)
    asked = [command for _, command in world.told if isinstance(command, PrepareStandby)]
    assert asked[-1].workload.priority == 7
    assert world.placement("vm").paired
