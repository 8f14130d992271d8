"""An installed package: what it is, how its commands are called, and whether its files are still what they were.

Its folder has `files/`, where the package's files are and its commands run, `install.log`, and the mark, a file that
says all that there is to know of it. A folder without a mark that can be read is no installation.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from outlive.cluster.host import NAME
from outlive.cluster.package import Manifest, PackageCommand, PackageFile
from outlive.config import placeholders

from .components import digest_of
from .errors import PackageInvalid
from .files import open_file, read_whole
from .package import MOST_MANIFEST_BYTES, manifest_bytes, package_id, read_manifest

FILES = "files"
LOG = "install.log"
MARK = "installed.json"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FORMAT = 1
_HASH_DIGITS = 16
_MOST_MARK_BYTES = 2 * MOST_MANIFEST_BYTES


class Action(StrEnum):
    """The commands that a package may have."""

    INSTALL = "install"
    START = "start"
    CHECK = "check"


@dataclass(frozen=True, slots=True)
class Installed:
    """A package as it is installed. folder: its own.  with_: the keys of what it was installed with, by name."""

    id: str
    manifest: Manifest
    folder: Path
    with_: Mapping[str, str]

    @property
    def key(self) -> str:
        """Its folder's name, VERSION-HASH, which no other installation of this name has."""
        return self.folder.name

    @property
    def files(self) -> Path:
        """Where its files are, and its commands run: what `{package}` stands for."""
        return self.folder / FILES

    def command(self, action: Action) -> tuple[str, ...]:
        """The words of a command with `{package}` filled in; () if it has none."""
        command = self._of(action)
        return tuple(self._filled(word) for word in command.command) if command else ()

    def environment(self, action: Action) -> dict[str, str]:
        """A command's variables: PATH, what it has of its own, and what it needs to find its way.

        OUTLIVE_PACKAGE is the folder of its files, OUTLIVE_PACKAGE_NAME and OUTLIVE_PACKAGE_VERSION what it is, and for
        each package that it was installed with, OUTLIVE_WITH_NAME is the folder of that one's files.
        """
        command = self._of(action)
        own = command.environment if command else {}
        there = self.folder.parent.parent
        return {
            "PATH": PATH,
            "LANG": "C.UTF-8",
            **{name: self._filled(value) for name, value in own.items()},
            "OUTLIVE_PACKAGE": str(self.files),
            "OUTLIVE_PACKAGE_NAME": self.manifest.name,
            "OUTLIVE_PACKAGE_VERSION": self.manifest.version,
            **{
                f"OUTLIVE_WITH_{name.upper().replace('-', '_')}": str(there / name / key / FILES)
                for name, key in self.with_.items()
            },
        }

    def _filled(self, text: str) -> str:
        return placeholders.filled(text, {"package": str(self.files)})

    def _of(self, action: Action) -> PackageCommand | None:
        return {
            Action.INSTALL: self.manifest.install,
            Action.START: self.manifest.start,
            Action.CHECK: self.manifest.check,
        }[action]


def key_of(manifest: Manifest, dependencies: Iterable[Installed]) -> str:
    """The name of the folder that a package gets when it is installed with these."""
    with_ = {one.manifest.name: one.key for one in dependencies}
    return _key(manifest, with_)


class _Mark(msgspec.Struct, frozen=True):
    """The mark. manifest: its bytes, which its id is of."""

    format: int
    manifest: msgspec.Raw
    with_: dict[str, str] = msgspec.field(name="with", default_factory=dict)


def mark_bytes(installed: Installed) -> bytes:
    """The mark of an installation."""
    raw = msgspec.Raw(manifest_bytes(installed.manifest))
    return msgspec.json.encode(_Mark(_FORMAT, raw, dict(installed.with_)))


def read_installed(folder: Path) -> Installed | None:
    """What is installed in a folder; None when it is no installation."""
    with suppress(OSError, msgspec.MsgspecError, ValueError, RecursionError, PackageInvalid):
        mark = msgspec.json.decode(read_whole(folder / MARK, _MOST_MARK_BYTES), type=_Mark)
        manifest = read_manifest(bytes(mark.manifest))
        right = mark.format == _FORMAT and all(
            NAME.fullmatch(name) and _is_key(key) for name, key in mark.with_.items()
        )
        if right and _key(manifest, mark.with_) == folder.name and manifest.name == folder.parent.name:
            return Installed(package_id(manifest), manifest, folder, mark.with_)
    return None


def problems_of(manifest: Manifest, files: Path) -> Iterator[str]:
    """What is wrong with a package's files where they are, a sentence each. Raises OSError."""
    for file in manifest.files:
        problem = _problem(file, files / file.path)
        if problem:
            yield f"The file {file.path!r} {problem}."


def _problem(file: PackageFile, path: Path) -> str:
    try:
        seen = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    if not stat.S_ISREG(seen.st_mode):
        return "is no file any more"
    if stat.S_IMODE(seen.st_mode) != file.mode:
        return f"has the permissions {stat.S_IMODE(seen.st_mode):o} instead of {file.mode:o}"
    if seen.st_size != file.bytes:
        return f"has {seen.st_size} bytes instead of {file.bytes}"
    with open(open_file(path), "rb") as content:
        return "" if digest_of(content) == file.digest else "was changed"


def _key(manifest: Manifest, with_: Mapping[str, str]) -> str:
    told = msgspec.json.encode([package_id(manifest), sorted(with_.items())])
    return f"{manifest.version}-{digest_of(told)[:_HASH_DIGITS]}"


def _is_key(text: str) -> bool:
    """Whether it can be a folder's name, one that leads nowhere else."""
    return 0 < len(text) <= 128 and "/" not in text and not text.startswith(".") and text.isprintable()
