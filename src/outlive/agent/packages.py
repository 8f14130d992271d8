"""This host's packages: kept as the store wants them, made ready for workloads, pushed, and given to other hosts.

`run` keeps the depot as the node machine last said; `ready` is a workload's own way, which waits for nobody else's.
What two want at once is fetched once. Everything that touches the disk happens in threads. What is dropped is what the
node machine calls free and nobody here is about to use.
"""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from outlive.cluster import events as ev
from outlive.cluster.commands import KeepPackages
from outlive.cluster.copies import holders_of
from outlive.cluster.mirror import Mirror
from outlive.cluster.package import Component, Manifest
from outlive.cluster.pushed import PackageUse, Pinned
from outlive.depot.archive import read_archive
from outlive.depot.errors import ComponentDamaged, ComponentMissing
from outlive.depot.install import Installations, Progress, Step
from outlive.depot.installed import Action, Installed
from outlive.depot.package import manifest_bytes, package_id
from outlive.depot.shelf import Shelf
from outlive.errors import Failed, OutliveError

from .observe import Clock, Tell
from .package_fetching import Ask, fetch

LOOK_AGAIN_S = 10.0
ARRIVING_S = 60.0
STALLED_UPLOAD_S = 30.0
PIPE_BYTES = 1 << 20
_OWN = "OUTLIVE_"

Said = Callable[[str, str, str], None]
"""Takes a package, the step that it has come to, and a text about that."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Ready:
    """A workload's package as it is installed. folder: what {package} stands for; variables: that programs get."""

    folder: Path
    variables: dict[str, str]


