"""This host's part in its datastores: its slot kept fresh, the others' slots read, lists and tables written.

Each datastore has a task of its own for writing and one for reading, so that one that hangs holds up nobody;
of slots that wait to be written only the newest is. A datastore's own trouble is told by `outlive.datastore`;
here only whether any of them can be written becomes an event.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from outlive.cluster.events import DatastoreChanged, SlotChanged, TableLearned
from outlive.cluster.heartbeat import Heartbeat, ModuleTable
from outlive.datastore.datastore import Datastore
from outlive.datastore.errors import DatastoreError
from outlive.datastore.protected import ProtectedList, ProtectedWorkload
from outlive.datastore.slots import Slot, SlotRefused

from .observe import Clock, Tell

log = structlog.get_logger()


class Storage:
    """All datastores of this host, by name.

    numbered: gives a heartbeat the host's next sequence, or None when there is none to be had.
    """

    def __init__(
        self,
        datastores: Mapping[str, Datastore],
        slot_s: float,
        clock: Clock,
        numbered: Callable[[Heartbeat], Heartbeat | None],
    ) -> None:
        self.datastores = datastores
        self._slot_s = slot_s
        self._clock = clock
        self._numbered = numbered
        self._tell: Tell = lambda _: None
        self._wanted: tuple[Heartbeat, ModuleTable] | None = None
        self._wake = {name: asyncio.Event() for name in datastores}
        self._hosts: tuple[str, ...] = ()
        self._reachable: bool | None = None
        self._refused: dict[tuple[str, str], str] = {}
        self._tasks: asyncio.TaskGroup | None = None

    def watch(self, hosts: tuple[str, ...]) -> None:
        """Read the slots of these hosts from now on."""
        self._hosts = hosts

    def write_slot(self, heartbeat: Heartbeat, table: ModuleTable) -> None:
        """Have this heartbeat, and its table, stand in every datastore soon."""
        self._wanted = (heartbeat, table)
        for wake in self._wake.values():
            wake.set()

    def write_protected(self, protected: ProtectedList) -> None:
        """Have every datastore hold this list; one that cannot is passed over until the list changes."""
        if self._tasks is not None:
            for datastore in self.datastores.values():
                self._tasks.create_task(_tried(datastore.write_protected(protected)))

    def learn_table(self, host: str, digest: bytes) -> None:
        """Look for a host's module table in every datastore → TableLearned."""
        if self._tasks is not None:
            for datastore in self.datastores.values():
                self._tasks.create_task(self._learn_table(datastore, host, digest))

    async def run(self, tell: Tell) -> None:
        """Write and read until cancelled."""
        self._tell = tell
        async with asyncio.TaskGroup() as self._tasks:
            for name, datastore in self.datastores.items():
                self._tasks.create_task(self._write_slots(datastore, self._wake[name]))
                self._tasks.create_task(self._read_slots(datastore))
            # Kept open when there is no datastore, for the tasks that come later.
            await asyncio.Event().wait()

    async def _write_slots(self, datastore: Datastore, wake: asyncio.Event) -> None:
        while True:
            await wake.wait()
            wake.clear()
            if self._wanted is None:
                continue
            heartbeat, table = self._wanted
            numbered = self._numbered(heartbeat)
            if numbered is not None:
                # The table first: a slot must not name a table that is not there.
                await _tried(datastore.write_table(table))
                await _tried(datastore.write_slot(numbered))
            self._say_reachable()

    async def _read_slots(self, datastore: Datastore) -> None:
        while True:
            await asyncio.sleep(self._slot_s / 2)
            if not self._hosts:
                continue
            try:
                found = await datastore.read_slots(self._hosts)
            except DatastoreError:
                continue
            for host, slot in found.items():
                self._take(datastore.name, host, slot)

    def _take(self, datastore: str, host: str, slot: Slot | SlotRefused) -> None:
        if isinstance(slot, Slot):
            self._refused.pop((datastore, host), None)
            if slot.changed:
                self._tell(SlotChanged(self._clock(), slot.heartbeat))
        elif self._refused.get((datastore, host)) != slot.reason:
            self._refused[(datastore, host)] = slot.reason
            log.warning(
                "datastore.slot_refused", datastore=datastore, host=host, reason=slot.reason, detail=slot.detail
            )

    async def _learn_table(self, datastore: Datastore, host: str, digest: bytes) -> None:
        try:
            table = await datastore.read_table(host, digest)
        except DatastoreError as error:
            log.info("datastore.table_not_read", datastore=datastore.name, host=host, reason=str(error))
            return
        if table is not None:
            self._tell(TableLearned(self._clock(), host, table))

    def _say_reachable(self) -> None:
        reachable = any(datastore.reachable for datastore in self.datastores.values())
        if reachable is not self._reachable:
            self._reachable = reachable
            self._tell(DatastoreChanged(self._clock(), reachable))


def listed(written_by: str, revision: int, workloads: tuple[tuple[str, int, str], ...]) -> ProtectedList:
    """The list of protected workloads as a datastore keeps it."""
    return ProtectedList(written_by, revision, tuple(ProtectedWorkload(*entry) for entry in workloads))


async def _tried(writing: Awaitable[None]) -> None:
    """Trouble is remembered and told by the datastore itself."""
    try:
        await writing
    except DatastoreError:
        return
