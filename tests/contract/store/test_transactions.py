"""Every store: keys, revisions, and transactions that happen wholly or not at all."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from outlive.cluster.transaction import (
    MAX_KEY_BYTES,
    MAX_VALUE_BYTES,
    Compare,
    Delete,
    Field,
    KeyValue,
    Put,
    Transaction,
    TransactionResult,
    absent,
    same_incarnation,
    unchanged,
)
from outlive.store.base import MAX_TRANSACTION_OPERATIONS, RequestRefused, Store, StoreUnavailable

LIMIT_S = 60.0


async def write(store: Store, *writes: Put | Delete) -> TransactionResult:
    return await store.transact(Transaction((), writes), timeout_s=LIMIT_S)


async def attempt(store: Store, compare: Compare, *writes: Put | Delete) -> bool:
    return (await store.transact(Transaction((compare,), writes), timeout_s=LIMIT_S)).succeeded


async def test_an_absent_key_reads_as_none(store: Store) -> None:
    assert await store.get("nothing", timeout_s=LIMIT_S) is None
    assert (await store.list("", timeout_s=LIMIT_S)).keys == ()


async def test_a_put_key_is_read_back_by_another_instance_with_its_revisions(store: Store, other: Store) -> None:
    result = await write(store, Put("key", b"\x00\xff value"))

    assert result.succeeded
    assert await other.get("key", timeout_s=LIMIT_S) == KeyValue(
        "key", b"\x00\xff value", result.revision, result.revision
    )


async def test_an_empty_value_is_a_value(store: Store) -> None:
    await write(store, Put("key", b""))

    found = await store.get("key", timeout_s=LIMIT_S)

    assert found is not None
    assert found.value == b""


async def test_writing_again_keeps_the_creation_and_deleting_ends_it(store: Store) -> None:
    first = (await write(store, Put("key", b"1"))).revision
    second = (await write(store, Put("key", b"2"))).revision
    after_put = await store.get("key", timeout_s=LIMIT_S)
    await write(store, Delete("key"))
    after_delete = await store.get("key", timeout_s=LIMIT_S)
    third = (await write(store, Put("key", b"3"))).revision

    assert after_put == KeyValue("key", b"2", first, second)
    assert after_delete is None
    assert await store.get("key", timeout_s=LIMIT_S) == KeyValue("key", b"3", third, third)
    assert first < second < third


async def test_all_writes_of_a_transaction_carry_one_new_revision(store: Store) -> None:
    before = (await write(store, Put("b", b"old"))).revision
    result = await write(store, Put("a", b"1"), Put("b", b"2"), Put("c", b"3"))

    listing = await store.list("", timeout_s=LIMIT_S)

    assert listing.revision == result.revision == before + 1
    assert {key.mod_revision for key in listing.keys} == {result.revision}


async def test_a_transaction_that_changes_nothing_makes_no_revision(store: Store) -> None:
    revision = (await write(store, Put("key", b"1"))).revision

    nothing_written = await write(store)
    absent_deleted = await write(store, Delete("absent"))
    compare_failed = await store.transact(Transaction((absent("key"),), (Put("key", b"2"),)), timeout_s=LIMIT_S)

    assert nothing_written == TransactionResult(True, revision)
    assert absent_deleted == TransactionResult(True, revision)
    assert compare_failed == TransactionResult(False, revision)


async def test_putting_the_same_value_again_is_a_change(store: Store) -> None:
    first = (await write(store, Put("key", b"1"))).revision

    assert (await write(store, Put("key", b"1"))).revision == first + 1


async def test_each_comparison_holds_exactly_for_its_number(store: Store) -> None:
    created = (await write(store, Put("key", b"1"))).revision
    modified = (await write(store, Put("key", b"2"))).revision
    mark = Put("mark", b"")

    assert await attempt(store, same_incarnation("key", created), mark)
    assert await attempt(store, unchanged("key", modified), mark)
    assert await attempt(store, absent("other"), mark)
    assert await attempt(store, same_incarnation("other", 0), mark)
    assert not await attempt(store, same_incarnation("key", modified), mark)
    assert not await attempt(store, unchanged("key", created), mark)
    assert not await attempt(store, absent("key"), mark)
    assert not await attempt(store, Compare("key", Field.CREATED, 0), mark)


async def test_one_failed_comparison_prevents_every_write(store: Store) -> None:
    await write(store, Put("present", b"1"))

    result = await store.transact(
        Transaction((absent("a"), absent("present")), (Put("a", b"1"), Delete("present"))), timeout_s=LIMIT_S
    )

    assert not result.succeeded
    assert [key.key for key in (await store.list("", timeout_s=LIMIT_S)).keys] == ["present"]


async def test_concurrent_compare_and_swap_loses_no_update(store: Store, other: Store) -> None:
    """Two instances count up one key, each trying again when the other was first."""
    await write(store, Put("count", b"0"))

    async def count_up(instance: Store, times: int) -> None:
        while times:
            seen = await instance.get("count", timeout_s=LIMIT_S)
            assert seen is not None
            value = str(int(seen.value) + 1).encode()
            times -= await attempt(instance, unchanged("count", seen.mod_revision), Put("count", value))

    async with asyncio.TaskGroup() as group:
        group.create_task(count_up(store, 40))
        group.create_task(count_up(other, 40))

    final = await store.get("count", timeout_s=LIMIT_S)
    assert final is not None
    assert final.value == b"80"


async def test_a_listing_never_shows_half_a_transaction(store: Store, other: Store) -> None:
    async def keep_equal() -> None:
        for number in range(80):
            value = str(number).encode()
            await write(store, Put("pair/left", value), Put("pair/right", value))

    writer = asyncio.create_task(keep_equal())
    revisions = []
    while not writer.done():
        listing = await other.list("pair/", timeout_s=LIMIT_S)
        assert len({(key.value, key.mod_revision) for key in listing.keys}) <= 1
        assert all(key.mod_revision == listing.revision for key in listing.keys)
        revisions.append(listing.revision)
    await writer

    assert revisions == sorted(revisions)


async def test_list_gives_the_keys_with_the_prefix_in_order_of_their_bytes(store: Store) -> None:
    inside = ["p", "p%", "p/1", "p/10", "p/2", "p_", "pé", "p\ud7ff", "p\ue000", "p😀", "p\U0010ffff"]
    outside = ["P", "o", "q", "o\U0010ffff"]
    await write(store, *(Put(key, b"") for key in inside + outside))

    found = await store.list("p", timeout_s=LIMIT_S)
    of_slash = await store.list("p/", timeout_s=LIMIT_S)
    of_percent = await store.list("p%", timeout_s=LIMIT_S)
    of_last = await store.list("p\U0010ffff", timeout_s=LIMIT_S)
    before_gap = await store.list("p\ud7ff", timeout_s=LIMIT_S)
    everything = await store.list("", timeout_s=LIMIT_S)

    assert [key.key for key in found.keys] == sorted(inside, key=str.encode)
    assert [key.key for key in of_slash.keys] == ["p/1", "p/10", "p/2"]
    assert [key.key for key in of_percent.keys] == ["p%"]
    assert [key.key for key in of_last.keys] == ["p\U0010ffff"]
    assert [key.key for key in before_gap.keys] == ["p\ud7ff"]
    assert [key.key for key in everything.keys] == sorted(inside + outside, key=str.encode)


async def test_keys_and_values_of_the_largest_size_are_kept(store: Store) -> None:
    key, value = "k" * MAX_KEY_BYTES, b"v" * MAX_VALUE_BYTES
    await write(store, Put(key, value))

    found = await store.get(key, timeout_s=LIMIT_S)

    assert found is not None
    assert found.value == value


@pytest.mark.parametrize(
    "writes",
    [
        pytest.param((Put("k" * (MAX_KEY_BYTES + 1), b""),), id="key too long"),
        pytest.param((Put("é" * (MAX_KEY_BYTES // 2 + 1), b""),), id="key too long in bytes"),
        pytest.param((Put("k", b"v" * (MAX_VALUE_BYTES + 1)),), id="value too long"),
        pytest.param((Put("", b""),), id="empty key"),
        pytest.param((Put("a\0b", b""),), id="control character"),
        pytest.param((Put("\ud800", b""),), id="not UTF-8"),
        pytest.param((Put("k", b"1"), Put("k", b"2")), id="written twice"),
        pytest.param((Put("k", b"1"), Delete("k")), id="written and deleted"),
        pytest.param(tuple(Put(f"k{i}", b"v" * MAX_VALUE_BYTES) for i in range(2)), id="too much at once"),
        pytest.param(tuple(Put(f"k{i}", b"") for i in range(MAX_TRANSACTION_OPERATIONS + 1)), id="too many"),
    ],
)
async def test_what_no_store_could_take_is_refused_and_nothing_written(
    store: Store, writes: tuple[Put | Delete, ...]
) -> None:
    with pytest.raises(RequestRefused):
        await write(store, Put("before", b""), *writes)

    assert (await store.list("", timeout_s=LIMIT_S)).keys == ()


async def test_reading_keys_that_cannot_be_is_refused(store: Store) -> None:
    with pytest.raises(RequestRefused):
        await store.get("", timeout_s=LIMIT_S)
    with pytest.raises(RequestRefused):
        await store.list("p" * (MAX_KEY_BYTES + 1), timeout_s=LIMIT_S)


async def test_a_cancelled_call_leaves_the_store_working_and_whole(store: Store) -> None:
    for number in range(20):
        value = str(number).encode()
        task = asyncio.create_task(write(store, Put("left", value), Put("right", value)))
        await asyncio.sleep(0.0002 * number)
        task.cancel()
        await asyncio.wait({task}, timeout=LIMIT_S)

        keys = (await store.list("", timeout_s=LIMIT_S)).keys

        assert len({(key.value, key.mod_revision) for key in keys}) <= 1
    assert (await write(store, Put("left", b"last"))).succeeded


async def test_a_closed_store_says_so_and_can_be_closed_again(store: Store, other: Store) -> None:
    await write(store, Put("key", b"1"))
    await store.close()
    await store.close()

    with pytest.raises(StoreUnavailable):
        await store.get("key", timeout_s=LIMIT_S)
    with pytest.raises(StoreUnavailable):
        await write(store, Put("key", b"2"))
    found = await other.get("key", timeout_s=LIMIT_S)
    assert found is not None
    assert found.value == b"1"


async def test_what_was_acknowledged_is_there_after_every_instance_closed(
    store: Store, open_store: Callable[[], Awaitable[Store]]
) -> None:
    revision = (await write(store, Put("key", b"1"))).revision
    await store.close()

    again = await open_store()

    assert await again.get("key", timeout_s=LIMIT_S) == KeyValue("key", b"1", revision, revision)
    assert (await write(again, Put("key", b"2"))).revision == revision + 1
