"""What goes from this host's depot: packages one too many, what broke off, and installations that nobody uses.

A package goes in three steps, so that of several hosts that each have one too many at least one keeps it: it is told of
no more in `depots/H`; that is in the store; and then the store itself, as it is by then, says that the package's record
is gone, or that all hosts that it names have it. What was read before may be over: two hosts that go by each other's
old statements would both let go.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import structlog

from outlive.cluster import records as rec
from outlive.cluster.mirror import Mirror
from outlive.cluster.package import Manifest
from outlive.cluster.pushed import DepotRecord, PackageRecord
from outlive.cluster.transaction import KeyValue
from outlive.depot.install import Installations
from outlive.depot.installed import Installed
from outlive.errors import ClusterUnreachable, OutliveError

from .observe import Clock
from .package_needs import Needs
from .package_threads import Threads

TIDY_S = 600.0

Read = Callable[[str], Awaitable[KeyValue | None]]
"""A key of the store as it is now. Raises StoreError."""

log = structlog.get_logger()


class Leaving:
    """What is about to leave one host's depot. ids: what is there, and told of no more."""

    def __init__(
        self,
        host: str,
        installations: Installations,
        needs: Needs,
        read: Read,
        picture: Callable[[], Mirror],
        clock: Clock,
        threads: Threads,
    ) -> None:
        self.ids: frozenset[str] = frozenset()
        self._host = host
        self._shelf = installations.shelf
        self._installations = installations
        self._needs = needs
        self._read = read
        self._picture = picture
        self._clock = clock
        self._threads = threads
        self._tidied_at = clock()

    async def go_on(self, here: Mapping[str, str]) -> bool:
        """Go one step further with all that may leave; whether other things are to be told now.

        here: NAME@VERSION of what is on the shelf, by id. Raises DepotFailed.
        """
        wanted, before = self._needs.wanted, self.ids
        if wanted is None:
            return False
        may_leave = here.keys() & before.union(wanted.free)
        self.ids = frozenset(id for id in may_leave if not self._needs.needed(id))
        own = self._picture().depots.get(self._host)
        told = own.record.holds if own is not None else {}
        gone = {id for id in sorted((self.ids & before) - told.keys()) if await self._dropped(id, here[id])}
        if gone:
            await self.tidy()
        return bool(gone) or self.ids != before

    async def _dropped(self, id: str, key: str) -> bool:
        """Remove one that is told of no more, unless somebody needs it after all."""
        try:
            spare = await self._is_spare(id, key)
        except OutliveError as error:
            log.warning("package.not_dropped", package=key, reason=str(error))
            if isinstance(error, ClusterUnreachable):
                return False
            spare = False
        gone = spare and await self._threads.run(self._needs.unless_needed, id, self._shelf.remove)
        self.ids -= {id}
        if gone:
            log.info("package.dropped", package=key)
        return gone

    async def _is_spare(self, id: str, key: str) -> bool:
        """Whether the store, as it is now, can do without this copy. Raises StoreError, BadRecord."""
        record = await self._record(key)
        if record is None or record.id != id:
            return True
        if not record.hosts or self._host in record.hosts:
            return False
        for host in record.hosts:
            depot = await self._decoded(rec.DEPOTS + host)
            if not isinstance(depot, DepotRecord) or id not in depot.holds:
                return False
        return True

    async def withdraw(self, id: str, manifest: Manifest) -> None:
        """Remove at once what was pushed and refused, unless somebody needs it. Raises StoreError, DepotFailed."""
        if self._needs.needed(id):
            return
        record = await self._record(f"{manifest.name}@{manifest.version}")
        if record is not None and record.id == id:
            return
        if await self._threads.run(self._needs.unless_needed, id, self._shelf.remove):
            only = frozenset(component.digest for component in manifest.components)
            await self._threads.run(partial(self._shelf.collect, young_s=0.0, only=only))

    async def tidy(self, *, unless_done_s: float = 0.0) -> None:
        """Clear away what nobody needs. unless_done_s: not if it was done within that. Raises DepotFailed."""
        now = self._clock()
        if self._needs.wanted is None or now - self._tidied_at < unless_done_s:
            return
        self._tidied_at = now
        await self._threads.run(self._installations.uninstall_unused, self._used)
        await self._threads.run(self._shelf.collect)

    def _used(self) -> list[Installed]:
        kept = self._needs.kept()
        return [each for each in self._installations.all() if each.id in kept]

    async def _record(self, key: str) -> PackageRecord | None:
        found = await self._decoded(rec.PACKAGES + key)
        return found if isinstance(found, PackageRecord) else None

    async def _decoded(self, key: str) -> rec.Record | None:
        found = await self._read(key)
        return rec.decode(key, found.value) if found is not None else None
