"""What one transaction does to the tables: keys, leases, history, and the revision that orders them.

Everything here happens inside a transaction of SQLite that somebody else begins and ends (`sqlite`), so all
of it takes effect or nothing. Invariants: the revision only grows; each revision's changes stand in the
history in the order they were made, until compacted; a lease that is over by the clock is ended before
anything else is written, whoever comes first.
"""

# ruff: noqa: S608 (the statements are put together from constants of this file; values are always bound)

import itertools
import operator
import sqlite3
from dataclasses import dataclass

from outlive.cluster.transaction import Compare, Delete, Field, KeyValue, Put, Transaction, TransactionResult

from .base import LeaseGone, Listing, WatchBatch
from .boot_clock import BootClock

_NS = 1_000_000_000
_LARGEST_ID = 2**63 - 1

_OVER = "(boot_id <> :boot_id OR deadline_ns <= :now_ns)"

# A leased key without its lease can only be hand-written; it goes the way of those whose lease is over.
_ANY_OVER = f"""
SELECT EXISTS (SELECT 1 FROM leases WHERE {_OVER})
    OR EXISTS (SELECT 1 FROM keys WHERE lease IS NOT NULL AND lease NOT IN (SELECT id FROM leases))
"""
_ALL_OVER = f"""
SELECT id FROM (
    SELECT id, boot_id = :boot_id AS this_boot, deadline_ns FROM leases WHERE {_OVER}
    UNION
    SELECT lease, 0, 0 FROM keys WHERE lease IS NOT NULL AND lease NOT IN (SELECT id FROM leases)
) ORDER BY this_boot, deadline_ns, id
"""
_LIVING = f"(lease IS NULL OR lease IN (SELECT id FROM leases WHERE NOT {_OVER}))"
_KEY_COLUMNS = "key, value, create_revision, mod_revision, lease"
_HISTORY_COST = "length(CAST(key AS BLOB)) + coalesce(length(value), 0) + 64"

Row = tuple[bytes, bytes | int | float, int, int, int | None]


@dataclass(frozen=True, slots=True)
class HistoryLimits:
    """How much of the past is kept for watches. Forgetting goes `step` revisions at a time, to be cheap."""

    revisions: int = 10_000
    step: int = 256
    size_bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Reading:
    """Keys at a revision. `over`: leases were found over, their keys left out, but they are not yet ended."""

    listing: Listing
    over: bool


def read(connection: sqlite3.Connection, clock: BootClock, key: str | None, prefix: str = "") -> Reading:
    """One key, or all with the prefix, without those whose lease is over."""
    (revision,) = connection.execute("SELECT revision FROM state").fetchone()
    # Read after the snapshot was taken, so that no stop of this thread can show a key past its lease.
    now = _now(clock)
    if key is not None:
        where, bounds = "key = :key", {"key": key}
    else:
        where, bounds = _with_prefix(prefix)
    rows: list[Row] = connection.execute(
        f"SELECT {_KEY_COLUMNS} FROM keys WHERE {where} AND {_LIVING} ORDER BY key",
        {**bounds, **now},
    ).fetchall()
    return Reading(Listing(revision, tuple(map(_key_value, rows))), any_over(connection, clock))


def any_over(connection: sqlite3.Connection, clock: BootClock) -> bool:
    """Whether a lease is over that nobody has ended yet."""
    return bool(connection.execute(_ANY_OVER, _now(clock)).fetchone()[0])


def history(
    connection: sqlite3.Connection, prefix: str, first: int, last: int, max_bytes: int
) -> tuple[list[WatchBatch], int]:
    """What changed under the prefix from revision `first` on, a batch for each revision, oldest first.

    Also up to which revision this tells everything: `last`, or an earlier one once `max_bytes` were found.
    """
    where, bounds = _with_prefix(prefix)
    rows = connection.execute(
        "SELECT revision, key, value, create_revision, lease FROM history "
        f"WHERE revision BETWEEN :first AND :last AND {where} ORDER BY revision, position",
        {**bounds, "first": first, "last": last},
    )
    batches: list[WatchBatch] = []
    found_bytes = 0
    for revision, group in itertools.groupby(rows, key=operator.itemgetter(0)):
        if found_bytes >= max_bytes:
            return batches, batches[-1].revision
        changes = tuple(itertools.starmap(_change, group))
        found_bytes += sum(len(change.value) for change in changes if isinstance(change, KeyValue))
        batches.append(WatchBatch(revision, changes))
    return batches, last


