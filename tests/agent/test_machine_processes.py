"""A machine is said to run only once all of it does, and what dies is replaced only where nothing was held back."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from outlive.agent import machine_processes
from outlive.agent.comm import CommFailed
from outlive.agent.machine_events import MachineEvents
from outlive.agent.machine_processes import OPENED_TRIES, Processes
from outlive.agent.standing import Standing
from outlive.cluster import events as ev
from outlive.cluster.commands import Role
from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.machine import MODULE
from outlive.cluster.workload import Workload
from outlive.errors import Failed
from outlive.replication import control
from outlive.runtime import cgroup
from outlive.runtime.vm.states import GuestState
from outlive.runtime.vm.vm import Noted

from .machine_scene import AT, COLD, HOT

POWERED_OFF = Noted("guest.powered-off", "the guest is powered off")
RUNNING = (MODULE, ModuleStatus.RUNNING, "")


@dataclass
class Qemu:
    """QEMU as its machine sees it: it says that it runs as soon as it was started."""

    told: Any
    ready: bool = True
    pid: int | None = 1
    seat: Any = None
    state: GuestState = GuestState.RUNNING
    button: Callable[[], None] = lambda: None

    async def start(self, module: str) -> None:
        if self.ready:
            self.told(module, ModuleStatus.RUNNING, "")
        else:
            self.pid = None
            self.told(module, ModuleStatus.FAILED, "no memory")

    async def adopt(self) -> dict[str, ModuleStatus]:
        return {MODULE: ModuleStatus.RUNNING}

    async def stop(self) -> None:
        self.button()
        self.pid = None


@dataclass
class Manager:
    """A communication manager that is started, or refuses to be.

    takes: until then its start takes.
    """

    said: list[str]
    fails: bool = False
    runs: bool = False
    takes: asyncio.Event | None = None
    phase: str = ""
    state_dir: Path = Path("/nowhere")

    async def start(self, _: object) -> control.Status:
        self.runs = False
        if self.takes is not None:
            await self.takes.wait()
        if self.fails:
            raise CommFailed("It does not answer.")
        self.runs = True
        self.said.append("manager")
        return control.Status("free", 7, 3)

    async def end(self) -> None:
        self.runs = False

    def follow(self) -> None:
        pass


@dataclass
class Begun:
    """What a machine is started from. layers: whether the disks' layers stand, each time that this is asked."""

    layers: list[bool] = field(default_factory=list)
    ready: bool = True
    resumes: bool = False
    vms: list[Qemu] = field(default_factory=list)

    async def seat(self) -> None:
        pass

    async def on_layers(self, seat: object) -> object:
        return seat

    async def finish_disks(self) -> None:
        pass

    async def mark_made(self) -> None:
        pass

    async def layers_stand(self) -> bool:
        return self.layers.pop(0) if self.layers else True

    def vm(self, _: object, told: Any, noted: object) -> Qemu:
        self.vms.append(Qemu(told, self.ready))
        return self.vms[-1]

    async def adopted_vm(self, told: Any, noted: object) -> Qemu:
        return self.vm(None, told, noted)

    async def comm_config(self, *_: object) -> None:
        pass


@dataclass
class Scene:
    """said: what was done and told, in order."""

    said: list[Any] = field(default_factory=list)
    told: list[ev.Event] = field(default_factory=list)

    def processes(
        self,
        folder: Path,
        begun: Begun,
        workload: Workload = HOT,
        role: Role = Role.PRIMARY,
        *,
        fails: bool = False,
        tasks: asyncio.TaskGroup | None = None,
    ) -> Processes:
        standing = Standing("web", 7, 3, role, "10.0.0.1")
        events = MachineEvents(standing, lambda: AT, lambda *told: self.said.append(told), self.told.append)
        tree = cgroup.Tree(folder / "groups", cgroup.find_or_mount())
        premises = SimpleNamespace(tree=tree, states=folder)
        ground: Any = SimpleNamespace(premises=premises, tasks=tasks, may_act=lambda: False)
        starts: Any = begun
        made = Processes(workload, {}, ground, standing, starts, events, lambda _: None)
        made.comm = Manager(self.said, fails)  # type: ignore[assignment]
        return made


