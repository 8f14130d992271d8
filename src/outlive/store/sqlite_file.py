"""The file that the SQLite store lives in: made whole or not at all, recognized, watched for being swapped.

A new file is built under another name and linked into place, so nobody ever meets half a store. An existing
one is first looked at without permission to change it; foreign, newer and damaged files are refused and left
as they are. The file must never be opened here by other means than SQLite: closing any descriptor of it would
drop the locks that this process holds on it.
"""

import errno
import os
import secrets
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import structlog

from .base import (
    StoreCorrupt,
    StoreError,
    StoreForeign,
    StoreFull,
    StoreReplaced,
    StoreUnavailable,
    StoreUncertain,
)

APPLICATION_ID = 0x4F75746C  # "Outl"
SCHEMA_VERSION = 1
OLDEST_SQLITE = (3, 37, 0)  # STRICT tables

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})

_SCHEMA = """
CREATE TABLE state (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    revision INTEGER NOT NULL,
    compacted INTEGER NOT NULL,
    history_bytes INTEGER NOT NULL
) STRICT;
INSERT INTO state VALUES (1, 0, 0, 0);
CREATE TABLE keys (
    key TEXT PRIMARY KEY NOT NULL,
    value ANY NOT NULL,
    create_revision INTEGER NOT NULL,
    mod_revision INTEGER NOT NULL,
    lease INTEGER
) STRICT;
CREATE INDEX keys_by_lease ON keys (lease) WHERE lease IS NOT NULL;
CREATE TABLE leases (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    ttl_s INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    deadline_ns INTEGER NOT NULL
) STRICT;
CREATE TABLE history (
    position INTEGER PRIMARY KEY,
    revision INTEGER NOT NULL,
    key TEXT NOT NULL,
    value ANY, -- NULL: the key was deleted
    create_revision INTEGER NOT NULL,
    lease INTEGER
) STRICT;
CREATE INDEX history_by_revision ON history (revision);
"""

_COLUMNS = {
    "state": "revision, compacted, history_bytes",
    "keys": "key, value, create_revision, mod_revision, lease",
    "leases": "id, ttl_s, boot_id, deadline_ns",
    "history": "position, revision, key, value, create_revision, lease",
}

Identity = tuple[tuple[int, int], ...]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class StoreFile:
    """The file at `path` and its two companions, as they were when it was opened."""

    path: Path
    identity: Identity

    def check(self) -> None:
        """Raise StoreReplaced when the path no longer leads to what was opened."""
        if _identity(self.path) != self.identity:
            raise StoreReplaced(
                f"The store {self.path} was deleted or replaced while in use.",
                cause="the file, or its -wal or -shm beside it, is no longer the one that was opened",
                remedy="put the original files back, or stop all agents of this machine and start them again",
            )


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection for the calling thread. Text arrives as bytes; waiting for locks is the caller's.

    mode: "ro" or "rw", neither of which makes a file.
    """
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=0)
    connection.text_factory = bytes
    return connection


def create_if_missing(path: Path) -> None:
    """Make an empty store at `path` unless something is there already."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StoreUnavailable(
            f"The store needs SQLite {'.'.join(map(str, OLDEST_SQLITE))}; this is {sqlite3.sqlite_version}."
        )
    if path.exists():
        return
    remains = [name for name in (f"{path}-wal", f"{path}-shm") if os.path.exists(name)]
    if remains and not path.exists():
        raise StoreCorrupt(
            f"The store {path} is missing, but {remains[0]} still stands beside where it was.",
            cause="the file was deleted or moved, perhaps while agents were using it",
            remedy="put the file back; or, to begin with an empty store, stop every agent on this machine "
            "and delete what remains",
        )
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        connection = connect(draft, "rw")
        try:
            connection.executescript(f"BEGIN;{_SCHEMA}COMMIT;")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute("PRAGMA journal_mode = WAL")
        finally:
            connection.close()
        os.link(draft, path)
        _sync_folder(path.parent)
    except FileExistsError:
        pass  # somebody else was first; theirs is as good
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(f"{draft}{suffix}").unlink(missing_ok=True)


