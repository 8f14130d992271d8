"""Taking the write-ahead log into the file, never while anybody writes.

SQLite up to 3.51.2 (Debian 12 has 3.40) can lose committed pages when a commit starts the log anew while another
connection is in the middle of a checkpoint (sqlite.org/wal.html, "the WAL-reset bug"). So nobody here leaves
checkpoints to COMMIT: they are made by a connection of their own while the writing one holds the write lock, in
every process that shares the file.
"""

import contextlib
import sqlite3
from pathlib import Path

import structlog

from .sqlite_file import connect, is_busy

COMMITS_BETWEEN = 100
BYTES_BETWEEN = 4 * 1024 * 1024

log = structlog.get_logger()


class Checkpointer:
    """Counts what one instance commits and makes a checkpoint now and then, between its calls."""

    def __init__(self, path: Path, writing: sqlite3.Connection) -> None:
        self._path = path
        self._writing = writing
        self._connection = connect(path, "rw")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("PRAGMA wal_autocheckpoint=0")
        self._commits = 0
        self._bytes = 0

    def count(self, written_bytes: int) -> None:
        """Note a commit of about that many bytes of keys and values."""
        self._commits += 1
        self._bytes += written_bytes

    def run_if_due(self) -> None:
        """Make a checkpoint if enough was committed and nobody is writing; else try after the next call."""
        if self._commits < COMMITS_BETWEEN and self._bytes < BYTES_BETWEEN:
            return
        try:
            self._writing.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            self._failed(error)
            return
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            self._failed(error)
        finally:
            with contextlib.suppress(sqlite3.Error):
                self._writing.execute("ROLLBACK")
        self._commits = self._bytes = 0

    def close(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _failed(self, error: sqlite3.Error) -> None:
        if not is_busy(error):
            log.warning("store.checkpoint_failed", path=str(self._path), reason=str(error))
