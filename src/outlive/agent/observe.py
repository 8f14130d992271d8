"""What happens to this host and its cluster, turned into events: the store's changes, and the passing of
time.

Each of these loops only watches and tells. The picture of the store (`mirror`) is moved forward here and
nowhere else; a watch that breaks goes on from where it was, and only when the store no longer keeps that far
back is everything read again. Talk with peers is in `neighbours`, datastores in `outlive.datastore`.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from outlive.cluster import records as rec
from outlive.cluster.events import Event, StoreMoved, Tick
from outlive.cluster.mirror import Mirror, changed, snapshot
from outlive.cluster.transaction import Delete
from outlive.store.base import Compacted, Store, StoreError, WatchBatch

from .record import EventBook

LISTED_WITHIN_S = 5.0
AWAY_PAUSE_S = 0.5
LAG_TOLD_S = 0.25

log = structlog.get_logger()

Clock = Callable[[], float]
Tell = Callable[[Event], None]


class StoreWatcher:
    """Keeps the picture of the store; `read` takes the first, `run` moves it on and tells of it."""

    def __init__(self, store: Store, book: EventBook, clock: Clock) -> None:
        self._store = store
        self._book = book
        self._clock = clock
        self._away = False
        self._began = False
        self.mirror = Mirror()

    @property
    def fresh(self) -> bool:
        """Whether the store was being followed when it was last looked at."""
        return self._began and not self._away

    async def read(self) -> Mirror:
        """Read the whole store. Raises StoreError."""
        listing = await self._store.list("", timeout_s=LISTED_WITHIN_S)
        self._book.reset(listing.keys)
        before = self.mirror
        self.mirror = snapshot(before, listing.revision, listing.keys, self._clock())
        self._complain(before)
        self._began = True
        return self.mirror

    async def run(self, tell: Tell) -> None:
        """Follow the store until cancelled, telling StoreMoved for every change."""
        while True:
            try:
                if not self._began:
                    tell(StoreMoved(self._clock(), await self.read()))
                batches = self._store.watch("", self.mirror.revision + 1)
                async with contextlib.aclosing(batches):
                    async for batch in batches:
                        self._back()
                        self._take(batch, tell)
            except Compacted:
                self._began = False
            except StoreError as error:
                if not self._away:
                    log.warning("store.went_away", reason=str(error), remedy=error.remedy)
                self._away = True
                await asyncio.sleep(AWAY_PAUSE_S)

    def _take(self, batch: WatchBatch, tell: Tell) -> None:
        if batch.revision <= self.mirror.revision:
            return
        at = self._clock()
        keys = set()
        for change in batch.changes:
            keys.add(change.key)
            if isinstance(change, Delete):
                self._book.remove(change.key)
            else:
                self._book.put(change)
        before, self.mirror = self.mirror, changed(self.mirror, batch.revision, batch.changes, at)
        self._complain(before)
        tell(StoreMoved(at, self.mirror, frozenset(keys)))

    def _complain(self, before: Mirror) -> None:
        """Name records that cannot be read, once for each time they are written."""
        if self.mirror.bad is before.bad:
            return
        for key, (revision, problem) in self.mirror.bad.items():
            if before.bad.get(key, (0, ""))[0] != revision:
                remedy = rec.BadRecord(key, problem).remedy
                log.error("store.record_refused", key=key, reason=problem, remedy=remedy)

    def _back(self) -> None:
        if self._away:
            log.info("store.came_back", revision=self.mirror.revision)
        self._away = False


@dataclass(slots=True)
class Lag:
    """How late the loop's ticks came: lately (a peak that halves every second or so), and at worst."""

    recent_s: float = 0.0
    worst_s: float = 0.0

    def note(self, late_s: float) -> None:
        """Take in how late one tick was."""
        self.recent_s = max(late_s, self.recent_s * 0.93)
        self.worst_s = max(late_s, self.worst_s)


class Ticker:
    """Tells a Tick every `tick_s`; never two at once: while one waits to be dealt with, the next is left out."""

    def __init__(self, tick_s: float, clock: Clock, sequence: Callable[[], int]) -> None:
        self._tick_s = tick_s
        self._clock = clock
        self._sequence = sequence
        self._waiting = False
        self.lag = Lag()

    def dealt_with(self) -> None:
        """The machines have seen the newest tick."""
        self._waiting = False

    async def run(self, tell: Tell) -> None:
        """Tick until cancelled."""
        cpus = os.cpu_count() or 1
        due_at = self._clock()
        while True:
            now = self._clock()
            late_s = now - due_at
            self.lag.note(late_s)
            if late_s > LAG_TOLD_S:
                log.warning("loop.lagged", late_s=round(late_s, 3))
            if not self._waiting:
                self._waiting = True
                tell(Tick(now, os.getloadavg()[0] / cpus, self._sequence()))
            due_at = due_at + self._tick_s if due_at + self._tick_s > now else now + self._tick_s
            await asyncio.sleep(max(0.0, due_at - self._clock()))
