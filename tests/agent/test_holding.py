"""What an agent was in the middle of taking over is found by the next one, and nothing that is not sure is."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from outlive.agent import holding as holdings
from outlive.agent.holding import Holding
from outlive.agent.holdings import _is_of
from outlive.agent.note import Note, write_note
from outlive.cluster.commands import Held, Role
from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.machine import MODULE, Disk, Machine
from outlive.cluster.records import Stage
from outlive.cluster.workload import Kind, Module, Protection, Workload
from outlive.datastore import locks
from outlive.datastore.locks import Record
from outlive.fence.guard import Entry

HOT = Workload("web", (Module(MODULE, ()),), Kind.VM, Protection.HOT, machine=Machine())
COLD = Workload(
    "web", HOT.modules, Kind.VM, Protection.COLD, machine=Machine(disks=(Disk("d", on="shared", size_mib=8),))
)
ALIVE = {MODULE: ModuleStatus.RUNNING}


class Runtime:
    """A machine that is found alive."""

    def __init__(self, *_: object) -> None:
        self.data: Mapping[str, Path] = {}

    async def adopt(self) -> dict[str, ModuleStatus]:
        return ALIVE


def entry(generation: int, folder: Path) -> Entry:
    return Entry("web", generation, "protected", 0.0, folder, ())


def held(workload: Workload, role: Role, ended: Stage | None = None) -> Held:
    return Held(workload, 7, 1, {}, "x", ended=ended, role=role, pairing=3)


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    class Taken:
        def __init__(self, generation: int) -> None:
            self.generation = generation

        async def lost(self) -> None:
            pass

    async def adopt(state: Path, record: Record) -> Taken | None:
        return Taken(record.generation) if await asyncio.to_thread(state.exists) else None

    monkeypatch.setattr(holdings, "MachineRuntime", Runtime)
    monkeypatch.setattr(locks, "adopt", adopt)
    kept: dict[str, int] = {}
    return SimpleNamespace(
        host="b", premises=SimpleNamespace(states=tmp_path), floor=None, clock=None, tasks=FakeTasks(),
        kept=kept,
        guard=SimpleNamespace(adopt=lambda name, one: kept.__setitem__(name, one.generation)),
    )  # fmt: skip


class FakeTasks:
    def create_task(self, work: Any) -> None:
        work.close()


def found(workload: Workload, ground: Any, role: Role) -> Holding:
    return Holding(workload, 7, ground, lambda *_: None, lambda _: None, role, 3)


@pytest.mark.parametrize("left", [Note(7, {}, (), Role.STANDBY, 3), Note(8, {}, (), Role.PRIMARY, 3)])
async def test_a_standby_that_was_taking_over_is_one_still_under_the_next_generations_guard(
    ground: Any, tmp_path: Path, left: Note
) -> None:
    write_note(tmp_path / "web", left)
    one = found(HOT, ground, Role.STANDBY)
    assert await one.adopt(held(HOT, Role.STANDBY), entry(8, tmp_path)) == ALIVE
    assert (one.role, one.generation, one.pairing, one.in_force) == (Role.STANDBY, 7, 3, False)
    assert ground.kept == {"web": 8}


@pytest.mark.parametrize("taken", [False, True])
async def test_the_target_of_a_move_that_was_taking_over_has_its_run_lock_if_it_was_taken(
    ground: Any, tmp_path: Path, taken: bool
) -> None:
    write_note(tmp_path / "web", Note(8, {"shared": "/s"}, (), Role.PRIMARY, 3))
    if taken:
        (tmp_path / "web" / "lock").touch()
    one = found(COLD, ground, Role.INCOMING)
    assert await one.adopt(held(COLD, Role.INCOMING), entry(8, tmp_path)) == ALIVE
    assert (one.lock is not None, one.role, one.in_force) == (taken, Role.INCOMING, False)


@pytest.mark.parametrize(
    "left", [None, Note(8, {}, (), Role.STANDBY, 3), Note(9, {}, (), Role.PRIMARY, 3), Note(7, {}, (), Role.PRIMARY)]
)
async def test_what_the_note_does_not_bear_out_is_not_taken_over(
    ground: Any, tmp_path: Path, left: Note | None
) -> None:
    if left is not None:
        write_note(tmp_path / "web", left)
    assert await found(HOT, ground, Role.STANDBY).adopt(held(HOT, Role.STANDBY), entry(8, tmp_path)) == {}


def test_only_a_standby_or_a_target_may_be_one_generation_ahead_of_the_journal(tmp_path: Path) -> None:
    for role in Role:
        assert _is_of(entry(7, tmp_path), held(HOT, role))
        assert _is_of(entry(8, tmp_path), held(HOT, role)) is (role is not Role.PRIMARY)
        assert not _is_of(entry(8, tmp_path), held(HOT, role, Stage.FAILED))
        assert not _is_of(entry(9, tmp_path), held(HOT, role))
        assert not _is_of(entry(6, tmp_path), held(HOT, role))
