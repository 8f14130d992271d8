"""Every store: watches that miss nothing, repeat nothing, and say when they cannot keep that."""

import asyncio
import contextlib
import random

import pytest

from outlive.cluster.transaction import Delete, KeyValue, Put, Transaction
from outlive.store.base import (
    PROGRESS_INTERVAL_S,
    Compacted,
    RequestRefused,
    Store,
    StoreUnavailable,
    WatchBatch,
)

LIMIT_S = 60.0


async def write(store: Store, *writes: Put | Delete) -> int:
    return (await store.transact(Transaction((), writes), timeout_s=LIMIT_S)).revision


async def changes(store: Store, prefix: str, from_revision: int, upto: int) -> list[WatchBatch]:
    """What a watch tells, without its signs of freshness, until all up to revision `upto` is told."""
    batches = []
    async with asyncio.timeout(60), contextlib.aclosing(store.watch(prefix, from_revision)) as watch:
        async for batch in watch:
            if batch.changes:
                batches.append(batch)
            if batch.revision >= upto:
                break
    return batches


async def test_a_batch_holds_all_changes_of_one_transaction_in_their_order(store: Store, other: Store) -> None:
    first = await write(store, Put("b", b"1"), Put("a", b"1"))
    second = await write(store, Delete("b"), Put("c", b"2"), Put("a", b"2"))

    assert await changes(other, "", first, second) == [
        WatchBatch(first, (KeyValue("b", b"1", first, first), KeyValue("a", b"1", first, first))),
        WatchBatch(second, (Delete("b"), KeyValue("c", b"2", second, second), KeyValue("a", b"2", first, second))),
    ]


async def test_only_changes_under_the_prefix_are_told(store: Store) -> None:
    first = await write(store, Put("p/1", b"1"), Put("q/1", b"1"))
    second = await write(store, Put("q/2", b"1"))
    third = await write(store, Delete("q/1"), Delete("p/1"))

    assert await changes(store, "p/", first, third) == [
        WatchBatch(first, (KeyValue("p/1", b"1", first, first),)),
        WatchBatch(third, (Delete("p/1"),)),
    ]
    assert second not in [batch.revision for batch in await changes(store, "p/", first, third)]


async def test_list_then_watch_misses_nothing_and_repeats_nothing(store: Store, other: Store) -> None:
    """A picture kept from a listing and the watch after it equals the store, at every batch's revision."""

    async def change_a_lot() -> int:
        rng = random.Random(7)
        revision = 0
        for number in range(120):
            key = f"k{rng.randrange(6)}"
            chosen = Delete(key) if rng.random() < 0.3 else Put(key, str(number).encode())
            revision = await write(other, chosen, Put("last", str(number).encode()))
        return revision

    writer = asyncio.create_task(change_a_lot())
    await asyncio.sleep(0.02)
    listing = await store.list("", timeout_s=LIMIT_S)
    picture = {key.key: key for key in listing.keys}
    told = []
    async with asyncio.timeout(60), contextlib.aclosing(store.watch("", listing.revision + 1)) as watch:
        async for batch in watch:
            for change in batch.changes:
                told.append(batch.revision)
                if isinstance(change, KeyValue):
                    picture[change.key] = change
                else:
                    del picture[change.key]
            if writer.done() and batch.revision >= writer.result():
                break

    assert sorted(set(told)) == list(range(listing.revision + 1, await writer + 1))
    assert told == sorted(told)
    final = await store.list("", timeout_s=LIMIT_S)
    assert tuple(picture[key] for key in sorted(picture)) == final.keys


async def test_a_watch_broken_off_anywhere_goes_on_from_the_revision_after(store: Store) -> None:
    revisions = [await write(store, Put("key", str(number).encode())) for number in range(30)]
    rng = random.Random(11)
    told: list[int] = []

    while len(told) < len(revisions):
        from_revision = told[-1] + 1 if told else revisions[0]
        stop_after = rng.randint(1, 9)
        async with asyncio.timeout(60), contextlib.aclosing(store.watch("", from_revision)) as watch:
            async for batch in watch:
                told += [change.mod_revision for change in batch.changes if isinstance(change, KeyValue)]
                stop_after -= 1
                if not stop_after or told[-1] == revisions[-1]:
                    break

    assert told == revisions


