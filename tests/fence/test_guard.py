"""The agent finds its host's guard or starts one, hears at once what it fired and that it died, and is never misled."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from outlive.fence.guard import Fired, Guard, GuardLost, GuardRefused, Hello, Listener, Stuck
from outlive.runtime.cgroup import find_or_mount
from outlive.spawn import ProgramFailed

from ..native.guarding import clear, populated, sleeper, until

WITHIN_S = 60.0


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass
class Heard:
    """All that a guard's listener was told."""

    fired: list[Fired] = field(default_factory=list)
    stuck: list[Stuck] = field(default_factory=list)
    lost: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def listener(self) -> Listener:
        return Listener(self._fired, self.stuck.append, self._lost)

    def _fired(self, fired: Fired) -> None:
        self.fired.append(fired)
        self.news.set()

    def _lost(self) -> None:
        self.lost += 1
        self.news.set()

    async def more(self) -> None:
        async with asyncio.timeout(WITHIN_S):
            await self.news.wait()
        self.news.clear()


@pytest.fixture
def root() -> Iterator[Path]:
    unified = find_or_mount().unified
    assert unified is not None
    folder = unified / f"outlive-test-{os.getpid()}-fence"
    (folder / "guard").mkdir(parents=True)
    (folder / "web").mkdir()
    yield folder
    clear(folder)


@pytest.fixture
def heard() -> Heard:
    return Heard()


CONNECT = Callable[..., Awaitable[tuple[Guard, Hello]]]


@pytest.fixture
async def connect(tmp_path: Path, root: Path, heard: Heard) -> AsyncIterator[CONNECT]:
    """Connect to the guard of this test's host, as often as wanted; the guards end with the root cgroup."""
    guards: list[Guard] = []

    async def one(listener: Heard = heard, patience_s: float = WITHIN_S) -> tuple[Guard, Hello]:
        guard = Guard(
            tmp_path / "guard.sock",
            tmp_path / "guard.log",
            listener.listener(),
            cgroup=root / "guard",
            patience_s=patience_s,
        )
        guards.append(guard)
        return guard, await guard.start()

    yield one
    for guard in guards:
        guard.close()


async def test_a_guard_is_started_once_and_found_by_the_next_agent(
    connect: CONNECT, root: Path, tmp_path: Path
) -> None:
    first, hello = await connect()
    assert str(hello.pid) in (root / "guard" / "cgroup.procs").read_text().split()
    assert os.getsid(hello.pid) == hello.pid
    first.close()
    second, again = await connect()
    assert again == hello
    assert second.connected
    await asyncio.to_thread(until, lambda: "guard.started" in (tmp_path / "guard.log").read_text())


async def test_what_it_holds_is_told_and_kept_for_the_next_agent(connect: CONNECT, root: Path) -> None:
    guard, _ = await connect()
    at = now() + 600
    assert await guard.deadline(at) == pytest.approx(at, abs=1e-6)
    assert await guard.deadline(at - 100) == pytest.approx(at, abs=1e-6)
    await guard.protect("web", 3, root / "web", ("10.9.0.5/32%lo", "fd09::5/128%lo"))
    guard.close()
    guard, _ = await connect()
    status = await guard.status()
    assert status.deadline_at == pytest.approx(at, abs=1e-6)
    assert status.now_at == pytest.approx(now(), abs=10)
    (entry,) = status.entries
    assert (entry.workload, entry.generation, entry.state) == ("web", 3, "protected")
    assert (entry.cgroup, entry.addresses) == (root / "web", ("10.9.0.5/32%lo", "fd09::5/128%lo"))
    await guard.release("web", 3)
    await guard.release("web", 3)
    assert (await guard.status()).entries == ()


async def test_refusals_carry_their_reason(connect: CONNECT, root: Path) -> None:
    guard, _ = await connect()
    reasons: list[str] = []

    async def refused(request: Awaitable[object]) -> None:
        with pytest.raises(GuardRefused) as caught:
            await request
        reasons.append(caught.value.reason)
        assert caught.value.cause

    await refused(guard.protect("web", 3, root / "web"))
    await guard.deadline(now() + 600)
    await refused(guard.protect("web", 3, root / "missing"))
    await refused(guard.protect("web", 3, root / "with space"))
    await refused(guard.protect("Web", 3, root / "web"))
    await guard.protect("web", 3, root / "web")
    await refused(guard.protect("web", 2, root / "web"))
    await refused(guard.release("web", 2))
    await refused(guard.fence("other", 1))
    await refused(guard.quit())
    assert reasons == [
        "expired", "cgroup", "malformed", "malformed", "generation", "generation", "unknown", "protecting",
    ]  # fmt: skip
    assert guard.connected


