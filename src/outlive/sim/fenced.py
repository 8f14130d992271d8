"""What must hold where hosts are fenced: nothing is placed without the proof that the policy asks for, and no host is
cut off that came back."""

from outlive.cluster import records as rec
from outlive.cluster.boot import is_another_machine, is_another_start
from outlive.cluster.fence import BY_HAND as BY_A_PERSON
from outlive.cluster.fence import EndProof, FenceState
from outlive.cluster.transaction import Delete, KeyValue

from .checker import Checker, KnowsEnds, decoded
from .operators import BY_HAND, OPERATOR
from .parts import Parts
from .store import Changes


class PlacedOnProof(KnowsEnds):
    """Where the policy asks for a fence, a new generation begins only on proof that the old one's host has ended.

    Which machine held a claim it knows by the claim's first word, whatever placements and fences say of it.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._placed: dict[str, rec.PlacementRecord | None] = {}
        self._held_by: dict[tuple[str, int], str] = {}

    def changed(self, origin: str, changes: Changes) -> str | None:
        """Look at new placements; what hands have spoilt is not known any more."""
        for change in changes:
            if change.key.startswith(rec.CLAIMS) and origin != BY_HAND:
                self._note_holder(change)
            if not change.key.startswith(rec.PLACEMENTS):
                continue
            name, placed = rec.name_in(change.key), decoded(change)
            before = self._placed.get(name)
            self._placed[name] = placed if isinstance(placed, rec.PlacementRecord) and origin != BY_HAND else None
            if before is None or before.host is None or not isinstance(placed, rec.PlacementRecord):
                continue
            if origin in (BY_HAND, OPERATOR) or placed.generation <= before.generation or placed.took_over:
                continue
            if self.parts.setup.policies.proof_of_end is EndProof.FENCE and not self._is_proven(before):
                return (
                    f"{name} was placed on {placed.host} at generation {placed.generation}, and nothing proves "
                    f"that {before.host} ended at generation {before.generation}"
                )
        return None

    def _is_proven(self, before: rec.PlacementRecord) -> bool:
        data, host = self.parts.store.data, before.host or ""
        report, fence = decoded(data.get(rec.REPORTS + before.workload)), decoded(data.get(rec.FENCES + host))
        if (
            isinstance(report, rec.ReportRecord)
            and (report.generation, report.host) == (before.generation, host)
            and report.stage in rec.FINAL
        ):
            return True
        if isinstance(fence, rec.FenceRecord) and fence.claim >= before.claim:
            same = not is_another_machine(self._machine(before), self._held_by.get((host, fence.claim), ""))
            by_device = same and (host, fence.claim) in self.parts.fencing.proven
            if fence.state is FenceState.PROVEN and (by_device or fence.method == BY_A_PERSON):
                return True
        return (
            (host, before.workload, before.generation) in self._ended
            or self._came_back(before, host)
            or self.parts.datastore.is_fenced(before.workload, before.generation)
        )

    def _came_back(self, before: rec.PlacementRecord, host: str) -> bool:
        """Whether the same machine has begun anew, or holds a newer claim."""
        value, there = self.parts.store.data.get(rec.CLAIMS + host), self.parts.hosts[host]
        claim = decoded(value)
        if is_another_start(self._machine(before), there.boot_id):
            return True
        if value is None or not isinstance(claim, rec.ClaimRecord) or value.create_revision <= before.claim:
            return False
        return not is_another_machine(self._machine(before), claim.boot_id)

    def _note_holder(self, change: KeyValue | Delete) -> None:
        claim = decoded(change)
        if isinstance(change, KeyValue) and isinstance(claim, rec.ClaimRecord):
            self._held_by.setdefault((claim.host, change.create_revision), claim.boot_id)

    def _machine(self, placed: rec.PlacementRecord) -> str:
        return self._held_by.get((placed.host or "", placed.claim), placed.boot_id)


class HostsThatLiveAreLeftAlone(Checker):
    """No device is asked to cut the power of a host that has held a claim for longer than a leader can have missed."""

    BOUND_S = 10.0

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._held_since: dict[str, float] = {}

    def looked(self) -> str | None:
        """Note who holds a claim."""
        for name in self.parts.hosts:
            if rec.CLAIMS + name in self.parts.store.data:
                self._held_since.setdefault(name, self.parts.agenda.now)
            else:
                self._held_since.pop(name, None)
        return None

    def cut_off(self, host: str, by: str) -> str | None:
        """Look whom it hits."""
        held_s = self.parts.agenda.now - self._held_since.get(host, self.parts.agenda.now)
        if held_s > self.BOUND_S:
            return f"{by} has {host} cut off, which has held its claim for {held_s:.1f} s"
        return None
