"""Manifests as bytes and as ids, and packages made of a folder: `package.toml` beside a folder of files.

There is one way of writing a manifest, so its hash can be its name; what is written otherwise is refused. The nouns
are in `outlive.cluster.package`, the keys of `package.toml` in `outlive.config.package_shape`.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from outlive.cluster.package import (
    FORMAT,
    MODE,
    MOST_FILE_BYTES,
    MOST_FILES,
    MOST_PARTS,
    Manifest,
    PackageFile,
    path_problem,
    problem_with,
)
from outlive.config.package_file import PackageSource, read_package
from outlive.config.package_shape import FILES
from outlive.config.problems import MOST_PROBLEMS, printable

from .components import Components, digest_of
from .errors import PackageInvalid
from .files import open_file
from .holds import Hold

PACKAGE_FILE = "package.toml"
MOST_MANIFEST_BYTES = 4 << 20
_READABLE = 0o400
_FORBIDDEN = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
_KINDS = ((stat.S_ISLNK, "a symbolic link"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))


def manifest_bytes(manifest: Manifest) -> bytes:
    """A manifest in the one way of writing it: JSON, fields in their order, files by path."""
    return msgspec.json.encode(manifest, order="deterministic")


def package_id(manifest: Manifest) -> str:
    """The package's id: the BLAKE3 of `manifest_bytes`, 64 hexadecimal digits."""
    return digest_of(manifest_bytes(manifest))


def read_manifest(raw: bytes, *, id: str | None = None) -> Manifest:
    """Read a manifest from outside. id: what it must be. Raises PackageInvalid, and nothing else for any bytes."""
    if len(raw) > MOST_MANIFEST_BYTES:
        raise _no_manifest(f"It is longer than {MOST_MANIFEST_BYTES} bytes.")
    if id is not None and digest_of(raw) != id:
        raise _no_manifest("It is not the manifest of the package with this id.")
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _no_manifest(f"It cannot be read: {printable(str(error))}.") from error
    if problem := problem_with(manifest):
        raise _no_manifest(problem)
    if manifest_bytes(manifest) != raw:
        raise _no_manifest("It is not written in the one way in which manifests are.")
    return manifest


def checked(manifest: Manifest) -> Manifest:
    """The manifest, if it is one that anybody would take. Raises PackageInvalid."""
    return read_manifest(manifest_bytes(manifest))


def build(folder: Path, components: Components, hold: Hold) -> Manifest:
    """Make a package of a folder with a package.toml; its files are then in `components`, held.

    Raises PackageFileError (from `outlive.config.package_file`) with every mistake in package.toml, PackageInvalid for
    files that cannot be in a package (links, pipes, setuid, names with control characters), DepotFull, DepotFailed.
    """
    source = read_package(folder / PACKAGE_FILE)
    files = folder / source.files
    return checked(
        Manifest(
            format=FORMAT,
            name=source.name,
            version=source.version,
            description=source.description,
            files=_taken_in(files, components, hold) if _is_there(files, source) else (),
            dependencies=source.dependencies,
            install=source.install,
            start=source.start,
            check=source.check,
        )
    )


def _is_there(files: Path, source: PackageSource) -> bool:
    """Whether the package has a folder of files; one that it does not name may be missing."""
    if files.is_dir():
        return True
    if source.files == FILES and not os.path.lexists(files):
        return False
    raise PackageInvalid(
        f"The package {source.name} cannot be made.",
        cause=f"{files} is no folder",
        remedy=f"put the package's files there, or name their folder as `files` in {PACKAGE_FILE}",
    )


def _taken_in(folder: Path, components: Components, hold: Hold) -> tuple[PackageFile, ...]:
    """The files below a folder, by path, their content stored. Raises PackageInvalid with all that is wrong."""
    problems: list[str] = []
    found: list[tuple[str, Path]] = []
    for path in _below(folder, problems, MOST_PARTS):
        name = path.relative_to(folder).as_posix()
        if problem := _name_problem(name) or _problem(path):
            problems.append(f"{printable(str(path))} {problem}")
        found.append((name, path))
        if len(problems) >= MOST_PROBLEMS or len(found) > MOST_FILES:
            break
    if len(found) > MOST_FILES:
        problems.append(f"{folder} has more than {MOST_FILES} files")
    if problems:
        raise _cannot_be_made(folder, problems)
    return tuple(_file(name, path, components, hold) for name, path in sorted(found))


def _file(name: str, path: Path, components: Components, hold: Hold) -> PackageFile:
    try:
        with open(open_file(path), "rb") as file:
            seen = os.fstat(file.fileno())
            if not stat.S_ISREG(seen.st_mode):
                raise _cannot_be_made(path.parent, [f"{printable(str(path))} is no file any more"])
            component = components.add(file, hold)
    except OSError as error:
        raise _cannot_be_made(path.parent, [f"{printable(str(path))} cannot be read: {error.strerror}"]) from error
    return PackageFile(name, stat.S_IMODE(seen.st_mode) & MODE | _READABLE, component.bytes, component.digest)


def _below(folder: Path, problems: list[str], parts: int) -> Iterator[Path]:
    """All that is below a folder and is no folder; links are not followed, nor folders that lie too deep."""
    if not parts:
        problems.append(f"{printable(str(folder))} lies too deep: a path in a package has at most {MOST_PARTS} parts")
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        problems.append(f"{printable(str(folder))} cannot be read: {error.strerror}")
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _below(folder / entry.name, problems, parts - 1)
        else:
            yield folder / entry.name


def _name_problem(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        return "has a name that is not UTF-8"
    return path_problem(name)


def _problem(path: Path) -> str:
    """Why something in the folder cannot be in a package, as a predicate; '' when it can."""
    try:
        seen = os.lstat(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not stat.S_ISREG(seen.st_mode):
        kind = next((name for is_one, name in _KINDS if is_one(seen.st_mode)), "a device")
        return f"is {kind}; a package has files alone"
    if seen.st_mode & _FORBIDDEN:
        return "has the setuid, setgid or sticky bit, which a package cannot give"
    return f"is larger than {MOST_FILE_BYTES} bytes" if seen.st_size > MOST_FILE_BYTES else ""


def _cannot_be_made(folder: Path, problems: list[str]) -> PackageInvalid:
    return PackageInvalid(
        f"A package cannot be made of {printable(str(folder))}.",
        cause="\n".join(problems[:MOST_PROBLEMS]),
        remedy="mend or remove what is named",
    )


def _no_manifest(why: str) -> PackageInvalid:
    return PackageInvalid("A package's manifest is not valid.", cause=why)
