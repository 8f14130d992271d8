"""What must hold because operators wish it of the whole cluster: a frozen one leaves all as it is, a host that is to be
empty gets nothing.

A wish takes a while to reach the leader, and what the leader had sent before still arrives; so each rule holds from
KNOWN_S seconds after the wish stands in the store.
"""

from collections.abc import Iterator

from outlive.cluster import records as rec
from outlive.cluster.policies import Policies
from outlive.cluster.retrying import BY_ITS_FAULT
from outlive.cluster.transaction import KeyValue, Put, Transaction

from .checker import Checker, decoded
from .operators import BY_HAND, OPERATOR
from .parts import Parts

KNOWN_S = 9.0


class FrozenStaysAsItIs(Checker):
    """While the cluster is frozen no leader places, restores or gives a standby to what nobody asked that of."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._since: float | None = None

    def looked(self) -> str | None:
        """Note since when it is frozen."""
        if not self._is_frozen():
            self._since = None
        elif self._since is None:
            self._since = self.parts.agenda.now
        return None

    def writes(self, origin: str, transaction: Transaction) -> str | None:
        """Look at what leaders are about to write."""
        if self._since is None or self.parts.agenda.now - self._since < KNOWN_S or not self._is_frozen():
            return None
        if origin in (OPERATOR, BY_HAND):
            return None
        for before, after in _placed_anew(self.parts, transaction):
            if wrong := self._wrong(before, after):
                return f"{origin} {wrong} {after.workload}, though the cluster is frozen"
        return None

    def _is_frozen(self) -> bool:
        policies = decoded(self.parts.store.data.get(rec.POLICIES))
        return isinstance(policies, Policies) and policies.frozen is not None

    def _wrong(self, before: rec.PlacementRecord, after: rec.PlacementRecord) -> str:
        if self._is_asked_for(before) or self._is_asked_for(after):
            return ""
        if after.restores != before.restores and after.generation == before.generation:
            return "restores a module of"
        if after.generation == before.generation and after.standby not in (None, before.standby):
            emptied = decoded(self.parts.store.data.get(rec.MAINTENANCE + (before.standby or "")))
            return "" if emptied is not None else "chooses a standby for"
        wished = before.order is rec.Order.STOP and not before.reason.startswith(BY_ITS_FAULT)
        if after.generation > before.generation and after.host is not None and not (after.took_over or wished):
            return "places"
        return ""

    def _is_asked_for(self, placed: rec.PlacementRecord) -> bool:
        return placed.operation is not None and rec.OPERATIONS + placed.operation in self.parts.store.data


class EmptiedStaysEmpty(Checker):
    """Nothing is placed on a host in maintenance; only what already followed there may take over."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._since: dict[str, float] = {}

    def looked(self) -> str | None:
        """Note since when which hosts are to be empty."""
        now = self.parts.agenda.now
        for host in self.parts.hosts:
            if not self._is_wished(host):
                self._since.pop(host, None)
            else:
                self._since.setdefault(host, now)
        return None

    def _is_wished(self, host: str) -> bool:
        wish = decoded(self.parts.store.data.get(rec.MAINTENANCE + host))
        return isinstance(wish, rec.MaintenanceRecord) and wish.phase is rec.MaintenancePhase.ON

    def writes(self, origin: str, transaction: Transaction) -> str | None:
        """Look at new placements."""
        if not self._since or origin in (OPERATOR, BY_HAND):
            return None
        for known, after in _placed_anew(self.parts, transaction):
            if after.took_over:
                continue
            for here, there in ((after.host, known.host), (after.standby, known.standby)):
                since = self._since.get(here or "")
                if since is None or self.parts.agenda.now - since < KNOWN_S or not self._is_wished(here or ""):
                    continue
                if here != there or after.generation > known.generation:
                    return f"{origin} gives {here} {after.workload}, though it is to be empty"
        return None


def _placed_anew(parts: Parts, transaction: Transaction) -> Iterator[tuple[rec.PlacementRecord, rec.PlacementRecord]]:
    """The placements that a transaction would change, as they stand and as it writes them.

    One that a hand removed or spoilt, and that is written again as it was, is not among them.
    """
    for write in transaction.writes:
        if not isinstance(write, Put) or not write.key.startswith(rec.PLACEMENTS):
            continue
        before = decoded(parts.store.data.get(write.key))
        after = decoded(KeyValue(write.key, write.value, 1, 1))
        if isinstance(before, rec.PlacementRecord) and isinstance(after, rec.PlacementRecord):
            yield before, after
