"""This host's packages: kept as the store wants them, made ready for workloads, pushed, and given to other hosts.

`run` keeps the depot as the node machine last said; `ready` is a workload's own way, which waits for nobody else's.
What two want at once is fetched once. Everything that touches the disk happens in threads, each kind of work in some of
its own, so that neither pushes nor installations keep the agent from anything else. What may go is in
`package_leaving`.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from outlive.cluster import events as ev
from outlive.cluster.commands import KeepPackages
from outlive.cluster.copies import holders_of
from outlive.cluster.mirror import Mirror
from outlive.cluster.package import Component, Manifest
from outlive.cluster.pushed import PackageUse, Pinned
from outlive.depot.errors import ComponentDamaged, ComponentMissing, PackageMissing
from outlive.depot.install import Installations
from outlive.depot.installed import Action
from outlive.depot.package import manifest_bytes
from outlive.depot.shelf import Shelf
from outlive.errors import ClusterUnreachable, OutliveError

from .observe import Clock, Tell
from .package_fetching import Ask, fetch
from .package_installing import Installing, Said
from .package_leaving import TIDY_S, Leaving, Read
from .package_needs import Needs
from .package_threads import Threads
from .package_uploads import Uploads
from .package_verifying import Verifying

LOOK_AGAIN_S = 10.0
DEPOT_THREADS = 4
GIVING_THREADS = 4
_OWN = "OUTLIVE_"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Ready:
    """A workload's package as it is installed. folder: what {package} stands for; variables: that programs get."""

    folder: Path
    variables: dict[str, str]


