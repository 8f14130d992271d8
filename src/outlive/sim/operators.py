"""What people do to the cluster, at good and bad times, in the way the API does it: read, then compare and swap.

Between the reading and the writing time passes, so that a change may have come in between; then it is tried again, and
after a few times given up. `garble` and `delete` are hands in the store that ask nobody.
"""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from outlive.cluster import copies, rollout
from outlive.cluster import records as rec
from outlive.cluster.confirming import confirmed, refusal
from outlive.cluster.mirror import Mirror, snapshot
from outlive.cluster.policies import Freeze, Policies, changed
from outlive.cluster.pushed import PackageRecord, Pinned, split
from outlive.cluster.signs import Signs
from outlive.cluster.timing import Timing
from outlive.cluster.transaction import Delete, KeyValue, Put, Transaction, absent, unchanged
from outlive.cluster.workload import Workload

from .agenda import Agenda
from .depot import SimDepot, id_of
from .store import Store
from .timeline import Timeline

OPERATOR = "operator"
BY_HAND = "hand"
TRIES = 3
NONSENSE = b'{"workload": 7, "'


def _readable(known: KeyValue | None) -> rec.Record | None:
    try:
        return None if known is None else rec.decode(known.key, known.value)
    except rec.BadRecord:
        return None


class Operators:
    """workloads: what `apply` applies, by name."""

    def __init__(
        self, agenda: Agenda, random: Random, store: Store, timeline: Timeline, workloads: dict[str, Workload]
    ) -> None:
        self._agenda = agenda
        self._random = random
        self._store = store
        self._timeline = timeline
        self._workloads = workloads
        self._asked = 0
        self._edits = 0

    def apply(self, workload: str) -> None:
        """Apply the workload's file: it shall exist and run."""
        wanted = self._workloads[workload]

        def change(known: KeyValue | None) -> bytes | None:
            because = self._cause()
            record = _readable(known)
            if not isinstance(record, rec.WorkloadRecord):
                version = known.mod_revision if known is not None else 1
                return rec.encode(rec.WorkloadRecord(wanted, rec.Desired.RUNNING, version, because))
            after = rollout.applied(record, wanted, because)
            return None if after is None else rec.encode(after)

        self._swap(rec.WORKLOADS + workload, change)

    def change(self, workload: str) -> None:
        """Change the workload's file, and apply it."""
        known = self._workloads[workload]
        first, *others = known.modules
        self._edits += 1
        edited = replace(first, environment={"EDIT": str(self._edits)})
        self._workloads[workload] = replace(known, modules=(edited, *others))
        self.apply(workload)

    def push(self, key: str, depot: SimDepot) -> None:
        """A package is pushed to a host."""
        depot.take(key)
        name, version = split(key)
        record = PackageRecord(name, version, id_of(key), because=self._cause())
        room = rec.PACKAGES + key
        self._store.transact(OPERATOR, Transaction((absent(room),), (Put(room, rec.encode(record)),)))

    def upgrade(self, workload: str, key: str) -> None:
        """The workload's file names another version of its package, and is applied, if that is there."""
        known, package = self._workloads[workload], self._workloads[workload].package
        record = _readable(self._store.data.get(rec.PACKAGES + key))
        if package is None or not isinstance(record, PackageRecord) or record.removing or record.failed:
            return
        pinned = Pinned(record.name, record.version, record.id)
        used = replace(package, name=pinned.name, version=pinned.version, id=pinned.id)
        self._workloads[workload] = replace(known, package=used)
        self.apply(workload)

    def remove_package(self, key: str) -> None:
        """A package is not needed any more, as far as the operator sees."""

        def change(known: KeyValue | None) -> bytes | None:
            record = _readable(known)
            picture = snapshot(Mirror(), self._store.revision, self._store.data.values(), 0.0)
            if not isinstance(record, PackageRecord) or copies.users(picture, record):
                return None
            return rec.encode(replace(record, removing=True, because=self._cause()))

        self._swap(rec.PACKAGES + key, change)

    def stop(self, workload: str) -> None:
        """It shall not run."""
        self._desire(workload, rec.Desired.STOPPED)

    def start(self, workload: str) -> None:
        """It shall run again."""
        self._desire(workload, rec.Desired.RUNNING)

    def remove(self, workload: str) -> None:
        """It shall not exist."""
        self._desire(workload, rec.Desired.REMOVED)

    def migrate(self, workload: str, host: str | None) -> None:
        """It shall move, as planned work."""
        self._operate(rec.OperationKind.MIGRATE, workload, host)

    def failover(self, workload: str, host: str | None) -> None:
        """It shall move, by force."""
        self._operate(rec.OperationKind.FAILOVER, workload, host)

    def checkpoint(self, workload: str) -> None:
        """A checkpoint shall be made of it."""
        self._operate(rec.OperationKind.CHECKPOINT, workload, None)

    def resume(self, workload: str) -> None:
        """It shall go back to its newest checkpoint."""
        self._operate(rec.OperationKind.RESUME, workload, None)

    def cancel(self, workload: str) -> None:
        """What was asked for it last shall not be."""
        for key, value in sorted(self._store.data.items()):
            record = _readable(value) if key.startswith(rec.OPERATIONS) else None
            if isinstance(record, rec.OperationRecord) and record.workload == workload:
                self._swap(key, self._cancelled)

    @staticmethod
    def _cancelled(known: KeyValue | None) -> bytes | None:
        record = _readable(known)
        if not isinstance(record, rec.OperationRecord) or record.state in rec.ENDED:
            return None
        return rec.encode(replace(record, state=rec.OperationState.CANCELLED))

    def maintenance(self, host: str, *, force: bool) -> None:
        """The host shall be emptied; with `force` what can go nowhere else is stopped."""
        placed = [_readable(value) for key, value in sorted(self._store.data.items()) if key.startswith(rec.PLACEMENTS)]
        had = tuple(each.workload for each in placed if isinstance(each, rec.PlacementRecord) and each.host == host)

        def change(_: KeyValue | None) -> bytes:
            return rec.encode(rec.MaintenanceRecord(host, had=had, force=force, because=self._cause()))

        self._swap(rec.MAINTENANCE + host, change)

    def end_maintenance(self, host: str, *, back: bool) -> None:
        """The host may have workloads again; `back`: those that it had shall come back."""
        if not back:
            self._store.transact(OPERATOR, Transaction((), (Delete(rec.MAINTENANCE + host),)))
            return

        def change(known: KeyValue | None) -> bytes | None:
            record = _readable(known)
            if not isinstance(record, rec.MaintenanceRecord):
                return None
            return rec.encode(replace(record, phase=rec.MaintenancePhase.RETURNING, because=self._cause()))

        self._swap(rec.MAINTENANCE + host, change)

    def freeze(self) -> None:
        """Nothing shall be done that nobody asks for."""
        self._set(lambda policies: replace(policies, frozen=Freeze(OPERATOR, because=self._cause())))

    def unfreeze(self) -> None:
        """The cluster shall act by itself again."""
        self._set(lambda policies: replace(policies, frozen=None))

    def set_policies(self, settings: dict[str, str]) -> None:
        """These policies shall hold."""
        self._set(lambda policies: changed(policies, settings))

    def _set(self, wanted: Callable[[Policies], Policies]) -> None:
        def change(known: KeyValue | None) -> bytes:
            record = _readable(known)
            return rec.encode(wanted(record if isinstance(record, Policies) else Policies()))

        self._swap(rec.POLICIES, change)

    def confirm_dead(self, host: str) -> None:
        """Somebody says that the host is off, having looked or not; it is taken as the API takes it."""
        data = self._store.data
        picture = snapshot(Mirror(), self._store.revision, list(data.values()), 0.0)
        if not refusal(picture, host, Signs(), Timing(), 0.0):
            self._store.transact(OPERATOR, confirmed(picture, host, Signs(), OPERATOR, self._cause()))

    def garble(self, key: str) -> None:
        """Write nonsense over a key."""
        if key in self._store.data:
            self._store.transact(BY_HAND, Transaction((), (Put(key, NONSENSE),)))

    def delete(self, key: str) -> None:
        """Remove a key."""
        self._store.transact(BY_HAND, Transaction((), (Delete(key),)))

    def _cause(self) -> str:
        self._asked += 1
        return f"operator.{self._asked}"

    def _desire(self, workload: str, desired: rec.Desired) -> None:
        def change(known: KeyValue | None) -> bytes | None:
            record = _readable(known)
            if not isinstance(record, rec.WorkloadRecord) or record.desired is rec.Desired.REMOVED:
                return None
            return rec.encode(replace(record, desired=desired, because=self._cause()))

        self._swap(rec.WORKLOADS + workload, change)

    def _operate(self, kind: rec.OperationKind, workload: str, host: str | None) -> None:
        because = self._cause()
        name = because.replace(".", "-")
        record = rec.OperationRecord(id=name, kind=kind, workload=workload, target=host, because=because)
        key = rec.OPERATIONS + name
        self._store.transact(OPERATOR, Transaction((absent(key),), (Put(key, rec.encode(record)),)))

    def _swap(self, key: str, change: Callable[[KeyValue | None], bytes | None], tries: int = TRIES) -> None:
        known = self._store.data.get(key)
        value = change(known)
        if value is not None:
            delay_s = 0.001 + 0.03 * self._random.random()
            self._agenda.after(delay_s, self._write, key, value, known, change, tries)

    def _write(
        self,
        key: str,
        value: bytes,
        known: KeyValue | None,
        change: Callable[[KeyValue | None], bytes | None],
        tries: int,
    ) -> None:
        compare = unchanged(key, known.mod_revision if known else 0)
        result = self._store.transact(OPERATOR, Transaction((compare,), (Put(key, value),)))
        if not result.succeeded and tries > 1:
            self._swap(key, change, tries - 1)
