"""The picture follows the store through breaks and compaction; ticks are never queued up."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from outlive.agent.observe import StoreWatcher, Ticker
from outlive.agent.record import EventBook
from outlive.cluster import records as rec
from outlive.cluster.events import Event, StoreMoved, Tick
from outlive.cluster.transaction import Put, Transaction
from outlive.store.base import Compacted, StoreTimeout, WatchBatch
from outlive.store.boot_clock import boot_time_s
from outlive.store.sqlite import SqliteStore


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(path, timeout_s=60)
    try:
        yield store
    finally:
        await store.close()


class Breaking:
    """A store whose watches break as the script says, before they deliver anything."""

    def __init__(self, store: SqliteStore, script: list[Exception]) -> None:
        self._store = store
        self._script = script

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def watch(
        self, prefix: str, from_revision: int, *, silence_s: float = 5.0
    ) -> AsyncGenerator[WatchBatch, None]:
        if self._script:
            raise self._script.pop(0)
        async for batch in self._store.watch(prefix, from_revision, silence_s=silence_s):
            yield batch


async def put(store: SqliteStore, key: str, value: bytes) -> None:
    await store.transact(Transaction((), (Put(key, value),)), timeout_s=60)


async def until(watcher: StoreWatcher, workload: str) -> None:
    async with asyncio.timeout(60):
        while workload not in watcher.mirror.placements:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def placed(name: str) -> bytes:
    return rec.encode(rec.PlacementRecord(name, 1, "a"))


async def test_changes_move_the_picture_with_the_keys_that_moved(tmp_path: Path) -> None:
    async with opened(tmp_path / "store") as store:
        told: list[Event] = []
        await put(store, "placements/web", placed("web"))
        watcher = StoreWatcher(store, EventBook(), boot_time_s)
        assert "web" in (await watcher.read()).placements
        task = asyncio.create_task(watcher.run(told.append))
        await put(store, "placements/db", placed("db"))
        await until(watcher, "db")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        moves = [event for event in told if isinstance(event, StoreMoved) and event.changed]
        assert [move.changed for move in moves] == [frozenset({"placements/db"})]


async def test_a_broken_watch_goes_on_and_a_compacted_one_reads_again(tmp_path: Path) -> None:
    async with opened(tmp_path / "store") as store:
        told: list[Event] = []
        breaking = Breaking(store, [StoreTimeout("Silent."), Compacted(5), StoreTimeout("Silent.")])
        watcher = StoreWatcher(breaking, EventBook(), boot_time_s)
        await watcher.read()
        await put(store, "placements/web", placed("web"))
        task = asyncio.create_task(watcher.run(told.append))
        await until(watcher, "web")
        await put(store, "placements/db", placed("db"))
        await until(watcher, "db")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert next(move.changed for move in told if isinstance(move, StoreMoved)) is None


async def test_a_record_written_wrongly_by_hand_leaves_the_good_one_and_stops_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path / "store") as store:
        await put(store, "placements/web", placed("web"))
        watcher = StoreWatcher(store, EventBook(), boot_time_s)
        await watcher.read()
        task = asyncio.create_task(watcher.run(lambda _: None))
        await put(store, "placements/web", b"{oops")
        await put(store, "placements/db", placed("db"))
        await until(watcher, "db")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert watcher.mirror.placements["web"].record.host == "a"
        assert "placements/web" in watcher.mirror.bad


async def test_no_tick_follows_one_that_is_not_dealt_with() -> None:
    told: list[Event] = []
    ticker = Ticker(0.01, boot_time_s, lambda: 7)
    task = asyncio.create_task(ticker.run(told.append))
    await asyncio.sleep(0.2)
    assert len(told) == 1
    assert isinstance(told[0], Tick)
    assert told[0].sequence == 7
    ticker.dealt_with()
    async with asyncio.timeout(60):
        while len(told) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
