"""What the cluster asks of its store: compare, then write, in one step.

The vocabulary of transactions, shaped by what etcd v3 can promise: every key has the revision at which it
was created and last modified (0 for an absent key), leases are whole seconds, a transaction either holds
all its comparisons and makes all its writes at one new revision, or writes nothing. How a store does it
lives in `outlive.store`; which keys exist and what they hold lives in `records`.
"""

from dataclasses import dataclass
from enum import StrEnum

MAX_KEY_BYTES = 512
MAX_VALUE_BYTES = 1024 * 1024


class Field(StrEnum):
    """Which number of a key a comparison looks at."""

    CREATED = "create_revision"
    MODIFIED = "mod_revision"


@dataclass(frozen=True, slots=True)
class Compare:
    """Holds when the key's number equals `revision`; an absent key has 0 for both numbers."""

    key: str
    field: Field
    revision: int


@dataclass(frozen=True, slots=True)
class Put:
    """Write a key. With `lease` (an id that the store granted) the key is deleted when that lease ends."""

    key: str
    value: bytes
    lease: int | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a key; removing an absent key is no error."""

    key: str


@dataclass(frozen=True, slots=True)
class Transaction:
    """All of `compares` hold → all of `writes` happen at one revision. Otherwise nothing is written."""

    compares: tuple[Compare, ...]
    writes: tuple[Put | Delete, ...]


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key as it was at some revision of the store."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    lease: int | None = None


@dataclass(frozen=True, slots=True)
class TransactionResult:
    """`revision` is the store's revision after the attempt; the new keys carry it when `succeeded`."""

    succeeded: bool
    revision: int


def absent(key: str) -> Compare:
    """The key must not exist."""
    return Compare(key, Field.MODIFIED, 0)


def unchanged(key: str, mod_revision: int) -> Compare:
    """The key must be as it was when it was read (0: still absent)."""
    return Compare(key, Field.MODIFIED, mod_revision)


def same_incarnation(key: str, create_revision: int) -> Compare:
    """The key must be the one created then: not deleted since, whatever was written to it."""
    return Compare(key, Field.CREATED, create_revision)
