"""A store of one process, for benches: every transaction whose comparisons hold is done at once.

It keeps the picture of itself that an agent would, as `cluster.mirror` makes it from the changes.
"""

from collections.abc import Iterable

from outlive.cluster.mirror import Mirror, changed
from outlive.cluster.transaction import Compare, Delete, Field, KeyValue, Put, Transaction


class PretendedStore:
    """Keys with their revisions, and the picture of them. moved: keys that changed since they were last taken."""

    def __init__(self) -> None:
        self._keys: dict[str, KeyValue] = {}
        self._moved: set[str] = set()
        self.revision = 0
        self.mirror = Mirror()

    def transact(self, transaction: Transaction, at: float) -> bool:
        """Try a transaction; whether it was done. at: seconds on the clock of whom the picture is for."""
        if not all(self._holds(each) for each in transaction.compares):
            return False
        self.write(transaction.writes, at)
        return True

    def write(self, writes: Iterable[Put | Delete], at: float) -> None:
        """Write without a condition, all at one revision."""
        self.revision += 1
        changes: list[KeyValue | Delete] = []
        for write in writes:
            self._moved.add(write.key)
            if isinstance(write, Delete):
                if self._keys.pop(write.key, None) is not None:
                    changes.append(write)
                continue
            known = self._keys.get(write.key)
            created = known.create_revision if known is not None else self.revision
            value = self._keys[write.key] = KeyValue(write.key, write.value, created, self.revision, write.lease)
            changes.append(value)
        self.mirror = changed(self.mirror, self.revision, changes, at)

    def moved(self) -> frozenset[str]:
        """The keys that changed since this was last asked."""
        found, self._moved = frozenset(self._moved), set()
        return found

    def _holds(self, compare: Compare) -> bool:
        known = self._keys.get(compare.key)
        if known is None:
            return compare.revision == 0
        stands = known.create_revision if compare.field is Field.CREATED else known.mod_revision
        return stands == compare.revision
