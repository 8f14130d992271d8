"""The store in an etcd v3 cluster: what `base` promises, kept through members that die, hang and are cut off.

Below the address's prefix P, key K of ours is `P/K`; P itself says that this is a store of ours. Reads are
linearizable. The server's leases are ours, and two of its habits are not let through: a member that has lost its
leadership without knowing may take a keep-alive in vain (`etcd_keeping`); and a full database may be said after the
write, so that is uncertain, and only what was never sent because of a standing alarm is `StoreFull`.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

from outlive.cluster.transaction import KeyValue, Put, Transaction, TransactionResult
from outlive.config.store_address import EtcdAddress

from . import etcd_messages as say
from .base import (
    PROGRESS_INTERVAL_S,
    Lease,
    LeaseGone,
    Listing,
    RequestRefused,
    StoreDenied,
    StoreError,
    StoreForeign,
    StoreFull,
    StoreUncertain,
    WatchBatch,
    check_key,
    check_prefix,
    check_transaction,
    check_ttl,
)
from .boot_clock import boot_time_s
from .etcd_compaction import Compaction, Tenancy
from .etcd_exchange import Refusal, Tls
from .etcd_faults import Meaning, refused
from .etcd_gateway import Gateway, Kind, replaced
from .etcd_keeping import Keeper
from .etcd_login import Login
from .etcd_watch import INTERNAL, EtcdWatch, key_value

MARK = b'{"format": "outlive store", "version": 1}'
PROGRESS_KEY = INTERNAL + b"progress"


class EtcdStore:
    """A `Store` below one prefix of an etcd cluster. Make it with `open`; any number may share the prefix."""

    def __init__(
        self,
        address: EtcdAddress,
        tls: Tls | None = None,
        login: Login | None = None,
        compaction: Compaction = Compaction.ALWAYS,
    ) -> None:
        self.address = address
        self._compaction = compaction
        self._gateway = Gateway(address, tls, login)
        self._mark = address.prefix.encode()
        self._base = self._mark + b"/"
        self._closed = asyncio.Event()
        self._full = False
        self._newest = 0
        self._keeper = Keeper(self._gateway, self._mark)

    @classmethod
    async def open(
        cls,
        address: EtcdAddress,
        *,
        timeout_s: float,
        tls: Tls | None = None,
        login: Login | None = None,
        begin: bool = True,
        compaction: Compaction = Compaction.ALWAYS,
    ) -> "EtcdStore":
        """Open the store, beginning an empty one if the prefix holds nothing and `begin`.

        Raises StoreForeign when what is there is not ours, StoreDenied when etcd does not let us.
        """
        store = cls(address, tls, login, compaction)
        try:
            await store._verify(boot_time_s() + timeout_s, begin)
        except BaseException:
            await store.close()
            raise
        return store

    @property
    def gateway(self) -> Gateway:
        """The members, for looking at them one by one."""
        return self._gateway

    async def get(self, key: str, *, timeout_s: float) -> KeyValue | None:
        check_key(key)
        found = await self._range("get", self._key(key), b"", boot_time_s() + timeout_s)
        return self._ours(found.kvs[0]) if found.kvs else None

    async def list(self, prefix: str, *, timeout_s: float) -> Listing:
        check_prefix(prefix)
        until = boot_time_s() + timeout_s
        while True:
            with suppress(_CompactedMeanwhile):
                return await self._listed(self._base + prefix.encode(), until)

    async def transact(self, transaction: Transaction, *, timeout_s: float) -> TransactionResult:
        check_transaction(transaction)
        until = boot_time_s() + timeout_s
        if any(isinstance(write, Put) for write in transaction.writes):
            await self._check_room(until)
        body = say.transaction_request(transaction, self._base)
        floor = self._newest
        try:
            done = await self._gateway.ask(
                "transaction", "/v3/kv/txn", body, say.Transacted, until=until, kind=Kind.ONCE
            )
        except Refusal as error:
            if error.meaning is Meaning.LEASE_GONE:
                leases = [write.lease for write in transaction.writes if isinstance(write, Put) and write.lease]
                raise LeaseGone(leases[0] if leases else 0) from None
            raise self._refused(error, "transaction") from None
        if done.header.revision < floor:
            raise StoreUncertain(
                "A transaction was done in an older state of the store: etcd was put back.",
                cause=f"it is at revision {done.header.revision} and was at {floor}",
            )
        self._newest = max(self._newest, done.header.revision)
        return TransactionResult(done.succeeded, done.header.revision)

    async def grant_lease(self, ttl_s: int, *, timeout_s: float) -> Lease:
        check_ttl(ttl_s)
        until = boot_time_s() + timeout_s
        await self._check_room(until)
        try:
            granted = await self._gateway.ask(
                "new lease", "/v3/lease/grant", say.request(TTL=ttl_s), say.Granted, until=until, kind=Kind.REPEATABLE
            )
        except Refusal as error:
            raise self._refused(error, "new lease") from None
        if ttl_s > granted.TTL or granted.ID <= 0:
            raise StoreUncertain(f"etcd granted lease {granted.ID} for {granted.TTL} s where {ttl_s} s were asked for.")
        return Lease(granted.ID, granted.TTL)

    async def keep_alive(self, lease_id: int, *, timeout_s: float) -> int:
        return await self._keeper.keep_alive(lease_id, boot_time_s() + timeout_s)

    async def revoke(self, lease_id: int, *, timeout_s: float) -> None:
        until = boot_time_s() + timeout_s
        try:
            await self._gateway.ask(
                "revocation", "/v3/lease/revoke", say.request(ID=lease_id), say.Done, until=until, kind=Kind.REPEATABLE
            )
        except Refusal as error:
            if error.meaning is not Meaning.LEASE_GONE:
                raise self._refused(error, "revocation") from None

    async def watch(
        self, prefix: str, from_revision: int, *, silence_s: float = 5 * PROGRESS_INTERVAL_S
    ) -> AsyncGenerator[WatchBatch, None]:
        check_prefix(prefix)
        watch = EtcdWatch(self, self._gateway, self._base, prefix, from_revision, silence_s)
        batches = watch.batches(self._closed)
        try:
            async for batch in batches:
                yield batch
        finally:
            await batches.aclose()

    async def compact(self, revision: int, *, timeout_s: float) -> None:
        until = boot_time_s() + timeout_s
        if self._compaction is Compaction.NEVER:
            return
        if self._compaction is Compaction.ALONE and (kept := (await self._tenancy(until)).kept()) is not None:
            raise kept
        try:
            await self._gateway.ask(
                "compaction", "/v3/kv/compaction", say.request(revision=revision), say.Done,
                until=until, kind=Kind.REPEATABLE,
            )  # fmt: skip
        except Refusal as error:
            if error.meaning is Meaning.FUTURE:
                raise RequestRefused(
                    f"The store cannot be compacted to revision {revision}: it is not there yet."
                ) from None
            if error.meaning is not Meaning.COMPACTED:
                raise self._refused(error, "compaction") from None

    async def close(self) -> None:
        self._closed.set()
        await self._gateway.close()

    async def tenancy(self, *, timeout_s: float) -> Tenancy:
        """Whether others have keys in this etcd. Raises StoreUnavailable."""
        return await self._tenancy(boot_time_s() + timeout_s)

    async def revision(self, *, timeout_s: float) -> int:
        """The revision that the store is at now (linearizable)."""
        found = await self._range("reading", self._mark, b"", boot_time_s() + timeout_s)
        return found.header.revision

    async def make_progress(self, *, timeout_s: float) -> None:
        """Make a revision that every watch of this prefix is told of."""
        until = boot_time_s() + timeout_s
        body = say.put_request(self._base + PROGRESS_KEY)
        try:
            await self._gateway.ask("mark", "/v3/kv/txn", body, say.Transacted, until=until, kind=Kind.REPEATABLE)
        except Refusal as error:
            raise self._refused(error, "mark") from None

    def _key(self, key: str) -> bytes:
        return self._base + key.encode()

    def _ours(self, kv: say.Kv) -> KeyValue:
        return key_value(kv, self._base)

    async def _range(
        self, what: str, key: bytes, end: bytes, until: float, *, revision: int = 0, count_only: bool = False
    ) -> say.Ranged:
        floor = self._newest
        body = say.range_request(key, end, revision=revision, count_only=count_only)
        try:
            found = await self._gateway.ask(what, "/v3/kv/range", body, say.Ranged, until=until, kind=Kind.READ)
        except Refusal as error:
            if error.meaning is Meaning.COMPACTED:
                raise _CompactedMeanwhile from None
            raise self._refused(error, what) from None
        if found.header.revision < floor:
            raise replaced(self.address, f"it is at revision {found.header.revision} and was at {floor}")
        self._newest = max(self._newest, found.header.revision)
        return found

    async def _tenancy(self, until: float) -> Tenancy:
        while True:
            with suppress(_CompactedMeanwhile):
                return await self._counted(until)

    async def _counted(self, until: float) -> Tenancy:
        """Whose keys there are, all as at one revision."""
        try:
            everyone = await self._range("looking for others", b"\0", b"\0", until, count_only=True)
        except StoreDenied:
            return Tenancy(None)
        at = everyone.header.revision
        ours = await self._range(
            "counting", self._base, say.after_prefix(self._base), until, revision=at, count_only=True
        )
        mark = await self._range("counting", self._mark, b"", until, revision=at, count_only=True)
        return Tenancy(everyone.count - ours.count - mark.count)

    async def _listed(self, prefix: bytes, until: float) -> Listing:
        """Page by page, all at the revision of the first."""
        end = say.after_prefix(prefix)
        found = await self._range("list", prefix, end, until)
        revision, kvs = found.header.revision, list(found.kvs)
        while found.more and found.kvs:
            found = await self._range("list", found.kvs[-1].key + b"\0", end, until, revision=revision)
            kvs += found.kvs
        internal = self._base + INTERNAL
        return Listing(revision, tuple(self._ours(kv) for kv in kvs if not kv.key.startswith(internal)))

    async def _verify(self, until: float, begin: bool) -> None:
        """See that what is below the prefix is ours, and mark it so when there is nothing yet."""
        await self._gateway.log_in(until)
        found = await self._range("opening", self._mark, b"", until)
        if not found.kvs:
            below = await self._range("opening", self._base, say.after_prefix(self._base), until)
            if below.kvs:
                raise self._foreign("keys of another program are there")
            if not begin:
                raise self._foreign("nothing is there yet; `outlive up` begins a store")
            body = say.absent_then_put(self._mark, MARK)
            await self._check_room(until)
            try:
                await self._gateway.ask(
                    "founding", "/v3/kv/txn", body, say.Transacted, until=until, kind=Kind.REPEATABLE
                )
            except Refusal as error:
                raise self._refused(error, "founding") from None
            found = await self._range("opening", self._mark, b"", until)
        if not found.kvs or found.kvs[0].value != MARK:
            raise self._foreign(f"its mark is {found.kvs[0].value[:60]!r}" if found.kvs else "it has no mark")

    def _foreign(self, cause: str) -> StoreForeign:
        return StoreForeign(
            f"What etcd has below {self.address.prefix} is not a store of this version.",
            cause=cause,
            remedy="choose another prefix in the store's address",
        )

    async def _check_room(self, until: float) -> None:
        """Raise StoreFull while etcd has its alarm for that on; it is asked only after it once said so."""
        if not self._full:
            return
        try:
            told = await self._gateway.ask(
                "reading of alarms", "/v3/maintenance/alarm", say.request(action="GET"), say.Alarms,
                until=until, kind=Kind.READ,
            )  # fmt: skip
        except Refusal:
            return
        self._full = any(alarm.alarm == "NOSPACE" for alarm in told.alarms)
        if self._full:
            raise StoreFull(
                "etcd's database is full; it takes no writes.",
                cause="its alarm NOSPACE is on",
                remedy="make room as in docs/store.md (compact, defragment), then `etcdctl alarm disarm`",
            )

    def _refused(self, error: Refusal, what: str) -> StoreError:
        if error.meaning is Meaning.NO_ROOM:
            self._full = True
            return StoreUncertain(
                f"etcd's database is full; it is not known whether the store's {what} was done.",
                cause=error.fault.message,
                remedy="make room as in docs/store.md (compact, defragment), then `etcdctl alarm disarm`",
            )
        return refused(error.fault, what)


class _CompactedMeanwhile(Exception):
    """The revision that a listing began at is no longer kept: begin again."""
