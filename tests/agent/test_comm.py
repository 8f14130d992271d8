"""A communication manager is started, found again and ended; one that hangs or talks nonsense counts as ended."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from outlive.agent import comm
from outlive.agent.comm import Comm, Ended, phase_after
from outlive.errors import OutliveError
from outlive.replication import control
from outlive.replication.comm_config import CommConfig
from outlive.runtime import cgroup
from outlive.runtime.base import BASE_ENVIRONMENT
from outlive.runtime.service import Premises

from .test_holdings import WITHIN_S

FAKE = Path(__file__).with_name("comm_fake.py")


@dataclass
class Scene:
    premises: Premises
    tasks: asyncio.TaskGroup
    folder: Path
    heard: list[control.Event | Ended]
    how: str = "well"

    def comm(self) -> Comm:
        return Comm("web", self.premises, self.tasks, self.heard.append)

    def config(self) -> CommConfig:
        return CommConfig(
            "primary", "c", "a", "web", 7, 3, str(comm.state_dir(self.premises, "web")), "/qmp", 1, "/ram", 4096, "/p"
        )  # fmt: skip

    @property
    def pids(self) -> list[int]:
        procs = self.premises.tree.module("web", comm.MODULE) / "cgroup.procs"
        return [int(line) for line in procs.read_text().split()]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def until_ended(self) -> Ended:
        await self.until(lambda: bool(self.heard) and isinstance(self.heard[-1], Ended))
        last = self.heard[-1]
        assert isinstance(last, Ended)
        assert self.pids == []
        return last

    def told(self) -> list[control.Command]:
        path = comm.state_dir(self.premises, "web") / "heard"
        return [control.decode_command(line) for line in path.read_bytes().splitlines()] if path.exists() else []


async def agent_ended(one: Comm) -> None:
    """Leave it, and close its connection as the kernel does for a process that ends."""
    one.leave()
    await one._unfollow()


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    mounts = cgroup.find_or_mount()
    assert mounts.unified is not None
    tree = cgroup.Tree(mounts.unified / f"outlive-test-{os.getpid()}-comm", mounts)
    tree.make("web", [comm.MODULE])
    async with asyncio.TaskGroup() as tasks:
        made = Scene(Premises(tree, tmp_path / "states", tmp_path / "logs"), tasks, tmp_path, [])

        def command_line(python: str, config: Path) -> list[str]:
            return [sys.executable, str(FAKE), str(config), made.how]

        monkeypatch.setattr(control, "command_line", command_line)
        monkeypatch.setattr(comm, "SILENT_S", WITHIN_S)
        monkeypatch.setattr(comm, "BASE_ENVIRONMENT", {**BASE_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(sys.path)})
        try:
            yield made
        finally:
            cgroup.kill(tree.root)
            await cgroup.wait_empty(tree.root, WITHIN_S)
            await tree.remove("web", WITHIN_S)
            tree.root.rmdir()


async def test_it_is_started_told_and_ended_without_a_trace(scene: Scene) -> None:
    one = scene.comm()
    assert not one.runs
    assert (await one.start(scene.config())).phase == "free"
    one.follow()
    await one.send(control.Pair("b", "10.0.0.2", 4000, 7, 4))
    await scene.until(lambda: one.phase == "paired")
    assert scene.heard == [control.Seeding(0, 9, 1), control.Paired(1, 7, 4)]
    await one.end()
    assert (scene.pids, one.runs, one.phase) == ([], False, "")
    # An end that was asked for is no news.
    await asyncio.sleep(0.05)
    assert len(scene.heard) == 2
    await one.end()


async def test_one_that_is_killed_is_told_with_the_phase_that_it_was_in(scene: Scene) -> None:
    one = scene.comm()
    await one.start(scene.config())
    one.follow()
    await one.send(control.Pair("b", "10.0.0.2", 4000, 7, 4))
    await scene.until(lambda: one.phase == "paired")
    for pid in scene.pids:
        os.kill(pid, signal.SIGKILL)
    assert (await scene.until_ended()).phase == "paired"
    assert (one.runs, one.phase) == (False, "")
    with pytest.raises(control.ManagerUnreachable):
        await one.send(control.Alone(5))
    # And another can be started in its place.
    assert (await one.start(scene.config())).phase == "free"
    await one.end()


@pytest.mark.parametrize(
    ("how", "phase"),
    [
        ("hangs", "seeding"),
        ("garbled", "free"),
        ("half a line", "free"),
        ("endless line", "free"),
        # What it failed in says what it may have held back.
        ("fails", "paired"),
    ],
)
async def test_one_that_goes_wrong_is_ended_like_one_that_died(
    scene: Scene, how: str, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.how = how
    if how == "hangs":
        monkeypatch.setattr(comm, "SILENT_S", 0.4)
    one = scene.comm()
    await one.start(scene.config())
    assert scene.heard == []
    one.follow()
    ended = await scene.until_ended()
    assert ended.phase == phase
    assert ended.reason


async def test_one_that_is_silent_and_answers_when_asked_lives(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comm, "SILENT_S", 1.0)
    one = scene.comm()
    await one.start(scene.config())
    one.follow()
    await scene.until(lambda: scene.heard.count(control.Status("free", 7, 3)) >= 2)
    assert one.runs
    assert control.AskStatus() in scene.told()
    await one.end()


@pytest.mark.parametrize("how", ["mute", "ends at once", "garbled from the start", "begins in the middle"])
async def test_one_that_never_begins_is_told_and_leaves_nothing(
    scene: Scene, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.how = how
    connect = control.Manager.connect
    monkeypatch.setattr(control.Manager, "connect", lambda path: connect(path, within_s=1.0))
    one = scene.comm()
    with pytest.raises(OutliveError):
        await one.start(scene.config())
    assert (scene.pids, one.runs) == ([], False)


async def test_what_it_started_ends_with_it(scene: Scene) -> None:
    scene.how = "leaves a child"
    one = scene.comm()
    await one.start(scene.config())
    assert len(scene.pids) == 2
    await one.end()
    assert scene.pids == []


async def test_the_next_agent_finds_it_as_it_runs(scene: Scene) -> None:
    first, second = scene.comm(), scene.comm()
    await first.start(scene.config())
    first.follow()
    pids = scene.pids
    await agent_ended(first)
    assert await second.adopt() == control.Status("free", 7, 3)
    second.follow()
    await second.send(control.Pair("b", "10.0.0.2", 4000, 7, 4))
    await scene.until(lambda: second.phase == "paired")
    assert scene.pids == pids
    await second.end()


async def test_the_next_agent_finds_none_where_it_ended_or_never_was(scene: Scene) -> None:
    assert await scene.comm().adopt() is None
    first = scene.comm()
    await first.start(scene.config())
    await agent_ended(first)
    for pid in scene.pids:
        os.kill(pid, signal.SIGKILL)
    await scene.until(lambda: not scene.pids)
    second = scene.comm()
    assert await second.adopt() is None
    assert not second.runs


async def test_the_next_agent_ends_one_that_does_not_answer(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    first = scene.comm()
    await first.start(scene.config())
    await agent_ended(first)
    for pid in scene.pids:
        os.kill(pid, signal.SIGSTOP)
    connect = control.Manager.connect
    monkeypatch.setattr(control.Manager, "connect", lambda path: connect(path, within_s=0.5))
    second = scene.comm()
    assert await second.adopt() is None
    assert scene.pids == []


async def test_a_newer_one_takes_the_place_of_what_is_left_of_an_older(scene: Scene) -> None:
    scene.how = "leaves a child"
    first = scene.comm()
    await first.start(scene.config())
    old = scene.pids
    await agent_ended(first)
    second = scene.comm()
    await second.start(scene.config())
    assert not set(old) & set(scene.pids)
    await second.end()


LOST = control.PeerLost("silence", 150.0, 3, 7, 3)


@pytest.mark.parametrize(
    ("phase", "event", "then"),
    [
        ("free", control.Seeding(0, 1, 1), "seeding"),
        ("seeding", control.Paired(1, 7, 3), "paired"),
        ("paired", LOST, "lost"),
        ("paired", control.HandedOver(4, 7, 3), "handed-over"),
        ("lost", control.WentAlone(4, 1), "free"),
        ("handed-over", control.WentAlone(4, 1), "free"),
        # What comes late changes nothing about what is held back.
        ("lost", control.Progress(0, 0, 0, 0, 0, 0, 0, 0), "lost"),
        ("paired", control.Refused("pair", "old"), "paired"),
        ("listening", control.Seeding(0, 1, 1), "listening"),
        ("listening", control.Paired(1, 7, 3), "following"),
        ("following", LOST, "peer-lost"),
        ("following", control.HandedOver(4, 7, 3), "peer-lost"),
        ("peer-lost", control.Adopted(3, 8, 1.0, 1.0), "free"),
        ("starting", control.Listening(4000), "listening"),
        ("following", control.Status("listening", 7, 3), "listening"),
    ],
)
def test_phases_follow_what_is_told(phase: str, event: control.Event, then: str) -> None:
    assert phase_after(phase, event) == then


async def test_several_may_end_it_at_once(scene: Scene) -> None:
    one = scene.comm()
    await one.start(scene.config())
    one.follow()
    await asyncio.gather(one.end(), one.end(), one.end())
    assert (scene.pids, one.runs, one.phase) == ([], False, "")
    await one.start(scene.config())
    one.follow()
    os.kill(scene.pids[0], signal.SIGKILL)
    await asyncio.sleep(0.01)  # its follower has seen that, and clears up
    await one.end()
    assert (scene.pids, one.runs) == ([], False)
