"""Any sequence of calls, through two instances, does what a dictionary and a list would do."""

import asyncio
import contextlib
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from outlive.cluster.transaction import Compare, Delete, Field, KeyValue, Put, Transaction, TransactionResult
from outlive.store.base import Compacted, LeaseGone, WatchBatch
from outlive.store.boot_clock import BootClock
from outlive.store.sqlite import SqliteStore

T = TypeVar("T")

LIMIT_S = 60.0
MEMORY = Path("/dev/shm")  # what is looked at here is no matter of disks, and thousands of syncs take their time
KEYS = st.sampled_from(["a", "a/1", "a/2", "b", "é"])
PREFIXES = st.sampled_from(["", "a", "a/", "b", "é", "none"])
INSTANCES = st.integers(0, 1)


@dataclass
class Model:
    """The store, told in the simplest way."""

    revision: int = 0
    compacted: int = 0
    keys: dict[str, KeyValue] = field(default_factory=dict)
    leases: dict[int, tuple[int, bool, int]] = field(default_factory=dict)  # ttl, of this boot, deadline
    history: list[WatchBatch] = field(default_factory=list)

    def transact(self, transaction: Transaction) -> TransactionResult | None:
        """None: a lease is gone."""
        if not all(self._holds(compare) for compare in transaction.compares):
            return TransactionResult(False, self.revision)
        if any(isinstance(w, Put) and w.lease is not None and w.lease not in self.leases for w in transaction.writes):
            return None
        revision = self.revision + 1
        changes: list[KeyValue | Delete] = []
        for write in transaction.writes:
            if isinstance(write, Put):
                before = self.keys.get(write.key)
                created = before.create_revision if before else revision
                self.keys[write.key] = KeyValue(write.key, write.value, created, revision, write.lease)
                changes.append(self.keys[write.key])
            elif self.keys.pop(write.key, None):
                changes.append(write)
        self._record(changes)
        return TransactionResult(True, self.revision)

    def end_lease(self, lease_id: int) -> None:
        self.leases.pop(lease_id, None)
        gone = sorted(key for key, value in self.keys.items() if value.lease == lease_id)
        for key in gone:
            del self.keys[key]
        self._record([Delete(key) for key in gone])

    def end_leases(self, now_s: int) -> None:
        over = [(boot, deadline, i) for i, (_, boot, deadline) in self.leases.items() if not boot or deadline <= now_s]
        for _, _, lease_id in sorted(over):
            self.end_lease(lease_id)

    def _record(self, changes: list[KeyValue | Delete]) -> None:
        if changes:
            self.revision += 1
            self.history.append(WatchBatch(self.revision, tuple(changes)))

    def _holds(self, compare: Compare) -> bool:
        value = self.keys.get(compare.key)
        if value is None:
            return compare.revision == 0
        numbers = {Field.CREATED: value.create_revision, Field.MODIFIED: value.mod_revision}
        return numbers[compare.field] == compare.revision


