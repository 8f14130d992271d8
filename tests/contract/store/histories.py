"""What clients saw of a store, and whether a store that keeps its promises could have shown it.

Writers put values that nobody else puts, readers read, watchers follow, holders keep leases alive. Everybody notes
when each call began and ended on one clock, and how. The store's own revisions give the order of all changes, as two
watchers told it; so each promise can be checked exactly, however long the history is.
"""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from outlive.cluster.transaction import Delete, KeyValue, Put, Transaction, unchanged
from outlive.store.base import LeaseGone, Store, StoreError, StoreUncertain, WatchBatch

KEYS = ("x", "y", "z")
CALL_S = 2.0
PAUSE_S = 0.01
LEASE_S = 2
WAKES_S = 5.0


@dataclass(frozen=True)
class Write:
    """A put of a value that is nobody else's. revision: None unless it was acknowledged."""

    key: str
    value: bytes
    began: float
    ended: float
    revision: int | None = None
    sure_not: bool = False


@dataclass(frozen=True)
class Read:
    """A key that was read. mod_revision: 0 for an absent one."""

    key: str
    began: float
    ended: float
    mod_revision: int
    value: bytes


@dataclass
class Held:
    """A lease: when it was last surely alive, and the key bound to it."""

    key: str
    ttl_s: int
    alive_at: float
    gone_said: bool = False


