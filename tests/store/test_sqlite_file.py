"""The store's file: who may read it, what is refused unharmed, and what happens when it is swapped."""

# ruff: noqa: ASYNC240 (small files, and nothing else runs in the loop)

import asyncio
import contextlib
import os
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from outlive.cluster.transaction import Delete, Put, Transaction
from outlive.store.base import (
    Store,
    StoreCorrupt,
    StoreError,
    StoreForeign,
    StoreReplaced,
    StoreUnavailable,
)
from outlive.store.sqlite import SqliteStore

LIMIT_S = 60.0
OpenStore = Callable[..., Awaitable[SqliteStore]]


async def write(store: Store, *writes: Put | Delete) -> int:
    return (await store.transact(Transaction((), writes), timeout_s=LIMIT_S)).revision


def by_hand(path: Path, statements: str) -> None:
    """What a person with the sqlite3 program does to the file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)


async def refused(path: Path, kind: type[StoreError]) -> StoreError:
    """The error of opening, which must have left every byte of the file."""
    before = path.read_bytes()
    with pytest.raises(kind) as raised:
        await SqliteStore.open(path, timeout_s=LIMIT_S)
    assert path.read_bytes() == before
    assert raised.value.cause
    assert raised.value.remedy
    return raised.value


def a_store(store: SqliteStore) -> Store:
    """The type checker's proof that the backend has the interface."""
    return store


@pytest.mark.usefixtures("umask_open_to_all")
async def test_the_files_are_for_their_owner_only(path: Path, open_store: OpenStore) -> None:
    await write(await open_store(), Put("key", b"1"))

    assert {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == dict.fromkeys(
        ("store.db", "store.db-wal", "store.db-shm"), 0o600
    )


async def test_a_file_that_others_may_read_is_closed_to_them(path: Path, open_store: OpenStore) -> None:
    await (await open_store()).close()
    path.chmod(0o664)

    await open_store()

    assert path.stat().st_mode & 0o777 == 0o600


async def test_closing_leaves_the_one_file(path: Path, open_store: OpenStore) -> None:
    store = await open_store()
    await write(store, Put("key", b"1"))
    await store.close()

    assert [file.name for file in path.parent.iterdir()] == ["store.db"]


@pytest.mark.parametrize("name", ["a b.db", "what?.db", "50%25.db", "#1.db", "é😀.db", "new\nline.db"])
async def test_any_file_name_will_do(path: Path, open_store: OpenStore, name: str) -> None:
    await write(await open_store(at=path.with_name(name)), Put("key", b"1"))

    assert (await (await open_store(at=path.with_name(name))).list("", timeout_s=LIMIT_S)).revision == 1


async def test_a_store_behind_a_link_is_the_store_it_leads_to(path: Path, open_store: OpenStore) -> None:
    link = path.with_name("link.db")
    await write(await open_store(), Put("key", b"1"))
    link.symlink_to(path)

    assert (await (await open_store(at=link)).list("", timeout_s=LIMIT_S)).revision == 1


async def test_many_who_make_the_store_at_once_share_one(path: Path, open_store: OpenStore) -> None:
    stores = await asyncio.gather(*(open_store() for _ in range(6)))
    revisions = await asyncio.gather(*(write(store, Put(f"k{i}", b"")) for i, store in enumerate(stores)))

    assert sorted(revisions) == [1, 2, 3, 4, 5, 6]
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "store.db",
        "store.db-shm",
        "store.db-wal",
    ]


