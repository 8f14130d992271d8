"""Keeping what happened, for `outlive events` and `outlive why`.

Every recorded event is stamped with the wall clock here, once, and goes to three places: the agent's log, the
host's own events file, and the store under `events/<13-digit milliseconds>-<id>`, where the whole cluster
reads it. The store's copy waits while the store is away, is bounded in number, and is never needed for any
decision.
"""

import asyncio
import contextlib
import time
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice

import msgspec
import structlog

from outlive.cluster import records as rec
from outlive.cluster.records import EventRecord
from outlive.cluster.transaction import Delete, KeyValue, Put, Transaction, unchanged
from outlive.store.base import RequestRefused, Store, StoreError

from .log import LineFile

MOST_IN_STORE = 5000
PRUNED_AT_ONCE = 100
MOST_WAITING = 2000
WRITTEN_AT_ONCE = 50
WRITE_S = 5.0
AWAY_PAUSE_S = 1.0

Arrival = tuple[int, str]
"""Where an event stands in the order of arrival: the store's revision at which it came, and its key."""

log = structlog.get_logger()


def key_of(event: EventRecord) -> str:
    """The store's key of a stamped event: keys sort as the events' times do."""
    return f"{rec.EVENTS}{event.unix_ms:013d}-{event.id}"


def fields_of(event: EventRecord) -> dict[str, object]:
    """What is worth a field in a log line: all that the event has and its kind does not say."""
    told = ("id", "host", "workload", "generation", "module", "text", "because")
    return {name: value for name in told if (value := getattr(event, name))}


class Recorder:
    """Takes events from the machines; `run` carries them to the store in the background."""

    def __init__(self, lines: LineFile, unix_s: Callable[[], float] = time.time) -> None:
        self._lines = lines
        self._unix_s = unix_s
        self._waiting: deque[EventRecord] = deque()
        self._some = asyncio.Event()
        self._dropped = 0

    def record(self, event: EventRecord) -> EventRecord:
        """Stamp and keep one event; it reaches the store when the store is there. Never blocks."""
        event = replace(event, unix_ms=int(self._unix_s() * 1000))
        log.info(event.kind, **fields_of(event))
        self._lines.add(msgspec.json.encode(event))
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.popleft()
            self._dropped += 1
        self._waiting.append(event)
        self._some.set()
        return event

    @property
    def waiting(self) -> int:
        """How many events the store does not have yet."""
        return len(self._waiting)

    async def run(self, store: Store) -> None:
        """Carry events to the store, oldest first, until cancelled; what cannot be written waits."""
        away = False
        while True:
            if not self._waiting:
                self._some.clear()
                await self._some.wait()
            try:
                await self.write_some(store)
            except RequestRefused as error:
                # Whatever is wrong with it will not get better, and must not hold up the others.
                log.error("event.refused", id=self._waiting.popleft().id, reason=str(error))
                continue
            except StoreError as error:
                if not away:
                    log.warning("events.waited", waiting=len(self._waiting), reason=str(error))
                away = True
                await asyncio.sleep(AWAY_PAUSE_S)
                continue
            if away or self._dropped:
                log.info("events.caught_up", dropped=self._dropped)
            away, self._dropped = False, 0

    async def write_some(self, store: Store) -> None:
        """Write the oldest waiting events in one transaction. Raises StoreError, with nothing lost."""
        batch = {key_of(event): event for event in islice(self._waiting, WRITTEN_AT_ONCE)}
        if not batch:
            return
        # Each event has its own key, so a write whose outcome is unknown can simply be done again.
        writes = tuple(Put(key, rec.encode(event)) for key, event in batch.items())
        await store.transact(Transaction((), writes), timeout_s=WRITE_S)
        while self._waiting and key_of(self._waiting[0]) in batch:
            self._waiting.popleft()


class EventBook:
    """The cluster's events as the store has them, fed by the agent's watch.

    In two orders: as they happened, by key, and as they reached the store, by the revision at which each was
    created: a host that was cut off tells of its past late, and whoever follows must not miss that. A write that was
    done twice, since nobody knew that it was done, is one arrival. Both orders are the same at every agent.

    pruned: all that arrived up to this one may be gone.
    """

    def __init__(self) -> None:
        self._happened: list[str] = []
        self._arrived: list[Arrival] = []
        self._events: dict[str, tuple[int, EventRecord]] = {}
        self._news = asyncio.Event()
        self._pruned_at = 0
        self.pruned: Arrival = (0, "")

    def __len__(self) -> int:
        return len(self._events)

    def reset(self, values: Iterable[KeyValue]) -> None:
        """Start again from a whole reading of the store."""
        self._happened.clear()
        self._arrived.clear()
        self._events.clear()
        for value in values:
            self.put(value)

    def put(self, value: KeyValue) -> None:
        """Take in one key of the store; one that is no event, or no readable one, is passed over."""
        try:
            ours = value.key == rec.PRUNED or value.key.startswith(rec.EVENTS)
            event = rec.decode(value.key, value.value) if ours else None
        except rec.BadRecord:
            return
        if isinstance(event, rec.PrunedRecord):
            self._pruned_at = value.mod_revision
            self.pruned = max(self.pruned, (event.revision, event.key))
        if not isinstance(event, EventRecord):
            return
        self.remove(value.key)
        self._events[value.key] = (value.create_revision, event)
        insort(self._happened, value.key)
        insort(self._arrived, (value.create_revision, value.key))
        self._news.set()

    def remove(self, key: str) -> None:
        """Forget a key that the store no longer has."""
        known = self._events.pop(key, None)
        if known is not None:
            del self._happened[bisect_left(self._happened, key)]
            del self._arrived[bisect_left(self._arrived, (known[0], key))]

    def happened(self) -> list[EventRecord]:
        """All events in the order of the wall clocks that stamped them."""
        return [self._events[key][1] for key in self._happened]

    def arrived(self, after: Arrival = (0, "")) -> list[tuple[Arrival, EventRecord]]:
        """The events that reached the store after `after`, each with the mark to go on from."""
        return [(mark, self._events[mark[1]][1]) for mark in self._arrived[bisect_right(self._arrived, after) :]]

    async def wait(self, timeout_s: float) -> None:
        """Wait for the next event to arrive, at most `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                # Replaced, not cleared: everybody who waits holds the same one.
                if self._news.is_set():
                    self._news = asyncio.Event()
                await self._news.wait()

    def pruning(self) -> Transaction | None:
        """What forgets the events that came first, beyond the number kept, a transaction's worth at most.

        It says in the same step how far, so that who follows and was away too long is told instead of missing some.
        """
        over = len(self._arrived) - MOST_IN_STORE
        gone = self._arrived[: min(over, PRUNED_AT_ONCE)] if over > 0 else []
        if not gone:
            return None
        told = Put(rec.PRUNED, rec.encode(rec.PrunedRecord(*gone[-1])))
        return Transaction((unchanged(rec.PRUNED, self._pruned_at),), (*(Delete(key) for _, key in gone), told))


async def prune(book: EventBook, store: Store) -> None:
    """Delete the surplus events from the store; done by one agent, the leader's, every so often."""
    if (pruning := book.pruning()) is not None:
        await store.transact(pruning, timeout_s=WRITE_S)
