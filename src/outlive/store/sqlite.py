"""The store in one SQLite file: the default on one machine, shared by all its agents.

Write-ahead log, synchronous=FULL: a commit is on the disk before anybody sees it, so no revision is ever used
twice. Two threads an instance: one writes, the other reads and polls for the watches, so neither a held lock
nor a slow disk blocks the loop or the reading. Leases are counted by the boot clock (`boot_clock`) and ended
by whoever comes by. The steps inside a transaction are in `sqlite_tables`, the file itself in `sqlite_file`.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, TypeVar

import structlog

from outlive.cluster.transaction import KeyValue, Transaction, TransactionResult

from . import sqlite_file as files
from . import sqlite_tables as tables
from .base import PROGRESS_INTERVAL_S as _PROGRESS_INTERVAL_S
from .base import (
    Lease,
    Listing,
    RequestRefused,
    StoreError,
    StoreReplaced,
    StoreUncertain,
    WatchBatch,
    check_key,
    check_prefix,
    check_transaction,
    check_ttl,
)
from .boot_clock import BootClock, boot_time_s, kernel_boot_clock
from .sqlite_checkpoint import Checkpointer
from .sqlite_tables import Change, HistoryLimits
from .sqlite_thread import Call, StoreThread, closed, patiently
from .sqlite_watch import POLL_INTERVAL_S, Watch, Watches

T = TypeVar("T")

_SWEEP_S = 1.0
_SWEEP_FOR_A_READ_S = 0.1

log = structlog.get_logger()


class SqliteStore:
    """A `Store` in the file at `path`. Make it with `open`; several may share the file, in any processes."""

    def __init__(self, path: Path, clock: BootClock, limits: HistoryLimits) -> None:
        self.path = path
        self._clock = clock
        self._limits = limits
        self._file = files.StoreFile(path, ())
        self._writing: sqlite3.Connection | None = None
        self._reading: sqlite3.Connection | None = None
        self._watches: Watches | None = None
        self._sweeping = False
        self._checkpointer: Checkpointer | None = None
        self._writer = StoreThread("writer", path, self._checkpoint)
        self._reader = StoreThread("reader", path, self._poll, POLL_INTERVAL_S)

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        timeout_s: float,
        clock: BootClock | None = None,
        limits: HistoryLimits | None = None,
    ) -> "SqliteStore":
        """Open the store, making an empty one (mode 0600) if there is none at `path`.

        Raises StoreForeign for another program's or version's file and StoreCorrupt for a damaged one, both
        left as they are.
        """
        store = cls(path, clock or kernel_boot_clock(), limits or HistoryLimits())
        deadline_at = boot_time_s() + timeout_s
        try:
            await store._writer.call("opening", store._open_writing, timeout_s)
            await store._reader.call("opening", store._open_reading, max(0.0, deadline_at - boot_time_s()))
        except BaseException:
            store._stop_reading()
            store._stop_writing()
            raise
        return store

    async def get(self, key: str, *, timeout_s: float) -> KeyValue | None:
        check_key(key)
        keys = (await self._read("get", key, "", timeout_s)).keys
        return keys[0] if keys else None

    async def list(self, prefix: str, *, timeout_s: float) -> Listing:
        check_prefix(prefix)
        return await self._read("list", None, prefix, timeout_s)

    async def transact(self, transaction: Transaction, *, timeout_s: float) -> TransactionResult:
        check_transaction(transaction)
        return await self._write("transaction", lambda change: change.transact(transaction), timeout_s)

    async def grant_lease(self, ttl_s: int, *, timeout_s: float) -> Lease:
        check_ttl(ttl_s)
        lease_id = await self._write("new lease", lambda change: change.grant_lease(ttl_s), timeout_s)
        return Lease(lease_id, ttl_s)

    async def keep_alive(self, lease_id: int, *, timeout_s: float) -> int:
        return await self._write("keep-alive", lambda change: change.keep_alive(lease_id), timeout_s)

    async def revoke(self, lease_id: int, *, timeout_s: float) -> None:
        await self._write("revocation", lambda change: change.end_lease(lease_id), timeout_s)

    async def watch(
        self, prefix: str, from_revision: int, *, silence_s: float = 5 * _PROGRESS_INTERVAL_S
    ) -> AsyncGenerator[WatchBatch, None]:
        check_prefix(prefix)
        assert self._watches is not None
        watch = Watch(prefix, from_revision, asyncio.get_running_loop())
        self._watches.add(watch)
        self._reader.poke()
        try:
            async with contextlib.aclosing(watch.batches(silence_s)) as batches:
                async for batch in batches:
                    yield batch
        finally:
            self._watches.remove(watch)

    async def compact(self, revision: int, *, timeout_s: float) -> None:
        def compact(change: Change) -> None:
            if revision > change.revision:
                raise RequestRefused(
                    f"The store cannot be compacted to revision {revision}: it is at {change.revision}."
                )
            change.compact(revision)

        await self._write("compaction", compact, timeout_s)

    async def close(self, *, timeout_s: float = 5.0) -> None:
        """Let go of the file. A thread that still hangs in its disk after `timeout_s` is left behind."""
        deadline_at = boot_time_s() + timeout_s
        # The reader first: only a connection that may write takes the log away when it is the last to go.
        for stop, thread in ((self._stop_reading, self._reader), (self._stop_writing, self._writer)):
            stop()
            if not await thread.join(max(0.0, deadline_at - boot_time_s())):
                log.warning("store.thread_left_behind", path=str(self.path))

    async def _read(self, name: str, key: str | None, prefix: str, timeout_s: float) -> Listing:
        """Read at one revision. Leases found over are ended first where possible, so that what is no longer
        shown has also gone at a revision; when the store cannot be written, it is only left out.
        """
        deadline_at = boot_time_s() + timeout_s
        reading = await self._read_once(name, key, prefix, timeout_s)
        if reading.over:
            left_s = max(0.0, deadline_at - boot_time_s())
            with contextlib.suppress(StoreError):
                await self._write("sweep", lambda _: None, min(_SWEEP_FOR_A_READ_S, left_s / 2))
            left_s = max(0.0, deadline_at - boot_time_s())
            reading = await self._read_once(name, key, prefix, left_s)
        return reading.listing

    async def _read_once(self, name: str, key: str | None, prefix: str, timeout_s: float) -> tables.Reading:
        def work(call: Call[tables.Reading]) -> tables.Reading:
            connection = self._reading
            assert connection is not None
            self._file.check()

            def step() -> tables.Reading:
                connection.execute("BEGIN")
                try:
                    return tables.read(connection, self._clock, key, prefix)
                finally:
                    connection.execute("ROLLBACK")

            return patiently(call, self.path, step)

        return await self._reader.call(name, work, timeout_s)

    async def _write(self, name: str, body: Callable[[Change], T], timeout_s: float) -> T:
        return await self._writer.call(name, lambda call: self._write_in_thread(call, body), timeout_s)

    def _write_in_thread(self, call: Call[Any], body: Callable[[Change], T]) -> T:
        connection = self._writing
        assert connection is not None
        self._file.check()
        patiently(call, self.path, lambda: connection.execute("BEGIN IMMEDIATE"))
        try:
            change = Change(connection, self._clock, self._limits)
            result = body(change)
            change.save()
            call.pass_gate()
            commit(connection)
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # most failures have rolled it back already
                connection.execute("ROLLBACK")
            raise
        call.mark_committed()
        if self._checkpointer is not None:
            self._checkpointer.count(change.written_bytes)
        self._check_after_commit()
        self._reader.poke()
        return result

    def _check_after_commit(self) -> None:
        try:
            self._file.check()
        except StoreReplaced as error:
            raise StoreUncertain(
                f"The store {self.path} was deleted or replaced while a change was written: it may be lost.",
                cause=error.cause,
                remedy=error.remedy,
            ) from error

    # In the threads.

    def _open_writing(self, call: Call[None]) -> None:
        path = self.path = self.path.resolve()
        files.create_if_missing(path)
        patiently(call, path, lambda: files.verify(path))
        self._writing, self._file = patiently(call, path, lambda: files.open_for_writing(path))

        self._checkpointer = Checkpointer(path, self._writing)

    def _checkpoint(self) -> None:
        if self._checkpointer is not None:
            self._checkpointer.run_if_due()

    def _open_reading(self, call: Call[None]) -> None:
        self._reading = patiently(call, self.path, lambda: files.open_for_reading(self._file))
        self._watches = Watches(self._clock, self._file, self._sweep)

    def _poll(self) -> None:
        if self._watches is not None and self._reading is not None:
            self._watches.poll(self._reading)

    def _sweep(self) -> None:
        """Have the writer end the leases that are over, unless it is already about to."""
        if self._sweeping:
            return
        self._sweeping = True

        def done() -> None:
            self._sweeping = False

        with contextlib.suppress(StoreError):
            self._writer.submit(Call("sweep", lambda call: self._write_in_thread(call, lambda _: None), _SWEEP_S, done))

    def _stop_reading(self) -> None:
        if self._watches is not None:
            self._watches.end(closed(self.path))
        self._reader.stop(lambda: _close(self._reading))

    def _stop_writing(self) -> None:
        self._writer.stop(self._close_writing)

    def _close_writing(self) -> None:
        if self._checkpointer is not None:
            self._checkpointer.close()
        _close(self._writing)


def commit(connection: sqlite3.Connection) -> None:
    """Make the transaction durable and visible, in this order."""
    connection.execute("COMMIT")


def _close(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        with contextlib.suppress(sqlite3.Error):
            connection.close()