async def test_a_missing_folder_is_told_and_not_made(path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        await SqliteStore.open(path.parent / "missing" / "store.db", timeout_s=LIMIT_S)

    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\0" * 8192, b"[store]\npath = 1\n", os.urandom(4096)])
async def test_a_file_that_is_no_database_is_refused_unharmed(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    await refused(path, StoreError)


async def test_another_programs_database_is_refused_unharmed(path: Path) -> None:
    by_hand(path, "CREATE TABLE bookmarks (url TEXT); INSERT INTO bookmarks VALUES ('x')")

    assert "not a store of Outlive" in str(await refused(path, StoreForeign))


async def test_a_newer_versions_store_is_refused_unharmed(path: Path, open_store: OpenStore) -> None:
    await (await open_store()).close()
    by_hand(path, "PRAGMA user_version = 2")

    assert "version 2" in str(await refused(path, StoreForeign))


async def test_a_store_with_damaged_pages_is_refused_unharmed(path: Path, open_store: OpenStore) -> None:
    store = await open_store()
    for number in range(50):
        await write(store, Put(f"key/{number}", b"v" * 500))
    await store.close()
    content = bytearray(path.read_bytes())
    for page in range(1, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(content)

    await refused(path, StoreCorrupt)


async def test_a_truncated_store_is_refused_unharmed(path: Path, open_store: OpenStore) -> None:
    store = await open_store()
    await write(store, Put("key", b"v" * 100_000))
    await store.close()
    path.write_bytes(path.read_bytes()[:20_000])

    await refused(path, StoreCorrupt)


@pytest.mark.parametrize("table", ["state", "keys", "leases", "history"])
async def test_a_store_without_one_of_its_tables_is_refused_unharmed(
    path: Path, open_store: OpenStore, table: str
) -> None:
    await (await open_store()).close()
    by_hand(path, f"DROP TABLE {table}")

    await refused(path, StoreCorrupt)


async def test_a_store_without_its_revision_is_refused_unharmed(path: Path, open_store: OpenStore) -> None:
    await (await open_store()).close()
    by_hand(path, "DELETE FROM state")

    assert "revision" in str(await refused(path, StoreCorrupt))


async def test_damage_done_while_open_is_told_as_damage(path: Path, open_store: OpenStore) -> None:
    store = await open_store()
    await write(store, *(Put(f"key/{number}", b"v" * 4000) for number in range(100)))
    await store.close()
    store = await open_store()
    size = path.stat().st_size
    # In place, and by a process of its own: a descriptor closed in this one would drop the store's locks.
    process = await asyncio.create_subprocess_exec(
        "dd", "if=/dev/urandom", f"of={path}", "bs=4096", "seek=1", f"count={size // 4096 - 1}",
        "conv=notrunc", stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert await process.wait() == 0

    with pytest.raises(StoreCorrupt):
        await store.list("", timeout_s=LIMIT_S)


async def test_a_log_left_beside_a_missing_store_stops_a_new_one_from_being_made(
    path: Path, open_store: OpenStore
) -> None:
    """Agents that still run hold the deleted file: a fresh store beside them would be a second truth."""
    store = await open_store()
    await write(store, Put("key", b"1"))
    path.unlink()

    with pytest.raises(StoreCorrupt, match="missing"):
        await SqliteStore.open(path, timeout_s=LIMIT_S)

    assert not path.exists()


async def test_a_deleted_file_is_noticed_by_reads_writes_and_watches(path: Path, open_store: OpenStore) -> None:
    store = await open_store()
    await write(store, Put("key", b"1"))
    async with asyncio.timeout(60), contextlib.aclosing(store.watch("", 1)) as watch:
        await anext(watch)
        for file in path.parent.iterdir():
            file.unlink()

        with pytest.raises(StoreReplaced):
            await write(store, Put("key", b"2"))
        with pytest.raises(StoreReplaced):
            await store.get("key", timeout_s=LIMIT_S)
        with pytest.raises(StoreReplaced):
            async for _ in watch:
                pass


@pytest.mark.parametrize("swapped", ["store.db", "store.db-wal", "store.db-shm"])
async def test_a_replaced_file_is_noticed_and_one_put_back_is_used_again(
    path: Path, open_store: OpenStore, swapped: str
) -> None:
    store = await open_store()
    await write(store, Put("key", b"1"))
    original, aside = path.with_name(swapped), path.with_name("aside")
    original.rename(aside)
    shutil.copy(aside, original)

    with pytest.raises(StoreReplaced):
        await write(store, Put("key", b"2"))
    with pytest.raises(StoreReplaced):
        await store.list("", timeout_s=LIMIT_S)
    aside.rename(original)

    assert await write(store, Put("key", b"3")) == 2


async def test_values_written_by_hand_with_any_type_are_read_as_bytes(path: Path, open_store: OpenStore) -> None:
    store = await open_store()
    by_hand(
        path,
        "INSERT INTO keys VALUES ('blob', x'00ff', 1, 1, NULL), ('text', 'é', 1, 1, NULL), "
        "('number', 42, 1, 1, NULL), ('real', 0.5, 1, 1, NULL), "
        "('bad text', CAST(x'ff41' AS TEXT), 1, 1, NULL), (CAST(x'6bff' AS TEXT), 'v', 1, 1, NULL)",
    )

    keys = (await store.list("", timeout_s=LIMIT_S)).keys

    assert {key.key: key.value for key in keys} == {
        "blob": b"\x00\xff",
        "text": "é".encode(),
        "number": b"42",
        "real": b"0.5",
        "bad text": b"\xffA",
        "k\\xff": b"v",
    }
    await write(store, Put("number", b"43"), Delete("text"))


async def test_a_leased_key_written_by_hand_without_its_lease_goes_like_one_whose_lease_is_over(
    path: Path, open_store: OpenStore
) -> None:
    store = await open_store()
    by_hand(path, "INSERT INTO keys VALUES ('orphan', x'00', 1, 1, 77)")

    assert await store.get("orphan", timeout_s=LIMIT_S) is None
    assert (await changes_of(store, 1)) == (Delete("orphan"),)


async def changes_of(store: Store, revision: int) -> tuple[object, ...]:
    async with asyncio.timeout(60), contextlib.aclosing(store.watch("", revision)) as watch:
        async for batch in watch:
            if batch.changes:
                return batch.changes
    raise AssertionError("the watch ended")
