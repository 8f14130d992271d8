"""What a store promises, and the ways in which it can fail to.

The interface that every backend keeps and the contract suite (tests/contract/store) checks, shaped by what
etcd v3 can promise. Each call has a time limit and, when it fails, says which of two things is true: nothing
was and nothing will be done (`StoreUnavailable` and its kinds), or nobody can know (`StoreUncertain`).
"""

from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from outlive.cluster.transaction import (
    MAX_KEY_BYTES,
    MAX_VALUE_BYTES,
    Delete,
    KeyValue,
    Put,
    Transaction,
    TransactionResult,
)
from outlive.errors import ClusterUnreachable, Failed, OutliveError, UsageInvalid

MAX_TRANSACTION_OPERATIONS = 128
"""At most so many comparisons, and as many writes, in one transaction (etcd's own default)."""

MAX_TRANSACTION_BYTES = MAX_VALUE_BYTES + 256 * 1024
"""Keys and values of one transaction together; etcd takes 1.5 MiB with its framing."""

MAX_LEASE_TTL_S = 365 * 24 * 3600

PROGRESS_INTERVAL_S = 1.0
"""A watch without changes tells this often, about, that it is still fresh."""


class StoreError(OutliveError):
    """Whatever a store can answer other than what was asked."""

    id = "store.error"


class StoreUnavailable(StoreError, ClusterUnreachable):
    """The store could not be used. What was asked is surely not done, and will not be."""

    id = "store.unavailable"


class StoreTimeout(StoreUnavailable):
    """The time limit passed first. What was asked is surely not done, and will not be."""

    id = "store.timeout"


class StoreFull(StoreUnavailable):
    """No room to write. Reads still work; nothing of what was asked is done."""

    id = "store.full"


class StoreReplaced(StoreUnavailable):
    """The store is no longer the one that was opened; what it now holds must not be trusted."""

    id = "store.replaced"


class StoreCorrupt(StoreUnavailable):
    """The store's data is damaged. It is left as it is."""

    id = "store.corrupt"


class StoreForeign(StoreUnavailable):
    """The data is not a store of ours, or is of a version that this program does not know."""

    id = "store.foreign"


class StoreDenied(StoreUnavailable):
    """The store does not know us, or does not let us do this. Nothing of what was asked is done."""

    id = "store.denied"


class HistoryKept(StoreError, Failed):
    """The store may not be made to forget its past: that is not for us to decide. Nothing was done."""

    id = "store.history-kept"


class StoreUncertain(StoreError, ClusterUnreachable):
    """A write may have happened, may yet happen, or may not: read the store again before going on."""

    id = "store.uncertain"


class RequestRefused(StoreError, UsageInvalid):
    """The request itself is one that no store takes: too large, malformed, contradictory."""

    id = "store.refused"


class LeaseGone(StoreError, Failed):
    """The lease has ended or never was. It cannot be revived; the keys bound to it are gone."""

    id = "store.lease-gone"

    def __init__(self, lease_id: int) -> None:
        super().__init__(
            f"The store's lease {lease_id} has ended.",
            cause="it was not kept alive in time, it was revoked, or the machine was started again",
            remedy="ask for a new lease",
        )
        self.lease_id = lease_id