async def test_two_watchers_are_told_the_same_in_the_same_order(store: Store, other: Store) -> None:
    before = (await store.list("", timeout_s=LIMIT_S)).revision

    async def writer(instance: Store, name: str) -> int:
        revision = 0
        for number in range(40):
            revision = await write(instance, Put(f"{name}/{number % 3}", b""), Put("shared", name.encode()))
        return revision

    async with asyncio.TaskGroup() as group:
        watchers = [group.create_task(changes(instance, "", before + 1, before + 80)) for instance in (store, other)]
        writers = [group.create_task(writer(store, "a")), group.create_task(writer(other, "b"))]

    assert max(task.result() for task in writers) == before + 80
    assert watchers[0].result() == watchers[1].result()
    assert [batch.revision for batch in watchers[0].result()] == list(range(before + 1, before + 81))


async def test_an_idle_watch_shows_that_it_is_fresh(store: Store) -> None:
    revision = await write(store, Put("elsewhere", b""))
    loop = asyncio.get_running_loop()
    began_at = loop.time()

    async with asyncio.timeout(60), contextlib.aclosing(store.watch("p/", revision + 1)) as watch:
        first = await anext(watch)
        moved = await write(store, Put("elsewhere", b""))
        second = await anext(watch)
        while second.revision < moved:
            second = await anext(watch)

    assert first == WatchBatch(revision, ())
    assert second == WatchBatch(moved, ())
    # Generous: a busy machine may delay the signs, but they come without any change under the prefix.
    assert loop.time() - began_at < 10 * PROGRESS_INTERVAL_S


async def test_a_watch_from_a_revision_to_come_tells_nothing_before_it(store: Store) -> None:
    revision = await write(store, Put("key", b"1"))
    watching = asyncio.create_task(changes(store, "", revision + 3, revision + 3))
    await asyncio.sleep(0.1)
    for _ in range(3):
        await write(store, Put("key", b"2"))

    assert [batch.revision for batch in await watching] == [revision + 3]


async def test_a_watch_from_before_the_compaction_says_where_history_begins(store: Store) -> None:
    revisions = [await write(store, Put("key", str(number).encode())) for number in range(10)]
    await store.compact(revisions[5], timeout_s=LIMIT_S)

    with pytest.raises(Compacted) as raised:
        await changes(store, "", revisions[0], revisions[-1])

    oldest = raised.value.oldest
    assert revisions[5] <= oldest <= revisions[6]
    assert [batch.revision for batch in await changes(store, "", oldest, revisions[-1])] == [
        revision for revision in revisions if revision >= oldest
    ]


async def test_compacting_leaves_keys_and_live_watches_alone(store: Store, other: Store) -> None:
    first = await write(store, Put("old", b"1"))
    told: list[int] = []
    async with asyncio.timeout(60), contextlib.aclosing(other.watch("", first)) as watch:
        for _ in range(10):
            revision = await write(store, Put("key", b"1"))
            while not told or told[-1] < revision:
                batch = await anext(watch)
                told += [batch.revision] if batch.changes else []
            await store.compact(revision, timeout_s=LIMIT_S)

    assert told == list(range(first, first + 11))
    assert [key.key for key in (await store.list("", timeout_s=LIMIT_S)).keys] == ["key", "old"]
    assert await store.get("old", timeout_s=LIMIT_S) == KeyValue("old", b"1", first, first)


async def test_compacting_again_is_no_error_and_what_is_to_come_cannot_be_compacted(store: Store) -> None:
    revision = await write(store, Put("key", b"1"))
    await store.compact(revision, timeout_s=LIMIT_S)
    await store.compact(revision, timeout_s=LIMIT_S)
    await store.compact(revision - 1, timeout_s=LIMIT_S)

    with pytest.raises(RequestRefused):
        await store.compact(revision + 1, timeout_s=LIMIT_S)
    assert await write(store, Put("key", b"2")) == revision + 1


async def test_a_watch_ends_when_its_store_is_closed(store: Store) -> None:
    revision = await write(store, Put("key", b"1"))
    async with asyncio.timeout(60), contextlib.aclosing(store.watch("", revision)) as watch:
        await anext(watch)
        await store.close()
        with pytest.raises(StoreUnavailable):
            async for _ in watch:
                pass
