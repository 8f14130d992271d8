"""What must never happen: two that act, a right that overlaps, a number that falls, a wrong word about a host.

Each holds at every moment of every run, whatever goes wrong.
"""

from outlive.cluster import records as rec
from outlive.cluster.affinity import Relations
from outlive.cluster.node_state import Phase
from outlive.cluster.records import EventRecord
from outlive.cluster.transaction import KeyValue, Put, Transaction
from outlive.cluster.workload import Apart

from .checker import Checker, KnowsEnds, decoded
from .operators import BY_HAND, OPERATOR
from .parts import Parts
from .store import Changes
from .voices import Disk, Stretch


class NeverTwo(Checker):
    """At most one host acts for a workload at any moment."""

    def acts(self, host: str, workload: str, generation: int) -> str | None:
        """Compare with all that act now."""
        others = {name: g for name, g in self.parts.ledger.acting.get(workload, {}).items() if name != host}
        if not others:
            return None
        told = ", ".join(f"{name} at generation {g}" for name, g in others.items())
        return f"{host} acts for {workload} at generation {generation} while {told} still does"


class ClaimsNeverOverlap(KnowsEnds):
    """A placement names a new host only when the one before it has no right to act any more, whether it acts or not."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._placed: dict[str, rec.PlacementRecord] = {}

    def changed(self, origin: str, changes: Changes) -> str | None:
        """Look at new placements."""
        for change in changes:
            if not change.key.startswith(rec.PLACEMENTS) or not isinstance(change, KeyValue):
                continue
            placed = decoded(change)
            if not isinstance(placed, rec.PlacementRecord):
                continue
            before = self._placed.get(placed.workload)
            self._placed[placed.workload] = placed
            if before is None or placed.generation <= before.generation:
                continue
            if placed.took_over and origin in (placed.host, before.host):
                continue  # its host may still act, but can say nothing any more: `one_voice` sees to that
            if before.host not in (None, placed.host) and self._may_act(before):
                return (
                    f"{placed.workload} was placed on {placed.host} at generation {placed.generation} "
                    f"while {before.host} may still act at generation {before.generation}"
                )
        return None

    def _may_act(self, placed: rec.PlacementRecord) -> bool:
        host = self.parts.hosts[placed.host or ""]
        if not host.powered or not host.guard.allows():
            return False
        if host.journal is None or host.journal.incarnation != placed.claim:
            return False
        if (host.name, placed.workload, placed.generation) in self._ended:
            return False
        report = decoded(self.parts.store.data.get(rec.REPORTS + placed.workload))
        if (
            isinstance(report, rec.ReportRecord)
            and report.generation == placed.generation
            and report.stage in rec.FINAL
        ):
            return False
        if host.agent is None:
            return True
        reign = host.agent.node.reigns.get(placed.workload)
        if reign is not None and reign.generation >= placed.generation:
            return reign.phase is not Phase.ENDED
        return bool(host.agent.node.acted.get(placed.workload, 0) < placed.generation)


ANY = "any host"


class GenerationsOnlyGrow(Checker):
    """A workload's generation never falls, in the store and in what hosts act on; one generation is one host's."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._stored: dict[str, tuple[int, str | None]] = {}
        self._acted: dict[str, tuple[int, str]] = {}

    def changed(self, origin: str, changes: Changes) -> str | None:
        """Look at new placements; what a hand has removed or spoilt may be written again as it can be known."""
        for change in changes:
            if origin == BY_HAND:
                name = rec.name_in(change.key)
                self._stored[name] = (self._stored.get(name, (0, None))[0], ANY)
                continue
            placed = decoded(change) if change.key.startswith(rec.PLACEMENTS) else None
            if not isinstance(placed, rec.PlacementRecord):
                continue
            newest, host = self._stored.get(placed.workload, (0, None))
            if placed.generation < newest:
                return f"{placed.workload} was placed at generation {placed.generation} after {newest}"
            if placed.generation == newest and host != ANY and placed.host not in (None, host):
                return f"{placed.workload} moved from {host} to {placed.host} within generation {newest}"
            self._stored[placed.workload] = (placed.generation, placed.host)
        return None

    def acts(self, host: str, workload: str, generation: int) -> str | None:
        """Compare with the newest that any host has acted on."""
        newest, by = self._acted.get(workload, (0, ""))
        if generation < newest:
            return f"{host} acts for {workload} at generation {generation}, after {by} did at {newest}"
        if generation == newest and by != host:
            return f"{host} acts for {workload} at generation {generation}, which was {by}'s"
        self._acted[workload] = (generation, host)
        return None


