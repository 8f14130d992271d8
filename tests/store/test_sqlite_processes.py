"""The store among processes: shared, locked by one that will not let go, killed at any moment, out of room."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from outlive.cluster.transaction import Delete, KeyValue, Put, Transaction
from outlive.store.base import StoreTimeout
from outlive.store.sqlite import SqliteStore
from outlive.store.sqlite_locks import write_lock_holder

LIMIT_S = 60.0
OpenStore = Callable[..., Awaitable[SqliteStore]]
PROGRAM = Path(__file__).with_name("processes.py")
SOURCES = Path(__file__).parents[2] / "src"


@contextlib.asynccontextmanager
async def process(*arguments: object, before: tuple[str, ...] = ()) -> AsyncIterator[asyncio.subprocess.Process]:
    """Another process playing a part, killed at the end if it has not ended by then."""
    started = await asyncio.create_subprocess_exec(
        *before,
        sys.executable,
        str(PROGRAM),
        *map(str, arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
    )
    try:
        async with asyncio.timeout(90):
            yield started
    finally:
        if started.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                started.send_signal(signal.SIGKILL)
        await started.communicate()


async def result_of(*arguments: object, before: tuple[str, ...] = ()) -> dict[str, Any]:
    async with process(*arguments, before=before) as started:
        output, _ = await started.communicate()
        assert started.returncode == 0
        found: dict[str, Any] = json.loads(output)
        return found


async def put(store: SqliteStore, key: str, value: bytes, timeout_s: float = LIMIT_S) -> int:
    return (await store.transact(Transaction((), (Put(key, value),)), timeout_s=timeout_s)).revision


async def test_a_lock_held_by_another_process_times_out_and_then_lets_go(path: Path, open_store: OpenStore) -> None:
    store = await open_store()
    revision = await put(store, "key", b"before")
    async with process("hold", path) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert await holder.stdout.readline() == b"held\n"

        with pytest.raises(StoreTimeout) as raised:
            await put(store, "key", b"too late", timeout_s=0.3)
        while_locked = await store.get("key", timeout_s=LIMIT_S)
        waiting = asyncio.create_task(put(store, "key", b"patient"))
        await asyncio.sleep(0.1)
        holder.stdin.close()

        assert await waiting == revision + 1

    assert f"process {holder.pid} (python" in raised.value.cause
    assert while_locked == KeyValue("key", b"before", revision, revision)
    found = await store.get("key", timeout_s=LIMIT_S)
    assert found is not None
    assert found.value == b"patient"


async def test_a_process_stopped_with_the_lock_is_named_and_found(path: Path, open_store: OpenStore) -> None:
    store = await open_store()
    before = write_lock_holder(path)
    async with process("hold", path) as holder:
        assert holder.stdout is not None
        assert await holder.stdout.readline() == b"held\n"
        holder.send_signal(signal.SIGSTOP)
        with pytest.raises(StoreTimeout) as raised:
            await put(store, "key", b"1", timeout_s=0.5)
        found = write_lock_holder(path)
        holder.send_signal(signal.SIGKILL)
        await holder.wait()

        assert await put(store, "key", b"2") == 1

    assert before is None
    assert found == holder.pid
    assert "which is stopped" in raised.value.cause


async def test_processes_share_one_order_of_changes_and_lose_none(path: Path, open_store: OpenStore) -> None:
    store = await open_store()
    first = await put(store, "count", b"0")
    told = []
    async with process("count", path, 40) as one, process("count", path, 40) as two:
        async with asyncio.timeout(60), contextlib.aclosing(store.watch("count", first)) as watch:
            async for batch in watch:
                told += [change.value for change in batch.changes if isinstance(change, KeyValue)]
                if told[-1] == b"80":
                    break
        assert (await one.wait(), await two.wait()) == (0, 0)

    assert told == [str(number).encode() for number in range(81)]


async def test_a_lease_outlives_its_killed_holder_and_ends_for_those_who_remain(
    path: Path, open_store: OpenStore
) -> None:
    store = await open_store()
    async with process("lease", path, 2) as holder:
        assert holder.stdout is not None
        lease_id = int(await holder.stdout.readline())
        holder.send_signal(signal.SIGKILL)
        await holder.wait()

        kept_alive_s = await store.keep_alive(lease_id, timeout_s=LIMIT_S)
        listing = await store.list("", timeout_s=LIMIT_S)
        async with asyncio.timeout(60), contextlib.aclosing(store.watch("", listing.revision + 1)) as watch:
            async for batch in watch:
                if batch.changes:
                    break

    assert kept_alive_s == 2
    assert [key.key for key in listing.keys] == ["leased"]
    assert batch.changes == (Delete("leased"),)


async def test_killed_writers_leave_all_that_was_acknowledged_and_nothing_half(path: Path) -> None:
    """Two processes are killed at a random moment of their transactions, in each of the rounds."""
    result = await result_of("kill", path, 40)

    assert result["rounds"] == 40
    assert result["revision"] >= result["acknowledged"] + result["rounds"]


async def test_a_store_whose_makers_were_killed_can_be_opened(tmp_path: Path) -> None:
    assert (await result_of("kill-making", tmp_path, 30))["rounds"] == 30


async def test_a_full_disk_is_told_loses_nothing_and_is_recovered_from(tmp_path: Path) -> None:
    """In a mount namespace of its own, so that nothing stays mounted whatever happens."""
    result = await result_of(
        "full",
        tmp_path,
        before=(
            *("unshare", "--mount", "--propagation", "private"),
            *("sh", "-c", 'mount -t tmpfs -o size=1m tmpfs "$4" && exec "$@"'),
            "sh",
        ),
    )

    assert result["error"]["id"] == "store.full"
    assert "full" in result["error"]["title"]
    assert result["acknowledged"] > 0
    assert result["kept"] == result["kept_after"] == result["reopened"] == result["acknowledged"]
    assert result["leased_while_full"] is False
    assert result["revisions_told"] is True
