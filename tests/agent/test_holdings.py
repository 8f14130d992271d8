"""Commands of one workload are done in order, tearing down breaks off, and what failed is let go of again."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from outlive.agent.durable import JournalKeeper
from outlive.agent.ground import Ground
from outlive.agent.holdings import Holdings
from outlive.agent.seating import Floor
from outlive.cluster import commands as do
from outlive.cluster import events as ev
from outlive.cluster.commands import Journal
from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.machine import Machine, Nic
from outlive.cluster.mirror import Mirror
from outlive.cluster.workload import Module, VirtualIP, Workload
from outlive.fence.guard import GuardRefused, Status
from outlive.network.address import VirtualAddress, complete, parse
from outlive.network.errors import AddressInUse
from outlive.runtime import cgroup
from outlive.runtime.service import Premises
from outlive.store.boot_clock import boot_time_s

WITHIN_S = 60.0
WEB = Workload("web", (Module("main", ("/usr/bin/sleep", "3600")),))
REACHED = Workload("web", WEB.modules, virtual_ips=(VirtualIP("10.0.0.9/24", "eth0"),))


@dataclass
class Watchman:
    """A guard that only remembers, and refuses when told."""

    held: dict[str, int] = field(default_factory=dict)
    refuses: str = ""
    deadline_at: float = field(default_factory=lambda: boot_time_s() + 600)

    async def protect(self, workload: str, generation: int, group: Path, addresses: tuple[str, ...]) -> None:
        if self.refuses:
            raise GuardRefused("PROTECT", self.refuses)
        self.held[workload] = generation

    async def release(self, workload: str, generation: int) -> None:
        self.held.pop(workload, None)

    def set_deadline(self, at: float) -> None:
        self.deadline_at = max(at, self.deadline_at)


@dataclass
class Street:
    """Addresses that nobody asks the kernel for. occupied: another machine answers for them."""

    here: set[VirtualAddress] = field(default_factory=set)
    occupied: bool = False
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def resolve(self, text: str, interface: str | None) -> VirtualAddress:
        return complete(parse(text, interface), ())

    async def refuse_duplicate(self, address: VirtualAddress) -> None:
        self.asked.set()
        await asyncio.sleep(0.01)
        if self.occupied:
            raise AddressInUse("Taken.")

    async def add(self, address: VirtualAddress, lifetime_s: float, *, counted_from_s: float) -> bool:
        self.here.add(address)
        return True

    async def remove(self, address: VirtualAddress) -> bool:
        self.here.discard(address)
        return True

    async def reconcile(self, expected: list[VirtualAddress]) -> tuple[VirtualAddress, ...]:
        gone = self.here - set(expected)
        self.here -= gone
        return tuple(gone)


class NoCards:
    """Wires of a host on which nothing has a network card."""

    async def plug(self, workload: str, generation: int, nic: Nic, *, live: bool) -> str:
        raise AssertionError("nothing here has a card")

    async def take(self, workload: str, age: tuple[int, int], machine: Machine) -> None:
        raise AssertionError("nothing here stands by")

    async def unplug(self, workload: str) -> None:
        pass


@dataclass
class Scene:
    holdings: Holdings
    guard: Watchman
    street: Street
    journal: JournalKeeper
    tree: cgroup.Tree
    folder: Path
    told: list[ev.Event]

    async def until_told(self, kind: type[Any], count: int = 1) -> Any:
        def found() -> list[ev.Event]:
            return [event for event in self.told if isinstance(event, kind)]

        await self.until(lambda: len(found()) >= count)
        return found()[-1]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    def nothing_is_left(self) -> bool:
        return not self.guard.held and not self.street.here and not self.tree.workload("web").exists()


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    mounts = cgroup.find_or_mount()
    assert mounts.unified is not None
    tree = cgroup.Tree(mounts.unified / f"outlive-test-{os.getpid()}-holdings", mounts)
    guard, street, journal, told = Watchman(), Street(), JournalKeeper(tmp_path), list[ev.Event]()
    keeping = asyncio.create_task(journal.run())
    try:
        async with asyncio.TaskGroup() as tasks:
            premises = Premises(tree, tmp_path / "states", tmp_path / "logs")
            folders = (tmp_path / "vms", tmp_path / "ram", tmp_path / "v")
            floor = Floor("c", "a", "127.0.0.1", *folders, NoCards())
            packages: Any = None
            ground = Ground("a", premises, floor, guard, {}, street, boot_time_s, tasks, Mirror, packages)  # type: ignore[arg-type]
            holdings = Holdings(ground, journal, told.append)
            yield Scene(holdings, guard, street, journal, tree, tmp_path, told)
            holdings.begin(do.TearDown("web", 1 << 40, "the end"), 0)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        if tree.root.is_dir():
            tree.root.rmdir()


async def test_a_workload_is_made_ready_runs_and_is_gone_without_a_trace(scene: Scene) -> None:
    begin = scene.holdings.begin
    begin(do.Prepare(REACHED, 3, "x"), 0)
    begin(do.StartModule("web", 3, "main", "x"), 0)
    changed = await scene.until_told(ev.ModuleChanged)
    assert (changed.status, changed.generation) == (ModuleStatus.RUNNING, 3)
    assert scene.guard.held == {"web": 3}
    assert {str(address) for address in scene.street.here} == {"10.0.0.9/24%eth0"}
    begin(do.TearDown("web", 3, "x"), 0)
    await scene.until_told(ev.TornDown)
    assert scene.nothing_is_left()
    assert [type(event) for event in scene.told] == [ev.Prepared, ev.ModuleChanged, ev.TornDown]


async def test_an_address_that_another_machine_has_is_not_taken_and_all_else_is_let_go_of(scene: Scene) -> None:
    scene.street.occupied = True
    scene.holdings.begin(do.Prepare(REACHED, 3, "x"), 0)
    failed = await scene.until_told(ev.PrepareFailed)
    assert (failed.step, failed.reason) == ("address", "Taken.")
    assert scene.nothing_is_left()


@pytest.mark.parametrize(
    ("change", "step"),
    [
        (lambda scene: setattr(scene.guard, "refuses", "expired the deadline has passed"), "guard"),
        (lambda scene: (scene.folder / "states").touch(), "state"),
    ],
)
async def test_the_step_that_failed_is_told(scene: Scene, change: Callable[[Scene], None], step: str) -> None:
    change(scene)
    scene.holdings.begin(do.Prepare(WEB, 3, "x"), 0)
    assert (await scene.until_told(ev.PrepareFailed)).step == step
    assert scene.nothing_is_left()


async def test_nothing_is_made_ready_before_the_journal_is_durable(scene: Scene) -> None:
    scene.journal._folder = scene.folder / "missing"
    scene.journal.save(Journal("run1"))
    scene.holdings.begin(do.Prepare(WEB, 3, "x"), scene.journal.handed)
    failed = await scene.until_told(ev.PrepareFailed)
    assert failed.step == "journal"
    assert scene.guard.held == {}


async def test_a_datastore_that_this_host_does_not_have_is_told(scene: Scene) -> None:
    scene.holdings.begin(do.Prepare(Workload("web", WEB.modules, data_on="elsewhere"), 3, "x"), 0)
    failed = await scene.until_told(ev.PrepareFailed)
    assert failed.reason == "this host has no datastore elsewhere"


async def test_tearing_down_breaks_off_what_is_under_way_and_drops_what_waits(scene: Scene) -> None:
    scene.street.occupied = True
    scene.holdings.begin(do.Prepare(REACHED, 3, "x"), 0)
    scene.holdings.begin(do.StartModule("web", 3, "main", "x"), 0)
    await scene.street.asked.wait()
    scene.holdings.begin(do.TearDown("web", 3, "x"), 0)
    await scene.until_told(ev.TornDown)
    assert scene.nothing_is_left()
    assert [type(event) for event in scene.told] == [ev.TornDown]


async def test_a_newer_generation_lets_go_of_the_older_first(scene: Scene) -> None:
    begin = scene.holdings.begin
    for generation in (3, 4):
        begin(do.Prepare(WEB, generation, "x"), 0)
        begin(do.StartModule("web", generation, "main", "x"), 0)
        await scene.until_told(ev.ModuleChanged, generation - 2)
    assert scene.guard.held == {"web": 4}
    assert len((scene.tree.module("web", "main") / "cgroup.procs").read_text().split()) == 1
    begin(do.TearDown("web", 3, "late"), 0)
    await scene.until_told(ev.TornDown)
    assert scene.guard.held == {"web": 4}


async def test_tearing_down_what_is_not_here_is_told_too(scene: Scene) -> None:
    scene.holdings.begin(do.TearDown("web", 3, "x"), 0)
    assert (await scene.until_told(ev.TornDown)).generation == 3


async def test_a_module_is_not_started_without_its_workload_being_ready(scene: Scene) -> None:
    scene.holdings.begin(do.StartModule("web", 3, "main", "x"), 0)
    changed = await scene.until_told(ev.ModuleChanged)
    assert (changed.status, changed.reason) == (ModuleStatus.FAILED, "it is not ready to act here")


async def test_nothing_is_started_once_the_claim_has_ended(scene: Scene) -> None:
    scene.holdings.begin(do.Prepare(WEB, 3, "x"), 0)
    await scene.until_told(ev.Prepared)
    scene.guard.deadline_at = boot_time_s() - 1
    scene.holdings.begin(do.StartModule("web", 3, "main", "x"), 0)
    changed = await scene.until_told(ev.ModuleChanged)
    assert changed.status is ModuleStatus.FAILED
    assert "claim has ended" in changed.reason


async def test_what_nobody_adopts_is_cleared_away(scene: Scene) -> None:
    left = scene.tree.module("forgotten", "main")
    left.mkdir(parents=True)
    scene.street.here.add(complete(parse("10.0.0.7/24%eth0"), ()))
    sleeper = await asyncio.create_subprocess_exec("sleep", "600")
    (left / "cgroup.procs").write_text(str(sleeper.pid))
    assert await scene.holdings.adopt(None, Status(boot_time_s(), 0.0, ())) == {}
    assert await sleeper.wait() == -9
    assert not scene.tree.workload("forgotten").exists()
    assert scene.street.here == set()


@pytest.mark.parametrize(
    ("generation", "moving_to", "heard"), [(7, "b", ["hold 4"]), (7, None, ["release 4"]), (6, "b", []), (8, None, [])]
)
async def test_a_machine_hears_of_its_own_moves_alone(
    scene: Scene, generation: int, moving_to: str | None, heard: list[str]
) -> None:
    said: list[str] = []

    async def hold(pairing: int) -> None:
        said.append(f"hold {pairing}")

    def release(pairing: int) -> None:
        said.append(f"release {pairing}")

    record = SimpleNamespace(generation=generation, pairing=4, moving_to=moving_to)
    machine = SimpleNamespace(hold_checkpoints=hold, release_checkpoints=release)
    async with asyncio.TaskGroup() as tasks:
        picture = SimpleNamespace(placements={"web": SimpleNamespace(record=record)})
        ground: Any = SimpleNamespace(tasks=tasks, picture=lambda: picture)
        holdings = Holdings(ground, scene.journal, scene.told.append)
        held: dict[str, Any] = holdings._held
        held["web"] = SimpleNamespace(name="web", generation=7, in_force=True, machine=machine)
        holdings.placements_moved()
    assert said == heard
