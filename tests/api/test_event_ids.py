"""Ids of events are the cluster's: good at every agent and after every restart, with nothing skipped and nothing twice.

A store is played with, and agents that follow it at their own pace; the stream and the book are the real ones.
"""

import asyncio
from dataclasses import dataclass, field, replace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlive.agent import record
from outlive.agent.record import EventBook, key_of
from outlive.api import streams
from outlive.api.streams import EventsGone
from outlive.api.view import View
from outlive.cluster import records as rec
from outlive.cluster.mirror import Mirror
from outlive.cluster.records import EventRecord
from outlive.cluster.transaction import Delete, KeyValue, Put, Transaction
from outlive.errors import ClusterUnreachable, UsageInvalid

MOST = 4
Change = KeyValue | Delete


class Store:
    """The events of a cluster: what stands now, and every revision's changes."""

    def __init__(self) -> None:
        self.keys: dict[str, KeyValue] = {}
        self.log: list[tuple[Change, ...]] = []

    def transact(self, transaction: Transaction) -> bool:
        for compare in transaction.compares:
            standing = self.keys.get(compare.key)
            if (standing.mod_revision if standing else 0) != compare.revision:
                return False
        changes: list[Change] = []
        for write in transaction.writes:
            known = self.keys.pop(write.key, None)
            if isinstance(write, Delete):
                changes.append(write)
                continue
            revision = len(self.log) + 1
            created = known.create_revision if known else revision
            self.keys[write.key] = KeyValue(write.key, write.value, created, revision)
            changes.append(self.keys[write.key])
        self.log.append(tuple(changes))
        return True

    def put(self, *events: EventRecord) -> None:
        self.transact(Transaction((), tuple(Put(key_of(each), rec.encode(each)) for each in events)))


class Book(EventBook):
    """A book that nobody waits for."""

    async def wait(self, timeout_s: float) -> None:
        await asyncio.sleep(0)


@dataclass
class Agent:
    """One agent, as far as the stream needs it."""

    host: str = "a"
    book: Book = field(default_factory=Book)
    at: int = 0
    store_reachable: bool = True

    @property
    def mirror(self) -> Mirror:
        return replace(Mirror(), revision=self.at)

    def now(self) -> float:
        return float("inf")

    def follow(self, store: Store, up_to: int) -> None:
        for changes in store.log[self.at : up_to]:
            for change in changes:
                self.book.remove(change.key) if isinstance(change, Delete) else self.book.put(change)
        self.at = max(self.at, min(up_to, len(store.log)))

    def restart(self, store: Store) -> None:
        self.book, self.at = Book(), len(store.log)
        self.book.reset(store.keys.values())

    async def read(self, after: str, most: int, workload: str = "") -> list[tuple[str, str]]:
        """(id, event) as a reader that begins after an id is told, until there is none or it has enough."""
        view, found, mark = cast(View, self), [], ""
        await streams.check(view, streams.mark(after))
        stream = streams.events(view, streams.mark(after), lambda event: workload in ("", event.workload))
        async for piece in stream:
            for raw in piece.decode().splitlines():
                word, _, rest = raw.partition(": ")
                mark = rest if word == "id" else mark
                if word == "data":
                    found.append((mark, rec.decode("events/x", rest.encode()).id))  # type: ignore[union-attr]
            if piece == streams.STILL_HERE or len(found) >= most:
                break
        await stream.aclose()  # type: ignore[attr-defined]
        return found


