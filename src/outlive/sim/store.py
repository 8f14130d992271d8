"""The store as the cluster may rely on it: linearizable, with revisions, leases, and watches that may lag or break.

`Store` is the thing itself; `Door` is the way of one run of an agent to it, where requests and answers get late or
lost. A lost answer is an outcome UNKNOWN: the write may have happened, or may happen yet, after the asker gave up.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from outlive.cluster.transaction import (
    Delete,
    Field,
    KeyValue,
    Put,
    Transaction,
    TransactionResult,
)

from .agenda import Agenda
from .setup import Delays

Changes = tuple[KeyValue | Delete, ...]


class Watcher(Protocol):
    """Who is told of every change, in order."""

    def changed(self, revision: int, changes: Changes) -> None: ...


@dataclass(slots=True)
class Lease:
    """keys: in the order in which they were bound, so that their deletion has an order."""

    ttl_s: int
    expires_at: float
    keys: dict[str, None] = field(default_factory=dict)


class Store:
    """All keys at the newest revision. before_write: called with (origin, transaction) when one is accepted."""

    def __init__(self, agenda: Agenda, random: Random, delays: Delays) -> None:
        self._agenda = agenda
        self._random = random
        self._lease_late_s = delays.lease_late_s
        self._rate = delays.store_rate
        self.revision = 0
        self.data: dict[str, KeyValue] = {}
        self.leases: dict[int, Lease] = {}
        self.watchers: list[Watcher] = []
        self.audit: Callable[[str, Transaction], None] | None = None
        self.changed: Callable[[str, Changes], None] | None = None
        self._leases_granted = 1000

    def transact(self, origin: str, transaction: Transaction) -> TransactionResult:
        """Compare, then write, in one step; origin: who asks, for the checkers."""
        if not all(self._holds(compare.key, compare.field, compare.revision) for compare in transaction.compares):
            return TransactionResult(False, self.revision)
        for write in transaction.writes:
            if isinstance(write, Put) and write.lease is not None and write.lease not in self.leases:
                return TransactionResult(False, self.revision)
        if self.audit is not None:
            self.audit(origin, transaction)
        self._write(origin, transaction.writes)
        return TransactionResult(True, self.revision)

    def _holds(self, key: str, field: Field, revision: int) -> bool:
        known = self.data.get(key)
        if known is None:
            return revision == 0
        return (known.create_revision if field is Field.CREATED else known.mod_revision) == revision

    def _write(self, origin: str, writes: tuple[Put | Delete, ...]) -> None:
        self.revision += 1
        changes: list[KeyValue | Delete] = []
        for write in writes:
            known = self.data.get(write.key)
            if known is not None and known.lease is not None and known.lease in self.leases:
                self.leases[known.lease].keys.pop(write.key, None)
            if isinstance(write, Delete):
                if known is not None:
                    del self.data[write.key]
                    changes.append(write)
                continue
            created = self.revision if known is None else known.create_revision
            fresh = KeyValue(write.key, write.value, created, self.revision, write.lease)
            self.data[write.key] = fresh
            if write.lease is not None:
                self.leases[write.lease].keys[write.key] = None
            changes.append(fresh)
        told = tuple(changes)
        if self.changed is not None:
            self.changed(origin, told)
        for watcher in self.watchers:
            watcher.changed(self.revision, told)

    def grant(self, ttl_s: int) -> int:
        """A new lease of that many seconds of the store's time."""
        self._leases_granted += 1
        number = self._leases_granted
        self.leases[number] = Lease(ttl_s, self._agenda.now + ttl_s / self._rate)
        self._agenda.at(self.leases[number].expires_at + self._late(), self._look, number)
        return number

    def keep_alive(self, number: int) -> None:
        """Count the lease's time anew, if it has not ended."""
        lease = self.leases.get(number)
        if lease is not None:
            lease.expires_at = self._agenda.now + lease.ttl_s / self._rate

    def _late(self) -> float:
        low, high = self._lease_late_s
        return low + (high - low) * self._random.random()

    def _look(self, number: int) -> None:
        lease = self.leases[number]
        if lease.expires_at > self._agenda.now:
            self._agenda.at(lease.expires_at + self._late(), self._look, number)
            return
        del self.leases[number]
        if lease.keys:
            self._write("lease", tuple(Delete(key) for key in lease.keys))