class Packages:
    """The packages in a host's data folder. picture: the newest of the store."""

    def __init__(
        self, folder: Path, host: str, ask: Ask, tell: Tell, picture: Callable[[], Mirror], clock: Clock
    ) -> None:
        self.shelf = Shelf(folder / "depot")
        self._installations = Installations(folder / "packages", self.shelf)
        self._host = host
        self._ask = ask
        self._tell = tell
        self._picture = picture
        self._clock = clock
        self._wanted = KeepPackages(())
        self._wake = asyncio.Event()
        self._troubles: dict[str, str] = {}
        self._keys: dict[str, str] = {}
        self._fetching: dict[str, asyncio.Task[str]] = {}
        self._arriving: dict[str, float] = {}
        self._used: dict[str, tuple[Pinned, ...]] = {}

    # Kept.

    def keep(self, wanted: KeepPackages) -> None:
        """Have the depot hold these from now on."""
        self._wanted = wanted
        self._wake.set()

    async def run(self) -> None:
        """Keep the depot as it is wanted, until cancelled."""
        await self._say()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._work_off(self._wanted)
            except (OutliveError, OSError) as error:
                log.error("depot.not_kept", reason=str(error))

    async def _work_off(self, wanted: KeepPackages) -> None:
        here = await asyncio.to_thread(self.shelf.ids)
        if dropped := self._droppable(wanted) & here:
            await asyncio.to_thread(self._drop, dropped)
            await self._say()
        missing = [each for each in wanted.kept if each.pinned.id not in here]
        keys = {each.pinned.key for each in missing}
        self._troubles = {key: why for key, why in self._troubles.items() if key in keys}
        for each in missing:
            if wanted is not self._wanted:
                return  # it is wanted otherwise by now
            try:
                await self._fetched(each.pinned, each.holders)
                self._troubles.pop(each.pinned.key, None)
            except OutliveError as error:
                self._troubles[each.pinned.key] = error.cause or str(error)
            await self._say()

    def _droppable(self, wanted: KeepPackages) -> set[str]:
        now = self._clock()
        packages = self._picture().packages
        known = {entry.record.id for entry in packages.values()}
        self._arriving = {id: until for id, until in self._arriving.items() if now < until and id not in known}
        kept = {each.pinned.id for each in wanted.kept} | {each.id for pins in self._used.values() for each in pins}
        return set(wanted.free) - kept - self._arriving.keys()

    def _drop(self, ids: set[str]) -> None:
        kept = {each.pinned.id for each in self._wanted.kept} | {
            each.id for pins in list(self._used.values()) for each in pins
        }
        for id in ids:
            log.info("package.dropped", package=self._keys.get(id, id))
            self.shelf.remove(id)
        self.shelf.collect()
        self._installations.uninstall_unused(lambda: [each for each in self._installations.all() if each.id in kept])

    async def _say(self) -> None:
        held = await asyncio.to_thread(self._held)
        self._tell(ev.PackagesHeld(self._clock(), held, dict(self._troubles)))

    def _held(self) -> dict[str, str]:
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
            task = asyncio.create_task(fetch(self.shelf, self._ask, pinned, tuple(holders)))
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
                installed = await self._installed(pins, said)
                break
            except (ComponentDamaged, ComponentMissing):
                if again:
                    raise
                for pinned in pins:
                    await asyncio.to_thread(self.shelf.verify, pinned.id, repair=True)
        variables = installed.environment(Action.START)
        return Ready(installed.files, {name: value for name, value in variables.items() if name.startswith(_OWN)})

    def uses(self, workload: str, use: PackageUse) -> None:
        """A workload runs here from what it had installed before."""
        self._used[workload] = use.all()

    def done_with(self, workload: str) -> None:
        """Nothing of this workload is here any more."""
        self._used.pop(workload, None)

    async def _brought(self, pinned: Pinned, said: Said) -> None:
        if pinned.id in await asyncio.to_thread(self.shelf.ids):
            return
        holders = holders_of(self._picture(), pinned.id, self._host)
        said(pinned.key, "fetching", f"from {' or '.join(holders)}" if holders else "")
        holder = await self._fetched(pinned, holders)
        said(pinned.key, "verified", f"from {holder}" if holder else "")
        await self._say()

    async def _installed(self, pins: tuple[Pinned, ...], said: Said) -> Installed:
        """Install in a thread, which ends soon when nobody waits for it any more."""
        loop, cancelled = asyncio.get_running_loop(), threading.Event()

        def report(progress: Progress) -> None:
            key = f"{progress.name}@{progress.version}"
            if progress.step not in (Step.FETCHING, Step.VERIFYING):
                loop.call_soon_threadsafe(said, key, progress.step.value, progress.detail)

        ids = [pinned.id for pinned in pins]
        try:
            found = await asyncio.to_thread(self._installations.install_all, ids, report=report, cancelled=cancelled)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return found[-1]

    # Pushed here, and given to others.

    async def take_in(self, pieces: AsyncIterator[bytes]) -> tuple[str, Manifest]:
        """Put an archive on the shelf as it arrives; its package's id and manifest.

        Raises PackageInvalid, DepotFull and others; then nothing of it is left.
        """
        reading, writing = os.pipe()
        taking = asyncio.create_task(asyncio.to_thread(self._read, reading))
        try:
            await _poured(pieces, writing, taking)
        finally:
            os.close(writing)
            outcome = await asyncio.gather(taking, return_exceptions=True)
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        manifest = outcome[0]
        id = package_id(manifest)
        self._arriving[id] = self._clock() + ARRIVING_S
        return id, manifest

    def _read(self, reading: int) -> Manifest:
        with os.fdopen(reading, "rb", buffering=PIPE_BYTES) as source:
            return read_archive(source, self.shelf)

    async def announce(self) -> None:
        """What is on the shelf has changed: say so."""
        await self._say()

    async def forget(self, id: str) -> None:
        """A package that was taken in is not to be one after all."""
        self._arriving.pop(id, None)
        if all(entry.record.id != id for entry in self._picture().packages.values()):
            await asyncio.to_thread(self.shelf.remove, id)

    async def manifest(self, id: str) -> bytes:
        """A manifest for another host. Raises PackageMissing."""
        return await asyncio.to_thread(lambda: manifest_bytes(self.shelf.manifest(id)))

    async def content(self, id: str, components: Sequence[Component], offset: int) -> AsyncGenerator[bytes, None]:
        """The bytes of components of a package here, one after the other, the first from an offset on.

        Raises PackageMissing, ComponentMissing, ComponentDamaged.
        """
        manifest = await asyncio.to_thread(self.shelf.manifest, id)
        known = frozenset(manifest.components)
        for component in components:
            if component not in known:
                raise ComponentMissing(f"The component {component.digest[:64]} is none of {manifest}.")
        for number, component in enumerate(components):
            reading = self.shelf.components.read(component, offset if number == 0 else 0)
            while piece := await asyncio.to_thread(next, reading, b""):
                yield piece


class UploadStalled(Failed):
    """Who pushes a package sent nothing for too long."""

    id = "package.upload-stalled"


async def _poured(pieces: AsyncIterator[bytes], writing: int, taking: "asyncio.Task[Manifest]") -> None:
    """Pass what arrives on to the thread that reads it; ends early when that has ended."""
    while not taking.done():
        try:
            async with asyncio.timeout(STALLED_UPLOAD_S):
                piece = await anext(pieces, b"")
        except TimeoutError as error:
            raise UploadStalled(
                "The package did not arrive.", cause=f"nothing came for {STALLED_UPLOAD_S:g} s", remedy="push it again"
            ) from error
        if not piece:
            return
        with suppress(BrokenPipeError):
            await asyncio.to_thread(_write_all, writing, piece)


def _write_all(descriptor: int, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[os.write(descriptor, left) :]