def event(number: int, unix_ms: int, workload: str = "") -> EventRecord:
    return EventRecord(f"a.r.n{number}", "module.failed", "a", 0.0, unix_ms, workload=workload)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 9)),
        st.tuples(st.just("again"), st.integers(0, 30)),
        st.tuples(st.just("prune"), st.integers(0, 2)),
        st.tuples(st.just("follow"), st.integers(0, 2)),
        st.tuples(st.just("restart"), st.integers(0, 2)),
        st.tuples(st.just("read"), st.integers(0, 11)),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_a_reader_that_goes_from_agent_to_agent_hears_all_once_or_is_told_what_is_gone(
    does: list[tuple[str, int]],
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(record, "MOST_IN_STORE", MOST)
        asyncio.run(_played(does))


def order(name: str) -> int:
    """Events are numbered in the order in which they come to the store."""
    return int(name.rpartition("n")[2])


async def _played(does: list[tuple[str, int]]) -> None:
    store, agents, put = Store(), [Agent(), Agent(), Agent()], list[EventRecord]()
    mark, heard, may_miss = "", -1, True
    for word, number in [*does, ("follow", 0), ("read", 9)]:
        agent = agents[number % 3]
        if word == "put":
            put.append(event(len(put), 5 + number))  # also such as happened before others that came before it
            store.put(put[-1])
        elif word == "again" and put and key_of(chosen := put[number % len(put)]) in store.keys:
            store.put(chosen)
        elif word == "prune" and (pruning := agent.book.pruning()) is not None:
            store.transact(pruning)
        elif word == "follow":
            agent.follow(store, len(store.log))
        elif word == "restart":
            agent.restart(store)
        elif word == "read":
            try:
                found = await agent.read(mark, 1 + number // 3)
            except EventsGone as gone:
                mark, may_miss = gone.oldest, True
                continue
            except UsageInvalid:
                continue  # this agent does not know of events as new as that yet
            if not found:
                continue
            numbers = [order(name) for _, name in found]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            assert numbers[0] == heard + 1 or (may_miss and numbers[0] > heard), "none skipped unsaid, none twice"
            mark, heard, may_miss = found[-1][0], numbers[-1], False


async def test_an_id_after_which_events_are_gone_is_told_with_the_one_to_go_on_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(record, "MOST_IN_STORE", MOST)
    store, agent = Store(), Agent()
    for number in range(MOST + 2):
        store.put(event(number, number))
    agent.restart(store)
    (first, _), *_ = await agent.read("", 1)
    pruning = agent.book.pruning()
    assert pruning is not None
    store.transact(pruning)
    for each in (agent, Agent()):
        each.restart(store)
        with pytest.raises(EventsGone) as gone:
            await each.read(first, 1)
        told = [name for _, name in await each.read(str(gone.value.problem()["oldest"]), MOST)]
        assert told == [f"a.r.n{number}" for number in range(2, MOST + 2)]
        assert [name for _, name in await each.read("", MOST)] == told, "from the beginning is from what is kept"


async def test_a_reader_that_falls_behind_is_let_go_so_that_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "MOST_IN_STORE", 1)
    store, agent = Store(), Agent()
    store.put(event(0, 0), event(1, 1))
    agent.follow(store, 1)
    stream = streams.events(cast(View, agent), streams.BEGINNING, lambda _: True)
    assert b"a.r.n0" in await anext(stream)
    store.put(event(2, 2), event(3, 3))
    agent.follow(store, 2)
    pruning = agent.book.pruning()
    assert pruning is not None
    store.transact(pruning)
    agent.follow(store, 3)
    rest = [piece async for piece in stream]
    assert [b"a.r.n1" in piece for piece in rest] == [True]


async def test_an_id_that_is_newer_than_the_agent_knows_waits_for_it_or_is_refused() -> None:
    agent = Agent(at=5)
    with pytest.raises(UsageInvalid, match="no mark of this cluster"):
        await streams.check(cast(View, agent), (6, "events/x"))
    agent.store_reachable = False
    with pytest.raises(ClusterUnreachable):
        await streams.check(cast(View, agent), (6, "events/x"))


async def test_who_wants_little_is_given_the_id_of_what_was_passed_over() -> None:
    store, agent = Store(), Agent()
    store.put(event(0, 0, "web"))
    store.put(event(1, 1, "other"))
    agent.restart(store)
    stream = streams.events(cast(View, agent), streams.BEGINNING, lambda each: each.workload == "web")
    pieces = [await anext(stream) for _ in range(3)]
    assert b"a.r.n0" in pieces[0]
    assert pieces[1] == streams.STILL_HERE
    assert pieces[2].startswith(b"id: 2:")
    assert b"data" not in pieces[2]
