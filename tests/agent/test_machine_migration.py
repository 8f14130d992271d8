"""A move that cannot begin is told, and the machine goes on as it was."""

from dataclasses import replace

import pytest

from outlive.agent import machine_migration
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
