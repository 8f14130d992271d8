"""One host at a time holds a workload's run lock, also across agents, and storage that hangs holds up nobody."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from outlive import spawn
from outlive.datastore import locks
from outlive.datastore.locks import Probe, Record, RunLock, RunLockRefused, RunLockUnavailable
from outlive.runtime.cgroup import find_or_mount

from ..native.guarding import clear, until

WITHIN_S = 60.0
A5, A6, B6 = Record("a", 5), Record("a", 6), Record("b", 6)


def write(path: Path, text: str) -> None:
    path.write_text(text)


def told(path: Path) -> Any:
    return json.loads(path.read_text())


ACQUIRE = Callable[..., Awaitable[RunLock]]


@pytest.fixture
def root() -> Iterator[Path]:
    unified = find_or_mount().unified
    assert unified is not None
    folder = unified / f"outlive-test-{os.getpid()}-locks"
    (folder / "_runner").mkdir(parents=True)
    yield folder
    clear(folder)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "web.lock"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
async def acquire(file: Path, state: Path, root: Path) -> AsyncIterator[ACQUIRE]:
    taken: list[RunLock] = []

    async def one(record: Record, *, file: Path = file, state: Path = state, timeout_s: float = WITHIN_S) -> RunLock:
        lock = await locks.acquire(file, record, cgroup=root / "_runner", state=state, timeout_s=timeout_s)
        taken.append(lock)
        return lock

    yield one
    for lock in taken:
        lock.close()


async def test_a_lock_is_held_until_it_is_released(acquire: ACQUIRE, file: Path, state: Path) -> None:
    assert await locks.probe(file) == Probe(False)
    lock = await acquire(A5)
    assert lock.held
    assert await locks.probe(file) == Probe(True, A5)
    with pytest.raises(RunLockRefused, match="it is held by a at generation 5") as caught:
        await acquire(B6, state=state.with_name("other"))
    assert (caught.value.reason, caught.value.record) == ("busy", A5)
    await lock.release()
    assert lock_is_over(lock)
    await lock.lost()
    assert await locks.probe(file) == Probe(False, A5)
    await lock.release()


def lock_is_over(lock: RunLock) -> bool:
    return not lock.held


async def test_older_generations_and_others_at_the_same_are_refused(acquire: ACQUIRE) -> None:
    await (await acquire(A6)).release()
    with pytest.raises(RunLockRefused, match="it was held since by a at generation 6") as caught:
        await acquire(A5)
    assert (caught.value.reason, caught.value.record) == ("newer", A6)
    with pytest.raises(RunLockRefused) as caught:
        await acquire(B6)
    assert (caught.value.reason, caught.value.record) == ("other", A6)
    await acquire(A6)


async def test_a_damaged_record_is_refused_with_what_to_do(acquire: ACQUIRE, file: Path) -> None:
    write(file, "nonsense")
    with pytest.raises(RunLockRefused, match="never taken for old") as caught:
        await acquire(A5)
    assert (caught.value.reason, caught.value.record) == ("garbled", None)
    assert "remove the file" in caught.value.remedy
    assert await locks.probe(file) == Probe(None, None, "the record has not the size of one")


async def test_a_killed_holder_is_noticed_and_a_killed_workload_lets_go(
    acquire: ACQUIRE, file: Path, state: Path, root: Path
) -> None:
    lock = await acquire(A5)
    os.kill(told(state)["pid"], signal.SIGKILL)
    async with asyncio.timeout(WITHIN_S):
        await lock.lost()
    lock = await acquire(A6)
    (root / "cgroup.kill").write_text("1")
    async with asyncio.timeout(WITHIN_S):
        await lock.lost()
    assert await locks.probe(file) == Probe(False, A6)


async def test_a_later_agent_adopts_a_lock_of_its_own_generation(acquire: ACQUIRE, file: Path, state: Path) -> None:
    assert await locks.adopt(state, A5) is None
    await acquire(A5)
    adopted = await locks.adopt(state, A5)
    assert adopted is not None
    assert (adopted.path, adopted.record, adopted.held) == (file, A5, True)
    await adopted.release()
    assert await locks.probe(file) == Probe(False, A5)
    assert await locks.adopt(state, A5) is None


async def test_a_lock_of_another_generation_is_let_go_instead_of_adopted(
    acquire: ACQUIRE, file: Path, state: Path
) -> None:
    lock = await acquire(A5)
    assert await locks.adopt(state, A6) is None
    assert await locks.probe(file) == Probe(False, A5)
    async with asyncio.timeout(WITHIN_S):
        await lock.lost()


async def test_a_holder_that_was_not_sure_yet_is_ended_instead_of_adopted(
    acquire: ACQUIRE, file: Path, state: Path
) -> None:
    await acquire(A5)
    write(state, json.dumps(told(state) | {"held": False}))
    assert await locks.adopt(state, A5) is None
    assert await locks.probe(file) == Probe(False, A5)


async def test_a_recycled_pid_or_damaged_state_is_not_adopted(acquire: ACQUIRE, file: Path, state: Path) -> None:
    await acquire(A5)
    good = told(state)
    write(state, json.dumps(good | {"pid": os.getpid()}))
    assert await locks.adopt(state, A5) is None
    for text in ("", "[]", "{}", '{"pid": {}}', "\0"):
        write(state, text)
        assert await locks.adopt(state, A5) is None
    write(state, json.dumps(good))
    assert await locks.adopt(state, A5) is not None


async def test_a_lock_that_cannot_be_reached_is_an_error_with_its_cause(acquire: ACQUIRE, tmp_path: Path) -> None:
    with pytest.raises(RunLockUnavailable, match="No such file or directory"):
        await acquire(A5, file=tmp_path / "no" / "lock")
    with pytest.raises(RunLockUnavailable, match="Is a directory"):
        await acquire(A5, file=tmp_path)
    with pytest.raises(RunLockUnavailable):
        await locks.probe(tmp_path / ("x" * 300))


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A datastore that hangs: the program that touches it never answers. Returns where its pid is written."""
    pid = tmp_path / "pid"
    program = tmp_path / "bin" / "outlive-runlock"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho $$ > {pid}\nexec sleep 1000\n")
    program.chmod(0o755)
    monkeypatch.setenv("OUTLIVE_NATIVE_DIR", str(program.parent))
    return pid


