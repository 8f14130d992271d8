"""One machine of which nothing runs: QEMU and the communication manager are as a test wants them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from outlive.agent import machine_start
from outlive.agent.comm import Ended
from outlive.agent.ground import Ground
from outlive.agent.machine import MachineRuntime
from outlive.agent.seating import Floor
from outlive.cluster import events as ev
from outlive.cluster.commands import Role
from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.machine import MODULE, Machine
from outlive.cluster.mirror import Mirror
from outlive.cluster.workload import Kind, Module, Protection, Workload
from outlive.replication import control
from outlive.runtime import cgroup
from outlive.runtime.base import Whereabouts
from outlive.runtime.service import Premises

from .test_holdings import WITHIN_S, NoCards

HOT = Workload("web", (Module(MODULE, ()),), Kind.VM, Protection.HOT, machine=Machine())
COLD = replace(HOT, protection=Protection.COLD)
AT = 3.5
FACTS: Any = SimpleNamespace(account=None)


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
        self,
        comm: FakeComm,
        role: Role = Role.PRIMARY,
        pairing: int = 2,
        workload: Workload = HOT,
        data: dict[str, Path] | None = None,
    ) -> MachineRuntime:
        tree = cgroup.Tree(self.folder / "groups", cgroup.find_or_mount())
        premises = Premises(tree, self.folder / "states", self.folder / "logs")
        floor = Floor("c", "a", "10.0.0.1", self.folder, self.folder, self.folder, Wires(), FACTS)
        anything: Any = SimpleNamespace(deadline_at=AT + 1)
        ground = Ground("a", premises, floor, anything, {}, anything, lambda: AT, self.tasks, Mirror, anything)
        where = Whereabouts("a", "web", 7, None, ())
        made = MachineRuntime(workload, where, role, pairing, data or {}, ground, lambda *_: None, self.told.append)
        processes = made._processes
        processes.comm = comm  # type: ignore[assignment]
        processes.vm = FakeVm()  # type: ignore[assignment]

        async def start_comm(*_: object) -> None:
            self.started.append("free")
            comm.phase, comm.runs = "free", True

        async def resume() -> None:
            pass

        processes._start_comm, processes._resume = start_comm, resume  # type: ignore[assignment, method-assign]
        processes._starts.vm = lambda *_: processes.vm  # type: ignore[assignment, method-assign]
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
    monkeypatch.setattr(machine_start, "seat_of", lambda *_: None)
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as tasks:
        yield Scene(tasks, tmp_path)