class Change:
    """The writing half of a transaction: counts revisions, keeps the history, saves both at the end.

    Made inside BEGIN IMMEDIATE; leases that are over have ended when the constructor returns.
    """

    def __init__(self, connection: sqlite3.Connection, clock: BootClock, limits: HistoryLimits) -> None:
        self._connection = connection
        self._clock = clock
        self._limits = limits
        self.revision, self.compacted, self._history_bytes = connection.execute(
            "SELECT revision, compacted, history_bytes FROM state"
        ).fetchone()
        self.written_bytes = 0
        self._loaded = (self.revision, self.compacted, self._history_bytes)
        for (lease_id,) in connection.execute(_ALL_OVER, _now(clock)).fetchall():
            self.end_lease(lease_id)

    def save(self) -> None:
        """Write down what was counted; forget history beyond the limits."""
        if self.revision - self.compacted >= self._limits.revisions + self._limits.step:
            self.compact(self.revision - self._limits.revisions)
        if self._history_bytes > self._limits.size_bytes:
            self._shrink_history(self._limits.size_bytes * 3 // 4)
        counted = (self.revision, self.compacted, self._history_bytes)
        if counted != self._loaded:
            self._connection.execute("UPDATE state SET revision = ?, compacted = ?, history_bytes = ?", counted)

    def transact(self, transaction: Transaction) -> TransactionResult:
        """Compare and write. Raises LeaseGone before anything of it is written."""
        if not all(map(self._holds, transaction.compares)):
            return TransactionResult(False, self.revision)
        for write in transaction.writes:
            if isinstance(write, Put) and write.lease is not None:
                self._require_lease(write.lease)
        revision = self.revision + 1
        for write in transaction.writes:
            if isinstance(write, Put):
                self._put(write, revision)
            else:
                self._delete(write, revision)
        return TransactionResult(True, self.revision)

    def grant_lease(self, ttl_s: int) -> int:
        """A new lease's id. Ids are never used twice."""
        cursor = self._connection.execute(
            "INSERT INTO leases (ttl_s, boot_id, deadline_ns) VALUES (?, ?, ?)",
            (ttl_s, self._clock.boot_id, self._clock.now_ns() + ttl_s * _NS),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def keep_alive(self, lease_id: int) -> int:
        """Begin the lease's time again; its seconds."""
        ttl_s = self._require_lease(lease_id)
        self._connection.execute(
            "UPDATE leases SET deadline_ns = ? WHERE id = ?", (self._clock.now_ns() + ttl_s * _NS, lease_id)
        )
        return ttl_s

    def end_lease(self, lease_id: int) -> None:
        """Remove the lease; its keys go at one new revision, when it has any."""
        if not 0 < lease_id <= _LARGEST_ID:
            return
        rows = self._connection.execute("SELECT key FROM keys WHERE lease = ? ORDER BY key", (lease_id,))
        keys = [key for (key,) in rows.fetchall()]
        for key in keys:
            self._remember(self.revision + 1, key, None, 0, None)
        if keys:
            self._connection.execute("DELETE FROM keys WHERE lease = ?", (lease_id,))
            self.revision += 1
        self._connection.execute("DELETE FROM leases WHERE id = ?", (lease_id,))

    def compact(self, revision: int) -> None:
        """Forget what changed up to `revision`."""
        if revision <= self.compacted:
            return
        (dropped_bytes,) = self._connection.execute(
            f"SELECT coalesce(sum({_HISTORY_COST}), 0) FROM history WHERE revision <= ?", (revision,)
        ).fetchone()
        self._connection.execute("DELETE FROM history WHERE revision <= ?", (revision,))
        self._history_bytes -= dropped_bytes
        self.compacted = revision

    def _shrink_history(self, to_bytes: int) -> None:
        excess = self._history_bytes - to_bytes
        rows = self._connection.execute(
            f"SELECT revision, sum({_HISTORY_COST}) FROM history GROUP BY revision ORDER BY revision"
        )
        upto = self.compacted
        for revision, cost_bytes in rows:
            upto, excess = revision, excess - cost_bytes
            if excess <= 0:
                break
        rows.close()
        self.compact(upto)

    def _holds(self, compare: Compare) -> bool:
        row = self._connection.execute(
            "SELECT create_revision, mod_revision FROM keys WHERE key = ?", (compare.key,)
        ).fetchone()
        created, modified = row or (0, 0)
        return bool((created if compare.field is Field.CREATED else modified) == compare.revision)

    def _require_lease(self, lease_id: int) -> int:
        row = None
        if 0 < lease_id <= _LARGEST_ID:
            row = self._connection.execute("SELECT ttl_s FROM leases WHERE id = ?", (lease_id,)).fetchone()
        if row is None:
            raise LeaseGone(lease_id)
        return int(row[0])

    def _put(self, put: Put, revision: int) -> None:
        (create_revision,) = self._connection.execute(
            "INSERT INTO keys VALUES (:key, :value, :revision, :revision, :lease) "
            "ON CONFLICT (key) DO UPDATE SET value = excluded.value, "
            "mod_revision = excluded.mod_revision, lease = excluded.lease "
            "RETURNING create_revision",
            {"key": put.key, "value": put.value, "revision": revision, "lease": put.lease},
        ).fetchone()
        self._remember(revision, put.key.encode(), put.value, create_revision, put.lease)
        self.revision = revision

    def _delete(self, delete: Delete, revision: int) -> None:
        if self._connection.execute("DELETE FROM keys WHERE key = ?", (delete.key,)).rowcount:
            self._remember(revision, delete.key.encode(), None, 0, None)
            self.revision = revision

    def _remember(
        self, revision: int, key: bytes, value: bytes | None, create_revision: int, lease: int | None
    ) -> None:
        self._connection.execute(
            "INSERT INTO history (revision, key, value, create_revision, lease) VALUES (?, CAST(? AS TEXT), ?, ?, ?)",
            (revision, key, value, create_revision, lease),
        )
        self._history_bytes += len(key) + len(value or b"") + 64
        self.written_bytes += len(key) + len(value or b"") + 64


def _now(clock: BootClock) -> dict[str, str | int]:
    return {"boot_id": clock.boot_id, "now_ns": clock.now_ns()}


def _with_prefix(prefix: str) -> tuple[str, dict[str, str]]:
    """The condition for keys that start with the prefix, as a range that the index serves."""
    end = _end_of(prefix)
    if end is None:
        return "key >= :prefix", {"prefix": prefix}
    return "key >= :prefix AND key < :end", {"prefix": prefix, "end": end}


def _end_of(prefix: str) -> str | None:
    """The smallest text above all that start with the prefix; None when there is none.

    The bytes of UTF-8 sort like its characters, so the last one is counted up, over the surrogates' gap.
    """
    stem = prefix.rstrip("\U0010ffff")
    if not stem:
        return None
    last = ord(stem[-1]) + 1
    return stem[:-1] + chr(0xE000 if last == 0xD800 else last)


def _change(
    revision: int, key: bytes, value: bytes | int | float | None, create_revision: int, lease: int | None
) -> KeyValue | Delete:
    if value is None:
        return Delete(_text(key))
    return _key_value((key, value, create_revision, revision, lease))


def _key_value(row: Row) -> KeyValue:
    key, value, create_revision, mod_revision, lease = row
    return KeyValue(_text(key), _bytes(value), create_revision, mod_revision, lease)


def _text(key: bytes) -> str:
    return key.decode(errors="backslashreplace")


def _bytes(value: bytes | int | float) -> bytes:
    # Text comes as bytes already; numbers can only be hand-written.
    return value if isinstance(value, bytes) else str(value).encode()