class EndedStaysEnded(Checker):
    """A host that has ceased to act at a generation never acts at it again: others may have acted since."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._ended: dict[tuple[str, str], int] = {}

    def ceases(self, host: str, workload: str, generation: int) -> str | None:
        """Note it."""
        self._ended[host, workload] = generation
        return None

    def acts(self, host: str, workload: str, generation: int) -> str | None:
        """Compare with what has ended here."""
        if self._ended.get((host, workload)) == generation:
            return f"{host} acts for {workload} at generation {generation} again, after it had ended there"
        return None


class NoDeadWhileSlotFresh(Checker):
    """No leader calls a host dead whose slot it can read and has seen change, or could have, lately."""

    def recorded(self, host: str, record: EventRecord) -> str | None:
        """Look at each verdict."""
        if record.kind != f"verdict.{rec.Verdict.DEAD}":
            return None
        agent, timing = self.parts.hosts[host].agent, self.parts.setup.timing
        if agent is None:
            return None
        seen_at = agent.talk.slot_seen_at.get(record.host)
        if seen_at is not None and agent.clock() - seen_at < timing.slot_stale_s:
            return f"{host} called {record.host} dead {agent.clock() - seen_at:.2f} s after its slot changed"
        return None


class LeadersWriteInTheirTerm(Checker):
    """What only leaders write is written by the host that holds the leader's key at that moment, by nobody else."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._holder = "nobody"

    def changed(self, origin: str, changes: Changes) -> str | None:
        """Note who takes the key; what hands write over it changes no term."""
        for change in changes:
            if change.key == rec.LEADER:
                if not isinstance(change, KeyValue):
                    self._holder = "nobody"
                elif change.create_revision == change.mod_revision:
                    self._holder = origin
        return None

    def writes(self, origin: str, transaction: Transaction) -> str | None:
        """Look at who writes what only leaders write."""
        if origin in (OPERATOR, BY_HAND):
            return None
        for write in transaction.writes:
            if not write.key.startswith((rec.PLACEMENTS, rec.VERDICTS, rec.FENCES)) or self._holder == origin:
                continue
            if not isinstance(write, Put) or not self._is_a_pairs(origin, write):
                return f"{origin} wrote {write.key} while {self._holder} led"
        return None

    def _is_a_pairs(self, origin: str, write: Put) -> bool:
        """Whether one host of a pair arbitrates as it may: its own part of the placement, or the step to the next."""
        before = decoded(self.parts.store.data.get(write.key))
        after = decoded(KeyValue(write.key, write.value, 1, 1))
        if not isinstance(before, rec.PlacementRecord) or not isinstance(after, rec.PlacementRecord):
            return False
        kept = (before.generation, before.host, before.claim, before.order, before.version, before.restores)
        if (after.generation, after.host, after.claim, after.order, after.version, after.restores) == kept:
            return origin == before.host and after.pairing in (before.pairing, before.pairing + 1)
        on = after.generation == before.generation + 1 and after.took_over and before.order is rec.Order.RUN
        moved = origin == before.host and (after.host, after.claim) == (before.moving_to, before.moving_claim)
        taken = (origin, origin, before.standby_claim) == (before.standby, after.host, after.claim)
        return on and (moved or taken)