class Ways:
    """Who reaches the store, and how fast. Counts, so that overlapping faults heal independently."""

    def __init__(self) -> None:
        self._to: dict[str, int] = {}
        self._from: dict[str, int] = {}
        self._stuck: dict[str, int] = {}
        self._down = 0
        self.slow_s = 0.0
        self.on_change: Callable[[], None] = lambda: None

    def shut(self, host: str, *, to_store: bool, from_store: bool, by: int = 1) -> None:
        """Close (or with by=-1 reopen) the ways of one host."""
        if to_store:
            self._to[host] = self._to.get(host, 0) + by
        if from_store:
            self._from[host] = self._from.get(host, 0) + by
        self.on_change()

    def shut_all(self, by: int = 1) -> None:
        """Take the store down (by=-1: up again)."""
        self._down += by
        self.on_change()

    def set_stuck(self, host: str, by: int = 1) -> None:
        """Keep changes (with by=-1 no longer) from a host, though its requests are answered."""
        self._stuck[host] = self._stuck.get(host, 0) + by
        self.on_change()

    def watches(self, host: str) -> bool:
        """Whether changes arrive at the host."""
        return self.from_store(host) and not self._stuck.get(host)

    def to_store(self, host: str) -> bool:
        """Whether the host's requests arrive."""
        return not self._down and not self._to.get(host)

    def from_store(self, host: str) -> bool:
        """Whether answers and changes arrive at the host."""
        return not self._down and not self._from.get(host)

    def both(self, host: str) -> bool:
        """Whether the host can use the store."""
        return self.to_store(host) and self.from_store(host)


class Door:
    """One agent run's way to the store.

    receive: how the agent takes in what arrives (at once, or later when it is stalled).
    moved: told (revision, changes) batches; reread: told to read everything anew, because history was compacted.
    """

    def __init__(
        self,
        agenda: Agenda,
        random: Random,
        delays: Delays,
        store: Store,
        ways: Ways,
        host: str,
        moved: Callable[[list[tuple[int, Changes]]], None],
        reread: Callable[[int, list[KeyValue]], None],
    ) -> None:
        self._agenda = agenda
        self._random = random
        self._delays = delays
        self._store = store
        self._ways = ways
        self._host = host
        self._moved = moved
        self._reread = reread
        self._waiting: list[tuple[int, Changes]] = []
        self._flushing = False
        self._broken = False

    def ask(self, what: Callable[[], object], answer: Callable[..., None], *context: object) -> None:
        """Send a request; `answer(*context, result)` happens never or once."""
        self._agenda.after(self._delay(), self._arrive, what, answer, context)

    def _delay(self) -> float:
        low, high = self._delays.store_s
        delay_s = low + (high - low) * self._random.random()
        if self._ways.slow_s:
            delay_s += self._ways.slow_s * self._random.random()
        return delay_s

    def _arrive(self, what: Callable[[], object], answer: Callable[..., None], context: tuple[object, ...]) -> None:
        if self._ways.to_store(self._host):
            result = what()
            self._agenda.after(self._delay(), self._return, answer, context, result)

    def _return(self, answer: Callable[..., None], context: tuple[object, ...], result: object) -> None:
        if self._ways.from_store(self._host):
            answer(*context, result)

    def open(self) -> None:
        """Begin to watch: from now on every change arrives, in order, some time."""
        self._store.watchers.append(self)

    def close(self) -> None:
        """Watch no longer."""
        if self in self._store.watchers:
            self._store.watchers.remove(self)

    def changed(self, revision: int, changes: Changes) -> None:
        """The store changed."""
        self._waiting.append((revision, changes))
        if not self._flushing:
            self._flushing = True
            low, high = self._delays.watch_s
            self._agenda.after(low + (high - low) * self._random.random(), self._flush)

    def mended(self) -> None:
        """The ways to the store changed; a broken watch is taken up again after a while."""
        if self._broken and self._watches():
            self._broken = False
            self._flushing = True
            self._agenda.after(0.05 + self._random.random() * 0.5, self._resume)

    def _watches(self) -> bool:
        return self._ways.to_store(self._host) and self._ways.watches(self._host)

    def _flush(self) -> None:
        self._flushing = False
        if not self._ways.watches(self._host):
            self._broken = True
            self._flushing = True
            return
        batch, self._waiting = self._waiting, []
        if batch:
            self._moved(batch)

    def _resume(self) -> None:
        if not self._watches():
            self._flushing = True
            self._broken = True
            return
        if self._random.random() < 0.3:
            self._flushing = False
            self._waiting = []
            self._reread(self._store.revision, list(self._store.data.values()))
        else:
            self._flush()
