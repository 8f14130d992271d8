"""Leases by the boot clock: exact to the nanosecond, over with the boot, over even when nobody wrote it down."""

import contextlib
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from outlive.cluster.transaction import Put, Transaction, absent
from outlive.store.base import LeaseGone, StoreTimeout
from outlive.store.boot_clock import BootClock, kernel_boot_clock
from outlive.store.sqlite import SqliteStore

LIMIT_S = 60.0
OpenStore = Callable[..., Awaitable[SqliteStore]]


class Machine(Protocol):
    clock: BootClock

    def pass_time(self, seconds: float) -> None: ...
    def restart(self) -> None: ...


async def put(store: SqliteStore, key: str, lease: int | None) -> int:
    return (await store.transact(Transaction((), (Put(key, b"", lease),)), timeout_s=LIMIT_S)).revision


@contextlib.contextmanager
def write_lock_held(path: Path) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


async def test_a_lease_lasts_exactly_its_time(machine: Machine, open_store: OpenStore) -> None:
    store = await open_store(machine.clock)
    lease = await store.grant_lease(4, timeout_s=LIMIT_S)
    await put(store, "key", lease.id)

    machine.pass_time(3.999_999_999)
    shown_before = await store.get("key", timeout_s=LIMIT_S)
    machine.pass_time(0.000_000_001)
    shown_after = await store.get("key", timeout_s=LIMIT_S)

    assert shown_before is not None
    assert shown_after is None


async def test_keeping_alive_starts_the_time_again(machine: Machine, open_store: OpenStore) -> None:
    store = await open_store(machine.clock)
    lease = await store.grant_lease(4, timeout_s=LIMIT_S)
    machine.pass_time(3.9)

    assert await store.keep_alive(lease.id, timeout_s=LIMIT_S) == 4

    machine.pass_time(3.9)
    await put(store, "key", lease.id)
    machine.pass_time(0.1)
    with pytest.raises(LeaseGone):
        await store.keep_alive(lease.id, timeout_s=LIMIT_S)


async def test_nothing_shows_or_revives_a_lease_that_is_over_while_nobody_can_write_it_down(
    machine: Machine, path: Path, open_store: OpenStore
) -> None:
    store = await open_store(machine.clock)
    lease = await store.grant_lease(4, timeout_s=LIMIT_S)
    revision = await put(store, "key", lease.id)
    with write_lock_held(path):
        machine.pass_time(4)

        assert await store.get("key", timeout_s=LIMIT_S) is None
        assert await store.list("", timeout_s=LIMIT_S) == (revision, ())
        with pytest.raises(StoreTimeout):
            await store.keep_alive(lease.id, timeout_s=0.2)

    with pytest.raises(LeaseGone):
        await store.keep_alive(lease.id, timeout_s=LIMIT_S)
    with pytest.raises(LeaseGone):
        await put(store, "key", lease.id)
    taken = await store.transact(Transaction((absent("key"),), (Put("key", b"new"),)), timeout_s=LIMIT_S)
    assert taken.succeeded
    assert taken.revision == revision + 2


async def test_each_lease_ends_at_a_revision_of_its_own_in_order_of_time(
    machine: Machine, open_store: OpenStore
) -> None:
    store = await open_store(machine.clock)
    later = await store.grant_lease(5, timeout_s=LIMIT_S)
    sooner = await store.grant_lease(3, timeout_s=LIMIT_S)
    await put(store, "later", later.id)
    revision = await put(store, "sooner", sooner.id)
    machine.pass_time(60)

    told = []
    async with contextlib.aclosing(store.watch("", revision + 1)) as watch:
        async for batch in watch:
            told += [(batch.revision, change.key) for change in batch.changes]
            if len(told) == 2:
                break

    assert told == [(revision + 1, "sooner"), (revision + 2, "later")]


async def test_every_lease_is_over_when_the_machine_starts_again(machine: Machine, open_store: OpenStore) -> None:
    """Even one whose deadline, as a number, is still to come on the new boot's clock."""
    before = await open_store(machine.clock)
    lease = await before.grant_lease(3600, timeout_s=LIMIT_S)
    await put(before, "key", lease.id)
    revision = await put(before, "unleased", None)
    await before.close()
    machine.restart()
    after = await open_store(machine.clock)

    listing = await after.list("", timeout_s=LIMIT_S)

    assert [key.key for key in listing.keys] == ["unleased"]
    assert listing.revision == revision + 1
    with pytest.raises(LeaseGone):
        await after.keep_alive(lease.id, timeout_s=LIMIT_S)
    with pytest.raises(LeaseGone):
        await put(after, "key", lease.id)


async def test_a_lease_without_keys_ends_without_a_revision(machine: Machine, open_store: OpenStore) -> None:
    store = await open_store(machine.clock)
    lease = await store.grant_lease(4, timeout_s=LIMIT_S)
    revision = await put(store, "key", None)
    machine.pass_time(4)

    with pytest.raises(LeaseGone):
        await store.keep_alive(lease.id, timeout_s=LIMIT_S)
    assert (await store.list("", timeout_s=LIMIT_S)).revision == revision


def test_the_kernels_boot_clock_runs_and_names_its_boot() -> None:
    first, second = kernel_boot_clock(), kernel_boot_clock()

    assert first.boot_id == second.boot_id != ""
    assert 0 < first.now_ns() <= second.now_ns()
