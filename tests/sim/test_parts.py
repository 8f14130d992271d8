"""The parts of a simulated world do what the real ones promise, and break as the real ones break."""

from random import Random
from typing import Any

from outlive.cluster.heartbeat import Flags, Heartbeat, ModuleTable
from outlive.cluster.transaction import Delete, KeyValue, Put, Transaction, absent, same_incarnation, unchanged
from outlive.sim.agenda import Agenda
from outlive.sim.clock import BootClock
from outlive.sim.datastore import Access, Datastore, Grip
from outlive.sim.gate import Gate
from outlive.sim.guard import Guard
from outlive.sim.ledger import Ledger
from outlive.sim.network import Network
from outlive.sim.setup import Delays
from outlive.sim.store import Door, Store, Ways


def heartbeat(host: str, sequence: int) -> Heartbeat:
    return Heartbeat("0" * 16, host, "1" * 32, sequence, Flags.NONE, 0.0, 0, b"")


# Time.


def test_agenda_keeps_the_order_of_what_is_due_at_the_same_moment() -> None:
    agenda, done = Agenda(), []  # type: tuple[Agenda, list[str]]
    agenda.at(2.0, done.append, "c")
    agenda.at(1.0, done.append, "a")
    agenda.at(1.0, done.append, "b")
    agenda.at(9.0, done.append, "too late")
    agenda.run_until(5.0)
    assert done == ["a", "b", "c"]
    assert agenda.now == 5.0


def test_agenda_does_at_once_what_should_have_been_done() -> None:
    agenda, done = Agenda(), []  # type: tuple[Agenda, list[float]]
    agenda.at(3.0, lambda: agenda.at(1.0, lambda: done.append(agenda.now)))
    agenda.run_until(5.0)
    assert done == [3.0]


def test_halted_agenda_does_nothing_more() -> None:
    agenda, done = Agenda(), []  # type: tuple[Agenda, list[str]]
    agenda.at(1.0, agenda.halt)
    agenda.at(1.0, done.append, "after the end")
    agenda.run_until(5.0)
    assert done == []
    assert agenda.now == 1.0


def test_boot_clock_drifts_and_can_be_asked_when_it_will_show_something() -> None:
    clock = BootClock(rate=1.01, zero_s=10.0)
    assert clock.reads(110.0) == 101.0
    assert clock.when(clock.reads(77.0)) == 77.0


# Processes.


def test_gate_lets_in_on_waking_what_came_while_it_was_closed_in_order() -> None:
    agenda, done = Agenda(), []  # type: tuple[Agenda, list[str]]
    gate = Gate(agenda)
    gate.close()
    gate.close()
    gate.enter(done.append, "a")
    gate.after(1.0, done.append, "b")
    agenda.run_until(2.0)
    gate.open()
    assert done == []
    gate.open()
    assert done == ["a", "b"]


def test_gate_drops_what_finds_no_room_and_all_that_comes_for_the_dead() -> None:
    done: list[str] = []
    gate = Gate(Agenda())
    gate.close()
    for word in "abc":
        gate.enter_if_room(2, done.append, word)
    gate.open()
    assert done == ["a", "b"]
    gate.shut()
    gate.enter(done.append, "d")
    assert done == ["a", "b"]


# Network.


def network(**changes: Any) -> tuple[Agenda, Network, list[str]]:
    agenda = Agenda()
    return agenda, Network(agenda, Random(1), Delays(**changes)), []


def test_overlapping_cuts_heal_one_by_one() -> None:
    agenda, net, got = network()
    net.cut([("a", "b")])
    net.cut([("a", "b"), ("b", "a")])
    net.mend([("a", "b"), ("b", "a")])
    assert not net.passes("a", "b")
    assert net.passes("b", "a")
    net.send("a", "b", got.append, "lost")
    net.mend([("a", "b")])
    net.send("a", "b", got.append, "through")
    agenda.run_until(1.0)
    assert got == ["through"]


