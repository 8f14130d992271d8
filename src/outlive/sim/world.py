"""A whole simulated world, from its first moment to its last: hosts, faults, checkers, and what came of it.

Run it once; it ends at `Setup.end_s`, or at the first violation. Nothing in it depends on anything but the
setup, the faults and the seed.
"""

import traceback
from collections.abc import Iterable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from outlive.cluster import records as rec
from outlive.cluster.policies import Policies
from outlive.cluster.records import EventRecord
from outlive.cluster.transaction import Delete, Put, Transaction

from .agenda import Agenda
from .checkers import ALL, Checker, Violation
from .datastore import Datastore
from .faults import Breaker, Fault
from .host import SimHost
from .ledger import Ledger
from .network import Network
from .operators import OPERATOR, Operators
from .parts import Machines, Parts, Spy
from .setup import CLUSTER_ID, DATASTORE, Setup
from .store import Changes, Store, Ways
from .timeline import Timeline
from .voices import Voices

LOOK_EVERY_S = 0.5
MACHINES_RAISE_NOTHING = "machines_raise_nothing"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run. simulated_s: how long it went; done: things done on the agenda."""

    violation: Violation | None
    simulated_s: float
    done: int
    timeline: Timeline


class World:
    """Put together from values; `run` lets its time pass."""

    def __init__(
        self,
        setup: Setup,
        faults: Iterable[Fault],
        random: Random,
        *,
        machines: Machines | None = None,
        checkers: tuple[type[Checker], ...] = ALL,
        spy: Spy | None = None,
    ) -> None:
        agenda, timeline, ways = Agenda(), Timeline(), Ways()
        store, ledger = Store(agenda, random, setup.delays), Ledger(agenda)
        self.parts = Parts(
            setup=setup,
            random=random,
            agenda=agenda,
            network=Network(agenda, random, setup.delays),
            links=Network(agenda, random, replace(setup.delays, network_loss=0.0)),
            store=store,
            ways=ways,
            datastore=Datastore(agenda, random, setup.delays),
            ledger=ledger,
            voices=Voices(ledger),
            timeline=timeline,
            machines=machines or Machines(),
            spy=spy,
        )
        self.violation: Violation | None = None
        self._checkers = [kind(self.parts) for kind in checkers]
        self._listen()
        ways.on_change = self._store_ways_changed
        store.transact(
            OPERATOR,
            Transaction((), (Put(rec.CLUSTER, rec.encode(rec.ClusterRecord(CLUSTER_ID, timing=setup.timing))),)),
        )
        if setup.policies != Policies():
            store.transact(OPERATOR, Transaction((), (Put(rec.POLICIES, rec.encode(setup.policies)),)))
        for host in setup.hosts:
            if DATASTORE not in host.host.datastores:
                self.parts.datastore.set_away(host.host.name)
            self.parts.hosts[host.host.name] = SimHost(host, self.parts)
        workloads = {each.workload.name: each.workload for each in setup.workloads}
        operators = Operators(agenda, random, store, timeline, workloads)
        for key, name in setup.packages:
            operators.push(key, self.parts.hosts[name].depot)
        for each in setup.workloads:
            if each.applied_at_s is not None:
                agenda.at(each.applied_at_s, operators.apply, each.workload.name)
            if each.broken:
                self.parts.ills.starts_fail[each.workload.name, ""] = 1
        Breaker(self.parts, operators).plan(faults)
        agenda.after(LOOK_EVERY_S, self._look)

    def run(self) -> Result:
        """Let all of its time pass."""
        agenda = self.parts.agenda
        try:
            agenda.run_until(self.parts.setup.end_s)
        except Exception:
            # The machines promise to raise nothing; and a mistake of the simulator should name its seed too.
            self._broken(MACHINES_RAISE_NOTHING, traceback.format_exc(limit=-4))
        if self.violation is None:
            self._ask("ended")
        return Result(self.violation, agenda.now, agenda.done, self.parts.timeline)

    # What the checkers hear.

    def _listening(self, what: str) -> list[Checker]:
        return [each for each in self._checkers if getattr(type(each), what) is not getattr(Checker, what)]

    def _listen(self) -> None:
        parts = self.parts
        self._ears = {
            what: self._listening(what)
            for what in (
                "acts",
                "ceases",
                "started",
                "writes",
                "changed",
                "rewritten",
                "recorded",
                "begins",
                "speaks",
                "adopts",
                "cut_off",
                "drops",
                "looked",
                "ended",
            )
        }
        parts.ledger.on_begin.append(lambda *about: self._ask("acts", *about))
        parts.ledger.on_end.append(lambda *about: self._ask("ceases", *about))
        parts.ledger.on_start.append(lambda *about: self._ask("started", *about))
        parts.voices.on_begin = lambda *about: self._ask("begins", *about)
        parts.voices.on_release = lambda *about: self._ask("speaks", *about)
        parts.voices.on_adopt = lambda *about: self._ask("adopts", *about)
        parts.fencing.on_cut = lambda *about: self._ask("cut_off", *about)
        parts.on_dropped.append(lambda *about: self._ask("drops", *about))
        parts.store.audit = self._audit
        parts.store.changed = self._changed
        parts.timeline.on_record = self._recorded

    def _ask(self, what: str, *about: Any) -> None:
        for checker in self._ears[what]:
            wrong = getattr(checker, what)(*about)
            if wrong is not None and self.violation is None:
                self._broken(checker.name, wrong)

    def _broken(self, checker: str, text: str) -> None:
        now = self.parts.agenda.now
        self.violation = Violation(checker, now, text)
        self.parts.timeline.happened(now, f"VIOLATION of {checker}: {text}")
        self.parts.agenda.halt()

    def _audit(self, origin: str, transaction: Transaction) -> None:
        self._ask("writes", origin, transaction)

    def _changed(self, origin: str, changes: Changes) -> None:
        for change in changes:
            if isinstance(change, Delete) and change.key.startswith(rec.WORKLOADS):
                self.parts.voices.forgets(rec.name_in(change.key))
        if any(change.key.startswith(rec.WORKLOADS) for change in changes):
            self._ask("rewritten", origin, changes)
        if any(change.key.startswith((rec.PLACEMENTS, rec.LEADER)) for change in changes):
            self._ask("changed", origin, changes)

    def _recorded(self, record: EventRecord) -> None:
        self._ask("recorded", record.by, record)

    def _look(self) -> None:
        self._ask("looked")
        self.parts.agenda.after(LOOK_EVERY_S, self._look)

    def _store_ways_changed(self) -> None:
        for host in self.parts.hosts.values():
            if host.agent is not None:
                host.agent.store_ways_changed()
