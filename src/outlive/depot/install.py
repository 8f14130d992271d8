"""Installing a package from the shelf into `DATA/packages/NAME/VERSION-HASH/`, beside its other versions.

HASH tells the package and what it was installed with, so that nothing in use is ever changed. A folder is an
installation once its mark is written, which is the last that is done; without it, it is the rest of an attempt that
was killed, which the next attempt clears away. Within are `files/`, where the package's files are and its commands
run, `install.log`, and the mark.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from outlive.cluster.package import Manifest

from .shelf import Shelf


class Step(StrEnum):
    """What is being done. FETCHING is the caller's own, for those who report fetching the same way."""

    FETCHING = "fetching"
    VERIFYING = "verifying"
    INSTALLING = "installing"
    CHECKING = "checking"
    INSTALLED = "installed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of installing one package has begun. detail: one line about it, or ''; why, for FAILED."""

    step: Step
    id: str
    name: str
    version: str
    detail: str = ""


Report = Callable[[Progress], None]
"""Called in the thread that installs; it must not block for long."""


class Action(StrEnum):
    """The commands that a package may have."""

    INSTALL = "install"
    START = "start"
    CHECK = "check"


@dataclass(frozen=True, slots=True)
class Installed:
    """A package as it is installed. key: its folder's name, VERSION-HASH. with_: ids of what it was installed with.

    files: where its files are, and its commands begin.
    """

    id: str
    manifest: Manifest
    key: str
    folder: Path
    with_: Mapping[str, str]

    @property
    def files(self) -> Path:
        return self.folder / "files"

    def command(self, action: Action) -> tuple[str, ...]:
        """The words of a command with `{package}` filled in and its program as a path; () if it has none."""
        raise NotImplementedError

    def environment(self, action: Action) -> dict[str, str]:
        """The variables of a command: its own, OUTLIVE_PACKAGE, and OUTLIVE_PACKAGE_NAME for each that it needs."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended. why: '' when it succeeded, else what went wrong. output: the end of what it wrote."""

    why: str
    output: str


class Installations:
    """What is installed in a folder, DATA/packages. Every method may be called by several threads and processes."""

    def __init__(self, folder: Path, shelf: Shelf) -> None:
        self.folder = folder
        self.shelf = shelf

    def all(self) -> tuple[Installed, ...]:
        """All that is installed, by name and version."""
        raise NotImplementedError

    def find(self, id: str, dependencies: Iterable[Installed] = ()) -> Installed | None:
        """This package as installed with these; None if it is not."""
        raise NotImplementedError

    def install(
        self,
        id: str,
        dependencies: Iterable[Installed] = (),
        *,
        report: Report = lambda progress: None,
        cancelled: threading.Event | None = None,
        timeout_s: float = 600.0,
    ) -> Installed:
        """Install a package from the shelf; what is installed already is returned as it is.

        dependencies: all that it needs, installed already (`resolve` tells their order).
        timeout_s: how long to wait for somebody else who installs a package of this name.
        Raises PackageMissing, ComponentDamaged, DepotFull, DepotBusy, InstallFailed (with the end of the log as cause).
        """
        raise NotImplementedError

    def install_all(
        self, ids: Iterable[str], *, report: Report = lambda progress: None, cancelled: threading.Event | None = None
    ) -> tuple[Installed, ...]:
        """Install packages in the order that `resolve` gave, each with what it needs. Raises as `install`."""
        raise NotImplementedError

    def run(self, installed: Installed, action: Action, *, cancelled: threading.Event | None = None) -> Ran:
        """Run a command of an installed package with its time limit; one that it does not have succeeds."""
        raise NotImplementedError

    def verify(self, installed: Installed) -> tuple[str, ...]:
        """What is wrong with its files, a sentence each: missing, changed, other permissions.

        Files that its commands made are no mistake.
        """
        raise NotImplementedError

    def uninstall_unused(self, used: Callable[[], Iterable[Installed]]) -> tuple[Installed, ...]:
        """Remove all that is not used, nor needed by what is, and what killed attempts left; return what was removed.

        used: called while nothing can be installed.
        """
        raise NotImplementedError