class Packages:
    """The packages in a host's data folder. picture: the newest of the store; read: a key of it as it is now."""

    def __init__(
        self, folder: Path, host: str, ask: Ask, tell: Tell, picture: Callable[[], Mirror], read: Read, clock: Clock
    ) -> None:
        self.shelf = Shelf(folder / "depot")
        self._host = host
        self._ask = ask
        self._tell = tell
        self._picture = picture
        self._clock = clock
        self._threads = Threads("package-depot", DEPOT_THREADS)
        self._giving = Threads("package-give", GIVING_THREADS)
        installations = Installations(folder / "packages", self.shelf)
        self._needs = Needs(clock)
        self._leaving = Leaving(host, installations, self._needs, read, picture, clock, self._threads)
        self._installing = Installing(installations)
        self._uploads = Uploads(self.shelf, self._needs)
        self.verifying = Verifying(self.shelf, self._threw_out)
        self._wake = asyncio.Event()
        self._saying = asyncio.Lock()
        self._unsaid = True
        self._troubles: dict[str, str] = {}
        self._keys: dict[str, str] = {}
        self._fetching: dict[str, asyncio.Task[str]] = {}

    # Kept.

    def keep(self, wanted: KeepPackages) -> None:
        """Have the depot hold these from now on."""
        self._needs.wanted = wanted
        self._wake.set()

    async def run(self) -> None:
        """Keep the depot as it is wanted, until cancelled."""
        while True:
            for work in (self._say_what_is_unsaid, self._let_go, self._bring_missing):
                try:
                    await work()
                except (OutliveError, OSError) as error:
                    log.error("depot.not_kept", reason=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await self._wake.wait()
            self._wake.clear()

    async def _say_what_is_unsaid(self) -> None:
        """Say what is here where that was never said, or could not be looked at when it was to be."""
        if self._unsaid:
            await self._say()

    async def _let_go(self) -> None:
        if await self._leaving.go_on(await self._threads.left(self._here)):
            await self._say()
        await self._leaving.tidy(unless_done_s=TIDY_S)

    async def _bring_missing(self) -> None:
        wanted = self._needs.wanted
        if wanted is None:
            return
        here = await self._threads.left(self.shelf.ids)
        missing = [each for each in wanted.kept if each.pinned.id not in here]
        keys = {each.pinned.key for each in missing}
        self._troubles = {key: why for key, why in self._troubles.items() if key in keys}
        for each in missing:
            if wanted is not self._needs.wanted:
                return  # it is wanted otherwise by now
            try:
                await self._fetched(each.pinned, each.holders)
                self._troubles.pop(each.pinned.key, None)
            except OutliveError as error:
                self._troubles[each.pinned.key] = error.cause or str(error)
            await self._say()

    async def _threw_out(self, damage: dict[str, str]) -> None:
        """These are not on the shelf any more, id → what is wrong: told, and fetched anew where they are wanted."""
        for id, reason in damage.items():
            key = self._keys.get(id, id)
            log.error("depot.package_damaged", package=key, reason=reason)
            self._tell(ev.PackageDamaged(self._clock(), key, reason))
        await self._say()
        self._wake.set()

    async def _say(self) -> None:
        self._unsaid = True
        async with self._saying:  # what was seen last is told last
            here = await self._threads.left(self._here)
            held = {id: key for id, key in here.items() if id not in self._leaving.ids}
            self._tell(ev.PackagesHeld(self._clock(), held, dict(self._troubles)))
            self._unsaid = False

    def _here(self) -> dict[str, str]:
        """Id → NAME@VERSION of all that is on the shelf; what cannot be read is left out."""
        ids, known = self.shelf.ids(), self._keys
        found = {id: known[id] for id in ids & known.keys()}
        for id in ids - found.keys():
            try:
                manifest = self.shelf.manifest(id)
                found[id] = f"{manifest.name}@{manifest.version}"
            except OutliveError as error:
                log.error("depot.package_unreadable", id=id, reason=str(error))
        # Several threads may be here at once: each puts a whole one in the place of another.
        self._keys = found
        return dict(found)

    async def _fetched(self, pinned: Pinned, holders: Sequence[str]) -> str:
        """Have a package on the shelf; fetched once, however many want it. Raises NotFetched."""
        task = self._fetching.get(pinned.id)
        if task is None:
            task = asyncio.create_task(fetch(self.shelf, self._ask, pinned, tuple(holders), self._threads))
            self._fetching[pinned.id] = task
            task.add_done_callback(lambda done: self._fetch_ended(pinned.id, done))
        # Whoever gives up does not take it from others.
        return await asyncio.shield(task)

    def _fetch_ended(self, id: str, done: "asyncio.Task[str]") -> None:
        self._fetching.pop(id, None)
        if not done.cancelled():
            done.exception()  # seen by whoever still waits

    # For workloads.

    async def ready(self, workload: str, use: PackageUse, said: Said) -> Ready:
        """Have what a workload needs installed, each step told. Raises an OutliveError; what was there stays then."""
        pins = use.all()
        self.uses(workload, use)
        for again in (False, True):
            for pinned in pins:
                await self._brought(pinned, said)
            try:
                installed = await self._installing.installed(pins, said)
                break
            except PackageMissing:  # it was on its way out as this began to use it
                if again:
                    raise
            except (ComponentDamaged, ComponentMissing):
                if again:
                    raise
                for pinned in pins:
                    await self._threads.left(partial(self.shelf.verify, pinned.id, repair=True))
        variables = installed.environment(Action.START)
        return Ready(installed.files, {name: value for name, value in variables.items() if name.startswith(_OWN)})

    def uses(self, workload: str, use: PackageUse) -> None:
        """A workload runs here from what it had installed before."""
        self._needs.uses(workload, use.all())

    def done_with(self, workload: str) -> None:
        """Nothing of this workload is here any more."""
        self._needs.done_with(workload)

    async def _brought(self, pinned: Pinned, said: Said) -> None:
        if pinned.id in await self._threads.left(self.shelf.ids):
            return
        holders = holders_of(self._picture(), pinned.id, self._host)
        said(pinned.key, "fetching", f"from {' or '.join(holders)}" if holders else "")
        holder = await self._fetched(pinned, holders)
        said(pinned.key, "verified", f"from {holder}" if holder else "")
        await self._say()

    # Pushed here, and given to others.

    @asynccontextmanager
    async def arrival(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[tuple[str, Manifest]]:
        """Put an archive on the shelf as it arrives, and have its package's record written in the block.

        What the block refuses goes again, unless another push or anybody else needs it; where it cannot say whether a
        record was written, the store will. Raises PackageInvalid, DepotFull and others; then nothing of it is left.
        """
        id, manifest = await self._uploads.take_in(pieces)
        refused = False
        try:
            yield id, manifest
        except OutliveError as error:
            refused = not isinstance(error, ClusterUnreachable)
            raise
        finally:
            self._needs.pushed(id, refused=refused)
            if refused:
                await self._withdrawn(id, manifest)
            await self._say()

    async def _withdrawn(self, id: str, manifest: Manifest) -> None:
        try:
            await self._leaving.withdraw(id, manifest)
        except OutliveError as error:  # it goes later, as whatever nobody needs
            log.warning("package.not_withdrawn", package=str(manifest), reason=str(error))

    async def manifest(self, id: str) -> bytes:
        """A manifest for another host. Raises PackageMissing."""
        return await self._giving.run(lambda: manifest_bytes(self.shelf.manifest(id)))

    async def content(self, id: str, components: Sequence[Component], offset: int) -> AsyncGenerator[bytes, None]:
        """The bytes of components of a package here, one after the other, the first from an offset on.

        Raises PackageMissing, ComponentMissing, ComponentDamaged.
        """
        manifest = await self._giving.run(self.shelf.manifest, id)
        known = frozenset(manifest.components)
        for component in components:
            if component not in known:
                raise ComponentMissing(f"The component {component.digest[:64]} is none of {manifest}.")
        for number, component in enumerate(components):
            reading = self.shelf.components.read(component, offset if number == 0 else 0)
            while piece := await self._giving.run(next, reading, b""):
                yield piece
