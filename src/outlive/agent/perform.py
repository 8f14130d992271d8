"""Commands into deeds: the one place that knows which part of the agent performs which command.

`begin` never waits: what takes time becomes a task, and its end comes back as an event. Transactions run side by
side; what concerns one workload is kept in order by `holdings`. Nothing is begun before a journal that was to be
saved before it is durable, but for signs of life and renewals, which promise nothing that the journal holds.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from outlive.cluster import commands as do
from outlive.cluster import events as ev
from outlive.cluster.mirror import Mirror
from outlive.cluster.timing import Timing
from outlive.store.base import LeaseGone, Store, StoreError, StoreUncertain

from .durable import JournalKeeper
from .fencing import Fencers
from .holdings import Holdings
from .neighbours import Neighbours
from .observe import Clock
from .packages import Packages
from .record import Recorder
from .storage import Storage, listed

log = structlog.get_logger()

Answer = Callable[[ev.Event], None]
"""Takes an event for the machine that gave the command."""


@dataclass(frozen=True, slots=True)
class Means:
    """What commands are performed with."""

    store: Store
    neighbours: Neighbours
    storage: Storage
    holdings: Holdings
    journal: JournalKeeper
    recorder: Recorder
    fencers: Fencers
    packages: Packages


class Performer:
    """Begins commands in the order given. `tasks` holds what takes time; `mirror` gives the newest picture."""

    def __init__(
        self,
        host: str,
        timing: Timing,
        means: Means,
        clock: Clock,
        tasks: asyncio.TaskGroup,
        mirror: Callable[[], Mirror],
    ) -> None:
        self._host = host
        self._timing = timing
        self._means = means
        self._clock = clock
        self._tasks = tasks
        self._mirror = mirror

    def begin(self, command: do.Command, answer: Answer) -> None:
        """Begin one command; events that it leads to go to `answer`."""
        means = self._means
        match command:
            case do.SendHeartbeat(heartbeat=heartbeat, to=to):
                means.neighbours.send_heartbeat(heartbeat, to)
            case do.WriteSlot(heartbeat=heartbeat, table=table):
                means.neighbours.show(table)
                means.storage.write_slot(heartbeat, table)
            case do.Probe(target=target, via=via):
                means.neighbours.probe(target, via)
            case do.LearnTable(host=host, digest=digest):
                means.neighbours.request_table(host, digest)
                means.storage.learn_table(host, digest)
            case do.DeclareIsolated(isolated=isolated):
                answer(ev.SelfIsolated(self._clock(), isolated))
            case do.RecordEvent(event=event):
                means.recorder.record(event)
            case do.SaveJournal(journal=journal):
                means.journal.save(journal)
            case do.WriteProtected(workloads=workloads):
                means.storage.write_protected(listed(self._host, self._mirror().revision, workloads))
            case do.KeepPackages():
                means.packages.keep(command)
            case do.SetDeadline(deadline_at=deadline_at):
                means.holdings.set_deadline(deadline_at)
            case do.GrantLease(ttl_s=ttl_s):
                self._tasks.create_task(self._grant_lease(ttl_s, answer))
            case do.KeepAlive(lease=lease):
                self._tasks.create_task(self._keep_alive(lease))
            case do.Transact():
                self._tasks.create_task(self._transact(command, means.journal.handed, answer))
            case do.Fence():
                means.fencers.begin(command, answer)
            case do.CallOffFence(number=number):
                means.fencers.call_off(number)
            case _:
                means.holdings.begin(command, means.journal.handed)

    async def _grant_lease(self, ttl_s: int, answer: Answer) -> None:
        try:
            lease = await self._means.store.grant_lease(ttl_s, timeout_s=self._timing.transact_s)
        except StoreError as error:
            answer(ev.LeaseRefused(self._clock(), str(error)))
        else:
            answer(ev.LeaseGranted(self._clock(), lease.id))

    async def _keep_alive(self, lease: int) -> None:
        try:
            await self._means.store.keep_alive(lease, timeout_s=self._timing.transact_s)
        except LeaseGone as error:
            log.warning("lease.ended", lease=lease, reason=str(error))
        except StoreError:
            return

    async def _transact(self, command: do.Transact, journal: int, answer: Answer) -> None:
        purpose, began_at = command.purpose, self._clock()
        if purpose.act is not do.Act.RENEW:
            await self._means.journal.saved(journal)
        left_s = began_at + self._timing.transact_s - self._clock()
        sent_at = self._clock()
        outcome, revision, reason = ev.Outcome.UNKNOWN, 0, ""
        try:
            result = await self._means.store.transact(command.transaction, timeout_s=max(0.0, left_s))
            outcome = ev.Outcome.DONE if result.succeeded else ev.Outcome.REFUSED
            revision = result.revision
        except LeaseGone as error:
            outcome, reason = ev.Outcome.REFUSED, str(error)
        except StoreUncertain as error:
            reason = str(error)
        except StoreError as error:
            # Surely not done; but REFUSED would say that a comparison did not hold, and a claim would be given up.
            reason = str(error)
        if reason:
            log.warning("transaction.failed", act=purpose.act, subject=purpose.subject, reason=reason)
        answer(ev.Transacted(self._clock(), purpose, sent_at, outcome, revision, reason))
