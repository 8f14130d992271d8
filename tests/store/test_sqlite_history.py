"""The past that is kept for watches: bounded by count and by size, without anybody asking."""

# ruff: noqa: ASYNC240 (small files, and nothing else runs in the loop)

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from outlive.cluster.transaction import Put, Transaction
from outlive.store.base import Compacted
from outlive.store.sqlite import SqliteStore
from outlive.store.sqlite_tables import HistoryLimits

LIMIT_S = 60.0
OpenStore = Callable[..., Awaitable[SqliteStore]]


async def put(store: SqliteStore, key: str, value: bytes) -> int:
    return (await store.transact(Transaction((), (Put(key, value),)), timeout_s=LIMIT_S)).revision


def kept(path: Path) -> tuple[int, int, int, int]:
    """Revisions in the history; the oldest; the bytes that are counted; the bytes that there are."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        row: tuple[int, int, int, int] = connection.execute(
            "SELECT count(DISTINCT revision), min(revision), (SELECT history_bytes FROM state), "
            "sum(length(key) + coalesce(length(value), 0) + 64) FROM history"
        ).fetchone()
    return row


async def told(store: SqliteStore, from_revision: int, upto: int) -> list[int]:
    revisions = []
    async with asyncio.timeout(60), contextlib.aclosing(store.watch("", from_revision)) as watch:
        async for batch in watch:
            revisions += [batch.revision] if batch.changes else []
            if batch.revision >= upto:
                break
    return revisions


async def test_the_number_of_revisions_kept_is_bounded(path: Path, open_store: OpenStore) -> None:
    store = await open_store(limits=HistoryLimits(revisions=50, step=10))
    most = 0
    for number in range(150):
        await put(store, f"key/{number % 7}", b"v")
        most = max(most, kept(path)[0])

    count, oldest, counted_bytes, real_bytes = kept(path)

    assert 50 <= count <= most <= 60
    assert counted_bytes == real_bytes
    assert await told(store, oldest, 150) == list(range(oldest, 151))
    with pytest.raises(Compacted) as raised:
        await told(store, oldest - 1, 150)
    assert raised.value.oldest == oldest


async def test_the_bytes_kept_are_bounded(path: Path, open_store: OpenStore) -> None:
    store = await open_store(limits=HistoryLimits(size_bytes=100_000))
    for _ in range(40):
        revision = await put(store, "key", b"v" * 10_000)

    _, oldest, counted_bytes, real_bytes = kept(path)

    assert counted_bytes == real_bytes <= 100_000
    assert await told(store, oldest, revision) == list(range(oldest, revision + 1))


async def test_the_log_is_taken_in_between_transactions_and_stays_small(
    path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By both instances, while the other writes and reads; and not one commit less is there afterwards."""
    monkeypatch.setattr("outlive.store.sqlite_checkpoint.COMMITS_BETWEEN", 5)
    monkeypatch.setattr("outlive.store.sqlite_checkpoint.BYTES_BETWEEN", 50_000)
    stores = [await open_store(), await open_store()]
    log = Path(f"{path}-wal")

    largest = 0

    async def write(name: str, store: SqliteStore) -> None:
        nonlocal largest
        for number in range(60):
            await put(store, f"{name}/{number}", b"v" * 10_000)
            largest = max(largest, log.stat().st_size)
            await store.list(name, timeout_s=LIMIT_S)

    await asyncio.gather(write("a", stores[0]), write("b", stores[1]))
    assert largest < 3_000_000  # it would be 5 MB if it only grew
    assert len((await stores[0].list("", timeout_s=LIMIT_S)).keys) == 120
    for store in stores:
        await store.close()

    assert len((await (await open_store()).list("", timeout_s=LIMIT_S)).keys) == 120


async def test_a_watcher_that_takes_nothing_costs_bounded_memory_and_then_gets_all_of_it(
    open_store: OpenStore,
) -> None:
    """It is read on from the history when it takes again, beyond what was held ready for it."""
    store = await open_store()
    async with asyncio.timeout(60), contextlib.aclosing(store.watch("", 1)) as watch:
        await anext(watch)
        for _ in range(25):
            revision = (
                await store.transact(
                    Transaction((), tuple(Put(f"k{i}", b"v" * 10_000) for i in range(100))), timeout_s=LIMIT_S
                )
            ).revision
        await asyncio.sleep(0.1)
        revisions = []
        async for batch in watch:
            assert len(batch.changes) in (0, 100)
            revisions += [batch.revision] if batch.changes else []
            if batch.revision >= revision:
                break

    assert revisions == list(range(1, 26))
    assert await told(store, 1, 25) == list(range(1, 26))


async def test_a_watcher_that_is_overtaken_by_compaction_is_told_so_after_what_it_had(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outlive.store.sqlite_watch._MAX_WAITING_BATCHES", 5)
    monkeypatch.setattr("outlive.store.sqlite_watch._REVISIONS_A_POLL", 5)
    store = await open_store(limits=HistoryLimits(revisions=20, step=5))
    revisions = []
    async with asyncio.timeout(60), contextlib.aclosing(store.watch("", 1)) as watch:
        await anext(watch)
        for _ in range(60):
            await put(store, "key", b"v")
        with pytest.raises(Compacted) as raised:  # noqa: PT012
            async for batch in watch:
                revisions += [batch.revision] if batch.changes else []

    assert revisions == list(range(1, len(revisions) + 1))
    assert len(revisions) < raised.value.oldest - 1
