"""A disk that does not answer: noticed in time, the loop never blocked, and the outcome told for what it is."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from outlive.cluster.transaction import Put, Transaction, TransactionResult
from outlive.store import sqlite
from outlive.store.base import StoreTimeout, StoreUnavailable, StoreUncertain
from outlive.store.sqlite import SqliteStore
from outlive.store.sqlite_tables import Change

LIMIT_S = 60.0
OpenStore = Callable[..., Awaitable[SqliteStore]]


class Disk:
    """Stops answering at one point, until it is mended."""

    def __init__(self) -> None:
        self.hangs = False
        self.stuck = threading.Event()
        self._mended = threading.Event()

    def use(self) -> None:
        if self.hangs:
            self.stuck.set()
            self._mended.wait(LIMIT_S)

    def hang(self) -> None:
        self.hangs = True

    def mend(self) -> None:
        self.hangs = False
        self._mended.set()


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.mend()


async def put(store: SqliteStore, key: str, timeout_s: float = LIMIT_S) -> TransactionResult:
    return await store.transact(Transaction((), (Put(key, b""),)), timeout_s=timeout_s)


async def keys(store: SqliteStore) -> list[str]:
    return [key.key for key in (await store.list("", timeout_s=LIMIT_S)).keys]


async def settle(store: SqliteStore) -> None:
    """All that was queued before has been done, or dropped."""
    await put(store, "settled")


async def test_a_commit_that_hangs_is_uncertain_and_its_late_end_is_only_logged(
    open_store: OpenStore, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = sqlite.commit

    def slow_commit(connection: sqlite3.Connection) -> None:
        disk.use()
        commit(connection)

    monkeypatch.setattr(sqlite, "commit", slow_commit)
    store = await open_store()
    disk.hang()

    with capture_logs() as logs:
        with pytest.raises(StoreUncertain):
            await put(store, "hung", timeout_s=1.0)
        with pytest.raises(StoreTimeout):
            await put(store, "queued behind", timeout_s=0.1)
        while_hung = await keys(store)
        disk.mend()
        await settle(store)

    assert while_hung == []
    assert await keys(store) == ["hung", "settled"]
    late = [entry for entry in logs if entry["event"] == "store.write_finished_late"]
    assert [(entry["call"], entry["committed"]) for entry in late] == [("transaction", True)]


async def test_what_hangs_before_its_commit_surely_never_happens(
    open_store: OpenStore, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Change.save

    def slow_save(change: Change) -> None:
        disk.use()
        save(change)

    monkeypatch.setattr(Change, "save", slow_save)
    store = await open_store()
    disk.hang()

    with pytest.raises(StoreTimeout):
        await put(store, "hung", timeout_s=0.2)
    disk.mend()
    await settle(store)

    assert await keys(store) == ["settled"]


async def test_a_cancelled_call_that_hangs_before_its_commit_never_happens(
    open_store: OpenStore, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Change.save

    def slow_save(change: Change) -> None:
        disk.use()
        save(change)

    monkeypatch.setattr(Change, "save", slow_save)
    store = await open_store()
    disk.hang()
    task = asyncio.create_task(put(store, "cancelled"))
    await asyncio.to_thread(disk.stuck.wait, LIMIT_S)
    task.cancel()
    await asyncio.wait({task}, timeout=LIMIT_S)
    disk.mend()
    await settle(store)

    assert task.cancelled()
    assert await keys(store) == ["settled"]


async def test_a_commit_that_succeeds_after_its_time_is_not_reported_as_success(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even when the loop itself was stopped meanwhile, and so has both the answer and the timeout before it."""
    commit = sqlite.commit
    loop = asyncio.get_running_loop()

    def slow_commit(connection: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(time.sleep, 1.4)
        time.sleep(1.2)
        commit(connection)

    store = await open_store()
    monkeypatch.setattr(sqlite, "commit", slow_commit)

    with pytest.raises(StoreUncertain):
        await put(store, "late", timeout_s=1.0)
    assert await keys(store) == ["late"]


async def test_an_error_of_the_disk_in_a_commit_is_uncertain_and_before_it_surely_nothing(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error

    store = await open_store()
    with monkeypatch.context() as broken:
        broken.setattr(sqlite, "commit", failing)
        with pytest.raises(StoreUncertain, match="may or may not"):
            await put(store, "a")
    with monkeypatch.context() as broken:
        broken.setattr(Change, "save", failing)
        with pytest.raises(StoreUnavailable, match="cannot be used"):
            await put(store, "b")

    assert await keys(store) == []
    assert (await put(store, "c")).revision == 1


async def test_a_hung_disk_delays_neither_the_loop_nor_the_closing(
    open_store: OpenStore, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "commit", lambda _: disk.use())
    store = await open_store()
    disk.hang()
    task = asyncio.create_task(put(store, "hung", timeout_s=1.0))
    await asyncio.to_thread(disk.stuck.wait, LIMIT_S)
    loop = asyncio.get_running_loop()
    before = loop.time()
    ticks = 0
    while not task.done():
        await asyncio.sleep(0.01)
        ticks += 1

    with capture_logs() as logs:
        await store.close(timeout_s=0.2)

    assert isinstance(task.exception(), StoreUncertain)
    assert ticks >= 10
    assert loop.time() - before < LIMIT_S
    assert "store.thread_left_behind" in [entry["event"] for entry in logs]
