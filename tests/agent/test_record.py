"""Events reach the store in order and once it is there, and are found again in both of their orders."""

import asyncio
from pathlib import Path

import pytest

from outlive.agent import record
from outlive.agent.log import LineFile
from outlive.cluster import records as rec
from outlive.cluster.records import EventRecord
from outlive.cluster.transaction import KeyValue, Put, Transaction, TransactionResult
from outlive.store.base import RequestRefused, StoreUnavailable


class ScriptedStore:
    """Takes transactions, or fails them as told; only what the recorder needs of a store."""

    def __init__(self) -> None:
        self.away = False
        self.refuses = ""
        self.keys: dict[str, bytes] = {}

    async def transact(self, transaction: Transaction, *, timeout_s: float) -> TransactionResult:
        if self.away:
            raise StoreUnavailable("The store is away.")
        for write in transaction.writes:
            if self.refuses and self.refuses in write.key:
                raise RequestRefused("No.")
        for write in transaction.writes:
            if isinstance(write, Put):
                self.keys[write.key] = write.value
            else:
                self.keys.pop(write.key, None)
        return TransactionResult(True, 1)


def event(number: int) -> EventRecord:
    return EventRecord(f"a.r.n{number}", "module.failed", "a", float(number))


def lines(folder: Path) -> LineFile:
    return LineFile(folder / "events.log")


async def carried(recorder: record.Recorder, store: ScriptedStore) -> None:
    task = asyncio.create_task(recorder.run(store))  # type: ignore[arg-type]
    async with asyncio.timeout(60):
        while recorder.waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_events_are_stamped_and_reach_the_store_and_the_file(tmp_path: Path) -> None:
    file, store = lines(tmp_path), ScriptedStore()
    recorder = record.Recorder(file, lambda: 1_700_000_000.5)
    recorder.record(event(1))
    await carried(recorder, store)
    file.close()
    assert list(store.keys) == ["events/1700000000500-a.r.n1"]
    assert b'"unix_ms":1700000000500' in (tmp_path / "events.log").read_bytes()


async def test_events_wait_while_the_store_is_away(tmp_path: Path) -> None:
    file, store = lines(tmp_path), ScriptedStore()
    recorder = record.Recorder(file)
    store.away = True
    for number in range(record.WRITTEN_AT_ONCE * 2):
        recorder.record(event(number))
    with pytest.raises(StoreUnavailable):
        await recorder.write_some(store)  # type: ignore[arg-type]
    assert recorder.waiting == record.WRITTEN_AT_ONCE * 2
    store.away = False
    await carried(recorder, store)
    file.close()
    assert len(store.keys) == record.WRITTEN_AT_ONCE * 2


async def test_an_event_that_the_store_refuses_does_not_hold_up_the_others(tmp_path: Path) -> None:
    file, store = lines(tmp_path), ScriptedStore()
    store.refuses = "n1"
    recorder = record.Recorder(file)
    for number in (1, 2, 3):
        recorder.record(event(number))
    await carried(recorder, store)
    file.close()
    assert sorted(rec.name_in(key).partition("-")[2] for key in store.keys) == ["a.r.n2", "a.r.n3"]


async def test_no_more_than_a_bound_waits_and_the_newest_are_kept(tmp_path: Path) -> None:
    file, store = lines(tmp_path), ScriptedStore()
    recorder = record.Recorder(file)
    for number in range(record.MOST_WAITING + 10):
        recorder.record(event(number))
    assert recorder.waiting == record.MOST_WAITING
    await carried(recorder, store)
    file.close()
    assert not any(key.endswith("n9") for key in store.keys)
    assert any(key.endswith(f"n{record.MOST_WAITING + 9}") for key in store.keys)


def kept(unix_ms: int, number: int, revision: int) -> KeyValue:
    stamped = EventRecord(f"a.r.n{number}", "host.isolated", "a", 0.0, unix_ms)
    return KeyValue(record.key_of(stamped), rec.encode(stamped), revision, revision)


async def test_an_event_told_late_is_old_by_time_and_new_to_who_follows() -> None:
    book = record.EventBook()
    book.reset([kept(2000, 1, 5), kept(3000, 2, 6)])
    book.put(kept(1000, 3, 9))
    assert [known.unix_ms for known in book.happened()] == [1000, 2000, 3000]
    ((mark, late),) = book.arrived((6, record.key_of(book.happened()[2])))
    assert (mark[0], late.unix_ms) == (9, 1000)
    assert book.arrived(mark) == []


async def test_whoever_waits_is_woken_by_the_next_event_only() -> None:
    book = record.EventBook()
    book.put(kept(1, 1, 1))
    waiting = asyncio.create_task(book.wait(30))
    other = asyncio.create_task(book.wait(30))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    book.put(kept(2, 2, 2))
    async with asyncio.timeout(60):
        await asyncio.gather(waiting, other)


async def test_unreadable_events_are_passed_over_and_removed_keys_forgotten() -> None:
    book = record.EventBook()
    book.put(KeyValue("events/0-x", b"{", 1, 1))
    book.put(KeyValue("hosts/a", b"{}", 1, 1))
    value = kept(1, 1, 2)
    book.put(value)
    book.put(value)
    assert len(book) == 1
    book.remove(value.key)
    book.remove("events/never")
    assert (len(book), book.happened(), book.arrived()) == (0, [], [])


async def test_what_came_first_is_pruned_and_how_far_is_said() -> None:
    book, store = record.EventBook(), ScriptedStore()
    values = [kept(number, number, number + 1) for number in range(record.MOST_IN_STORE + 3)]
    late = kept(0, 999_999, record.MOST_IN_STORE + 10)
    store.keys = {value.key: value.value for value in (*values, late)}
    book.reset([*values, late])
    assert book.pruned == (0, "")
    await record.prune(book, store)  # type: ignore[arg-type]
    assert values[3].key not in store.keys
    assert {values[4].key, late.key} <= set(store.keys), "what is told late is old, and has only just come"
    told = KeyValue(rec.PRUNED, store.keys.pop(rec.PRUNED), 1, 1)
    assert len(store.keys) == record.MOST_IN_STORE
    book.put(told)
    assert book.pruned == (4, values[3].key)


async def test_an_event_that_was_written_twice_came_once() -> None:
    book = record.EventBook()
    first = kept(1, 1, 5)
    book.put(first)
    [(mark, _)] = book.arrived()
    book.put(KeyValue(first.key, first.value, 5, 9))
    assert (book.arrived(mark), len(book)) == ([], 1)