class OneVoice(Checker):
    """Nothing that a guest has said is lost when another goes on with it, and who is gone on from says no more."""

    def speaks(self, stretch: Stretch, epoch: int) -> str | None:
        """Compare with where another went on."""
        if stretch.over_at is None or epoch <= stretch.over_at:
            return None
        return (
            f"{stretch.host} lets out epoch {epoch} of {stretch.workload} at generation {stretch.generation}, "
            f"but {stretch.over_by} went on from {stretch.over_at}"
        )

    def adopts(self, before: Stretch, epoch: int, host: str) -> str | None:
        """Compare with what was said already."""
        if before.over_at is not None:
            return f"{host} goes on with {before.workload} of {before.host}, as {before.over_by} had already"
        if before.released > epoch:
            return (
                f"{host} goes on with {before.workload} at epoch {epoch}, but {before.host} had said all "
                f"up to {before.released}"
            )
        return None


class DisksAreNewest(Checker):
    """A machine is started only from disks that hold all that it has ever said; unless an operator chose others."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._keep = {each.workload.name for each in parts.setup.workloads if each.workload.keeps_disks}
        self._chosen: set[str] = set()

    def recorded(self, host: str, record: EventRecord) -> str | None:
        """Note where an operator gave up what only others have."""
        if record.kind == "disks.chosen":
            self._chosen.add(record.workload)
        return None

    def begins(self, workload: str, host: str, before: Stretch | None, disk: Disk | None) -> str | None:
        """Compare what is on the disks with what was said."""
        chosen = workload in self._chosen
        self._chosen.discard(workload)
        if before is None or chosen or workload not in self._keep:
            return None
        if disk is None:
            return f"{host} starts {workload}, none of whose disks it has"
        stretch, epoch = disk
        if stretch is not before or epoch < before.released:
            return (
                f"{host} starts {workload} from disks of generation {stretch.generation} at epoch {epoch}, "
                f"but {before.host} had said all up to {before.released} at generation {before.generation}"
            )
        return None


class CompanyKept(Checker):
    """What is placed, and what follows or is moved, is where its required rules about other workloads let it be.

    Looked at when the leader has written it; what a hand has changed counts from then on as it is.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._relations = Relations({each.workload.name: each.workload for each in parts.setup.workloads})
        self._before: dict[str, tuple[int, frozenset[str]]] = {}

    def changed(self, origin: str, changes: Changes) -> str | None:
        """Look at placements that take a host which they did not have."""
        for change in changes:
            placed = decoded(change) if change.key.startswith(rec.PLACEMENTS) else None
            if not isinstance(placed, rec.PlacementRecord):
                continue
            name, taken = placed.workload, _taken(placed)
            generation, before = self._before.get(name, (0, frozenset[str]()))
            self._before[name] = (placed.generation, taken)
            if origin == BY_HAND or placed.took_over:
                continue
            fresh = taken if placed.generation != generation else taken - before
            if fresh and (wrong := self._wrong(placed, fresh)) is not None:
                return wrong
        return None

    def _wrong(self, placed: rec.PlacementRecord, fresh: frozenset[str]) -> str | None:
        name = placed.workload
        for other, distance in self._relations.apart.get(name, {}).items():
            there = decoded(self.parts.store.data.get(rec.PLACEMENTS + other))
            if not isinstance(there, rec.PlacementRecord) or not self._is_known(other):
                continue
            for one in fresh:
                for host in _taken(there):
                    same_site = self._site(one) == self._site(host) and distance is Apart.SITE
                    if one == host or same_site:
                        return f"{name} was placed on {one}, though {other} is on {host} and they are to be apart"
        for anchor in self._relations.together.get(name, ()):
            there = decoded(self.parts.store.data.get(rec.PLACEMENTS + anchor))
            if not isinstance(there, rec.PlacementRecord) or not self._is_known(anchor):
                continue
            if there.host is not None and placed.host in fresh and there.host != placed.host:
                return f"{name} was placed on {placed.host}, though it goes where {anchor} is, on {there.host}"
        return None

    def _is_known(self, name: str) -> bool:
        """Whether the store says what its rules are; nobody can keep those that a hand has spoilt."""
        return decoded(self.parts.store.data.get(rec.WORKLOADS + name)) is not None

    def _site(self, host: str) -> str:
        return self.parts.hosts[host].member().site  # type: ignore[no-any-return]


def _taken(placed: rec.PlacementRecord) -> frozenset[str]:
    return frozenset(each for each in (placed.host, placed.standby, placed.moving_to) if each is not None)
