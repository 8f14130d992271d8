"""The files of a datastore: the one place that opens, reads and writes them.

Everything here may block for as long as the storage pleases, so it runs in a worker process (or in a command
that may wait). Each operation opens the folder anew and looks at its marker first, then works relative to that
open folder: what is written can reach neither an empty mount point nor another cluster's storage. Names are
checked, links are not followed, pipes and devices are not opened. Bytes only; their meaning is known elsewhere.
This file imports nothing but the standard library, so that a worker starts at once.
"""

import errno
import json
import mmap
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .block import BLOCK_BYTES, whole
from .opening import (
    FORMAT,
    MARKER,
    OPEN_FILE,
    FolderTrouble,
    Trouble,
    check_marker,
    file_name,
    inside,
    is_safe,
    marker_in,
    open_folder,
    read_file,
    sync_folder,
    told,
)

SLOTS = "heartbeats"
TABLES = "tables"
DATA = "data"
PROTECTED = "protected.json"
MOST_SLOTS = 1024
TORN_READS = 3
TORN_WAIT_S = 0.002


class Folder:
    """The datastore at `path`, for the host `host` of the cluster `cluster`. Every method blocks."""

    def __init__(self, path: str, cluster: str, host: str) -> None:
        self._path = path
        self._cluster = cluster
        self._host = file_name(host)
        self._buffer = mmap.mmap(-1, BLOCK_BYTES)  # aligned, as O_DIRECT wants it
        self._tables: list[str] = []
        self._written = 0
        self._swept = False

    def write_slot(self, block: bytes) -> None:
        """Write this host's slot: one synced write in place, so that a reader finds the old or the new one."""
        with self._opened() as root, inside(root, SLOTS) as slots:
            name = f"{self._host}.slot"
            if not self._overwrite(slots, name, block):
                self._replace(slots, name, block)

    def read_slots(self, hosts: list[str] | None) -> dict[str, bytes | str]:
        """The slots of `hosts` (None: of all) that exist: bytes, or in words why they could not be read."""
        with self._opened() as root:
            try:
                with inside(root, SLOTS, make=False) as slots:
                    if hosts is None:
                        names = sorted(entry.name for entry in os.scandir(slots))
                        hosts = [name[:-5] for name in names if name.endswith(".slot") and is_safe(name[:-5])]
                    found = {host: self._read_slot(slots, file_name(host)) for host in hosts[:MOST_SLOTS]}
            except FileNotFoundError:
                return {}
        return {host: raw for host, raw in found.items() if raw is not None}

    def write_table(self, digest: str, raw: bytes) -> None:
        """Write this host's table, and remove all of its older ones but the one before."""
        name = f"{self._host}-{file_name(digest)}"
        with self._opened() as root, inside(root, TABLES) as tables:
            if read_file(tables, name, len(raw)) != raw:
                self._replace(tables, name, raw)
            self._tables = [*(table for table in self._tables if table != name), name][-2:]
            for entry in [entry.name for entry in os.scandir(tables)]:
                if entry.rpartition("-")[0] == self._host and entry not in self._tables:
                    with suppress(FileNotFoundError):
                        os.unlink(entry, dir_fd=tables)

    def read_table(self, host: str, digest: str, most_bytes: int) -> bytes | None:
        """The table file of `host` with that digest; None if there is none."""
        with self._opened() as root:
            try:
                with inside(root, TABLES, make=False) as tables:
                    return read_file(tables, f"{file_name(host)}-{file_name(digest)}", most_bytes)
            except FileNotFoundError:
                return None

    def write_protected(self, raw: bytes) -> None:
        """Replace the protected list."""
        with self._opened() as root:
            self._replace(root, PROTECTED, raw)

    def read_protected(self, most_bytes: int) -> bytes | None:
        """The protected list's file; None if there is none."""
        with self._opened() as root:
            return read_file(root, PROTECTED, most_bytes)

    def space(self) -> dict[str, int]:
        """Bytes in all, bytes and inodes that are free for this user."""
        with self._opened() as root:
            told = os.fstatvfs(root)
        return {
            "total_bytes": told.f_blocks * told.f_frsize,
            "free_bytes": told.f_bavail * told.f_frsize,
            "free_files": told.f_favail,
        }

    def ensure_data_folder(self, workload: str) -> str:
        """Make sure that the workload has a data folder of its own; return its path."""
        name = file_name(workload)
        with self._opened() as root, inside(root, DATA, mode=0o711) as data, inside(data, name):
            return os.path.join(self._path, DATA, name)

    def format(self) -> bool:
        """Mark the folder as this cluster's datastore. False when it was already; another's is left alone."""
        with told(), open_folder(self._path) as root:
            marked = marker_in(root)
            if marked is None:
                text = json.dumps({"format": FORMAT, "cluster": self._cluster}) + "\n"
                self._replace(root, MARKER, text.encode())
            check_marker(root, self._path, self._cluster)
            for name, mode in ((SLOTS, 0o700), (TABLES, 0o700), (DATA, 0o711)):
                with inside(root, name, mode=mode):
                    pass
            return marked is None

    @contextmanager
    def _opened(self) -> Iterator[int]:
        with told(), open_folder(self._path) as root:
            check_marker(root, self._path, self._cluster)
            if not self._swept:
                self._sweep(root)
                self._swept = True
            yield root

    def _overwrite(self, folder: int, name: str, block: bytes) -> bool:
        """Write over an existing slot in place; False if it has to be made anew."""
        for direct in (os.O_DIRECT, 0):  # not every file system knows O_DIRECT
            try:
                fd = os.open(name, os.O_WRONLY | os.O_DSYNC | direct | OPEN_FILE, dir_fd=folder)
            except OSError as error:
                if direct and error.errno == errno.EINVAL:
                    continue
                if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
                    return False
                raise
            try:
                found = os.fstat(fd)
                if not stat.S_ISREG(found.st_mode) or found.st_size != BLOCK_BYTES:
                    return False
                self._buffer[:] = block
                if os.pwritev(fd, [self._buffer], 0) != BLOCK_BYTES:
                    raise FolderTrouble(Trouble.FAILED, "the slot was written in part")
                return True
            except OSError as error:
                if not direct or error.errno != errno.EINVAL:
                    raise
            finally:
                os.close(fd)
        return False

    def _read_slot(self, folder: int, host: str) -> bytes | str | None:
        """The slot's bytes; read again a moment later if the writer was just at it."""
        raw: bytes | None = None
        for attempt in range(TORN_READS):
            if attempt:
                time.sleep(TORN_WAIT_S)
            try:
                raw = self._read_block(folder, f"{host}.slot")
            except OSError as error:
                return error.strerror or str(error)
            if raw is None or whole(raw):
                break
        return raw

    def _read_block(self, folder: int, name: str) -> bytes | None:
        for direct in (os.O_DIRECT, 0):  # directly, so that no page cached on this host is taken for news
            try:
                fd = os.open(name, os.O_RDONLY | direct | OPEN_FILE, dir_fd=folder)
            except FileNotFoundError:
                return None
            except OSError as error:
                if direct and error.errno == errno.EINVAL:
                    continue
                raise
            try:
                found = os.fstat(fd)
                if not stat.S_ISREG(found.st_mode):
                    raise OSError(errno.EINVAL, "not a regular file")
                if found.st_size > BLOCK_BYTES:
                    return b"\0" * (BLOCK_BYTES + 1)
                return self._buffer[: os.preadv(fd, [self._buffer], 0)]
            except OSError as error:
                if not direct or error.errno != errno.EINVAL:
                    raise
            finally:
                os.close(fd)
        return None

    def _replace(self, folder: int, name: str, raw: bytes) -> None:
        """Write a file so that a reader finds the old or the new one, whole, whatever happens meanwhile."""
        self._written += 1
        beside = f".{self._host}.{os.getpid()}.{self._written}.new"
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | OPEN_FILE, 0o600, dir_fd=folder)
        try:
            try:
                rest = memoryview(raw)
                while rest:
                    rest = rest[os.write(fd, rest) :]
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(beside, dir_fd=folder)
            raise
        sync_folder(folder)

    def _sweep(self, root: int) -> None:
        """Remove what an earlier worker of this host left half done; it can then not be finished either."""
        for name in (".", SLOTS, TABLES):
            with suppress(OSError, FolderTrouble), inside(root, name, make=False) as folder:
                for entry in [entry.name for entry in os.scandir(folder)]:
                    if entry.startswith(f".{self._host}.") and entry.endswith(".new"):
                        os.unlink(entry, dir_fd=folder)
