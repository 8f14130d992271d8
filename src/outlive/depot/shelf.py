"""The packages that one host has whole: each manifest with all of its components, under `DATA/depot`.

A package is on the shelf when its manifest is, which comes last: by then every component is here and durable. What
is on the shelf is never collected; what is taken from it goes with the next collection, unless another needs it.
"""

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from outlive.cluster.package import Component, Manifest

from .components import Collected, Components, Hold, Incoming


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong with a package on the shelf: the components that are missing or not what they should be."""

    id: str
    components: tuple[Component, ...]


class Reception:
    """A package on its way to the shelf; it holds its components from the beginning to the end.

    Leaving the `with` without `finish` breaks it off: what came stays for an hour, so that another one goes on there.
    """

    id: str
    manifest: Manifest

    def missing(self) -> tuple[Component, ...]:
        """What has yet to be brought."""
        raise NotImplementedError

    def receive(self, component: Component) -> Incoming:
        """Begin or go on to bring one. Raises PackageInvalid for one that is not of this package, DepotBusy."""
        raise NotImplementedError

    def finish(self) -> None:
        """Put the package on the shelf, durably. Raises ComponentMissing while something is missing."""
        raise NotImplementedError

    def discard(self) -> None:
        """Break off and remove at once what came with it and nothing else needs."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError


class Shelf:
    """The packages and components in a folder, DATA/depot; it is made when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.components = Components(folder)

    def ids(self) -> frozenset[str]:
        """The ids of all packages here."""
        raise NotImplementedError

    def manifest(self, id: str) -> Manifest:
        """The manifest of a package here. Raises PackageMissing; PackageInvalid when its file is damaged."""
        raise NotImplementedError

    def receive(self, manifest: Manifest) -> Reception:
        """Begin or go on to bring a package; fine also when it is here already. Raises PackageInvalid, DepotFull."""
        raise NotImplementedError

    def build(self, folder: Path) -> Manifest:
        """Make a package of a folder with a package.toml and put it on the shelf. Raises as `package.build`."""
        raise NotImplementedError

    def remove(self, id: str) -> bool:
        """Take a package from the shelf; whether it was there. Its components go with the next collection."""
        raise NotImplementedError

    def verify(self, id: str, *, repair: bool = False) -> Damage | None:
        """Read all of a package; what is wrong with it, or None. Raises PackageMissing.

        repair: take a damaged package from the shelf, without what is damaged, so that it can be received anew.
        """
        raise NotImplementedError

    def hold(self) -> Hold:
        """Begin to keep components that are not of a package here yet."""
        raise NotImplementedError

    def collect(self, *, young_s: float = 3600.0) -> Collected:
        """Remove components that no package here needs, nobody holds, and that did not come within young_s."""
        raise NotImplementedError
