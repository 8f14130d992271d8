"""Small acts on files that the depot is made of: written whole or not at all, locked, synced, every failure told.

All of them go through the functions of `os`, one system call each.
"""

import ctypes
import errno
import fcntl
import os
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import DepotBusy, DepotFailed, DepotFull

LOOK_AGAIN_S = 0.02
WAIT_S = 60.0
RESERVE_BYTES = 256 << 20
RESERVE_PART = 20
_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)

_BEGIN_WRITING = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


@contextmanager
def told(doing: str) -> Iterator[None]:
    """Turn what the system says into DepotFull or DepotFailed. doing: the subject of "… failed"."""
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DepotFull(f"{doing} found no room.", cause=why, remedy="make room on that file system") from error
        raise DepotFailed(f"{doing} failed.", cause=f"{why} ({error.filename})" if error.filename else why) from error


def open_file(path: Path) -> int:
    """Open for reading, without following a link in its place or waiting for a pipe."""
    return os.open(path, os.O_RDONLY | _OPEN)


def make_file(path: Path, mode: int = 0o600) -> int:
    """Make a file that is not there yet and open it for writing and reading."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN, mode)


def make_locked(path: Path) -> int:
    """Make a file that is not there yet, locked, so that no collection takes it for something left over.

    Raises DepotBusy; what was made is gone then.
    """
    fd = make_file(path)
    try:
        # A collection may be looking at it this very moment, whether somebody has it.
        take_lock(fd, f"The new file {path.name}")
    except BaseException:
        os.unlink(path)
        os.close(fd)
        raise
    return fd


def open_or_make(path: Path) -> int:
    """Open a file for writing and reading, empty if it was not there."""
    return os.open(path, os.O_RDWR | os.O_CREAT | _OPEN, 0o600)


def write_all(fd: int, raw: bytes | memoryview) -> None:
    """Write all of it where the file stands."""
    rest = memoryview(raw)
    while rest:
        rest = rest[os.write(fd, rest) :]


def read_whole(path: Path, most_bytes: int) -> bytes:
    """A file's bytes, at most most_bytes + 1 of them."""
    with open(open_file(path), "rb") as file:
        return file.read(most_bytes + 1)


def write_whole(path: Path, raw: bytes, within: Path) -> None:
    """Write a file so that there is the old or the new one, whole, whatever happens. within: where it is gathered."""
    beside = within / f".{secrets.token_hex(8)}"
    fd = make_file(beside)
    try:
        write_all(fd, raw)
        os.fsync(fd)
        os.rename(beside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise
    finally:
        os.close(fd)
    sync_folder(path.parent)


def make_open_folder(folder: Path) -> None:
    """Make a folder and those above it, for all to read, whatever the agent's umask."""
    if not folder.is_dir():
        make_open_folder(folder.parent)
        with suppress(FileExistsError):
            os.mkdir(folder)
            os.chmod(folder, 0o755)  # noqa: S103 – modules run as other users, and read it


def folders_in(folder: Path) -> list[str]:
    """The names of the folders in a folder that are no file of ours; none if it is not there."""
    with suppress(FileNotFoundError):
        return sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith(".") and entry.is_dir())
    return []


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the file system knows how."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(fd)


def sync_tree(folder: Path) -> None:
    """Make everything below a folder durable, and nothing else that the file system may have to write.

    All files are begun to be written before the first is waited for, which makes waiting for the others short.
    Raises OSError.
    """
    for wait in (False, True):
        for at, _, names in os.walk(folder, topdown=False, onerror=_raise):
            for name in names:
                _sync_file(Path(at, name), wait)
            if wait:
                sync_folder(Path(at))


def _sync_file(path: Path, wait: bool) -> None:
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return
    fd = open_file(path)
    try:
        if wait:
            os.fsync(fd)
        else:
            _libc.sync_file_range(fd, 0, 0, _BEGIN_WRITING)  # a hint: sync_file_range(2) promises nothing
    finally:
        os.close(fd)


def _raise(error: OSError) -> None:
    raise error


def try_lock(fd: int, *, shared: bool = False) -> bool:
    """Take the lock of an open file (flock(2)) if it can be had at once."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(
    path: Path,
    who: str,
    *,
    shared: bool = False,
    timeout_s: float = WAIT_S,
    cancelled: threading.Event | None = None,
) -> Iterator[None]:
    """Have a lock file's lock for a while. who: subject of what is told when it stays taken. Raises DepotBusy."""
    fd = open_or_make(path)
    try:
        take_lock(fd, who, shared=shared, timeout_s=timeout_s, cancelled=cancelled)
        yield
    finally:
        os.close(fd)


def take_lock(
    fd: int,
    who: str,
    *,
    shared: bool = False,
    timeout_s: float = WAIT_S,
    cancelled: threading.Event | None = None,
) -> None:
    """Wait for the lock of an open file; the rest as `locked`. Raises DepotBusy."""
    until = time.monotonic() + timeout_s
    while not try_lock(fd, shared=shared):
        if cancelled is not None and cancelled.is_set():
            raise DepotBusy(f"{who} is held by somebody else, and waiting for it was cancelled.")
        if time.monotonic() >= until:
            raise DepotBusy(f"{who} is held by somebody else for {timeout_s:g} s.", remedy="try again later")
        time.sleep(LOOK_AGAIN_S)


def room_for(where: Path | int, need_bytes: int, doing: str) -> None:
    """Raise DepotFull where there is no room for so much beside the reserve.

    The agent's own journal is often on the same file system, and must be written when nothing else fits any more.
    where: a folder or an open file.
    """
    with told(doing):
        free, reserve = _free(where)
    if need_bytes > free - reserve:
        there = f" in {where}" if isinstance(where, Path) else ""
        raise DepotFull(
            f"{doing} needs {need_bytes} bytes, and {free} are free{there}.",
            cause=f"{reserve} bytes stay free for the host itself",
            remedy="make room on that file system",
        )


def has_room(where: Path | int, need_bytes: int) -> bool:
    """Whether there is room for so much beside the reserve. Raises OSError."""
    free, reserve = _free(where)
    return need_bytes <= free - reserve


def _free(where: Path | int) -> tuple[int, int]:
    """Bytes that are free on a file system, and how many of them packages leave alone."""
    seen = os.statvfs(where)
    return seen.f_bavail * seen.f_frsize, min(RESERVE_BYTES, seen.f_blocks * seen.f_frsize // RESERVE_PART)
