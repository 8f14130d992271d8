"""Installing a package from the shelf into `DATA/packages/NAME/VERSION-HASH/`, beside its other versions.

HASH tells the package and what it was installed with, so that nothing in use is ever changed. A folder is an
installation once its mark is written, which is the last that is done; without it, it is the rest of an attempt that
was killed, which the next attempt clears away. What an installation is made of is in `installed`.
"""

import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from outlive.cluster.package import Manifest, PackageFile
from outlive.errors import OutliveError

from .commands import end_leftovers, run
from .errors import DepotBusy, InstallFailed
from .files import (
    folders_in,
    locked,
    make_file,
    make_open_folder,
    room_for,
    sync_folder,
    sync_tree,
    told,
    write_all,
    write_whole,
)
from .installed import FILES, LOG, MARK, Action, Installed, key_of, mark_bytes, problems_of, read_installed
from .shelf import Shelf

LOCK = ".lock"
LEASH = ".leash"
LOCK_WAIT_S = 600.0
_MORE_WRONG_SHOWN = 5


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


class Installations:
    """What is installed in a folder, DATA/packages. Every method may be called by several threads and processes.

    Those who say what they use (`uninstall_unused`) and those who begin to use it (`install`) share one of these.
    """

    def __init__(self, folder: Path, shelf: Shelf) -> None:
        self.folder = folder
        self.shelf = shelf
        self.marks = threading.Lock()
        """Taken to look whether something is installed, and to end that; never for long."""

    def all(self) -> tuple[Installed, ...]:
        """All that is installed, by name, version and what it was installed with."""
        found = [one for folder in self._folders() if (one := read_installed(folder)) is not None]
        return tuple(sorted(found, key=lambda one: (one.manifest.name, one.manifest.parsed_version, one.key)))

    def find(self, id: str, dependencies: Iterable[Installed] = ()) -> Installed | None:
        """This package as installed with these; None if it is not."""
        with_ = {one.manifest.name: one.key for one in dependencies}
        for one in self.all():
            if one.id == id and dict(one.with_) == with_:
                return one
        return None

    def install(
        self,
        id: str,
        dependencies: Iterable[Installed] = (),
        *,
        report: Report = lambda progress: None,
        cancelled: threading.Event | None = None,
        timeout_s: float = LOCK_WAIT_S,
    ) -> Installed:
        """Install a package from the shelf; what is installed already is returned as it is.

        dependencies: all that it needs itself, installed already (`resolve` tells their order).
        timeout_s: how long to wait for somebody else who installs a package of this name.
        Raises PackageMissing, ComponentMissing, ComponentDamaged (see `Shelf.verify`), DepotFull, DepotBusy,
        InstallFailed (with the end of the log as cause); nothing of a failed attempt is left.
        """
        with_ = tuple(dependencies)
        manifest = self.shelf.manifest(id)
        _check_dependencies(manifest, with_)
        attempt = _Attempt(self, id, manifest, with_, report, cancelled)
        try:
            with told(f"Installing {manifest}"):
                return attempt.make(timeout_s)
        except OutliveError as error:
            attempt.say(Step.FAILED, str(error))
            raise

    def install_after(
        self,
        id: str,
        before: Iterable[Installed],
        *,
        report: Report = lambda progress: None,
        cancelled: threading.Event | None = None,
    ) -> Installed:
        """Install a package with those of these that it needs: the next in the order that `resolve` gave.

        Raises as `install`.
        """
        with_ = _needed_of(self.shelf.manifest(id), before)
        return self.install(id, with_, report=report, cancelled=cancelled)

    def found_after(self, id: str, before: Iterable[Installed]) -> Installed | None:
        """What `install_after` would return as it is; None where it would have to install. Never takes long.

        Raises PackageMissing, InstallFailed, DepotFailed.
        """
        manifest = self.shelf.manifest(id)
        with_ = _needed_of(manifest, before)
        _check_dependencies(manifest, with_)
        with told(f"Looking for {manifest}"), self.marks:
            return read_installed(self.folder / manifest.name / key_of(manifest, with_))

    def verify(self, installed: Installed) -> tuple[str, ...]:
        """What is wrong with its files, a sentence each: missing, changed, other permissions.

        Files that its commands made are no mistake. Raises DepotFailed when they cannot be read.
        """
        with told(f"Verifying {installed.manifest}"):
            return tuple(problems_of(installed.manifest, installed.files))

    def uninstall_unused(
        self, used: Callable[[], Iterable[Installed]], *, timeout_s: float = 0.0
    ) -> tuple[Installed, ...]:
        """Remove all that is not used, nor needed by what is, and what killed attempts left; return what was removed.

        used: called for each name, once nothing of it can be installed, nor be found installed until it is decided; it
        is to return what is in use, or about to be. So whoever says that it uses something before it calls `install`
        keeps what that returns. A name of which something is being installed at this time stays as it is.
        timeout_s: how long to wait for such a one.
        Raises DepotFailed where something could not be removed, after having removed the rest.
        """
        removed: list[Installed] = []
        troubles: list[OSError] = []
        with told("Uninstalling"):
            for name in folders_in(self.folder):
                with suppress(DepotBusy), self.locked(name, timeout_s):
                    for folder, one in self._ended(name, used, troubles):
                        try:
                            remove(folder)
                        except OSError as error:
                            troubles.append(error)
                        else:
                            removed += [one] if one is not None else []
            if troubles:
                raise troubles[0]
        return tuple(removed)

    def _ended(
        self, name: str, used: Callable[[], Iterable[Installed]], troubles: list[OSError]
    ) -> list[tuple[Path, Installed | None]]:
        """Of one name, what is no installation any more from now on, and what it was."""
        found: list[tuple[Path, Installed | None]] = []
        with self.marks:
            kept = self._needed_by(used())
            for folder in self._folders(name):
                if folder.name in kept:
                    continue
                one = read_installed(folder)
                try:
                    _unmark(folder)
                except OSError as error:
                    troubles.append(error)
                else:
                    found.append((folder, one))
        return found

    @contextmanager
    def locked(self, name: str, timeout_s: float, cancelled: threading.Event | None = None) -> Iterator[None]:
        """Have all versions of a package to oneself, with nothing left running of an attempt that was killed."""
        folder = self.folder / name
        make_open_folder(folder)
        with locked(folder / LOCK, f"The package {name}", timeout_s=timeout_s, cancelled=cancelled):
            end_leftovers(folder / LEASH)
            yield

    def _needed_by(self, used: Iterable[Installed]) -> frozenset[str]:
        """The keys of these and of all that they were installed with."""
        there = {(one.manifest.name, one.key): one for one in self.all()}
        waiting = [(one.manifest.name, one.key) for one in used]
        found: set[tuple[str, str]] = set()
        while waiting:
            at = waiting.pop()
            if at not in found:
                found.add(at)
                waiting += list(there[at].with_.items()) if at in there else []
        return frozenset(key for _, key in found)

    def _folders(self, name: str | None = None) -> Iterator[Path]:
        """The folders that are installations, or are to become some."""
        for package in folders_in(self.folder) if name is None else [name]:
            for key in folders_in(self.folder / package):
                yield self.folder / package / key


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One attempt to install one package."""

    where: Installations
    id: str
    manifest: Manifest
    dependencies: tuple[Installed, ...]
    report: Report
    cancelled: threading.Event | None

    def say(self, step: Step, detail: str = "") -> None:
        self.report(Progress(step, self.id, self.manifest.name, self.manifest.version, detail))

    def make(self, timeout_s: float) -> Installed:
        """Install it, or return what is installed. Raises as `Installations.install`, OSError."""
        name, key = self.manifest.name, key_of(self.manifest, self.dependencies)
        folder = self.where.folder / name / key
        with self.where.marks:
            installed = read_installed(folder)
        if installed is None:
            with self.where.locked(name, timeout_s, self.cancelled):
                # Somebody else may have done it meanwhile.
                installed = read_installed(folder) or self._made_anew(folder)
        self.say(Step.INSTALLED, str(folder))
        return installed

    def _made_anew(self, folder: Path) -> Installed:
        """Install it from nothing, or leave nothing."""
        try:
            remove(folder)
            return self._made(folder)
        except BaseException:
            with suppress(OSError):
                remove(folder)
            raise

    def _made(self, folder: Path) -> Installed:
        self.say(Step.VERIFYING)
        room_for(folder.parent, self.manifest.bytes, f"Installing {self.manifest}")
        make_open_folder(folder / FILES)
        with self.where.shelf.components.hold(self.manifest.components):
            for file in self.manifest.files:
                self._check_cancelled()
                self._place(file, folder / FILES)
        installed = Installed(self.id, self.manifest, folder, {one.manifest.name: one.key for one in self.dependencies})
        self._run_install(installed)
        self.say(Step.CHECKING)
        self._check(folder)
        sync_tree(folder)
        self._check_cancelled()
        write_whole(folder / MARK, mark_bytes(installed), folder)
        sync_folder(folder.parent)
        return installed

    def _place(self, file: PackageFile, files: Path) -> None:
        """Write a file of which each byte was checked, with its permissions."""
        path = files / file.path
        make_open_folder(path.parent)
        fd = make_file(path)
        try:
            for piece in self.where.shelf.components.read(file.component):
                self._check_cancelled()
                room_for(fd, len(piece), f"Installing {self.manifest}")
                write_all(fd, piece)
            os.fchmod(fd, file.mode)
        finally:
            os.close(fd)

    def _run_install(self, installed: Installed) -> None:
        command = self.manifest.install
        if command is None:
            return
        self.say(Step.INSTALLING, " ".join(command.command)[:200])
        ran = run(
            installed.command(Action.INSTALL),
            installed.environment(Action.INSTALL),
            installed.files,
            timeout_s=command.timeout_s,
            leash=installed.folder.parent / LEASH,
            log=installed.folder / LOG,
            cancelled=self.cancelled,
        )
        if ran.why:
            raise InstallFailed(
                f"The install command of {self.manifest} failed: {ran.why}.",
                cause=ran.output,
                remedy="mend the package or what it needs of the host; its other versions are as they were",
            )

    def _check(self, folder: Path) -> None:
        """Refuse an installation whose own files are others now: what was checked is what runs."""
        problems = list(problems_of(self.manifest, folder / FILES))
        if problems:
            raise InstallFailed(
                f"The install command of {self.manifest} changed files of the package.",
                cause=" ".join(problems[:_MORE_WRONG_SHOWN]),
                remedy="let it write what it makes into files of their own",
            )

    def _check_cancelled(self) -> None:
        if self.cancelled is not None and self.cancelled.is_set():
            raise InstallFailed(f"Installing {self.manifest} was cancelled.", id="install.cancelled")


def remove(folder: Path) -> None:
    """Remove an installation, or what is left of an attempt; gone already is fine. Raises OSError."""
    _unmark(folder)
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _unmark(folder: Path) -> None:
    """Have it be no installation any more, durably. Raises OSError."""
    with suppress(FileNotFoundError):
        os.unlink(folder / MARK)
        sync_folder(folder)


def _needed_of(manifest: Manifest, before: Iterable[Installed]) -> tuple[Installed, ...]:
    """Those of these that a package needs, by name."""
    needed = (one for one in before if one.manifest.name in manifest.dependencies)
    return tuple(sorted(needed, key=lambda one: one.manifest.name))


def _check_dependencies(manifest: Manifest, dependencies: tuple[Installed, ...]) -> None:
    there = {one.manifest.name: one.manifest.parsed_version for one in dependencies}
    for want in manifest.wants:
        if want.name not in there or there[want.name] not in want.range:
            instead = f"it was to be installed with {there[want.name]}" if want.name in there else "it has none"
            raise InstallFailed(f"{manifest} cannot be installed without {want}.", cause=instead)
    if foreign := sorted(there.keys() - manifest.dependencies.keys()):
        raise InstallFailed(f"{manifest} does not need {', '.join(foreign)}, and is not installed with it.")