class Compacted(StoreError, Failed):
    """The watch asked for changes that the store no longer keeps: list again, then watch on from there.

    oldest: the oldest revision that a watch can start from now.
    """

    id = "store.compacted"

    def __init__(self, oldest: int) -> None:
        super().__init__(
            f"The store keeps its changes from revision {oldest} on; older ones were asked for.",
            cause="the watcher fell behind by more than the store's history",
            remedy="list the keys again and watch from the revision after that",
        )
        self.oldest = oldest


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as granted. It lasts at least `ttl_s` whole seconds after each sign of life, maybe longer."""

    id: int
    ttl_s: int


class Listing(NamedTuple):
    """Keys in order of their bytes, all as they were at `revision`. Watch on from `revision + 1`."""

    revision: int
    keys: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """All that one transaction (or one lease's end) changed under the prefix, in the order it was written.

    revision: the store's revision that made these changes; each KeyValue carries it as mod_revision. Without
    changes it is a sign of freshness: all changes up to `revision` have been delivered.
    """

    revision: int
    changes: tuple[KeyValue | Delete, ...]


class Store(Protocol):
    """A consistent memory shared by the cluster's hosts.

    Every `timeout_s` is in seconds from the call. All calls raise StoreUnavailable (or one of its kinds) when
    surely nothing happened, and RequestRefused before anything is sent; calls that write raise StoreUncertain
    when the outcome cannot be known.
    """

    async def get(self, key: str, *, timeout_s: float) -> KeyValue | None:
        """The key as it is now (linearizable), or None. Never a key whose lease has ended."""
        ...

    async def list(self, prefix: str, *, timeout_s: float) -> Listing:
        """Every key that starts with `prefix` ("" for all), as they stand at one revision."""
        ...

    async def transact(self, transaction: Transaction, *, timeout_s: float) -> TransactionResult:
        """Compare, then write all or nothing at one new revision.

        A transaction that changes nothing (a comparison fails, only absent keys deleted) makes no revision.
        Raises LeaseGone, having written nothing, when a put names a lease that has ended.
        """
        ...

    async def grant_lease(self, ttl_s: int, *, timeout_s: float) -> Lease:
        """A new lease of at least `ttl_s` seconds, counted from some moment after this call began."""
        ...

    async def keep_alive(self, lease_id: int, *, timeout_s: float) -> int:
        """Start the lease's time again; its whole seconds. Raises LeaseGone, always, once it has ended."""
        ...

    async def revoke(self, lease_id: int, *, timeout_s: float) -> None:
        """End the lease now and delete its keys at one new revision. Revoking an ended lease is no error."""
        ...

    def watch(
        self, prefix: str, from_revision: int, *, silence_s: float = 5 * PROGRESS_INTERVAL_S
    ) -> AsyncGenerator[WatchBatch, None]:
        """Every change under `prefix` made at `from_revision` or later, in order, once; then those to come.

        A batch without changes comes at least about every PROGRESS_INTERVAL_S while there is no other.
        Raises Compacted when part of that is no longer kept, StoreTimeout when nothing at all came for
        `silence_s`, and StoreUnavailable; after any of these the watch is over and another can be started
        from the revision after the last batch. Close it (contextlib.aclosing) when done.
        """
        ...

    async def compact(self, revision: int, *, timeout_s: float) -> None:
        """Forget the changes before `revision` (those at it may go too); the keys themselves stay.

        Compacting what is already compacted is no error; a revision yet to come is refused. Raises HistoryKept where
        the store is not ours alone.
        """
        ...

    async def close(self) -> None:
        """Let go of everything. Leases live on until their time; watches end with StoreUnavailable."""
        ...


def check_key(key: str) -> None:
    """Raise RequestRefused unless `key` is 1 to MAX_KEY_BYTES bytes of UTF-8 without control characters."""
    if not key:
        raise RequestRefused("A key of the store cannot be empty.")
    check_prefix(key)


def check_prefix(prefix: str) -> None:
    """Raise RequestRefused unless keys can start with `prefix`."""
    try:
        length = len(prefix.encode())
    except UnicodeEncodeError as error:
        raise RequestRefused(f"The store's key {prefix!r} is not valid text.", cause=str(error)) from error
    if length > MAX_KEY_BYTES:
        raise RequestRefused(
            f"The store's key {prefix[:40]!r}… is {length} bytes long; at most {MAX_KEY_BYTES} are taken."
        )
    if any(ord(character) < 32 or ord(character) == 127 for character in prefix):
        raise RequestRefused(f"The store's key {prefix!r} has a control character.")


def check_transaction(transaction: Transaction) -> None:
    """Raise RequestRefused unless any store could take the transaction.

    A key written twice is refused: which write should last is a question that etcd does not answer either.
    """
    for kind, operations in (("comparisons", transaction.compares), ("writes", transaction.writes)):
        if len(operations) > MAX_TRANSACTION_OPERATIONS:
            raise RequestRefused(
                f"A transaction has {len(operations)} {kind}; at most {MAX_TRANSACTION_OPERATIONS} are taken."
            )
    for compare in transaction.compares:
        check_key(compare.key)
    seen: set[str] = set()
    for write in transaction.writes:
        check_key(write.key)
        if write.key in seen:
            raise RequestRefused(f"A transaction writes the key {write.key!r} twice.")
        seen.add(write.key)
        if isinstance(write, Put) and len(write.value) > MAX_VALUE_BYTES:
            raise RequestRefused(
                f"The value for the store's key {write.key!r} is {len(write.value)} bytes long; "
                f"at most {MAX_VALUE_BYTES} are taken."
            )
    total_bytes = _written_bytes(transaction.writes)
    if total_bytes > MAX_TRANSACTION_BYTES:
        raise RequestRefused(
            f"A transaction writes {total_bytes} bytes; at most {MAX_TRANSACTION_BYTES} are taken.",
            remedy="write the keys in several transactions",
        )


def check_ttl(ttl_s: int) -> None:
    """Raise RequestRefused unless a lease can be that long."""
    if not 1 <= ttl_s <= MAX_LEASE_TTL_S:
        raise RequestRefused(f"A lease lasts 1 to {MAX_LEASE_TTL_S} whole seconds, not {ttl_s}.")


def _written_bytes(writes: Iterable[Put | Delete]) -> int:
    return sum(len(write.key.encode()) + (len(write.value) if isinstance(write, Put) else 0) for write in writes)
