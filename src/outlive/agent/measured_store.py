"""A store whose calls are timed, so that `/metrics` can tell how the store fares; it promises what the store promises.

Watches are handed on as they are: they take as long as nothing happens.
"""

import time
from collections.abc import AsyncGenerator, Awaitable
from typing import TypeVar

from outlive.api.figures import Figures
from outlive.cluster.transaction import KeyValue, Transaction, TransactionResult
from outlive.store.base import PROGRESS_INTERVAL_S, Lease, Listing, Store, StoreError, WatchBatch

T = TypeVar("T")


class MeasuredStore:
    """The same store, with its calls noted in the agent's figures."""

    def __init__(self, store: Store, figures: Figures) -> None:
        self._store = store
        self._figures = figures

    async def _noted(self, call: str, done: Awaitable[T]) -> T:
        begun = time.perf_counter()
        try:
            return await done
        except StoreError:
            self._figures.store_failures[call] += 1
            raise
        finally:
            self._figures.store[call].note(time.perf_counter() - begun)

    async def get(self, key: str, *, timeout_s: float) -> KeyValue | None:
        return await self._noted("get", self._store.get(key, timeout_s=timeout_s))

    async def list(self, prefix: str, *, timeout_s: float) -> Listing:
        return await self._noted("list", self._store.list(prefix, timeout_s=timeout_s))

    async def transact(self, transaction: Transaction, *, timeout_s: float) -> TransactionResult:
        return await self._noted("transact", self._store.transact(transaction, timeout_s=timeout_s))

    async def grant_lease(self, ttl_s: int, *, timeout_s: float) -> Lease:
        return await self._noted("grant_lease", self._store.grant_lease(ttl_s, timeout_s=timeout_s))

    async def keep_alive(self, lease_id: int, *, timeout_s: float) -> int:
        return await self._noted("keep_alive", self._store.keep_alive(lease_id, timeout_s=timeout_s))

    async def revoke(self, lease_id: int, *, timeout_s: float) -> None:
        await self._noted("revoke", self._store.revoke(lease_id, timeout_s=timeout_s))

    def watch(
        self, prefix: str, from_revision: int, *, silence_s: float = 5 * PROGRESS_INTERVAL_S
    ) -> AsyncGenerator[WatchBatch, None]:
        return self._store.watch(prefix, from_revision, silence_s=silence_s)

    async def compact(self, revision: int, *, timeout_s: float) -> None:
        await self._noted("compact", self._store.compact(revision, timeout_s=timeout_s))

    async def close(self) -> None:
        await self._store.close()
