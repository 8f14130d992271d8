"""What is asked of a machine reaches the room that sees to it, and what its manager tells is answered from here."""

import pytest

from outlive.agent.machine import MachineRuntime
from outlive.cluster import commands as do
from outlive.cluster import events as ev
from outlive.cluster.commands import Role
from outlive.errors import Failed
from outlive.replication import control

from .machine_scene import AT, FakeComm, Scene

TAKE = do.TakeCheckpoint("web", 7, "op", "nightly", "x")


@pytest.mark.parametrize(
    ("told", "whole", "reason"),
    [
        (control.Checkpointed("nightly", 512, 2.0, 90.0), True, "512 bytes"),
        (control.CheckpointFailed("nightly", "the disk is full"), False, "the disk is full"),
    ],
)
async def test_a_checkpoint_that_was_asked_for_is_answered_once(
    scene: Scene, told: control.Event, whole: bool, reason: str
) -> None:
    comm = FakeComm()
    machine = scene.machine(comm)
    machine._heard(told)
    assert scene.told == [], "nobody asked for it"
    await machine.checkpoint(TAKE)
    assert comm.told == [control.Checkpoint("nightly", "op")]
    for _ in range(2):
        machine._heard(told)
    assert scene.told == [ev.CheckpointEnded(AT, "web", 7, "op", whole, reason)]


async def test_a_checkpoint_that_nobody_can_take_is_answered_at_once(scene: Scene) -> None:
    class Deaf(FakeComm):
        async def send(self, command: control.Command) -> None:
            raise Failed("It is not there.")

    await scene.machine(Deaf()).checkpoint(TAKE)
    assert scene.told == [ev.CheckpointEnded(AT, "web", 7, "op", False, "It is not there.")]


@pytest.mark.parametrize(
    ("role", "phase", "superseded", "at_once"),
    [
        (Role.PRIMARY, "paired", False, False),
        (Role.PRIMARY, "paired", True, True),
        (Role.PRIMARY, "lost", False, True),
        (Role.PRIMARY, "handed-over", False, True),
        (Role.STANDBY, "following", False, True),
        (Role.INCOMING, "", False, True),
    ],
)
async def test_it_is_stopped_at_once_where_another_may_have_its_state(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, role: Role, phase: str, superseded: bool, at_once: bool
) -> None:
    machine = scene.machine(FakeComm(phase), role)
    stopped: list[bool] = []

    async def stop(*, at_once: bool) -> None:
        stopped.append(at_once)

    monkeypatch.setattr(machine._processes, "stop", stop)
    monkeypatch.setattr("outlive.agent.ground.Ground.superseded", lambda *_: superseded)
    await machine.stop()
    assert stopped == [at_once]


async def test_progress_is_kept_and_seeding_that_of_a_primary(scene: Scene) -> None:
    def heard(role: Role) -> MachineRuntime:
        machine = scene.machine(FakeComm(), role)
        machine._heard(control.Seeding(1, 2, 1))
        return machine

    assert heard(Role.PRIMARY).seeding == control.Seeding(1, 2, 1)
    assert heard(Role.STANDBY).seeding is None
    assert scene.told == [ev.StandbySeeding(AT, "web", 7, 2)]