def dies(processes: Processes) -> Manager:
    comm = processes.comm
    assert isinstance(comm, Manager)
    comm.runs = False
    return comm


async def test_that_it_runs_is_told_once_its_manager_is_there(tmp_path: Path) -> None:
    scene = Scene()
    processes = scene.processes(tmp_path, Begun())
    await processes.start(MODULE)
    assert (scene.said, processes.starting) == (["manager", RUNNING], False)


async def test_a_cold_machine_has_no_manager(tmp_path: Path) -> None:
    scene = Scene()
    await scene.processes(tmp_path, Begun(), COLD).start(MODULE)
    assert scene.said == [RUNNING]


async def test_without_a_manager_nothing_runs(tmp_path: Path) -> None:
    scene = Scene()
    begun = Begun()
    processes = scene.processes(tmp_path, begun, fails=True)
    with pytest.raises(CommFailed) as failed:
        await processes.start(MODULE)
    await processes.fail(str(failed.value))
    assert begun.vms[0].pid is None
    assert scene.said == [(MODULE, ModuleStatus.FAILED, "It does not answer.")]


async def test_a_manager_that_ends_before_the_machine_runs_is_the_end_of_that_start(tmp_path: Path) -> None:
    scene = Scene()
    processes = scene.processes(tmp_path, Begun())
    processes.starting = True
    processes.manager_ended("killed", replace_it=True)
    assert (scene.said, processes.starting) == ([(MODULE, ModuleStatus.FAILED, "killed")], False)


async def test_a_manager_is_replaced_by_one_however_many_ask_for_that(tmp_path: Path) -> None:
    scene = Scene()
    async with asyncio.TaskGroup() as tasks:
        processes = scene.processes(tmp_path, Begun(), tasks=tasks)
        await processes.start(MODULE)
        comm = dies(processes)
        comm.takes = asyncio.Event()
        processes.manager_ended("killed", replace_it=True)
        processes.revive_soon()
        also = asyncio.create_task(processes.revive())
        await asyncio.sleep(0)
        comm.takes.set()
        await asyncio.gather(also, processes.revived())
    assert scene.said.count("manager") == 2


async def test_a_manager_that_dies_as_soon_as_it_was_replaced_is_replaced_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene()
    async with asyncio.TaskGroup() as tasks:
        processes = scene.processes(tmp_path, Begun(), tasks=tasks)
        deaths = [True, False]

        async def resume() -> None:
            if deaths.pop(0):
                dies(processes)
                processes.manager_ended("killed", replace_it=True)

        monkeypatch.setattr(processes, "_resume", resume)
        await processes.start(MODULE)
        dies(processes)
        processes.manager_ended("killed", replace_it=True)
    assert processes.comm.runs
    assert scene.said.count("manager") == 3


async def test_a_machine_goes_on_without_a_manager_while_none_is_wanted_even_if_one_was_just_being_replaced(
    tmp_path: Path,
) -> None:
    scene = Scene()
    begun = Begun()
    async with asyncio.TaskGroup() as tasks:
        processes = scene.processes(tmp_path, begun, tasks=tasks)
        await processes.start(MODULE)
        comm = dies(processes)
        comm.takes = asyncio.Event()
        processes.manager_ended("killed", replace_it=True)
        await asyncio.sleep(0)
        without = asyncio.create_task(processes.unmanage())
        await asyncio.sleep(0)
        comm.takes.set()
        assert await without
        processes.manager_ended("killed", replace_it=True)
        await processes.revived()
        assert (comm.runs, begun.vms[0].pid) == (False, 1)
        await processes.revive()
        assert comm.runs
    assert [told for told in scene.said if told != RUNNING] == ["manager"] * 3


async def test_a_machine_that_is_being_started_keeps_its_manager(tmp_path: Path) -> None:
    processes = Scene().processes(tmp_path, Begun())
    await processes.start(MODULE)
    processes.starting = True  # as until it has gone on from its checkpoint
    assert not await processes.unmanage()
    assert processes.comm.runs


