"""The packages that one host has whole: each manifest with all of its components, under `DATA/depot`.

A package is on the shelf when its manifest is, which comes last: by then every component is here and durable. What
is on the shelf is never collected; what is taken from it goes with the next collection, unless another needs it.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from outlive.cluster.package import Component, Manifest

from .collecting import Collected
from .components import Components, digest_of
from .errors import ComponentMissing, DepotBusy, PackageInvalid, PackageMissing
from .files import read_whole, room_for, told, write_whole
from .holds import Hold
from .incoming import Incoming
from .package import MOST_MANIFEST_BYTES, build, checked, manifest_bytes, package_id, read_manifest

_ID = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong with a package on the shelf: the components that are missing or not what they should be."""

    id: str
    components: tuple[Component, ...]


class Reception:
    """A package on its way to the shelf; it holds its components from the beginning to the end.

    Leaving the `with` without `finish` breaks it off: what came stays for an hour, so that another one goes on there.
    """

    def __init__(self, shelf: "Shelf", manifest: Manifest) -> None:
        self.id = package_id(manifest)
        self.manifest = manifest
        self._shelf = shelf
        self._needed = frozenset(manifest.components)
        self._hold = shelf.components.hold(manifest.components)

    def missing(self) -> tuple[Component, ...]:
        """What has yet to be brought, in the order of digests."""
        return self._shelf.components.missing(self.manifest.components)

    def is_here(self, component: Component) -> bool:
        """Whether this one need not be brought: all of it was read just now. What is brought replaces a damaged one."""
        components = self._shelf.components
        return components.has(component) and components.verify(component)

    def receive(self, component: Component) -> Incoming:
        """Begin or go on to bring one. Raises PackageInvalid for one that is not of this package, DepotFailed."""
        if component not in self._needed:
            raise PackageInvalid(f"The component {component.digest} is none of {self.manifest}.")
        return self._shelf.components.receive(component, self._hold)

    def finish(self) -> None:
        """Put the package on the shelf, durably. Raises ComponentMissing while something is missing."""
        if missing := self.missing():
            raise ComponentMissing(f"{len(missing)} components of {self.manifest} are not here yet.")
        self._shelf.components.settle(self.manifest.components)
        self._shelf.put(self.id, self.manifest)
        self._hold.release()

    def leave(self) -> None:
        """Break it off as it is, to go on later; without effect once it is finished."""
        self._hold.release()

    def discard(self) -> None:
        """Break off and remove at once what came with it and nothing else needs."""
        self._hold.release()
        with suppress(DepotBusy):  # then the next collection does it
            self._shelf.collect(young_s=0.0, only=frozenset(component.digest for component in self._needed))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hold.release()


class Shelf:
    """The packages and components in a folder, DATA/depot; it is made when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.components = Components(folder)
        self._manifests = folder / "packages"

    def ids(self) -> frozenset[str]:
        """The ids of all packages here."""
        with told("Looking through the depot"), suppress(FileNotFoundError):
            return frozenset(name for name in os.listdir(self._manifests) if _ID.fullmatch(name))
        return frozenset()

    def manifest(self, id: str) -> Manifest:
        """The manifest of a package here.

        Raises PackageMissing, also where its file was damaged: then the file is removed, so that it can come anew;
        PackageInvalid for one that this version cannot read.
        """
        missing = PackageMissing(f"The package {id[:64]!r} is not in this host's depot.")
        if not _ID.fullmatch(id):
            raise missing
        with told("Reading a manifest"):
            try:
                raw = read_whole(self._manifests / id, MOST_MANIFEST_BYTES)
            except FileNotFoundError:
                raise missing from None
        if digest_of(raw) != id:
            self.remove(id)
            missing.cause = "what stood there as its manifest was damaged, and was removed"
            raise missing
        return read_manifest(raw)

    def receive(self, manifest: Manifest) -> Reception:
        """Begin or go on to bring a package; fine also when it is here already. Raises PackageInvalid, DepotFull."""
        self._prepare()
        reception = Reception(self, checked(manifest))
        try:
            need = sum(component.bytes for component in reception.missing())
            room_for(self.folder, need, f"Bringing {manifest}")
        except BaseException:
            with reception:
                raise
        return reception

    def build(self, folder: Path) -> Manifest:
        """Make a package of a folder with a package.toml and put it on the shelf. Raises as `package.build`."""
        self._prepare()
        with self.hold() as hold:
            manifest = build(folder, self.components, hold)
            self.components.settle(manifest.components)
            self.put(package_id(manifest), manifest)
        return manifest

    def put(self, id: str, manifest: Manifest) -> None:
        """Put a manifest on the shelf whose components are all here, held and settled."""
        with told("Putting a package on the shelf"):
            write_whole(self._manifests / id, manifest_bytes(manifest), self.components.incoming)

    def remove(self, id: str) -> bool:
        """Take a package from the shelf; whether it was there. Its components go with the next collection."""
        if _ID.fullmatch(id):
            with told("Taking a package from the shelf"), suppress(FileNotFoundError):
                os.unlink(self._manifests / id)
                return True
        return False

    def verify(self, id: str, *, repair: bool = False) -> Damage | None:
        """Read all of a package; what is wrong with it, or None. Raises as `manifest`.

        repair: take a damaged package from the shelf, without what is damaged, so that it can be received anew.
        """
        wrong = tuple(one for one in self.manifest(id).components if not self.components.verify(one))
        if wrong and repair:
            self.remove(id)
            for component in wrong:
                self.components.discard(component)
        return Damage(id, wrong) if wrong else None

    def read_at(self) -> dict[str, float]:
        """When each package here came or was last read through, in seconds since 1970 (see `verifying`)."""
        found: dict[str, float] = {}
        with told("Looking through the depot"):
            for id in self.ids():
                with suppress(FileNotFoundError):
                    found[id] = os.stat(self._manifests / id, follow_symlinks=False).st_mtime
        return found

    def was_read(self, id: str, at: float) -> None:
        """Remember that a package was read through; one that has left meanwhile is fine."""
        with told("Remembering what was read"), suppress(FileNotFoundError):
            os.utime(self._manifests / id, (at, at), follow_symlinks=False)

    def hold(self) -> Hold:
        """Begin to keep components that are not of a package here yet."""
        return self.components.hold()

    def collect(self, *, young_s: float = 3600.0, only: frozenset[str] | None = None) -> Collected:
        """Remove components that no package here needs, nobody holds, and that did not come within young_s.

        only: look at these digests alone.
        Raises PackageInvalid where a manifest is of a later version, since nobody here knows what it needs.
        """
        return self.components.collect(lambda: frozenset(self._needed()), young_s=young_s, only=only)

    def _needed(self) -> Iterator[str]:
        for id in self.ids():
            with suppress(PackageMissing):
                yield from (component.digest for component in self.manifest(id).components)

    def _prepare(self) -> None:
        self.components.prepare()
        with told("Making the depot"):
            self._manifests.mkdir(exist_ok=True, mode=0o700)