class StoreMachine(RuleBasedStateMachine):
    """Drives two instances of one store, and the model, by the same calls and the same virtual clock."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        self.model = Model()
        self.now_s = 1
        self.boot = 1
        self.stores: list[SqliteStore] = []
        self.lease_ids = [10**6]

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(call, 2 * LIMIT_S))

    def open(self) -> SqliteStore:
        clock = BootClock(f"boot-{self.boot}", lambda: self.now_s * 1_000_000_000)
        return self.run(SqliteStore.open(Path(self.folder.name) / "store.db", timeout_s=LIMIT_S, clock=clock))

    @initialize()
    def begin(self) -> None:
        self.stores = [self.open(), self.open()]

    @rule(data=st.data(), instance=INSTANCES)
    def transact(self, data: st.DataObject, instance: int) -> None:
        leases = st.none() | st.sampled_from(self.lease_ids[-4:])
        compares = data.draw(st.lists(st.builds(self._compare, KEYS, st.sampled_from(Field), st.integers(0, 9))))
        puts = st.builds(Put, KEYS, st.binary(max_size=20), leases)
        writes = data.draw(st.lists(puts | st.builds(Delete, KEYS), unique_by=lambda write: write.key))
        transaction = Transaction(tuple(compares), tuple(writes))
        expected = self.model.transact(transaction)
        if expected is None:
            with pytest.raises(LeaseGone):
                self.run(self.stores[instance].transact(transaction, timeout_s=LIMIT_S))
        else:
            assert self.run(self.stores[instance].transact(transaction, timeout_s=LIMIT_S)) == expected

    def _compare(self, key: str, number: Field, guess: int) -> Compare:
        """Mostly one that holds."""
        value = self.model.keys.get(key)
        if guess > 2 or value is None:
            return Compare(key, number, guess if guess <= 2 else self._number(value, number))
        return Compare(key, number, guess)

    def _number(self, value: KeyValue | None, number: Field) -> int:
        if value is None:
            return 0
        return value.create_revision if number is Field.CREATED else value.mod_revision

    @rule(instance=INSTANCES, ttl_s=st.integers(1, 5))
    def grant_lease(self, instance: int, ttl_s: int) -> None:
        lease = self.run(self.stores[instance].grant_lease(ttl_s, timeout_s=LIMIT_S))
        assert lease.ttl_s == ttl_s
        assert lease.id not in self.lease_ids
        self.lease_ids.append(lease.id)
        self.model.leases[lease.id] = (ttl_s, True, self.now_s + ttl_s)

    @rule(data=st.data(), instance=INSTANCES)
    def keep_alive(self, data: st.DataObject, instance: int) -> None:
        lease_id = data.draw(st.sampled_from(self.lease_ids))
        call = self.stores[instance].keep_alive(lease_id, timeout_s=LIMIT_S)
        if lease_id in self.model.leases:
            ttl_s = self.model.leases[lease_id][0]
            assert self.run(call) == ttl_s
            self.model.leases[lease_id] = (ttl_s, True, self.now_s + ttl_s)
        else:
            with pytest.raises(LeaseGone):
                self.run(call)

    @rule(data=st.data(), instance=INSTANCES)
    def revoke(self, data: st.DataObject, instance: int) -> None:
        lease_id = data.draw(st.sampled_from(self.lease_ids))
        self.run(self.stores[instance].revoke(lease_id, timeout_s=LIMIT_S))
        self.model.end_lease(lease_id)

    @rule(seconds=st.integers(1, 3))
    def pass_time(self, seconds: int) -> None:
        self.now_s += seconds
        self.model.end_leases(self.now_s)

    @rule(back=st.integers(0, 5), instance=INSTANCES)
    def compact(self, back: int, instance: int) -> None:
        revision = max(0, self.model.revision - back)
        self.run(self.stores[instance].compact(revision, timeout_s=LIMIT_S))
        self.model.compacted = max(self.model.compacted, revision)

    @rule(instance=INSTANCES)
    def reopen(self, instance: int) -> None:
        self.run(self.stores[instance].close())
        self.stores[instance] = self.open()

    @rule()
    def start_the_machine_again(self) -> None:
        for store in self.stores:
            self.run(store.close())
        self.boot, self.now_s = self.boot + 1, 1
        self.model.leases = {i: (ttl, False, deadline) for i, (ttl, _, deadline) in self.model.leases.items()}
        self.model.end_leases(self.now_s)
        self.stores = [self.open(), self.open()]

    @rule(prefix=PREFIXES, instance=INSTANCES)
    def list(self, prefix: str, instance: int) -> None:
        expected = tuple(v for k, v in sorted(self.model.keys.items()) if k.startswith(prefix))
        assert self.run(self.stores[instance].list(prefix, timeout_s=LIMIT_S)) == (self.model.revision, expected)

    @rule(key=KEYS, instance=INSTANCES)
    def get(self, key: str, instance: int) -> None:
        assert self.run(self.stores[instance].get(key, timeout_s=LIMIT_S)) == self.model.keys.get(key)

    @rule(prefix=PREFIXES, back=st.integers(0, 12), instance=INSTANCES)
    def watch(self, prefix: str, back: int, instance: int) -> None:
        first = max(1, self.model.revision - back)
        if first <= self.model.compacted:
            with pytest.raises(Compacted) as raised:
                self.run(self._told(instance, prefix, first))
            assert raised.value.oldest == self.model.compacted + 1
            return
        expected = []
        for batch in self.model.history:
            changes = tuple(change for change in batch.changes if change.key.startswith(prefix))
            if batch.revision >= first and changes:
                expected.append(WatchBatch(batch.revision, changes))
        assert self.run(self._told(instance, prefix, first)) == expected

    async def _told(self, instance: int, prefix: str, first: int) -> "list[WatchBatch]":  # type: ignore[valid-type]
        batches = []
        async with contextlib.aclosing(self.stores[instance].watch(prefix, first)) as watch:
            async for batch in watch:
                if batch.changes:
                    batches.append(batch)
                if batch.revision >= self.model.revision:
                    break
        return batches

    @invariant()
    def revisions_are_in_order(self) -> None:
        assert [batch.revision for batch in self.model.history] == sorted(
            {batch.revision for batch in self.model.history}
        )

    def teardown(self) -> None:
        for store in self.stores:
            self.run(store.close())
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()
        self.folder.cleanup()


TestStoreModel = StoreMachine.TestCase
TestStoreModel.settings = settings(
    max_examples=50, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