@dataclass
class History:
    """All that was noted."""

    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    told: dict[int, list[tuple[float, WatchBatch]]] = field(default_factory=dict)
    fresh: int = 0
    unsure_reads: int = 0
    refusals: set[str] = field(default_factory=set)
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    woke: list[float] = field(default_factory=list)
    """When a member went on that had stood still. etcd before 3.4.31 and 3.5.13 may then end leases early."""
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def write(self, store: Store, rng: random.Random) -> None:
        """Put, put when unchanged, read; again and again."""
        while not self.ending.is_set():
            key = rng.choice(KEYS)
            seen = await self._read(store, key)
            if seen is not None or rng.random() < 0.3:
                value = str(next(self._numbers)).encode()
                compares = (unchanged(key, seen.mod_revision),) if seen and rng.random() < 0.7 else ()
                await self._put(store, Transaction(compares, (Put(key, value), Put("same", value))), key, value)
            await asyncio.sleep(PAUSE_S)

    async def _read(self, store: Store, key: str) -> Read | None:
        began = time.monotonic()
        try:
            found = await store.get(key, timeout_s=CALL_S)
        except StoreError as error:
            self.unsure_reads += isinstance(error, StoreUncertain)
            self.refusals.add(error.id)
            return None
        read = Read(key, began, time.monotonic(), found.mod_revision if found else 0, found.value if found else b"")
        self.reads.append(read)
        return read

    async def _put(self, store: Store, transaction: Transaction, key: str, value: bytes) -> None:
        began, revision, sure_not = time.monotonic(), None, False
        try:
            done = await store.transact(transaction, timeout_s=CALL_S)
            revision = done.revision if done.succeeded else None
            sure_not = not done.succeeded
        except StoreError as error:
            self.refusals.add(error.id)
            sure_not = not isinstance(error, StoreUncertain)
        self.writes.append(Write(key, value, began, time.monotonic(), revision, sure_not))

    async def hold(self, store: Store, name: str) -> None:
        """Hold a lease with a key, keep it alive for a while, and then let it run out; again and again."""
        for number in itertools.count():
            if self.ending.is_set():
                return
            key = f"lease/{name}{number}"
            try:
                began = time.monotonic()
                lease = await store.grant_lease(LEASE_S, timeout_s=CALL_S)
                await store.transact(Transaction((), (Put(key, b"", lease.id),)), timeout_s=CALL_S)
            except StoreError:
                continue
            held = Held(key, lease.ttl_s, began)
            self.held.append(held)
            until = time.monotonic() + 3 * LEASE_S
            while time.monotonic() < until and not held.gone_said:
                await asyncio.sleep(LEASE_S / 6)
                await self._keep(store, lease.id, held)

    async def _keep(self, store: Store, lease: int, held: Held) -> None:
        began = time.monotonic()
        try:
            ttl_s = await store.keep_alive(lease, timeout_s=CALL_S)
        except LeaseGone:
            held.gone_said = True
        except StoreError:
            return
        else:
            held.alive_at, held.ttl_s = began, ttl_s

    async def watch(self, store: Store, name: int, from_revision: int, upto: Callable[[], int | None]) -> None:
        """Follow everything until a revision that is known only later; go on where a watch ended."""
        told = self.told.setdefault(name, [])
        next_revision = from_revision
        while True:
            with contextlib.suppress(StoreError):
                async with contextlib.aclosing(store.watch("", next_revision)) as batches:
                    async for batch in batches:
                        if batch.changes:
                            assert batch.revision >= next_revision
                            told.append((time.monotonic(), batch))
                        else:
                            self.fresh += 1
                            assert batch.revision >= next_revision - 1 or not told
                        next_revision = max(next_revision, batch.revision + 1)
                        last = upto()
                        if last is not None and batch.revision >= last:
                            return
            await asyncio.sleep(0.05)

    def check(self, final: dict[str, KeyValue]) -> None:
        """Raise AssertionError for each promise that was broken."""
        first, *others = ([batch for _, batch in each] for each in self.told.values())
        assert all(other == first for other in others), "watchers were told different things"
        assert [batch.revision for batch in first] == sorted({batch.revision for batch in first})
        assert not self.unsure_reads, "a read has no outcome to be unsure of"
        self._check_writes(first)
        self._check_order(first)
        self._check_leases()
        picture: dict[str, KeyValue] = {}
        for batch in first:
            for change in batch.changes:
                if isinstance(change, Delete):
                    picture.pop(change.key, None)
                else:
                    picture[change.key] = change
        assert picture == final, "what watchers were told is not what is there"

    def _check_writes(self, batches: list[WatchBatch]) -> None:
        happened = {
            change.value: (batch.revision, change.key)
            for batch in batches
            for change in batch.changes
            if isinstance(change, KeyValue) and change.key in KEYS
        }
        for write in self.writes:
            seen = happened.get(write.value)
            if write.revision is not None:
                assert seen == (write.revision, write.key), f"lost, though acknowledged: {write}"
            if write.sure_not:
                assert seen is None, f"done, though surely not: {write}, at {seen}"
        for batch in batches:
            own = [change.value for change in batch.changes if isinstance(change, KeyValue) and change.key in KEYS]
            same = [change.value for change in batch.changes if isinstance(change, KeyValue) and change.key == "same"]
            assert own == same, f"half a transaction: {batch}"

    def _check_order(self, batches: list[WatchBatch]) -> None:
        """Real time and revisions never disagree: a call that began after another's end saw at least as much."""
        for key in KEYS:
            changes = (change for batch in batches for change in batch.changes if isinstance(change, KeyValue))
            at = {change.value: change.mod_revision for change in changes if change.key == key}
            points: list[tuple[float, int, int]] = []
            for write in self.writes:
                if write.key == key and (revision := at.get(write.value)) is not None:
                    ended = write.ended if write.revision is not None else float("inf")
                    points += [(write.began, 1, revision), (ended, 0, revision)]
            for read in self.reads:
                if read.key == key:
                    assert at.get(read.value, 0) == read.mod_revision, f"read what nobody wrote: {read}"
                    points += [(read.began, 2, read.mod_revision), (read.ended, 0, read.mod_revision)]
            over = 0
            for when, kind, revision in sorted(points):
                if kind == 0:
                    over = max(over, revision) if when != float("inf") else over
                else:
                    assert revision > over or (kind == 2 and revision == over), f"{key} went back at {when}"

    def _check_leases(self) -> None:
        ended: dict[str, float] = {}
        for when, batch in self.told[0]:
            for change in batch.changes:
                if isinstance(change, Delete):
                    ended[change.key] = when
        for held in self.held:
            if held.key in ended:
                lasted = ended[held.key] - held.alive_at
                excused = any(-WAKES_S <= ended[held.key] - woke <= WAKES_S for woke in self.woke)
                assert lasted >= held.ttl_s or excused, f"a lease ended early: {held} after {lasted:.2f} s"
            else:
                assert not held.gone_said, f"a lease was called ended whose key is there: {held}"


async def lived(
    open_store: Callable[[], Awaitable[Store]],
    trouble: Callable[[History], Awaitable[None]],
    *,
    clients: int = 4,
    seed: int = 0,
) -> History:
    """A history while `trouble` (an asynchronous function) makes trouble, and the time after it; checked."""
    history = History()
    stores: list[Store] = [await open_store() for _ in range(clients + 3)]
    start = (await stores[0].list("", timeout_s=60)).revision
    last: list[int] = []
    try:
        async with asyncio.TaskGroup() as group:
            watchers = [
                group.create_task(history.watch(store, name, start + 1, lambda: last[0] if last else None))
                for name, store in enumerate(stores[:2])
            ]
            busy = [
                group.create_task(history.write(store, random.Random(seed * 100 + number)))
                for number, store in enumerate(stores[2:-1])
            ]
            busy.append(group.create_task(history.hold(stores[-1], "h")))
            await trouble(history)
            history.ending.set()
            await asyncio.wait(busy)
            # Leases run out, and what was late comes late.
            await asyncio.sleep(2 * LEASE_S)
            final = await stores[0].list("", timeout_s=60)
            last.append(final.revision)
            await asyncio.wait(watchers)
    finally:
        for store in stores:
            await store.close()
    history.check({key.key: key for key in final.keys})
    return history
