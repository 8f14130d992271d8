"""A move that cannot begin is told, and the machine goes on as it was."""

import asyncio
from dataclasses import replace

import pytest

from outlive.agent import machine_migration
from outlive.agent.machine import MachineRuntime
from outlive.cluster import commands as do
from outlive.cluster import events as ev
from outlive.cluster.workload import Protection
from outlive.errors import Failed

from .machine_scene import HOT, FakeComm, Scene


async def test_a_move_that_cannot_begin_is_told_and_harms_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    comm = FakeComm()
    machine = scene.machine(comm, workload=replace(HOT, protection=Protection.WARM))

    async def hangs(*_: object) -> bool:
        raise Failed("The datastore of the checkpoints does not answer.")

    monkeypatch.setattr(machine_migration, "same_disks", hangs)
    await machine.migrate(do.MigrateTo("web", 7, 3, "b", "10.0.0.2", 4000, "x"))
    (event,) = scene.told
    assert isinstance(event, ev.MigrationFailed)
    assert "does not answer" in event.reason
    assert (scene.started, machine.move) == (["free"], None)


@pytest.fixture
def warm(scene: Scene) -> tuple[MachineRuntime, FakeComm]:
    """A warm machine whose newest pairing is 2, and its manager."""
    comm = FakeComm()
    return scene.machine(comm, workload=replace(HOT, protection=Protection.WARM)), comm


async def test_no_checkpoint_is_taken_from_the_first_news_of_a_move_until_that_is_over(
    scene: Scene, warm: tuple[MachineRuntime, FakeComm]
) -> None:
    machine, comm = warm
    for _ in range(2):
        await machine.hold_checkpoints(3)
        machine.release_checkpoints(3)
        assert not comm.runs
    # Its target could not take it in: nothing was begun here, and so no order comes that would end it.
    machine.release_checkpoints(4)
    await machine._processes.revived()
    assert (scene.started, comm.runs) == (["free"], True)


async def test_old_news_of_a_move_costs_a_machine_no_manager(
    scene: Scene, warm: tuple[MachineRuntime, FakeComm]
) -> None:
    machine, comm = warm
    await machine.hold_checkpoints(3)
    await machine.go_alone(do.GoAlone("web", 7, 4, "x"))
    assert comm.runs
    for old in (3, 4):
        await machine.hold_checkpoints(old)
    assert (scene.started, comm.runs) == (["free"], True)


async def test_a_move_that_is_over_before_its_news_was_heeded_costs_no_manager(
    scene: Scene, warm: tuple[MachineRuntime, FakeComm]
) -> None:
    machine, comm = warm
    processes = machine._processes
    async with processes._managing:
        holding = asyncio.create_task(machine.hold_checkpoints(3))
        await asyncio.sleep(0)
        machine.release_checkpoints(4)
    await holding
    await processes.revived()
    assert comm.runs
