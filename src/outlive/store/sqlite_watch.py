"""The watches of one store instance: who asked for what, and what each has been given.

The reading thread calls `poll` about every 20 ms. It only reads: what it finds changed goes to the watches,
each of which keeps a bounded number of batches until its task takes them; leases that are over are reported,
not ended, so that a slow disk never delays what others have written. A watch that fails is told why, once,
and is over.
"""

import asyncio
import contextlib
import random
import sqlite3
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable

from . import sqlite_tables as tables
from .base import PROGRESS_INTERVAL_S, Compacted, StoreError, StoreTimeout, WatchBatch
from .boot_clock import BootClock
from .sqlite_file import StoreFile, is_busy, translate

POLL_INTERVAL_S = 0.02

_LEASE_LOOK_S = (0.05, 0.1)
_MAX_WAITING_BATCHES = 1000
_MAX_BYTES_A_POLL = 4 * 1024 * 1024
_REVISIONS_A_POLL = 1000

_jitter = random.Random()  # its own, so that a seeded generator elsewhere is left alone


class Watch:
    """One watch. The reading thread fills it, one task of `loop` empties it."""

    def __init__(self, prefix: str, from_revision: int, loop: asyncio.AbstractEventLoop) -> None:
        self.prefix = prefix
        self._next_revision = from_revision
        self._loop = loop
        self._waiting: deque[WatchBatch] = deque()
        self._given_at = float("-inf")
        self._error: StoreError | None = None
        self._news = asyncio.Event()

    # In the reading thread.

    def advance(self, connection: sqlite3.Connection, revision: int, compacted: int, now: float) -> bool:
        """Take what the snapshot has for this watch; whether it has more than was taken."""
        if self._next_revision <= compacted:
            raise Compacted(compacted + 1)
        last = min(revision, self._next_revision + _REVISIONS_A_POLL - 1)
        if self._next_revision <= last:
            if len(self._waiting) >= _MAX_WAITING_BATCHES:
                return True
            batches, told = tables.history(connection, self.prefix, self._next_revision, last, _MAX_BYTES_A_POLL)
            self._next_revision = told + 1
            if batches:
                self._give(batches, now)
        elif not self._waiting and now - self._given_at >= PROGRESS_INTERVAL_S - 2 * POLL_INTERVAL_S:
            self._give([WatchBatch(revision, ())], now)
        return self._next_revision <= revision

    def fail(self, error: StoreError) -> None:
        """The watch is over, after what it was given."""
        self._error = error
        self._tell()

    def _give(self, batches: list[WatchBatch], now: float) -> None:
        self._waiting.extend(batches)
        self._given_at = now
        self._tell()

    def _tell(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._news.set)

    # In the loop.

    async def batches(self, silence_s: float) -> AsyncGenerator[WatchBatch, None]:
        """What comes, until it fails; StoreTimeout when nothing does for `silence_s`."""
        while True:
            self._news.clear()
            while self._waiting:
                yield self._waiting.popleft()
            if self._error is not None:
                raise self._error
            try:
                async with asyncio.timeout(silence_s):
                    await self._news.wait()
            except TimeoutError:
                if not self._waiting and self._error is None:
                    raise StoreTimeout(
                        f"The store told nothing to the watch of {self.prefix!r} for {silence_s:g} s.",
                        cause="its disk did not answer",
                        remedy="try again; if it lasts, check the disk (dmesg)",
                    ) from None


class Watches:
    """All watches of a store instance, and the look at leases that goes with polling."""

    def __init__(self, clock: BootClock, file: StoreFile, when_over: Callable[[], None]) -> None:
        self._clock = clock
        self._file = file
        self._when_over = when_over
        self._lock = threading.Lock()
        self._watches: set[Watch] = set()
        self._ended_by: StoreError | None = None
        self._seen_version = -1
        self._behind = False
        self._next_look_at = 0.0
        self._next_progress_at = 0.0

    def add(self, watch: Watch) -> None:
        """Serve it from the next poll on."""
        with self._lock:
            if self._ended_by is not None:
                watch.fail(self._ended_by)
                return
            self._watches.add(watch)
            self._behind = True

    def remove(self, watch: Watch) -> None:
        """It is no longer read."""
        with self._lock:
            self._watches.discard(watch)

    def end(self, error: StoreError) -> None:
        """Every watch is over, and those to come."""
        with self._lock:
            self._ended_by = error
        self._fail_all(error)

    def poll(self, connection: sqlite3.Connection) -> None:
        """Look for news and give them out. Raises nothing."""
        try:
            self._poll(connection)
        except Exception as error:  # the thread goes on; the watches hear why they end
            if not (isinstance(error, sqlite3.Error) and is_busy(error)):
                self._fail_all(translate(error, self._file.path))

    def _poll(self, connection: sqlite3.Connection) -> None:
        self._file.check()
        now = time.monotonic()
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version != self._seen_version or self._behind or now >= self._next_progress_at:
            self._serve(connection, now)
            self._seen_version = version
        if now >= self._next_look_at:
            self._next_look_at = now + _jitter.uniform(*_LEASE_LOOK_S)
            if tables.any_over(connection, self._clock):
                self._when_over()

    def _serve(self, connection: sqlite3.Connection, now: float) -> None:
        with self._lock:
            watches = tuple(self._watches)
            self._behind = False
        self._next_progress_at = now + PROGRESS_INTERVAL_S / 10
        if not watches:
            return
        some_behind = False
        connection.execute("BEGIN")
        try:
            revision, compacted = connection.execute("SELECT revision, compacted FROM state").fetchone()
            for watch in watches:
                try:
                    some_behind |= watch.advance(connection, revision, compacted, now)
                except Compacted as error:
                    self.remove(watch)
                    watch.fail(error)
        finally:
            connection.execute("ROLLBACK")
        if some_behind:
            self._behind = True

    def _fail_all(self, error: StoreError) -> None:
        with self._lock:
            watches, self._watches = self._watches, set()
        for watch in watches:
            watch.fail(error)