def verify(path: Path) -> None:
    """Raise StoreForeign or StoreCorrupt unless the file is a sound store of this version.

    Changes nothing in it.
    """
    if path.stat().st_size == 0:
        raise _corrupt(path, "the file is empty")
    connection = connect(path, "ro")
    try:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION_ID:
            raise StoreForeign(
                f"{path} is an SQLite database, but not a store of Outlive.",
                cause=f"its application id is {application:#x}, not {APPLICATION_ID:#x}",
                remedy="name another file as the store",
            )
        if version != SCHEMA_VERSION:
            raise StoreForeign(
                f"The store {path} is of version {version}; this program knows version {SCHEMA_VERSION}.",
                cause="it was made by another version of Outlive",
                remedy="install the version of Outlive that made it, or a newer one",
            )
        problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != b"ok":
            raise _corrupt(path, problem.decode(errors="replace"))
        for table, columns in _COLUMNS.items():
            connection.execute(f"SELECT {columns} FROM {table} LIMIT 0")  # noqa: S608
        if connection.execute("SELECT revision FROM state").fetchone() is None:
            raise _corrupt(path, "its revision is missing")
    except sqlite3.OperationalError as error:
        if _primary_code(error) == sqlite3.SQLITE_ERROR:
            raise _corrupt(path, str(error)) from error
        raise
    finally:
        connection.close()


def open_for_writing(path: Path) -> tuple[sqlite3.Connection, StoreFile]:
    """The connection that writes, each commit synced to the disk before anybody sees it."""
    _close_to_others(path)
    before = _inode(str(path))
    connection = connect(path, "rw")
    try:
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_autocheckpoint=0")  # see sqlite_checkpoint
        connection.execute("PRAGMA journal_size_limit=16777216")
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        if mode != b"wal":
            raise _corrupt(path, f"its journal mode is {mode.decode(errors='replace')}, not wal")
        connection.execute("SELECT revision FROM state").fetchone()
        file = StoreFile(path, _identity(path))
        if file.identity[0] != before:
            file = StoreFile(path, (before, *file.identity[1:]))
            file.check()
    except BaseException:
        connection.close()
        raise
    return connection, file


def open_for_reading(file: StoreFile) -> sqlite3.Connection:
    """The connection that only reads, to the same file."""
    connection = connect(file.path, "ro")
    try:
        connection.execute("SELECT revision FROM state").fetchone()
        file.check()
    except BaseException:
        connection.close()
        raise
    return connection


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection was in the way, for now."""
    return _primary_code(error) in _BUSY


def translate(error: Exception, path: Path, committing: bool = False) -> StoreError:
    """What an exception from SQLite or the file system means for the caller.

    committing: it came out of COMMIT. A full disk there means that the end of the transaction is not in the
    log; after any other failure a later recovery may still find it there.
    """
    if isinstance(error, StoreError):
        return error
    cause = str(error)
    code = _primary_code(error)
    if code == sqlite3.SQLITE_FULL or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
        return StoreFull(
            f"The disk that holds the store {path} is full.",
            cause=cause,
            remedy="make room on that file system; nothing else needs to be done",
        )
    if committing and code not in _BUSY:
        return StoreUncertain(
            f"The store {path} failed while it was writing: the change may or may not be in it.",
            cause=cause,
            remedy="check the disk (dmesg) and read the store again",
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _corrupt(path, cause)
    return StoreUnavailable(
        f"The store {path} cannot be used.",
        cause=cause or type(error).__name__,
        remedy="check that the folder exists, that its disk works and that this user may write there",
    )


def _primary_code(error: Exception) -> int:
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else 0


def _corrupt(path: Path, cause: str) -> StoreCorrupt:
    return StoreCorrupt(
        f"The store {path} is damaged, or is no store.",
        cause=cause,
        remedy="stop every agent on this machine, move the file away (with -wal and -shm), and put a copy "
        "back or begin with an empty store",
    )


def _inode(path: str) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return (0, 0)
    return (stat.st_dev, stat.st_ino)


def _identity(path: Path) -> Identity:
    return tuple(_inode(f"{path}{suffix}") for suffix in ("", "-wal", "-shm"))


def _close_to_others(path: Path) -> None:
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        path.chmod(0o600)
        log.warning("store.permissions_tightened", path=str(path), was=f"{mode:04o}")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