def test_messages_are_lost_doubled_and_overtaken() -> None:
    agenda, net, got = network()
    net.loss, net.duplication, net.extra_delay_s = 0.3, 0.3, 1.0
    for number in range(200):
        agenda.at(number * 0.01, net.send, "a", "b", got.append, str(number))
    agenda.run_until(10.0)
    assert len(set(got)) < 200
    assert len(got) > len(set(got))
    assert got != sorted(got, key=int)


# Store.


def store() -> tuple[Agenda, Store]:
    agenda = Agenda()
    return agenda, Store(agenda, Random(1), Delays())


def test_store_writes_all_or_nothing_and_counts_revisions() -> None:
    _, there = store()
    assert there.transact("x", Transaction((absent("k"),), (Put("k", b"1"), Put("l", b"1")))).succeeded
    assert not there.transact("x", Transaction((absent("k"),), (Put("l", b"2"),))).succeeded
    assert there.data["l"].value == b"1"
    again = there.transact("x", Transaction((unchanged("k", 1), same_incarnation("k", 1)), (Put("k", b"2"),)))
    assert (again.succeeded, again.revision) == (True, 2)
    assert (there.data["k"].create_revision, there.data["k"].mod_revision) == (1, 2)
    there.transact("x", Transaction((), (Delete("k"),)))
    there.transact("x", Transaction((), (Put("k", b"3"),)))
    assert not there.transact("x", Transaction((same_incarnation("k", 1),), (Put("k", b"4"),))).succeeded


def test_lease_takes_its_keys_with_it_unless_it_is_kept_alive() -> None:
    agenda, there = store()
    short, kept = there.grant(4), there.grant(4)
    there.transact("x", Transaction((), (Put("a", b"", short), Put("b", b"", short), Put("c", b"", kept))))
    for second in range(1, 20):
        agenda.at(second, there.keep_alive, kept)
    agenda.run_until(10.0)
    assert list(there.data) == ["c"]
    assert not there.transact("x", Transaction((), (Put("d", b"", short),))).succeeded


def test_key_written_again_without_its_lease_stays() -> None:
    agenda, there = store()
    lease = there.grant(4)
    there.transact("x", Transaction((), (Put("a", b"", lease),)))
    there.transact("hand", Transaction((), (Put("a", b"nonsense"),)))
    agenda.run_until(10.0)
    assert "a" in there.data


def door(there: Store, agenda: Agenda, ways: Ways) -> tuple[Door, list[Any]]:
    seen: list[Any] = []
    return (
        Door(
            agenda, Random(1), Delays(), there, ways, "a", seen.extend,
            lambda revision, values: seen.append((revision, values)),
        ),
        seen,
    )  # fmt: skip


def test_answer_is_lost_after_the_write_happened() -> None:
    agenda, there = store()
    ways = Ways()
    way, answers = door(there, agenda, ways)[0], []  # type: tuple[Door, list[object]]
    ways.shut("a", to_store=False, from_store=True)
    way.ask(lambda: there.transact("a", Transaction((), (Put("k", b""),))), answers.append)
    agenda.run_until(1.0)
    assert "k" in there.data
    assert answers == []


def test_slow_request_happens_long_after_it_was_sent() -> None:
    agenda, there = store()
    ways = Ways()
    way, _ = door(there, agenda, ways)
    ways.slow_s = 60.0
    way.ask(lambda: there.transact("a", Transaction((), (Put("k", b""),))), lambda _: None)
    agenda.run_until(2.0)
    assert "k" not in there.data
    agenda.run_until(61.0)
    assert "k" in there.data


def test_watch_that_was_broken_catches_up_in_order_or_reads_anew() -> None:
    agenda, there = store()
    ways = Ways()
    way, seen = door(there, agenda, ways)
    ways.on_change = way.mended
    way.open()
    there.transact("x", Transaction((), (Put("k", b"1"),)))
    agenda.run_until(1.0)
    ways.shut_all()
    there.transact("x", Transaction((), (Put("k", b"2"),)))
    there.transact("x", Transaction((), (Put("k", b"3"),)))
    agenda.run_until(2.0)
    assert [revision for revision, _ in seen] == [1]
    ways.shut_all(by=-1)
    agenda.run_until(4.0)
    last_revision, last = seen[-1]
    assert last_revision == 3
    assert isinstance(last[0], KeyValue)
    assert last[0].value == b"3"