async def test_what_fired_is_told_at_once_and_again_to_the_next_agent(
    connect: CONNECT, root: Path, heard: Heard
) -> None:
    guard, _ = await connect()
    with sleeper(root / "web"):
        await guard.deadline(now() + 1.5)
        await guard.protect("web", 3, root / "web")
        await heard.more()
        assert not populated(root / "web")
    (fired,) = heard.fired
    assert (fired.workload, fired.generation) == ("web", 3)
    assert fired.late_s >= 0
    guard.close()
    later = Heard()
    guard, _ = await connect(later)
    assert later.fired == [fired]
    await guard.release("web", 3)


async def test_a_workload_can_be_ended_on_request(connect: CONNECT, root: Path, heard: Heard) -> None:
    guard, _ = await connect()
    with sleeper(root / "web"):
        await guard.deadline(now() + 600)
        await guard.protect("web", 3, root / "web")
        await guard.fence("web", 3)
        await heard.more()
    assert [(fired.workload, fired.generation) for fired in heard.fired] == [("web", 3)]
    await guard.release("web", 3)
    await guard.quit()


async def test_the_death_of_the_guard_is_told_at_once_and_another_takes_its_place(
    connect: CONNECT, heard: Heard
) -> None:
    guard, hello = await connect()
    os.kill(hello.pid, signal.SIGKILL)
    await heard.more()
    assert heard.lost == 1
    assert not guard.connected
    with pytest.raises(GuardLost):
        await guard.status()
    again = await guard.start()
    assert again.pid != hello.pid
    assert guard.connected


async def test_a_guard_that_does_not_answer_is_lost_and_its_late_answer_is_nobodys(
    connect: CONNECT, heard: Heard
) -> None:
    patient, hello = await connect()
    guard, _ = await connect(patience_s=1.5)
    os.kill(hello.pid, signal.SIGSTOP)
    try:
        with pytest.raises(GuardLost):
            await guard.deadline(now() + 600)
        with pytest.raises(GuardLost):
            await guard.start()
        assert heard.lost == 1
    finally:
        os.kill(hello.pid, signal.SIGCONT)
    await guard.start()
    assert (await guard.status()).entries == ()
    assert patient.connected


async def test_requests_from_several_tasks_get_their_own_answers(connect: CONNECT, root: Path) -> None:
    guard, _ = await connect()
    await guard.deadline(now() + 600)
    async with asyncio.TaskGroup() as tasks:
        for number in range(50):
            tasks.create_task(guard.protect(f"w{number}", number, root / "web"))
            tasks.create_task(guard.status())
    assert {entry.workload: entry.generation for entry in (await guard.status()).entries} == {
        f"w{number}": number for number in range(50)
    }


async def test_what_listens_there_and_is_no_guard_is_not_taken_for_one(tmp_path: Path, heard: Heard) -> None:
    impostor = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    impostor.bind(str(tmp_path / "guard.sock"))
    impostor.listen()
    guard = Guard(tmp_path / "guard.sock", tmp_path / "guard.log", heard.listener(), patience_s=WITHIN_S)
    try:
        starting = asyncio.create_task(guard.start())
        connection, _ = await asyncio.to_thread(impostor.accept)
        connection.send(b"220 mail.example ESMTP")
        with pytest.raises(GuardLost):
            await starting
        connection.close()
    finally:
        guard.close()
        impostor.close()


async def test_a_guard_that_cannot_start_says_why(tmp_path: Path, heard: Heard) -> None:
    nowhere = Guard(tmp_path / "no" / "guard.sock", tmp_path / "guard.log", heard.listener())
    with pytest.raises(GuardLost, match="No such file or directory"):
        await nowhere.start()
    nowhere.close()
    unlogged = Guard(tmp_path / "guard.sock", tmp_path / "no" / "guard.log", heard.listener())
    with pytest.raises(ProgramFailed, match="No such file or directory"):
        await unlogged.start()
    unlogged.close()


def test_what_a_guard_could_not_have_is_said_in_words() -> None:
    assert Hello(1, "locked", "fifo:50", "-1000").lacking() == ()
    assert Hello(1, "EPERM", "EPERM", "EACCES").lacking() == (
        "its memory could not be locked (EPERM)",
        "it has no real-time priority (EPERM)",
        "it could be killed when memory runs out (EACCES)",
    )
