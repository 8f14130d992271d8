"""A guard is always there: a lost one is replaced with everything it held, or the node is told."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from outlive.agent.guarding import GuardKeeper
from outlive.cluster.events import Event, GuardFired, GuardLost, GuardReady
from outlive.fence.guard import Guard, Listener, Status, Watchdog
from outlive.runtime import cgroup
from outlive.store.boot_clock import boot_time_s

from ..native.watchdog_device import Device, standin

WITHIN_S = 60.0


@dataclass
class Post:
    """A guard's place on a host."""

    folder: Path
    root: Path
    told: list[Event] = field(default_factory=list)
    made: list[Guard] = field(default_factory=list)
    broken: bool = False
    watchdog: Watchdog | None = None

    @property
    def keeper(self) -> GuardKeeper:
        return GuardKeeper(self.make, boot_time_s, watchdog=self.watchdog)

    def make(self, listener: Listener) -> Guard:
        path = self.folder / ("missing/x" if self.broken else "guard.sock")
        log, cgroup = self.folder / "guard.log", self.root / "guard"
        self.made.append(Guard(path, log, listener, cgroup=cgroup, watchdog=self.watchdog))
        return self.made[-1]

    async def status(self) -> Status:
        """What the guard holds that is there now."""
        return await self.made[-1].status()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def guards(self) -> list[int]:
        """The guards, without the writers of their logs: these may outlive them by a moment."""
        found = [int(line) for line in (self.root / "guard" / "cgroup.procs").read_text().split()]
        return [pid for pid in found if _leads_its_session(pid)]


def _leads_its_session(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    mounts = cgroup.find_or_mount()
    assert mounts.unified is not None
    root = mounts.unified / f"outlive-test-{os.getpid()}-guarding"
    post = Post(tmp_path, root)
    for name in ("guard", "web"):
        (root / name).mkdir(parents=True)
    try:
        yield post
    finally:
        for folder in (root / "guard", root / "web", root):
            cgroup.kill(folder)
            await cgroup.wait_empty(folder, WITHIN_S)
            folder.rmdir()


@asynccontextmanager
async def on_duty(post: Post) -> AsyncIterator[GuardKeeper]:
    keeper = post.keeper
    await keeper.start()
    task = asyncio.create_task(keeper.run(post.told.append))
    try:
        yield keeper
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def protected(keeper: GuardKeeper, post: Post, deadline_in_s: float) -> float:
    deadline_at = boot_time_s() + deadline_in_s
    keeper.set_deadline(deadline_at)
    await post.until(lambda: keeper.deadline_at >= deadline_at - 1e-6)
    await keeper.protect("web", 3, post.root / "web", ())
    return deadline_at


async def test_a_killed_guard_is_replaced_with_its_deadline_and_all_that_was_protected(post: Post) -> None:
    async with on_duty(post) as keeper:
        deadline_at = await protected(keeper, post, 60)
        for pid in post.guards():
            os.kill(pid, signal.SIGKILL)
        await post.until(lambda: any(isinstance(event, GuardReady) for event in post.told))
        status = await post.status()
        assert status.deadline_at == pytest.approx(deadline_at, abs=1e-6)
        assert [(entry.workload, entry.generation, entry.state) for entry in status.entries] == [
            ("web", 3, "protected")
        ]
        assert not any(isinstance(event, GuardLost) for event in post.told)


async def test_a_guard_that_cannot_be_replaced_is_told_and_so_is_its_return(post: Post) -> None:
    async with on_duty(post) as keeper:
        await protected(keeper, post, 60)
        post.broken = True
        for pid in post.guards():
            os.kill(pid, signal.SIGKILL)
        await post.until(lambda: any(isinstance(event, GuardLost) for event in post.told))
        post.broken = False
        await post.until(lambda: isinstance(post.told[-1], GuardReady))


async def test_what_the_guard_fires_is_told_and_a_later_deadline_does_not_undo_it(post: Post) -> None:
    async with on_duty(post) as keeper:
        await protected(keeper, post, 2.0)
        await post.until(lambda: any(isinstance(event, GuardFired) for event in post.told))
        (fired,) = (event for event in post.told if isinstance(event, GuardFired))
        assert (fired.workload, fired.generation) == ("web", 3)
        keeper.set_deadline(boot_time_s() + 60)
        await asyncio.sleep(0.1)
        assert [entry.state for entry in (await post.status()).entries] == ["fired"]
        await keeper.release("web", 3)
        assert (await post.status()).entries == ()


async def test_a_request_that_nobody_waits_for_any_more_does_not_cost_the_guard(post: Post) -> None:
    async with on_duty(post) as keeper:
        await protected(keeper, post, 60)
        for _ in range(20):
            request = asyncio.create_task(keeper.protect("web", 3, post.root / "web", ()))
            await asyncio.sleep(0)
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
        assert (await post.status()).entries[0].workload == "web"
        assert not any(isinstance(event, GuardLost | GuardReady) for event in post.told)


async def test_another_agent_finds_the_same_guard_with_what_it_holds(post: Post) -> None:
    async with on_duty(post) as first:
        deadline_at = await protected(first, post, 60)
    pids = post.guards()
    async with on_duty(post) as second:
        assert post.guards() == pids
        assert second.deadline_at == pytest.approx(deadline_at, abs=1e-6)


async def test_a_guard_that_feeds_another_device_than_the_file_says_is_replaced_unless_something_rests_on_it(
    post: Post, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(tmp_path / "watchdog")
    try:
        for name, value in device.environment(standin(tmp_path)).items():
            monkeypatch.setenv(name, value)
        plain = post.keeper
        await plain.start()
        first = post.guards()
        plain.close()
        post.watchdog = Watchdog(device.path, 1, 2)
        fed = post.keeper
        await fed.start()
        await post.until(lambda: not {*first} & {*post.guards()})  # one that ends takes a moment to be gone
        second = post.guards()
        assert device.armed
        fed.close()
        post.watchdog = Watchdog(device.path, 2, 3)
        longer = post.keeper
        await longer.start()
        await post.until(lambda: not {*second} & {*post.guards()})
        third = post.guards()
        assert device.asked[-2:] == ["settimeout 2", "gettimeout"]
        fed, second = longer, third
        fed.late_s = 0.2
        fed.set_deadline(boot_time_s() + 60)
        running = asyncio.create_task(fed.run(lambda _: None))
        await post.until(lambda: fed.deadline_at > 0)
        await fed.protect("web", 1, post.root / "web", ())
        running.cancel()
        await asyncio.wait([running])
        post.watchdog = None
        later = post.keeper
        await later.start()
        assert post.guards() == second
        await later.release("web", 1)
        later.close()
    finally:
        device.close()