# Datastore.


def datastore() -> tuple[Agenda, Datastore]:
    agenda = Agenda()
    return agenda, Datastore(agenda, Random(1), Delays(lock_freed_s=(1.0, 1.0)))


def test_stale_reader_sees_an_older_slot() -> None:
    agenda, there = datastore()
    for second in range(5):
        agenda.run_until(second)
        there.write("b", heartbeat("b", second + 1), ModuleTable())
    there.stale_s["a"] = 2.5
    assert [slot.heartbeat.sequence for slot in there.read("a")] == [2]
    assert [slot.heartbeat.sequence for slot in there.read("c")] == [5]
    assert there.read("b") == []


def test_hung_write_that_happens_late_does_not_go_over_a_newer_one() -> None:
    _, there = datastore()
    there.write("b", heartbeat("b", 7), ModuleTable())
    there.write("b", heartbeat("b", 6), ModuleTable())
    assert there.read("a")[0].heartbeat.sequence == 7


def test_faults_of_the_datastore_overlap() -> None:
    _, there = datastore()
    there.set_hung("a")
    there.set_away("a")
    assert there.access("a") is Access.AWAY
    there.set_away("a", by=-1)
    assert there.access("a") is Access.HUNG
    there.set_hung("a", by=-1)
    assert there.access("a") is Access.PROMPT


def test_run_lock_is_one_hosts_and_refuses_older_generations() -> None:
    agenda, there = datastore()
    assert there.take("a", "web", 3) is Grip.TAKEN
    assert there.take("b", "web", 4) is Grip.HELD
    there.release("a", "web", 3)
    assert there.take("b", "web", 2) is Grip.OLDER
    assert there.take("b", "web", 4) is Grip.TAKEN
    there.release("b", "web", 4, late=True)
    assert there.take("a", "web", 5) is Grip.HELD
    agenda.run_until(1.5)
    assert there.take("a", "web", 5) is Grip.TAKEN


# Guard and ledger.


def guard(fired: list[float]) -> tuple[Agenda, Guard]:
    agenda = Agenda()
    return agenda, Guard(agenda, Random(1), BootClock(1.0, 0.0), 0.2, lambda: fired.append(agenda.now))


def test_guard_fires_once_and_not_later_than_its_bound() -> None:
    fired: list[float] = []
    agenda, there = guard(fired)
    there.set_deadline(4.0)
    agenda.at(3.0, there.set_deadline, 6.0)
    agenda.run_until(20.0)
    (at_s,) = fired
    assert 6.0 <= at_s <= 6.2
    assert not there.allows()


def test_guard_of_a_paused_host_fires_on_waking() -> None:
    fired: list[float] = []
    agenda, there = guard(fired)
    there.set_deadline(4.0)
    there.stalled = True
    agenda.run_until(30.0)
    assert fired == []
    there.wake()
    assert fired == [30.0]


def test_paused_host_does_not_act_and_acts_again_only_if_its_guard_lets_it() -> None:
    ledger, began = Ledger(Agenda()), []  # type: tuple[Ledger, list[tuple[str, str, int]]]
    ledger.on_begin.append(lambda *about: began.append(about))
    ledger.begin("a", "web", 1)
    ledger.begin("a", "mail", 1)
    ledger.pause("a")
    assert ledger.acting == {"web": {}, "mail": {}}
    ledger.end("a", "mail", 1)
    ledger.resume("a")
    assert ledger.acting == {"web": {"a": 1}, "mail": {}}
    assert began == [("a", "web", 1), ("a", "mail", 1), ("a", "web", 1)]
