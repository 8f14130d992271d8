"""Every store: leases of whole seconds that never end early, and take their keys along at one revision."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

import pytest

from outlive.cluster.transaction import Delete, Put, Transaction, absent
from outlive.store.base import MAX_LEASE_TTL_S, LeaseGone, RequestRefused, Store

LIMIT_S = 60.0
ROOM_S = 1
"""How much longer a lease lasts that is used before its end, for machines that are busy."""
NO_LEASE = 2**62 + 12345


async def write(store: Store, *writes: Put | Delete) -> int:
    return (await store.transact(Transaction((), writes), timeout_s=LIMIT_S)).revision


async def until_absent(store: Store, key: str) -> None:
    async with asyncio.timeout(60):
        while await store.get(key, timeout_s=LIMIT_S) is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_keys_vanish_with_their_lease_but_never_before_its_time(
    store: Store, other: Store, shortest_ttl_s: int
) -> None:
    """The holder's instance is closed at once: leases outlive it."""
    granted_after = time.monotonic()
    lease = await store.grant_lease(shortest_ttl_s + ROOM_S, timeout_s=LIMIT_S)
    revision = await write(store, Put("a", b"1", lease.id), Put("b", b"1", lease.id), Put("stays", b"1"))
    await store.close()

    seen = await other.get("a", timeout_s=LIMIT_S)
    await until_absent(other, "a")
    listing = await other.list("", timeout_s=LIMIT_S)

    assert time.monotonic() - granted_after >= lease.ttl_s >= shortest_ttl_s
    assert seen is not None
    assert seen.lease == lease.id
    assert [key.key for key in listing.keys] == ["stays"]
    assert listing.revision == revision + 1


async def test_the_end_of_a_lease_is_one_change_to_watchers(store: Store, shortest_ttl_s: int) -> None:
    lease = await store.grant_lease(shortest_ttl_s + ROOM_S, timeout_s=LIMIT_S)
    revision = await write(store, Put("a", b"1", lease.id), Put("b", b"1", lease.id))

    async with asyncio.timeout(60), contextlib.aclosing(store.watch("", revision + 1)) as watch:
        async for batch in watch:
            if batch.changes:
                break

    assert batch.revision == revision + 1
    assert sorted(change.key for change in batch.changes) == ["a", "b"]
    assert all(isinstance(change, Delete) for change in batch.changes)


async def test_a_lease_kept_alive_lasts_and_one_that_ended_cannot_be_revived(
    store: Store, other: Store, shortest_ttl_s: int
) -> None:
    ttl_s = shortest_ttl_s + ROOM_S
    lease = await store.grant_lease(ttl_s, timeout_s=LIMIT_S)
    await write(store, Put("key", b"1", lease.id))
    for _ in range(4):
        await asyncio.sleep(ttl_s / 3)
        assert await other.keep_alive(lease.id, timeout_s=LIMIT_S) >= ttl_s
    kept = await store.get("key", timeout_s=LIMIT_S)
    await until_absent(store, "key")

    assert kept is not None
    with pytest.raises(LeaseGone):
        await other.keep_alive(lease.id, timeout_s=LIMIT_S)


async def test_revoking_deletes_the_keys_at_once_and_is_no_error_twice(store: Store, other: Store) -> None:
    lease = await store.grant_lease(60, timeout_s=LIMIT_S)
    revision = await write(store, Put("a", b"1", lease.id), Put("b", b"1", lease.id), Put("c", b"1"))

    await other.revoke(lease.id, timeout_s=LIMIT_S)
    await store.revoke(lease.id, timeout_s=LIMIT_S)
    listing = await store.list("", timeout_s=LIMIT_S)

    assert [key.key for key in listing.keys] == ["c"]
    assert listing.revision == revision + 1
    with pytest.raises(LeaseGone):
        await store.keep_alive(lease.id, timeout_s=LIMIT_S)


async def test_a_put_under_an_ended_lease_is_refused_and_nothing_written(store: Store) -> None:
    lease = await store.grant_lease(60, timeout_s=LIMIT_S)
    await store.revoke(lease.id, timeout_s=LIMIT_S)

    for gone in (lease.id, NO_LEASE):
        with pytest.raises(LeaseGone):
            await write(store, Put("a", b"1"), Put("b", b"1", gone))
        with pytest.raises(LeaseGone):
            await store.keep_alive(gone, timeout_s=LIMIT_S)

    assert (await store.list("", timeout_s=LIMIT_S)).keys == ()


async def test_a_failed_comparison_comes_before_a_missing_lease(store: Store) -> None:
    await write(store, Put("key", b"1"))

    result = await store.transact(Transaction((absent("key"),), (Put("key", b"2", NO_LEASE),)), timeout_s=LIMIT_S)

    assert not result.succeeded


async def test_a_key_belongs_to_the_lease_of_its_last_put(store: Store) -> None:
    first = await store.grant_lease(60, timeout_s=LIMIT_S)
    second = await store.grant_lease(60, timeout_s=LIMIT_S)
    await write(store, Put("freed", b"1", first.id), Put("moved", b"1", first.id), Put("bound", b"1"))
    await write(store, Put("freed", b"2"), Put("moved", b"2", second.id), Put("bound", b"2", first.id))

    await store.revoke(first.id, timeout_s=LIMIT_S)
    after_first = (await store.list("", timeout_s=LIMIT_S)).keys
    await store.revoke(second.id, timeout_s=LIMIT_S)
    after_second = (await store.list("", timeout_s=LIMIT_S)).keys

    assert [(key.key, key.lease) for key in after_first] == [("freed", None), ("moved", second.id)]
    assert [key.key for key in after_second] == ["freed"]


async def test_lease_ids_are_not_used_again(store: Store, open_store: Callable[[], Awaitable[Store]]) -> None:
    first = await store.grant_lease(60, timeout_s=LIMIT_S)
    await store.revoke(first.id, timeout_s=LIMIT_S)
    await store.close()
    again = await open_store()

    assert (await again.grant_lease(60, timeout_s=LIMIT_S)).id != first.id


@pytest.mark.parametrize("ttl_s", [0, -1, MAX_LEASE_TTL_S + 1])
async def test_lengths_that_no_lease_has_are_refused(store: Store, ttl_s: int) -> None:
    with pytest.raises(RequestRefused):
        await store.grant_lease(ttl_s, timeout_s=LIMIT_S)