async def test_a_datastore_that_hangs_costs_a_time_limit_and_never_the_loop(acquire: ACQUIRE, hanging: Path) -> None:
    turns = 0

    async def live() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.01)

    living = asyncio.create_task(live())
    with pytest.raises(RunLockUnavailable, match="did not answer within 1 s"):
        await acquire(A5, timeout_s=1.0)
    with pytest.raises(RunLockUnavailable):
        await locks.probe(Path("/web.lock"), timeout_s=0.2)
    living.cancel()
    assert turns > 10
    pid = int(told(hanging))
    await asyncio.to_thread(until, lambda: not spawn.start_ticks(pid))


async def test_a_lock_that_is_held_cannot_be_taken_away(acquire: ACQUIRE, file: Path) -> None:
    await acquire(A5)
    with pytest.raises(RunLockRefused) as refused:
        await locks.take_away(file, A5, "fence:b")
    assert refused.value.reason == "busy"


async def test_a_lock_that_was_taken_away_is_never_got_back_at_that_generation(acquire: ACQUIRE, file: Path) -> None:
    await (await acquire(A5)).release()
    await locks.take_away(file, A5, "fence:b")
    await locks.take_away(file, A5, "fence:c")  # by the next leader, who does not know
    with pytest.raises(RunLockRefused) as refused:
        await acquire(A5)
    assert refused.value.reason == "other"
    assert (await acquire(B6)).held


async def test_a_lock_that_the_accused_never_held_proves_nothing_of_it(acquire: ACQUIRE, file: Path) -> None:
    with pytest.raises(RunLockUnavailable):
        await locks.take_away(file, A5, "fence:b")
    await (await acquire(A5)).release()
    for accused in (A6, Record("b", 5)):
        with pytest.raises(RunLockRefused):
            await locks.take_away(file, accused, "fence:b")
    assert (await acquire(A6)).held