async def test_a_machine_that_is_to_stop_gets_no_manager_any_more(tmp_path: Path) -> None:
    scene = Scene()
    async with asyncio.TaskGroup() as tasks:
        processes = scene.processes(tmp_path, Begun(), tasks=tasks)
        await processes.start(MODULE)
        dies(processes).takes = asyncio.Event()
        processes.manager_ended("killed", replace_it=True)
        await asyncio.sleep(0)
        await processes.revive_no_more()
        processes.revive_soon()
        processes.manager_ended("killed", replace_it=True)
    assert scene.said == ["manager", RUNNING]


async def test_a_standby_that_waits_is_started_anew_when_its_disks_got_new_layers(tmp_path: Path) -> None:
    scene = Scene()
    begun = Begun([False, True])
    await scene.processes(tmp_path, begun, role=Role.STANDBY).start_waiting()
    assert [vm.pid for vm in begun.vms] == [None, 1]
    assert (scene.said, scene.told) == (["manager"], []), "who only waits does not run"


async def test_a_standby_whose_disks_never_keep_their_layers_is_given_up_with_nothing_left_of_it(
    tmp_path: Path,
) -> None:
    begun = Begun([False] * 9)
    processes = Scene().processes(tmp_path, begun, role=Role.INCOMING)
    with pytest.raises(CommFailed):
        await processes.start_waiting()
    assert (processes.vm, [vm.pid for vm in begun.vms]) == (None, [None] * OPENED_TRIES)


async def test_a_machine_of_which_nothing_runs_gets_no_manager(tmp_path: Path) -> None:
    class Unlayered(Begun):
        async def on_layers(self, seat: object) -> object:
            if self.vms:
                raise Failed("The datastore does not answer.")
            return seat

    scene = Scene()
    processes = scene.processes(tmp_path, Unlayered())
    await processes.start(MODULE)
    with pytest.raises(Failed):
        await processes.start(MODULE)
    await processes.revive()
    assert scene.said == ["manager", RUNNING]


async def test_a_standby_that_ends_before_it_waits_is_raised_with_its_reason_and_gets_no_manager(
    tmp_path: Path,
) -> None:
    scene = Scene()
    with pytest.raises(CommFailed) as failed:
        await scene.processes(tmp_path, Begun(ready=False), role=Role.STANDBY).start_waiting()
    assert failed.value.cause == "no memory"
    assert (scene.said, scene.told) == ([], []), "who is told that it failed would be told twice"


@pytest.mark.parametrize("adopted", [False, True])
async def test_a_standby_that_ends_once_it_waited_is_told_once(tmp_path: Path, *, adopted: bool) -> None:
    scene = Scene()
    begun = Begun()
    processes = scene.processes(tmp_path, begun, role=Role.STANDBY)
    await (processes.adopt_vm() if adopted else processes.start_waiting())
    begun.vms[0].told(MODULE, ModuleStatus.FAILED, "killed")
    assert scene.told == [ev.StandbyFailed(AT, "web", 7, 3, "killed")]


@pytest.mark.parametrize(
    ("heeds", "at_once", "notes"), [(True, False, True), (False, False, True), (True, True, False)]
)
async def test_a_warm_guest_that_was_to_stop_is_noted_as_shut_down_and_one_that_was_killed_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, heeds: bool, at_once: bool, notes: bool
) -> None:
    written: list[str] = []
    killed: list[Path] = []

    async def note(*_: object) -> None:
        await asyncio.sleep(0)
        written.append("noted")

    monkeypatch.setattr(machine_processes, "note_shut_down", note)
    monkeypatch.setattr(machine_processes, "is_warm", lambda _: True)
    monkeypatch.setattr(cgroup, "kill", killed.append)
    begun = Begun()
    async with asyncio.TaskGroup() as tasks:
        processes = Scene().processes(tmp_path, begun, COLD, tasks=tasks)
        await processes.start(MODULE)
        begun.vms[0].button = lambda: None if killed or not heeds else processes._noted(POWERED_OFF)
        await processes.stop(at_once=at_once)
        assert bool(written) == notes, "it is for the reign to come, so it is written before this one has ended"
    assert bool(killed) == at_once
