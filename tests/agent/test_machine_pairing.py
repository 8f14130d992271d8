"""A manager's death lets nothing out that it may have held, and what an agent began to take over the next one ends."""

import asyncio

import pytest

from outlive.cluster import commands as do
from outlive.cluster.commands import Role
from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.machine import MODULE
from outlive.errors import Failed
from outlive.replication import control

from .machine_scene import FakeComm, Scene

PAIR = do.Pair("web", 7, 3, "b", "10.0.0.2", 4000, "x")


async def test_a_manager_that_held_nothing_is_replaced_at_once(scene: Scene) -> None:
    comm = FakeComm()
    comm.dies(scene.machine(comm))
    await asyncio.sleep(0.01)
    assert (scene.started, scene.lost()) == (["free"], [])


@pytest.mark.parametrize("phase", ["free", "seeding", "paired", "lost", "handed-over"])
async def test_what_was_told_to_pair_may_hold_and_is_replaced_only_once_the_store_is_won(
    scene: Scene, phase: str
) -> None:
    comm = FakeComm()
    machine = scene.machine(comm)
    await machine.pair(PAIR)
    comm.phase = phase
    comm.dies(machine)
    await asyncio.sleep(0.01)
    assert (scene.started, scene.lost()) == ([], [3])
    await machine.go_alone(do.GoAlone("web", 7, 3, "x"))
    assert scene.started == [], "that very pairing stands"
    await machine.go_alone(do.GoAlone("web", 7, 4, "x"))
    assert scene.started == ["free"]
    comm.dies(machine)
    await asyncio.sleep(0.01)
    assert (scene.started, scene.lost()) == (["free", "free"], [3])


@pytest.mark.parametrize("fails", [False, True])
async def test_a_pairing_that_is_begun_while_a_manager_is_replaced_is_its_successors_or_is_told_lost(
    scene: Scene, *, fails: bool
) -> None:
    class Replaced(FakeComm):
        async def send(self, command: control.Command) -> None:
            if not self.runs:
                raise control.ManagerUnreachable("There is none.")
            await super().send(command)

    comm = Replaced()
    machine = scene.machine(comm)
    processes = machine._processes
    begun, there = processes._start_comm, asyncio.Event()

    async def start_comm(seat: object, pid: int) -> None:
        await there.wait()
        if fails:
            raise Failed("It does not answer.")
        await begun(seat, pid)  # type: ignore[arg-type]

    async def fail(_: str) -> None:
        pass

    processes._start_comm, processes.fail = start_comm, fail  # type: ignore[method-assign, assignment]
    comm.dies(machine)
    pairing = asyncio.create_task(machine.pair(PAIR))
    await asyncio.sleep(0.01)
    assert (comm.told, scene.told) == ([], [])
    there.set()
    await pairing
    assert [type(command) for command in comm.told] == ([] if fails else [control.Pair])
    assert scene.lost() == ([3] if fails else [])


async def test_a_found_manager_that_was_seeding_is_not_replaced_when_it_dies(scene: Scene) -> None:
    comm = FakeComm(found=control.Status("seeding", 7, 3))
    machine = scene.machine(comm)
    assert await machine.adopt()
    machine.watch_adopted()
    comm.dies(machine)
    await asyncio.sleep(0.01)
    assert (scene.started, scene.lost()) == ([], [3])


async def test_one_that_died_unseen_does_not_say_in_which_pairing(scene: Scene) -> None:
    """The note tells the pairing in which the machine once took over; others began since."""
    machine = scene.machine(FakeComm(found=None), pairing=2)
    assert await machine.adopt()
    machine.watch_adopted()
    assert scene.lost() == [0]
    await machine.go_alone(do.GoAlone("web", 7, 5, "x"))
    assert scene.started == ["free"]


@pytest.mark.parametrize("phase", ["peer-lost", "adopting", "free"])
async def test_a_takeover_that_an_earlier_agent_began_is_ended_by_the_next(scene: Scene, phase: str) -> None:
    comm = FakeComm(found=control.Status(phase, 7, 3, epoch=9))
    machine = scene.machine(comm, Role.STANDBY, 3)
    assert await machine.adopt() == {MODULE: ModuleStatus.RUNNING}
    machine.watch_adopted()
    taking = asyncio.create_task(machine.take_over(8))
    await asyncio.sleep(0.01)
    assert comm.told == ([control.Adopt(8)] if phase == "peer-lost" else [])
    if phase == "peer-lost":
        machine._heard(control.Adopted(9, 8, 30.0, 20.0))
    elif phase == "adopting":
        machine._heard(control.Status("free", 8, 3))
    await taking
    assert (machine.role, machine.generation) == (Role.PRIMARY, 8)


async def test_a_standby_that_failed_to_adopt_is_not_found_again(scene: Scene) -> None:
    comm = FakeComm(found=control.Status("failed", 7, 3, epoch=9))
    assert await scene.machine(comm, Role.STANDBY, 3).adopt() == {}


async def test_a_refused_adoption_fails_at_once(scene: Scene) -> None:
    machine = scene.machine(FakeComm("peer-lost"), Role.STANDBY, 3)
    taking = asyncio.create_task(machine.take_over(8))
    await asyncio.sleep(0.01)
    machine._heard(control.Refused("Adopt", "there is no whole epoch"))
    with pytest.raises(Failed) as failed:
        await taking
    assert failed.value.cause == "there is no whole epoch"


async def test_the_end_of_a_manager_that_adopts_is_the_end_of_the_takeover_and_of_nothing_else(scene: Scene) -> None:
    comm = FakeComm("adopting", found=None)
    machine = scene.machine(comm, Role.STANDBY, 3)
    taking = asyncio.create_task(machine.take_over(8))
    await asyncio.sleep(0.01)
    comm.dies(machine)
    with pytest.raises(Failed):
        await taking
    await asyncio.sleep(0.01)
    assert (scene.started, scene.told) == ([], [])
