"""How anything in a datastore is opened: its marker looked at first, no link followed, no name led astray.

What is read and written is in `folder`. Nothing here imports more than the standard library (see `worker`).
"""

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum

MARKER = "outlive-datastore.json"
FORMAT = 1
MOST_MARKER_BYTES = 4096

# A file is opened without waiting, so that a pipe or device that stands in its place blocks nobody.
OPEN_FILE = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Trouble(StrEnum):
    """What can be wrong with a datastore, as the worker tells it."""

    FULL = "full"
    READ_ONLY = "read-only"
    VANISHED = "vanished"
    FOREIGN = "foreign"
    DAMAGED = "damaged"
    DENIED = "denied"
    FAILED = "failed"


_TROUBLES = {
    errno.ENOSPC: Trouble.FULL,
    errno.EDQUOT: Trouble.FULL,
    errno.EROFS: Trouble.READ_ONLY,
    errno.EACCES: Trouble.DENIED,
    errno.EPERM: Trouble.DENIED,
    errno.ENOTCONN: Trouble.VANISHED,
    errno.ECONNABORTED: Trouble.VANISHED,
    errno.ESTALE: Trouble.VANISHED,
    errno.ENODEV: Trouble.VANISHED,
    errno.ENXIO: Trouble.VANISHED,
    errno.ESHUTDOWN: Trouble.VANISHED,
}


class FolderTrouble(Exception):
    """A file operation that did not succeed, and why."""

    def __init__(self, trouble: Trouble, cause: str) -> None:
        super().__init__(cause)
        self.trouble = trouble
        self.cause = cause


@contextmanager
def told() -> Iterator[None]:
    """Turn the kernel's errors into troubles."""
    try:
        yield
    except OSError as error:
        trouble = _TROUBLES.get(error.errno or 0, Trouble.FAILED)
        raise FolderTrouble(trouble, error.strerror or str(error)) from error


@contextmanager
def open_folder(path: str) -> Iterator[int]:
    """Open the folder at `path`, whatever is mounted there now."""
    try:
        root = os.open(path, _OPEN_FOLDER)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FolderTrouble(Trouble.VANISHED, "there is no such folder") from error
    try:
        yield root
    finally:
        os.close(root)


@contextmanager
def inside(parent: int, name: str, make: bool = True, mode: int = 0o700) -> Iterator[int]:
    """Open a folder in an open folder, making it if need be; a link in its place is refused."""
    try:
        fd = os.open(name, _OPEN_FOLDER | os.O_NOFOLLOW, dir_fd=parent)
    except FileNotFoundError:
        if not make:
            raise
        with suppress(FileExistsError):
            os.mkdir(name, mode, dir_fd=parent)
        fd = os.open(name, _OPEN_FOLDER | os.O_NOFOLLOW, dir_fd=parent)
        os.fchmod(fd, mode)
        sync_folder(parent)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise FolderTrouble(Trouble.FAILED, f"{name} is not a folder") from error
        raise
    try:
        yield fd
    finally:
        os.close(fd)


def sync_folder(folder: int) -> None:
    """Make renames and new names durable, where the file system knows how."""
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise


def read_file(folder: int, name: str, most_bytes: int) -> bytes | None:
    """A whole file, or its first most_bytes + 1 bytes; None if there is none."""
    try:
        fd = os.open(name, os.O_RDONLY | OPEN_FILE, dir_fd=folder)
    except FileNotFoundError:
        return None
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise FolderTrouble(Trouble.FAILED, f"{name} is not a regular file")
        return file.read(most_bytes + 1)


def marker_in(root: int) -> str | None:
    """Whose datastore the folder is; None when it has no marker."""
    raw = read_file(root, MARKER, MOST_MARKER_BYTES)
    if raw is None:
        return None
    try:
        marker = json.loads(raw)
        cluster, version = marker["cluster"], marker["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FolderTrouble(Trouble.DAMAGED, f"{MARKER}: {error}") from error
    if version != FORMAT or not isinstance(cluster, str):
        raise FolderTrouble(Trouble.DAMAGED, f"{MARKER} has format {version!r}, this host knows {FORMAT}")
    return cluster


def check_marker(root: int, path: str, cluster: str) -> None:
    marked = marker_in(root)
    if marked is None:
        raise FolderTrouble(Trouble.VANISHED, f"no {MARKER} in {path}: not mounted, or never formatted")
    if marked != cluster:
        raise FolderTrouble(Trouble.FOREIGN, f"it belongs to cluster {marked[:40]}, not {cluster}")


def is_safe(name: str) -> bool:
    """Whether it names a file in a folder and nothing outside; the full rule for names is in `cluster.host`."""
    return 0 < len(name) <= 100 and name[0] != "." and name.isascii() and not set(name) & set("/\0\n")


def file_name(name: str) -> str:
    """`name` if it is safe; FolderTrouble otherwise."""
    if not is_safe(name):
        raise FolderTrouble(Trouble.FAILED, f"{name[:100]!r} cannot be a name")
    return name
