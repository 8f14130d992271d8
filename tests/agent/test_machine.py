"""A manager's death lets nothing out that it may have held, and what an agent began to take over the next one ends."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from outlive.agent import machine as machines
from outlive.agent import warm_start
from outlive.agent.comm import Ended
from outlive.agent.ground import Ground
from outlive.agent.machine import MachineRuntime
from outlive.agent.seating import Floor
from outlive.cluster import commands as do
from outlive.cluster import events as ev
from outlive.cluster.commands import Role
from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.machine import MODULE, Machine, WarmPolicy
from outlive.cluster.mirror import Mirror
from outlive.cluster.workload import Kind, Module, Protection, Workload
from outlive.errors import Failed
from outlive.replication import control
from outlive.replication.checkpoint import Hardware
from outlive.runtime import cgroup
from outlive.runtime.base import Whereabouts
from outlive.runtime.service import Premises

from .test_holdings import WITHIN_S, NoCards

HOT = Workload("web", (Module(MODULE, ()),), Kind.VM, Protection.HOT, machine=Machine())
PAIR = do.Pair("web", 7, 3, "b", "10.0.0.2", 4000, "x")
AT = 3.5
FACTS: Any = SimpleNamespace(account=None)
HARDWARE = Hardware("7.2", "pc", "qemu64", "tcg", 1, 64, ())


@dataclass
class FakeComm:
    """A manager as its agent sees it, and what it was told. found: what it says to an agent that finds it."""

    phase: str = "free"
    runs: bool = True
    found: control.Status | None = None
    told: list[control.Command] = field(default_factory=list)

    async def send(self, command: control.Command) -> None:
        self.told.append(command)

    async def adopt(self) -> control.Status | None:
        if self.found is not None:
            self.phase = self.found.phase
        self.runs = self.found is not None
        return self.found

    async def end(self) -> None:
        self.runs = False

    def follow(self) -> None:
        pass

    def dies(self, machine: MachineRuntime) -> None:
        self.runs = False
        machine._heard(Ended("it was killed", self.phase))


class Wires(NoCards):
    async def take(self, workload: str, age: tuple[int, int], machine: Machine) -> None:
        pass


@dataclass
class Scene:
    tasks: asyncio.TaskGroup
    folder: Path
    told: list[ev.Event] = field(default_factory=list)
    started: list[str] = field(default_factory=list)

    def machine(
        self, comm: FakeComm, role: Role = Role.PRIMARY, pairing: int = 2, workload: Workload = HOT
    ) -> MachineRuntime:
        tree = cgroup.Tree(self.folder / "groups", cgroup.find_or_mount())
        premises = Premises(tree, self.folder / "states", self.folder / "logs")
        floor = Floor("c", "a", "10.0.0.1", self.folder, self.folder, self.folder, Wires())
        anything: Any = SimpleNamespace(deadline_at=AT + 1)
        ground = Ground("a", premises, floor, anything, {}, anything, lambda: AT, self.tasks, Mirror)
        where = Whereabouts("a", "web", 7, None, ())
        made = MachineRuntime(workload, where, role, pairing, {}, ground, lambda *_: None, self.told.append)
        made._comm = comm  # type: ignore[assignment]
        made._vm = FakeVm()  # type: ignore[assignment]

        async def start_comm(*_: object) -> None:
            self.started.append("free")
            comm.phase, comm.runs = "free", True

        async def resume() -> None:
            pass

        made._start_comm, made._resume = start_comm, resume  # type: ignore[assignment, method-assign]
        made._make = lambda _: made._vm  # type: ignore[assignment, method-assign, return-value]
        return made

    def lost(self) -> list[int]:
        return [event.pairing for event in self.told if isinstance(event, ev.PeerLost)]


class FakeVm:
    pid = 1
    seat = SimpleNamespace()

    async def adopt(self) -> dict[str, ModuleStatus]:
        return {MODULE: ModuleStatus.RUNNING}

    def watch_adopted(self) -> None:
        pass


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(machines, "seat_of", lambda *_: None)
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as tasks:
        yield Scene(tasks, tmp_path)


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


async def test_a_move_that_cannot_begin_is_told_and_harms_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    comm = FakeComm()
    machine = scene.machine(comm, workload=replace(HOT, protection=Protection.WARM))

    async def hangs(*_: object) -> bool:
        raise Failed("The datastore of the checkpoints does not answer.")

    monkeypatch.setattr(machines, "same_disks", hangs)
    await machine.migrate(do.MigrateTo("web", 7, 3, "b", "10.0.0.2", 4000, "x"))
    (event,) = scene.told
    assert isinstance(event, ev.MigrationFailed)
    assert "does not answer" in event.reason
    assert (scene.started, machine.move) == (["free"], None)


async def test_a_new_agent_knows_what_to_tell_a_warm_machines_next_manager(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm = replace(HOT, protection=Protection.WARM, warm=WarmPolicy(on="shared"))
    machine = scene.machine(FakeComm(found=control.Status("free", 7, 0)), workload=warm)
    machine._data = {"shared": scene.folder / "data" / "web"}
    machine._ground = replace(machine._ground, floor=replace(machine._ground.floor, facts=FACTS))
    monkeypatch.setattr(warm_start, "_hardware", lambda *_: HARDWARE)
    monkeypatch.setattr(machines, "lock_path", lambda *_: None)
    assert await machine.adopt()
    assert machine._warm is not None
    assert (machine._warm.values.datastore, machine._warm.values.hardware) == (str(scene.folder), HARDWARE)
    assert (machine._warm.values.resume, machine._warm.resumes) == (None, False)
